"""The numbers of one account at one moment, and what they add up to. Pure.

A snapshot is immutable and made from one complete listing. The sums are computed once, as decimals.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeVar

from exophone_exporter.exotel.model import CHANNELS, Channel, ExoPhone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exophone_exporter.clock import ClockReading
    from exophone_exporter.exotel.listing import Listing

# The most values of an aggregate label: a vendor that invents one per number must not give every
# number series of its own. There are 22 telecom circles.
LABEL_VALUES_MAX: Final = 100
GROUPS_MAX: Final = 200
FLOW_IDS_MAX: Final = 1000
# Amounts in the rarer currencies cannot be added to any others: their numbers count as unpriced.
CURRENCIES_MAX: Final = 10
OTHER: Final = "other"

_T = TypeVar("_T", str, tuple[str, str, str])


@dataclass(frozen=True, slots=True)
class Group:
    """What the numbers of one country, region and type add up to.

    `rental` and `idle_rental` are monthly, by currency; both have the same currencies. They lack
    the `unpriced` numbers, whose rental is not known.
    """

    country: str
    region: str
    number_type: str
    numbers: int
    unattached: Mapping[Channel, int]
    idle: int
    unpriced: int
    rental: Mapping[str, Decimal]
    idle_rental: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One account as of its last complete poll.

    `groups` and `flow_numbers` are in a stable order; `unreadable` counts values by field.
    """

    listing: Listing
    groups: tuple[Group, ...]
    flow_numbers: Mapping[tuple[Channel, str], int]
    unreadable: Mapping[str, int]
    completed: ClockReading
    duration_seconds: float

    @property
    def started(self) -> ClockReading:
        """When the poll began: nothing in the snapshot is older."""
        return self.completed.before(self.duration_seconds)

    @property
    def numbers(self) -> tuple[ExoPhone, ...]:
        """Every number of the account, in the API's order."""
        return self.listing.numbers

    def seen_again(
        self, listing: Listing, completed: ClockReading, duration_seconds: float
    ) -> Snapshot:
        """The snapshot of a later listing of equal numbers, without computing the sums again.

        It keeps the tuple of numbers, so that readers detect "unchanged" by identity.
        """
        return replace(
            self,
            listing=replace(listing, numbers=self.numbers),
            completed=completed,
            duration_seconds=duration_seconds,
        )


def build(listing: Listing, completed: ClockReading, duration_seconds: float) -> Snapshot:
    """The snapshot of a listing that was complete at `completed`."""
    return Snapshot(
        listing=listing,
        groups=_groups(listing.numbers),
        flow_numbers=_flow_numbers(listing.numbers),
        unreadable=Counter(field for number in listing.numbers for field in number.unreadable),
        completed=completed,
        duration_seconds=duration_seconds,
    )


def _groups(numbers: tuple[ExoPhone, ...]) -> tuple[Group, ...]:
    countries = _bounded((n.country for n in numbers), LABEL_VALUES_MAX, OTHER)
    regions = _bounded((n.region for n in numbers), LABEL_VALUES_MAX, OTHER)
    types = _bounded((n.number_type for n in numbers), LABEL_VALUES_MAX, OTHER)
    keys = [(countries[n.country], regions[n.region], types[n.number_type]) for n in numbers]
    shown = _bounded(keys, GROUPS_MAX, (OTHER, OTHER, OTHER))
    summed = _bounded((n.currency for n in numbers if n.priced), CURRENCIES_MAX, "")
    members: defaultdict[tuple[str, str, str], list[ExoPhone]] = defaultdict(list)
    for key, number in zip(keys, numbers, strict=True):
        members[shown[key]].append(number)
    return tuple(_group(key, members[key], summed) for key in sorted(members))


def _group(key: tuple[str, str, str], numbers: list[ExoPhone], summed: Mapping[str, str]) -> Group:
    rental: defaultdict[str, Decimal] = defaultdict(Decimal)
    idle_rental: defaultdict[str, Decimal] = defaultdict(Decimal)
    unpriced = 0
    for number in numbers:
        if number.rental_price is None or not summed.get(number.currency):
            unpriced += 1
            continue
        rental[number.currency] += number.rental_price
        idle_rental[number.currency] += number.rental_price if number.idle else 0
    return Group(
        *key,
        numbers=len(numbers),
        unattached={channel: sum(n.unattached(channel) for n in numbers) for channel in CHANNELS},
        idle=sum(n.idle for n in numbers),
        unpriced=unpriced,
        rental=dict(sorted(rental.items())),
        idle_rental=dict(sorted(idle_rental.items())),
    )


def _flow_numbers(numbers: tuple[ExoPhone, ...]) -> Mapping[tuple[Channel, str], int]:
    counts: Counter[tuple[Channel, str]] = Counter()
    for channel in CHANNELS:
        ids = [flow_id for n in numbers if (flow_id := n.flow_id(channel))]
        names = _bounded(ids, FLOW_IDS_MAX, OTHER)
        counts.update((channel, names[flow_id]) for flow_id in ids)
    return dict(sorted(counts.items()))


def _bounded(values: Iterable[_T], most: int, other: _T) -> Mapping[_T, _T]:
    """Each value to what is shown for it: itself if it is among the most frequent, else `other`."""
    counts = Counter(values)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return {value: value if rank < most else other for rank, value in enumerate(ranked)}
