"""What changed between two polls."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from exophone_exporter.inventory.changes import Change, diff
from tests.lib.support import phone, snapshot

HTTPS_11 = "https://my.exotel.in/acme/exoml/start_voice/11"
VOICE_12 = "http://my.exotel.in/acme/exoml/start_voice/12"
SMS_23 = "http://my.exotel.in/acme/exoml/start_sms/23"
OWN = "https://customer.example/ivr?line=1"
OWN_HTTP = "http://customer.example/ivr?line=1"
UPDATED = {"updated_timestamp_seconds": 1577836800}


def unread(field: str, **values: Any) -> dict[str, Any]:
    """A number of which this field was sent and cannot be read."""
    return values | {"unreadable": (field,)}


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        pytest.param({}, {}, "", id="nothing"),
        pytest.param({"voice_url": ""}, {}, "voice_attached", id="voice-attached"),
        pytest.param({}, {"voice_url": ""}, "voice_detached", id="voice-detached"),
        pytest.param({}, {"voice_url": VOICE_12}, "voice_moved", id="voice-moved"),
        pytest.param({"sms_url": ""}, {}, "sms_attached", id="sms-attached"),
        pytest.param({}, {"sms_url": ""}, "sms_detached", id="sms-detached"),
        pytest.param({}, {"sms_url": SMS_23}, "sms_moved", id="sms-moved"),
        pytest.param({}, {"voice_url": HTTPS_11}, "", id="https-to-the-same-flow"),
        pytest.param({}, {"voice_url": OWN}, "voice_moved", id="flow-to-foreign-url"),
        pytest.param({"voice_url": OWN}, {}, "voice_moved", id="foreign-url-to-flow"),
        pytest.param({"voice_url": OWN}, {"voice_url": OWN + "1"}, "voice_moved", id="to-other"),
        pytest.param({"voice_url": OWN}, {"voice_url": OWN_HTTP}, "voice_moved", id="whole-url"),
        pytest.param({}, {"rental_price": Decimal(999)}, "rental_changed", id="rental"),
        pytest.param({}, {"rental_price": Decimal(0)}, "rental_changed", id="free-now"),
        pytest.param({}, {"rental_price": Decimal("499.0")}, "", id="rental-of-other-decimals"),
        pytest.param({}, {"rental_price": None}, "rental_changed", id="rental-left-out"),
        pytest.param({"rental_price": None}, {}, "rental_changed", id="rental-sent-again"),
        pytest.param({}, {"friendly_name": "Sales"}, "other", id="name"),
        pytest.param({}, {"region": "DL", "country": "SG"}, "other", id="two-others-are-one"),
        pytest.param({}, {"sms_capable": False}, "other", id="capability"),
        pytest.param({}, {"currency": "USD"}, "other", id="currency"),
        pytest.param({}, {"phone_number": "+91"}, "other", id="phone-number"),
        pytest.param({}, UPDATED, "other", id="update-alone"),
        pytest.param({}, UPDATED | {"voice_url": ""}, "voice_detached", id="update-explained"),
        pytest.param(
            {},
            UPDATED
            | {"voice_url": VOICE_12, "sms_url": "", "rental_price": Decimal(1), "region": "DL"},
            "voice_moved sms_detached rental_changed other",
            id="all",
        ),
        pytest.param({}, unread("voice_url", voice_url=None), "", id="voice-unread"),
        pytest.param(unread("voice_url", voice_url=None), {}, "", id="voice-read"),
        pytest.param({}, unread("rental_price", rental_price=None), "", id="rental-unread"),
        pytest.param(unread("rental_price", rental_price=None), {}, "", id="rental-read"),
        pytest.param({}, unread("vanity_number", vanity_number=None), "", id="vanity-unread"),
        pytest.param(unread("region", region=""), {}, "", id="region-read-again"),
        pytest.param({}, unread("date_created", created_timestamp_seconds=None), "", id="created"),
        pytest.param({}, unread("date_updated", updated_timestamp_seconds=None), "", id="updated"),
        pytest.param({"sms_capable": False}, unread("capabilities"), "", id="sms-capability"),
        pytest.param({"voice_capable": False}, unread("capabilities"), "", id="voice-capability"),
        pytest.param({}, unread("incoming_pulse", incoming_pulse_seconds=None), "", id="pulse"),
        pytest.param(
            {},
            unread("vanity_number", vanity_number=None, region="DL"),
            "other",
            id="one-unread-and-one-changed",
        ),
    ],
)
def test_change_of_a_number_is_found_once(
    before: dict[str, Any], after: dict[str, Any], kinds: str
) -> None:
    """An unreadable value counts as unchanged."""
    found = diff(snapshot(phone(**before)), snapshot(phone(**after)))
    assert " ".join(change.kind for change in found) == kinds
    named = {change.after for change in found if change.kind == "other"}
    assert all(name in phone().__struct_fields__ for names in named for name in names.split(","))


@pytest.mark.fault(87)
def test_added_and_removed_numbers_are_found_with_removals_last() -> None:
    """The order of the others is not a change."""
    old = snapshot(phone("a"), phone("b"), phone("d"))
    new = snapshot(phone("c"), phone("d"), phone("b", sms_url=""))
    assert diff(old, new) == (
        Change("added", phone("c"), before="", after=""),
        Change("sms_detached", phone("b", sms_url=""), before="22", after=""),
        Change("removed", phone("a"), before="", after=""),
    )


def test_change_says_what_was_and_what_is() -> None:
    old = phone(voice_url="", sms_url=OWN)
    new = phone(sms_url=SMS_23, rental_price=Decimal("999.000000"))
    found = diff(snapshot(old), snapshot(new))
    assert [(change.kind, change.before, change.after) for change in found] == [
        ("voice_attached", "", "11"),
        ("sms_moved", "external", "23"),
        ("rental_changed", "499.000000", "999.000000"),
    ]
    (came,) = diff(snapshot(phone(rental_price=None)), snapshot(phone()))
    assert (came.before, came.after) == ("", "499.000000")
