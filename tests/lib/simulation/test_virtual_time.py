"""Virtual time itself: which thread runs, when, and that it ends where nothing can go on."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from tests.lib.simulation.virtual_time import StuckError, VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def virtual() -> Iterator[VirtualTime]:
    with contextlib.closing(VirtualTime(patience_seconds=0.2)) as virtual:
        yield virtual


def test_threads_run_in_the_order_of_their_times_and_one_at_a_time(virtual: VirtualTime) -> None:
    """A thread that waits for hours, twice, and others that wait for minutes in between."""
    ran: list[tuple[str, float]] = []

    def waits(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            for _ in range(2):
                virtual.clock.wait(threading.Event(), seconds)
                ran.append((name, virtual.clock.monotonic() - 1000))

        return run

    for name, seconds in (("hours", 7200.0), ("minutes", 3601.0), ("as-long", 3601.0)):
        virtual.spawn(name, waits(name, seconds))
    virtual.end(within_seconds=20_000)
    assert ran == [
        ("minutes", 3601),
        ("as-long", 3601),
        ("hours", 7200),
        ("minutes", 7202),
        ("as-long", 7202),
        ("hours", 14_400),
    ]


def test_event_ends_a_wait_in_the_moment_in_which_it_is_set(virtual: VirtualTime) -> None:
    event, woke = threading.Event(), []

    def run() -> None:
        assert virtual.clock.wait(event, None)
        woke.append(virtual.now)

    virtual.spawn("waits", run)
    virtual.pass_until(1234.5)
    event.set()
    virtual.end(within_seconds=1)
    assert woke == [1234.5]


def test_suspend_moves_the_wall_clock_alone_and_a_step_not_that_of_others(
    virtual: VirtualTime,
) -> None:
    before = virtual.clock.now()
    virtual.suspend(100)
    virtual.step(-30)
    after = virtual.clock.now()
    assert (after.monotonic - before.monotonic, after.wall - before.wall) == (0, 70)
    assert virtual.true - virtual.now == 100


def test_thread_that_dies_hands_its_turn_on(virtual: VirtualTime) -> None:
    """However it dies: nobody else could."""
    virtual.spawn("dies", lambda: None)
    virtual.pass_until(1010)
    assert virtual.now == 1010


def test_threads_that_wait_for_each_other_for_ever_are_named(virtual: VirtualTime) -> None:
    event = threading.Event()
    virtual.spawn("adam", lambda: virtual.clock.wait(event, None))
    virtual.spawn("eve", lambda: virtual.clock.wait(event, None))
    with pytest.raises(StuckError, match=r"never comes: .*adam, eve"):
        virtual.pass_until(float("inf"))


def test_thread_that_waits_for_anything_else_is_told_with_its_stack(virtual: VirtualTime) -> None:
    """It has the turn, and nobody can go on."""
    other = threading.Event()
    virtual.spawn("hangs", lambda: other.wait(10))
    with pytest.raises(StuckError, match=r"(?s)hangs has the turn.*other\.wait\(10\)"):
        virtual.pass_until(1010)
    other.set()


def test_thread_that_does_not_end_in_time_is_named(virtual: VirtualTime) -> None:
    virtual.spawn("goes-on", lambda: virtual.sleep(100))
    with pytest.raises(StuckError, match=r"do not end: .*goes-on"):
        virtual.end(within_seconds=10)
