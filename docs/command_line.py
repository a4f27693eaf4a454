"""The generated parts of docs/command-line.md: commands, flags, variables, paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from exophone_exporter.cli.flags import COMMANDS, LOG
from exophone_exporter.config.loader import VARIABLES
from exophone_exporter.web.routes import PROBE, RELOAD, Handlers
from exophone_exporter.web.settings import WebSettings


def commands() -> str:
    """A section for each command, with its flags; those of logging once, at the end."""
    sections = [
        f"### `{name}`\n\n{command.summary}\n\n{_flags(command.flags)}"
        for name, command in COMMANDS.items()
    ]
    return "\n\n".join([*sections, f"### Flags of every command\n\n{_flags(LOG)}"])


def _flags(flags: Iterable[Any]) -> str:
    rows = []
    for flag in flags:
        choices = ", ".join(f"`{choice}`" for choice in flag.options.get("choices", ()))
        text, _, default = flag.text.partition(" (default: ")
        default = default.rstrip(")") or flag.options.get("default", "")
        shown = f"`{default}`" if default != "" else "\u2013"
        rows.append((f"`{flag.name}`", text + (f" One of {choices}." if choices else ""), shown))
    return _table(("flag", "meaning", "default"), rows)


def variables() -> str:
    """The variables of one account, and the keys of the configuration file that they are."""
    rows = [
        (f"`{name}`", f"`{name}_FILE`", f"`accounts[].{key}`") for key, name in VARIABLES.items()
    ]
    return _table(("variable", "or the path of a file with it", "as in a configuration file"), rows)


def paths() -> str:
    """What the server answers, with its defaults."""
    nothing = cast("Any", None)
    served = Handlers(nothing, WebSettings()).served
    rows = [(f"`{path.path}`", path.methods, path.meaning) for path in (*served, PROBE, RELOAD)]
    return _table(("path", "methods", "meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    """A cell without what Markdown would read; code has neither of these characters but `|`."""
    return cell.replace("|", r"\|").replace("*", r"\*")
