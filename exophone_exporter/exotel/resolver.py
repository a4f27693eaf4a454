"""Lookups of names that end in time: those of the system have no deadline."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

_Addresses: TypeAlias = list[Any]

_lock: Final = threading.Lock()
_pending: Final[dict[tuple[str, int], Future[_Addresses]]] = {}


def addresses_of(host: str, port: int, within_seconds: float) -> _Addresses:
    """The addresses of a host; raises TimeoutError, or what the lookup raises.

    A lookup that hangs keeps its thread, so later calls wait for the same one.
    """
    if ":" in host or host.replace(".", "").isdigit():  # an IP address never hangs
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with _lock:
        lookup = _pending.get((host, port))
        if lookup is None:
            lookup = Future()
            run = threading.Thread(
                target=_look_up, args=(host, port, lookup), name="lookup", daemon=True
            )
            run.start()
            _pending[host, port] = lookup
    return lookup.result(within_seconds)


def _look_up(host: str, port: int, lookup: Future[_Addresses]) -> None:
    found: _Addresses = []
    failure: BaseException | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
        failure = error
    with _lock:  # first, so that a caller that has the answer and asks again gets a new one
        del _pending[host, port]
    if failure is not None:
        lookup.set_exception(failure)
    else:
        lookup.set_result(found)
