"""How much of a phone number others can read."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory import privacy
from tests.lib.support import phone

HEX_SID = "9eeafc8ab479386dc95f854f9d7cd8a1"
KEY = b"k" * 32


def masked_identity(named: ExoPhone, setting: Any, key: bytes = KEY) -> ExoPhone:
    return privacy.masked_identity(named, setting, key)


def number(sid: str = HEX_SID, name: str = "Support") -> ExoPhone:
    return phone(sid, phone_number="+918047091234", friendly_name=name)


def digits(text: str) -> str:
    return re.sub(r"\D", "", text)


@pytest.mark.parametrize(
    ("named", "setting", "expected"),
    [
        (
            number("08047091234", "080 4709 1234 "),
            "full",
            ("08047091234", "+918047091234", "080 4709 1234 "),
        ),
        (number(), "last4", (HEX_SID, "…1234", "Support")),
        (number(), "hidden", (HEX_SID, "", "Support")),
        (phone(HEX_SID, phone_number="", friendly_name=""), "last4", (HEX_SID, "", "")),
    ],
)
def test_each_setting_shows_what_it_says(
    named: ExoPhone, setting: str, expected: tuple[str, str, str]
) -> None:
    shown = masked_identity(named, setting)
    assert (shown.sid, shown.phone_number, shown.friendly_name) == expected


def test_last_four_digits_are_digits_however_they_are_set_apart() -> None:
    for text in ("080-4709 12 34", "080 4709 12/34", "080\u20134709\u201312\u201334"):
        assert masked_identity(phone(phone_number=text), "last4").phone_number == "…1234"


@pytest.mark.parametrize(
    "sid",
    [
        *("08047091234", "+918047091234", "+91 80-4709-1234", "(080) 4709 1234", "080.4709.1234"),
        *("exo-08047091234", "exo-804709-1234x"),
        "exo-091234",  # the last six digits
        "%30%39%31%32%33%34",
        "011XXXXXXX1",  # masked by the vendor
        *("1140000001", " 1140000001 "),  # another number
    ],
)
@pytest.mark.fault(92)
def test_sid_that_is_the_number_becomes_a_pseudonym(sid: str) -> None:
    for setting in ("last4", "hidden"):
        pseudonym = masked_identity(number(sid), setting).sid
        assert re.fullmatch(r"number-[0-9a-f]{12}", pseudonym)
        assert "4709" not in pseudonym


@pytest.mark.parametrize(
    ("sid", "phone_number", "is_shown"),
    [
        pytest.param("exo-08047091234", "+91 80-4709-1234", False, id="digits-set-apart"),
        pytest.param("exo-91234", "+918047091234", True, id="last-five-digits"),
        pytest.param("exo-91234", "91234", True, id="short-code-is-no-number"),
    ],
)
@pytest.mark.fault(92)
def test_sid_with_fewer_than_six_digits_of_the_number_is_shown(
    sid: str, phone_number: str, is_shown: bool
) -> None:
    shown = masked_identity(phone(sid, phone_number=phone_number), "last4").sid
    assert shown == sid if is_shown else shown.startswith("number-")


@pytest.mark.parametrize(
    ("name", "last4", "hidden"),
    [
        pytest.param("08047091234", "…1234", "", id="local"),
        pytest.param("+91 80 4709 1234", "…1234", "", id="international"),
        pytest.param("(080) 4709-1234", "…1234", "", id="brackets"),
        pytest.param("(080 4709 1234)", "…1234", "", id="all-in-brackets"),
        pytest.param("080.4709.1234", "…1234", "", id="dots"),
        pytest.param("080\u00a04709\u20131234", "…1234", "", id="typeset"),
        pytest.param("Support 08047091234", "Support …1234", "Support", id="behind-a-word"),
        pytest.param("08047091234 (Mumbai)", "…1234 (Mumbai)", "(Mumbai)", id="before-a-word"),
        pytest.param("080+4709+1234", "…1234", "", id="plus-signs"),
        pytest.param("080/4709/1234", "…1234", "", id="slashes"),
        pytest.param("XXXXX30240", "…0240", "", id="masked-by-the-vendor"),
        pytest.param("80470_91234 (Pune)", "…1234 (Pune)", "(Pune)", id="underscore"),
        pytest.param("A 8047091234 B", "A …1234 B", "A B", id="between-words"),
        pytest.param("A8047091234B", "A…1234B", "A B", id="without-a-space"),
        pytest.param("0 80470 91234", "…1234", "", id="trunk-prefix"),
        pytest.param("Room 10 80470 91234", "Room 10 …1234", "Room 10", id="behind-a-figure"),
        pytest.param("Desk 80470", "Desk …", "Desk", id="first-five"),
        pytest.param("Desk 8047", "Desk …", "Desk", id="first-four"),
        pytest.param("Desk 1234", "Desk 1234", "Desk", id="last-four"),
        pytest.param("Desk 123456", "Desk …3456", "Desk", id="six-digits"),
        pytest.param("Desk 12345", "Desk 12345", "Desk 12345", id="five-digits"),
        pytest.param("Desk 12, floor 3", "Desk 12, floor 3", "Desk 12, floor 3", id="figures"),
    ],
)
@pytest.mark.fault(92, 171)
def test_number_in_the_name_is_covered_too(name: str, last4: str, hidden: str) -> None:
    """The vendor's default name of a number is the number."""
    assert masked_identity(number(name=name), "last4").friendly_name == last4
    assert masked_identity(number(name=name), "hidden").friendly_name == hidden


