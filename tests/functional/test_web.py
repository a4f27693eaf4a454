"""The routes, on a real socket, from the server that users run."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exophone_exporter import threads
from exophone_exporter.config.settings import Config
from exophone_exporter.inventory.state import AccountState, AccountStatus
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from exophone_exporter.threads import in_thread, start_daemon
from exophone_exporter.web.routes import application
from exophone_exporter.web.settings import WebSettings
from tests.lib.processes import wait_until
from tests.lib.servers import Site, serving_app, slow_reader
from tests.lib.support import FakeTime, account, browse, found, held_rendering, phone, snapshot

Handler = Callable[[Request], Awaitable[Response]]

DEADLINE_SECONDS: Final = 60
SERVED: Final = ("/metrics", "/", "/docs", "/-/healthy", "/-/ready")
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class FakeExporter(Exporter):
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
        numbers = (phone(f"sid-{n}", **changes) for n in range(count))
        self.state.record_poll(found(self.clock.now(), *numbers))
        self.page.refresh()

    def rendering(self) -> contextlib.AbstractContextManager[None]:
        """Another poll is being rendered in the block."""
        return held_rendering(self.page, self.state, snapshot(phone(), completed=self.clock.now()))


@contextlib.contextmanager
def serving(
    exporter: Exporter,
    settings: WebSettings | None = None,
    *,
    probe: Handler | None = None,
    reload: Handler | None = None,
) -> Iterator[Site]:
    app = application(exporter, settings or WebSettings(), probe=probe, reload=reload)
    with serving_app(app) as port:
        yield Site(port)


async def echo(request: Request) -> Response:
    """Repeats what was asked, with 403 for what is not a GET."""
    status = 200 if request.method in ("GET", "HEAD") else 403
    return PlainTextResponse(f"{request.method} {request.url.query}", status_code=status)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Every path but /-/reload. The clock stands still: an answer is always the same."""
    exporter = FakeExporter()
    exporter.find(3)
    with serving(exporter, probe=echo) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "content_type", "text"),
    [
        ("/metrics", TEXT, b'exophone_up{account="support"} 1.0\n'),
        ("/metrics?name[]=x", TEXT, b"exophone_up"),
        ("/", "text/html; charset=utf-8", b"<h2 id="),
        ("/docs", "text/html; charset=utf-8", b"<h1>Reference</h1>"),
        ("/-/healthy", "text/plain; charset=utf-8", b"exophone-exporter is healthy.\n"),
        ("/-/ready", "text/plain; charset=utf-8", b"exophone-exporter is ready.\n"),
    ],
)
def test_get_is_answered(site: Site, path: str, content_type: str, text: bytes) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert text in answer.body
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Server"] is None
    if not path.startswith("/-/"):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.fault(110)
@pytest.mark.parametrize("path", SERVED)
def test_head_has_the_headers_of_get_and_no_body(site: Site, path: str) -> None:
    get, head = site.ask(path), site.ask(path, "HEAD")
    with socket.create_connection(("127.0.0.1", site.port), DEADLINE_SECONDS) as client:
        client.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        raw = b"".join(iter(lambda: client.recv(65536), b""))
    without_date = [
        [(name, value) for name, value in answer.headers.items() if name.lower() != "date"]
        for answer in (get, head)
    ]
    assert without_date[0] == without_date[1]
    assert (get.status, head.status, head.body) == (200, 200, b"")
    assert raw.endswith(b"\r\n\r\n")
    assert raw.count(b"\r\n\r\n") == 1


@pytest.mark.fault(110)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", [*SERVED, "/probe"])
def test_other_methods_are_405_with_allow(site: Site, path: str, method: str) -> None:
    answer = site.ask(path, method)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.fault(117)
@pytest.mark.parametrize(
    "path",
    ["/metric", "/metrics/", "/metrics/x", "/favicon.ico", "/-/", "/docs/", "/static/../metrics"],
)
def test_unknown_path_is_404(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.headers["Server"]) == (404, None)


