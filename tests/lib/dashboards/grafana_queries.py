"""What Grafana asks a Prometheus for a dashboard: variables filled in, each query sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from tests.lib.processes import get
from tests.lib.servers import Prometheus

Json = dict[str, Any]

ALL: Final = "$__all"
POINTS_MAX: Final = 600
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_VARIABLE: Final = re.compile(r"\$(\w+)")
_LABEL_VALUES: Final = re.compile(
    r"label_values\(\s*(?:(?P<of>.+),)?\s*(?P<label>\w+)\s*\)", re.DOTALL
)
_PANELS_WITHOUT_QUERIES: Final = ("row", "text", "dashlist", "alertlist")


@dataclass(frozen=True)
class Range:
    """The time range of a dashboard, in seconds since 1970, and the data source's scrape interval.

    Grafana widens `$__rate_interval` by that setting; without it it takes 15 seconds.
    """

    start: float
    end: float
    scrape_seconds: float = 15.0

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def step_seconds(self, minimum: str = "", points_max: int = POINTS_MAX) -> float:
        """The distance of two points in a graph: few enough of them, and no less than a scrape."""
        return max(self._least_seconds(minimum), math.ceil(self.seconds / points_max))

    def rate_seconds(self, minimum: str = "", points_max: int = POINTS_MAX) -> float:
        """`$__rate_interval`: four scrapes at least, so that two samples are always within.

        A least step is taken for the scrape interval, so it counts four times, too.
        """
        least = self._least_seconds(minimum)
        return max(self.step_seconds(minimum, points_max) + least, 4 * least)

    def _least_seconds(self, minimum: str) -> float:
        return int(minimum[:-1]) * _UNITS[minimum[-1]] if minimum else self.scrape_seconds


@dataclass(frozen=True)
class Variable:
    """A variable with what may be chosen and what is chosen: option values, or ALL alone."""

    name: str
    options: tuple[str, ...]
    chosen: tuple[str, ...]
    all_value: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        return self.options if self.chosen == (ALL,) else self.chosen

    def in_promql(self) -> str:
        """The text in a query: a regular expression of the chosen values, quoted for a string.

        The value that a dashboard gives to All is taken as it is.
        """
        if self.chosen == (ALL,) and self.all_value:
            return self.all_value
        escaped = [_escaped(value) for value in self.values]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _escaped(value: str) -> str:
    """A value as Grafana quotes it for a regular expression within a string of PromQL."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))


