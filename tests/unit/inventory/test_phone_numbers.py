"""Phone numbers as people write them."""

from __future__ import annotations

import pytest

from exophone_exporter.inventory.phone_numbers import is_phone_number, numbers_called
from tests.lib.support import phone

LISTED = (
    phone("bengaluru", phone_number="+918047190123"),
    phone("08047190999", phone_number="080-4719 0999"),  # as the API also sends it
    phone("toll-free", phone_number="+9118004190123"),
    phone("singapore", phone_number="+6531590123"),
    phone("abroad", phone_number="+14155550123"),
    phone("masked", phone_number="+91XXXX30240"),
    phone("unknown", phone_number=""),
    phone("5551234567", phone_number=""),
)


@pytest.mark.parametrize(
    ("written", "sid"),
    [
        *((written, "bengaluru") for written in (
            "+918047190123", "918047190123", "08047190123", "8047190123", "00918047190123",
            "+91 80 4719 0123", "+91-80-47190123", "+91 (0)80 4719 0123", "(+91) 80.4719.0123",
            "91-080-4719-0123", "080 4719 0123", "(080) 4719-0123", "080/47190123",
            " 918047190123", "\u202a+91\u00a080\u20114719\u20110123\u202c",
        )),
        ("+91 80 4719 0999", "08047190999"),
        ("8047190999", "08047190999"),
        ("08047190999", "08047190999"),
        ("5551234567", "5551234567"),  # by its SID alone
        ("1800 419 0123", "toll-free"),
        ("+91 1800-419-0123", "toll-free"),
        ("+65 3159 0123", "singapore"),
        ("3159 0123", "singapore"),
        ("(415) 555-0123", "abroad"),
        ("+1 415-555-0123", "abroad"),
    ],
)  # fmt: skip
def test_a_number_is_found_however_it_is_written(written: str, sid: str) -> None:
    assert is_phone_number(written)
    assert [number.sid for number in numbers_called(written, LISTED)] == [sid]


@pytest.mark.parametrize(
    "written",
    [
        "+658047190123",  # of another country
        "47190123",  # without its area code
        "+91 80 4719 012",
        "+8047190123",
        "0123456",
        "0998047190999",  # behind a 0 is an area code, not a country code
    ],
)
def test_a_part_of_a_number_or_another_country_is_not_it(written: str) -> None:
    assert is_phone_number(written)
    assert numbers_called(written, LISTED) == []


def test_a_national_number_of_two_countries_is_both() -> None:
    both = [phone("in", phone_number="+912125550123"), phone("us", phone_number="+12125550123")]
    assert numbers_called("212-555-0123", both) == both
    assert numbers_called("+1 212-555-0123", both) == both[1:]


@pytest.mark.parametrize(
    "text",
    ["", "0" * 6, "1" * 18, "+", "++918047190123", "0x8047190123", "9eeafc8ab479a386dc95f8549cd8a",
     "8047190123,8047190124", "٨٠٤٧١٩٠١٢٣", " " * 100_000, "https://1234567.example"],
)  # fmt: skip
def test_other_text_is_not_a_phone_number(text: str) -> None:
    assert not is_phone_number(text)
