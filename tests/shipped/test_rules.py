"""The alerting rules: their queries, labels and addresses, and what real programs do with them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.lib.paths import ROOT
from tests.lib.processes import BIN, output_of, wait_until
from tests.lib.programs import BUILT, programs
from tests.lib.queries import LABELS, unknown_names
from tests.lib.servers import alertmanager

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

WITH_JOBS: Final = [
    path
    for pattern in ("*.md", "docs/*.md", "prometheus/*.yml", "exophone_exporter/cli/*.py")
    for path in ROOT.glob(pattern)
    if "job_name: exophone" in path.read_text("utf-8")
]

RUNBOOK_BASE: Final = "https://example.com/exophone-exporter/docs/runbooks.md#"
DASHBOARD_BASE: Final = "https://grafana.example.com/d/"
# The names are promises. One such alert is about one exporter, and so has the label instance.
OF_ONE_EXPORTER: Final = {
    "PollFailing",
    "ExporterDown",
    "ConfigReloadFailed",
    "CertificateExpiring",
}
OF_ALL_REPLICAS: Final = {
    "VoiceFlowMissing",
    "SMSFlowMissing",
    "WrongFlow",
    "UnwantedFlow",
    "FlowDetached",
    "NumbersDisappeared",
    "IdleRental",
    "RentalJump",
    "BalanceLow",
    "BalanceExhausted",
    "BalanceUnknown",
    "NumbersUnpriced",
    "SeriesDropped",
    "UnreadableData",
    "DataStale",
    "NumbersUnconfirmed",
    "CredentialsRejected",
    "AccountUnpaid",
    "APIRateLimited",
    "ExporterAbsent",
    "RuleUnmatched",
    "LabelsRenamed",
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


@pytest.mark.parametrize("alert", ALERTS, ids=title)
def test_an_alert_compares_and_drops_the_name_of_its_metric(alert: Rule) -> None:
    """It asks for no name of a number either: names change."""
    expr = alert["expr"]
    assert re.match(r"(max|min|sum|count) by |absent\(", expr)
    assert expr.startswith(("absent", "count")) or re.search(r"[=<>]", re.sub(r"{.*?}", "", expr))
    assert "friendly_name" not in expr


def test_what_is_recorded_is_used() -> None:
    text = FILE.read_text("utf-8")
    for rule in RULES:
        assert "record" not in rule or text.count(rule["record"]) > 1, rule["record"]


@pytest.mark.fault(230)
def test_no_rule_keeps_the_labels_of_a_target() -> None:
    for rule in RULES:
        assert "without" not in rule["expr"], rule


@pytest.mark.fault(230)
@pytest.mark.parametrize("path", WITH_JOBS, ids=lambda path: path.name)
def test_every_scrape_job_that_we_show_honours_our_labels(path: Path) -> None:
    text = path.read_text("utf-8")
    jobs = re.findall(r"job_name: exophone[-\w]*\n(?:\s+(?:[^-\n].*)?\n)*", text)
    assert len(jobs) == text.count("job_name: exophone")
    assert all(re.search(r"^ +honor_labels: true", job, re.MULTILINE) for job in jobs)


# What an alert says.


def test_the_alerts_are_those_that_were_promised() -> None:
    promised = {f"ExoPhone{name}" for name in OF_ONE_EXPORTER | OF_ALL_REPLICAS}
    assert {alert["alert"] for alert in ALERTS} == promised


@each_alert
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: Rule) -> None:
    """The summary names the account, the exporter or the job: it is all that a phone shows."""
    notes = alert["annotations"]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert notes["summary"].endswith(".")
    about = _TEMPLATE_LABEL.findall(notes["summary"])
    assert {"account", "instance", "job"} & {*about} or alert["alert"] == "ExoPhoneExporterAbsent"
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
    known = {"from", "to", *(f"var-{variable['name']}" for variable in variables)}
    assert set(parse_qs(parts.query)) <= known
    values = re.findall(r"var-(\w+)=\{\{ \$labels\.(\w+) \| urlquery \}\}", url)
    assert all(name == label for name, label in values)
    assert ("&from={{" in url) == ("/exophone-rental" not in url and "?" in url)


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


# What promtool and amtool say, in two versions.


@pytest.fixture(scope="module", name="program")
def _program(each_program: Callable[[str], str]) -> Callable[[str], str]:
    return each_program


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
    ("severity", "receiver", "of_sales"),
    [
        ("critical", "pager", "sales,pager"),
        ("warning", "tickets", "sales"),
        ("info", "digest", "sales,digest"),
    ],
)
def test_alertmanager_routes_by_severity_and_by_owner(
    severity: str, receiver: str, of_sales: str, program: Callable[[str], str], tmp_path: Path
) -> None:
    """Owners have routes once the comments that show one are removed."""
    amtool, text = program("amtool"), (PROMETHEUS / "alertmanager.yml").read_text("utf-8")
    by_owner = re.sub(r"^    #(?=[- ] )", "    ", text, flags=re.MULTILINE)
    for file_text, receivers in (text, receiver), (by_owner, of_sales):
        file = tmp_path / "alertmanager.yml"
        file.write_text(file_text + "\n  - name: sales\n", "utf-8")
        output_of(amtool, "check-config", file)
        labels = (f"severity={severity}", "job=exophone", "owner=sales")
        said = output_of(amtool, "config", "routes", "test", f"--config.file={file}", *labels)
        assert said.split()[0] == receivers


@pytest.mark.end_to_end
def test_alertmanager_accepts_the_receivers_that_the_comments_show(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    text, _, receivers = (PROMETHEUS / "alertmanager.yml").read_text("utf-8").partition("\n#\n")
    file = tmp_path / "alertmanager.yml"
    shown = re.sub("^#", "", receivers, flags=re.MULTILINE)
    file.write_text(text.partition("# EDIT: three")[0] + "receivers:\n" + shown, "utf-8")
    assert "3 receivers" in output_of(program("amtool"), "check-config", file)


@pytest.mark.end_to_end
def test_vmalert_accepts_the_rules() -> None:
    output_of(programs(BUILT)("vmalert"), "-dryRun", f"-rule={FILE}")


def test_amlint_finds_nothing_in_the_routes_and_inhibitions() -> None:
    """Except that one has no `equal`: an absent exporter has no labels in common with one down."""
    rules, file = f"--rules={FILE}", PROMETHEUS / "alertmanager.yml"
    output_of(BIN / "amlint", "check", "--strict", "--ignore=inhibit-no-equal", rules, file)


# Scenes that differ in one thing, by promtool.

Series = tuple[str, dict[str, str], str]

TARGET: Final = {"job": "exophone", "instance": "a"}
FIRING: Final = (
    'count by (alertname, account, sid) (ALERTS{alertstate="firing",'
    ' alertname!~"ExoPhone(ExporterAbsent|LabelsRenamed)"})'
)


def scene(name: str, interval: str, series: Iterable[Series], **firing: list[str]) -> Rule:
    """A test of promtool: the alerts, each with the sid of its number, that fire at these times."""
    return {
        "name": name,
        "interval": interval,
        "input_series": [
            {"series": metric + _braced(labels), "values": values}
            for metric, labels, values in series
        ],
        "promql_expr_test": [
            {
                "expr": FIRING,
                "eval_time": at.removeprefix("at_"),
                "exp_samples": [
                    {"labels": _braced(_fired(alert)), "value": count}
                    for alert, count in Counter(alerts).items()
                ],
            }
            for at, alerts in firing.items()
        ],
    }


def _braced(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _fired(alert: str) -> dict[str, str]:
    name, *rest = alert.split()
    return {"alertname": f"ExoPhone{name}", **dict(each.split("=") for each in rest)}


def play(program: Callable[[str], str], folder: Path, *scenes: Rule, every: str = "1m") -> None:
    """Have promtool play the scenes against the rules as they are shipped."""
    document = {"rule_files": [str(FILE)], "evaluation_interval": every, "tests": scenes}
    file = folder / "scenes.test.yml"
    file.write_text(json.dumps(document), "utf-8")
    output_of(program("promtool"), "test", "rules", file, seconds=900)


def polled(account: str, success: str, stale_after: int = 900) -> Iterator[Series]:
    labels = TARGET | {"account": account}
    yield "exophone_poll_last_success_timestamp_seconds", labels, success
    yield "exophone_poll_last_attempt_timestamp_seconds", labels, "1+0x600"
    yield "exophone_poll_stale_after_seconds", labels, f"{stale_after}+0x600"


def number(account: str, sid: str, attached: str, shown: str = "1+0x600") -> Iterator[Series]:
    labels = TARGET | {"account": account, "sid": sid}
    yield "exophone_number_info", labels | {"region": "MU", "owner": "south"}, shown
    yield "exophone_number_flow_attached", labels | {"flow": "voice"}, attached
    yield "exophone_number_flow_as_expected", labels | {"flow": "voice"}, attached


def swept(every: int, offset: int) -> Rule:
    """Scrapes find data as old as stale_after allows, and in another account a second older."""
    moments = range(offset, 1500, every)
    between = " ".join(["", *["_"] * (every // 5 - 1), ""])

    def scraped(value: Callable[[int], int]) -> str:
        return "_ " * (offset // 5) + between.join(str(value(moment)) for moment in moments)

    series = [
        *polled("fresh", scraped(lambda moment: moment - 120), 120),
        *number("fresh", "never", scraped(lambda _: 0)),
        *number("fresh", "lost", scraped(lambda moment: int(moment < 300))),
        *polled("late", scraped(lambda moment: moment - 121), 120),
        *number("late", "unknown", scraped(lambda _: 0)),
    ]
    lost = "FlowDetached account=fresh sid=lost"
    missing = [
        "VoiceFlowMissing account=fresh sid=never",
        "VoiceFlowMissing account=fresh sid=lost",
    ]
    stale = "DataStale account=late"
    firing = {
        f"at_{300 + every + 30}s": [lost, stale],
        f"at_{900 + every + 60}s": [lost, *missing, stale],
    }
    return scene(f"{every} s, {offset} s", "5s", series, **firing)


@pytest.mark.end_to_end
@pytest.mark.parametrize("every", [15, 30, 60, 240])
def test_alerts_fire_at_any_offset_of_scrape_and_evaluation(
    every: int, program: Callable[[str], str], tmp_path: Path
) -> None:
    """With scrapes every four minutes, rules read data of up to four minutes ago."""
    scenes = [swept(every, offset) for offset in range(0, every, 5)]
    play(program, tmp_path, *scenes, every="30s")


def labelled(label: str, *, honoured: bool) -> Rule:
    """Two replicas whose targets have a label that the exporter may have as well; one is down."""
    both = [
        *polled("support", "0+60x100"),
        *number("support", "never", "0+0x100"),
        *number("support", "lost", "1+0x19 0+0x100"),
        *number("support", "fine", "1+0x100"),
        *polled("stale", "1+0x100"),
        ("exophone_poll_failing", TARGET | {"account": "refused", "reason": "auth"}, "1+0x100"),
    ]
    series = [
        (metric, labels | {"instance": name}, v) for name in "ab" for metric, labels, v in both
    ]
    series += [
        ("up", TARGET, "1+0x29 0+0x100"),
        ("exophone_poll_interval_seconds", TARGET | {"account": "down"}, "60+0x29 stale"),
    ]
    for at, (metric, labels, values) in enumerate(series):
        other = {label: "x" if label in {"account", "sid"} else f"of-{labels['instance']}"}
        renamed = {f"exported_{n}" if n == label else n: labels[n] for n in labels} | other
        series[at] = metric, other | labels if honoured else renamed, values
    firing = ["VoiceFlowMissing account=support sid=never", "ExporterDown account=down"]
    firing += ["VoiceFlowMissing account=support sid=lost", "FlowDetached account=support sid=lost"]
    firing += ["CredentialsRejected account=refused", "DataStale account=stale"]
    if not honoured and label == "account":  # all accounts look like one, which is not stale
        firing.remove("DataStale account=stale")
    if not honoured and label in {"account", "sid"}:
        firing = [re.sub(f"{label}=[a-z]+", f"{label}=x", alert) for alert in firing]
    return scene(f"{label} {honoured}", "1m", series, at_36m=firing)


@pytest.mark.end_to_end
@pytest.mark.fault(230)
@pytest.mark.parametrize("honoured", [True, False])
def test_a_label_of_the_target_neither_doubles_nor_silences(
    honoured: bool, program: Callable[[str], str], tmp_path: Path
) -> None:
    labels = ("node", "region", "pod_template_hash", "sid", "account", "owner")
    play(program, tmp_path, *(labelled(label, honoured=honoured) for label in labels))


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("lost", "gone", "firing"),
    [
        (0, 0, []),
        (1, 0, ["FlowDetached account=support sid=1"]),
        (0, 20, ["NumbersDisappeared account=support"]),
    ],
)
def test_a_pod_is_replaced_while_something_changes(
    lost: int, gone: int, firing: list[str], program: Callable[[str], str], tmp_path: Path
) -> None:
    """Every label of the target changes with it. What fired before fires all the time."""
    series: list[Series] = []
    for pod, constant, success, numbers in (
        ("a", "{}+0x399 stale", "0+60x399 stale", 60),
        ("b", "_x402 {}+0x100", "_x402 24120+60x100", 60 - gone),
    ):
        of_pod = [
            *polled("support", success),
            *number("support", "0", constant.format(0), constant.format(1)),
            *number("support", "1", constant.format(int(pod == "a" or not lost))),
            ("exophone_numbers", TARGET | {"account": "support"}, constant.format(numbers)),
        ]
        own = {"instance": pod, "node": pod, "pod": pod}
        series += [(metric, labels | own, values) for metric, labels, values in of_pod]
    missing = "VoiceFlowMissing account=support sid=0"
    firing = [missing, *firing]
    moments = {"at_399m": [missing], "at_401m": [missing], "at_408m": firing}
    play(program, tmp_path, scene("replaced", "1m", series, **moments))


# What Alertmanager holds back, and what it groups.


def firing(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": f"ExoPhone{name}", "account": "support", **labels}


VOICE: Final = firing("VoiceFlowMissing", sid="1", flow="voice")
DETACHED: Final = firing("FlowDetached", sid="1", flow="voice")
STALE: Final = firing("DataStale", severity="warning")
CRITICAL: Final = STALE | {"severity": "critical"}
REJECTED: Final = firing("CredentialsRejected")
FAILING: Final = firing("PollFailing", instance="a", severity="warning")
DOWN: Final = firing("ExporterDown", instance="a", severity="critical")
REPLICA_DOWN: Final = {"alertname": "ExoPhoneExporterDown", "instance": "a"}
UNPAID: Final = firing("AccountUnpaid")
EXHAUSTED: Final = firing("BalanceExhausted", currency="INR")
RELOAD: Final = REPLICA_DOWN | {"alertname": "ExoPhoneConfigReloadFailed"}
ABOUT_NUMBERS: Final = (
    "FlowDetached",
    "IdleRental",
    "NumbersDisappeared",
    "NumbersUnconfirmed",
    "NumbersUnpriced",
    "RentalJump",
    "SMSFlowMissing",
    "SeriesDropped",
    "UnreadableData",
    "UnwantedFlow",
    "VoiceFlowMissing",
    "WrongFlow",
)
INHIBITED: Final = [
    *((STALE, firing(name)) for name in ABOUT_NUMBERS),
    (FAILING, STALE),
    (CRITICAL, FAILING),
    (CRITICAL, STALE),
    (REJECTED, STALE),
    (REJECTED, FAILING),
    (UNPAID, CRITICAL),
    (UNPAID, firing("BalanceLow", currency="INR")),
    (UNPAID, EXHAUSTED),
    (EXHAUSTED, firing("BalanceLow", currency="INR")),
    (DETACHED, VOICE),
    (firing("FlowDetached", flow="voice"), firing("VoiceFlowMissing", flow="voice", region="M")),
    (DOWN, VOICE),
    (DOWN, RELOAD),
    (REPLICA_DOWN, FAILING),
    (DOWN, {"alertname": "ExoPhoneExporterAbsent"}),
]
NOT_INHIBITED: Final = [
    (STALE, VOICE | {"account": "sales"}),
    (STALE, VOICE | {"job": "another"}),
    (STALE, REJECTED),
    (STALE, firing("APIRateLimited")),
    (STALE, EXHAUSTED),
    (EXHAUSTED, firing("BalanceLow", currency="USD")),
    (EXHAUSTED, UNPAID),
    (FAILING, CRITICAL | {"account": "sales"}),
    (FAILING, VOICE),
    (REJECTED, VOICE),
    (DETACHED, VOICE | {"sid": "2"}),
    (DETACHED | {"flow": "sms"}, VOICE),
    (firing("FlowDetached", flow="voice"), VOICE),
    (DOWN, VOICE | {"account": "sales"}),
    (DOWN, DOWN | {"account": "sales"}),
    (REPLICA_DOWN, VOICE),
    (REPLICA_DOWN, RELOAD | {"instance": "b"}),
    (DOWN, {"alertname": "NodeDown", "instance": "a"}),
]


@pytest.mark.end_to_end
def test_alertmanager_holds_back_consequences_and_groups_by_the_cause(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    """Each pair of cause and consequence has a job of its own; nothing else is held back."""
    pairs = [
        [{"job": f"job-{at}"} | labels for labels in pair]
        for at, pair in enumerate([*INHIBITED, *NOT_INHIBITED])
    ]
    held_back = [consequence for _, consequence in pairs[: len(INHIBITED)]]
    others = [cause for cause, _ in pairs[: len(INHIBITED)]]
    others += [other for _, other in pairs[len(INHIBITED) :]]
    names = ("ExporterDown", "DataStale", "PollFailing")
    outage = [firing(name, account=f"{at}", job="one") for name in names for at in range(20)]
    text = (PROMETHEUS / "alertmanager.yml").read_text("utf-8")
    with alertmanager(program("alertmanager"), tmp_path, text) as server:
        server.send(*outage, *(labels for pair in pairs for labels in pair))
        wait_until(
            lambda: all(labels in server.inhibited() for labels in held_back),
            "every consequence is held back",
        )
        assert not [labels for labels in server.inhibited() if labels in others]
        of_outage = dict.fromkeys(names, 20)
        wait_until(lambda: server.group_sizes("one") == of_outage, "one group for each alert")
