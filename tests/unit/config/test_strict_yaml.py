"""YAML that stays text: what is kept, on which line it is, and what is refused."""

from __future__ import annotations

import json
import time
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.config import strict_yaml
from exophone_exporter.config.strict_yaml import YamlError

TAGS = "tags are not supported: remove the word that starts with `!`, or quote the value"


def refusal(text: str) -> YamlError:
    with pytest.raises(YamlError) as caught:
        strict_yaml.parse(text)
    return caught.value


@pytest.mark.fault(98)
@pytest.mark.parametrize(
    ("written", "value"),
    [
        pytest.param("01112345671", "01112345671", id="octal"),
        pytest.param("+912248901111", "+912248901111", id="plus"),
        pytest.param("no", "no", id="no"),
        pytest.param("12:30", "12:30", id="sexagesimal"),
        pytest.param("1e9", "1e9", id="float"),
        pytest.param("2020-01-01", "2020-01-01", id="date"),
        pytest.param("null", "null", id="null"),
        pytest.param("~", "~", id="tilde"),
        pytest.param("a#b", "a#b", id="hash-inside"),
        pytest.param("a #b", "a", id="comment"),
        pytest.param("'it''s'", "it's", id="single-quotes"),
        pytest.param(r'"a\tb"', "a\tb", id="double-quotes"),
        pytest.param('""', "", id="empty-quotes"),
        pytest.param("", None, id="nothing"),
        pytest.param("|\n  one\n  two", "one\ntwo\n", id="block"),
        pytest.param(">-\n  one\n  two", "one two", id="folded"),
        pytest.param("[a, 1, [b]]", ["a", "1", ["b"]], id="list"),
        pytest.param("{x: 1, y: }", {"x": "1", "y": None}, id="mapping"),
        pytest.param("<<", "<<", id="merge-as-text"),
    ],
)
def test_a_value_is_the_text_that_was_written(written: str, value: Any) -> None:
    """No number, truth value, date or null is made of it."""
    assert strict_yaml.parse(f"key: {written}\n").value == {"key": value}


def test_every_key_and_item_knows_its_line() -> None:
    """Counted from 1, through comments, lists and flow style."""
    text = "# a comment\na:\n  - x\n\n  - b: 1\n    c: {d: 2,\n      e: 3}\n"
    assert strict_yaml.parse(text).lines == {
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
    """That is for the reader to judge."""
    assert strict_yaml.parse(text).value is None


@pytest.mark.fault(94)
@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param("a:\n\tb: 1", 2, "contains a tab; indent with spaces (column 1)", id="tab"),
        pytest.param(
            "a: b: c",
            1,
            "second `: ` on one line; quote a value that contains one, or check the indentation"
            " (column 5)",
            id="two-colons",
        ),
        pytest.param(
            "a: 1\nb\nc: 1",
            3,
            "a key must be followed by a colon and a space (column 1)",
            id="no-colon",
        ),
        pytest.param(
            "a: 1\n---\nb: 1",
            2,
            "a second document starts here; remove the line `---` (column 1)",
            id="two-documents",
        ),
        pytest.param("a: 'x\n", 2, "a quote is never closed (column 1)", id="open-quote"),
        pytest.param("a: 1\n? [b]\n: 2", 2, "a key must be plain text", id="list-as-key"),
        pytest.param("a: !!int 1", 1, TAGS, id="tag"),
        pytest.param("a: !!python/object:os.system x", 1, TAGS, id="python-tag"),
        pytest.param("a: !!binary aGk=", 1, TAGS, id="binary-tag"),
        pytest.param("- !x {}", 1, TAGS, id="local-tag"),
        pytest.param("a: !x!y z", 1, f"{TAGS} (column 4)", id="tag-handle"),
        pytest.param(
            "a: 1\nb: \x07",
            2,
            "contains a character that YAML does not allow; save the file as UTF-8",
            id="bell",
        ),
        pytest.param(
            'a: 1\nb: "\\U00110000"',
            2,
            "contains an escape sequence for a character that does not exist",
            id="escape",
        ),
        pytest.param(
            'a: 1\n"\\ud800": 2',
            2,
            "contains half a character (an escape from \\ud800 to \\udfff)",
            id="surrogate-key",
        ),
    ],
)
def test_what_is_not_plain_yaml_is_refused_at_its_line(text: str, line: int, message: str) -> None:
    """With a column where the scanner knows one, and with advice."""
    error = refusal(text)
    assert (error.line, error.message) == (line, message)
    assert str(error) == message


