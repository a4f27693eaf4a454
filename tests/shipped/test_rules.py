"""The alerting rules: what they name exists, what they promise is tested, where they point is."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import promql_parser as promql
import pytest
import yaml

from exophone_exporter.metrics.catalog import METRICS
from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROMETHEUS = ROOT / "prometheus"
RULES_FILE = PROMETHEUS / "exophone.rules.yml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
SCENARIOS = sorted((ROOT / "tests" / "shipped" / "rules").glob("*.test.yml"))

RUNBOOK_BASE: Final = "https://example.com/exophone-exporter/docs/runbooks.md#"
DASHBOARD_BASE: Final = "https://grafana.example.com/d/"
TARGET_LABELS: Final = {"job", "instance", "pod"}
# What the design promises, and one beyond it.
PROMISED: Final = {
    "VoiceFlowMissing",
    "SMSFlowMissing",
    "FlowDetached",
    "NumbersDisappeared",
    "IdleRental",
    "RentalJump",
    "PollFailing",
    "DataStale",
    "CredentialsRejected",
    "APIRateLimited",
    "ExporterDown",
    "ExporterAbsent",
    "ConfigReloadFailed",
    "SeriesDropped",
    "UnreadableData",
    "AccountUnpaid",
}
ABOUT_NUMBERS: Final = {
    "VoiceFlowMissing",
    "SMSFlowMissing",
    "FlowDetached",
    "NumbersDisappeared",
    "IdleRental",
    "RentalJump",
    "SeriesDropped",
    "UnreadableData",
    "DataStale",
    "CredentialsRejected",
    "AccountUnpaid",
    "APIRateLimited",
}

_TEMPLATE_LABEL = re.compile(r"\$labels\.(\w+)")
_SET_OPERATORS = {"and", "or", "unless"}

Rule = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


RULES: Final[list[Rule]] = [rule for group in load(RULES_FILE)["groups"] for rule in group["rules"]]
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
each_alert = pytest.mark.parametrize(
    "alert", ALERTS, ids=[f"{a['alert']}-{i}" for i, a in enumerate(ALERTS)]
)


# What there is to name.


def golden_labels() -> dict[str, set[str]]:
    """The labels of each metric as the exporter writes them."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "tests" / "data" / "golden" / "metrics.txt").read_text("utf-8")
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        names = re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', labels)
        found.setdefault(name, set()).update(names)
    return found


def known_labels() -> dict[str, set[str]]:
    """The labels of each metric in a Prometheus that scrapes the exporter."""
    golden = golden_labels()
    known = {m.name: golden[m.name] & set(m.labels) for m in METRICS if m.name in golden}
    return {name: labels | TARGET_LABELS for name, labels in {**known, "up": set()}.items()}


