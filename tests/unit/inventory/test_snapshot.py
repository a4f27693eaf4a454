"""What the numbers of an account add up to."""

from __future__ import annotations

from decimal import Decimal
from itertools import product

import pytest

from exophone_exporter.clock import ClockReading
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import CHANNELS
from exophone_exporter.inventory.expectations import PROBLEMS
from exophone_exporter.inventory.snapshot import Group
from tests.lib.support import phone, snapshot

VOICE_11 = "http://my.exotel.in/acme/exoml/start_voice/11"
SMS_23 = "http://my.exotel.in/acme/exoml/start_sms/23"
OWN = "https://customer.example/ivr?line=1"


@pytest.mark.fault(80)
def test_account_without_numbers_has_no_groups() -> None:
    empty = snapshot()
    assert (empty.groups, empty.flow_numbers, empty.unreadable) == ((), {}, {})


def test_group_of_one_number_has_explicit_zeros() -> None:
    assert snapshot(phone()).groups == (
        Group(
            country="IN",
            region="MU",
            number_type="Landline",
            numbers=1,
            unattached={"voice": 0, "sms": 0},
            unexpected=dict.fromkeys(product(CHANNELS, PROBLEMS), 0),
            problems=0,
            idle=0,
            unpriced=0,
            rental={"INR": Decimal("499.000000")},
            idle_rental={"INR": Decimal(0)},
        ),
    )


def test_numbers_are_grouped_by_country_region_and_type_in_a_stable_order() -> None:
    numbers = (
        phone("a", region="MU"),
        phone("b", region="DL"),
        phone("c", country="SG", region="SG"),
        phone("d", region="MU", number_type="Mobile"),
        phone("e", region="MU"),
    )
    expected = [
        ("IN", "DL", "Landline", 1),
        ("IN", "MU", "Landline", 2),
        ("IN", "MU", "Mobile", 1),
        ("SG", "SG", "Landline", 1),
    ]
    for order in (numbers, numbers[::-1]):
        groups = snapshot(*order).groups
        assert [(g.country, g.region, g.number_type, g.numbers) for g in groups] == expected


@pytest.mark.parametrize(
    ("prices", "total"),
    [
        (("0.1", "0.2"), "0.3"),
        (("0.1",) * 10, "1.0"),
        (("499.000000",) * 10_000, "4990000.000000"),
        (("0.000000",), "0.000000"),
        (("999999999999.999999999",) * 1000, "999999999999999.999999000"),
    ],
    ids=["tenths", "ten-tenths", "ten-thousand-numbers", "free", "largest-prices"],
)
def test_rental_is_summed_exactly(prices: tuple[str, ...], total: str) -> None:
    numbers = [phone(f"s{i}", rental_price=Decimal(price)) for i, price in enumerate(prices)]
    (group,) = snapshot(*numbers).groups
    assert {currency: str(sum_) for currency, sum_ in group.rental.items()} == {"INR": total}


@pytest.mark.fault(89)
def test_rental_is_never_summed_across_currencies_and_an_unknown_price_adds_none() -> None:
    (group,) = snapshot(
        phone("a", rental_price=Decimal(10)),
        phone("b", rental_price=Decimal(20), currency="USD"),
        phone("c", rental_price=Decimal(40), currency="", voice_url="", sms_url=""),
        phone("d", rental_price=Decimal(80)),
        phone("e", rental_price=None, currency="EUR", voice_url="", sms_url=""),
        phone("f", rental_price=None, currency=""),
    ).groups
    assert group.rental == {"INR": Decimal(90), "USD": Decimal(20)}
    assert group.idle_rental == {"INR": Decimal(0), "USD": Decimal(0)}
    assert list(group.rental) == list(group.idle_rental) == ["INR", "USD"]
    assert group.unpriced == 3


@pytest.mark.fault(153)
def test_currencies_beyond_ten_are_unpriced_as_nothing_can_be_added_to_them() -> None:
    invented = [phone(f"s{i}", currency=f"X{i:02}") for i in range(20)]
    groups = snapshot(
        phone("a", region="DL"), phone("b"), phone("c", currency=""), *invented
    ).groups
    assert [group.unpriced for group in groups] == [0, 12]
    assert [sorted(group.rental) for group in groups] == [
        ["INR"],
        ["INR", *(f"X{i:02}" for i in range(9))],
    ]


