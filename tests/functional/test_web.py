"""The routes, on a real socket, from the server that users run."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import html
import http.client
import json
import logging
import re
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
from starlette.responses import PlainTextResponse

from exophone_exporter.config.settings import Config
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, AccountStatus, PollResult
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from exophone_exporter.threads import in_thread, start_daemon
from exophone_exporter.web.routes import application
from exophone_exporter.web.settings import WebSettings
from tests.lib.servers import serving_app
from tests.lib.support import FakeTime, account, browse, held_rendering, phone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from exophone_exporter.web import routes

DEADLINE_SECONDS: Final = 10
SERVED: Final = ("/metrics", "/", "/docs", "/-/healthy", "/-/ready")
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class FakeExporter(Exporter):
    """One account whose polls a test records, and answers about health that it may change."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.state = AccountState(account())
        self.is_healthy = self.is_ready = True
        config = Config("test", (account(),), ())
        super().__init__(config, clock=self.time.clock, new_state=lambda _: self.state)

    def healthy(self) -> bool:
        return self.is_healthy

    def ready(self) -> bool:
        return self.is_ready

    def find(self, count: int, **changes: str) -> None:
        """A complete poll of so many numbers, and the page that shows them."""
        self.poll(count, **changes)
        self.page.refresh()

    def poll(self, count: int, **changes: str) -> None:
        """A complete poll that no page shows yet."""
        now = self.clock.now()
        found = tuple(phone(f"sid-{n}", **changes) for n in range(count))
        self.state.record_poll(PollResult(now, 1.0, build(Listing(found, 1, Counter()), now, 1.0)))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class Site:
    """A running server."""

    port: int

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS)

    def send_raw(self, request: bytes) -> bytes:
        """Everything that comes back until the server closes, as the request must ask it to."""
        with self.open() as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(65536), b""))


