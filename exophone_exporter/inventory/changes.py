"""What changed in an account from one snapshot to the next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

import msgspec

from exophone_exporter.exotel.model import CHANNELS, EXTERNAL_FLOW, Channel, ExoPhone
from exophone_exporter.inventory.snapshot import Snapshot

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
CHANGES: Final[tuple[ChangeKind, ...]] = get_args(ChangeKind)

_CHANNEL_CHANGES: Final[Mapping[Channel, tuple[ChangeKind, ChangeKind, ChangeKind]]] = {
    "voice": ("voice_attached", "voice_detached", "voice_moved"),
    "sms": ("sms_attached", "sms_detached", "sms_moved"),
}
# These have kinds of their own, or are not part of the number.
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


class Change(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened to one number between two complete polls.

    Of `other`, `after` names the fields. As with numbers, the garbage collector does not follow it.
    """

    kind: ChangeKind
    number: ExoPhone
    before: str = ""
    after: str = ""


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


def _changes_of(old: ExoPhone, new: ExoPhone) -> list[Change]:
    changes = [change for channel in CHANNELS for change in _channel_change(channel, old, new)]
    unreadable = {*old.unreadable, *new.unreadable}
    if old.rental_price != new.rental_price and "rental_price" not in unreadable:
        changes.append(Change("rental_changed", new, _price(old), _price(new)))
    if names := _changed_otherwise(old, new, explained=bool(changes)):
        changes.append(Change("other", new, after=",".join(sorted(names))))
    return changes


def _price(number: ExoPhone) -> str:
    """The rental as text, "" where the API sends none."""
    return "" if number.rental_price is None else str(number.rental_price)


def _channel_change(channel: Channel, old: ExoPhone, new: ExoPhone) -> Iterable[Change]:
    was, is_now = old.attached(channel), new.attached(channel)
    if was is None or is_now is None:
        return  # an unreadable value counts as unchanged
    attached, detached, moved = _CHANNEL_CHANGES[channel]
    before, after = old.flow_id(channel), new.flow_id(channel)
    if was != is_now:
        yield Change(attached if is_now else detached, new, before, after)
    elif _destination(channel, old) != _destination(channel, new):
        yield Change(moved, new, before, after)


def _destination(channel: Channel, number: ExoPhone) -> str | None:
    """What identifies a flow: its id, or the whole URL of a customer's own."""
    flow_id = number.flow_id(channel)
    return number.flow_url(channel) if flow_id == EXTERNAL_FLOW else flow_id


def _changed_otherwise(old: ExoPhone, new: ExoPhone, *, explained: bool) -> set[str]:
    """The fields that changed and have no kind of their own.

    The API's update date moves with every change. If nothing else explains it, the API changed
    something that it does not show. An unreadable value counts as unchanged.
    """
    changed = {name for name in _OTHER_FIELDS if getattr(old, name) != getattr(new, name)}
    unreadable = {*old.unreadable, *new.unreadable}
    changed = {name for name in changed if _NAMES_SENT.get(name, name) not in unreadable}
    return changed - {"updated_timestamp_seconds"} if explained else changed
