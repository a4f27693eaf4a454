from __future__ import annotations

import re

import promql_parser as promql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.metrics.catalog import METRICS
from tests.lib.paths import ROOT
from tests.lib.promql.catalogue import KNOWN
from tests.lib.promql.lint import RULES, Habits, inspect
from tests.lib.promql.lint_rules import known_with_rules
from tests.lib.promql.tree import filled, selectors, variables_in

IN_RULES = Habits(kept=frozenset({"job", "account"}))
IN_DASHBOARDS = Habits(rate_interval=True)
ONCE = "max without (instance, pod)"
RENTALS = f"{ONCE} (exophone_monthly_rental)"

# Of each rule: what it is about, what it refuses, and the same said well.
EXAMPLES = [
    ("promql-syntax", "unclosed", "sum(exophone_up", "sum(exophone_up)"),
    ("promql-syntax", "no-function", "avarage(exophone_up)", "avg(exophone_up)"),
    ("metric-named", "any", '{job="exophone"}', 'exophone_up{job="exophone"}'),
    ("metric-named", "pattern", '{__name__=~"exophone_.+"}', '{__name__="exophone_up"}'),
    ("metric-known", "typo", "exophone_number", "exophone_numbers"),
    ("metric-known", "probe-of-others", "probe_success", "exophone_probe_success"),
    (
        "metric-known",
        "histogram-without-suffix",
        "rate(exophone_api_request_duration_seconds[10m])",
        "rate(exophone_api_request_duration_seconds_count[10m])",
    ),
    ("label-known", "typo", 'exophone_up{acount="a"}', 'exophone_up{account="a"}'),
    ("label-known", "of-another", 'exophone_up{flow="sms"}', 'exophone_flow_numbers{flow="sms"}'),
    (
        "label-gone",
        "aggregated-away",
        "max by (account) (max by (job) (exophone_up))",
        "max by (account) (max by (job, account) (exophone_up))",
    ),
    ("label-gone", "without", "max without (le) (exophone_up)", "max without (pod) (exophone_up)"),
    (
        "label-gone",
        "on",
        "exophone_up and on (sid) exophone_up",
        "exophone_up and on (account) exophone_up",
    ),
    (
        "label-gone",
        "on-of-one-side",
        "exophone_up and on (account) max by (job) (exophone_up)",
        "exophone_up and on (job) max by (job) (exophone_up)",
    ),
    (
        "label-gone",
        "ignoring-a-typo",
        "exophone_up == ignoring (pods) exophone_up",
        "exophone_up == ignoring (pod) exophone_up",
    ),
    (
        "label-gone",
        "group-left",
        (
            "exophone_number_flow_attached * on (job, instance, account, sid) group_left (name)"
            " exophone_number_info"
        ),
        (
            "exophone_number_flow_attached * on (job, instance, account, sid)"
            " group_left (friendly_name) exophone_number_info"
        ),
    ),
    (
        "label-gone",
        "label-replace",
        'label_replace(exophone_up, "x", "$1", "region", "(.*)")',
        'label_replace(exophone_up, "x", "$1", "account", "(.*)")',
    ),
    (
        "label-gone",
        "label-join",
        'label_join(exophone_up, "x", "-", "country", "region")',
        'label_join(exophone_numbers, "x", "-", "country", "region")',
    ),
    (
        "label-gone",
        "matcher-says-so",
        'max by (voice_flow_id) (exophone_number_info{voice_flow_id=""})',
        'max by (voice_flow_id) (exophone_number_info{voice_flow_id!=""})',
    ),
    ("portable", "or-matchers", 'exophone_up{job="a" or job="b"}', 'exophone_up{job=~"a|b"}'),
    (
        "portable",
        "experimental",
        'sort_by_label(exophone_up, "account")',
        "sort(exophone_up)",
    ),
    (
        "portable",
        "fill",
        "exophone_numbers_idle - fill (0) exophone_numbers",
        "exophone_numbers_idle - exophone_numbers",
    ),
    ("regexp-needless", "equal", 'exophone_up{job=~"a"}', 'exophone_up{job="a"}'),
    ("regexp-needless", "unequal", 'exophone_up{job!~"a"}', 'exophone_up{job=~"$job"}'),
    ("regexp-anchored", "begin", 'exophone_up{job=~"^a.*"}', 'exophone_up{job=~"a.*"}'),
    ("regexp-anchored", "end", 'exophone_up{job=~".*a$"}', r'exophone_up{job=~".*a\\$"}'),
    ("regexp-any", "all", 'exophone_up{job=~".*"}', 'exophone_up{job=~".+"}'),
    ("regexp-any", "nothing", 'exophone_up{job!~".*"}', 'exophone_up{job!~"a.*"}'),
    ("matchers-contradict", "two-values", 'up{job="a", job="b"}', 'up{job="a", job!="b"}'),
    ("matchers-contradict", "twice", 'up{job="a", job="a"}', 'up{job="a"}'),
    ("counter-bare", "shown", "exophone_polls_total", "rate(exophone_polls_total[10m])"),
    (
        "counter-bare",
        "compared",
        "exophone_poll_failures_total > 3",
        "increase(exophone_poll_failures_total[1h]) > 3",
    ),
    (
        "counter-bare",
        "summed",
        "sum(exophone_polls_total)",
        "sum(increase(exophone_polls_total[10m]))",
    ),
    (
        "counter-bare",
        "last",
        "last_over_time(exophone_polls_total[1h])",
        "changes(exophone_polls_total[1h])",
    ),
    (
        "counter-bare",
        "of-process",
        "process_cpu_seconds_total",
        "rate(process_cpu_seconds_total[5m])",
    ),
    (
        "counter-bare",
        "left-of-and",
        "exophone_polls_total and exophone_up",
        "exophone_up and exophone_polls_total",
    ),
    (
        "counter-bare",
        "counted",
        "avg(exophone_polls_total)",
        "count(exophone_polls_total)",
    ),
    (
        "counter-bare",
        "against-itself",
        "exophone_polls_total - exophone_polls_total > 0",
        "exophone_polls_total - exophone_polls_total offset 15m > 0",
    ),
    (
        "counter-bare",
        "against-another",
        "exophone_polls_total - exophone_api_retries_total offset 15m > 0",
        "exophone_polls_total - exophone_polls_total offset 15m > 0",
    ),
    (
        "counter-difference",
        "restart",
        "exophone_polls_total - exophone_polls_total offset 15m",
        "(exophone_polls_total - exophone_polls_total offset 15m) >= 0",
    ),
    (
        "counter-difference",
        "summed",
        "sum(exophone_polls_total - exophone_polls_total offset 15m) > 0",
        "sum(exophone_polls_total - exophone_polls_total offset 15m > 0)",
    ),
    (
        "counter-function",
        "rate-of-gauge",
        "rate(exophone_numbers[10m])",
        "deriv(exophone_numbers[10m])",
    ),
    (
        "counter-function",
        "resets-of-gauge",
        "resets(exophone_numbers[10m])",
        "resets(exophone_polls_total[10m])",
    ),
    (
        "counter-function",
        "delta-of-counter",
        "delta(exophone_polls_total[10m])",
        "increase(exophone_polls_total[10m])",
    ),
    (
        "rate-of-result",
        "sum-first",
        "rate(sum by (job) (exophone_polls_total)[10m:1m])",
        "sum by (job) (rate(exophone_polls_total[10m]))",
    ),
    ("irate", "two-samples", "irate(exophone_polls_total[1h])", "rate(exophone_polls_total[1h])"),
    (
        "rate-interval",
        "fixed",
        "rate(exophone_polls_total[5m])",
        "rate(exophone_polls_total[$__rate_interval])",
    ),
    (
        "rate-interval",
        "interval",
        "increase(exophone_polls_total[$__interval])",
        "increase(exophone_polls_total[${__rate_interval}])",
    ),
    (
        "quantile-buckets",
        "le-dropped",
        (
            "histogram_quantile(0.9, sum by (account)"
            " (rate(exophone_api_request_duration_seconds_bucket[10m])))"
        ),
        (
            "histogram_quantile(0.9, sum by (account, le)"
            " (rate(exophone_api_request_duration_seconds_bucket[10m])))"
        ),
    ),
    (
        "quantile-rate",
        "since-the-start",
        "histogram_quantile(0.9, exophone_api_request_duration_seconds_bucket)",
        "histogram_quantile(0.9, rate(exophone_api_request_duration_seconds_bucket[10m]))",
    ),
    ("retention", "offset", "exophone_up offset 20d", "exophone_up offset 14d"),
    ("retention", "added-up", "max_over_time(up[8d] offset 8d)", "max_over_time(up[8d] offset 6d)"),
    ("replicas-doubled", "sum", "sum(exophone_numbers)", f"sum({ONCE} (exophone_numbers))"),
    (
        "pod-kept",
        "on-kubernetes",
        "max without (instance) (exophone_up)",
        "max without (instance, pod) (exophone_up)",
    ),
    (
        "replicas-doubled",
        "pod-left",
        "sum(max without (instance) (exophone_numbers))",
        "sum(max without (instance, pod) (exophone_numbers))",
    ),
    (
        "replicas-doubled",
        "count-of-numbers",
        "count by (account) (exophone_number_info)",
        "count by (instance, account) (exophone_number_info)",
    ),
    (
        "replicas-doubled",
        "topk",
        "topk by (currency) (5, exophone_number_monthly_rental)",
        f"topk by (currency) (5, {ONCE} (exophone_number_monthly_rental))",
    ),
    (
        "replicas-doubled",
        "changes",
        "sum by (change) (rate(exophone_number_changes_total[10m]))",
        f"sum by (change) ({ONCE} (rate(exophone_number_changes_total[10m])))",
    ),
    (
        "replicas-doubled",
        "state-of-an-account",
        "sum(exophone_up == bool 0)",
        f"sum({ONCE} (exophone_up == bool 0))",
    ),
    (
        "replicas-doubled",
        "product",
        "sum(time() - exophone_poll_last_success_timestamp_seconds > bool 60)",
        "max(time() - exophone_poll_last_success_timestamp_seconds > bool 60)",
    ),
    (
        "replicas-doubled",
        "polls-are-of-each",
        "sum(exophone_numbers_idle)",
        "sum(rate(exophone_polls_total[10m]))",
    ),
    (
        "currency-mixed",
        "sum",
        f"sum({ONCE} (exophone_monthly_rental))",
        f"sum by (currency) ({ONCE} (exophone_monthly_rental))",
    ),
    (
        "currency-mixed",
        "topk",
        f"topk(5, {ONCE} (exophone_number_monthly_rental))",
        f'topk(5, {ONCE} (exophone_number_monthly_rental{{currency="INR"}}))',
    ),
    (
        "currency-mixed",
        "overwritten",
        f'sum by (currency) (label_replace({RENTALS}, "currency", "", "", ""))',
        (f'sum by (in) (label_replace({RENTALS}, "in", "$1", "currency", "(.*)"))'),
    ),
    (
        "currency-mixed",
        "ratio",
        (
            "exophone_number_monthly_rental / on (job, instance, account, sid)"
            " (exophone_number_one_time_price > 0)"
        ),
        (
            "exophone_number_monthly_rental / on (job, instance, account, sid, currency)"
            " (exophone_number_one_time_price > 0)"
        ),
    ),
    (
        "currency-mixed",
        "difference-on-one-side",
        (
            f'label_replace({RENTALS}, "in", "$1", "currency", "(.*)")'
            " - on (job, account, country, region, number_type, in) group_left ()"
            f" sum without (x) ({RENTALS})"
        ),
        f"{RENTALS} - {RENTALS}",
    ),
    (
        "currency-mixed",
        "of-product",
        f"sum by (account) ({ONCE} (exophone_monthly_rental * 12))",
        f"count by (account) ({ONCE} (exophone_monthly_rental * 12))",
    ),
    (
        "aggregation-keeps",
        "job",
        "max by (account) (exophone_up)",
        "max by (job, account) (exophone_up)",
    ),
    ("aggregation-keeps", "all", "max(exophone_up)", f"{ONCE} (exophone_up)"),
    ("filter-summed", "zeros", "sum(exophone_up == 0)", "count(exophone_up == 0)"),
    ("filter-summed", "bool", "sum((exophone_up == 1))", "sum(exophone_up == bool 1)"),
    (
        "division-by-zero",
        "no-numbers",
        "exophone_numbers_idle / exophone_numbers",
        "exophone_numbers_idle / (exophone_numbers > 0)",
    ),
    ("division-by-zero", "constant", "exophone_up / 0", "exophone_up / 60"),
    (
        "division-by-zero",
        "modulo",
        "exophone_poll_pages % exophone_poll_pages",
        "exophone_poll_pages % (exophone_poll_pages >= 1)",
    ),
    (
        "division-by-zero",
        "limit-allows-it",
        "exophone_poll_pages / (exophone_poll_pages >= 0)",
        "exophone_poll_pages / (exophone_poll_pages != 0)",
    ),
    (
        "division-by-zero",
        "configured",
        "exophone_poll_duration_seconds / max by (job, instance, account) (exophone_poll_pages)",
        "exophone_poll_duration_seconds / exophone_poll_interval_seconds",
    ),
    (
        "join-impossible",
        "aggregated",
        "exophone_up unless max(exophone_up)",
        "exophone_up unless on () max(exophone_up)",
    ),
    (
        "division-by-zero",
        "negative-limit",
        "exophone_poll_pages / (exophone_poll_pages > -1)",
        "exophone_poll_pages / (exophone_poll_pages > 0)",
    ),
    (
        "join-impossible",
        "more-on-the-right",
        "max(exophone_up) == exophone_up",
        "max(exophone_up) == on () group_right () exophone_up",
    ),
    (
        "join-impossible",
        "empty-is-none",
        'exophone_up{account=""} == exophone_up',
        'exophone_up{account=""} == max without (account) (exophone_up)',
    ),
    (
        "join-impossible",
        "more-labels",
        "exophone_numbers_unattached / (exophone_numbers > 0)",
        "exophone_numbers_unattached / ignoring (flow) group_left () (exophone_numbers > 0)",
    ),
    (
        "join-unstated",
        "maybe-a-pod",
        'exophone_up and exophone_up{cluster=""}',
        'exophone_up and on (job, instance, account) exophone_up{cluster=""}',
    ),
    (
        "join-many",
        "channels",
        "exophone_number_info * on (job, instance, account, sid) exophone_number_flow_attached",
        (
            "exophone_number_info * on (job, instance, account, sid) group_right ()"
            " exophone_number_flow_attached"
        ),
    ),
    (
        "join-many",
        "other-names-on-replicas",
        (
            f"{ONCE} (exophone_number_flow_attached) * on (job, account, sid)"
            f" group_left (friendly_name) {ONCE} (exophone_number_info)"
        ),
        (
            f"{ONCE} (exophone_number_flow_attached) * on (job, account, sid)"
            " group_left (friendly_name) topk by (job, account, sid) (1, exophone_number_info)"
        ),
    ),
    (
        "join-many",
        "accounts-of-two-jobs",
        "exophone_poll_duration_seconds / on (account) exophone_poll_interval_seconds",
        (
            "exophone_poll_duration_seconds / on (job, instance, account)"
            " exophone_poll_interval_seconds"
        ),
    ),
    (
        "relabel",
        "name",
        'label_replace(exophone_up, "a-b", "x", "", "")',
        'label_replace(exophone_up, "a_b", "x", "", "")',
    ),
    (
        "relabel",
        "regexp",
        'label_replace(exophone_up, "x", "$1", "account", "(")',
        'label_replace(exophone_up, "x", "$1", "account", "(.)")',
    ),
]
HABITS = {"rate-interval": IN_DASHBOARDS, "aggregation-keeps": IN_RULES}