@contextlib.contextmanager
def serving(
    exporter: Exporter,
    settings: WebSettings | None = None,
    *,
    probe: routes.Handler | None = None,
    reload: routes.Handler | None = None,
) -> Iterator[Site]:
    """The real server in a thread, on a port of its own."""
    app = application(exporter, settings or WebSettings(), probe=probe, reload=reload)
    with serving_app(app) as port:
        yield Site(port)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    exporter = FakeExporter()
    exporter.find(3)
    with serving(exporter, probe=told) as running:
        yield running


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does; the real clock sets the end."""
    turn, done = threading.Event(), DEADLINE_SECONDS * 100
    for _ in range(done):
        if condition():
            return
        turn.wait(0.01)
    raise AssertionError("it did not happen in time")


@pytest.mark.parametrize(
    ("path", "content_type", "found"),
    [
        pytest.param("/metrics", TEXT, b'exophone_up{account="support"} 1.0\n', id="metrics"),
        pytest.param("/", "text/html; charset=utf-8", b"<h2 id=", id="status"),
        pytest.param("/docs", "text/html; charset=utf-8", b"<h1>Reference</h1>", id="docs"),
        pytest.param("/-/healthy", "text/plain; charset=utf-8", b"healthy.\n", id="healthy"),
        pytest.param("/-/ready", "text/plain; charset=utf-8", b"ready.\n", id="ready"),
        pytest.param("/metrics?name[]=x", TEXT, b"exophone_up", id="query-is-ignored"),
    ],
)
def test_get_is_answered(site: Site, path: str, content_type: str, found: bytes) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert found in answer.body
    assert answer.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.fault(110)
@pytest.mark.parametrize("path", [pytest.param(path, id=path) for path in SERVED])
def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    """The clock stands still, so the two answers are of the same length."""
    exporter = FakeExporter()
    exporter.find(3)
    with serving(exporter) as site:
        get, head = site.ask(path), site.ask(path, "HEAD")
        raw = site.send_raw(
            f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
    without_date = [
        [(name, value) for name, value in answer.headers.items() if name.lower() != "date"]
        for answer in (get, head)
    ]
    assert without_date[0] == without_date[1]
    assert (get.status, head.status, head.body) == (200, 200, b"")
    assert raw.endswith(b"\r\n\r\n")
    assert raw.count(b"\r\n\r\n") == 1


@pytest.mark.fault(110)
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, id=m) for m in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")],
)
@pytest.mark.parametrize("path", [pytest.param(path, id=path) for path in (*SERVED, "/probe")])
def test_other_methods_are_405_and_told_which_are_allowed(
    site: Site, path: str, method: str
) -> None:
    answer = site.ask(path, method)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.fault(110)
def test_body_of_a_refused_request_is_not_taken_for_another_request(site: Site) -> None:
    hidden = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    answer = site.send_raw(head % len(hidden) + hidden)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/metric", id="near"),
        pytest.param("/metrics/", id="slash"),
        pytest.param("/metrics/x", id="below"),
        pytest.param("/favicon.ico", id="favicon"),
        pytest.param("/-/", id="dash"),
        pytest.param("/docs/", id="docs-slash"),
        pytest.param("/-/healthy/", id="healthy-slash"),
        pytest.param("/static/../metrics", id="dots"),
    ],
)
def test_unknown_path_is_404(site: Site, path: str) -> None:
    assert site.ask(path).status == 404


@pytest.mark.fault(109)
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"//[::1", id="half-an-address"),
        pytest.param(b"/%00", id="nul"),
        pytest.param(b"/..%2f", id="dots"),
        pytest.param(b"/%ff%fe", id="no-utf-8"),
        pytest.param(b"/\xff\xfe", id="raw-bytes"),
        pytest.param(b"http://elsewhere.example/nothing", id="absolute-form"),
        pytest.param(b"elsewhere.example:443", id="authority-form"),
        pytest.param(b"*", id="asterisk"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"/nothing?" + b"&".join(b"a=%d" % n for n in range(50)), id="fifty-fields"),
        pytest.param(b"/nothing?%", id="half-escape"),
        pytest.param(b"/" + b"a" * 5000, id="long"),
    ],
)
def test_odd_target_is_refused_without_a_traceback(
    site: Site,
    target: bytes,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    answer = site.send_raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert b"Traceback" not in answer
    assert [record for record in caplog.records if record.exc_info] == []
    assert "Traceback" not in capfd.readouterr().err
    assert site.ask("/-/healthy").status == 200


@pytest.mark.parametrize(
    ("accept", "content_type", "end"),
    [
        pytest.param("", TEXT, b"\n", id="text"),
        pytest.param("application/openmetrics-text", OPENMETRICS, b"# EOF\n", id="openmetrics"),
        pytest.param("application/openmetrics-text;q=0", TEXT, b"\n", id="q-zero"),
    ],
)
@pytest.mark.parametrize("encoding", [pytest.param("gzip", id="gzip"), pytest.param("", id="no")])
def test_metrics_are_in_the_format_and_encoding_that_the_client_prefers(
    site: Site, accept: str, content_type: str, end: bytes, encoding: str
) -> None:
    answer = site.ask("/metrics", Accept=accept, Accept_Encoding=encoding)
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert answer.headers["Content-Encoding"] == (encoding or None)
    body = gzip.decompress(answer.body) if encoding else answer.body
    assert body.startswith(b"# HELP exophone_numbers ")
    assert body.endswith(end)
    assert (b"# EOF" in body) == (end == b"# EOF\n")


@pytest.mark.fault(132)
def test_scrape_during_a_rendering_gets_the_previous_bytes_and_nothing_waits() -> None:
    exporter = FakeExporter()
    exporter.find(5)
    with serving(exporter) as site:
        before = site.ask("/metrics").body
        exporter.poll(7)
        with held_rendering(exporter.page, exporter.state):
            assert site.ask("/metrics").body == before
            assert [site.ask(path).status for path in SERVED] == [200] * len(SERVED)
        assert before.count(b"\nexophone_number_info{") == 5
        assert site.ask("/metrics").body.count(b"\nexophone_number_info{") == 7


@pytest.mark.fault(132)
def test_scrape_that_must_wait_for_a_rendering_keeps_nobody_else_waiting() -> None:
    """The bytes of before would be stale: no scrape may have them, and all the rest is answered."""
    app, exporter, waits = app_whose_scrapes_wait()
    with serving_app(app) as port, ThreadPoolExecutor(1) as pool:
        site = Site(port)
        with held_rendering(exporter.page, exporter.state):
            exporter.time.pass_(account().poll.stale_after_seconds + 1)
            scrape = pool.submit(site.ask, "/metrics")
            assert waits.wait(DEADLINE_SECONDS)
            others = [path for path in SERVED if path != "/metrics"]
            assert [site.ask(path).status for path in others] == [200] * len(others)
            assert not scrape.done()
        answer = scrape.result(DEADLINE_SECONDS)
    assert answer.status == 200
    assert b"exophone_number_info{" not in answer.body


def app_whose_scrapes_wait() -> tuple[Starlette, FakeExporter, threading.Event]:
    """An application, an exporter with a poll to render, and what is set when a scrape waits."""
    exporter, waits = FakeExporter(), threading.Event()

    def start(run: Callable[[], None]) -> None:
        waits.set()
        start_daemon(run)

    exporter.find(5)
    exporter.poll(7)
    return application(exporter, WebSettings(), start=start), exporter, waits


@pytest.mark.fault(118)
def test_server_ends_although_a_scrape_waits_for_a_rendering() -> None:
    """The rendering goes on until after the end of the server."""
    app, exporter, waits = app_whose_scrapes_wait()
    with held_rendering(exporter.page, exporter.state), ThreadPoolExecutor(1) as pool:
        with serving_app(app) as port:
            exporter.time.pass_(account().poll.stale_after_seconds + 1)
            scrape = pool.submit(Site(port).ask, "/metrics")
            assert waits.wait(DEADLINE_SECONDS)
        assert scrape.exception(DEADLINE_SECONDS) or scrape.result().status >= 500


@pytest.mark.fault(132)
def test_defect_of_a_rendering_is_that_of_its_scrape() -> None:
    def broken() -> Sequence[bytes]:
        raise MemoryError

    with pytest.raises(MemoryError):
        asyncio.run(in_thread(broken))


@pytest.mark.fault(132)
def test_defect_of_a_rendering_is_not_taken_for_a_want_of_threads() -> None:
    """RuntimeError is what a thread that cannot be started raises; the loop must not try again."""
    made_by = []

    def broken() -> Sequence[bytes]:
        made_by.append(threading.current_thread())
        raise RuntimeError("deque mutated during iteration")

    with pytest.raises(RuntimeError, match="deque"):
        asyncio.run(in_thread(broken))
    (thread,) = made_by
    assert thread is not threading.main_thread()
    assert thread.daemon  # the end of the process does not wait for it


class HeldStatusPage(FakeExporter):
    """An exporter whose status page is held in the middle until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.page = MetricsPage(
            super().statuses, lambda: ExporterInfo("r", 0.0), self.clock
        )  # not held
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.at_once = self.at_once_at_most = 0

    def statuses(self) -> tuple[AccountStatus, ...]:
        self.at_once += 1
        self.at_once_at_most = max(self.at_once, self.at_once_at_most)
        self.begun.release()
        assert self.go_on.wait(DEADLINE_SECONDS)
        self.at_once -= 1
        return super().statuses()


