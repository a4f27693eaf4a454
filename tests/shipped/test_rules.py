"""The alerting rules: their queries, labels and addresses, and what promtool says of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.lib.paths import ROOT
from tests.lib.processes import output_of
from tests.lib.queries import LABELS, unknown_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rule = dict[str, Any]

PROMETHEUS: Final = ROOT / "prometheus"
FILE: Final = PROMETHEUS / "exophone.rules.yml"
RULES: Final[list[Rule]] = [
    rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]
]
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
RECORDED: Final = {rule["record"] for rule in RULES if "record" in rule}
RUNBOOKS: Final = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
HEADINGS: Final = re.findall(r"^## (ExoPhone\w+)$", RUNBOOKS, re.MULTILINE)
SCENARIO_FILES: Final = sorted((ROOT / "tests" / "shipped" / "rules").glob("*.test.yml"))
SCENARIOS: Final = [
    test for file in SCENARIO_FILES for test in yaml.safe_load(file.read_text("utf-8"))["tests"]
]

RUNBOOK_BASE: Final = "https://example.com/exophone-exporter/docs/runbooks.md#"
DASHBOARD_BASE: Final = "https://grafana.example.com/d/"
# The names are promises. One such alert is about one exporter, and so has the label instance.
OF_ONE_EXPORTER: Final = {"PollFailing", "ExporterDown", "ConfigReloadFailed"}
OF_ALL_REPLICAS: Final = {
    "VoiceFlowMissing",
    "SMSFlowMissing",
    "FlowDetached",
    "NumbersDisappeared",
    "IdleRental",
    "RentalJump",
    "NumbersUnpriced",
    "SeriesDropped",
    "UnreadableData",
    "DataStale",
    "NumbersUnconfirmed",
    "CredentialsRejected",
    "AccountUnpaid",
    "APIRateLimited",
    "ExporterAbsent",
}
_TEMPLATE_LABEL = re.compile(r"\$labels\.(\w+)")


def title(alert: Rule) -> str:
    """The name of an alert and the labels that tell it from its namesakes."""
    return " ".join((alert["alert"], *alert["labels"].values()))


each_alert = pytest.mark.parametrize("alert", ALERTS, ids=title)


# What a rule asks.


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or title(rule))
def test_a_rule_asks_for_what_exists(rule: Rule) -> None:
    assert unknown_names(rule["expr"], RECORDED) == set()
    texts = " ".join(rule.get("annotations", {}).values())
    assert set(_TEMPLATE_LABEL.findall(texts)) <= LABELS


def test_what_is_recorded_is_used() -> None:
    text = FILE.read_text("utf-8")
    for rule in RULES:
        assert "record" not in rule or text.count(rule["record"]) > 1, rule["record"]


# What an alert says.


def test_the_alerts_are_those_that_were_promised() -> None:
    promised = {f"ExoPhone{name}" for name in OF_ONE_EXPORTER | OF_ALL_REPLICAS}
    assert {alert["alert"] for alert in ALERTS} == promised


@each_alert
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: Rule) -> None:
    """The summary is the same for all series; the description names the account or exporter."""
    notes = alert["annotations"]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "{{" not in notes["summary"]
    assert notes["summary"].endswith(".")
    about = _TEMPLATE_LABEL.findall(notes["description"])
    assert {"account", "instance"} & {*about} or alert["alert"] == "ExoPhoneExporterAbsent"
    assert "for" in alert


@each_alert
def test_the_links_of_an_alert_lead_somewhere(alert: Rule) -> None:
    """To its heading in docs/runbooks.md, and to a dashboard that has the variables of the URL."""
    assert alert["annotations"]["runbook_url"] == RUNBOOK_BASE + alert["alert"].lower()
    assert alert["alert"] in HEADINGS
    url = alert["annotations"]["dashboard_url"]
    assert url.startswith(DASHBOARD_BASE)
    parts = urlsplit(url)
    file = ROOT / "grafana" / "dashboards" / f"{parts.path.removeprefix('/d/')}.json"
    variables = json.loads(file.read_text("utf-8"))["templating"]["list"]
    assert set(parse_qs(parts.query)) <= {f"var-{variable['name']}" for variable in variables}
    values = re.findall(r"var-(\w+)=\{\{ \$labels\.(\w+) \| urlquery \}\}", url)
    assert all(name == label for name, label in values)
    assert url.count("{{") == len(values)


def test_a_runbook_has_four_parts_and_a_row_in_the_table() -> None:
    """The table has every alert with all its severities, in the order of the sections."""
    assert sorted(HEADINGS) == sorted({alert["alert"] for alert in ALERTS})
    for section in RUNBOOKS.split("\n## ")[1:]:
        if section.startswith("ExoPhone"):
            for part in ("**Means.**", "**See it.**", "**Do", "**Silence"):
                assert part in section, section.splitlines()[0]
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| ([a-z, ]+) \|", RUNBOOKS, re.MULTILINE)
    assert [name for name, _, _ in rows] == HEADINGS
    for name, anchor, severities in rows:
        of_rules = {a["labels"]["severity"] for a in ALERTS if a["alert"] == name}
        assert (anchor, set(severities.split(", "))) == (name.lower(), of_rules)


def test_the_sed_of_the_runbooks_replaces_every_address() -> None:
    hosts = set(re.findall(r"https?://[^/\s|]+/", FILE.read_text("utf-8")))
    assert hosts == {
        "https://example.com/",
        "https://grafana.example.com/",
        "https://YOUR-DOCS/",
        "https://YOUR-GRAFANA/",
    }


# What promtool and amtool say.


@each_alert
def test_each_rule_has_a_case_that_fires_and_one_that_does_not(alert: Rule) -> None:
    cases = [
        case
        for scenario in SCENARIOS
        for case in scenario.get("alert_rule_test", ())
        if case["alertname"] == alert["alert"]
    ]
    fired = [each["exp_labels"] for case in cases for each in case.get("exp_alerts") or ()]
    assert any(alert["labels"].items() <= labels.items() for labels in fired)
    of_one = alert["alert"].removeprefix("ExoPhone") in OF_ONE_EXPORTER
    assert {"instance" in labels for labels in fired} == {of_one}
    assert any(not case.get("exp_alerts") for case in cases)


def test_each_scenario_has_a_name_of_its_own() -> None:
    names = [scenario["name"] for scenario in SCENARIOS]
    assert len(names) == len(set(names)) > 25


@pytest.mark.end_to_end
@pytest.mark.parametrize("path", SCENARIO_FILES, ids=lambda path: path.stem.removesuffix(".test"))
def test_the_rules_do_what_the_scenarios_say(path: Path, program: Callable[[str], str]) -> None:
    """They fire, stay silent, resolve; with gaps, restarts, replicas and several accounts."""
    assert "SUCCESS" in output_of(program("promtool"), "test", "rules", path, seconds=900)


@pytest.mark.end_to_end
def test_promtool_accepts_the_rules_and_the_configuration(program: Callable[[str], str]) -> None:
    promtool = program("promtool")
    output_of(promtool, "check", "rules", "--lint=all", "--lint-fatal", FILE)
    said = output_of(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    assert "1 rule files found" in said


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("severity", "receiver"),
    [("critical", "pager"), ("warning", "tickets"), ("info", "digest")],
)
def test_alertmanager_routes_by_severity(
    severity: str, receiver: str, program: Callable[[str], str]
) -> None:
    amtool, file = program("amtool"), PROMETHEUS / "alertmanager.yml"
    output_of(amtool, "check-config", file)
    labels = ("alertname=ExoPhoneFlowDetached", f"severity={severity}", "job=exophone")
    said = output_of(amtool, "config", "routes", "test", f"--config.file={file}", *labels)
    assert said.split()[0] == receiver


# What Alertmanager inhibits. amtool has no command for it.

INHIBITIONS: Final[list[dict[str, Any]]] = yaml.safe_load(
    (PROMETHEUS / "alertmanager.yml").read_text("utf-8")
)["inhibit_rules"]


def inhibits(source: dict[str, str], target: dict[str, str]) -> bool:
    """Whether alertmanager.yml mutes the target while the source fires."""
    return any(
        _matches(rule["source_matchers"], source)
        and _matches(rule["target_matchers"], target)
        and all(source.get(name, "") == target.get(name, "") for name in rule.get("equal", ()))
        for rule in INHIBITIONS
    )


def _matches(matchers: list[str], labels: dict[str, str]) -> bool:
    for matcher in matchers:
        ((name, how, wanted),) = re.findall(r'^(\w+)(=~|!=|=)"(.*)"$', matcher)
        pattern = wanted if how == "=~" else re.escape(wanted)
        if bool(re.fullmatch(pattern, labels.get(name, ""))) == (how == "!="):
            return False
    return True


def firing(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": f"ExoPhone{name}", "job": "exophone", "account": "support", **labels}


VOICE: Final = firing("VoiceFlowMissing", sid="1", flow="voice")
DETACHED: Final = firing("FlowDetached", sid="1", flow="voice")
STALE: Final = firing("DataStale")
CRITICAL: Final = STALE | {"severity": "critical"}
WARNING: Final = STALE | {"severity": "warning"}
REJECTED: Final = firing("CredentialsRejected")
FAILING: Final = firing("PollFailing", instance="a")
DOWN: Final = firing("ExporterDown", instance="a", severity="critical")
REPLICA_DOWN: Final = {"alertname": "ExoPhoneExporterDown", "job": "exophone", "instance": "a"}
RELOAD: Final = REPLICA_DOWN | {"alertname": "ExoPhoneConfigReloadFailed"}
ABOUT_NUMBERS: Final = (
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
        *((STALE, firing(name)) for name in ABOUT_NUMBERS),
        (STALE, FAILING),
        (CRITICAL, WARNING),
        (REJECTED, STALE),
        (REJECTED, FAILING),
        (firing("AccountUnpaid"), STALE),
        (DETACHED, VOICE),
        (
            firing("FlowDetached", flow="voice"),
            firing("VoiceFlowMissing", flow="voice", region="M"),
        ),
        (DOWN, VOICE),
        (DOWN, RELOAD),
        (REPLICA_DOWN, FAILING),
        (DOWN, {"alertname": "ExoPhoneExporterAbsent"}),
    ],
)
def test_a_cause_inhibits_its_consequence(source: dict[str, str], target: dict[str, str]) -> None:
    assert inhibits(source, target)
    assert not inhibits(target, source)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (STALE, VOICE | {"account": "sales"}),
        (STALE, VOICE | {"job": "another"}),
        (STALE, REJECTED),
        (STALE, firing("APIRateLimited")),
        (WARNING, CRITICAL),
        (REJECTED, VOICE),
        (DETACHED, VOICE | {"sid": "2"}),
        (DETACHED | {"flow": "sms"}, VOICE),
        (firing("FlowDetached", flow="voice"), VOICE),
        (DOWN, VOICE | {"account": "sales"}),
        (DOWN, DOWN | {"account": "sales"}),
        (REPLICA_DOWN, VOICE),
        (REPLICA_DOWN, RELOAD | {"instance": "b"}),
        (DOWN, {"alertname": "NodeDown", "job": "exophone", "instance": "a"}),
    ],
)
def test_nothing_else_is_inhibited(source: dict[str, str], target: dict[str, str]) -> None:
    """Other accounts, jobs, numbers, flows and replicas still notify, and so do causes."""
    assert not inhibits(source, target)
