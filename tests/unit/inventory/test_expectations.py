"""Whether numbers do what is expected of them, one by one and in sum."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from exophone_exporter.config.number_rules import ANY, DEFAULT_RULES, NumberRules
from exophone_exporter.inventory.expectations import expectation, judge
from exophone_exporter.inventory.snapshot import rule_matches
from tests.lib.support import account, number_rules, phone, snapshot

FLOW_11 = "http://my.exotel.in/acme/exoml/start_voice/11"
OWN = "https://bot.example/answer"
UNREADABLE = None


@pytest.mark.parametrize(
    ("expected", "url", "state"),
    [
        ("any", FLOW_11, "as_expected"),
        ("any", OWN, "as_expected"),
        ("any", "", "missing"),
        ("none", "", "as_expected"),
        ("none", FLOW_11, "unwanted"),
        ("unchecked", "", "unchecked"),
        ("unchecked", FLOW_11, "unchecked"),
        ("11", FLOW_11, "as_expected"),
        ("12", FLOW_11, "wrong"),
        ("11", OWN, "wrong"),
        ("12 11", FLOW_11, "as_expected"),
        ("12 13", FLOW_11, "wrong"),
        ("12", "", "missing"),
        (OWN, OWN, "as_expected"),
        (OWN, f"{OWN}/", "wrong"),
        (f"12 {OWN}", OWN, "as_expected"),
        (FLOW_11, FLOW_11, "as_expected"),
        *(pytest.param(word, UNREADABLE, "unreadable", marks=pytest.mark.fault(231))
          for word in ("any", "none", "11", OWN)),
    ],
)  # fmt: skip
def test_a_channel_is_in_the_state_that_its_rule_makes_of_its_url(
    expected: str, url: str | None, state: str
) -> None:
    """The other channel has a rule and a state of its own."""
    rules = number_rules({"sid": "*", "voice": expected, "sms": "none", "owner": "south"})
    verdict = judge(phone(voice_url=url, sms_url=""), rules)
    problem = state if state in {"missing", "wrong", "unwanted"} else None
    assert (verdict.voice, verdict.sms) == (state, "as_expected")
    assert verdict.problem("voice") == problem
    assert verdict.has_problem is (problem is not None)
    assert (expectation(verdict.rule, "voice"), verdict.owner) == (tuple(expected.split()), "south")


@pytest.mark.fault(232)
@pytest.mark.parametrize("expected", ["any", "none", "unchecked", "11"])
def test_a_channel_that_a_number_is_not_capable_of_is_not_judged(expected: str) -> None:
    rules = number_rules({"sid": "*", "voice": expected})
    for url in ("", FLOW_11, UNREADABLE):
        verdict = judge(phone(voice_capable=False, voice_url=url), rules)
        assert verdict.voice == "incapable"


def test_without_a_rule_a_flow_is_expected_and_nobody_owns_the_number() -> None:
    verdict = judge(phone(sms_url=""), NumberRules())
    assert (verdict.rule, verdict.owner, expectation(None, "sms")) == (None, "", ANY)
    assert (verdict.voice, verdict.sms) == ("as_expected", "missing")


@pytest.mark.parametrize("name", ["Fax [no flow]", "[NO FLOW]", "a [No Flow] b"])
def test_by_default_a_word_in_the_name_means_unchecked(name: str) -> None:
    verdict = judge(phone(friendly_name=name, voice_url="", sms_url=""), DEFAULT_RULES)
    assert (verdict.voice, verdict.sms, verdict.owner) == ("unchecked", "unchecked", "")
    assert judge(phone(friendly_name="no flow", voice_url=""), DEFAULT_RULES).voice == "missing"


@pytest.mark.parametrize(
    ("rule", "capable", "idle"),
    [
        ({}, "voice sms", 1),
        ({"voice": "none"}, "voice sms", 1),
        ({"voice": "none"}, "voice", 0),
        ({"voice": "none", "sms": "unchecked"}, "voice sms", 0),
        ({"voice": "unchecked", "sms": "unchecked"}, "", 0),
        ({"voice": "11", "sms": "none"}, "voice sms", 1),
    ],
)
def test_a_number_that_should_have_no_flow_is_not_idle(
    rule: dict[str, str], capable: str, idle: int
) -> None:
    number = phone(
        voice_url="",
        sms_url="",
        voice_capable="voice" in capable,
        sms_capable="sms" in capable,
    )
    [group] = snapshot(number, rules=number_rules({"sid": "*", **rule})).groups
    assert (group.idle, group.idle_rental) == (idle, {"INR": idle * Decimal(499)})
    assert group.unattached == {"voice": "voice" in capable, "sms": "sms" in capable}


def test_problems_are_summed_by_group_and_rules_by_label() -> None:
    rules = number_rules({"sid": "a*", "voice": "none", "name": "out"}, {"sid": "b"}, {"sid": "x"})
    found = snapshot(
        phone("a1"), phone("a2", sms_url=""), phone("b", voice_url=""), phone("c"), rules=rules
    )
    [group] = found.groups
    problems = {pair: count for pair, count in group.unexpected.items() if count}
    assert problems == {("voice", "unwanted"): 2, ("sms", "missing"): 1, ("voice", "missing"): 1}
    assert found.rule_matches == {"out": 2, "2": 1, "3": 0}


def test_a_number_that_did_not_change_is_not_judged_again() -> None:
    rules = number_rules({"sid": "*"})
    before = snapshot(phone("a"), phone("b"), phone("c"), rules=rules)
    after = snapshot(phone("c"), phone("b", sms_url=""), phone("d"), rules=rules, previous=before)
    assert after.verdicts[0] is before.verdicts[2]
    assert [verdict.sms for verdict in after.verdicts] == ["as_expected", "missing", "as_expected"]
    other = number_rules({"sid": "*", "voice": "none"})
    judged = after.judged_by(other)
    assert judged == snapshot(*after.numbers, rules=other)
    assert snapshot(*after.numbers, rules=other, previous=after).verdicts == judged.verdicts
    assert judged.judged_by(number_rules({"sid": "*", "voice": "none"})) is judged


@pytest.mark.fault(234)
def test_matches_are_known_when_every_account_that_a_rule_may_match_was_polled() -> None:
    rules = number_rules(
        {"sid": "b", "account": "two", "name": "two"}, {"sid": "a"}, {"sid": "x", "account": "one"}
    )
    accounts: list[Any] = []
    for name, polled in (("one", True), ("two", False)):
        own = rules.of_account(name)
        numbers = [phone("a"), phone("b"), phone("c")]
        found = snapshot(*numbers, rules=own) if polled else None
        accounts.append((account(name, rules=own), found))
    assert [*rule_matches(accounts).items()] == [("two", None), ("2", None), ("3", 0)]
    accounts[1] = (accounts[1][0], snapshot(phone("b"), phone("a"), rules=rules.of_account("two")))
    assert rule_matches(accounts) == {"two": 1, "2": 2, "3": 0}
    assert rule_matches([(account(), snapshot(phone()))]) == {}
