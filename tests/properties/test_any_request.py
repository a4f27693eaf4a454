"""Any bytes on a connection to the server: an answer or an end, and the server goes on."""

from __future__ import annotations

import contextlib
import gzip
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account, Config
from exophone_exporter.errors import NotFound
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.metrics.negotiation import OPENMETRICS, TEXT
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.polling.reload import Reloader
from exophone_exporter.server import Limits
from exophone_exporter.server.refusals import RefusedClients
from exophone_exporter.server.users import Guard
from exophone_exporter.server.web_config import PasswordHash, WebConfig
from exophone_exporter.web import reload, routes
from exophone_exporter.web.probe import Prober
from exophone_exporter.web.settings import WebSettings
from tests.lib.corpus import corpus
from tests.lib.processes import DEADLINE_SECONDS
from tests.lib.servers import hello_of, rest_of, serving_app, tls_contexts
from tests.lib.strategies import edited, share
from tests.lib.support import account

HASH: Final = "$2b$04$i5rP5rcN9vQnvv3UGc5P4eHfT2P5hEblJ5ReJT4.asu5VUohTvixG"
GUARDED: Final = WebConfig(headers={"X-Frame-Options": "deny"}, users={"asha": PasswordHash(HASH)})
# Who sends in pieces reads the whole answer, however long the machine takes.
PATIENT: Final = Limits(head_seconds=DEADLINE_SECONDS, linger_seconds=DEADLINE_SECONDS)
SCRAPE: Final = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
# Nothing that a client sends may be answered with a 500, or be the fault of a server behind us.
STATUSES: Final = {200, 307, 400, 401, 403, 404, 405, 414, 429, 431, 503, 505}
HEAD: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [ -~]*\r\n((?:[!-9;-~]+: [\t -~]*\r\n)*)\r\n")
LENGTH: Final = re.compile(rb"(?im)^content-length: ([0-9]+)\r$")

