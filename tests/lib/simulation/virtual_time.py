"""Threads in virtual time: one runs at a time, and time passes only where all of them wait.

The code under test keeps its threads, its locks and its events; only the clock that it is given is
ours. A thread that waits by that clock hands its turn to the one that wakes next, and time jumps
there. So a week takes seconds, and the same seed gives the same week, to the last digit.

The thread that made the `VirtualTime` is the driver: it starts the others and lets time pass. While
it waits it also looks after the others: one that has died had the turn and cannot hand it on, and
one that waits for anything but our clock would hold the turn for ever.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.errors import Stopped

# In real time the driver looks after the others so often.
_LOOK_SECONDS: Final = 0.005
# No wait is shorter, as in reality: what floats leave of one must not be waited for without end.
_SHORTEST_WAIT_SECONDS: Final = 1e-6


class StuckError(AssertionError):
    """No thread can go on, or one does not give its turn back."""


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False)
class _Task:
    """One thread: whose `turn` it is may run. It wakes at a time, or when its event is set."""

    thread: threading.Thread
    number: int = -1
    wakes_at: float = math.inf
    event: threading.Event | None = None
    turn: threading.Lock = field(default_factory=_locked)

    def ready_at(self, now: float) -> float:
        if self.event is not None and self.event.is_set():
            return now
        return max(now, self.wakes_at)


class VirtualTime:
    """The clock, and which thread runs. Times are in seconds; `now` stands still in a suspend.

    For more than `patience_seconds` of real time no thread may hold the turn.
    """

    def __init__(self, slice_seconds: float = 5.0, patience_seconds: float = 60.0) -> None:
        self.now = 1000.0
        self.suspended_seconds = 0.0
        self.steps = 0
        self._wall_ahead = 1_700_000_000.0
        self._patience_seconds = patience_seconds
        self.clock = Clock(
            self._wall, self._monotonic, self._wait, slice_seconds, awake=self._awake
        )
        self._driver = _Task(threading.current_thread(), 0)
        self._running = self._driver
        self._tasks: dict[int, _Task] = {threading.get_ident(): self._driver}
        self._strangers = {*threading.enumerate()}
        self._born = threading.Condition()
        self._newborn: list[_Task] = []
        self._count = 0
        self._stuck = ""
        self._closed = False

    @property
    def moment(self) -> ClockReading:
        """This moment on both clocks, for other threads."""
        return ClockReading(self.now + self._wall_ahead, self.true)

    @property
    def true(self) -> float:
        """What a clock says that is never set and never stands still: that of the API."""
        return self.now + self.suspended_seconds

    def step(self, seconds: float) -> None:
        self._wall_ahead += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: waits stand still, the clocks go on."""
        self._wall_ahead += seconds
        self.suspended_seconds += seconds

    # For the driver

    def adopt(self) -> None:
        """Let the threads take part that were started since; call it after whatever starts them."""
        known = {task.thread for task in self._tasks.values()} | self._strangers
        expected = {thread for thread in threading.enumerate() if thread not in known}
        with self._born:
            arrived = self._born.wait_for(
                lambda: {task.thread for task in self._newborn} >= expected, self._patience_seconds
            )
            newborn, self._newborn = self._newborn, []
        if not arrived:
            raise StuckError(f"of {expected} not all asked for the time")
        for task in sorted(newborn, key=lambda task: task.thread.name):
            self._count += 1
            task.number, task.wakes_at = self._count, self.now
            assert task.thread.ident is not None
            self._tasks[task.thread.ident] = task

    def spawn(self, name: str, run: Callable[[], object]) -> None:
        def begin() -> None:
            with contextlib.suppress(Stopped):
                self._task()
                run()

        threading.Thread(target=begin, name=name, daemon=True).start()
        self.adopt()

    def pass_until(self, when: float, event: threading.Event | None = None) -> None:
        """Let time pass, and the others run, until `when` or until an event is set."""
        self._park(self._driver, event, when)

    def sleep(self, seconds: float) -> None:
        self._park(self._task(), None, self.now + seconds)

    def end(self, within_seconds: float) -> None:
        ends_at = self.now + within_seconds
        while len(self._tasks) > 1:
            if self.now >= ends_at:
                raise StuckError(f"these threads do not end: {self._names()}")
            self.pass_until(min(ends_at, self.now + 1))

    def close(self) -> None:
        """End all the others where they stand, by Stopped: for a test that failed."""
        self._closed = True
        tasks = [*self._newborn, *self._tasks.values()]
        for task in tasks:
            if task is not self._driver:
                task.turn.release()
                task.thread.join(self._patience_seconds)

    # What the clock does

    def _wall(self) -> float:
        self._task()
        return self.now + self._wall_ahead

    def _monotonic(self) -> float:
        self._task()
        return self.true

    def _awake(self) -> float:
        self._task()
        return self.now

    def _wait(self, event: threading.Event, seconds: float | None) -> bool:
        task = self._task()
        if not event.is_set() and (seconds is None or seconds > 0):
            seconds = math.inf if seconds is None else max(seconds, _SHORTEST_WAIT_SECONDS)
            self._park(task, event, self.now + seconds)
        return event.is_set()

    def _task(self) -> _Task:
        """The thread that asks; a new one waits here until it is its turn."""
        task = self._tasks.get(threading.get_ident())
        return self._arrive() if task is None else task

    def _arrive(self) -> _Task:
        task = _Task(threading.current_thread())
        with self._born:
            self._newborn.append(task)
            self._born.notify()
        task.turn.acquire()
        self._leave_if_closed()
        return task

    # Which thread runs

    def _park(self, task: _Task, event: threading.Event | None, wakes_at: float) -> None:
        self._leave_if_closed()
        assert self._running is task, f"{task.thread.name} runs and it is not its turn"
        task.event, task.wakes_at = event, wakes_at
        following = self._following()
        if following is not task:
            self._hand_to(following)
            if task is self._driver:
                self._look_after_the_others()
            else:
                task.turn.acquire()
        if task is self._driver and self._stuck:
            raise StuckError(self._stuck)
        self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        if self._closed:
            raise Stopped

    def _following(self) -> _Task:
        """Who wakes next, and time is there; the driver where nobody ever would."""
        earliest, following = math.inf, self._driver
        for task in self._tasks.values():
            at = task.ready_at(self.now)
            if (at, task.number) < (earliest, following.number):
                earliest, following = at, task
        if earliest == math.inf:
            self._stuck = f"every thread waits for what never comes: {self._names()}"
            return self._driver
        self.now = earliest
        self.steps += 1
        return following

    def _hand_to(self, task: _Task) -> None:
        self._running = task
        task.turn.release()

    def _look_after_the_others(self) -> None:
        """Wait for the driver's turn; go on for one that died, and give up on one that hangs."""
        steps, looks = self.steps, 0
        while not self._driver.turn.acquire(timeout=_LOOK_SECONDS):
            running = self._running
            if running.thread.is_alive():
                looks = 0 if self.steps != steps else looks + 1
                steps = self.steps
                if looks * _LOOK_SECONDS > self._patience_seconds:
                    raise StuckError(_hung(running.thread))
            elif self._running is running:
                self._bury(running)

    def _bury(self, dead: _Task) -> None:
        assert dead.thread.ident is not None
        del self._tasks[dead.thread.ident]
        self._hand_to(self._following())

    def _names(self) -> str:
        return ", ".join(sorted(task.thread.name for task in self._tasks.values()))


def _hung(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to see it
    stack = "".join(traceback.format_stack(frame)) if frame else ""
    return f"{thread.name} has the turn and does not give it back:\n{stack}"
