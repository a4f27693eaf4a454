"""Runs a command. Exit codes: 0 success, 1 failure, 2 usage or configuration.

Most is imported once a signal can end the process, and a command when it runs, so that --version
and --help answer immediately.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from exophone_exporter.cli import signals, streams
from exophone_exporter.errors import ConfigError, StartError

# FILE:LINE: at the start of a line is what editors and CI systems link to.
_LOCATED: Final = re.compile(r"[^`]+:[0-9]+: ")
_WITHOUT_COMMAND: Final = ("-h", "--help", "--version", "--completion-script-")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    streams.open_closed()
    words = _with_command(sys.argv[1:] if argv is None else argv)
    signals.set_handlers(words)
    from exophone_exporter.logs import say  # noqa: PLC0415 - after the handlers

    try:
        return _run(words)
    except ConfigError as error:
        for problem in error.problems:
            say(problem, prefixed=not _LOCATED.match(problem))
        return 2
    except StartError as error:
        say(str(error))
        return 1
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    finally:
        streams.discard_unwritten()


def _run(words: Sequence[str]) -> int:
    from exophone_exporter.cli.flags import COMMANDS, COMPLETION_FLAGS, parser  # noqa: PLC0415
    from exophone_exporter.logs import configure  # noqa: PLC0415 - after the handlers, likewise

    if words[0] in COMPLETION_FLAGS:
        completion = import_module("exophone_exporter.cli.completion")
        streams.write(completion.script(parser(for_completion=True), COMPLETION_FLAGS[words[0]]))
        return 0
    args = parser().parse_args(words)
    configure(args.log_level, args.log_format)
    module, name = COMMANDS[args.command].function.split(":")
    command: Callable[..., int] = getattr(import_module(f"exophone_exporter.cli.{module}"), name)
    return command(args)


def _with_command(argv: Sequence[str]) -> list[str]:
    """The words with `serve` before flags that have no command; any other word is a command."""
    match list(argv):
        case ["help", *rest]:
            return [*rest[:1], "--help"]
        case [word, *_] as words if not word.startswith("-") or word.startswith(_WITHOUT_COMMAND):
            return words
        case flags:
            return ["serve", *flags]