@pytest.mark.fault(132)
def test_scrape_that_waits_for_a_rendering_blocks_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The previous bytes would be stale: no scrape gets them, and all other paths are answered."""
    app, exporter, waits = app_whose_scrapes_wait(monkeypatch)
    with serving_app(app) as port, ThreadPoolExecutor(1) as pool:
        site = Site(port)
        with exporter.rendering():
            exporter.time.pass_(account().poll.stale_after_seconds + 1)
            scrape = pool.submit(site.ask, "/metrics")
            assert waits.acquire(timeout=DEADLINE_SECONDS)
            others = [path for path in SERVED if path != "/metrics"]
            assert [site.ask(path).status for path in others] == [200] * len(others)
            assert not scrape.done()
        answer = scrape.result(DEADLINE_SECONDS)
    assert answer.status == 200
    assert b"exophone_number_info{" not in answer.body


def app_whose_scrapes_wait(
    monkeypatch: pytest.MonkeyPatch, settings: WebSettings | None = None
) -> tuple[Starlette, FakeExporter, threading.Semaphore]:
    """An application, an exporter with numbers, and what is released when a scrape waits."""
    exporter, waits = FakeExporter(), threading.Semaphore(0)

    def start(run: Callable[[], None]) -> None:
        waits.release()
        start_daemon(run)

    exporter.find(5)
    monkeypatch.setattr(threads, "start_daemon", start)
    app = application(exporter, settings or WebSettings(), probe=echo)
    return app, exporter, waits


@pytest.mark.fault(118)
def test_server_ends_although_a_scrape_waits_for_a_rendering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, exporter, waits = app_whose_scrapes_wait(monkeypatch)
    with (
        exporter.rendering(),
        ThreadPoolExecutor(1) as pool,
    ):
        with serving_app(app) as port:
            exporter.time.pass_(account().poll.stale_after_seconds + 1)
            scrape = pool.submit(Site(port).ask, "/metrics")
            assert waits.acquire(timeout=DEADLINE_SECONDS)
        assert scrape.exception(DEADLINE_SECONDS) or scrape.result().status >= 500


@pytest.mark.fault(132)
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("deque mutated during iteration")])
def test_defect_in_a_thread_is_raised_and_not_tried_again_in_the_loop(error: Exception) -> None:
    """RuntimeError is also what a thread raises that cannot be started."""
    made_by = []

    def broken() -> None:
        made_by.append(threading.current_thread())
        raise error

    with pytest.raises(type(error)) as caught:
        asyncio.run(in_thread(broken))
    assert caught.value is error
    (thread,) = made_by
    assert thread is not threading.main_thread()
    assert thread.daemon  # the end of the process does not wait for it


class HeldStatusPage(FakeExporter):
    """An exporter whose status page is held in the middle until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        info = ExporterInfo("r", 0.0)
        self.page = MetricsPage(super().statuses, lambda: info, self.clock)  # not held
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.made = 0

    def statuses(self) -> tuple[AccountStatus, ...]:
        self.made += 1
        self.begun.release()
        assert self.go_on.wait(DEADLINE_SECONDS)
        return tuple(super().statuses())


@pytest.mark.fault(132)
def test_requests_that_come_together_share_one_status_page() -> None:
    """So that many do not take the interpreter from the loop."""
    exporter, arrived = HeldStatusPage(), threading.Semaphore(0)
    served = application(exporter, WebSettings())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.release()
        await served(scope, receive, send)

    with serving_app(app) as port, ThreadPoolExecutor(3) as pool:
        pages = [pool.submit(Site(port).ask, "/") for _ in range(3)]
        try:
            assert all(arrived.acquire(timeout=DEADLINE_SECONDS) for _ in pages)
            assert Site(port).ask("/-/healthy").status == 200  # so all of them wait
        finally:
            exporter.go_on.set()
        assert {page.result(DEADLINE_SECONDS).status for page in pages} == {200}
        assert exporter.made == 1
        assert Site(port).ask("/").status == 200
        assert exporter.made == 2


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
    [("/metrics", b'exophone_up{account="support"} 1.0\n'), ("/", b"too old to show")],
)
def test_slow_paths_are_answered_without_a_thread_too(
    monkeypatch: pytest.MonkeyPatch, path: str, found: bytes
) -> None:
    """Late: the metrics must be rendered first here, and the page always."""

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    exporter = FakeExporter()
    exporter.find(5)
    exporter.time.pass_(account().poll.stale_after_seconds + 1)
    monkeypatch.setattr(threads, "start_daemon", no_thread)
    with serving_app(application(exporter, WebSettings())) as port:
        answer = Site(port).ask(path)
    assert answer.status == 200
    assert found in answer.body
    assert b"exophone_number_info{" not in answer.body


