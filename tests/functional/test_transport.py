"""The client against everything that can go wrong on the wire, with real sockets.

The reason, the attempts and the message of each fault are rows of test_api_faults.py.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gc
import gzip
import json
import os
import re
import shutil
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from exophone_exporter import __version__
from exophone_exporter.errors import ConnectFailed, DeadlinePassed, PollError, TimedOut
from exophone_exporter.exotel import transport
from exophone_exporter.exotel.model import Page
from tests.lib.fault_server import (
    CHUNKED,
    HEAD,
    Conversation,
    FaultServer,
    answering,
    dripping,
    flooding,
    hanging_port,
    ok,
    saying,
    saying_then_reset,
    saying_then_silence,
)
from tests.lib.support import CountingRecorder, account, client_for, closed_port

Script = Callable[[Conversation], None]
Failure = tuple[str, list[str], str]

MIB = 1024 * 1024
# acme-key:acme-token
AUTHORIZATION = "Authorization: Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="
LIST = b'{"page": 0, "next_page_uri": null, "incoming_phone_numbers": [{"sid": "a"}]}'
MORE = b'{"page": 0, "next_page_uri": "x", "incoming_phone_numbers": [{"sid": "a"}]}'
LAST = b'{"page": 1, "next_page_uri": null, "incoming_phone_numbers": [{"sid": "b"}]}'
REFUSED = b"HTTP/1.1 401 No\r\n"
REFUSED_TUNNEL = "407 Proxy Authentication Required"


class Asker:
    def __init__(self, origin: str, **settings: Any) -> None:
        self.recorder = CountingRecorder()
        self.slept: list[float] = []
        settings = {"timeout_seconds": 10.0, "deadline_seconds": 30.0} | settings
        self.client = client_for(
            account(origin=origin, **settings),
            recorder=self.recorder,
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

    def late(self, within_seconds: float = 9) -> None:
        """Ask; it must end by the deadline, and not much later."""
        began = time.monotonic()
        assert isinstance(self.error(), DeadlinePassed)
        assert time.monotonic() - began < within_seconds

    def failure(self) -> Failure:
        error = self.error()
        return error.reason, self.codes, str(error)

    @property
    def codes(self) -> list[str]:
        return [code for _, code in self.recorder.requests]


@contextlib.contextmanager
def failing(script: Script, **settings: Any) -> Iterator[tuple[PollError, FaultServer, Asker]]:
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
@pytest.mark.parametrize(
    ("key", "token", "sent"),
    [
        pytest.param("schlüssel", "टोकन", "schlüssel:टोकन".encode(), id="outside-latin-1"),
        pytest.param("key", "t\udcff", b"key:t\xff", id="bytes-of-the-environment"),
    ],
)
def test_secrets_are_sent_as_utf_8_or_as_their_bytes(key: str, token: str, sent: bytes) -> None:
    with FaultServer(saying(ok(LIST))) as server:
        Asker(server.url, api_key=key, api_token=token).page()
    expected = base64.b64encode(sent).decode()
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
            assert left.wait(9.0)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        pytest.param(".exotel.com", "InvalidURL", id="alone"),
        pytest.param("api exotel.com", "LocationParseError", id="with-a-cause"),
        pytest.param("x" * 64 + ".example", "Unicode.*", id="no-name"),
    ],
)
def test_failure_without_a_message_of_the_system_is_named_by_its_kind(host: str, kind: str) -> None:
    """The configuration lets no such host pass; other messages could quote anything."""
    error = Asker(f"http://{host}").error()
    assert error.reason == "connect"
    assert re.fullmatch(f"cannot connect to http://{host}: {kind}", str(error))


@pytest.mark.fault(2)
def test_connection_that_hangs_ends_at_the_deadline() -> None:
    with hanging_port() as port:
        Asker(f"http://127.0.0.1:{port}", timeout_seconds=60.0, deadline_seconds=0.2).late(30)


def storm(conversation: Conversation) -> None:
    conversation.read_request()
    while True:
        conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        conversation.wait(0.02)


def late_start(conversation: Conversation) -> None:
    """What is left of the deadline bounds the next read, however long its own timeout is."""
    conversation.read_request()
    conversation.wait(0.25)
    conversation.send(HEAD)
    conversation.stay_silent()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(dripping(CHUNKED, b"1\r\n \r\n" * 99), id="chunks"),
        pytest.param(dripping(HEAD + b"X-Slow: ", b"x" * 999), id="headers"),
        pytest.param(dripping(b"", b"HTTP/1.1 " + b"2" * 999), id="status-line"),
        pytest.param(
            dripping(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"x" * 9999, 0)),
            id="gzip",
        ),
        pytest.param(storm, id="interim-answers", marks=pytest.mark.fault(38)),
        pytest.param(late_start, id="silence-after-a-late-start"),
    ],
)
@pytest.mark.fault(7)
def test_drip_ends_at_the_deadline(script: Script) -> None:
    """Each byte comes well within the timeout of a read, and the last after more than 15 s."""
    with FaultServer(script) as server:
        asker = Asker(server.url, timeout_seconds=60.0, deadline_seconds=0.5)
        asker.late()
        assert len(asker.codes) == 1


@pytest.mark.fault(5)
def test_silence_may_last_one_timeout_and_not_three() -> None:
    """Only a whole answer may take three."""

    def late(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.wait(3.0)
        conversation.send(ok(b'{"sid": "a"}'))

    with FaultServer(late) as server:
        asker = Asker(server.url, timeout_seconds=1.2)
        with pytest.raises(TimedOut):
            asker.client.fetch_number("a", 30.0)


@pytest.mark.fault(12)
@pytest.mark.parametrize("end", [Conversation.close, Conversation.reset], ids=["closed", "reset"])
def test_connection_dropped_between_requests_is_not_a_failure(end: Script) -> None:
    """The next page goes over a new connection, and no retry is counted."""
    dropped = threading.Event()

    def first(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(ok(MORE))
        end(conversation)
        dropped.set()

    def on_page(_pages: int, _numbers: int) -> None:
        assert dropped.wait(9)

    with FaultServer(first, answering(ok(LAST))) as server:
        asker = Asker(server.url)
        walk = asker.client.fetch_all({}, on_page=on_page)
        assert [n.sid for n in walk.numbers] == ["a", "b"]
        assert (server.connections, asker.recorder.retries) == (2, 0)


@pytest.mark.fault(18)
@pytest.mark.parametrize("late", [False, True], ids=["with-it", "after-it-was-read"])
def test_junk_behind_an_answer_is_not_the_next_answer(late: bool) -> None:
    """It looks like one; where it is seen before the next request, the connection is given up."""
    junk = ok(LAST.replace(b'"b"', b'"junk"'))
    read, sent = threading.Event(), threading.Event()

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(ok(MORE) if late else ok(MORE) + junk)
        if late:
            assert read.wait(9)
            conversation.send(junk)
        sent.set()
        conversation.read_request()
        conversation.send(ok(LAST))

    def on_page(_pages: int, _numbers: int) -> None:
        read.set()
        assert sent.wait(9)

    with FaultServer(script, answering(ok(LAST))) as server:
        asker = Asker(server.url)
        walk = asker.client.fetch_all({}, on_page=on_page)
        assert [n.sid for n in walk.numbers] == ["a", "b"]
        assert (asker.recorder.retries, server.connections) == (0, 2 if late else 1)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> list[object]:
    """Let every host have these addresses, of either family, in this order; notes each lookup."""
    found = [
        (socket.AF_INET6 if ":" in at[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", at)
        for at in addresses
    ]
    lookups: list[object] = []

    def getaddrinfo(host: object, *_: object, **__: object) -> object:
        lookups.append(host)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lookups


@pytest.mark.fault(16)
@pytest.mark.parametrize("dead", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def test_next_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    with FaultServer(saying(ok(LIST))) as server:
        lookups = resolve_to(monkeypatch, (dead, closed_port()), ("127.0.0.1", server.port))
        asker = Asker(server.url)
        assert len(asker.page().numbers) == 1
        assert (asker.recorder.retries, len(lookups)) == (0, 1)


@pytest.mark.fault(220)
def test_lookup_that_hangs_ends_by_the_timeout_and_holds_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the resolver works again, so does the poll, and no answer is kept."""
    look_up, works = socket.getaddrinfo, threading.Event()
    lookups: list[object] = []

    def getaddrinfo(host: object, *others: Any, **named: Any) -> object:
        lookups.append(host)
        assert works.wait(60)
        return look_up("127.0.0.1", *others, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with FaultServer(saying(ok(LIST))) as server:
        asker = Asker(f"http://hangs.example:{server.port}", timeout_seconds=0.1)
        said = "the name hangs.example was not resolved in time"
        assert asker.failure() == ("timeout", ["none"] * 3, said)
        assert lookups == ["hangs.example"]
        works.set()
        asker = Asker(asker.client.account.origin)
        assert len(asker.page().numbers) == 1
        known = len(lookups)
        assert len(asker.page().numbers) == 1
        assert len(lookups) == known + 1


@pytest.mark.fault(131)
def test_lookup_without_a_thread_fails_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError

    with FaultServer(saying(ok(LIST))) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        asker = Asker(url)
        with monkeypatch.context() as none_left:
            none_left.setattr(threading.Thread, "start", refuse)
            error = asker.error()
        said = f"cannot connect to {url}: no thread can be started for the lookup"
        assert (error.reason, str(error)) == ("connect", said)
        assert len(asker.page().numbers) == 1


@pytest.mark.fault(16)
def test_address_that_hangs_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of a host share the timeout of one connection, which is all there is here."""
    with hanging_port() as port, FaultServer(saying(ok(LIST))) as server:
        resolve_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", server.port))
        asker = Asker(server.url, timeout_seconds=4.0, deadline_seconds=4.0)
        assert len(asker.page().numbers) == 1
        assert asker.recorder.retries == 0


@pytest.mark.fault(2)
@pytest.mark.fault(16)
def test_many_addresses_that_hang_do_not_pass_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the timeout of a connection each, they would take a minute."""
    with hanging_port() as port:
        resolve_to(monkeypatch, *[("127.0.0.1", port)] * 120)
        asker = Asker("https://a.example", timeout_seconds=0.5, deadline_seconds=0.5)
        began = time.monotonic()
        assert asker.error().reason == "timeout"
        assert time.monotonic() - began < 30


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("status", "attempts"), [("500", 3), ("302", 1), ("401", 1)], ids=["500", "302", "401"]
)
def test_endless_body_of_an_error_is_not_read(status: str, attempts: int) -> None:
    """The connection is closed after a little of it; the rest is in the sockets' buffers."""
    head = f"HTTP/1.1 {status} X\r\nLocation: /x\r\nContent-Length: {1024 * MIB}\r\n\r\n".encode()
    with failing(flooding(head, b"x" * 65536, 1024 * MIB)) as (error, server, asker):
        assert str(error).startswith(status)
        assert len(asker.codes) == attempts
        assert server.flooded_bytes < MIB * attempts


