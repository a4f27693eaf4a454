"""One GET on the wire: everything that is known of requests and urllib3.

requests knows a timeout between two bytes, not one for the whole answer: a server that drips a byte
now and then, in the headers or in the body, holds a thread for as long as it likes. Here each read
from the socket asks first how much time is left. Bytes are counted after decompression.
"""

from __future__ import annotations

import base64
import functools
import http.client
import io
import math
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError

from exophone_exporter import __version__
from exophone_exporter.errors import (
    BadBody,
    BodyCut,
    ConnectFailed,
    NotHttp,
    PollError,
    TimedOut,
    TlsFailed,
    TooLarge,
)
from exophone_exporter.exotel import model
from exophone_exporter.logs import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3.connectionpool import HTTPConnectionPool

    from exophone_exporter.config.secrets import SecretSource
    from exophone_exporter.config.settings import Account

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_RAW_BYTES: Final = MAX_BODY_BYTES + 1024 * 1024  # with the head, and chunks around the body
MAX_ERROR_BODY_BYTES: Final = 4 * 1024
_CHUNK_BYTES: Final = 64 * 1024
# A shorter secret would be found in phone numbers and prices.
_MASKED_BYTES_MIN: Final = 8
_MASK: Final = b"<secret>"
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "User-Agent": f"exophone-exporter/{__version__}",
}


