from __future__ import annotations

import re

import pytest

from exophone_exporter.metrics.catalog import METRICS
from tests.lib.paths import ROOT
from tests.lib.promql.flow import RULES, inspect
from tests.lib.promql.rules import RuleSet

ONCE = "max without (instance, pod)"
RENTALS = f"{ONCE} (exophone_monthly_rental)"
FLOWS = "exophone_number_flow_attached"
INFO = "exophone_number_info"
LATENCY = "exophone_api_request_duration_seconds"

# For each rule: a query that breaks it, and one that asks the same and does not.
EXAMPLES = [
    ("promql-syntax", "sum(exophone_up", "sum without (pod) (exophone_polls_total)"),
    ("metric-known", "exophone_number", "exophone_numbers"),
    ("metric-known", '{__name__=~"exophone_.+"}', 'exophone_up{job="exophone"}'),
    ("metric-known", f"rate({LATENCY}[10m])", f"rate({LATENCY}_count[10m])"),
    ("label-known", 'exophone_up{acount="$account"}', 'exophone_up{account="$account"}'),
    ("label-known", 'exophone_up{flow="sms"}', 'exophone_flow_numbers{flow="sms"}'),
    (
        "label-gone",
        "max by (account) (max by (job) (exophone_up))",
        "max by (account) (max by (job, account) (exophone_up))",
    ),
    ("label-gone", "max without (le) (exophone_up)", "max without (pod) (exophone_up)"),
    (
        "label-gone",
        "exophone_up and on (account) max by (job) (exophone_up)",
        "exophone_up and on (job) max by (job) (exophone_up)",
    ),
    (
        "label-gone",
        "exophone_up == ignoring (pods) exophone_up",
        "exophone_up == ignoring (pod) exophone_up",
    ),
    (
        "label-gone",
        f"{FLOWS} * on (job, instance, account, sid) group_left (name) {INFO}",
        f"{FLOWS} * on (job, instance, account, sid) group_left (friendly_name) {INFO}",
    ),
    (
        "label-gone",
        'label_replace(exophone_up, "x", "$1", "region", "(.*)")',
        'label_replace(exophone_up, "x", "$1", "account", "(.*)")',
    ),
    (
        "label-gone",
        'label_join(exophone_up, "x", "-", "country", "region")',
        'label_join(exophone_numbers, "x", "-", "country", "region")',
    ),
    (
        "label-gone",
        f"histogram_quantile(0.9, sum by (account) (rate({LATENCY}_bucket[10m])))",
        f"histogram_quantile(0.9, sum by (account, le) (rate({LATENCY}_bucket[10m])))",
    ),
    (
        "aggregation-keeps",
        "max by (account) (exophone_up)",
        "max by (job, account) (exophone_up)",
    ),
    ("aggregation-keeps", "max(exophone_up)", f"{ONCE} (exophone_up)"),
    ("replicas-doubled", "sum(exophone_numbers)", f"sum({ONCE} (exophone_numbers))"),
    ("replicas-doubled", "max without (instance) (exophone_up)", f"{ONCE} (exophone_up)"),
    ("replicas-doubled", f"count by (account) ({INFO})", f"count by (instance, account) ({INFO})"),
    (
        "replicas-doubled",
        "topk by (currency) (5, exophone_number_monthly_rental)",
        f"topk by (currency) (5, {ONCE} (exophone_number_monthly_rental))",
    ),
    (
        "replicas-doubled",
        "sum by (change) (rate(exophone_number_changes_total[10m]))",
        f"sum by (change) ({ONCE} (rate(exophone_number_changes_total[10m])))",
    ),
    ("replicas-doubled", "sum(exophone_up == bool 0)", f"sum({ONCE} (exophone_up == bool 0))"),
    ("replicas-doubled", "sum(exophone_numbers_idle)", "sum(rate(exophone_polls_total[10m]))"),
    ("currency-mixed", f"sum({RENTALS})", f"sum by (currency) ({RENTALS})"),
    (
        "currency-mixed",
        f"topk(5, {ONCE} (exophone_number_monthly_rental))",
        f'topk(5, {ONCE} (exophone_number_monthly_rental{{currency="INR"}}))',
    ),
    (
        "currency-mixed",
        f'sum by (currency) (label_replace({RENTALS}, "currency", "", "", ""))',
        f'sum by (in) (label_replace({RENTALS}, "in", "$1", "currency", "(.*)"))',
    ),
    (
        "currency-mixed",
        (
            "exophone_number_monthly_rental / on (job, instance, account, sid)"
            " exophone_number_one_time_price"
        ),
        (
            "exophone_number_monthly_rental / on (job, instance, account, sid, currency)"
            " exophone_number_one_time_price"
        ),
    ),
    (
        "currency-mixed",
        f"sum by (account) ({ONCE} (exophone_monthly_rental * 12))",
        f"count by (account) ({ONCE} (exophone_monthly_rental * 12))",
    ),
    ("currency-mixed", f"sum(exophone_numbers or {RENTALS})", f"sum(timestamp({RENTALS}))"),
    (
        "join-impossible",
        "exophone_up unless max(exophone_up)",
        "exophone_up unless on () max(exophone_up)",
    ),
    (
        "join-impossible",
        "exophone_numbers_unattached / exophone_numbers",
        "exophone_numbers_unattached / ignoring (flow) group_left () exophone_numbers",
    ),
    (
        "join-many",
        f"{INFO} * on (job, instance, account, sid) {FLOWS}",
        f"{INFO} * on (job, instance, account, sid) group_right () {FLOWS}",
    ),
    (
        "join-many",
        f"{ONCE} ({FLOWS}) * on (job, account, sid) group_left (friendly_name) {ONCE} ({INFO})",
        (
            f"{ONCE} ({FLOWS}) * on (job, account, sid) group_left (friendly_name)"
            f" topk by (job, account, sid) (1, {INFO})"
        ),
    ),
    (
        "join-many",
        "exophone_poll_duration_seconds / on (account) exophone_poll_interval_seconds",
        (
            "exophone_poll_duration_seconds / on (job, instance, account)"
            " exophone_poll_interval_seconds"
        ),
    ),
    ("counter-function", "rate(exophone_numbers[10m])", "deriv(exophone_numbers[10m])"),
    ("counter-function", "delta(exophone_polls_total[9m])", "rate(exophone_polls_total[$__range])"),
]


