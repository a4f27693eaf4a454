"""One thread per account: wait, fetch, put. It never dies of what the API does."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from exophone_exporter.errors import InternalError, PollError, RateLimited, Stopped
from exophone_exporter.exotel.client import ignore_page
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import build, diff
from exophone_exporter.inventory.state import PollResult
from exophone_exporter.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exophone_exporter.clock import Clock, ClockReading
    from exophone_exporter.config.settings import Account
    from exophone_exporter.exotel.listing import Listing
    from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.snapshot import Change, Snapshot

_JITTER: Final = 0.05
_REMIND_AFTER_SECONDS: Final = 3600.0
# So long beyond the deadline of a poll, or the end of a wait, a thread counts as hung.
_HUNG_AFTER_SECONDS: Final = 60.0
_LET_GO_AT_ONCE: Final = 500
_LINES_AT_ONCE: Final = 20
_PAUSE_SECONDS: Final = 0.001

_log = logging.getLogger(__name__)


class Ledger(Protocol):
    """Where the results of one account go; `store.AccountState` is one.

    Recording may raise Stopped: whoever polled meanwhile is no longer wanted.
    """

    @property
    def account(self) -> Account:
        """The account, with the settings by which it is polled."""
        ...

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good snapshot, however old."""
        ...

    @property
    def error(self) -> PollError | None:
        """Why the last attempt failed; None after a success."""
        ...

    def record_poll(self, result: PollResult) -> None:
        """Take the result of one attempt."""
        ...

    def record_defect(self, error: PollError) -> None:
        """Note that what an attempt found could not be published."""
        ...


class Fetcher(Protocol):
    """Where the numbers come from; `client.Client` is one."""

    def fetch_all(
        self,
        previous: Mapping[str, ExoPhone],
        on_page: Callable[[int, int], None] = ignore_page,
    ) -> Listing:
        """Every number of the account, or PollError, or Stopped."""
        ...


def poll_once(
    state: Ledger,
    fetcher: Fetcher,
    clock: Clock,
    on_page: Callable[[int, int], None] = ignore_page,
) -> PollResult:
    """One attempt, recorded in `state`; whatever goes wrong is in the result. May raise Stopped.

    A success that cannot be recorded is a failure too, and recorded as one.
    """
    started = clock.now()
    try:
        success = _attempt(state.snapshot, fetcher, started, clock, on_page)
        state.record_poll(success)
    except PollError as error:
        result = _failure(error, started, clock)
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - a defect must not end the thread, and the truth
        result = _failure(_defect(state, error), started, clock)
    else:
        return success
    state.record_poll(result)
    return result


def _attempt(
    old: Snapshot | None,
    fetcher: Fetcher,
    started: ClockReading,
    clock: Clock,
    on_page: Callable[[int, int], None],
) -> PollResult:
    previous = {number.sid: number for number in old.numbers} if old else {}
    walk = fetcher.fetch_all(previous, on_page)
    ended = clock.now()
    return _success(old, walk, ended, ended.monotonic - started.monotonic)


def _defect(state: Ledger, error: Exception) -> InternalError:
    """The error that a defect of ours is, with its traceback in the log, once while it lasts."""
    defect = InternalError(type(error).__name__)
    if str(state.error) != str(defect):
        _log_defect(state, error)
    return defect


def _log_defect(state: Ledger, error: Exception) -> None:
    _log.error("a defect in the exporter", extra=fields(account=state.account.name), exc_info=error)


def _success(
    old: Snapshot | None, walk: Listing, ended: ClockReading, duration_seconds: float
) -> PollResult:
    if old is not None and old.is_found_by(walk):
        snapshot = old.seen_again(walk, ended, duration_seconds)
        return PollResult(ended, duration_seconds, snapshot)
    snapshot = build(walk, ended, duration_seconds)
    return PollResult(ended, duration_seconds, snapshot, diff(old, snapshot) if old else ())


def _failure(error: PollError, started: ClockReading, clock: Clock) -> PollResult:
    ended = clock.now()
    # What is kept until the next poll is the reason; its causes may hold the body of an answer.
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return PollResult(ended, ended.monotonic - started.monotonic, error=error)


def _asked_wait_seconds(result: PollResult) -> float:
    """How long after its end the API asked to wait; a clock set during the poll says nothing."""
    error = result.error
    return (error.retry_after_seconds or 0.0) if isinstance(error, RateLimited) else 0.0


