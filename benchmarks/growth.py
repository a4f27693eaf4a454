"""What it costs as the work grows: a row for each size, and the plot of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import load
import subjects
from in_process import poll_cpu, rendering
from tables import Table, amount

COLUMNS: Final = (
    "numbers",
    "accounts",
    "text",
    "gzip",
    "scrape",
    "memory",
    "poll, unchanged",
    "poll, all changed",
    "rendering",
    "`generate_latest`",
)
# Numbers in all, and the accounts that they are spread over.
_SPREAD_NUMBERS: Final = 10_000
SIZES: Final = ((1000, 1), (10_000, 1), (100_000, 1), (10_000, 10), (10_000, 100))


@dataclass(frozen=True)
class Cost:
    """One size: bytes, seconds, and what the reference takes for the same."""

    numbers: int
    accounts: int
    text_bytes: int
    gzip_bytes: int
    scrape_seconds: float
    resident_bytes: int
    poll_unchanged_seconds: float
    poll_changed_seconds: float
    render_seconds: float
    reference_seconds: float


def costs() -> Iterator[Cost]:
    """Each size, as soon as it is measured."""
    for numbers, accounts in SIZES:
        each = numbers // accounts
        with subjects.exporter(each, accounts) as ours:
            gzipped = subjects.fetch(ours.url)
            text = subjects.fetch(ours.url, "identity")
            scrape = statistics.median(load.scrape_seconds(ours.url))
            resident = ours.resident_bytes()
        unchanged, changed = poll_cpu(each, accounts, rounds=3)
        rendered, reference, _ = rendering(each, rounds=3)
        yield Cost(
            numbers,
            accounts,
            len(text),
            len(gzipped),
            scrape,
            resident,
            unchanged,
            changed,
            rendered,
            reference,
        )


def table(rows: list[Cost]) -> Table:
    """The rows as docs/performance.md has them."""
    return Table(COLUMNS, [*map(_cells, rows)], "r" * len(COLUMNS))


def _cells(cost: Cost) -> list[str]:
    return [
        f"{cost.numbers:,}",
        str(cost.accounts),
        amount(cost.text_bytes, "MB"),
        amount(cost.gzip_bytes, "MB"),
        amount(cost.scrape_seconds, "ms"),
        amount(cost.resident_bytes, "MB"),
        amount(cost.poll_unchanged_seconds, "ms"),
        amount(cost.poll_changed_seconds, "ms"),
        amount(cost.render_seconds, "ms"),
        amount(cost.reference_seconds, "ms"),
    ]


def plot(rows: list[Cost], file: Path) -> None:
    """Time against numbers in one account, and against the accounts that 10,000 are spread over.

    All axes are logarithmic. Needs matplotlib.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only who writes the plot needs it
    from matplotlib import pyplot as plt  # noqa: PLC0415 - likewise

    mpl.rcParams |= {"svg.hashsalt": "exophone", "svg.fonttype": "none", "font.size": 10}
    figure, (by_numbers, by_accounts) = plt.subplots(
        1, 2, figsize=(10, 4.2), sharey=True, layout="constrained"
    )
    one = [cost for cost in rows if cost.accounts == 1]
    spread = [cost for cost in rows if cost.numbers == _SPREAD_NUMBERS]
    _draw(by_numbers, "ExoPhones in one account", [cost.numbers for cost in one], one)
    _draw(by_accounts, "accounts with 10,000 in all", [cost.accounts for cost in spread], spread)
    by_numbers.set_ylabel("milliseconds")
    by_accounts.legend(loc="upper right", frameon=False)
    figure.savefig(file, metadata={"Date": None})


def _draw(axes: Any, what: str, sizes: list[int], costs: list[Cost]) -> None:
    for label, seconds, style in (
        ("generate_latest", [cost.reference_seconds for cost in costs], "--"),
        ("poll of an account, all changed", [cost.poll_changed_seconds for cost in costs], "-"),
        ("rendering of it", [cost.render_seconds for cost in costs], "-"),
        ("poll of it, nothing changed", [cost.poll_unchanged_seconds for cost in costs], "-"),
        ("scrape of the whole, gzip", [cost.scrape_seconds for cost in costs], "-"),
    ):
        axes.loglog(sizes, [s * 1000 for s in seconds], style, marker="o", label=label)
    axes.set(xlabel=what, xticks=sizes)
    axes.set_xticklabels([f"{size:,}" for size in sizes])
    axes.grid(visible=True, which="major", alpha=0.3)