def _rules(query: str, rule: str) -> set[str]:
    found = inspect(query, habits=HABITS.get(rule)).findings
    return {finding.rule for finding in found}


def _table(index: int) -> list[object]:
    return [pytest.param(e[0], e[index], id=f"{e[0]}-{e[1]}") for e in EXAMPLES]


@pytest.mark.parametrize(("rule", "query"), _table(2))
def test_bad_query_is_found(rule: str, query: str) -> None:
    """Each rule refuses what it is there to refuse."""
    assert rule in _rules(query, rule)


@pytest.mark.parametrize(("rule", "query"), _table(3))
def test_good_query_is_let_pass(rule: str, query: str) -> None:
    """What says the same well offends that rule no longer."""
    assert rule not in _rules(query, rule)


def test_every_rule_has_a_bad_example() -> None:
    """No rule can be dead without notice."""
    assert {example[0] for example in EXAMPLES} == RULES


def test_every_metric_and_label_of_the_table_is_known() -> None:
    """The catalogue follows the contract: each metric can be selected by each of its labels."""
    for metric in METRICS:
        suffix = "_count" if metric.type == "histogram" else ""
        matchers = ", ".join(f'{label}!=""' for label in (*metric.labels, "job", "instance"))
        query = f"count({metric.name}{suffix}{{{matchers}}})"
        found = {finding.rule for finding in inspect(query).findings}
        assert found <= {"replicas-doubled"}, query


