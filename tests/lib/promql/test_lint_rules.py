from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.lib.paths import ROOT
from tests.lib.promql.catalogue import KNOWN
from tests.lib.promql.lint_rules import RULES, known_with_rules, lint_rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OUR_RULES = ROOT / "prometheus" / "exophone.rules.yml"

Rules = dict[str, Any]

GOOD: Rules = yaml.safe_load("""
groups:
  - name: exophone-example
    rules:
      - record: account_flow:exophone_numbers_unattached:sum
        expr: |
          sum without (country, region, number_type) (
            max without (instance, pod) (exophone_numbers_unattached)
          )
      - record: instance:up:seen
        expr: |
          up == 0 and on (job, instance)
            (last_over_time(instance:up:seen[1h]) or exophone_exporter_build_info)
      - alert: ExoPhoneUnattached
        expr: account_flow:exophone_numbers_unattached:sum{flow="voice"} > 0
        for: 10m
        keep_firing_for: 10m
        labels:
          severity: warning
        annotations:
          summary: Numbers have no flow.
          description: '{{ $value | printf "%.0f" }} numbers of account {{ $labels.account }}.'
          runbook_url: https://example.com/exophone-exporter/docs/runbooks.md#exophoneunattached
          dashboard_url: https://grafana.example.com/d/exophone-numbers?a={{ $labels.account }}
      - alert: ExoPhoneDown
        expr: instance:up:seen
        for: 5m
        labels:
          severity: critical
        annotations:
          summary: An exporter is down.
          description: '{{ $labels.instance }} is down.'
          runbook_url: https://example.com/exophone-exporter/docs/runbooks.md#exophonedown
          dashboard_url: https://grafana.example.com/d/exophone-exporter
      - alert: ExoPhoneAbsent
        expr: absent(exophone_exporter_build_info)
        for: 10m
        labels:
          severity: info
        annotations:
          summary: There is no exporter.
          description: Look at the targets page.
          runbook_url: https://example.com/exophone-exporter/docs/runbooks.md#exophoneabsent
          dashboard_url: https://grafana.example.com/d/exophone-exporter
""")
RECORD, CONTINUED, ALERT, DOWN, ABSENT = range(5)


def _rule(rules: Rules, index: int) -> Rules:
    found: Rules = rules["groups"][0]["rules"][index]
    return found


def _set(index: int, key: str, value: object) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        _rule(rules, index)[key] = value

    return change


def _drop(index: int, key: str) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        del _rule(rules, index)[key]

    return change


def _note(name: str, text: str | None, index: int = ALERT) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        annotations = _rule(rules, index)["annotations"] = dict(_rule(rules, index)["annotations"])
        annotations.pop(name, None) if text is None else annotations.update({name: text})

    return change


def _label(name: str, text: str) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        _rule(rules, ALERT)["labels"][name] = text

    return change


def _group(key: str, value: object) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        rules["groups"][0][key] = value

    return change


def _add(**rule: object) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        rules["groups"][0]["rules"].append(rule)

    return change


def _again(**changed: object) -> Callable[[Rules], None]:
    def change(rules: Rules) -> None:
        rules["groups"][0]["rules"].append({**_rule(rules, ALERT), **changed})

    return change


def _last_first(rules: Rules) -> None:
    rules["groups"][0]["rules"].reverse()


def _second_group(rules: Rules) -> None:
    rules["groups"].append({"name": "exophone-example", "rules": []})


