"""/probe on a real socket, with the real client, against the simulator."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import logging
import re
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_from_bytes, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_of
from prometheus_client.parser import text_string_to_metric_families as text_of
from starlette.applications import Starlette
from starlette.routing import Route

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import ServerFailed, Stopped
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from exophone_exporter.web.probe import Prober, probe_handler
from tests.lib.paths import ROOT
from tests.lib.processes import wait_until
from tests.lib.servers import prometheus, serving_app, under_scrape_configs
from tests.lib.support import CountingRecorder, FakeTime, account, phone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exophone_exporter.config.settings import Account
    from exophone_exporter.exotel.model import ExoPhone

DEADLINE_SECONDS: Final = 10
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TIMEOUT: Final = "X-Prometheus-Scrape-Timeout-Seconds"
DETAIL: Final = "/v2_beta/Accounts/acme/IncomingPhoneNumbers/"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def samples(self) -> dict[str, float]:
        """Every sample, by name and labels as written."""
        lines = [line.rpartition(" ") for line in self.text.splitlines() if line[0] != "#"]
        return {series: float(value) for series, _, value in lines}

    @property
    def success(self) -> float:
        assert self.status == 200, self.text
        return self.samples["exophone_probe_success"]


@dataclass(frozen=True)
class Site:
    port: int

    def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def probe(self, sid: str, within: str | None = None) -> Answer:
        headers = {} if within is None else {TIMEOUT: within}
        return self.ask(f"/probe?target={quote(sid, safe='')}", headers)


@contextlib.contextmanager
def serving(prober: Prober) -> Iterator[Site]:
    """The real server in a thread, with nothing but /probe on it."""
    app = Starlette(routes=[Route("/probe", probe_handler(prober))])
    with serving_app(app) as port:
        yield Site(port)


def client_of(own: Account, time: FakeTime | None = None) -> Client:
    clock = time.clock if time else Clock()
    return Client(
        account=own,
        budget=RateLimiter(own.poll.requests_per_minute, clock.monotonic),
        recorder=CountingRecorder(),
        clock=clock,
        sleep=time.sleep if time else lambda _: None,
    )


@dataclass
class Bench:
    """The simulator, one client of it by name, and a server that probes with them."""

    sim: Simulator
    site: Site
    clients: dict[str, Client]
    time: FakeTime

    def sids(self, sid: str = "acme") -> list[str]:
        return [number["sid"] for number in self.sim.world.accounts[sid].numbers]

    def paths(self) -> list[tuple[str, str, dict[str, str]]]:
        return [(seen.method, seen.path, seen.query) for seen in self.sim.requests]


@contextlib.contextmanager
def bench(*accounts: Account, world: World | None = None) -> Iterator[Bench]:
    time = FakeTime()
    with Simulator(world or World(make_account("acme", 30), make_account("other", 3))) as sim:
        clients: dict[str, Client] = {
            own.name: client_of(replace(own, origin=sim.url), time)
            for own in accounts or (account(),)
        }
        with serving(Prober(lambda: clients, time.clock)) as site:
            yield Bench(sim, site, clients, time)


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    with bench() as running:
        yield running


@pytest.fixture
def one(shared: Bench) -> Bench:
    """One account, `support`, with 30 numbers and a share of 20,000 probes; nothing asked yet."""
    shared.sim.clear_faults()
    shared.sim.clear_requests()
    shared.time.slept.clear()
    shared.clients.clear()
    shared.clients["support"] = client_of(account(origin=shared.sim.url), shared.time)
    return shared


class SlowClient:
    """A client of an API that answers when the test says so; it notes what it was asked."""

    def __init__(self, own: Account | None = None, error: Exception | None = None) -> None:
        self.account = own or account()
        self.error = error
        self.go = threading.Event()
        self.asked: list[tuple[str, float]] = []

    def fetch_number(self, sid: str, within_seconds: float) -> ExoPhone:
        self.asked.append((sid, within_seconds))
        assert self.go.wait(DEADLINE_SECONDS)
        if self.error is not None:
            raise self.error
        return phone(sid)


@contextlib.contextmanager
def slow(client: SlowClient, **seams: Callable[[Callable[[], None]], None]) -> Iterator[Site]:
    """A server that probes with a client that hangs; it is let go at the end."""
    clients: Any = {"support": client}
    with serving(Prober(lambda: clients, Clock(), **seams)) as site:
        try:
            yield site
        finally:
            client.go.set()


def page_of(own: Account, *numbers: ExoPhone) -> dict[str, float]:
    """The per-number samples of /metrics after a poll that found these numbers."""
    now, state = FakeTime().clock.now(), AccountState(own)
    state.record_poll(PollResult(now, 1.0, build(Listing(numbers, 1, {}), now, 1.0)))
    page = MetricsPage(lambda: [state.status()], lambda: ExporterInfo("r", 0.0), FakeTime().clock)
    page.refresh()
    text = page.render(openmetrics=False, gzipped=False).decode()
    lines = [line.rpartition(" ") for line in text.splitlines()]
    return {
        series: float(value)
        for series, _, value in lines
        if re.match("exophone_number_(?!series|changes)", series)
    }


def test_probe_shows_the_two_probe_metrics_and_the_number(one: Bench) -> None:
    sid = one.sids()[7]
    answer = one.site.probe(sid)
    assert (answer.status, answer.headers["Content-Type"]) == (200, TEXT)
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert answer.samples["exophone_probe_success"] == 1
    assert answer.samples["exophone_probe_duration_seconds"] == 0  # the clock stands still
    assert f'exophone_number_monthly_rental{{account="support",currency="INR",sid="{sid}"}}' in (
        answer.samples
    )
    assert one.paths() == [("GET", f"{DETAIL}{sid}", {})]


@pytest.mark.parametrize("phone_number", ["full", "last4", "hidden"], ids=str)
@pytest.mark.parametrize("series", ["all", "none"], ids=str)
def test_number_looks_as_on_metrics_privacy_included(series: str, phone_number: str) -> None:
    """A number that was asked for is shown whatever `series` says."""
    shown = PerNumber("all", 10, phone_number)  # type: ignore[arg-type]  # one of its words
    own = account(per_number=replace(shown, series=series))  # type: ignore[arg-type]  # likewise
    number = phone("+912248901111", friendly_name="Front desk 022-4890-1111")
    client = SlowClient(own)
    client.go.set()
    client.fetch_number = lambda *_: number  # type: ignore[method-assign]  # a fake's answer
    with slow(client) as site:
        answer = site.probe("+912248901111")
    expected = page_of(account(per_number=shown), number)
    assert len(expected) == 9
    own_two = {"exophone_probe_success", "exophone_probe_duration_seconds"}
    assert {k: v for k, v in answer.samples.items() if k not in own_two} == expected
    assert any("4890" in name for name in answer.samples) is (phone_number == "full")


def test_help_of_a_live_number_does_not_speak_of_a_poll(one: Bench) -> None:
    answer = one.site.probe(one.sids()[0])
    assert "last complete poll" not in answer.text
    rental = "# HELP exophone_number_monthly_rental Monthly rental of the ExoPhone in units of the"
    assert f"{rental} currency, as the API reports now.\n" in answer.text


def test_probe_metrics_are_not_on_the_page_of_metrics() -> None:
    now, state = FakeTime().clock.now(), AccountState(account())
    state.record_poll(PollResult(now, 1.0, build(Listing((phone(),), 1, {}), now, 1.0)))
    page = MetricsPage(lambda: [state.status()], lambda: ExporterInfo("r", 0.0), FakeTime().clock)
    page.refresh()
    assert b"exophone_number_info" in page.render(openmetrics=True, gzipped=False)
    assert b"exophone_probe" not in page.render(openmetrics=True, gzipped=False)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param("", TEXT, id="text"),
        pytest.param("application/openmetrics-text;version=1.0.0", OPENMETRICS, id="openmetrics"),
        pytest.param("text/plain;version=abc", TEXT, id="odd"),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "gzip;q=0"], ids=["gzip", "plain"])
def test_format_and_encoding_are_negotiated(
    one: Bench, accept: str, content_type: str, encoding: str
) -> None:
    """The parsers of prometheus_client read both, as a scraper would."""
    path = f"/probe?target={one.sids()[0]}"
    answer = one.site.ask(path, {"Accept": accept, "Accept-Encoding": encoding})
    assert answer.headers["Content-Type"] == content_type
    gzipped = answer.headers["Content-Encoding"] == "gzip"
    assert gzipped is (encoding == "gzip")
    text = (gzip.decompress(answer.body) if gzipped else answer.body).decode()
    assert text.endswith("# EOF\n") is (content_type == OPENMETRICS)
    families = list((openmetrics_of if content_type == OPENMETRICS else text_of)(text))
    assert [family.name for family in families[:3]] == [
        "exophone_probe_success",
        "exophone_probe_duration_seconds",
        "exophone_number_info",
    ]
    assert len({family.name for family in families}) == len(families) == 10


def test_head_has_no_body(one: Bench) -> None:
    answer = one.site.ask(f"/probe?target={one.sids()[0]}", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.fault(113)
@pytest.mark.fault(109)
@pytest.mark.parametrize(
    ("query", "advice"),
    [
        pytest.param("", "like /probe?target=SID", id="no-query"),
        pytest.param("?", "like /probe?target=SID", id="empty-query"),
        pytest.param("?account=support", "exactly one target", id="no-target"),
        pytest.param("?target", "1 to 128", id="target-without-value"),
        pytest.param("?target=", "1 to 128", id="empty-target"),
        pytest.param("?target=a&target=b", "exactly one target", id="two-targets"),
        pytest.param("?target=a&target=a", "exactly one target", id="the-same-twice"),
        pytest.param("?target=a&target=", "exactly one target", id="one-and-an-empty-one"),
        pytest.param("?target=" + "a" * 10_240, "1 to 128", id="10-KB"),
        pytest.param("?target=" + "a" * 129, "1 to 128", id="129-characters"),
        pytest.param("?target=../x", "1 to 128", id="upward"),
        pytest.param("?target=a/b", "1 to 128", id="slash"),
        pytest.param("?target=a%2fb", "1 to 128", id="quoted-slash"),
        pytest.param("?target=a%252fb", "1 to 128", id="twice-quoted-slash"),
        pytest.param("?target=a%5cb", "1 to 128", id="backslash"),
        pytest.param("?target=a%3fb", "1 to 128", id="question-mark"),
        pytest.param("?target=a%23b", "1 to 128", id="hash"),
        pytest.param("?target=a%0d%0aHost:%20x", "1 to 128", id="crlf"),
        pytest.param("?target=a%0a", "1 to 128", id="newline-at-the-end"),
        pytest.param("?target=a%00", "1 to 128", id="nul"),
        pytest.param("?target=%7f", "1 to 128", id="delete"),
        pytest.param("?target=+9122", "encode + as %2B", id="plus-is-a-space"),
        pytest.param("?target=%D9%A3", "1 to 128", id="arabic-digit"),
        pytest.param("?target=%ff", "1 to 128", id="no-utf-8"),
        pytest.param("?target=http://evil.example/x", "URLs and hosts are not allowed", id="url"),
        pytest.param("?target=.", "is not . or ..", id="dot"),
        pytest.param("?target=..", "is not . or ..", id="dots"),
        pytest.param("?target=%2e%2e", "is not . or ..", id="quoted-dots"),
        pytest.param(
            "?target=a&account=nobody",
            "unknown account; choose a configured one",
            id="unknown-account",
        ),
        pytest.param(
            "?target=a&account=", "unknown account; choose a configured one", id="empty-account"
        ),
        pytest.param(
            "?target=a&account=acme",
            "unknown account; choose a configured one",
            id="sid-of-the-account",
        ),
        pytest.param(
            "?target=a&account=support&account=support",
            "account must be given only once",
            id="two-accounts",
        ),
        pytest.param(
            "?target=a&" + "&".join(f"a{n}=1" for n in range(49)), "more than 20", id="fifty-fields"
        ),
        pytest.param("?target=a" + "&" * 50, "more than 20", id="fifty-separators"),
    ],
)
def test_what_is_no_probe_is_400_with_advice_and_asks_nobody(
    one: Bench, query: str, advice: str
) -> None:
    answer = one.site.ask(f"/probe{query}")
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert advice in answer.text
    assert answer.text.count("\n") == 1
    assert len(answer.text) < 250
    assert one.sim.requests == []


@pytest.mark.fault(113)
@pytest.mark.parametrize(
    ("sid", "segment"),
    [
        pytest.param("+912248901111", "%2B912248901111", id="plus"),
        pytest.param("a" * 128, "a" * 128, id="128-characters"),
        pytest.param("...", "...", id="three-dots"),
        pytest.param("a&b=c;d", "a%26b%3Dc%3Bd", id="of-a-query"),
        pytest.param("user:pw@host", "user%3Apw%40host", id="like-a-host"),
        pytest.param('"<>{}|', "%22%3C%3E%7B%7D%7C", id="marks"),
    ],
)
def test_legal_sid_is_one_quoted_segment(one: Bench, sid: str, segment: str) -> None:
    assert one.site.probe(sid).success == 0
    assert one.paths() == [("GET", f"{DETAIL}{segment}", {})]


def is_sid(text: str) -> bool:
    """As the documentation has it, character by character."""
    fit = all(0x21 <= ord(c) <= 0x7E and c not in "/\\?#%" for c in text)
    return fit and 1 <= len(text) <= 128 and text not in (".", "..")


SIDS: Final = (
    st.text(max_size=140)
    | st.text("abc019/\\?#%.:@&=+;\r\n\x00 ~!é", max_size=12)
    | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=130)
)


@pytest.mark.fault(113)
@given(target=SIDS.map(str.encode) | st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_target_is_400_or_exactly_one_get_of_that_number(shared: Bench, target: bytes) -> None:
    shared.sim.clear_requests()
    shared.time.pass_(3600)  # nothing is remembered of the examples before
    answer = shared.site.ask(f"/probe?target={quote_from_bytes(target, safe='')}")
    sid = target.decode(errors="replace")
    if is_sid(sid):
        assert (answer.status, answer.success) == (200, 0)
        assert shared.paths() == [("GET", f"{DETAIL}{quote(sid, safe='')}", {})]
        assert unquote(shared.paths()[0][1].removeprefix(DETAIL)) == sid
    else:
        assert (answer.status, shared.sim.requests) == (400, [])


# A query as it stands in a request: anything but what would end it.
QUERIES: Final = st.lists(
    st.sampled_from([b"target=", b"target", b"&", b"=", b"account=", b"support", b"%2", b"%", b"+"])
    | st.binary(max_size=6).map(lambda text: re.sub(rb"[\x00-\x20\x7f#]", b"", text)),
    max_size=7,
).map(b"".join)


@pytest.mark.fault(113)
@given(query=QUERIES | QUERIES.map(lambda tail: b"target=" + tail))
def test_any_query_is_400_or_exactly_one_segment_of_one_path(shared: Bench, query: bytes) -> None:
    """As the bytes come, quoted or not."""
    shared.sim.clear_requests()
    shared.time.pass_(3600)
    with socket.create_connection(("127.0.0.1", shared.site.port), DEADLINE_SECONDS) as client:
        client.sendall(b"GET /probe?" + query + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
        status = client.recv(12)
    if status == b"HTTP/1.1 200":
        ((method, path, sent),) = shared.paths()
        assert (method, sent) == ("GET", {})
        assert re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9_.~%-]{1,384}", path.removeprefix(DETAIL))
        assert is_sid(unquote(path.removeprefix(DETAIL)))
    else:
        assert (status, shared.sim.requests) == (b"HTTP/1.1 400", [])


def test_one_of_several_accounts_must_be_named() -> None:
    """No search over accounts: it would spend the budget of each."""
    with bench(account(), account("sales", sid="other", api_key="other-key")) as two:
        (sid, *_) = two.sids()
        answer = two.site.probe(sid)
        assert (answer.status, two.sim.requests) == (400, [])
        assert "choose one with account=NAME" in answer.text
        assert two.site.ask(f"/probe?target={sid}&account=support").success == 1
        assert two.site.ask(f"/probe?account=sales&target={sid}").success == 0
        assert [seen.account_sid for seen in two.sim.requests] == ["acme", "other"]


def test_parameters_that_mean_nothing_here_are_ignored(one: Bench) -> None:
    """As other exporters do."""
    answer = one.site.ask(f"/probe?module=http&target={one.sids()[0]}&debug=true")
    assert answer.success == 1


FAULTS: Final = {
    "unauthorised": (Fault(status=401), "auth"),
    "server-error": (Fault(status=500), "server"),
    "rate-limited": (Fault(status=429, headers={"Retry-After": "0"}), "rate_limited"),
    "redirect": (Fault(status=302, headers={"Location": "http://evil.example/"}), "status"),
    "reset": (Fault(after="reset"), "connect"),
    "not-json": (Fault(status=200, body=b"<html>"), "bad_body"),
    "other-number": (Fault(status=200, body=b'{"sid": "b"}'), "envelope"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_failure_is_success_0_with_200_asked_once_and_told_at_debug(
    one: Bench, fault: Fault, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One request even where a poll would ask again; and the next probe asks afresh."""
    caplog.set_level(logging.DEBUG, "exophone_exporter")
    one.sim.fail(fault)
    sid = one.sids()[0]
    answer = one.site.probe(sid)
    assert answer.samples == {"exophone_probe_success": 0, "exophone_probe_duration_seconds": 0}
    assert [line for line in answer.text.splitlines() if line[0] == "#"] == [
        (
            "# HELP exophone_probe_success Whether the API returned the probed ExoPhone in time;"
            " on /probe only."
        ),
        "# TYPE exophone_probe_success gauge",
        (
            "# HELP exophone_probe_duration_seconds Duration of the request to the API, including"
            " waiting; on /probe only."
        ),
        "# TYPE exophone_probe_duration_seconds gauge",
    ]
    assert len(one.sim.requests) == 1
    (record,) = [r for r in caplog.records if r.name == "exophone_exporter.web.probe"]
    told = vars(record)["fields"]
    assert (record.levelname, record.getMessage()) == ("DEBUG", "the probe failed")
    assert (told["account"], told["sid"], told["reason"]) == ("support", sid, reason)
    assert one.site.probe(sid).success == 1


