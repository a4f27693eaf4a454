"""The numbers of one account at one moment, what they add up to, and what changed since.

A snapshot is immutable and made from one complete listing, so whoever reads it sees one truth. The
sums are computed once, with decimals. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from operator import is_
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from exophone_exporter.exotel.model import CHANNELS, EXTERNAL_FLOW, Channel, ExoPhone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exophone_exporter.clock import ClockReading
    from exophone_exporter.exotel.listing import Listing

ChangeKind = Literal[
    "added",
    "removed",
    "voice_attached",
    "voice_detached",
    "voice_moved",
    "sms_attached",
    "sms_detached",
    "sms_moved",
    "rental_changed",
    "other",
]
CHANGES: Final[tuple[ChangeKind, ...]] = (
    "added",
    "removed",
    "voice_attached",
    "voice_detached",
    "voice_moved",
    "sms_attached",
    "sms_detached",
    "sms_moved",
    "rental_changed",
    "other",
)

# An aggregate label may have so many values; a vendor that invents one per number must not turn
# every number into series of its own. Telecom circles are 22.
LABEL_VALUES_MAX: Final = 100
FLOW_IDS_MAX: Final = 1000
OTHER: Final = "other"

_CHANNEL_CHANGES: Final[Mapping[Channel, tuple[ChangeKind, ChangeKind, ChangeKind]]] = {
    "voice": ("voice_attached", "voice_detached", "voice_moved"),
    "sms": ("sms_attached", "sms_detached", "sms_moved"),
}
# Told apart by changes of their own, or no change of the number itself.
_NOT_OTHER: Final = {"voice_url", "sms_url", "rental_price", "unreadable"}
_OTHER_FIELDS: Final = tuple(name for name in ExoPhone.__struct_fields__ if name not in _NOT_OTHER)
# Where `unreadable` names a field as the API calls it.
_NAMES_SENT: Final[Mapping[str, str]] = {
    "voice_capable": "capabilities",
    "sms_capable": "capabilities",
    "incoming_pulse_seconds": "incoming_pulse",
    "created_timestamp_seconds": "date_created",
    "updated_timestamp_seconds": "date_updated",
}


@dataclass(frozen=True, slots=True)
class Group:
    """What the numbers of one country, region and type add up to.

    `rental` and `idle_rental` are monthly, by currency; a currency stands in both or in neither.
    """

    country: str
    region: str
    number_type: str
    numbers: int
    unattached: Mapping[Channel, int]
    idle: int
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
    def numbers(self) -> tuple[ExoPhone, ...]:
        """Every number of the account, in the API's order."""
        return self.listing.numbers

    def is_found_by(self, listing: Listing) -> bool:
        """Whether a walk found equal numbers in the same order.

        In a loop of ours: to compare the tuples would hold the interpreter until all are compared.
        """
        pairs = zip(self.numbers, listing.numbers, strict=False)
        return len(self.numbers) == len(listing.numbers) and all(old == new for old, new in pairs)

    def seen_again(
        self, listing: Listing, completed: ClockReading, duration_seconds: float
    ) -> Snapshot:
        """The snapshot of a later walk that found equal numbers: no sum is computed anew.

        Uses the new listing's numbers, which the page cache also holds. If they are the identical
        objects, keeps the old tuple so that readers can detect "unchanged" by identity.
        """
        if all(map(is_, self.numbers, listing.numbers)):
            listing = replace(listing, numbers=self.numbers)
        return replace(
            self, listing=listing, completed=completed, duration_seconds=duration_seconds
        )


