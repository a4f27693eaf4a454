"""The dashboards as files: generated, whole, and of nothing that the exporter does not tell."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import promql_parser as promql
import pytest
import yaml
from exophone_dashboards import exporter, numbers, rental

from exophone_exporter.metrics.catalog import METRICS
from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAFANA: Final = ROOT / "grafana"
UIDS: Final = ("exophone-numbers", "exophone-rental", "exophone-exporter")
DASHBOARDS: Final[dict[str, Any]] = {
    uid: json.loads((GRAFANA / "dashboards" / f"{uid}.json").read_text("utf-8")) for uid in UIDS
}
RULES: Final = ROOT / "prometheus" / "exophone.rules.yml"
MAX_BYTES: Final = 256 * 1024

# What Prometheus itself adds to every target, and where people run replicas in Kubernetes.
TARGET_LABELS: Final = {"job", "instance", "pod"}
ALERT_LABELS: Final = {"alertname", "alertstate", "severity", "account"}
_BUILT_IN: Final = re.compile(r"\$__(?:rate_interval|interval|range)\b")
_VARIABLE: Final = re.compile(r"\$\{?([a-z_]+)(?::[a-z]+)?\}?")
_LABEL_VALUES: Final = re.compile(r"label_values\((.+), *(\w+)\)")

every_dashboard = pytest.mark.parametrize("uid", UIDS)


@dataclass(frozen=True)
class Question:
    """One query, where it stands, and the labels that its legend names."""

    where: str
    expr: str
    legend: str = ""

    def parsed(self) -> promql.Expr:
        return promql.parse(_VARIABLE.sub("x", _BUILT_IN.sub("5m", self.expr)))


def known_labels() -> dict[str, set[str]]:
    """Every series that Prometheus has of an exporter, by name, with its labels."""
    known = {metric.name: set(metric.labels) | TARGET_LABELS for metric in METRICS}
    for metric in METRICS:
        if metric.type == "histogram":
            labels = known.pop(metric.name)
            known |= {f"{metric.name}_{suffix}": labels for suffix in ("count", "sum")}
            known[f"{metric.name}_bucket"] = labels | {"le"}
    python = {"python_info": {"implementation", "major", "minor", "patchlevel", "version"}}
    garbage = {f"python_gc_{what}_total": {"generation"} for what in _GARBAGE}
    plain = {key: set[str]() for key in (*_PROCESS, *_OF_PROMETHEUS)}
    for name, labels in (python | garbage | plain).items():
        known[name] = labels | TARGET_LABELS
    known["ALERTS"] = ALERT_LABELS | TARGET_LABELS
    return known


_GARBAGE: Final = ("objects_collected", "objects_uncollectable", "collections")
_PROCESS: Final = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
_OF_PROMETHEUS: Final = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)
KNOWN: Final = known_labels()


def panels(dashboard: Any) -> Iterator[Any]:
    """Every panel with queries, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        yield from (one for one in (panel, *panel.get("panels", ())) if one["type"] != "row")