# How a peer that hangs up is told, by TLS before its handshake is over or while we write.
_CLOSED: Final = (http.client.RemoteDisconnected, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(frozen=True)
class Answer:
    """What the server said. `body` is decompressed; of an error it is at most the first 4 KiB.

    Where the server repeats a secret that it was sent, `<secret>` stands in its place.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """A connection to one account's origin, with its credentials; not shared between threads.

    Never follows a redirect, and takes neither proxies nor credentials from the environment.
    """

    def __init__(self, account: Account, monotonic: Callable[[], float]) -> None:
        self._account = account
        self._deadline = Deadline(monotonic)
        # Read at every use, so that a secret file that was rotated takes effect.
        key = _secret_bytes(account.credentials.api_key)
        token = _secret_bytes(account.credentials.api_token)
        self._auth = HTTPBasicAuth(key, token)
        self._secrets = [
            secret
            for secret in (base64.b64encode(b"%b:%b" % (key, token)), key, token)
            # Older accounts have their sid for a key; it stands in every URL and in names.
            if len(secret) >= _MASKED_BYTES_MIN and secret != account.sid.encode()
        ]
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = account.ca_file or True
        if account.proxy_url:
            self._session.proxies = {"http": account.proxy_url, "https": account.proxy_url}
        self._adapter = BoundedAdapter(self._deadline)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(
        self,
        url: str,
        query: Mapping[str, str],
        *,
        timeout_seconds: float,
        within_seconds: float,
        on_status: Callable[[int], None],
    ) -> Answer:
        """One GET; raises PollError where no whole answer came.

        `timeout_seconds` bounds the connection and each read, `within_seconds` the whole answer.
        `on_status` hears of the status as soon as it is there.
        """
        self._deadline.set(within_seconds)
        try:
            with self._session.get(
                url,
                params=query,
                auth=self._auth,
                headers=_HEADERS,
                timeout=min(timeout_seconds, within_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                on_status(response.status_code)
                return self._answer(response)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ) as error:
            self._adapter.close_last()
            raise _translated(error, self._account) from error

    def _answer(self, response: requests.Response) -> Answer:
        """The whole answer, less what it repeats of the credentials: messages are logged."""
        told = {name: self._masked(value.encode()) for name, value in response.headers.items()}
        headers = CaseInsensitiveDict({name: value.decode() for name, value in told.items()})
        return Answer(response.status_code, headers, self._masked(_body(response)))

    def _masked(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, _MASK)
        return data


def _secret_bytes(source: SecretSource) -> bytes:
    """A secret as it is sent: requests would encode text as Latin-1.

    A variable of the environment that is not UTF-8 goes out as the bytes that came in.
    """
    return source.current().reveal().encode("utf-8", "surrogateescape")


class _Session(requests.Session):
    """A session that knows no redirects.

    Even with `allow_redirects=False` requests prepares the next request: it reads the whole body of
    the redirect, however large, and raises ValueError where the Location is malformed.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere."""


def _body(response: requests.Response) -> bytes:
    if response.status_code != requests.codes.ok:
        return _start_of_body(response)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("gzip", "identity", ""):
        raise BadBody("the answer is in an encoding that was not asked for")
    chunks: list[bytes] = []
    length = 0
    for chunk in response.iter_content(_CHUNK_BYTES):
        length += len(chunk)
        if length > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> TooLarge:
    return TooLarge(f"the answer is larger than {MAX_BODY_BYTES // 1024**2} MiB")


def _start_of_body(response: requests.Response) -> bytes:
    """What an error says, as far as it can be read; its status counts in any case."""
    try:
        return next(response.iter_content(MAX_ERROR_BODY_BYTES), b"")
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError):
        return b""


def _translated(error: Exception, account: Account) -> PollError:
    """What went wrong, by the cause that requests has wrapped, and in words that say where."""
    causes = tuple(_causes(error))
    origin = account.origin
    if any(isinstance(cause, _TooManyBytesError) for cause in causes):
        return _too_large()
    if type(error) is OSError:  # requests says so before it connects
        return TlsFailed(f"the ca_file {account.ca_file} for {origin} cannot be read")
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None and not isinstance(tls, _CLOSED):
        return TlsFailed(f"TLS with {origin} failed: {_tls_reason(tls)}")
    if isinstance(error, requests.exceptions.ProxyError):
        return ConnectFailed(f"the proxy {account.proxy_url} failed: {_reason(causes)}")
    if any(_is_timeout(cause) for cause in causes):
        proxy = f", through the proxy {account.proxy_url}" if account.proxy_url else ""
        return TimedOut(f"{origin} did not answer in time{proxy}")
    return _translated_answer(error, causes, origin)


def _translated_answer(
    error: Exception, causes: tuple[BaseException, ...], origin: str
) -> PollError:
    """What was wrong with the bytes that came, or why none did."""
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return BadBody(f"the answer of {origin} cannot be decompressed")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return BodyCut(f"the answer of {origin} ended before its end")
    if any(_is_not_http(cause) for cause in causes):
        return NotHttp(f"what answers at {origin} does not speak HTTP as it should")
    return ConnectFailed(f"cannot connect to {origin}: {_reason(causes)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was made of, the innermost last; some come more than once.

    What urllib3 wraps without raising it stands in the arguments alone.
    """
    yield error
    for part in (error.__cause__, error.__context__, *error.args):
        if isinstance(part, BaseException):
            yield from _causes(part)


def _is_timeout(cause: BaseException) -> bool:
    # urllib3 derives a refused connection and an unknown name from its timeout.
    return isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)) and not isinstance(
        cause, urllib3.exceptions.NewConnectionError
    )


def _is_not_http(cause: BaseException) -> bool:
    # A peer that hangs up before its first byte is a broken connection, though http.client files it
    # under bad status lines.
    return isinstance(
        cause, (http.client.HTTPException, requests.exceptions.InvalidHeader)
    ) and not isinstance(cause, http.client.RemoteDisconnected)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was refused ({error.verify_message}); is a ca_file needed?"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the port does not speak TLS"
    if not error.reason:
        return "the handshake was broken off"
    return error.reason.lower().replace("_", " ")


def _reason(causes: tuple[BaseException, ...]) -> str:
    """The system's own words, from the innermost cause that has any."""
    for cause in reversed(causes):
        if isinstance(cause, _CLOSED):
            return "the connection was closed without an answer"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if type(cause) is OSError and cause.args:  # http.client's, of a tunnel that was refused
            return redact(model.clean_text(str(cause)))
    return redact(type(causes[-1]).__name__)


