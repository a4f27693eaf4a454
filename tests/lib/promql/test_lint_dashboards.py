from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.paths import ROOT
from tests.lib.promql.lint_dashboards import (
    DASHBOARDS,
    DATASOURCE,
    RULES,
    SIZE_MAX_BYTES,
    UIDS,
    Exclusions,
    Spot,
    lint_dashboard,
    lint_files,
    panels_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json = dict[str, Any]

CHOSEN = 'job=~"$job", instance=~"$instance"'
TARGET = {"datasource": DATASOURCE, "instant": True, "range": False, "format": "time_series"}
ONCE = "max without (instance, pod)"


def _panel(number: int, kind: str, title: str, expr: str, *, legend: str, x: int) -> Json:
    return {
        "id": number,
        "type": kind,
        "title": title,
        "description": f"What {title} is.",
        "gridPos": {"x": x, "y": 1, "w": 8, "h": 4},
        "datasource": DATASOURCE,
        "targets": [{**TARGET, "refId": "A", "expr": expr, "legendFormat": legend}],
        "fieldConfig": {
            "defaults": {
                "unit": "none",
                "noValue": "No data",
                "thresholds": {"mode": "absolute", "steps": [{"color": "blue", "value": None}]},
            },
            "overrides": [],
        },
    }


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": f"The {name}.",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "A"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
    }


def _good() -> Json:
    info = f"exophone_number_info{{{CHOSEN}}}"
    numbers = f"sum({ONCE} (exophone_numbers{{{CHOSEN}}}))"
    polls = f"rate(exophone_polls_total{{{CHOSEN}}}[$__rate_interval])"
    table = _panel(4, "table", "Names", f"{ONCE} ({info})", legend="__auto", x=16)
    table["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byRegexp", "options": "/^(Number|sid|.*_flow_id|account)$/"},
            "properties": [{"id": "unit", "value": "string"}],
        }
    ]
    organize = {
        "excludeByName": {"friendly_name": True},
        "renameByName": {"phone_number": "Number"},
    }
    table["transformations"] = [{"id": "organize", "options": organize}]
    return {
        "uid": "exophone-numbers",
        "title": "ExoPhones / Numbers",
        "description": "An example.",
        "tags": ["exophone"],
        "schemaVersion": 39,
        "editable": False,
        "timezone": "browser",
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["exophone"],
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Data source",
                    "query": "prometheus",
                },
                _variable("job", "Job", "label_values(exophone_up, job)"),
                _variable("instance", "Instance", 'label_values(up{job=~"$job"}, instance)'),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": DATASOURCE,
                    "expr": 'ALERTS{alertstate="firing"}',
                    "iconColor": "red",
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{account}}",
                }
            ]
        },
        "panels": [
            {"id": 1, "type": "row", "title": "Now", "gridPos": {"x": 0, "y": 0, "w": 24, "h": 1}},
            _panel(2, "stat", "Numbers", numbers, legend="Numbers", x=0),
            _panel(3, "timeseries", "Polls", polls, legend="{{account}} {{instance}}", x=8),
            table,
        ],
    }


ROW, STAT, GRAPH, TABLE = range(4)


def _put(path: str, value: object) -> Callable[[Json], None]:
    """A change of what stands at a path such as `panels.1.title`."""

    def change(dashboard: Json) -> None:
        *above, last = path.split(".")
        node: Any = dashboard
        for key in above:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[int(last) if isinstance(node, list) else last] = value

    return change


def _query(expr: str, panel: int = GRAPH) -> Callable[[Json], None]:
    return _put(f"panels.{panel}.targets.0.expr", expr)


def _add_variable(*what: str, **changed: object) -> Callable[[Json], None]:
    def change(dashboard: Json) -> None:
        dashboard["templating"]["list"].append({**_variable(*what), **changed})

    return change


def _twice(panel: int) -> Callable[[Json], None]:
    def change(dashboard: Json) -> None:
        dashboard["panels"].append(deepcopy(dashboard["panels"][panel]))

    return change


