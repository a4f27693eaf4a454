"""One connection of a client: what it may send, how long it may take, and when it ends.

The parser and the writing of answers are uvicorn's, pinned to one minor version. Relied on of
`HttpToolsProtocol`: the callbacks that are overridden here; its attributes `transport`, `parser`,
`headers`, `url`, `cycle`, `loop`, `server_state`, `client`; of a cycle `keep_alive`,
`response_complete`, `more_body`, `message_event`, `waiting_for_100_continue`, `transport` and that
it ends the connection by `transport.close()`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import nsmallest
from http import HTTPStatus
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from exophone_exporter.logs import fields
from exophone_exporter.server.refusals import Reason, RefusedClients
from exophone_exporter.server.tls import Tls

Headers = list[tuple[bytes, bytes]]

_BODY_HEADERS: Final = (b"content-length", b"transfer-encoding")
_TOO_LARGE: Final = (HTTPStatus.REQUEST_URI_TOO_LONG, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
_VERSIONS: Final = ("1.0", "1.1")
# How active a connection is.
_IDLE, _UNREAD, _BUSY = range(3)
_REQUEST_LINE_WITHOUT_TARGET: Final = len("GET  HTTP/1.1\r\n")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What clients may use of the server.

    A request's head, and the TLS handshake before it, must be complete `head_seconds` after the
    connection was made, a further head so long after its first byte. An idle connection ends after
    `keep_alive_seconds`, longer than a usual scrape interval. An answer has `answer_seconds` from
    the complete request until the client has taken its last byte. After a request that ends the
    connection, further input is dropped for up to `linger_seconds`: if the connection were closed
    immediately, it would be reset and the answer lost.

    `request_line_bytes` limits the first line of a request (414; the parser takes no more than
    64 KiB), `head_bytes` all of its headers and `headers` their number (431). When there are
    `connections` of them, handshakes included, one is ended for each new one. The system holds
    about `send_buffer_bytes` of what a client has not read; without a limit these are megabytes.
    """

    head_seconds: float = 10.0
    keep_alive_seconds: int = 75
    answer_seconds: float = 60.0
    linger_seconds: float = 1.0
    request_line_bytes: int = 64 * 1024
    head_bytes: int = 64 * 1024
    headers: int = 100
    connections: int = 512
    send_buffer_bytes: int = 128 * 1024


