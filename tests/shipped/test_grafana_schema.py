"""The dashboards' JSON has what we rely on, and the schema that says so refuses the rest."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]  # no stubs among the lint tools
import pytest

from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
SCHEMA = json.loads(
    (ROOT / "tests" / "lib" / "grafana" / "dashboard.schema.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
LARGEST_BYTES = 256 * 1024

Json = dict[str, Any]


def loaded(file: Path) -> Json:
    found: Json = json.loads(file.read_text("utf-8"))
    return found


def problems(dashboard: Json) -> list[str]:
    """Where a dashboard is not as the schema says, and why."""
    found = VALIDATOR.iter_errors(dashboard)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


def a_panel(dashboard: Json, kind: str) -> Json:
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_is_as_its_schema_says(file: Path) -> None:
    """Titles, descriptions, units, thresholds, reasons for emptiness: nothing is forgotten."""
    assert not problems(loaded(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_is_small(file: Path) -> None:
    """A ConfigMap and a review can hold it."""
    assert file.stat().st_size < LARGEST_BYTES


def test_the_schema_is_one() -> None:
    """A mistake in the schema itself would let everything pass."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert len(FILES) == 3


def field(panel: Json) -> Json:
    defaults: Json = panel["fieldConfig"]["defaults"]
    return defaults


SPOILED: dict[str, Callable[[Json], Any]] = {
    "an id of one Grafana": lambda d: d.update(id=7),
    "editable": lambda d: d.update(editable=True),
    "a schema that Grafana 10 does not know": lambda d: d.update(schemaVersion=43),
    "without our tag": lambda d: d.update(tags=["phones"]),
    "without the other dashboards": lambda d: d.update(links=[]),
    "without a data source to choose": lambda d: d["templating"]["list"].pop(0),
    "a variable of one value": lambda d: d["templating"]["list"][1].update(multi=False),
    "no title": lambda d: a_panel(d, "stat").update(title=""),
    "no description": lambda d: a_panel(d, "stat").pop("description"),
    "a data source of one Grafana": lambda d: a_panel(d, "stat").update(datasource={"uid": "x"}),
    "a query of the default data source": lambda d: a_panel(d, "stat")["targets"][0].pop(
        "datasource"
    ),
    "beyond the grid": lambda d: a_panel(d, "stat")["gridPos"].update(x=24),
    "no unit": lambda d: field(a_panel(d, "stat")).pop("unit"),
    "no reason": lambda d: field(a_panel(d, "stat")).update(noValue="-"),
    "Grafana's own thresholds": lambda d: field(a_panel(d, "stat")).pop("thresholds"),
    "thresholds from nowhere": lambda d: field(a_panel(d, "stat"))["thresholds"]["steps"].pop(0),
    "now and over time": lambda d: a_panel(d, "stat")["targets"][0].update(
        instant=True, range=True
    ),
    "a table of points": lambda d: a_panel(d, "table")["targets"][0].update(
        instant=False, range=True
    ),
    "states without names": lambda d: field(a_panel(d, "state-timeline")).update(
        color={"mode": "thresholds"}
    ),
    "a panel that nobody tests": lambda d: a_panel(d, "stat").update(type="heatmap"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_the_schema_refuses(spoil: Callable[[Json], Any]) -> None:
    """What it holds is held: each of these would be found."""
    (numbers,) = (loaded(file) for file in FILES if file.stem == "exophone-numbers")
    spoiled = copy.deepcopy(numbers)
    spoil(spoiled)
    assert len(problems(spoiled)) > len(problems(numbers))