class Deadline:
    """A point in time that reads must not pass; moved forward for each request."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ends_at = 0.0

    def set(self, seconds: float) -> None:
        """Let it end so many seconds from now."""
        self._ends_at = self._monotonic() + seconds

    def remaining_seconds(self) -> float:
        """Seconds left; raises TimeoutError where there are none."""
        remaining = self._ends_at - self._monotonic()
        if remaining <= 0:
            raise TimeoutError  # told in words of ours by whoever knows whose deadline it was
        return remaining


class BoundedAdapter(HTTPAdapter):
    """An adapter without retries of its own, whose connections read within a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._last: _BoundedResponse | None = None
        self._pools: list[HTTPConnectionPool] = []
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools as requests does, then bind them to the deadline."""
        super().init_poolmanager(*args, **kwargs)
        self._bind(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise for a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        self._bind(manager)
        return manager

    def _bind(self, manager: urllib3.PoolManager) -> None:
        # A class is promised here, and called like one: only the connections differ.
        pools: Any = {
            "http": functools.partial(self._pool, urllib3.HTTPConnectionPool, _Connection),
            "https": functools.partial(self._pool, urllib3.HTTPSConnectionPool, _TlsConnection),
        }
        manager.pool_classes_by_scheme = pools

    def _pool(
        self,
        pool_class: type[HTTPConnectionPool],
        connection_class: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> HTTPConnectionPool:
        pool = pool_class(*args, **kwargs)
        self._pools.append(pool)
        pool.ConnectionCls = functools.partial(  # type: ignore[assignment]  # likewise
            self._connection, connection_class
        )
        return pool

    def _connection(self, connection_class: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        connection = connection_class(*args, **kwargs)
        connection.response_class = self._response
        return connection

    def _response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> _BoundedResponse:
        self._last = _BoundedResponse(self._deadline, sock, *args, **kwargs)
        return self._last

    def close(self) -> None:
        """Close every connection now.

        urllib3 leaves that to the end of its pools, which an error that was raised in one of them
        keeps from ending until the garbage collector comes by.
        """
        for pool in self._pools:
            pool.close()
        super().close()

    def close_last(self) -> None:
        """Close the last response: urllib3 leaves it open where it cannot make its own of it."""
        if self._last is not None:
            self._last.close()


class _Connection(HTTPConnection):
    """A connection that is there within its timeout, however many addresses the host has.

    urllib3 gives each of them the whole timeout: a host with many that are dead passes any
    deadline. Here they share it, so that the last is tried too.
    """

    def _new_conn(self) -> socket.socket:
        timeout_seconds: Any = self.timeout  # a number: no request goes without one
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        self.timeout = timeout_seconds / len(addresses)
        try:
            sock = super()._new_conn()
        finally:
            self.timeout = timeout_seconds
        sock.settimeout(timeout_seconds)  # the handshake does not share it
        return sock


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


class _BoundedResponse(http.client.HTTPResponse):
    """The standard response, reading through `_BoundedReader`."""

    def __init__(self, deadline: Deadline, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock, deadline))


class _TooManyBytesError(OSError):
    """More bytes came than any answer needs."""


class _BoundedReader(io.RawIOBase):
    """Reads from a socket, with the time that is left as the longest wait.

    It also counts the bytes as they come: a chunk of the size -1 is read whole by http.client.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        self._timeout_seconds = sock.gettimeout() or math.inf
        self._bytes_left = MAX_RAW_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline.remaining_seconds()
        self._sock.settimeout(min(self._timeout_seconds, remaining))
        count = self._raw.readinto(buffer)
        self._bytes_left -= count or 0
        if self._bytes_left < 0:
            raise _TooManyBytesError
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
