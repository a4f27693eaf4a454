"""A linter of alerting and recording rules.

python tests/lib/promql/lint_rules.py prometheus/exophone.rules.yml
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import promql_parser as promql
import yaml

from tests.lib.promql.catalogue import KNOWN, NONE, Catalogue, Labels, Series
from tests.lib.promql.lint import Habits, Query, inspect
from tests.lib.promql.tree import Finding, bare, children, filters, metric_of, operator, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

Rule = dict[str, Any]

SEVERITIES: Final = frozenset({"critical", "warning", "info"})
ANNOTATIONS: Final = frozenset({"summary", "description", "runbook_url", "dashboard_url"})
RUNBOOKS: Final = "https://example.com/exophone-exporter/docs/runbooks.md#"
DASHBOARDS: Final = "https://grafana.example.com/d/"
DASHBOARD_UIDS: Final = frozenset({"exophone-numbers", "exophone-rental", "exophone-exporter"})
# What is wrong with a number or its price must be seen by two polls at the default interval; the
# health of the exporter by some scrapes.
SHORTEST_FOR_SECONDS: Final = 300
SHORTEST_FOR_OF_INVENTORY_SECONDS: Final = 600
LONGEST_INTERVAL_SECONDS: Final = 300  # what Prometheus looks back for a sample

_HABITS: Final = Habits(kept=frozenset({"job", "account"}))
_RESERVED: Final = frozenset({"job", "instance", "account", "alertname", "alertstate"})
_RECORD: Final = re.compile(r"[a-z]+(?:_[a-z]+)*:[a-z][a-z_]*:[a-z][a-z0-9_]*")
_SAMPLING: Final = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
_ACTION: Final = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_LABEL_USED: Final = re.compile(r"(?:\$labels|\.Labels)\.(\w+)")
_VALUE_USED: Final = re.compile(r"\$value\b|\.Value\b")
_READABLE: Final = re.compile(r"\|\s*(humanize\w*|printf)\b")
_SEVERAL_REPLICAS: Final = frozenset({"instance", "pod"})

RULES: Final = frozenset(
    [
        "group-name",
        "group-interval",
        "rule-shape",
        "record-name",
        "record-labels",
        "record-metric",
        "rule-duplicate",
        "record-order",
        "record-unused",
        "alert-name",
        "alert-severity",
        "alert-label",
        "alert-annotations",
        "alert-summary",
        "alert-description",
        "alert-runbook",
        "alert-dashboard",
        "alert-for",
        "alert-condition",
        "alert-fragile",
        "alert-per-replica",
        "alert-series",
        "template-syntax",
        "template-label",
        "template-partial",
        "template-value",
        "label-value",
    ]
)


@dataclass
class _Linter:
    catalogue: Catalogue = field(default_factory=lambda: dict(KNOWN))
    findings: list[Finding] = field(default_factory=list)
    conditional: set[str] = field(default_factory=set)
    recorded: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def found(self, rule: str, where: str, message: str) -> None:
        self.findings.append(Finding(rule, where, message))


def lint_rules(rules: Path | Rule) -> list[Finding]:
    """Every finding in a file of rules, or in one that has been parsed."""
    return sorted(set(_linted(rules).findings))


def known_with_rules(rules: Path | Rule) -> Catalogue:
    """Every metric that a Prometheus with our exporter and these rules has."""
    return _linted(rules).catalogue


def _linted(rules: Path | Rule) -> _Linter:
    content = yaml.safe_load(rules.read_text("utf-8")) if isinstance(rules, Path) else rules
    linter = _Linter()
    groups = content.get("groups") or []
    every = [rule for group in groups for rule in group.get("rules") or []]
    names = {str(rule["record"]) for rule in every if "record" in rule}
    _check_groups(linter, groups)
    for group in groups:
        for rule in group.get("rules") or []:
            _check_rule(linter, rule, names)
    _check_duplicates(linter, every)
    for name in sorted(names - linter.used):
        linter.found("record-unused", name, "no alert and no other rule uses it")
    return linter


def _check_groups(linter: _Linter, groups: list[Rule]) -> None:
    names = Counter(str(group.get("name")) for group in groups)
    for name, count in names.items():
        if count > 1 or not name.startswith("exophone-"):
            linter.found("group-name", name, "must be unique and begin with exophone-")
    for group in groups:
        interval = seconds(str(group.get("interval", "1m")))
        if interval is None or interval > LONGEST_INTERVAL_SECONDS:
            linter.found("group-interval", str(group.get("name")), "leaves gaps of over 5 minutes")


def _check_rule(linter: _Linter, rule: Rule, records: set[str]) -> None:
    where = str(rule.get("record") or rule.get("alert"))
    if ("record" in rule) == ("alert" in rule) or not isinstance(rule.get("expr"), str):
        linter.found("rule-shape", where, "is a record or an alert, with an expression")
    elif "record" in rule:
        _check_record(linter, rule, where, records)
    else:
        _check_alert(linter, rule, where, records)


def _inspected(linter: _Linter, text: str, where: str, records: set[str]) -> Query:
    query = inspect(text, where, linter.catalogue, _HABITS)
    early = query.metrics & records - linter.recorded.keys() - {where}
    for name in sorted(early):
        linter.found("record-order", where, f"{name} is recorded below it")
    linter.used |= query.metrics - {where}
    unknown = [f"there is no metric {name}" for name in early]
    linter.findings += [f for f in query.findings if f.message not in unknown]
    return query


# Recording rules


def _check_record(linter: _Linter, rule: Rule, where: str, records: set[str]) -> None:
    text = rule["expr"]
    if re.search(rf"\b{re.escape(where)}\b", text):
        # It continues itself: its labels are those that it has without itself.
        linter.catalogue[where] = _without_itself(linter, text, where)
    query = _inspected(linter, text, where, records)
    labels = frozenset(rule.get("labels") or {})
    series = query.series or Series()
    series = Series(**{**vars(series), "labels": series.labels | labels, "kind": "gauge"})
    linter.catalogue[where] = series
    linter.recorded[where] = text
    if query.expr is not None and has_condition(query.expr, frozenset(linter.conditional)):
        linter.conditional.add(where)
    _check_record_name(linter, where, query, series.labels)


def _without_itself(linter: _Linter, text: str, name: str) -> Series:
    everything = NONE.union(*(series.labels for series in linter.catalogue.values()))
    found = Series(labels=everything)
    for _ in range(2):  # the first answer may carry labels that only the guess has
        found = inspect(text, name, {**linter.catalogue, name: found}, _HABITS).series or found
        found = Series(**{**vars(found), "labels": found.labels - found.partial})
    return found


def _check_record_name(linter: _Linter, name: str, query: Query, labels: Labels) -> None:
    if not _RECORD.fullmatch(name):
        linter.found("record-name", name, "is not level:metric:operation")
        return
    level, metric, _ = name.split(":")
    missing = sorted(_level_labels(level, labels) - labels)
    if missing:
        linter.found("record-labels", name, f"names {', '.join(missing)}, which its series lack")
    metrics = {found.split(":")[-2] if ":" in found else found for found in query.metrics}
    if not {metric, f"{metric}_total"} & metrics:
        linter.found("record-metric", name, f"is not made of {metric}")


def _level_labels(level: str, labels: Labels) -> frozenset[str]:
    """The labels a level names: `account_sid` is account and sid, `number_type` one label."""
    found, rest = set(), level
    for label in sorted(labels, key=len, reverse=True):
        whole = re.compile(rf"(?:(?<=_)|^){label}(?=_|$)")
        if whole.search(rest):
            found.add(label)
            rest = whole.sub("", rest)
    return frozenset(found | {word for word in rest.split("_") if word})


# Alerts


def _check_alert(linter: _Linter, rule: Rule, where: str, records: set[str]) -> None:
    query = _inspected(linter, rule["expr"], where, records)
    if not re.fullmatch(r"ExoPhone[A-Z]\w*", where):
        linter.found("alert-name", where, "is not ExoPhone and what is wrong")
    _check_labels(linter, rule, where)
    _check_annotations(linter, rule, where, query)
    _check_for(linter, rule, where, query)
    _check_expression(linter, where, query)
    _check_templates(linter, rule, where, query)


def _check_labels(linter: _Linter, rule: Rule, where: str) -> None:
    labels = rule.get("labels") or {}
    if labels.get("severity") not in SEVERITIES:
        linter.found(
            "alert-severity", where, f"severity is none of {', '.join(sorted(SEVERITIES))}"
        )
    for name in sorted({*labels} & _RESERVED):
        linter.found("alert-label", where, f"overwrites the label {name}")
    for name, value in labels.items():
        if _VALUE_USED.search(str(value)):
            linter.found("label-value", where, f"{name} is another alert at each new value")


def _check_annotations(linter: _Linter, rule: Rule, where: str, query: Query) -> None:
    annotations = {key: str(text) for key, text in (rule.get("annotations") or {}).items()}
    for name in sorted(ANNOTATIONS ^ annotations.keys()):
        linter.found("alert-annotations", where, f"{name} is missing, or is none we know")
    summary, description = annotations.get("summary", ""), annotations.get("description", "")
    if "{{" in summary or not summary.endswith("."):
        linter.found("alert-summary", where, "is one sentence, the same for all of its alerts")
    has_labels = bool(query.series and query.series.labels)
    if ("{{" not in description and has_labels) or not description.endswith("."):
        linter.found("alert-description", where, "says in sentences whom it concerns")
    if annotations.get("runbook_url") != RUNBOOKS + where.lower():
        linter.found("alert-runbook", where, f"is not {RUNBOOKS}{where.lower()}")
    uid = annotations.get("dashboard_url", "").removeprefix(DASHBOARDS).partition("?")[0]
    if uid not in DASHBOARD_UIDS:
        linter.found("alert-dashboard", where, f"is not {DASHBOARDS} and one of our uids")


def _check_for(linter: _Linter, rule: Rule, where: str, query: Query) -> None:
    inventory = bool(query.series and query.series.replicated)
    shortest = SHORTEST_FOR_OF_INVENTORY_SECONDS if inventory else SHORTEST_FOR_SECONDS
    waits = seconds(str(rule.get("for", "")))
    if waits is None or waits < shortest:
        linter.found("alert-for", where, f"waits less than {shortest // 60} minutes")
    keeps = rule.get("keep_firing_for")
    if keeps is not None and not seconds(str(keeps)):
        linter.found("alert-for", where, f"keep_firing_for {keeps} is no duration")


def _check_expression(linter: _Linter, where: str, query: Query) -> None:
    if query.expr is None:
        return
    if query.series is None:
        linter.found("alert-series", where, "answers with a number, not with series")
    if not has_condition(query.expr, frozenset(linter.conditional)):
        linter.found("alert-condition", where, "fires whatever the value: a comparison is missing")
    for node, _ in walk(query.expr):
        if isinstance(node, promql.AggregateExpr) and operator(node) in _SAMPLING:
            linter.found("alert-fragile", where, f"{operator(node)} flaps between series")
    series = query.series or Series()
    if series.replicated and series.labels & _SEVERAL_REPLICAS:
        linter.found("alert-per-replica", where, "fires once for each replica of the exporter")


def has_condition(expr: promql.Expr, conditional: frozenset[str]) -> bool:
    """Whether an expression answers only if something is the case.

    `conditional` are the recorded series whose own expressions do.
    """
    match expr:
        case promql.VectorSelector():
            return metric_of(expr) in conditional
        case promql.MatrixSelector():
            return metric_of(expr.vector_selector) in conditional
        case promql.BinaryExpr():
            return _has_condition(expr, conditional)
        case promql.Call() if expr.func.name in {"absent", "absent_over_time"}:
            return True
        case _:
            return any(has_condition(child, conditional) for child in children(expr))


def _has_condition(expr: promql.BinaryExpr, conditional: frozenset[str]) -> bool:
    sides = has_condition(expr.lhs, conditional), has_condition(expr.rhs, conditional)
    if filters(expr):
        return True
    if operator(expr) == "or":
        return all(sides)
    if operator(expr) == "unless":
        return sides[0]
    answers_always = expr.modifier is not None and expr.modifier.return_bool
    return any(sides) and not answers_always


# Templates


def _check_templates(linter: _Linter, rule: Rule, where: str, query: Query) -> None:
    series = query.series or Series()
    labels = series.labels | frozenset(rule.get("labels") or {}) | {"alertname"}
    for text in map(str, (rule.get("annotations") or {}).values()):
        for used in sorted(set(_LABEL_USED.findall(text)) - labels):
            linter.found("template-label", where, f"no series of the result has {used}")
        for message in _unbalanced(text):
            linter.found("template-syntax", where, message)
        for used in sorted(_unguarded(text) & series.partial):
            linter.found("template-partial", where, f"only some series have {used}: with or if")
        for action in _ACTION.findall(text):
            if _shows_value(action) and not _READABLE.search(action):
                linter.found("template-value", where, f"{action} shows too many digits")


def _shows_value(action: str) -> bool:
    return bool(_VALUE_USED.search(action)) and not action.startswith(("if", "else", "with"))


def _unbalanced(text: str) -> Iterator[str]:
    if text.count("{{") != len(_ACTION.findall(text)) or text.count("}}") != text.count("{{"):
        yield "braces do not match"
    begun = [_verb(action) for action in _ACTION.findall(text)]
    if sum(verb in {"if", "with", "range"} for verb in begun) != begun.count("end"):
        yield "if, with or range without its end"


def _verb(action: str) -> str:
    return action.split(maxsplit=1)[0] if action else ""


def _unguarded(text: str) -> frozenset[str]:
    """The labels that are shown outside any `if` and `with`."""
    found: set[str] = set()
    depth = 0
    for action in _ACTION.findall(text):
        if _verb(action) in {"if", "with", "range"}:
            depth += 1
        elif _verb(action) == "end":
            depth -= 1
        elif depth == 0:
            found.update(_LABEL_USED.findall(action))
    return frozenset(found)


# All rules


def _check_duplicates(linter: _Linter, rules: list[Rule]) -> None:
    identities = Counter(_identity(rule) for rule in rules)
    for name in sorted({name for (name, _), count in identities.items() if count > 1}):
        linter.found("rule-duplicate", name, "stands there twice with the same labels")
    expressions = Counter(
        (str(rule.get("alert")), _normal(rule["expr"]), str(rule.get("for")))
        for rule in rules
        if "alert" in rule and isinstance(rule.get("expr"), str)
    )
    for name in sorted({name for (name, _, _), count in expressions.items() if count > 1}):
        linter.found("rule-duplicate", name, "asks the same twice")


def _identity(rule: Rule) -> tuple[str, str]:
    labels = sorted((str(k), str(v)) for k, v in (rule.get("labels") or {}).items())
    return str(rule.get("record") or rule.get("alert")), str(labels)


def _normal(text: str) -> str:
    try:
        return bare(promql.parse(text)).prettify()
    except ValueError:
        return text


def seconds(text: str) -> float | None:
    """A duration such as 10m in seconds; None if it is none."""
    try:
        return promql.parse_duration(text).total_seconds()
    except ValueError:
        return None


def main() -> int:
    """Print the findings of the files named; 1 if there are any."""
    findings = [f for name in sys.argv[1:] for f in lint_rules(Path(name))]
    print(*findings, sep="\n", end="\n" if findings else "")  # noqa: T201 - a command's answer
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
