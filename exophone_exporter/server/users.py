"""What the web configuration requires of every request, around an application."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import bcrypt
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exophone_exporter.clock import Clock
from exophone_exporter.server.refusals import RefusedClients
from exophone_exporter.server.web_config import PasswordHash, RateLimit, WebConfig
from exophone_exporter.threads import in_thread

Check = Callable[[bytes, bytes], bool]
Keys = OrderedDict[bytes, None]

_SCHEME: Final = b"basic "
# As strict as Go's decoder; binascii accepts too much padding.
_BASE64: Final = re.compile(
    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII
)
# bcrypt reads no further. Go's ignores the rest of a longer password; Python's raises.
_PASSWORD_MAX_BYTES: Final = 72
# The end of a hash of an unknown password.
_UNKNOWN_SALT_AND_HASH: Final = b"fS3vYwWZr1cGq5uLk8tBn." + b"." * 31
_UNAUTHORIZED: Final = PlainTextResponse(
    "Unauthorized\n", status_code=401, headers={"WWW-Authenticate": 'Basic realm="exporter"'}
)
_TOO_MANY_LOGINS: Final = PlainTextResponse(
    "Too many logins are being checked, try again later.\n",
    status_code=503,
    headers={"Retry-After": "1"},
)
_TOO_MANY_REQUESTS: Final = PlainTextResponse("Too Many Requests\n", status_code=429)
_THREADS: Final = 2
_REMEMBERED_MAX: Final = 100


def check_password(password: bytes, encoded: bytes) -> bool:
    """Whether a password belongs to a bcrypt hash; takes long on purpose."""
    return bcrypt.checkpw(password[:_PASSWORD_MAX_BYTES], encoded)


class _Line(asyncio.Lock):
    """Lets one login of a network after the other be checked; `waiting` counts them."""

    waiting = 0


@dataclass(eq=False, repr=False)
class Guard:
    """Passes those requests on that the web configuration of the moment allows.

    Every answer gets the configured headers, except those that it has already. Requests beyond the
    rate limit, from any client, are answered with 429, then those without a user's name and
    password with 401. Without users every request passes.

    Logins are checked in a few threads, one at a time for each network, and networks take turns.
    The networks that wait share `waiting_max` places equally; beyond its share, a network's login
    gets 503.
    """

    _app: ASGIApp
    _current: Callable[[], WebConfig]
    _refused: RefusedClients
    _clock: Clock
    check: Check = check_password
    waiting_max: int = 64

    def __post_init__(self) -> None:
        self._limit: RateLimit | None = None
        self._tokens = self._counted_at = 0.0
        self._threads = asyncio.Semaphore(_THREADS)
        self._secret = secrets.token_bytes(32)
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._lines: dict[str, _Line] = {}
        # Wrong and right ones apart: a flood of wrong passwords does not displace the right ones.
        self._recent: tuple[Keys, Keys] = (OrderedDict(), OrderedDict())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI asks for it."""
        config = self._current()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                missing = [pair for pair in header_lines(config) if pair[0] not in names]
                message = {**message, "headers": [*message["headers"], *missing]}
            await send(message)

        refusal = await self._refusal(config, scope, receive)
        await (refusal or self._app)(scope, receive, send_with_headers)

    async def _refusal(
        self, config: WebConfig, scope: Scope, receive: Receive
    ) -> PlainTextResponse | None:
        """The answer to a request that may not pass, None if it may."""
        if config.rate_limit and not self._take_token(config.rate_limit):
            self._refused.note("rate_limit", scope["client"])
            return _TOO_MANY_REQUESTS
        return await self._login_refusal(config.users, scope, receive) if config.users else None

    def _take_token(self, limit: RateLimit) -> bool:
        """Take a token of a bucket as in exporter-toolkit; another limit begins with a full one."""
        now = self._clock.monotonic()
        if limit != self._limit:
            self._limit, self._tokens, self._counted_at = limit, limit.burst, now
        earned = (now - self._counted_at) / limit.interval
        self._tokens = min(limit.burst, self._tokens + earned)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _login_refusal(
        self, users: Mapping[str, PasswordHash], scope: Scope, receive: Receive
    ) -> PlainTextResponse | None:
        client, given = scope["client"], _credentials(scope["headers"])
        if given is None:
            self._refused.note("no_password", client)
            return _UNAUTHORIZED
        name, password = given
        stored = users.get(name.decode("utf-8", "surrogateescape"))
        encoded = stored.text.encode() if stored else _hash_of_unknown_user(users)
        key = self._digest(name, encoded, password)
        right = self._remembered(key)
        if right is None:
            check = self._checks.get(key) or self._start(_network(client), key, password, encoded)
            if check is None:
                self._refused.note("too_many_logins", client)
                return _TOO_MANY_LOGINS
            right = await _result_of(check, receive)
        if right and stored:
            return None
        if right is not None:
            self._refused.note("wrong_password", client)
        return _UNAUTHORIZED

    def _digest(self, *parts: bytes) -> bytes:
        """The key under which a login is remembered; different parts have different keys.

        Joined without quotes, one name and password could pass for another (CVE-2022-46146).
        """
        return hashlib.blake2b(repr(parts).encode(), key=self._secret, digest_size=32).digest()

    def _remembered(self, key: bytes) -> bool | None:
        for right, keys in enumerate(self._recent):
            if key in keys:
                keys.move_to_end(key)
                return bool(right)
        return None

    def _start(
        self, network: str, key: bytes, password: bytes, encoded: bytes
    ) -> asyncio.Task[bool] | None:
        line = self._lines.get(network) or _Line()
        if line.waiting >= self.waiting_max // len({*self._lines, network}):
            return None
        self._lines[network] = line
        line.waiting += 1
        check = asyncio.create_task(self._checked(network, key, password, encoded))
        self._checks[key] = check
        return check

    async def _checked(self, network: str, key: bytes, password: bytes, encoded: bytes) -> bool:
        line = self._lines[network]
        try:
            # Both let those that wait go on in the order in which they came.
            async with line, self._threads:
                right = await in_thread(partial(self.check, password, encoded))
        finally:
            del self._checks[key]
            line.waiting -= 1
            if not line.waiting:
                del self._lines[network]
        keys = self._recent[right]
        keys[key] = None
        if len(keys) > _REMEMBERED_MAX:
            keys.popitem(last=False)
        return right


