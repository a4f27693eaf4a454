"""The configuration: what is accepted, what it becomes, and how the rest is refused."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema  # type: ignore[import-untyped]  # no stubs among the lint tools
import pytest
import trustme
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from exophone_exporter.config import loader
from exophone_exporter.config.number_rules import ANY, DEFAULT_RULES, NumberRule, NumberRules
from exophone_exporter.config.settings import Account, Config, PerNumber, Poll
from tests.lib.canary import everything_of
from tests.lib.configs import cases, expected_problems, refusal
from tests.lib.paths import DATA, ROOT
from tests.lib.support import INDIA, files_of

CONFIGS = DATA / "configs"
CANARY = "canary"
ENVIRON = {
    "EMPTY": "",
    "TOKEN": "canary-token",
    "TWO_LINES": "canary\ncanary",
    "NOT_UTF8": "canary\udcff",  # as os.environ gives a byte that is not UTF-8
}
SECRETS: dict[str, bytes | Exception] = {
    "/secrets/good": b"canary\n",
    "/secrets/empty": b"",
    "/secrets/newline": b"\r\n",
    "/secrets/two_lines": b"canary\ncanary\n",
    "/secrets/latin1": b"canary\xe9",
    "/secrets/utf16": "canary".encode("utf-16"),
    "/secrets/both": b"canary:canary\n",
    "/secrets/folder": IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)),
    "/secrets/huge": ValueError("is larger than 64 KiB"),
    "/secrets/sid": b"acme1\r\n",
    "/secrets/region": b"mumbai\n",
}
READ_FILE = files_of(SECRETS)
ACCOUNT = "accounts:\n  - name: support\n    sid: acme1\n    api_key: key\n    api_token: token\n"
SECOND_ACCOUNT = ACCOUNT.removeprefix("accounts:\n").replace("support", "sales")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DEFAULT_POLL = Poll(
    interval_seconds=None,
    timeout_seconds=10.0,
    deadline_seconds=300.0,
    page_size=50,
    requests_per_minute=50,
    stale_after_seconds=900.0,
    timezone=INDIA,
)
DEFAULT_PER_NUMBER = PerNumber(series="all", limit=10_000, phone_number="full")

GONE = "cannot be read: No such file or directory"


def parse(text: str) -> Config:
    return loader.parse(text, "FILE", ENVIRON, READ_FILE)


def problems(text: str) -> tuple[str, ...]:
    return refusal(lambda: parse(text)).problems


def secrets_of(account: Account) -> tuple[str, str]:
    own = account.credentials
    return own.api_key.current().reveal(), own.api_token.current().reveal()


def keys_of_the_shape() -> dict[str, set[str]]:
    schema = loader.json_schema()
    sections = {name: set(part["properties"]) for name, part in schema["$defs"].items()}
    return sections | {"File": set(schema["properties"])}


# ---- what is refused


@pytest.mark.fault(94, 95, 96, 97, 99, 100, 101, 102, 103, 104, 235, 254)
@pytest.mark.parametrize("path", cases(CONFIGS / "bad"))
def test_a_bad_file_is_refused_with_every_problem_and_no_secret(path: Path) -> None:
    text = path.read_text("utf-8")
    error = refusal(lambda: parse(text))
    assert error.problems == expected_problems(text)
    assert CANARY not in everything_of(error)


@pytest.mark.fault(94)
@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_3000_levels_are_refused_before_the_stack_ends(opening: str) -> None:
    assert problems(opening * 3000) == ("FILE: is nested too deeply",)


def test_a_huge_version_is_refused() -> None:
    """PyYAML turns the digits of a %YAML line into an int, which Python limits to 4300."""
    expected = ("FILE:1: contains an escape sequence for a character that does not exist",)
    assert problems("%YAML 1." + "9" * 5000 + "\n---\na: b\n") == expected


def test_a_problem_of_two_accounts_is_reported_once() -> None:
    text = "poll:\n  deadline: 20m\n" + ACCOUNT + SECOND_ACCOUNT
    expected = ("FILE:2: poll.deadline: a deadline of 20m is longer than the stale_after of 15m",)
    assert problems(text) == expected


NOT_TEXT = "contains a character that YAML does not allow; save the file as UTF-8"


@pytest.mark.fault(93)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            b"", ": the file is empty; see config.example.yaml for an example", id="empty"
        ),
        pytest.param(b"a: 1\nb: canary\0\n", f":2: {NOT_TEXT}", id="nul"),
        pytest.param(b"\x7fELF\x02canary\xff", f":1: {NOT_TEXT}", id="binary"),
        pytest.param(b"a: 1\nb: canary \xe9\n", f":2: {NOT_TEXT}", id="latin1"),
        pytest.param("canary: 1\n".encode("utf-16"), f":1: {NOT_TEXT}", id="utf16"),
        pytest.param(b"#" * (1024 * 1024 + 1), ": is larger than 1024 KiB", id="over-1-MiB"),
    ],
)
def test_a_file_without_text_is_refused_in_one_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    error = refusal(lambda: loader.load(str(path), {}))
    assert error.problems == (f"{path}{problem}",)
    assert CANARY not in everything_of(error)


@pytest.mark.fault(93)
def test_a_file_of_1_mib_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ACCOUNT + "#" * (1024 * 1024 - len(ACCOUNT)))
    assert loader.load(str(path), {}).accounts[0].name == "support"


@pytest.mark.fault(93)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EISDIR, errno.EACCES])
def test_a_file_that_cannot_be_read_is_named_in_the_words_of_the_system(number: int) -> None:
    reason = os.strerror(number)
    read = files_of({"/etc/x.yaml": OSError(number, reason)})
    expected = (f"/etc/x.yaml: cannot be read: {reason}",)
    assert refusal(lambda: loader.load("/etc/x.yaml", {}, read)).problems == expected


# ---- keys and names


def misspelt(key: str) -> str:
    middle = len(key) // 2
    return key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]


@pytest.mark.fault(97)
@pytest.mark.parametrize(
    ("section", "above", "path"),
    [
        ("File", "", ""),
        ("PollSection", "poll:\n  ", "poll."),
        ("PerNumberSection", "per_number:\n  ", "per_number."),
        ("BalanceSection", "balance:\n  ", "balance."),
        ("AccountSection", "accounts:\n- ", "accounts[0]."),
    ],
)
def test_every_misspelt_key_is_refused_with_the_key_that_was_meant(
    section: str, above: str, path: str
) -> None:
    line = above.count("\n") + 1
    for key in keys_of_the_shape()[section]:
        slip = misspelt(key)
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
def test_a_name_is_used_as_it_is_or_refused(name: str) -> None:
    text = json.dumps({"accounts": [{"name": name, "sid": "a", "api_key": "k", "api_token": "t"}]})
    if NAME.fullmatch(name):
        assert [account.name for account in parse(text).accounts] == [name]
    else:
        [problem] = problems(text)
        assert problem.startswith("FILE:1: accounts[0].name: ")


# ---- what is accepted, and what it becomes


def test_the_revision_of_the_build_comes_from_the_environment() -> None:
    assert loader.revision({}) == "unknown"
    assert loader.revision({"EXOPHONE_REVISION": "0123abc"}) == "0123abc"


def test_the_environment_is_that_of_the_process() -> None:
    assert loader.environment() is os.environ


@pytest.mark.fault(174)
@pytest.mark.parametrize(
    ("poll", "least"),
    [
        ("stale_after: 4m", "555s"),  # the deadline is 4 minutes, too
        ("stale_after: 10m", "615s"),
        ("stale_after: 615s", None),
        ("interval: 2s, stale_after: 2s", "5s"),
        ("interval: 2s, deadline: 1s, stale_after: 4s", None),
        ("interval: 1m", None),
    ],
)
def test_a_short_stale_after_is_a_warning_and_never_an_error(poll: str, least: str | None) -> None:
    loaded = loader.parse(f"poll: {{{poll}}}\n{ACCOUNT}{SECOND_ACCOUNT}", "FILE", {})
    assert [re.search("use at least (.*)", warning)[1] for warning in loaded.warnings] == (  # type: ignore[index]
        [least] if least else []
    )


@pytest.mark.parametrize("name", ["minimal.yaml", "empty_sections.yaml"])
def test_a_file_without_settings_has_the_documented_defaults(name: str) -> None:
    loaded = loader.load(str(CONFIGS / "good" / name), {})
    [account] = loaded.accounts
    assert (loaded.source, loaded.warnings) == (str(CONFIGS / "good" / name), ())
    assert (account.name, account.sid) == ("support", "acme1")
    assert account.origin == "https://api.exotel.com"
    assert (account.poll, account.per_number) == (DEFAULT_POLL, DEFAULT_PER_NUMBER)
    assert secrets_of(account) == ("key", "token")
    assert (account.ca_file, account.proxy_url) == (None, None)
    assert (account.balance_interval_seconds, account.labels) == (None, ())


@pytest.mark.fault(98)
def test_every_scalar_is_read_as_it_was_written() -> None:
    """No octal numbers, truth values, times of day, or missing plus."""
    loaded = loader.load(str(CONFIGS / "good/as_written.yaml"), {})
    assert [(each.name, each.sid, *secrets_of(each)) for each in loaded.accounts] == [
        ("no", "01112345671", "0x1F", "12:30"),
        ("007", "+912248901111", "yes", "1_000"),
        ("1.50", "~", "~", "null"),
    ]


def test_an_account_may_override_every_key_of_the_defaults() -> None:
    """What it leaves out comes from the file's defaults."""
    loaded = loader.load(str(CONFIGS / "good/overrides.yaml"), {})
    support, sales = loaded.accounts
    assert support.poll == Poll(600.0, 20.0, 360.0, 100, 40, 5400.0, ZoneInfo("UTC"))
    assert support.per_number == PerNumber("unattached", 500, "last4")
    assert sales.poll == Poll(60.0, 1.5, 120.0, 10, 200, 240.0, ZoneInfo("Asia/Singapore"))
    assert sales.per_number == PerNumber("none", 0, "hidden")
    assert sales.origin == "https://api.in.exotel.com"
    assert (support.balance_interval_seconds, sales.balance_interval_seconds) == (30.0, None)
    assert support.labels == (("_x", "né à 100 %"), ("cost_center", "0113"), ("team", "voice"))
    assert sales.labels == ()
    [warning] = loaded.warnings
    assert "a balance interval of 30s is shorter" in warning


