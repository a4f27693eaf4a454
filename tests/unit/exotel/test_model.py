"""What becomes of the vendor's JSON, of bad JSON, and of any bytes at all."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from exophone_exporter.errors import BadBody, BadEnvelope, JsonCut
from exophone_exporter.exotel.model import (
    FIELDS,
    REJECTIONS,
    ExoPhone,
    Page,
    flow_id,
    is_askable_sid,
    parse_number,
    parse_page,
)
from tests.lib.support import INDIA, SAMPLES, phone

FLOW = "http://my.exotel.in/acme/exoml/start_voice/11"


def page_of(*items: Any, **envelope: Any) -> Page:
    body = json.dumps({"incoming_phone_numbers": items} | envelope)
    return parse_page(body.encode(), INDIA)


def number_of(**sent: Any) -> ExoPhone:
    return parse_number(json.dumps({"sid": "a"} | sent).encode(), INDIA)


def at(  # noqa: PLR0917 - the parts of a time are read in their order
    year: int, month: int, day: int, hour: int, minute: int, second: int = 0
) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


def sampled(**own: Any) -> ExoPhone:
    """A number with what all numbers of the vendor's samples have in common."""
    zero = Decimal("0.000000")
    common: dict[str, Any] = {
        "account_sid": "Exotel",
        "country": "IN",
        "region": "DL",
        "number_type": "Landline",
        "currency": "INR",
        "vanity_number": False,
        "voice_capable": True,
        "sms_capable": True,
        "voice_url": "",
        "sms_url": "",
        "rental_price": zero,
        "one_time_price": zero,
        "incoming_rate": zero,
        "incoming_pulse_seconds": Decimal(60),
        "unreadable": (),
    }
    return ExoPhone(**(common | own))


def test_vendors_list_sample_is_read_to_the_last_field() -> None:
    """Bare times are Indian: 17:31:50 is 12:01:50 UTC."""
    page = parse_page((SAMPLES / "list.json").read_bytes(), INDIA)
    first = sampled(
        sid="011XXXXXXX1",
        phone_number="+9111XXXXXXX6",
        friendly_name="011XXXXXXX6",
        created_timestamp_seconds=at(2016, 3, 4, 12, 1, 50),
        updated_timestamp_seconds=at(2017, 9, 22, 17, 17, 0),
        uri="/v2_beta/Accounts/Exotel/IncomingPhoneNumbers/011XXXXXXX6",
    )
    second = sampled(
        sid="011XXXXXXX0",
        phone_number="+911XXXXXXXX0",
        friendly_name="011XXXXXXX0",
        voice_url="http://my.exotel.in/Exotel/exoml/start_voice/7XXX1",
        sms_url="http://my.exotel.in/Exotel/exoml/start_sms/7XXX1",
        created_timestamp_seconds=at(2016, 4, 7, 6, 43, 20),
        updated_timestamp_seconds=at(2016, 4, 7, 6, 43, 30),
        uri="/v2_beta/Accounts/Exotel/IncomingPhoneNumbers/011XXXXXXX0",
    )
    assert page == Page((first, second), page=0, page_size=50, more=True, items=2, rejected={})
    assert [str(n.rental_price) for n in page.numbers] == ["0.000000", "0.000000"]


def test_vendors_detail_sample_is_read_to_the_last_field() -> None:
    number = parse_number((SAMPLES / "detail.json").read_bytes(), INDIA)
    assert number == sampled(
        sid="9eeafc8ab479a386dc95f854f9d7cd8a",
        phone_number="+91XXXX30240",
        friendly_name="XXXXX30240",
        region="WB",
        voice_url="https://my.exotel.in/Exotel/exoml/start_voice/12XX48",
        sms_url="https://my.exotel.in/Exotel/exoml/start_sms/22XX39",
        rental_price=Decimal("499.000000"),
        created_timestamp_seconds=at(2016, 11, 9, 8, 18, 12),
        updated_timestamp_seconds=at(2017, 3, 30, 8, 49, 2),
        uri="/v2_beta/Accounts/Exotel/IncomingPhoneNumbers/9eeafc8ab479a386dc95f854f9d7cd8a",
    )
    assert (number.flow_id("voice"), number.flow_id("sms")) == ("12XX48", "22XX39")


def test_fields_are_those_of_the_vendors_sample_in_its_order() -> None:
    assert list(json.loads((SAMPLES / "detail.json").read_bytes())) == list(FIELDS)