@pytest.mark.fault(132)
def test_status_page_that_takes_long_keeps_nobody_waiting() -> None:
    exporter = HeldStatusPage()
    exporter.find(5)
    with serving(exporter) as site, ThreadPoolExecutor(1) as pool:
        page = pool.submit(site.ask, "/")
        try:
            assert exporter.begun.acquire(timeout=DEADLINE_SECONDS)
            others = [path for path in SERVED if path != "/"]
            assert [site.ask(path).status for path in others] == [200] * len(others)
            assert not page.done()
        finally:
            exporter.go_on.set()
        answer = page.result(DEADLINE_SECONDS)
    assert answer.status == 200
    assert b"<dt>numbers</dt><dd>5</dd>" in answer.body


@pytest.mark.fault(132)
def test_status_pages_are_made_one_at_a_time() -> None:
    """A crowd of people takes no more of the interpreter than one."""
    exporter = HeldStatusPage()
    settings = WebSettings(max_requests=2)
    with serving(exporter, settings) as site, ThreadPoolExecutor(2) as pool:
        pages = [pool.submit(site.ask, "/") for _ in range(2)]
        try:
            assert exporter.begun.acquire(timeout=DEADLINE_SECONDS)
            wait_until(lambda: site.ask("/metrics").status == 503)  # so both are in flight
        finally:
            exporter.go_on.set()
        assert [page.result(DEADLINE_SECONDS).status for page in pages] == [200, 200]
    assert exporter.at_once_at_most == 1


