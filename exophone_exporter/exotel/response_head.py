"""The head of a response, without what http.client or urllib3 would trip over. Pure.

To http.client a malformed header line is the end of the head: it hides the lines after it, such as
Content-Length or Retry-After.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REPEATED_LENGTH: Final = re.compile(rb"([0-9]+)(?:\s*,\s*\1)*")


def readable_head(lines: Iterable[bytes]) -> bytes:
    """The header lines that have a meaning, each on one line, up to and with the empty line."""
    fields: list[tuple[bytes, bytes]] = []
    name, value = b"", b""
    for line in (*lines, b""):
        if line[:1] in (b" ", b"\t"):  # the line before goes on
            value += b" " + line.strip()
            continue
        if _NAME.fullmatch(name) and (plain := _plain_value(name.lower(), value)):
            fields.append((name, plain))
        name, _, value = (part.strip(b" \t\r\n") for part in line.partition(b":"))
    return b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"


def _plain_value(name: bytes, value: bytes) -> bytes:
    value = value.strip().replace(b"\r", b" ")
    if name == b"content-length" and (match := _REPEATED_LENGTH.fullmatch(value)):
        return match.group(1)
    if name == b"content-encoding":
        codings = (coding.strip().lower() for coding in value.split(b","))
        applied = [coding for coding in codings if coding not in (b"", b"identity")]
        return b", ".join(b"gzip" if coding == b"x-gzip" else coding for coding in applied)
    return value
