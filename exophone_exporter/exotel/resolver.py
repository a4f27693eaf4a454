"""Lookups of names that end in time: those of the system have no deadline."""

from __future__ import annotations

import errno
import socket
import threading
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeAlias

from exophone_exporter.errors import TimedOut
from exophone_exporter.threads import begin

_Addresses: TypeAlias = list[Any]

_lock: Final = threading.Lock()
_pending: Final[dict[tuple[str, int], Future[_Addresses]]] = {}


def addresses_of(host: str, port: int, within_seconds: float) -> _Addresses:
    """The addresses of a host; raises TimedOut, or OSError if it has none or no thread can start.

    A lookup that hangs keeps its thread, so later calls wait for the same one.
    """
    if ":" in host or host.replace(".", "").isdigit():  # an IP address never hangs
        return _resolved(host, port)
    try:
        with _lock:
            lookup = _pending.get((host, port))
            if lookup is None:
                lookup = _pending[host, port] = begin(partial(_look_up, host, port))
        return lookup.result(within_seconds)
    except TimeoutError as error:
        raise TimedOut(f"the name {host} was not resolved in time") from error
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be started for the lookup") from error


def _look_up(host: str, port: int) -> _Addresses:
    try:
        return _resolved(host, port)
    finally:
        with _lock:  # before its callers go on: one that asks again gets a new lookup
            del _pending[host, port]


def _resolved(host: str, port: int) -> _Addresses:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