class Labels:
    """Which labels an expression answers with; one that names what is not there fails."""

    def __init__(self, known: dict[str, set[str]]) -> None:
        self.known = known

    def of(self, expr: promql.Expr) -> set[str]:  # noqa: PLR0911 - one line for each kind
        """The labels of the series that an expression answers with."""
        match expr:
            case promql.VectorSelector():
                return self._of_selector(expr)
            case promql.MatrixSelector():
                return self._of_selector(expr.vector_selector)
            case promql.AggregateExpr():
                return self._of_aggregate(expr)
            case promql.BinaryExpr():
                return self._of_binary(expr)
            case promql.Call():
                labels = [self.of(argument) for argument in expr.args]
                return set() if expr.func.name == "absent" else set().union(*labels)
            case promql.NumberLiteral() | promql.StringLiteral():
                return set()
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.of(expr.expr)
        raise AssertionError(expr)

    def _of_selector(self, selector: promql.VectorSelector) -> set[str]:
        assert selector.name in self.known, f"no metric {selector.name}"
        labels = self.known[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
        return labels

    def _of_aggregate(self, expr: promql.AggregateExpr) -> set[str]:
        assert expr.modifier is not None, f"{expr.op} of everything loses the account"
        labels, named = self.of(expr.expr), set(expr.modifier.labels)
        assert named <= labels, f"{expr.op} by or without {named - labels}"
        without = expr.modifier.type == promql.AggModifierType.Without
        return labels - named if without else named

    def _of_binary(self, expr: promql.BinaryExpr) -> set[str]:
        left, right = self.of(expr.lhs), self.of(expr.rhs)
        if expr.modifier is None:
            return left | right if str(expr.op) == "or" else left or right
        on = set(expr.modifier.matching.labels if expr.modifier.matching else ())
        joined = set(expr.modifier.group_labels or ())
        assert on <= left, f"{on - left} is not on the left"
        is_on = "on (" in str(expr.modifier)
        assert not is_on or on <= right, f"{on - right} is not on the right"
        assert joined <= right, f"{joined - right} is not on the side it comes from"
        return left | joined if str(expr.op) != "or" else left | right


def labels_of_rules(known: dict[str, set[str]]) -> Iterator[tuple[Rule, set[str]]]:
    """Each rule with the labels of its series; a recorded one is known from there on."""
    labels = Labels(dict(known))
    for rule in RULES:
        found = labels.of(promql.parse(rule["expr"])) | set(rule.get("labels", {}))
        # Reads its own last result, so it is known before it is made.
        if "record" in rule:
            labels.known[rule["record"]] = found
        yield rule, found


def known_with_own_results() -> dict[str, set[str]]:
    """What is known, and the two recorded metrics that read their own last result."""
    known = known_labels()
    known["instance:up:exophone_down"] = TARGET_LABELS
    known["instance_account:exophone_poll_interval_seconds:unwatched"] = TARGET_LABELS | {"account"}
    return known


def check_names(known: dict[str, set[str]]) -> None:
    """Fail where a rule names a metric or label that is not known, its templates included."""
    for rule, labels in labels_of_rules(known):
        for text in rule.get("annotations", {}).values():
            missing = set(_TEMPLATE_LABEL.findall(text)) - labels
            assert not missing, f"{rule['alert']}: no label {missing}"


def test_every_metric_and_label_that_a_rule_names_exists() -> None:
    """In selectors, matchers, by, without, on, ignoring, group_left and in the templates."""
    check_names(known_with_own_results())


def test_a_metric_or_label_that_is_renamed_is_noticed() -> None:
    """The test above can fail: each metric and each label the rules use is missed when it goes."""
    known = known_with_own_results()
    text = RULES_FILE.read_text("utf-8")
    used = {name for name in known if name.startswith("exophone") and re.search(rf"{name}\b", text)}
    assert len(used) > 15
    for name in used:
        with pytest.raises(AssertionError, match=name):
            check_names({n: labels for n, labels in known.items() if n != name})
    for label in ("account", "sid", "flow", "friendly_name", "region", "currency", "field"):
        poorer = {name: labels - {label} for name, labels in known.items()}
        with pytest.raises(AssertionError, match=label):
            check_names(poorer)


def test_what_is_recorded_is_used_by_an_alert() -> None:
    """No rule computes what nothing reads."""
    text = RULES_FILE.read_text("utf-8")
    for rule in RULES:
        if "record" in rule:
            assert text.count(rule["record"]) > 1, rule["record"]


@each_alert
def test_an_alert_about_numbers_is_one_whatever_the_replicas(alert: Rule) -> None:
    """Neither instance nor pod is among its labels."""
    (labels,) = (
        found for rule, found in labels_of_rules(known_with_own_results()) if rule is alert
    )
    if alert["alert"].removeprefix("ExoPhone") in ABOUT_NUMBERS:
        assert not labels & {"instance", "pod"}


# What an alert says.


def test_the_alerts_are_those_that_were_promised() -> None:
    """Their names are promises."""
    assert {alert["alert"] for alert in ALERTS} == {f"ExoPhone{name}" for name in PROMISED}


@each_alert
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: Rule) -> None:
    """A severity, a static summary, a description that names whom it is about, two addresses."""
    notes = alert["annotations"]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "{{" not in notes["summary"]
    assert notes["summary"].endswith(".")
    about = _TEMPLATE_LABEL.findall(notes["description"])
    assert {"account", "instance"} & {*about} or alert["alert"] == "ExoPhoneExporterAbsent"
    assert "for" in alert


@each_alert
def test_a_runbook_is_there(alert: Rule) -> None:
    """Its address leads to a heading of docs/runbooks.md that is the name of the alert."""
    assert alert["annotations"]["runbook_url"] == RUNBOOK_BASE + alert["alert"].lower()
    assert alert["alert"] in headings()


@each_alert
def test_a_dashboard_is_there_and_knows_the_variables(alert: Rule) -> None:
    """The dashboard exists, has each variable of the address, and its values are escaped."""
    url = alert["annotations"]["dashboard_url"]
    assert url.startswith(DASHBOARD_BASE)
    parts = urlsplit(url)
    file = ROOT / "grafana" / "dashboards" / f"{parts.path.removeprefix('/d/')}.json"
    dashboard = json.loads(file.read_text("utf-8"))
    variables = {f"var-{v['name']}" for v in dashboard["templating"]["list"]}
    assert set(parse_qs(parts.query)) <= variables
    for name, label in re.findall(r"var-(\w+)=\{\{ \$labels\.(\w+) \| urlquery \}\}", url):
        assert name == label
    assert url.count("{{") == url.count("| urlquery }}")