NOT_JSON, NOT_UTF_8, TOO_MUCH = "not JSON: ", "not UTF-8", "JSON beyond all measure"


def bad(row: int, name: str, body: bytes, what: str) -> Any:
    """One body, of a row unless it is 0, and what the message says it is."""
    marks = [pytest.mark.fault(row)] if row else []
    return pytest.param(body, what, id=f"{row}-{name}", marks=marks)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        bad(19, "html", b"<!DOCTYPE html><html>lounge</html>", NOT_JSON),
        bad(40, "empty", b"", NOT_JSON),
        bad(40, "blank", b" \r\n\t", NOT_JSON),
        bad(0, "comma", b'{"lounge": 1,}', NOT_JSON),
        bad(0, "comma-and-a-line-end", b'{"lounge": 1,}\r\n', NOT_JSON),
        bad(0, "no-break-space", b'\xc2\xa0{"lounge": 1}', NOT_JSON),
        bad(0, "two-documents", b'{"lounge": 1} {"b": 2}', NOT_JSON),
        bad(0, "letters-around", b'X{"incoming_phone_numbers": []}X', NOT_JSON),
        bad(43, "not-utf-8", b'{"lounge": "\xff"}', NOT_UTF_8),
        bad(43, "surrogate", b'{"lounge": "\xed\xa0\x80"}', NOT_UTF_8),
        bad(45, "utf-16", '{"incoming_phone_numbers": []}'.encode("utf-16"), NOT_UTF_8),
        bad(45, "utf-16-without-a-mark", '{"lounge": []}'.encode("utf-16-be"), NOT_JSON),
        bad(46, "lists", b"[" * 100_000, TOO_MUCH),
        bad(46, "objects", b'{"a":' * 100_000, TOO_MUCH),
        bad(47, "digits", b"9" * 5000, TOO_MUCH),
        bad(48, "nan", b'{"lounge": NaN}', TOO_MUCH),
        bad(48, "infinity", b'{"lounge": Infinity}', TOO_MUCH),
        bad(48, "minus-infinity", b'{"lounge": -Infinity}', TOO_MUCH),
    ],
)
def test_what_is_not_json_is_a_bad_body_and_not_asked_for_again(body: bytes, what: str) -> None:
    """The message holds its length, and not its words."""
    for parse in (parse_page, parse_number):
        with pytest.raises(BadBody) as caught:
            parse(body, INDIA)
        assert (caught.value.reason, caught.value.attempts) == ("bad_body", 1)
        assert f"the answer of {len(body)} bytes is {what}" in str(caught.value)
        assert "lounge" not in str(caught.value)


@pytest.mark.fault(42)
@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["alone", "behind-a-blank-line"])
def test_sample_cut_anywhere_is_cut_json_and_worth_one_retry(before: bytes) -> None:
    body = (SAMPLES / "list.json").read_bytes().strip()
    for length in range(1, len(body)):
        with pytest.raises(JsonCut) as caught:
            parse_page(before + body[:length], INDIA)
        assert caught.value.attempts == 2


def not_a_page(row: int, body: bytes, says: str) -> Any:
    """One answer of a row, and what the message says of it."""
    return pytest.param(body, says, id=f"{row}-{body.decode()}", marks=pytest.mark.fault(row))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        *(
            not_a_page(41, body, f"the answer is a JSON {found} where an object was promised")
            for body, found in (
                (b"null", "null"),
                (b"[]", "list"),
                (b'"x"', "string"),
                (b"3", "number"),
                (b"3.5", "number"),
                (b"true", "boolean"),
            )
        ),
        *(
            not_a_page(row, body, f"incoming_phone_numbers {found} where a list was promised")
            for row, body, found in (
                (57, b"{}", "is missing"),
                (58, b'{"incoming_phone_numbers": null}', "is missing"),
                (58, b'{"incoming_phone_numbers": "None"}', "is missing"),
                (58, b'{"incoming_phone_numbers": {}}', "has the type object"),
                (58, b'{"incoming_phone_numbers": ""}', "has the type string"),
                (58, b'{"incoming_phone_numbers": 0}', "has the type number"),
            )
        ),
    ],
)
def test_json_that_is_no_page_is_a_bad_envelope_and_not_zero_numbers(
    body: bytes, says: str
) -> None:
    with pytest.raises(BadEnvelope) as caught:
        parse_page(body, INDIA)
    assert caught.value.reason == "envelope"
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("nothing", ["null", '""', '"null"', "{}", "[]"])
@pytest.mark.fault(137)
def test_list_without_numbers_in_another_form_is_empty_behind_the_first_page(nothing: str) -> None:
    body = f'{{"incoming_phone_numbers": {nothing}, "next_page_uri": "/next"}}'.encode()
    page = parse_page(body, INDIA, first=False)
    assert (page.items, page.more) == (0, True)
    with pytest.raises(BadEnvelope, match="is missing"):
        parse_page(b'{"page": 1}', INDIA, first=False)