@pytest.mark.fault(30)
def test_number_that_the_api_does_not_know_is_success_0(one: Bench) -> None:
    """The scrape itself succeeds."""
    answer = one.site.probe("nobody")
    assert (answer.status, answer.samples) == (
        200,
        {"exophone_probe_success": 0, "exophone_probe_duration_seconds": 0},
    )
    assert len(one.sim.requests) == 1


def test_no_log_line_shows_a_sid_that_privacy_covers(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does what the API says about it."""
    caplog.set_level(logging.DEBUG, "exophone_exporter")
    with bench(account(per_number=PerNumber("all", 10, "hidden"))) as hidden:
        body = b'{"RestException": {"Status": 404, "Message": "no 02248901111 here"}}'
        hidden.sim.fail(Fault(status=404, body=body))
        assert hidden.site.probe("02248901111").success == 0
    told = [vars(r)["fields"] for r in caplog.records if r.name == "exophone_exporter.web.probe"]
    assert [(line["sid"], line["reason"]) for line in told] == [("…", "not_found")]
    assert "no … here" in told[0]["error"]
    ours = [vars(r) for r in caplog.records if r.name.startswith("exophone_exporter")]
    assert "2248901111" not in str(ours)


def test_defect_of_ours_is_success_0_and_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = SlowClient(error=ZeroDivisionError())
    client.go.set()
    with slow(client) as site:
        assert site.probe("a").success == 0
        assert site.probe("a").success == 0
    assert len(client.asked) == 2
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == ["a defect in the exporter"] * 2


def test_exporter_that_is_stopping_says_so_instead_of_a_false_alarm() -> None:
    client = SlowClient(error=Stopped())
    client.go.set()
    with slow(client) as site:
        answer = site.probe("a")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "the exporter is stopping or was reloaded" in answer.text


@pytest.mark.fault(115)
@pytest.mark.parametrize(
    ("header", "within_seconds"),
    [
        pytest.param(None, 6.0, id="absent-own"),
        pytest.param("10", 6.0, id="more-than-own"),
        pytest.param("6.5", 6.0, id="as-much-as-own"),
        pytest.param("5", 4.5, id="less-the-offset"),
        pytest.param("0.75", 0.25, id="a-quarter"),
        pytest.param("0.5", 0.5, id="the-offset-itself"),
        pytest.param("0.1", 0.1, id="less-than-the-offset"),
        pytest.param("00005.0", 4.5, id="zeros"),
        pytest.param("9" * 18, 6.0, id="huge"),
    ],
)
def test_bound_is_the_smaller_of_our_own_and_what_the_scraper_leaves(
    header: str | None, within_seconds: float
) -> None:
    """Our own is three timeouts of a read: 6 s in these tests."""
    client = SlowClient()
    client.go.set()
    with slow(client) as site:
        assert site.probe("a", header).success == 1
    assert client.asked == [("a", within_seconds)]


@pytest.mark.fault(115)
@pytest.mark.parametrize(
    "header",
    [
        pytest.param(text, id=text or "empty")
        for text in (
            "",
            "abc",
            "NaN",
            "inf",
            "-1",
            "+1",
            "0",
            "0.0",
            "1e3",
            "1_0",
            "10s",
            "5, 5",
            "1.",
            ".5",
            "9" * 400,
        )
    ],
)
def test_bound_that_makes_no_sense_is_400(one: Bench, header: str) -> None:
    answer = one.site.probe(one.sids()[0], header)
    assert (answer.status, one.sim.requests) == (400, [])
    assert answer.text == f"{TIMEOUT} must be a number of seconds above 0, like 10 or 0.5\n"


@pytest.mark.fault(115)
def test_bound_that_is_given_twice_is_400(one: Bench) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", one.site.port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.putrequest("GET", f"/probe?target={one.sids()[0]}")
        connection.putheader(TIMEOUT, "10")
        connection.putheader(TIMEOUT, "1")
        connection.endheaders()
        assert connection.getresponse().status == 400
    assert one.sim.requests == []


def test_deadline_of_a_walk_bounds_a_probe_too() -> None:
    client = SlowClient(account(deadline_seconds=4.0))
    client.go.set()
    with slow(client) as site:
        site.probe("a")
    assert client.asked == [("a", 4.0)]


@pytest.mark.fault(115)
def test_answer_comes_in_time_when_the_api_hangs() -> None:
    """By the client's own bound or by ours, long before the 20 s of a read."""
    with bench() as hanging:
        own = account(origin=hanging.sim.url, timeout_seconds=20.0)
        hanging.clients["support"] = client_of(own)
        hanging.sim.fail(Fault(after="hang"))
        began = monotonic()
        answer = hanging.site.probe(hanging.sids()[0], "0.75")
        assert monotonic() - began < 5
    assert answer.success == 0


def test_answer_comes_in_time_when_the_thread_itself_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one does in a name server's silence, which nothing can interrupt."""
    caplog.set_level(logging.DEBUG, "exophone_exporter")
    client = SlowClient()
    with slow(client) as site:
        began = monotonic()
        answer = site.probe("a", "0.6")
        took = monotonic() - began
        assert answer.success == 0
        assert 0.09 < answer.samples["exophone_probe_duration_seconds"] <= took < 5
        assert len(answer.samples) == 2
        # What was left behind is not waited for again: the next probe asks for itself.
        assert site.probe("a", "0.6").success == 0
        assert len(client.asked) == 2
    reasons = [vars(r)["fields"]["reason"] for r in caplog.records if "probe failed" in r.msg]
    assert reasons[:2] == ["timeout"] * 2


def test_hanging_requests_are_bounded_and_make_room_when_they_end() -> None:
    client = SlowClient()
    with slow(client) as site:
        for n in range(16):
            assert site.probe(f"a{n}", "0.01").success == 0
        assert len(client.asked) == 16
        refused = site.probe("a16", "0.01")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "too many probes" in refused.text
        assert len(client.asked) == 16
        client.go.set()
        wait_until(lambda: site.probe("b").status == 200, "there is room again")


@pytest.mark.fault(131)
def test_system_without_threads_is_told_and_nothing_stays_behind() -> None:
    def start(run: Callable[[], None]) -> None:
        if fails:
            raise RuntimeError("can't start new thread")
        threading.Thread(target=run, daemon=True).start()

    client, fails = SlowClient(), [True]
    client.go.set()
    with slow(client, start=start) as site:
        for _ in range(20):
            assert site.probe("a").status == 503
        fails.clear()
        assert site.probe("a").success == 1


def test_threads_of_probes_do_not_keep_the_process_alive() -> None:
    client = SlowClient()
    with slow(client) as site:
        site.probe("a", "0.01")
        (thread,) = [t for t in threading.enumerate() if t.name == "web"]
        assert thread.daemon
    thread.join(DEADLINE_SECONDS)


@pytest.mark.fault(114)
@pytest.mark.parametrize("error", [None, ServerFailed("500")], ids=["answered", "failed"])
def test_a_hundred_probes_of_one_number_at_once_are_one_request(error: Exception | None) -> None:
    """All of them hear what became of it; a failure is not remembered, so this is no memory."""
    client, came = SlowClient(error=error), []

    def clients() -> Any:
        came.append(1)  # asked for at each probe, in the thread of the loop
        return {"support": client}

    with serving(Prober(clients, Clock())) as site, ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(site.probe, "a") for _ in range(100)]
        wait_until(lambda: len(came) == 100, "all have come")
        # The loop that took the last one also takes this one, and only after it.
        assert site.ask("/probe").status == 400
        client.go.set()
        answers = [one.result(DEADLINE_SECONDS) for one in asked]
    assert [answer.success for answer in answers] == [error is None] * 100
    assert len({answer.body for answer in answers}) == 1
    assert len(client.asked) == 1


