"""What is known of each account, shared by the thread that polls it and those that serve.

Whatever happens replaces one reference, to an `AccountStatus` that readers take: it is immutable.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import Account
from exophone_exporter.errors import REASONS, ListShifted, PollError
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.model import ENDPOINTS, Endpoint
from exophone_exporter.exotel.responses import RateLimits
from exophone_exporter.inventory.changes import CHANGES, Change
from exophone_exporter.inventory.snapshot import Snapshot

DURATION_BUCKETS_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Without an answer for so many intervals, a balance is no longer shown.
_BALANCE_INTERVALS: Final = 3


@dataclass(frozen=True)
class PollResult:
    """One attempt to poll an account: a snapshot and what changed, or an error; never both."""

    ended: ClockReading
    duration_seconds: float
    snapshot: Snapshot | None = None
    changes: tuple[Change, ...] = ()
    error: PollError | None = None

    @property
    def missed(self) -> Mapping[str, int] | None:
        """From how many complete walks in a row numbers shown were missing, by sid.

        None where this attempt was no complete walk.
        """
        if isinstance(self.error, ListShifted):
            return self.error.missed
        return None if self.snapshot is None else self.snapshot.listing.missed


@dataclass(frozen=True)
class BalanceResult:
    """One request for the balance: what it gave, or an error; never both."""

    ended: ClockReading
    balance: Balance | None = None
    error: PollError | None = None


@dataclass(frozen=True)
class Durations:
    """A histogram: `counts` per bucket, the last one beyond all bounds; the sum is in seconds."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BUCKETS_SECONDS) + 1)
    sum_seconds: float = 0.0

    def with_one(self, seconds: float) -> Durations:
        """The same with one more request, which took this many seconds."""
        counts = [*self.counts]
        counts[bisect_left(DURATION_BUCKETS_SECONDS, seconds)] += 1
        return Durations((*counts,), self.sum_seconds + seconds)


@dataclass(frozen=True)
class AccountStatus:
    """One account at one instant.

    `last_attempt` is when the last one began, None before the first; `error` is None after a
    success. `requests` counts by endpoint and status code ("none" where there was no answer).
    `missed` are the numbers of the snapshot that the last complete walk lacked, as
    `PollResult.missed` has them. `last_balance` is the last request for the balance, and
    `known_balance` the last that gave one.
    """

    account: Account
    snapshot: Snapshot | None = None
    last_attempt: ClockReading | None = None
    error: PollError | None = None
    missed: Mapping[str, int] = field(default_factory=dict)
    polls: int = 0
    failures: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    changes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CHANGES, 0))
    requests: Mapping[tuple[Endpoint, str], int] = field(default_factory=dict)
    durations: Mapping[Endpoint, Durations] = field(
        default_factory=lambda: dict.fromkeys(ENDPOINTS, Durations())
    )
    retries: int = 0
    wait_seconds: float = 0.0
    rate_limits: Mapping[Endpoint, RateLimits] = field(default_factory=dict)
    last_balance: BalanceResult | None = None
    known_balance: BalanceResult | None = None

    @property
    def interval_seconds(self) -> float:
        """How often the account is polled now."""
        return self.account.poll.interval_for(self.snapshot.listing.pages if self.snapshot else 0)

    def fresh_snapshot(self, now: ClockReading) -> Snapshot | None:
        """The snapshot, None without one or if it is older than the account's stale_after."""
        if self.snapshot is None:
            return None
        age_seconds = now.seconds_since(self.snapshot.started)
        return self.snapshot if age_seconds <= self.account.poll.stale_after_seconds else None

    def fresh_balance(self, now: ClockReading) -> Balance | None:
        """The last balance, unless it is older than three intervals or no longer asked for."""
        interval_seconds, known = self.account.balance_interval_seconds, self.known_balance
        if interval_seconds is None or known is None:
            return None
        age_seconds = now.seconds_since(known.ended)
        return known.balance if age_seconds <= _BALANCE_INTERVALS * interval_seconds else None

    def after(self, result: PollResult) -> AccountStatus:
        """The status once this attempt has ended; a failure keeps the old snapshot."""
        found = result.snapshot and result.snapshot.judged_by(self.account.rules)
        changes, failures = Counter(self.changes), Counter(self.failures)
        changes.update(change.kind for change in result.changes)
        if result.error is not None:
            failures[result.error.reason] += 1
        return replace(
            self,
            snapshot=found or self.snapshot,
            last_attempt=result.ended.before(result.duration_seconds),
            error=result.error,
            missed=self.missed if result.missed is None else result.missed,
            polls=self.polls + 1,
            failures=failures,
            changes=changes,
        )

    def judged(self) -> AccountStatus:
        """The status with a snapshot by the rules of its account."""
        judged = self.snapshot and self.snapshot.judged_by(self.account.rules)
        return replace(self, snapshot=judged)


class AccountState:
    """The result of the last poll and the counters of one account. Safe between threads.

    `defects` are the kinds that were logged since the last success.
    """

    def __init__(self, account: Account) -> None:
        self._lock = threading.Lock()
        self._status = AccountStatus(account)
        self.defects: set[str] = set()

    @property
    def account(self) -> Account:
        """The settings that the state began with, and the rules that apply now."""
        return self._status.account

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good snapshot, however old."""
        return self._status.snapshot

    def record_poll(self, result: PollResult) -> None:
        """Take the result of one attempt, whole or not at all."""
        with self._lock:
            self._status = self._status.after(result)
            if result.error is None:
                self.defects.clear()

    def record_rules(self, judged: AccountStatus) -> None:
        """Go by the rules of this status from now on, and take its snapshot, which they judged."""
        with self._lock:
            self._change(account=judged.account, snapshot=judged.snapshot)

    def record_request(self, endpoint: Endpoint, code: str, seconds: float) -> None:
        """Count one request, answered with a status code or, with "none", not at all."""
        with self._lock:
            requests, durations = self._status.requests, self._status.durations
            key, before = (endpoint, code), durations.get(endpoint, Durations())
            self._change(
                requests={**requests, key: requests.get(key, 0) + 1},
                durations={**durations, endpoint: before.with_one(seconds)},
            )

    def record_balance(self, result: BalanceResult) -> None:
        """Take the result of one request for the balance."""
        known = {} if result.error else {"known_balance": result}
        with self._lock:
            self._change(last_balance=result, **known)

    def record_rate_limits(self, endpoint: Endpoint, limits: RateLimits) -> None:
        """Take the limits that one answer named."""
        with self._lock:
            self._change(rate_limits={**self._status.rate_limits, endpoint: limits})

    def record_retry(self) -> None:
        """Count one request that is made again."""
        with self._lock:
            self._change(retries=self._status.retries + 1)

    def record_wait(self, seconds: float) -> None:
        """Count time spent waiting for the budget, or because the API said so."""
        with self._lock:
            self._change(wait_seconds=self._status.wait_seconds + seconds)

    def status(self, account: Account | None = None) -> AccountStatus:
        """What is known, with the settings of `account` or those of the state."""
        return replace(self._status, account=account) if account else self._status

    def _change(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