@pytest.mark.parametrize(
    ("balance", "own", "seconds"),
    [
        ("", "enabled: true", 3600),
        ("interval: 1d", "enabled: true", 86400),
        ("interval: 1h", "interval: 1m", None),
        ("enabled: true", "interval: 1m", 60),
        ("enabled: true", "enabled: false", None),
    ],
)
def test_the_balance_is_asked_for_only_where_it_is_enabled(
    balance: str, own: str, seconds: float | None
) -> None:
    loaded = parse(f"balance: {{{balance}}}\n{ACCOUNT}    balance: {{{own}}}\n")
    assert loaded.accounts[0].balance_interval_seconds == seconds
    assert loaded.warnings == ()


def test_stale_after_follows_the_interval_and_the_deadline_stays_below() -> None:
    """Three intervals, and at least 15m."""
    quick, slow = loader.load(str(CONFIGS / "good/merged_defaults.yaml"), {}).accounts
    assert quick.poll == Poll(30.0, 5.0, 300.0, 50, 50, 900.0, INDIA)
    assert slow.poll == Poll(3600.0, 5.0, 300.0, 50, 50, 10800.0, INDIA)


@pytest.mark.parametrize(
    ("pages", "seconds"),
    [(0, 60), (1, 60), (10, 60), (11, 120), (40, 240), (41, 300), (200, 300)],
)
def test_an_automatic_interval_follows_the_length_of_the_list(pages: int, seconds: int) -> None:
    """An account may go back to it where the defaults have a fixed one."""
    text = ACCOUNT + "    poll: {interval: auto}\n"
    [account] = parse("poll: {interval: 10m, requests_per_minute: 1}\n" + text).accounts
    assert account.poll.interval_for(pages) == seconds
    assert account.poll.stale_after_seconds == 900


