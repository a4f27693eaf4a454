"""How SIGTERM, SIGINT and SIGHUP act on a command until a server handles them.

It imports little, so that the handlers are set early: as PID 1, a process without them ignores
these signals.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Final

_SERVING: Final = ("serve", "demo", "simulate")
_SHOW_CURSOR: Final = b"\n\x1b[?25h"

# Files that are deleted if a signal ends the command.
unfinished_files: set[str] = set()


def set_handlers(words: Sequence[str]) -> None:
    """Let SIGTERM and SIGINT end a command immediately, whatever it waits for.

    SIGHUP ends it as well, unless it will reload.
    """

    def end(number: int, _frame: object) -> None:
        # No exception: it would be lost inside a callback of the interpreter.
        for name in unfinished_files:
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - pathlib is not imported yet
        _show_cursor()
        os._exit(0 if words[0] in _SERVING else 128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    has_file = any(word.startswith("--config.file") for word in words)
    if words[0] == "serve" and (has_file or not _has_terminal()):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing to reload yet


def hangup_reloads() -> bool:
    """Whether SIGHUP reloads the configuration instead of ending the process."""
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True


def _show_cursor() -> None:
    """Show the cursor below the progress that hid it, unless the terminal is not read."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty() and select.select([], [sys.stderr], [], 0)[1]:
            os.write(sys.stderr.fileno(), _SHOW_CURSOR)