def test_recorded_series_are_known_from_the_caller() -> None:
    """What a rule records is a metric with the labels of its expression."""
    series = inspect(f"{ONCE} (exophone_numbers)").series
    assert series is not None
    catalogue = {**KNOWN, "account:exophone_numbers:max": series}
    assert not inspect('account:exophone_numbers:max{region="MH"}', catalogue=catalogue).findings
    found = inspect('account:exophone_numbers:max{pod="a"}', catalogue=catalogue).findings
    assert [finding.rule for finding in found] == ["label-known"]


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        pytest.param("vector(1)", set(), id="vector"),
        pytest.param("sum(exophone_up)", set(), id="sum"),
        pytest.param("max by (job, account) (exophone_up)", {"job", "account"}, id="by"),
        pytest.param(
            "max by (job, account) (exophone_up) * on (job) max by (job) (up)", {"job"}, id="on"
        ),
        pytest.param('absent(exophone_up{job="a", account=~"b.*"})', {"job"}, id="absent"),
        pytest.param('count_values by (job) ("v", exophone_up)', {"job", "v"}, id="count-values"),
        pytest.param(
            'label_replace(max by (job) (up), "x", "y", "", "")', {"job", "x"}, id="label-replace"
        ),
        pytest.param(
            "max by (job) (up) or max by (instance) (up)", {"job", "instance"}, id="or-adds"
        ),
        pytest.param("max by (job) (up) and on () up", {"job"}, id="and-keeps-the-left"),
        pytest.param("time() - max by (job) (up)", {"job"}, id="scalar"),
        pytest.param("-max_over_time((max by (job) (up))[1h:5m])", {"job"}, id="subquery"),
    ],
)
def test_labels_of_the_result_are_known(query: str, labels: set[str]) -> None:
    """Labels are followed through functions, joins and aggregations."""
    series = inspect(query).series
    assert series is not None
    assert series.labels == labels


