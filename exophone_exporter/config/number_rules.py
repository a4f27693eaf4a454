"""What each number should do: the rules of the section `numbers`, as checked records. Pure.

A rule matches by globs: `*` is any text, `?` is one character, everything else is itself. Brackets
are, too: people write them in names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MatchKey = Literal[
    "account", "sid", "phone_number", "friendly_name", "country", "region", "number_type"
]
# A word that stands alone, or flow ids and URLs.
Expectation: TypeAlias = tuple[str, ...]
ANY: Final[Expectation] = ("any",)
NONE: Final[Expectation] = ("none",)
UNCHECKED: Final[Expectation] = ("unchecked",)

# What a rule matches of a number; `account` is decided when the rules of an account are chosen.
_FIELDS: Final[tuple[MatchKey, ...]] = get_args(MatchKey)[1:]


@dataclass(frozen=True)
class NumberRule:
    """One rule: which numbers it applies to, what they should do, and who owns them.

    `label` is its name, or else its position from 1; "" for the rule that applies by default.
    """

    position: int
    label: str
    match: Mapping[MatchKey, tuple[str, ...]]
    voice: Expectation = ANY
    sms: Expectation = ANY
    owner: str = ""

    def may_match(self, account: str) -> bool:
        """Whether it can apply to numbers of this account."""
        return "account" not in self.match or matches_any(self.match["account"], account)


@dataclass(frozen=True)
class NumberRules:
    """The rules that can apply to numbers of one account, in their order."""

    rules: tuple[NumberRule, ...] = ()

    def first_match(self, fields: Iterable[str]) -> NumberRule | None:
        """The rule that applies to a number with these fields, in the order of MatchKey."""
        match = self._pattern.match("\n".join(fields) + "\n")
        return self.rules[match.lastindex - 1] if match and match.lastindex else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """All rules as one expression with a group each, over the fields as lines.

        One search for the first group that matches is 50 times as fast as a loop over the rules.
        """
        return re.compile("|".join(map(_pattern_of, self.rules)), re.IGNORECASE)


def matches_any(globs: Iterable[str], text: str) -> bool:
    """Whether one of the globs matches the whole text, in any case."""
    return re.fullmatch(_pattern_of_globs(globs), text, re.IGNORECASE) is not None


def _pattern_of(rule: NumberRule) -> str:
    lines = (
        f"{_pattern_of_globs(rule.match[key])}\n" if key in rule.match else ".*+\n"
        for key in _FIELDS
    )
    return f"({''.join(lines)})"


def _pattern_of_globs(globs: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(_pattern_of_glob, globs))})"


def _pattern_of_glob(glob: str) -> str:
    """What a glob matches. Each inner part is found once: trying others could take for ever."""
    first, *others = (
        "".join("." if character == "?" else re.escape(character) for character in part)
        for part in glob.split("*")
    )
    if not others:
        return first
    *inner, last = others
    return f"{first}{''.join(f'(?>.*?{part})' for part in inner)}.*{last}"


# Without a section `numbers`: a word in the name says that a number needs no flow.
DEFAULT_RULES: Final = NumberRules(
    (NumberRule(0, "", {"friendly_name": ("*[no flow]*",)}, UNCHECKED, UNCHECKED),)
)