@pytest.mark.fault(59)
def test_items_that_are_no_numbers_are_counted_and_the_rest_is_kept() -> None:
    nameless = ({"sid": ""}, {"sid": " "}, {"sid": "null"}, {"sid": 1.5}, {"region": "MU"})
    page = page_of({"sid": "a"}, 1, None, [], "x", *nameless)
    assert [n.sid for n in page.numbers] == ["a"]
    assert page.rejected == {"not_an_object": 4, "no_sid": 5}
    assert set(page.rejected) <= set(REJECTIONS)
    assert page.items == 10


def test_detail_without_a_sid_is_a_bad_envelope() -> None:
    with pytest.raises(BadEnvelope, match=r"^the answer is an object without a sid$"):
        parse_number(b'{"phone_number": "+91"}', INDIA)


def test_number_keeps_the_sid_that_was_asked_for_whatever_its_case() -> None:
    assert parse_number(b'{"sid": "9EEA"}', INDIA, "9eeA").sid == "9eeA"
    with pytest.raises(BadEnvelope, match=r"^the detail endpoint answered about another number$"):
        parse_number(b'{"sid": "9eea"}', INDIA, "9eeb")


@pytest.mark.fault(61)
def test_number_with_a_sid_alone_has_empty_texts_and_absent_values() -> None:
    """A missing flow means no flow; a missing capability is present, so nothing stays hidden."""
    texts = "account_sid phone_number friendly_name country region number_type currency uri"
    values = (
        "vanity_number rental_price one_time_price incoming_rate incoming_pulse_seconds"
        " created_timestamp_seconds updated_timestamp_seconds"
    )
    assert number_of() == sampled(
        sid="a", **dict.fromkeys(texts.split(), ""), **dict.fromkeys(values.split())
    )


@pytest.mark.parametrize(
    "nothing", [None, "null", "NULL", " Undefined ", "none", "None", "nil", "false"], ids=repr
)
@pytest.mark.fault(61)
def test_null_and_texts_that_mean_it_are_the_same_as_missing(nothing: str | None) -> None:
    """But for a boolean, of which "false" is a value."""
    sent = dict.fromkeys(FIELDS, nothing) | {"sid": "a", "vanity_number": None}
    assert number_of(**sent) == number_of()
    page = page_of({"sid": "a"}, page=nothing, page_size=nothing, next_page_uri=nothing)
    assert (page.page, page.page_size, page.more) == (None, None, False)


@pytest.mark.parametrize(
    "renamed",
    [
        pytest.param(str.upper, id="capitals"),
        pytest.param(lambda key: key.title().replace("_", ""), id="pascal-case"),
        pytest.param(lambda key: key.replace("_", "-"), id="hyphens"),
    ],
)
@pytest.mark.fault(152)
def test_keys_are_read_in_any_case(renamed: Callable[[str], str]) -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(each) for each in value]
        if isinstance(value, dict):
            return {renamed(key): changed(own) for key, own in value.items()}
        return value

    sent = (SAMPLES / "list.json").read_bytes()
    page = json.dumps(changed(json.loads(sent))).encode()
    assert parse_page(page, INDIA) == parse_page(sent, INDIA)


@pytest.mark.fault(152)
def test_documented_key_counts_before_another_case_of_it() -> None:
    assert number_of(region="MU", Region="DL").region == "MU"


