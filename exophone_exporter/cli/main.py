"""Runs a command. Exit codes: 0 success, 1 failure, 2 usage or configuration.

A command is imported when it runs, so that --version and --help answer immediately.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

from exophone_exporter.cli.flags import COMMANDS, COMPLETION_FLAGS, parser
from exophone_exporter.errors import ConfigError, StartError
from exophone_exporter.logs import configure, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SERVING: Final = ("serve", "demo", "simulate")
_WITHOUT_COMMAND: Final = ("-h", "--help", "--version", *COMPLETION_FLAGS)
_LAST_STANDARD_STREAM: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_closed_streams()
    words = _with_command(sys.argv[1:] if argv is None else argv)
    _set_early_signals(words[0])
    try:
        return _run(words)
    except ConfigError as error:
        for problem in error.problems:
            say(problem)
        return 2
    except StartError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    finally:
        _discard_unwritten()


def _run(words: Sequence[str]) -> int:
    if words[0] in COMPLETION_FLAGS:
        completion = import_module("exophone_exporter.cli.completion")
        sys.stdout.write(completion.script(parser(for_completion=True), COMPLETION_FLAGS[words[0]]))
        return 0
    args = parser().parse_args(words)
    configure(args.log_level, args.log_format)
    module, name = COMMANDS[args.command].function.split(":")
    command: Callable[..., int] = getattr(import_module(f"exophone_exporter.cli.{module}"), name)
    return command(args)


def _with_command(argv: Sequence[str]) -> list[str]:
    """The words with `serve` before flags that have no command; any other word is a command."""
    has_command = argv and (not argv[0].startswith("-") or argv[0] in _WITHOUT_COMMAND)
    return list(argv) if has_command else ["serve", *argv]


def _set_early_signals(command: str) -> None:
    """Until the server takes over, a signal ends the process with the same exit code as later."""
    if command in _SERVING:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
    if command == "serve":
        # It reloads on SIGHUP; one that comes before there is anything to reload is only early.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _leave(*_: object) -> NoReturn:
    # There is nothing to clean up yet. An exception would be lost if the signal arrives inside a
    # callback of the interpreter, of which importing has many.
    os._exit(0)


def _discard_unwritten() -> None:
    """Drop what a full disk did not take, or the interpreter tries again, and fails, at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_closed_streams() -> None:
    """Open closed standard streams on /dev/null; a socket would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_STREAM:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, kept open
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - likewise
