"""How a phone number is shown where others can read it: metrics, logs, the status page."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exophone_exporter.config.schema import PhoneNumber
    from exophone_exporter.exotel.model import ExoPhone

# Six digits or more, however people set them apart; the vendor's own masks have an X for a digit.
_LIKE_A_NUMBER: Final = re.compile(r"\+?\(?[\dX](?:[\s().+/\u2010-\u2015-]*[\dX]){5,}\)?")
_SEPARATORS: Final = re.compile(r"[\s().+/\u2010-\u2015-]+")
_LAST = 4
# So many digits at the end of a number tell it from the others of an account.
_TELLING = 6


class Identity(Protocol):
    """The names of a number; an ExoPhone has them as they are."""

    @property
    def sid(self) -> str:
        """What tells the number from the others of its account."""
        ...

    @property
    def phone_number(self) -> str:
        """What is dialled."""
        ...

    @property
    def friendly_name(self) -> str:
        """What people call it."""
        ...


@dataclass(frozen=True, slots=True)
class MaskedIdentity:
    """The names of a number, as far as they may be shown."""

    sid: str
    phone_number: str
    friendly_name: str


def masked_identity(number: ExoPhone, setting: PhoneNumber) -> MaskedIdentity:
    """The names of a number under `per_number.phone_number`.

    A sid or a friendly name can be the number itself or hold it, so both are covered. Such a sid
    becomes a pseudonym: series stay apart and join across restarts, yet nobody reads the number
    off them.
    """
    if setting == "full":
        return MaskedIdentity(number.sid, number.phone_number, number.friendly_name)
    return MaskedIdentity(
        sid=_pseudonym(number) if _tells_the_number(number) else number.sid,
        phone_number=_masked(number.phone_number, setting),
        friendly_name=_LIKE_A_NUMBER.sub(
            lambda match: _masked(match.group(), setting), number.friendly_name
        ).strip(),
    )


def masked_identities(numbers: Sequence[ExoPhone], setting: PhoneNumber) -> Sequence[Identity]:
    """The names of many numbers; where all may be shown, they are the numbers' own."""
    return (
        numbers if setting == "full" else [masked_identity(number, setting) for number in numbers]
    )


def _tells_the_number(number: ExoPhone) -> bool:
    if _LIKE_A_NUMBER.fullmatch(number.sid.strip()):
        return True
    tail = _SEPARATORS.sub("", number.phone_number)[-_TELLING:]
    return len(tail) == _TELLING and tail in _SEPARATORS.sub("", number.sid)


def _masked(text: str, setting: PhoneNumber) -> str:
    if not text or setting == "hidden":
        return ""
    return f"…{_SEPARATORS.sub('', text)[-_LAST:]}"


def _pseudonym(number: ExoPhone) -> str:
    # Quoted, so that no two pairs read the same; an account's sid as the API gives it stays so.
    account = quote(number.account_sid, safe="")
    digest = hashlib.blake2b(f"{account}/{number.sid}".encode(), digest_size=6)
    return f"number-{digest.hexdigest()}"