def _collapse(dashboard: Json) -> None:
    """All panels go into the row, twice at one place."""
    row, *panels = dashboard["panels"]
    row["panels"] = [*panels, {**panels[0], "id": 9, "title": "Above"}]
    dashboard["panels"] = [row]


LINK = [{"title": "There", "url": "/d/somewhere-else"}]
STEPS = "panels.1.fieldConfig.defaults.thresholds.steps"
BAD = [
    ("dashboard-identity", "uid", _put("uid", "abc")),
    ("dashboard-identity", "title", _put("title", "Numbers")),
    ("dashboard-description", "fragment", _put("description", "Numbers")),
    ("dashboard-portable", "id", _put("id", 7)),
    ("dashboard-portable", "inputs", _put("__inputs", [])),
    ("dashboard-portable", "import", _put("panels.1.datasource", "${DS_PROMETHEUS}")),
    ("dashboard-schema", "old", _put("schemaVersion", 36)),
    ("dashboard-schema", "none", _put("schemaVersion", None)),
    ("uneditable-dashboard", "editable", _put("editable", True)),
    ("dashboard-tags", "none", _put("tags", ["telephony"])),
    ("dashboard-links", "none", _put("links", [])),
    ("dashboard-links", "time", _put("links.0.keepTime", False)),
    ("link-target", "unknown", _put("panels.1.links", LINK)),
    ("dashboard-time", "fixed", _put("time.from", "2026-01-01")),
    ("dashboard-time", "future", _put("time.to", "now+1d")),
    ("dashboard-refresh", "never", _put("refresh", "")),
    ("dashboard-refresh", "always", _put("refresh", "1s")),
    ("dashboard-time-zone", "elsewhere", _put("timezone", "America/New_York")),
    ("datasource-raw", "uid", _put("panels.1.targets.0.datasource.uid", "PBFA97CFB590B2093")),
    ("datasource-raw", "name", _put("annotations.list.0.datasource", "Prometheus")),
    ("template-datasource-rule", "name", _put("templating.list.0.name", "ds")),
    ("template-datasource-rule", "label", _put("templating.list.0.label", "Source")),
    ("template-job-rule", "single", _put("templating.list.1.multi", False)),
    ("template-job-rule", "missing", _put("templating.list.1.name", "work")),
    ("template-instance-rule", "all", _put("templating.list.2.allValue", ".*")),
    ("template-instance-rule", "label", _put("templating.list.2.label", "Target")),
    ("template-label-promql-rule", "function", _put("templating.list.1.query", "label_names()")),
    (
        "template-label-promql-rule",
        "syntax",
        _put("templating.list.1.query", "label_values(a{, b)"),
    ),
    (
        "template-label-promql-rule",
        "metric",
        _put("templating.list.1.query", "label_values(exophone, job)"),
    ),
    (
        "template-label-promql-rule",
        "label",
        _put("templating.list.1.query", "label_values(exophone_up, jobs)"),
    ),
    ("template-on-time-change-reload-rule", "on-load", _put("templating.list.1.refresh", 1)),
    ("variable-shape", "sentence", _put("templating.list.1.description", "")),
    ("variable-shape", "order", _put("templating.list.1.sort", 0)),
    ("variable-all", "none", _put("templating.list.1.includeAll", False)),
    ("variable-defined", "nowhere", _query('exophone_up{account=~"$account"}')),
    ("variable-defined", "built-in", _query("rate(exophone_polls_total[$__rate])")),
    ("variable-defined", "twice", _add_variable("job", "Job", "label_values(up, job)")),
    ("variable-used", "idle", _add_variable("pod", "Pod", "label_values(up, pod)")),
    ("annotation-shape", "colour", _put("annotations.list.0.iconColor", "")),
    (
        "annotation-query",
        "of-all-jobs",
        _put("annotations.list.0.expr", "exophone_up == 0"),
    ),
    ("variable-chained", "job", _put("templating.list.2.query", "label_values(up, instance)")),
    (
        "variable-chained",
        "instance",
        _add_variable("account", "Account", 'label_values(exophone_up{job=~"$job"}, account)'),
    ),
    (
        "variable-shape",
        "definition",
        _add_variable("a", "A", "label_values(up, job)", definition=""),
    ),
    ("replicas-shown", "table", _query(f"exophone_number_info{{{CHOSEN}}}", TABLE)),
    (
        "replicas-shown",
        "pod",
        _query(f"max without (instance) (exophone_numbers{{{CHOSEN}}})", STAT),
    ),
    ("annotation-query", "syntax", _put("annotations.list.0.expr", "ALERTS{")),
    ("annotation-query", "label", _put("annotations.list.0.textFormat", "{{nobody}}")),
    ("panel-ids", "twice", _put("panels.2.id", 2)),
    ("panel-ids", "none", _put("panels.2.id", None)),
    ("panel-titles", "twice", _put("panels.2.title", "Numbers")),
    ("panel-grid", "outside", _put("panels.3.gridPos.x", 17)),
    ("panel-grid", "overlap", _put("panels.2.gridPos.x", 7)),
    ("panel-grid", "none", _put("panels.2.gridPos", None)),
    ("panel-grid", "in-a-row", _collapse),
    ("panel-type", "old", _put("panels.2.type", "graph")),
    ("panel-title-description-rule", "title", _put("panels.1.title", "")),
    ("panel-title-description-rule", "description", _put("panels.1.description", "")),
    ("panel-title-description-rule", "row", _put("panels.0.title", "")),
    ("panel-description", "fragment", _put("panels.1.description", "The numbers")),
    ("panel-units-rule", "none", _put("panels.1.fieldConfig.defaults.unit", "")),
    ("panel-units-rule", "unknown", _put("panels.1.fieldConfig.defaults.unit", "seconds")),
    (
        "panel-units-rule",
        "override",
        _put("panels.3.fieldConfig.overrides.0.properties.0.value", "text"),
    ),
    ("panel-no-value", "silent", _put("panels.1.fieldConfig.defaults.noValue", "")),
    ("panel-thresholds", "default", _put(STEPS, [{"value": None}, {"value": 80}])),
    ("panel-thresholds", "none", _put(STEPS, [])),
    ("panel-thresholds", "no-bottom", _put(STEPS, [{"value": 0}])),
    ("panel-thresholds", "order", _put(STEPS, [{"value": None}, {"value": 2}, {"value": 1}])),
    ("panel-thresholds", "absent", _put("panels.1.fieldConfig.defaults.thresholds", None)),
    ("panel-datasource-rule", "none", _put("panels.1.datasource", None)),
    ("panel-no-targets-rule", "none", _put("panels.1.targets", [])),
    ("target-ref-ids", "none", _put("panels.1.targets.0.refId", "")),
    ("target-ref-ids", "twice", _put("panels.1.targets", [{"refId": "A"}, {"refId": "A"}])),
    ("target-promql-rule", "syntax", _query("sum(exophone_up")),
    ("target-promql-rule", "empty", _query("")),
    (
        "target-rate-interval-rule",
        "fixed",
        _query(f"rate(exophone_polls_total{{{CHOSEN}}}[5m])"),
    ),
    ("target-counter-agg-rule", "bare", _query(f"exophone_polls_total{{{CHOSEN}}}")),
    ("target-job-rule", "none", _query('exophone_up{instance=~"$instance"}')),
    ("target-job-rule", "equal", _query('exophone_up{job="$job", instance=~"$instance"}')),
    ("target-instance-rule", "none", _query('exophone_up{job=~"$job"}')),
    (
        "target-instance-rule",
        "second-selector",
        _query(f"exophone_up{{{CHOSEN}}} and exophone_poll_pages{{job=~'$job'}}"),
    ),
    ("target-logql-rule", "loki", _put("panels.1.targets.0.datasource", {"type": "loki"})),
    ("target-datasource", "none", _put("panels.1.targets.0.datasource", None)),
    ("target-shape", "both", _put("panels.1.targets.0.range", True)),
    ("target-shape", "hidden", _put("panels.1.targets.0.hide", True)),
    ("target-legend", "gone", _put("panels.1.targets.0.legendFormat", "{{account}}")),
    ("target-legend", "same", _put("panels.2.targets.0.legendFormat", "Polls")),
    ("target-legend", "none", _put("panels.2.targets.0.legendFormat", "")),
    ("table-texts", "number", _put("panels.3.transformations", [])),
    ("table-texts", "sid", _put("panels.3.fieldConfig.overrides.0.matcher.options", "/Number/")),
    ("replicas-doubled", "of-promql", _query(f"sum(exophone_numbers{{{CHOSEN}}})")),
]
GOOD_CHANGES = [
    ("dashboard-schema", "newer", _put("schemaVersion", 42)),
    (
        "variable-used",
        "in-a-link",
        lambda d: (
            _add_variable("pod", "Pod", "label_values(up, pod)")(d),
            _put("panels.1.links", [{"url": "/d/exophone-rental?${pod:queryparam}"}])(d),
        ),
    ),
    ("variable-defined", "of-a-value", _put("panels.1.links", [{"url": "?a=${__value.raw}"}])),
    ("link-target", "ours", _put("panels.1.links", [{"url": "/d/exophone-rental?x=1"}])),
    (
        "panel-units-rule",
        "rupees",
        _put("panels.1.fieldConfig.defaults.unit", "currency:financial:₹"),
    ),
    ("panel-thresholds", "two", _put(STEPS, [{"value": None}, {"value": 1}, {"value": 80}])),
    (
        "table-texts",
        "all-strings",
        lambda d: (
            _put("panels.3.fieldConfig.defaults.unit", "string")(d),
            _put("panels.3.fieldConfig.overrides", [])(d),
        ),
    ),
    ("replicas-shown", "side-by-side", _query(f"exophone_numbers_idle{{{CHOSEN}}}")),
    ("target-legend", "auto", _put("panels.2.targets.0.legendFormat", "__auto")),
    (
        "template-label-promql-rule",
        "of-a-counter",
        _put("templating.list.1.query", "label_values(exophone_polls_total, job)"),
    ),
]