UNATTACHED = "account_flow:exophone_numbers_unattached:sum"
EITHER = (
    "max by (job, account, country) (exophone_numbers_idle) > 0"
    " or max by (job, account) (exophone_numbers_idle) > 9"
)
BAD = [
    ("group-name", "prefix", _group("name", "numbers")),
    ("group-name", "twice", _second_group),
    ("group-interval", "gaps", _group("interval", "10m")),
    ("group-interval", "no-duration", _group("interval", "often")),
    ("rule-shape", "no-expression", _drop(ALERT, "expr")),
    ("rule-shape", "both", _set(ALERT, "record", "a:b:c")),
    ("record-name", "no-level", _set(RECORD, "record", "exophone_numbers_unattached_sum")),
    ("record-name", "capitals", _set(RECORD, "record", "account:exophone_numbers:SUM")),
    ("record-labels", "gone", _set(RECORD, "record", "account_sid:exophone_numbers_unattached:x")),
    ("record-labels", "word", _set(RECORD, "record", "my:exophone_numbers_unattached:sum")),
    ("record-metric", "another", _set(RECORD, "record", "account:exophone_numbers:sum")),
    ("rule-duplicate", "labels", _again(expr="exophone_up == 0")),
    ("rule-duplicate", "question", _again(labels={"severity": "info"})),
    ("rule-duplicate", "record", _add(record=UNATTACHED, expr="max by (job) (up)")),
    ("record-order", "below", _last_first),
    ("record-unused", "idle", _add(record="job:up:max", expr="max by (job) (up)")),
    ("record-unused", "by-itself", _set(DOWN, "expr", "up == 0")),
    ("alert-name", "prefix", _set(ALERT, "alert", "NumbersUnattached")),
    ("alert-severity", "page", _label("severity", "page")),
    ("alert-severity", "none", _drop(ALERT, "labels")),
    ("alert-label", "account", _label("account", "all")),
    ("label-value", "value", _label("count", "{{ $value }}")),
    ("label-value", "field", _label("count", "{{ .Value }}")),
    ("alert-annotations", "missing", _note("dashboard_url", None)),
    ("alert-annotations", "unknown", _note("message", "Hello.")),
    ("alert-summary", "templated", _note("summary", "{{ $labels.account }} has numbers.")),
    ("alert-summary", "fragment", _note("summary", "Numbers have no flow")),
    ("alert-description", "static", _note("description", "Some numbers.")),
    ("alert-description", "fragment", _note("description", "{{ $labels.account }} has some")),
    ("alert-runbook", "heading", _note("runbook_url", "https://example.com/runbooks.md")),
    ("alert-dashboard", "uid", _note("dashboard_url", "https://grafana.example.com/d/other")),
    ("alert-for", "none", _drop(ALERT, "for")),
    ("alert-for", "short-for-inventory", _set(ALERT, "for", "9m")),
    ("alert-for", "short-for-health", _set(DOWN, "for", "4m")),
    ("alert-for", "absent-without", _drop(ABSENT, "for")),
    ("alert-for", "keep-firing", _set(ALERT, "keep_firing_for", "long")),
    ("alert-condition", "always", _set(ALERT, "expr", UNATTACHED)),
    ("alert-condition", "bool", _set(ALERT, "expr", f"{UNATTACHED} > bool 0")),
    ("alert-condition", "one-side-of-or", _set(ALERT, "expr", f"{UNATTACHED} > 0 or {UNATTACHED}")),
    ("alert-condition", "unless", _set(ALERT, "expr", f"{UNATTACHED} unless {UNATTACHED} > 9")),
    ("alert-fragile", "topk", _set(ALERT, "expr", f"topk by (job, account) (5, {UNATTACHED}) > 0")),
    ("alert-per-replica", "instance", _set(ALERT, "expr", "exophone_numbers_idle > 0")),
    (
        "alert-per-replica",
        "pod",
        _set(ALERT, "expr", "max without (instance) (exophone_numbers_idle) > 0"),
    ),
    ("alert-series", "number", _set(ALERT, "expr", "time() > bool 5")),
    (
        "template-syntax",
        "end",
        _note("description", "{{ if $labels.account }}{{ $labels.account }}."),
    ),
    ("template-syntax", "braces", _note("description", "{{ $labels.account }.")),
    ("template-label", "gone", _note("description", "{{ $labels.region }}.")),
    ("template-label", "field", _note("description", "{{ .Labels.instance }}.")),
    (
        "template-label",
        "in-url",
        _note(
            "dashboard_url",
            "https://grafana.example.com/d/exophone-numbers?var-sid={{ $labels.sid }}",
        ),
    ),
    (
        "template-partial",
        "or",
        lambda rules: (
            _set(ALERT, "expr", EITHER)(rules),
            _note("description", "{{ $labels.country }}.")(rules),
        ),
    ),
    ("template-value", "raw", _note("description", "{{ $value }} of {{ $labels.account }}.")),
]
GOOD_CHANGES = [
    ("alert-for", "long", _set(ALERT, "for", "1h")),
    ("alert-condition", "and", _set(ALERT, "expr", f"{UNATTACHED} and on (job) (up == 0)")),
    ("alert-condition", "recorded", _set(ALERT, "expr", "instance:up:seen")),
    (
        "alert-condition",
        "aggregated",
        _set(ALERT, "expr", "max by (job, account) (exophone_up == 0)"),
    ),
    ("alert-condition", "range", _set(ALERT, "expr", "last_over_time(instance:up:seen[1h])")),
    (
        "rule-duplicate",
        "other-severity",
        _again(expr=f"{UNATTACHED} > 100", labels={"severity": "critical"}),
    ),
    (
        "template-value",
        "humanized",
        _note("description", "{{ $value | humanize }} {{ $labels.account }}."),
    ),
    (
        "template-value",
        "compared",
        _note("description", "{{ if gt $value 1.0 }}{{ $labels.account }}{{ end }}."),
    ),
    (
        "template-partial",
        "guarded",
        lambda rules: (
            _set(ALERT, "expr", EITHER)(rules),
            _note("description", "{{ with $labels.country }}{{ . }}{{ end }}.")(rules),
        ),
    ),
    (
        "template-label",
        "own-label",
        lambda rules: (
            _label("scope", "all")(rules),
            _note("description", "{{ $labels.scope }}.")(rules),
        ),
    ),
    (
        "record-labels",
        "of-two-words",
        _add(
            record="number_type:exophone_numbers:max",
            expr="max by (job, account, number_type) (exophone_numbers)",
        ),
    ),
    (
        "record-metric",
        "counter",
        _add(
            record="job:exophone_polls:rate",
            expr="sum by (job, account) (rate(exophone_polls_total[15m]))",
        ),
    ),
    ("group-interval", "short", _group("interval", "30s")),
]


