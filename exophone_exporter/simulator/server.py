"""The HTTP server of the simulator: sockets, credentials, routes and a record of all requests."""

from __future__ import annotations

import base64
import gzip
import random
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote

from exophone_exporter.simulator.balance import now
from exophone_exporter.simulator.drill import PREFIX, Drill
from exophone_exporter.simulator.responses import (
    BODILESS,
    FOREIGN_ORIGIN,
    Allowance,
    Endpoint,
    Fault,
    LastPage,
    PastEnd,
    RecordedRequest,
    RequestWindow,
    Response,
    error_response,
    json_response,
    list_page,
    random_fault,
    read_page_request,
    reason_phrase,
)
from exophone_exporter.simulator.world import Account, World

_RECORDED_MAX: Final = 10_000
_BACKLOG: Final = 128
_STOP_SECONDS: Final = 0.5
_SHUTDOWN_POLL_SECONDS: Final = 0.02
_UNANSWERED: Final = 0
# SO_LINGER on, with no time to linger: closing then sends RST instead of FIN.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class _Route(NamedTuple):
    endpoint: Endpoint
    account_sid: str
    resource: str


def _route(path: str) -> _Route | None:
    """What a path names; None if the API does not have it."""
    match [unquote(segment) for segment in path.split("/")]:
        case ["", "v2_beta", "Accounts", account_sid, "IncomingPhoneNumbers"]:
            return _Route("list", account_sid, "")
        case ["", "v2_beta", "Accounts", account_sid, "IncomingPhoneNumbers", exophone_sid]:
            return _Route("detail", account_sid, exophone_sid)
        case ["", "v1", "Accounts", account_sid, "Balance.json" | "Balance" as form]:
            return _Route("balance", account_sid, form)
    return None


def _accepts_gzip(accept_encoding: str) -> bool:
    for coding in accept_encoding.lower().replace(" ", "").split(","):
        name, _, weight = coding.partition(";q=")
        if name == "gzip":
            return not weight or weight.strip("0.") != ""
    return False


