"""Secrets: read with care, read again when they rotate, and never shown."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.config import loader
from exophone_exporter.config.secrets import Secret, SecretSource, line_from_bytes
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import ConfigError
from tests.lib.support import account

CANARY = "canary-7d1f"
KEY_AND_TOKEN = (
    "accounts:\n  - name: support\n    sid: acme1\n    api_key_file: {0}\n    api_token_file: {0}\n"
)


def load(secret_file: Path) -> Config:
    return loader.parse(KEY_AND_TOKEN.format(secret_file), "FILE", {})


def source(path: Path) -> SecretSource:
    return load(path).accounts[0].credentials.api_key


# ---- reading


@pytest.mark.fault(101)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("after", [b"", b"\n", b"\r\n", b"\n\n\n"])
def test_what_editors_add_to_a_secret_is_left_out(before: bytes, after: bytes) -> None:
    """A newline that stays would make every request a silent 401."""
    secret = "schlüssel-٣-😀"
    assert line_from_bytes(before + secret.encode() + after) == secret


@pytest.mark.fault(101)
@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"  \t ", "is empty"),
        (b"can\xe9ary", "is not UTF-8 text"),
        ("canary".encode("utf-16"), "is not UTF-8 text"),
        (b"can\xed\xa0\x80ary", "is not UTF-8 text"),
        (b"canary\ncanary\n", "contains more than one line or a control character"),
        (b"can\0ary", "contains more than one line or a control character"),
        (b"can\x7fary", "contains more than one line or a control character"),
        (b"canary ", "starts or ends with a space"),
        (b" canary\n", "starts or ends with a space"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_without_being_shown(
    content: bytes, advice: str
) -> None:
    with pytest.raises(ValueError, match=f"^{advice}$") as caught:
        line_from_bytes(content)
    assert caught.value.args == (advice,)
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_secret_that_can_be_sent_or_a_value_error(content: bytes) -> None:
    """A secret is one line of UTF-8; no other error comes out, such as one of decoding."""
    try:
        secret = line_from_bytes(content)
    except UnicodeError:
        raise
    except ValueError:
        return
    assert secret.strip() == secret != ""
    assert secret.encode() in content


@pytest.mark.fault(101)
def test_a_huge_secret_file_is_named_for_both_keys(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(b"canary-7d1f" * 1_000_000)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problems == (
        f"FILE:4: accounts[0].api_key_file: {path}: is larger than 64 KiB",
        f"FILE:5: accounts[0].api_token_file: {path}: is larger than 64 KiB",
    )


@pytest.mark.fault(101)
@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_secret_file_that_everyone_can_read_is_a_warning(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    """Once for each file, though two keys name it."""
    path = tmp_path / "secret"
    path.write_text("canary")
    path.chmod(mode)
    warning = f"{path} is readable by every user of this machine; run chmod o-r on it"
    assert load(path).warnings == ((warning,) if warned else ())


def test_a_variable_gives_no_warning() -> None:
    text = KEY_AND_TOKEN.replace("_file: {0}", "_env: KEY")
    assert loader.parse(text, "FILE", {"KEY": "canary"}).warnings == ()


# ---- rotation


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.fault(105)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_text(""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe\0"), id="binary"),
        pytest.param(lambda path: path.write_text("x" * 65_537), id="huge"),
        pytest.param(replace_by_folder, id="directory"),
    ],
)
def test_a_rotated_file_takes_effect_and_an_unreadable_one_leaves_the_last_secret(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    """The last one, not the one of the start: that was revoked when it was rotated."""
    path = tmp_path / "secret"
    path.write_text("first\n")
    secret = source(path)
    assert secret.current().reveal() == "first"
    path.write_text("second\n")
    assert secret.current().reveal() == "second"
    spoil(path)
    assert secret.current().reveal() == "second"


@pytest.mark.fault(173)
def test_a_rotated_file_that_cannot_be_used_is_reported_once_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    credentials = load(file).accounts[0].credentials
    assert credentials.problems == ""
    for content in (f"{CANARY} ", f"{CANARY} ", "", "second", ""):
        file.write_text(content)
        credentials.api_token.current()
    space, empty = f"{file}: starts or ends with a space", f"{file}: is empty"
    problems = [vars(record)["fields"]["problem"] for record in caplog.records]
    assert problems == [space, empty, empty]
    assert credentials.problems == empty
    assert credentials.api_token.loaded == Secret("second")
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("value", "suspicious"),
    [
        ('"secret"', True),
        ("'secret'", True),
        ("${EXOTEL_TOKEN}", True),
        ("<your_api_token>", True),
        ("\u200bsecret", True),
        ("sec\u00a0ret", True),
        ("sécret", False),
        ("sec'ret'", False),
        ("$ecret{}", False),
    ],
)
def test_a_secret_in_quotes_or_a_placeholder_is_a_warning(
    value: str, suspicious: bool, tmp_path: Path
) -> None:
    """`docker run --env-file` keeps quotes."""
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text(value, encoding="utf-8")
    warnings = load(file).warnings
    assert [warning.partition(": the value is in quotes")[0] for warning in warnings] == (
        ["api_key_file", "api_token_file"] if suspicious else []
    )
    assert value not in " ".join(warnings)


def test_a_value_stays_what_it_was() -> None:
    assert SecretSource(Secret("value")).current().reveal() == "value"


# ---- never shown

VARIABLES = {"EXOTEL_ACCOUNT_SID": "a", "EXOTEL_API_KEY": CANARY, "EXOTEL_API_TOKEN": CANARY}
HOLDERS: list[Any] = [
    pytest.param(lambda: Secret(CANARY), id="Secret"),
    pytest.param(lambda: SecretSource(Secret(CANARY), "/secret"), id="SecretSource"),
    pytest.param(lambda: loader.load(None, VARIABLES).accounts[0].credentials, id="Credentials"),
    pytest.param(lambda: loader.load(None, VARIABLES).accounts[0], id="Account"),
    pytest.param(lambda: loader.load(None, VARIABLES), id="Config"),
]


@pytest.mark.parametrize("make", HOLDERS)
def test_no_way_of_printing_shows_a_secret(make: Callable[[], Any]) -> None:
    holder = make()
    shown = [str(holder), repr(holder), f"{holder}", f"{holder!r:>5}", f"{[holder]}"]
    shown.append(json.dumps({"x": holder}, default=str))
    shown.append("%s %r" % (holder, holder))  # noqa: UP031 - how logging formats
    assert not any(CANARY in text for text in shown)
    assert all("<secret>" in text for text in shown)


@pytest.mark.parametrize("make", HOLDERS)
@pytest.mark.parametrize("take", [pickle.dumps, copy.deepcopy])
def test_no_copy_of_a_secret_leaves(make: Callable[[], Any], take: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        take(make())
    assert CANARY not in str(caught.value)


def test_a_secret_is_not_copied_nor_formatted_with_a_width() -> None:
    with pytest.raises(TypeError):
        copy.copy(Secret(CANARY))
    with pytest.raises(TypeError):
        format(Secret(CANARY), ">40")
    with pytest.raises(TypeError):
        dataclasses.asdict(account(api_key=CANARY))


def test_a_secret_has_no_attribute_that_a_dump_would_find() -> None:
    """vars() is what debuggers and serialisers ask first."""
    assert not hasattr(Secret(CANARY), "__dict__")


def test_secrets_compare_by_value_and_with_nothing_else() -> None:
    """A reload notices a rotated one by that."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
