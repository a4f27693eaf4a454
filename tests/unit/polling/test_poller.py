"""One account, polled again and again, whatever happens on the way."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import (
    BadBody,
    CredentialsRejected,
    InternalError,
    PollError,
    RateLimited,
    Stopped,
    TimedOut,
)
from exophone_exporter.exotel.client import ignore_page
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.snapshot import Change, build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.poller import Poller, PollLogger, poll_once
from tests.lib.support import FakeTime, account, phone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WAIT_SECONDS = 5.0
VOICE_12 = "http://my.exotel.in/acme/exoml/start_voice/12"


def walk(*numbers: ExoPhone) -> Listing:
    return Listing(numbers, pages=1, rejected={})


def lowest(low: float, _high: float) -> float:
    return low


def highest(_low: float, high: float) -> float:
    return high


def middle(low: float, high: float) -> float:
    return (low + high) / 2


class FakeFetcher:
    """Gives one outcome after the other and then Stopped; each takes `seconds`."""

    def __init__(
        self, *outcomes: Listing | BaseException, time: FakeTime | None = None, seconds: float = 0.0
    ) -> None:
        self._outcomes = iter(outcomes)
        self._time = time or FakeTime()
        self._seconds = seconds
        self._inside = threading.Lock()
        self.started: list[ClockReading] = []
        self.previous: list[set[str]] = []

    def fetch_all(
        self,
        previous: Mapping[str, ExoPhone],
        on_page: Callable[[int, int], None] = ignore_page,
    ) -> Listing:
        assert self._inside.acquire(blocking=False), "two polls of one account at once"
        try:
            self.started.append(self._time.clock.now())
            self.previous.append(set(previous))
            self._time.pass_(self._seconds)
            outcome = next(self._outcomes, Stopped())
            if isinstance(outcome, BaseException):
                raise outcome
            on_page(outcome.pages, len(outcome.numbers))
            return outcome
        finally:
            self._inside.release()


class TimedEvent(threading.Event):
    """A wait for it takes no time but the clock's."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self._time = time
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self._time.pass_(timeout)
        return self.is_set()


def poll(state: AccountState, outcome: Listing | BaseException, time: FakeTime) -> PollResult:
    """One poll with this outcome, five minutes after the last."""
    time.pass_(300)
    return poll_once(state, FakeFetcher(outcome, time=time, seconds=2.0), time.clock)


