"""The configuration: what is accepted, what it becomes, and how everything else is refused."""

from __future__ import annotations

import errno
import json
import os
import re
import traceback
from itertools import combinations, takewhile
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import jsonschema  # type: ignore[import-untyped]  # no stubs among the lint tools
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from exophone_exporter.config import loader
from exophone_exporter.config.settings import Config, PerNumber, Poll
from exophone_exporter.errors import ConfigError
from tests.lib.paths import DATA, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIGS = DATA / "configs"
CANARY = "canary"
ENVIRON = {
    "EMPTY": "",
    "TOKEN": "canary-token",
    "TWO_LINES": "canary\ncanary",
    "NOT_UTF8": "canary\udcff",  # as os.environ gives a byte that is not UTF-8
}
SECRETS = {
    "/secrets/good": b"canary\n",
    "/secrets/empty": b"",
    "/secrets/newline": b"\r\n",
    "/secrets/two_lines": b"canary\ncanary\n",
    "/secrets/latin1": b"canary\xe9",
    "/secrets/utf16": "canary".encode("utf-16"),
    "/secrets/both": b"canary:canary\n",
}
ACCOUNT = "accounts:\n  - name: support\n    sid: acme1\n    api_key: key\n    api_token: token\n"
INDIA = ZoneInfo("Asia/Kolkata")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DEFAULT_POLL = Poll(
    interval_seconds=300.0,
    timeout_seconds=10.0,
    deadline_seconds=300.0,
    page_size=50,
    requests_per_minute=50,
    stale_after_seconds=900.0,
    timezone=INDIA,
)
DEFAULT_PER_NUMBER = PerNumber(series="all", limit=10_000, phone_number="full")

NO_CONFIGURATION = (
    "no configuration: use --config.file FILE, or set EXOTEL_ACCOUNT_SID, EXOTEL_API_KEY and"
    " EXOTEL_API_TOKEN (and EXOTEL_REGION=mumbai for an account in Mumbai); without an account,"
    " try `exophone-exporter demo`"
)

# What a file cannot say of itself: which row of the table of faults it belongs to.
FAULTS = {
    94: [
        "tab",
        "bad_indent",
        "two_documents",
        "list_as_key",
        "tag",
        "tag_handle",
        "open_bracket",
        "open_quote",
        "two_colons",
        "no_space_after_colon",
        "unknown_escape",
        "escape_out_of_range",
        "escape_half_character",
    ],
    95: ["alias", "anchor", "merge_bomb"],
    96: ["duplicate_key", "duplicate_section"],
    97: [
        "unknown_keys",
        "unknown_key_strange",
        "keys_in_the_wrong_place",
        "merge_key",
        "no_space_in_braces",
    ],
    99: [
        "no_accounts",
        "accounts_empty_list",
        "accounts_forgotten",
        "accounts_mapping",
        "accounts_nothing",
        "account_twice",
        "account_names",
    ],
    100: ["secret_missing", "secret_two_ways"],
    101: ["secret_file_gone", "secret_file_empty", "secret_file_unfit", "secret_file_huge"],
    102: [
        "base_url_with_credentials",
        "base_url_with_user",
        "base_url_with_empty_user",
        "base_urls",
        "base_url_plain_http",
        "base_url_credentials_and_bad_port",
    ],
    103: [
        "durations_not_read",
        "durations_not_read_2",
        "durations_out_of_range",
        "durations_out_of_range_2",
        "interval_under_budget",
        "interval_under_budget_of_account",
    ],
    104: ["secret_variable_unset", "secret_variable_is_the_secret"],
}


def bad_files() -> list[Any]:
    """Every file of the folder, with the rows of the table of faults that it keeps."""
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.fault(row) for row, names in FAULTS.items() if path.stem in names],
        )
        for path in sorted((CONFIGS / "bad").glob("*.yaml"))
    ]


def read_fixed(path: str, _limit_bytes: int) -> bytes:
    """The secret files of these tests, none of which is on the disk."""
    if "\0" in path:
        raise ValueError("embedded null byte")
    if path == "/secrets/folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if path == "/secrets/huge":
        raise ValueError("is larger than 64 KiB")
    if path not in SECRETS:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return SECRETS[path]


def parse(text: str) -> Config:
    return loader.parse(text, "FILE", ENVIRON, read_fixed)


