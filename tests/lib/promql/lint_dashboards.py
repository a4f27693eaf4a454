"""A linter of Grafana dashboards in the classic JSON model.

    python tests/lib/promql/lint_dashboards.py grafana/dashboards/*.json

The rules named `...-rule` (and `uneditable-dashboard`) are those of Grafana's own linter, so that
one file of exclusions, grafana/.lint, serves both. The others are ours.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.lib.paths import ROOT
from tests.lib.promql.catalogue import NONE, REPLICA, Labels
from tests.lib.promql.lint import RULES as PROMQL_RULES
from tests.lib.promql.lint import Habits, Query, inspect
from tests.lib.promql.tree import BUILT_IN, VARIABLE, Finding, metric_of, selectors, variables_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import promql_parser as promql

Json = dict[str, Any]

EXCLUSIONS: Final = ROOT / "grafana" / ".lint"
DASHBOARDS: Final = EXCLUSIONS.parent / "dashboards"
UIDS: Final = frozenset({"exophone-numbers", "exophone-rental", "exophone-exporter"})
TAG: Final = "exophone"
DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24
SIZE_MAX_BYTES: Final = 256 * 1024
SCHEMA_VERSIONS: Final = range(39, 43)
_HABITS: Final = Habits(rate_interval=True)
_REFRESHES: Final = frozenset({"30s", "1m", "5m", "15m", "30m", "1h"})
_TIME_ZONES: Final = frozenset({"browser", "utc", "Asia/Kolkata"})
_PANEL_TYPES: Final = frozenset(
    [
        "stat",
        "table",
        "timeseries",
        "bargauge",
        "barchart",
        "state-timeline",
        "status-history",
        "gauge",
        "piechart",
    ]
)
_WITHOUT_QUERIES: Final = frozenset({"row", "text", "dashlist", "alertlist"})
_UNITS: Final = frozenset(
    [
        "none",
        "short",
        "string",
        "percent",
        "percentunit",
        "s",
        "ms",
        "m",
        "h",
        "d",
        "dtdurations",
        "dtdurationms",
        "bytes",
        "decbytes",
        "dateTimeAsIso",
        "dateTimeAsLocal",
        "dateTimeFromNow",
        "reqps",
        "ops",
        "cps",
    ]
)
_UNIT_PREFIXES: Final = ("suffix:", "prefix:", "currency:", "currencyINR", "currencyUSD", "time:")
# Grafana shows these as numbers if it can: +912248901111 would be "912 Bil".
_TEXTS: Final = frozenset(
    ["phone_number", "friendly_name", "sid", "flow_id", "voice_flow_id", "sms_flow_id", "account"]
)
_LEGEND_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_LINK: Final = re.compile(r"/d/([\w-]+)")


@dataclass(frozen=True)
class Spot:
    """Where something was found; a panel or query is left out where it is wider."""

    dashboard: str
    panel: str = ""
    target: int | None = None

    def __str__(self) -> str:
        parts = [self.dashboard, self.panel, "" if self.target is None else f"query {self.target}"]
        return " > ".join(part for part in parts if part)


@dataclass(frozen=True)
class _Exclusion:
    rule: str
    dashboard: str
    panel: str
    target: str

    def matches(self, rule: str, spot: Spot) -> bool:
        return (
            rule == self.rule
            and self.dashboard in {"", spot.dashboard}
            and self.panel in {"", spot.panel}
            and self.target in {"", str(spot.target)}
        )


class Exclusions:
    """What is let pass, with reasons, in the format of Grafana's linter."""

    def __init__(self, content: Json | None = None) -> None:
        self.findings: list[Finding] = []
        self._all: list[_Exclusion] = []
        self._used: set[_Exclusion] = set()
        for rule, stated in ((content or {}).get("exclusions") or {}).items():
            self._read(rule, stated or {})
        if (content or {}).get("warnings"):
            self.findings.append(
                Finding("exclusion-warning", ".lint", "excluded or not: no warnings")
            )

    @classmethod
    def from_file(cls, path: Path = EXCLUSIONS) -> Exclusions:
        """Those of a file; a file that is not there excludes nothing."""
        return cls(yaml.safe_load(path.read_text("utf-8")) if path.exists() else None)

    def _read(self, rule: str, stated: Json) -> None:
        if rule not in RULES | PROMQL_RULES:
            self.findings.append(Finding("exclusion-unknown", ".lint", f"there is no rule {rule}"))
        for entry in stated.get("entries") or [{}]:
            if not (entry.get("reason") or stated.get("reason")):
                self.findings.append(Finding("exclusion-reason", ".lint", f"{rule} says no reason"))
            names = (str(entry.get(key, "")) for key in ("dashboard", "panel", "targetIdx"))
            self._all.append(_Exclusion(rule, *names))

    def excludes(self, rule: str, spot: Spot) -> bool:
        """Whether a finding is let pass; remembers which exclusions served."""
        matching = [exclusion for exclusion in self._all if exclusion.matches(rule, spot)]
        self._used.update(matching)
        return bool(matching)

    def unused(self) -> list[Finding]:
        """The exclusions that let nothing pass, once all dashboards have been linted."""
        idle = [exclusion for exclusion in self._all if exclusion not in self._used]
        return [Finding("exclusion-unused", ".lint", f"{e} lets nothing pass") for e in idle]


