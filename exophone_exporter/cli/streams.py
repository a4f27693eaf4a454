"""The standard streams of the process."""

from __future__ import annotations

import os
import sys
from typing import Final

from exophone_exporter.errors import StartError

_LAST_STANDARD_STREAM: Final = 2


def open_closed() -> None:
    """Open closed standard streams on /dev/null; a socket would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_STREAM:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, kept open
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - likewise


def write(text: str) -> None:
    """Text on stdout, escaped for the locale of the user; raises as `write_bytes`."""
    write_bytes(text.encode(sys.stdout.encoding or "utf-8", errors="backslashreplace"))


def write_bytes(content: bytes) -> None:
    """Bytes on stdout, unbuffered; raises BrokenPipeError, or StartError for any other failure."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StartError(f"cannot write to standard output: {error.strerror}") from error


def discard_unwritten() -> None:
    """Drop what a stream did not take, or the interpreter tries again, and fails, at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
