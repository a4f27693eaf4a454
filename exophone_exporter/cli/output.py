"""Output for a terminal or a pipe: tables, JSON, CSV, progress."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from exophone_exporter.cli.streams import write, write_bytes
from exophone_exporter.config.number_rules import NumberRule
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.expectations import Verdict
from exophone_exporter.inventory.formatting import circle, expected, flow_state, money, problem

# A number, the name of its account, and what the rules say of it.
Listed = tuple[str, ExoPhone, Verdict]

# A pipe has no width: this is wider than the longest names, so that grep sees whole lines.
_PIPE_WIDTH: Final = 10_000
_GAP: Final = 2
_FORMULA: Final = re.compile(r"[=@]|[+-](?![0-9.]+$)")
# On a narrow terminal names and accounts shrink to the first width, then the dispensable columns
# go, then names and accounts shrink to the second width.
_GOOD_WIDTH: Final = 20
_LEAST_WIDTH: Final = 12
_SHRINKING: Final = ("Name", "Account", "Expected", "Match")
_DISPENSABLE: Final = ("Type", "Circle", "Rental")
# Where every number has a problem, the problem is what people look for.
_DISPENSABLE_ELSE: Final = ("Owner", "Expected")
_DISPENSABLE_OF_PROBLEMS: Final = ("SMS", "Voice")
_GLOBS_SHOWN: Final = 3
_RIGHT: Final = ("Rental", "Numbers", "Problems")
_STATE_STYLES: Final = {"unattached": "bold yellow", "unreadable": "bold red", "not capable": "dim"}

RECORD_FIELDS: Final = (
    "account",
    "sid",
    "phone_number",
    "friendly_name",
    "account_sid",
    "country",
    "region",
    "number_type",
    "vanity_number",
    "voice_capable",
    "sms_capable",
    "voice_flow_id",
    "sms_flow_id",
    "voice_url",
    "sms_url",
    "currency",
    "rental_price",
    "one_time_price",
    "incoming_rate",
    "incoming_pulse_seconds",
    "date_created",
    "date_updated",
    "uri",
    "problem",
    "expected",
    "owner",
)


def record(account: str, number: ExoPhone, verdict: Verdict) -> dict[str, Any]:
    """Every documented field of a number, typed: decimals as text, times as RFC 3339 in UTC."""
    values = {name: getattr(number, name, None) for name in RECORD_FIELDS} | {
        "account": account,
        "voice_flow_id": number.flow_id("voice"),
        "sms_flow_id": number.flow_id("sms"),
        "date_created": _time(number.created_timestamp_seconds),
        "date_updated": _time(number.updated_timestamp_seconds),
        "problem": problem(verdict),
        "expected": expected(verdict, text=" or ".join),
        "owner": verdict.owner,
    }
    return {
        name: str(value) if isinstance(value, Decimal) else value for name, value in values.items()
    }


def print_json(value: Any) -> None:
    """Indented JSON on stdout, in UTF-8 whatever the locale."""
    write_bytes(f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode())


def print_csv(records: Sequence[dict[str, Any]]) -> None:
    """Records as RFC 4180 in UTF-8 on stdout; without records the header line alone.

    A text that a spreadsheet would run as a formula gets an apostrophe, which makes it a text.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, RECORD_FIELDS)
    writer.writeheader()
    for row in records:
        writer.writerow({name: _as_text(_plain(value)) for name, value in row.items()})
    write_bytes(text.getvalue().encode())


def _as_text(value: str) -> str:
    return f"'{value}" if _FORMULA.match(value) else value


def print_numbers(numbers: Sequence[Listed], summary: str) -> None:
    """Numbers as a table on stdout, one line each; a narrow terminal gets fewer columns.

    `summary` is a line below the table.
    """
    columns = _columns(numbers)
    only_problems = all(verdict.has_problem for *_, verdict in numbers)
    last = _DISPENSABLE_OF_PROBLEMS if only_problems else _DISPENSABLE_ELSE
    for name in (*_DISPENSABLE, *last):
        if _width(columns, _GOOD_WIDTH) > _stdout_width():
            columns.pop(name, None)
    print_table(columns)
    write(f"\n{summary}\n")


