"""What each number should do: the rules of the section `numbers`, as checked records. Pure.

A rule matches by globs: `*` is any text, `?` is one character, everything else is itself. Brackets
are, too: people write them in names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

MatchKey = Literal[
    "account", "sid", "phone_number", "friendly_name", "country", "region", "number_type"
]
# A word that stands alone, or flow ids and URLs.
Expectation: TypeAlias = tuple[str, ...]
ANY: Final[Expectation] = ("any",)
NONE: Final[Expectation] = ("none",)
UNCHECKED: Final[Expectation] = ("unchecked",)
WORDS: Final = (*ANY, *NONE, *UNCHECKED)

MATCH_KEYS: Final[tuple[MatchKey, ...]] = get_args(MatchKey)
# What is matched of a number; `account` is decided when the rules of an account are chosen.
NUMBER_KEYS: Final = MATCH_KEYS[1:]

# Source: the vendor's list of telecom circles. Outside India the region is the country's code.
CIRCLES: Final[Mapping[str, str]] = {
    "AP": "Andhra Pradesh",
    "AS": "Assam",
    "BR": "Bihar",
    "DL": "Delhi",
    "GJ": "Gujarat",
    "HP": "Himachal Pradesh",
    "HR": "Haryana",
    "JK": "Jammu and Kashmir",
    "KA": "Karnataka",
    "KL": "Kerala",
    "KO": "Kolkata",
    "MH": "Maharashtra",
    "MP": "Madhya Pradesh",
    "MU": "Mumbai",
    "NE": "North East",
    "OR": "Orissa",
    "PB": "Punjab",
    "RJ": "Rajasthan",
    "TN": "Tamil Nadu",
    "UE": "Uttar Pradesh East",
    "UW": "Uttar Pradesh West",
    "WB": "West Bengal",
}


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

    def hides(self, later: NumberRule) -> bool:
        """Whether it matches all that a later rule matches, as far as the globs show it."""
        return all(
            key in later.match and all(covers(glob.lower()) for glob in later.match[key])
            for key, covers in self._covers.items()
        )

    @cached_property
    def _covers(self) -> Mapping[MatchKey, Callable[[str], object]]:
        """By key, what matches a glob as text if one of the rule's own matches all that it does."""
        return {
            key: re.compile(_pattern_of_globs(globs, one="[^*]")).fullmatch
            for key, globs in self.match.items()
        }


@dataclass(frozen=True)
class NumberRules:
    """Rules in their order."""

    rules: tuple[NumberRule, ...] = ()

    def of_account(self, account: str) -> NumberRules:
        """Those that can apply to numbers of this account."""
        rules = tuple(
            rule for rule in self.rules if matches_any(rule.match.get("account", ["*"]), account)
        )
        return self if rules == self.rules else NumberRules(rules)

    def first_match(self, fields: Iterable[str]) -> NumberRule | None:
        """The rule that applies to a number of the account, by its NUMBER_KEYS."""
        match = self._pattern.match("\n".join((*fields, "")).lower())
        return self.rules[match.lastindex - 1] if match and match.lastindex else None

    def hidden(self) -> Iterator[tuple[NumberRule, NumberRule]]:
        """Each rule that never applies, as far as the globs show it, with one that hides it."""
        for at, rule in enumerate(self.rules):
            # A rule that hides it also matches its globs as text: most rules are the first to.
            if self.first_match(rule.match.get(key, ("",))[0] for key in NUMBER_KEYS) != rule:
                hiding = next((other for other in self.rules[:at] if other.hides(rule)), None)
                if hiding is not None:
                    yield rule, hiding

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """All rules as one expression with a group each, over the fields as lines.

        A rule costs 50 ns so. The group is at its end: it would keep `re` from comparing the first
        character of all rules together.
        """
        return re.compile("|".join(map(_pattern_of, self.rules)))


def matches_any(globs: Iterable[str], text: str) -> bool:
    """Whether one of the globs matches the whole text, in any case."""
    return re.fullmatch(_pattern_of_globs(globs), text.lower()) is not None


def _pattern_of(rule: NumberRule) -> str:
    used = [at for at, key in enumerate(NUMBER_KEYS, 1) if key in rule.match]
    lines = (
        f"{_pattern_of_globs(rule.match[key])}\n" if key in rule.match else ".*+\n"
        for key in NUMBER_KEYS[: max(used, default=0)]
    )
    return f"{''.join(lines)}()"


def _pattern_of_globs(globs: Iterable[str], one: str = ".") -> str:
    return f"(?:{'|'.join(_pattern_of_glob(glob.lower(), one) for glob in globs)})"


def _pattern_of_glob(glob: str, one: str) -> str:
    """What a glob matches, with `one` for its `?`.

    Of many inner parts, most are found at one place only: to try all could take for ever.
    """
    first, *others = (re.escape(part).replace(r"\?", one) for part in glob.split("*"))
    once, tried = others[:-2], others[-2:]
    return "".join([first, *(f"(?>.*?{part})" for part in once), *(f".*{part}" for part in tried)])


# Without a section `numbers`: a word in the name says that a number needs no flow.
DEFAULT_RULES: Final = NumberRules(
    (NumberRule(0, "", {"friendly_name": ("*[no flow]*",)}, UNCHECKED, UNCHECKED),)
)