@pytest.mark.fault(103)
def test_the_edges_of_the_ranges_are_allowed() -> None:
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
    ("", "https://api.exotel.com"),
    ("region: singapore", "https://api.exotel.com"),
    ("region: mumbai", "https://api.in.exotel.com"),
    ("base_url: https://api.example", "https://api.example"),
    ("base_url: https://api.example/", "https://api.example"),
    ("base_url: HTTPS://API.Example//", "https://api.example"),
    ("base_url: https://api.example:8443", "https://api.example:8443"),
    ("base_url: https://api.example/a/b/", "https://api.example/a/b"),
    ("base_url: https://bücher.example", "https://xn--bcher-kva.example"),
    ("base_url: 'https://[2001:db8::1]:8443/'", "https://[2001:db8::1]:8443"),
    ("base_url: https://192.0.2.1", "https://192.0.2.1"),
    ("base_url: http://localhost:8080", "http://localhost:8080"),
    ("base_url: http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("base_url: http://127.9.9.9", "http://127.9.9.9"),
    ("base_url: 'http://[::1]:8080'", "http://[::1]:8080"),
]


@pytest.mark.fault(102)
@pytest.mark.parametrize(("line", "origin"), ORIGINS)
def test_the_origin(line: str, origin: str) -> None:
    """Plain http is for this machine only."""
    assert parse(f"{ACCOUNT}    {line}\n").accounts[0].origin == origin