NUMBER = {"job", "instance", "account", "sid"}


@pytest.mark.parametrize(
    ("query", "key"),
    [
        pytest.param("up", {"job", "instance"}, id="target"),
        pytest.param("exophone_number_info", NUMBER, id="names-follow-from-the-sid"),
        pytest.param("exophone_number_flow_attached", {*NUMBER, "flow"}, id="channel"),
        pytest.param("exophone_number_monthly_rental", NUMBER, id="currency-follows"),
        pytest.param(
            f"{ONCE} (exophone_number_monthly_rental)",
            {"job", "account", "sid", "currency"},
            id="replicas-may-differ",
        ),
        pytest.param(
            f"{ONCE} ({ONCE} (exophone_number_monthly_rental))",
            {"job", "account", "sid", "currency"},
            id="once-more",
        ),
        pytest.param(
            "max without (flow) (exophone_number_flow_attached)", NUMBER, id="channels-together"
        ),
        pytest.param("max without (instance) (up)", {"job", "pod"}, id="pod-for-its-instance"),
        pytest.param('up{instance="a"}', {"job"}, id="one-instance"),
        pytest.param('exophone_number_flow_attached{flow=""}', NUMBER, id="no-channel"),
        pytest.param(
            "exophone_api_request_duration_seconds_bucket",
            {"job", "instance", "account", "endpoint", "le"},
            id="buckets",
        ),
        pytest.param(
            'label_replace(up, "instance", "all", "", "")', {"job"}, id="overwritten-by-a-constant"
        ),
        pytest.param(
            'label_replace(up, "instance", "$1", "instance", "(.*):.*")',
            {"job", "instance"},
            id="shortened",
        ),
        pytest.param("max by (job) (up) or max by (instance) (up)", {"job", "instance"}, id="or"),
        pytest.param("topk by (job) (1, up)", {"job"}, id="one-of-each"),
        pytest.param("topk by (job) (2, up)", {"job", "instance"}, id="two-of-each"),
        pytest.param(
            "max by (alertname, severity) (ALERTS)", {"alertname", "severity"}, id="alerts"
        ),
    ],
)
def test_what_tells_series_apart_is_known(query: str, key: set[str]) -> None:
    """No two series of a result have the same values of its key."""
    series = inspect(query).series
    assert series is not None
    assert series.key == key


