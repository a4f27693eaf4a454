"""One account, polled again and again, whatever happens on the way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from exophone_exporter.clock import Clock
from exophone_exporter.errors import (
    BadBody,
    CredentialsRejected,
    InternalError,
    ListShifted,
    PollError,
    RateLimited,
    Stopped,
    TimedOut,
)
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.polling.poller import Poller, poll_once, poll_task
from tests.lib.support import FakeTime, TimedEvent, account, log_lines, phone

WAIT_SECONDS = 5.0


def listing(*numbers: ExoPhone) -> Listing:
    return Listing(numbers, pages=1, rejected={})


def middle(low: float, high: float) -> float:
    return (low + high) / 2


class FakeApi:
    """Gives one outcome after the other and then Stopped; each takes `seconds`.

    `before` is called at the start of each.
    """

    def __init__(
        self,
        time: FakeTime,
        *outcomes: Listing | BaseException,
        seconds: float = 0.0,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self._time = time
        self._outcomes = iter(outcomes)
        self._seconds = seconds
        self._before = before
        self._inside = threading.Lock()
        self.limiter = RateLimiter(1, lambda: time.monotonic)
        self.started: list[float] = []
        self.previous: list[set[str]] = []
        self.missed: list[dict[str, int]] = []

    def fetch(self, previous: Mapping[str, ExoPhone], missed: Mapping[str, int]) -> Listing:
        assert self._inside.acquire(blocking=False), "two polls of one account in parallel"
        try:
            self._before()
            self.started.append(self._time.monotonic)
            self.previous.append(set(previous))
            self.missed.append(dict(missed))
            self._time.pass_(self._seconds)
            outcome = next(self._outcomes, Stopped())
            if isinstance(outcome, RateLimited):
                self.limiter.hold_off(outcome.retry_after_seconds or 0.0)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        finally:
            self._inside.release()


def poller(time: FakeTime, api: FakeApi, state: AccountState, **changes: Any) -> Poller:
    settings: dict[str, Any] = {
        "clock": time.clock,
        "stopping": TimedEvent(time),
        "on_death": lambda: pytest.fail("the poller died"),
        "hold_off_seconds": api.limiter.hold_off_seconds,
        "uniform": middle,
    }
    publish = changes.pop("publish", state.record_poll)
    task = poll_task(state.account, state, api.fetch, time.clock, publish)
    return Poller(state.account, task, **(settings | changes))


def starts(
    time: FakeTime, *outcomes: Listing | BaseException, seconds: float = 0.0, **changes: Any
) -> list[float]:
    """Seconds after which each poll began; the last one is stopped."""
    began, api = time.monotonic, FakeApi(time, *outcomes, seconds=seconds)
    watched = account(interval_seconds=changes.pop("interval_seconds", 300.0))
    poller(time, api, AccountState(watched), **changes).run()
    return [started - began for started in api.started]


def poll(state: AccountState, outcome: Listing | BaseException, time: FakeTime) -> PollResult:
    """One poll with this outcome, five minutes after the last."""
    time.pass_(300)
    return poll_once(state, FakeApi(time, outcome, seconds=2.0).fetch, time.clock)


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="exophone_exporter")


@pytest.fixture
def state() -> AccountState:
    return AccountState(account())


class TestOnePoll:
    def test_success_is_recorded_and_compared_with_the_numbers_so_far(
        self, time: FakeTime, state: AccountState
    ) -> None:
        outcomes = (listing(phone("a"), phone("b")), listing(phone("b"), phone("c")))
        api = FakeApi(time, *outcomes, seconds=2.0)
        first, second = (poll_once(state, api.fetch, time.clock) for _ in range(2))
        assert api.previous == [set(), {"a", "b"}]
        assert (first.changes, first.error, first.duration_seconds) == ((), None, 2.0)
        changes = [(change.kind, change.number.sid) for change in second.changes]
        assert changes == [("added", "c"), ("removed", "a")]
        assert second.snapshot is not None
        assert [n.sid for n in second.snapshot.numbers] == ["b", "c"]
        assert second.ended == second.snapshot.completed == time.clock.now()
        status = state.status()
        assert (state.snapshot, status.polls) == (second.snapshot, 2)
        assert status.changes["added"] == 1

    @pytest.mark.parametrize(
        ("again", "same"), [("ab", True), ("ba", False), ("a", False), ("abc", False), ("", False)]
    )
    def test_equal_numbers_keep_the_sums_and_move_the_time(
        self, time: FakeTime, state: AccountState, again: str, same: bool
    ) -> None:
        first = poll(state, listing(phone("a"), phone("b")), time).snapshot
        second = poll(state, listing(*map(phone, again)), time).snapshot
        assert first is not None
        assert second is not None
        assert (second.groups is first.groups) is same
        assert second.completed.seconds_since(first.completed) == 302

    @pytest.mark.fault(39)
    def test_failure_keeps_the_old_snapshot_and_drops_the_causes_of_the_error(
        self, time: FakeTime, state: AccountState
    ) -> None:
        """The error is kept until the next poll, and its causes may hold the body of an answer."""
        good = poll(state, listing(phone("a")), time).snapshot
        error = TimedOut("slow")
        error.__cause__, error.__context__ = ValueError("body"), ValueError("body")
        result = poll(state, error, time)
        assert (result.snapshot, result.error, result.duration_seconds) == (None, error, 2.0)
        assert result.ended == time.clock.now()
        assert (state.snapshot, state.status().error) == (good, error)
        assert not any((error.__cause__, error.__context__, error.__traceback__))

    @pytest.mark.parametrize("outcome", [listing(), TimedOut("slow")], ids=["success", "failure"])
    @pytest.mark.fault(124)
    def test_clock_set_back_during_a_poll_does_not_change_how_long_it_took(
        self, time: FakeTime, state: AccountState, outcome: Listing | PollError
    ) -> None:
        def set_back() -> None:
            time.wall -= 3600

        api = FakeApi(time, outcome, seconds=2.0, before=set_back)
        assert poll_once(state, api.fetch, time.clock).duration_seconds == 2.0

    @pytest.mark.parametrize(
        ("outcome", "name"),
        [
            (ZeroDivisionError("x"), "ZeroDivisionError"),
            (MemoryError(), "MemoryError"),
            (RecursionError(), "RecursionError"),
            (Listing((None,), 1, {}), "AttributeError"),  # type: ignore[arg-type]  # a defect
        ],
    )
    @pytest.mark.fault(120, 134)
    def test_unforeseen_error_is_an_internal_failure_with_a_traceback(
        self,
        time: FakeTime,
        state: AccountState,
        caplog: pytest.LogCaptureFixture,
        outcome: Listing | Exception,
        name: str,
    ) -> None:
        good = poll(state, listing(phone("a")), time).snapshot
        result = poll(state, outcome, time)
        assert isinstance(result.error, InternalError)
        assert str(result.error) == name
        assert (state.snapshot, state.status().failures["internal"]) == (good, 1)
        assert "Traceback (most recent call last)" in caplog.text
        assert log_lines(caplog) == [("ERROR", "a defect in the exporter")]

    @pytest.mark.fault(136)
    def test_traceback_of_a_lasting_defect_is_logged_once(
        self, time: FakeTime, state: AccountState, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of each kind, until a success: also where they alternate with others."""
        key, value = KeyError("x"), ValueError("y")
        for outcome in (key, key, value, TimedOut("slow"), key, value, listing(), key):
            poll(state, outcome, time)
        assert len(log_lines(caplog)) == 3
        assert state.status().failures["internal"] == 6

    @pytest.mark.parametrize(
        "outcome", [listing(phone("b")), TimedOut("slow")], ids=["success", "failure"]
    )
    @pytest.mark.fault(134)
    def test_result_that_cannot_be_published_is_an_internal_failure(
        self,
        time: FakeTime,
        state: AccountState,
        caplog: pytest.LogCaptureFixture,
        outcome: Listing | PollError,
    ) -> None:
        """As when no memory is left for its page; the poller must not die of it."""

        def publish(result: PollResult) -> None:
            if result.error in (None, outcome):
                raise MemoryError
            state.record_poll(result)

        good = poll(state, listing(phone("a")), time).snapshot
        result = poll_once(state, FakeApi(time, outcome).fetch, time.clock, publish=publish)
        assert isinstance(result.error, InternalError)
        status = state.status()
        assert (status.snapshot, status.error, status.polls) == (good, result.error, 2)
        assert status.failures["internal"] == 1
        assert log_lines(caplog) == [("ERROR", "a defect in the exporter")]

    @pytest.mark.parametrize("outcome", [Stopped(), TimedOut("slow")], ids=["fetch", "publish"])
    def test_stop_is_not_recorded(
        self, time: FakeTime, state: AccountState, outcome: PollError | Stopped
    ) -> None:
        """Neither of a walk nor while a failure is published."""

        def publish(_: PollResult) -> None:
            raise Stopped

        with pytest.raises(Stopped):
            poll_once(state, FakeApi(time, outcome).fetch, time.clock, publish=publish)
        assert (state.status().last_attempt, state.status().polls) == (None, 0)

    @pytest.mark.fault(139)
    def test_next_poll_knows_how_many_walks_missed_a_number(
        self, time: FakeTime, state: AccountState
    ) -> None:
        """Through a walk that failed as the list had shifted, and polls that were no walk."""
        kept = Listing((phone("a"),), 1, {}, {"a": 1})
        outcomes = (kept, TimedOut("slow"), ListShifted(25, {"a": 2, "b": 1}), listing(), listing())
        api = FakeApi(time, *outcomes)
        unconfirmed = []
        for _ in outcomes:
            poll_once(state, api.fetch, time.clock)
            unconfirmed.append(len(state.status().missed))
        assert api.missed == [{}, {"a": 1}, {"a": 1}, {"a": 2, "b": 1}, {}]
        assert unconfirmed == [1, 1, 2, 0, 0]


