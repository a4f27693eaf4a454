"""Reports to the service manager: ready, alive, reloading, stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from exophone_exporter.clock import Clock, ClockReading

# Of the time that a watchdog allows: to the next sign of life, and to another try of one.
_PING_AFTER: Final = 1 / 2
_PING_AGAIN_AFTER: Final = 1 / 10
_STATUS_EVERY_SECONDS: Final = 5.0


class Notifier(Protocol):
    """The way to the service manager; `systemd.Notifier` is one."""

    @property
    def watchdog_seconds(self) -> float | None:
        """How long it waits for a sign of life, None where it does not."""
        ...

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        ...

    def tell(self, *assignments: str, patient: bool = False) -> bool:
        """Send one message; whether it was taken."""
        ...


class Supervision:
    """Tells the service manager how the process does.

    `healthy` is what /-/healthy answers, `status` the line that `systemctl status` shows. The
    watchdog is fed from the loop that also serves, and only while the process is healthy: a
    process whose loop or poller hangs is restarted, one whose API is down is not.
    """

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        *,
        healthy: Callable[[], bool],
        status: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._clock = clock
        self._healthy = healthy
        self._current_status = status
        self._is_ready = False
        self._reload_failed = False
        self._status = ""
        self._status_due_at = 0.0
        self._ping_due_at = 0.0

    def tick(self) -> None:
        """Tell what is due; the first call, which alone may wait, says that requests are served."""
        if not self._notifier.listens:
            return
        now = self._clock.now()
        if not self._is_ready:
            self._is_ready = True
            self._notifier.tell("READY=1", patient=True)
        if now.monotonic >= self._ping_due_at:
            self._ping(now)
        if now.monotonic >= self._status_due_at:
            self._tell_status(now)

    def reloading(self) -> None:
        """Say that the configuration is being loaded again."""
        microseconds = int(self._clock.monotonic() * 1e6)
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def reloaded(self, *, successful: bool) -> None:
        """Say that what is loaded now is served; the next status tells of a failure."""
        self._reload_failed = not successful
        self._status_due_at = 0.0
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def _tell(self, *assignments: str) -> None:
        """What must arrive; but before the process is ready the end of a reload would say it is."""
        if self._is_ready:
            self._notifier.tell(*assignments, patient=True)

    def _ping(self, now: ClockReading) -> None:
        allowed_seconds = self._notifier.watchdog_seconds
        if allowed_seconds is None or not self._healthy():
            return
        taken = self._notifier.tell("WATCHDOG=1")
        pause_seconds = allowed_seconds * (_PING_AFTER if taken else _PING_AGAIN_AFTER)
        self._ping_due_at = now.monotonic + pause_seconds

    def _tell_status(self, now: ClockReading) -> None:
        self._status_due_at = now.monotonic + _STATUS_EVERY_SECONDS
        status = self._current_status()
        if not self._healthy():
            status += "; a poller died or hangs, the log says why"
        if self._reload_failed:
            status += "; the last reload failed, the log says why"
        if status != self._status and self._notifier.tell(f"STATUS={status}"):
            self._status = status