def refusal(call: Callable[[], object]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        call()
    return caught.value


def problems(text: str) -> tuple[str, ...]:
    return refusal(lambda: parse(text)).problems


def everything_of(error: BaseException | None) -> str:
    """All that a person or a log could come to see of an error, and of what it was made of."""
    if error is None:
        return ""
    own = [str(error), repr(error), repr(error.args), repr(vars(error))]
    own += traceback.format_exception(error)
    return "\n".join([*own, everything_of(error.__cause__), everything_of(error.__context__)])


def keys_of_the_shape() -> dict[str, set[str]]:
    """The keys that the schema knows, by section."""
    schema = loader.json_schema()
    sections = {name: set(part["properties"]) for name, part in schema["$defs"].items()}
    return sections | {"File": set(schema["properties"])}


# ---- what is refused


@pytest.mark.parametrize("path", bad_files())
def test_a_bad_file_is_refused_with_every_problem_and_no_secret(path: Path) -> None:
    """Its first lines say which problems: all of them, in this order, with these lines."""
    text = path.read_text("utf-8")
    head = takewhile(lambda line: line.startswith("# expect: "), text.splitlines())
    expected = tuple(line.removeprefix("# expect: ") for line in head)
    error = refusal(lambda: parse(text))
    assert error.problems == expected
    assert CANARY not in everything_of(error)


def test_every_fault_names_a_file_that_exists() -> None:
    """A file that was renamed would silently lose its row."""
    named = {name for names in FAULTS.values() for name in names}
    assert named <= {path.stem for path in (CONFIGS / "bad").glob("*.yaml")}


@pytest.mark.fault(94)
def test_3000_brackets_are_refused_not_a_recursion_error() -> None:
    """The depth of the stack is not a limit."""
    assert problems("[" * 3000) == ("FILE: is nested too deeply",)


def test_a_huge_version_is_refused_not_an_error_of_int() -> None:
    """PyYAML turns the digits of a %YAML line into an int, which Python limits to 4300."""
    expected = ("FILE:1: contains an escape sequence for a character that does not exist",)
    assert problems("%YAML 1." + "9" * 5000 + "\n---\na: b\n") == expected


def test_a_line_with_a_problem_is_not_twice_in_the_list() -> None:
    """A wrong default section is reported once, though two accounts use it."""
    text = (
        "poll:\n  deadline: 20m\n"
        + ACCOUNT
        + ACCOUNT.replace("accounts:\n", "").replace("support", "sales")
    )
    expected = ("FILE:2: poll.deadline: a deadline of 20m is longer than the stale_after of 15m",)
    assert problems(text) == expected


def test_the_error_prints_one_problem_a_line() -> None:
    """str() is what the command line shows."""
    error = refusal(lambda: parse("poll: 1\nper_number: 2\n" + ACCOUNT))
    assert str(error) == (
        "FILE:1: poll: must be a mapping of keys to values\n"
        "FILE:2: per_number: must be a mapping of keys to values"
    )


FILE_LEVEL = [
    pytest.param(b"", "{}: the file is empty; see config.example.yaml for an example", id="empty"),
    pytest.param(
        b"\n# canary\n",
        "{}: the file is empty; see config.example.yaml for an example",
        id="comments",
    ),
    pytest.param(
        b"a: 1\nb: canary\0\n",
        "{}:2: contains a character that YAML does not allow; save the file as UTF-8",
        id="nul",
    ),
    pytest.param(
        b"\x7fELF\x02canary\xff",
        "{}:1: contains a character that YAML does not allow; save the file as UTF-8",
        id="binary",
    ),
    pytest.param(
        b"a: 1\nb: canary \xe9\n",
        "{}:2: contains a character that YAML does not allow; save the file as UTF-8",
        id="latin1",
    ),
    pytest.param(
        "canary: 1\n".encode("utf-16"),
        "{}:1: contains a character that YAML does not allow; save the file as UTF-8",
        id="utf16",
    ),
    pytest.param(b"#" * (1024 * 1024 + 1), "{}: is larger than 1024 KiB", id="over-1-MiB"),
]


@pytest.mark.fault(93)
@pytest.mark.parametrize(("content", "message"), FILE_LEVEL)
def test_a_file_that_is_no_text_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """One line that begins with the path; nothing of the content."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    error = refusal(lambda: loader.load(str(path), {}))
    assert error.problems == (message.format(path),)
    assert CANARY not in everything_of(error)


@pytest.mark.fault(93)
def test_a_file_of_100_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The cap holds for what is read, not for what was read."""
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)  # sparse
    assert refusal(lambda: loader.load(str(path), {})).problems == (
        f"{path}: is larger than 1024 KiB",
    )


