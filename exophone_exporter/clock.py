"""The clocks and the waiting for them, as one parameter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# Linux has a clock of its own that counts suspend; the one of macOS does.
_COUNTING_SUSPEND: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds by a clock that counts suspend and that nobody sets."""
    return time.clock_gettime(_COUNTING_SUSPEND)


@dataclass(frozen=True)
class ClockReading:
    """One instant: `wall` in seconds since 1970 (UTC), `monotonic` in seconds since some start.

    The wall clock may be set, so it only dates what is shown.
    """

    wall: float
    monotonic: float

    def before(self, seconds: float) -> ClockReading:
        """The instant so many seconds earlier."""
        return ClockReading(self.wall - seconds, self.monotonic - seconds)

    def seconds_since(self, earlier: ClockReading) -> float:
        """Seconds from `earlier` to this moment, a suspend included."""
        return self.monotonic - earlier.monotonic


def _wait(event: threading.Event, seconds: float | None) -> bool:
    return event.wait(seconds)


@dataclass(frozen=True)
class Clock:
    """Where the time comes from and how it is waited for; tests give functions of their own.

    `monotonic` counts suspend, `awake` does not, like the waits of the system. `wait` waits for an
    event, at most so many seconds (None: for as long as it takes), and says whether it is set.
    `wait_since` notices the end of a suspend within `slice_seconds`.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = monotonic
    wait: Callable[[threading.Event, float | None], bool] = _wait
    slice_seconds: float = 5.0
    awake: Callable[[], float] = time.monotonic

    def now(self) -> ClockReading:
        """This moment on both clocks."""
        return ClockReading(self.wall(), self.monotonic())

    def wait_since(self, moment: ClockReading, seconds: float, event: threading.Event) -> bool:
        """Wait until so many seconds after `moment`.

        An event that is set ends it; returns whether it is.
        """
        while (rest := seconds - self.now().seconds_since(moment)) > 0:
            if self.wait(event, min(rest, self.slice_seconds)):
                return True
        return event.is_set()
