"""Secrets: read with care, read again when they rotate, and never shown."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.config import loader
from exophone_exporter.config.secrets import (
    Credentials,
    Secret,
    SecretSource,
    line_from_bytes,
    line_from_text,
)
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import ConfigError
from tests.lib.support import account

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"canary", id="bare"),
        pytest.param(b"canary\n", id="newline"),
        pytest.param(b"canary\r\n", id="crlf"),
        pytest.param(b"canary\n\n\n", id="newlines"),
        pytest.param(b"\xef\xbb\xbfcanary", id="bom"),
        pytest.param(b"\xef\xbb\xbfcanary\r\n", id="bom-crlf"),
    ],
)
def test_what_editors_add_to_a_secret_is_left_out(content: bytes) -> None:
    """A newline that stays would make every request a silent 401."""
    assert line_from_bytes(content) == "canary"


@pytest.mark.fault(101)
def test_a_secret_may_hold_any_letters() -> None:
    """They are sent as UTF-8."""
    assert line_from_bytes("schlüssel-٣-😀".encode()) == "schlüssel-٣-😀"


@pytest.mark.fault(101)
@pytest.mark.parametrize(
    ("content", "advice"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n", "is empty", id="newline"),
        pytest.param(b"\xef\xbb\xbf\r\n", "is empty", id="bom"),
        pytest.param(b"  \t ", "is empty", id="blank"),
        pytest.param(b"can\xe9ary", "is not UTF-8 text", id="latin1"),
        pytest.param("canary".encode("utf-16"), "is not UTF-8 text", id="utf16"),
        pytest.param(b"can\xed\xa0\x80ary", "is not UTF-8 text", id="surrogate"),
        pytest.param(
            b"canary\ncanary\n", "contains more than one line or a control character", id="lines"
        ),
        pytest.param(b"can\0ary", "contains more than one line or a control character", id="nul"),
        pytest.param(b"can\x7fary", "contains more than one line or a control character", id="del"),
        pytest.param(b"canary ", "starts or ends with a space", id="space-after"),
        pytest.param(b" canary\n", "starts or ends with a space", id="space-before"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_without_being_shown(
    content: bytes, advice: str
) -> None:
    """The error says what is wrong and holds nothing of the bytes."""
    with pytest.raises(ValueError, match=f"^{advice}$") as caught:
        line_from_bytes(content)
    assert caught.value.args == (advice,)
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None


def test_a_variable_that_is_not_utf_8_is_refused() -> None:
    """The system gives such bytes as lone surrogates, which no request could carry."""
    with pytest.raises(ValueError, match=r"^is not UTF-8 text$"):
        line_from_text("canary\udcff")


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


def real_files(folder: Path) -> dict[str, tuple[Path, str]]:
    huge, lines = folder / "huge", folder / "lines"
    huge.write_bytes(b"canary-7d1f" * 1_000_000)
    lines.write_text("canary-7d1f\ncanary-7d1f\n")
    return {
        "huge": (huge, "is larger than 64 KiB"),
        "directory": (folder, "cannot be read: Is a directory"),
        "missing": (folder / "gone", "cannot be read: No such file or directory"),
        "lines": (lines, "contains more than one line or a control character"),
    }


@pytest.mark.fault(101)
@pytest.mark.parametrize("which", ["huge", "directory", "missing", "lines"], ids=str)
def test_a_secret_file_that_cannot_be_used_is_named(tmp_path: Path, which: str) -> None:
    """Both keys of the account, with their lines; 10 MB are not read."""
    path, reason = real_files(tmp_path)[which]
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problems == (
        f"FILE:4: accounts[0].api_key_file: {path}: {reason}",
        f"FILE:5: accounts[0].api_token_file: {path}: {reason}",
    )


@pytest.mark.fault(101)
@pytest.mark.parametrize(
    ("mode", "warned"),
    [
        pytest.param(0o644, True, id="world"),
        pytest.param(0o640, False, id="group"),
        pytest.param(0o600, False, id="owner"),
    ],
)
def test_a_secret_file_that_everyone_can_read_is_a_warning(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    """Told once for each file, though two keys name it."""
    path = tmp_path / "secret"
    path.write_text("canary")
    path.chmod(mode)
    warning = f"{path} is readable by every user of this machine; run chmod o-r on it"
    assert load(path).warnings == ((warning,) if warned else ())


def test_a_variable_gives_no_warning() -> None:
    """It has no permissions."""
    text = KEY_AND_TOKEN.replace("_file: {0}", "_env: KEY")
    assert loader.parse(text, "FILE", {"KEY": "canary"}).warnings == ()


# ---- rotation


@pytest.mark.fault(105)
def test_a_rotated_file_takes_effect(tmp_path: Path) -> None:
    """Without a reload."""
    path = tmp_path / "secret"
    path.write_text("first\n")
    secret = source(path)
    assert secret.current().reveal() == "first"
    path.write_text("second\n")
    assert secret.current().reveal() == "second"


def make_gone(path: Path) -> None:
    path.unlink()


def make_empty(path: Path) -> None:
    path.write_text("")


def make_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\0")


def make_huge(path: Path) -> None:
    path.write_text("x" * 65_537)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.fault(105)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(make_gone, id="gone"),
        pytest.param(make_empty, id="empty"),
        pytest.param(make_binary, id="binary"),
        pytest.param(make_huge, id="huge"),
        pytest.param(make_directory, id="directory"),
    ],
)
def test_an_unreadable_file_leaves_the_secret_that_was_last_loaded(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """The last one, not the one of the start: that was revoked when it was rotated."""
    path = tmp_path / "secret"
    path.write_text("first")
    secret = source(path)
    path.write_text("second")
    assert secret.current().reveal() == "second"
    spoil(path)
    assert secret.current().reveal() == "second"


def test_a_file_that_was_never_read_again_leaves_what_was_loaded(tmp_path: Path) -> None:
    """Gone between the start and the first poll."""
    path = tmp_path / "secret"
    path.write_text("first")
    secret = source(path)
    path.unlink()
    assert secret.current().reveal() == "first"


def test_a_value_and_a_variable_stay_what_they_were() -> None:
    """They cannot change while the process runs."""
    assert SecretSource(Secret("value")).current().reveal() == "value"


# ---- never shown

HOLDERS: list[Any] = [
    pytest.param(lambda: Secret(CANARY), id="Secret"),
    pytest.param(lambda: SecretSource(Secret(CANARY), "/secret"), id="SecretSource"),
    pytest.param(
        lambda: Credentials(SecretSource(Secret(CANARY)), SecretSource(Secret(CANARY))),
        id="Credentials",
    ),
    pytest.param(lambda: account(api_key=CANARY, api_token=CANARY), id="Account"),
    pytest.param(
        lambda: Config("x", (account(api_key=CANARY, api_token=CANARY),), ()), id="Config"
    ),
    pytest.param(
        lambda: loader.load(
            None,
            {"EXOTEL_ACCOUNT_SID": "a", "EXOTEL_API_KEY": CANARY, "EXOTEL_API_TOKEN": CANARY},
        ),
        id="loaded",
    ),
]


@pytest.mark.parametrize("make", HOLDERS)
def test_no_way_of_printing_shows_a_secret(make: Callable[[], Any]) -> None:
    """Nor does JSON with a fallback to text, as logs use it."""
    holder = make()
    shown = [str(holder), repr(holder), f"{holder}", f"{holder!r:>5}", f"{[holder]}"]
    shown.append(json.dumps({"x": holder}, default=str))
    shown.append("%s %r" % (holder, holder))  # noqa: UP031 - how logging formats
    assert not any(CANARY in text for text in shown)
    assert all("<secret>" in text for text in shown)


@pytest.mark.parametrize("make", HOLDERS)
@pytest.mark.parametrize(
    "take",
    [
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(copy.deepcopy, id="deepcopy"),
    ],
)
def test_no_copy_of_a_secret_leaves(make: Callable[[], Any], take: Callable[[Any], Any]) -> None:
    """It fails aloud, and its error shows nothing."""
    with pytest.raises(TypeError) as caught:
        take(make())
    assert CANARY not in str(caught.value)


def test_a_secret_is_not_copied_nor_formatted_with_a_width() -> None:
    """A format that means nothing for it is an error rather than its text."""
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
    """So that a reload can tell a rotated one; text is not a secret."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
