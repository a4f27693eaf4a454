"""What is known of an account: counters, the last good snapshot, and how long it may be served."""

from __future__ import annotations

import threading
import time as real_time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.errors import CredentialsRejected, TimedOut
from exophone_exporter.inventory.changes import Change
from exophone_exporter.inventory.state import AccountState, Durations, PollResult
from tests.lib.support import FakeTime, account, phone, snapshot

THREADS, TIMES = 8, 200


def test_account_that_was_never_polled_has_nothing_and_every_counter_at_zero() -> None:
    state = AccountState(account())
    status = state.status()
    assert (state.status().last_attempt, state.snapshot, state.status().error) == (None,) * 3
    assert (status.snapshot, status.last_attempt, status.error) == (None, None, None)
    assert status.polls == 0
    assert status.fresh_snapshot(ClockReading(0.0, 0.0)) is None
    assert " ".join(status.failures) == (
        "connect timeout tls auth forbidden billing not_found rate_limited server status"
        " too_large bad_body envelope pagination internal"
    )
    assert " ".join(status.changes) == (
        "added removed voice_attached voice_detached voice_moved sms_attached sms_detached"
        " sms_moved rental_changed other"
    )
    assert {*status.failures.values(), *status.changes.values()} == {0}
    assert (status.requests, status.retries, status.wait_seconds) == ({}, 0, 0.0)
    assert {e: sum(d.counts) for e, d in status.durations.items()} == {"list": 0, "detail": 0}


def test_failure_is_counted_by_its_reason_and_keeps_the_old_snapshot(time: FakeTime) -> None:
    state = AccountState(account())
    good = snapshot(phone("a"), completed=time.clock.now())
    state.record_poll(PollResult(time.clock.now(), 1.0, good))
    time.pass_(300)
    error = CredentialsRejected("401")
    state.record_poll(PollResult(time.clock.now(), 1.0, error=error))
    status = state.status()
    assert (status.snapshot, status.error, status.polls) == (good, error, 2)
    began = ClockReading(wall=1_700_000_299.0, monotonic=1299.0)
    assert status.last_attempt == began
    assert {reason: n for reason, n in status.failures.items() if n} == {"auth": 1}
    state.record_poll(PollResult(time.clock.now(), 1.0, good))
    status = state.status()
    assert (status.error, status.failures["auth"], status.polls) == (None, 1, 3)


@pytest.mark.fault(134)
def test_result_is_taken_whole_or_not_at_all(time: FakeTime) -> None:
    """What fails on the way leaves no half: the poll counted, the snapshot new, the changes not."""

    def changes() -> Iterator[Change]:
        yield Change("added", phone("b"))
        raise MemoryError

    state = AccountState(account())
    now = time.clock.now()
    state.record_poll(PollResult(now, 1.0, snapshot(phone("a"), completed=now)))
    before = state.status()
    broken: Any = changes()
    with pytest.raises(MemoryError):
        state.record_poll(
            PollResult(now, 1.0, snapshot(phone("a"), phone("b"), completed=now), broken)
        )
    assert state.status() == before


def test_what_happens_is_counted_and_a_status_does_not_move_with_what_comes_later(
    time: FakeTime,
) -> None:
    state = AccountState(account())
    state.record_request("list", "200", 0.2)
    before, now = state.status(), time.clock.now()
    changes = tuple(Change(kind, phone()) for kind in ("added", "added", "sms_moved"))
    for _ in range(2):
        state.record_request("list", "200", 0.2)
        state.record_poll(PollResult(now, 1.0, snapshot(completed=now), changes))
    state.record_poll(PollResult(now, 1.0, error=TimedOut("slow")))
    state.record_request("detail", "none", 10.0)
    state.record_retry()
    state.record_wait(1.5)
    state.record_wait(2.0)
    after = state.status()
    assert {kind: n for kind, n in after.changes.items() if n} == {"added": 4, "sms_moved": 2}
    assert after.requests == {("list", "200"): 3, ("detail", "none"): 1}
    assert (after.retries, after.wait_seconds) == (1, 3.5)
    assert after.durations["list"].sum_seconds == pytest.approx(0.6)
    assert after.durations["detail"].sum_seconds == 10.0
    assert (before.polls, before.failures["timeout"], before.snapshot) == (0, 0, None)
    assert (before.requests, before.changes["added"]) == ({("list", "200"): 1}, 0)
    assert sum(before.durations["list"].counts) == 1


_SNAPSHOT = snapshot(phone("a"))


def test_status_has_the_settings_that_are_asked_for() -> None:
    """A reload changes how an account is polled, and what is known of it stays."""
    before, after = account(interval_seconds=300.0), account(interval_seconds=60.0)
    state = AccountState(before)
    asked_for = [state.status(each).account for each in (before, after, before)]
    assert asked_for == [before, after, before]
    assert state.status().account is before