def test_probe_with_more_time_does_not_depend_on_one_with_less() -> None:
    """Whoever asks with a bound of a moment must not make the probe of another fail."""
    client = SlowClient()
    with slow(client) as site, ThreadPoolExecutor(1) as pool:
        hasty = pool.submit(site.probe, "a", "0.5")
        wait_until(lambda: len(client.asked) == 1, "the first is asked")
        patient = pool.submit(site.probe, "a", "6")
        assert hasty.result(DEADLINE_SECONDS).success == 0
        wait_until(lambda: len(client.asked) == 2, "the second is asked")
        client.go.set()
        assert patient.result(DEADLINE_SECONDS).success == 1
    assert client.asked == [("a", 0.5), ("a", 5.5)]


@pytest.mark.fault(114)
@pytest.mark.parametrize("known", [True, False], ids=["found", "not-found"])
def test_answer_serves_again_for_ten_seconds(one: Bench, known: bool) -> None:
    sid = one.sids()[0] if known else "nobody"
    first = one.site.probe(sid)
    one.time.pass_(9.9)
    again = one.site.probe(sid)
    assert (again.body, len(one.sim.requests)) == (first.body, 1)
    one.time.pass_(0.1)
    assert one.site.probe(sid).success == known
    assert len(one.sim.requests) == 2