@pytest.mark.fault(93)
def test_a_file_of_1_mib_is_still_read(tmp_path: Path) -> None:
    """The cap is the first size that is refused less one."""
    path = tmp_path / "config.yaml"
    path.write_text(ACCOUNT + "#" * (1024 * 1024 - len(ACCOUNT)))
    assert loader.load(str(path), {}).accounts[0].name == "support"


@pytest.mark.fault(93)
def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    """In the system's own words."""
    gone, folder = tmp_path / "gone.yaml", tmp_path
    assert refusal(lambda: loader.load(str(gone), {})).problems == (
        f"{gone}: cannot be read: No such file or directory",
    )
    assert refusal(lambda: loader.load(str(folder), {})).problems == (
        f"{folder}: cannot be read: Is a directory",
    )


@pytest.mark.fault(93)
def test_an_unreadable_file_is_named() -> None:
    """Through the seam, since root may read everything."""

    def denied(path: str, _limit_bytes: int) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    assert refusal(lambda: loader.load("/etc/x.yaml", {}, denied)).problems == (
        "/etc/x.yaml: cannot be read: Permission denied",
    )


# ---- keys, names and secrets, every one and in every way


def misspelt(key: str) -> str:
    """The slip of a hand that types fast: two letters in the middle have changed places."""
    middle = len(key) // 2
    return key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]


def keys_and_where_they_stand() -> list[Any]:
    """Every key that the shape knows, with the lines above it and the path that names it."""
    places = {
        "File": ("", ""),
        "PollSection": ("poll:\n  ", "poll."),
        "PerNumberSection": ("per_number:\n  ", "per_number."),
        "AccountSection": ("accounts:\n- ", "accounts[0]."),
    }
    return [
        pytest.param(above, path, key, id=f"{path}{key}")
        for section, (above, path) in places.items()
        for key in sorted(keys_of_the_shape()[section])
    ]


@pytest.mark.fault(97)
@pytest.mark.parametrize(("above", "path", "key"), keys_and_where_they_stand())
def test_every_misspelt_key_is_refused_with_the_key_that_was_meant(
    above: str, path: str, key: str
) -> None:
    """Whichever it is, and wherever it stands."""
    slip = misspelt(key)
    line = above.count("\n") + 1
    expected = f"FILE:{line}: {path}{slip}: unknown key; did you mean `{key}`?"
    assert expected in problems(f"{above}{slip}: x\n")


@pytest.mark.fault(99)
@given(
    st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=70)  # as \\u escapes
    | st.from_regex(NAME, fullmatch=True)
)
@example("a" * 64)
@example("a" * 65)
@example("support\n")
@example('a"b')
@example("é")
@example("١٢")
def test_name_that_is_accepted_stands_in_a_label_as_it_is(name: str) -> None:
    """Any other is refused, at its place: nothing is ever escaped or cut."""
    text = json.dumps({"accounts": [{"name": name, "sid": "a", "api_key": "k", "api_token": "t"}]})
    if NAME.fullmatch(name):
        assert [account.name for account in parse(text).accounts] == [name]
    else:
        [problem] = problems(text)
        assert problem.startswith("FILE:1: accounts[0].name: ")


@pytest.mark.fault(100)
@pytest.mark.parametrize("secret", [pytest.param("api_key"), pytest.param("api_token")])
@pytest.mark.parametrize(
    "ways",
    [
        pytest.param(ways, id="+".join(way or "value" for way in ways) or "none")
        for count in range(4)
        for ways in combinations(("", "_file", "_env"), count)
    ],
)
def test_a_secret_is_given_in_exactly_one_way(secret: str, ways: tuple[str, ...]) -> None:
    """None, two and three are refused alike, and what stood there is not shown."""
    values = {"": "canary", "_file": "/secrets/good", "_env": "TOKEN"}
    other = {"api_key": "api_token", "api_token": "api_key"}[secret]
    given_ways = {f"{secret}{way}": values[way] for way in ways}
    text = json.dumps({"accounts": [{"name": "a", "sid": "a", other: "canary"} | given_ways]})
    if len(ways) == 1:
        source = getattr(parse(text).accounts[0].credentials, secret)
        assert source.current().reveal() in ("canary", "canary-token")
        return
    error = refusal(lambda: parse(text))
    [problem] = error.problems
    assert f"set exactly one of `{secret}`, `{secret}_file` and `{secret}_env`" in problem
    assert all(f"`{name}`" in problem for name in given_ways)
    assert CANARY not in everything_of(error)


# ---- what is accepted, and what it becomes


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        pytest.param({}, "unknown", id="not-said"),
        pytest.param({"EXOPHONE_REVISION": "0123abc"}, "0123abc", id="commit"),
    ],
)
def test_the_revision_of_the_build_comes_from_the_environment(
    environ: dict[str, str], told: str
) -> None:
    assert loader.revision(environ) == told