@dataclass
class _Linter:
    dashboard: Json
    found: list[tuple[str, Spot, str]] = field(default_factory=list)
    spot: Spot = field(default_factory=lambda: Spot(""))

    def add(self, rule: str, message: str, spot: Spot | None = None) -> None:
        self.found.append((rule, spot or self.spot, message))

    @property
    def variables(self) -> list[Json]:
        return list(self.dashboard.get("templating", {}).get("list", []))

    def of_type(self, kind: str) -> list[Json]:
        return [variable for variable in self.variables if variable.get("type") == kind]


def lint_dashboard(dashboard: Json, exclusions: Exclusions | None = None) -> list[Finding]:
    """Every finding in a dashboard that is not excluded."""
    linter = _Linter(dashboard, spot=Spot(str(dashboard.get("title", ""))))
    for check in _OF_DASHBOARDS:
        check(linter)
    for panel in panels_of(dashboard):
        linter.spot = Spot(str(dashboard.get("title", "")), str(panel.get("title", "")))
        _check_panel(linter, panel)
    exclusions = exclusions or Exclusions()
    left = [f for f in linter.found if not exclusions.excludes(f[0], f[1])]
    return sorted({Finding(rule, str(spot), message) for rule, spot, message in left})


def lint_files(paths: Iterable[Path], exclusions: Exclusions) -> list[Finding]:
    """Every finding in files of dashboards, and in what is excluded."""
    found = list(exclusions.findings)
    for path in paths:
        size = path.stat().st_size
        if size > SIZE_MAX_BYTES:
            found.append(Finding("dashboard-size", path.name, f"has {size} bytes"))
        found += lint_dashboard(json.loads(path.read_text("utf-8")), exclusions)
    return found + exclusions.unused()


def panels_of(dashboard: Json) -> list[Json]:
    """Every panel, those of collapsed rows after their row."""
    found = []
    for panel in dashboard.get("panels", []):
        found += [panel, *panel.get("panels", [])]
    return found


# The dashboard


def _check_identity(linter: _Linter) -> None:
    made = linter.dashboard
    if made.get("uid") not in UIDS or not str(made.get("title", "")).startswith("ExoPhones / "):
        linter.add("dashboard-identity", f"uid {made.get('uid')!r}, title {made.get('title')!r}")
    if not str(made.get("description", "")).endswith("."):
        linter.add("dashboard-description", "the description is no sentence")
    for key in sorted({"id", "__inputs", "__requires", "__elements", "iteration"} & made.keys()):
        linter.add("dashboard-portable", f"{key} is of one Grafana, or of an import by hand")
    if "${DS_" in json.dumps(made):
        linter.add("dashboard-portable", "${DS_...} cannot be provisioned")
    if made.get("schemaVersion") not in SCHEMA_VERSIONS:
        linter.add("dashboard-schema", f"schemaVersion {made.get('schemaVersion')}")
    if made.get("editable") is not False:
        linter.add("uneditable-dashboard", "changes in the browser would be lost")


