"""The client against everything that can go wrong on the wire, with real sockets."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gc
import gzip
import json
import re
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from exophone_exporter import __version__
from exophone_exporter.clock import Clock
from exophone_exporter.errors import DeadlinePassed, PollError, TimedOut
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.rate_limiter import RateLimiter
from tests.lib.fault_server import (
    CHUNKED,
    HEAD,
    Conversation,
    FaultServer,
    answering,
    dripping,
    flooding,
    ok,
    saying,
    saying_then_reset,
    saying_then_silence,
)
from tests.lib.support import CountingRecorder, account, closed_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exophone_exporter.exotel.model import Page

    Script = Callable[[Conversation], None]

MIB = 1024 * 1024
# acme-key:acme-token
AUTHORIZATION = "Authorization: Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="
LIST = b'{"page": 0, "next_page_uri": null, "incoming_phone_numbers": [{"sid": "a"}]}'


class Asker:
    """A client with short timeouts that does not sleep before a retry."""

    def __init__(self, origin: str, **settings: Any) -> None:
        self.recorder = CountingRecorder()
        self.slept: list[float] = []
        clock = Clock()
        settings = {"timeout_seconds": 1.0, "deadline_seconds": 5.0} | settings
        self.client = Client(
            account=account(origin=origin, **settings),
            budget=RateLimiter(1000, clock.monotonic),
            recorder=self.recorder,
            clock=clock,
            sleep=self._sleep,
            uniform=lambda _, high: high,
        )

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)

    def page(self) -> Page:
        return self.client.fetch_first_page()

    def error(self) -> PollError:
        with pytest.raises(PollError) as caught:
            self.page()
        return caught.value

    @property
    def codes(self) -> list[str]:
        return [code for _, code in self.recorder.requests]


@contextlib.contextmanager
def failing(script: Script, **settings: Any) -> Iterator[tuple[PollError, FaultServer, Asker]]:
    """The error that a script makes."""
    with FaultServer(script) as server:
        asker = Asker(server.url, **settings)
        yield asker.error(), server, asker


def test_request_is_a_get_with_basic_auth_and_nothing_of_a_body() -> None:
    with FaultServer(saying(ok(LIST))) as server:
        page = Asker(server.url).page()
    assert [n.sid for n in page.numbers] == ["a"]
    lines = server.requests[0].split("\r\n")
    assert lines[0] == (
        "GET /v2_beta/Accounts/acme/IncomingPhoneNumbers?Page=0&PageSize=50 HTTP/1.1"
    )
    assert AUTHORIZATION in lines
    assert "Accept-Encoding: gzip" in lines
    assert "Accept: application/json" in lines
    assert f"User-Agent: exophone-exporter/{__version__}" in lines
    assert not any(line.lower().startswith(("content-", "transfer-")) for line in lines)


@pytest.mark.fault(101)
def test_secrets_outside_latin_1_are_sent_as_utf_8() -> None:
    with FaultServer(saying(ok(LIST))) as server:
        Asker(server.url, api_key="schlüssel", api_token="टोकन").page()
    expected = base64.b64encode("schlüssel:टोकन".encode()).decode()
    assert f"Authorization: Basic {expected}\r\n" in server.requests[0]


def test_secret_of_the_environment_that_is_not_utf_8_goes_out_as_its_bytes() -> None:
    with FaultServer(saying(ok(LIST))) as server:
        Asker(server.url, api_token=b"t\xff".decode("utf-8", "surrogateescape")).page()
    expected = base64.b64encode(b"acme-key:t\xff").decode()
    assert f"Authorization: Basic {expected}\r\n" in server.requests[0]


def test_sid_of_the_account_is_quoted_in_the_path() -> None:
    with FaultServer(saying(ok(LIST))) as server:
        Asker(server.url, sid="a/b?c").page()
    assert server.requests[0].startswith("GET /v2_beta/Accounts/a%2Fb%3Fc/IncomingPhoneNumbers?")


@pytest.mark.fault(4)
@pytest.mark.fault(133)
def test_connection_is_closed_with_the_poll_whatever_failed_before() -> None:
    """The error of the first request holds its pool in a cycle that waits for the collector."""
    left = threading.Event()

    def stay(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(ok(LIST))
        conversation.stay_silent()
        left.set()

    gc.disable()
    try:
        with FaultServer(saying_then_reset(HEAD), stay) as server:
            assert Asker(server.url).page().numbers
            assert left.wait(5.0)
    finally:
        gc.enable()


@pytest.mark.fault(1)
def test_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    asker = Asker("http://api.invalid")
    error = asker.error()
    assert (error.reason, asker.codes) == ("connect", ["none"] * 3)
    assert str(error) == "cannot connect to http://api.invalid: Name or service not known"


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        pytest.param(".exotel.com", "InvalidURL", id="alone"),
        pytest.param("api exotel.com", "LocationParseError", id="with-a-cause"),
    ],
)
def test_failure_that_the_system_has_no_words_for_is_told_by_its_kind(host: str, kind: str) -> None:
    """The configuration lets no such host pass; whatever else there is may quote anything."""
    error = Asker(f"http://{host}").error()
    assert error.reason == "connect"
    assert str(error) == f"cannot connect to http://{host}: {kind}"


@pytest.mark.fault(2)
def test_connection_that_hangs() -> None:
    with hanging_port() as port:
        asker = Asker(f"http://127.0.0.1:{port}", timeout_seconds=0.1)
        error = asker.error()
    assert (error.reason, asker.codes) == ("timeout", ["none"] * 3)
    assert str(error) == f"http://127.0.0.1:{port} did not answer in time"


@pytest.mark.fault(2)
def test_connection_that_hangs_ends_at_the_deadline() -> None:
    with hanging_port() as port:
        asker = Asker(f"http://127.0.0.1:{port}", timeout_seconds=9.0, deadline_seconds=0.2)
        began = time.monotonic()
        assert isinstance(asker.error(), DeadlinePassed)
        assert time.monotonic() - began < 6


@pytest.mark.fault(3)
def test_connection_refused() -> None:
    origin = f"http://127.0.0.1:{closed_port()}"
    asker = Asker(origin)
    error = asker.error()
    assert (error.reason, asker.codes) == ("connect", ["none"] * 3)
    assert str(error) == f"cannot connect to {origin}: Connection refused"
    assert asker.slept == [0.5, 1.0]
    assert asker.recorder.retries == 2


def test_host_that_no_request_can_be_made_to() -> None:
    """The configuration refuses such a one; here, too, it is a failure in words."""
    error = Asker(f"http://{'x' * 64}.example").error()
    assert error.reason == "connect"
    assert str(error).startswith(f"cannot connect to http://{'x' * 64}.example: Unicode")


@pytest.mark.parametrize(
    ("script", "reason", "attempts", "says"),
    [
        pytest.param(
            saying_then_reset(b""),
            "connect",
            3,
            "Connection reset by peer",
            id="reset-before-a-byte",
            marks=pytest.mark.fault(4),
        ),
        pytest.param(
            saying(b""),
            "connect",
            3,
            "the connection was closed without a response",
            id="closed-before-a-byte",
            marks=pytest.mark.fault(4),
        ),
        pytest.param(
            saying_then_silence(b""),
            "timeout",
            3,
            "did not answer in time",
            id="silence",
            marks=pytest.mark.fault(5),
        ),
        pytest.param(
            saying_then_silence(HEAD + b"Content-Length: 9\r\n\r\n"),
            "timeout",
            3,
            "did not answer in time",
            id="headers-then-silence",
            marks=pytest.mark.fault(6),
        ),
        pytest.param(
            saying(ok(b'{"page"', "Content-Length: 99")),
            "bad_body",
            3,
            "was cut short",
            id="body-cut",
            marks=pytest.mark.fault(8),
        ),
        pytest.param(
            saying_then_reset(ok(b'{"page"', "Content-Length: 99")),
            "bad_body",
            3,
            "was cut short",
            id="reset-in-the-body",
            marks=pytest.mark.fault(8),
        ),
        pytest.param(
            saying(CHUNKED + b"40\r\nabc"),
            "bad_body",
            3,
            "was cut short",
            id="chunk-cut",
            marks=pytest.mark.fault(9),
        ),
        pytest.param(
            saying(CHUNKED + b"xyz\r\nabc\r\n"),
            "bad_body",
            3,
            "was cut short",
            id="bad-chunk-size",
            marks=pytest.mark.fault(9),
        ),
        pytest.param(
            saying(b"SSH-2.0-OpenSSH_9.6\r\n"),
            "connect",
            1,
            "does not speak valid HTTP",
            id="ssh",
            marks=pytest.mark.fault(10),
        ),
        pytest.param(
            saying(HEAD + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n"),
            "connect",
            1,
            "does not speak valid HTTP",
            id="long-header",
            marks=pytest.mark.fault(11),
        ),
        pytest.param(
            saying(HEAD + b"X-Many: 1\r\n" * 101 + b"\r\n"),
            "connect",
            1,
            "does not speak valid HTTP",
            id="101-headers",
            marks=pytest.mark.fault(11),
        ),
        pytest.param(
            saying(HEAD + b"Content-Length: 1, 2\r\n\r\nab"),
            "connect",
            1,
            "does not speak valid HTTP",
            id="two-lengths",
        ),
        pytest.param(
            saying(b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK\r\n\r\n"),
            "connect",
            1,
            "does not speak valid HTTP",
            id="arabic-status",
            marks=pytest.mark.fault(38),
        ),
        pytest.param(
            saying(ok(b"", status="999 Odd")),
            "status",
            1,
            "999",
            id="status-999",
            marks=pytest.mark.fault(38),
        ),
        pytest.param(
            saying(ok(b"x" * 99, "Content-Encoding: gzip")),
            "bad_body",
            1,
            "cannot be decompressed",
            id="bad-gzip",
            marks=pytest.mark.fault(53),
        ),
        pytest.param(
            saying(
                ok(gzip.compress(LIST * 99)[:-40], "Content-Encoding: gzip", "Connection: close")
            ),
            "bad_body",
            2,
            "not JSON",
            id="truncated-gzip",
            marks=pytest.mark.fault(54),
        ),
        pytest.param(
            saying(ok(LIST, "Content-Encoding: br")),
            "bad_body",
            1,
            "^the response has a content encoding that was not requested$",
            id="brotli",
            marks=pytest.mark.fault(55),
        ),
        pytest.param(
            saying(ok(zlib.compress(LIST), "Content-Encoding: deflate")),
            "bad_body",
            1,
            "^the response has a content encoding that was not requested$",
            id="deflate",
            marks=pytest.mark.fault(55),
        ),
        pytest.param(
            saying(ok(gzip.compress(gzip.compress(LIST)), "Content-Encoding: gzip, gzip")),
            "bad_body",
            1,
            "^the response has a content encoding that was not requested$",
            id="gzip-twice",
            marks=pytest.mark.fault(55),
        ),
    ],
)
def test_broken_answer(script: Script, reason: str, attempts: int, says: str) -> None:
    """The reason, how often it is tried, and that the message names the cause."""
    timeout_seconds = 0.15 if reason == "timeout" else 5.0
    with failing(script, timeout_seconds=timeout_seconds) as (error, server, asker):
        assert (error.reason, len(asker.codes)) == (reason, attempts)
        assert re.search(says, str(error))
        assert len(server.requests) == attempts
        if reason in ("connect", "timeout"):
            assert server.url in str(error)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(dripping(HEAD + b"Content-Length: 999\r\n\r\n", b" " * 999), id="body"),
        pytest.param(dripping(CHUNKED, b"1\r\n \r\n" * 99), id="chunks"),
        pytest.param(dripping(HEAD + b"X-Slow: ", b"x" * 999), id="headers"),
        pytest.param(dripping(b"", b"HTTP/1.1 " + b"2" * 999), id="status-line"),
        pytest.param(
            dripping(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"x" * 9999, 0)),
            id="gzip",
        ),
    ],
)
@pytest.mark.fault(7)
def test_drip_ends_at_the_deadline(script: Script) -> None:
    """Each byte comes well within the timeout of a read."""
    began = time.monotonic()
    with failing(script, timeout_seconds=5.0, deadline_seconds=0.25) as (error, server, _):
        seconds = time.monotonic() - began
        assert isinstance(error, DeadlinePassed)
        assert str(error) == "the poll was not complete after its deadline of 0.25s"
        assert len(server.requests) == 1
        assert 0.2 < seconds < 2


@pytest.mark.fault(7)
def test_silence_after_a_late_start_ends_at_the_deadline_too() -> None:
    """What is left of the deadline bounds the next read, however long its own timeout is."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.wait(0.7)
        conversation.send(HEAD)
        conversation.stay_silent()

    began = time.monotonic()
    with failing(script, timeout_seconds=5.0, deadline_seconds=0.8) as (error, _, __):
        assert isinstance(error, DeadlinePassed)
        assert time.monotonic() - began < 4


