"""Amounts and tables as docs/performance.md and the terminal show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "performance.md"
# What one of each unit is in seconds or bytes, which is what everything here counts in.
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "B": 1.0, "MB": 1e6}


def amount(value: float, unit: str) -> str:
    """Seconds or bytes in a unit, with three digits at least: "0.33 ms", "2,177 B"."""
    return f"{figure(value, unit)} {unit}"


def figure(value: float, unit: str) -> str:
    """The same without the unit."""
    return _rounded(value / _UNITS[unit], two_below=10)


def ratio_text(ratio: float) -> str:
    """A ratio; near 1, where goals are, with three decimals."""
    return f"{ratio:.3f}" if ratio < 2 else _rounded(ratio, two_below=2)


def _rounded(value: float, two_below: float) -> str:
    decimals = 2 if value < two_below else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


@dataclass(frozen=True)
class Table:
    """Cells under columns; `sides` has a letter for each column, l or r."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sides: str

    def markdown(self) -> list[str]:
        """The lines for a document."""
        rule = "".join("|--:" if side == "r" else "|---" for side in self.sides)
        return [_piped(self.columns), f"{rule}|", *map(_piped, self.rows)]

    def aligned(self) -> list[str]:
        """The lines for a terminal."""
        table = [self.columns, *self.rows]
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        return [
            "  ".join(
                cell.rjust(width) if side == "r" else cell.ljust(width)
                for cell, width, side in zip(cells, widths, self.sides, strict=True)
            ).rstrip()
            for cells in table
        ]

    def without(self, column: str) -> Table:
        """The same but for one column."""
        at = self.columns.index(column)
        rows = [[*row[:at], *row[at + 1 :]] for row in self.rows]
        return Table(
            [*self.columns[:at], *self.columns[at + 1 :]],
            rows,
            self.sides[:at] + self.sides[at + 1 :],
        )


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(mark: str, table: Table, document: Path = DOCUMENT) -> None:
    """Put the table between the marks `<!-- mark:begin -->` and `<!-- mark:end -->`."""
    text = document.read_text("utf-8")
    begin, end = f"<!-- {mark}:begin -->\n", f"<!-- {mark}:end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{document.name} has no marks {mark}")
    body = "".join(f"{line}\n" for line in table.markdown())
    document.write_text(f"{head}{begin}{body}{end}{tail}", "utf-8")