@pytest.mark.fault(117)
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_may_load_and_run_nothing(site: Site, path: str) -> None:
    headers = site.ask(path).headers
    policy = set(headers["Content-Security-Policy"].split("; "))
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "base-uri 'none'"} <= policy
    assert {"form-action 'none'", "frame-ancestors 'none'"} <= policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_health_and_readiness_are_503_until_they_hold() -> None:
    exporter = FakeExporter()
    exporter.is_healthy = exporter.is_ready = False
    with serving(exporter) as site:
        unhealthy, not_ready = site.ask("/-/healthy"), site.ask("/-/ready")
        assert (unhealthy.status, not_ready.status) == (503, 503)
        assert unhealthy.text == "Unhealthy: a poller has died or is stuck.\n"
        assert not_ready.text == "Not ready: waiting for the first poll.\n"
        exporter.is_healthy = exporter.is_ready = True
        assert [site.ask(path).status for path in ("/-/healthy", "/-/ready")] == [200, 200]


@pytest.mark.fault(110)
def test_with_a_prefix_everything_is_under_it_and_the_root_redirects_there() -> None:
    """By a relative redirect, as Prometheus does: only the proxy knows the host."""
    unknown = ["/a", "/a/", "/a/bmetrics", "/a/b//metrics", "/a/b/a/b/metrics", "/a/b/metrics/"]
    with serving(FakeExporter(), WebSettings(external_url="https://example.com/a/b/")) as site:
        for method in ("GET", "HEAD"):
            assert {site.ask("/a/b" + path, method).status for path in SERVED} == {200}
            outside = [path for path in SERVED if path != "/"] + unknown
            assert {site.ask(path, method).status for path in outside} == {404}
            for root in ("/", "/a/b"):
                answer = site.ask(root, method)
                assert (answer.status, answer.headers["Location"]) == (302, "/a/b/")
        for path in ("/", "/a/b", "/a/b/", "/a/b/metrics", "/a/b/-/ready"):
            assert site.ask(path, "POST").status == 405
            assert set(site.ask(path, "POST").headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "served", "links"),
    [
        ("http://h/x", "", "/x", "/x"),
        ("http://h/x", "/", "", "/x"),
        ("", "/y", "/y", "/y"),
        ("", "", "", ""),
    ],
)
def test_links_are_what_a_browser_can_follow(
    external_url: str, route_prefix: str, served: str, links: str
) -> None:
    """Each link of both pages returns 200 once the proxy has removed its part."""
    settings = WebSettings(external_url=external_url, route_prefix=route_prefix)
    exporter = FakeExporter()
    exporter.find(1, voice_url="")
    with serving(exporter, settings, probe=echo, reload=echo) as site:
        for page in ("/", "/docs"):
            body = site.ask(served + page).body.decode()
            hrefs = {html.unescape(href) for href in re.findall(r'href="([^"#]+)"', body)}
            pages = {links + path for path in ("/", "/metrics", "/docs")}
            assert pages | {f"{links}/-/healthy", f"{links}/-/ready"} <= hrefs
            assert page != "/" or f"{links}/probe?target=sid-0&account=support" in hrefs
            hrefs.remove("data:,")  # no icon, so that browsers ask for none
            assert all(href.startswith(f"{links}/") for href in hrefs)
            for href in hrefs:
                assert site.ask(served + href.removeprefix(links)).status == 200