def questions(dashboard: Any) -> Iterator[Question]:
    """Every query of panels, variables and annotations."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            where = f"{panel['title']} {target['refId']}"
            yield Question(where, target["expr"], target["legendFormat"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match, variable["query"]
            yield Question(f"variable {variable['name']}", match[1], f"{{{{{match[2]}}}}}")
    for one in dashboard["annotations"]["list"]:
        legend = one["titleFormat"] + one["textFormat"]
        yield Question(f"annotation {one['name']}", one["expr"], legend)


def nodes(expr: promql.Expr) -> list[Any]:
    """Every part of a query."""
    found: list[Any] = []
    promql.walk(expr, found.append)
    selectors = [node.vector_selector for node in found if isinstance(node, promql.MatrixSelector)]
    return [*found, *(one for one in selectors if one not in found)]


def labels_named(node: Any) -> set[str]:
    """The labels that a part of a query names: by, without, on, ignoring, group_left."""
    modifier = getattr(node, "modifier", None)
    if modifier is None:
        return set()
    if isinstance(node, promql.AggregateExpr):
        return set(modifier.labels)
    matching = set(modifier.matching.labels) if modifier.matching else set()
    return matching | set(modifier.group_labels or ())


def labels_made(found: list[Any]) -> set[str]:
    """The labels that a query makes itself: by label_replace, label_join, count_values."""
    calls = [node for node in found if isinstance(node, promql.Call)]
    return {call.args[1].val for call in calls if call.func.name in ("label_replace", "label_join")}


def unknown_in(question: Question) -> list[str]:
    """What a query names that no exporter has."""
    found = nodes(question.parsed())
    selectors = [node for node in found if isinstance(node, promql.VectorSelector)]
    unknown = [one.name or "no name" for one in selectors if one.name not in KNOWN]
    for one in selectors:
        labels = {matcher.name for matcher in one.matchers.matchers}
        unknown += [f"{one.name}{{{name}}}" for name in labels - KNOWN.get(one.name or "", labels)]
    at_hand = labels_made(found).union(*(KNOWN.get(one.name or "", ()) for one in selectors))
    named = set(re.findall(r"{{ *(\w+) *}}", question.legend)).union(*map(labels_named, found))
    return unknown + sorted(named - at_hand)


def test_the_json_is_what_the_source_makes() -> None:
    """A change of the source takes the committed dashboards along."""
    check = subprocess.run(
        [sys.executable, GRAFANA / "generate_dashboards.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_there_are_the_three_dashboards_and_no_other() -> None:
    """A file is named as its uid, by which links and alerts find the dashboard."""
    files = sorted(path.name for path in (GRAFANA / "dashboards").iterdir())
    assert files == sorted(f"{uid}.json" for uid in UIDS)
    assert {uid: made["uid"] for uid, made in DASHBOARDS.items()} == {uid: uid for uid in UIDS}
    made = {one.uid for one in (numbers.DASHBOARD, rental.DASHBOARD, exporter.DASHBOARD)}
    assert made == set(UIDS)


@every_dashboard
def test_a_dashboard_is_small_enough_for_every_way_to_load_it(uid: str) -> None:
    """A ConfigMap holds a mebibyte of several, an HTTP API and a reviewer less."""
    assert (GRAFANA / "dashboards" / f"{uid}.json").stat().st_size < MAX_BYTES


@every_dashboard
def test_the_tag_ties_the_dashboards_together(uid: str) -> None:
    """Each has the tag, and a drop-down of all that have it, which keeps time and choices."""
    dashboard = DASHBOARDS[uid]
    (link,) = dashboard["links"]
    assert link["tags"] == dashboard["tags"] == ["exophone"]
    assert (link["type"], link["asDropdown"]) == ("dashboards", True)
    assert (link["keepTime"], link["includeVars"]) == (True, True)


@every_dashboard
def test_a_dashboard_is_read_only_and_of_the_classic_model(uid: str) -> None:
    """What file provisioning and every Grafana from 10 on load."""
    dashboard = DASHBOARDS[uid]
    assert dashboard["editable"] is False
    assert 39 <= dashboard["schemaVersion"] <= 42
    assert "id" not in dashboard
    assert "version" not in dashboard


@every_dashboard
def test_queries_ask_for_series_and_labels_that_exist(uid: str) -> None:
    """In panels, variables and annotations: metrics, matchers, groupings, joins and legends."""
    found = {one.where: unknown_in(one) for one in questions(DASHBOARDS[uid])}
    assert len(found) > 10
    assert {where: unknown for where, unknown in found.items() if unknown} == {}


@every_dashboard
def test_no_query_needs_our_recording_rules(uid: str) -> None:
    """The dashboards work in a Prometheus that has none of our rules."""
    rules = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    assert recorded
    for one in questions(DASHBOARDS[uid]):
        names = {getattr(node, "name", None) for node in nodes(one.parsed())}
        assert not names & recorded, one.where
        assert not any(name and ":" in name for name in names), one.where


@every_dashboard
def test_columns_that_are_dressed_can_occur(uid: str) -> None:
    """A unit or a link of a column that is named otherwise by now would be lost in silence."""
    for panel in panels(DASHBOARDS[uid]):
        if panel["type"] == "table":
            columns = [
                override["matcher"]["options"]
                for override in panel["fieldConfig"]["overrides"]
                if override["matcher"]["id"] == "byName"
            ]
            strange = [name for name in columns if not _can_occur(name, panel)]
            assert strange == [], panel["title"]


def _can_occur(name: str, panel: Any) -> bool:
    """Whether a column has this name: a label, or one that the query or a transformation gives."""
    exprs = [target["expr"] for target in panel["targets"]]
    labels = set().union(*(KNOWN.get(word, ()) for word in re.findall(r"\w+", " ".join(exprs))))
    texts = {text for expr in exprs for text in re.findall(r'"([^"]*)"', expr)}
    given = {f"Value #{target['refId']}" for target in panel["targets"]} | {"Value", "Time"}
    for one in panel.get("transformations", ()):
        given |= set(one["options"].get("renameByName", {}).values())
    prefixes = tuple(text.removesuffix("$1") for text in texts if text.endswith(" $1"))
    return name in labels | texts | given or (bool(prefixes) and name.startswith(prefixes))


@every_dashboard
def test_links_lead_to_dashboards_of_ours_and_choose_variables_they_have(uid: str) -> None:
    """A link from a cell opens one of the three, with a choice that it understands."""
    text = json.dumps(DASHBOARDS[uid])
    for target, query in re.findall(r'"/d/([\w-]+)\?([^"]*)"', text):
        assert target in UIDS
        chosen = set(re.findall(r"var-(\w+)=", query))
        kept = set(re.findall(r"\$\{(\w+):queryparam\}", query))
        assert chosen <= variables_of(target), (target, chosen)
        assert kept <= variables_of(uid) & variables_of(target), (target, kept)


def variables_of(uid: str) -> set[str]:
    return {variable["name"] for variable in DASHBOARDS[uid]["templating"]["list"]}


def test_alerts_open_dashboards_that_exist_with_variables_that_they_have() -> None:
    """Who follows the link of an alert at night sees what the alert is about."""
    rules = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    alerts = [rule for group in rules for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        address = urlsplit(re.sub(r"{{.*?}}", "x", alert["annotations"]["dashboard_url"]))
        uid = address.path.removeprefix("/d/")
        assert uid in UIDS, alert["alert"]
        chosen = {name for name, _ in parse_qsl(address.query)}
        assert chosen <= {f"var-{name}" for name in variables_of(uid)}, alert["alert"]


def provisioned(kind: str) -> Any:
    return yaml.safe_load((GRAFANA / "provisioning" / kind / "exophone.yml").read_text("utf-8"))


def test_provisioning_reads_the_dashboards_and_nobody_changes_them_in_grafana() -> None:
    """One provider, for one folder; the path is the one that the documentation mounts."""
    file = provisioned("dashboards")
    (provider,) = file["providers"]
    assert file["apiVersion"] == 1
    assert (provider["type"], provider["folder"]) == ("file", "ExoPhones")
    assert provider["allowUiUpdates"] is False
    path = provider["options"]["path"]
    assert f"/grafana/dashboards:{path}:ro" in documentation()


def test_provisioning_has_a_prometheus_that_the_dashboards_can_choose() -> None:
    """The type is the one for which the variable `datasource` asks; the scrape interval agrees."""
    file = provisioned("datasources")
    (source,) = file["datasources"]
    assert (file["apiVersion"], source["type"], source["isDefault"]) == (1, "prometheus", True)
    assert urlsplit(source["url"]).scheme == "http"
    for dashboard in DASHBOARDS.values():
        assert dashboard["templating"]["list"][0]["query"] == source["type"]
    scraping = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]


def documentation() -> str:
    return (ROOT / "docs" / "dashboards.md").read_text("utf-8")


@every_dashboard
def test_the_documentation_names_every_panel(uid: str) -> None:
    """What a dashboard shows is told where people look it up."""
    text = documentation()
    titles = {panel["title"] for panel in panels(DASHBOARDS[uid])}
    assert {title for title in titles if title not in text} == set()
    assert all(f"`{name}`" in text for name in variables_of(uid))