@pytest.mark.parametrize(
    ("sent", "attribute", "read"),
    [
        ({"phone_number": 8047091234}, "phone_number", "8047091234"),
        ({"sid": 1140000001}, "sid", "1140000001"),
        ({"friendly_name": 7}, "friendly_name", "7"),
        ({"rental_price": 499}, "rental_price", Decimal(499)),
        ({"rental_price": 499.5}, "rental_price", Decimal("499.5")),
        ({"rental_price": 1e-05}, "rental_price", Decimal("0.00001")),
        ({"rental_price": 499.99999999999994}, "rental_price", Decimal("499.99999999999994")),
        ({"incoming_pulse": 60}, "incoming_pulse_seconds", Decimal(60)),
        ({"incoming_pulse": " 60 "}, "incoming_pulse_seconds", Decimal(60)),
        ({"currency": " inr "}, "currency", "INR"),
        ({"vanity_number": True}, "vanity_number", True),
        ({"vanity_number": "TRUE "}, "vanity_number", True),
        ({"vanity_number": 1}, "vanity_number", True),
        ({"vanity_number": "yes"}, "vanity_number", True),
        ({"vanity_number": "False"}, "vanity_number", False),
        ({"vanity_number": 0}, "vanity_number", False),
        ({"vanity_number": "no"}, "vanity_number", False),
        ({"vanity_number": "null"}, "vanity_number", None),
        ({"voice_url": "  "}, "voice_url", ""),
        ({"voice_url": f" {FLOW} "}, "voice_url", FLOW),
        ({"voice_url": "HTTPS://a.example"}, "voice_url", "HTTPS://a.example"),
        ({"voice_url": "http://[0:0:0:0:0:0:0:1]/?a"}, "voice_url", "http://[0:0:0:0:0:0:0:1]/?a"),
    ],
    ids=repr,
)
@pytest.mark.fault(62)
def test_other_forms_that_say_the_same_are_read(
    sent: dict[str, Any], attribute: str, read: object
) -> None:
    number = number_of(**sent)
    assert (getattr(number, attribute), number.unreadable) == (read, ())


@pytest.mark.parametrize(
    ("field", "value", "attribute", "read"),
    [
        ("phone_number", ["+91"], "phone_number", ""),
        ("friendly_name", True, "friendly_name", ""),
        ("region", 1.5, "region", ""),
        ("uri", False, "uri", ""),
        ("currency", {}, "currency", ""),
        ("currency", 499, "currency", ""),
        ("currency", "Rupees", "currency", ""),
        pytest.param("currency", "\u0130NR", "currency", "", id="capital-i-with-a-dot"),
        ("rental_price", True, "rental_price", None),
        ("rental_price", [], "rental_price", None),
        ("rental_price", -1, "rental_price", None),
        ("one_time_price", {}, "one_time_price", None),
        ("incoming_rate", "free", "incoming_rate", None),
        ("incoming_pulse", "60s", "incoming_pulse_seconds", None),
        ("vanity_number", "maybe", "vanity_number", None),
        ("vanity_number", 2, "vanity_number", None),
        ("vanity_number", [], "vanity_number", None),
        ("voice_url", 0, "voice_url", None),
        ("voice_url", "n/a", "voice_url", None),
        ("voice_url", "my.exotel.in/acme/exoml/start_voice/11", "voice_url", None),
        ("voice_url", "//my.exotel.in/acme/exoml/start_voice/11", "voice_url", None),
        ("voice_url", "ftp://my.exotel.in/acme", "voice_url", None),
        pytest.param("voice_url", "http\u017f://my.exotel.in", "voice_url", None, id="long-s"),
        ("voice_url", "http:///acme", "voice_url", None),
        ("sms_url", "https:// a.example", "sms_url", None),
        ("sms_url", False, "sms_url", None),
        ("date_created", 1457092910, "created_timestamp_seconds", None),
        ("date_updated", [], "updated_timestamp_seconds", None),
    ],
    ids=repr,
)
@pytest.mark.fault(62)
def test_value_without_a_certain_meaning_is_unknown_and_its_field_is_named(
    field: str, value: object, attribute: str, read: object
) -> None:
    number = number_of(**{field: value})
    assert (getattr(number, attribute), number.unreadable) == (read, (field,))