@pytest.mark.parametrize("path", ["/probe", "/-/reload"])
def test_probe_and_reload_do_not_exist_without_a_handler(path: str) -> None:
    exporter = FakeExporter()
    exporter.find(1, voice_url="")
    with serving(exporter) as site:
        assert [site.ask(path, method).status for method in ("GET", "POST")] == [404, 404]
        docs = site.ask("/docs").text
        assert path not in docs
        assert "probe" not in docs
        assert "/probe" not in site.ask("/").text


@pytest.mark.fault(116)
@pytest.mark.parametrize("prefix", ["", "/x"])
def test_probe_answers_get_and_head_and_reload_sees_every_method(prefix: str) -> None:
    """The handler of /-/reload answers 405 and 403; the router must not do so first."""
    settings = WebSettings(route_prefix=prefix)
    with serving(FakeExporter(), settings, probe=echo, reload=echo) as site:
        assert site.ask(f"{prefix}/probe?target=x").body == b"GET target=x"
        head = site.ask(f"{prefix}/probe?target=x", "HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, "13")
        refused = site.ask(f"{prefix}/probe?target=x", "POST")
        assert (refused.status, set(refused.headers["Allow"].split(", "))) == (405, {"GET", "HEAD"})
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = site.ask(f"{prefix}/-/reload", method)
            assert (answer.status, answer.text) == (403, f"{method} ")


def test_telemetry_path_can_be_moved_and_docs_name_every_path() -> None:
    settings = WebSettings(telemetry_path="/exophones")
    with serving(FakeExporter(), settings, probe=echo, reload=echo) as site:
        assert site.ask("/exophones").headers["Content-Type"] == TEXT
        assert site.ask("/metrics").status == 404
        assert '<a href="/exophones">' in site.ask("/").text
        docs = site.ask("/docs").text
    for path in ("/", "/exophones", "/docs", "/probe", "/-/healthy", "/-/ready", "/-/reload"):
        assert f"<code>{path}</code>" in docs
    assert ">/metrics<" not in docs


@pytest.fixture(scope="module")
def large() -> FakeExporter:
    exporter = FakeExporter()
    exporter.find(10_000)
    return exporter


@pytest.mark.fault(111, 181)
@pytest.mark.parametrize("path", ["/metrics", "/", "/docs", "/nothing", "/probe?target=x"])
def test_clients_that_read_nothing_do_not_count_as_requests(
    large: FakeExporter, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is it an error when they leave."""
    with serving(large, WebSettings(max_requests=1), probe=echo) as site:
        with contextlib.ExitStack() as readers:
            for _ in range(45):
                readers.enter_context(slow_reader(site.port, path))
            assert [site.ask(served).status for served in SERVED] == [200] * len(SERVED)
        assert site.ask("/metrics").status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.fault(107)
@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        (WebSettings(max_requests=2), [200, 200, 503]),
        (WebSettings(max_requests=2, route_prefix="/x"), [200, 200, 503]),
        (WebSettings(max_requests=2, telemetry_path="/-/metrics"), [200, 200, 503]),
        (WebSettings(max_requests=0), [200, 200, 200]),
    ],
)
def test_scrapes_past_the_limit_get_a_503_with_retry_after(
    monkeypatch: pytest.MonkeyPatch, settings: WebSettings, statuses: list[int]
) -> None:
    """All other paths are exempt: a failed health check could restart what is only busy."""
    app, exporter, waits = app_whose_scrapes_wait(monkeypatch, settings)
    with serving_app(app) as port, ThreadPoolExecutor(3) as pool:
        site = Site(port)
        with exporter.rendering():
            exporter.time.pass_(account().poll.stale_after_seconds + 1)
            path = settings.prefix + settings.telemetry_path
            scrapes = [pool.submit(site.ask, path) for _ in statuses]
            assert all(waits.acquire(timeout=DEADLINE_SECONDS) for _ in range(statuses.count(200)))
            for exempt in ("/", "/docs", "/probe", "/-/healthy", "/-/ready"):
                assert site.ask(settings.prefix + exempt).status == 200
            wait_until(
                lambda: sum(map(Future.done, scrapes)) == statuses.count(503),
                "what is past the limit is refused",
            )
        answers = [scrape.result(DEADLINE_SECONDS) for scrape in scrapes]
    assert sorted(answer.status for answer in answers) == statuses
    for refused in (answer for answer in answers if answer.status == 503):
        assert refused.headers["Retry-After"] == "1"
        assert refused.body == b"Limit of concurrent requests reached (2), try again later.\n"


@pytest.mark.fault(107)
@pytest.mark.parametrize("prefix", ["", "/x"])
def test_waiting_probes_are_limited_and_do_not_block_scrapes(prefix: str) -> None:
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


@pytest.mark.fault(181)
@pytest.mark.parametrize(
    ("scheme", "part_bytes", "piece_bytes"),
    [("http", 3 * 2**20, 2**20), ("https", 3 * 2**20, 2**14), ("http", 1000, 16_000)],
)
def test_answer_is_sent_in_pieces(scheme: str, part_bytes: int, piece_bytes: int) -> None:
    """Large ones, as each is a turn of the loop, but small where the client holds a copy.

    That is so under TLS and for small parts, which are joined.
    """
    parts = [bytes(part_bytes)] * 64
    large: Any = SimpleNamespace(page=SimpleNamespace(cached_chunks=lambda **_: parts))
    sizes: list[int] = []

    async def send(message: Any) -> None:
        sizes.append(len(message.get("body", b"")))

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/metrics", "scheme": scheme}
    app = application(large, WebSettings())
    asyncio.run(app(scope | {"headers": [], "query_string": b""}, receive, send))
    assert max(sizes) == piece_bytes
    assert sum(sizes) == sum(map(len, parts))


def test_ready_after_the_first_attempt_of_every_account_good_or_bad() -> None:
    """A revoked key must not hide the metric that shows it, nor make the exporter unhealthy.

    And no path queries the API.
    """
    hold = threading.Event()

    def hold_the_other(request: Any) -> None:
        if request.account_sid == "other":
            hold.wait(DEADLINE_SECONDS)

    with Simulator(World(make_account("acme", 2), make_account("other", 2))) as sim:
        sim.fail(Fault(status=401, account_sid="acme", times=None))
        sim.on_request = hold_the_other
        accounts = tuple(
            account(sid, sid=sid, origin=sim.url, api_key=f"{sid}-key", api_token=f"{sid}-token")
            for sid in ("acme", "other")
        )
        exporter = Exporter(Config("test", accounts, ()))
        with serving(exporter) as site, contextlib.ExitStack() as stack:
            stack.callback(exporter.stop)
            assert [site.ask(path).status for path in SERVED] == [200, 200, 200, 503, 503]
            exporter.start()
            wait_until(lambda: shows(site, "acme", 0), "the failure is shown")
            assert [site.ask(path).status for path in SERVED] == [200, 200, 200, 200, 503]
            hold.set()
            wait_until(lambda: shows(site, "other", 1), "the other poll is shown")
            assert [site.ask(path).status for path in SERVED] == [200] * 5
            assert len(sim.requests) == 2


def shows(site: Site, name: str, up: int) -> bool:
    return f'exophone_up{{account="{name}"}} {up}.0\n' in site.ask("/metrics").text


@pytest.mark.end_to_end
@pytest.mark.fault(67, 117)
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ["<dt>numbers</dt><dd>4</dd>", "₹1,996.00", "/probe?target=sid-3"]),
        ("/docs", ["exophone_numbers_unattached", "/-/reload"]),
    ],
)
def test_browser_shows_a_page_logs_nothing_and_asks_no_other_host(
    program: Callable[[str], str], tmp_path: Path, path: str, found: list[str]
) -> None:
    exporter, log = FakeExporter(), tmp_path / "log.json"
    hostile = "<script>console.log(1)</script><img src=http://evil.example/x onerror=alert(2)>"
    exporter.find(4, voice_url="", friendly_name=hostile)
    with serving(exporter, probe=echo, reload=echo) as site:
        shown = browse(
            program("chromium"),
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
