"""Secrets that cannot be shown by accident, and the places where they come from."""

from __future__ import annotations

import codecs
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from exophone_exporter.config.files import reason_of
from exophone_exporter.logs import fields

_log = logging.getLogger(__name__)

SECRET_FILE_MAX_BYTES: Final = 64 * 1024
_CONTROL_MAX: Final = 0x20
_DELETE: Final = "\x7f"


class Secret:
    """A value that repr, str, format and logging show as `<secret>`; only `reveal` gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; called in `client` only, which a test holds."""
        return self._value

    def key(self, purpose: bytes) -> bytes:
        """A key of 32 bytes for one purpose, which tells nothing about the value."""
        value = self._value.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(value, digest_size=32, person=purpose).digest()

    def looks_like(self, pattern: re.Pattern[str]) -> bool:
        """Whether the whole value matches."""
        return pattern.fullmatch(self._value) is not None

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not copied out of the process")


@dataclass(eq=False)
class SecretSource:  # noqa: PLW1641 - what changes has no hash
    """Where one secret comes from, and what it was when it was last loaded.

    `file` is None for a secret that cannot change while the process runs (a value, a variable). Two
    sources are equal if they have the same path, whatever was read there, or the same value.
    """

    loaded: Secret
    file: str | None = None
    read_file: Callable[[str, int], bytes] | None = None
    problem: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretSource) and self._written == other._written

    @property
    def _written(self) -> Secret | str:
        return self.file or self.loaded

    def current(self) -> Secret:
        """The secret now: a rotated file takes effect.

        One that cannot be read leaves the last secret, because a file that is being replaced can be
        gone or empty for a moment; `problem` says why, and the log when it begins.
        """
        if self.file is None or self.read_file is None:
            return self.loaded
        try:
            self.loaded = Secret(line_from_bytes(self.read_file(self.file, SECRET_FILE_MAX_BYTES)))
            problem = ""
        except (OSError, ValueError) as error:
            problem = f"{self.file}: {reason_of(error)}"
            if problem != self.problem:
                _log.warning(
                    "a secret file cannot be used, so the last secret is kept",
                    extra=fields(problem=problem),
                )
        self.problem = problem
        return self.loaded


@dataclass(frozen=True)
class Credentials:
    """The API key and token of one account."""

    api_key: SecretSource
    api_token: SecretSource

    @property
    def problems(self) -> str:
        """Which files could not be used when they were last read, and why."""
        return "; ".join(filter(None, (self.api_key.problem, self.api_token.problem)))


def line_from_bytes(content: bytes) -> str:
    """The one line in a file: UTF-8, without a byte order mark or the newline that editors add.

    A newline that is kept makes every request a silent 401. Raises like `line_from_text`.
    """
    # Not as a decoding error of Python, which contains the bytes; invalid values are refused below.
    text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return line_from_text(text.rstrip("\r\n"))


def line_from_text(text: str) -> str:
    """The text of a secret as it is; raises ValueError with advice, never with the text."""
    if not text.strip():
        raise ValueError("is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("is not UTF-8 text")
    if any(ord(character) < _CONTROL_MAX or character == _DELETE for character in text):
        raise ValueError("contains more than one line or a control character")
    if text != text.strip():
        raise ValueError("starts or ends with a space")
    return text
