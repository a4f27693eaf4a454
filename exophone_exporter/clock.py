"""The two clocks, as one parameter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Moment:
    """One instant: `wall` in seconds since 1970 (UTC), `monotonic` in seconds since some start."""

    wall: float
    monotonic: float

    def seconds_since(self, earlier: Moment) -> float:
        """Seconds from `earlier` to this moment, never negative.

        The larger of the two clocks' answers: the wall clock may be set back, the monotonic one
        stands still while Linux is suspended.
        """
        return max(0.0, self.monotonic - earlier.monotonic, self.wall - earlier.wall)

    def later(self, seconds: float) -> Moment:
        """The moment so many seconds after this one, on both clocks."""
        return Moment(self.wall + seconds, self.monotonic + seconds)


@dataclass(frozen=True)
class Clock:
    """Where the time comes from; tests give functions of their own."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def now(self) -> Moment:
        """This moment on both clocks."""
        return Moment(self.wall(), self.monotonic())
