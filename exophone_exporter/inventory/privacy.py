"""How a phone number is shown where others can read it: metrics, logs, the status page."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from html import unescape
from typing import Final
from urllib.parse import quote, unquote

from msgspec.structs import replace

from exophone_exporter.config.schema import PhoneNumber
from exophone_exporter.exotel.model import ExoPhone

# Six digits or more, however people set them apart; the vendor's own masks have an X for a digit.
_LIKE_A_NUMBER: Final = re.compile(r"\+?\(?[\dX](?:[\s().+/\u2010-\u2015-]*[\dX]){5,}\)?")
_NO_DIGITS: Final = re.compile(r"[^0-9]+")
_LAST: Final = 4
# =39 of e-mail, \x39 and \u0039 of programs.
_ESCAPED: Final = re.compile(r"(?:=|\\x|\\u(?:00|\{0*))([0-9a-f]{2})\}?", re.IGNORECASE)
# Before a number: +91, 0, 00, or +91 (0).
_PREFIX: Final = re.compile(r"(?<!\w)(?:(?:\+\s?\d{1,3}|\(?0{1,2}\)?)[\s().-]*)+$")
_FOUR_DIGITS: Final = re.compile(r"(?<!\d)\d{4}(?!\d)")
# So many digits in a row tell a number from the others: in a sid, many digits of which may be
# random, and in a name.
_TELLING_SID: Final = 6
_TELLING_NAME: Final = 5


def masked_identity(number: ExoPhone, setting: PhoneNumber, key: bytes) -> ExoPhone:
    """The number with its names as they may be shown under `per_number.phone_number`.

    A sid or a friendly name can be the number itself or contain it, so both are masked. Such a sid
    becomes a pseudonym, made with `key`: series stay apart and join across restarts, and without
    the key nobody can try which number it is.
    """
    if setting == "full":
        return number
    own = _digits(number.phone_number)
    is_number = _tells_the_number(number.sid, own)
    digits = (own, _digits(number.sid) if is_number else "")
    return replace(
        number,
        sid=_pseudonym(number, key) if is_number else number.sid,
        phone_number=_masked(number.phone_number, setting),
        friendly_name=_masked_name(number.friendly_name, digits, setting),
    )


def _digits(text: str) -> str:
    """The digits of a text, whatever is between them, of any script: ASCII ones."""
    if text.isascii():
        return _NO_DIGITS.sub("", text)
    return "".join(map(_digit, unicodedata.normalize("NFKC", text)))


def _digit(character: str) -> str:
    value = unicodedata.numeric(character, -1)
    return f"{value:.0f}" if value in range(10) else ""


def _tells_the_number(sid: str, own: str) -> bool:
    forms = (sid, _decoded(sid))
    return bool(
        _LIKE_A_NUMBER.fullmatch(sid.strip())
        or any(_shared(_digits(form), own, _TELLING_SID) for form in forms)
    )


def _decoded(text: str) -> str:
    """A text without the escapes of URLs, HTML, e-mail and programs, also one within another."""
    plain = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    plain = unescape(unquote(plain))
    return text if plain == text else _decoded(plain)


def _shared(digits: str, own: str, length: int) -> set[int]:
    """The places in `digits` that belong to so many digits in a row of a number."""
    begins = [
        begin for begin in range(len(digits) - length + 1) if digits[begin : begin + length] in own
    ]
    return {begin + place for begin in begins for place in range(length)}


def _masked_name(name: str, own: Sequence[str], setting: PhoneNumber) -> str:
    """A name without the digits of its number, however they are written."""
    shown, digits = unicodedata.normalize("NFKC", name), _digits(name)
    if not digits:
        return name.strip()
    decoded = _digits(_decoded(shown))
    if decoded != digits and any(_shared(decoded, each, _TELLING_NAME) for each in own):
        return ""
    spans = _spans_of_number(shown, own, setting)
    for begin, end in reversed(spans):
        shown = shown[:begin] + _masked_own(shown[begin:end], own, setting) + shown[end:]
    masked = shown if spans else name
    masked = _LIKE_A_NUMBER.sub(lambda match: _masked(match.group(), setting) or " ", masked)
    return " ".join(masked.split()) if setting == "hidden" else masked.strip()


def _masked_own(text: str, own: Sequence[str], setting: PhoneNumber) -> str:
    """What a name shows of a part of its number: the last four digits if they are the number's."""
    if setting == "hidden":
        return " "
    masked = _masked(text, setting)
    return masked if any(each.endswith(masked[1:]) for each in own) else masked[:1]


def _spans_of_number(
    text: str, own: Sequence[str], setting: PhoneNumber
) -> Sequence[tuple[int, int]]:
    """From where to where in a text there are digits of the number."""
    at = [place for place, character in enumerate(text) if _digit(character)]
    digits = _digits(text)
    shared = set[int]().union(*(_shared(digits, each, _TELLING_NAME) for each in own))
    hidden = [each if setting == "hidden" else each[:-1] for each in own]
    shared |= {
        at.index(group.start()) + place
        for group in _FOUR_DIGITS.finditer(text)
        if any(_digits(group.group()) in each for each in hidden)
        for place in range(_LAST)
    }
    spans: list[tuple[int, int]] = []
    for place in sorted(shared):
        if spans and place - 1 in shared:
            spans[-1] = spans[-1][0], at[place] + 1
        else:
            spans.append((at[place], at[place] + 1))
    return [_widened(text, *span) for span in spans]


def _widened(text: str, begin: int, end: int) -> tuple[int, int]:
    """A span with what sticks to it: a prefix, brackets, separators, the vendor's own mask."""
    while begin > 0 and _sticks(text[begin - 1]):
        begin -= 1
    if prefix := _PREFIX.search(text, 0, begin):
        begin = prefix.start()
    while end < len(text) and _sticks(text[end]):
        end += 1
    return begin, end


def _sticks(character: str) -> bool:
    return character == "X" or not (character.isalpha() or character.isspace())


def _masked(text: str, setting: PhoneNumber) -> str:
    if not text or setting == "hidden":
        return ""
    left = [_digit(each) or ("X" if each == "X" else "") for each in text]
    return f"…{''.join(left)[-_LAST:]}"


def _pseudonym(number: ExoPhone, key: bytes) -> str:
    # Quoted, so that no two pairs read the same; an account's sid as the API gives it stays so.
    account = quote(number.account_sid, safe="")
    name = f"{account}/{number.sid}".encode()
    return f"number-{hashlib.blake2b(name, key=key, digest_size=6).hexdigest()}"
