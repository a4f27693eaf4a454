"""The large part of /metrics: what the last polls found, in blocks that are made once. Pure.

A block holds the lines of one metric for some of the numbers of one account. The page is the blocks
in the order of the table, compressed in groups. A poll that found other numbers makes those blocks
anew whose numbers are others, and compresses those groups whose text is another. A number stays in
its block, whichever come or go beside it.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right, insort
from dataclasses import dataclass
from functools import cache, partial, reduce
from itertools import chain, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.compression import deflated
from exophone_exporter.metrics.samples import (
    by_metric,
    number_lines,
    numbers_with_series,
    sum_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from exophone_exporter.config.settings import Account, PerNumber
    from exophone_exporter.exotel.model import ExoPhone
    from exophone_exporter.inventory.snapshot import Snapshot
    from exophone_exporter.metrics.exposition import Metric
    from exophone_exporter.metrics.samples import MetricText

    # What a part is made of, compared by ==, and what makes its lines.
    _Source: TypeAlias = tuple[object, Callable[[], Iterable[MetricText]]]
    _Group: TypeAlias = "tuple[_Block, ...]"

# So many numbers make a block: short enough that nobody waits long for the interpreter, which every
# step of the rendering holds.
NUMBERS_A_BLOCK: Final = 500
# A group is as large at least: to deflate less apart from what stands beside it costs some bytes.
_GROUP_BYTES: Final = 32 * 1024

_SID: Final = attrgetter("sid")


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Lines of one metric; another block with the same lines is another."""

    text: bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """Some lines of an account, a block a metric, and what they were made of."""

    made_of: object
    blocks: Mapping[str, _Block]


@dataclass(frozen=True, slots=True, eq=False)
class _AccountPart:
    """All lines of an account, and what they were made of."""

    numbers: tuple[ExoPhone, ...]
    per_number: PerNumber
    shares: Sequence[Sequence[ExoPhone]]
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class Inventory:
    """The lines of the accounts that have something to show, in their order, in pieces.

    `deflated` is raw, up to a byte boundary and without an end, so that more can follow; it is what
    `groups` have, joined. `length` and `checksum` (CRC-32) are those of the whole text.
    """

    accounts: Mapping[str, _AccountPart]
    groups: Mapping[_Group, bytes]
    texts: tuple[bytes, ...]
    deflated: bytes
    length: int
    checksum: int


NOTHING: Final = Inventory({}, {}, (), b"", 0, 0)


def inventory_of(
    found: Iterable[tuple[Account, Snapshot]],
    former: Inventory,
    numbers_a_block: int = NUMBERS_A_BLOCK,
) -> Inventory:
    """The inventory of these snapshots; what is the same as in `former` is not made again."""
    accounts = {
        account.name: _account_part(
            account, snapshot, former.accounts.get(account.name), numbers_a_block
        )
        for account, snapshot in found
    }
    # As lists: accounts that only changed places are another page.
    if [*accounts.items()] == [*former.accounts.items()]:
        return former
    blocks = [*_in_order([part for account in accounts.values() for part in account.parts])]
    texts = tuple(block.text for block in blocks)
    groups = {group: former.groups.get(group) or _deflated(group) for group in _groups(blocks)}
    checksum = reduce(lambda so_far, text: zlib.crc32(text, so_far), texts, 0)
    whole = b"".join(groups.values())
    return Inventory(accounts, groups, texts, whole, sum(map(len, texts)), checksum)


def _account_part(
    account: Account, snapshot: Snapshot, former: _AccountPart | None, numbers_a_block: int
) -> _AccountPart:
    if former and former.numbers is snapshot.numbers and former.per_number == account.per_number:
        return former
    chosen, dropped = numbers_with_series(snapshot.numbers, account.per_number)
    shares = _shares(chosen, former.shares if former else (), numbers_a_block)
    known = former.parts if former else ()
    sources = _sources(account, snapshot, dropped, shares)
    parts = map(_part, sources, chain(known, repeat(None)))
    return _AccountPart(snapshot.numbers, account.per_number, shares, tuple(parts))


def _shares(
    numbers: Sequence[ExoPhone], former: Sequence[Sequence[ExoPhone]], numbers_a_block: int
) -> Sequence[Sequence[ExoPhone]]:
    """The numbers in the order of their sids, cut into shares: as before, for those known before.

    A new one joins those beside it. All are cut anew where shares became too large or too many.
    """
    rest = {number.sid: number for number in numbers}
    shares = [[again for one in share if (again := rest.pop(one.sid, None))] for share in former]
    if former:
        firsts = [share[0].sid for share in former]
        for number in rest.values():
            insort(shares[max(0, bisect_right(firsts, number.sid) - 1)], number, key=_SID)
    shares = [share for share in shares if share]
    most = max(map(len, shares), default=0)
    if 0 < most <= 2 * numbers_a_block and len(shares) <= 1 + 2 * len(numbers) // numbers_a_block:
        return shares
    in_order = sorted(numbers, key=_SID)
    begins = range(0, len(in_order), numbers_a_block)
    return [in_order[begin : begin + numbers_a_block] for begin in begins]


def _sources(
    account: Account, snapshot: Snapshot, dropped: int, shares: Sequence[Sequence[ExoPhone]]
) -> Iterator[_Source]:
    """What each part of an account is made of, and how: the sums, then a share of the numbers."""
    sums = (snapshot.groups, snapshot.flow_numbers, dropped)
    yield sums, partial(sum_lines, account, snapshot, dropped)
    for numbers in shares:
        made_of = (account.per_number.phone_number, numbers)
        yield made_of, partial(number_lines, account, numbers)


def _part(source: _Source, known: _Part | None) -> _Part:
    made_of, lines = source
    if known is not None and known.made_of == made_of:
        return _Part(made_of, known.blocks)  # the older numbers, which are equal, may go
    former = known.blocks if known else {}
    texts = by_metric(lines())
    return _Part(made_of, {name: _block(text, former.get(name)) for name, text in texts.items()})


def _block(text: str, former: _Block | None = None) -> _Block:
    """The former block where it says the same, for it is compressed already."""
    data = text.encode()
    return former if former is not None and former.text == data else _Block(data)


def _groups(blocks: Iterable[_Block]) -> Iterator[_Group]:
    """Blocks that are deflated together: so many as it takes to be large."""
    group: list[_Block] = []
    size = 0
    for block in blocks:
        group.append(block)
        size += len(block.text)
        if size >= _GROUP_BYTES:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def _deflated(group: _Group) -> bytes:
    return deflated(b"".join([block.text for block in group]))


def _in_order(parts: Sequence[_Part]) -> Iterator[_Block]:
    """Families in the order of the table, each with one head and the blocks of every part."""
    for metric in catalog.METRICS:
        blocks = [part.blocks[metric.name] for part in parts if metric.name in part.blocks]
        if blocks:
            yield _head(metric)
            yield from blocks


@cache
def _head(metric: Metric) -> _Block:
    """HELP and TYPE; they are gauges, which both formats begin alike."""
    return _block(metric.header(openmetrics=False))