@pytest.mark.parametrize(
    ("query", "money"),
    [
        pytest.param("exophone_numbers", None, id="none"),
        pytest.param("exophone_monthly_rental", {"currency"}, id="rental"),
        pytest.param('exophone_monthly_rental{currency="INR"}', None, id="one-currency"),
        pytest.param('exophone_monthly_rental{currency=~"$currency"}', {"currency"}, id="chosen"),
        pytest.param("exophone_monthly_rental * 12", {"currency"}, id="a-year"),
        pytest.param("-exophone_monthly_rental", {"currency"}, id="negative"),
        pytest.param("timestamp(exophone_monthly_rental)", None, id="its-time"),
        pytest.param("count by (currency) (exophone_monthly_rental)", None, id="counted"),
        pytest.param("exophone_numbers or exophone_monthly_rental", {"currency"}, id="or-right"),
        pytest.param("exophone_monthly_rental or exophone_numbers", {"currency"}, id="or-left"),
        pytest.param("exophone_numbers and on () exophone_monthly_rental", None, id="and-right"),
        pytest.param(
            'label_replace(exophone_monthly_rental, "in", "$1", "currency", "(.*)")',
            {"currency", "in"},
            id="copied",
        ),
        pytest.param(
            'label_replace(exophone_monthly_rental, "currency", "all", "", "")',
            set(),
            id="overwritten",
        ),
    ],
)
def test_amounts_of_money_are_known(query: str, money: set[str] | None) -> None:
    """It is known which values are money, and by which labels their currencies are told apart."""
    series = inspect(query).series
    assert series is not None
    assert series.money == money


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param('up{job=~"$job"}', {"job"}, id="plain"),
        pytest.param('up{job=~"${job:regex}"}', {"job"}, id="braced"),
        pytest.param('up{job=~"[[job]]"}', {"job"}, id="old"),
        pytest.param('up{job=~"a|$job|b"}', {"job"}, id="within"),
        pytest.param("rate(up[$__rate_interval])", {"__rate_interval"}, id="range"),
        pytest.param("up[$window:$step]", {"window", "step"}, id="own-durations"),
        pytest.param("up offset $back", {"back"}, id="offset"),
        pytest.param("topk($top, up)", {"top"}, id="number"),
        pytest.param("up * $__range_s", {"__range_s"}, id="seconds"),
        pytest.param('label_replace(up, "a", "$1", "job", "(.*)")', set(), id="of-a-regexp"),
        pytest.param("up{job=~'it\\'s $job'}", {"job"}, id="escaped-quote"),
        pytest.param('up{job=~"it\'s $job"}', {"job"}, id="other-quote"),
    ],
)
def test_variables_are_filled_so_that_the_query_parses(text: str, names: set[str]) -> None:
    """A query of a dashboard parses wherever a variable stands in it."""
    assert variables_in(text) == names
    assert not isinstance(promql.parse(filled(text)), promql.StringLiteral)