@pytest.mark.fault(37)
def test_vendor_message_is_read_from_the_start_of_an_error() -> None:
    body = b"<Message>KYC is pending</Message>" + b" " * 100_000
    with failing(saying(ok(body, status="403 Forbidden"))) as (error, _, __):
        assert "KYC is pending" in str(error)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(saying(REFUSED + b"Content-Length: 9\r\n\r\n"), id="cut"),
        pytest.param(saying(REFUSED + b"Content-Encoding: gzip\r\n\r\njunk"), id="bad-gzip"),
        pytest.param(saying(REFUSED + b"Transfer-Encoding: chunked\r\n\r\nz\r\n"), id="chunk"),
        pytest.param(saying_then_silence(REFUSED + b"Content-Length: 9\r\n\r\n"), id="never"),
    ],
)
def test_status_of_an_error_counts_whatever_its_body_is(script: Script) -> None:
    with failing(script, timeout_seconds=1.0) as (error, _, asker):
        assert (error.reason, asker.codes) == ("auth", ["401"])


def taken(row: int, name: str, answer: bytes, play: Callable[[bytes], Script]) -> Any:
    """One answer of a row, and how the server goes on."""
    return pytest.param(play(answer), id=name, marks=pytest.mark.fault(row))


def packed(coding: str) -> bytes:
    return ok(gzip.compress(LIST), f"Content-Encoding: {coding}")


