"""The threads of an account: wait, ask, publish. No answer of the API ends one."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Final, TypeAlias, TypeVar

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.config.settings import INTERVAL_JITTER, Account
from exophone_exporter.errors import Forbidden, InternalError, NotFound, PollError, Stopped
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.changes import diff
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, BalanceResult, PollResult
from exophone_exporter.logs import fields
from exophone_exporter.polling.poll_log import FailureLog, PollLogger

# `Client.fetch_all`: every number of the account, or PollError, or Stopped.
Fetch: TypeAlias = Callable[[Mapping[str, ExoPhone], Mapping[str, int]], Listing]
# Asks the API once, within the deadline of a poll; returns the seconds from the start of this run
# to that of the next. May raise Stopped.
Task: TypeAlias = Callable[[], float]

# This long after the deadline of a poll, or the end of a wait, a thread counts as hung.
_HUNG_AFTER_SECONDS: Final = 60.0

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def poll_once(
    state: AccountState,
    fetch: Fetch,
    clock: Clock,
    publish: Callable[[PollResult], None] | None = None,
) -> PollResult:
    """One attempt, published; the result holds whatever went wrong. May raise Stopped.

    `publish` records the result, by default in `state`. If it refuses a success, the attempt is an
    internal failure, which is published instead.
    """
    started, record = clock.now(), publish or state.record_poll

    def publish_success() -> PollResult:
        success = _attempt(state, fetch, started, clock)
        record(success)
        return success

    success = _result_or_error(publish_success, state.account, state.defects)
    if isinstance(success, PollResult):
        return success
    ended = clock.now()
    failure = PollResult(ended, ended.monotonic - started.monotonic, error=success)
    # If that fails too, the defect is logged and counted in its place.
    if defect := _result_or_error(lambda: record(failure), state.account, state.defects):
        failure = replace(failure, error=defect)
        state.record_poll(failure)
    return failure


def _attempt(state: AccountState, fetch: Fetch, started: ClockReading, clock: Clock) -> PollResult:
    old = state.snapshot
    previous = {number.sid: number for number in old.numbers} if old else {}
    listing = fetch(previous, state.status().missed)
    ended = clock.now()
    seconds = ended.monotonic - started.monotonic
    if old is not None and old.numbers == listing.numbers:
        return PollResult(ended, seconds, old.seen_again(listing, ended, seconds))
    snapshot = build(listing, ended, seconds, state.account.rules, old)
    # After a reload with another time zone, the same timestamps are read as others.
    if old is None or old.listing.timezone != listing.timezone:
        return PollResult(ended, seconds, snapshot)
    return PollResult(ended, seconds, snapshot, diff(old, snapshot))


def ask_once(
    account: Account, fetch: Callable[[], Balance], clock: Clock, defects: set[str]
) -> BalanceResult:
    """One request for the balance; the result holds whatever went wrong. May raise Stopped."""
    balance = _result_or_error(fetch, account, defects)
    if isinstance(balance, PollError):
        return BalanceResult(clock.now(), error=balance)
    defects.clear()
    return BalanceResult(clock.now(), balance)


def _result_or_error(make: Callable[[], _T], account: Account, logged: set[str]) -> _T | PollError:
    """What `make` returns, or the PollError that it raised; may raise Stopped.

    A defect becomes an InternalError; its traceback is logged unless `logged` has its kind.
    """
    try:
        return make()
    except PollError as error:
        # It is kept, and its causes may hold the body of an answer.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        return error
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - a defect must not end the thread
        found = InternalError(type(error).__name__)
        if str(found) not in logged:
            logged.add(str(found))
            about = fields(account=account.name)
            _log.error("a defect in the exporter", extra=about, exc_info=error)
        return found


def poll_task(
    account: Account,
    state: AccountState,
    fetch: Fetch,
    clock: Clock,
    publish: Callable[[PollResult], None],
) -> Task:
    """The polls of one account; `publish` takes each result."""
    logger = PollLogger(account, state.snapshot)

    def poll() -> float:
        logger.log(poll_once(state, fetch, clock, publish=publish))
        pages = state.snapshot.listing.pages if state.snapshot else 0
        return account.poll.interval_for(pages)

    return poll


def balance_task(
    account: Account,
    interval_seconds: float,
    fetch: Callable[[], Balance],
    clock: Clock,
    publish: Callable[[BalanceResult], None],
) -> Task:
    """The requests for the balance of one account; `publish` takes each result.

    They have a thread of their own. A walk of the list may take five minutes and would delay the
    balance; a balance that hangs would delay a poll.
    """
    defects: set[str] = set()
    failures = FailureLog(account, "the request for the balance")

    def ask() -> float:
        result = ask_once(account, fetch, clock, defects)
        publish(result)
        if result.error is None:
            failures.log_end()
        elif isinstance(result.error, (Forbidden, NotFound)):
            failures.log_once("the balance is not available", result.error, result.ended)
        else:
            failures.log(result.error, result.ended)
        return interval_seconds

    return ask


@dataclass(eq=False, repr=False)
class Poller(threading.Thread):
    """Runs a task for one account until `stopping` is set; `kind` is in the name of the thread.

    With `begin`, it waits for that event first. When stopped in the middle of a walk, it asks for
    no further page. The interval runs from start to start, jittered by 5 % so that accounts do not
    align. Runs of a task never overlap, and none begins while the API wants no request:
    `hold_off_seconds` says for how long.
    """

    account: Account
    task: Task
    _: KW_ONLY
    clock: Clock
    stopping: threading.Event
    on_death: Callable[[], None]
    hold_off_seconds: Callable[[], float]
    kind: str = "poller"
    begin: threading.Event | None = None
    first_delay_seconds: float = 0.0
    uniform: Callable[[float, float], float] = random.uniform

    def __post_init__(self) -> None:
        super().__init__(name=f"{self.kind} {self.account.name}", daemon=True)
        self._hung_at = self.clock.awake() + self.first_delay_seconds + _HUNG_AFTER_SECONDS

    def run(self) -> None:
        """Run until stopped. A death that nothing below foresaw is reported, never silent."""
        try:
            self._run_until_stopped()
        except Stopped:
            return
        except BaseException:  # noqa: BLE001 - the last place that can report it
            # Not raised again: threading would print it without the log's format and redaction.
            _log.exception("a poller died", extra=fields(account=self.account.name))
            self.on_death()

    def healthy(self) -> bool:
        """Whether the thread lives and does not hang."""
        return self.is_alive() and self.clock.awake() < self._hung_at

    def _run_until_stopped(self) -> None:
        if self.begin is not None:
            self.clock.wait(self.begin, None)
        self._wait(self.first_delay_seconds, self.clock.now())
        while True:
            while (seconds := self.hold_off_seconds()) > 0:
                self._wait(seconds, self.clock.now())
            started = self.clock.now()
            deadline_seconds = self.account.poll.deadline_seconds
            self._hung_at = self.clock.awake() + deadline_seconds + _HUNG_AFTER_SECONDS
            interval_seconds = self.task()
            jitter = self.uniform(1 - INTERVAL_JITTER, 1 + INTERVAL_JITTER)
            self._wait(interval_seconds * jitter, started)

    def _wait(self, seconds: float, since: ClockReading) -> None:
        """Wait until this many seconds after `since`, or raise Stopped."""
        self._hung_at = self.clock.awake() + seconds + _HUNG_AFTER_SECONDS
        if self.clock.wait_since(since, seconds, self.stopping):
            raise Stopped