def test_the_environment_is_that_of_the_process() -> None:
    """Handed on, not copied: what reads it sees it as it is."""
    assert loader.environment() is os.environ


def test_a_minimal_file_has_the_documented_defaults() -> None:
    """interface.md: 5m, 10s, 5m, 50, 50, 15m, Asia/Kolkata; all, 10000, full; Singapore."""
    loaded = loader.load(str(CONFIGS / "good/minimal.yaml"), {})
    [account] = loaded.accounts
    assert loaded.source == str(CONFIGS / "good/minimal.yaml")
    assert loaded.warnings == ()
    assert (account.name, account.sid) == ("support", "acme1")
    assert account.origin == "https://api.exotel.com"
    assert account.poll == DEFAULT_POLL
    assert account.per_number == DEFAULT_PER_NUMBER
    assert account.credentials.api_key.current().reveal() == "key"
    assert account.credentials.api_token.current().reveal() == "token"
    assert (account.ca_file, account.proxy_url) == (None, None)


@pytest.mark.fault(98)
def test_every_scalar_is_read_as_it_was_written() -> None:
    """No octal numbers, truth values, times of day, or missing plus."""
    loaded = loader.load(str(CONFIGS / "good/as_written.yaml"), {})
    seen = [
        (
            account.name,
            account.sid,
            account.credentials.api_key.current().reveal(),
            account.credentials.api_token.current().reveal(),
        )
        for account in loaded.accounts
    ]
    assert seen == [
        ("no", "01112345671", "0x1F", "12:30"),
        ("007", "+912248901111", "yes", "1_000"),
        ("1.50", "~", "~", "null"),
    ]


def test_an_account_may_override_every_key_of_poll_and_per_number() -> None:
    """What it leaves out comes from the file's defaults."""
    support, sales = loader.load(str(CONFIGS / "good/overrides.yaml"), {}).accounts
    assert support.poll == Poll(600.0, 20.0, 360.0, 100, 40, 5400.0, ZoneInfo("UTC"))
    assert support.per_number == PerNumber("unattached", 500, "last4")
    assert sales.poll == Poll(60.0, 1.5, 120.0, 10, 200, 240.0, ZoneInfo("Asia/Singapore"))
    assert sales.per_number == PerNumber("none", 0, "hidden")
    assert sales.origin == "https://api.in.exotel.com"


OVERRIDES = [
    pytest.param("poll", "interval", "6m", "interval_seconds", 360.0, id="interval"),
    pytest.param("poll", "timeout", "11s", "timeout_seconds", 11.0, id="timeout"),
    pytest.param("poll", "deadline", "4m", "deadline_seconds", 240.0, id="deadline"),
    pytest.param("poll", "page_size", "51", "page_size", 51, id="page_size"),
    pytest.param("poll", "requests_per_minute", "51", "requests_per_minute", 51, id="budget"),
    pytest.param("poll", "stale_after", "16m", "stale_after_seconds", 960.0, id="stale_after"),
    pytest.param("poll", "timezone", "UTC", "timezone", ZoneInfo("UTC"), id="timezone"),
    pytest.param("per_number", "series", "none", "series", "none", id="series"),
    pytest.param("per_number", "limit", "0", "limit", 0, id="limit"),
    pytest.param("per_number", "phone_number", "hidden", "phone_number", "hidden", id="phone"),
]


@pytest.mark.parametrize(("section", "key", "text", "field", "value"), OVERRIDES)
def test_one_key_changes_alone(
    section: str, key: str, text: str, field: str, value: object
) -> None:
    """For all or for one account; the rest keeps its default, and 0 is a value, not an absence."""
    default = DEFAULT_POLL if section == "poll" else DEFAULT_PER_NUMBER
    changes = {field: value}
    if key == "interval":
        changes["stale_after_seconds"] = 1080.0
    common = f"{section}:\n  {key}: {text}\n{ACCOUNT}"
    own = f"{ACCOUNT}    {section}:\n      {key}: {text}\n"
    for written in (common, own):
        [account] = parse(written).accounts
        assert vars(getattr(account, section)) == vars(default) | changes


def test_empty_sections_are_the_defaults() -> None:
    """Where every line below `poll:` is commented out, nothing was said."""
    [account] = loader.load(str(CONFIGS / "good/empty_sections.yaml"), {}).accounts
    assert account.poll == DEFAULT_POLL
    assert account.per_number == DEFAULT_PER_NUMBER