@pytest.mark.parametrize(
    ("capabilities", "capable", "readable"),
    [
        ({"voice": True, "sms": False}, (True, False), True),
        ({"Voice": False, "SMS": True}, (False, True), True),
        ({"voice": "false", "sms": 0}, (False, False), True),
        ({}, (True, True), True),
        ({"sms": False}, (True, False), True),
        ({"voice": None, "sms": "null"}, (True, True), True),
        ("null", (True, True), True),
        ({"voice": "perhaps", "sms": []}, (True, True), False),
        ({"voice": 2, "sms": False}, (True, False), False),
        (["voice"], (True, True), False),
        (False, (True, True), False),
    ],
    ids=repr,
)
@pytest.mark.fault(62)
def test_capability_is_missing_only_where_the_api_says_false(
    *, capabilities: object, capable: tuple[bool, bool], readable: bool
) -> None:
    number = number_of(capabilities=capabilities)
    assert (number.capable("voice"), number.capable("sms")) == capable
    assert number.unreadable == (() if readable else ("capabilities",))


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        pytest.param("\ud800", "\ufffd", marks=pytest.mark.fault(63), id="lone-surrogate"),
        pytest.param("a\udfffb", "a\ufffdb", marks=pytest.mark.fault(63), id="low-surrogate"),
        pytest.param("a\nb\tc\x00d\x1fe\x7ff", "a b c d e f", id="control-characters"),
        pytest.param("a\x80b\x85c\x9b31md\x9f", "a b c 31md ", id="those-of-eight-bits"),
        pytest.param('a"b\\c{}d,e#f', 'a"b\\c{}d,e#f', id="quotes-and-braces"),
        pytest.param("a\u2028b\u202ec\U0001f600", "a bc\U0001f600", id="hidden-letters"),
        pytest.param("मुंबई", "मुंबई", id="hindi"),
        pytest.param("<b onclick='x'>", "<b onclick='x'>", id="html"),
    ],
)
@pytest.mark.fault(65)
def test_name_keeps_every_letter_that_a_label_can_hold(sent: str, read: str) -> None:
    assert number_of(friendly_name=sent).friendly_name == read


@pytest.mark.fault(66)
def test_name_of_a_megabyte_is_cut_to_256_characters_with_an_ellipsis() -> None:
    assert number_of(friendly_name="n" * 256).friendly_name == "n" * 256
    assert number_of(friendly_name="n" * 257).friendly_name == "n" * 255 + "…"
    assert number_of(friendly_name="n" * 1_000_000).friendly_name == "n" * 255 + "…"


def test_words_that_become_labels_lose_the_space_around_them() -> None:
    """Else one circle would be two series."""
    words = ("account_sid", "country", "region", "number_type")
    number = number_of(**{field: f" {field}\n" for field in words})
    assert tuple(getattr(number, field) for field in words) == words


def test_url_is_cut_to_2048_characters() -> None:
    url = "http://a.example/" + "u" * 5000
    assert number_of(voice_url=url).voice_url == url[:2047] + "…"


@pytest.mark.fault(86)
def test_odd_sids_and_phones_are_kept_but_for_the_space_around_them() -> None:
    for text in ("011 4000 0001", "+911140000001", "9eeafc8ab479a386dc95f854f9d7cd8a", "a/b"):
        number = number_of(sid=f" {text} ", phone_number=f"\t{text} ")
        assert (number.sid, number.phone_number) == (text, text)


@pytest.mark.parametrize(
    ("price", "read"),
    [
        pytest.param("499.000000", "499.000000", id="as-documented"),
        pytest.param("0.000000", "0.000000", id="zero-is-not-missing"),
        pytest.param("7", "7", id="whole"),
        pytest.param("999999999999.999999999", "999999999999.999999999", id="largest"),
        pytest.param("499." + "0" * 18, "499." + "0" * 18, id="many-decimals"),
        pytest.param("499." + "0" * 19, None, id="too-many-decimals"),
        pytest.param("499,00", None, id="comma"),
        pytest.param("4,990.00", None, id="thousands"),
        pytest.param("-1", None, id="negative"),
        pytest.param("", None, id="empty"),
        pytest.param("1e9", None, id="exponent"),
        pytest.param(" 499\n", "499", id="space"),
        pytest.param("₹499", None, id="sign"),
        pytest.param("٤٩٩", None, id="arabic-digits"),
        pytest.param("NaN", None, id="nan"),
        pytest.param("499.", None, id="no-decimals-behind-the-point"),
        pytest.param(".5", None, id="no-digits-before-the-point"),
        pytest.param("4 99", None, id="space-inside"),
        pytest.param("1000000000000", None, id="thirteen-digits"),
        pytest.param("9" * 1_000_000, None, id="a-megabyte"),
    ],
)
@pytest.mark.fault(89)
def test_price_is_exact_or_unknown(price: str, read: str | None) -> None:
    number = number_of(rental_price=price)
    assert (None if number.rental_price is None else str(number.rental_price)) == read
    assert number.unreadable == (() if read else ("rental_price",))


