"""The client against the simulator: whole walks, retries, the budget, secrets, and stopping."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from exophone_exporter.config.secrets import Secret, SecretSource
from exophone_exporter.errors import (
    BadEnvelope,
    BudgetSpent,
    CredentialsRejected,
    DeadlinePassed,
    NotFound,
    PollError,
    RateLimited,
    Stopped,
    TimedOut,
)
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.responses import Answer
from exophone_exporter.exotel.transport import Transport
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.poller import poll_once
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.fault_server import Conversation, FaultServer, answering, ok
from tests.lib.support import CountingRecorder, FakeTime, account, client_for, files_of, phone

LIST_PATH = "/v2_beta/Accounts/acme/IncomingPhoneNumbers"
# acme-key:acme-token
AUTHORIZATION = "Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="


@pytest.fixture
def recorder() -> CountingRecorder:
    return CountingRecorder()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 120))) as running:
        yield running


@pytest.fixture
def client_of(time: FakeTime, recorder: CountingRecorder) -> Callable[..., Client]:
    """A client whose clock stands still but for its sleeps; jitter is at its most."""

    def make(origin: str, **settings: Any) -> Client:
        own = account(origin=origin, **settings)
        return client_for(own, time, recorder=recorder, uniform=lambda _, high: high)

    return make


def in_seconds(seconds: float) -> str:
    """A date this far from the start of FakeTime."""
    return formatdate(FakeTime.wall + seconds, usegmt=True)


def sids(sim: Simulator) -> list[str]:
    return [number["sid"] for number in sim.world.accounts["acme"].numbers]


def walked(client: Client, previous: list[str] | None = None) -> list[str]:
    known = {sid: phone(sid) for sid in previous or []}
    return [number.sid for number in client.fetch_all(known).numbers]


@pytest.mark.fault(73)
def test_only_the_configured_origin_is_asked_and_only_by_get(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    """The sample's next page is plain http on another host; it says "more" and nothing else."""
    client_of(sim.url).fetch_all({})
    assert [(r.method, r.path, r.query) for r in sim.requests] == [
        ("GET", LIST_PATH, {"Page": str(page), "PageSize": "50"}) for page in range(3)
    ]
    assert {r.headers["Authorization"] for r in sim.requests} == {AUTHORIZATION}
    assert {r.headers["Host"] for r in sim.requests} == {sim.url.removeprefix("http://")}


@pytest.mark.fault(73)
@pytest.mark.parametrize("scheme", ["http", "ftp", "file"], ids=str)
def test_next_page_that_points_elsewhere_is_never_requested(
    client_of: Callable[..., Client], scheme: str
) -> None:
    with FaultServer(answering(ok(b"{}"))) as other:
        uri = f"{scheme}://localhost:{other.port}/x"
        page = '{"incoming_phone_numbers": [{"sid": "%s"}], "next_page_uri": %s}'
        answers = (page % ("a", f'"{uri}"'), page % ("b", "null"))
        with FaultServer(answering(*(ok(answer.encode()) for answer in answers))) as server:
            assert walked(client_of(server.url)) == ["a", "b"]
            assert [request.split(" ")[1] for request in server.requests] == [
                f"{LIST_PATH}?Page=0&PageSize=50",
                f"{LIST_PATH}?Page=1&PageSize=50",
            ]
        assert other.connections == 0


@pytest.mark.fault(150, 151)
def test_answer_is_read_behind_interim_ones_and_a_malformed_header(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    odd = {"My Param": "None", "X-Frame-Options ": "DENY"}
    sim.fail(Fault(status=200, body=_page_of(sim), interim=(103, 102), headers=odd))
    assert walked(client_of(sim.url)) == sids(sim)
    assert len(sim.requests) == 1


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, r'{"message": "acme\u002dtoken"}', id="json-escapes"),
        pytest.param(400, r'{"message": "acme\u002dtoken \ud800"}', id="half-a-character"),
        pytest.param(200, "<RestException><Message>acme&#45;token</Message>", id="entity"),
        pytest.param(400, "<Message>acme&#45;token</Message>", id="entity-of-an-error"),
    ],
)
def test_secret_that_the_vendor_repeats_with_escapes_is_masked(
    sim: Simulator, client_of: Callable[..., Client], status: int, body: str
) -> None:
    """In the whole chain of errors, which a traceback shows."""
    sim.fail(Fault(status=status, body=body.encode()))
    with pytest.raises(PollError, match="<secret>") as caught:
        client_of(sim.url).fetch_first_page()
    assert "acme-token" not in " ".join(_told(caught.value))


