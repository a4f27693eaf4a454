"""Any numbers and any rules: one state for each channel, and sums that are those of the series."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exophone_exporter.config.number_rules import NumberRule, NumberRules
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.exotel.model import CHANNELS, ExoPhone
from exophone_exporter.inventory.expectations import PROBLEMS, judge
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.page import ExporterInfo
from tests.lib.exposed import assert_exposed, problem_of, rule_for
from tests.lib.support import FakeTime, account, found, phone, snapshot

OWN: Final = "https://bot.example/answer"
START: Final = "http://my.exotel.in/acme/exoml/start_voice/"
URLS: Final = st.sampled_from([None, "", OWN, f"{START}11", f"{START}12"])
# Few characters, so that globs and names meet.
NAMES: Final = st.text("aAb[.", max_size=4)
GLOBS: Final = st.lists(st.text("aAb[.*?", min_size=1, max_size=4), min_size=1, max_size=2)
REGIONS: Final = st.sampled_from(["KA", "MU"])
EXPECTATIONS: Final = st.one_of(
    st.sampled_from([("any",), ("none",), ("unchecked",)]),
    st.lists(st.sampled_from(["11", "12", OWN]), min_size=1, max_size=2).map(tuple),
)
NUMBERS: Final = st.lists(
    st.builds(
        phone,
        sid=st.sampled_from("abcdefgh"),
        friendly_name=NAMES,
        region=REGIONS,
        voice_url=URLS,
        sms_url=URLS,
        voice_capable=st.booleans(),
        sms_capable=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda number: number.sid,
)
MATCHES: Final = st.fixed_dictionaries(
    {},
    optional={
        "sid": GLOBS.map(tuple),
        "friendly_name": GLOBS.map(tuple),
        "region": st.lists(REGIONS, min_size=1, max_size=2).map(tuple),
    },
).filter(bool)
RULES: Final = st.lists(
    st.builds(
        lambda match, voice, sms, owner: (match, voice, sms, owner),
        MATCHES,
        EXPECTATIONS,
        EXPECTATIONS,
        st.sampled_from(["", "south", 'a "b"\\']),
    ),
    max_size=5,
).map(
    lambda made: NumberRules(
        tuple(NumberRule(at, str(at), *each) for at, each in enumerate(made, 1))
    )
)


@given(NUMBERS, RULES, st.sampled_from(["all", "unattached", "none"]), st.integers(0, 8))
def test_series_and_sums_are_those_of_rules_that_are_tried_one_by_one(
    numbers: list[ExoPhone], rules: NumberRules, series: str, limit: int
) -> None:
    time = FakeTime()
    per_number = PerNumber(series, limit, "last4")  # type: ignore[arg-type]  # a word is a str
    judging = account(rules=rules, per_number=per_number)
    state = AccountState(judging)
    state.record_poll(found(time.clock.now(), *numbers))
    assert_exposed([state.status()], ExporterInfo("r", 0.0), time.clock)
    shown = state.snapshot
    assert shown is not None
    for channel in CHANNELS:
        problems = Counter(problem_of(number, judging, channel) for number in numbers)
        for problem in PROBLEMS:
            total = sum(group.unexpected[channel, problem] for group in shown.groups)
            assert total == problems[problem]
    affected = sum(
        any(problem_of(number, judging, channel) in PROBLEMS for channel in CHANNELS)
        for number in numbers
    )
    assert sum(group.problems for group in shown.groups) == affected
    without = sum(rule_for(number, judging) is None for number in numbers)
    assert sum(shown.rule_matches.values()) + without == len(numbers)


@given(NUMBERS, NUMBERS, RULES, RULES)
def test_what_was_judged_before_or_by_other_rules_makes_no_difference(
    before: list[ExoPhone], after: list[ExoPhone], rules: NumberRules, others: NumberRules
) -> None:
    earlier, expected = snapshot(*before, rules=rules), snapshot(*after, rules=rules)
    assert snapshot(*after, rules=rules, previous=earlier) == expected
    assert snapshot(*after, rules=others, previous=earlier).judged_by(rules) == expected


@pytest.mark.fault(233)
@given(NUMBERS, RULES, st.data())
def test_only_the_order_of_the_rules_that_match_a_number_matters(
    numbers: list[ExoPhone], rules: NumberRules, data: st.DataObject
) -> None:
    """Those that do not match it may be anywhere, and so may those behind the first that does."""
    assume(numbers)
    number = data.draw(st.sampled_from(numbers))
    first = judge(number, rules).rule
    at = rules.rules.index(first) if first else len(rules.rules)
    front = data.draw(st.permutations(rules.rules[:at]))
    behind = data.draw(st.permutations(rules.rules[at + 1 :]))
    moved = NumberRules((*front, *([first] if first else []), *behind))
    assert judge(number, moved) == judge(number, rules)


@pytest.mark.fault(236)
@given(NUMBERS, RULES)
def test_a_hidden_rule_applies_to_no_number(numbers: list[ExoPhone], rules: NumberRules) -> None:
    verdicts = [judge(number, rules) for number in numbers]
    hidden = [rule for rule, _ in rules.hidden()]
    pairs = enumerate(rules.rules)
    assert hidden == [rule for at, rule in pairs if any(r.hides(rule) for r in rules.rules[:at])]
    assert all(verdict.rule not in hidden for verdict in verdicts)
