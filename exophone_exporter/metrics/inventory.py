"""The large part of /metrics: rendered and compressed once for each set of snapshots. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from exophone_exporter.config.number_rules import NumberRules
from exophone_exporter.config.settings import Account, PerNumber
from exophone_exporter.inventory.expectations import Verdict
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


@dataclass(frozen=True, eq=False)
class _AccountTexts:
    """The texts of an account by metric, in steps, and what they were made from."""

    verdicts: tuple[Verdict, ...]
    per_number: PerNumber
    pseudonym_key: bytes
    steps: Sequence[Mapping[str, bytes]]


@dataclass(frozen=True, eq=False)
class Inventory:
    """The series of the accounts that have something to show, in their order.

    `rules` are those of each account, and whether its matches are known. `deflated` is raw, up to a
    byte boundary and without an end, so that more can follow. `length` and `checksum` (CRC-32) are
    those of the whole text.
    """

    accounts: Mapping[str, _AccountTexts]
    rules: Sequence[tuple[NumberRules, bool]]
    texts: tuple[bytes, ...]
    deflated: bytes
    length: int
    checksum: int


NOTHING: Final = Inventory({}, [], (), b"", 0, 0)


def inventory_of(
    found: Sequence[tuple[Account, Snapshot | None]],
    previous: Inventory,
    numbers_a_step: int = NUMBERS_A_STEP,
) -> Inventory:
    """The inventory of all accounts; `previous` itself where nothing differs."""
    accounts = {
        account.name: _account_texts(
            account, snapshot, previous.accounts.get(account.name), numbers_a_step
        )
        for account, snapshot in found
        if snapshot is not None
    }
    rules = [(account.rules, snapshot is not None) for account, snapshot in found]
    # As lists: accounts in another order are another page.
    if ([*accounts.items()], rules) == ([*previous.accounts.items()], previous.rules):
        return previous
    steps = [step for account in accounts.values() for step in account.steps]
    texts = (*_in_order([*steps, _encoded(rule_lines(found))]),)
    checksum = reduce(lambda so_far, text: zlib.crc32(text, so_far), texts, 0)
    return Inventory(accounts, rules, texts, deflated(texts), sum(map(len, texts)), checksum)


def deflated(pieces: Iterable[bytes], flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Raw deflate up to a byte boundary, after which more may follow; or, with Z_FINISH, its end.

    zlib lets other threads run while it compresses. Level 1 takes a quarter of the time of level 9.
    """
    compressor = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    return b"".join([*map(compressor.compress, pieces), compressor.flush(flush)])


def _account_texts(
    account: Account, snapshot: Snapshot, previous: _AccountTexts | None, numbers_a_step: int
) -> _AccountTexts:
    per_number, key = account.per_number, account.pseudonym_key
    if (
        previous
        and previous.verdicts is snapshot.verdicts
        and (previous.per_number, previous.pseudonym_key) == (per_number, key)
    ):
        return previous
    chosen, dropped = numbers_with_series(snapshot, per_number)
    begins = range(0, len(chosen), numbers_a_step)
    lines = [number_lines(account, chosen[begin : begin + numbers_a_step]) for begin in begins]
    steps = map(_encoded, [sum_lines(account, snapshot, dropped), *lines])
    return _AccountTexts(snapshot.verdicts, per_number, key, [*steps])


def _encoded(lines: Iterable[MetricText]) -> Mapping[str, bytes]:
    return {name: text.encode() for name, text in by_metric(lines).items()}


def _in_order(steps: Sequence[Mapping[str, bytes]]) -> Iterator[bytes]:
    """Families in the order of the catalog, each with one header and the texts of every step."""
    for metric in catalog.METRICS:
        texts = [step[metric.name] for step in steps if metric.name in step]
        if texts:
            yield metric.header(openmetrics=False).encode()  # gauges: both formats are alike
            yield from texts