def _found(change: Callable[[Rules], object]) -> set[str]:
    rules = deepcopy(GOOD)
    change(rules)
    return {finding.rule for finding in lint_rules(rules)}


def test_good_rules_have_no_findings() -> None:
    """What the bad examples are changed from offends nothing."""
    assert lint_rules(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "change"), [pytest.param(e[0], e[2], id=f"{e[0]}-{e[1]}") for e in BAD]
)
def test_bad_rules_are_found(rule: str, change: Callable[[Rules], object]) -> None:
    """Each rule of the linter refuses what it is there to refuse."""
    assert rule in _found(change)


@pytest.mark.parametrize(
    ("rule", "change"), [pytest.param(e[0], e[2], id=f"{e[0]}-{e[1]}") for e in GOOD_CHANGES]
)
def test_good_variants_are_let_pass(rule: str, change: Callable[[Rules], object]) -> None:
    """What is near to a bad example and right offends that rule not."""
    assert rule not in _found(change)


def test_every_rule_has_a_bad_example() -> None:
    """No rule of the linter can be dead without notice."""
    assert {example[0] for example in BAD} == RULES


@pytest.mark.parametrize(
    ("expr", "rule"),
    [
        pytest.param("max by (account) (exophone_up) == 0", "aggregation-keeps", id="job"),
        pytest.param("max by (job) (exophone_up) == 0", "aggregation-keeps", id="account"),
        pytest.param("exophone_upp == 0", "metric-known", id="metric"),
        pytest.param("exophone_up{sid='a'} == 0", "label-known", id="label"),
        pytest.param("(exophone_up == 0", "promql-syntax", id="syntax"),
    ],
)
def test_queries_of_rules_are_linted(expr: str, rule: str) -> None:
    """Rules are held against all that is asked of queries, and keep the labels of an account."""
    assert rule in _found(_set(ALERT, "expr", expr))


def test_recorded_series_are_metrics_of_the_rules_below() -> None:
    """A recorded series has the labels of its expression, and those the rule adds."""
    labelled = deepcopy(GOOD)
    _rule(labelled, RECORD)["labels"] = {"source": "rule"}
    series = known_with_rules(labelled)["account_flow:exophone_numbers_unattached:sum"]
    gone = {"instance", "pod", "country", "region", "number_type"}
    assert series.labels == (KNOWN["exophone_numbers_unattached"].labels - gone) | {"source"}


def test_a_rule_that_continues_itself_has_the_labels_it_began_with() -> None:
    """Reading its own last result gives a rule no labels that nothing ever put there."""
    assert known_with_rules(GOOD)["instance:up:seen"].labels == KNOWN["up"].labels


def test_our_rules_have_no_findings() -> None:
    """What we ship is what the linter asks for."""
    assert lint_rules(OUR_RULES) == []


def test_command_prints_findings_and_fails(tmp_path: Path) -> None:
    """The linter can be run on a file while it is written."""
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(yaml.safe_dump(GOOD), "utf-8")
    bad.write_text(yaml.safe_dump(GOOD).replace("for: 10m", "for: 1m"), "utf-8")
    command = [sys.executable, "-m", "tests.lib.promql.lint_rules"]
    passed = subprocess.run([*command, good], cwd=ROOT, capture_output=True, text=True, check=False)
    failed = subprocess.run([*command, bad], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (passed.returncode, passed.stdout) == (0, "")
    assert failed.returncode == 1
    assert "[alert-for]" in failed.stdout
