"""Texts of the vendor as labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.exotel.text import clean_text
from tests.lib.strategies import ANY_TEXT


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("good\u202egpj.exe", "goodgpj.exe"),
        ("\u2066a\u2069 \u200eb\u200f\ufeff\u200b\u2060", "a b"),
        ("a\u2028b\u2029c\td\x9be", "a b c d e"),
        ("\ud800", "\ufffd"),
        ("क्\u200dष न\u200cम", "क्\u200dष न\u200cम"),  # the joiners of Indian scripts
    ],
)
def test_characters_that_deceive_a_reader_are_left_out(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@given(ANY_TEXT, st.integers(1, 30))
def test_clean_text_is_short_and_clean_and_cleaning_again_changes_nothing(
    text: str, limit: int
) -> None:
    cleaned = clean_text(text, limit)
    cleaned.encode("utf-8")
    assert len(cleaned) <= limit
    assert clean_text(cleaned, limit) == cleaned