@pytest.mark.fault(89)
def test_prices_as_long_as_books_stay_in_no_memory() -> None:
    """Prices are cached, because numbers share them; invalid ones are not."""
    tracemalloc.start()
    try:
        before_bytes = tracemalloc.get_traced_memory()[0]
        for digit in "123456789":
            assert number_of(rental_price=digit * 1_000_000).rental_price is None
        assert tracemalloc.get_traced_memory()[0] - before_bytes < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        pytest.param("2016-03-04 17:31:50", at(2016, 3, 4, 12, 1, 50), id="bare"),
        pytest.param("2016-03-04T17:31:50", at(2016, 3, 4, 12, 1, 50), id="bare-with-t"),
        pytest.param("2016-03-04T17:31:50Z", at(2016, 3, 4, 17, 31, 50), id="utc"),
        pytest.param("2016/03/04 17:31:50", at(2016, 3, 4, 12, 1, 50), id="slashes"),
        pytest.param("2016-03-04 17:31:50z ", at(2016, 3, 4, 17, 31, 50), id="utc-no-t"),
        pytest.param("2016-03-04 17:31:50 UTC", at(2016, 3, 4, 17, 31, 50), id="utc-in-letters"),
        pytest.param("2016-03-04 17:31:50.999", at(2016, 3, 4, 12, 1, 50), id="fraction"),
        pytest.param("2016-03-04T17:31:50,1234567Z", at(2016, 3, 4, 17, 31, 50), id="longer"),
        pytest.param("2016-03-04t17:31:50+05:30", at(2016, 3, 4, 12, 1, 50), id="offset"),
        pytest.param("2016-03-04 17:31:50.0 -0330", at(2016, 3, 4, 21, 1, 50), id="short-offset"),
        pytest.param("2016-03-04T17:31:50+05", at(2016, 3, 4, 12, 31, 50), id="hours-alone"),
        pytest.param("Fri, 04 Mar 2016 17:31:50 +0530", at(2016, 3, 4, 12, 1, 50), id="mail"),
        pytest.param("fri, 4 mar 2016 17:31:50 gmt", at(2016, 3, 4, 17, 31, 50), id="mail-lower"),
        pytest.param("4 Mar 2016 17:31:50 GMT", at(2016, 3, 4, 17, 31, 50), id="mail-gmt"),
        pytest.param("2024-02-29 00:00:00", at(2024, 2, 28, 18, 30), id="leap-day"),
        pytest.param("1969-12-31 23:59:59", at(1969, 12, 31, 18, 29, 59), id="before-1970"),
        pytest.param("2038-01-19 08:44:08", at(2038, 1, 19, 3, 14, 8), id="2038"),
        pytest.param("9999-12-31 23:59:59", at(9999, 12, 31, 18, 29, 59), id="year-9999"),
    ],
)
@pytest.mark.fault(90, 129)
def test_time_is_read_into_utc(sent: str, read: int) -> None:
    number = number_of(date_created=sent)
    assert (number.created_timestamp_seconds, number.unreadable) == (read, ())
    assert type(number.created_timestamp_seconds) is int


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("0000-00-00 00:00:00", id="zero-date"),
        pytest.param("2016-03-04 17:31:60", id="leap-second"),
        pytest.param("2016-03-04 24:00:00", id="hour-24-which-only-new-versions-of-python-read"),
        pytest.param("04/03/2016 17:31:50", id="day-or-month-first"),
        pytest.param("2023-02-29 00:00:00", id="no-leap-day"),
        pytest.param("20180822", id="no-separators"),
        pytest.param("2018-08-22", id="date-alone"),
        pytest.param("2018-W34-3 00:00:00", id="week-date"),
        pytest.param("2016-03-04 17:31:50 IST", id="zone-that-is-several"),
        pytest.param("2016-03-04 17:31:50+25:00", id="offset-of-25-hours"),
        pytest.param("Fri, 04 Mar 2016 17:31:50", id="mail-without-a-zone"),
        pytest.param("Fri, 04 Mar 2016 17:31:50 -0000", id="mail-of-an-unknown-zone"),
        pytest.param("Fri, 34 Mar 2016 17:31:50 GMT", id="mail-of-day-34"),
        pytest.param("٢٠١٦-03-04 17:31:50", id="arabic-digits"),
        pytest.param("0001-01-01 00:00:00", id="year-1-is-before-year-1-in-utc"),
        pytest.param("", id="empty"),
    ],
)
@pytest.mark.fault(90, 129)
def test_time_in_another_form_is_absent(sent: str) -> None:
    number = number_of(date_updated=sent)
    assert (number.updated_timestamp_seconds, number.unreadable) == (None, ("date_updated",))


