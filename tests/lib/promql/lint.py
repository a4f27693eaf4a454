"""A linter of PromQL over our metrics, strict: what it finds is a defect or has a stated reason.

    inspect('sum(exophone_numbers)').findings

Rules about labels that flow through an expression are in `promql_flow`; those about selectors and
single nodes are here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import promql_parser as promql

from tests.lib.promql.catalogue import KNOWN, NONE, Labels, Series
from tests.lib.promql.flow import Flow
from tests.lib.promql.tree import (
    COMPARISONS,
    RATE_INTERVAL_SECONDS,
    VARIABLE,
    Finding,
    Path,
    bare,
    filled,
    metric_of,
    operator,
    same_but_time,
    selectors,
    variables_in,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SECONDS_A_DAY: Final = 86_400
RETENTION_DAYS: Final = 15  # what Prometheus keeps unless told otherwise
_OF_COUNTERS: Final = frozenset({"rate", "increase", "irate", "resets"})
_RATES: Final = frozenset({"rate", "increase", "irate"})
_OF_GAUGES: Final = frozenset({"delta", "idelta", "deriv", "predict_linear", "holt_winters"})
# The value of a counter does not matter to these.
_COUNTER_SAFE: Final = _OF_COUNTERS | {
    "absent",
    "absent_over_time",
    "changes",
    "count_over_time",
    "present_over_time",
    "timestamp",
}
_COUNTER_SAFE_AGGREGATIONS: Final = frozenset({"count", "group"})
_METACHARACTERS: Final = re.compile(r"[.+*?()\[\]{}|^$\\]")


@dataclass(frozen=True)
class Query:
    """One query, inspected: without `expr` it is no PromQL, without `series` it is a number."""

    text: str
    expr: promql.Expr | None
    series: Series | None
    variables: frozenset[str]
    findings: tuple[Finding, ...]

    @property
    def metrics(self) -> frozenset[str]:
        """The names of the metrics it selects."""
        return frozenset(map(metric_of, selectors(self.expr))) if self.expr else NONE


@dataclass(frozen=True)
class Habits:
    """What is asked of all queries of one place.

    `kept` labels survive every aggregation; `rate_interval`: rates follow `$__rate_interval`.
    """

    kept: Labels = NONE
    rate_interval: bool = False


@dataclass(frozen=True)
class _Place:
    """One node of the tree and what a rule may ask about it."""

    node: promql.Expr
    above: Path
    catalogue: Mapping[str, Series]
    habits: Habits

    @property
    def is_counter(self) -> bool:
        """Whether the node is a selector of a counter."""
        if not isinstance(self.node, promql.VectorSelector):
            return False
        return self.catalogue.get(metric_of(self.node), Series()).kind == "counter"

    def calls_above(self) -> list[str]:
        """The names of the functions around the node, the outermost first."""
        return [node.func.name for node in self.above if isinstance(node, promql.Call)]


def inspect(
    text: str,
    where: str = "",
    catalogue: Mapping[str, Series] = KNOWN,
    habits: Habits | None = None,
) -> Query:
    """Parse a query and hold it against every rule. `text` may contain variables of Grafana."""
    habits = habits or Habits()
    variables = variables_in(text)
    try:
        expr = promql.parse(filled(text))
    except ValueError as error:
        found = Finding("promql-syntax", where, f"no PromQL: {str(error).strip()}: {text}")
        return Query(text, None, None, variables, (found,))
    flow = Flow(catalogue, where, habits.kept)
    series = flow.of(expr)
    places = [_Place(node, above, catalogue, habits) for node, above in walk(expr)]
    single = [replace(f, where=where) for place in places for f in _at(place)]
    findings = tuple(sorted({*single, *flow.findings}))
    return Query(text, expr, series, variables, findings)


def _at(place: _Place) -> Iterator[Finding]:
    for rule, check in _RULES.items():
        for message in check(place):
            yield Finding(rule, "", message)


def _named(place: _Place) -> Iterator[str]:
    node = place.node
    if isinstance(node, promql.VectorSelector) and not metric_of(node):
        yield f"{node} names no metric"


def _known(place: _Place) -> Iterator[str]:
    node = place.node
    if not isinstance(node, promql.VectorSelector) or not metric_of(node):
        return
    series = place.catalogue.get(metric_of(node))
    if series is None:
        yield f"there is no metric {metric_of(node)}"
    elif series.kind == "histogram":
        yield f"{metric_of(node)} is a histogram: _bucket, _sum or _count"


def _portable(place: _Place) -> Iterator[str]:
    match place.node:
        case promql.VectorSelector() as selector if selector.matchers.or_matchers:
            yield f"or between matchers is not Prometheus: {selector}"
        case promql.Call() as call if call.func.experimental:
            yield f"{call.func.name} is experimental"
        case promql.BinaryExpr() as binary if _fills(binary):
            yield "fill is newer than the Prometheus we support"


def _fills(expr: promql.BinaryExpr) -> bool:
    values = expr.modifier.fill_values if expr.modifier else None
    return values is not None and (values.lhs is not None or values.rhs is not None)


def _regexps(place: _Place) -> Iterator[promql.Matcher]:
    if isinstance(place.node, promql.VectorSelector):
        for matcher in place.node.matchers.matchers:
            if matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe):
                yield matcher


def _needless_regexp(place: _Place) -> Iterator[str]:
    for matcher in _regexps(place):
        if VARIABLE not in matcher.value and not _METACHARACTERS.search(matcher.value):
            yield f"{matcher} needs no regular expression"


def _anchored_regexp(place: _Place) -> Iterator[str]:
    for matcher in _regexps(place):
        if re.match(r"\^", matcher.value) or re.search(r"(?<!\\)\$$", matcher.value):
            yield f"{matcher} is anchored anyway"


def _any_regexp(place: _Place) -> Iterator[str]:
    for matcher in _regexps(place):
        if matcher.value == ".*":
            yield f"{matcher} matches {'all' if matcher.op == promql.MatchOp.Re else 'nothing'}"


def _contradiction(place: _Place) -> Iterator[str]:
    if not isinstance(place.node, promql.VectorSelector):
        return
    matchers = [str(matcher) for matcher in place.node.matchers.matchers]
    for repeated in sorted({matcher for matcher in matchers if matchers.count(matcher) > 1}):
        yield f"{repeated} stands there twice"
    equal = [m for m in place.node.matchers.matchers if m.op == promql.MatchOp.Equal]
    names = [matcher.name for matcher in equal]
    for name in sorted({n for n in names if len({m.value for m in equal if m.name == n}) > 1}):
        yield f"{name} cannot have two values at once"


def _raw_counter(place: _Place) -> Iterator[str]:
    if place.is_counter and not _counter_is_safe(place):
        yield f"the bare value of the counter {place.node} means nothing: rate or increase"


def _counter_is_safe(place: _Place) -> bool:
    """Within a function of counters, asked only for its existence, or set against its past."""
    assert isinstance(place.node, promql.VectorSelector)
    below: promql.Expr = place.node
    for node in reversed(place.above):
        if isinstance(node, promql.Call) and node.func.name in _COUNTER_SAFE:
            return True
        if isinstance(node, promql.AggregateExpr) and operator(node) in _COUNTER_SAFE_AGGREGATIONS:
            return True
        if isinstance(node, promql.BinaryExpr) and _is_compared_in_time(node, below, place.node):
            return True
        below = node
    return False


def _is_compared_in_time(
    expr: promql.BinaryExpr, below: promql.Expr, counter: promql.VectorSelector
) -> bool:
    if operator(expr) in {"and", "unless"} and below is not expr.lhs and _same(below, expr.rhs):
        return True
    other = expr.rhs if _same(below, expr.lhs) else expr.lhs
    return any(
        same_but_time(counter, found) and found.offset != counter.offset
        for found in selectors(other)
    )


def _same(one: promql.Expr, other: promql.Expr) -> bool:
    return one.prettify() == other.prettify()


def _unguarded_difference(place: _Place) -> Iterator[str]:
    node = place.node
    if not isinstance(node, promql.BinaryExpr) or operator(node) != "-":
        return
    sides = bare(node.lhs), bare(node.rhs)
    counters = [s for s in sides if _Place(s, (), place.catalogue, place.habits).is_counter]
    around = [above for above in place.above if not isinstance(above, promql.ParenExpr)]
    last = around[-1] if around else None
    guarded = isinstance(last, promql.BinaryExpr) and operator(last) in COMPARISONS
    if counters and not guarded:
        yield "the difference of a counter is negative after a restart: compare it with 0"


def _counter_function(place: _Place) -> Iterator[str]:
    node = place.node
    if not isinstance(node, promql.Call) or not node.args:
        return
    if node.func.name in _OF_COUNTERS and (gauges := _ranged(place, counters=False)):
        yield f"{node.func.name} of {gauges[0]}, which is no counter"
    if node.func.name in _OF_GAUGES and (counters := _ranged(place, counters=True)):
        yield f"{node.func.name} of the counter {counters[0]}"


def _ranged(place: _Place, *, counters: bool) -> list[str]:
    """The selectors a function ranges over that are counters, or that are surely none."""
    assert isinstance(place.node, promql.Call)
    names = [metric_of(found) for found in selectors(place.node)]
    kinds = {name: place.catalogue[name].kind for name in names if name in place.catalogue}
    return [name for name, kind in kinds.items() if (kind == "counter") is counters]


def _rate_of_result(place: _Place) -> Iterator[str]:
    node = place.node
    if not isinstance(node, promql.Call) or node.func.name not in _RATES:
        return
    ranged = bare(node.args[0])
    if isinstance(ranged, promql.SubqueryExpr):
        inner = bare(ranged.expr)
        if not isinstance(inner, promql.VectorSelector):
            yield f"{node.func.name} comes first, then sum: never the other way round"


def _irate(place: _Place) -> Iterator[str]:
    if isinstance(place.node, promql.Call) and place.node.func.name in {"irate", "idelta"}:
        yield f"{place.node.func.name} looks at two samples only and overlooks the rest"


def _rate_interval(place: _Place) -> Iterator[str]:
    node = place.node
    if not place.habits.rate_interval or not isinstance(node, promql.Call):
        return
    ranged = bare(node.args[0]) if node.args else None
    if not isinstance(ranged, promql.MatrixSelector) or node.func.name not in _RATES:
        return
    if ranged.range.total_seconds() != RATE_INTERVAL_SECONDS:
        yield f"{node.func.name} over another range than $__rate_interval"


def _quantile_of_rate(place: _Place) -> Iterator[str]:
    node = place.node
    if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
        inside = [n.func.name for n, _ in walk(node.args[1]) if isinstance(n, promql.Call)]
        if not _RATES & {*inside}:
            yield "histogram_quantile of buckets since the process began: rate first"


def _retention(place: _Place) -> Iterator[str]:
    seconds = _seconds_back(place.node) + sum(map(_seconds_back, place.above))
    is_leaf = isinstance(place.node, promql.VectorSelector)
    if is_leaf and seconds > RETENTION_DAYS * _SECONDS_A_DAY:
        yield f"looks {seconds / _SECONDS_A_DAY:.0f} days back; Prometheus keeps {RETENTION_DAYS}"


def _seconds_back(node: promql.Expr) -> float:
    spans = (getattr(node, name, None) for name in ("offset", "range"))
    return sum((float(span.total_seconds()) for span in spans if span is not None), 0.0)


_RULES: Final[dict[str, Callable[[_Place], Iterator[str]]]] = {
    "metric-named": _named,
    "metric-known": _known,
    "portable": _portable,
    "regexp-needless": _needless_regexp,
    "regexp-anchored": _anchored_regexp,
    "regexp-any": _any_regexp,
    "matchers-contradict": _contradiction,
    "counter-bare": _raw_counter,
    "counter-difference": _unguarded_difference,
    "counter-function": _counter_function,
    "rate-of-result": _rate_of_result,
    "irate": _irate,
    "rate-interval": _rate_interval,
    "quantile-rate": _quantile_of_rate,
    "retention": _retention,
}
# Every rule there is; a test holds that each is hit by a bad example.
RULES: Final = frozenset(
    {
        *_RULES,
        "promql-syntax",
        "label-known",
        "label-gone",
        "replicas-doubled",
        "pod-kept",
        "currency-mixed",
        "aggregation-keeps",
        "filter-summed",
        "division-by-zero",
        "join-impossible",
        "join-unstated",
        "join-many",
        "quantile-buckets",
        "relabel",
    }
)