@pytest.mark.fault(95)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "a: *b", "aliases are not supported: write the value out (column 4)", id="alias"
        ),
        pytest.param(
            "a: &b c",
            "anchors are not supported: quote a value that starts with `&` (column 4)",
            id="anchor",
        ),
        pytest.param(
            "a: &b [c]",
            "anchors are not supported: quote a value that starts with `&` (column 4)",
            id="list",
        ),
        pytest.param(
            "&b a: c",
            "anchors are not supported: quote a value that starts with `&` (column 1)",
            id="key",
        ),
    ],
)
def test_aliases_and_anchors_are_refused(text: str, message: str) -> None:
    """An anchor alone would quietly take the first word from a value."""
    assert refusal(text).message == message


@pytest.mark.fault(95)
def test_a_merge_bomb_is_refused_at_once() -> None:
    """Nine levels of ten merges: a general loader would work for minutes."""
    levels = "".join(
        f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}]}}\n" for n in range(1, 10)
    )
    began = time.perf_counter()
    assert refusal("l0: &l0 {x: 1}\n" + levels).line == 1
    assert time.perf_counter() - began < 0.5


@pytest.mark.fault(96)
def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    """A general loader keeps the last one silently."""
    error = refusal("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    expected = (5, "the key `c` is duplicated (first on line 3)")
    assert (error.line, error.message) == expected


def test_the_same_key_in_two_mappings_is_fine() -> None:
    """Only within one mapping is it a mistake."""
    assert strict_yaml.parse("a: {c: 1}\nb: {c: 1}").value == {"a": {"c": "1"}, "b": {"c": "1"}}


@pytest.mark.fault(94)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 3000, id="brackets"),
        pytest.param("{a: " * 3000, id="braces"),
        pytest.param("- " * 3000, id="dashes"),
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    """The stack of the interpreter is never the limit that a person sees."""
    error = refusal(text)
    assert (error.line, error.message) == (None, "is nested too deeply")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: canary: b", id="scanner"),
        pytest.param("a: 'canary", id="open"),
        pytest.param("a: !canary!b c", id="tag-handle"),
        pytest.param("a: *canary", id="alias"),
        pytest.param("a: &canary b", id="anchor"),
        pytest.param("a: canary\nb: \x07", id="reader"),
        pytest.param('a: "canary\\UFFFFFFFF"', id="escape"),
        pytest.param("{api_key:canary, api_key:canary}", id="twice"),
    ],
)
def test_an_error_never_quotes_the_lines_around_it(text: str) -> None:
    """PyYAML's do, and one of those lines may hold a secret."""
    error = refusal(text)
    assert error.__cause__ is None
    assert error.__context__ is None
    # The test's own source line is in its traceback, so only the last part is looked at.
    shown = "".join(traceback.format_exception_only(error)) + repr(error) + repr(vars(error))
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        pytest.param("interval", "interval", id="plain"),
        pytest.param("<<", "<<", id="merge"),
        pytest.param("api_key:canary", "api_key…", id="no-space"),
        pytest.param("api_key=canary", "api_key…", id="equals"),
        pytest.param("api_key canary", "api_key…", id="no-colon"),
        pytest.param("a\x1b[31m", "a?[31m", id="escape"),
        pytest.param("k" * 81, "k" * 80 + "…", id="long"),
        pytest.param("", "", id="empty"),
    ],
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
    assert strict_yaml.parse(text).value == value