BERLIN, ALASKA = ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-8))


@pytest.mark.fault(128, 129)
@pytest.mark.parametrize(
    ("zone", "sent", "read"),
    [
        pytest.param(BERLIN, "2024-03-31 01:59:59", at(2024, 3, 31, 0, 59, 59), id="before"),
        pytest.param(BERLIN, "2024-03-31 02:30:00", at(2024, 3, 31, 1, 30), id="left-out"),
        pytest.param(BERLIN, "2024-03-31 03:00:00", at(2024, 3, 31, 1, 0), id="after-it"),
        pytest.param(BERLIN, "2024-10-27 02:30:00", at(2024, 10, 27, 0, 30), id="twice"),
        pytest.param(BERLIN, "2024-10-27 03:00:00", at(2024, 10, 27, 2, 0), id="after-both"),
        pytest.param(ALASKA, "9999-12-31 23:59:59", None, id="year-10000-in-utc"),
    ],
)
def test_time_of_another_zone_is_read_without_an_error(
    zone: tzinfo, sent: str, read: int | None
) -> None:
    """Of an hour that comes twice the first is meant; one that does not exist is counted on."""
    body = f'{{"sid": "a", "date_created": "{sent}"}}'.encode()
    assert parse_number(body, zone).created_timestamp_seconds == read


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("", "", id="none"),
        pytest.param("http://my.exotel.in/acme/exoml/start_voice/12", "12", id="in-voice"),
        pytest.param("https://my.exotel.in/acme/exoml/start_sms/34", "34", id="in-sms"),
        pytest.param("https://my.exotel.com/acme/exoml/start_voice/12", "12", id="com"),
        pytest.param("https://my.in.exotel.com/acme/exoml/start_voice/12", "12", id="in-com"),
        pytest.param("http://my.exotel.in/acme/exoml/start/12", "12", id="older-start"),
        pytest.param("http://my.exotel.in/exoml/start_voice/12", "12", id="without-account"),
        pytest.param("http://my.exotel.in/exoml/start/12", "12", id="older-without-account"),
        pytest.param("HTTP://MY.EXOTEL.IN/acme/exoml/start_voice/aB", "aB", id="capitals"),
        pytest.param("https://my.exotel.in/acme/exoml/start_voice/12/", "12", id="last-slash"),
        pytest.param("https://my.exotel.in/acme/exoml/start_voice/12?a=b/c", "12", id="query"),
        pytest.param("https://my.exotel.in/acme/exoml/start_voice/12#x", "12", id="fragment"),
        pytest.param("https://my.exotel.in/acme/exoml/start_voice/", "external", id="no-id"),
        pytest.param("https://my.exotel.in/acme/exoml/start_fax/1", "external", id="fax"),
        pytest.param("https://my.exotel.in/a/exoml/start_sms/1/2", "external", id="longer-path"),
        pytest.param(
            "https://my.exotel.in.evil.example/a/exoml/start/1", "external", id="longer-host"
        ),
        pytest.param("https://evil.example/my.exotel.in/exoml/start/1", "external", id="in-path"),
        pytest.param("https://my.exotel.in@evil.example/exoml/start/1", "external", id="userinfo"),
        pytest.param("https://myxexotel.in/acme/exoml/start/1", "external", id="no-dot"),
        pytest.param("ftp://my.exotel.in/acme/exoml/start/1", "external", id="scheme"),
        pytest.param("http\u017f://my.exotel.in/exoml/start/1", "external", id="long-s"),
        pytest.param("https://customer.example/ivr", "external", id="customer"),
        pytest.param("not a url", "external", id="no-url"),
        pytest.param(f"https://my.exotel.in/a/exoml/start/{'1' * 64}", "1" * 64, id="longest-id"),
        pytest.param(
            f"https://my.exotel.in/a/exoml/start/{'1' * 65}", "external", id="id-unfit-for-a-label"
        ),
    ],
)
def test_flow_id_is_read_from_an_exotel_url_and_from_no_other(url: str, expected: str) -> None:
    assert flow_id(url) == expected


INCAPABLE = {"voice_capable": False, "sms_capable": False}


