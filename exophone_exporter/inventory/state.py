"""What is known of each account, shared by the threads that poll and the one that serves.

A poll swaps one reference; counters only grow. Readers take a `View`, a consistent copy that is
small: the snapshot in it is immutable and not copied.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exophone_exporter.errors import REASONS
from exophone_exporter.exotel.model import ENDPOINTS
from exophone_exporter.inventory.snapshot import CHANGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exophone_exporter.clock import ClockReading
    from exophone_exporter.config.settings import Account
    from exophone_exporter.errors import PollError
    from exophone_exporter.exotel.model import Endpoint
    from exophone_exporter.inventory.snapshot import Change, Snapshot

DURATION_BUCKETS_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class PollResult:
    """One attempt to poll an account: a snapshot and what changed, or an error; never both."""

    ended: ClockReading
    duration_seconds: float
    snapshot: Snapshot | None = None
    changes: tuple[Change, ...] = ()
    error: PollError | None = None


@dataclass
class Durations:
    """A histogram: `counts` per bucket, the last one beyond all bounds; the sum is in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_SECONDS) + 1))
    sum_seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one request that took so many seconds."""
        self.counts[bisect_left(DURATION_BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


@dataclass(frozen=True, eq=False)
class AccountStatus:
    """One account at one instant; `last_attempt` is None before the first, `error` after a success.

    It is the same object as long as nothing happens to the account.

    `requests` counts by endpoint and status code ("none" where there was no answer).
    """

    account: Account
    snapshot: Snapshot | None
    last_attempt: ClockReading | None
    error: PollError | None
    polls: int
    failures: Mapping[str, int]
    changes: Mapping[str, int]
    requests: Mapping[tuple[Endpoint, str], int]
    durations: Mapping[Endpoint, Durations]
    retries: int
    wait_seconds: float

    def fresh_snapshot(self, now: ClockReading) -> Snapshot | None:
        """The snapshot, unless there is none or it is older than the account's stale_after."""
        if self.snapshot is None:
            return None
        age_seconds = now.seconds_since(self.snapshot.completed)
        return self.snapshot if age_seconds <= self.account.poll.stale_after_seconds else None


class AccountState:
    """The last good snapshot and the counters of one account. Safe between threads."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._last_attempt: ClockReading | None = None
        self._error: PollError | None = None
        self._polls = 0
        self._failures: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._changes: Counter[str] = Counter(dict.fromkeys(CHANGES, 0))
        self._requests: Counter[tuple[Endpoint, str]] = Counter()
        self._durations = {endpoint: Durations() for endpoint in ENDPOINTS}
        self._retries = 0
        self._wait_seconds = 0.0
        self._status: AccountStatus | None = None  # what was last read, until something changes

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good snapshot, however old."""
        return self._snapshot

    @property
    def error(self) -> PollError | None:
        """Why the last attempt failed; None after a success."""
        return self._error

    @property
    def attempted(self) -> bool:
        """Whether there was a first attempt, good or bad."""
        return self._last_attempt is not None

    def record_poll(self, result: PollResult) -> None:
        """Take the result of one attempt, whole or not at all; a failure keeps the old snapshot."""
        with self._lock:
            # What may fail, for want of memory, comes before anything is changed.
            changes, failures = self._changes.copy(), self._failures.copy()
            changes.update(change.kind for change in result.changes)
            if result.error is not None:
                failures[result.error.reason] += 1
            self._polls, self._changes, self._failures = self._polls + 1, changes, failures
            self._last_attempt, self._error = result.ended, result.error
            if result.snapshot is not None:
                self._snapshot = result.snapshot
            self._status = None

    def record_defect(self, error: PollError) -> None:
        """Note that what an attempt found could not be published; the attempt is counted."""
        with self._lock:
            self._error = error
            self._failures[error.reason] += 1
            self._status = None

    def record_request(self, endpoint: Endpoint, code: str, seconds: float) -> None:
        """Count one request, answered with a status code or, with "none", not at all."""
        with self._lock:
            self._requests[endpoint, code] += 1
            self._durations[endpoint].observe(seconds)
            self._status = None

    def record_retry(self) -> None:
        """Count one request that is made again."""
        with self._lock:
            self._retries += 1
            self._status = None

    def record_wait(self, seconds: float) -> None:
        """Count time spent waiting for the budget, or because the API said so."""
        with self._lock:
            self._wait_seconds += seconds
            self._status = None

    def status(self, account: Account | None = None) -> AccountStatus:
        """A consistent copy for readers, by the settings of `account` or those of the state."""
        account = account or self.account
        with self._lock:
            if self._status is None or self._status.account is not account:
                self._status = self._new_status(account)
            return self._status

    def _new_status(self, account: Account) -> AccountStatus:
        return AccountStatus(
            account=account,
            snapshot=self._snapshot,
            last_attempt=self._last_attempt,
            error=self._error,
            polls=self._polls,
            failures=dict(self._failures),
            changes=dict(self._changes),
            requests=dict(self._requests),
            durations={
                e: Durations([*d.counts], d.sum_seconds) for e, d in self._durations.items()
            },
            retries=self._retries,
            wait_seconds=self._wait_seconds,
        )