@pytest.mark.fault(92)
def test_pseudonym_is_keyed_and_the_same_after_a_restart_and_in_both_settings() -> None:
    """BLAKE2b of `acme/08047091234` in 48 bits: series outlive an update, but not another key."""
    named = number("08047091234")
    digest = hashlib.blake2b(b"acme/08047091234", key=KEY, digest_size=6).hexdigest()
    for setting in ("last4", "hidden"):
        assert masked_identity(named, setting).sid == f"number-{digest}"
        assert masked_identity(named, setting, b"other").sid != f"number-{digest}"


@pytest.mark.fault(171)
@pytest.mark.parametrize(
    "name",
    [
        *(f"98450{between}12345" for between in ("_", ",", "\u00b7", "~", " & ", "'", "\u200b")),
        *("98\u221245012345", "98,45,01,23,45", "98 floor 45 room 01 desk 2345", "98450x12345"),
        *("\uff19\uff18\uff14\uff15\uff10_\uff11", "\u096f\u096e\u096a\u096b\u0966|1234"),
        *("%39%38450a12345", "&#57;&#56;450a12345", "\u2468\u2467\u2463\u2464\u24ea a 12345"),
        *("%2539%2538%2534%2535%2530", "&amp;#57;&#38;#56;&amp;#52;&amp;#53;&amp;#48;"),
        *("=39=38=34=35=30", r"\x39\x38\x34\x35\x30", r"\u0039\u0038\u{34}\u{0035}\u0030"),
        *("+91 (0) 98450 12345", "00 91 98450 12345", "0 98450 12345"),
        *("2345", "Line (2345)", "+91_98450", "45012"),
    ],
)
def test_hidden_leaves_no_digits_of_the_number_in_a_name(name: str) -> None:
    """Whatever separates or encodes them."""
    named = phone(HEX_SID, phone_number="+919845012345", friendly_name=f"Desk {name}")
    shown = masked_identity(named, "hidden").friendly_name
    assert shown in ("", "Desk", "Desk Line")


@pytest.mark.fault(92)
def test_pseudonyms_differ_by_number_and_by_account() -> None:
    sids = [f"0804709{i:04}" for i in range(5000)]
    names = {
        masked_identity(phone(sid, account_sid=a), "hidden").sid for sid in sids for a in ("a", "b")
    }
    assert len(names) == 10_000


@pytest.mark.fault(92)
def test_pseudonyms_differ_however_account_and_number_are_cut_in_two() -> None:
    """Two series by one name would be dropped by Prometheus, without a word from us."""
    one = phone("x/912248", account_sid="a", phone_number="+912248")
    other = phone("912248", account_sid="a/x", phone_number="+912248")
    assert masked_identity(one, "hidden").sid != masked_identity(other, "hidden").sid


@given(
    st.from_regex(r"[1-9][0-9]{9}", fullmatch=True),
    st.sampled_from(["{}", "0{}", "+91{}", "num {}", "{}-x"]),
)
@pytest.mark.fault(92)
def test_no_more_digits_are_left_than_allowed(local: str, form: str) -> None:
    """Wherever the number stands, what is shown holds no five digits of it in a row."""
    written = form.format(local)
    named = phone(written, phone_number=f"+91{local}", friendly_name=written)
    for setting, allowed in (("last4", local[-4:]), ("hidden", "")):
        names = masked_identity(named, setting)
        assert names.sid.startswith("number-")
        assert digits(names.phone_number) == allowed
        assert digits(names.friendly_name) == allowed
