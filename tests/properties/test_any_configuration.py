"""Any configuration at all: a Config, or a ConfigError in lines that show no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exophone_exporter.config import loader
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import ConfigError
from exophone_exporter.server import web_config
from exophone_exporter.server.web_config import WebConfig
from tests.lib.canary import everything_of
from tests.lib.corpus import corpus
from tests.lib.paths import DATA, ROOT
from tests.lib.strategies import edited, edited_lines, share
from tests.lib.support import files_of

CANARY: Final = "Kx7QpZ2mVt9"
HASH: Final = "$2b$04$i5rP5rcN9vQnvv3UGc5P4eHfT2P5hEblJ5ReJT4.asu5VUohTvixG"
# A secret is out when so many of its characters in a row are.
TELLING: Final = 5
READ_FILE: Final = files_of({"/secrets/good": CANARY.encode()})
ENVIRON: Final = {"TOKEN": f"{CANARY}-token", "EMPTY": ""}
LINE: Final = re.compile(r"FILE(:([1-9][0-9]*))?: \S.*")
UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

ACCOUNTS: Final = f"""\
poll:
  interval: 5m
  timezone: Asia/Kolkata
accounts:
  - name: support
    sid: acme1
    region: mumbai
    api_key: {CANARY}key
    api_token: "{CANARY}token"
  - name: sales
    base_url: https://api.exotel.com
    sid: acme2
    per_number: {{series: all, limit: 10}}
    api_token_env: TOKEN
    api_key: '{CANARY}'
"""
USERS: Final = f"""\
tls_server_config:
  cert_file: server.crt
  key: |
    -----BEGIN PRIVATE KEY-----
    {CANARY}{CANARY}
    -----END PRIVATE KEY-----
http_server_config:
  headers:
    X-Frame-Options: deny
basic_auth_users:
  asha: {HASH}
  ravi: {CANARY}