def test_stale_after_follows_the_interval_and_the_deadline_stays_below() -> None:
    """Three intervals; a deadline that nobody wrote is 5m or stale_after, whichever is less."""
    quick, slow = loader.load(str(CONFIGS / "good/merged_defaults.yaml"), {}).accounts
    assert quick.poll == Poll(30.0, 5.0, 90.0, 50, 50, 90.0, INDIA)
    assert slow.poll == Poll(3600.0, 5.0, 300.0, 50, 50, 10800.0, INDIA)


@pytest.mark.fault(103)
def test_the_edges_of_the_ranges_are_allowed() -> None:
    """A range tells its first and its last value."""
    least = "poll:\n  interval: 1s\n  timeout: 100ms\n  deadline: 1s\n  stale_after: 1s\n"
    least += "  requests_per_minute: 60\n  page_size: 1\n"
    most = "poll:\n  interval: 1d\n  timeout: 5m\n  deadline: 24h\n  stale_after: 30d\n"
    most += "  requests_per_minute: 100000\n  page_size: 1000\nper_number:\n  limit: 1000000\n"
    assert parse(least + ACCOUNT).accounts[0].poll == Poll(1.0, 0.1, 1.0, 1, 60, 1.0, INDIA)
    [account] = parse(most + ACCOUNT).accounts
    assert account.poll == Poll(86400.0, 300.0, 86400.0, 1000, 100_000, 2_592_000.0, INDIA)
    assert account.per_number.limit == 1_000_000


def test_a_byte_order_mark_and_windows_lines_are_accepted(tmp_path: Path) -> None:
    """As some editors save."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ACCOUNT.replace("\n", "\r\n").encode())
    [account] = loader.load(str(path), {}).accounts
    assert (account.name, account.credentials.api_token.loaded.reveal()) == ("support", "token")


ORIGINS = [
    pytest.param("", "https://api.exotel.com", id="none"),
    pytest.param("region: singapore", "https://api.exotel.com", id="singapore"),
    pytest.param("region: mumbai", "https://api.in.exotel.com", id="mumbai"),
    pytest.param("base_url: https://api.example", "https://api.example", id="plain"),
    pytest.param("base_url: https://api.example/", "https://api.example", id="trailing-slash"),
    pytest.param("base_url: HTTPS://API.Example//", "https://api.example", id="capitals"),
    pytest.param("base_url: https://api.example:8443", "https://api.example:8443", id="port"),
    pytest.param("base_url: https://api.example/a/b/", "https://api.example/a/b", id="prefix"),
    pytest.param("base_url: https://bücher.example", "https://xn--bcher-kva.example", id="idn"),
    pytest.param(
        "base_url: 'https://[2001:db8::1]:8443/'", "https://[2001:db8::1]:8443", id="ipv6"
    ),
    pytest.param("base_url: https://192.0.2.1", "https://192.0.2.1", id="ipv4"),
    pytest.param("base_url: http://localhost:8080", "http://localhost:8080", id="http-localhost"),
    pytest.param("base_url: http://127.0.0.1:8080", "http://127.0.0.1:8080", id="http-127.0.0.1"),
    pytest.param("base_url: http://127.9.9.9", "http://127.9.9.9", id="http-127.x"),
    pytest.param("base_url: 'http://[::1]:8080'", "http://[::1]:8080", id="http-ipv6"),
]


@pytest.mark.fault(102)
@pytest.mark.parametrize(("line", "origin"), ORIGINS)
def test_the_origin(line: str, origin: str) -> None:
    """A region names one; a base_url is cleaned; plain http stays on this machine."""
    assert parse(f"{ACCOUNT}    {line}\n").accounts[0].origin == origin


def test_networks_that_need_a_proxy_and_a_ca_say_so(tmp_path: Path) -> None:
    """The proxy may be plain http; the file must hold certificates."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("-----BEGIN CERTIFICATE-----\n")
    lines = f"    ca_file: {ca_file}\n    proxy_url: http://proxy.example:3128/\n"
    [account] = loader.parse(ACCOUNT + lines, "FILE", {}).accounts
    assert (account.ca_file, account.proxy_url) == (str(ca_file), "http://proxy.example:3128")


def test_two_accounts_may_share_a_sid() -> None:
    """Only the names must differ: one account can be watched through two proxies."""
    second = ACCOUNT.removeprefix("accounts:\n").replace("support", "sales")
    assert [account.name for account in parse(ACCOUNT + second).accounts] == ["support", "sales"]


# ---- variables in place of a file