def starts(
    time: FakeTime,
    *outcomes: Listing | BaseException,
    seconds: float = 0.0,
    uniform: Callable[[float, float], float] = middle,
    first_delay_seconds: float = 0.0,
    event: TimedEvent | None = None,
    fetcher: FakeFetcher | None = None,
    **settings: Any,
) -> list[float]:
    """Seconds after which each poll of a poller began, the last one being stopped."""
    began = time.monotonic
    fetcher = fetcher or FakeFetcher(*outcomes, time=time, seconds=seconds)
    Poller(
        AccountState(account(**settings)),
        fetcher,
        clock=time.clock,
        stopping=event or TimedEvent(time),
        on_result=lambda _: None,
        on_death=lambda: pytest.fail("the poller died"),
        first_delay_seconds=first_delay_seconds,
        uniform=uniform,
    ).run()
    return [moment.monotonic - began for moment in fetcher.started]


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and message of each line so far, which are then forgotten."""
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return lines


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="exophone_exporter")


class TestOnePoll:
    def test_success_is_a_snapshot_that_is_recorded(self, time: FakeTime) -> None:
        state = AccountState(account())
        result = poll(state, walk(phone("a")), time)
        assert result.snapshot is not None
        assert [n.sid for n in result.snapshot.numbers] == ["a"]
        assert (result.changes, result.error, result.duration_seconds) == ((), None, 2.0)
        assert result.ended == result.snapshot.completed == time.clock.now()
        assert (state.snapshot, state.status().polls) == (result.snapshot, 1)

    def test_first_poll_has_no_changes_and_the_next_one_compares(self, time: FakeTime) -> None:
        state = AccountState(account())
        poll(state, walk(phone("a"), phone("b")), time)
        result = poll(state, walk(phone("b"), phone("c")), time)
        assert [(c.kind, c.number.sid) for c in result.changes] == [
            ("added", "c"),
            ("removed", "a"),
        ]
        assert state.status().changes["added"] == 1

    def test_numbers_known_so_far_are_handed_to_the_fetcher(self, time: FakeTime) -> None:
        state, fetcher = AccountState(account()), FakeFetcher(walk(phone("a")), walk())
        poll_once(state, fetcher, time.clock)
        poll_once(state, fetcher, time.clock)
        assert fetcher.previous == [set(), {"a"}]

    def test_same_numbers_keep_the_snapshots_sums_and_move_its_time(self, time: FakeTime) -> None:
        state = AccountState(account())
        first = poll(state, walk(phone("a")), time).snapshot
        second = poll(state, walk(phone("a")), time).snapshot
        assert first is not None
        assert second is not None
        assert second.groups is first.groups
        assert second.completed.seconds_since(first.completed) == 302

    @pytest.mark.fault(39)
    def test_error_is_in_the_result_and_the_old_snapshot_stays(self, time: FakeTime) -> None:
        state = AccountState(account())
        good = poll(state, walk(phone("a")), time).snapshot
        error = TimedOut("slow")
        result = poll(state, error, time)
        assert (result.snapshot, result.error, result.duration_seconds) == (None, error, 2.0)
        assert result.ended == time.clock.now()
        assert (state.snapshot, state.error) == (good, error)

    @pytest.mark.parametrize(
        "outcome",
        [pytest.param(walk(), id="success"), pytest.param(TimedOut("slow"), id="failure")],
    )
    @pytest.mark.fault(124)
    def test_clock_set_back_during_a_poll_does_not_change_how_long_it_took(
        self, time: FakeTime, outcome: Listing | PollError
    ) -> None:
        class SetBack(FakeFetcher):
            def fetch_all(self, *args: Any, **named: Any) -> Listing:
                time.wall -= 3600
                return super().fetch_all(*args, **named)

        fetcher = SetBack(outcome, time=time, seconds=2.0)
        result = poll_once(AccountState(account()), fetcher, time.clock)
        assert result.duration_seconds == 2.0

    def test_error_is_kept_without_what_led_to_it(self, time: FakeTime) -> None:
        """Its causes may hold the body of an answer, and it is kept until the next poll."""
        error = TimedOut("slow")
        error.__cause__, error.__context__ = ValueError("body"), ValueError("body")
        assert poll(AccountState(account()), error, time).error is error
        assert not any((error.__cause__, error.__context__, error.__traceback__))

    def test_stop_is_no_failure_and_is_not_recorded(self, time: FakeTime) -> None:
        state = AccountState(account())
        with pytest.raises(Stopped):
            poll(state, Stopped(), time)
        assert (state.attempted, state.status().polls) == (False, 0)

    @pytest.mark.parametrize(
        ("error", "name"),
        [
            pytest.param(ZeroDivisionError("x"), "ZeroDivisionError", id="defect"),
            pytest.param(MemoryError(), "MemoryError", marks=pytest.mark.fault(134), id="memory"),
            pytest.param(RecursionError(), "RecursionError", id="recursion"),
        ],
    )
    @pytest.mark.fault(120)
    def test_what_nobody_foresaw_is_an_internal_failure_with_a_traceback(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture, error: Exception, name: str
    ) -> None:
        state = AccountState(account())
        good = poll(state, walk(phone("a")), time).snapshot
        result = poll(state, error, time)
        assert isinstance(result.error, InternalError)
        assert str(result.error) == name
        assert (state.snapshot, state.status().failures["internal"]) == (good, 1)
        assert "Traceback (most recent call last)" in caplog.text
        assert told(caplog) == [("ERROR", "a defect in the exporter")]

    @pytest.mark.fault(136)
    def test_traceback_of_a_lasting_defect_is_told_once(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Until something else happens in between, or the defect is another one."""
        state = AccountState(account())
        key, value = KeyError("x"), ValueError("y")
        for outcome in (key, key, value, value, walk(), key):
            poll(state, outcome, time)
        assert len(told(caplog)) == 3
        assert state.status().failures["internal"] == 5

    @pytest.mark.fault(120)
    def test_success_that_cannot_be_counted_up_is_an_internal_failure(self, time: FakeTime) -> None:
        state = AccountState(account())
        broken: Any = Listing(numbers=(None,), pages=1, rejected={})  # type: ignore[arg-type]  # a defect
        assert isinstance(poll(state, broken, time).error, InternalError)

    @pytest.mark.fault(134)
    def test_success_that_cannot_be_recorded_is_an_internal_failure(self, time: FakeTime) -> None:
        """As when there is no memory left for one counter more; the poller must not die of it."""

        class Full(AccountState):
            def record_poll(self, result: PollResult) -> None:
                if result.error is None and self.snapshot is not None:
                    raise MemoryError
                super().record_poll(result)

        state = Full(account())
        good = poll(state, walk(phone("a")), time)
        result = poll(state, walk(phone("b")), time)
        assert isinstance(result.error, InternalError)
        status = state.status()
        assert (status.snapshot, status.polls, status.failures["internal"]) == (good.snapshot, 2, 1)