@pytest.mark.fault(7)
def test_one_answer_may_take_three_timeouts() -> None:
    script = dripping(HEAD + b"Content-Length: 999\r\n\r\n", b" " * 999)
    began = time.monotonic()
    with failing(script, timeout_seconds=0.2) as (error, _, asker):
        seconds = time.monotonic() - began
        assert type(error) is TimedOut
        assert asker.codes == ["200"] * 3
        assert 1.75 < seconds < 6


@pytest.mark.fault(5)
def test_silence_may_last_one_timeout_and_not_three() -> None:
    """The whole answer may take three; who says nothing for one is not waited for."""

    def late(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.wait(1.2)
        conversation.send(ok(b'{"sid": "a"}'))

    with FaultServer(late) as server:
        asker = Asker(server.url, timeout_seconds=0.5)
        with pytest.raises(TimedOut):
            asker.client.fetch_number("a", 5.0)


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("pause_seconds", "deadline_seconds", "reason"),
    [
        pytest.param(0.02, 0.5, "timeout", id="slow"),
        pytest.param(0.0, 30.0, "too_large", id="fast"),
    ],
)
def test_storm_of_interim_answers_has_an_end(
    pause_seconds: float, deadline_seconds: float, reason: str
) -> None:
    """None of them is late; the deadline ends it, or the bytes that one answer may have."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        while True:
            conversation.send(interim if pause_seconds else interim * 1000)
            conversation.wait(pause_seconds)

    settings = {"timeout_seconds": 10.0, "deadline_seconds": deadline_seconds}
    with failing(script, **settings) as (error, _, asker):
        assert (error.reason, asker.codes) == (reason, ["none"])


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    "reset", [pytest.param(False, id="closed"), pytest.param(True, id="reset")]
)
def test_connection_that_was_dropped_between_requests_is_no_failure(reset: bool) -> None:
    """The next page goes over a new connection, and no retry is counted."""
    dropped = threading.Event()

    def first(conversation: Conversation) -> None:
        conversation.read_request()
        body = b'{"incoming_phone_numbers": [{"sid": "a"}], "next_page_uri": "x"}'
        conversation.send(ok(body))
        if reset:
            conversation.reset()
        else:
            conversation.close()
        dropped.set()

    last = b'{"incoming_phone_numbers": [{"sid": "b"}], "next_page_uri": null}'
    with FaultServer(first, answering(ok(last))) as server:
        asker = Asker(server.url)
        walk = asker.client.fetch_all({}, lambda *_: assert_true(dropped.wait(5)))
        assert [n.sid for n in walk.numbers] == ["a", "b"]
        assert (server.connections, asker.recorder.retries) == (2, 0)


def assert_true(value: bool) -> None:
    assert value


def test_pages_share_a_connection() -> None:
    more = b'{"incoming_phone_numbers": [{"sid": "a"}], "next_page_uri": "x"}'
    with FaultServer(answering(ok(more), ok(LIST))) as server:
        Asker(server.url).client.fetch_all({})
        assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    "late", [pytest.param(False, id="at-once"), pytest.param(True, id="after-it-was-read")]
)
def test_junk_behind_an_answer_is_not_the_next_answer(late: bool) -> None:
    """It looks like one; where it is seen before the next request, the connection is given up."""
    more = ok(b'{"incoming_phone_numbers": [{"sid": "a"}], "next_page_uri": "x"}')
    last = ok(b'{"incoming_phone_numbers": [{"sid": "b"}], "next_page_uri": null}')
    junk = ok(b'{"incoming_phone_numbers": [{"sid": "junk"}], "next_page_uri": null}')
    read, sent = threading.Event(), threading.Event()

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(more if late else more + junk)
        if late:
            assert read.wait(5)
            conversation.send(junk)
        sent.set()
        conversation.read_request()
        conversation.send(last)

    def on_page(_pages: int, _numbers: int) -> None:
        read.set()
        assert sent.wait(5)

    with FaultServer(script, answering(last)) as server:
        asker = Asker(server.url)
        walk = asker.client.fetch_all({}, on_page)
        assert [n.sid for n in walk.numbers] == ["a", "b"]
        assert (asker.recorder.retries, server.connections) == (0, 2 if late else 1)


@contextlib.contextmanager
def hanging_port() -> Iterator[int]:
    """A full backlog takes no connection and refuses none."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every host have these addresses, of either family, in this order."""
    found = [
        (
            socket.AF_INET6 if ":" in host else socket.AF_INET,
            socket.SOCK_STREAM,
            6,
            "",
            (host, port),
        )
        for host, port in addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "dead", [pytest.param("127.0.0.1", id="ipv4"), pytest.param("::1", id="ipv6")]
)
def test_next_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    with FaultServer(saying(ok(LIST))) as server:
        resolve_to(monkeypatch, (dead, closed_port()), ("127.0.0.1", server.port))
        asker = Asker(server.url)
        assert len(asker.page().numbers) == 1
        assert asker.recorder.retries == 0


