"""/probe on a real socket, with the real client, against the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from exophone_exporter import threads
from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account, PerNumber
from exophone_exporter.errors import RateLimited, ServerFailed, Stopped
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from exophone_exporter.web.probe import Prober, RefusedError
from tests.lib.paths import ROOT
from tests.lib.processes import output_of, wait_until
from tests.lib.servers import Answer, Site, serving_app
from tests.lib.support import CountingRecorder, FakeTime, account, client_for, found, phone

DEADLINE_SECONDS: Final = 60
# Its probes may take that long.
UNHURRIED: Final = account(timeout_seconds=30.0, deadline_seconds=60.0)
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT: Final = "X-Prometheus-Scrape-Timeout-Seconds"
DETAIL: Final = "/v2_beta/Accounts/acme/IncomingPhoneNumbers/"


class Probe(Answer):
    @property
    def samples(self) -> dict[str, float]:
        lines = [line.rpartition(" ") for line in self.text.splitlines() if line[0] != "#"]
        return {series: float(value) for series, _, value in lines}

    @property
    def success(self) -> float:
        assert self.status == 200, self.text
        return self.samples["exophone_probe_success"]


class ProbeSite(Site):
    def query(self, query: str, **headers: str) -> Probe:
        return Probe(**vars(self.ask(f"/probe{query}", **headers)))

    def probe(self, sid: str, within: str | None = None) -> Probe:
        headers = {} if within is None else {TIMEOUT: within}
        return self.query(f"?target={quote(sid, safe='')}", **headers)


@contextlib.contextmanager
def serving(prober: Prober) -> Iterator[ProbeSite]:
    app = Starlette(routes=[Route("/probe", prober.handle)])
    with serving_app(app) as port:
        yield ProbeSite(port)


@dataclass
class Bench:
    """The simulator, one client of it by name, and a server that probes with them."""

    sim: Simulator
    site: ProbeSite
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
            own.name: client_for(replace(own, origin=sim.url), time)
            for own in accounts or (account(),)
        }
        with serving(Prober(lambda: clients)) as site:
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
    shared.clients["support"] = client_for(account(origin=shared.sim.url), shared.time)
    return shared


class FakeClient:
    """A client that answers while `go` is set; it notes what it was asked."""

    def __init__(
        self, own: Account | None = None, error: Exception | None = None, *, hangs: bool = False
    ) -> None:
        self.account = own or account()
        self.clock = Clock()
        self.budget = RateLimiter(self.account.poll.requests_per_minute, self.clock.monotonic)
        self.error = error
        self.go = threading.Event()
        if not hangs:
            self.go.set()
        self.asked: list[tuple[str, float]] = []

    def fetch_number(self, sid: str, within_seconds: float) -> ExoPhone:
        self.asked.append((sid, within_seconds))
        assert self.go.wait(DEADLINE_SECONDS)
        if self.error is not None:
            raise self.error
        return phone(sid)


def polled(own: Account, *numbers: ExoPhone) -> AccountState:
    """An account whose last poll found these numbers."""
    state = AccountState(own)
    state.record_poll(found(FakeTime().clock.now(), *numbers))
    return state


@contextlib.contextmanager
def slow(client: FakeClient, **seams: Callable[..., Any]) -> Iterator[ProbeSite]:
    clients: Any = {"support": client}
    with serving(Prober(lambda: clients, **seams)) as site:
        try:
            yield site
        finally:
            client.go.set()


def page_of(own: Account, *numbers: ExoPhone) -> dict[str, float]:
    state = polled(own, *numbers)
    page = MetricsPage(lambda: [state.status()], lambda: ExporterInfo("r", 0.0), FakeTime().clock)
    page.refresh()
    text = page.body(openmetrics=False, gzipped=False).decode()
    lines = [line.rpartition(" ") for line in text.splitlines()]
    return {
        series: float(value)
        for series, _, value in lines
        if re.match("exophone_number_(?!series|changes)", series)
    }


def test_probe_shows_the_two_probe_metrics_and_the_number(one: Bench) -> None:
    """Unknown parameters are ignored, as by other exporters."""
    sid = one.sids()[7]
    answer = one.site.query(f"?module=http&target={sid}&debug=true")
    assert (answer.status, answer.headers["Content-Type"]) == (200, TEXT)
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.samples["exophone_probe_success"] == 1
    assert answer.samples["exophone_probe_duration_seconds"] == 0  # the clock stands still
    assert f'exophone_number_monthly_rental{{account="support",currency="INR",sid="{sid}"}}' in (
        answer.samples
    )
    assert one.paths() == [("GET", f"{DETAIL}{sid}", {})]
    assert "last complete poll" not in answer.text
    rental = "# HELP exophone_number_monthly_rental Monthly rental of the ExoPhone in units of the"
    assert f"{rental} currency, as the API reports now.\n" in answer.text


@pytest.mark.parametrize("phone_number", ["full", "last4", "hidden"])
@pytest.mark.parametrize("series", ["all", "none"])
def test_number_looks_as_on_metrics_privacy_included(series: str, phone_number: str) -> None:
    """The setting `series` does not matter to a probe."""
    shown = PerNumber("all", 10, phone_number)  # type: ignore[arg-type]  # one of its words
    own = account(per_number=replace(shown, series=series))  # type: ignore[arg-type]  # likewise
    number = phone("+912248901111", friendly_name="Front desk 022-4890-1111")
    client = FakeClient(own)
    client.fetch_number = lambda *_: number  # type: ignore[method-assign]  # a fake's answer
    with slow(client, statuses=lambda: [polled(own, number).status()]) as site:
        answer = site.probe("+91 22 4890 1111")
    expected = page_of(account(per_number=shown), number)
    assert len(expected) == 11
    own_two = {"exophone_probe_success", "exophone_probe_duration_seconds"}
    assert {k: v for k, v in answer.samples.items() if k not in own_two} == expected
    assert any("4890" in name for name in answer.samples) is (phone_number == "full")


INVALID: Final = {
    "like /probe?target=SID_OR_PHONE_NUMBER": ["", "?"],
    "exactly one target": ["?account=support", "?target=a&target=b", "?target=a&target="],
    "1 to 128": [
        *("?target", "?target=", "?target=" + "a" * 129, "?target=../x", "?target=a%2fb"),
        *("?target=a%252fb", "?target=a%0d%0aHost:%20x", "?target=%00", "?target=%D9%A3"),
    ],
    "is not . or ..": ["?target=.", "?target=%2e%2e"],
    "encode + as %2B": ["?target=+9122"],
    "URLs and hosts are not allowed": ["?target=http://evil.example/x"],
    "unknown account; choose a configured one": [
        f"?target=a&account={name}" for name in ("nobody", "", "acme")
    ],
    "account must be given only once": ["?target=a&account=support&account=support"],
    "more than 20": ["?target=a&" + "b=1&" * 50, "?target=a" + "&" * 50],
}


@pytest.mark.fault(113, 109)
@pytest.mark.parametrize(
    ("query", "advice"),
    [(query, advice) for advice, queries in INVALID.items() for query in queries],
)
def test_invalid_probe_is_400_with_advice_and_makes_no_request(
    one: Bench, query: str, advice: str
) -> None:
    answer = one.site.query(query)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert advice in answer.text
    assert answer.text.count("\n") == 1
    assert len(answer.text) < 250
    assert one.sim.requests == []


@pytest.mark.fault(113)
@pytest.mark.parametrize(
    ("sid", "segment"),
    [
        ("+9122", "%2B9122"),
        ("02248901111", "02248901111"),
        ("...", "..."),
        ("a&b=c;d", "a%26b%3Dc%3Bd"),
        ("user:pw@host", "user%3Apw%40host"),
        ('"<>{}|', "%22%3C%3E%7B%7D%7C"),
    ],
)
def test_legal_sid_is_one_quoted_segment(one: Bench, sid: str, segment: str) -> None:
    assert one.site.probe(sid).success == 0
    assert one.paths() == [("GET", f"{DETAIL}{segment}", {})]


def is_sid(text: str) -> bool:
    fit = all(0x21 <= ord(c) <= 0x7E and c not in "/\\?#%" for c in text)
    return fit and 1 <= len(text) <= 128 and text not in (".", "..")


# A query as it is sent: anything but what would end it.
QUERIES: Final = st.lists(
    st.sampled_from([b"target=", b"target", b"&", b"=", b"account=", b"support", b"%2", b"%", b"+"])
    | st.binary(max_size=6).map(lambda text: re.sub(rb"[\x00-\x20\x7f#]", b"", text)),
    max_size=7,
).map(b"".join)


@pytest.mark.fault(113)
@given(query=QUERIES | QUERIES.map(lambda tail: b"target=" + tail))
def test_any_query_is_400_or_exactly_one_segment_of_one_path(shared: Bench, query: bytes) -> None:
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
    """A search would spend the budget of every account."""
    with bench(account(), account("sales", sid="other", api_key="other-key")) as two:
        (sid, *_) = two.sids()
        answer = two.site.probe(sid)
        assert (answer.status, two.sim.requests) == (400, [])
        assert "choose one with account=NAME" in answer.text
        assert two.site.query(f"?target={sid}&account=support").success == 1
        assert two.site.query(f"?account=sales&target={sid}").success == 0
        assert [seen.account_sid for seen in two.sim.requests] == ["acme", "other"]


DESK: Final = phone("desk", phone_number="+912248901111")
TWO: Final = tuple(account(name, requests_per_minute=10) for name in ("support", "sales"))
# By what is asked: what the last polls of the two found, and the sid asked about or the refusal.
CALLED: Final[list[tuple[str, list[AccountState], str | tuple[int, str]]]] = [
    ("?target=%2B91%2022%204890%201111", [polled(TWO[0], DESK), polled(TWO[1])], "desk"),
    ("?target=+912248901111", [polled(TWO[0], DESK), polled(TWO[1])], "desk"),  # a + in a URL
    ("?target=022-4890-1111&account=sales", [polled(TWO[1], DESK)], "desk"),
    ("?target=02248901111&account=support", [polled(TWO[0])], "02248901111"),  # may be new
    ("?target=02248901111&account=support", [], "02248901111"),
    ("?target=022-4890-1111", [polled(own, DESK) for own in TWO], (400, "several numbers")),
    ("?target=022-4890-1112", [polled(own, DESK) for own in TWO], (404, "no number that matches")),
    ("?target=%2B912248901111", [polled(TWO[0])], (503, "there was none yet")),
    ("?target=02248901111", [polled(TWO[0])], (400, "choose one with account=NAME")),
    ("?target=%2B912248901111&account=nobody", [], (400, "unknown account")),
]


@pytest.mark.fault(113, 241)
@pytest.mark.parametrize(("query", "polls", "expected"), CALLED)
def test_phone_number_is_looked_up_in_the_last_polls(
    query: str, polls: list[AccountState], expected: str | tuple[int, str]
) -> None:
    """With several accounts, in those of all; never by a request of its own."""
    both = [FakeClient(own) for own in TWO]
    clients: Any = {client.account.name: client for client in both}
    prober = Prober(lambda: clients, statuses=lambda: [each.status() for each in polls])
    with serving(prober) as site:
        answer = site.query(query)
    asked = [sid for client in both for sid, _ in client.asked]
    if isinstance(expected, str):
        assert (answer.success, asked) == (1, [expected])
    else:
        assert (answer.status, asked) == (expected[0], [])
        assert expected[1] in answer.text
        assert "4890" not in answer.text


@pytest.mark.fault(241)
@pytest.mark.parametrize(("setting", "refused"), [("full", 404), ("last4", 429), ("hidden", 429)])
def test_masked_numbers_cannot_be_guessed_fast(setting: Any, refused: int) -> None:
    """A wrong guess takes a place in the share of the probes, which is two a minute here."""
    own = account(requests_per_minute=10, per_number=PerNumber("all", 10, setting))
    with slow(FakeClient(own), statuses=lambda: [polled(own, DESK).status()]) as site:
        guesses = [site.probe(f"+91 22 4890 222{last}").status for last in range(3)]
    assert guesses == [404, 404, refused]


FAILED: Final = """\
# HELP exophone_probe_success Whether the API returned the probed ExoPhone in time; on /probe only.
# TYPE exophone_probe_success gauge
exophone_probe_success 0.0
# HELP exophone_probe_duration_seconds Duration of the request to the API, including waiting; on\
 /probe only.