def test_networks_that_need_a_proxy_and_a_ca_say_so(tmp_path: Path) -> None:
    """The proxy may be plain http; the file must hold certificates."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(trustme.CA().cert_pem.bytes())
    lines = f"    ca_file: {ca_file}\n    proxy_url: http://proxy.example:3128/\n"
    [account] = loader.parse(ACCOUNT + lines, "FILE", {}).accounts
    assert (account.ca_file, account.proxy_url) == (str(ca_file), "http://proxy.example:3128")


def test_without_secrets_no_file_and_no_variable_is_read() -> None:
    """Nor looked for: a Git hook has none of them. A key in the file itself is checked."""
    text = """\
per_number: {phone_number: hidden, pseudonym_key_file: /missing/pseudonyms}
accounts:
  - {name: a, sid: s, api_key_file: /missing/key, api_token_env: MISSING, ca_file: /missing/ca}
  - {name: b, sid: s, api_key: "", api_token: token}
"""
    whole = text.replace('""', "key")
    assert len(loader.parse(whole, "f", {}, files_of({}), with_secrets=False).accounts) == 2
    refused = refusal(lambda: loader.parse(text, "f", {}, files_of({}), with_secrets=False))
    [problem] = refused.problems
    assert problem.startswith("f:4: accounts[1].api_key: ")


def test_two_accounts_may_share_a_sid() -> None:
    accounts = parse(ACCOUNT + SECOND_ACCOUNT).accounts
    assert [account.name for account in accounts] == ["support", "sales"]


# ---- variables in place of a file

VARIABLES = {
    "EXOTEL_ACCOUNT_SID": "acme1",
    "EXOTEL_API_KEY": "canary-key",
    "EXOTEL_API_TOKEN": "canary-token",
}
FILES = {
    "EXOTEL_ACCOUNT_SID_FILE": "/secrets/sid",
    "EXOTEL_API_KEY_FILE": "/secrets/good",
    "EXOTEL_API_TOKEN_FILE": "/secrets/good",
}


@pytest.mark.parametrize("environ", [VARIABLES, FILES], ids=["values", "files"])
def test_variables_alone_describe_one_account(environ: dict[str, str]) -> None:
    """Named by its sid, with every default."""
    loaded = loader.load(None, environ, READ_FILE)
    [account] = loaded.accounts
    assert (loaded.source, loaded.warnings) == ("environment", ())
    assert (account.name, account.sid) == ("acme1", "acme1")
    assert account.origin == "https://api.exotel.com"
    key, token = environ.get("EXOTEL_API_KEY", "canary"), environ.get("EXOTEL_API_TOKEN", "canary")
    assert secrets_of(account) == (key, token)
    assert (account.poll, account.per_number) == (DEFAULT_POLL, DEFAULT_PER_NUMBER)


def test_a_file_wins_over_variables() -> None:
    loaded = loader.load(str(CONFIGS / "good/minimal.yaml"), VARIABLES | {"EXOTEL_REGION": "x"})
    assert loaded.accounts[0].name == "support"


@pytest.mark.parametrize(
    ("name", "value", "origin"),
    [
        ("EXOTEL_REGION", "mumbai", "https://api.in.exotel.com"),
        ("EXOTEL_REGION_FILE", "/secrets/region", "https://api.in.exotel.com"),
        ("EXOTEL_BASE_URL", "http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_the_origin_by_variable(name: str, value: str, origin: str) -> None:
    [account] = loader.load(None, VARIABLES | {name: value}, READ_FILE).accounts
    assert account.origin == origin


BAD_VARIABLES = [
    pytest.param(
        {"EXOTEL_REGION": "delhi"},
        [
            "EXOTEL_ACCOUNT_SID: is not set, and neither is EXOTEL_ACCOUNT_SID_FILE",
            "EXOTEL_API_KEY: is not set, and neither is EXOTEL_API_KEY_FILE",
            "EXOTEL_API_TOKEN: is not set, and neither is EXOTEL_API_TOKEN_FILE",
            "EXOTEL_REGION: `delhi` is not one of singapore, mumbai",
        ],
        id="only-a-region",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_REGION": "mumbai\n"},
        ["EXOTEL_REGION: `mumbai\\n` is not one of singapore, mumbai"],
        id="newline",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_API_KEY_FILE": "/key", "EXOTEL_API_TOKEN_FILE": "/gone"},
        [
            "EXOTEL_API_KEY: cannot be combined with EXOTEL_API_KEY_FILE; unset one of them",
            "EXOTEL_API_TOKEN: cannot be combined with EXOTEL_API_TOKEN_FILE; unset one of them",
        ],
        id="value-and-file",
        marks=pytest.mark.fault(100),
    ),
    pytest.param(
        FILES
        | {"EXOTEL_ACCOUNT_SID_FILE": "/gone", "EXOTEL_API_TOKEN_FILE": "/gone"}
        | {"EXOTEL_REGION_FILE": "/\x1b[31mgone\udcff\nnow"},
        [
            f"EXOTEL_ACCOUNT_SID: EXOTEL_ACCOUNT_SID_FILE=/gone: {GONE}",
            f"EXOTEL_REGION: EXOTEL_REGION_FILE=/?[31mgone?…: {GONE}",
            f"EXOTEL_API_TOKEN_FILE: /gone: {GONE}",
        ],
        id="gone",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_REGION": "mumbai", "EXOTEL_BASE_URL": "https://api.example"},
        ["EXOTEL_BASE_URL: cannot be combined with `region`; remove one of them"],
        id="region-and-base-url",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_BASE_URL": "https://canary:canary@api.example"},
        ["EXOTEL_BASE_URL: contains credentials; set them as api_key and api_token"],
        id="credentials-in-the-url",
    ),
    pytest.param(
        {"EXOTEL_ACCOUNT_SID": "", "EXOTEL_API_KEY": "", "EXOTEL_API_TOKEN": "canary\udcff"},
        [
            "EXOTEL_ACCOUNT_SID: is empty; it is required",
            "EXOTEL_API_KEY: the environment variable EXOTEL_API_KEY is set but empty",
            "EXOTEL_API_TOKEN: is not UTF-8 text",
        ],
        id="unfit",
    ),
    pytest.param(
        VARIABLES | {"EXOTEL_API_KEY": "canary:canary"},
        [
            (
                "EXOTEL_API_KEY: contains a colon, which no API key does;"
                " is it key and token in one value?"
            )
        ],
        id="colon",
    ),
]


@pytest.mark.fault(104)
@pytest.mark.parametrize(("environ", "expected"), BAD_VARIABLES)
def test_bad_variables_are_refused_by_name(environ: dict[str, str], expected: list[str]) -> None:
    """All of them, without their values where these are secrets."""
    error = refusal(lambda: loader.load(None, environ, READ_FILE))
    assert list(error.problems) == [f"environment: {problem}" for problem in expected]
    assert CANARY not in everything_of(error)


@pytest.mark.fault(99)
def test_no_file_and_no_variable_is_refused_with_what_to_do() -> None:
    assert str(refusal(lambda: loader.load(None, {}))) == (
        "no configuration: use --config.file FILE, or set EXOTEL_ACCOUNT_SID, EXOTEL_API_KEY and"
        " EXOTEL_API_TOKEN (and EXOTEL_REGION=mumbai for an account in Mumbai); without an account,"
        " try `exophone-exporter demo`"
    )


# ---- config.example.yaml and the schema

EXAMPLE = (ROOT / "config.example.yaml").read_text("utf-8")


@pytest.mark.fault(236)
def test_a_rule_that_another_hides_is_a_warning_with_its_line() -> None:
    rules = 'numbers:\n  - match: {sid: "*"}\n  - match: {sid: a, region: KA}\n'
    assert parse(ACCOUNT + rules).warnings == (
        "FILE:8: numbers[1]: the rule never applies: numbers[0] matches all that it matches",
    )


def test_rules_are_read_as_they_are_written_and_each_account_has_its_own() -> None:
    rules = """\