def test_fault_that_passes_costs_a_retry_and_nothing_else(
    sim: Simulator,
    client_of: Callable[..., Client],
    recorder: CountingRecorder,
    time: FakeTime,
) -> None:
    """Each page has its own attempts and its own backoff."""
    for fault in (Fault(page=0, times=2), Fault(after="reset", page=1), Fault(page=2, times=2)):
        sim.fail(fault)
    assert walked(client_of(sim.url)) == sids(sim)
    assert recorder.waits == time.slept == [0.5, 1.0, 0.5, 0.5, 1.0]
    assert recorder.retries == 5
    assert recorder.requests[3] == ("list", "none")


@pytest.mark.fault(20, 32, 33, 36)
@pytest.mark.parametrize(
    ("fault", "slept"),
    [
        pytest.param(Fault(status=429, headers={"Retry-After": "29"}), [29], id="429"),
        pytest.param(Fault(status=503, headers={"Retry-After": "29"}), [29], id="503"),
        pytest.param(Fault(status=429, headers={"Retry-After": in_seconds(12)}), [12], id="date"),
        pytest.param(
            Fault(200, inner=429, headers={"Retry-After": in_seconds(9)}), [9], id="inside-a-200"
        ),
        pytest.param(Fault(status=429, times=2), [2, 4], id="of-no-length"),
    ],
)
def test_wait_that_fits_the_deadline_is_kept(
    *,
    sim: Simulator,
    client_of: Callable[..., Client],
    time: FakeTime,
    recorder: CountingRecorder,
    fault: Fault,
    slept: list[float],
) -> None:
    sim.fail(fault)
    assert walked(client_of(sim.url, deadline_seconds=30.0)) == sids(sim)
    assert recorder.waits == time.slept == slept


@pytest.mark.fault(32, 33, 127)
@pytest.mark.parametrize(
    ("header", "asked", "requests"),
    [
        pytest.param("30", 30, 1, id="just-at-the-deadline"),
        pytest.param("1000000000000", 600, 1, id="for-ages"),
        pytest.param(in_seconds(30 + 5 * 3600), 600, 1, id="clock-that-is-ahead"),
        pytest.param(in_seconds(30 - 5 * 3600), 0, 3, id="clock-that-is-behind"),
    ],
)
def test_wait_beyond_the_deadline_is_not_begun(
    *,
    sim: Simulator,
    client_of: Callable[..., Client],
    time: FakeTime,
    header: str,
    asked: float,
    requests: int,
) -> None:
    """The failure says how long the API asked to wait: ten minutes at most."""
    sim.fail(Fault(status=429, headers={"Retry-After": header}, times=None))
    with pytest.raises(RateLimited) as caught:
        client_of(sim.url, deadline_seconds=30.0).fetch_all({})
    assert caught.value.retry_after_seconds == asked
    assert time.slept == []
    assert len(sim.requests) == requests


@pytest.mark.fault(127)
@pytest.mark.parametrize(
    "hours",
    [pytest.param(-5, id="behind"), pytest.param(5, id="ahead")],
)
def test_clock_of_the_server_that_is_hours_off_schedules_nothing(
    sim: Simulator, client_of: Callable[..., Client], time: FakeTime, hours: int
) -> None:
    """Neither its Date nor the reset of its limit makes anybody wait."""
    theirs = time.wall + hours * 3600
    skewed = {
        "Date": formatdate(theirs, usegmt=True),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(theirs) + 60),
    }
    sim.fail(Fault(status=200, body=_page_of(sim), headers=skewed))
    assert walked(client_of(sim.url)) == sids(sim)
    assert time.slept == []


