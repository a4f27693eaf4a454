"""What reaches the person on call: from the simulated API through our rules to a webhook."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from exophone_exporter.simulator import Fault, RecordedRequest
from tests.lib.alerting_scene import Scene, alerts, healthy_account, scene
from tests.lib.servers import Notified

RECEIVERS = {"critical": "pager", "warning": "tickets", "info": "digest"}


def assert_readable(sent: Notified) -> None:
    """It went where its severity belongs, with all that a person needs and templates filled in."""
    assert sent.receiver == RECEIVERS[sent.labels["severity"]]
    assert {"summary", "description", "runbook_url", "dashboard_url"} <= sent.annotations.keys()
    for name, text in sent.annotations.items():
        assert text, name
        assert not re.search(r"\{\{|\}\}|<no value>|<error|%!|NaN", text), f"{name}: {text}"
    anchor = sent.labels["alertname"].lower()
    assert sent.annotations["runbook_url"].endswith(f"docs/runbooks.md#{anchor}")
    if "account" in sent.labels:
        assert sent.labels["account"] in sent.annotations["summary"]
        assert f"var-account={sent.labels['account']}" in sent.annotations["dashboard_url"]


def change(scene: Scene, account_sid: str, **values: Any) -> dict[str, Any]:
    """Change what the API says of the first number of an account; the number."""
    account = scene.account(account_sid)
    with account.lock:
        account.numbers[0].update(values)
        return account.numbers[0]


def add(scene: Scene, account_sid: str, **values: Any) -> None:
    """Add a free number that is the first of the account but for these values."""
    account = scene.account(account_sid)
    own = {"sid": "added", "rental_price": "0.000000"}
    with account.lock:
        account.numbers.append(account.numbers[0] | own | values)


def remove(scene: Scene, account_sid: str) -> None:
    account = scene.account(account_sid)
    with account.lock:
        del account.numbers[0]


def fail(
    scene: Scene,
    account_sid: str,
    status: int,
    retry_after: str = "0",
    endpoint: Literal["balance"] | None = None,
) -> None:
    """From now on the API answers an account's requests, or those to an endpoint, with a status."""
    headers = {"Retry-After": retry_after}
    scene.simulator.fail(
        Fault(status, headers=headers, endpoint=endpoint, account_sid=account_sid, times=None)
    )


def revoke_key(scene: Scene, account_sid: str) -> None:
    scene.account(account_sid).api_key = "another"


def report_balance(scene: Scene, account_sid: str, amount: str) -> None:
    """From now on the API says so, and does nothing else about it."""
    data = {"Balance": amount, "Currency": "INR", "PricingPlan": "Pay As You Go"}
    body = json.dumps({"Account": {"AccountSid": account_sid, "BalanceData": data}})
    fault = Fault(200, body=body.encode(), endpoint="balance", account_sid=account_sid, times=None)
    scene.simulator.fail(fault)


def hide_another_at_each_poll(scene: Scene, account_sid: str) -> None:
    """From now on each walk lacks another number, of which the API says nothing."""
    account = scene.account(account_sid)
    hidden: list[dict[str, Any]] = []

    def hide(request: RecordedRequest) -> None:
        if f"/{account_sid}/" in request.path and request.query["Page"] == "0":
            with account.lock:
                account.numbers.extend(hidden)
                hidden[:] = [account.numbers.pop(0)]

    scene.simulator.fail(Fault(403, endpoint="detail", account_sid=account_sid, times=None))
    scene.simulator.on_request = hide


