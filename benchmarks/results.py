"""What was measured of the goals, in one run or in several, and how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tables import Table, amount, figure, ratio_text

_VERDICTS: Final = {True: "met", False: "missed", None: ""}


@dataclass(frozen=True)
class Result:
    """One figure next to its anchor, in seconds or bytes; `unit` is how they are shown.

    `met` is None where there is no goal.
    """

    goal: int
    what: str
    value: float
    unit: str
    anchor: str
    anchor_value: float
    ratio: float
    met: bool | None

    def line(self) -> str:
        """What is printed as soon as it is measured."""
        reference = f"{self.anchor}: {amount(self.anchor_value, self.unit)}"
        return (
            f"{self.goal} {self.what:50} {amount(self.value, self.unit):>9}  {reference:27}"
            f" {ratio_text(self.ratio):>6}  {_VERDICTS[self.met]}"
        ).rstrip()


@dataclass(frozen=True)
class Row:
    """The same figure of every run."""

    runs: tuple[Result, ...]

    @property
    def median(self) -> Result:
        """The run in the middle; of two, the better one."""
        return sorted(self.runs, key=lambda run: run.value)[(len(self.runs) - 1) // 2]

    @property
    def verdict(self) -> str:
        """Met is what every run met."""
        missed = sum(run.met is False for run in self.runs)
        if missed in (0, len(self.runs)):
            return _VERDICTS[self.median.met]
        return f"missed in {missed} of {len(self.runs)}"

    def cells(self) -> tuple[str, ...]:
        """The median run, and from the least to the greatest what all runs found."""
        median = self.median
        spread = sorted(run.value for run in self.runs)
        return (
            str(median.goal),
            median.what,
            amount(median.value, median.unit),
            " · ".join(figure(value, median.unit) for value in spread),
            f"{median.anchor}: {amount(median.anchor_value, median.unit)}",
            ratio_text(median.ratio),
            self.verdict,
        )


def rows(runs: Sequence[Sequence[Result]]) -> list[Row]:
    """What each run found, figure by figure; every run has measured the same."""
    return [Row(same) for same in zip(*runs, strict=True)]


def table(rows: Sequence[Row]) -> Table:
    """The rows as docs/performance.md has them."""
    columns = ("goal", "what", "figure", "all runs", "reference", "ratio", "")
    return Table(columns, [row.cells() for row in rows], "rlrrlrl")