@pytest.mark.fault(16)
def test_address_that_hangs_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of a host share the timeout of one connection."""
    with hanging_port() as port, FaultServer(saying(ok(LIST))) as server:
        resolve_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", server.port))
        asker = Asker(server.url, timeout_seconds=3.0)
        began = time.monotonic()
        assert len(asker.page().numbers) == 1
        assert time.monotonic() - began < 2.8
        assert asker.recorder.retries == 0


@pytest.mark.fault(2)
@pytest.mark.fault(16)
@pytest.mark.parametrize("scheme", [pytest.param("http"), pytest.param("https")])
def test_many_addresses_that_hang_do_not_pass_the_deadline(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with hanging_port() as port:
        resolve_to(monkeypatch, *[("127.0.0.1", port)] * 12)
        asker = Asker(f"{scheme}://a.example", timeout_seconds=0.5, deadline_seconds=0.5)
        began = time.monotonic()
        assert asker.error().reason == "timeout"
        assert time.monotonic() - began < 4


@pytest.mark.fault(17)
def test_slow_pages_end_at_the_deadline_of_the_poll() -> None:
    """Each page is within its timeout; the whole walk is not."""

    def script(conversation: Conversation) -> None:
        for index in range(100):
            conversation.read_request()
            conversation.wait(0.1)
            sid = f'[{{"sid": "n{index}"}}]'
            conversation.send(
                ok(f'{{"incoming_phone_numbers": {sid}, "next_page_uri": "x"}}'.encode())
            )

    with FaultServer(script) as server:
        asker = Asker(server.url, timeout_seconds=1.0, deadline_seconds=0.45)
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            asker.client.fetch_all({})
        assert time.monotonic() - began < 2
        assert 2 <= len(server.requests) <= 5


@pytest.mark.parametrize(
    "status",
    [
        pytest.param("301 Moved", id="301"),
        pytest.param("302 Found", id="302"),
        pytest.param("303 See Other", id="303"),
        pytest.param("307 Temporary Redirect", id="307"),
        pytest.param("308 Permanent Redirect", id="308"),
    ],
)
@pytest.mark.fault(22)
@pytest.mark.fault(23)
@pytest.mark.fault(25)
def test_redirect_is_not_followed(status: str) -> None:
    """Neither the host itself nor another one gets a second request, let alone credentials."""
    with FaultServer(saying(ok(LIST))) as other:
        for target in (other.url + "/x", "/other/path"):
            answer = ok(b"", f"Location: {target}", status=status)
            with failing(saying(answer)) as (error, server, asker):
                assert error.reason == "status"
                assert "which is not followed; fix base_url or region" in str(error)
                assert asker.codes == [status[:3]]
                assert server.connections == 1
                if target.startswith("http"):
                    assert f"a redirect to {other.url}," in str(error)
        assert (other.connections, other.requests) == (0, [])


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://[::1", id="bracket"),
        pytest.param("http://h:99999999/", id="port"),
        pytest.param("http://" + "a" * 300 + "/", id="long-label"),
        pytest.param("http://\xff\xfe/", id="not-utf-8"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("http://.../", id="dots"),
    ],
)
def test_redirect_to_nonsense_is_told_as_a_redirect(location: str) -> None:
    """Even unfollowed, requests would look at it and raise."""
    with failing(saying(ok(b"", f"Location: {location}", status="302 Found"))) as (error, _, asker):
        assert error.reason == "status"
        assert str(error).startswith("302: a redirect to ")
        assert asker.codes == ["302"]


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("status", "attempts"),
    [
        pytest.param("500 Internal Server Error", 3, id="server-error"),
        pytest.param("302 Found", 1, id="redirect"),
        pytest.param("401 Unauthorized", 1, id="credentials"),
    ],
)
def test_endless_body_of_an_error_is_not_read(status: str, attempts: int) -> None:
    """The connection is closed after a little of it; the rest is in the sockets' buffers."""
    head = f"HTTP/1.1 {status}\r\nLocation: /x\r\nContent-Length: {1024 * MIB}\r\n\r\n".encode()
    with failing(flooding(head, b"x" * 65536, 1024 * MIB)) as (error, server, asker):
        assert str(error).startswith(status[:3])
        assert len(asker.codes) == attempts
        assert server.flooded_bytes < MIB * attempts