# TYPE exophone_probe_duration_seconds gauge
exophone_probe_duration_seconds 0.0
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=401), "auth"),
        (Fault(status=500), "server"),
        (Fault(status=429, headers={"Retry-After": "0"}), "rate_limited"),
        (Fault(status=302, headers={"Location": "http://evil.example/"}), "status"),
        (Fault(after="reset"), "connect"),
        (Fault(status=200, body=b"<html>"), "bad_body"),
        (Fault(status=200, body=b'{"sid": "b"}'), "envelope"),
    ],
)
def test_failure_is_success_0_without_a_retry_and_is_logged_at_debug(
    one: Bench, fault: Fault, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A poll would retry; and a failure is not cached."""
    caplog.set_level(logging.DEBUG, "exophone_exporter")
    one.sim.fail(fault)
    sid = one.sids()[0]
    answer = one.site.probe(sid)
    assert (answer.status, answer.text, len(one.sim.requests)) == (200, FAILED, 1)
    (record,) = [r for r in caplog.records if r.name == "exophone_exporter.web.probe"]
    logged = vars(record)["fields"]
    assert (record.levelname, record.getMessage()) == ("DEBUG", "the probe failed")
    assert (logged["account"], logged["sid"], logged["reason"]) == ("support", sid, reason)
    assert one.site.probe(sid).success == 1


def test_no_log_line_shows_a_sid_that_privacy_covers(caplog: pytest.LogCaptureFixture) -> None:
    """Nor do the words of the API."""
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


def test_defect_in_the_exporter_is_success_0_and_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = FakeClient(error=ZeroDivisionError())
    with slow(client) as site:
        assert [site.probe("a").success for _ in range(2)] == [0, 0]
    assert len(client.asked) == 2
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == ["a defect in the exporter"] * 2


def test_exporter_that_is_stopping_refuses_instead_of_a_false_alarm() -> None:
    client = FakeClient(error=Stopped())
    with slow(client) as site:
        answer = site.probe("a")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "the exporter is stopping or was reloaded" in answer.text


@pytest.mark.fault(115)
@pytest.mark.parametrize(
    ("header", "within_seconds"),
    [
        (None, 6.0),
        ("10", 6.0),
        ("6.5", 6.0),
        ("5", 4.5),
        ("0.75", 0.25),
        ("0.5", 0.5),
        ("0.1", 0.1),
        ("00005.0", 4.5),
        ("9" * 18, 6.0),
    ],
)
def test_limit_is_the_smaller_of_our_own_and_the_scrape_timeout(
    header: str | None, within_seconds: float
) -> None:
    """Our own is three read timeouts, 6 s in these tests, and at most the deadline of a poll.

    It also ends before the minute in which the server must have answered.
    """
    client, hurried = FakeClient(), FakeClient(account(deadline_seconds=4.0))
    patient = FakeClient(account(timeout_seconds=90.0, deadline_seconds=300.0))
    for one in (client, hurried, patient):
        with slow(one) as site:
            assert site.probe("a", header).success == 1
    assert client.asked == [("a", within_seconds)]
    assert hurried.asked == [("a", min(within_seconds, 4.0))]
    theirs = {None: 55.0, "9" * 18: 55.0, "10": 9.5, "6.5": 6.0}
    assert patient.asked == [("a", theirs.get(header, within_seconds))]


@pytest.mark.fault(115)
@pytest.mark.parametrize(
    "header",
    ["", "abc", "NaN", "inf", "-1", "+1", "0", "0.0", "1e3", "1_0", "10s", "1.", ".5", "9" * 400],
)
def test_invalid_timeout_header_is_400(one: Bench, header: str) -> None:
    answer = one.site.probe(one.sids()[0], header)
    assert (answer.status, one.sim.requests) == (400, [])
    assert answer.text == f"{TIMEOUT} must be a number of seconds above 0, like 10 or 0.5\n"


@pytest.mark.fault(115)
def test_two_timeout_headers_are_400() -> None:
    prober = Prober(lambda: {"support": client_for(account())})
    with pytest.raises(RefusedError) as refused:
        asyncio.run(prober.probe(b"target=a", ["10", "1"]))
    assert refused.value.status == 400


@pytest.mark.fault(115)
def test_answer_comes_in_time_when_the_request_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As with a silent name server, which nothing can interrupt."""
    caplog.set_level(logging.DEBUG, "exophone_exporter")
    client = FakeClient(UNHURRIED, hangs=True)
    with slow(client) as site:
        began = monotonic()
        answer = site.probe("a", "0.6")
        took = monotonic() - began
        assert answer.success == 0
        assert 0.09 < answer.samples["exophone_probe_duration_seconds"] <= took < 30
        assert len(answer.samples) == 2
        # The abandoned request is not shared: the next probe makes its own.
        assert site.probe("a", "0.6").success == 0
        assert len(client.asked) == 2
    reasons = [vars(r)["fields"]["reason"] for r in caplog.records if "probe failed" in r.msg]
    assert reasons[:2] == ["timeout"] * 2


def test_hanging_requests_are_bounded_and_make_room_when_they_end() -> None:
    client = FakeClient(hangs=True)
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
def test_probe_without_a_thread_is_503_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(run: Callable[[], None]) -> None:
        if fails:
            raise RuntimeError("can't start new thread")
        threading.Thread(target=run, daemon=True).start()

    fails = [True]
    monkeypatch.setattr(threads, "start_daemon", start)
    with slow(FakeClient()) as site:
        for _ in range(20):
            assert site.probe("a").status == 503
        fails.clear()
        assert site.probe("a").success == 1


@pytest.mark.fault(114)
@pytest.mark.parametrize("error", [None, ServerFailed("500")], ids=["answered", "failed"])
def test_a_hundred_probes_of_one_number_at_once_are_one_request(error: Exception | None) -> None:
    """All get its outcome. A failure is not cached, so it is not the cache that answers."""
    client, came = FakeClient(UNHURRIED, error, hangs=True), []

    def clients() -> Any:
        came.append(1)  # asked for at each probe, in the thread of the loop
        return {"support": client}

    with serving(Prober(clients)) as site, ThreadPoolExecutor(100) as pool:
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
    client = FakeClient(hangs=True)
    with slow(client) as site, ThreadPoolExecutor(2) as pool:
        hasty = pool.submit(site.probe, "a", "0.5")
        wait_until(lambda: len(client.asked) == 1, "the first is asked")
        patient = pool.submit(site.probe, "a", "6")
        assert hasty.result(DEADLINE_SECONDS).success == 0
        wait_until(lambda: len(client.asked) == 2, "the second is asked")
        client.go.set()
        assert patient.result(DEADLINE_SECONDS).success == 1
    assert client.asked == [("a", 0.5), ("a", 5.5)]


@pytest.mark.fault(30, 114)
@pytest.mark.parametrize("known", [True, False], ids=["found", "not-found"])
def test_answer_serves_again_for_ten_seconds(one: Bench, known: bool) -> None:
    sid = one.sids()[0] if known else "nobody"
    first = one.site.probe(sid)
    assert (first.text == FAILED) is not known
    one.time.pass_(9.9)
    again = one.site.probe(sid)
    assert (again.body, len(one.sim.requests)) == (first.body, 1)
    one.time.pass_(0.1)
    assert one.site.probe(sid).success == known
    assert len(one.sim.requests) == 2


@pytest.mark.fault(114)
def test_probes_over_their_share_are_429_with_retry_after() -> None:
    """A fifth of 50 is 10 in any minute; cached answers cost nothing."""
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
@pytest.mark.parametrize(("requests_per_minute", "share"), [(1, 1), (14, 2)])
def test_share_of_a_small_budget(requests_per_minute: int, share: int) -> None:
    with bench(account(requests_per_minute=requests_per_minute)) as it:
        statuses = [it.site.probe(sid).status for sid in it.sids()[:4]]
    assert statuses == [200] * share + [429] * (4 - share)


@pytest.mark.fault(114)
def test_flood_of_probes_leaves_the_poll_its_budget() -> None:
    """Ten a minute: two for the flood; the eight pages of the poll do not wait."""
    world = World(make_account("acme", 8))
    with bench(account(requests_per_minute=10, page_size=1), world=world) as it:
        flood = [it.site.probe(f"flood-{n}").status for n in range(60)]
        assert (flood.count(200), flood.count(429)) == (2, 58)
        assert it.clients["support"].fetch_all({}).pages == 8
        assert it.time.slept == []
        assert len(it.sim.requests) == 10


@pytest.mark.fault(114)
def test_probe_after_a_poll_that_used_the_budget_is_429() -> None:
    """No request, and no false alarm: the number may be fine."""
    world = World(make_account("acme", 10))
    with bench(account(requests_per_minute=10, page_size=1), world=world) as it:
        it.clients["support"].fetch_all({})
        refused = it.site.probe("a")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "61")
        assert "the poll is using" in refused.text
        assert len(it.sim.requests) == 10
        it.time.pass_(55)  # the bound of 6 s is now enough to wait for a place
        assert it.site.probe("b").success == 0
        assert it.time.slept == [6.0]


