"""Slow, many, broken and hostile clients, on real sockets, against the server that users run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trustme

from exophone_exporter.server import Limits
from exophone_exporter.server.tls import Tls
from tests.lib.processes import DEADLINE_SECONDS, environment, wait_until
from tests.lib.servers import port_of, rest_of, running_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exophone_exporter.server import Server

GET: Final = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET: Final = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LARGE: Final = 16 * 1024 * 1024
# Deadlines short enough for a test, and those that it is not about far away.
PATIENT: Final[dict[str, Any]] = {
    "head_seconds": 60.0,
    "handshake_seconds": 60.0,
    "keep_alive_seconds": 60,
    "write_seconds": 60.0,
}


@dataclass
class App:
    """Answers every request; `/large` is long, `/held` waits to be let go."""

    asked: list[str] = field(default_factory=list)
    schemes: set[str] = field(default_factory=set)
    held: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)
    ended: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(f"{scope['method']} {scope['path']}")
        self.schemes.add(scope["scheme"])
        if scope["path"] == "/body":
            await receive()
        if scope["path"] == "/held":
            self.held += 1
            await asyncio.to_thread(self.let_go.wait, DEADLINE_SECONDS)
        piece = b"x" * (256 * 1024)
        pieces = [piece] * (LARGE // len(piece)) if scope["path"] == "/large" else [b"ok"]
        length = b"%d" % sum(map(len, pieces))
        headers = [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in pieces:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.ended += 1


@dataclass(frozen=True)
class Site:
    """A running server, and its application."""

    server: Server
    app: App

    def open(self, receive_bytes: int = 0) -> socket.socket:
        client = socket.socket()
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(DEADLINE_SECONDS)
        client.connect(("127.0.0.1", port_of(self.server)))
        return client

    def ask(self, request: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        with self.open() as client:
            client.sendall(request)
            return rest_of(client)

    def ask_tls(self, context: ssl.SSLContext) -> bytes:
        with (
            self.open() as client,
            context.wrap_socket(client, server_hostname="localhost") as wrapped,
        ):
            wrapped.sendall(LAST_GET)
            return rest_of(wrapped)


def is_closed_by_server(client: socket.socket) -> bool:
    """Whether the server has ended the connection; asks without waiting."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        client.settimeout(DEADLINE_SECONDS)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Site]:
    app = App()
    with running_app(app, **options) as server:
        try:
            yield Site(server, app)
        finally:
            app.let_go.set()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged; a warning or more is a failure of the test."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == []


@pytest.fixture
def clients() -> Iterator[contextlib.ExitStack]:
    """Closes every client that a test opened."""
    with contextlib.ExitStack() as opened:
        yield opened


# --- what a request may be


def headers(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % n for n in range(count))