def test_change_of_the_number_is_seen_after_the_ten_seconds(one: Bench) -> None:
    number = one.sim.world.accounts["acme"].numbers[0]
    attached = (
        f'exophone_number_flow_attached{{account="support",flow="voice",sid="{number["sid"]}"}}'
    )
    number["capabilities"]["voice"], number["voice_url"] = True, "http://my.exotel.in/x/1"
    assert one.site.probe(number["sid"]).samples[attached] == 1
    number["voice_url"] = None
    one.time.pass_(10)
    assert one.site.probe(number["sid"]).samples[attached] == 0


@pytest.mark.fault(114)
def test_probes_over_their_share_are_429_and_told_when_to_come_again() -> None:
    """A fifth of 50 is 10 in any minute; what is remembered costs nothing."""
    with bench(account(requests_per_minute=50)) as it:
        sids = it.sids()
        for sid in sids[:10]:
            assert it.site.probe(sid).success == 1
            it.time.pass_(0.45)
        refused = it.site.probe(sids[10])
        assert (refused.status, refused.headers["Retry-After"]) == (429, "57")
        assert "may make 10 requests a minute" in refused.text
        assert it.site.probe(sids[9]).success == 1
        assert len(it.sim.requests) == 10
        it.time.pass_(56.6)
        assert it.site.probe(sids[10]).success == 1
        assert it.site.probe(sids[11]).status == 429