def informed(*statuses: str) -> bytes:
    """The good answer behind others that are no answers yet."""
    interim = "HTTP/1.1 {}\r\nLink: </x>; rel=preload\r\n\r\n"
    return "".join(map(interim.format, statuses)).encode() + ok(LIST)


def headed(line: bytes) -> bytes:
    """The good answer with this line before that of its length."""
    return ok(LIST).replace(b"\r\n", b"\r\n" + line + b"\r\n", 1)


CODINGS = ("gzip", "GZIP", "x-gzip", "X-GZip, identity", "identity,gzip", "gzip,")
INFORMED = (("100 Continue",), ("102 Processing",), ("103 Early Hints",), ("103 a", "100 b", "199"))
ODD_LINES = (
    *(b"My Param: None", b"X-Frame-Options : DENY", b"no colon at all", b" a fold of nothing"),
    *(b"X-Bare: a\rb", b": no name", b"X-\xfc: 1", b"From a mailbox"),
)
IN_CHUNKS = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LIST), LIST)
LENGTH_TWICE = ok(LIST).replace(b"Length: 76", b"Length: 76, 76")


@pytest.mark.parametrize(
    "script",
    [
        taken(56, "wrong-type", ok(LIST, "Content-Type: text/html"), saying),
        taken(56, "until-closed", HEAD + b"\r\n" + LIST, saying),
        taken(56, "http-1.0", b"HTTP/1.0 200\r\n\r\n" + LIST, saying),
        taken(56, "chunked", IN_CHUNKS, saying_then_silence),
        taken(44, "bom", ok(b"\xef\xbb\xbf" + LIST), saying),
        taken(55, "identity", ok(LIST, "Content-Encoding: identity, Identity"), saying),
        taken(55, "no-encoding", ok(LIST, "Content-Encoding:"), saying),
        *(taken(55, coding, packed(coding), saying) for coding in CODINGS),
        *(taken(151, codes[0], informed(*codes), saying_then_silence) for codes in INFORMED),
        *(taken(150, repr(line), headed(line), saying_then_silence) for line in ODD_LINES),
        taken(150, "length-twice", LENGTH_TWICE, saying_then_silence),
    ],
)
def test_good_json_is_taken_however_it_is_wrapped(script: Script) -> None:
    """Its length counts even if another line of its head makes no sense."""
    with FaultServer(script) as server:
        asker = Asker(server.url)
        assert [n.sid for n in asker.page().numbers] == ["a"]
        assert asker.codes == ["200"]


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
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(MIB)
    return b"".join([*(packer.compress(zeros) for _ in range(256)), packer.flush()])


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("status", "reason"),
    [("200", "too_large"), ("403", "forbidden"), ("302", "status")],
    ids=["success", "error", "redirect"],
)
def test_gzip_bomb_does_not_fill_the_memory(bomb: bytes, status: str, reason: str) -> None:
    answer = ok(bomb, "Content-Encoding: gzip", "Location: /x", status=f"{status} X")
    tracemalloc.start()
    try:
        before_bytes = tracemalloc.get_traced_memory()[0]
        with failing(saying(answer)) as (error, _, asker):
            assert (error.reason, asker.codes) == (reason, [status])
        assert tracemalloc.get_traced_memory()[1] - before_bytes < 24 * MIB
    finally:
        tracemalloc.stop()