@pytest.mark.fault(108)
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"GET /" + b"a" * 65521 + b" HTTP/1.1\r\n\r\n", b"414", id="long-target"),
        pytest.param(b"GET /" + b"a" * 300_000, b"414", id="target-without-end"),
        pytest.param(
            b"GET / HTTP/1.1\r\nX: " + b"a" * 65536 + b"\r\n\r\n", b"431", id="long-header"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 900_000, b"431", id="header-without-end"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a" * 900_000, b"431", id="header-name-without-end"),
        pytest.param(b"GET / HTTP/1.1\r\n" + headers(101) + b"\r\n", b"431", id="101-headers"),
        pytest.param(b"GET / HTTP/1.1\r\n" + headers(10_000) + b"\r\n", b"431", id="10000-headers"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 70 + b"\r\n",
            b"431",
            id="headers-long-together",
        ),
        pytest.param(b"\x00\xff garbage\r\n\r\n", b"400", id="garbage"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", b"400", id="ssh"),
        pytest.param(
            bytes.fromhex("16030100c8010000c40303") + b"\x00" * 189, b"400", id="tls-hello"
        ),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400", id="http2-preface"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", b"400", id="version-9.9"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", b"505", id="version-2.0"),
        pytest.param(b"GET / HTTP/0.9\r\n\r\n", b"505", id="version-0.9"),
        pytest.param(b"GET /\r\n\r\n", b"505", id="no-version"),
        pytest.param(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400", id="no-colon"),
    ],
)
@pytest.mark.usefixtures("log")
def test_what_is_no_request_is_refused_and_the_connection_closed(
    site: Site, request_: bytes, status: bytes
) -> None:
    """In time, with one answer, nothing executed, nothing on stderr."""
    before = len(site.app.asked)
    answer = site.ask(request_)
    assert answer.startswith(b"HTTP/1.1 " + status + b" ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert site.app.asked[before:] == []


@pytest.mark.fault(108)
def test_a_request_at_its_limits_is_answered(site: Site) -> None:
    """64 KiB of a first line, 100 headers."""
    target = b"/" + b"a" * 65520
    request = b"GET " + target + b" HTTP/1.1\r\n" + headers(99) + b"Connection: close\r\n\r\n"
    assert site.ask(request).startswith(b"HTTP/1.1 200 ")


def test_a_target_and_headers_in_small_pieces_are_one_request(site: Site) -> None:
    """However the network cuts it."""
    with site.open() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LAST_GET:
            client.send(bytes([byte]))
        assert rest_of(client).endswith(b"\r\n\r\nok")


@pytest.mark.fault(109)
@pytest.mark.parametrize(
    ("target", "statuses"),
    [
        pytest.param(b"//[::1", {b"200", b"400"}, id="half-an-address"),
        pytest.param(b"/%00", {b"200"}, id="nul"),
        pytest.param(b"/..%2f", {b"200"}, id="dots"),
        pytest.param(b"http://other/metrics", {b"200"}, id="absolute-form"),
        pytest.param(b"http://other", {b"200", b"400"}, id="absolute-form-without-path"),
        pytest.param(b"http://[::1", {b"400"}, id="absolute-form-half-an-address"),
        pytest.param(b"/?" + b"&".join(b"a=b" for _ in range(50)), {b"200"}, id="50-fields"),
        pytest.param(b"*", {b"200", b"400"}, id="asterisk"),
        pytest.param(b"/\xff\xfe", {b"200", b"400"}, id="bytes"),
        pytest.param(b"/%", {b"200"}, id="lone-percent"),
    ],
)
@pytest.mark.usefixtures("log")
def test_an_odd_target_is_answered_without_a_traceback(
    site: Site, target: bytes, statuses: set[bytes]
) -> None:
    """Which paths there are is for the routes to say; here nothing may break."""
    answer = site.ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer[9:12] in statuses


@pytest.mark.fault(109)
@pytest.mark.usefixtures("log")
def test_connect_is_no_method_here(
    site: Site,
) -> None:
    """The program is not a proxy."""
    answer = site.ask(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


HIDDEN: Final = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.fault(110)
@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param(b"Content-Length: %d" % len(HIDDEN), HIDDEN, id="body"),
        pytest.param(b"Content-Length: 0", HIDDEN, id="empty-body"),
        pytest.param(b"Content-Length: 5", b"12345" + HIDDEN, id="behind-the-body"),
        pytest.param(
            b"Transfer-Encoding: chunked", b"0\r\n\r\n" + HIDDEN, id="behind-the-last-chunk"
        ),
        pytest.param(
            b"Transfer-Encoding: chunked",
            b"5\r\n12345\r\n0\r\n" + headers(200) + b"\r\n" + HIDDEN,
            id="behind-200-trailers",
        ),
        pytest.param(b"Transfer-Encoding: chunked", b"zz\r\n" + HIDDEN, id="bad-chunk"),
        pytest.param(b"Connection: Upgrade\r\nUpgrade: h2c", HIDDEN, id="upgrade"),
        pytest.param(b"Connection: Upgrade\r\nUpgrade: websocket", HIDDEN, id="websocket"),
        pytest.param(b"Connection: close", HIDDEN, id="behind-the-last"),
    ],
)
@pytest.mark.parametrize("at_once", [pytest.param(True, id="one"), pytest.param(False, id="two")])
@pytest.mark.usefixtures("log")
def test_what_stands_behind_a_head_with_a_body_is_not_executed(
    site: Site, head: bytes, body: bytes, at_once: bool
) -> None:
    """One answer that says so, then the end; in one piece or in two."""
    before = len(site.app.asked)
    request = b"POST /body HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n"
    with site.open() as client:
        client.sendall(request + body if at_once else request)
        first = client.recv(9)
        with contextlib.suppress(ConnectionError):
            client.sendall(b"" if at_once else body)
        answer = first + rest_of(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert site.app.asked[before:] == ["POST /body"]


@pytest.mark.fault(110)
def test_both_lengths_at_once_are_refused(site: Site) -> None:
    """The oldest way to smuggle a request."""
    answer = site.ask(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n" + HIDDEN
    )
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "GET /hidden" not in site.app.asked


@pytest.mark.fault(110)
def test_a_body_is_not_waited_for(site: Site) -> None:
    """Nor asked for with 100 Continue; 1 GB is announced and the answer comes immediately."""
    answer = site.ask(
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.fault(110)
def test_a_client_that_sends_a_long_body_can_read_its_answer(site: Site) -> None:
    """A connection closed over unread data is reset, and a reset discards the answer."""
    with site.open() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(64):
            client.sendall(b"x" * 65536)
        assert client.recv(12) == b"HTTP/1.1 200"


@pytest.mark.fault(107)
@pytest.mark.usefixtures("log")
def test_requests_are_not_pipelined(site: Site) -> None:
    """The answer under way is the last, and says so; nothing behind its request is executed."""
    before = len(site.app.asked)
    answer = site.ask(GET + LAST_GET + HIDDEN)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert site.app.asked[before:] == ["GET /"]


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.fault(107)
@pytest.mark.usefixtures("log")
def test_clients_that_pipeline_hold_no_memory(clients: contextlib.ExitStack) -> None:
    """30 of them, each with 256 KiB of requests behind an answer that it does not read."""
    behind = b"GET / HTTP/1.1\r\n\r\n" * (256 * 1024 // 18)
    with serving() as site:
        site.ask(LAST_GET)
        before = resident_kib()
        for _ in range(30):
            client = clients.enter_context(site.open(receive_bytes=4096))
            client.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + behind)
        wait_until(lambda: len(site.app.asked) == 31, "every request arrived")
        assert site.ask(LAST_GET).endswith(b"\r\n\r\nok")
        assert resident_kib() - before < 16 * 1024
        site.app.let_go.set()
        wait_until(lambda: site.app.ended == 32, "all were answered")
    assert set(site.app.asked) == {"GET /", "GET /held"}


@pytest.mark.parametrize("path", [b"/held", b"/large"])
def test_a_client_that_has_closed_its_own_side_is_answered(path: bytes) -> None:
    """As by `nc -N`."""
    with serving() as site, site.open() as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: site.app.asked, "the request arrived")
        threading.Event().wait(0.05)  # the end of what the client sends arrived, too
        site.app.let_go.set()
        answer = rest_of(client)
    assert b"\r\nconnection: close\r\n" in answer or path == b"/large"
    assert len(answer.partition(b"\r\n\r\n")[2]) == (LARGE if path == b"/large" else 2)


@pytest.mark.usefixtures("log")
def test_garbage_behind_a_request_does_not_break_its_answer(
    site: Site,
) -> None:
    """The answer that is owed comes whole, and is the last."""
    answer = site.ask(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n\x00garbage\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE


# --- how long it may take


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HT", id="half-a-line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n", id="half-a-head"),
        pytest.param(b"\r\n\r\n", id="empty-lines"),
        pytest.param(GET, id="kept-alive"),
        pytest.param(GET + b"GET / HT", id="half-a-second-head"),
        pytest.param(GET + b"GET / HTTP/1.1\r\n", id="half-a-second-head-in-lines"),
    ],
)
@pytest.mark.usefixtures("log")
def test_a_client_that_sends_no_whole_request_is_left(sent: bytes) -> None:
    """After the head's deadline, or the one of a kept-alive connection; and not before."""
    limits = Limits(**PATIENT | {"head_seconds": 0.3, "keep_alive_seconds": 1})
    with serving(limits=limits) as site, site.open() as client:
        began, answer = time.monotonic(), b""
        if sent.startswith(GET):
            client.sendall(GET)
            answer = client.recv(65536)
        client.sendall(sent.removeprefix(GET))
        answer += rest_of(client)
        took = time.monotonic() - began
    assert answer.count(b"HTTP/1.1 200 ") == sent.count(GET)
    least, most = (1.0, 2.0) if sent.endswith(b"\r\n\r\n") and GET in sent else (0.3, 0.95)
    assert least <= took < most


@pytest.mark.fault(106)
def test_a_client_that_drips_its_request_does_not_move_the_deadline() -> None:
    """Slowloris: a byte now and then is not progress."""
    with serving(limits=Limits(**PATIENT | {"head_seconds": 0.3})) as site, site.open() as client:
        began = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\n")

        def ended() -> bool:
            with contextlib.suppress(ConnectionError):
                client.send(b"a")
            return is_closed_by_server(client)

        wait_until(ended, "the server ends the connection")
        assert time.monotonic() - began < 2.0


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    "closing", [pytest.param(b"", id="kept"), pytest.param(b"Connection: close\r\n", id="last")]
)
@pytest.mark.parametrize(
    "with_tls", [pytest.param(False, id="plain"), pytest.param(True, id="tls")]
)
@pytest.mark.usefixtures("log")
def test_a_client_that_reads_nothing_is_cut_off(
    certificates: Certificates, closing: bytes, with_tls: bool
) -> None:
    """And what was held for it is let go."""
    limits = Limits(**PATIENT | {"write_seconds": 0.3})
    tls = certificates.server if with_tls else None
    with serving(limits=limits, tls=tls) as site, contextlib.ExitStack() as opened:
        client = opened.enter_context(site.open(receive_bytes=4096))
        if with_tls:
            client = opened.enter_context(
                certificates.client.wrap_socket(client, server_hostname="localhost")
            )
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n" + closing + b"\r\n")
        wait_until(lambda: site.app.ended, "the application's answer ended")
        assert len(rest_of(client)) < LARGE