# The outcomes of the first polls, what differs from the defaults, and when each poll begins.
SCHEDULES: Mapping[str, tuple[list[Listing | BaseException], dict[str, Any], list[float]]] = {
    "from-start-to-start": ([listing(), listing()], {"seconds": 100}, [0, 300, 600]),
    "automatic-by-the-pages-of-the-last-list": (
        [TimedOut("x"), replace(listing(), pages=11), BadBody("x"), replace(listing(), pages=70)],
        {"interval_seconds": None},
        [0, 60, 180, 300, 600],
    ),
    "least-jitter": ([listing()], {"uniform": min}, [0, 285]),
    "most-jitter": ([listing()], {"uniform": max}, [0, 315]),
    "first-delay": ([], {"first_delay_seconds": 7.5}, [7.5]),
    "longer-than-the-interval": ([listing(), listing()], {"seconds": 700}, [0, 700, 1400]),
    "rejected-credentials": ([CredentialsRejected("401"), listing()], {}, [0, 300, 600]),
    "long-retry-after-counts-from-the-answer": (
        [RateLimited("429", 400.0)],
        {"seconds": 10},
        [0, 410],
    ),
    "short-retry-after": ([RateLimited("429", 30.0)], {"seconds": 10}, [0, 300]),
    "no-retry-after": ([RateLimited("429", None)], {"seconds": 10}, [0, 300]),
    "failures": (
        [TimedOut("slow"), ValueError("x"), MemoryError(), BadBody("html"), listing()],
        {},
        [0, 300, 600, 900, 1200, 1500],
    ),
}


