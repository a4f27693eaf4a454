"""Whether numbers do what the rules of the configuration expect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from exophone_exporter.config.number_rules import (
    ANY,
    NONE,
    NUMBER_KEYS,
    UNCHECKED,
    Expectation,
    NumberRule,
    NumberRules,
)
from exophone_exporter.exotel.model import CHANNELS, Channel, ExoPhone, flow_id

# No flow where one should be, another than expected, one where none should be.
Problem = Literal["missing", "wrong", "unwanted"]
PROBLEMS: Final[tuple[Problem, ...]] = get_args(Problem)
ChannelState: TypeAlias = Problem | Literal["as_expected", "unchecked", "unreadable", "incapable"]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What the rules say of one number: the rule that applies, and the state of each channel.

    Without a `rule`, a flow is expected on each channel that the number is capable of.
    """

    rule: NumberRule | None
    voice: ChannelState
    sms: ChannelState

    @property
    def owner(self) -> str:
        """Who owns the number; "" where no rule says so."""
        return self.rule.owner if self.rule else ""

    @property
    def has_problem(self) -> bool:
        """Whether one of the channels is not as expected."""
        return self.voice in PROBLEMS or self.sms in PROBLEMS

    def problem(self, channel: Channel) -> Problem | None:
        """What is wrong with the flow of the channel, if anything."""
        state = getattr(self, channel)
        return state if state in PROBLEMS else None

    @property
    def expects_no_flow(self) -> bool:
        """Whether a rule leaves every channel, of those it is capable of, without a flow."""
        capable = [channel for channel in CHANNELS if getattr(self, channel) != "incapable"]
        expected = [expectation(self.rule, channel) for channel in capable or CHANNELS]
        return all(each in (NONE, UNCHECKED) for each in expected)


# A number with its verdict.
Judged: TypeAlias = tuple[ExoPhone, Verdict]


def expectation(rule: NumberRule | None, channel: Channel) -> Expectation:
    """What a rule, or the lack of one, expects of a channel."""
    return ANY if rule is None else rule.voice if channel == "voice" else rule.sms


@cache
def expected_label(expected: Expectation) -> str:
    """What is expected where others can read it: `any`, `none`, `1 or external`.

    URLs are as in the ids of the flows that numbers have: they may have secrets in them.
    """
    ids = [flow_id(each) if "/" in each else each for each in expected]
    return " or ".join(dict.fromkeys(ids))


def judge(number: ExoPhone, rules: NumberRules) -> Verdict:
    """The verdict on one number by the rules of its account."""
    rule = rules.first_match(getattr(number, key) for key in NUMBER_KEYS)
    voice, sms = (_state(number, channel, expectation(rule, channel)) for channel in CHANNELS)
    return Verdict(rule, voice, sms)


def judge_all(
    numbers: Sequence[ExoPhone], rules: NumberRules, judged: Iterable[Judged]
) -> tuple[Verdict, ...]:
    """The verdict on each number; a number that was `judged` as it is now keeps its verdict."""
    known = {earlier[0].sid: earlier for earlier in judged}
    verdicts: list[Verdict] = []
    for number in numbers:
        earlier = known.get(number.sid)
        same = earlier is not None and earlier[0] == number
        verdicts.append(earlier[1] if earlier and same else judge(number, rules))
    return tuple(verdicts)


def _state(number: ExoPhone, channel: Channel, expected: Expectation) -> ChannelState:
    url = number.flow_url(channel)
    if not number.capable(channel):
        return "incapable"
    if expected == UNCHECKED:
        return "unchecked"
    if url is None:
        return "unreadable"
    if not url:
        return "as_expected" if expected == NONE else "missing"
    if expected == NONE:
        return "unwanted"
    fits = expected == ANY or url in expected or flow_id(url) in expected
    return "as_expected" if fits else "wrong"
