"""What changed in an account from one snapshot to the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from exophone_exporter.exotel.model import CHANNELS, EXTERNAL_FLOW, Channel, ExoPhone
from exophone_exporter.inventory.snapshot import Snapshot

CHANGES: Final = (
    "added",
    "removed",
    *(f"{channel}_{what}" for channel in CHANNELS for what in ("attached", "detached", "moved")),
    "rental_changed",
    "other",
)

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
    """One thing that happened to one number between two complete polls: `kind` is one of CHANGES.

    Of `other`, `after` names the fields. As with numbers, the garbage collector does not follow it.
    """

    kind: str
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
    """What changed of a number; an unreadable value counts as unchanged."""
    changes = [
        Change(f"{channel}_{what}", new, old.flow_id(channel), new.flow_id(channel))
        for channel in CHANNELS
        if (what := _channel_change(channel, old, new))
    ]
    unreadable = {*old.unreadable, *new.unreadable}
    if old.rental_price != new.rental_price and "rental_price" not in unreadable:
        changes.append(Change("rental_changed", new, _price(old), _price(new)))
    others = {name for name in _OTHER_FIELDS if getattr(old, name) != getattr(new, name)}
    others = {name for name in others if _NAMES_SENT.get(name, name) not in unreadable}
    if changes:
        # It moves with every change. If nothing explains it, the API changed what it does not show.
        others.discard("updated_timestamp_seconds")
    if others:
        changes.append(Change("other", new, after=",".join(sorted(others))))
    return changes


def _price(number: ExoPhone) -> str:
    return "" if number.rental_price is None else str(number.rental_price)


def _channel_change(channel: Channel, old: ExoPhone, new: ExoPhone) -> str:
    was, is_now = old.attached(channel), new.attached(channel)
    if was is None or is_now is None:
        return ""
    if was != is_now:
        return "attached" if is_now else "detached"
    return "moved" if _destination(channel, old) != _destination(channel, new) else ""


def _destination(channel: Channel, number: ExoPhone) -> str | None:
    """What identifies a flow: its id, or the whole URL of a customer's own."""
    flow_id = number.flow_id(channel)
    return number.flow_url(channel) if flow_id == EXTERNAL_FLOW else flow_id