def headings() -> list[str]:
    return re.findall(r"^## (ExoPhone\w+)$", RUNBOOKS.read_text("utf-8"), re.MULTILINE)


def test_runbooks_are_of_alerts_that_exist_and_have_their_four_parts() -> None:
    """Each section tells what it means, how to see it, what to do, when to silence it; no other."""
    text = RUNBOOKS.read_text("utf-8")
    assert sorted(headings()) == sorted({alert["alert"] for alert in ALERTS})
    for section in text.split("\n## ")[1:]:
        if section.startswith("ExoPhone"):
            for part in ("**Means.**", "**See it.**", "**Do", "**Silence"):
                assert part in section, section.splitlines()[0]


def test_the_table_of_alerts_agrees_with_the_rules() -> None:
    """Every alert stands in it once, in the order of the sections, with all its severities."""
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(#(\w+)\) \| ([a-z, ]+) \|", RUNBOOKS.read_text("utf-8"), re.MULTILINE
    )
    assert [name for name, _, _ in rows] == headings()
    for name, anchor, severities in rows:
        of_rules = {a["labels"]["severity"] for a in ALERTS if a["alert"] == name}
        assert (anchor, set(severities.split(", "))) == (name.lower(), of_rules)


def test_queries_in_the_runbooks_can_be_asked() -> None:
    """They parse, and name metrics and labels that exist."""
    known = known_with_own_results()
    known |= {r["record"]: found for r, found in labels_of_rules(known) if "record" in r}
    labels = Labels(known)
    blocks = re.findall(r"```promql\n(.+?)```", RUNBOOKS.read_text("utf-8"), re.DOTALL)
    assert len(blocks) > 5
    for query in "".join(blocks).splitlines():
        labels.of(promql.parse(query))


def test_the_two_placeholder_addresses_are_the_only_ones() -> None:
    """The sed of the runbooks replaces every address in the rules."""
    hosts = set(re.findall(r"https?://[^/\s|]+/", RULES_FILE.read_text("utf-8")))
    assert hosts == {
        "https://example.com/",
        "https://grafana.example.com/",
        "https://YOUR-DOCS/",
        "https://YOUR-GRAFANA/",
    }


# What is tested by promtool.


def scenarios() -> Iterator[dict[str, Any]]:
    for path in SCENARIOS:
        yield from load(path)["tests"]


@each_alert
def test_each_rule_has_a_case_that_fires_and_one_that_does_not(alert: Rule) -> None:
    """Exact labels and annotations of each rule, and of its alert a moment without any."""
    cases = [
        case
        for scenario in scenarios()
        for case in scenario.get("alert_rule_test", ())
        if case["alertname"] == alert["alert"]
    ]
    fired = [each["exp_labels"] for case in cases for each in case.get("exp_alerts") or ()]
    assert any(alert["labels"].items() <= labels.items() for labels in fired)
    assert any(not case.get("exp_alerts") for case in cases)


def test_scenarios_have_names_that_tell_them_apart() -> None:
    """A failure says which one it was."""
    names = [scenario["name"] for scenario in scenarios()]
    assert len(names) == len(set(names)) > 25


@pytest.mark.end_to_end
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix(".test.yml"))
def test_the_rules_do_what_the_scenarios_say(path: Path, program: Callable[[str], str]) -> None:
    """Fires, does not fire, resolves; with gaps, restarts, replicas and several accounts."""
    assert "SUCCESS" in output_of(program("promtool"), "test", "rules", str(path))


@pytest.mark.end_to_end
def test_promtool_has_nothing_to_say_against_rules_and_configuration(
    program: Callable[[str], str],
) -> None:
    """All lints are fatal; the configuration finds the rules beside it."""
    promtool = program("promtool")
    output_of(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(RULES_FILE))
    said = output_of(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert "1 rule files found" in said


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("severity", "receiver"),
    [("critical", "pager"), ("warning", "tickets"), ("info", "digest")],
)
def test_alertmanager_routes_by_severity(
    severity: str, receiver: str, program: Callable[[str], str]
) -> None:
    """As amtool sees it."""
    amtool, file = program("amtool"), str(PROMETHEUS / "alertmanager.yml")
    output_of(amtool, "check-config", file)
    labels = ("alertname=ExoPhoneFlowDetached", f"severity={severity}", "job=exophone")
    said = output_of(amtool, "config", "routes", "test", f"--config.file={file}", *labels)
    assert said.split()[0] == receiver