class Simulator:
    """The API for the accounts of a world, on its own socket; a context manager.

    Args:
        world: The accounts. It may change while the simulator runs.
        listening: A listening socket and, as `url`, its origin. None takes a free port of
            127.0.0.1, which is kept over a stop and another start.
        latency_seconds: Delay before every response.
        failure_rate: Share of authorised requests, from 0 to 1, that fail: 500, 502, 503, 429 or
            a reset.
        requests_per_minute: Limit for each account; requests above it get 429 with Retry-After,
            all others the number of requests left. None sets no limit.
        page_size_cap: Maximum page size, whatever PageSize asks for.
        foreign_next_page_uri: Whether URIs name another host over plain http, as in the sample.
        last_page: `next_page_uri` on the last page: null, "", missing, or a URI on every page
            ("lying"), as in the documented sample with 2 of 50 numbers.
        past_end: What a page behind the last one is: empty, the last page again, or a 404.
        balance_as_number: Whether the balance is a JSON number, not a text.
        now: The time by which balances are spent.
        seed: Seed of the random failures.

    `drill` has the commands that break the accounts; HTTP clients send them as POST below `/-/`.
    `on_request`, if set, is called in the serving thread before the response to each authorised
    list request is computed; the status in its argument is still 0.
    """

    def __init__(  # noqa: PLR0913 - each argument is one switch of the vendor's behaviour
        self,
        world: World,
        *,
        listening: socket.socket | None = None,
        url: str = "",
        latency_seconds: float = 0.0,
        failure_rate: float = 0.0,
        requests_per_minute: int | None = None,
        page_size_cap: int = 100,
        foreign_next_page_uri: bool = True,
        last_page: LastPage = "null",
        past_end: PastEnd = "empty",
        balance_as_number: bool = False,
        now: Callable[[], datetime] = now,
        seed: int = 1,
    ) -> None:
        self.world = world
        self.on_request: Callable[[RecordedRequest], None] | None = None
        self._listening = listening
        self._url = url
        self._port = 0
        self._latency_seconds = latency_seconds
        self._failure_rate = failure_rate
        self._requests_per_minute = requests_per_minute
        self._page_size_cap = page_size_cap
        self._foreign_next_page_uri = foreign_next_page_uri
        self._last_page = last_page
        self._past_end = past_end
        self._balance_as_number = balance_as_number
        self.now = now
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._requests: deque[RecordedRequest] = deque(maxlen=_RECORDED_MAX)
        self._faults: list[Fault] = []
        self._windows: dict[str, RequestWindow] = {}
        self._server: _Server | None = None
        self.drill = Drill(self)

    @property
    def url(self) -> str:
        """The origin of the API; raises RuntimeError before it has a port."""
        if not self._url:
            raise RuntimeError("the simulator has no address before it is started")
        return self._url

    @property
    def requests(self) -> list[RecordedRequest]:
        """A copy of the newest 10,000 requests, oldest first.

        A request is added as soon as its response is decided, before any delay and before the
        response is sent.
        """
        with self._lock:
            return list(self._requests)

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._requests.clear()

    def fail(self, fault: Fault) -> None:
        """Add a fault; of several that match a request, the one added first is used."""
        with self._lock:
            self._faults.append(replace(fault))

    def clear_faults(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def start(self) -> None:
        """Listen and serve in threads; does nothing if it is started already."""
        if self._server is None:
            listening = self._listening or socket.create_server(
                ("127.0.0.1", self._port), backlog=_BACKLOG
            )
            self._port = listening.getsockname()[1]
            self._url = self._url or f"http://127.0.0.1:{self._port}"
            self._server = _Server(listening, self)
            self._server.start()

    def stop(self) -> None:
        """Close the port and every connection within a second; does nothing if it is stopped."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def respond(self, request: RecordedRequest) -> Response:
        """The response to a request, which is recorded; its own `status` is ignored."""
        response = self._decide(request)
        status = response.status if response.after == "answer" else _UNANSWERED
        with self._lock:
            self._requests.append(replace(request, status=status))
        return replace(response, delay_seconds=response.delay_seconds + self._latency_seconds)

    def _decide(self, request: RecordedRequest) -> Response:
        if request.method != "GET":
            return error_response(405, headers={"Allow": "GET"})
        route = _route(request.path)
        if route is None:
            return error_response(404)
        account = self._authorised(route, request)
        if account is None:
            return error_response(401, headers={"WWW-Authenticate": 'Basic realm="Exotel API"'})
        if route.endpoint == "list" and self.on_request is not None:
            self.on_request(request)
        return self._limited(account, route, request)

    def _authorised(self, route: _Route, request: RecordedRequest) -> Account | None:
        """The account if the request has its credentials."""
        account = self.world.accounts.get(route.account_sid)
        if account is None:
            return None
        headers = {name.lower(): value for name, value in request.headers.items()}
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        wanted = base64.b64encode(f"{account.api_key}:{account.api_token}".encode()).decode()
        return account if (scheme.lower(), sent) == ("basic", wanted) else None

    def _limited(self, account: Account, route: _Route, request: RecordedRequest) -> Response:
        """A fault if one matches, else the real response, within the request limit."""
        allowance = self._take_allowance(account, request)
        fault = self._due_fault(route, request)
        if fault is not None:
            return fault.response()
        if allowance is None:
            return self._real_response(account, route, request)
        wait_seconds = allowance.retry_after_seconds
        headers = {
            "X-RateLimit-Limit": str(self._requests_per_minute),
            "X-RateLimit-Remaining": str(allowance.remaining),
            "X-RateLimit-Reset": str(int(time.time()) + wait_seconds),
        }
        if not allowance.allowed:
            return error_response(429, "json", headers | {"Retry-After": str(wait_seconds)})
        response = self._real_response(account, route, request)
        return replace(response, headers=response.headers | headers)

    def _take_allowance(self, account: Account, request: RecordedRequest) -> Allowance | None:
        if self._requests_per_minute is None:
            return None
        with self._lock:
            window = self._windows.setdefault(account.sid, RequestWindow(self._requests_per_minute))
            return window.take(request.at)

    def _due_fault(self, route: _Route, request: RecordedRequest) -> Fault | None:
        """The first fault that matches, counted as used; else a random one at the failure rate."""
        is_list = route.endpoint == "list"
        page = read_page_request(request.query, self._page_size_cap) if is_list else None
        number = page and page.number
        with self._lock:
            for fault in self._faults:
                if fault.matches(route.endpoint, number, route.account_sid, request.at):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
            unlucky = self._failure_rate > 0 and self._rng.random() < self._failure_rate
            return random_fault(self._rng) if unlucky else None

    def _real_response(self, account: Account, route: _Route, request: RecordedRequest) -> Response:
        with account.lock:
            account.settle(self.now())
            if route.endpoint == "balance":
                return self._balance(account, route.resource)
            if account.balance.is_empty() and account.numbers:
                return error_response(402)
        if route.endpoint == "detail":
            return self._detail(account, route.resource)
        page = read_page_request(request.query, self._page_size_cap)
        if page is None:
            return error_response(400)
        origin = FOREIGN_ORIGIN if self._foreign_next_page_uri else self.url
        with account.lock:
            last = max(0, len(account.numbers) - 1) // page.size
            if page.number > last and self._past_end == "refused":
                return error_response(404)
            if page.number > last and self._past_end == "repeated":
                page = page._replace(number=last)
            return json_response(list_page(account, page, origin=origin, last_page=self._last_page))

    def _balance(self, account: Account, form: str) -> Response:
        if form == "Balance":
            kind = {"Content-Type": "application/xml"}
            return Response(200, account.balance.xml(account.sid), kind)
        as_number = self._balance_as_number
        return json_response(account.balance.document(account.sid, as_number=as_number))

    def _detail(self, account: Account, exophone_sid: str) -> Response:
        with account.lock:
            for number in account.numbers + account.unlisted:
                if number["sid"] == exophone_sid:
                    return json_response(number)
        return error_response(404)


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    """One thread for each connection; `stop` ends all of them, whatever their clients do."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, simulator: Simulator) -> None:
        self.simulator = simulator
        self.stopping = threading.Event()
        self._connections: dict[threading.Thread, socket.socket] = {}
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def start(self) -> None:
        """Serve in a thread."""
        poll = (_SHUTDOWN_POLL_SECONDS,)
        self._accepting = threading.Thread(target=self.serve_forever, args=poll, daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Stop accepting, close every connection to wake its thread, and wait briefly for each."""
        self.stopping.set()
        self.shutdown()
        self._accepting.join()
        self.server_close()
        connections = dict(self._connections)
        for connection in connections.values():
            with suppress(OSError):  # closed by its client, or by its own thread
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in connections:
            if thread is not threading.current_thread():  # a hook may stop the simulator
                thread.join(max(0.0, deadline - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread that `stop` can end."""
        for ended in [thread for thread in self._connections if not thread.is_alive()]:
            del self._connections[ended]
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        thread.start()
        self._connections[thread] = request

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, such as a hook that raises, but not a client that leaves."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests and sends responses."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        request = self._read_request(time.monotonic())
        if self.command != "GET" or "Content-Length" in self.headers:
            self.close_connection = True  # bodies are never read, so nothing can follow one
        if request.path.startswith(PREFIX):
            self._send(self.server.simulator.drill.respond(request, self.client_address[0]))
            return
        response = self.server.simulator.respond(request)
        if self.server.stopping.wait(response.delay_seconds):
            self.close_connection = True
        elif response.after == "reset":
            self._reset()
        elif response.after == "hang":
            self._hang()
        else:
            self._send(response)

    # The base class finds methods by name; all but GET are recorded and refused.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _read_request(self, arrived_at: float) -> RecordedRequest:
        path, _, query = self.path.partition("?")
        route = _route(path)
        return RecordedRequest(
            method=self.command,
            path=path,
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=dict(self.headers.items()),
            account_sid=None if route is None else route.account_sid,
            status=_UNANSWERED,
            at=arrived_at,
        )

    def _send(self, response: Response) -> None:
        """Send the response in one write, so that no part of it waits for an acknowledgement."""
        headers, body = dict(response.headers), response.body
        compressible = body and not response.verbatim
        if compressible and _accepts_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if response.status not in BODILESS:
            self._add_length(headers, len(body))
        if self.command == "HEAD":
            body = b""
        head = [f"HTTP/1.1 {status} {reason_phrase(status)}\r\n" for status in response.interim]
        head += [f"HTTP/1.1 {response.status} {reason_phrase(response.status)}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        head += [f"Date: {self.date_time_string()}", "Server: simulator", "", ""]
        self.wfile.write("\r\n".join(head).encode("latin-1") + body)

    def _add_length(self, headers: dict[str, str], length: int) -> None:
        """Add the length; if a fault sets its own, closing the connection ends the body instead."""
        stated = {name.lower() for name in headers}
        if not stated.isdisjoint(("content-length", "transfer-encoding")):
            self.close_connection = True
        else:
            headers["Content-Length"] = str(length)
        if self.close_connection:
            headers.setdefault("Connection", "close")

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # The base class closes its files next, before the server could send FIN.
        self.connection.close()
        self.close_connection = True

    def _hang(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            while self.connection.recv(4096):  # until the client or `stop` closes it
                pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: stderr belongs to the program under test."""