def _page_of(sim: Simulator) -> bytes:
    numbers = sim.world.accounts["acme"].numbers
    return json.dumps({"incoming_phone_numbers": numbers, "next_page_uri": None}).encode()


@pytest.mark.fault(78)
def test_walk_of_200_pages_at_50_a_minute_takes_183_seconds(
    client_of: Callable[..., Client], time: FakeTime
) -> None:
    """And the metrics say so: the wait for the budget is visible."""
    with Simulator(World(make_account("acme", 10_000))) as sim:
        client = client_of(sim.url, requests_per_minute=50, deadline_seconds=300.0)
        state = AccountState(client.account)
        result = poll_once(state, client.fetch_all, time.clock)
    assert result.snapshot is not None
    assert [number.sid for number in result.snapshot.numbers] == sids(sim)
    assert time.slept == [61, 61, 61]
    page = MetricsPage(lambda: [state.status()], lambda: ExporterInfo("r", 0.0), time.clock)
    line = b'exophone_poll_duration_seconds{account="support"} 183.0\n'
    assert line in page.body(openmetrics=False, gzipped=False)


@pytest.mark.fault(78)
def test_budget_that_cannot_last_until_the_end_stops_the_walk(
    sim: Simulator,
    client_of: Callable[..., Client],
    time: FakeTime,
    recorder: CountingRecorder,
) -> None:
    client = client_of(sim.url, requests_per_minute=2, deadline_seconds=60.0)
    with pytest.raises(DeadlinePassed) as caught:
        client.fetch_all({})
    assert str(caught.value) == (
        "the budget of 2 requests a minute is spent before the deadline of 60s; raise the deadline"
    )
    assert time.slept == []
    assert len(recorder.requests) == 2


def test_time_that_ran_out_while_waiting_makes_no_request(
    sim: Simulator, client_of: Callable[..., Client], recorder: CountingRecorder, time: FakeTime
) -> None:
    """Not even one that is only counted."""
    client = client_of(sim.url, requests_per_minute=1, deadline_seconds=61.0)
    with pytest.raises(DeadlinePassed, match="not complete"):
        client.fetch_all({})
    assert time.slept == [61]
    assert recorder.requests == [("list", "200")]


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    ("sids_sent", "next_page", "fails"),
    [([""], None, True), ([""], "/next", False), (["", "a"], None, False)],
)
def test_first_page_fails_where_it_is_all_and_holds_no_number(
    sim: Simulator,
    client_of: Callable[..., Client],
    sids_sent: list[str],
    next_page: str | None,
    fails: bool,
) -> None:
    items = [{"sid": sid} for sid in sids_sent]
    page = json.dumps({"incoming_phone_numbers": items, "next_page_uri": next_page})
    sim.fail(Fault(status=200, body=page.encode()))
    with pytest.raises(BadEnvelope) if fails else contextlib.nullcontext():
        client_of(sim.url).fetch_first_page()