@pytest.mark.fault(37)
def test_vendor_message_is_read_from_the_start_of_an_error() -> None:
    body = b"<Message>KYC is pending</Message>" + b" " * 100_000
    with failing(saying(ok(body, status="403 Forbidden"))) as (error, _, __):
        assert "KYC is pending" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\n", id="cut"),
        pytest.param(
            ok(b"junk", "Content-Encoding: gzip", "Connection: close", status="500 Oh"),
            id="bad-gzip",
        ),
        pytest.param(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", id="chunk"),
    ],
)
def test_status_of_an_error_counts_whatever_its_body_is(answer: bytes) -> None:
    with failing(saying(answer)) as (error, _, asker):
        assert error.reason == "server"
        assert asker.codes == ["500"] * 3


def test_status_counts_though_its_body_never_comes() -> None:
    script = saying_then_silence(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n")
    with failing(script, timeout_seconds=0.4) as (error, _, asker):
        assert (error.reason, asker.codes) == ("auth", ["401"])


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(HEAD + b"Content-Length: 1073741824\r\n\r\n", id="with-a-length"),
        pytest.param(HEAD + b"\r\n", id="until-closed"),
        pytest.param(CHUNKED + b"40000000\r\n", id="one-huge-chunk"),
        pytest.param(CHUNKED + b"-1\r\n", id="negative-chunk"),
    ],
)
def test_body_over_the_cap_is_not_read_on(head: bytes) -> None:
    with failing(flooding(head, b" " * 65536, 1024 * MIB)) as (error, server, asker):
        assert (error.reason, asker.codes) == ("too_large", ["200"])
        assert str(error) == "the response is larger than 8 MiB"
        assert server.flooded_bytes < 12 * MIB


