"""Texts of the vendor as labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.exotel.text import clean_text
from tests.lib.strategies import ANY_TEXT


@given(ANY_TEXT, st.integers(1, 30))
def test_clean_text_is_short_and_clean_and_cleaning_again_changes_nothing(
    text: str, limit: int
) -> None:
    cleaned = clean_text(text, limit)
    cleaned.encode("utf-8")
    assert len(cleaned) <= limit
    assert clean_text(cleaned, limit) == cleaned