@pytest.mark.fault(106)
def test_a_client_that_reads_slowly_gets_every_byte() -> None:
    """Progress counts, not speed: the answer takes several times what one write may take."""
    limits = Limits(**PATIENT | {"write_seconds": 0.5})
    with serving(limits=limits) as site, site.open(receive_bytes=65536) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        began, received, turn = time.monotonic(), 0, threading.Event()
        while piece := client.recv(256 * 1024):
            received += len(piece)
            turn.wait(0.008 if time.monotonic() - began < 1.5 else 0)
        assert time.monotonic() - began > 1.0
        assert received > LARGE


# --- clients that leave


@pytest.mark.fault(111)
@pytest.mark.parametrize("reset", [pytest.param(True, id="reset"), pytest.param(False, id="fin")])
@pytest.mark.parametrize(
    "path", [pytest.param(b"/large", id="while-written"), pytest.param(b"/held", id="before")]
)
def test_a_client_that_leaves_is_a_debug_line_only(
    log: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    path: bytes,
    reset: bool,
) -> None:
    with serving() as site:
        with site.open(receive_bytes=4096) as client:
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: site.app.asked, "the request arrived")
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reset or path == b"/large":  # else it may still be reading
            wait_until(lambda: "client left before" in log.text, "the server noticed")
        site.app.let_go.set()
        wait_until(lambda: site.app.ended, "the application's answer ended")
    assert "Traceback" not in log.text
    assert capfd.readouterr().err == ""


