"""Panels of Grafana's classic JSON model: each has all that a reader and a linter ask of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

Json = dict[str, Any]

DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"
PURPLE: Final = "purple"

# Pixels: the figure of a panel, figures next to or below one another, and their names.
LARGE, SMALL, NAME_SIZE = 48, 26, 16
# The least width of a column, in pixels: Grafana's own of 150 cuts tables of more than six.
NARROW: Final = 70
# As many rows of a timeline as can be read in the height of the panel; further ones are pages.
TIMELINE_ROWS: Final = 10

Frames = Literal["time_series", "table"]


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel.

    An instant query is the present; any other is a graph over the range. `frames` is the shape of
    the answer: a table has one row a series, its labels as columns.
    """

    expr: str
    legend: str = "__auto"
    instant: bool = False
    frames: Frames = "time_series"
    interval: str = ""


def now(expr: str, legend: str = "__auto") -> Query:
    """The present value of each series."""
    return Query(expr, legend, instant=True)


def rows(expr: str) -> Query:
    """The present value of each series, a row of a table."""
    return Query(expr, instant=True, frames="table")


def over_time(expr: str, legend: str = "__auto", interval: str = "") -> Query:
    """Each series over the range; `interval` is the least distance of two points."""
    return Query(expr, legend, interval=interval)


@dataclass(frozen=True)
class Step:
    """From this value on a field has this colour; None begins at the bottom."""

    color: str
    value: float | None = None


def plain(color: str = BLUE) -> tuple[Step, ...]:
    """One colour whatever the value: Grafana's default paints everything over 80 red."""
    return (Step(color),)


def thresholds(steps: Sequence[Step], mode: str = "absolute") -> Json:
    """Steps in Grafana's model, for a panel or for one column."""
    found = [{"color": step.color, "value": step.value} for step in steps]
    return {"mode": mode, "steps": found}


@dataclass(frozen=True)
class Override:
    """Settings of the fields that a matcher finds: `byName`, `byRegexp`, `byFrameRefID`, ..."""

    matcher: str
    options: str
    properties: Json


def column(name: str, **properties: Any) -> Override:
    """Settings of the field with a name; `__` in a key means a dot (custom__width)."""
    spelled = {key.replace("__", "."): value for key, value in properties.items()}
    return Override("byName", name, spelled)


def name_column(name: str, **properties: Any) -> Override:
    """Settings of a field of names, by which rows can be chosen.

    Only they have a filter: its icon shortens the title of a narrow column of figures.
    """
    return column(name, unit="string", custom__filterable=True, **properties)


def empty_cell(text: str) -> Override:
    """The text of a cell without a value, instead of the panel's noValue."""
    return Override("byRegexp", "/.*/", {"noValue": text})


def value_mapping(texts: dict[str, Json]) -> Json:
    """A mapping of single values: {"0": {"text": "Unattached", "color": "red", "index": 0}}."""
    return {"type": "value", "options": texts}


def fixed(color: str) -> Json:
    """Properties that give a field one colour, whatever its value."""
    return {"color": {"mode": "fixed", "fixedColor": color}}


def link(title: str, url: str) -> Json:
    """A link from a value; `${__value.raw}` in it is the value."""
    return {"title": title, "url": url, "targetBlank": False}


def columns_by(
    label: str, *hidden: str, first: Sequence[str], renamed: Mapping[str, str] | None = None
) -> tuple[Json, ...]:
    """Transformations to one row for the same labels, a column for each value of one label.

    `first` are the columns that stand first, in their order; others follow.
    """
    return (
        {"id": "labelsToFields", "options": {"mode": "columns", "valueLabel": label}},
        {"id": "merge", "options": {}},
        organized(*hidden, first=first, renamed=renamed),
    )


def organized(*hidden: str, first: Sequence[str], renamed: Mapping[str, str] | None = None) -> Json:
    """The transformation that hides, orders and renames columns."""
    return {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(("Time", *hidden), True),
            "indexByName": {name: index for index, name in enumerate(first)},
            "renameByName": dict(renamed or {}),
        },
    }


@dataclass(frozen=True)
class Panel:
    """One panel. `unit` is an id of Grafana's; `no_value` says why there is nothing to see.

    `width` is in columns of 24 to the row, `height` in Grafana's rows of 30 pixels.
    """

    type: str
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    no_value: str
    width: int
    height: int
    steps: tuple[Step, ...] = plain()
    thresholds_mode: Literal["absolute", "percentage"] = "absolute"
    color_mode: str = "thresholds"
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    mappings: tuple[Json, ...] = ()
    overrides: tuple[Override, ...] = ()
    transformations: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    links: tuple[Json, ...] = ()
    display_name: str = ""
    # An id of its own, for links to the panel; 0 takes the next in reading order.
    panel_id: int = 0
    # Fewer points than pixels make `$__interval` longer, and what is computed from it cheaper.
    points_max: int | None = None