@pytest.mark.fault(118)
def test_server_ends_although_a_status_page_takes_long() -> None:
    exporter = HeldStatusPage()
    with ThreadPoolExecutor(1) as pool:
        with serving(exporter) as site:
            page = pool.submit(site.ask, "/")
            assert exporter.begun.acquire(timeout=DEADLINE_SECONDS)
        assert page.exception(DEADLINE_SECONDS) or page.result().status >= 500
        exporter.go_on.set()


@pytest.mark.fault(131)
@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("/metrics", b'exophone_up{account="support"} 1.0\n', id="metrics"),
        pytest.param("/", b"too old to show", id="status"),
    ],
)
def test_what_takes_long_is_answered_without_a_thread_too(path: str, found: bytes) -> None:
    """Late is better than never: the metrics must be rendered first, and the page always."""

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    exporter = FakeExporter()
    exporter.find(5)
    exporter.time.pass_(account().poll.stale_after_seconds + 1)
    with serving_app(application(exporter, WebSettings(), start=no_thread)) as port:
        answer = Site(port).ask(path)
    assert answer.status == 200
    assert found in answer.body
    assert b"exophone_number_info{" not in answer.body


@pytest.mark.fault(112)
def test_gzip_that_is_refused_is_not_sent(site: Site) -> None:
    answer = site.ask("/metrics", Accept_Encoding="gzip;q=0")
    assert answer.headers["Content-Encoding"] is None
    assert answer.body.startswith(b"# HELP")


@pytest.mark.fault(112)
@pytest.mark.parametrize(
    "accept",
    [
        pytest.param(b"a" * 10_000, id="ten-kilobytes"),
        pytest.param(b"text/plain;version=abc", id="version-abc"),
        pytest.param("text/plain;version=\u0663".encode(), id="arabic-version"),
        pytest.param(b"\xff\xfe", id="no-utf-8"),
    ],
)
def test_odd_accept_header_gets_text(site: Site, accept: bytes) -> None:
    raw = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: " + accept
    answer = site.send_raw(raw + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert TEXT.encode() in answer.partition(b"\r\n\r\n")[0]


@pytest.mark.fault(117)
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path) for path in ("/metrics", "/", "/docs", "/nothing")]
)
def test_server_does_not_tell_what_it_is_made_of(site: Site, path: str) -> None:
    assert site.ask(path).headers["Server"] is None


@pytest.mark.fault(117)
@pytest.mark.parametrize("path", [pytest.param("/", id="status"), pytest.param("/docs", id="docs")])
def test_pages_may_load_and_run_nothing(site: Site, path: str) -> None:
    headers = site.ask(path).headers
    policy = set(headers["Content-Security-Policy"].split("; "))
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "base-uri 'none'"} <= policy
    assert {"form-action 'none'", "frame-ancestors 'none'"} <= policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "attribute"),
    [
        pytest.param("/-/healthy", "is_healthy", id="healthy"),
        pytest.param("/-/ready", "is_ready", id="ready"),
    ],
)
def test_health_and_readiness_are_503_until_they_hold(path: str, attribute: str) -> None:
    exporter = FakeExporter()
    setattr(exporter, attribute, False)
    with serving(exporter) as site:
        assert site.ask(path).status == 503
        setattr(exporter, attribute, True)
        assert site.ask(path).status == 200


def test_telemetry_path_can_be_moved() -> None:
    with serving(FakeExporter(), WebSettings(telemetry_path="/exophones")) as site:
        assert site.ask("/exophones").headers["Content-Type"] == TEXT
        assert site.ask("/metrics").status == 404
        assert b'<a href="/exophones">' in site.ask("/").body