def _found(change: Callable[[Json], object]) -> set[str]:
    dashboard = deepcopy(_good())
    change(dashboard)
    return {finding.rule for finding in lint_dashboard(dashboard)}


def test_good_dashboard_has_no_findings() -> None:
    """What the bad examples are changed from offends nothing."""
    assert lint_dashboard(_good()) == []


@pytest.mark.parametrize(
    ("rule", "change"), [pytest.param(e[0], e[2], id=f"{e[0]}-{e[1]}") for e in BAD]
)
def test_bad_dashboard_is_found(rule: str, change: Callable[[Json], object]) -> None:
    """Each rule refuses what it is there to refuse."""
    assert rule in _found(change)


@pytest.mark.parametrize(
    ("rule", "change"), [pytest.param(e[0], e[2], id=f"{e[0]}-{e[1]}") for e in GOOD_CHANGES]
)
def test_good_variants_are_let_pass(rule: str, change: Callable[[Json], object]) -> None:
    """What is near to a bad example and right does not offend that rule."""
    assert rule not in _found(change)


def test_every_rule_has_a_bad_example() -> None:
    """No rule can be dead without notice; that of the size is asked of a file below."""
    assert {*(example[0] for example in BAD), "dashboard-size"} >= RULES


def test_too_large_a_file_is_found(tmp_path: Path) -> None:
    """What Grafana's sidecar could not carry is refused."""
    dashboard, file = _good(), tmp_path / "large.json"
    file.write_text(json.dumps(dashboard) + " " * SIZE_MAX_BYTES, "utf-8")
    assert [f.rule for f in lint_files([file], Exclusions())] == ["dashboard-size"]