@pytest.mark.fault(51)
def test_body_just_under_the_cap_is_read() -> None:
    body = LIST + b" " * (8 * MIB - len(LIST))
    with FaultServer(saying(ok(body))) as server:
        assert len(Asker(server.url).page().numbers) == 1
    with failing(saying(ok(body + b" "))) as (error, _, __):
        assert error.reason == "too_large"


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """256 MiB of zeros in 260 KB."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(MIB)
    return b"".join([*(packer.compress(zeros) for _ in range(256)), packer.flush()])


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param("200 OK", "too_large", id="success"),
        pytest.param("403 Forbidden", "forbidden", id="error"),
        pytest.param("302 Found", "status", id="redirect"),
    ],
)
def test_gzip_bomb_does_not_fill_the_memory(bomb: bytes, status: str, reason: str) -> None:
    answer = ok(bomb, "Content-Encoding: gzip", "Location: /x", status=status)
    tracemalloc.start()
    try:
        before_bytes = tracemalloc.get_traced_memory()[0]
        with failing(saying(answer)) as (error, _, asker):
            assert error.reason == reason
            assert len(asker.codes) == 1
        assert tracemalloc.get_traced_memory()[1] - before_bytes < 24 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.fault(56)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ok(LIST, "Content-Type: text/html"), id="wrong-type"),
        pytest.param(ok(gzip.compress(LIST), "Content-Encoding: gzip"), id="gzip"),
        pytest.param(ok(gzip.compress(LIST), "Content-Encoding: GZIP"), id="gzip-in-capitals"),
        pytest.param(ok(LIST, "Content-Encoding: identity"), id="identity"),
        pytest.param(ok(LIST, "Content-Encoding:"), id="no-encoding"),
        pytest.param(HEAD + b"\r\n" + LIST, id="until-closed"),
        pytest.param(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LIST), LIST), id="chunked"),
        pytest.param(b"HTTP/1.0 200\r\n\r\n" + LIST, id="http-1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(LIST), id="after-100"),
        pytest.param(ok(b"\xef\xbb\xbf" + LIST), id="bom", marks=pytest.mark.fault(44)),
    ],
)
def test_good_json_is_taken_however_it_is_wrapped(answer: bytes) -> None:
    with FaultServer(saying(answer)) as server:
        assert [n.sid for n in Asker(server.url).page().numbers] == ["a"]


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def tls_server(leaf: trustme.LeafCert, script: Script) -> FaultServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return FaultServer(script, tls=context)


def test_ca_file_makes_an_own_authority_good(authority: trustme.CA, ca_file: str) -> None:
    with tls_server(authority.issue_cert("localhost"), saying(ok(LIST))) as server:
        assert len(Asker(server.url, ca_file=ca_file).page().numbers) == 1
        assert AUTHORIZATION in server.requests[0]


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("name", "days", "trusted", "cause"),
    [
        pytest.param("localhost", 1, False, "unable to get local issuer certificate", id="unknown"),
        pytest.param("localhost", -1, True, "certificate has expired", id="expired"),
        pytest.param("api.exotel.com", 1, True, "Hostname mismatch", id="wrong-name"),
    ],
)
def test_certificate_that_is_not_good_is_refused_once(
    *, authority: trustme.CA, ca_file: str, name: str, days: int, trusted: bool, cause: str
) -> None:
    """Nothing is sent to such a server, and nothing is asked again."""
    expiry = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    leaf = authority.issue_cert(name, not_after=expiry)
    with tls_server(leaf, saying(ok(LIST))) as server:
        asker = Asker(server.url, ca_file=ca_file if trusted else None)
        error = asker.error()
        assert (error.reason, asker.codes) == ("tls", ["none"])
        assert f"TLS with {server.url} failed: the certificate was rejected ({cause}" in str(error)
        assert "is a ca_file needed?" in str(error)
        assert server.requests == []


@pytest.mark.fault(13)
def test_self_signed_certificate_is_refused_once(ca_file: str, tmp_path: Path) -> None:
    """An authority that vouches for itself, and is not the configured one."""
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    both = tmp_path / "self.pem"
    other.private_key_pem.write_to_path(str(both))
    other.cert_pem.write_to_path(str(both), append=True)
    context.load_cert_chain(both)
    with FaultServer(saying(ok(LIST)), tls=context) as server:
        asker = Asker(server.url, ca_file=ca_file)
        error = asker.error()
        assert (error.reason, asker.codes) == ("tls", ["none"])
        assert f"TLS with {server.url} failed: the certificate was rejected" in str(error)
        assert "self-signed certificate" in str(error)
        assert server.requests == []


@pytest.mark.fault(14)
def test_https_on_a_port_of_http() -> None:
    def script(conversation: Conversation) -> None:
        conversation.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        conversation.stay_silent()

    with FaultServer(script) as server:
        origin = server.url.replace("http:", "https:")
        asker = Asker(origin)
        error = asker.error()
        assert (error.reason, asker.codes) == ("tls", ["none"])
        assert str(error) == f"TLS with {origin} failed: the port does not speak TLS"


def test_http_on_a_port_of_https(authority: trustme.CA) -> None:
    with tls_server(authority.issue_cert("localhost"), saying(ok(LIST))) as server:
        asker = Asker(server.url.replace("https:", "http:"))
        assert asker.error().reason == "connect"
        assert server.requests == []


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="at-once"),
        pytest.param(b"\x15\x03\x03\x00\x02\x01\x00", id="with-a-notice"),
    ],
)
def test_connection_closed_in_the_handshake_is_no_fault_of_tls(said: bytes) -> None:
    """A load balancer that restarts does so; it is asked again, as it would be without TLS."""

    def script(conversation: Conversation) -> None:
        conversation.read_some()
        conversation.send(said)

    with FaultServer(script) as server:
        origin = server.url.replace("http:", "https:")
        asker = Asker(origin)
        error = asker.error()
    assert (error.reason, asker.codes) == ("connect", ["none"] * 3)
    assert str(error) == f"cannot connect to {origin}: the connection was closed without a response"


@pytest.mark.fault(4)
@pytest.mark.parametrize("reads", [True, False], ids=["behind-the-request", "before-it"])
def test_connection_reset_behind_the_handshake_is_no_fault_of_tls(
    authority: trustme.CA, ca_file: str, reads: bool
) -> None:
    """Whether it is noticed while writing or while reading."""

    def script(conversation: Conversation) -> None:
        if reads:
            conversation.read_request()
        conversation.reset()

    with tls_server(authority.issue_cert("localhost"), script) as server:
        for _ in range(5):
            asker = Asker(server.url, ca_file=ca_file)
            error = asker.error()
            assert (error.reason, asker.codes) == ("connect", ["none"] * 3)


@pytest.mark.fault(13)
def test_handshake_that_the_server_refuses_is_told_in_its_words() -> None:
    def script(conversation: Conversation) -> None:
        conversation.read_some()
        conversation.send(b"\x15\x03\x03\x00\x02\x02\x28")

    with FaultServer(script) as server:
        origin = server.url.replace("http:", "https:")
        asker = Asker(origin)
        error = asker.error()
    assert (error.reason, asker.codes) == ("tls", ["none"])
    assert re.fullmatch(
        f"TLS with {origin} failed: (sslv3|ssl/tls) alert handshake failure", str(error)
    )


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        pytest.param("RECORD_LAYER_FAILURE", "the port does not speak TLS", id="openssl-3.2"),
        pytest.param(None, "the handshake was aborted", id="no-reason"),
    ],
)
def test_reasons_that_other_versions_of_openssl_give(
    monkeypatch: pytest.MonkeyPatch, reason: Any, told: str
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        error = ssl.SSLError(ssl.SSL_ERROR_SSL, "told by its reason")
        error.reason = reason
        raise error

    with FaultServer(saying(b"")) as server:
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", refuse)
        origin = server.url.replace("http:", "https:")
        assert str(Asker(origin).error()) == f"TLS with {origin} failed: {told}"


def test_drip_over_tls_ends_at_the_deadline(authority: trustme.CA, ca_file: str) -> None:
    script = dripping(HEAD + b"Content-Length: 999\r\n\r\n", b" " * 999)
    with tls_server(authority.issue_cert("localhost"), script) as server:
        asker = Asker(server.url, ca_file=ca_file, timeout_seconds=5.0, deadline_seconds=0.3)
        assert isinstance(asker.error(), DeadlinePassed)


class _SlowContext(ssl.SSLContext):
    """Lets a client wait before the handshake."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        threading.Event().wait(0.5)
        return super().wrap_socket(*args, **kwargs)