def broken(query: str, rule: str) -> bool:
    kept = frozenset({"job", "account"} if rule == "aggregation-keeps" else ())
    return rule in {finding.rule for finding in inspect(query, kept=kept).findings}


@pytest.mark.parametrize(("rule", "bad", "good"), EXAMPLES)
def test_a_rule_finds_the_bad_query_and_not_the_good_one(rule: str, bad: str, good: str) -> None:
    assert broken(bad, rule)
    assert not broken(good, rule)


def test_every_rule_has_an_example() -> None:
    assert {example[0] for example in EXAMPLES} == RULES


def test_every_metric_can_be_selected_by_each_of_its_labels() -> None:
    for metric in METRICS:
        suffix = "_count" if metric.type == "histogram" else ""
        matchers = ", ".join(f'{label}!=""' for label in (*metric.labels, "job", "instance"))
        assert not inspect(f"{metric.name}{suffix}{{{matchers}}}").findings


def snippets() -> list[tuple[str, str]]:
    """The queries in our documentation, each with the name of its page."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text("utf-8")
        for fence in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
            # A fence has one query, or one on each line.
            whole = inspect(fence).expr is not None
            found += [(page.name, query) for query in ([fence] if whole else fence.splitlines())]
        for inline in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
            if re.search(r"\bexophone_\w+.*[({\[]", inline) and "://" not in inline:
                found.append((page.name, re.sub(r"(?<=}) [\d.]+$", "", inline)))  # a sample
        expressions = re.findall(r"^\s+expr: ([^|>\n].*)$", text, re.MULTILINE)
        found += [(page.name, expr) for expr in expressions]
    return found


def test_documented_queries_name_metrics_and_labels_that_exist() -> None:
    """A page may show a query of one exporter, so only names are checked."""
    names = {"promql-syntax", "metric-known", "label-known", "label-gone"}
    catalog = RuleSet().catalog
    wrong = [
        f"{page}: {finding.message}: {query}"
        for page, query in snippets()
        for finding in inspect(query, catalog).findings
        if finding.rule in names
    ]
    assert not wrong
    assert len(snippets()) > 10