OTHER_FLOW = "https://my.exotel.in/any/exoml/start_voice/9"
# What makes each alert fire in an account of its own.
CAUSES: dict[str, Callable[[Scene, str], object]] = {
    "ExoPhoneVoiceFlowMissing warning number": partial(add, voice_url=None),
    "ExoPhoneVoiceFlowMissing warning circle": partial(add, voice_url=None),
    "ExoPhoneSMSFlowMissing info number": partial(add, sms_url=None),
    "ExoPhoneSMSFlowMissing info circle": partial(add, sms_url=None),
    "ExoPhoneWrongFlow warning number": partial(change, voice_url=OTHER_FLOW),
    "ExoPhoneWrongFlow warning circle": partial(change, voice_url=OTHER_FLOW),
    "ExoPhoneUnwantedFlow info number": partial(change, sms_url=OTHER_FLOW),
    "ExoPhoneUnwantedFlow info circle": partial(change, sms_url=OTHER_FLOW),
    "ExoPhoneFlowDetached critical number": partial(change, voice_url=None),
    "ExoPhoneFlowDetached warning number": partial(change, sms_url=None),
    "ExoPhoneFlowDetached critical account voice": partial(change, voice_url=None),
    "ExoPhoneFlowDetached warning account sms": partial(change, sms_url=None),
    "ExoPhoneNumbersDisappeared critical": remove,
    "ExoPhoneIdleRental info": partial(change, voice_url=None, sms_url=None),
    "ExoPhoneRentalJump warning": partial(change, rental_price="49900.000000"),
    "ExoPhoneBalanceLow warning": partial(report_balance, amount="1.00"),
    "ExoPhoneBalanceExhausted critical": partial(report_balance, amount="-0.50"),
    "ExoPhoneBalanceUnknown warning": partial(fail, status=403, endpoint="balance"),
    "ExoPhoneNumbersUnpriced info": partial(change, rental_price=None),
    "ExoPhoneSeriesDropped warning": add,
    "ExoPhoneUnreadableData warning value": partial(change, rental_price="a lot"),
    "ExoPhoneUnreadableData warning record": partial(add, sid="", friendly_name="Nobody"),
    "ExoPhonePollFailing warning": partial(fail, status=500),
    # Without another attempt no polls fail, which would be the cause.
    "ExoPhoneDataStale warning": partial(fail, status=429, retry_after="3600"),
    "ExoPhoneDataStale critical": partial(fail, status=500),
    "ExoPhoneNumbersUnconfirmed info": hide_another_at_each_poll,
    "ExoPhoneCredentialsRejected critical": revoke_key,
    "ExoPhoneAccountUnpaid critical": partial(fail, status=402),
    "ExoPhoneAPIRateLimited warning": partial(fail, status=429),
}
# What is about no account, and needs all of them in order.
FIRST_CAUSES: dict[str, Callable[[Scene], object]] = {
    "ExoPhoneRuleUnmatched info": lambda scene: change(scene, "rule", friendly_name="Renamed"),
}
RULES = """
numbers:
  - match: {account: rule, friendly_name: Hotline}
  - match: {account: [ExoPhoneWrongFlow_warning_number, ExoPhoneWrongFlow_warning_circle]}
    voice: [1, 2]
    owner: south
  - match: {account: [ExoPhoneUnwantedFlow_info_number, ExoPhoneUnwantedFlow_info_circle]}
    sms: none
"""
# What some of these accounts need in the configuration of the exporter.
BALANCE = "balance: {enabled: true, interval: 1s}"
SETTINGS = {
    "ExoPhoneWrongFlow warning circle": "per_number: {series: none}",
    "ExoPhoneUnwantedFlow info circle": "per_number: {series: none}",
    "ExoPhoneBalanceLow warning": BALANCE,
    "ExoPhoneBalanceExhausted critical": BALANCE,
    "ExoPhoneBalanceUnknown warning": BALANCE,
    "ExoPhoneVoiceFlowMissing warning circle": "per_number: {series: none}",
    "ExoPhoneSMSFlowMissing info circle": "per_number: {series: none}",
    "ExoPhoneFlowDetached critical account voice": "per_number: {series: none}",
    "ExoPhoneFlowDetached warning account sms": "per_number: {series: none}",
    "ExoPhoneSeriesDropped warning": "per_number: {limit: 3}",
    "ExoPhonePollFailing warning": "poll: {stale_after: 1h}",
}
# What concerns all accounts, one after the other: of two exporters one ends, then both, and then
# Prometheus is to scrape none.
CAUSES_FOR_ALL: dict[str, Callable[[Scene], None]] = {
    "ExoPhoneConfigReloadFailed warning": lambda scene: scene.misconfigure(),
    "ExoPhoneExporterDown warning": lambda scene: scene.exporters[1].process.kill(),
    "ExoPhoneExporterDown critical": lambda scene: scene.exporters[0].process.kill(),
    "ExoPhoneExporterAbsent critical": lambda scene: scene.scrape(),
}


def sid_of(alert: str) -> str:
    return alert.replace(" ", "_")


def test_every_alert_of_the_file_has_a_cause_here() -> None:
    """Every alert has been seen to fire, but those about a job and a server unlike ours."""
    unlike_ours = {"ExoPhoneLabelsRenamed info", "ExoPhoneCertificateExpiring warning"}
    known = CAUSES.keys() | FIRST_CAUSES.keys() | CAUSES_FOR_ALL.keys()
    assert known == alerts().keys() - unlike_ours