class PollLogger:
    """Logs the results of one account: each change, each new failure, and a reminder per hour.

    `known` is what an earlier poller of the account found, where there was one.
    """

    def __init__(
        self,
        account: Account,
        known: Snapshot | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._account = account
        self._sleep = sleep
        self._told: tuple[str, ClockReading] | None = None
        self._size = None if known is None else len(known.numbers)
        self._news: str | None = (
            "the first poll is complete"
            if known is None
            else "the first poll by the new configuration is complete"
        )
        self._slow = False

    def log(self, result: PollResult) -> None:
        """Log one result."""
        if result.error is not None:
            self._tell_failure(result.error, result)
        if result.snapshot is not None:
            self._tell_success(result.snapshot, result)

    def _tell_failure(self, error: PollError, result: PollResult) -> None:
        reason, told = self._told or ("", result.ended)
        again = reason == error.reason
        if again and result.ended.seconds_since(told) < _REMIND_AFTER_SECONDS:
            return
        self._told = (error.reason, result.ended)
        _log.warning(
            "the poll still fails" if again else "the poll failed",
            extra=fields(account=self._account.name, reason=error.reason, error=str(error)),
        )

    def _tell_success(self, snapshot: Snapshot, result: PollResult) -> None:
        about = fields(
            account=self._account.name,
            numbers=len(snapshot.numbers),
            pages=snapshot.listing.pages,
            duration_seconds=result.duration_seconds,
        )
        if self._told is not None:
            _log.info("the poll works again", extra=about)
        elif self._news is not None:
            _log.info(self._news, extra=about)
        self._told = self._news = None
        self._warn_of_extremes(snapshot, about)
        self._size = len(snapshot.numbers)
        if _log.isEnabledFor(logging.INFO):
            self._tell_changes(result.changes)

    def _warn_of_extremes(self, snapshot: Snapshot, about: dict[str, dict[str, object]]) -> None:
        if self._size and not snapshot.numbers:
            _log.warning("the account had numbers and has none now", extra=about)
        slow = snapshot.duration_seconds > self._account.poll.interval_seconds
        if slow and not self._slow:
            _log.warning("the poll takes longer than its interval", extra=about)
        self._slow = slow

    def _tell_changes(self, changes: Sequence[Change]) -> None:
        """A line for each, and a pause after some of them: there may be as many as numbers.

        To write a line gives the interpreter up, but too briefly for a scrape that waits for it.
        """
        for count, change in enumerate(changes, start=1):
            self._tell_change(change)
            if count % _LINES_AT_ONCE == 0:
                self._sleep(_PAUSE_SECONDS)

    def _tell_change(self, change: Change) -> None:
        names = masked_identity(change.number, self._account.per_number.phone_number)
        _log.info(
            "a number changed",
            extra=fields(
                account=self._account.name,
                change=change.kind,
                sid=names.sid,
                phone_number=names.phone_number,
                friendly_name=names.friendly_name,
                before=change.before,
                after=change.after,
            ),
        )


def _let_go(numbers: list[ExoPhone]) -> None:
    """Give up many numbers bit by bit; to free all at once holds the interpreter, and scrapes.

    The list has the last references to those which the poll has replaced.
    """
    while numbers:
        del numbers[-_LET_GO_AT_ONCE:]


class Poller(threading.Thread):
    """Polls one account until it is told to stop; `on_result` hears of each result.

    With `begin`, nothing happens before that is set. Told to stop in the middle of a walk, it asks
    for no further page. The interval runs from start to start, jittered by 5 % so that accounts do
    not align; polls of an account never overlap, and one that the API asked to wait is not followed
    sooner.
    """

    def __init__(  # noqa: PLR0913 - each is a seam, and keyword-only
        self,
        state: Ledger,
        fetcher: Fetcher,
        *,
        clock: Clock,
        stopping: threading.Event,
        on_result: Callable[[PollResult], None],
        on_death: Callable[[], None],
        begin: threading.Event | None = None,
        first_delay_seconds: float = 0.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(name=f"poller {state.account.name}", daemon=True)
        self._state = state
        self._fetcher = fetcher
        self._clock = clock
        self._stopping = stopping
        self._on_result = on_result
        self._on_death = on_death
        self._begin = begin
        self._first_delay_seconds = first_delay_seconds
        self._uniform = uniform
        self._poll_logger = PollLogger(state.account, state.snapshot)
        self._publishes = True
        self._hung_at = clock.monotonic() + first_delay_seconds + _HUNG_AFTER_SECONDS

    def run(self) -> None:
        """Poll until stopped. A death that nothing below foresaw is reported, never silent."""
        try:
            self._poll_until_stopped()
        except Stopped:
            return
        except BaseException:  # noqa: BLE001 - the last place that can tell of it
            # Not raised on: threading would print it past the log's format and redaction.
            _log.exception("a poller died", extra=fields(account=self._state.account.name))
            self._on_death()

    def healthy(self) -> bool:
        """Whether the thread lives and is where it ought to be."""
        return self.is_alive() and self._clock.monotonic() < self._hung_at

    def _poll_until_stopped(self) -> None:
        if self._begin is not None:
            self._clock.wait(self._begin, None)
        self._wait(self._first_delay_seconds, self._clock.now())
        while True:
            started = self._clock.now()
            deadline_seconds = self._state.account.poll.deadline_seconds
            self._hung_at = started.monotonic + deadline_seconds + _HUNG_AFTER_SECONDS
            former = [*self._state.snapshot.numbers] if self._state.snapshot else []
            result = poll_once(self._state, self._fetcher, self._clock)
            self._poll_logger.log(self._published(result))
            _let_go(former)
            self._wait(self._pause_seconds(), started)
            self._wait(_asked_wait_seconds(result), result.ended)

    def _published(self, result: PollResult) -> PollResult:
        """The result, handed on; one that cannot be is a failure, and the next poll tries again."""
        try:
            self._on_result(result)
        except Exception as error:  # noqa: BLE001 - a defect must not end the thread
            if result.error is not None:
                return result
            defect = InternalError(type(error).__name__)
            self._state.record_defect(defect)
            if self._publishes:
                _log_defect(self._state, error)
            self._publishes = False
            return PollResult(result.ended, result.duration_seconds, error=defect)
        self._publishes = True
        return result

    def _pause_seconds(self) -> float:
        """Seconds from the start of one poll to that of the next."""
        interval = self._state.account.poll.interval_seconds
        return interval * self._uniform(1 - _JITTER, 1 + _JITTER)

    def _wait(self, seconds: float, since: ClockReading) -> None:
        """Wait until so many seconds after `since`, or raise Stopped."""
        self._hung_at = self._clock.monotonic() + seconds + _HUNG_AFTER_SECONDS
        if self._clock.wait_since(since, seconds, self._stopping):
            raise Stopped