@pytest.mark.fault(153)
def test_groups_beyond_two_hundred_are_one_and_no_sum_lacks_anything() -> None:
    """The largest groups keep their names; of equal ones those that come first by name."""
    kinds = [(f"C{i % 20:02}", f"R{i // 20:02}") for i in range(400)]
    numbers = [phone(f"s{i}", country=c, region=r) for i, (c, r) in enumerate([*kinds, kinds[-1]])]
    groups = snapshot(*numbers).groups
    by_name = {(group.country, group.region, group.number_type): group for group in groups}
    assert len(groups) == 201
    assert by_name["C19", "R19", "Landline"].numbers == 2
    assert by_name["other", "other", "other"].numbers == 200
    assert sum(group.numbers for group in groups) == 401
    assert sum(group.rental["INR"] for group in groups) == 401 * 499
    assert snapshot(*numbers[::-1]).groups == groups


def test_number_is_idle_where_no_channel_has_a_flow_and_unattached_where_it_could_have_one() -> (
    None
):
    (group,) = snapshot(
        phone("attached"),
        phone("no-voice", voice_url=""),
        phone("no-sms", sms_url="", rental_price=Decimal(7)),
        phone("idle", voice_url="", sms_url="", rental_price=Decimal(3)),
        phone("unreadable", voice_url=None, sms_url=""),
    ).groups
    assert group.unattached == {"voice": 2, "sms": 3}
    assert (group.idle, group.idle_rental) == (1, {"INR": Decimal(3)})
    (incapable,) = snapshot(phone(voice_url="", sms_url="", sms_capable=False)).groups
    assert (incapable.unattached, incapable.idle) == ({"voice": 1, "sms": 0}, 1)


def test_flows_are_counted_by_channel_and_id_and_foreign_urls_together() -> None:
    flows = snapshot(
        phone("a"),
        phone("b", voice_url=OWN, sms_url=""),
        phone("c", voice_url="https://customer.example/other", sms_url=None),
        phone("d", voice_url=VOICE_11.replace("http:", "https:"), sms_url=SMS_23),
    ).flow_numbers
    assert list(flows.items()) == [
        (("sms", "22"), 1),
        (("sms", "23"), 1),
        (("voice", "11"), 2),
        (("voice", "external"), 2),
    ]


def test_unreadable_values_are_counted_by_field() -> None:
    unreadable = snapshot(
        phone("a", unreadable=("rental_price", "voice_url")), phone("b", unreadable=("voice_url",))
    ).unreadable
    assert unreadable == {"rental_price": 1, "voice_url": 2}


@pytest.mark.parametrize("label", ["country", "region", "number_type"], ids=str)
@pytest.mark.fault(88)
def test_label_has_a_hundred_values_at_most_and_the_rare_ones_are_other(label: str) -> None:
    """The frequent ones keep their names, nothing is lost from the sums, and no order matters."""
    numbers = [phone(f"s{i}", **{label: f"value-{i:03}"}) for i in range(150)]
    frequent = [phone(f"t{i}", **{label: "value-149"}) for i in range(3)]
    groups = snapshot(*numbers, *frequent).groups
    by_value = {getattr(group, label): group for group in groups}
    assert {*by_value} == {*(f"value-{i:03}" for i in range(99)), "value-149", "other"}
    assert len(groups) == 101
    assert (by_value["value-149"].numbers, by_value["other"].numbers) == (4, 50)
    assert by_value["other"].rental == {"INR": Decimal(50 * 499)}
    assert snapshot(*frequent, *numbers[::-1]).groups == groups


@pytest.mark.fault(88)
def test_flow_ids_are_capped_too() -> None:
    url = "http://my.exotel.in/acme/exoml/start_voice/"
    ids = [f"{i:04}" for i in range(1200)] + ["1199"]
    numbers = [phone(f"s{i}", voice_url=f"{url}{id_}", sms_url="") for i, id_ in enumerate(ids)]
    flows = snapshot(*numbers).flow_numbers
    assert len(flows) == 1001
    assert (flows["voice", "1199"], flows["voice", "other"]) == (2, 200)


def test_snapshot_seen_again_keeps_its_sums_and_takes_the_new_times() -> None:
    completed = ClockReading(wall=1_700_000_000.0, monotonic=1000.0)
    first = snapshot(phone(), completed=completed)
    walk = Listing((phone(),), pages=3, rejected={"no_sid": 2})
    later = ClockReading(wall=1_700_000_300.0, monotonic=1300.0)
    again = first.seen_again(walk, later, 9.0)
    assert again.groups is first.groups
    assert again.numbers is first.numbers
    assert (again.completed, again.duration_seconds) == (later, 9.0)
    assert (again.listing.pages, again.listing.rejected) == (3, {"no_sid": 2})
    assert first.completed == completed