@pytest.mark.end_to_end
def test_a_number_that_loses_its_flow_is_reported_once_until_it_has_one_again(
    tmp_path: Path,
) -> None:
    """Two replicas watch it; no notification before that, and a resolved one afterwards."""
    accounts = [healthy_account("support"), healthy_account("sales")]
    accounts[1].numbers[0].update(friendly_name="Outbound [no flow]", voice_url=None)
    with scene(tmp_path, *accounts, replicas=2) as running:
        running.stay_quiet()
        flow = running.account("support").numbers[0]["voice_url"]
        number = change(running, "support", voice_url=None)
        every = running.wait_for("ExoPhoneFlowDetached critical number")
        for sent in every:
            assert_readable(sent)
            assert sent.labels["account"] == "support"
            for name in (number["friendly_name"], number["phone_number"], "account support"):
                assert name in sent.annotations["summary"]
        running.wait_until_held_back("ExoPhoneVoiceFlowMissing warning number")
        change(running, "support", voice_url=flow)
        running.wait_for("ExoPhoneFlowDetached critical number", "resolved")
        for watcher, sent in zip(running.watchers, every, strict=True):
            assert [(also.labels, also.status) for also in watcher.webhook.alerts] == [
                (sent.labels, "firing"),
                (sent.labels, "resolved"),
            ]


@pytest.mark.end_to_end
def test_a_revoked_key_is_reported_and_nothing_else(
    tmp_path: Path,
) -> None:
    """What follows from it is inhibited, and no alert about a number is sent as resolved."""
    accounts = [healthy_account("support"), healthy_account("sales")]
    with scene(tmp_path, *accounts) as running:
        add(running, "support", voice_url=None)
        running.wait_for("ExoPhoneVoiceFlowMissing warning number", account="support")
        before = [len(watcher.webhook.alerts) for watcher in running.watchers]
        revoke_key(running, "support")
        for sent in running.wait_for("ExoPhoneCredentialsRejected critical"):
            assert_readable(sent)
        for consequence in (
            "ExoPhonePollFailing warning",
            "ExoPhoneDataStale warning",
            "ExoPhoneDataStale critical",
        ):
            running.wait_until_held_back(consequence, account="support")
        for watcher in running.watchers:
            watcher.server.wait_for('absent(exophone_numbers{account="support"})', 1)
            watcher.server.wait_for('absent(ALERTS{alertname="ExoPhoneVoiceFlowMissing"})', 1)
        add(running, "sales", voice_url=None)
        running.wait_for("ExoPhoneVoiceFlowMissing warning number", account="sales")
        for watcher, earlier in zip(running.watchers, before, strict=True):
            names = [sent.labels["alertname"] for sent in watcher.webhook.alerts[earlier:]]
            assert names == ["ExoPhoneCredentialsRejected", "ExoPhoneVoiceFlowMissing"]
        running.account("support").api_key = "support-key"
        running.wait_for("ExoPhoneCredentialsRejected critical", "resolved", account="support")


@pytest.mark.end_to_end
@pytest.mark.parametrize("vmalert", [False, True], ids=["prometheus", "vmalert"])
def test_every_alert_arrives(tmp_path: Path, *, vmalert: bool) -> None:
    """Each alert of the file fires for its cause, is routed, and says what a person needs."""
    accounts = [healthy_account(sid) for sid in ("rule", *map(sid_of, CAUSES))]
    accounts[0].numbers[0]["friendly_name"] = "Hotline"
    for number in [n for account in accounts if "Unwanted" in account.sid for n in account.numbers]:
        number["sms_url"] = None
    settings = {sid_of(alert): setting for alert, setting in SETTINGS.items()}
    with scene(
        tmp_path, *accounts, replicas=2, settings=settings, more=RULES, vmalert=vmalert
    ) as running:
        running.stay_quiet()
        for alert, first_cause in FIRST_CAUSES.items():
            first_cause(running)
            running.wait_for(alert)
        for alert, cause in CAUSES.items():
            cause(running, sid_of(alert))
        for alert in CAUSES:
            running.wait_for(alert, account=sid_of(alert))
        for alert, cause_for_all in CAUSES_FOR_ALL.items():
            cause_for_all(running)
            running.wait_for(alert)
        for wrong in running.wait_for("ExoPhoneWrongFlow warning number"):
            assert wrong.labels["owner"] == "south"
            assert "It has 9. Expected is 1 or 2." in wrong.annotations["description"]
        for sent in [sent for watcher in running.watchers for sent in watcher.webhook.alerts]:
            assert_readable(sent)
        # vmalert records late: with durations as short as these, alerts about circles come and go.
        if not vmalert:
            running.watchers[0].assert_grafana_sees_the_same()
            assert_missing_flow_was_sent_once(running)


def assert_missing_flow_was_sent_once(running: Scene) -> None:
    missing = "ExoPhoneVoiceFlowMissing warning number"
    for watcher in running.watchers:
        assert len(watcher.arrived(missing, account=sid_of(missing))) == 1
        over = watcher.arrived(missing, "resolved", account=sid_of(missing))
        assert not over, "an exporter that is gone does not resolve alerts"