class TestSchedule:
    def test_interval_runs_from_start_to_start(self, time: FakeTime) -> None:
        assert starts(time, walk(), walk(), seconds=100) == [0, 300, 600]

    def test_wait_is_cut_into_slices_so_that_a_resume_is_noticed(self, time: FakeTime) -> None:
        event = TimedEvent(time)
        starts(time, walk(), event=event, interval_seconds=12.0)
        assert event.waited == [5.0, 5.0, 2.0]

    @pytest.mark.fault(126)
    def test_interval_is_jittered_by_five_percent(self, time: FakeTime) -> None:
        assert starts(time, walk(), uniform=lowest)[1] == pytest.approx(285)
        assert starts(time, walk(), uniform=highest)[1] == pytest.approx(315)

    def test_first_poll_comes_after_its_delay(self, time: FakeTime) -> None:
        assert starts(time, first_delay_seconds=7.5) == [7.5]

    @pytest.mark.fault(17)
    def test_poll_longer_than_its_interval_is_followed_at_once_and_never_overlapped(
        self, time: FakeTime
    ) -> None:
        assert starts(time, walk(), walk(), seconds=700) == [0, 700, 1400]

    @pytest.mark.fault(27)
    def test_rejected_credentials_wait_the_whole_interval(self, time: FakeTime) -> None:
        assert starts(time, CredentialsRejected("401"), walk()) == [0, 300, 600]

    @pytest.mark.parametrize(
        ("retry_after_seconds", "next_at"),
        [
            pytest.param(400.0, 410, id="longer-than-the-interval-counts-from-the-answer"),
            pytest.param(30.0, 300, id="shorter-than-the-interval"),
            pytest.param(None, 300, id="not-said"),
        ],
    )
    @pytest.mark.fault(32)
    def test_poll_is_not_repeated_sooner_than_the_api_asks(
        self, time: FakeTime, retry_after_seconds: float | None, next_at: float
    ) -> None:
        limited = RateLimited("429", retry_after_seconds)
        assert starts(time, limited, seconds=10)[1] == next_at

    @pytest.mark.fault(124)
    def test_clock_set_on_during_a_poll_does_not_shorten_what_the_api_asks(
        self, time: FakeTime
    ) -> None:
        """The interval is over by that clock; the answer that asks to wait came later."""

        class SetOn(FakeFetcher):
            def fetch_all(self, *args: Any, **named: Any) -> Listing:
                time.wall += 3600 if not self.started else 0
                return super().fetch_all(*args, **named)

        fetcher = SetOn(RateLimited("429", 100.0), walk(), time=time, seconds=10)
        assert starts(time, fetcher=fetcher) == [0, 110, 410]

    @pytest.mark.fault(124)
    def test_clock_set_back_an_hour_moves_no_poll(self, time: FakeTime) -> None:
        class SetBack(TimedEvent):
            def wait(self, timeout: float | None = None) -> bool:
                time.wall -= 3600 if not self.waited else 0
                return super().wait(timeout)

        assert starts(time, walk(), walk(), event=SetBack(time)) == [0, 300, 600]

    @pytest.mark.parametrize(
        "hours",
        [
            pytest.param(8, marks=pytest.mark.fault(125), id="night-of-suspend"),
            pytest.param(1, marks=pytest.mark.fault(124), id="clock-set-forward"),
        ],
    )
    def test_time_that_only_the_wall_clock_saw_is_followed_by_one_poll_and_not_by_a_burst(
        self, time: FakeTime, hours: int
    ) -> None:
        """The monotonic clock stands still in a suspend; a step forward looks the same."""

        class Suspended(TimedEvent):
            def wait(self, timeout: float | None = None) -> bool:
                time.wall += hours * 3600 if len(self.waited) == 3 else 0
                return super().wait(timeout)

        assert starts(time, walk(), walk(), walk(), event=Suspended(time)) == [0, 20, 320, 620]

    def test_failures_of_every_kind_do_not_end_it(self, time: FakeTime) -> None:
        errors = (TimedOut("slow"), ValueError("x"), MemoryError(), BadBody("html"))
        assert len(starts(time, *errors, walk())) == 6


