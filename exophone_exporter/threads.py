"""Work that would block the event loop or hold up a signal, run in a daemon thread.

No executor does it: the end of the process waits for an executor's threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def start_daemon(run: Callable[[], None]) -> None:
    """Run a function in a daemon thread; raises RuntimeError if the system has no thread left."""
    threading.Thread(target=run, name="worker", daemon=True).start()


async def in_thread(make: Callable[[], _T]) -> _T:
    """Return what `make` returns in another thread, or here if no thread can be started."""
    return await asyncio.wrap_future(_begin_somewhere(make))


def interruptible(make: Callable[[], _T]) -> _T:
    """Return what `make` returns in another thread; meanwhile this one handles signals.

    The look-up of a host name, for one, returns for no signal.
    """
    return _begin_somewhere(make).result()


def begin(make: Callable[[], _T]) -> Future[_T]:
    """Call `make` in another thread; raises RuntimeError if no thread can be started."""
    return _begin(make, start_daemon)


def _begin(make: Callable[[], _T], start: Callable[[Callable[[], None]], None]) -> Future[_T]:
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # so that a request that is given up cancels nothing

    def run() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            future.set_exception(error)

    start(run)
    return future


def _begin_somewhere(make: Callable[[], _T]) -> Future[_T]:
    """Like `begin`, but without a thread `make` is called here."""
    try:
        return begin(make)
    except RuntimeError:
        return _begin(make, lambda run: run())