def _check_links(linter: _Linter) -> None:
    if TAG not in linter.dashboard.get("tags", []):
        linter.add("dashboard-tags", f"has no tag {TAG}")
    wanted = {"type": "dashboards", "asDropdown": True, "keepTime": True, "includeVars": True}
    links = linter.dashboard.get("links", [])
    if not any(wanted.items() <= link.items() and link.get("tags") == [TAG] for link in links):
        linter.add("dashboard-links", f"no drop-down of the tag {TAG} that keeps time and choices")
    for uid in sorted(set(_LINK.findall(json.dumps(linter.dashboard))) - UIDS):
        linter.add("link-target", f"leads to {uid}, which is none of ours")


def _check_time(linter: _Linter) -> None:
    made = linter.dashboard
    time = made.get("time", {})
    if not str(time.get("from", "")).startswith("now-") or time.get("to") != "now":
        linter.add("dashboard-time", f"opens with {time}")
    if made.get("refresh") not in _REFRESHES:
        linter.add("dashboard-refresh", f"refreshes every {made.get('refresh')!r}")
    if made.get("timezone") not in _TIME_ZONES:
        linter.add("dashboard-time-zone", f"is in the time zone {made.get('timezone')!r}")


def _check_datasources(linter: _Linter) -> None:
    for found in _values_of(linter.dashboard, "datasource"):
        if found != DATASOURCE:
            linter.add("datasource-raw", f"{found} is not the variable")