METHODS: Final = st.sampled_from(
    [
        *(b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"TRACE"),
        *(b"CONNECT", b"PRI", b"QUERY", b"get", b"", b"G\x00T", b"M-SEARCH", b"GET GET", b"\xff"),
    ]
)
TARGETS: Final = st.one_of(
    st.sampled_from(
        [
            *(b"/metrics", b"/", b"/docs", b"/-/healthy", b"/-/ready", b"/-/reload", b"/nothing"),
            *(b"/probe?target=a", b"/probe?target=%2e%2e", b"/probe?target=a%2fb"),
            b"/probe?target",
            *(b"/probe?target=a&target=b", b"/probe?" + b"a=b&" * 50, b"/probe?target=%ff%fe"),
            *(b"//[::1", b"http://[::1", b"http://x", b"http://x/metrics", b"*", b"x:443", b"%"),
            *(b"/%00", b"/..%2f", b"/../../etc", b"//", b"///metrics", b"/metrics/", b"/./metrics"),
            *(b"/metrics?", b"/metrics#x", b"/metrics;x=1", b"/\xff\xfe", b"/%ff", b"/%zz", b""),
            *(b"/" + b"a" * 2000, b"/metrics HTTP/1.1", b"http://a@b:99999/", b"https://x:0/"),
        ]
    ),
    st.binary(max_size=12),
    st.binary(max_size=12).map(lambda tail: b"/" + tail),
    st.binary(max_size=12).map(lambda tail: b"/probe?target=" + tail),
)
VERSIONS: Final = st.sampled_from(
    [
        *(b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/0.9", b" HTTP/2.0"),
        *(b" HTTP/9.9", b"", b" ", b" http/1.1", b" HTTP/1", b" HTTP/1.10", b" ICY/1.0"),
        *(b" RTSP/1.0", b"\tHTTP/1.1", b" HTTP/1.1 ", b" HTTP/-1.1"),
    ]
)
NAMES: Final = (
    *(b"Host", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Expect"),
    *(b"Accept", b"Accept-Encoding", b"Authorization", b"Origin", b"Sec-Fetch-Site", b"Te"),
    *(b"X-Prometheus-Scrape-Timeout-Seconds", b"Content-Length ", b" Host", b"", b"X\x00", b"\xff"),
)
TEXTS: Final = (
    *(b"x", b"", b"close", b"keep-alive", b"upgrade", b"close, upgrade", b"h2c", b"websocket"),
    *(b"5", b"0", b"-1", b"+5", b"5, 5", b"5 5", b"0x5", b"9" * 30, b"chunked", b"gzip, chunked"),
    *(b"chunked, identity", b"xchunked", b"identity", b"100-continue", b"200-maybe", b"gzip;q=0"),
    *(b"gzip", b"text/plain;version=abc", b"text/plain;version=\xd9\xa3", b"*/*;q=2", b"q=q=q"),
    *(b"application/openmetrics-text;version=1.0.0", b"NaN", b"1e999", b"0.5", b"\xff\xfe"),
    *(b"Basic YXNoYTp4", b"Basic !", b"Basic", b"bAsIc  Og==", b"Basic " + b"A" * 400, b"Bearer x"),
    *(b"Basic YXNoYTp", b"*/*;q=x", b"gzip;q=x", b"text/plain;q=1e5"),
    *(b"a\r\n b", b"a\nX: y", b"a\rb", b"a" * 2000, b"cross-site", b"https://evil.example", b"\t"),
    b"\x00",
)
HEADERS: Final = st.lists(
    st.tuples(
        st.sampled_from(NAMES) | st.binary(max_size=5),
        st.sampled_from([b": ", b": ", b": ", b":", b" : ", b""]),
        st.sampled_from(TEXTS) | st.binary(max_size=8),
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n "]),
    ).map(b"".join),
    max_size=5,
).map(b"".join) | st.just(b"X: y\r\n" * 150)
BODIES: Final = st.sampled_from(
    [
        *(b"", b"", b"", b"12345", b"0\r\n\r\n", b"5\r\n12345\r\n0\r\n\r\n", b"5;x=y\r\n12345\r\n"),
        *(b"zz\r\n", b"-1\r\n", b"f" * 20 + b"\r\n", b"0\r\nX: y\r\n\r\n", b"\r\n"),
        b"\x81\x05hello",
    ]
)
ODD: Final = st.tuples(
    METHODS, st.just(b" "), TARGETS, VERSIONS, st.just(b"\r\n"), HEADERS, st.just(b"\r\n"), BODIES
).map(b"".join)
# Well formed to the parser, whatever it means.
WELL_FORMED: Final = st.tuples(
    st.sampled_from([b"GET ", b"GET ", b"GET ", b"HEAD ", b"POST ", b"OPTIONS ", b"DELETE "]),
    TARGETS.map(lambda target: re.sub(rb"[^!-~\x80-\xff]", b"%", target) or b"/"),
    st.sampled_from([b" HTTP/1.1\r\n", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"]),
    st.lists(
        st.tuples(
            st.sampled_from([name for name in NAMES if re.fullmatch(rb"[A-Za-z-]+", name)]),
            st.just(b": "),
            st.sampled_from([text for text in TEXTS if not re.search(rb"[\r\n\x00]", text)]),
            st.just(b"\r\n"),
        ).map(b"".join),
        max_size=3,
    ).map(b"".join),
    st.just(b"\r\n"),
).map(b"".join)
REQUESTS: Final = WELL_FORMED | WELL_FORMED | ODD
# Requests with two lengths, one of them written so that some programs do not see it: where they
# disagree about the end, what follows is a request to one of them and a body to the other.
HIDDEN: Final = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
SEEN: Final = st.sampled_from(
    [b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"]
)
# Of a name and a value: odd spellings of the name, of what is between them, and of the end.
ODD_FORMS: Final = (
    b"%s : %s\r\n|%s\t: %s\r\n| %s: %s\r\n|\t%s: %s\r\n|\0%s: %s\r\n|%s\0: %s\r\n|%s\xa0: %s\r\n"
    b"|X-%s: %s\r\n|%s\r: %s\r\n|%s;: %s\r\n|X: y\n%s: %s\r\n|X: y\r%s: %s\r\n|X: y\r\n %s: %s\r\n"
    b'|\n%s: %s\r\n|\x0b%s: %s\r\n|"%s": %s\r\n|%s:%s\r\n|%s:\t%s\r\n|%s:\x0b%s\r\n|%s:\0%s\r\n'
    b"|%s:\r\n %s\r\n|%s:\n %s\r\n|%s:\r%s\r\n|%s=%s\r\n|%s %s\r\n|%s%s\r\n|%s:: %s\r\n"
    b"|%s: \xff%s\r\n|%s: %s\n|%s: %s\r|%s: %s\r\r\n|%s: %s\0\r\n|%s: %s \r\n|%s: %s\r\n "
    b"|%s: %s\n\r\n|%s: %s\r\n\t|%s: %s\x85\r\n|%s: %s;\r\n|%s: %s,\r\n|%s: ,%s\r\n|%s: '%s'\r\n"
).split(b"|")
ODD_CODINGS: Final = (
    b"Chunked|xchunked|chunkedx|chunk|chunked, identity|identity, chunked|chunked, chunked|gzip"
    b"|chunked;q=1|chunked chunked|identity||chunked\r\nTransfer-Encoding: identity|ch\xc3\xbcnked"
).split(b"|")
ODD_LENGTHS: Final = (
    b"6|05|+5|-5|5, 5|5, 6|0x5|5.0|5e0|1_0||\xd9\xa5|5 5|5\t5|4294967301|18446744073709551621"
    b"|9999999999999999999999999999999999999999|5\r\nContent-Length: 6|5\nContent-Length: 0"
).split(b"|")
ODD_LINES: Final = st.sampled_from(
    [
        *(form % (b"Transfer-Encoding", b"chunked") for form in ODD_FORMS),
        *(b"Transfer-Encoding: %s\r\n" % coding for coding in ODD_CODINGS),
        *(form % (b"Content-Length", b"5") for form in ODD_FORMS),
        *(b"Content-Length: %s\r\n" % length for length in ODD_LENGTHS),
        *(b"Transfer_Encoding: chunked\r\n", b"TRANSFER-ENCODING: chunked\r\n", b"TE: chunked\r\n"),
        *(b"Content_Length: 5\r\n", b"content-length: 5\r\n", b"Content\xadLength: 5\r\n"),
    ]
)
BODIES_AND_MORE: Final = (
    b"|0\r\n\r\n|12345|5\r\n12345\r\n0\r\n\r\n|5;\n12345\r\n0\r\n\r\n"
    b"|05\r\n12345\r\n0\r\nX: y\r\n\r\n|0x5\r\n12345\r\n0\r\n\r\n|0\n\n|%x\r\n|5\r\n123450\r\n\r\n"
    % len(HIDDEN)
).split(b"|")
AMBIGUOUS: Final = st.tuples(
    st.sampled_from([b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n"]),
    st.tuples(SEEN, ODD_LINES).flatmap(st.permutations).map(b"".join),
    st.just(b"Connection: keep-alive\r\n\r\n"),
    st.sampled_from(BODIES_AND_MORE),
    st.just(HIDDEN),
).map(b"".join)
HELLO: Final = bytes.fromhex("16030100c8010000c40303") + b"\x00" * 189
HELLOS: Final = (HELLO, hello_of(ssl.TLSVersion.TLSv1_2), hello_of(ssl.TLSVersion.TLSv1_3))
FOREIGN: Final = st.sampled_from(
    [
        *(HELLO, b"SSH-2.0-OpenSSH_9.6\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 200),
        *(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + SCRAPE, b"\x05\x01\x00", b"*1\r\n$4\r\nPING\r\n"),
        *(b"EHLO x\r\n", b"\x00" * 300, b"GET", b"GET /metrics", b"\x80\x2e\x01\x00\x02", b""),
    ]
)
INSERTIONS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\r\n\r\n", b"%", b"\xff", b"HTTP/1.1"),
    *(SCRAPE, b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue"),
)
CONVERSATIONS: Final = st.one_of(
    REQUESTS,
    st.lists(REQUESTS, min_size=2, max_size=4).map(b"".join),
    st.lists(REQUESTS | st.just(SCRAPE), min_size=2, max_size=4).map(b"".join),
    edited(REQUESTS | AMBIGUOUS | st.just(SCRAPE * 2), INSERTIONS),
    FOREIGN,
    st.binary(max_size=100),
)
# What a header may contain: anything but control characters.
ON_A_LINE: Final = st.one_of(
    st.lists(
        st.sampled_from(
            [
                *(b"application/openmetrics-text", b"text/plain", b"*/*", b"gzip", b"identity"),
                *(b",", b";", b";version=", b";q=", b"1.0.0", b"0.5", b"0", b'"', b"abc", b" "),
                *(b";q=", b"\xd9\xa3"),
            ]
        ),
        max_size=9,
    ).map(b"".join),
    st.binary(max_size=30).map(lambda text: re.sub(rb"[\x00-\x1f\x7f]", b"", text)),
)


@dataclass(frozen=True)
class NoNumbers:
    account: Account
    clock: Clock = field(default_factory=Clock)
    budget: RateLimiter = field(default_factory=lambda: RateLimiter(10**9, Clock().monotonic))

    def fetch_number(self, sid: str, within_seconds: float) -> ExoPhone:
        raise NotFound(f"404: {sid}, asked for within {within_seconds:g}s")


class Site:
    """A server, one scraper of it that stays connected, and what is logged."""

    def __init__(self, port: int, log: list[str], tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._log = log
        self._tls = tls
        self._scraper: socket.socket | None = None

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), DEADLINE_SECONDS)

    def said_to(self, *sent: bytes) -> bytes:
        """All that comes back for some bytes, in pieces, the last that the client sends."""
        with self.open() as client, contextlib.suppress(ConnectionError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in sent:
                client.sendall(piece)
            self.scrape()  # what is answered in the loop has been answered then
            client.shutdown(socket.SHUT_WR)
            return rest_of(client)
        return b""

    def answer_to(self, request: bytes) -> tuple[bytes, bytes]:
        with self.open() as client:
            client.sendall(request)
            head, _, body = rest_of(client).partition(b"\r\n\r\n")
        return head + b"\r\n", body

    def scrape(self) -> int:
        """The status of a scrape, over a connection that is kept while the server keeps it."""
        try:
            return self._scraped()
        except ConnectionError:
            self.close()
            return self._scraped()

    def _scraped(self) -> int:
        if self._scraper is None:
            client = self.open()
            wrap = self._tls.wrap_socket if self._tls else None
            self._scraper = wrap(client, server_hostname="localhost") if wrap else client
        self._scraper.sendall(SCRAPE)
        content = b""
        while not is_whole(content):
            piece = self._scraper.recv(65536)
            if not piece:
                raise ConnectionResetError
            content += piece
        return int(content[9:12])

    def close(self) -> None:
        if self._scraper is not None:
            self._scraper.close()
            self._scraper = None

    def assert_quiet(self) -> None:
        """Nothing that a client sends is worth a warning, let alone a traceback."""
        assert self._log == []


def is_whole(content: bytes) -> bool:
    head = HEAD.match(content)
    length = LENGTH.search(head[2]) if head else None
    return head is not None and length is not None and len(content) >= head.end() + int(length[1])


def statuses_of(content: bytes) -> list[int]:
    """The statuses of answers that follow each other, the last of which may have been cut off."""
    statuses = []
    while content:
        if content.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            content = content[25:]
            continue
        head = HEAD.match(content)
        assert head is not None, content[:200]
        length = LENGTH.search(head[2])
        assert length is not None, content[:200]
        statuses.append(int(head[1]))
        content = content[head.end() :]
        if not content.startswith(b"HTTP/1.1 "):  # as behind the answer to a HEAD
            content = content[int(length[1]) :]
    return statuses


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    ear, root = _Ear(), logging.getLogger()
    root.addHandler(ear)
    yield ear.heard
    root.removeHandler(ear)


def application() -> Starlette:
    exporter = Exporter(Config("FILE", (account(),), ()))
    reloader = Reloader(lambda: Config("FILE", (account(),), ()), exporter, exporter.clock)
    clients: Any = {"support": NoNumbers(account())}
    return routes.application(
        exporter,
        WebSettings(),
        probe=Prober(lambda: clients).handle,
        reload=reload.endpoint(reloader, enabled=False),
    )


@contextlib.contextmanager
def site_of(app: Callable[..., object], log: list[str], *tls: ssl.SSLContext) -> Iterator[Site]:
    server, client = tls or (None, None)
    with (
        serving_app(app, tls=server, limits=PATIENT) as port,
        contextlib.closing(Site(port, log, client)) as site,
    ):
        yield site


@pytest.fixture(scope="module")
def site(log: list[str]) -> Iterator[Site]:
    with site_of(application(), log) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(log: list[str]) -> Iterator[Site]:
    clock = Clock()
    guard = Guard(application(), lambda: GUARDED, RefusedClients(clock), clock)
    with site_of(guard, log) as running:
        yield running


@pytest.fixture(scope="module")
def secure(log: list[str]) -> Iterator[Site]:
    server, client = tls_contexts(trustme.CA())
    with site_of(application(), log, server, client) as running:
        yield running


def assert_served(site: Site, sent: bytes) -> None:
    """Answers with statuses that fit, or none; nothing in the log; the next scrape as ever."""
    assert set(statuses_of(site.said_to(sent))) <= STATUSES
    assert site.scrape() == 200
    site.assert_quiet()


@share(300)
@given(sent=CONVERSATIONS)
@pytest.mark.fault(108, 109, 110)
def test_any_bytes_are_answered_or_the_connection_ends(site: Site, sent: bytes) -> None:
    """Odd methods, targets, versions, headers, bodies; several together; other protocols."""
    assert_served(site, sent)


@share(300)
@given(sent=AMBIGUOUS, cut=st.none() | st.integers(1, 300))
@pytest.mark.fault(182)
def test_an_ambiguous_request_has_one_answer_however_it_is_cut(
    site: Site, sent: bytes, cut: int | None
) -> None:
    """What is hidden behind it is never executed; in two pieces or byte by byte (None)."""
    pieces = [sent[:cut], sent[cut:]] if cut else [bytes([byte]) for byte in sent]
    statuses = statuses_of(site.said_to(sent))
    assert len(statuses) <= 1
    assert set(statuses) <= STATUSES
    assert statuses_of(site.said_to(*pieces)) == statuses
    site.assert_quiet()


@given(sent=CONVERSATIONS)
@pytest.mark.fault(108)
def test_no_bytes_get_past_the_users(guarded: Site, sent: bytes) -> None:
    assert set(statuses_of(guarded.said_to(sent))) <= STATUSES - {200, 307}
    assert guarded.scrape() == 401
    guarded.assert_quiet()


@share(50)
@given(sent=CONVERSATIONS | edited(st.sampled_from(HELLOS), [b"\x16\x03", b"\xff\xff", b"\0\x33"]))
@pytest.mark.fault(108)
def test_any_bytes_on_a_port_that_speaks_tls_end_the_connection(secure: Site, sent: bytes) -> None:
    """With an alert, the server's part of a handshake, or the answer to plain HTTP."""
    answer = secure.said_to(sent)
    assert answer[:1] in {b"", b"\x15", b"\x16"} or answer.startswith(b"HTTP/1.0 400 ")
    assert secure.scrape() == 200
    secure.assert_quiet()


@given(accept=ON_A_LINE, encoding=ON_A_LINE, path=st.sampled_from([b"metrics", b"probe?target=a"]))
@pytest.mark.fault(112)
def test_any_accept_headers_get_one_of_two_types_and_encodings(
    site: Site, accept: bytes, encoding: bytes, path: bytes
) -> None:
    """Word for word ours, whatever the client wrote."""
    head, body = site.answer_to(
        b"GET /%s HTTP/1.1\r\nAccept: %s\r\nAccept-Encoding: %s\r\nConnection: close\r\n\r\n"
        % (path, accept, encoding)
    )
    (content_type,) = re.findall(rb"(?im)^content-type: (.*)\r$", head)
    encodings = re.findall(rb"(?im)^content-encoding: (.*)\r$", head)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nvary: accept, accept-encoding\r\n" in head.lower()
    schemes = ("underscores", "allow-utf-8", "dots", "values")
    assert content_type.decode() in {TEXT, *(OPENMETRICS + scheme for scheme in schemes)}
    assert encodings in ([], [b"gzip"])
    text = gzip.decompress(body) if encodings else body
    assert text.endswith(b"# EOF\n") is (content_type.decode() != TEXT)
    site.assert_quiet()


@pytest.mark.parametrize("sent", corpus("requests"))
@pytest.mark.fault(109)
def test_requests_that_once_broke_something(site: Site, guarded: Site, sent: bytes) -> None:
    assert_served(site, sent)
    assert set(statuses_of(guarded.said_to(sent))) <= STATUSES - {200, 307}
    guarded.assert_quiet()