@pytest.mark.parametrize(
    ("changes", "unattached", "idle", "attention"),
    [
        pytest.param({}, [], False, False, id="both-flows"),
        pytest.param({"voice_url": ""}, ["voice"], False, True, id="no-voice-flow"),
        pytest.param({"sms_url": ""}, ["sms"], False, True, id="no-sms-flow"),
        pytest.param({"sms_url": "", "sms_capable": False}, [], False, False, id="no-sms"),
        pytest.param({"sms_url": None}, [], False, False, id="sms-unreadable"),
        pytest.param({"voice_url": "", "sms_url": None}, ["voice"], False, True, id="perhaps-sms"),
        pytest.param({"voice_url": None, "sms_url": ""}, ["sms"], False, True, id="perhaps-voice"),
        pytest.param({"voice_url": "", "sms_url": ""}, ["voice", "sms"], True, True, id="no-flow"),
        pytest.param(
            INCAPABLE | {"voice_url": "", "sms_url": ""}, [], True, True, id="capable-of-nothing"
        ),
        pytest.param(INCAPABLE | {"voice_url": ""}, [], False, False, id="incapable-with-a-flow"),
        pytest.param(
            INCAPABLE | {"sms_url": ""}, [], False, False, id="incapable-with-a-voice-flow"
        ),
    ],
)
def test_number_needs_attention_where_a_channel_is_unattached_or_it_is_idle(
    *, changes: dict[str, Any], unattached: list[str], idle: bool, attention: bool
) -> None:
    """It is idle even where it is capable of nothing: the rental is paid all the same."""
    number = phone(**changes)
    assert [flow for flow in ("voice", "sms") if number.unattached(flow)] == unattached
    assert (number.idle, number.needs_attention) == (idle, attention)


@pytest.mark.parametrize(("url", "attached"), [("", False), (FLOW, True), (None, None)], ids=repr)
def test_flow_is_attached_where_a_url_is_there(url: str | None, attached: bool | None) -> None:
    assert phone(sms_url=url).attached("sms") is attached


@pytest.mark.parametrize(
    ("envelope", "more"),
    [
        pytest.param({}, None, id="not-said"),
        pytest.param({"next_page_uri": None}, False, id="null"),
        pytest.param({"next_page_uri": ""}, False, id="empty"),
        pytest.param({"next_page_uri": "http://evil.example/"}, True, id="any-url"),
    ],
)
@pytest.mark.fault(68)
def test_next_page_uri_says_only_whether_there_is_more(
    envelope: dict[str, Any], more: bool | None
) -> None:
    assert page_of(**envelope).more is more


@pytest.mark.parametrize(
    ("sent", "page", "size"),
    [
        pytest.param(3, 3, 3, id="number"),
        pytest.param("3", 3, 3, id="digits"),
        pytest.param(0, 0, None, id="zero-is-no-size"),
        pytest.param(-1, None, None, id="negative"),
        pytest.param(True, None, None, id="boolean"),
        pytest.param("٣", None, None, id="arabic-digit"),
        pytest.param("123456789", 123_456_789, 123_456_789, id="nine-digits"),
        pytest.param("1234567890", None, None, id="ten-digits"),
        pytest.param("9" * 5000, None, None, id="too-long"),
        pytest.param(1.5, None, None, id="fraction"),
        pytest.param([], None, None, id="list"),
    ],
)
def test_page_and_size_are_whole_numbers_or_not_said(
    sent: object, page: int | None, size: int | None
) -> None:
    found = page_of(page=sent, page_size=sent)
    assert (found.page, found.page_size) == (page, size)


@pytest.mark.parametrize(
    ("text", "askable"),
    [
        pytest.param("01112345671", True, id="local-number"),
        pytest.param("9eeafc8ab479a386dc95f854f9d7cd8a", True, id="hex"),
        pytest.param("+91(80)~'\"<>&=:@", True, id="odd-but-one-segment"),
        pytest.param("x" * 128, True, id="longest"),
        pytest.param("x" * 129, False, id="too-long"),
        pytest.param("", False, id="empty"),
        pytest.param(".", False, id="dot"),
        pytest.param("..", False, id="dots"),
        pytest.param("...", True, id="three-dots-are-a-name"),
        pytest.param("a/b", False, id="slash"),
        pytest.param("a\\b", False, id="backslash"),
        pytest.param("a?b", False, id="question-mark"),
        pytest.param("a#b", False, id="hash"),
        pytest.param("%2f", False, id="percent"),
        pytest.param("a b", False, id="space"),
        pytest.param("a\n", False, id="newline"),
        pytest.param("\u0661", False, id="arabic-digit"),
    ],
)
def test_a_sid_is_askable_if_a_path_can_name_it_and_nothing_else(text: str, askable: bool) -> None:
    assert is_askable_sid(text) is askable
