"""The large part of /metrics: rendered and compressed once for each set of snapshots. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final, TypeAlias

from exophone_exporter.config.settings import Account
from exophone_exporter.inventory.snapshot import Snapshot
from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.samples import (
    MetricText,
    by_metric,
    number_lines,
    numbers_with_series,
    rule_lines,
    sum_lines,
)

# Each step of the rendering holds the interpreter; a waiting scrape runs between two steps.
NUMBERS_A_STEP: Final = 500


# An account, the snapshot that it has to show, if any, and the key of its pseudonyms, which follows
# a token that is rotated in its file.
Found: TypeAlias = tuple[Account, Snapshot | None, bytes]
# Texts by metric.
_Step: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True, eq=False)
class Inventory:
    """The series of the accounts that have something to show, in their order.

    `steps` are the texts of each account in `found`, and at the end those about the rules.
    `deflated` is raw, up to a byte boundary and without an end, so that more can follow. `length`
    and `checksum` (CRC-32) are those of the whole text.
    """

    found: Sequence[Found] = ()
    steps: Sequence[Sequence[_Step]] = ()
    texts: tuple[bytes, ...] = ()
    deflated: bytes = b""
    length: int = 0
    checksum: int = 0


def inventory_of(
    found: Sequence[Found], previous: Inventory, numbers_a_step: int = NUMBERS_A_STEP
) -> Inventory:
    """The inventory of all accounts, with the bytes of the `previous` one where nothing differs."""
    known = {
        each[0].name: (each, steps)
        for each, steps in zip(previous.found, previous.steps, strict=False)
    }
    steps = [_account_steps(each, known.get(each[0].name), numbers_a_step) for each in found]
    steps.append([_encoded(rule_lines((account, snapshot) for account, snapshot, _ in found))])
    if steps == previous.steps:
        return replace(previous, found=found)
    texts = (*_in_order([step for each in steps for step in each]),)
    checksum = reduce(lambda so_far, text: zlib.crc32(text, so_far), texts, 0)
    return Inventory(found, steps, texts, deflated(texts), sum(map(len, texts)), checksum)


def deflated(pieces: Iterable[bytes], flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Raw deflate up to a byte boundary, after which more may follow; or, with Z_FINISH, its end.

    zlib lets other threads run while it compresses. Level 1 takes a quarter of the time of level 9.
    """
    compressor = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    return b"".join([*map(compressor.compress, pieces), compressor.flush(flush)])


def _account_steps(
    found: Found, known: tuple[Found, Sequence[_Step]] | None, numbers_a_step: int
) -> Sequence[_Step]:
    """The texts of an account, or those that are known if they were made of the same."""
    account, snapshot, key = found
    if snapshot is None:
        return []
    if known:
        (known_account, known_snapshot, known_key), steps = known
        if (
            known_snapshot
            and known_snapshot.verdicts is snapshot.verdicts
            and (known_account.per_number, known_key) == (account.per_number, key)
        ):
            return steps
    chosen, dropped = numbers_with_series(snapshot, account.per_number)
    begins = range(0, len(chosen), numbers_a_step)
    lines = [number_lines(account, chosen[begin : begin + numbers_a_step]) for begin in begins]
    return [*map(_encoded, [sum_lines(account, snapshot, dropped), *lines])]


def _encoded(lines: Iterable[MetricText]) -> _Step:
    return {name: text.encode() for name, text in by_metric(lines).items()}


def _in_order(steps: Sequence[_Step]) -> Iterator[bytes]:
    """Families in the order of the catalog, each with one header and the texts of every step."""
    for metric in catalog.METRICS:
        texts = [step[metric.name] for step in steps if metric.name in step]
        if texts:
            yield metric.header(openmetrics=False).encode()  # gauges: both formats are alike
            yield from texts