def test_handshake_has_the_whole_timeout_however_many_addresses(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, ca_file: str
) -> None:
    """What they share is the time for a connection."""
    context = _SlowContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with FaultServer(saying(ok(LIST)), tls=context) as server:
        resolve_to(monkeypatch, *[("127.0.0.1", server.port)] * 20)
        asker = Asker(server.url, ca_file=ca_file, timeout_seconds=4.0, deadline_seconds=30.0)
        assert len(asker.page().numbers) == 1
        assert asker.recorder.retries == 0


@pytest.mark.fault(5)
def test_handshake_that_the_server_leaves_open_ends_by_the_timeout() -> None:
    """It is silence like any other: asked again, and then told as a timeout."""
    with FaultServer(Conversation.stay_silent) as server:
        asker = Asker(server.url.replace("http:", "https:"), timeout_seconds=0.2)
        assert isinstance(asker.error(), TimedOut)
        assert asker.codes == ["none"] * 3


@pytest.mark.fault(23)
def test_redirect_from_https_to_http_is_not_followed(authority: trustme.CA, ca_file: str) -> None:
    with FaultServer(saying(ok(LIST))) as plain:
        answer = ok(b"", f"Location: {plain.url}/", status="302 Found")
        with tls_server(authority.issue_cert("localhost"), saying(answer)) as server:
            error = Asker(server.url, ca_file=ca_file).error()
        assert error.reason == "status"
        assert plain.connections == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "No such file or directory", id="missing"),
        pytest.param("no certificate", "no certificate or crl found", id="not-pem"),
    ],
)
def test_ca_file_that_cannot_be_used_is_a_fault_of_tls(
    authority: trustme.CA, tmp_path: Path, content: str | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with tls_server(authority.issue_cert("localhost"), saying(ok(LIST))) as server:
        asker = Asker(server.url, ca_file=str(path))
        error = asker.error()
        assert (error.reason, asker.codes) == ("tls", ["none"])
        assert str(error) == f"the CA file {path} cannot be used: {reason}"
        assert server.requests == []


def test_ca_file_is_loaded_once_for_each_version_of_it(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path
) -> None:
    loaded: list[Path] = []
    load = ssl.SSLContext.load_verify_locations

    def count(context: ssl.SSLContext, cafile: Path) -> None:
        loaded.append(cafile)
        load(context, cafile)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", count)
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.cert_pem.bytes())
    with tls_server(authority.issue_cert("localhost"), saying(ok(LIST))) as server:
        for _ in range(3):
            assert Asker(server.url, ca_file=str(path)).page().numbers
        assert loaded == [path]
        path.write_bytes(trustme.CA().cert_pem.bytes())
        assert "the certificate was rejected" in str(Asker(server.url, ca_file=str(path)).error())
        path.write_bytes(authority.cert_pem.bytes())
        assert Asker(server.url, ca_file=str(path)).page().numbers
    assert loaded == [path] * 3


