"""Listening on a Unix socket, whose file goes with it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from exophone_exporter.errors import ConfigError, StartError

PREFIX: Final = "unix:"
# The user and the group of the process may connect.
_MODE: Final = 0o660


def cannot_listen(address: str, reason: str) -> StartError:
    """The error for an address that cannot be used."""
    return StartError(
        f"cannot listen on {address}: {reason}; choose another address with --web.listen-address"
    )


class _UnixSocket(socket.socket):
    """A socket that removes its file when it is closed, unless another process has replaced it."""

    _identity: tuple[int, int] | None = None

    def open(self, path: str, backlog: int) -> None:
        """Listen; until then nobody can connect, whatever the umask."""
        self.bind(path)
        self._identity = _identity_of(path)
        Path(path).chmod(_MODE)
        self.listen(backlog)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            path = self.getsockname()
            if self._identity and _identity_of(path) == self._identity:
                Path(path).unlink()
        super().close()


def listen(address: str, backlog: int) -> socket.socket:
    """A listening socket at `unix:/path`; raises ConfigError or StartError.

    The file of a process that has died is replaced; nothing else is.
    """
    path = address.removeprefix(PREFIX)
    if not path.startswith("/"):
        raise ConfigError([f"invalid address `{address}`: a Unix socket needs an absolute path"])
    opened = _UnixSocket(socket.AF_UNIX)
    try:
        _remove_dead(path)
        opened.open(path, backlog)
    except OSError as error:
        opened.close()
        raise cannot_listen(address, error.strerror or str(error)) from error
    return opened


def _identity_of(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_dead(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)  # the backlog of a living process may be full
        try:
            client.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another process listens on it")
