"""Slow, many, broken and hostile clients, on real sockets, against the server that users run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from exophone_exporter.server import Limits, Server
from tests.lib.processes import DEADLINE_SECONDS, wait_until
from tests.lib.servers import port_of, rest_of, running_app, tls_contexts

GET: Final = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET: Final = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
GET_HELD: Final = GET.replace(b"/ ", b"/held ", 1)
GET_LARGE: Final = GET.replace(b"/ ", b"/large ", 1)
HIDDEN: Final = GET.replace(b"/ ", b"/hidden ", 1)
LARGE: Final = 16 * 1024 * 1024


def limits(**changes: Any) -> Limits:
    """Deadlines that no test reaches, but for those that it is about."""
    far: dict[str, Any] = {
        "head_seconds": 60.0,
        "keep_alive_seconds": 60,
        "answer_seconds": 60.0,
    }
    return Limits(**far | changes)


@dataclass
class App:
    """Answers every request; `/large` is long, `/held` waits for `let_go`."""

    asked: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    ended: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(f"{scope['method']} {scope['path']}")
        if scope["path"] == "/body":
            await receive()
        if scope["path"] == "/held":
            await asyncio.to_thread(self.let_go.wait, DEADLINE_SECONDS)
        piece = b"x" * (256 * 1024)
        pieces = [piece] * (LARGE // len(piece)) if scope["path"] == "/large" else [b"ok"]
        headers = [(b"content-length", b"%d" % sum(map(len, pieces)))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in pieces:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.ended += 1


@dataclass(frozen=True)
class Site:
    """A running server, and its application; a client ends with the block that opened it."""

    server: Server
    app: App
    opened: contextlib.ExitStack

    def open(
        self, sent: bytes = b"", *, receive_bytes: int = 0, tls: ssl.SSLContext | None = None
    ) -> socket.socket:
        client = socket.socket()
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(DEADLINE_SECONDS)
        client.connect(("127.0.0.1", port_of(self.server)))
        if tls:
            client = tls.wrap_socket(client, server_hostname="localhost")
        self.opened.enter_context(client)
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
        return client

    def ask(self, request: bytes = LAST_GET, tls: ssl.SSLContext | None = None) -> bytes:
        """Everything that comes back until the server closes."""
        with self.open(request, tls=tls) as client:
            return rest_of(client)

    def wait_until_asked(self, times: int = 1) -> None:
        wait_until(lambda: len(self.app.asked) == times, f"{times} requests arrived")

    def wait_until_full(self) -> None:
        """Until an answer waits for its client to read."""
        wait_until(
            lambda: any(
                connection.transport.get_write_buffer_size()
                for connection in [*self.server.server_state.connections]
            ),
            "an answer waits",
        )


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


def close_own_side(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if isinstance(client, ssl.SSLSocket):
        client.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):  # it does not wait for the server's end
            client.unwrap()
        client.settimeout(DEADLINE_SECONDS)
    else:
        client.shutdown(socket.SHUT_WR)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Site]:
    app = App()
    with running_app(app, **options) as server, contextlib.ExitStack() as opened:
        opened.callback(app.let_go.set)
        yield Site(server, app, opened)


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def site(shared: Site) -> Site:
    shared.app.asked.clear()
    return shared


@pytest.fixture(autouse=True)
def log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged; a warning or more, or anything on stderr, is a failure of the test."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert "Traceback" not in caplog.text
    assert capfd.readouterr().err == ""


# --- what a request may be


def headers(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % n for n in range(count))


LINE: Final = b"GET / HTTP/1.1\r\n"
REFUSED: Final = {
    "long-target": (b"GET /" + b"a" * 65521 + b" HTTP/1.1\r\n\r\n", 414),
    "target-without-end": (b"GET /" + b"a" * 300_000, 414),
    "long-header": (LINE + b"X: " + b"a" * 65536 + b"\r\n\r\n", 431),
    "header-without-end": (LINE + b"X: " + b"a" * 900_000, 431),
    "header-name-without-end": (LINE + b"a" * 900_000, 431),
    "101-headers": (LINE + headers(101) + b"\r\n", 431),
    "10000-headers": (LINE + headers(10_000) + b"\r\n", 431),
    "headers-long-together": (LINE + (b"X: " + b"a" * 1000 + b"\r\n") * 70 + b"\r\n", 431),
    "garbage": (b"\x00\xff garbage\r\n\r\n", 400),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    "tls-hello": (bytes.fromhex("16030100c8010000c40303") + b"\x00" * 189, 400),
    "http2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "version-9.9": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "version-2.0": (b"GET / HTTP/2.0\r\n\r\n", 505),
    "version-0.9": (b"GET / HTTP/0.9\r\n\r\n", 505),
    "no-version": (b"GET /\r\n\r\n", 505),
    "no-colon": (LINE + b"no colon\r\n\r\n", 400),
    "connect": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "absolute-form-half-an-address": (b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "both-lengths": (
        LINE + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        400,
    ),
}


@pytest.mark.fault(108, 109, 110, 182)
@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_request_is_refused_and_the_connection_closed(
    site: Site, request_: bytes, status: int
) -> None:
    """With one answer, and nothing is executed."""
    answer = site.ask(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert site.app.asked == []


ANSWERED: Final = {
    "at-its-limits": b"/" + b"a" * 65520 + b" HTTP/1.1\r\n" + headers(98)[:-2],
    "half-an-address": b"//[::1 HTTP/1.1",
    "nul": b"/%00 HTTP/1.1",
    "dots": b"/..%2f HTTP/1.1",
    "absolute-form": b"http://other/metrics HTTP/1.1",
    "50-fields": b"/?" + b"&".join([b"a=b"] * 50) + b" HTTP/1.1",
    "lone-percent": b"/% HTTP/1.1",
}


@pytest.mark.fault(108)
@pytest.mark.fault(109)
@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED)
def test_a_long_or_odd_request_is_answered_however_it_is_cut(site: Site, sent: bytes) -> None:
    whole = b"GET " + sent + b"\r\nHost: x\r\nConnection: close\r\n\r\n"
    pieces = [whole[n : n + 1] for n in range(len(whole))] if len(whole) < 1000 else [whole]
    with site.open() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        answer = rest_of(client)
    assert (answer[9:12], body_of(answer)) == (b"200", b"ok")


CHUNKED: Final = b"Transfer-Encoding: chunked"
WITH_BODY: Final = {
    "body": (b"Content-Length: %d" % len(HIDDEN), HIDDEN),
    "empty-body": (b"Content-Length: 0", HIDDEN),
    "behind-the-body": (b"Content-Length: 5", b"12345" + HIDDEN),
    "behind-the-last-chunk": (CHUNKED, b"0\r\n\r\n" + HIDDEN),
    "behind-200-trailers": (
        CHUNKED,
        b"5\r\n12345\r\n0\r\n" + headers(200) + b"\r\n" + HIDDEN,
    ),
    "bad-chunk": (CHUNKED, b"zz\r\n" + HIDDEN),
    "upgrade": (b"Connection: Upgrade\r\nUpgrade: h2c", HIDDEN),
    "websocket": (b"Connection: Upgrade\r\nUpgrade: websocket", HIDDEN),
    "behind-the-last": (b"Connection: close", HIDDEN),
    "body-that-never-comes": (b"Content-Length: 1000000000\r\nExpect: 100-continue", b""),
}


@pytest.mark.fault(110, 180)
@pytest.mark.parametrize(("head", "body"), WITH_BODY.values(), ids=WITH_BODY)
@pytest.mark.parametrize("together", [True, False], ids=["one", "two"])
def test_nothing_behind_a_head_with_a_body_is_executed(
    site: Site, head: bytes, body: bytes, together: bool
) -> None:
    """One answer that says so, then the end; in one piece or in two."""
    request = b"POST /body HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n"
    with site.open(request + body if together else request) as client:
        first = client.recv(9)
        with contextlib.suppress(ConnectionError):
            client.sendall(b"" if together else body)
        answer = first + rest_of(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert site.app.asked == ["POST /body"]


@pytest.mark.fault(110, 180)
@pytest.mark.parametrize(
    "head", [b"1.1\r\nContent-Length: 9000000", b"1.1\r\nConnection: close", b"1.0"]
)
@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
def test_a_client_that_sends_much_behind_its_last_head_can_read_its_answer(
    head: bytes, with_tls: bool
) -> None:
    """A connection closed over unread data is reset, and a reset discards the answer."""
    server, trusting = tls_contexts(trustme.CA()) if with_tls else (None, None)
    sent = b"POST / HTTP/" + head + b"\r\n\r\n"
    with serving(tls=server) as site, site.open(sent, tls=trusting) as client:
        for _ in range(64):
            client.sendall(b"x" * 65536)
        assert client.recv(12) == b"HTTP/1.1 200"


@pytest.mark.fault(180)
@pytest.mark.parametrize("behind", [LAST_GET + HIDDEN, b"\x00garbage\r\n\r\n"])
def test_requests_are_not_pipelined(site: Site, behind: bytes) -> None:
    """The answer under way comes whole, is the last, and says so."""
    answer = site.ask(GET_LARGE + behind)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert body_of(answer) == b"x" * LARGE
    assert site.app.asked == ["GET /large"]


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.fault(180)
def test_clients_that_pipeline_hold_no_memory() -> None:
    """30 of them, each with 256 KiB of requests behind an answer that it does not read."""
    behind = b"GET / HTTP/1.1\r\n\r\n" * (256 * 1024 // 18)
    with serving() as site:
        site.ask()
        before = resident_kib()
        for _ in range(30):
            site.open(GET_HELD + behind, receive_bytes=4096)
        site.wait_until_asked(31)
        assert body_of(site.ask()) == b"ok"
        assert resident_kib() - before < 16 * 1024
        site.app.let_go.set()
        wait_until(lambda: site.app.ended == 32, "all were answered")
    assert set(site.app.asked) == {"GET /", "GET /held"}


@pytest.mark.fault(181)
@pytest.mark.parametrize(
    ("request_", "with_tls"),
    [(GET_HELD, False), (GET_LARGE, False), (GET_HELD, True)],
    ids=["held", "large", "tls"],
)
def test_a_client_that_has_closed_its_own_side_is_answered(request_: bytes, with_tls: bool) -> None:
    """As by `nc -N`, or `openssl s_client` where its input ends."""
    server, trusting = tls_contexts(trustme.CA()) if with_tls else (None, None)
    with serving(tls=server) as site, site.open(request_, tls=trusting) as client:
        close_own_side(client)
        site.wait_until_asked()
        site.ask(tls=trusting)  # the server has seen the end of what the client sends by then
        site.app.let_go.set()
        answer = rest_of(client)
    assert b"\r\nconnection: close\r\n" in answer or request_ == GET_LARGE
    assert len(body_of(answer)) == (LARGE if request_ == GET_LARGE else 2)


# --- how long it may take


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    ("sent", "deadline"),
    [
        pytest.param(b"", {"head_seconds": 0.3}, id="nothing"),
        pytest.param(b"GET / HT", {"head_seconds": 0.3}, id="half-a-line"),
        pytest.param(LINE + b"Host: x\r\n", {"head_seconds": 0.3}, id="half-a-head"),
        pytest.param(b"\r\n\r\n", {"head_seconds": 0.3}, id="empty-lines"),
        pytest.param(GET, {"keep_alive_seconds": 1}, id="kept-alive"),
        pytest.param(GET + b"GET / HT", {"head_seconds": 0.3}, id="half-a-second-head"),
        pytest.param(GET + LINE, {"head_seconds": 0.3}, id="half-a-second-head-in-lines"),
    ],
)
def test_a_connection_without_a_whole_request_ends_after_its_deadline_and_not_before(
    sent: bytes, deadline: dict[str, float]
) -> None:
    with serving(limits=limits(**deadline)) as site, site.open() as client:
        began, answer = time.monotonic(), b""
        if sent.startswith(GET):
            client.sendall(GET)
            answer = client.recv(65536)
        client.sendall(sent.removeprefix(GET))
        answer += rest_of(client)
        ended = time.monotonic()
    # libuv counts whole milliseconds, cut off
    assert ended - began >= max(deadline.values()) - 0.001
    assert answer.count(b"HTTP/1.1 200 ") == sent.count(GET)


@pytest.mark.fault(106)
def test_a_client_that_drips_its_request_does_not_move_the_deadline() -> None:
    """Slowloris: a byte now and then is not progress."""
    with serving(limits=limits(head_seconds=0.3)) as site, site.open(LINE) as client:

        def ended() -> bool:
            with contextlib.suppress(ConnectionError):
                client.send(b"a")
            return is_closed_by_server(client)

        wait_until(ended, "the server ends the connection")


@pytest.mark.fault(106)
@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"], ids=["kept", "last"])
@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("piece_bytes", [0, 16 * 1024], ids=["nothing", "slowly"])
def test_a_client_that_has_not_read_its_answer_in_time_is_cut_off(
    closing: bytes, with_tls: bool, piece_bytes: int
) -> None:
    """A piece now and then does not move the end."""
    server, client = tls_contexts(trustme.CA()) if with_tls else (None, None)
    with serving(limits=limits(answer_seconds=0.5), tls=server) as site:
        opened = site.open(receive_bytes=4096, tls=client)
        opened.sendall(GET_LARGE[:-2] + closing + b"\r\n")
        read = [b""]

        def has_ended() -> bool:
            if piece_bytes:
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    read.append(opened.recv(piece_bytes))
            return site.app.ended == 1

        wait_until(has_ended, "the application's answer ended")
        assert len(b"".join(read) + rest_of(opened)) < LARGE
        assert site.server.refused_clients.counts()["slow_response"] == 1


@pytest.mark.fault(106)
def test_an_answer_that_the_application_does_not_give_in_time_ends_the_connection() -> None:
    with serving(limits=limits(answer_seconds=0.3)) as site:
        assert site.ask(GET_HELD) == b""


@pytest.mark.fault(106)
def test_a_client_that_reads_slowly_gets_every_byte() -> None:
    """However often it pauses, within the time that an answer has."""
    with serving() as site:
        client, answer = site.open(GET_LARGE[:-2] + b"Connection: close\r\n\r\n"), b""
        while piece := client.recv(256 * 1024):
            answer += piece
            time.sleep(0.02)
        assert len(body_of(answer)) == LARGE


# --- clients that leave


@pytest.mark.fault(111)
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "fin"])
@pytest.mark.parametrize("request_", [GET_LARGE, GET_HELD], ids=["while-written", "before"])
def test_a_client_that_leaves_is_a_debug_line_only(
    log: pytest.LogCaptureFixture, request_: bytes, reset: bool
) -> None:
    with serving() as site:
        with site.open(request_, receive_bytes=4096) as client:
            site.wait_until_asked()
            if request_ == GET_LARGE:
                site.wait_until_full()
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reset or request_ == GET_LARGE:  # else it may still be reading
            wait_until(lambda: "client left before" in log.text, "the server noticed")
        site.app.let_go.set()
        wait_until(lambda: site.app.ended, "the application's answer ended")


# --- many clients


@pytest.mark.fault(106)
@pytest.mark.fault(107)
def test_idle_and_half_sent_connections_make_room_the_oldest_first() -> None:
    """So that they never keep a scrape waiting."""
    with serving(limits=limits(connections=64)) as site:
        opened = [site.open(LINE[: n % 2 * 99]) for n in range(200)]
        assert site.ask().startswith(b"HTTP/1.1 200 ")
        assert [rest_of(client) for client in opened[: 200 - 63]] == [b""] * (200 - 63)
        assert not any(is_closed_by_server(client) for client in opened[200 - 63 :])


@pytest.mark.fault(107)
def test_a_kept_alive_connection_makes_room_after_those_that_waited_longer() -> None:
    with serving(limits=limits(connections=2)) as site:
        asking, silent = site.open(), site.open()
        asking.sendall(GET)
        wait_until(lambda: site.app.ended, "the first was answered")
        assert site.ask().startswith(b"HTTP/1.1 200 ")
        assert rest_of(silent) == b""
        site.open()
        assert site.ask().startswith(b"HTTP/1.1 200 ")
        assert rest_of(asking).count(b"HTTP/1.1 200 ") == 1


@pytest.mark.fault(107)
def test_connections_make_room_idle_ones_first_and_the_longest_answered_last() -> None:
    """So a new client is never refused, whatever the others do."""
    with serving(limits=limits(connections=3)) as site:

        def opened(request: bytes) -> socket.socket:
            asked = len(site.app.asked) + bool(request)
            client = site.open(request, receive_bytes=4096)
            site.wait_until_asked(asked)
            return client

        def assert_served() -> None:
            assert body_of(site.ask()) == b"ok"
            wait_until(lambda: len(site.server.server_state.connections) < 3, "it has left")

        held = [opened(GET_HELD)]
        unread = [opened(GET_LARGE)]
        idle = opened(b"")
        assert_served()
        assert rest_of(idle) == b""
        unread.append(opened(GET_LARGE))
        assert_served()
        assert len(rest_of(unread[0])) < LARGE
        unread.append(opened(GET_LARGE))
        held += [opened(GET_HELD), opened(GET_HELD)]
        assert all(len(rest_of(client)) < LARGE for client in unread[1:])
        assert_served()
        assert rest_of(held[0]) == b""
        assert not any(is_closed_by_server(client) for client in held[1:])
        assert site.server.refused_clients.counts()["too_many_connections"] == 5


@pytest.mark.fault(107)
def test_connections_that_end_before_they_are_made_leave_nothing_behind() -> None:
    """Each of a burst of clients ends the one before it, which the server may not have set up."""
    with serving(limits=limits(connections=1)) as site:
        clients = [site.open(b"") for _ in range(200)]
        assert [rest_of(client) for client in clients[:-1]] == [b""] * 199
        wait_until(lambda: len(site.server.server_state.connections) == 1, "one is left")
        assert body_of(site.ask()) == b"ok"


@pytest.mark.fault(107, 181)
@pytest.mark.parametrize("request_", [GET_LARGE, GET_LARGE * 100], ids=["one", "pipelined"])
def test_clients_that_read_nothing_keep_nobody_out(request_: bytes) -> None:
    with serving(limits=limits(connections=64)) as site:
        for _ in range(10):
            for _ in range(20):
                site.open(request_, receive_bytes=4096)
            assert body_of(site.ask()) == b"ok"


# --- TLS


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    "sent", [b"", bytes.fromhex("16030100c8010000c40303")], ids=["nothing", "half-a-hello"]
)
def test_a_client_that_does_not_finish_the_handshake_is_cut_off(sent: bytes) -> None:
    server, _ = tls_contexts(trustme.CA())
    with serving(tls=server, limits=limits(head_seconds=0.3)) as site:
        assert site.ask(sent) == b""


@pytest.mark.fault(106)
@pytest.mark.fault(107)
def test_connections_without_a_handshake_delay_no_scrape_and_make_room() -> None:
    """They count from the moment they are accepted."""
    server, client = tls_contexts(trustme.CA())
    with serving(tls=server, limits=limits(connections=16)) as site:
        silent = [site.open() for _ in range(15)]
        assert body_of(site.ask(tls=client)) == b"ok"  # these wait now
        silent += [site.open() for _ in range(100)]
        assert body_of(site.ask(tls=client)) == b"ok"
        assert [rest_of(each) for each in silent[:100]] == [b""] * 100
        assert not any(is_closed_by_server(each) for each in silent[100:])


@pytest.mark.fault(106)
def test_after_the_handshake_the_head_has_its_deadline() -> None:
    server, client = tls_contexts(trustme.CA())
    with serving(tls=server, limits=limits(head_seconds=0.3, answer_seconds=0.3)) as site:
        assert site.ask(LINE, tls=client) == b""