# Proxies, and what the environment says


@pytest.mark.fault(15)
def test_environment_is_not_listened_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: trustme.CA, ca_file: str
) -> None:
    """Dead proxies, a netrc with other credentials and a wrong bundle are all ignored."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login thief password canary\n")
    netrc.chmod(0o600)
    bundle = tmp_path / "bundle.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(bundle))
    leaf = authority.issue_cert("localhost")
    with tls_server(leaf, saying(ok(LIST))) as secure, FaultServer(saying(ok(LIST))) as plain:
        for server in (secure, plain):
            Asker(server.url, ca_file=ca_file).page()
            assert AUTHORIZATION in server.requests[0]


def test_bundle_of_the_environment_vouches_for_nobody(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, ca_file: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    with tls_server(authority.issue_cert("localhost"), saying(ok(LIST))) as server:
        assert Asker(server.url).error().reason == "tls"


@pytest.mark.fault(15)
@pytest.mark.parametrize("scheme", [pytest.param("http"), pytest.param("https")])
def test_dead_proxy_is_called_by_its_name(scheme: str) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    asker = Asker(f"{scheme}://api.exotel.com", proxy_url=proxy)
    error = asker.error()
    assert (error.reason, asker.codes) == ("connect", ["none"] * 3)
    assert str(error) == f"the proxy {proxy} failed: Connection refused"


def test_ca_file_is_what_a_proxy_is_verified_with(authority: trustme.CA, ca_file: str) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    with tls_server(authority.issue_cert("localhost"), saying(refusal)) as proxy:
        asker = Asker("https://api.exotel.com", proxy_url=proxy.url, ca_file=ca_file)
        assert "407 Proxy Authentication Required" in str(asker.error())
        assert proxy.requests[0].startswith("CONNECT api.exotel.com:443 ")
        assert "certificate" in str(Asker("https://a.example", proxy_url=proxy.url).error())


def test_silent_proxy_is_named_too() -> None:
    with FaultServer(saying_then_silence(b"")) as proxy:
        asker = Asker("https://api.exotel.com", proxy_url=proxy.url, timeout_seconds=0.1)
        error = asker.error()
    assert error.reason == "timeout"
    assert str(error) == (
        f"https://api.exotel.com did not answer in time, through the proxy {proxy.url}"
    )
    assert AUTHORIZATION not in "".join(proxy.requests)


def test_proxy_that_drips_ends_at_the_deadline() -> None:
    script = dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 999)
    with FaultServer(script) as proxy:
        asker = Asker(
            "https://api.exotel.com",
            proxy_url=proxy.url,
            timeout_seconds=5.0,
            deadline_seconds=0.3,
        )
        assert isinstance(asker.error(), DeadlinePassed)


def test_proxy_that_refuses_the_tunnel_is_named() -> None:
    with FaultServer(saying(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as proxy:
        error = Asker("https://api.exotel.com", proxy_url=proxy.url).error()
    assert error.reason == "connect"
    assert str(error) == (
        f"the proxy {proxy.url} failed: Tunnel connection failed: 407 Proxy Authentication Required"
    )


def test_proxy_carries_requests_to_an_origin_of_plain_http() -> None:
    with FaultServer(saying(ok(LIST))) as proxy:
        Asker("http://127.0.0.1:9", proxy_url=proxy.url).page()
    assert proxy.requests[0].startswith("GET http://127.0.0.1:9/v2_beta/Accounts/acme/")


def test_number_is_asked_for_by_its_quoted_sid() -> None:
    sid = "a/../b?c#d%2f é"
    with FaultServer(saying(ok(json.dumps({"sid": sid}).encode()))) as server:
        assert Asker(server.url).client.fetch_number(sid).sid == sid
    assert server.requests[0].startswith(
        "GET /v2_beta/Accounts/acme/IncomingPhoneNumbers/a%2F..%2Fb%3Fc%23d%252f%20%C3%A9 HTTP/1.1"
    )


def test_answer_about_another_number_is_refused() -> None:
    with FaultServer(saying(ok(b'{"sid": "b"}'))) as server:
        asker = Asker(server.url)
        with pytest.raises(
            PollError, match=r"^the detail endpoint answered about another number$"
        ) as caught:
            asker.client.fetch_number("a")
    assert caught.value.reason == "envelope"
    assert asker.recorder.requests == [("detail", "200")]