def test_panels_of_collapsed_rows_are_linted() -> None:
    """What stands in a row that is closed is held against every rule, too."""
    dashboard = _good()
    _collapse(dashboard)
    dashboard["panels"][0]["panels"][0]["description"] = ""
    assert len(panels_of(dashboard)) == 5
    assert "panel-title-description-rule" in {f.rule for f in lint_dashboard(dashboard)}


def _excluding(rule: str = "target-job-rule", **stated: object) -> Exclusions:
    return Exclusions({"exclusions": {rule: {"reason": "It must be.", **stated}}})


SPOT = Spot("ExoPhones / Numbers", "Polls", 0)


@pytest.mark.parametrize(
    ("exclusions", "lets_pass"),
    [
        pytest.param(_excluding(), True, id="everywhere"),
        pytest.param(_excluding("target-instance-rule"), False, id="another-rule"),
        pytest.param(_excluding(entries=[{"dashboard": SPOT.dashboard}]), True, id="dashboard"),
        pytest.param(_excluding(entries=[{"dashboard": "Other"}]), False, id="other-dashboard"),
        pytest.param(_excluding(entries=[{"panel": "Polls"}]), True, id="panel"),
        pytest.param(_excluding(entries=[{"panel": "Other"}]), False, id="other-panel"),
        pytest.param(_excluding(entries=[{"targetIdx": 0}]), True, id="query"),
        pytest.param(_excluding(entries=[{"targetIdx": "1"}]), False, id="other-query"),
    ],
)
def test_exclusions_let_pass_what_they_name(exclusions: Exclusions, *, lets_pass: bool) -> None:
    """An exclusion is as narrow as it is stated, and one that serves nothing is a finding."""
    assert exclusions.excludes("target-job-rule", SPOT) is lets_pass
    assert [f.rule for f in exclusions.unused()] == ([] if lets_pass else ["exclusion-unused"])


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        pytest.param({"exclusions": {"target-job-rule": None}}, "exclusion-reason", id="none"),
        pytest.param(
            {"exclusions": {"target-job-rule": {"entries": [{"panel": "a"}]}}},
            "exclusion-reason",
            id="entry-without",
        ),
        pytest.param(
            {"exclusions": {"target-jobs": {"reason": "a"}}}, "exclusion-unknown", id="typo"
        ),
        pytest.param({"warnings": {"target-job-rule": None}}, "exclusion-warning", id="warning"),
    ],
)
def test_careless_exclusions_are_findings(content: Json, rule: str) -> None:
    """Every exclusion says why, and of which rule."""
    assert rule in {finding.rule for finding in Exclusions(content).findings}


