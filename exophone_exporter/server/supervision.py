"""What the service manager is told of the running whole: ready, well, reloading, ending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exophone_exporter.clock import Clock, Moment
    from exophone_exporter.inventory.state import View

# Of the time that a watchdog allows: to the next sign of life, and to another try of one.
_PING_AFTER: Final = 1 / 2
_PING_AGAIN_AFTER: Final = 1 / 10
_STATUS_EVERY_SECONDS: Final = 5.0
_NAMES_MAX: Final = 3


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


class Exporter(Protocol):
    """What is told of; `exporter.Exporter` is one."""

    @property
    def clock(self) -> Clock:
        """The clock of the whole."""
        ...

    def views(self) -> Sequence[View]:
        """Every account as it is now."""
        ...

    def healthy(self) -> bool:
        """Whether the process does its work."""
        ...


class Supervision:
    """Tells the service manager how the process does.

    A sign of life is given from the loop that also serves, and only while `exporter.healthy()`: the
    answer of /-/healthy, which never depends on what the API does. So a process whose loop or whose
    poller hangs is restarted, and one whose API is down is not.
    """

    def __init__(self, notifier: Notifier, exporter: Exporter) -> None:
        self._notifier = notifier
        self._exporter = exporter
        self._is_ready = False
        self._reload_failed = False
        self._status = ""
        self._status_due_at = 0.0
        self._ping_due_at = 0.0

    def tick(self) -> None:
        """Tell what is due; the first call, which alone may wait, says that requests are served."""
        if not self._notifier.listens:
            return
        now = self._exporter.clock.now()
        if not self._is_ready:
            self._is_ready = True
            self._notifier.tell("READY=1", patient=True)
        if now.monotonic >= self._ping_due_at:
            self._ping(now)
        if now.monotonic >= self._status_due_at:
            self._tell_status(now)

    def reloading(self) -> None:
        """Say that the configuration is being loaded again."""
        microseconds = int(self._exporter.clock.monotonic() * 1e6)
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

    def _ping(self, now: Moment) -> None:
        allowed_seconds = self._notifier.watchdog_seconds
        if allowed_seconds is None or not self._exporter.healthy():
            return
        taken = self._notifier.tell("WATCHDOG=1")
        pause_seconds = allowed_seconds * (_PING_AFTER if taken else _PING_AGAIN_AFTER)
        self._ping_due_at = now.monotonic + pause_seconds

    def _tell_status(self, now: Moment) -> None:
        self._status_due_at = now.monotonic + _STATUS_EVERY_SECONDS
        status = in_words(self._exporter.views(), now)
        if not self._exporter.healthy():
            status += "; a poller died or hangs, the log says why"
        if self._reload_failed:
            status += "; the last reload failed, the log says why"
        if status != self._status and self._notifier.tell(f"STATUS={status}"):
            self._status = status


def in_words(views: Sequence[View], now: Moment) -> str:
    """Every account in one line, as `systemctl status` shows it."""
    known = [snapshot for view in views if (snapshot := view.fresh_snapshot(now))]
    numbers = sum(len(snapshot.numbers) for snapshot in known)
    busy = sum(group.unattached["voice"] for snapshot in known for group in snapshot.groups)
    accounts = f"{len(views)} account{'' if len(views) == 1 else 's'}"
    failing = [f"{view.account.name} ({view.error.reason})" for view in views if view.error]
    waiting = [view.account.name for view in views if view.last_attempt is None]
    return (
        f"{accounts}, {numbers} numbers, {busy} without a voice flow"
        f"{_listed('failing', failing)}{_listed('waiting for the first poll', waiting)}"
    )


def _listed(what: str, names: Sequence[str]) -> str:
    """The first few of some accounts, if there are any."""
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return f"; {what}: {', '.join(names[:_NAMES_MAX])}{more}" if names else ""