class TestSchedule:
    def test_wait_is_cut_into_slices_so_that_a_resume_is_noticed(self, time: FakeTime) -> None:
        event = TimedEvent(time)
        starts(time, listing(), stopping=event, uniform=lambda *_: 0.04)
        assert event.waited == [5.0, 5.0, 2.0]

    @pytest.mark.parametrize(
        ("outcomes", "changes", "polls_at"), SCHEDULES.values(), ids=SCHEDULES.keys()
    )
    @pytest.mark.fault(17, 27, 32, 126)
    def test_each_poll_begins_when_it_is_due(
        self,
        time: FakeTime,
        outcomes: list[Listing | BaseException],
        changes: dict[str, Any],
        polls_at: list[float],
    ) -> None:
        """No two polls of one account run in parallel."""
        assert starts(time, *outcomes, **changes) == pytest.approx(polls_at)

    @pytest.mark.parametrize(
        ("set_seconds", "suspended_seconds", "polls_at"),
        [
            pytest.param(-3600, 0, [0, 300, 600, 900], id="clock-set-back"),
            pytest.param(3600, 0, [0, 300, 600, 900], id="clock-set-forward"),
            pytest.param(0, 28800, [0, 28820, 29120, 29420], id="suspend"),
        ],
    )
    @pytest.mark.fault(124, 125)
    def test_only_a_suspend_makes_the_next_poll_due_and_causes_no_burst(
        self,
        time: FakeTime,
        set_seconds: float,
        suspended_seconds: float,
        polls_at: list[float],
    ) -> None:
        def step(waits: int) -> None:
            if waits == 3:
                time.wall += set_seconds
                time.suspend(suspended_seconds)

        event = TimedEvent(time, step)
        assert starts(time, listing(), listing(), listing(), stopping=event) == polls_at

    @pytest.mark.fault(125)
    def test_a_thread_that_was_suspended_does_not_hang(self, time: FakeTime) -> None:
        """Neither the liveness probe nor the watchdog may end the process after a night."""
        healthy: list[bool] = []

        def sleep_and_wake(_waits: int) -> None:
            time.suspend(28800)
            healthy.append(watched.healthy())

        event = TimedEvent(time, sleep_and_wake)
        watched = poller(time, FakeApi(time, listing()), AccountState(account()), stopping=event)
        watched.start()
        watched.join(WAIT_SECONDS)
        assert healthy == [True]