async def _result_of(check: asyncio.Task[bool], receive: Receive) -> bool | None:
    """What a check finds, None if the client leaves first.

    Its request ends then and frees its memory, but not the check: others may wait for it too.
    """

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    left = asyncio.ensure_future(disconnect())
    await asyncio.wait((check, left), return_when=asyncio.FIRST_COMPLETED)
    left.cancel()
    return check.result() if check.done() else None


def _network(client: tuple[str, int] | None) -> str:
    """Whose logins share a line: an IPv4 address, an IPv6 /64, or all clients of a Unix socket."""
    host = client[0] if client else ""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    return str(address.ipv4_mapped or int(address) >> 64)


def _hash_of_unknown_user(users: Mapping[str, PasswordHash]) -> bytes:
    """A hash whose check takes as long as a user's, so that the time does not tell names."""
    cost = max(stored.text[4:6] for stored in users.values())  # two digits
    return f"$2b${cost}$".encode() + _UNKNOWN_SALT_AND_HASH


def _credentials(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
    """Name and password of the first Authorization header, None without a valid one."""
    value = next((value for name, value in headers if name == b"authorization"), b"").strip(b" \t")
    encoded = value[len(_SCHEME) :]
    if not value.lower().startswith(_SCHEME) or not _BASE64.fullmatch(encoded):
        return None
    name, colon, password = binascii.a2b_base64(encoded).partition(b":")
    return (name, password) if colon else None


def header_lines(config: WebConfig) -> list[tuple[bytes, bytes]]:
    """The configured headers, as ASGI has them."""
    return [(name.lower().encode(), value.encode()) for name, value in config.headers.items()]