class Change(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened to one number between two complete polls.

    There may be as many as numbers; the garbage collector does not follow them either.
    """

    kind: ChangeKind
    number: ExoPhone
    before: str = ""
    after: str = ""


def build(listing: Listing, completed: ClockReading, duration_seconds: float) -> Snapshot:
    """The snapshot of a walk that was completed at a moment and took so many seconds."""
    return Snapshot(
        listing=listing,
        groups=_groups(listing.numbers),
        flow_numbers=_flow_numbers(listing.numbers),
        unreadable=Counter(field for number in listing.numbers for field in number.unreadable),
        completed=completed,
        duration_seconds=duration_seconds,
    )


def diff(old: Snapshot, new: Snapshot) -> tuple[Change, ...]:
    """What changed from one snapshot to the next, in the order of the new one, removals last."""
    before = {number.sid: number for number in old.numbers}
    changes: list[Change] = []
    for number in new.numbers:
        earlier = before.pop(number.sid, None)
        if earlier is None:
            changes.append(Change("added", number))
        elif earlier != number:
            changes.extend(_changes_of(earlier, number))
    changes.extend(Change("removed", number) for number in before.values())
    return tuple(changes)


def _groups(numbers: Iterable[ExoPhone]) -> tuple[Group, ...]:
    numbers = tuple(numbers)
    countries = _bounded(n.country for n in numbers)
    regions = _bounded(n.region for n in numbers)
    types = _bounded(n.number_type for n in numbers)
    members: defaultdict[tuple[str, str, str], list[ExoPhone]] = defaultdict(list)
    for number in numbers:
        key = (countries[number.country], regions[number.region], types[number.number_type])
        members[key].append(number)
    return tuple(_group(key, members[key]) for key in sorted(members))


def _group(key: tuple[str, str, str], numbers: list[ExoPhone]) -> Group:
    rental: defaultdict[str, Decimal] = defaultdict(Decimal)
    idle_rental: defaultdict[str, Decimal] = defaultdict(Decimal)
    for number in numbers:
        if number.rental_price is not None:
            rental[number.currency] += number.rental_price
            idle_rental[number.currency] += number.rental_price if number.idle else 0
    return Group(
        *key,
        numbers=len(numbers),
        unattached={channel: sum(n.unattached(channel) for n in numbers) for channel in CHANNELS},
        idle=sum(n.idle for n in numbers),
        rental=dict(sorted(rental.items())),
        idle_rental=dict(sorted(idle_rental.items())),
    )


def _flow_numbers(numbers: tuple[ExoPhone, ...]) -> Mapping[tuple[Channel, str], int]:
    counts: Counter[tuple[Channel, str]] = Counter()
    for channel in CHANNELS:
        ids = [flow_id for n in numbers if (flow_id := n.flow_id(channel))]
        names = _bounded(ids, FLOW_IDS_MAX)
        counts.update((channel, names[flow_id]) for flow_id in ids)
    return dict(sorted(counts.items()))


def _bounded(values: Iterable[str], most: int = LABEL_VALUES_MAX) -> Mapping[str, str]:
    """Each value to its label value: itself if it is among the most frequent, else other."""
    counts = Counter(values)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return {value: value if rank < most else OTHER for rank, value in enumerate(ranked)}


def _changes_of(old: ExoPhone, new: ExoPhone) -> list[Change]:
    changes = [change for channel in CHANNELS for change in _channel_change(channel, old, new)]
    if old.rental_price != new.rental_price and None not in (old.rental_price, new.rental_price):
        changes.append(Change("rental_changed", new, f"{old.rental_price}", f"{new.rental_price}"))
    if _changed_otherwise(old, new, explained=bool(changes)):
        changes.append(Change("other", new))
    return changes


def _channel_change(channel: Channel, old: ExoPhone, new: ExoPhone) -> Iterable[Change]:
    was, is_now = old.attached(channel), new.attached(channel)
    if was is None or is_now is None:
        return  # what cannot be read has not changed, as far as anyone can tell
    attached, detached, moved = _CHANNEL_CHANGES[channel]
    before, after = old.flow_id(channel), new.flow_id(channel)
    if was != is_now:
        yield Change(attached if is_now else detached, new, before, after)
    elif _destination(channel, old) != _destination(channel, new):
        yield Change(moved, new, before, after)


def _destination(channel: Channel, number: ExoPhone) -> str | None:
    """What tells two flows apart: the id, or the URL of one that is the customer's own."""
    flow_id = number.flow_id(channel)
    return number.flow_url(channel) if flow_id == EXTERNAL_FLOW else flow_id


def _changed_otherwise(old: ExoPhone, new: ExoPhone, *, explained: bool) -> bool:
    """Whether a field changed that no change of its own tells of.

    The API's date of the last update moves with every change; alone it means that something was
    touched which the API does not show. What cannot be read has not changed.
    """
    changed = {name for name in _OTHER_FIELDS if getattr(old, name) != getattr(new, name)}
    unreadable = {*old.unreadable, *new.unreadable}
    changed = {name for name in changed if _NAMES_SENT.get(name, name) not in unreadable}
    return bool(changed - {"updated_timestamp_seconds"} if explained else changed)