class Mortal(ExoPhone, frozen=True, kw_only=True, gc=False):
    """A number that tells who held it last, and how many were still held there."""

    def __del__(self) -> None:
        last = sys._getframe(1)  # noqa: SLF001 - what runs when the number goes
        last_holders.append((last.f_code.co_name, len(last.f_locals.get("numbers", ()))))


last_holders: list[tuple[str, int]] = []


class MortalFetcher:
    """Finds the same sids with other names at each of two polls; keeps none."""

    def __init__(self, count: int) -> None:
        self._names, self._count = iter(("before", "after")), count

    def fetch_all(
        self,
        previous: Mapping[str, ExoPhone],  # noqa: ARG002 - it finds what it finds
        on_page: Callable[[int, int], None] = ignore_page,  # noqa: ARG002 - nobody watches
    ) -> Listing:
        name = next(self._names, None)
        if name is None:
            raise Stopped
        found = (phone(f"sid-{index:04}", friendly_name=name) for index in range(self._count))
        return walk(*(Mortal(**msgspec.structs.asdict(number)) for number in found))


@pytest.mark.fault(132)
def test_numbers_that_were_replaced_go_bit_by_bit(time: FakeTime) -> None:
    """A hundred thousand at once would hold the interpreter, and so each scrape meanwhile."""
    state = AccountState(account())
    page = MetricsPage(lambda: [state.status()], lambda: ExporterInfo("test", 0.0), time.clock)
    last_holders.clear()
    Poller(
        state,
        MortalFetcher(1200),
        clock=time.clock,
        stopping=TimedEvent(time),
        on_result=lambda _: page.refresh(),
        on_death=lambda: pytest.fail("the poller died"),
        uniform=middle,
    ).run()
    times = Counter(last_holders)
    assert times == {("_let_go", 700): 500, ("_let_go", 200): 500, ("_let_go", 0): 200}