# --- many clients


@pytest.mark.fault(107)
@pytest.mark.usefixtures("log")
def test_a_thousand_open_connections_do_not_keep_a_scrape_waiting(
    clients: contextlib.ExitStack,
) -> None:
    """The longest idle ones are ended; no more than the limit are open.

    Both ends live in this process, which may have only 1,024 files: the first clients close, too.
    """
    with serving(limits=Limits(**PATIENT, connections=64)) as site:
        opened = [clients.enter_context(site.open()) for _ in range(500)]
        for client in opened[:400]:
            assert rest_of(client) == b""
            client.close()
        opened += [clients.enter_context(site.open()) for _ in range(500)]
        for client in opened[500:]:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        assert site.ask(LAST_GET).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < PATIENT["head_seconds"] / 2
        is_open = [not is_closed_by_server(client) for client in opened[400:]]
    assert is_open == [False] * (600 - 63) + [True] * 63


@pytest.mark.fault(106)
def test_200_idle_and_200_half_sent_connections_do_not_delay_a_scrape(
    clients: contextlib.ExitStack,
) -> None:
    with serving() as site:
        for n in range(400):
            client = clients.enter_context(site.open())
            client.sendall(b"GET / HTTP/1.1\r\nHo" if n % 2 else GET)
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert site.ask(LAST_GET).startswith(b"HTTP/1.1 200 ")
            took.append(time.monotonic() - began)
    assert min(took) < 0.05


@pytest.mark.fault(107)
def test_kept_alive_connections_make_room() -> None:
    """They wait for a request like those that never sent one."""
    with serving(limits=Limits(**PATIENT, connections=1)) as site, site.open() as kept:
        kept.sendall(GET)
        wait_until(lambda: site.app.ended, "it was answered")
        assert site.ask(LAST_GET).startswith(b"HTTP/1.1 200 ")
        assert rest_of(kept).count(b"HTTP/1.1 200 ") == 1