def as_json(panel: Panel, x: int, y: int) -> Json:
    """The panel in Grafana's model, at a place of the grid."""
    found: Json = {
        "id": panel.panel_id,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "datasource": DATASOURCE,
        "targets": [_target(query, i) for i, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": panel.options,
    }
    if panel.transformations:
        found["transformations"] = list(panel.transformations)
    if panel.points_max:
        found["maxDataPoints"] = panel.points_max
    if panel.links:
        found["links"] = list(panel.links)
    return found


def _target(query: Query, index: int) -> Json:
    target: Json = {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "format": query.frames,
        "instant": query.instant,
        "range": not query.instant,
        "legendFormat": query.legend,
        "editorMode": "code",
    }
    if query.interval:
        target["interval"] = query.interval
    return target


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "noValue": panel.no_value,
        "color": {"mode": panel.color_mode},
        "thresholds": thresholds(panel.steps, panel.thresholds_mode),
        "mappings": list(panel.mappings),
        "custom": panel.custom,
    }
    optional = {
        "decimals": panel.decimals,
        "min": panel.minimum,
        "max": panel.maximum,
        "displayName": panel.display_name or None,
    }
    return defaults | {key: value for key, value in optional.items() if value is not None}


def _overrides(panel: Panel) -> list[Json]:
    return [
        {
            "matcher": {"id": override.matcher, "options": override.options},
            "properties": [
                {"id": key, "value": value} for key, value in override.properties.items()
            ],
        }
        for override in panel.overrides
    ]


def stat(
    title: str,
    description: str,
    *queries: Query,
    color: Literal["value", "background", "none"] = "value",
    text: Literal["value", "value_and_name", "name"] = "value",
    size: int = LARGE,
    **more: Any,
) -> Panel:
    """One big figure a series; `more` are fields of Panel.

    Left to itself, Grafana writes long figures small and short ones large. `size` is also that of
    `no_value`, which has to be short.
    """
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "text": {"titleSize": NAME_SIZE, "valueSize": size},
        "textMode": text,
        "wideLayout": True,
        "colorMode": color,
        "graphMode": "none",
        "justifyMode": "auto",
        "showPercentChange": False,
    }
    return Panel("stat", title, description, queries, **_sized(more, 4, 4), options=options)


def below_one_another(panel: Panel) -> Panel:
    """The figures of a stat panel one below the other: side by side, long ones are cut."""
    return replace(panel, options=panel.options | {"orientation": "horizontal"})


def table(
    title: str, description: str, *queries: Query, sort_by: str = "", down: bool = True, **more: Any
) -> Panel:
    """A table; `sort_by` is the column that it is sorted by at first."""
    options: Json = {"showHeader": True, "cellHeight": "sm", "enablePagination": False}
    options["sortBy"] = [{"displayName": sort_by, "desc": down}] if sort_by else []
    custom = {
        "align": "auto",
        "filterable": False,
        "cellOptions": {"type": "auto"},
        "minWidth": NARROW,
    }
    more.setdefault("custom", custom)
    return Panel("table", title, description, queries, **_sized(more, 24, 10), options=options)


def time_series(
    title: str,
    description: str,
    *queries: Query,
    stacked: bool = False,
    bars: bool = False,
    legend: Literal["list", "table", "none"] = "list",
    **more: Any,
) -> Panel:
    """Lines, or bars, over time."""
    options = {
        "legend": {
            "displayMode": "list" if legend == "none" else legend,
            "showLegend": legend != "none",
            "placement": "bottom",
            "calcs": ["lastNotNull", "max"] if legend == "table" else [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 80 if bars else 10,
        "showPoints": "auto",  # a line of one point is nothing
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "axisSoftMin": 0,
    }
    more = {"custom": custom, "color_mode": "palette-classic"} | more
    return Panel("timeseries", title, description, queries, **_sized(more, 12, 8), options=options)


def state_timeline(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """One bar a series, whose colour is its state, from a mapping.

    With colours from thresholds Grafana would join what lies between two of them, and show
    "-∞+" for the state.
    """
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.8,
        "perPage": TIMELINE_ROWS,
        # The bars say their states; a legend would repeat them, and `no_value` as one more.
        "legend": {"displayMode": "list", "showLegend": False, "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"lineWidth": 0, "fillOpacity": 70, "spanNulls": False}
    more = {"custom": custom, "color_mode": "palette-classic"} | more
    return Panel(
        "state-timeline", title, description, queries, **_sized(more, 24, 9), options=options
    )


def _sized(more: Json, width: int, height: int) -> Json:
    return {"width": width, "height": height} | more