def _values_of(node: Any, key: str) -> Iterator[Any]:
    """Everything under a key, wherever it stands."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _values_of(inner, key)


# Variables


def _check_datasource_variable(linter: _Linter) -> None:
    found = [(v.get("name"), v.get("label"), v.get("query")) for v in linter.of_type("datasource")]
    if found != [("datasource", "Data source", "prometheus")]:
        linter.add("template-datasource-rule", f"the variables of data sources are {found}")


def _check_target_variables(linter: _Linter) -> None:
    for name, label in (("job", "Job"), ("instance", "Instance")):
        wanted = {
            "type": "query",
            "datasource": DATASOURCE,
            "label": label,
            "multi": True,
            "allValue": ".+",
        }
        stated = next((v for v in linter.variables if v.get("name") == name), {})
        wrong = {key: stated.get(key) for key in wanted if stated.get(key) != wanted[key]}
        if wrong:
            linter.add(f"template-{name}-rule", f"the variable {name} has {wrong}")


def _check_variables(linter: _Linter) -> None:
    for variable in linter.of_type("query"):
        name = str(variable.get("name"))
        if variable.get("refresh") != 2:
            linter.add("template-on-time-change-reload-rule", f"{name} may be out of date")
        _check_variable_query(linter, name, _text_of(variable))
        if variable.get("definition", _text_of(variable)) != _text_of(variable):
            linter.add("variable-shape", f"{name} shows another definition than it asks")
        described = str(variable.get("description", "")).endswith(".")
        if not variable.get("label") or not described or not variable.get("sort"):
            linter.add("variable-shape", f"{name} lacks a label, a sentence or an order")
        if variable.get("multi") and not variable.get("includeAll"):
            linter.add("variable-all", f"{name} takes many values, but not all")


def _text_of(variable: Json) -> str:
    query = variable.get("query", "")
    return str(query.get("query", "") if isinstance(query, dict) else query)


def _check_variable_query(linter: _Linter, name: str, text: str) -> None:
    asked = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", text)
    if not asked:
        linter.add("template-label-promql-rule", f"{name} is not label_values(series, label)")
        return
    query = inspect(asked[1], name)
    # The values of a counter's labels are no values of the counter.
    for finding in query.findings:
        if finding.rule != "counter-bare":
            linter.add("template-label-promql-rule", f"{name}: {finding.message}")
    # The choices follow what was chosen before: first the job, then its instances, then the rest.
    before = {"job": [], "instance": ["job"]}.get(name, ["job", "instance"])
    for lacking in _lacking(query, before):
        linter.add("variable-chained", f"{name} is asked of {lacking}")
    if query.series is not None and asked[2] not in query.series.labels:
        linter.add("template-label-promql-rule", f"{asked[1]} has no label {asked[2]}")


def _check_variables_used(linter: _Linter) -> None:
    defined = [str(variable.get("name")) for variable in linter.variables]
    for name in sorted({name for name in defined if defined.count(name) > 1}):
        linter.add("variable-defined", f"{name} is defined twice")
    # A definition refers to those before it, not to itself.
    used = variables_in(json.dumps(linter.dashboard, ensure_ascii=False))
    for name in sorted(set(defined) - used):
        linter.add("variable-used", f"{name} changes nothing")
    own = {name for name in used if not name.startswith("__")}
    unknown = (own - set(defined)) | {
        name for name in used - own - BUILT_IN if name not in _OF_LINKS
    }
    for name in sorted(unknown):
        linter.add("variable-defined", f"${name} is defined nowhere")


_OF_LINKS: Final = frozenset(
    {"__value", "__data", "__field", "__series", "__url_time_range", "__all", "__all_variables"}
)


# Annotations


def _check_annotations(linter: _Linter) -> None:
    for annotation in linter.dashboard.get("annotations", {}).get("list", []):
        name = str(annotation.get("name", ""))
        if not name or not annotation.get("iconColor") or not annotation.get("titleFormat"):
            linter.add("annotation-shape", f"{name!r} lacks a name, a colour or a title")
        query = inspect(str(annotation.get("expr", "")), name, habits=_HABITS)
        for finding in query.findings:
            linter.add("annotation-query", f"{name}: {finding.message}")
        if "ALERTS" not in query.metrics:  # alerts about an account have no instance
            for lacking in _lacking(query, ["job", "instance"]):
                linter.add("annotation-query", f"{name}: {lacking}")
        shown = f"{annotation.get('titleFormat', '')} {annotation.get('textFormat', '')}"
        labels = query.series.labels if query.series else NONE
        for label in sorted(set(_LEGEND_LABEL.findall(shown)) - labels):
            linter.add("annotation-query", f"{name}: no series of the result has {label}")


# The grid and the ids


def _check_ids(linter: _Linter) -> None:
    counted = Counter(panel.get("id") for panel in panels_of(linter.dashboard))
    for number, count in counted.items():
        if count > 1 or not isinstance(number, int):
            linter.add("panel-ids", f"the id {number} stands there {count} times")
    titles = Counter(p.get("title") for p in panels_of(linter.dashboard) if p.get("type") != "row")
    for title in [title for title, count in titles.items() if count > 1]:
        linter.add("panel-titles", f"{count_text(titles[title])} panels are called {title}")


def count_text(count: int) -> str:
    """A small number in words."""
    return {2: "two", 3: "three"}.get(count, str(count))


def _check_grid(linter: _Linter) -> None:
    _check_cells(linter, linter.dashboard.get("panels", []))
    for row in linter.dashboard.get("panels", []):
        _check_cells(linter, row.get("panels", []))


def _check_cells(linter: _Linter, panels: list[Json]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        title, cells = str(panel.get("title")), _cells(panel.get("gridPos") or {})
        if not cells or any(x not in range(COLUMNS) or y < 0 for x, y in cells):
            linter.add("panel-grid", f"{title} is not on the {COLUMNS} columns")
        for other in sorted({taken[cell] for cell in cells if cell in taken}):
            linter.add("panel-grid", f"{title} lies over {other}")
        taken |= dict.fromkeys(cells, title)


def _cells(place: Json) -> list[tuple[int, int]]:
    x, y, width, height = (int(place.get(key, 0)) for key in ("x", "y", "w", "h"))
    return [(column, row) for column in range(x, x + width) for row in range(y, y + height)]


# Panels


def _check_panel(linter: _Linter, panel: Json) -> None:
    if panel.get("type") in _WITHOUT_QUERIES:
        if not panel.get("title"):
            linter.add("panel-title-description-rule", f"a {panel.get('type')} without a title")
        return
    if panel.get("type") not in _PANEL_TYPES:
        linter.add("panel-type", f"{panel.get('type')!r} is old, or a plugin")
    _check_texts(linter, panel)
    _check_field_defaults(linter, panel)
    if panel.get("datasource") != DATASOURCE:
        linter.add("panel-datasource-rule", f"asks {panel.get('datasource')}")
    if not panel.get("targets"):
        linter.add("panel-no-targets-rule", "asks nothing")
    letters = [target.get("refId") for target in panel.get("targets", [])]
    if len({*letters}) < len(letters) or not all(letters):
        linter.add("target-ref-ids", f"queries are called {letters}")
    queries = [_check_target(linter, panel, i) for i in range(len(letters))]
    _check_text_columns(linter, panel, queries)


def _check_texts(linter: _Linter, panel: Json) -> None:
    title, description = panel.get("title", ""), panel.get("description", "")
    if not title or not description:
        linter.add("panel-title-description-rule", "has no title or no description")
    elif not description.endswith("."):
        linter.add("panel-description", "the description is no sentence")


def _check_field_defaults(linter: _Linter, panel: Json) -> None:
    config = panel.get("fieldConfig") or {}
    defaults = config.get("defaults") or {}
    units = [defaults.get("unit"), *_overridden(config, "unit")]
    for unit in units:
        if not isinstance(unit, str) or not (unit in _UNITS or unit.startswith(_UNIT_PREFIXES)):
            linter.add("panel-units-rule", f"has the unit {unit!r}")
    if not defaults.get("noValue"):
        linter.add("panel-no-value", "does not say why there is nothing to see")
    for thresholds in [defaults.get("thresholds"), *_overridden(config, "thresholds")]:
        _check_thresholds(linter, thresholds or {})


def _overridden(config: Json, name: str) -> list[Any]:
    properties = [p for override in config.get("overrides", []) for p in override["properties"]]
    return [found.get("value") for found in properties if found.get("id") == name]


def _check_thresholds(linter: _Linter, thresholds: Json) -> None:
    steps = [step.get("value") for step in thresholds.get("steps") or []]
    higher = [value for value in steps[1:] if value is not None]
    if not steps or steps[0] is not None or len(higher) != len(steps) - 1:
        linter.add("panel-thresholds", "the first step begins at the bottom, each other at a value")
    elif higher != sorted(set(higher)) or higher == [80]:
        linter.add("panel-thresholds", f"{higher} are not in order, or Grafana's own")


# Queries


def _check_target(linter: _Linter, panel: Json, index: int) -> Query:
    target = panel["targets"][index]
    dashboard_spot = linter.spot
    linter.spot = Spot(linter.spot.dashboard, linter.spot.panel, index)
    query = inspect(str(target.get("expr", "")), habits=_HABITS)
    _check_target_shape(linter, target)
    for finding in query.findings:
        linter.add(_NAMES_OF_THE_OTHER_LINTER.get(finding.rule, finding.rule), finding.message)
    _check_selectors(linter, query)
    _check_legend(linter, panel, target, query)
    _check_replicas(linter, target, query)
    linter.spot = dashboard_spot
    return query


_NAMES_OF_THE_OTHER_LINTER: Final = {
    "promql-syntax": "target-promql-rule",
    "rate-interval": "target-rate-interval-rule",
    "counter-bare": "target-counter-agg-rule",
}


def _check_target_shape(linter: _Linter, target: Json) -> None:
    if target.get("datasource") != DATASOURCE:
        linter.add("target-datasource", f"asks {target.get('datasource')}")
    if (target.get("datasource") or {}).get("type") == "loki":
        linter.add("target-logql-rule", "we write no logs to Loki")
    if bool(target.get("instant")) == bool(target.get("range")):
        linter.add("target-shape", "asks for an instant or for a range")
    if target.get("hide"):
        linter.add("target-shape", "is hidden: nobody misses it")


def _check_selectors(linter: _Linter, query: Query) -> None:
    for name in ("job", "instance"):
        for lacking in _lacking(query, [name]):
            linter.add(f"target-{name}-rule", lacking)


def _lacking(query: Query, names: list[str]) -> Iterator[str]:
    """Each selector that does not follow variables of these names, and which."""
    for selector in selectors(query.expr) if query.expr else ():
        chosen = {matcher.name for matcher in selector.matchers.matchers if _is_chosen(matcher)}
        for name in names:
            if name not in chosen:
                yield f'{metric_of(selector)} without {name}=~"${name}"'


def _is_chosen(matcher: promql.Matcher) -> bool:
    return str(matcher) == f'{matcher.name}=~"{VARIABLE}{matcher.name}"'


def _check_legend(linter: _Linter, panel: Json, target: Json, query: Query) -> None:
    legend = str(target.get("legendFormat", ""))
    labels, key = (query.series.labels, query.series.key) if query.series else (NONE, NONE)
    shown = set(_LEGEND_LABEL.findall(legend))
    for label in sorted(shown - labels):
        linter.add("target-legend", f"no series of the result has {label}")
    if panel.get("type") == "table" or legend == "__auto":
        return
    if not legend:
        linter.add("target-legend", "has no legend")
    elif key and not shown:
        linter.add("target-legend", f"calls all series {legend}, which differ in {sorted(key)}")


def _check_replicas(linter: _Linter, target: Json, query: Query) -> None:
    """What all replicas know is shown once, unless the legend says whose word it is."""
    if query.series is None or not query.series.replicated:
        return
    by = sorted(query.series.key & REPLICA)
    if by and not {*by} & {*_LEGEND_LABEL.findall(str(target.get("legendFormat", "")))}:
        linter.add("replicas-shown", f"shows the same once for each {' and '.join(by)}")


# Tables


def _check_text_columns(linter: _Linter, panel: Json, queries: list[Query]) -> None:
    if panel.get("type") != "table":
        return
    labels: Labels = NONE.union(*(query.series.labels for query in queries if query.series))
    hidden, renamed = _organized(panel)
    for label in sorted((labels & _TEXTS) - hidden):
        column = renamed.get(label, label)
        if _unit_of(panel, column) != "string":
            linter.add("table-texts", f"{label} ({column}) needs the unit string")


def _organized(panel: Json) -> tuple[set[str], dict[str, str]]:
    hidden: set[str] = set()
    renamed: dict[str, str] = {}
    for transformation in panel.get("transformations", []):
        if transformation.get("id") == "organize":
            options = transformation.get("options", {})
            hidden |= {name for name, off in options.get("excludeByName", {}).items() if off}
            renamed |= options.get("renameByName", {})
    return hidden, {label: name for label, name in renamed.items() if name}


def _unit_of(panel: Json, column: str) -> str:
    config = panel.get("fieldConfig") or {}
    unit = str((config.get("defaults") or {}).get("unit"))
    for override in config.get("overrides", []):
        if _applies(override["matcher"], column):
            values = [p["value"] for p in override["properties"] if p["id"] == "unit"]
            unit = str(values[-1]) if values else unit
    return unit


def _applies(matcher: Json, column: str) -> bool:
    if matcher["id"] == "byName":
        return bool(matcher["options"] == column)
    if matcher["id"] == "byRegexp":
        pattern = str(matcher["options"])
        return bool(re.search(pattern.strip("/"), column))
    return bool(matcher["id"] == "byType" and matcher["options"] == "string")


_OF_DASHBOARDS: Final[tuple[Callable[[_Linter], None], ...]] = (
    _check_identity,
    _check_links,
    _check_time,
    _check_datasources,
    _check_datasource_variable,
    _check_target_variables,
    _check_variables,
    _check_variables_used,
    _check_annotations,
    _check_ids,
    _check_grid,
)
# Every rule of this file; a test holds that each is hit by a bad example.
RULES: Final = frozenset(
    [
        "dashboard-identity",
        "dashboard-description",
        "dashboard-portable",
        "dashboard-schema",
        "dashboard-tags",
        "dashboard-links",
        "link-target",
        "dashboard-time",
        "dashboard-refresh",
        "dashboard-time-zone",
        "dashboard-size",
        "datasource-raw",
        "uneditable-dashboard",
        "template-datasource-rule",
        "template-job-rule",
        "template-instance-rule",
        "template-label-promql-rule",
        "template-on-time-change-reload-rule",
        "variable-shape",
        "variable-all",
        "variable-chained",
        "replicas-shown",
        "variable-defined",
        "variable-used",
        "annotation-shape",
        "annotation-query",
        "panel-ids",
        "panel-titles",
        "panel-grid",
        "panel-type",
        "panel-title-description-rule",
        "panel-description",
        "panel-units-rule",
        "panel-no-value",
        "panel-thresholds",
        "panel-datasource-rule",
        "panel-no-targets-rule",
        "target-ref-ids",
        "target-promql-rule",
        "target-rate-interval-rule",
        "target-counter-agg-rule",
        "target-job-rule",
        "target-instance-rule",
        "target-logql-rule",
        "target-datasource",
        "target-shape",
        "target-legend",
        "table-texts",
    ]
)


def main() -> int:
    """Print the findings of the files named; 1 if there are any."""
    findings = lint_files(map(Path, sys.argv[1:]), Exclusions.from_file())
    print(*findings, sep="\n", end="\n" if findings else "")  # noqa: T201 - a command's answer
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
