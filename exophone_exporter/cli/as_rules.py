"""`numbers --as-rules`: rules that expect of each number what it does today, as a start. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from exophone_exporter.config.number_rules import (
    ANY,
    NONE,
    UNCHECKED,
    WORDS,
    Expectation,
    MatchKey,
    NumberRule,
    NumberRules,
)
from exophone_exporter.config.schema import FLOW
from exophone_exporter.exotel.model import CHANNELS, Channel, ExoPhone
from exophone_exporter.inventory.expectations import judge

# What is expected of voice and SMS: ANY of a channel that no rule can find wrong.
_State: TypeAlias = tuple[Expectation, Expectation]

_UNCERTAIN: Final[_State] = (ANY, ANY)
# A glob of names ends where one of their first words ends.
_WORD_END: Final = re.compile(r"[\s_\-/.:|]")
_WORDS_MAX: Final = 4
_PHONE: Final = re.compile(r"\+?[0-9]+", re.ASCII)
_NOT_IN_YAML: Final = re.compile(r"[\x7f-\x9f\ufffe\uffff]")
_HEAD: Final = """\
# What each number does today. The first rule that matches a number applies.
# Put globs in place of lists where you can, add `owner: NAME`, and change what
# should not stay as it is.
numbers:
"""


class _Glob(NamedTuple):
    """Numbers of one state. Those of a higher level are exceptions from those of a lower one."""

    level: int
    key: MatchKey
    text: str
    state: _State
    comment: str = ""


def rules_text(listed: Mapping[str, Sequence[ExoPhone]], *, name_accounts: bool) -> str:
    """A section `numbers` of the configuration, for the numbers of each account by its name.

    Without numbers it is a comment: an empty section is an error.
    """
    texts = [
        _rule_text(globs, account if name_accounts else "")
        for account, numbers in listed.items()
        for globs in _rules(numbers)
    ]
    return _HEAD + "".join(texts) if texts else "# No rule is needed.\n"


def _rules(numbers: Sequence[ExoPhone]) -> list[list[_Glob]]:
    """The globs of each rule: single numbers first, as they are exceptions from the names."""
    states = _states(numbers)
    certain = [number for number in numbers if number.sid in states]
    by_name = _grouped(_globs_of_names(certain, states))
    rules = NumberRules(
        tuple(
            NumberRule(
                0, "", {"friendly_name": tuple(each.text for each in globs)}, *globs[0].state
            )
            for globs in by_name
        )
    )
    phones = Counter(number.phone_number for number in numbers)
    single = []
    for number in certain:
        rule = judge(number, rules).rule
        if rule is None or (rule.voice, rule.sms) != states[number.sid]:
            single.append(_single(number, phones, states[number.sid]))
    return [*_grouped(single), *by_name]


def _states(numbers: Iterable[ExoPhone]) -> Mapping[str, _State]:
    """The state of each number, by sid, but of those where both channels are uncertain.

    Where one is, it is as for most numbers with the same other channel.
    """
    known = {n.sid: (_expectation(n, "voice"), _expectation(n, "sms")) for n in numbers}
    common = [state for state, _ in Counter(known.values()).most_common() if ANY not in state]
    return {
        sid: next((each for each in common if _agree(each, state)), state)
        for sid, state in known.items()
        if state != _UNCERTAIN
    }


def _agree(state: _State, partial: _State) -> bool:
    return all(mine in (ANY, other) for other, mine in zip(state, partial, strict=True))


def _expectation(number: ExoPhone, channel: Channel) -> Expectation:
    url = number.flow_url(channel)
    if url is None or not number.capable(channel):
        return ANY
    flows = (number.flow_id(channel), url) if url else ()
    return next(((flow,) for flow in flows if FLOW.fullmatch(flow)), UNCHECKED if url else NONE)


def _globs_of_names(numbers: Sequence[ExoPhone], states: Mapping[str, _State]) -> list[_Glob]:
    """The globs that are shorter than a list of their numbers, from the widest to the narrowest."""
    globs: list[_Glob] = []
    covered = dict.fromkeys(states, (0, _UNCERTAIN))  # by how many globs, and the state by the last
    for words in range(_WORDS_MAX + 1):
        alike: defaultdict[str, list[ExoPhone]] = defaultdict(list)
        for number in numbers:
            for text in _prefixes(number.friendly_name)[words : words + 1]:
                alike[text.lower()].append(number)
        for together in alike.values():
            level, before = covered[together[0].sid]
            counts = Counter(states[number.sid] for number in together)
            state, count = counts.most_common(1)[0]
            if count - counts[before] > 1:
                text = _prefixes(together[0].friendly_name)[words]
                globs.append(_Glob(level, "friendly_name", text, state))
                covered.update((number.sid, (level + 1, state)) for number in together)
    return globs


def _prefixes(name: str) -> list[str]:
    """The globs that match a name, the widest first and itself last."""
    ends = [match.end() for match in _WORD_END.finditer(name)][:_WORDS_MAX]
    return [*(f"{name[:end]}*" for end in ends), *([name] if name else [])]


def _single(number: ExoPhone, phones: Mapping[str, int], state: _State) -> _Glob:
    """A glob of one number only: its phone number, or its sid where that is not certain."""
    phone = number.phone_number
    if _PHONE.fullmatch(phone) and phones[phone] == 1:
        return _Glob(0, "phone_number", phone, state, number.friendly_name)
    sid = number.sid.replace("*", "?")
    # After those with fewer wildcards, which it may match, too.
    return _Glob(-sid.count("?"), "sid", sid, state, number.friendly_name)


def _grouped(globs: Iterable[_Glob]) -> list[list[_Glob]]:
    """The globs of each rule, those of the highest level first."""
    groups: defaultdict[tuple[int, str, _State], list[_Glob]] = defaultdict(list)
    for glob in globs:
        groups[-glob.level, glob.key, glob.state].append(glob)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def _rule_text(globs: Sequence[_Glob], account: str) -> str:
    lines = [f"      account: {_quoted(account)}"] if account else []
    lines.append(f"      {globs[0].key}:")
    for _, _, glob, _, comment in globs:
        lines.append(f"        - {_quoted(glob)}{f'  # {_printable(comment)}' if comment else ''}")
    lines += [
        f"    {channel}: {flow if flow.isdigit() or flow in WORDS else _quoted(flow)}"
        for channel, (flow,) in zip(CHANNELS, globs[0].state, strict=True)
        if (flow,) != ANY
    ]
    return "\n".join(["  - match:", *lines, ""])


def _quoted(text: str) -> str:
    """A text that YAML reads as it is."""
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
