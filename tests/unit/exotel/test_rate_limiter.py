"""Any 60 seconds hold at most so many requests, from all callers, and none while it is held."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.exotel.rate_limiter import RateLimiter, Slot
from tests.lib.support import FakeTime


def limiter_of(time: FakeTime, requests_per_minute: int) -> RateLimiter:
    return RateLimiter(requests_per_minute, lambda: time.monotonic)


def waits(limiter: RateLimiter, *within_seconds: float) -> list[float | None]:
    """How long each request has to wait for its slot; None where it is refused."""
    slots = [limiter.reserve(within) for within in within_seconds]
    return [None if slot is None else limiter.delay_seconds(slot) for slot in slots]


def test_a_rest_saves_up_what_a_minute_holds_and_each_slot_returns_a_window_later(
    time: FakeTime,
) -> None:
    """61 seconds: two requests may travel at different speeds."""
    limiter = limiter_of(time, 2)
    time.pass_(86_400)
    assert waits(limiter, 0) == [0]
    time.pass_(10)
    assert waits(limiter, 0, 600, 600, 600) == [0, 51, 61, 112]


def test_a_refusal_and_a_question_take_nothing(time: FakeTime) -> None:
    limiter = limiter_of(time, 1)
    assert limiter.wait_seconds() == 0
    assert waits(limiter, 0, *[60.9] * 100) == [0, *[None] * 100]
    assert limiter.wait_seconds() == 61
    assert waits(limiter, 61) == [61]


@pytest.mark.fault(78)
def test_two_hundred_pages_at_fifty_a_minute_take_three_windows(time: FakeTime) -> None:
    limiter = limiter_of(time, 50)
    for _ in range(200):
        (wait_seconds,) = waits(limiter, 300)
        assert wait_seconds is not None
        time.pass_(wait_seconds)
    assert time.monotonic == 1000 + 183


@given(
    requests_per_minute=st.integers(1, 5),
    arrivals=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 200)), min_size=1, max_size=40),
    connects=st.lists(st.integers(0, 30), min_size=40, max_size=40),
)
def test_any_sixty_seconds_hold_no_more_than_the_limit(
    requests_per_minute: int, arrivals: list[tuple[int, int]], connects: list[int]
) -> None:
    """Whenever requests arrive, however long each is willing to wait, or takes to connect."""
    time = FakeTime()
    limiter = limiter_of(time, requests_per_minute)
    connecting: list[tuple[float, Slot]] = []
    sent: list[float] = []

    def pass_until(end: float) -> None:
        for at, slot in sorted(connecting, key=lambda each: each[0]):
            if at <= end:
                time.monotonic = max(time.monotonic, at)
                limiter.stamp(slot)
                sent.append(time.monotonic)
                connecting.remove((at, slot))
        time.monotonic = max(time.monotonic, end)

    for (pause_seconds, within_seconds), connect_seconds in zip(arrivals, connects, strict=False):
        pass_until(time.monotonic + pause_seconds)
        slot = limiter.reserve(within_seconds)
        while slot and (wait_seconds := limiter.delay_seconds(slot)) > 0:
            pass_until(time.monotonic + wait_seconds)
        if slot:
            connecting.append((time.monotonic + connect_seconds, slot))
    pass_until(time.monotonic + 100)
    for at in sent:
        assert sum(at <= other <= at + 60 for other in sent) <= requests_per_minute


def test_a_request_that_leaves_late_delays_those_that_wait_for_its_slot(time: FakeTime) -> None:
    limiter = limiter_of(time, 1)
    first, second = limiter.reserve(0), limiter.reserve(61)
    assert first is not None
    assert second is not None
    time.pass_(9)
    limiter.stamp(first)
    time.pass_(52)
    assert limiter.delay_seconds(second) == 9


@pytest.mark.fault(170)
def test_nobody_sends_while_the_api_asked_to_wait(time: FakeTime) -> None:
    """Those that were granted a slot before it asked wait, too."""
    limiter = limiter_of(time, 3)
    granted = limiter.reserve(0)
    assert granted is not None
    limiter.hold_off(100)
    limiter.hold_off(30)
    time.pass_(40)
    assert (limiter.hold_off_seconds(), limiter.wait_seconds()) == (60, 60)
    assert limiter.delay_seconds(granted) == 60
    assert waits(limiter, 59, 60) == [None, 60]
    time.pass_(60)
    assert (limiter.hold_off_seconds(), limiter.delay_seconds(granted)) == (0, 0)


@pytest.mark.fault(248)
def test_a_wait_for_the_balance_holds_nothing_else(time: FakeTime) -> None:
    """Of two waits the longer one counts, no matter which endpoint asked for it."""
    limiter = limiter_of(time, 3)
    limiter.hold_off(100, only_balance=True)
    limiter.hold_off(30)
    held = limiter.hold_off_seconds
    assert (held(), held(of_balance=True), limiter.wait_seconds()) == (30, 100, 30)
    limiter.hold_off(200)
    assert (held(), held(of_balance=True)) == (200, 200)


def test_threads_get_different_slots(time: FakeTime) -> None:
    """The poll, the probes and other names of the account share one limiter."""
    limiter = limiter_of(time, 10)
    slots: list[Slot | None] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        for _ in range(25):
            slots.append(limiter.reserve(10_000))  # noqa: PERF401 - each at its own time

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = sorted(limiter.delay_seconds(slot) for slot in slots if slot)
    assert taken == [61 * (n // 10) for n in range(200)]


def test_second_thread_waits_until_the_first_has_its_slot() -> None:
    slots: dict[str, Slot | None] = {}

    def monotonic() -> float:
        if thread.ident is None:  # the first asks for the time: now the second comes in between
            thread.start()
            thread.join(0.05)
        return 1000.0

    limiter = RateLimiter(1, monotonic)
    thread = threading.Thread(target=lambda: slots.update(second=limiter.reserve(100)))
    slots["first"] = limiter.reserve(100)
    thread.join()
    assert {name: slot and slot.at for name, slot in slots.items()} == {
        "first": 1000,
        "second": 1061,
    }


@pytest.mark.parametrize(
    ("requests_per_minute", "expected"),
    [
        pytest.param(1, [41], id="fewer-count-from-the-newest"),
        pytest.param(2, [31, 41], id="as-many"),
        pytest.param(3, [0, 31, 41], id="more-leave-one-free-immediately"),
    ],
)
def test_a_limit_of_another_size_remembers_the_last_minute(
    time: FakeTime, requests_per_minute: int, expected: list[float]
) -> None:
    """A reload must not give a minute its requests twice."""
    limiter = limiter_of(time, 2)
    waits(limiter, 0)
    time.pass_(10)
    waits(limiter, 0)
    time.pass_(20)
    limiter.resize(requests_per_minute)
    assert limiter.requests_per_minute == requests_per_minute
    assert waits(limiter, *[50] * len(expected)) == expected