@pytest.mark.fault(114)
@pytest.mark.parametrize(
    ("requests_per_minute", "share"),
    [pytest.param(1, 1, id="at-least-one"), pytest.param(14, 2, id="rounded-down")],
)
def test_share_of_a_small_budget(requests_per_minute: int, share: int) -> None:
    with bench(account(requests_per_minute=requests_per_minute)) as it:
        statuses = [it.site.probe(sid).status for sid in it.sids()[:4]]
    assert statuses == [200] * share + [429] * (4 - share)


@pytest.mark.fault(114)
def test_flood_of_probes_leaves_the_walk_its_places() -> None:
    """Ten a minute: two for the flood, and the eight pages of the walk wait for nothing."""
    world = World(make_account("acme", 8))
    with bench(account(requests_per_minute=10, page_size=1), world=world) as it:
        flood = [it.site.probe(f"flood-{n}").status for n in range(60)]
        assert (flood.count(200), flood.count(429)) == (2, 58)
        client = it.clients["support"]
        assert isinstance(client, Client)
        assert client.fetch_all({}).pages == 8
        assert it.time.slept == []
        assert len(it.sim.requests) == 10


@pytest.mark.fault(114)
def test_walk_that_has_spent_the_budget_goes_first_and_the_probe_is_429() -> None:
    """No request and no false alarm: the number may be perfectly well."""
    world = World(make_account("acme", 10))
    with bench(account(requests_per_minute=10, page_size=1), world=world) as it:
        client = it.clients["support"]
        assert isinstance(client, Client)
        client.fetch_all({})
        refused = it.site.probe("a")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "61")
        assert "the poll is using" in refused.text
        assert len(it.sim.requests) == 10
        it.time.pass_(55)  # the bound of 6 s is now enough to wait for a place
        assert it.site.probe("b").success == 0
        assert it.time.slept == [6.0]


