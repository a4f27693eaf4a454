"""The completion scripts, by shtab."""

from __future__ import annotations

import argparse
from typing import Final

import shtab

# The metavars of paths.
_PATHS: Final = ("FILE", "FILE.prom")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that completes a parser and its commands in bash, zsh or fish."""
    for each in (parser, *_commands(parser)):
        for action in each._actions:  # noqa: SLF001 - argparse has no public way
            if action.metavar in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks
    text: str = shtab.complete(parser, shell)
    return text


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [
        command
        for action in parser._actions  # noqa: SLF001 - likewise
        if isinstance(action.choices, dict)
        for command in action.choices.values()
    ]