# TLS


class Authority:
    """An authority of its own for `localhost`, and the file that a client trusts it by."""

    def __init__(self, ca_file: Path) -> None:
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(ca_file))
        self.ca_file = str(ca_file)

    def server(self, script: Script, context: ssl.SSLContext | None = None) -> FaultServer:
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("localhost").configure_cert(context)
        return FaultServer(script, tls=context)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca.pem")


@contextlib.contextmanager
def not_tls(script: Script) -> Iterator[str]:
    """The https origin of a server that plays this without TLS."""
    with FaultServer(script) as server:
        yield server.url.replace("http:", "https:")


@pytest.mark.fault(13)
def test_self_signed_certificate_is_refused_once(authority: Authority, tmp_path: Path) -> None:
    """An authority that vouches for itself, and is not the configured one."""
    other = trustme.CA()
    both = tmp_path / "self.pem"
    both.write_bytes(other.private_key_pem.bytes() + other.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with FaultServer(saying(ok(LIST)), tls=context) as server:
        asker = Asker(server.url, ca_file=authority.ca_file)
        error = asker.error()
        assert (error.reason, asker.codes) == ("tls", ["none"])
        assert re.fullmatch(
            rf"TLS with {server.url} failed: the certificate was rejected"
            r" \(self-signed certificate.*\); is "
            rf"{re.escape(authority.ca_file)} the right ca_file\?",
            str(error),
        )
        assert server.requests == []


def test_http_on_a_port_of_https(authority: Authority) -> None:
    with authority.server(saying(ok(LIST))) as server:
        asker = Asker(server.url.replace("https:", "http:"))
        assert asker.error().reason == "connect"
        assert server.requests == []


@pytest.mark.fault(4)
@pytest.mark.parametrize("said", [b"", b"\x15\x03\x03\x00\x02\x01\x00"], ids=["silent", "notice"])
def test_connection_closed_in_the_handshake_is_not_a_fault_of_tls(said: bytes) -> None:
    """A load balancer that restarts does so; it is asked again, as it would be without TLS."""

    def script(conversation: Conversation) -> None:
        conversation.read_some()
        conversation.send(said)

    with not_tls(script) as origin:
        message = f"cannot connect to {origin}: the connection was closed without a response"
        assert Asker(origin).failure() == ("connect", ["none"] * 3, message)


@pytest.mark.fault(4)
@pytest.mark.parametrize("reads", [True, False], ids=["behind-the-request", "before-it"])
def test_connection_reset_behind_the_handshake_is_not_a_fault_of_tls(
    authority: Authority, reads: bool
) -> None:
    """Whether it is noticed while writing or while reading."""

    def script(conversation: Conversation) -> None:
        if reads:
            conversation.read_request()
        conversation.reset()

    with authority.server(script) as server:
        for _ in range(5):
            asker = Asker(server.url, ca_file=authority.ca_file)
            assert asker.failure()[:2] == ("connect", ["none"] * 3)


@pytest.mark.fault(13)
def test_handshake_that_the_server_refuses_is_reported_in_its_words() -> None:
    def script(conversation: Conversation) -> None:
        conversation.read_some()
        conversation.send(b"\x15\x03\x03\x00\x02\x02\x28")

    with not_tls(script) as origin:
        *failure, message = Asker(origin).failure()
    assert failure == ["tls", ["none"]]
    assert re.fullmatch(
        f"TLS with {origin} failed: (sslv3|ssl/tls) alert handshake failure", message
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
        error = ssl.SSLError(ssl.SSL_ERROR_SSL, "the reason is elsewhere")
        error.reason = reason
        raise error

    with not_tls(saying(b"")) as origin:
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", refuse)
        assert str(Asker(origin).error()) == f"TLS with {origin} failed: {told}"


@pytest.mark.fault(7)
def test_drip_over_tls_ends_at_the_deadline(authority: Authority) -> None:
    with authority.server(dripping(HEAD + b"X-Slow: ", b"x" * 999)) as server:
        Asker(server.url, ca_file=authority.ca_file, deadline_seconds=0.5).late()


class _SlowContext(ssl.SSLContext):
    """Lets a client wait before the handshake."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        threading.Event().wait(0.5)
        return super().wrap_socket(*args, **kwargs)


def test_handshake_has_the_whole_timeout_however_many_addresses(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    """What they share is the time for a connection."""
    context = _SlowContext(ssl.PROTOCOL_TLS_SERVER)
    with authority.server(saying(ok(LIST)), context) as server:
        resolve_to(monkeypatch, *[("127.0.0.1", server.port)] * 20)
        asker = Asker(server.url, ca_file=authority.ca_file, timeout_seconds=6.0)
        assert len(asker.page().numbers) == 1
        assert asker.recorder.retries == 0


@pytest.mark.fault(5)
def test_handshake_that_the_server_leaves_open_ends_by_the_timeout() -> None:
    """It is silence like any other: asked again, and then reported as a timeout."""
    with not_tls(Conversation.stay_silent) as origin:
        failure = Asker(origin, timeout_seconds=0.2).failure()
    assert failure == ("timeout", ["none"] * 3, f"{origin} did not answer in time")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "No such file or directory", id="missing"),
        pytest.param("no certificate", "contains no PEM certificate", id="not-pem"),
    ],
)
def test_ca_file_that_cannot_be_used_is_a_fault_of_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, reason: str
) -> None:
    """So is the default one, if it was replaced while the program runs."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(transport, "DEFAULT_CA_BUNDLE_PATH", str(path))
    for ca_file in (None, str(path)):
        failure = Asker("https://127.0.0.1:9", ca_file=ca_file).failure()
        assert failure == ("tls", ["none"], f"the CA file {path} cannot be used: {reason}")


def test_ca_file_is_loaded_once_for_each_version_of_it(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, tmp_path: Path
) -> None:
    loaded: list[Path] = []
    load = ssl.SSLContext.load_verify_locations

    def count(context: ssl.SSLContext, cafile: Path) -> None:
        loaded.append(cafile)
        load(context, cafile)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", count)
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.ca.cert_pem.bytes())
    with authority.server(saying(ok(LIST))) as server:
        for _ in range(3):
            assert Asker(server.url, ca_file=str(path)).page().numbers
        assert loaded == [path]
        path.write_bytes(trustme.CA().cert_pem.bytes())
        assert "the certificate was rejected" in str(Asker(server.url, ca_file=str(path)).error())
        path.write_bytes(authority.ca.cert_pem.bytes())
        assert Asker(server.url, ca_file=str(path)).page().numbers
        changed_ns = path.stat().st_mtime_ns
        path.write_bytes(authority.ca.cert_pem.bytes() + b"\n")
        os.utime(path, ns=(changed_ns, changed_ns))  # longer, and of the same time
        assert Asker(server.url, ca_file=str(path)).page().numbers
        another = tmp_path / "another.pem"
        shutil.copy2(path, another)
        another.replace(path)  # another file, of the same size and time
        assert Asker(server.url, ca_file=str(path)).page().numbers
    assert loaded == [path] * 5


# Proxies, and what the environment says


@pytest.mark.fault(15)
def test_environment_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Authority
) -> None:
    """Dead proxies, a netrc with other credentials, and a wrong or even the right bundle."""
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
    script = saying(ok(LIST))
    with authority.server(script) as secure, FaultServer(script) as plain:
        for server in (secure, plain):
            Asker(server.url, ca_file=authority.ca_file).page()
            assert AUTHORIZATION in server.requests[0]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.ca_file)
        assert Asker(secure.url).error().reason == "tls"