@pytest.mark.fault(107)
def test_a_connection_that_was_answered_waits_behind_those_that_waited_longer() -> None:
    """The longest waiting one goes first: here the one that never asked."""
    with (
        serving(limits=Limits(**PATIENT, connections=2)) as site,
        site.open() as asking,
        site.open() as silent,
    ):
        asking.sendall(GET)
        wait_until(lambda: site.app.ended, "the first was answered")
        assert site.ask(LAST_GET).startswith(b"HTTP/1.1 200 ")
        assert rest_of(silent) == b""
        asking.sendall(LAST_GET)
        assert rest_of(asking).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.fault(107)
@pytest.mark.usefixtures("log")
def test_where_every_connection_is_being_answered_the_newest_is_told_to_come_back(
    clients: contextlib.ExitStack,
) -> None:
    """503 with Retry-After; and past the room for refusals, the end without a word."""
    limits = Limits(**PATIENT, connections=3, refusals=2)
    with serving(limits=limits) as site:
        held = [clients.enter_context(site.open()) for _ in range(3)]
        for client in held:
            client.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: site.app.held == 3, "all are being answered")
        refused = site.ask(GET)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in refused
        assert b"\r\nconnection: close\r\n" in refused
        wait_until(lambda: site.ask(GET).startswith(b"HTTP/1.1 503 "), "room to refuse again")
        for _ in range(2):
            clients.enter_context(site.open())
        with site.open() as third:
            assert rest_of(third) == b""
        site.app.let_go.set()
        assert all(rest_of(client).startswith(b"HTTP/1.1 200 ") for client in held)
    assert site.app.asked == ["GET /held"] * 3


# --- TLS


@dataclass(frozen=True)
class Certificates:
    """Contexts of a server, a client that trusts it, and a client that shows a certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    known: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    server.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(server)
    client, known = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    authority.configure_trust(client)
    authority.configure_trust(known)
    authority.issue_cert("scraper.example").configure_cert(known)
    return Certificates(server, client, known)


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes.fromhex("16030100c8010000c40303"), id="half-a-hello"),
    ],
)
@pytest.mark.usefixtures("log")
def test_clients_that_do_not_finish_the_handshake_delay_nobody_and_end(
    clients: contextlib.ExitStack,
    certificates: Certificates,
    sent: bytes,
) -> None:
    limits = Limits(**PATIENT | {"handshake_seconds": 2.0})
    with serving(tls=certificates.server, limits=limits) as site:
        silent = [clients.enter_context(site.open()) for _ in range(200)]
        for client in silent:
            client.sendall(sent)
        began = time.monotonic()
        assert site.ask_tls(certificates.client).endswith(b"\r\n\r\nok")
        assert time.monotonic() - began < 1.5
        assert [rest_of(client) for client in silent] == [b""] * 200


@pytest.mark.fault(107)
@pytest.mark.usefixtures("log")
def test_connections_without_a_handshake_make_room(
    clients: contextlib.ExitStack,
    certificates: Certificates,
) -> None:
    """They count from the moment they are accepted."""
    limits = Limits(**PATIENT, connections=16)
    with serving(tls=certificates.server, limits=limits) as site:
        silent = [clients.enter_context(site.open()) for _ in range(15)]
        assert site.ask_tls(certificates.client).endswith(b"\r\n\r\nok")  # these wait now
        silent += [clients.enter_context(site.open()) for _ in range(100)]
        assert site.ask_tls(certificates.client).endswith(b"\r\n\r\nok")
        assert [rest_of(client) for client in silent[:100]] == [b""] * 100
        assert not any(is_closed_by_server(client) for client in silent[100:])


@pytest.mark.fault(106)
def test_after_the_handshake_the_head_has_its_deadline(certificates: Certificates) -> None:
    limits = Limits(**PATIENT | {"head_seconds": 0.3, "write_seconds": 0.3})
    with (
        serving(tls=certificates.server, limits=limits) as site,
        site.open() as client,
        certificates.client.wrap_socket(client, server_hostname="localhost") as wrapped,
    ):
        wrapped.sendall(b"GET / HTTP/1.1\r\n")
        assert rest_of(wrapped) == b""


@pytest.mark.fault(108)
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(GET, id="http"),
        pytest.param(b"\x00" * 100, id="garbage"),
        pytest.param(bytes.fromhex("16030300050100000100"), id="bad-hello"),
    ],
)
def test_what_is_no_tls_is_closed_quietly(
    certificates: Certificates,
    log: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    sent: bytes,
) -> None:
    with serving(tls=certificates.server) as site:
        assert b"HTTP" not in site.ask(sent)
        with site.open() as client:  # one that leaves in the middle
            client.sendall(sent[:4])
        assert site.ask_tls(certificates.client).endswith(b"\r\n\r\nok")
    assert "Traceback" not in log.text
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("log")
def test_a_client_is_served_only_if_its_certificate_is_accepted(
    certificates: Certificates,
) -> None:
    """And the application knows the scheme."""
    one_name = Tls(certificates.server, ("scraper.example",))
    with serving(tls=lambda: one_name) as site:
        assert site.ask_tls(certificates.known).startswith(b"HTTP/1.1 200 ")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert site.ask_tls(certificates.client) == b""
        assert site.app.asked == ["GET /"]
        assert site.app.schemes == {"https"}


# --- out of descriptors

_SHORT_OF_DESCRIPTORS: Final = """
import logging, os, resource, sys, threading
from exophone_exporter import logs
from exophone_exporter.server import open_server