def test_a_variable_for_a_range_is_filled_with_a_duration() -> None:
    """Grafana's own intervals are told apart from those that a dashboard defines."""
    assert filled("up[$window:${step}] offset $back") == "up[60s:60s] offset 60s"
    assert inspect("rate(exophone_polls_total[$window])", habits=IN_DASHBOARDS).findings


def test_labels_of_one_side_of_an_or_are_not_sure() -> None:
    """What only some series have is neither sure nor equal on both sides."""
    series = inspect("exophone_numbers_unattached or exophone_numbers").series
    assert series is not None
    assert series.partial == {"flow"}
    assert "flow" not in series.sure
    names = inspect("exophone_number_info or exophone_numbers").series
    assert names is not None
    assert names.named == {"pod"}


# Each construct that the parser knows, of metrics and labels that need not exist.
CONSTRUCTS = [
    "1",
    '"text"',
    "-x",
    "+x",
    "(((x)))",
    "x[5m]",
    "x[5m:]",
    "x[5m:1m] @ 1700000000.5",
    "x @ start() offset -5m",
    "max_over_time(x[1h:1m] @ end() offset 1w)",
    "x ^ x ^ 2",
    "x atan2 y",
    "1 > bool 2",
    "x == bool y",
    "x + on () group_right (a) y",
    "x * ignoring (a, b) group_left () y",
    "sum without () (x)",
    "quantile(0.9, x)",
    'count_values without (a) ("v", x)',
    "bottomk by (a) (scalar(x), y)",
    "limitk(2, x)",
    "limit_ratio(0.5, x)",
    "absent((x))",
    "absent_over_time(x[5m])",
    "absent(sum(x))",
    "time()",
    "vector(time())",
    "day_of_week()",
    "days_in_month(vector(time()))",
    "histogram_quantile(0.5, x)",
    "histogram_fraction(0, 1, x)",
    "predict_linear(x[1h], 3600)",
    "round(x, 5)",
    "clamp(x, 0, 1)",
    "sort_desc(x)",
    'label_join(x, "a", ",")',
    'label_replace(x, "a", "b", "", "")',
    'info(x, {data=~".+"})',
    '{"dotted.name", a="b"}',
    '{__name__="x"}',
    '{__name__=~"x.*", a!=""}',
    'x{a="b" or c="d"}',
    "x and y or z unless w",
    "x  # a comment\n + y",
    "NaN + Inf - 0x1F",
    "x{a=`b`}",
    "x % 0",
    "x / (y > 0 < 5)",
    "rate(x[5m:1m])",
    "delta((x)[5m:1m])",
]


