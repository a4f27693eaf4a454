"""Every query of every dashboard gives the values that a fixed world says, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.lib.dashboards.expectations import EXPECTED, View, findings
from tests.lib.dashboards.grafana_queries import (
    Variable,
    annotation_answers,
    panels,
    targets,
    variables,
)
from tests.lib.dashboards.scene import CROWD, FIXED_WORLD, JOB, RULES, STRETCH, Scene
from tests.lib.paths import ROOT

pytestmark = pytest.mark.end_to_end

DASHBOARDS: Final[dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted(ROOT.glob("grafana/dashboards/*.json"))
}


def live(scene: Scene) -> View:
    return View(scene, scene.pair, scene.live, scene.instances)


def slow(scene: Scene) -> View:
    """The same at the pace of a real exporter: what graphs need."""
    return View(scene, scene.stretched, scene.slow, scene.instances, pace=STRETCH)


def crowd(scene: Scene, job: str, series: str) -> View:
    """One of several jobs, each of a single exporter, whose other series must not mix in."""
    instances = (scene.crowd_instances[job],)
    chosen = {"job": (job,)}
    return View(scene, scene.crowd, scene.live, instances, job, series, chosen=chosen)


def of_dashboard(view: View, uid: str) -> View:
    known = {one["name"] for one in DASHBOARDS[uid]["templating"]["list"]}
    chosen = {name: values for name, values in view.chosen.items() if name in known}
    return replace(view, chosen=chosen)


def choices(view: View, uid: str) -> dict[str, Variable]:
    chosen = of_dashboard(view, uid).chosen
    return variables(DASHBOARDS[uid], view.server, view.span, chosen)


def asked(view: View, uid: str, *, graphs: bool) -> Iterator[str]:
    dashboard = DASHBOARDS[uid]
    chosen = choices(view, uid)
    for target in targets(dashboard, chosen, view.span):
        if graphs or target.target["instant"]:
            yield from findings(of_dashboard(view, uid), target, EXPECTED[uid][target.key])


def test_every_query_has_an_expectation_and_every_expectation_a_query() -> None:
    queries = {
        uid: [(panel["title"], one["refId"]) for panel in panels(model) for one in panel["targets"]]
        for uid, model in DASHBOARDS.items()
    }
    assert {uid: sorted(keys) for uid, keys in queries.items()} == {
        uid: sorted(expected) for uid, expected in EXPECTED.items()
    }


@pytest.mark.parametrize("uid", EXPECTED)
def test_the_present_is_what_the_world_says(played_scene: Scene, uid: str) -> None:
    """Two replicas scraped for a while: their figures are right, and not doubled."""
    assert list(asked(live(played_scene), uid, graphs=False)) == []


@pytest.mark.parametrize("uid", EXPECTED)
def test_the_graphs_are_what_the_world_says(played_scene: Scene, uid: str) -> None:
    """At the pace of minutes, through a failing while, and the restart of one replica."""
    assert list(asked(slow(played_scene), uid, graphs=True)) == []


CHOICES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "account": {"account": ("support",)},
    "accounts": {"account": ("apac", "empty")},
    "circle": {"region": ("MU", "SG")},
    "type": {"number_type": ("Mobile", "TollFree"), "account": ("support",)},
    "currency": {"currency": ("SGD",)},
    "number": {"number": ("912240110008",)},
}


@pytest.mark.parametrize("uid", EXPECTED)
@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
def test_what_is_chosen_is_what_is_shown(
    played_scene: Scene, uid: str, chosen: dict[str, tuple[str, ...]]
) -> None:
    """Every query follows every variable, and those of whole accounts say that they do not."""
    view = replace(slow(played_scene), chosen=chosen)
    assert list(asked(view, uid, graphs=True)) == []


# Panels of whole exporters; one that asks for the date, and those that say that there is nothing.
OF_EVERY_ACCOUNT: Final = {
    "Build",
    "Configuration",
    "CPU",
    "Exporters",
    "Memory",
    "New series in a scrape",
    "Open files",
    "Rules that match nothing",
    "Samples in a scrape",
    "Scrape duration",
    "Uptime",
}
OF_NO_EXPORTER: Final = {
    "Attachment of the numbers that changed",
    "History of one number",
    "Next charge",
}


@pytest.mark.parametrize("uid", EXPECTED)
@pytest.mark.parametrize(
    ("variable", "untouched"),
    [
        ("job", OF_NO_EXPORTER),
        ("instance", OF_NO_EXPORTER),
        ("account", OF_NO_EXPORTER | OF_EVERY_ACCOUNT),
    ],
)
def test_a_choice_that_matches_nothing_shows_nothing(
    played_scene: Scene, uid: str, variable: str, untouched: set[str]
) -> None:
    view = replace(slow(played_scene), chosen={variable: ("none of them",)})
    asked_all = list(targets(DASHBOARDS[uid], choices(view, uid), view.span))
    found = {one.panel["title"] for one in asked_all if one.ask(view.server)["data"]["result"]}
    assert found == untouched & {one.panel["title"] for one in asked_all}


@pytest.mark.parametrize("uid", EXPECTED)
@pytest.mark.parametrize(("job", "series"), CROWD.items())
def test_a_job_of_any_name_with_any_choice_of_series(
    played_scene: Scene, uid: str, job: str, series: str
) -> None:
    """A job name is not a regular expression; `per_number.series` may be each of the three."""
    assert list(asked(crowd(played_scene, job, series), uid, graphs=False)) == []


@pytest.mark.parametrize("uid", EXPECTED)
def test_counters_survive_a_restart(played_scene: Scene, uid: str) -> None:
    """Of a single exporter, too: no other replica covers for it."""
    alone = (played_scene.restarted,)
    view = replace(slow(played_scene), instances=alone, chosen={"instance": alone})
    assert list(asked(view, uid, graphs=True)) == []


def world_values(scene: Scene, key: str) -> set[str]:
    worlds = (FIXED_WORLD, scene.numbers)
    every = (one for world in worlds for numbers in world.values() for one in numbers)
    return {one[key] for one in every if one.get(key)}


@pytest.mark.parametrize("uid", EXPECTED)
def test_the_variables_offer_what_the_world_has(played_scene: Scene, uid: str) -> None:
    """Each account once, that without numbers and that which was never polled too."""
    found = choices(live(played_scene), uid)
    offered = {name: list(one.options) for name, one in found.items() if name != "datasource"}
    expected = {
        "job": {JOB},
        "instance": set(played_scene.instances),
        "account": set(FIXED_WORLD),
        "exporter": set(played_scene.instances),
        "number": {""},
        "owner": {rule.owner for rule in RULES if rule.owner},
        **{key: world_values(played_scene, key) for key in ("region", "number_type", "currency")},
    }
    assert offered == {name: sorted(expected[name]) for name in offered}
    assert {"job", "instance", "account"} <= offered.keys()


@pytest.mark.parametrize("uid", EXPECTED)
def test_a_choice_narrows_the_choices_after_it(played_scene: Scene, uid: str) -> None:
    job = next(iter(CROWD))
    found = choices(crowd(played_scene, job, CROWD[job]), uid)
    assert sorted(found["job"].options) == sorted(CROWD)
    assert found["instance"].options == (played_scene.crowd_instances[job],)
    if "currency" in found:
        view = replace(live(played_scene), chosen={"account": ("apac",)})
        assert choices(view, uid)["currency"].options == ("INR", "SGD", "USD")


MARKS: Final = {
    "Firing alerts": {"support", "apac"},
    "Changes": {"support", "apac"},
}


@pytest.mark.parametrize("uid", EXPECTED)
def test_the_annotations_mark_what_happened(played_scene: Scene, uid: str) -> None:
    view = slow(played_scene)
    found = annotation_answers(DASHBOARDS[uid], view.server, choices(view, uid), view.span)
    accounts = {
        name: {series["metric"]["account"] for series in answer["data"]["result"]}
        for name, answer in found.items()
    }
    assert accounts == {name: MARKS[name] for name in accounts}
