"""Follow labels through a PromQL query, to find what would make a figure silently wrong.

`inspect("sum(exophone_numbers)").findings` is empty unless the query

- selects a metric or label that nothing exports (`metric-known`, `label-known`), or uses a label
  that an aggregation has dropped (`label-gone`);
- drops a label that the caller wants kept, such as the account (`aggregation-keeps`);
- adds up what every replica of the exporter reports (`replicas-doubled`);
- adds or compares amounts of different currencies (`currency-mixed`);
- joins series that never match (`join-impossible`), or several to one (`join-many`);
- takes the rate of a gauge, or the delta of a counter (`counter-function`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import promql_parser as promql

from tests.lib.promql.catalog import KNOWN, NONE, REPLICA, Labels, Series
from tests.lib.promql.tree import VARIABLE, children, parse, selectors

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES: Final = frozenset(
    [
        "promql-syntax",
        "metric-known",
        "label-known",
        "label-gone",
        "aggregation-keeps",
        "replicas-doubled",
        "currency-mixed",
        "join-impossible",
        "join-many",
        "counter-function",
    ]
)
_PICKS: Final = frozenset({"topk", "bottomk"})
_ADDS_OR_RANKS: Final = _PICKS | {"sum", "count"}
_COUNTS: Final = frozenset({"count", "group"})
_OF_EXISTENCE: Final = frozenset({"timestamp", "changes", "count_over_time", "present_over_time"})
_OF_COUNTERS: Final = frozenset({"rate", "increase", "irate", "resets"})
_OF_GAUGES: Final = frozenset({"delta", "idelta", "deriv", "predict_linear"})
_SET_OPERATORS: Final = frozenset({"and", "or", "unless"})


class Finding(NamedTuple):
    """The rule that a query breaks, and how."""

    rule: str
    message: str


@dataclass(frozen=True)
class Query:
    """An inspected query. `expr` is None if it is not PromQL, `series` if it returns a number."""

    expr: promql.Expr | None
    series: Series | None
    findings: tuple[Finding, ...]


def inspect(text: str, catalog: Mapping[str, Series] = KNOWN, kept: Labels = NONE) -> Query:
    """Check a query, which may contain Grafana's variables, against every rule.

    `kept` are labels that every aggregation has to keep.
    """
    try:
        expr = parse(text)
    except ValueError as error:
        return Query(None, None, (Finding("promql-syntax", f"{error}: {text}"),))
    flow = _Flow(catalog, kept)
    series = flow.of(expr)
    return Query(expr, series, tuple(flow.findings))


@dataclass(frozen=True)
class _Matching:
    """Which labels of the two sides of an operator must be equal."""

    on: bool
    labels: Labels

    def of(self, side: Series) -> Labels:
        return self.labels & side.labels if self.on else side.labels - self.labels


class _Flow:
    def __init__(self, catalog: Mapping[str, Series], kept: Labels) -> None:
        self.findings: list[Finding] = []
        self._catalog = catalog
        self._kept = kept

    def of(self, expr: promql.Expr) -> Series | None:
        """The series of an expression; None for a number or a string."""
        match expr:
            case promql.VectorSelector():
                return self._selected(expr)
            case promql.AggregateExpr():
                return self._aggregated(expr)
            case promql.BinaryExpr():
                return self._combined(expr)
            case promql.Call():
                return self._called(expr)
            case _:
                below = children(expr)
                return self.of(below[0]) if below else None

    def _found(self, rule: str, message: str) -> None:
        self.findings.append(Finding(rule, message))

    def _require(self, used: Labels, there: Labels, what: object) -> None:
        for label in sorted(used - there):
            self._found("label-gone", f"{what} uses {label}, which no series has there")

    # Selectors

    def _selected(self, selector: promql.VectorSelector) -> Series:
        series = self._catalog.get(selector.name or "")
        if series is None:
            self._found("metric-known", f"there is no metric {selector.name}")
            return Series()
        for matcher in selector.matchers.matchers:
            if matcher.name not in series.labels:
                self._found("label-known", f"{selector.name} has no label {matcher.name}")
            elif matcher.op == promql.MatchOp.Equal and VARIABLE not in matcher.value:
                series = series.fixed(matcher.name)
        return series

    # Aggregations

    def _aggregated(self, expr: promql.AggregateExpr) -> Series:
        inner, name = self.of(expr.expr) or Series(), str(expr.op)
        grouping = self._grouping(expr, inner)
        if name in _PICKS and isinstance(expr.param, promql.NumberLiteral) and expr.param.val == 1:
            return inner.one_for_each(grouping)
        self._check_aggregation(name, inner, grouping)
        if name in _PICKS:
            return inner
        result = inner.keeping(grouping)
        return replace(result, money=None) if name in _COUNTS else result

    def _grouping(self, expr: promql.AggregateExpr, inner: Series) -> Labels:
        if expr.modifier is None:
            return NONE
        stated = frozenset(expr.modifier.labels)
        self._require(stated, inner.labels, expr.op)
        by = expr.modifier.type == promql.AggModifierType.By
        return inner.labels & stated if by else inner.labels - stated

    def _check_aggregation(self, name: str, inner: Series, grouping: Labels) -> None:
        for label in sorted((self._kept & inner.labels) - grouping):
            self._found("aggregation-keeps", f"{name} drops {label}, which tells sources apart")
        summed = name in _ADDS_OR_RANKS and inner.shared and (inner.key & REPLICA) - grouping
        if summed or ("instance" in inner.key - grouping and "pod" in grouping):
            self._found("replicas-doubled", f"{name}: max without (instance, pod) comes first")
        if name not in _COUNTS and inner.money is not None and not inner.money & grouping:
            self._found("currency-mixed", f"{name} drops the label currency of an amount")

    # Binary operators

    def _combined(self, expr: promql.BinaryExpr) -> Series | None:
        left, right = self.of(expr.lhs), self.of(expr.rhs)
        if left is None or right is None:
            return left or right
        matching = _matching(expr)
        if matching.on:
            self._require(matching.labels, left.labels & right.labels, f"{expr.op} on")
        elif str(expr.op) != "or":
            self._check_ignoring(expr, left, right, matching.labels)
        if str(expr.op) in _SET_OPERATORS:
            return _either(left, right) if str(expr.op) == "or" else left
        return self._joined(expr, left, right, matching)

    def _check_ignoring(
        self, expr: promql.BinaryExpr, left: Series, right: Series, ignored: Labels
    ) -> None:
        names = {selector.name or "" for selector in selectors(expr)}
        below = NONE.union(*(self._catalog.get(name, Series()).labels for name in names))
        self._require(ignored, below, f"{expr.op} ignoring")
        alone = (left.sure - right.labels) | (right.sure - left.labels)
        if alone - ignored:
            labels = ", ".join(sorted(alone - ignored))
            self._found("join-impossible", f"{expr.op} never matches: one side has {labels}")

    def _joined(
        self, expr: promql.BinaryExpr, left: Series, right: Series, matching: _Matching
    ) -> Series:
        card = expr.modifier.card if expr.modifier else None
        many_to_one = card == promql.VectorMatchCardinality.ManyToOne
        one_to_many = card == promql.VectorMatchCardinality.OneToMany
        for side in [right] * (not one_to_many) + [left] * (not many_to_one):
            if extra := side.key - matching.of(side):
                labels = ", ".join(sorted(extra))
                self._found("join-many", f"{expr.op} may match series that differ in {labels}")
        amounts = [side for side in (left, right) if side.money is not None]
        if len(amounts) > 1 and not all((s.money or NONE) & matching.of(s) for s in amounts):
            self._found("currency-mixed", f"{expr.op} of amounts in any currency")
        if many_to_one:
            result = self._grouped(expr, left, right)
        elif one_to_many:
            result = self._grouped(expr, right, left)
        else:
            result = left.keeping(matching.of(left))
        money = NONE.union(*(side.money or NONE for side in amounts)) & result.labels
        shared = left.shared or right.shared
        return replace(result, money=money if amounts else None, shared=shared)

    def _grouped(self, expr: promql.BinaryExpr, many: Series, one: Series) -> Series:
        taken = frozenset((expr.modifier.group_labels if expr.modifier else None) or ())
        self._require(taken, one.labels, "group_left")
        return replace(
            many,
            labels=(many.labels - taken) | (one.labels & taken),
            sure=(many.sure - taken) | (one.sure & taken),
            named=many.named | (one.labels & taken),
            kind="gauge",
        )

    # Functions

    def _called(self, call: promql.Call) -> Series | None:
        name = call.func.name
        arguments = [self.of(argument) for argument in call.args]
        self._check_kind(call)
        if call.func.return_type == promql.ValueType.Scalar:
            return None
        inner = next((series for series in arguments if series is not None), Series())
        if name == "absent":
            return Series()
        if name in {"label_replace", "label_join"}:
            return self._relabelled(call, inner)
        if name == "histogram_quantile":
            self._require(frozenset({"le"}), inner.labels, name)
            return inner.keeping(inner.labels - {"le"})
        return replace(inner, kind="gauge", money=None if name in _OF_EXISTENCE else inner.money)

    def _check_kind(self, call: promql.Call) -> None:
        wrong = {"gauge"} if call.func.name in _OF_COUNTERS else set()
        wrong = {"counter"} if call.func.name in _OF_GAUGES else wrong
        for selector in selectors(call) if wrong else ():
            kind = self._catalog.get(selector.name or "", Series(kind="")).kind
            if kind in wrong:
                self._found("counter-function", f"{call.func.name} of {selector.name}, a {kind}")

    def _relabelled(self, call: promql.Call, inner: Series) -> Series:
        texts = [a.val for a in call.args[1:] if isinstance(a, promql.StringLiteral)]
        sources = texts[2:3] if call.func.name == "label_replace" else texts[2:]
        added, used = frozenset({texts[0]}), frozenset(filter(None, sources))
        self._require(used, inner.labels, call.func.name)
        money = inner.money
        if money is not None:
            money = money | added if money & used else money - added
        return replace(
            inner,
            labels=inner.labels | added,
            sure=inner.sure - added if used - inner.sure else inner.sure | added,
            key=inner.key if used & inner.key else inner.key - added,
            named=inner.named | added,
            money=money,
        )


def _matching(expr: promql.BinaryExpr) -> _Matching:
    stated = expr.modifier.matching if expr.modifier else None
    if stated is None:
        return _Matching(on=False, labels=NONE)
    on = stated.type == promql.LabelModifierType.Include
    return _Matching(on=on, labels=frozenset(stated.labels))


def _either(left: Series, right: Series) -> Series:
    amounts = [side.money for side in (left, right) if side.money is not None]
    return Series(
        labels=left.labels | right.labels,
        sure=left.sure & right.sure,
        key=left.key | right.key,
        named=left.named & right.named,
        money=NONE.union(*amounts) if amounts else None,
        shared=left.shared or right.shared,
    )