PREFIXED: Final = WebSettings(external_url="https://example.com/a/b/")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path) for path in SERVED],
)
@pytest.mark.parametrize("method", [pytest.param(m, id=m) for m in ("GET", "HEAD")])
def test_with_a_prefix_everything_stands_under_it(path: str, method: str) -> None:
    with serving(FakeExporter(), PREFIXED) as site:
        assert site.ask("/a/b" + path, method).status == 200
        if path != "/":
            assert site.ask(path, method).status == 404


@pytest.mark.parametrize("path", [pytest.param("/", id="root"), pytest.param("/a/b", id="bare")])
@pytest.mark.parametrize("method", [pytest.param(m, id=m) for m in ("GET", "HEAD")])
def test_with_a_prefix_the_root_leads_to_it(path: str, method: str) -> None:
    """A relative redirect, as Prometheus gives: the proxy knows the host, the exporter does not."""
    with serving(FakeExporter(), PREFIXED) as site:
        answer = site.ask(path, method)
        assert (answer.status, answer.headers["Location"]) == (302, "/a/b/")
        assert site.ask(answer.headers["Location"]).status == 200


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/a", id="part-of-the-prefix"),
        pytest.param("/a/", id="part-with-slash"),
        pytest.param("/a/bmetrics", id="no-slash-between"),
        pytest.param("/a/b//metrics", id="two-slashes"),
        pytest.param("/a/b/a/b/metrics", id="twice"),
        pytest.param("/a/b/metrics/", id="slash-at-the-end"),
    ],
)
def test_with_a_prefix_unknown_paths_are_404(path: str) -> None:
    with serving(FakeExporter(), PREFIXED) as site:
        assert site.ask(path).status == 404


@pytest.mark.fault(110)
def test_with_a_prefix_other_methods_are_405() -> None:
    with serving(FakeExporter(), PREFIXED) as site:
        for path in ("/", "/a/b", "/a/b/", "/a/b/metrics", "/a/b/-/ready"):
            assert site.ask(path, "POST").status == 405
            assert set(site.ask(path, "POST").headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "served", "links"),
    [
        pytest.param("http://h/x", "", "/x", "/x", id="same"),
        pytest.param("http://h/x", "/", "", "/x", id="proxy-takes-it-away"),
        pytest.param("", "/y", "/y", "/y", id="prefix-alone"),
        pytest.param("", "", "", "", id="neither"),
    ],
)
def test_links_are_what_a_browser_can_follow(
    external_url: str, route_prefix: str, served: str, links: str
) -> None:
    """Each link of both pages leads, without the proxy's part, to an answer of 200."""
    settings = WebSettings(external_url=external_url, route_prefix=route_prefix)
    exporter = FakeExporter()
    exporter.find(1, voice_url="")
    with serving(exporter, settings, probe=told, reload=told) as site:
        for page in ("/", "/docs"):
            body = site.ask(served + page).body.decode()
            hrefs = {html.unescape(href) for href in re.findall(r'href="([^"#]+)"', body)}
            pages = {links + path for path in ("/", "/metrics", "/docs")}
            assert pages | {f"{links}/-/healthy", f"{links}/-/ready"} <= hrefs
            assert all(href.startswith(f"{links}/") for href in hrefs)
            for href in hrefs:
                assert site.ask(served + href.removeprefix(links)).status == 200


async def told(request: Request) -> Response:
    """Says what was asked, with a status of its own for what is no GET."""
    status = 200 if request.method in ("GET", "HEAD") else 403
    return PlainTextResponse(f"{request.method} {request.url.query}", status_code=status)


@pytest.mark.parametrize(
    "path", [pytest.param("/probe?target=x", id="probe"), pytest.param("/-/reload", id="reload")]
)
@pytest.mark.parametrize("method", [pytest.param("GET", id="get"), pytest.param("POST", id="post")])
def test_probe_and_reload_are_not_there_without_a_handler(path: str, method: str) -> None:
    exporter = FakeExporter()
    exporter.find(1, voice_url="")
    with serving(exporter) as site:
        assert site.ask(path, method).status == 404
        assert path.partition("?")[0].encode() not in site.ask("/docs").body
        assert b"/probe" not in site.ask("/").body


