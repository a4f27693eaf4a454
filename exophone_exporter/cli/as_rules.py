"""`numbers --as-rules`: rules that expect of each number what it does today, as a start. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
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
_States: TypeAlias = Mapping[str, _State]  # by sid

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
    glob: str
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
    checked = [number for number in numbers if states[number.sid] != _UNCERTAIN]
    by_name = _grouped(_plan(checked, states, 0, 0, _UNCERTAIN)[1])
    rules = NumberRules(
        tuple(
            NumberRule(
                0, "", {"friendly_name": tuple(each.glob for each in globs)}, *globs[0].state
            )
            for globs in by_name
        )
    )
    phones = Counter(number.phone_number for number in numbers)
    single = []
    for number in checked:
        rule = judge(number, rules).rule
        if rule is None or (rule.voice, rule.sms) != states[number.sid]:
            single.append(_single(number, phones, states[number.sid]))
    return [*_grouped(single), *by_name]


def _states(numbers: Iterable[ExoPhone]) -> _States:
    """The state of each number; where a channel is uncertain, that of most numbers like it."""
    known = {n.sid: (_expectation(n, "voice"), _expectation(n, "sms")) for n in numbers}
    common = [state for state, _ in Counter(known.values()).most_common() if ANY not in state]
    return {
        sid: next((each for each in common if _agree(each, state)), state)
        if state != _UNCERTAIN
        else state
        for sid, state in known.items()
    }


def _agree(state: _State, partial: _State) -> bool:
    return all(mine in (ANY, other) for other, mine in zip(state, partial, strict=True))


def _expectation(number: ExoPhone, channel: Channel) -> Expectation:
    url = number.flow_url(channel)
    if url is None or not number.capable(channel):
        return ANY
    flows = (number.flow_id(channel), url) if url else ()
    return next(((flow,) for flow in flows if FLOW.fullmatch(flow)), UNCHECKED if url else NONE)


def _plan(
    numbers: Sequence[ExoPhone], states: _States, depth: int, level: int, expected: _State
) -> tuple[int, list[_Glob]]:
    """The globs that leave the fewest entries to write, and how many these are.

    The names of the numbers agree in the first `depth` words, and `expected` is the state by a
    shorter glob.
    """
    if all(states[number.sid] == expected for number in numbers):
        return 0, []
    without = _split(numbers, states, depth, level, expected)
    if depth == 0:
        return without
    state = Counter(states[number.sid] for number in numbers).most_common(1)[0][0]
    entries, deeper = _split(numbers, states, depth, level + 1, state)
    glob = _Glob(level, "friendly_name", _globs(numbers[0])[depth - 1], state)
    return min(without, (entries + 1, [glob, *deeper]), key=itemgetter(0))


def _split(
    numbers: Iterable[ExoPhone], states: _States, depth: int, level: int, expected: _State
) -> tuple[int, list[_Glob]]:
    """The same for each next word of the names; without one, a number is an entry of its own."""
    entries, globs = 0, list[_Glob]()
    by_word: defaultdict[str, list[ExoPhone]] = defaultdict(list)
    for number in numbers:
        if depth < len(_globs(number)):
            by_word[_globs(number)[depth].lower()].append(number)
        else:
            entries += states[number.sid] != expected
    for together in by_word.values():
        more, found = _plan(together, states, depth + 1, level, expected)
        entries += more
        globs += found
    return entries, globs


def _globs(number: ExoPhone) -> list[str]:
    """The globs that match the name of a number, the widest first and itself last."""
    name = number.friendly_name
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