@pytest.mark.fault(15)
@pytest.mark.parametrize("scheme", ["http", "https"], ids=str)
def test_dead_proxy_is_called_by_its_name(scheme: str) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    failure = Asker(f"{scheme}://api.exotel.com", proxy_url=proxy).failure()
    assert failure == ("connect", ["none"] * 3, f"the proxy {proxy} failed: Connection refused")


def test_ca_file_is_what_a_proxy_is_verified_with(authority: Authority) -> None:
    """This one then refuses the tunnel."""
    with authority.server(saying(f"HTTP/1.1 {REFUSED_TUNNEL}\r\n\r\n".encode())) as proxy:
        asker = Asker("https://a.example", proxy_url=proxy.url, ca_file=authority.ca_file)
        refused = f"the proxy {proxy.url} failed: Tunnel connection failed: {REFUSED_TUNNEL}"
        assert asker.failure() == ("connect", ["none"] * 3, refused)
        assert proxy.requests[0].startswith("CONNECT a.example:443 ")
        assert "certificate" in str(Asker("https://a.example", proxy_url=proxy.url).error())


def test_silent_proxy_is_named_and_hears_no_credentials() -> None:
    """CVE-2023-32681, CVE-2024-37891: headers for one end of a tunnel do not go to the other."""
    with FaultServer(saying_then_silence(b"")) as proxy:
        asker = Asker("https://api.exotel.com", proxy_url=proxy.url, timeout_seconds=0.1)
        late = f"https://api.exotel.com did not answer in time, through the proxy {proxy.url}"
        assert asker.failure() == ("timeout", ["none"] * 3, late)
    assert len(proxy.requests) == 3
    assert all(heard.startswith("CONNECT api.exotel.com:443 ") for heard in proxy.requests)
    assert "Authorization" not in "".join(proxy.requests)


def test_proxy_that_drips_ends_at_the_deadline() -> None:
    with FaultServer(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 999)) as proxy:
        Asker("https://api.exotel.com", proxy_url=proxy.url, deadline_seconds=0.5).late()


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


@pytest.mark.fault(4)
def test_reset_while_connecting_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib3 ignores it and goes on with a connection that was never made."""

    def reset(*_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    monkeypatch.setattr(socket.socket, "connect", reset)
    with pytest.raises(ConnectFailed):
        Asker("http://localhost:9").client.fetch_all({})