@pytest.mark.parametrize("prefix", [pytest.param("", id="bare"), pytest.param("/x", id="prefix")])
def test_probe_answers_get_and_head_alone(prefix: str) -> None:
    with serving(FakeExporter(), WebSettings(route_prefix=prefix), probe=told) as site:
        assert site.ask(f"{prefix}/probe?target=x").body == b"GET target=x"
        head = site.ask(f"{prefix}/probe?target=x", "HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, "13")
        refused = site.ask(f"{prefix}/probe?target=x", "POST")
        assert (refused.status, set(refused.headers["Allow"].split(", "))) == (405, {"GET", "HEAD"})
        assert site.ask(f"{prefix}/-/reload", "POST").status == 404


@pytest.mark.fault(116)
@pytest.mark.parametrize("prefix", [pytest.param("", id="bare"), pytest.param("/x", id="prefix")])
def test_reload_sees_every_method(prefix: str) -> None:
    """Its handler answers 405 and 403 itself; the router must not do so first."""
    with serving(FakeExporter(), WebSettings(route_prefix=prefix), reload=told) as site:
        assert site.ask(f"{prefix}/-/reload").status == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = site.ask(f"{prefix}/-/reload", method)
            assert (answer.status, answer.body) == (403, f"{method} ".encode())


def test_an_unattached_number_leads_to_its_probe() -> None:
    """The link as a browser follows it brings sid and account to the handler."""
    exporter = FakeExporter()
    exporter.find(1, voice_url="")
    with serving(exporter, probe=told) as site:
        (href,) = re.findall(rb'href="(/probe[^"]*)"', site.ask("/").body)
        assert site.ask(html.unescape(href.decode())).body == b"GET target=sid-0&account=support"


def test_docs_name_every_path_and_metric_that_is_served() -> None:
    exporter = FakeExporter()
    exporter.find(3)
    with serving(exporter, WebSettings("/exophones"), probe=told, reload=told) as site:
        body = site.ask("/docs").body.decode()
        served = site.ask("/exophones").body.decode()
    for path in ("/", "/exophones", "/docs", "/probe", "/-/healthy", "/-/ready", "/-/reload"):
        assert f"<code>{path}</code>" in body
    assert ">/metrics<" not in body
    names = set(re.findall(r"(?m)^# TYPE (exophone_\w+) ", served))
    assert len(names) >= 20
    assert names <= set(re.findall(r"<code>(exophone_\w+)</code>", body))


@pytest.fixture(scope="module")
def large() -> FakeExporter:
    exporter = FakeExporter()
    exporter.find(10_000)
    return exporter


def slow_reader(site: Site, path: str = "/metrics") -> socket.socket:
    """A client that has asked for the plain metrics and reads only the first bytes of them."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(DEADLINE_SECONDS)
    client.connect(("127.0.0.1", site.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


@pytest.mark.fault(107)
@pytest.mark.parametrize("prefix", [pytest.param("", id="bare"), pytest.param("/x", id="prefix")])
def test_requests_past_the_limit_are_told_to_come_back(large: FakeExporter, prefix: str) -> None:
    """Slow readers are in flight until they have read; health is told all the same."""
    settings = WebSettings(max_requests=2, route_prefix=prefix)
    metrics = f"{prefix}/metrics"
    with (
        serving(large, settings, probe=told, reload=told) as site,
        contextlib.ExitStack() as readers,
    ):
        first = readers.enter_context(slow_reader(site, metrics))
        assert site.ask(metrics).status == 200
        readers.enter_context(slow_reader(site, metrics))
        refused = site.ask(metrics)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert refused.body == b"Limit of concurrent requests reached (2), try again later.\n"
        for limited in ("/", "/docs", "/nothing"):
            assert site.ask(prefix + limited).status == 503
        for exempt in ("/probe", "/-/healthy", "/-/ready", "/-/reload"):
            assert site.ask(prefix + exempt).status == 200
        first.close()
        wait_until(lambda: site.ask(metrics).status == 200)


@pytest.mark.fault(107)
@pytest.mark.parametrize("prefix", [pytest.param("", id="bare"), pytest.param("/x", id="prefix")])
def test_probes_that_wait_are_limited_and_keep_no_scrape_out(prefix: str) -> None:
    """An API that hangs holds probes; the metrics do not wait for it."""
    arrived, answered = threading.Semaphore(0), threading.Event()

    async def hangs(_: Request) -> Response:
        arrived.release()
        await asyncio.to_thread(answered.wait, DEADLINE_SECONDS)
        return PlainTextResponse("late\n")

    settings = WebSettings(max_requests=2, route_prefix=prefix)
    with (
        serving(FakeExporter(), settings, probe=hangs) as site,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(site.ask, f"{prefix}/probe?target=x") for _ in range(2)]
        assert all(arrived.acquire(timeout=DEADLINE_SECONDS) for _ in waiting)
        assert site.ask(f"{prefix}/probe?target=x").status == 503
        assert site.ask(f"{prefix}/metrics").status == 200
        answered.set()
        assert [late.result().status for late in waiting] == [200, 200]


@pytest.mark.fault(107)
def test_limit_of_zero_is_none(large: FakeExporter) -> None:
    with serving(large, WebSettings(max_requests=0)) as site, contextlib.ExitStack() as readers:
        for _ in range(45):
            readers.enter_context(slow_reader(site))
        assert site.ask("/-/healthy").status == 200
        assert site.ask("/metrics", "HEAD").status == 200


def test_slow_reader_gets_every_byte_in_the_end(large: FakeExporter) -> None:
    whole = large.page.render(openmetrics=False, gzipped=False)
    with serving(large) as site, slow_reader(site) as client:
        received = bytearray()
        while not received.endswith(whole[-100:]):
            received += client.recv(1 << 20)
    assert bytes(received).partition(b"\r\n\r\n")[2] == whole


@pytest.mark.parametrize(
    ("scheme", "most_bytes"),
    [pytest.param("http", 2**20, id="plain"), pytest.param("https", 2**18, id="tls-holds-a-copy")],
)
def test_large_answer_is_sent_in_pieces(scheme: str, most_bytes: int) -> None:
    """Few, as each is a turn of the loop; but what a slow client makes TLS hold stays small."""
    large: Any = SimpleNamespace(
        page=SimpleNamespace(cached_chunks=lambda **_: (bytes(3 * 2**20),))
    )
    sizes: list[int] = []

    async def send(message: Any) -> None:
        sizes.append(len(message.get("body", b"")))

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/metrics", "scheme": scheme}
    app = application(large, WebSettings())
    asyncio.run(app(scope | {"headers": [], "query_string": b""}, receive, send))
    assert [size for size in sizes if size] == [most_bytes] * (3 * 2**20 // most_bytes)


@pytest.mark.fault(111)
def test_client_that_leaves_during_the_answer_is_no_error(
    large: FakeExporter, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(large, WebSettings(max_requests=1)) as site:
        for _ in range(3):
            slow_reader(site).close()
            wait_until(lambda: site.ask("/metrics").status == 200)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "Traceback" not in capfd.readouterr().err


def test_many_scrapers_at_once_all_get_the_whole(large: FakeExporter) -> None:
    with serving(large) as site, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(site.ask, "/metrics", Accept_Encoding="gzip") for _ in range(32)]
        answers = [one.result(DEADLINE_SECONDS) for one in asked]
    bodies = {gzip.decompress(answer.body) for answer in answers}
    assert {body.count(b"\nexophone_number_info{") for body in bodies} == {10_000}


@contextlib.contextmanager
def exporting(sim: Simulator, *sids: str) -> Iterator[tuple[Exporter, Site]]:
    """The whole exporter on the simulator; its pollers start when the test says so."""
    accounts = tuple(
        account(sid, sid=sid, origin=sim.url, api_key=f"{sid}-key", api_token=f"{sid}-token")
        for sid in sids
    )
    exporter = Exporter(Config("test", accounts, ()))
    with serving(exporter) as site:
        try:
            yield exporter, site
        finally:
            exporter.stop()


def test_metrics_and_the_status_page_never_ask_the_api() -> None:
    with Simulator(World(make_account("acme", 5))) as sim, exporting(sim, "acme") as (it, site):
        it.start()
        wait_until(it.ready)
        asked = len(sim.requests)
        for path in ("/metrics", "/", "/-/healthy", "/-/ready") * 5:
            assert site.ask(path).status == 200
        assert len(sim.requests) == asked == 1


def test_ready_once_every_account_had_its_first_attempt_good_or_bad() -> None:
    """One revoked key must not hide the metric that tells of it."""
    world = World(make_account("acme", 2), make_account("other", 2))
    with Simulator(world) as sim, exporting(sim, "acme", "other") as (exporter, site):
        sim.fail(Fault(status=401, account_sid="acme", times=None))
        assert site.ask("/-/ready").status == 503
        assert site.ask("/metrics").status == 200
        hold = threading.Event()
        sim.on_request = lambda seen: None if seen.account_sid == "acme" else hold_back(hold)
        exporter.start()
        up = b'exophone_up{account="%s"} %d.0'
        wait_until(lambda: up % (b"acme", 0) in site.ask("/metrics").body)
        assert site.ask("/-/ready").status == 503
        hold.set()
        wait_until(lambda: site.ask("/-/ready").status == 200)
        wait_until(lambda: up % (b"other", 1) in site.ask("/metrics").body)


def hold_back(until: threading.Event) -> None:
    assert until.wait(DEADLINE_SECONDS)


def test_health_does_not_depend_on_the_api() -> None:
    with Simulator(World(make_account("acme", 2))) as sim, exporting(sim, "acme") as (it, site):
        sim.fail(Fault(status=403, times=None))
        it.start()
        wait_until(it.ready)
        assert site.ask("/-/healthy").status == 200
        metrics = site.ask("/metrics")
        assert metrics.status == 200
        assert (
            b'exophone_poll_failures_total{account="acme",reason="forbidden"} 1.0' in metrics.body
        )


def test_exporter_whose_pollers_do_not_run_is_not_healthy() -> None:
    with Simulator(World(make_account("acme", 1))) as sim, exporting(sim, "acme") as (_, site):
        assert site.ask("/-/healthy").status == 503


@pytest.mark.end_to_end
@pytest.mark.fault(67)
@pytest.mark.fault(117)
@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param(
            "/", ("<dt>numbers</dt><dd>4</dd>", "₹1,996.00", "/probe?target=sid-3"), id="status"
        ),
        pytest.param("/docs", ("exophone_numbers_unattached", "/-/reload"), id="docs"),
    ],
)
def test_browser_shows_a_page_logs_nothing_and_asks_no_other_host(
    program: Callable[[str], str], tmp_path: Path, path: str, found: tuple[str, ...]
) -> None:
    """The page as Chromium sees it, with its policy, and with names that would like to run."""
    chromium, exporter, log = program("chromium"), FakeExporter(), tmp_path / "log.json"
    hostile = "<script>console.log(1)</script><img src=http://evil.example/x onerror=alert(2)>"
    exporter.find(4, voice_url="", friendly_name=hostile)
    with serving(exporter, probe=told, reload=told) as site:
        shown = browse(
            chromium,
            tmp_path / "profile",
            "--enable-logging=stderr",
            f"--log-net-log={log}",
            "--dump-dom",
            f"http://127.0.0.1:{site.port}{path}",
        )
    for text in found:
        assert text in shown.stdout
    assert "CONSOLE" not in shown.stderr
    requested = hosts_requested(json.loads(log.read_text("utf-8")))
    assert requested == {f"127.0.0.1:{site.port}"}


def hosts_requested(net_log: dict[str, list[dict[str, dict[str, object]]]]) -> set[str]:
    """The hosts of every URL that a browser began to ask for, by its own log.

    Its maker's own are left out: it asks for its updates whatever it shows.
    """
    urls = [str(event.get("params", {}).get("url", "")) for event in net_log["events"]]
    hosts = {url.split("/")[2] for url in urls if url.startswith("http")}
    return {host for host in hosts if not host.endswith((".google.com", ".googleapis.com"))}
