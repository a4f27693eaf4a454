"""Our alerting and recording rules, each inspected with what those above it record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import promql_parser as promql
import yaml

from tests.lib.paths import ROOT
from tests.lib.promql.catalog import KNOWN, Labels, Series
from tests.lib.promql.flow import Finding, inspect
from tests.lib.promql.tree import children, filters

if TYPE_CHECKING:
    from collections.abc import Iterable

Rule = dict[str, Any]

FILE: Final = ROOT / "prometheus" / "exophone.rules.yml"
RULES: Final[list[Rule]] = [
    rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]
]
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
# Without these two labels nobody can tell whose numbers a series counts.
_KEPT: Final = frozenset({"job", "account"})


@dataclass(frozen=True)
class Inspected:
    """A rule, the labels of its series, whether it has a condition, and what is wrong with it."""

    rule: Rule
    labels: Labels
    has_condition: bool
    findings: tuple[Finding, ...]


class RuleSet:
    """Rules in their order. `catalog` has the exporter's metrics and those that they record."""

    def __init__(self, rules: Iterable[Rule] = RULES) -> None:
        self.catalog = dict(KNOWN)
        self._conditional: set[str] = set()
        self.rules = [self._inspected(rule) for rule in rules]

    def _inspected(self, rule: Rule) -> Inspected:
        name, text = rule.get("record", ""), rule["expr"]
        if name:
            # A rule may read its own last result, which has the labels of the rest of the query.
            first = inspect(text, self.catalog | {name: Series()}, _KEPT)
            self.catalog[name] = first.series or Series()
        query = inspect(text, self.catalog, _KEPT)
        has_condition = query.expr is not None and self._has_condition(query.expr)
        if name and has_condition:
            self._conditional.add(name)
        labels = (query.series or Series()).labels | frozenset(rule.get("labels", {}))
        return Inspected(rule, labels, has_condition, query.findings)

    def _has_condition(self, expr: promql.Expr) -> bool:
        """Whether a query returns series only when something is wrong."""
        match expr:
            case promql.VectorSelector():
                return expr.name in self._conditional
            case promql.Call() if expr.func.name == "absent":
                return True
            case promql.BinaryExpr() if not filters(expr):
                sides = [self._has_condition(side) for side in children(expr)]
                decisive = {"or": all(sides), "unless": sides[0]}
                return decisive.get(str(expr.op), any(sides))
            case promql.BinaryExpr():
                return True
        return any(map(self._has_condition, children(expr)))
