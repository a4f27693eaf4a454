"""What a number costs by how it is kept: memory, making, comparing, and garbage collection.

    python benchmarks/representation.py

Every kind holds the same values, those that the exporter reads from the simulator's pages; what is
measured is what holds them.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from datetime import UTC
from typing import Any, Final

import msgspec
from served import pages_of
from tables import Table, amount

from exophone_exporter.exotel.model import ExoPhone, parse_page

COLUMNS: Final = (
    "one number as",
    "memory",
    "to make",
    "to compare",
    "full collection, 100,000 alive",
    "collector follows it",
)
_NUMBERS: Final = 10_000
_COPIES: Final = 10
_ROUNDS: Final = 7
_FIELDS: Final = tuple(ExoPhone.__annotations__)


@dataclass(frozen=True)
class Kind:
    """One representation: bytes and seconds of a number, seconds of a garbage collection."""

    name: str
    bytes_each: float
    make_seconds: float
    compare_seconds: float
    collect_seconds: float
    followed: bool


def measured() -> list[Kind]:
    """Every kind."""
    # Read twice, so that equal numbers share as much as those of two polls do.
    values, again = _values(), _values()
    return [_measured(name, make, values, again) for name, make in _kinds().items()]


def _values() -> list[tuple[Any, ...]]:
    """The fields of each number, as the exporter reads them."""
    pages = [parse_page(page, UTC) for page in pages_of("a0", _NUMBERS)]
    return [
        tuple(getattr(number, field) for field in _FIELDS)
        for page in pages
        for number in page.numbers
    ]


def _kinds() -> dict[str, Callable[..., Any]]:
    """What each is called, and what makes one of the values."""
    return {
        "dict": lambda *values: dict(zip(_FIELDS, values, strict=True)),
        "dataclass": make_dataclass("Plain", _FIELDS, frozen=True),
        "dataclass with slots": make_dataclass("Slotted", _FIELDS, frozen=True, slots=True),
        "NamedTuple": namedtuple("Named", _FIELDS),  # noqa: PYI024 - its fields are those of ExoPhone
        "msgspec.Struct": msgspec.defstruct("Followed", _FIELDS, frozen=True),
        "msgspec.Struct, gc=False": msgspec.defstruct("Kept", _FIELDS, frozen=True, gc=False),
    }


def _measured(
    name: str,
    make: Callable[..., Any],
    values: Sequence[tuple[Any, ...]],
    again: Sequence[tuple[Any, ...]],
) -> Kind:
    def make_all() -> list[Any]:
        return [make(*each) for each in values]

    bytes_each = _bytes_each(make_all)
    one, other = make_all(), [make(*each) for each in again]
    compare_seconds = _seconds(lambda: [a == b for a, b in zip(one, other, strict=True)])
    return Kind(
        name,
        bytes_each,
        _seconds(make_all) / _NUMBERS,
        compare_seconds / _NUMBERS,
        _collect_seconds(make_all),
        gc.is_tracked(one[0]),
    )


def _bytes_each(make_all: Callable[[], list[Any]]) -> float:
    """What holds the values takes, without them and without the list of all."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    made = make_all()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before - sys.getsizeof(made)) / len(made)


def _collect_seconds(make_all: Callable[[], list[Any]]) -> float:
    """A full collection while so many are alive; whatever else is alive is left out."""
    gc.collect()
    gc.freeze()
    alive = [make_all() for _ in range(_COPIES)]
    gc.collect()  # the first one sorts out what needs no following
    seconds = _seconds(gc.collect)
    del alive
    gc.unfreeze()
    return seconds


def _seconds(run: Callable[[], object]) -> float:
    """CPU; no collection comes in between, since it has a column of its own."""
    taken = []
    gc.disable()
    for _ in range(_ROUNDS):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    gc.enable()
    return statistics.median(taken)


def table(kinds: list[Kind]) -> Table:
    """The rows as docs/performance.md has them."""
    return Table(COLUMNS, [*map(_cells, kinds)], "lrrrrl")


def _cells(kind: Kind) -> list[str]:
    return [
        kind.name,
        amount(kind.bytes_each, "B"),
        amount(kind.make_seconds, "µs"),
        amount(kind.compare_seconds, "µs"),
        amount(kind.collect_seconds, "ms"),
        "yes" if kind.followed else "no",
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join([*table(measured()).aligned(), ""]))