VARIABLES = {
    "EXOTEL_ACCOUNT_SID": "acme1",
    "EXOTEL_API_KEY": "canary-key",
    "EXOTEL_API_TOKEN": "canary-token",
}
VARIABLE_FILES = {"/sid": b"acme1\r\n", "/key": b"canary-key\n", "/token": b"canary-token"}


def read_variable_file(path: str, _limit_bytes: int) -> bytes:
    if path not in VARIABLE_FILES:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return VARIABLE_FILES[path]


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param(VARIABLES, id="values"),
        pytest.param(
            {
                "EXOTEL_ACCOUNT_SID_FILE": "/sid",
                "EXOTEL_API_KEY_FILE": "/key",
                "EXOTEL_API_TOKEN_FILE": "/token",
            },
            id="files",
        ),
        pytest.param(
            {
                "EXOTEL_ACCOUNT_SID": "acme1",
                "EXOTEL_API_KEY": "canary-key",
                "EXOTEL_API_TOKEN_FILE": "/token",
            },
            id="both-ways",
        ),
    ],
)
def test_variables_alone_describe_one_account(environ: dict[str, str]) -> None:
    """Named by its sid, with every default."""
    loaded = loader.load(None, environ, read_variable_file)
    [account] = loaded.accounts
    assert (loaded.source, loaded.warnings) == ("environment", ())
    assert (account.name, account.sid) == ("acme1", "acme1")
    assert account.origin == "https://api.exotel.com"
    assert account.credentials.api_key.current().reveal() == "canary-key"
    assert account.credentials.api_token.current().reveal() == "canary-token"
    assert (account.poll, account.per_number) == (DEFAULT_POLL, DEFAULT_PER_NUMBER)


def test_a_file_wins_over_variables() -> None:
    """--config.file is said on purpose, variables lie around."""
    loaded = loader.load(str(CONFIGS / "good/minimal.yaml"), VARIABLES | {"EXOTEL_REGION": "x"})
    assert loaded.accounts[0].name == "support"


@pytest.mark.parametrize(
    ("name", "value", "origin"),
    [
        pytest.param("EXOTEL_REGION", "mumbai", "https://api.in.exotel.com", id="region"),
        pytest.param("EXOTEL_REGION_FILE", "/region", "https://api.in.exotel.com", id="file"),
        pytest.param("EXOTEL_BASE_URL", "http://[::1]:80/", "http://[::1]:80", id="base_url"),
    ],
)
def test_the_origin_by_variable(name: str, value: str, origin: str) -> None:
    """EXOTEL_REGION, or EXOTEL_BASE_URL in its place."""
    environ = VARIABLES | {name: value}
    [account] = loader.load(None, environ, lambda *_: b"mumbai\n").accounts
    assert account.origin == origin