def test_an_excluded_finding_is_not_reported() -> None:
    """What the file of exclusions names is let pass; all else is not."""
    dashboard = _good()
    _query('exophone_up{account!=""}')(dashboard)
    found = {finding.rule for finding in lint_dashboard(dashboard, _excluding())}
    assert "target-job-rule" not in found
    assert "target-instance-rule" in found


def test_our_dashboards_have_no_findings() -> None:
    """The three dashboards we ship are what the linter asks for, with exclusions that serve."""
    files = sorted(DASHBOARDS.glob("*.json"))
    assert [file.stem for file in files] == sorted(UIDS), "run grafana/generate_dashboards.py"
    assert lint_files(files, Exclusions.from_file()) == []


def test_no_uid_stands_in_another_file() -> None:
    """A dashboard is found at the address that alerts and links name."""
    uids = [json.loads(f.read_text("utf-8"))["uid"] for f in sorted(DASHBOARDS.glob("*.json"))]
    assert uids == [file.stem for file in sorted(DASHBOARDS.glob("*.json"))]


def test_command_prints_findings_and_fails(tmp_path: Path) -> None:
    """The linter can be run on a file while it is written."""
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({**_good(), "editable": True}), "utf-8")
    command = [sys.executable, "-m", "tests.lib.promql.lint_dashboards", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "[uneditable-dashboard]" in done.stdout
