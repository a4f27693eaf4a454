"""What systemd passes to a process, and what a process tells systemd.

The two protocols are sd_listen_fds(3) and sd_notify(3): some variables, and a datagram. Without
systemd neither does anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from typing import TYPE_CHECKING, Final

from exophone_exporter.errors import StartError
from exophone_exporter.logs import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST_PASSED_DESCRIPTOR: Final = 3
_MICROSECONDS: Final = 1_000_000
# What must arrive waits so long for a systemd that is busy.
_PATIENCE_SECONDS: Final = 1.0

_FLAG: Final = "--web.systemd-socket"

_log = logging.getLogger(__name__)


def passed_sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """The listening sockets that systemd passed to the process `pid`, as sd_listen_fds(3) has it.

    They are not inherited further. Raises StartError in one line for a person.
    """
    count = environ.get("LISTEN_FDS", "")
    if re.fullmatch("[0-9]{1,4}", count) is None or int(count) == 0:
        raise StartError(
            f"{_FLAG}: systemd passed no socket; start the service by its .socket unit,"
            " or leave the flag out"
        )
    if environ.get("LISTEN_PID") != str(pid):
        raise StartError(
            f"{_FLAG}: the sockets were passed to process {environ.get('LISTEN_PID', '?')},"
            f" this is {pid}; have ExecStart= run exophone-exporter itself, or `exec` it"
        )
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["?"] * (int(count) - len(names))
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(_passed_socket(_FIRST_PASSED_DESCRIPTOR + number, names[number]))
            for number in range(int(count))
        ]
        opened.pop_all()  # all of them or none
        return sockets


def _passed_socket(descriptor: int, name: str) -> socket.socket:
    """A descriptor as a socket, if it is one that takes connections."""
    told = f"{_FLAG}: descriptor {descriptor} ({name or '?'})"
    try:
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(f"{told} is no socket; use ListenStream= in the .socket unit") from error
    if passed.type != socket.SOCK_STREAM:
        passed.close()
        raise StartError(f"{told} is no stream socket; use ListenStream= in the .socket unit")
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        passed.close()
        raise StartError(f"{told} does not listen; use Accept=no in the .socket unit")
    return passed


class Notifier:
    """Tells systemd about this process by sd_notify(3), where systemd asked for it.

    `watchdog_seconds` is how long it waits for the next WATCHDOG=1, None where it does not wait.
    Whatever is wrong with the other side disturbs nothing here.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self.listens = path.startswith(("/", "@"))
        self.watchdog_seconds = _watchdog_seconds(environ, pid) if self.listens else None

    def tell(self, *assignments: str, patient: bool = False) -> bool:
        """Send some `NAME=value` as one message; whether it was taken.

        A patient sender waits a moment for room in the queue, any other leaves at once.
        """
        if not self.listens:
            return False
        message = "\n".join(each.replace("\n", " ") for each in assignments).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_PATIENCE_SECONDS if patient else 0)
                sender.sendto(message, self._address)
        except OSError as error:
            _log.debug("systemd was not told", extra=fields(what=assignments[0], error=error))
            return False
        return True


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """What systemd allows between two WATCHDOG=1 of this process; see sd_watchdog_enabled(3)."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # it is meant for a process that started this one
    if re.fullmatch("[0-9]{1,18}", microseconds) is None or int(microseconds) == 0:
        return None
    return int(microseconds) / _MICROSECONDS