@pytest.mark.fault(170)
def test_probes_are_429_while_the_api_asked_to_wait(one: Bench) -> None:
    """By every name of the account; a poll waits too, or fails without a request."""
    one.clients["twin"] = replace(one.clients["support"], recorder=CountingRecorder())
    one.sim.fail(Fault(status=429, headers={"Retry-After": "300"}))
    assert one.site.query("?target=a&account=support").success == 0
    one.time.pass_(99.5)
    for name in ("support", "twin"):
        refused = one.site.query(f"?target=b&account={name}")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "201")
        assert "the API asked to wait" in refused.text
    with pytest.raises(RateLimited, match=r"^the API asked to wait for another 200s$"):
        one.clients["twin"].fetch_all({})
    assert (len(one.sim.requests), one.time.slept) == (1, [])
    one.time.pass_(200.5)
    assert one.site.query("?target=b&account=twin").status == 200


@pytest.mark.fault(114)
def test_names_of_one_account_and_reloads_share_the_fifth_of_the_probes() -> None:
    with bench(account(requests_per_minute=10)) as it:
        support = it.clients["support"]
        it.clients["twin"] = replace(support)
        for name in it.clients:
            assert it.site.query(f"?target=a&account={name}").status == 200
        it.clients["support"] = replace(support)  # as after a reload
        assert it.site.query("?target=b&account=support").status == 429


