"""How many requests an account may make: the API's limit, kept on our side.

Any 60 seconds hold at most `requests_per_minute` requests. A walk may spend what has been saved up
immediately and then waits; that is faster than even pacing and never over the limit.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# A request reaches the API a little after it was sent: one second more than the minute keeps two
# that travelled at different speeds out of one minute of the API's.
WINDOW_SECONDS: Final = 61.0


@dataclass(eq=False, slots=True)
class Slot:
    """One request: `at` is when it was sent or, before that, the earliest time for it.

    It may be sent a window after the request in `after`, which is the one so many slots earlier as
    the limit allows.
    """

    after: Slot | None
    at: float = 0.0


class RateLimiter:
    """A sliding window of the requests made, shared by all that ask about one account.

    It also keeps everybody waiting who asks while the API wants no request. Safe between threads.
    """

    def __init__(self, requests_per_minute: int, monotonic: Callable[[], float]) -> None:
        self._slots: deque[Slot] = deque(maxlen=requests_per_minute)
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._held_until = self._balance_held_until = -math.inf

    @property
    def requests_per_minute(self) -> int:
        """The limit."""
        return self._slots.maxlen or 0

    def reserve(self, within_seconds: float) -> Slot | None:
        """Take the next slot; None, and nothing is taken, if it is not free within that time."""
        with self._lock:
            slot = Slot(self._oldest())
            if self.delay_seconds(slot) > within_seconds:
                return None
            self._slots.append(slot)
            return slot

    def delay_seconds(self, slot: Slot) -> float:
        """Seconds until a request may be sent; at 0 it counts as sent now.

        Ask again after that time: it grows if the API asks to wait, or if earlier requests leave
        late.
        """
        with self._lock:
            now = self._monotonic()
            free_at = -math.inf if slot.after is None else slot.after.at + WINDOW_SECONDS
            slot.at = max(now, free_at, self._held_until)
            if slot.at == now:
                slot.after = None  # or each slot would keep all earlier ones
            return slot.at - now

    def stamp(self, slot: Slot) -> None:
        """The request leaves only now, because connecting took some time."""
        with self._lock:
            slot.at = self._monotonic()

    def wait_seconds(self) -> float:
        """Seconds until a slot is free; takes none."""
        with self._lock:
            return self.delay_seconds(Slot(self._oldest()))

    def hold_off(self, seconds: float, *, only_balance: bool = False) -> None:
        """Send nothing, or no request for the balance, for so long: the API asked for it."""
        with self._lock:
            until = self._monotonic() + seconds
            self._balance_held_until = max(self._balance_held_until, until)
            if not only_balance:
                self._held_until = max(self._held_until, until)

    def hold_off_seconds(self, *, of_balance: bool = False) -> float:
        """Seconds left of the longest wait that the API asked for, or 0."""
        with self._lock:
            held_until = self._balance_held_until if of_balance else self._held_until
            return max(0.0, held_until - self._monotonic())

    def is_idle(self) -> bool:
        """Whether a new limiter would allow the same: no request counts and no wait is pending.

        A request counts for twice the window, because the last one may still be under way.
        """
        with self._lock:
            counts_until = self._slots[-1].at + 2 * WINDOW_SECONDS if self._slots else -math.inf
            # The wait for the balance is never shorter than that of all requests.
            return self._monotonic() > max(counts_until, self._balance_held_until)

    def resize(self, requests_per_minute: int) -> None:
        """Allow so many from now on, those of the last minute included."""
        with self._lock:
            self._slots = deque(self._slots, maxlen=requests_per_minute)

    def _oldest(self) -> Slot | None:
        return self._slots[0] if len(self._slots) == self._slots.maxlen else None