@pytest.mark.parametrize(
    "shared",
    [
        pytest.param(Clock(), id="clock"),
        pytest.param(ClockReading(0.0, 0.0), id="moment"),
        pytest.param(phone(), id="number"),
        pytest.param(_SNAPSHOT, id="snapshot"),
        pytest.param(_SNAPSHOT.listing, id="walk"),
        pytest.param(_SNAPSHOT.groups[0], id="group"),
        pytest.param(Change("added", phone()), id="change"),
        pytest.param(PollResult(ClockReading(0.0, 0.0), 1.0, _SNAPSHOT), id="result-of-a-poll"),
        pytest.param(AccountState(account()).status(), id="view"),
    ],
)
def test_what_threads_share_cannot_be_changed(shared: Any) -> None:
    is_struct = isinstance(shared, msgspec.Struct)
    names = shared.__struct_fields__ if is_struct else [each.name for each in fields(shared)]
    for name in names:
        with pytest.raises(AttributeError, match=r"^(cannot assign to field|immutable type)"):
            setattr(shared, name, None)


@pytest.mark.parametrize(
    ("bucket", "bound"), [*enumerate([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])]
)
def test_request_falls_into_the_first_bucket_that_holds_it(bucket: int, bound: float) -> None:
    durations = Durations().with_one(bound).with_one(bound + 0.001)
    assert durations.counts == tuple(int(i in (bucket, bucket + 1)) for i in range(10))


@pytest.mark.parametrize(
    ("set_forward", "suspended", "passed", "fresh"),
    [
        pytest.param(0.0, 0.0, 0.0, True, id="immediately"),
        pytest.param(0.0, 0.0, 899.0, True, id="at-the-limit"),
        pytest.param(0.0, 0.0, 899.1, False, id="past-the-limit"),
        pytest.param(-3600.0, 0.0, 60.0, True, id="set-back"),
        pytest.param(-3600.0, 0.0, 901.0, False, id="set-back-late"),
        pytest.param(3600.0, 0.0, 60.0, True, id="set-forward"),
        pytest.param(0.0, 894.0, 5.0, True, id="short-suspend"),
        pytest.param(0.0, 28800.0, 5.0, False, id="a-night"),
    ],
)
@pytest.mark.fault(124, 125)
def test_snapshot_is_served_until_it_is_stale_by_a_clock_that_nobody_sets(
    time: FakeTime, set_forward: float, suspended: float, passed: float, fresh: bool
) -> None:
    """Its age counts from the start of the poll, which took a second."""
    state = AccountState(account(stale_after_seconds=900.0))
    now = time.clock.now()
    state.record_poll(PollResult(now, 1.0, snapshot(phone("a"), completed=now)))
    status = state.status()
    time.wall += set_forward
    time.suspend(suspended)
    time.pass_(passed)
    assert (status.fresh_snapshot(time.clock.now()) is not None) is fresh


@pytest.mark.fault(125)
def test_clock_of_the_machine_counts_suspend_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux has a clock for it; the waits of the system do not count it."""
    code = getattr(real_time, "CLOCK_BOOTTIME", real_time.CLOCK_MONOTONIC)
    monkeypatch.setattr(real_time, "clock_gettime", {code: 7.0}.__getitem__)
    clock = Clock()
    assert clock.now().monotonic == 7.0
    assert (clock.wall, clock.awake) == (real_time.time, real_time.monotonic)


def test_clock_that_is_given_also_waits(time: FakeTime) -> None:
    """In slices, and until the event is set."""
    waited: list[float | None] = []

    def wait(event: threading.Event, seconds: float | None) -> bool:
        waited.append(seconds)
        time.pass_(seconds or 0.0)
        if len(waited) == 6:
            event.set()
        return event.is_set()

    clock = replace(time.clock, wait=wait, slice_seconds=2.0)
    event = threading.Event()
    assert not clock.wait_since(clock.now(), 5.0, event)
    assert clock.wait_since(clock.now(), 5.0, event)
    assert waited == [2.0, 2.0, 1.0] * 2
    assert clock.wait_since(clock.now(), 0.0, event)


def test_status_is_consistent_while_many_threads_write(time: FakeTime) -> None:
    """Every status shows as many failures as failed polls; in the end nothing was lost."""
    state = AccountState(account())
    now = time.clock.now()
    begin = threading.Barrier(THREADS + 1)
    changes = (Change("added", phone()), Change("other", phone()))

    def write() -> None:
        begin.wait()
        for _ in range(TIMES):
            state.record_poll(PollResult(now, 1.0, error=TimedOut("slow")))
            state.record_poll(PollResult(now, 1.0, snapshot(completed=now), changes))
            state.record_request("list", "200", 0.5)
            state.record_retry()
            state.record_wait(0.5)

    threads = [threading.Thread(target=write) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    begin.wait()
    torn: Counter[str] = Counter()
    while any(thread.is_alive() for thread in threads):
        status = state.status()
        torn["changes"] += status.changes["added"] != status.changes["other"]
        torn["polls"] += status.polls != status.failures["timeout"] + status.changes["added"]
        torn["requests"] += status.requests.get(("list", "200"), 0) != sum(
            status.durations["list"].counts
        )
    for thread in threads:
        thread.join()
    status = state.status()
    assert not +torn
    assert (status.polls, status.retries) == (2 * THREADS * TIMES, THREADS * TIMES)
    assert status.requests == {("list", "200"): THREADS * TIMES}
    assert status.wait_seconds == THREADS * TIMES * 0.5