def output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr  # what amtool warns of comes last


# What Alertmanager holds back.

Inhibition = dict[str, Any]


def inhibits(source: dict[str, str], target: dict[str, str]) -> bool:
    """Whether a rule of alertmanager.yml mutes the target while the source fires."""
    rules: list[Inhibition] = load(PROMETHEUS / "alertmanager.yml")["inhibit_rules"]
    return any(
        _matches(rule["source_matchers"], source)
        and _matches(rule["target_matchers"], target)
        and all(source.get(name, "") == target.get(name, "") for name in rule.get("equal", ()))
        for rule in rules
    )


def _matches(matchers: list[str], labels: dict[str, str]) -> bool:
    for matcher in matchers:
        found = re.fullmatch(r'(\w+)(=~|!=|=)"(.*)"', matcher)
        assert found, matcher
        name, how, wanted = found.groups()
        value = labels.get(name, "")
        holds = re.fullmatch(wanted, value) if how == "=~" else value == wanted
        if bool(holds) == (how == "!="):
            return False
    return True


def alert(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": f"ExoPhone{name}", "job": "exophone", "account": "support", **labels}


VOICE = alert("VoiceFlowMissing", sid="1", flow="voice")
DOWN = alert("ExporterDown", instance="a", severity="critical")
REPLICA_DOWN = {"alertname": "ExoPhoneExporterDown", "job": "exophone", "instance": "a"}
RELOAD = {"alertname": "ExoPhoneConfigReloadFailed", "job": "exophone", "instance": "a"}


NOTHING_TO_SAY_WHEN_STALE: Final = (
    "FlowDetached",
    "IdleRental",
    "NumbersDisappeared",
    "RentalJump",
    "SMSFlowMissing",
    "SeriesDropped",
    "UnreadableData",
    "VoiceFlowMissing",
)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((alert("DataStale"), alert(name)) for name in NOTHING_TO_SAY_WHEN_STALE),
        (alert("DataStale"), alert("PollFailing", instance="a")),
        (alert("DataStale", severity="critical"), alert("DataStale", severity="warning")),
        (alert("CredentialsRejected"), alert("DataStale")),
        (alert("CredentialsRejected"), alert("PollFailing", instance="a")),
        (alert("AccountUnpaid"), alert("DataStale")),
        (alert("FlowDetached", sid="1", flow="voice"), VOICE),
        (alert("FlowDetached", flow="voice"), alert("VoiceFlowMissing", flow="voice", region="MU")),
        (DOWN, VOICE),
        (DOWN, RELOAD),
        (REPLICA_DOWN, alert("PollFailing", instance="a")),
        (DOWN, {"alertname": "ExoPhoneExporterAbsent"}),
    ],
)
def test_what_follows_from_another_alert_is_held_back(
    source: dict[str, str], target: dict[str, str]
) -> None:
    """The cause is told, its consequences are not; and never the other way round."""
    assert inhibits(source, target)
    assert not inhibits(target, source)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (alert("DataStale"), VOICE | {"account": "sales"}),
        (alert("DataStale"), VOICE | {"job": "another"}),
        (alert("DataStale"), alert("CredentialsRejected")),
        (alert("DataStale"), alert("APIRateLimited")),
        (alert("DataStale", severity="warning"), alert("DataStale", severity="critical")),
        (alert("CredentialsRejected"), VOICE),
        (alert("FlowDetached", sid="1", flow="voice"), VOICE | {"sid": "2"}),
        (alert("FlowDetached", sid="1", flow="sms"), VOICE),
        (alert("FlowDetached", flow="voice"), VOICE),
        (DOWN, VOICE | {"account": "sales"}),
        (DOWN, DOWN | {"account": "sales"}),
        (REPLICA_DOWN, VOICE),
        (REPLICA_DOWN, RELOAD | {"instance": "b"}),
        (DOWN, {"alertname": "NodeDown", "job": "exophone", "instance": "a"}),
    ],
)
def test_what_does_not_follow_is_told(source: dict[str, str], target: dict[str, str]) -> None:
    """Other accounts, jobs, numbers, flows and replicas, and causes, are not muted."""
    assert not inhibits(source, target)
