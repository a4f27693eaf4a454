"""What people read on a terminal, and programs in a pipe: tables, JSON, CSV, progress."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from exophone_exporter.errors import StartError
from exophone_exporter.inventory.formatting import circle, flow_state, money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import JustifyMethod

    from exophone_exporter.exotel.model import ExoPhone

# A pipe has no width: wider than the longest of names, so that grep sees whole lines.
_PIPE_WIDTH: Final = 10_000
_GAP: Final = 2
# On a narrow terminal names and accounts shrink to the first width, then other columns go, and
# then they shrink to the second.
_GOOD_WIDTH: Final = 20
_LEAST_WIDTH: Final = 12
_SHRINKING: Final = ("Name", "Account")
_DISPENSABLE: Final = ("Type", "Circle", "Rental")
_STATE_STYLES: Final = {
    "unattached": "bold yellow",
    "unreadable": "bold red",
    "not capable": "dim",
}

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
)


def record(account: str, number: ExoPhone) -> dict[str, Any]:
    """Every documented field of a number, typed: decimals as text, times as RFC 3339 in UTC."""
    return {
        "account": account,
        "sid": number.sid,
        "phone_number": number.phone_number,
        "friendly_name": number.friendly_name,
        "account_sid": number.account_sid,
        "country": number.country,
        "region": number.region,
        "number_type": number.number_type,
        "vanity_number": number.vanity_number,
        "voice_capable": number.voice_capable,
        "sms_capable": number.sms_capable,
        "voice_flow_id": number.flow_id("voice"),
        "sms_flow_id": number.flow_id("sms"),
        "voice_url": number.voice_url,
        "sms_url": number.sms_url,
        "currency": number.currency,
        "rental_price": _text(number.rental_price),
        "one_time_price": _text(number.one_time_price),
        "incoming_rate": _text(number.incoming_rate),
        "incoming_pulse_seconds": _text(number.incoming_pulse_seconds),
        "date_created": _time(number.created_timestamp_seconds),
        "date_updated": _time(number.updated_timestamp_seconds),
        "uri": number.uri,
    }


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_csv(records: Sequence[dict[str, Any]], columns: Iterable[str]) -> None:
    """Records as RFC 4180 on stdout, with a head line even where there are none."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns))
    writer.writeheader()
    for row in records:
        writer.writerow({name: "" if v is None else _plain(v) for name, v in row.items()})
    write(text.getvalue())


def write(text: str) -> None:
    """Text on stdout, escaped where the locale has no such character; raises as `write_bytes`."""
    write_bytes(text.encode(sys.stdout.encoding or "utf-8", errors="backslashreplace"))


def write_bytes(content: bytes) -> None:
    """Bytes on stdout, at once; raises BrokenPipeError, or StartError in a line for a person."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise StartError(f"cannot write to standard output: {error.strerror}") from error


def print_numbers(numbers: Sequence[tuple[str, ExoPhone]]) -> None:
    """Numbers as a table on stdout, one line each; a narrow terminal gets fewer columns."""
    columns = _columns(numbers)
    widths = _fitted(columns, _stdout_width())
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name, width in widths.items():
        justify: JustifyMethod = "right" if name == "Rental" else "left"
        table.add_column(name, justify=justify, overflow="ellipsis", no_wrap=True, width=width)
    for row in zip(*(columns[name] for name in widths), strict=True):
        table.add_row(*row)
    # Where even that is too wide, the terminal wraps the lines: better than cutting numbers.
    _print(table, at_least=sum(widths.values()) + _GAP * len(widths))


def _columns(numbers: Sequence[tuple[str, ExoPhone]]) -> dict[str, list[Text]]:
    """The cells of each column by its title."""
    phones = [number for _, number in numbers]
    columns = {
        "Account": [Text(account) for account, _ in numbers],
        "Number": [Text(number.phone_number or number.sid) for number in phones],
        "Name": [Text(number.friendly_name) for number in phones],
        "Circle": [Text(circle(number)) for number in phones],
        "Type": [Text(number.number_type) for number in phones],
        "Voice": [_state(flow_state(number, "voice")) for number in phones],
        "SMS": [_state(flow_state(number, "sms")) for number in phones],
        "Rental": [Text(money(number.rental_price, number.currency)) for number in phones],
    }
    if len({account for account, _ in numbers}) == 1:
        del columns["Account"]
    return columns


def _fitted(columns: dict[str, list[Text]], room: int) -> dict[str, int]:
    """The columns that stand in a terminal `room` wide, and how wide each is."""
    widths = {
        name: max(cell_len(name), *(cell_len(cell.plain) for cell in cells))
        for name, cells in columns.items()
    }
    for name in _DISPENSABLE:
        if _total(widths, _GOOD_WIDTH) > room:
            del widths[name]
    spare = max(0, room - _total(widths, _LEAST_WIDTH))
    for name in (name for name in _SHRINKING if name in widths):
        least = min(widths[name], _LEAST_WIDTH)
        grown = min(widths[name] - least, spare)
        widths[name] = least + grown
        spare -= grown
    return widths


def _total(widths: Mapping[str, int], shrunk: int) -> int:
    """What a table takes when the columns that may shrink are at most `shrunk` wide."""
    gaps = _GAP * (len(widths) - 1)
    return gaps + sum(
        min(width, shrunk) if name in _SHRINKING else width for name, width in widths.items()
    )


def print_number(account: str, number: ExoPhone) -> None:
    """Every field of one number as a table on stdout."""
    rows = record(account, number) | {
        "region": f"{number.region} ({circle(number)})"
        if circle(number) != number.region
        else number.region,
        "rental_price": money(number.rental_price, number.currency),
        "one_time_price": money(number.one_time_price, number.currency),
        "incoming_rate": money(number.incoming_rate, number.currency),
        "voice_flow_id": flow_state(number, "voice"),
        "sms_flow_id": flow_state(number, "sms"),
    }
    print_pairs(rows.items())


def print_pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one pair a line, on stdout."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _state("" if value is None else _plain(value)))
    _print(table)


def show_progress(names: Sequence[str]) -> tuple[Progress, list[Callable[[int, int], None]]]:
    """A progress display on stderr for accounts, silent unless stderr is a terminal.

    Returns it, to be entered, and for each account a function that takes pages and numbers.
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
        task = progress.add_task(f"{name}: asking …", total=None)
        return lambda pages, numbers: progress.update(
            task, description=f"{name}: {numbers} numbers on {pages} pages"
        )

    return progress, [reporter(name) for name in names]


def _stdout_width() -> int:
    return Console().width if sys.stdout.isatty() else _PIPE_WIDTH


def _print(table: Table, at_least: int = 0) -> None:
    """A table on stdout; written by us, since rich has its own mind on pipes that break."""
    text = io.StringIO()
    width = max(at_least, _stdout_width())
    console = Console(
        file=text,
        force_terminal=sys.stdout.isatty(),
        width=width,
        highlight=False,
        emoji=False,
    )
    console.print(table)
    write(text.getvalue())


def _state(text: str) -> Text:
    return Text(text, style=_STATE_STYLES.get(text, ""))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _time(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