def test_number_is_the_same_alone_and_in_the_list(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    """Its times too, which the API gives without a zone."""
    client = client_of(sim.url)
    listing = client.fetch_all({})
    (first, *_), zone = listing.numbers, listing.timezone
    assert zone == "Asia/Kolkata"
    assert first.created_timestamp_seconds is not None
    assert client.fetch_number(first.sid) == first


def test_number_is_asked_for_again_after_a_fault_that_passes(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    sim.fail(Fault(503, endpoint="detail"))
    sid = sids(sim)[0]
    assert client_of(sim.url).fetch_number(sid).sid == sid
    assert len(sim.requests) == 2


def test_missing_number_is_asked_about_only_once(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    sim.fail(Fault(503, endpoint="detail", times=None))
    listing = client_of(sim.url).fetch_all({"gone": phone("gone")}, {"gone": 1})
    assert listing.missed == {"gone": 2}
    assert sum(request.path.endswith("/gone") for request in sim.requests) == 1


def test_answer_about_another_number_is_not_taken(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    sim.fail(Fault(200, body=b'{"sid": "another"}', endpoint="detail"))
    with pytest.raises(BadEnvelope, match="about another number"):
        client_of(sim.url).fetch_number(sids(sim)[0])


@pytest.mark.parametrize("sid", [".", ".."], ids=["dot", "dots"])
def test_sid_that_no_path_can_name_is_not_asked_about(
    sim: Simulator, client_of: Callable[..., Client], sid: str
) -> None:
    """Quoted or not, a dot is a place in a path: the API would be asked about something else."""
    with pytest.raises(NotFound, match=r"^the API cannot be asked about a sid of dots$"):
        client_of(sim.url).fetch_number(sid)
    assert sim.requests == []


def test_bounded_question_ends_in_time_and_says_so(
    sim: Simulator, recorder: CountingRecorder
) -> None:
    """The words are those of a question, not of a poll."""
    sim.fail(Fault(after="hang"))
    client = client_for(account(origin=sim.url), recorder=recorder)
    with pytest.raises(DeadlinePassed, match=r"^there was no answer within 0\.1s$"):
        client.fetch_number("a", 0.1)
    assert recorder.requests == [("detail", "none")]


def test_bounded_question_without_a_place_in_the_budget_asks_nothing(
    sim: Simulator, client_of: Callable[..., Client], recorder: CountingRecorder
) -> None:
    """Nor does it take a place that the poll could have."""
    client = client_of(sim.url, requests_per_minute=1)
    with pytest.raises(NotFound):
        client.fetch_number("a", 1.0)
    for _ in range(3):
        with pytest.raises(
            BudgetSpent, match=r"^the budget of 1 requests a minute is spent for the next 60s$"
        ):
            client.fetch_number("a", 60.0)
    assert client.budget.wait_seconds() == 61.0
    assert recorder.requests == [("detail", "404")]


def test_bounded_question_whose_time_ran_out_while_waiting_makes_no_request(
    sim: Simulator, client_of: Callable[..., Client], recorder: CountingRecorder, time: FakeTime
) -> None:
    """Its words are those of a question even where not a moment is left."""
    client = client_of(sim.url, requests_per_minute=1, deadline_seconds=300.0)
    with pytest.raises(NotFound):
        client.fetch_number("a", 1.0)
    with pytest.raises(DeadlinePassed, match=r"^there was no answer within 61s$"):
        client.fetch_number("a", 61.0)
    assert (time.slept, len(recorder.requests)) == ([61], 1)


@pytest.mark.fault(170)
def test_question_whose_slot_is_held_off_while_it_waits_makes_no_request(
    sim: Simulator, client_of: Callable[..., Client], recorder: CountingRecorder
) -> None:
    """The poll heard a Retry-After in the meantime."""
    client = client_of(sim.url, requests_per_minute=1, deadline_seconds=600.0)
    with pytest.raises(NotFound):
        client.fetch_number("a", 1.0)
    sleep = client.sleep

    def sleep_and_hear(seconds: float) -> None:
        sleep(seconds)
        client.budget.hold_off(300.0)

    waiting = replace(client, sleep=sleep_and_hear)
    with pytest.raises(RateLimited, match=r"^the API asked to wait for another 300s$") as caught:
        waiting.fetch_number("a", 100.0)
    assert caught.value.retry_after_seconds == 300
    assert recorder.requests == [("detail", "404")]


@pytest.mark.fault(173)
def test_401_names_a_secret_file_that_could_not_be_read(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    token = SecretSource(Secret("old-token"), "/run/token", files_of({"/run/token": b"new token "}))
    with pytest.raises(CredentialsRejected, match=r"^401((?!last secrets).)*$"):
        client_of(sim.url, api_key="wrong").fetch_all({})
    client = client_of(sim.url)
    own = client.account
    own = replace(own, credentials=replace(own.credentials, api_token=token))
    with pytest.raises(CredentialsRejected) as caught:
        replace(client, account=own).fetch_all({})
    assert str(caught.value).endswith(
        "; perhaps because the last secrets are still used: /run/token: starts or ends with a space"
    )


@pytest.mark.fault(78)
def test_request_counts_from_when_its_connection_is_there(
    sim: Simulator, client_of: Callable[..., Client], time: FakeTime
) -> None:
    """It takes 9 seconds, once: the second page uses the same connection."""

    class SlowTransport(Transport):
        def get(self, *args: Any, on_connect: Callable[[], None], **limits: Any) -> Answer:
            def connect() -> None:
                time.pass_(9)
                on_connect()

            return super().get(*args, on_connect=connect, **limits)

    client = replace(
        client_of(sim.url, requests_per_minute=2, page_size=60, timeout_seconds=10.0),
        connect=SlowTransport,
    )
    assert client.fetch_all({}).pages == 2
    assert client.budget.wait_seconds() == 61


def test_retry_is_told_to_those_who_look_closely(
    sim: Simulator, client_of: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "exophone_exporter")
    sim.fail(Fault(status=502, body=b"<Message>Busy</Message>", times=1))
    client_of(sim.url).fetch_first_page()
    (told,) = [record for record in caplog.records if record.name.startswith("exophone_exporter")]
    assert (told.levelname, told.getMessage()) == ("DEBUG", "asking again")
    assert told.__dict__["fields"] == {
        "account": "support",
        "reason": "server",
        "error": '502: the API failed (the API says: "Busy")',
        "wait_seconds": 0.5,
    }


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    ("seconds", "attempts"),
    [pytest.param(280, 1, id="just-under"), pytest.param(300, 3, id="over")],
)
def test_whole_answer_may_take_three_timeouts(
    client_of: Callable[..., Client],
    recorder: CountingRecorder,
    time: FakeTime,
    seconds: float,
    attempts: int,
) -> None:
    """By a clock that stands still but for what the server lets pass."""
    body = b'{"incoming_phone_numbers": []}'

    def slow(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(ok(body)[:-2])
        time.pass_(seconds)
        conversation.send(body[-2:-1])
        if attempts > 1:
            conversation.stay_silent()
        conversation.send(body[-1:])

    with FaultServer(slow) as server:
        client = client_of(server.url, timeout_seconds=100.0, deadline_seconds=1000.0)
        with contextlib.nullcontext() if attempts == 1 else pytest.raises(TimedOut):
            client.fetch_first_page()
    assert recorder.seconds == [seconds] * attempts


@pytest.mark.fault(118)
@pytest.mark.parametrize(
    "requests_per_minute",
    [pytest.param(1, id="for-the-budget"), pytest.param(1000, id="before-a-retry")],
)
def test_stop_ends_a_wait_and_the_walk(
    sim: Simulator, recorder: CountingRecorder, time: FakeTime, requests_per_minute: int
) -> None:
    def stop(seconds: float) -> None:
        if seconds > 0:
            raise Stopped

    sim.fail(Fault(status=503, page=1))
    own = account(origin=sim.url, deadline_seconds=300.0, requests_per_minute=requests_per_minute)
    with pytest.raises(Stopped):
        client_for(own, time, recorder=recorder, sleep=stop).fetch_all({})
    assert recorder.waits == []
    assert len(recorder.requests) == min(requests_per_minute, 2)


def test_calls_in_parallel_do_not_disturb_each_other(
    sim: Simulator, client_of: Callable[..., Client]
) -> None:
    """Probes run during the poll of the same account."""
    client = client_of(sim.url)
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(walked(client))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [sids(sim)] * 8


def _told(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{error} {error!r} {error.args!r}"
        yield from (f"{arg} {getattr(arg, 'args', '')!r}" for arg in error.args)
        error = error.__cause__ or error.__context__