class TestThread:
    """Real threads and real events."""

    def start(self, time: FakeTime, api: FakeApi, **changes: Any) -> Poller:
        started = poller(time, api, AccountState(account()), **({"clock": Clock()} | changes))
        started.start()
        return started

    @pytest.mark.fault(118)
    def test_stop_ends_the_wait_for_the_next_poll_immediately(self, time: FakeTime) -> None:
        stopping, polled = threading.Event(), threading.Event()
        thread = self.start(
            time, FakeApi(time, listing()), stopping=stopping, publish=lambda _: polled.set()
        )
        assert (thread.name, thread.daemon) == ("poller support", True)
        assert polled.wait(WAIT_SECONDS)
        stopping.set()
        thread.join(1.0)
        assert not thread.is_alive()

    @pytest.mark.parametrize("delay", [60.0, 0.0], ids=["delayed", "immediate"])
    @pytest.mark.fault(118)
    def test_stop_before_the_first_poll_asks_nothing(self, time: FakeTime, delay: float) -> None:
        stopping, api = threading.Event(), FakeApi(time, listing())
        stopping.set()
        thread = self.start(time, api, stopping=stopping, first_delay_seconds=delay)
        thread.join(1.0)
        assert (thread.is_alive(), api.started) == (False, [])

    @pytest.mark.fault(120)
    def test_death_is_reported_and_the_poller_is_no_longer_healthy(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log has the traceback, in its own format; threading prints none."""

        class Fatal(BaseException):
            pass

        died = threading.Event()
        thread = self.start(time, FakeApi(time, Fatal("no more")), on_death=died.set)
        assert died.wait(WAIT_SECONDS)
        thread.join(WAIT_SECONDS)
        assert not thread.healthy()
        assert "Fatal: no more" in caplog.text
        assert log_lines(caplog) == [("ERROR", "a poller died")]

    @pytest.mark.fault(120)
    def test_hung_poll_is_unhealthy_a_minute_past_the_deadline(self, time: FakeTime) -> None:
        asked, leave = threading.Event(), threading.Event()

        def hang() -> None:
            asked.set()
            leave.wait(WAIT_SECONDS)

        api = FakeApi(time, before=hang)
        assert not poller(time, api, AccountState(account())).healthy()  # not started
        thread = self.start(time, api, clock=time.clock)
        assert asked.wait(WAIT_SECONDS)
        seen = [thread.healthy()]
        for seconds in (30 + 59, 1):  # the deadline of the account, and a minute
            time.pass_(seconds)
            seen.append(thread.healthy())
        leave.set()
        thread.join(WAIT_SECONDS)
        assert seen == [True, True, False]

    def test_poller_that_waits_is_healthy_all_the_time(self, time: FakeTime) -> None:
        seen: Counter[bool] = Counter()
        api = FakeApi(time, listing(), TimedOut("slow"), seconds=29.0)
        event = TimedEvent(time, lambda _: seen.update([thread.healthy()]))
        thread = poller(time, api, AccountState(account()), stopping=event)
        thread.start()
        thread.join(WAIT_SECONDS)
        assert seen[True] > 50
        assert not seen[False]