class ConnectionLimit(set["Connection"]):
    """The open connections; those that wait for their clients make room for new ones."""

    def __init__(self, limits: Limits, refused_clients: RefusedClients) -> None:
        super().__init__()
        self.limits = limits
        self.refused_clients = refused_clients

    def evict_waiting(self) -> None:
        """End the less active half of the connections that wait for their clients."""
        waiting = [each for each in self if each.activity() < (_BUSY, 0.0)]
        for connection in nsmallest((len(waiting) + 1) // 2, waiting, Connection.activity):
            connection.make_room()

    def add(self, connection: Connection) -> None:
        """Count an accepted connection; the least active one ends if there are too many."""
        if len(self) >= self.limits.connections:
            min(self, key=Connection.activity).make_room()
        super().add(connection)

    def end_overdue(self, now: float) -> None:
        """End every connection that took too long; `now` is the time of the event loop's clock."""
        for connection in list(self):
            connection.end_if_overdue(now)


class _RefusedError(Exception):
    """Ends the parser's work on a request that is refused."""


class Connection(HttpToolsProtocol):
    """One connection of a client, under limits. `headers` are added to refusals.

    Bodies are never read: a request that announces one is answered, and is the last. Requests are
    not pipelined: when another one arrives during an answer, this answer is the last.
    """

    def __init__(  # noqa: PLR0913 - those of uvicorn, and ours
        self,
        limit: ConnectionLimit,
        config: uvicorn.Config,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        *,
        tls: Tls | None = None,
        headers: Callable[[], Headers] = list,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state={}, _loop=loop)
        self.tls = tls
        self._limit = limit
        self._limits = limit.limits
        self._refused_clients = limit.refused_clients
        self._refusal_headers = headers
        self.ignores_input = False
        self._is_lingering = False
        self._is_forbidden = False
        self._in_head = True
        self._head_bytes = 0
        self._deadline = math.inf
        self._unsent_bytes = 0
        self._active_at = monotonic()  # the loop's clock moves once in each of its steps

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Serve, unless the connection ended before it was made."""
        super().connection_made(transport)
        self.scheme = "https" if self.tls else "http"
        self._begin_head()
        if self not in self._limit:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; an answer that was not read to its end is not an error."""
        self._limit.discard(self)
        if self._is_answering:
            _log.debug("client left before the end of its answer", extra=fields(client=self.client))
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it set after an error

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio allows
        """Answer a client that has closed only its own side, as Go and nginx do."""
        if not self._is_answering:
            return False
        self._close_after_this_answer()
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent, unless its input is ignored."""
        if self.ignores_input:
            return
        self._unset_keepalive_if_required()
        if not self._in_head and not self._is_answering:
            self._begin_head()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._close_after_this_answer()
        except httptools.HttpParserError:
            if not self.ignores_input:
                self._refuse(HTTPStatus.BAD_REQUEST)
        else:
            self._count_head(len(data))

    def on_message_begin(self) -> None:
        """Begin a request, but none during an answer or of a client that is not allowed."""
        if self._is_answering:
            self._close_after_this_answer()
        if self.ignores_input:
            raise _RefusedError
        if self._is_forbidden:
            self._reject(HTTPStatus.FORBIDDEN)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        if len(self.url) + _REQUEST_LINE_WITHOUT_TARGET > self._limits.request_line_bytes:
            self._reject(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind the chunks of a body come here too."""
        if self.ignores_input:
            return
        super().on_header(name, value)
        if len(self.headers) > self._limits.headers:
            self._reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Answer the request."""
        if self.parser.get_http_version() not in _VERSIONS:
            self._reject(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.head_bytes:
            self._reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        super().on_headers_complete()
        self._in_head = False
        self._active_at = monotonic()
        self._deadline = self.loop.time() + self._limits.answer_seconds
        cycle: Any = self.cycle
        if not cycle.keep_alive or any(name in _BODY_HEADERS for name, _ in self.headers):
            self._close_after_this_answer()

    def on_body(self, body: bytes) -> None:
        """Bodies are never read."""

    def on_response_complete(self) -> None:
        """Wait for the next request, unless this was the last."""
        super().on_response_complete()
        self._active_at = monotonic()

    def end(self) -> None:
        """End immediately, whatever was under way.

        A connection that is being made ends then: to cancel that would close a socket in use.
        """
        self._limit.discard(self)
        if self.transport is not None:
            self.transport.abort()

    def make_room(self) -> None:
        """End for another connection."""
        self._refused_clients.note("too_many_connections", self.client)
        self.end()

    def activity(self) -> tuple[int, float]:
        """How active it is and since when: idle, not read by its client, or being answered."""
        if self._unsent():
            return _UNREAD, self._active_at
        return _BUSY if self._is_answering else _IDLE, self._active_at

    def end_if_overdue(self, now: float) -> None:
        """End where the client took too long for its part."""
        unsent_bytes = self._unsent()
        if self._is_lingering and not unsent_bytes:
            self._deadline = min(self._deadline, now + self._limits.linger_seconds)
        if now <= self._deadline:
            return
        if unsent_bytes or self._is_answering:
            self._refused_clients.note("slow_response", self.client)
        elif not self._is_lingering:
            if not self._in_head:
                return  # uvicorn ends it after `keep_alive_seconds`
            self._refused_clients.note("slow_request", self.client)
        self.end()

    def refuse_tls(self, reason: Reason, detail: str) -> None:
        """End a connection whose handshake failed; the client can read why."""
        self._refused_clients.note(reason, self.client, detail)
        self.linger()

    def forbid(self) -> None:
        """Answer the request with 403: the client's certificate is valid, but not allowed."""
        self._refused_clients.note(
            "client_certificate", self.client, "none of its names is allowed"
        )
        self._is_forbidden = True

    def linger(self) -> None:
        """End after what was written, in a way that lets the client read it."""
        self.ignores_input = self._is_lingering = True
        if self.transport.is_closing():
            return
        self.transport.write_eof()

    @property
    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's types say
        return cycle is not None and not cycle.response_complete

    def _unsent(self) -> int:
        """The bytes that wait for the client. A change is progress."""
        if self.transport is None:
            return 0
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._active_at = unsent_bytes, monotonic()
        return unsent_bytes

    def _begin_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._deadline = self.loop.time() + self._limits.head_seconds

    def _count_head(self, size_bytes: int) -> None:
        """Limit a head that is not complete: the parser reports only complete headers."""
        if not self._in_head:
            return
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.request_line_bytes + self._limits.head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _reject(self, status: HTTPStatus) -> None:
        self._refuse(status)
        raise _RefusedError

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer a request that does not reach the application."""
        if status is not HTTPStatus.FORBIDDEN:
            reason: Reason = "request_too_large" if status in _TOO_LARGE else "malformed_request"
            self._refused_clients.note(reason, self.client)
        text = f"{status.phrase}.\n".encode()
        headers = [
            *self.server_state.default_headers,
            *self._refusal_headers(),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        answer = b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, status.phrase.encode(), lines, text)
        self.transport.write(answer)
        self.linger()

    def _close_after_this_answer(self) -> None:
        """Answer the current request, ignore what follows it, and end."""
        self.ignores_input = True
        cycle: Any = self.cycle
        cycle.keep_alive = False
        # The transport as the last answer sees it: closing it lets the client read first.
        cycle.transport = SimpleNamespace(
            write=self.transport.write, is_closing=self.transport.is_closing, close=self.linger
        )
        cycle.waiting_for_100_continue = False
        cycle.more_body = False
        cycle.message_event.set()
