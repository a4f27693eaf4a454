"""How many requests an account may make: the API's limit, kept on our side.

Any 60 seconds hold at most `requests_per_minute` requests. A walk may spend what has been saved up
immediately and then waits; that is faster than even pacing and never over the limit.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# A request reaches the API a little after it was sent: one second more than the minute keeps two
# that travelled at different speeds out of one minute of the API's.
WINDOW_SECONDS: Final = 61.0


class RateLimiter:
    """A sliding window of the places taken; shared by the poll and the probes of one account.

    Also records until when the API asked to wait. Callers must check that themselves; places are
    given out in any case.
    """

    def __init__(self, requests_per_minute: int, monotonic: Callable[[], float]) -> None:
        self._places: deque[float] = deque(maxlen=requests_per_minute)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._asked_until = -math.inf

    def reserve(self, within_seconds: float) -> float | None:
        """Take the next place; returns the seconds to wait until it may be used.

        None, and nothing is taken, where that would be more than `within_seconds`.
        """
        with self._lock:
            now = self._monotonic()
            wait_seconds = self._wait_seconds(now)
            if wait_seconds > within_seconds:
                return None
            self._places.append(now + wait_seconds)
            return wait_seconds

    def wait_seconds(self) -> float:
        """Seconds until there is a place; takes none."""
        with self._lock:
            return self._wait_seconds(self._monotonic())

    def hold_off(self, seconds: float) -> None:
        """Remember that the API asked to wait so long from now."""
        with self._lock:
            self._asked_until = max(self._asked_until, self._monotonic() + seconds)

    def hold_off_seconds(self) -> float:
        """Seconds left of the longest wait that the API asked for, or 0."""
        with self._lock:
            return max(0.0, self._asked_until - self._monotonic())

    def resize(self, requests_per_minute: int) -> None:
        """Allow so many from now on, those of the last minute included."""
        with self._lock:
            self._places = deque(self._places, maxlen=requests_per_minute)

    def _wait_seconds(self, now: float) -> float:
        if len(self._places) != self._places.maxlen:
            return 0.0
        return max(0.0, self._places[0] + WINDOW_SECONDS - now)
