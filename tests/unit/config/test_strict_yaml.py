"""YAML that stays text: what is kept, on which line it is, and what a message shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.config import strict_yaml
from tests.lib.configs import refusal

TAGS = "tags are not supported: remove the word that starts with `!`, or quote the value"


@pytest.mark.fault(98)
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("01112345671", "01112345671"),
        ("+912248901111", "+912248901111"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("1e9", "1e9"),
        ("2020-01-01", "2020-01-01"),
        ("null", "null"),
        ("~", "~"),
        ("a#b", "a#b"),
        ("a #b", "a"),
        ("'it''s'", "it's"),
        (r'"a\tb"', "a\tb"),
        ('""', ""),
        ("", None),
        ("|\n  one\n  two", "one\ntwo\n"),
        (">-\n  one\n  two", "one two"),
        ("[a, 1, [b]]", ["a", "1", ["b"]]),
        ("{x: 1, y: }", {"x": "1", "y": None}),
        ("<<", "<<"),
    ],
)
def test_a_value_is_the_text_that_was_written(written: str, value: Any) -> None:
    assert strict_yaml.parse(f"key: {written}\n", "FILE").value == {"key": value}


def test_every_key_and_item_knows_its_line() -> None:
    """Counted from 1, through comments, lists and flow style."""
    text = "# a comment\na:\n  - x\n\n  - b: 1\n    c: {d: 2,\n      e: 3}\n"
    assert strict_yaml.parse(text, "FILE").lines == {
        (): 2,
        ("a",): 2,
        ("a", 0): 3,
        ("a", 1): 5,
        ("a", 1, "b"): 5,
        ("a", 1, "c"): 6,
        ("a", 1, "c", "d"): 6,
        ("a", 1, "c", "e"): 7,
    }


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n"], ids=repr)
def test_a_document_without_content_has_no_value(text: str) -> None:
    assert strict_yaml.parse(text, "FILE").value is None


@pytest.mark.fault(94, 95)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- !x {}", TAGS),
        ("a: !!binary aGk=", TAGS),
        ('"\\ud800": 2', r"contains half a character (an escape from \ud800 to \udfff)"),
        ('a: "\\U00110000"', "contains an escape sequence for a character that does not exist"),
        ("a: &b [c]", "anchors are not supported: quote a value that starts with `&` (column 4)"),
        ("&b a: c", "anchors are not supported: quote a value that starts with `&` (column 1)"),
        ("a: *", "quote a value that starts with `*`, or has one after a bracket (column 5)"),
        ("a: [b]*", "quote a value that starts with `*`, or has one after a bracket (column 8)"),
        ("a: *b", "aliases are not supported: quote a value that starts with `*` (column 4)"),
        ("a: &", "quote a value that starts with `&` (column 5)"),
        ("a: @b", "quote a value that starts with `@`, `%` or a backtick (column 4)"),
        ("a: |b", "quote a value that starts with `|` or `>` (column 5)"),
        ("a: [b", "close the bracket, or quote a value that starts with `[` or `{` (column 6)"),
        ("a: [b] c", "quote the whole value (column 8)"),
        ("a: ]", "close the bracket, or quote a value that starts with one (column 4)"),
        ("a: - b", "sequence entries are not allowed here (column 4)"),
    ],
)
def test_what_is_not_plain_is_refused_everywhere(text: str, message: str) -> None:
    """On keys, lists and mappings; the files in data/configs/bad have the rest."""
    error = refusal(lambda: strict_yaml.parse(text, "FILE"))
    assert error.problems == (f"FILE:1: {message}",)
    assert (error.__context__, error.__cause__) == (None, None)


def test_the_same_key_in_two_mappings_is_fine() -> None:
    assert strict_yaml.parse("a: {c: 1}\nb: {c: 1}", "FILE").value == {
        "a": {"c": "1"},
        "b": {"c": "1"},
    }


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("interval", "interval"),
        ("<<", "<<"),
        ("api_key:canary", "api_key…"),
        ("api_key=canary", "api_key…"),
        ("api_key canary", "api_key…"),
        ("a\x1b[31m", "a?[31m"),
        ("k" * 80, "k" * 80),
        ("k" * 81, "k" * 80 + "…"),
        ("", ""),
    ],
    ids=repr,
)
def test_a_key_is_shown_without_what_may_be_its_value(key: str, shown: str) -> None:
    """`api_key:secret` is one word to YAML, and a secret to its writer."""
    assert strict_yaml.shown_key(key) == shown


@given(
    st.recursive(
        st.text(st.characters(codec="utf-8"), max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_json_text_comes_back_as_it_was(value: Any) -> None:
    """JSON is YAML, save that it writes some characters as pairs of surrogates."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")
    text = "".join(c if c.isprintable() or c == " " else f"\\U{ord(c):08x}" for c in text)
    assert strict_yaml.parse(text, "FILE").value == value
