"""A dashboard: its variables, its rows of panels, its links and annotations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from exophone_dashboards.panels import BLUE, DATASOURCE, Json, Panel, as_json

COLUMNS: Final = 24
# The newest of the classic models that Grafana 10 loads; the later ones migrate it by themselves.
SCHEMA_VERSION: Final = 39
TAG: Final = "exophone"
# The distance of the points at which annotations are looked for.
MARK_STEP: Final = "60s"


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, placed from left to right."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


def row(title: str, *panels: Panel, collapsed: bool = False) -> Row:
    """A heading and the panels below it."""
    return Row(title, panels, collapsed)


@dataclass(frozen=True)
class Variable:
    """A variable whose choices are the values of a label; without a query, any text."""

    name: str
    label: str
    description: str
    query: str
    # The value of "All": `.*` also takes in series that lack the label, "" only what is listed.
    # None is for variables of which one value is chosen.
    all_value: str | None
    hide: int = 0


# Set by the URL only, as links between the dashboards do: few people have more than one of them.
HIDDEN: Final = 2
# Behind the button of the dashboard's controls: on a phone each variable takes a row. Grafana
# before 12.3 shows such a variable like any other.
IN_MENU: Final = 3


JOB: Final = Variable(
    "job",
    "Job",
    "The scrape jobs in which exporters run.",
    "label_values(exophone_exporter_build_info, job)",
    "",  # a job of probes has series of numbers, too, and would double them
    HIDDEN,
)
INSTANCE: Final = Variable(
    "instance",
    "Instance",
    "The exporters; replicas of one are counted once.",
    'label_values(exophone_exporter_build_info{job=~"$job"}, instance)',
    ".+",
    HIDDEN,
)
ACCOUNT: Final = Variable(
    "account",
    "Account",
    "The Exotel accounts, by their configured names.",
    'label_values(exophone_polls_total{job=~"$job", instance=~"$instance"}, account)',
    ".+",
)
# For links. The label is the address at which Prometheus scrapes.
EXPORTER: Final = Variable(
    "exporter",
    "Exporter",
    "The exporter's address in links.",
    'label_values(exophone_exporter_build_info{job=~"$job", instance=~"$instance"}, instance)',
    None,
    HIDDEN,
)
NUMBER: Final = Variable(
    "number", "Number", "The SID of the number whose history is shown.", "", None, HIDDEN
)
_OF_ACCOUNT: Final = '{job=~"$job", instance=~"$instance", account=~"$account"}'
REGION: Final = Variable(
    "region",
    "Circle",
    "Telecom circles in India by their codes, countries elsewhere.",
    f"label_values(exophone_numbers{_OF_ACCOUNT}, region)",
    ".*",
)
NUMBER_TYPE: Final = Variable(
    "number_type",
    "Type",
    "Landline, mobile or toll-free.",
    f"label_values(exophone_numbers{_OF_ACCOUNT}, number_type)",
    ".*",
    IN_MENU,
)
OWNER: Final = Variable(
    "owner",
    "Owner",
    "The owners that the rules for numbers name.",
    f"label_values(exophone_number_info{_OF_ACCOUNT}, owner)",
    ".*",
)
CURRENCY: Final = Variable(
    "currency",
    "Currency",
    "Rentals are never added up across currencies.",
    f"label_values(exophone_monthly_rental{_OF_ACCOUNT}, currency)",
    ".*",
    IN_MENU,
)


@dataclass(frozen=True)
class Annotation:
    """Marks in every graph where a query has a value above zero."""

    name: str
    expr: str
    title: str
    text: str
    color: str = BLUE
    enabled: bool = True


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `time_from` is the range it opens with, up to now."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    annotations: tuple[Annotation, ...] = ()
    time_from: str = "now-24h"
    refresh: str = "1m"


def as_model(made: Dashboard) -> Json:
    """The whole dashboard in Grafana's classic JSON model."""
    return {
        "uid": made.uid,
        "title": made.title,
        "description": made.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 3,  # April, counted from 0: India's fiscal year
        "timezone": "browser",
        "weekStart": "",
        "refresh": made.refresh,
        "time": {"from": made.time_from, "to": "now"},
        "timepicker": {},
        "links": [_others()],
        "templating": {"list": [_datasource(), *map(_variable, made.variables)]},
        "annotations": {"list": [_annotation(a) for a in made.annotations]},
        "panels": _placed(made.rows),
    }


def _others() -> Json:
    """The drop-down of the dashboards with the tag, which keeps time and variables."""
    return {
        "type": "dashboards",
        "title": "ExoPhones",
        "tags": [TAG],
        "asDropdown": True,
        "keepTime": True,
        "includeVars": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other ExoPhone dashboards, with the same time and choices",
        "url": "",
    }


def _datasource() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes the exporter.",
        "query": "prometheus",
        "current": {},
        "hide": IN_MENU,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _variable(variable: Variable) -> Json:
    if not variable.query:
        return _textbox(variable)
    many = variable.all_value is not None
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.label,
        "description": variable.description,
        "datasource": DATASOURCE,
        "definition": variable.query,
        "query": {
            "qryType": 1,
            "query": variable.query,
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        },
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if many else {},
        "hide": variable.hide,
        "includeAll": many,
        "allValue": variable.all_value or None,
        "multi": many,
        "options": [],
        "refresh": 2,  # with every change of the time range
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }


def _textbox(variable: Variable) -> Json:
    return {
        "type": "textbox",
        "name": variable.name,
        "label": variable.label,
        "description": variable.description,
        "query": "",
        "current": {"selected": True, "text": "", "value": ""},
        "hide": variable.hide,
        "options": [],
        "skipUrlSync": False,
    }


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": DATASOURCE,
        "enable": annotation.enabled,
        "expr": annotation.expr,
        "hide": False,
        "placement": "inControlsMenu",
        "iconColor": annotation.color,
        "step": MARK_STEP,
        "titleFormat": annotation.title,
        "textFormat": annotation.text,
        "useValueForTime": False,
    }


def _placed(rows: Iterable[Row]) -> list[Json]:
    """Row headings and panels, from left to right and from top to bottom."""
    placed: list[Json] = []
    y = 0
    for one in rows:
        heading, panels, y = _placed_row(one, y)
        placed.append(heading)
        if one.collapsed:
            heading["panels"] = panels
        else:
            placed.extend(panels)
    return _numbered(placed)


def _placed_row(one: Row, y: int) -> tuple[Json, list[Json], int]:
    """The heading, its panels, and where the next row begins."""
    heading: Json = {
        "id": 0,
        "type": "row",
        "title": one.title,
        "collapsed": one.collapsed,
        "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        "panels": [],
    }
    panels: list[Json] = []
    x, top, below = 0, y + 1, y + 1
    for panel in one.panels:
        if x + panel.width > COLUMNS:
            x, top = 0, below
        panels.append(as_json(panel, x, top))
        x += panel.width
        below = max(below, top + panel.height)
    return heading, panels, (y + 1 if one.collapsed else below)


def _numbered(placed: list[Json]) -> list[Json]:
    """Ids in reading order, those inside collapsed rows too; an id of its own stays."""
    flat = [panel for one in placed for panel in (one, *one.get("panels", ()))]
    for number, panel in enumerate(flat, 1):
        panel["id"] = panel["id"] or number
    return placed