numbers:
  - match: {phone_number: +9180*, sid: [011, 0x12]}
    voice: 0420118
    owner: 007
  - name: sms
    match: {account: SALES, region: [Uttar Pradesh west, mh, Delhi*]}
    sms: [1, https://bot.example/answer]
"""
    support, sales = parse(ACCOUNT + SECOND_ACCOUNT + rules).accounts
    first = NumberRule(
        1, "1", {"sid": ("011", "0x12"), "phone_number": ("+9180*",)}, ("0420118",), ANY, "007"
    )
    second = NumberRule(
        2,
        "sms",
        {"account": ("SALES",), "region": ("UW", "mh", "Delhi*")},
        ANY,
        ("1", "https://bot.example/answer"),
    )
    assert (support.rules, sales.rules) == (NumberRules((first,)), NumberRules((first, second)))
    assert parse(ACCOUNT).accounts[0].rules is DEFAULT_RULES


def uncommented(text: str) -> str:
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
    rules = written["numbers"]
    assert {key for rule in rules for key in rule} == sections["NumberRuleSection"]
    assert {key for rule in rules for key in rule["match"]} == sections["MatchSection"]


def test_the_commented_lines_of_the_example_work() -> None:
    """Switched on one by one, in place of what they replace."""
    switched = uncommented(EXAMPLE)
    certificate = trustme.CA().cert_pem.bytes()
    rivals = r"^    (region|api_key|api_token|api_key_env|api_token_env): .*\n"
    loaded = loader.parse(
        re.sub(rivals, "", switched, flags=re.MULTILINE),
        "FILE",
        {},
        lambda path, _: certificate if path.endswith(".pem") else b"secret",
    )
    support, sales = loaded.accounts
    assert support.proxy_url == "http://proxy.example:3128"
    assert support.ca_file == "/etc/ssl/certs/company.pem"
    assert (support.poll.interval_seconds, support.per_number.phone_number) == (900.0, "last4")
    assert (sales.name, sales.sid) == ("sales", "acme2")
    assert [rule.label for rule in support.rules.rules] == ["1", "bangalore"]
    assert [rule.label for rule in sales.rules.rules] == ["1"]


def test_one_account_in_mumbai_takes_four_edits() -> None:
    """They are marked, and the first line tells an editor where the schema is."""
    lines = EXAMPLE.splitlines()
    assert lines[0] == "# yaml-language-server: $schema=docs/config.schema.json"
    marked = [line.split(":")[0].strip(" -") for line in lines if "# <- edit" in line]
    assert marked == ["name", "sid", "api_key_file", "api_token_file"]


def schema_errors(text: str) -> list[str]:
    schema = loader.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize("path", [ROOT / "config.example.yaml", *cases(CONFIGS / "good")])
def test_the_schema_marks_nothing_that_the_exporter_accepts(path: Path) -> None:
    """Except for `~` and `null`, which are text to it and nothing to an editor."""
    marked = schema_errors(path.read_text("utf-8"))
    assert [message[:5] for message in marked] == ["None "] * 2 * (path.stem == "as_written")


@pytest.mark.parametrize(
    "addition",
    [
        "    regoin: mumbai\n",
        "    region: delhi\n",
        "    region: mumbai\n    base_url: https://api.example\n",
        "    base_url: https://key:token@api.example\n",
        "    api_key_env: KEY\n",
        "    poll: {interval: 5 m}\n",
        "    poll: {page_size: 1001}\n",
        "    per_number: {phone_number: last5}\n",
    ],
)
def test_the_schema_marks_what_the_exporter_refuses(addition: str) -> None:
    assert schema_errors(ACCOUNT) == []
    assert schema_errors(ACCOUNT + addition) != []
    refusal(lambda: parse(ACCOUNT + addition))


def test_the_schema_describes_every_key_and_offers_the_defaults() -> None:
    schema = loader.json_schema()
    sections = [*schema["$defs"].values(), schema]
    keys = [entry for part in sections for entry in part["properties"].items()]
    assert all(key["description"].endswith(".") for _, key in keys)
    assert all(part["additionalProperties"] is False for part in sections)
    assert "(?" not in json.dumps(schema)  # Helm reads its patterns, too, and Go has no lookaround
    assert [name for name, key in keys if "null" in json.dumps(key)] == ["labels"]
    assert {name: key["default"] for name, key in keys if "default" in key} == {
        "interval": "auto",
        "timeout": "10s",
        "deadline": "5m",
        "page_size": 50,
        "requests_per_minute": 50,
        "timezone": "Asia/Kolkata",
        "series": "all",
        "limit": 10000,
        "enabled": False,
        "phone_number": "full",
        "region": "singapore",
        "voice": "any",
        "sms": "any",
    }


# ---- docs/configuration.md

MANUAL = (ROOT / "docs/configuration.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("poll", "PollSection"),
        ("per_number", "PerNumberSection"),
        ("balance", "BalanceSection"),
        ("accounts", "AccountSection"),
        ("numbers", "NumberRuleSection"),
        ("match", "MatchSection"),
    ],
)
def test_every_key_is_in_the_manual_and_no_other(name: str, section: str) -> None:
    body = re.split(rf"\n##+ `{name}`", MANUAL)[1].partition("\n##")[0]
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", body, re.MULTILINE))
    assert documented == keys_of_the_shape()[section]


def test_every_variable_is_in_the_manual_and_no_other() -> None:
    documented = set(re.findall(r"EXOTEL_[A-Z_]+[A-Z]", MANUAL))
    names = ("ACCOUNT_SID", "API_KEY", "API_TOKEN", "REGION", "BASE_URL")
    assert documented == {f"EXOTEL_{name}{form}" for name in names for form in ("", "_FILE")}


def test_the_yaml_in_the_manual_is_good() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    whole = [block for block in blocks if "accounts:" in block]
    assert whole
    for block in whole:
        loader.parse(block, "FILE", {"SALES_KEY": "k", "SALES_TOKEN": "t"}, lambda *_: b"secret")


def test_the_errors_in_the_manual_are_real() -> None:
    text, shown = re.findall(r"```(?:yaml bad|text)\n(.*?)```", MANUAL, re.DOTALL)[:2]
    error = refusal(lambda: loader.parse(text, "config.yaml", {}, READ_FILE))
    assert str(error) == shown.strip()