def test_account_that_a_reload_removed_is_unknown_at_once(one: Bench) -> None:
    sid = one.sids()[0]
    assert one.site.probe(sid).success == 1
    client = one.clients.pop("support")
    one.clients["sales"] = client
    assert one.site.ask(f"/probe?target={sid}&account=support").status == 400
    assert one.site.ask(f"/probe?target={sid}&account=sales").success == 1


def test_answer_of_a_client_that_a_reload_replaced_is_not_served(one: Bench) -> None:
    """Its account may be another one now, or its privacy."""
    sid = one.sids()[0]
    assert f'sid="{sid}"' in one.site.probe(sid).text
    own = account(origin=one.sim.url, per_number=PerNumber("all", 10, "hidden"))
    one.clients["support"] = client_of(own, one.time)
    answer = one.site.probe(sid)
    assert len(one.sim.requests) == 2
    assert 'phone_number=""' in answer.text


def test_memory_of_answers_is_bounded() -> None:
    """The oldest goes first; all of this happens within the ten seconds."""
    client = SlowClient(account(requests_per_minute=100_000))
    client.go.set()
    time = FakeTime()
    clients: Any = {"support": client}
    with serving(Prober(lambda: clients, time.clock)) as site:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            for n in [*range(1001), 1, 0]:
                connection.request("GET", f"/probe?target=a{n}")
                assert connection.getresponse().read()
    assert [sid for sid, _ in client.asked] == [*(f"a{n}" for n in range(1001)), "a0"]


