"""Parsed PromQL to walk over, with Grafana's variables filled in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import promql_parser as promql

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "__var_"
_COMPARISONS: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})


def parse(text: str) -> promql.Expr:
    """Parse a query. Grafana's own variables are durations in it, all others are strings."""
    return promql.parse(re.sub(r"\$([a-z]\w*)", rf"{VARIABLE}\1", re.sub(r"\$__\w+", "5m", text)))


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


def walk(expr: promql.Expr) -> Iterator[promql.Expr]:
    """The expression and every one below it."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def selectors(expr: promql.Expr) -> list[promql.VectorSelector]:
    """Every selector, in the order of the text."""
    return [found for found in walk(expr) if isinstance(found, promql.VectorSelector)]


def filters(expr: promql.Expr) -> bool:
    """Whether an expression is a comparison that drops series: one without `bool`."""
    return (
        isinstance(expr, promql.BinaryExpr)
        and str(expr.op) in _COMPARISONS
        and not (expr.modifier is not None and expr.modifier.return_bool)
    )