def print_table(columns: Mapping[str, Sequence[Text]]) -> None:
    """Columns by their titles as a table on stdout."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name in columns:
        justify: JustifyMethod = "right" if name in _RIGHT else "left"
        # rich shrinks only columns that may wrap; their cells are cut all the same.
        table.add_column(name, justify=justify, no_wrap=name not in _SHRINKING)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    # If even that is too wide, the terminal wraps the lines: better than cutting numbers.
    _print(table, at_least=_width(columns, _LEAST_WIDTH))


def _columns(numbers: Sequence[Listed]) -> dict[str, list[Text]]:
    """The cells of each column by its title; those that say nothing are left out."""
    phones, verdicts = [number for _, number, _ in numbers], [verdict for *_, verdict in numbers]
    columns = {
        "Account": [_cut(account) for account, *_ in numbers],
        "Number": [Text(number.phone_number or number.sid) for number in phones],
        "Name": [_cut(number.friendly_name) for number in phones],
        "Circle": [Text(circle(number)) for number in phones],
        "Type": [Text(number.number_type) for number in phones],
        "Voice": [_state(flow_state(number, "voice")) for number in phones],
        "SMS": [_state(flow_state(number, "sms")) for number in phones],
        "Rental": [Text(money(number.rental_price, number.currency)) for number in phones],
        "Problem": [_warning(problem(verdict, number)) for _, number, verdict in numbers],
        "Expected": [_cut(expected(v, of_problems=True, text=" or ".join)) for v in verdicts],
        "Owner": [_cut(verdict.owner) for verdict in verdicts],
    }
    if len({account for account, *_ in numbers}) == 1:
        del columns["Account"]
    if not any(verdict.has_problem or verdict.rule for verdict in verdicts):
        del columns["Problem"], columns["Expected"]
    if not any(verdict.owner for verdict in verdicts):
        del columns["Owner"]
    return columns


def _width(columns: Mapping[str, Sequence[Text]], shrunk: int) -> int:
    """The width of a table whose shrinking columns are at most `shrunk` wide."""
    widths = {
        name: max(cell_len(name), *(cell_len(cell.plain) for cell in cells))
        for name, cells in columns.items()
    }
    return _GAP * (len(widths) - 1) + sum(
        min(width, shrunk) if name in _SHRINKING else width for name, width in widths.items()
    )


def print_number(account: str, number: ExoPhone, verdict: Verdict) -> None:
    """Every field of one number as a table on stdout."""
    where = circle(number)
    prices = ("rental_price", "one_time_price", "incoming_rate")
    rows = record(account, number, verdict) | {
        "region": number.region if where == number.region else f"{number.region} ({where})",
        "voice_flow_id": flow_state(number, "voice"),
        "sms_flow_id": flow_state(number, "sms"),
        **{price: money(getattr(number, price), number.currency) for price in prices},
    }
    print_pairs(rows.items())


def print_pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one pair a line, on stdout."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _state(_plain(value)))
    _print(table)


def show_progress(names: Sequence[str]) -> tuple[Progress, list[Callable[[int, int], None]]]:
    """A progress display on stderr, which shows nothing unless stderr is a terminal.

    Returns it, as a context manager, and for each name a function that takes pages and numbers.
    """
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )

    def reporter(name: str) -> Callable[[int, int], None]:
        task = progress.add_task(f"{name}: polling …", total=None)
        return lambda pages, numbers: progress.update(
            task, description=f"{name}: {numbers} numbers on {pages} pages"
        )

    return progress, [reporter(name) for name in names]


def _stdout_width() -> int:
    return Console().width if sys.stdout.isatty() else _PIPE_WIDTH


def _print(table: Table, at_least: int = 0) -> None:
    """A table on stdout, through `write`: rich would handle a broken pipe in its own way."""
    text = io.StringIO()
    console = Console(
        file=text,
        force_terminal=sys.stdout.isatty(),
        width=max(at_least, _stdout_width()),
        highlight=False,
        emoji=False,
    )
    console.print(table)
    write(re.sub(r" +\n", "\n", text.getvalue()))


def print_rules(rules: Sequence[tuple[NumberRule | None, int | None, int]]) -> None:
    """Rules, or None for numbers without one: to how many numbers they apply, and problems.

    A count is None where it is not known.
    """
    names = [rule.label if rule else "no rule" for rule, *_ in rules]
    columns = {
        "Rule": [Text(name) for name in names],
        "Match": [_cut(_match(rule)) for rule, *_ in rules],
        "Numbers": [Text("?" if count is None else str(count)) for _, count, _ in rules],
        "Problems": [_warning(str(count)) if count else Text("0") for *_, count in rules],
    }
    print_table(columns)


def _match(rule: NumberRule | None) -> str:
    match = rule.match.items() if rule else ()
    return ", ".join(f"{key} {' or '.join(_first_few(globs))}" for key, globs in match)


def _first_few(globs: Sequence[str]) -> Sequence[str]:
    more = len(globs) - _GLOBS_SHOWN
    return [*globs[:_GLOBS_SHOWN], f"{more} more"] if more > 1 else globs


def _cut(text: str) -> Text:
    """A cell that is cut to one line."""
    return Text(text, overflow="ellipsis", no_wrap=True)


def _warning(text: str) -> Text:
    return Text(text, style="bold yellow")


def _state(text: str) -> Text:
    return Text(text, style=_STATE_STYLES.get(text, ""))


def _plain(value: Any) -> str:
    text = "" if value is None else str(value)
    return text.lower() if isinstance(value, bool) else text


def _time(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