async def app(scope, receive, send):
    body = b"%.3f" % sum(os.times()[:2])
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

logs.configure("info", "logfmt")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
server = open_server(app, addresses=["127.0.0.1:0"])
print(server.urls[0].rpartition(":")[2], flush=True)
kept = []
def take_the_rest():
    while True:
        try:
            kept.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return
def obey():
    for line in sys.stdin:
        if line == "take\\n":
            take_the_rest()
        else:
            while kept:
                os.close(kept.pop())
        print("done", flush=True)
threading.Thread(target=obey, daemon=True).start()
server.run()
"""


@contextlib.contextmanager
def short_of_descriptors() -> Iterator[tuple[subprocess.Popen[str], int, Callable[[str], None]]]:
    """A server that may open 64 files; `tell` makes it take the rest of them, or let go."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SHORT_OF_DESCRIPTORS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def tell(word: str) -> None:
            stdin.write(f"{word}\n")
            stdin.flush()
            assert stdout.readline() == "done\n"

        try:
            yield process, int(stdout.readline()), tell
        finally:
            process.terminate()


def cpu_seconds(port: int) -> float:
    """What the server says that it used, as its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as client:
        client.sendall(LAST_GET)
        return float(rest_of(client).rpartition(b"\r\n\r\n")[2])


@pytest.mark.fault(130)
def test_out_of_descriptors_the_server_rests_and_recovers_and_says_so_once(
    clients: contextlib.ExitStack,
) -> None:
    """Clients that came in between are answered afterwards; the loop did not spin."""
    with short_of_descriptors() as (process, port, tell):
        before = cpu_seconds(port)
        tell("take")
        waiting = [
            clients.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS))
            for _ in range(5)
        ]
        for client in waiting:
            client.sendall(LAST_GET)
            client.settimeout(0.2)
        for client in waiting:
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(DEADLINE_SECONDS)
        tell("let go")
        assert all(rest_of(client).startswith(b"HTTP/1.1 200 ") for client in waiting)
        used = cpu_seconds(port) - before
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert used < 0.2  # of one second
    assert len(re.findall("too many open files; accepting is paused", said)) == 1
    assert "ulimit -n" in said
    assert "Traceback" not in said


@pytest.mark.fault(130)
def test_idle_connections_make_room_where_descriptors_run_out(
    clients: contextlib.ExitStack,
) -> None:
    """A limit of open files below the cap does not shut scrapers out."""
    with short_of_descriptors() as (_, port, _):
        for _ in range(150):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS))
        assert cpu_seconds(port) > 0


@pytest.mark.fault(133)
def test_descriptors_are_as_before_after_many_clients() -> None:
    """Whole, half, refused and reset ones."""
    with serving() as site:
        site.ask(LAST_GET)

        def connections() -> int:
            return len(site.server.server_state.connections)

        for n in range(400):
            with site.open() as client:
                client.sendall((LAST_GET, b"GET / HT", b"\x00\r\n\r\n", GET)[n % 4])
                if n % 3 == 0:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: connections() == 0, "every connection is gone")