def code_blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "probe.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_document_shows_the_job_that_is_shipped() -> None:
    """Apart from its comments."""
    job = (ROOT / "prometheus" / "probe-job.yml").read_text("utf-8")
    bare = [line for line in job.splitlines() if line and not line.lstrip().startswith("#")]
    assert code_blocks("yaml")[0].splitlines() == bare


@pytest.mark.end_to_end
def test_job_and_alert_are_valid(tmp_path: Path, program: Callable[[str], str]) -> None:
    promtool = program("promtool")
    job = (ROOT / "prometheus" / "probe-job.yml").read_text("utf-8")
    config, rules = tmp_path / "prometheus.yml", tmp_path / "rules.yml"
    indented = "".join(f"  {line}\n" for line in job.splitlines())
    config.write_text(f"rule_files: [{rules}]\nscrape_configs:\n{indented}", "utf-8")
    rules.write_text(code_blocks("yaml")[1], "utf-8")
    checked = subprocess.run(
        [promtool, "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "SUCCESS: 3 rules found" in checked.stdout


@pytest.mark.end_to_end
def test_prometheus_probes_with_the_job(
    one: Bench, tmp_path: Path, program: Callable[[str], str]
) -> None:
    """The job as it is shipped, but for the sids, the address and the pace."""
    binary = program("prometheus")
    job = (ROOT / "prometheus" / "probe-job.yml").read_text("utf-8")
    for shipped, ours in (
        ("0f1e2d3c4b5a69788796a5b4c3d2e1f0", one.sids()[0]),
        ("1a2b3c4d5e6f70819293a4b5c6d7e8f9", "'+nobody'"),
        ("127.0.0.1:10396", f"127.0.0.1:{one.site.port}"),
        ("interval: 2m", "interval: 1s"),
        ("timeout: 20s", "timeout: 1s"),
    ):
        assert job.count(shipped) == 1
        job = job.replace(shipped, ours)
    with prometheus(binary, tmp_path, under_scrape_configs(job)) as server:
        success = server.wait_for("exophone_probe_success", 2)
        numbers = server.wait_for("exophone_number_info", 1)
        scraped = server.wait_for("up", 2)
    assert {(labels["instance"], value) for labels, value in success} == {
        (one.sids()[0], 1),
        ("+nobody", 0),
    }
    assert {(labels["instance"], labels["account"], value) for labels, value in numbers} == {
        (one.sids()[0], "support", 1)
    }
    assert {value for _, value in scraped} == {1}
    assert {path for _, path, _ in one.paths()} == {
        f"{DETAIL}{one.sids()[0]}",
        f"{DETAIL}%2Bnobody",
    }