BAD_VARIABLES = [
    pytest.param({}, [NO_CONFIGURATION], id="none", marks=pytest.mark.fault(99)),
    pytest.param(
        {"EXOTEL_REGION": "delhi"},
        [
            "environment: EXOTEL_ACCOUNT_SID: is not set, and neither is EXOTEL_ACCOUNT_SID_FILE",
            "environment: EXOTEL_API_KEY: is not set, and neither is EXOTEL_API_KEY_FILE",
            "environment: EXOTEL_API_TOKEN: is not set, and neither is EXOTEL_API_TOKEN_FILE",
            "environment: EXOTEL_REGION: `delhi` is not one of singapore, mumbai",
        ],
        id="only-a-region",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_API_KEY_FILE": "/key", "EXOTEL_API_TOKEN_FILE": "/gone"},
        [
            (
                "environment: EXOTEL_API_KEY: cannot be combined with EXOTEL_API_KEY_FILE;"
                " unset one of them"
            ),
            (
                "environment: EXOTEL_API_TOKEN: cannot be combined with EXOTEL_API_TOKEN_FILE;"
                " unset one of them"
            ),
        ],
        id="value-and-file",
        marks=pytest.mark.fault(100),
    ),
    pytest.param(
        {
            "EXOTEL_ACCOUNT_SID_FILE": "/gone",
            "EXOTEL_API_KEY": "",
            "EXOTEL_API_TOKEN_FILE": "/gone",
        },
        [
            (
                "environment: EXOTEL_ACCOUNT_SID: EXOTEL_ACCOUNT_SID_FILE=/gone:"
                " cannot be read: No such file or directory"
            ),
            "environment: EXOTEL_API_KEY: the environment variable EXOTEL_API_KEY is set but empty",
            "environment: EXOTEL_API_TOKEN_FILE: /gone: cannot be read: No such file or directory",
        ],
        id="gone-and-empty",
    ),
    pytest.param(
        {"EXOTEL_REGION_FILE": "/gone\nnow\udcff"} | VARIABLES,
        [
            (
                "environment: EXOTEL_REGION: EXOTEL_REGION_FILE=/gone…:"
                " cannot be read: No such file or directory"
            ),
        ],
        id="path-of-two-lines",
    ),
    pytest.param(
        {"EXOTEL_REGION_FILE": "/\x1b[31mgone\udcff"} | VARIABLES,
        [
            (
                "environment: EXOTEL_REGION: EXOTEL_REGION_FILE=/?[31mgone?:"
                " cannot be read: No such file or directory"
            ),
        ],
        id="path-that-is-a-command",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_REGION": "mumbai", "EXOTEL_BASE_URL": "https://api.example"},
        ["environment: EXOTEL_BASE_URL: cannot be combined with `region`; remove one of them"],
        id="region-and-base-url",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_BASE_URL": "https://canary:canary@api.example"},
        [
            (
                "environment: EXOTEL_BASE_URL: contains credentials;"
                " set them as api_key and api_token"
            ),
        ],
        id="credentials-in-the-url",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_ACCOUNT_SID": "", "EXOTEL_API_KEY": "canary:canary"},
        [
            "environment: EXOTEL_ACCOUNT_SID: is empty; set a value or leave it out",
            (
                "environment: EXOTEL_API_KEY: contains a colon, which no API key does;"
                " is it key and token in one value?"
            ),
        ],
        id="empty-sid",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_API_KEY": "canary:canary", "EXOTEL_API_TOKEN": "canary\udcff"},
        [
            (
                "environment: EXOTEL_API_KEY: contains a colon, which no API key does;"
                " is it key and token in one value?"
            ),
            "environment: EXOTEL_API_TOKEN: is not UTF-8 text",
        ],
        id="unfit-secrets",
    ),
]


@pytest.mark.fault(104)
@pytest.mark.parametrize(("environ", "expected"), BAD_VARIABLES)
def test_bad_variables_are_refused_by_name(environ: dict[str, str], expected: list[str]) -> None:
    """All of them, without their values where these are secrets."""
    error = refusal(lambda: loader.load(None, environ, read_variable_file))
    assert list(error.problems) == expected
    assert CANARY not in everything_of(error)


# ---- config.example.yaml and the schema

EXAMPLE = (ROOT / "config.example.yaml").read_text("utf-8")


def uncommented(text: str) -> str:
    """The example with its commented keys switched on."""
    return re.sub(r"^( *)# ((?:  )*(?:- )?[a-z_]+:(?: \S+)?)$", r"\1\2", text, flags=re.MULTILINE)


def test_the_example_loads_with_the_documented_values() -> None:
    """Its defaults are the defaults."""
    loaded = loader.parse(EXAMPLE, "FILE", {}, lambda *_: b"secret\n")
    [account] = loaded.accounts
    assert (account.name, account.sid) == ("support", "acme1")
    assert account.origin == "https://api.in.exotel.com"
    assert account.credentials.api_key.file == "/run/secrets/exotel_key"
    assert account.credentials.api_token.file == "/run/secrets/exotel_token"
    assert (account.poll, account.per_number) == (DEFAULT_POLL, DEFAULT_PER_NUMBER)


def test_the_example_is_complete() -> None:
    """It contains every key of the schema, active or commented, and no other."""
    written = yaml.load(uncommented(EXAMPLE), yaml.BaseLoader)  # noqa: S506 - it makes only text
    sections = keys_of_the_shape()
    assert set(written) == sections["File"]
    assert set(written["poll"]) == sections["PollSection"]
    assert set(written["per_number"]) == sections["PerNumberSection"]
    assert set(written["accounts"][0]) == sections["AccountSection"]


def test_the_commented_lines_of_the_example_work() -> None:
    """Switched on one by one, in place of what they replace."""
    switched = uncommented(EXAMPLE)
    rivals = r"^    (region|api_key|api_token|api_key_env|api_token_env): .*\n"
    loaded = loader.parse(
        re.sub(rivals, "", switched, flags=re.MULTILINE),
        "FILE",
        {},
        lambda path, _: b"-----BEGIN CERTIFICATE-----" if path.endswith(".pem") else b"secret",
    )
    support, sales = loaded.accounts
    assert support.proxy_url == "http://proxy.example:3128"
    assert support.ca_file == "/etc/ssl/certs/company.pem"
    assert (support.poll.interval_seconds, support.per_number.phone_number) == (900.0, "last4")
    assert (sales.name, sales.sid) == ("sales", "acme2")