@pytest.mark.parametrize("query", CONSTRUCTS)
def test_no_construct_stops_the_linter(query: str) -> None:
    """Whatever the parser takes, or refuses, is answered with findings."""
    assert isinstance(inspect(query).findings, tuple)


_LEAVES = st.sampled_from(
    ["exophone_numbers", 'exophone_number_info{sid="a"}', "exophone_polls_total", "1", "x", "up"]
)
_JOINS = st.sampled_from(
    [
        "and",
        "or on (job)",
        "unless",
        "/",
        "* on (sid) group_left (flow)",
        "> bool",
        "- ignoring (a)",
    ]
)
_AROUND = st.sampled_from(
    [
        "sum(%s)",
        "max without (instance, pod) (%s)",
        "topk by (job) (1, %s)",
        "rate((%s)[5m:1m])",
        "absent(%s)",
        'label_replace(%s, "a", "$1", "currency", "(.*)")',
        "-(%s)",
        "scalar(%s)",
    ]
)
_QUERIES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda left, join, right: f"({left}) {join} ({right})", inner, _JOINS, inner),
        st.builds(lambda around, of: around % of, _AROUND, inner),
    ),
    max_leaves=6,
)


@given(query=_QUERIES)
def test_no_combination_stops_the_linter(query: str) -> None:
    """Queries nobody would write are linted as well, and the answer is always the same."""
    assert inspect(query).findings == inspect(query).findings


@given(text=st.text())
def test_no_text_stops_the_linter(text: str) -> None:
    """What is no PromQL is a finding, not a crash."""
    assert all(finding.message for finding in inspect(text).findings)


# A page may show a query of one exporter, or name a series to look at.
PROMISED_BY_DOCS = {"promql-syntax", "metric-known", "label-known", "label-gone"}


def _snippets() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = []
    for page in pages:
        text = page.read_text("utf-8")
        for fence in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
            # A fence is one query, or has one on each line.
            whole = inspect(fence).expr is not None
            found += [(page.name, query) for query in ([fence] if whole else fence.splitlines())]
        for inline in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
            if re.search(r"\bexophone_\w+.*[({\[]", inline) and "://" not in inline:
                found.append((page.name, inline))
        found += [
            (page.name, expr) for expr in re.findall(r"^\s+expr: ([^|>\n].*)$", text, re.MULTILINE)
        ]
    return found


def test_documented_queries_parse_and_name_metrics_that_exist() -> None:
    """A query copied from our pages works: its metrics and labels exist."""
    catalogue = known_with_rules(ROOT / "prometheus" / "exophone.rules.yml")
    wrong = [
        f"{page}: {finding}"
        for page, query in _snippets()
        for finding in inspect(query, query, catalogue).findings
        if finding.rule in PROMISED_BY_DOCS
    ]
    assert not wrong
    assert len(_snippets()) > 3


def test_selectors_are_found_in_the_order_of_the_text() -> None:
    """Callers may rely on the first selector being the first."""
    found = selectors(
        promql.parse("sum(a) / on () max_over_time(b[5m:1m]) + rate(c[5m]) > topk(scalar(d), e)")
    )
    assert [selector.name for selector in found] == ["a", "b", "c", "d", "e"]
