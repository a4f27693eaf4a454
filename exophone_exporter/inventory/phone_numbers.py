"""Phone numbers as people write them, and the numbers of a list that they mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from exophone_exporter.exotel.model import ExoPhone

# What sets digits apart, hyphens and marks included that come along from a page.
_BETWEEN: Final = r"[\s().\-/\u200e\u2010-\u2015\u202a-\u202c]*"
_WRITTEN: Final = re.compile(rf"{_BETWEEN}\+?(?:{_BETWEEN}[0-9]){{7,17}}{_BETWEEN}")
_LONGEST: Final = 50
_NOT_DIGITS: Final = re.compile(r"[^0-9]+")
# As the ITU assigned them: no code begins with another one.
_COUNTRY_CODE: Final = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|[0-9]{0,3}"
)
_LAST: Final = 2


def is_phone_number(text: str) -> bool:
    """Whether a text reads as a phone number; the sid of a number may read so, too."""
    return len(text) <= _LONGEST and _WRITTEN.fullmatch(text) is not None


def numbers_called(text: str, numbers: Iterable[ExoPhone]) -> list[ExoPhone]:
    """The numbers that a text means: the one with this sid, or else all with this phone number.

    It may be written with its country code, or without, and then with a 0 in front or not.
    """
    digits = _digits(text)
    near = [n for n in numbers if n.sid == text or n.phone_number.endswith(digits[-_LAST:])]
    asked = _readings(text)
    return [number for number in near if number.sid == text] or [
        number for number in near if _agree(asked, _readings(number.phone_number))
    ]


def _agree(asked: set[tuple[str, str]], known: set[tuple[str, str]]) -> bool:
    """Whether both may be one number: a country code that was left out may be any."""
    return any(
        national == other and (code == theirs or "" in (code, theirs))
        for code, national in asked
        for theirs, other in known
    )


def _readings(text: str) -> set[tuple[str, str]]:
    """What a text may be: a country code, "" where it was left out, and a national number."""
    digits = _digits(text)
    international = digits.removeprefix("00")
    if "+" in text or international != digits:
        return {_split(international)}
    local = ("", digits.removeprefix("0"))
    return {local} if digits.startswith("0") else {local, _split(digits)}


def _split(digits: str) -> tuple[str, str]:
    """The country code, and the rest without the 0 that is only dialled within the country."""
    code = _COUNTRY_CODE.findall(digits)[0]
    return code, digits.removeprefix(code).removeprefix("0")


def _digits(text: str) -> str:
    return _NOT_DIGITS.sub("", text)