def test_account_that_a_reload_removed_is_unknown_immediately(one: Bench) -> None:
    sid = one.sids()[0]
    assert one.site.probe(sid).success == 1
    client = one.clients.pop("support")
    one.clients["sales"] = client
    assert one.site.query(f"?target={sid}&account=support").status == 400
    assert one.site.query(f"?target={sid}&account=sales").success == 1


def test_answer_of_a_client_that_a_reload_replaced_is_not_served(one: Bench) -> None:
    """Its account may be another one now, or its privacy."""
    sid = one.sids()[0]
    assert f'sid="{sid}"' in one.site.probe(sid).text
    own = account(origin=one.sim.url, per_number=PerNumber("all", 10, "hidden"))
    one.clients["support"] = client_for(own, one.time)
    answer = one.site.probe(sid)
    assert len(one.sim.requests) == 2
    assert 'phone_number=""' in answer.text


def test_cache_is_bounded() -> None:
    """The oldest answer goes first; all of this happens within the ten seconds."""
    client = FakeClient(account(requests_per_minute=100_000))
    clients: Any = {"support": client}
    prober = Prober(lambda: clients)

    async def probe_all() -> None:
        for n in [*range(1001), 1, 0]:
            await prober.probe(b"target=a%d" % n, [])

    asyncio.run(probe_all())
    assert [sid for sid, _ in client.asked] == [*(f"a{n}" for n in range(1001)), "a0"]


def code_blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "probe.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_document_shows_the_shipped_job_without_its_comments() -> None:
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
    assert "SUCCESS: 3 rules found" in output_of(promtool, "check", "config", config)