def test_one_account_in_mumbai_takes_four_edits() -> None:
    """They are marked, and the first line tells an editor where the schema is."""
    lines = EXAMPLE.splitlines()
    assert lines[0] == "# yaml-language-server: $schema=docs/config.schema.json"
    marked = [line.split(":")[0].strip(" -") for line in lines if "# <- edit" in line]
    assert marked == ["name", "sid", "api_key_file", "api_token_file"]


def as_an_editor_reads(text: str) -> Any:
    return yaml.safe_load(text)


def schema_errors(text: str) -> list[str]:
    schema = loader.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(as_an_editor_reads(text))]


def test_the_example_fits_the_schema() -> None:
    """An editor marks nothing in it."""
    assert schema_errors(EXAMPLE) == []


@pytest.mark.parametrize(
    "addition",
    [
        pytest.param("    regoin: mumbai\n", id="unknown-key"),
        pytest.param("    region: delhi\n", id="word"),
        pytest.param("    region: mumbai\n    base_url: https://api.example\n", id="both-origins"),
        pytest.param("    base_url: https://key:token@api.example\n", id="credentials"),
        pytest.param("    api_key_env: KEY\n", id="two-keys"),
        pytest.param("    poll:\n      interval: 5 m\n", id="duration"),
        pytest.param("    poll:\n      page_size: 1001\n", id="page_size"),
        pytest.param("    per_number:\n      phone_number: last5\n", id="phone_number"),
    ],
)
def test_the_schema_marks_what_the_exporter_refuses(addition: str) -> None:
    """An editor tells before the exporter does."""
    assert schema_errors(ACCOUNT) == []
    assert schema_errors(ACCOUNT + addition) != []
    refusal(lambda: parse(ACCOUNT + addition))


def test_the_schema_describes_every_key_and_offers_the_defaults() -> None:
    """Descriptions are what an editor shows; null is never an offer."""
    schema = loader.json_schema()
    sections = [*schema["$defs"].values(), schema]
    keys = {name: key for part in sections for name, key in part["properties"].items()}
    assert all(key["description"].endswith(".") for key in keys.values())
    assert all(part["additionalProperties"] is False for part in sections)
    assert "null" not in json.dumps(schema)
    assert {name: key["default"] for name, key in keys.items() if "default" in key} == {
        "interval": "5m",
        "timeout": "10s",
        "deadline": "5m",
        "page_size": 50,
        "requests_per_minute": 50,
        "timezone": "Asia/Kolkata",
        "series": "all",
        "limit": 10000,
        "phone_number": "full",
        "region": "singapore",
    }


# ---- docs/configuration.md

MANUAL = (ROOT / "docs/configuration.md").read_text("utf-8")


def test_every_key_stands_in_the_manual_and_no_other() -> None:
    """The first column of each section's table is the section's list of keys."""
    tables: dict[str, set[str]] = {}
    for name in ("poll", "per_number", "accounts"):
        _, _, section = MANUAL.partition(f"\n## `{name}`")
        body = section.partition("\n## ")[0]
        tables[name] = set(re.findall(r"^\| `([a-z_]+)` \|", body, re.MULTILINE))
    sections = keys_of_the_shape()
    assert tables == {
        "poll": sections["PollSection"],
        "per_number": sections["PerNumberSection"],
        "accounts": sections["AccountSection"],
    }


def test_every_variable_stands_in_the_manual_and_no_other() -> None:
    """Each also with _FILE."""
    documented = set(re.findall(r"EXOTEL_[A-Z_]+[A-Z]", MANUAL))
    names = ("ACCOUNT_SID", "API_KEY", "API_TOKEN", "REGION", "BASE_URL")
    assert documented == {f"EXOTEL_{name}{form}" for name in names for form in ("", "_FILE")}


def test_the_yaml_in_the_manual_is_good() -> None:
    """Every block that is a whole file loads."""
    blocks = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    whole = [block for block in blocks if "accounts:" in block]
    assert whole
    for block in whole:
        loader.parse(block, "FILE", {"SALES_KEY": "k", "SALES_TOKEN": "t"}, lambda *_: b"secret")


def test_the_errors_in_the_manual_are_real() -> None:
    """The file that it shows gives the lines that it shows."""
    text, shown = re.findall(r"```(?:yaml bad|text)\n(.*?)```", MANUAL, re.DOTALL)[:2]
    error = refusal(lambda: loader.parse(text, "config.yaml", {}, read_fixed))
    assert str(error) == shown.strip()