"""
INSERTIONS: Final = (
    *(b"*", b"&", b"&a ", b"*a", b"!", b"!!", b"!x ", b"!!python/object:os.system ", b"<<: ", b"%"),
    *(b"\t", b"\x00", b"\xef\xbb\xbf", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b"\r", b"\n", b"  "),
    *(b"- ", b": ", b":", b"? ", b"[", b"]", b"{", b"}", b",", b"'", b'"', b"|", b">", b"#", b" #"),
    *(b"---\n", b"...\n", b"%YAML 1.2\n---\n", b"%TAG ! x\n", b"@", b"`", b"~", b"null", b"\\x"),
)
# What does not end the line of a secret.
AROUND: Final = (
    b"",
    *(text for text in INSERTIONS if len((text + b"x").decode("latin-1").splitlines()) == 1),
)


def seeds(folder: str, more: bytes) -> st.SearchStrategy[bytes]:
    files = sorted((DATA / folder).rglob("*.y*ml"))
    return st.sampled_from([more, *(file.read_bytes() for file in files)])


SEEDS: Final = seeds("configs", (ROOT / "config.example.yaml").read_bytes())
WEB_SEEDS: Final = seeds("web_configs", USERS.encode())


@st.composite
def rewritten(draw: st.DrawFn, documents: st.SearchStrategy[bytes]) -> bytes:
    lines = draw(documents).split(b"\n")
    for _ in range(draw(st.integers(0, 3))):
        lines = edited_lines(draw, lines)
    return draw(edited(st.just(b"\n".join(lines)), INSERTIONS, most=3))


@st.composite
def spoiled(draw: st.DrawFn, text: str, secret_line: str) -> str:
    """A document in which each secret is still on its line, after what says that it is one.

    All else may be edited: other lines, indentation, what stands around the secret.
    """
    lines = [line.encode() for line in text.splitlines()]
    others = st.integers(0, len(lines) - 1).filter(lambda at: CANARY.encode() not in lines[at])
    for _ in range(draw(st.integers(0, 3))):
        index = draw(others)
        lines[index] = draw(edited(st.just(lines[index]), INSERTIONS))
    for index, line in enumerate(lines):
        found = re.fullmatch(secret_line.encode(), line)
        if found is not None:
            lines[index] = draw(spoiled_line(*found.groups()))
    return b"\n".join(lines).decode("utf-8", "surrogateescape")


@st.composite
def spoiled_line(draw: st.DrawFn, indent: bytes, key: bytes, quote: bytes, secret: bytes) -> bytes:
    colon = draw(st.sampled_from([b": ", b": ", b":", b" : ", b"=", b":  ", b":\t", b" "]))
    before, after = draw(st.sampled_from(AROUND)), draw(st.sampled_from(AROUND))
    indents = [indent, indent, b"", indent + b"  ", b"\t", b"  - "]
    opening = draw(st.sampled_from([quote, quote, b"", b"'", b'"']))
    return draw(st.sampled_from(indents)) + key + colon + before + opening + secret + quote + after


# Documents that come closer to the shape than text does by chance; JSON is YAML.
DRAFTS: Final = st.recursive(
    st.none()
    | st.text(max_size=12)
    | st.sampled_from(["5m", "0", "mumbai", "https://x", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("poll", "per_number", "accounts", "numbers", "match", "account"),
                    *("name", "sid", "interval", "api_key", "region"),
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


def refusal_of(read: Callable[[], Config | WebConfig], lines: int = 10**6) -> ConfigError | None:
    """How it was refused, in lines that each say where; None where it was accepted."""
    try:
        accepted = read()
    except ConfigError as error:
        refused = error
    else:
        assert isinstance(accepted, WebConfig) or accepted.accounts
        return None
    assert refused.problems
    for problem in refused.problems:
        line = LINE.fullmatch(problem)
        assert line, problem
        assert not UNFIT.search(problem)
        assert len(problem) < 1000
        assert line[2] is None or 1 <= int(line[2]) <= lines
    return refused


def assert_configured(content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    lines = len(text.splitlines()) + 1
    refusal_of(lambda: loader.load("FILE", ENVIRON, lambda *_: content), lines)
    refusal_of(lambda: web_config.parse(text, "FILE"), lines)


def assert_silent(error: ConfigError | None, secret: str = CANARY) -> None:
    """No telling part of a secret is in what can be seen of an error."""
    seen = everything_of(error)
    parts = {secret[start : start + TELLING] for start in range(len(secret) - TELLING + 1)}
    assert not [part for part in parts if part in seen], seen


BYTES: Final = st.binary(max_size=300) | st.text(max_size=300).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


@share(300)
@given(BYTES | DRAFTS | rewritten(SEEDS) | rewritten(WEB_SEEDS))
@example(b"\xff\xfea\0")
@example(b'{"name": null, "sid": "x"}')
@example(b'{"accounts": [{"name": "a", "sid": "b", "poll": {"interval": {}}}, []]}')
@pytest.mark.fault(93, 94, 95, 96)
def test_any_file_is_a_configuration_or_refused(content: bytes) -> None:
    """Bytes, drafts, and every file of these tests with words and lines moved or removed."""
    assert_configured(content)


@share(200)
@given(spoiled(ACCOUNTS, rf"( *)(api_\w+)(?:: )(['\"]?)({CANARY}\w*)['\"]?"))
@pytest.mark.fault(93, 102)
def test_no_error_shows_a_secret_however_the_file_around_it_is_spoiled(text: str) -> None:
    assert_silent(refusal_of(lambda: loader.parse(text, "FILE", ENVIRON, READ_FILE)))


@given(spoiled(USERS, rf"( *)(ravi)(?:: )()({CANARY})"))
def test_no_error_shows_a_password_however_the_file_around_it_is_spoiled(text: str) -> None:
    assert_silent(refusal_of(lambda: web_config.parse(text, "FILE")))


NAMES: Final = tuple(
    f"EXOTEL_{name}{suffix}"
    for name in ("ACCOUNT_SID", "API_KEY", "API_TOKEN", "REGION", "BASE_URL")
    for suffix in ("", "_FILE")
)


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.sampled_from(["/secrets/good", CANARY, "acme1", "mumbai", "https://api.exotel.com", ""])
        | st.text(st.characters(exclude_characters="\0"), max_size=9),
        min_size=1,
    )
)
@pytest.mark.fault(104)
def test_any_environment_is_a_configuration_or_refused(environ: dict[str, str]) -> None:
    problems: tuple[str, ...] = ()
    try:
        loader.load(None, environ, READ_FILE)
    except ConfigError as error:
        problems = error.problems
    assert all(problem.startswith("environment: EXOTEL_") for problem in problems)
    assert not UNFIT.search("".join(problems))


@pytest.mark.parametrize("content", corpus("configurations"))
def test_configurations_that_once_broke_something(content: bytes) -> None:
    assert_configured(content)
    text = content.decode("utf-8", "surrogateescape")
    assert_silent(refusal_of(lambda: loader.parse(text, "FILE", ENVIRON, READ_FILE)))
    assert_silent(refusal_of(lambda: web_config.parse(text, "FILE")))
