"""The budget: any 60 seconds hold at most so many requests, whoever makes them."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.exotel.rate_limiter import RateLimiter
from tests.lib.support import FakeTime


def budget(time: FakeTime, requests_per_minute: int) -> RateLimiter:
    return RateLimiter(requests_per_minute, lambda: time.monotonic)


def test_saved_up_places_are_free_at_once(time: FakeTime) -> None:
    places = budget(time, 3)
    assert [places.reserve(0) for _ in range(3)] == [0, 0, 0]


def test_next_place_comes_free_a_minute_and_a_second_after_the_oldest(time: FakeTime) -> None:
    """The second is for two requests that travel at different speeds."""
    places = budget(time, 2)
    places.reserve(0)
    time.pass_(10)
    places.reserve(0)
    assert places.reserve(600) == 51
    assert places.reserve(600) == 61


def test_refusal_takes_nothing(time: FakeTime) -> None:
    places = budget(time, 1)
    places.reserve(0)
    assert [places.reserve(60.9) for _ in range(100)] == [None] * 100
    assert places.reserve(61) == 61


def test_long_rest_saves_up_no_more_than_a_minute_holds(time: FakeTime) -> None:
    places = budget(time, 2)
    time.pass_(86_400)
    assert [places.reserve(100) for _ in range(3)] == [0, 0, 61]


@pytest.mark.fault(78)
def test_two_hundred_pages_at_fifty_a_minute_take_three_windows(time: FakeTime) -> None:
    places = budget(time, 50)
    for _ in range(200):
        wait_seconds = places.reserve(300)
        assert wait_seconds is not None
        time.pass_(wait_seconds)
    assert time.monotonic == 1000 + 183


@given(
    requests_per_minute=st.integers(1, 5),
    arrivals=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 200)), min_size=1, max_size=40),
)
def test_any_sixty_seconds_hold_no_more_than_the_limit(
    requests_per_minute: int, arrivals: list[tuple[int, int]]
) -> None:
    """Whenever requests arrive, and however long each is willing to wait."""
    time = FakeTime()
    places = budget(time, requests_per_minute)
    made: list[float] = []
    for pause_seconds, within_seconds in arrivals:
        time.pass_(pause_seconds)
        wait_seconds = places.reserve(within_seconds)
        if wait_seconds is not None:
            assert 0 <= wait_seconds <= within_seconds
            made.append(time.monotonic + wait_seconds)
    assert made == sorted(made)
    for at in made:
        assert sum(at <= other <= at + 60 for other in made) <= requests_per_minute


def test_second_thread_waits_until_the_first_has_its_place() -> None:
    waits: dict[str, float | None] = {}

    def monotonic() -> float:
        if thread.ident is None:  # the first asks for the time: now the second comes in between
            thread.start()
            thread.join(0.05)
        return 1000.0

    places = RateLimiter(1, monotonic)
    thread = threading.Thread(target=lambda: waits.update(second=places.reserve(100)))
    waits["first"] = places.reserve(100)
    thread.join()
    assert waits == {"first": 0, "second": 61}


def test_threads_get_different_places(time: FakeTime) -> None:
    """Probes and the poll share one budget."""
    places = budget(time, 10)
    waits: list[float | None] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        for _ in range(25):
            waits.append(places.reserve(10_000))  # noqa: PERF401 - each at its own time

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wait or 0 for wait in waits) == [61 * (n // 10) for n in range(200)]


def test_the_time_to_the_next_place_is_told_and_takes_nothing(time: FakeTime) -> None:
    places = budget(time, 1)
    assert places.wait_seconds() == 0
    places.reserve(0)
    time.pass_(1)
    assert [places.wait_seconds(), places.wait_seconds()] == [60, 60]
    time.pass_(100)
    assert places.wait_seconds() == 0


def test_longest_wait_that_the_api_asked_for_is_remembered_and_keeps_no_place(
    time: FakeTime,
) -> None:
    places = budget(time, 1)
    assert places.hold_off_seconds() == 0
    places.hold_off(100)
    places.hold_off(30)
    time.pass_(40)
    assert (places.hold_off_seconds(), places.reserve(0)) == (60, 0)
    time.pass_(60)
    assert places.hold_off_seconds() == 0


@pytest.mark.parametrize(
    ("requests_per_minute", "waits"),
    [
        pytest.param(1, [41], id="fewer-count-from-the-newest"),
        pytest.param(2, [31, 41], id="as-many"),
        pytest.param(3, [0, 31, 41], id="more-leave-one-free-at-once"),
    ],
)
def test_a_budget_of_another_size_remembers_the_last_minute(
    time: FakeTime, requests_per_minute: int, waits: list[float]
) -> None:
    """A reload must not give a minute its requests twice."""
    places = budget(time, 2)
    places.reserve(0)
    time.pass_(10)
    places.reserve(0)
    time.pass_(20)
    places.resize(requests_per_minute)
    assert [places.reserve(50) for _ in waits] == waits
