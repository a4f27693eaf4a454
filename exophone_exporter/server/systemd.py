"""Sockets passed by systemd, and notifications to it.

The two protocols are sd_listen_fds(3) and sd_notify(3): variables of the environment, and
datagrams. Without systemd neither does anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat
from typing import Final

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.errors import StartError
from exophone_exporter.logs import fields

_FIRST_PASSED_DESCRIPTOR: Final = 3
# How long a message that must arrive waits for a busy systemd.
_PATIENCE_SECONDS: Final = 1.0
# Shares of the watchdog's time: to the next ping, and to the next attempt after a failed one.
_PING_AFTER: Final = 1 / 2
_PING_AGAIN_AFTER: Final = 1 / 10
_STATUS_EVERY_SECONDS: Final = 5.0

_FLAG: Final = "--web.systemd-socket"

_log = logging.getLogger(__name__)


def passed_sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """The listening sockets that systemd passed to the process `pid`, as in sd_listen_fds(3).

    They are not inherited further. Raises StartError with one line.
    """
    count = environ.get("LISTEN_FDS", "")
    if re.fullmatch("[0-9]{1,4}", count) is None or int(count) == 0:
        raise StartError(
            f"{_FLAG}: systemd passed no socket; start the service by its .socket unit,"
            " or omit the flag"
        )
    if environ.get("LISTEN_PID") != str(pid):
        raise StartError(
            f"{_FLAG}: the sockets were passed to process {environ.get('LISTEN_PID', '?')},"
            f" this is {pid}; have ExecStart= run exophone-exporter itself, or `exec` it"
        )
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    descriptors = range(_FIRST_PASSED_DESCRIPTOR, _FIRST_PASSED_DESCRIPTOR + int(count))
    return all_or_none(map(_passed_socket, descriptors, chain(names, repeat("?"))))


def all_or_none(opened: Iterable[socket.socket]) -> list[socket.socket]:
    """The sockets as they are opened; if one raises, those before it are closed."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in opened]
        stack.pop_all()
    return sockets


def _passed_socket(descriptor: int, name: str) -> socket.socket:
    """A descriptor as a listening stream socket; raises StartError."""
    named = f"{_FLAG}: descriptor {descriptor} ({name or '?'})"
    try:
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(
            f"{named} is not a socket; use ListenStream= in the .socket unit"
        ) from error
    if passed.type != socket.SOCK_STREAM:
        problem = "is not a stream socket; use ListenStream= in the .socket unit"
    elif not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        problem = "does not listen; use Accept=no in the .socket unit"
    else:
        return passed
    passed.close()
    raise StartError(f"{named} {problem}")


class Supervision:
    """Notifies systemd of the state of the process by sd_notify(3), if systemd asked for it.

    The states are ready, alive, reloading and stopping. `healthy` is what /-/healthy answers,
    `status` the line that `systemctl status` shows. `watchdog_seconds` is how long systemd waits
    for the next WATCHDOG=1, None if it does not wait. The watchdog is pinged from the loop that
    also serves, and only while the process is healthy: a process whose loop or poller hangs is
    restarted, one whose API is down is not. Whatever is wrong with the other side has no effect
    here.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        pid: int,
        clock: Clock,
        *,
        healthy: Callable[[], bool],
        status: Callable[[], str],
    ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self.is_enabled = path.startswith(("/", "@"))
        self.watchdog_seconds = _watchdog_seconds(environ, pid) if self.is_enabled else None
        self._clock = clock
        self._healthy = healthy
        self._status = status
        self._is_ready = False
        self._reload_failed = False
        self._sent_status = ""
        self._status_due_at = 0.0
        self._ping_due_at = 0.0

    def notify(self, *assignments: str, wait: bool = False) -> bool:
        """Send some `NAME=value` as one message; whether it was accepted.

        With `wait` it waits a moment for room in the queue.
        """
        if not self.is_enabled:
            return False
        message = "\n".join(each.replace("\n", " ") for each in assignments).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_PATIENCE_SECONDS if wait else 0)
                sender.sendto(message, self._address)
        except OSError as error:
            _log.debug("systemd not notified", extra=fields(what=assignments[0], error=error))
            return False
        return True

    def tick(self) -> None:
        """Send what is due. The first call says that requests are served; only it may wait."""
        if not self.is_enabled:
            return
        now = self._clock.now()
        if not self._is_ready:
            self._is_ready = True
            self.notify("READY=1", wait=True)
        if now.monotonic >= self._ping_due_at:
            self._ping(now)
        if now.monotonic >= self._status_due_at:
            self._send_status(now)

    def reloading(self) -> None:
        """Say that the configuration is being reloaded."""
        microseconds = int(self._clock.awake() * 1e6)
        self._notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def reloaded(self, successful: bool) -> None:
        """Say that the reload has ended; the next status reports a failure."""
        self._reload_failed = not successful
        self._status_due_at = 0.0
        self._notify("READY=1")

    def stopping(self) -> None:
        """Say that the process is stopping."""
        self._notify("STOPPING=1", "STATUS=stopping")

    def _notify(self, *assignments: str) -> None:
        """Nothing before the first tick: the end of a reload would say that requests are served."""
        if self._is_ready:
            self.notify(*assignments, wait=True)

    def _ping(self, now: ClockReading) -> None:
        if self.watchdog_seconds is None or not self._healthy():
            return
        accepted = self.notify("WATCHDOG=1")
        pause_seconds = self.watchdog_seconds * (_PING_AFTER if accepted else _PING_AGAIN_AFTER)
        self._ping_due_at = now.monotonic + pause_seconds

    def _send_status(self, now: ClockReading) -> None:
        self._status_due_at = now.monotonic + _STATUS_EVERY_SECONDS
        status = self._status()
        if not self._healthy():
            status += "; a poller has died or is stuck, see the log"
        if self._reload_failed:
            status += "; the last reload failed, see the log"
        if status != self._sent_status and self.notify(f"STATUS={status}"):
            self._sent_status = status


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """The longest time between two WATCHDOG=1 of this process; see sd_watchdog_enabled(3)."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # it is meant for a process that started this one
    if re.fullmatch("[0-9]{1,18}", microseconds) is None or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6
