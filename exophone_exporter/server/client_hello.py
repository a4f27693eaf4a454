"""What a TLS client offers, read before OpenSSL sees it. Pure.

OpenSSL computes the shared key as soon as it has read the hello, for any group that it knows: one
hello with a key for ffdhe8192 takes 0.2 seconds. So the server chooses the group first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

# With its record headers; a hello with a session ticket has about 3 KiB.
HELLO_MAX_BYTES: Final = 16 * 1024
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_RECORD_HEADER: Final = struct.Struct(">BHH")
_MESSAGE_HEADER_BYTES: Final = 4
_VERSION_AND_RANDOM_BYTES: Final = 2 + 32
_SUPPORTED_GROUPS: Final = 10
_KEY_SHARE: Final = 51
_HTTP: Final = re.compile(rb"[A-Z]{1,15} ")
_BEGINNING_OF_HTTP: Final = re.compile(rb"[A-Z]{0,15}")


# The numbers of the groups for the key exchange that a client supports, and of those that it sent a
# key for.
Offer: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


class HelloReader:
    """Collects a hello, however it is cut into records and segments; `received` is all of it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._record_at = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> Offer | None:
        """What the hello offers, or None while it is not complete and may still become one.

        A malformed one offers nothing: OpenSSL reads it too, and says what is wrong.
        """
        self.received += data
        if _BEGINNING_OF_HTTP.fullmatch(self.received):
            return None
        try:
            self._collect()
            return self._parsed()
        except (ValueError, IndexError, struct.error):
            return (), ()

    @property
    def is_http(self) -> bool:
        """Whether the client sent a plain HTTP request."""
        return _HTTP.match(self.received) is not None

    def _collect(self) -> None:
        """Append the content of the records that are complete to the message."""
        while len(self.received) - self._record_at >= _RECORD_HEADER.size:
            kind, _, length = _RECORD_HEADER.unpack_from(self.received, self._record_at)
            begin = self._record_at + _RECORD_HEADER.size
            if kind != _HANDSHAKE or begin + length > HELLO_MAX_BYTES:
                raise ValueError
            if begin + length > len(self.received):
                return
            self._message += self.received[begin : begin + length]
            self._record_at = begin + length

    def _parsed(self) -> Offer | None:
        if len(self._message) < _MESSAGE_HEADER_BYTES:
            return None
        length = int.from_bytes(self._message[1:_MESSAGE_HEADER_BYTES])
        if self._message[0] != _CLIENT_HELLO or length > HELLO_MAX_BYTES:
            raise ValueError
        if len(self._message) < _MESSAGE_HEADER_BYTES + length:
            return None
        extensions = dict(_extensions(bytes(self._message[_MESSAGE_HEADER_BYTES:][:length])))
        groups, _ = _vector(extensions.get(_SUPPORTED_GROUPS, b"\0\0"), 0, 2)
        shares, _ = _vector(extensions.get(_KEY_SHARE, b"\0\0"), 0, 2)
        supported = struct.unpack(f">{len(groups) // 2}H", groups)
        return supported, tuple(group for group, _ in _entries(shares))


def _extensions(hello: bytes) -> Iterator[tuple[int, bytes]]:
    at = _VERSION_AND_RANDOM_BYTES
    for length_bytes in (1, 2, 1):  # the session, the cipher suites, the compressions
        _, at = _vector(hello, at, length_bytes)
    content, _ = _vector(hello, at, 2)
    return _entries(content)


def _entries(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Pairs of a number and a vector, one after the other."""
    at = 0
    while at < len(content):
        (number,) = struct.unpack_from(">H", content, at)
        value, at = _vector(content, at + 2, 2)
        yield number, value


def _vector(content: bytes, at: int, length_bytes: int) -> tuple[bytes, int]:
    """The bytes behind their length, and where they end."""
    begin = at + length_bytes
    end = begin + int.from_bytes(content[at:begin])
    if end > len(content):
        raise ValueError
    return content[begin:end], end