def interpolate(
    text: str,
    variables: Mapping[str, Variable],
    span: Range,
    minimum_step: str = "",
    points_max: int = POINTS_MAX,
) -> str:
    """A query with its variables filled in, as Grafana's Prometheus data source does it.

    `$1` of a label_replace stays; any other unknown variable fails, which in Grafana would be
    sent as it is and find nothing.
    """
    assert "${" not in text, f"a spelling that no test knows: {text}"
    built_in = {
        "__interval": f"{span.step_seconds(minimum_step, points_max) * 1000:.0f}ms",
        "__rate_interval": f"{span.rate_seconds(minimum_step, points_max) * 1000:.0f}ms",
        "__range": f"{span.seconds:.0f}s",
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in built_in:
            return built_in[name]
        if name.isdigit():
            return match[0]
        assert name in variables, f"unknown variable {match[0]} in {text}"
        return variables[name].in_promql()

    return _VARIABLE.sub(value, text)


def api(server: Prometheus, path: str, **parameters: Any) -> Json:
    status, body = get(f"{server.url}/api/v1/{path}?{urlencode(parameters, doseq=True)}")
    assert status == 200, f"{body} for {parameters}"
    answer: Json = json.loads(body)
    assert not answer.get("warnings"), f"{answer['warnings']} for {parameters}"
    return answer


def variables(
    dashboard: Json,
    server: Prometheus,
    span: Range,
    chosen: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Variable]:
    """Every variable in order, each with what the ones before it leave to choose from.

    `chosen` are option values by name; the rest is as the dashboard opens.
    """
    found: dict[str, Variable] = {}
    for model in dashboard["templating"]["list"]:
        options = tuple(_options(model, server, span, found))
        choice = tuple((chosen or {}).get(model["name"], _opens_with(model, options)))
        all_value = model.get("allValue") or ""
        found[model["name"]] = Variable(model["name"], options, choice, all_value)
    unknown = set(chosen or {}) - set(found)
    assert not unknown, f"{dashboard['uid']} has no variables {unknown}"
    return found


def _opens_with(model: Json, options: Sequence[str]) -> Sequence[str]:
    value = model.get("current", {}).get("value") or options[:1]
    return [value] if isinstance(value, str) else value


def _options(
    model: Json, server: Prometheus, span: Range, found: Mapping[str, Variable]
) -> list[str]:
    if model["type"] == "datasource":
        return ["prometheus"]
    if model["type"] == "textbox":
        return [model["query"]]
    assert model["type"] == "query", f"a variable of a type that no test knows: {model['type']}"
    return _label_values(model, server, span, found)


def _label_values(
    model: Json, server: Prometheus, span: Range, found: Mapping[str, Variable]
) -> list[str]:
    query = model["query"] if isinstance(model["query"], str) else model["query"]["query"]
    match = _LABEL_VALUES.fullmatch(interpolate(query, found, span))
    assert match, f"no label_values: {query}"
    assert not model.get("regex"), "a regex of a variable, which no test knows"
    # Prometheus shows what the blocks hold that touch the range, so the range is asked in whole.
    limits = {"start": f"{span.start:.3f}", "end": f"{span.end:.3f}"}
    selector = {"match[]": match["of"].strip()} if match["of"] else {}
    values = api(server, f"label/{match['label']}/values", **limits, **selector)["data"]
    return sorted(value for value in values if value)


@dataclass(frozen=True)
class Target:
    panel: Json
    target: Json
    expr: str
    span: Range

    @property
    def key(self) -> tuple[str, str]:
        return self.panel["title"], self.target["refId"]

    @property
    def step_seconds(self) -> float:
        return self.span.step_seconds(*_limits(self.panel, self.target))

    def last_window(self, averaged_seconds: float) -> Range:
        """What an average of rates over `$__rate_interval` covers at the last point."""
        _, last = _aligned(self.span, self.step_seconds)
        window = self.span.rate_seconds(*_limits(self.panel, self.target))
        return Range(last - window - averaged_seconds, last, self.span.scrape_seconds)

    def ask(self, server: Prometheus) -> Json:
        """Prometheus's answer: at the end of the range, or over it at aligned points."""
        if self.target.get("instant"):
            return api(server, "query", query=self.expr, time=f"{self.span.end:.3f}")
        return _over_range(server, self.expr, self.span, self.step_seconds)


def _limits(panel: Json, target: Json) -> tuple[str, int]:
    return target.get("interval", ""), panel.get("maxDataPoints", POINTS_MAX)


def _aligned(span: Range, step: float) -> tuple[float, float]:
    """The first and the last point of a graph: multiples of the step."""
    return math.floor(span.start / step) * step, math.floor(span.end / step) * step


def _over_range(server: Prometheus, expr: str, span: Range, step: float) -> Json:
    first, last = _aligned(span, step)
    limits = {"start": f"{first:.3f}", "end": f"{last:.3f}", "step": f"{step:g}"}
    return api(server, "query_range", query=expr, **limits)


def panels(dashboard: Json) -> Iterator[Json]:
    for panel in dashboard["panels"]:
        for one in (panel, *panel.get("panels", ())):
            if one["type"] not in _PANELS_WITHOUT_QUERIES:
                yield one


def targets(dashboard: Json, chosen: Mapping[str, Variable], span: Range) -> Iterator[Target]:
    for panel in panels(dashboard):
        assert not {"timeFrom", "timeShift"} & set(panel), f"{panel['title']}: a range of its own"
        for target in panel["targets"]:
            expr = interpolate(target["expr"], chosen, span, *_limits(panel, target))
            yield Target(panel, target, expr, span)


def annotation_answers(
    dashboard: Json, server: Prometheus, chosen: Mapping[str, Variable], span: Range
) -> dict[str, Json]:
    return {
        one["name"]: _over_range(
            server,
            interpolate(one["expr"], chosen, span, one["step"]),
            span,
            span.step_seconds(one["step"]),
        )
        for one in dashboard["annotations"]["list"]
        if "expr" in one
    }


def payload(
    dashboard: Json, server: Prometheus, chosen: Mapping[str, Variable], span: Range
) -> Json:
    """A dashboard with every answer to it: what a program that draws it needs."""
    answers = [
        {
            "panelId": one.panel["id"],
            "refId": one.target["refId"],
            "response": one.ask(server),
        }
        for one in targets(dashboard, chosen, span)
    ]
    return {
        "dashboard": dashboard,
        "range": {"from": round(span.start * 1000), "to": round(span.end * 1000)},
        "variables": {name: list(one.chosen) for name, one in chosen.items()},
        "answers": answers,
    }
