"""Which labels the series of an expression carry at each point of it, and what goes wrong there.

Follows labels, keys, currencies and replicas from the selectors up through functions, joins and
aggregations. Where nothing certain is known it stays silent: a finding is a defect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import promql_parser as promql

from tests.lib.promql.catalogue import NONE, REPLICA, Labels, Series
from tests.lib.promql.tree import (
    SET_OPERATORS,
    VARIABLE,
    Finding,
    bare,
    children,
    filters,
    metric_of,
    operator,
    selectors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADDS_OR_RANKS: Final = frozenset({"sum", "count", "count_values", "topk", "bottomk"})
_OF_VALUES: Final = frozenset(
    [
        "sum",
        "avg",
        "min",
        "max",
        "quantile",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "limitk",
        "limit_ratio",
    ]
)
_KEEPS_SERIES: Final = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
_OF_EXISTENCE: Final = frozenset(
    {"timestamp", "changes", "resets", "count_over_time", "present_over_time"}
)
_NEVER_ZERO: Final = frozenset(
    {"exophone_poll_interval_seconds", "exophone_poll_stale_after_seconds", "process_max_fds"}
)


@dataclass(frozen=True)
class _Matching:
    """How the series of two sides find each other."""

    on: bool
    labels: Labels
    stated: bool

    def of(self, side: Series) -> Labels:
        """The labels of a side that must be equal on the other."""
        return self.labels & side.labels if self.on else side.labels - self.labels


class Flow:
    """Follows one expression. `findings` has what was found when `of` has answered."""

    def __init__(self, catalogue: Mapping[str, Series], where: str, kept: Labels) -> None:
        self.findings: list[Finding] = []
        self._catalogue = catalogue
        self._where = where
        self._kept = kept

    def of(self, expr: promql.Expr) -> Series | None:
        """The series of an expression; None for a number or a text."""
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
                # In parentheses, negated, or over a range: the series below. A number has none.
                below = children(expr)
                return self.of(below[0]) if below else None

    def _found(self, rule: str, message: str) -> None:
        self.findings.append(Finding(rule, self._where, message))

    def _missing(self, rule: str, used: Labels, there: Labels, what: str) -> None:
        for label in sorted(used - there):
            self._found(rule, f"{what} {label}, which no series there has")

    # Selectors

    def _selected(self, selector: promql.VectorSelector) -> Series:
        name = metric_of(selector)
        series = self._catalogue.get(name, Series())
        for matcher in selector.matchers.matchers:
            if matcher.name == "__name__" or name not in self._catalogue:
                continue
            if matcher.name not in series.labels:
                self._found("label-known", f"{name} has no label {matcher.name}")
            elif matcher.op == promql.MatchOp.Equal and VARIABLE not in matcher.value:
                pinned = series.fixed if matcher.value else series.lacking
                series = pinned(matcher.name)
        return series

    # Aggregations

    def _aggregated(self, expr: promql.AggregateExpr) -> Series:
        inner, name = self.of(expr.expr) or Series(), operator(expr)
        grouping = self._grouping(expr, inner)
        if name in _KEEPS_SERIES and _is_one(expr.param):
            return inner.one_for_each(grouping)
        self._check_replicas(name, inner, grouping)
        self._check_money(name, inner, grouping)
        for label in sorted((self._kept & inner.labels) - grouping):
            self._found("aggregation-keeps", f"{name} drops {label}, which tells sources apart")
        if name == "sum" and _is_equality(expr.expr):
            self._found("filter-summed", "a sum of values that are all the same: count, or bool")
        if name in _KEEPS_SERIES:
            return inner
        result = inner.keeping(grouping)
        if name == "count_values":
            added = frozenset({str(expr.param.val)}) if expr.param is not None else NONE
            result = replace(result, labels=result.labels | added, key=result.key | added)
        return result if name in _OF_VALUES else replace(result, money=None)

    def _grouping(self, expr: promql.AggregateExpr, inner: Series) -> Labels:
        modifier = expr.modifier
        if modifier is None:
            return NONE
        stated = frozenset(modifier.labels)
        by = modifier.type == promql.AggModifierType.By
        if inner.labels or not by:
            self._missing("label-gone", stated, inner.labels, f"{operator(expr)} by or without")
        return inner.labels & stated if by else inner.labels - stated

    def _check_replicas(self, name: str, inner: Series, grouping: Labels) -> None:
        doubled = (inner.replicated or inner.repeated) and (inner.key & REPLICA) - grouping
        if "instance" in inner.key - grouping and "pod" in grouping:
            self._found("pod-kept", f"{name} drops instance and keeps pod, which tells as much")
        if name in _ADDS_OR_RANKS and doubled:
            self._found(
                "replicas-doubled",
                f"{name} meets the series of each replica: max without (instance, pod) comes first",
            )

    def _check_money(self, name: str, inner: Series, grouping: Labels) -> None:
        if name in _OF_VALUES and inner.money is not None and not inner.money & grouping:
            self._found("currency-mixed", f"{name} drops the label currency of an amount")

    # Binary operators

    def _combined(self, expr: promql.BinaryExpr) -> Series | None:
        left, right = self.of(expr.lhs), self.of(expr.rhs)
        if operator(expr) in {"/", "%"} and _may_be_zero(expr.rhs):
            self._found("division-by-zero", f"the divisor may be 0: {expr.rhs.prettify().strip()}")
        if left is None or right is None:
            return left or right
        matching = _matching(expr)
        self._check_matching(expr, left, right, matching)
        if operator(expr) in SET_OPERATORS:
            return _set_result(operator(expr), left, right)
        self._check_sides(expr, left, right, matching)
        return self._joined(expr, left, right, matching)

    def _check_matching(
        self, expr: promql.BinaryExpr, left: Series, right: Series, matching: _Matching
    ) -> None:
        if matching.on:
            for side in (left, right):
                self._missing("label-gone", matching.labels, side.labels, f"{operator(expr)} on")
        elif operator(expr) != "or":
            self._missing("label-gone", matching.labels, self._labels_below(expr), "ignoring")
            self._check_possible(expr, left, right, matching)

    def _labels_below(self, expr: promql.Expr) -> Labels:
        """Every label of the metrics in an expression; to ignore one that is gone does no harm."""
        metrics = map(metric_of, selectors(expr))
        return NONE.union(*(self._catalogue.get(name, Series()).labels for name in metrics))

    def _check_possible(
        self, expr: promql.BinaryExpr, left: Series, right: Series, matching: _Matching
    ) -> None:
        only_left = left.sure - right.labels - matching.labels
        only_right = right.sure - left.labels - matching.labels
        if only_left | only_right:
            labels = ", ".join(sorted(only_left | only_right))
            self._found("join-impossible", f"{operator(expr)} never matches: one side has {labels}")
        elif not matching.stated and left.labels != right.labels:
            self._found(
                "join-unstated", f"{operator(expr)} of series with other labels: on or ignoring?"
            )

    def _check_sides(
        self, expr: promql.BinaryExpr, left: Series, right: Series, matching: _Matching
    ) -> None:
        many_to_one, one_to_many = _cardinality(expr)
        single = [right] if many_to_one else [left] if one_to_many else [left, right]
        for side in single:
            extra = side.key - matching.of(side)
            if extra:
                labels = ", ".join(sorted(extra))
                self._found(
                    "join-many", f"{operator(expr)} may match many series that differ in {labels}"
                )
        self._check_currencies(expr, left, right, matching)

    def _check_currencies(
        self, expr: promql.BinaryExpr, left: Series, right: Series, matching: _Matching
    ) -> None:
        if left.money is None or right.money is None:
            return
        if not (left.money & matching.of(left) and right.money & matching.of(right)):
            self._found("currency-mixed", f"{operator(expr)} of amounts in any currency")

    def _joined(
        self, expr: promql.BinaryExpr, left: Series, right: Series, matching: _Matching
    ) -> Series:
        many_to_one, one_to_many = _cardinality(expr)
        if many_to_one:
            return self._grouped(expr, left, right)
        if one_to_many:
            return self._grouped(expr, right, left)
        return _both(left.keeping(matching.of(left)), left, right)

    def _grouped(self, expr: promql.BinaryExpr, many: Series, one: Series) -> Series:
        taken = frozenset((expr.modifier.group_labels if expr.modifier else None) or ())
        self._missing("label-gone", taken, one.labels, "group_left or group_right takes")
        joined = replace(
            many,
            labels=(many.labels - taken) | (one.labels & taken),
            sure=(many.sure - taken) | (one.sure & taken),
            named=many.named | (one.labels & taken),
            kind="gauge",
        )
        return _both(joined, many, one)

    # Functions

    def _called(self, call: promql.Call) -> Series | None:
        name = call.func.name
        arguments = [self.of(argument) for argument in call.args]
        if call.func.return_type == promql.ValueType.Scalar:
            return None
        inner = next((series for series in arguments if series is not None), Series())
        if name in {"absent", "absent_over_time"}:
            return self._absent(call)
        if name in {"label_replace", "label_join"}:
            return self._relabelled(call, inner)
        if name == "histogram_quantile":
            return self._quantile(inner)
        return replace(inner, kind="gauge", money=None if name in _OF_EXISTENCE else inner.money)

    def _absent(self, call: promql.Call) -> Series:
        of = bare(call.args[0])
        selector = of.vector_selector if isinstance(of, promql.MatrixSelector) else of
        if not isinstance(selector, promql.VectorSelector):
            return Series()
        equal = [m for m in selector.matchers.matchers if m.op == promql.MatchOp.Equal]
        labels = frozenset(m.name for m in equal if m.name != "__name__")
        return Series(labels=labels, sure=labels)

    def _quantile(self, inner: Series) -> Series:
        if "le" not in inner.labels:
            self._found("quantile-buckets", "histogram_quantile gets series without the label le")
        return inner.keeping(inner.labels - {"le"})

    def _relabelled(self, call: promql.Call, inner: Series) -> Series:
        texts = [a.val for a in call.args[1:] if isinstance(a, promql.StringLiteral)]
        target, sources = texts[0], _sources(call.func.name, texts)
        if not re.fullmatch(r"[A-Za-z_]\w*", target):
            self._found("relabel", f"{target!r} is no name of a label")
        self._missing("label-gone", sources, inner.labels, f"{call.func.name} reads")
        if call.func.name == "label_replace" and not _is_regexp(texts[3]):
            self._found("relabel", f"{texts[3]!r} is no regular expression")
        return _with_label(inner, target, sources)


def _with_label(inner: Series, target: str, sources: Labels) -> Series:
    added = frozenset({target})
    money = inner.money
    if money is not None:
        money = money | added if money & sources else money - added
    return replace(
        inner,
        labels=inner.labels | added,
        sure=inner.sure - added if sources - inner.sure else inner.sure | added,
        key=inner.key if sources & inner.key else inner.key - added,
        named=inner.named | added,
        money=money,
    )


def _sources(function: str, texts: list[str]) -> Labels:
    found = texts[2:3] if function == "label_replace" else texts[2:]
    return frozenset(label for label in found if label)


def _is_regexp(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _is_one(expr: promql.Expr | None) -> bool:
    return isinstance(expr, promql.NumberLiteral) and expr.val == 1


def _is_equality(expr: promql.Expr) -> bool:
    inner = bare(expr)
    return (
        isinstance(inner, promql.BinaryExpr)
        and filters(inner)
        and operator(inner) == "=="
        and isinstance(bare(inner.rhs), promql.NumberLiteral)
    )


def _cardinality(expr: promql.BinaryExpr) -> tuple[bool, bool]:
    """Whether it has group_left, whether it has group_right."""
    card = expr.modifier.card if expr.modifier else None
    kinds = promql.VectorMatchCardinality
    return card == kinds.ManyToOne, card == kinds.OneToMany


def _matching(expr: promql.BinaryExpr) -> _Matching:
    stated = expr.modifier.matching if expr.modifier else None
    if stated is None:
        return _Matching(on=False, labels=NONE, stated=False)
    on = stated.type == promql.LabelModifierType.Include
    return _Matching(on=on, labels=frozenset(stated.labels), stated=True)


def _set_result(name: str, left: Series, right: Series) -> Series:
    if name != "or":
        return left
    money = None
    if left.money is not None or right.money is not None:
        money = (left.money or NONE) | (right.money or NONE)
    return Series(
        labels=left.labels | right.labels,
        sure=left.sure & right.sure,
        key=left.key | right.key,
        named=left.named & right.named,
        partial=left.partial | right.partial | (left.labels ^ right.labels),
        money=money,
        replicated=left.replicated or right.replicated,
        repeated=left.repeated or right.repeated,
    )


def _both(result: Series, left: Series, right: Series) -> Series:
    """The result of arithmetic: money if either side is, facts if either side has them."""
    money = [side.money for side in (left, right) if side.money is not None]
    return replace(
        result,
        money=NONE.union(*money) & result.labels if money else None,
        replicated=left.replicated or right.replicated,
        repeated=left.repeated or right.repeated,
    )


def _may_be_zero(expr: promql.Expr) -> bool:
    inner = bare(expr)
    match inner:
        case promql.NumberLiteral():
            return inner.val == 0
        case promql.VectorSelector():
            return metric_of(inner) not in _NEVER_ZERO
        case promql.AggregateExpr():
            of_values = operator(inner) in {"max", "min", "sum", "avg"}
            return operator(inner) not in {"count", "group"} and not (
                of_values and not _may_be_zero(inner.expr)
            )
        case promql.Call():
            return inner.func.name not in {"days_in_month", "pi", "time"}
        case promql.BinaryExpr():
            return _combined_may_be_zero(inner)
    return True


def _combined_may_be_zero(expr: promql.BinaryExpr) -> bool:
    if operator(expr) == "and":
        return _may_be_zero(expr.lhs)
    return not (filters(expr) and _excludes_zero(expr))


def _excludes_zero(comparison: promql.BinaryExpr) -> bool:
    limit = bare(comparison.rhs)
    if not isinstance(limit, promql.NumberLiteral):
        return False
    if operator(comparison) in {">", "!="}:
        return limit.val >= 0 if operator(comparison) == ">" else limit.val == 0
    return operator(comparison) == ">=" and limit.val > 0
