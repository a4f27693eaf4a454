"""What holds for any numbers at all: sums, groups and differences."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.changes import diff
from tests.lib.support import phone, snapshot

URLS = st.sampled_from(
    [
        "",
        None,
        "http://my.exotel.in/acme/exoml/start_voice/1",
        "https://my.exotel.in/acme/exoml/start_voice/1",
        "http://my.exotel.in/acme/exoml/start_sms/2",
        "https://customer.example/ivr",
    ]
)
PRICES = st.none() | st.decimals(0, 999_999_999_999, places=6)
ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "country": st.sampled_from(["IN", "SG", ""]),
    "region": st.sampled_from(["MU", "DL", ""]),
    "number_type": st.sampled_from(["Landline", "Mobile"]),
    "currency": st.sampled_from(["INR", "USD", ""]),
    "friendly_name": st.text(max_size=3),
    "voice_capable": st.booleans(),
    "sms_capable": st.booleans(),
    "voice_url": URLS,
    "sms_url": URLS,
    "rental_price": PRICES,
    "unreadable": st.sampled_from([(), ("rental_price",), ("region",)]),
}
NUMBERS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.fixed_dictionaries(ATTRIBUTES), max_size=8
).map(lambda by_sid: tuple(phone(sid, **attributes) for sid, attributes in by_sid.items()))


def rental_of(number: ExoPhone) -> Decimal | None:
    return number.rental_price if number.currency else None


def fractions_of(numbers: list[ExoPhone]) -> dict[str, Fraction]:
    """The sum of the rentals by currency, recomputed without decimals."""
    priced = [(n.currency, price) for n in numbers if (price := rental_of(n)) is not None]
    return {
        currency: sum((Fraction(price) for c, price in priced if c == currency), Fraction())
        for currency, _ in priced
    }


@given(NUMBERS)
def test_sums_equal_those_of_a_naive_recomputation(numbers: tuple[ExoPhone, ...]) -> None:
    groups = snapshot(*numbers).groups
    keys = [(g.country, g.region, g.number_type) for g in groups]
    assert keys == sorted({(n.country, n.region, n.number_type) for n in numbers})
    for key, group in zip(keys, groups, strict=True):
        members = [n for n in numbers if (n.country, n.region, n.number_type) == key]
        idle = [n for n in members if n.voice_url == "" and n.sms_url == ""]
        rental, idle_rental = fractions_of(members), fractions_of(idle)
        assert (group.numbers, group.idle) == (len(members), len(idle))
        assert group.unpriced == [rental_of(n) for n in members].count(None)
        assert {c: Fraction(a) for c, a in group.rental.items()} == rental
        assert {c: Fraction(a) for c, a in group.idle_rental.items()} == {
            currency: idle_rental.get(currency, Fraction()) for currency in rental
        }
        assert group.unattached == {
            "voice": sum(n.voice_capable and n.voice_url == "" for n in members),
            "sms": sum(n.sms_capable and n.sms_url == "" for n in members),
        }


@given(NUMBERS, st.randoms(use_true_random=False))
def test_order_of_the_numbers_changes_no_sum(numbers: tuple[ExoPhone, ...], random: Any) -> None:
    shuffled = list(numbers)
    random.shuffle(shuffled)
    one, other = snapshot(*numbers), snapshot(*shuffled)
    assert (one.groups, one.flow_numbers) == (other.groups, other.flow_numbers)
    assert [*one.flow_numbers] == [*other.flow_numbers]
    assert diff(one, other) == ()


@given(NUMBERS, NUMBERS)
def test_changes_there_and_back_are_each_others_opposites(
    old: tuple[ExoPhone, ...], new: tuple[ExoPhone, ...]
) -> None:
    opposites = {"added": "removed", "voice_attached": "voice_detached"}
    opposites |= {"sms_attached": "sms_detached"}
    opposites |= {there: back for back, there in opposites.items()}
    there = Counter((c.number.sid, c.kind) for c in diff(snapshot(*old), snapshot(*new)))
    back = Counter((c.number.sid, c.kind) for c in diff(snapshot(*new), snapshot(*old)))
    assert back == Counter({(sid, opposites.get(k, k)): n for (sid, k), n in there.items()})