class TestThread:
    """Real threads and real events."""

    def poller(self, fetcher: FakeFetcher, **changes: Any) -> Poller:
        settings: dict[str, Any] = {
            "clock": Clock(),
            "stopping": threading.Event(),
            "on_result": lambda _: None,
            "on_death": lambda: None,
            "uniform": middle,
        }
        return Poller(AccountState(account()), fetcher, **(settings | changes))

    def test_thread_bears_the_name_of_its_account_and_holds_up_no_exit(self) -> None:
        poller = self.poller(FakeFetcher())
        assert (poller.name, poller.daemon) == ("poller support", True)

    @pytest.mark.fault(118)
    def test_stop_ends_the_wait_for_the_next_poll_at_once(self) -> None:
        stopping, polled = threading.Event(), threading.Event()
        poller = self.poller(
            FakeFetcher(walk()), stopping=stopping, on_result=lambda _: polled.set()
        )
        poller.start()
        assert polled.wait(WAIT_SECONDS)
        stopping.set()
        poller.join(1.0)
        assert not poller.is_alive()

    @pytest.mark.parametrize(
        "first_delay_seconds", [pytest.param(60.0, id="delayed"), pytest.param(0.0, id="at-once")]
    )
    @pytest.mark.fault(118)
    def test_stop_before_the_first_poll_asks_nothing(self, first_delay_seconds: float) -> None:
        stopping, fetcher = threading.Event(), FakeFetcher(walk())
        stopping.set()
        poller = self.poller(fetcher, stopping=stopping, first_delay_seconds=first_delay_seconds)
        poller.start()
        poller.join(1.0)
        assert (poller.is_alive(), fetcher.started) == (False, [])

    def test_stopped_in_the_middle_of_a_poll_it_ends_without_a_death(self) -> None:
        died = threading.Event()
        poller = self.poller(FakeFetcher(Stopped()), on_death=died.set)
        poller.start()
        poller.join(WAIT_SECONDS)
        assert (poller.is_alive(), died.is_set()) == (False, False)

    @pytest.mark.fault(120)
    def test_death_is_reported_and_the_poller_is_no_longer_healthy(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log has the traceback, in its own format; threading prints none beside it."""

        class Fatal(BaseException):
            pass

        died = threading.Event()
        poller = self.poller(FakeFetcher(Fatal("no more")), on_death=died.set)
        poller.start()
        assert died.wait(WAIT_SECONDS)
        poller.join(WAIT_SECONDS)
        assert not poller.healthy()
        assert "Fatal: no more" in caplog.text
        assert told(caplog) == [("ERROR", "a poller died")]

    @pytest.mark.fault(120)
    def test_hung_poll_turns_it_unhealthy_a_minute_past_the_deadline(self, time: FakeTime) -> None:
        asked, leave = threading.Event(), threading.Event()

        class Hanging(FakeFetcher):
            def fetch_all(self, *_: Any, **__: Any) -> Listing:
                asked.set()
                leave.wait(WAIT_SECONDS)
                raise Stopped

        poller = self.poller(Hanging(), clock=time.clock)
        assert not poller.healthy()  # not started yet
        poller.start()
        assert asked.wait(WAIT_SECONDS)
        seen = [poller.healthy()]
        for seconds in (30 + 59, 1):  # the deadline of the account, and a minute
            time.pass_(seconds)
            seen.append(poller.healthy())
        leave.set()
        poller.join(WAIT_SECONDS)
        assert seen == [True, True, False]

    def test_poller_that_waits_is_healthy_all_the_time(self, time: FakeTime) -> None:
        seen: list[bool] = []

        class Watched(TimedEvent):
            def wait(self, timeout: float | None = None) -> bool:
                stop = super().wait(timeout)
                seen.append(poller.healthy())
                return stop

        fetcher = FakeFetcher(walk(), TimedOut("slow"), time=time, seconds=29.0)
        poller = self.poller(fetcher, clock=time.clock, stopping=Watched(time))
        poller.start()
        poller.join(WAIT_SECONDS)
        assert len(seen) > 50
        assert all(seen)


class TestPublishing:
    def test_each_result_is_handed_on_good_or_bad(self, time: FakeTime) -> None:
        results, _ = self.run(time, [walk(phone()), TimedOut("slow")])
        assert [type(result.error) for result in results] == [type(None), TimedOut]

    @pytest.mark.fault(120)
    def test_result_that_cannot_be_published_is_a_failure_and_the_next_poll_comes(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As when the memory for the page is not there; told once, and recovery is told."""
        broken = [MemoryError(), MemoryError(), None]
        results, state = self.run(time, [walk(phone())] * 3, broken)
        assert len(results) == 3
        status = state.status()
        assert (status.polls, status.failures["internal"], status.error) == (3, 2, None)
        assert told(caplog) == [
            ("ERROR", "a defect in the exporter"),
            ("WARNING", "the poll failed"),
            ("INFO", "the poll works again"),
        ]

    @pytest.mark.fault(120)
    def test_defect_that_comes_back_after_a_good_page_is_told_again(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.run(time, [walk(phone())] * 3, [ValueError("x"), None, ValueError("x")])
        assert told(caplog).count(("ERROR", "a defect in the exporter")) == 2

    def test_failure_that_cannot_be_published_is_counted_once(self, time: FakeTime) -> None:
        _, state = self.run(time, [TimedOut("slow")], [ValueError("x")])
        failures = {reason: n for reason, n in state.status().failures.items() if n}
        assert failures == {"timeout": 1}

    def run(
        self,
        time: FakeTime,
        outcomes: list[Any],
        errors: list[Any] | None = None,
    ) -> tuple[list[PollResult], AccountState]:
        """Poll with these outcomes; handing on the n-th result raises the n-th error."""
        results: list[PollResult] = []
        raised = iter(errors or [])

        def publish(result: PollResult) -> None:
            results.append(result)
            error = next(raised, None)
            if error is not None:
                raise error

        state = AccountState(account())
        Poller(
            state,
            FakeFetcher(*outcomes, time=time),
            clock=time.clock,
            stopping=TimedEvent(time),
            on_result=publish,
            on_death=lambda: pytest.fail("the poller died"),
            uniform=middle,
        ).run()
        return results, state


class TestTelling:
    def success(self, time: FakeTime, *numbers: ExoPhone, **changes: Any) -> PollResult:
        now = time.clock.now()
        return PollResult(now, 2.0, build(walk(*numbers), now, 2.0), **changes)

    def failure(self, time: FakeTime, error: PollError) -> PollResult:
        return PollResult(time.clock.now(), 2.0, error=error)

    def test_first_success_is_told_and_the_next_ones_are_not(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        poll_logger = PollLogger(account())
        for _ in range(3):
            poll_logger.log(self.success(time, phone()))
        assert [vars(record)["fields"] for record in caplog.records] == [
            {"account": "support", "numbers": 1, "pages": 1, "duration_seconds": 2.0}
        ]
        assert told(caplog) == [("INFO", "the first poll is complete")]

    @pytest.mark.fault(136)
    def test_failure_of_two_days_is_a_line_an_hour_and_every_poll_is_counted(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        state, polls = AccountState(account()), 48 * 12
        Poller(
            state,
            FakeFetcher(*[TimedOut("slow")] * polls, walk(), time=time),
            clock=time.clock,
            stopping=TimedEvent(time),
            on_result=lambda _: None,
            on_death=lambda: pytest.fail("the poller died"),
            uniform=middle,
        ).run()
        assert state.status().failures["timeout"] == polls
        assert told(caplog) == [
            ("WARNING", "the poll failed"),
            *[("WARNING", "the poll still fails")] * 47,
            ("INFO", "the poll works again"),
        ]

    @pytest.mark.fault(136)
    def test_same_failure_is_told_once_an_hour_and_recovery_is_told(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        poll_logger = PollLogger(account())
        for _ in range(25):  # two hours
            poll_logger.log(self.failure(time, TimedOut("slow")))
            time.pass_(300)
        assert told(caplog) == [
            ("WARNING", "the poll failed"),
            ("WARNING", "the poll still fails"),
            ("WARNING", "the poll still fails"),
        ]
        poll_logger.log(self.success(time, phone()))
        assert told(caplog) == [("INFO", "the poll works again")]
        poll_logger.log(self.failure(time, TimedOut("slow")))
        assert told(caplog) == [("WARNING", "the poll failed")]

    @pytest.mark.fault(136)
    def test_reminder_comes_after_the_whole_hour_and_no_sooner(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        poll_logger = PollLogger(account())
        lines = []
        for seconds in (0, 3599, 1):
            time.pass_(seconds)
            poll_logger.log(self.failure(time, TimedOut("slow")))
            lines.append(len(told(caplog)))
        assert lines == [1, 0, 1]

    @pytest.mark.fault(136)
    def test_failure_for_another_reason_is_told_at_once(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        poll_logger = PollLogger(account())
        poll_logger.log(self.failure(time, TimedOut("slow")))
        poll_logger.log(self.failure(time, BadBody("html")))
        records = [vars(record)["fields"] for record in caplog.records]
        assert records == [
            {"account": "support", "reason": "timeout", "error": "slow"},
            {"account": "support", "reason": "bad_body", "error": "html"},
        ]

    @pytest.mark.fault(81)
    def test_numbers_that_all_vanish_are_published_with_one_warning(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        state, poll_logger = AccountState(account()), PollLogger(account())
        poll_logger.log(poll(state, walk(*[phone(f"s{i}") for i in range(5000)]), time))
        gone = poll(state, walk(), time)
        assert gone.snapshot is not None
        assert (gone.snapshot.numbers, state.status().changes["removed"]) == ((), 5000)
        caplog.clear()
        poll_logger.log(gone)
        poll_logger.log(poll(state, walk(), time))
        lines = told(caplog)
        assert lines[0] == ("WARNING", "the account had numbers and has none now")
        assert lines[1:] == [("INFO", "a number changed")] * 5000

    @pytest.mark.fault(80)
    def test_account_that_never_had_numbers_is_no_warning(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        PollLogger(account()).log(self.success(time))
        assert told(caplog) == [("INFO", "the first poll is complete")]

    @pytest.mark.fault(78)
    def test_poll_longer_than_its_interval_is_a_warning(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        PollLogger(account(interval_seconds=1.0)).log(self.success(time))
        assert ("WARNING", "the poll takes longer than its interval") in told(caplog)

    def test_poll_as_long_as_its_interval_is_no_warning(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        PollLogger(account(interval_seconds=2.0)).log(self.success(time))
        assert told(caplog) == [("INFO", "the first poll is complete")]

    def test_each_change_is_one_line_that_names_the_number(
        self, time: FakeTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        state, poll_logger = AccountState(account()), PollLogger(account())
        poll(state, walk(phone("a")), time)
        after = phone("a", voice_url=VOICE_12, rental_price=Decimal("999.000000"))
        poll_logger.log(poll(state, walk(after), time))
        lines = [vars(record)["fields"] for record in caplog.records[1:]]
        about = {
            "account": "support",
            "sid": "a",
            "phone_number": "+912248901111",
            "friendly_name": "Support Mumbai",
        }
        assert lines == [
            about | {"change": "voice_moved", "before": "11", "after": "12"},
            about | {"change": "rental_changed", "before": "499.000000", "after": "999.000000"},
        ]

    @pytest.mark.fault(132)
    @pytest.mark.parametrize(
        ("level", "lines", "pauses"),
        [pytest.param("INFO", 45, 2, id="info"), pytest.param("WARNING", 0, 0, id="warning")],
    )
    def test_many_changes_are_told_with_pauses_in_which_scrapes_are_answered(
        self,
        time: FakeTime,
        caplog: pytest.LogCaptureFixture,
        level: str,
        lines: int,
        pauses: int,
    ) -> None:
        """Lines without a pause keep every scrape waiting until all are written."""
        caplog.set_level(level, logger="exophone_exporter")
        slept: list[float] = []
        changes = tuple(Change("added", phone(f"sid-{index}")) for index in range(45))
        PollLogger(account(), sleep=slept.append).log(self.success(time, changes=changes))
        assert told(caplog).count(("INFO", "a number changed")) == lines
        assert slept == [0.001] * pauses

    @pytest.mark.parametrize(
        ("setting", "phone_number"),
        [
            pytest.param("last4", "…1111", id="last4"),
            pytest.param("hidden", "", id="hidden"),
        ],
    )
    @pytest.mark.fault(92)
    def test_change_shows_no_more_of_the_number_than_it_may(
        self,
        time: FakeTime,
        caplog: pytest.LogCaptureFixture,
        setting: Any,
        phone_number: str,
    ) -> None:
        poll_logger = PollLogger(account(per_number=PerNumber("all", 100, setting)))
        named = phone("02248901111", friendly_name="02248901111")
        change = Change("voice_moved", named, before="11", after="external")
        poll_logger.log(self.success(time, named, changes=(change,)))
        line = vars(caplog.records[-1])["fields"]
        assert (line["phone_number"], line["friendly_name"]) == (phone_number, phone_number)
        assert (line["change"], line["before"], line["after"]) == ("voice_moved", "11", "external")
        assert "2248" not in str(line)
