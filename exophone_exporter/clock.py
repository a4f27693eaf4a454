"""The two clocks and the waiting for them, as one parameter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


@dataclass(frozen=True)
class ClockReading:
    """One instant: `wall` in seconds since 1970 (UTC), `monotonic` in seconds since some start."""

    wall: float
    monotonic: float

    def seconds_since(self, earlier: ClockReading) -> float:
        """Seconds from `earlier` to this moment, never negative.

        The larger of the two clocks' answers: the wall clock may be set back, the monotonic one
        stands still while Linux is suspended.
        """
        return max(0.0, self.monotonic - earlier.monotonic, self.wall - earlier.wall)


def _wait(event: threading.Event, seconds: float | None) -> bool:
    return event.wait(seconds)


@dataclass(frozen=True)
class Clock:
    """Where the time comes from and how it is waited for; tests give functions of their own.

    `wait` waits for an event, at most so many seconds by the monotonic clock (None: for as long as
    it takes), and says whether it is set. So soon as `slice_seconds` after a suspend, `wait_since`
    asks the clocks again.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float | None], bool] = _wait
    slice_seconds: float = 5.0

    def now(self) -> ClockReading:
        """This moment on both clocks."""
        return ClockReading(self.wall(), self.monotonic())

    def wait_since(self, moment: ClockReading, seconds: float, event: threading.Event) -> bool:
        """Wait until so many seconds after `moment`, by whichever clock says so first.

        An event that is set ends it; returns whether it is. See `Moment.seconds_since`.
        """
        while (rest := seconds - self.now().seconds_since(moment)) > 0:
            if self.wait(event, min(rest, self.slice_seconds)):
                return True
        return event.is_set()
