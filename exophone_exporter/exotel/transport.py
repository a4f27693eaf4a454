"""One GET on the wire: the only module that knows requests and urllib3.

requests has a timeout for each read and none for the whole response: a server that sends a byte now
and then, in the headers or in the body, could hold a thread forever. Here every read from the
socket first asks how much time is left. Bytes are counted before and after decompression.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import math
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from exophone_exporter import __version__
from exophone_exporter.config.certificates import problem_of
from exophone_exporter.config.secrets import SecretSource
from exophone_exporter.config.settings import Account
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
from exophone_exporter.exotel.resolver import addresses_of
from exophone_exporter.exotel.response_head import readable_head
from exophone_exporter.exotel.responses import Answer
from exophone_exporter.exotel.text import clean_text
from exophone_exporter.logs import redact

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_RAW_BYTES: Final = MAX_BODY_BYTES + 1024 * 1024  # including the head and the chunk sizes
MAX_ERROR_BODY_BYTES: Final = 4 * 1024
_HEADERS_MAX: Final = 100
_HEADER_BYTES_MAX: Final = 64 * 1024
_INFORMATIONAL: Final = {*range(100, 200)} - {101}
# A shorter secret would be found in phone numbers and prices.
_MASKED_BYTES_MIN: Final = 8
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "Connection": "keep-alive",
    "User-Agent": f"exophone-exporter/{__version__}",
}
# What a closed connection raises; the last two come from TLS, during the handshake or a write.
_CLOSED: Final = (http.client.RemoteDisconnected, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_TIMEOUTS: Final = (TimeoutError, urllib3.exceptions.TimeoutError)
_FAILURES: Final = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)

_Kinds: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class Transport(HTTPAdapter):
    """A connection to one account's origin, with its credentials; not shared between threads.

    Never follows a redirect, keeps no cookies, and takes neither proxies nor credentials from the
    environment: there is no requests.Session. The connections keep the time limit and share their
    TLS context.
    """

    def __init__(self, account: Account, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._account = account
        self._monotonic = monotonic
        self._ends_at = -math.inf
        self.on_connect: Callable[[], None] = lambda: None
        # Read for each poll, so that a rotated secret file takes effect.
        key = _secret_bytes(account.credentials.api_key)
        token = _secret_bytes(account.credentials.api_token)
        self._auth = HTTPBasicAuth(key, token)
        self._secrets = [
            secret
            for secret in (base64.b64encode(b"%b:%b" % (key, token)), key, token)
            # Older accounts use their sid as the key; it is part of every URL and of names.
            if len(secret) >= _MASKED_BYTES_MIN and secret != account.sid.encode()
        ]
        self._pool: Any = None

    def close(self) -> None:
        """Close every connection now: an error raised in a pool keeps it until it is collected."""
        if self._pool is not None:
            self._pool.close()

    def get(
        self,
        url: str,
        *,
        within_seconds: float,
        on_connect: Callable[[], None],
        on_status: Callable[[int], None],
    ) -> Answer:
        """One GET; raises PollError unless a whole response came.

        The account's timeout bounds the connection and each read, `within_seconds` the whole
        response. `on_connect` is called when a new connection is there, `on_status` with the status
        as soon as it is there.
        """
        self._ends_at = self._monotonic() + within_seconds
        self.on_connect = on_connect
        proxy_url = self._account.proxy_url
        try:
            request = requests.Request("GET", url, _HEADERS, auth=self._auth)
            with self.send(
                request.prepare(),
                stream=True,
                timeout=min(self._account.poll.timeout_seconds, within_seconds),
                proxies={"all": proxy_url} if proxy_url else None,
            ) as response:
                on_status(response.status_code)
                return self._answer(response)
        except _FAILURES as error:
            raise _translated(error, self._account) from error

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool that requests would make, with our connections in it; there is one origin."""
        if self._pool is None:
            pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
            pool.conn_kw["transport"] = self
            pool.ConnectionCls = _Connection
            if pool.scheme == "https":
                pool.ConnectionCls = _TlsConnection
                pool.conn_kw["ssl_context"] = context = _tls_context(self._account.ca_file)
                if pool.proxy_config:
                    pool.conn_kw["proxy_config"] = pool.proxy_config._replace(ssl_context=context)
            self._pool = pool
        return self._pool

    def cert_verify(self, *args: Any) -> None:
        """Leave that to the TLS context: requests would let each connection load the bundle."""

    def remaining_seconds(self) -> float:
        """Seconds left for this request; raises TimeoutError where no time is left."""
        remaining = self._ends_at - self._monotonic()
        if remaining <= 0:
            raise TimeoutError  # the caller knows whose deadline it was, and says so
        return remaining

    def _answer(self, response: requests.Response) -> Answer:
        """The response without the credentials that it repeats: messages are logged."""
        masked = {name: self._masked_text(value) for name, value in response.headers.items()}
        headers, body = CaseInsensitiveDict(masked), self._masked(_body(response))
        return Answer(response.status_code, headers, body, self._masked_text)

    def _masked_text(self, text: str) -> str:
        return self._masked(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def _masked(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, b"<secret>")
        return data


def _secret_bytes(source: SecretSource) -> bytes:
    """A secret as it is sent: requests would encode text as Latin-1.

    An environment variable that is not UTF-8 is sent as the bytes that it holds.
    """
    return source.current().reveal().encode("utf-8", "surrogateescape")


def _body(response: requests.Response) -> bytes:
    """The body, decompressed; of an error the start, as far as it can be read."""
    good = response.status_code == requests.codes.ok
    if good and response.headers.get("Content-Encoding", "gzip") != "gzip":
        raise BadBody("the response has a content encoding that was not requested")
    enough = MAX_BODY_BYTES + 1 if good else MAX_ERROR_BODY_BYTES
    body = bytearray()
    try:
        for chunk in response.iter_content(min(64 * 1024, enough)):
            body += chunk
            if len(body) >= enough:
                raise _too_large()
    except (*_FAILURES, TooLarge):
        if good:  # the status of an error counts whatever its body is
            raise
    return bytes(body[:enough])


def _too_large() -> TooLarge:
    return TooLarge(f"the response is larger than {MAX_BODY_BYTES // 1024**2} MiB")


def _translated(error: Exception, account: Account) -> PollError:
    """The PollError for what requests raised, by its causes, with a message that says where."""
    causes = tuple(_causes(error))
    origin = account.origin
    if tls := _first(causes, ssl.SSLError, but=_CLOSED):
        return TlsFailed(f"TLS with {origin} failed: {_tls_reason(tls, account.ca_file)}")
    if isinstance(error, requests.exceptions.ProxyError):
        return ConnectFailed(f"the proxy {account.proxy_url} failed: {_reason(causes)}")
    # urllib3 derives a refused connection from its timeout.
    if _first(causes, _TIMEOUTS, but=NewConnectionError):
        proxy = f", through the proxy {account.proxy_url}" if account.proxy_url else ""
        return TimedOut(f"{origin} did not answer in time{proxy}")
    return _response_error(error, causes, origin)


def _response_error(error: Exception, causes: Sequence[BaseException], origin: str) -> PollError:
    """What was wrong with the bytes that came, or why none came."""
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return BadBody(f"the response of {origin} cannot be decompressed")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return BodyCut(f"the response of {origin} was cut short")
    # http.client counts a connection that closes before its first byte as a bad status line.
    if _first(causes, http.client.HTTPException, but=http.client.RemoteDisconnected):
        return NotHttp(f"the server at {origin} does not speak valid HTTP")
    return ConnectFailed(f"cannot connect to {origin}: {_reason(causes)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the innermost last; some are repeated.

    urllib3 passes some causes as an argument only, without raising from them.
    """
    yield error
    for part in (error.__cause__, error.__context__, *error.args):
        if isinstance(part, BaseException):
            yield from _causes(part)


def _first(causes: Sequence[BaseException], kinds: _Kinds, *, but: _Kinds) -> Any:
    """The first cause of some kinds that is of no other kind, or None."""
    return next((c for c in causes if isinstance(c, kinds) and not isinstance(c, but)), None)


def _tls_reason(error: ssl.SSLError, ca_file: str | None = None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        ask = "is a ca_file needed?" if ca_file is None else f"is {ca_file} the right ca_file?"
        return f"the certificate was rejected ({error.verify_message}); {ask}"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the port does not speak TLS"
    if not error.reason:
        return "the handshake was aborted"
    return error.reason.lower().replace("_", " ")


def _reason(causes: Sequence[BaseException]) -> str:
    """The operating system's message, from the innermost cause that has one."""
    for cause in reversed(causes):
        if isinstance(cause, _CLOSED):
            return "the connection was closed without a response"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if type(cause) is OSError and cause.args:  # http.client's, for a tunnel that was refused
            return redact(clean_text(str(cause)))
    return redact(type(causes[-1]).__name__)


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """The TLS context that trusts a CA file, None for requests' own bundle.

    Raises TlsFailed if the file cannot be used.
    """
    path = Path(ca_file or DEFAULT_CA_BUNDLE_PATH)
    try:
        stat = path.stat()
        return _loaded_context(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        reason = error.strerror
        if isinstance(error, ssl.SSLError):  # in the words of check-config
            reason = problem_of(path.read_bytes()) or _tls_reason(error)
        raise TlsFailed(f"the CA file {path} cannot be used: {reason}") from error


@functools.lru_cache(maxsize=16)
def _loaded_context(path: Path, *_version: int) -> ssl.SSLContext:
    """The context for one version of a CA file: loading certifi's takes 30 ms of CPU."""
    context = create_urllib3_context()
    context.load_verify_locations(path)
    context.set_alpn_protocols(["http/1.1"])
    # urllib3 does so again for each connection. That frees memory which the handshake of another
    # thread may be reading: it copies the protocols without the GIL.
    context.set_alpn_protocols = lambda _: None  # type: ignore[method-assign, assignment]
    return context


class _Connection(HTTPConnection):
    """A connection whose responses are read within the time that is left."""

    def __init__(self, *args: Any, transport: Transport, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transport = transport
        response_class = functools.partial(_BoundedResponse, transport.remaining_seconds)
        self.response_class = response_class  # type: ignore[assignment]  # it is only called

    def connect(self) -> None:
        super().connect()
        self._transport.on_connect()

    def _new_conn(self) -> socket.socket:
        """Connect within the timeout, however many addresses the host has: they share it.

        urllib3 gives each of them the whole timeout, so that many dead ones exceed any deadline.
        """
        timeout_seconds: Any = self.timeout  # a number: every request has one
        addresses = addresses_of(self.host, self.port, timeout_seconds)
        failed: list[OSError] = []
        for family, kind, protocol, _, address in addresses:
            try:
                with contextlib.ExitStack() as on_failure:
                    sock = on_failure.enter_context(socket.socket(family, kind, protocol))
                    for option in self.socket_options or ():
                        sock.setsockopt(*option)
                    sock.settimeout(timeout_seconds / len(addresses))
                    sock.connect(address)
                    on_failure.pop_all()
            except OSError as error:
                failed.append(error)
            else:
                sock.settimeout(timeout_seconds)  # the handshake may take the whole of it
                return sock
        # As itself, a reset would be ignored: urllib3 goes on as if it came while sending.
        raise NewConnectionError(self, "no address can be reached") from failed[-1]


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


class _BoundedResponse(http.client.HTTPResponse):
    """The standard response, reading through `_BoundedReader`, with any readable head."""

    def __init__(
        self, remaining_seconds: Callable[[], float], sock: socket.socket, **kwargs: Any
    ) -> None:
        super().__init__(sock, **kwargs)
        reader = _BoundedReader(self.fp.detach(), sock, remaining_seconds)
        self.fp = io.BufferedReader(reader)

    def begin(self) -> None:
        """Read the head; http.client gets the readable part of it, and the body from the socket."""
        stream = self.fp
        try:
            super().begin()
        finally:
            self.fp = stream
        # urllib3 would refuse them, too, and leave the response open.
        lengths = ",".join(self.headers.get_all("Content-Length", ())).replace(" ", "").split(",")
        if len({*filter(str.isdigit, lengths)}) > 1 and not self.chunked:
            raise http.client.HTTPException("lengths that contradict each other")

    def _read_status(self) -> tuple[str, int, str]:
        """The status of the final response: http.client takes any but a 100 for it."""
        while True:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            lines = [*self._header_lines()]
            if status[1] not in _INFORMATIONAL:
                self.fp = io.BufferedReader(io.BytesIO(readable_head(lines)))
                return status

    def _header_lines(self) -> Iterator[bytes]:
        """The lines up to the empty one, in pieces no longer than http.client allows."""
        for _ in range(_HEADERS_MAX + 1):
            line = self.fp.readline(_HEADER_BYTES_MAX + 1)
            if line in (b"\r\n", b"\n", b""):
                return
            yield line
        raise http.client.HTTPException(f"more than {_HEADERS_MAX} header lines")


class _BoundedReader(io.RawIOBase):
    """Reads from a socket, waiting for no longer than the time that is left.

    It also counts the bytes as they come: http.client reads a chunk of the size -1 to its end.
    """

    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, remaining_seconds: Callable[[], float]
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._remaining_seconds = remaining_seconds
        self._timeout_seconds = sock.gettimeout() or math.inf
        self._bytes_left = MAX_RAW_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(min(self._timeout_seconds, self._remaining_seconds()))
        count = self._raw.readinto(buffer)
        self._bytes_left -= count or 0
        if self._bytes_left < 0:
            raise _too_large()
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
