"""Parsed PromQL to walk over, with the variables of Grafana filled in, and what is found there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import promql_parser as promql

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, order=True)
class Finding:
    """One thing to mend: the rule it offends, the place, and what is wrong there."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


# Durations nobody writes stand for Grafana's own, so that they are known again in the tree.
RATE_INTERVAL_SECONDS: Final = 8_869
_DURATIONS: Final = {
    "__rate_interval": f"{RATE_INTERVAL_SECONDS}s",
    "__interval": "4867s",
    "__range": "10395s",
}
_NUMBERS: Final = {
    "__rate_interval_ms": "8869000",
    "__interval_ms": "4867000",
    "__range_ms": "10395000",
    "__range_s": "10395",
    "__from": "1700000000000",
    "__to": "1700010395000",
}
BUILT_IN: Final = frozenset({*_DURATIONS, *_NUMBERS})
VARIABLE: Final = "__var_"
_REFERENCE: Final = re.compile(
    r"\$\{(?P<braced>[A-Za-z_]\w*)(?::[\w:.\-]+)?\}"
    r"|\$(?P<plain>[A-Za-z_]\w*)"
    r"|\[\[(?P<old>[A-Za-z_]\w*)(?::\w+)?\]\]"
)
_EXPECTS_DURATION: Final = re.compile(r"(\[|:|\boffset\s+-?)\s*$")


def variables_in(text: str) -> frozenset[str]:
    """The names of the variables a text refers to: `$x`, `${x:regex}`, `[[x]]`; but not `$1`."""
    return frozenset(str(match[match.lastgroup or 0]) for match in _REFERENCE.finditer(text))


def filled(text: str) -> str:
    """The query with something in the place of each variable that lets it be parsed."""
    return _REFERENCE.sub(_value, text)


def _value(match: re.Match[str]) -> str:
    name, before = str(match[match.lastgroup or 0]), match.string[: match.start()]
    if name in _DURATIONS:
        return _DURATIONS[name]
    if _inside_quotes(before):
        return f"{VARIABLE}{name}"
    if _EXPECTS_DURATION.search(before):
        return "60s"
    return _NUMBERS.get(name, "5")


def _inside_quotes(before: str) -> bool:
    quote = ""
    escaped = False
    for char in before:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "`":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'`":
            quote = char
    return bool(quote)


def children(expr: promql.Expr) -> tuple[promql.Expr, ...]:
    """The expressions directly below one."""
    match expr:
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return (expr.expr,)
        case promql.AggregateExpr():
            return (expr.expr,) if expr.param is None else (expr.param, expr.expr)
        case promql.BinaryExpr():
            return (expr.lhs, expr.rhs)
        case promql.Call():
            return tuple(expr.args)
        case promql.MatrixSelector():
            return (expr.vector_selector,)
        case _:
            return ()


Path = tuple[promql.Expr, ...]


def walk(expr: promql.Expr, above: Path = ()) -> Iterator[tuple[promql.Expr, Path]]:
    """Each expression with those above it, the outermost first."""
    yield expr, above
    for child in children(expr):
        yield from walk(child, (*above, expr))


def bare(expr: promql.Expr) -> promql.Expr:
    """The expression without parentheses around it."""
    while isinstance(expr, promql.ParenExpr):
        expr = expr.expr
    return expr


def selectors(expr: promql.Expr) -> list[promql.VectorSelector]:
    """Every selector, in the order of the text."""
    return [found for found, _ in walk(expr) if isinstance(found, promql.VectorSelector)]


def metric_of(selector: promql.VectorSelector) -> str:
    """The name of the metric; empty where a selector states none, or a pattern."""
    if selector.name:
        return selector.name
    named = [m for m in selector.matchers.matchers if m.name == "__name__"]
    return next((m.value for m in named if m.op == promql.MatchOp.Equal), "")


def same_but_time(one: promql.VectorSelector, other: promql.VectorSelector) -> bool:
    """Whether two selectors choose the same series, at whatever times."""
    return metric_of(one) == metric_of(other) and str(one.matchers) == str(other.matchers)


COMPARISONS: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})
SET_OPERATORS: Final = frozenset({"and", "or", "unless"})


def operator(expr: promql.BinaryExpr | promql.AggregateExpr) -> str:
    """The operator as it is written."""
    return str(expr.op)


def filters(expr: promql.Expr) -> bool:
    """Whether an expression is a comparison that drops series, and not one that answers 0 or 1."""
    return (
        isinstance(expr, promql.BinaryExpr)
        and operator(expr) in COMPARISONS
        and not (expr.modifier is not None and expr.modifier.return_bool)
    )
