"""Flags, help and exit codes, as they are typed."""

from __future__ import annotations

import logging
import re
import signal
from typing import TYPE_CHECKING

import pytest

from exophone_exporter import __version__
from exophone_exporter.cli import main
from tests.lib.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS = ("serve", "demo", "simulate", "check-config", "once", "numbers", "number")
LOG = {"--log.level", "--log.format"}
WEB = {
    "--web.listen-address",
    "--web.telemetry-path",
    "--web.max-requests",
    "--web.config.file",
    "--web.enable-lifecycle",
    "--web.external-url",
    "--web.route-prefix",
    "--web.systemd-socket",
}
FLAGS = {
    "serve": {"--config.file", "--shard"} | WEB | LOG,
    "demo": {"--seed"} | WEB | LOG,
    "simulate": {
        "--web.listen-address",
        "--numbers",
        "--latency",
        "--failure-rate",
        "--requests-per-minute",
        "--seed",
    }
    | LOG,
    "check-config": {"--config.file", "--shard", "--live"} | LOG,
    "once": {"--config.file", "--shard", "--output"} | LOG,
    "numbers": {"--config.file", "--shard", "--account", "--unattached", "--format"} | LOG,
    "number": {"--config.file", "--account", "--format"} | LOG,
}


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """The command line sets up signals and logging for a process that is all its own."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)


def call(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """One call in this process, for what needs no process of its own."""
    try:
        code = main.main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_version_is_one_line_on_stdout() -> None:
    """The version is the package's, and nothing else is printed."""
    ended = run("--version")
    assert (ended.code, ended.stdout, ended.stderr) == (0, f"exophone-exporter {__version__}\n", "")


def test_help_names_every_command_and_fits_a_terminal() -> None:
    """Each command stands on a line of its own with what it does; no line passes 80 columns."""
    ended = run("--help", env={"COLUMNS": "80"})
    assert ended.code == 0
    assert re.findall(r"(?m)^    ([a-z-]+)  +\S", ended.stdout) == list(COMMANDS)
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for variable in ("EXOTEL_ACCOUNT_SID", "EXOTEL_API_KEY", "EXOTEL_API_TOKEN", "EXOTEL_REGION"):
        assert variable in ended.stdout


@pytest.mark.parametrize("command", [pytest.param(name, id=name) for name in COMMANDS])
def test_help_of_a_command_lists_its_flags_and_no_others(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags are those of the interface contract, within 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(command, "--help", capsys=capsys)
    assert code == 0
    assert set(re.findall(r"--[a-z][a-z.-]*", out)) - {"--help"} == FLAGS[command]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ("numbrs",),
            "there is no command `numbrs`. Did you mean `numbers`? The commands: serve, demo,"
            " simulate, check-config, once, numbers, number\ntry `exophone-exporter --help`",
            id="misspelt-command",
        ),
        pytest.param(
            ("--bogus",),
            "unknown: --bogus\ntry `exophone-exporter serve --help`",
            id="unknown-flag-of-the-default-command",
        ),
        pytest.param(
            ("numbers", "--bogus"),
            "unknown: --bogus\ntry `exophone-exporter numbers --help`",
            id="unknown-flag-of-a-command",
        ),
        pytest.param(
            ("--config.file", "x", "numbers"),
            "the command stands first: exophone-exporter numbers ...",
            id="flag-before-the-command",
        ),
        pytest.param(
            ("--web.listen", ":1"), "unknown: --web.listen :1", id="flags-are-not-abbreviated"
        ),
        pytest.param(("--config.file",), "expected one argument", id="flag-without-its-value"),
        pytest.param(("--log.level=loud",), "invalid choice: 'loud'", id="log-level"),
        pytest.param(("--log.format=xml",), "invalid choice: 'xml'", id="log-format"),
        pytest.param(
            ("--web.max-requests=-1",), "`-1` is not a whole number from 0", id="negative-count"
        ),
        pytest.param(
            ("--web.max-requests=٣",), "`٣` is not a whole number from 0", id="arabic-digit"
        ),
        pytest.param(
            ("--web.telemetry-path=metrics",),
            "`metrics` is no path like /metrics",
            id="path-without-slash",
        ),
        pytest.param(
            ("--web.telemetry-path=/-/ready",), "`/-/ready` is no path", id="path-that-is-taken"
        ),
        pytest.param(
            ("--web.telemetry-path=/{x}",), "`/{x}` is no path", id="path-that-is-a-pattern"
        ),
        pytest.param(("number",), "required: SID", id="number-without-sid"),
        pytest.param(("number", "a/b"), "`a/b` cannot be a sid", id="sid-with-slash"),
        pytest.param(("number", ".."), "`..` cannot be a sid", id="sid-of-dots"),
        pytest.param(("number", ""), "`` cannot be a sid", id="empty-sid"),
        pytest.param(("number", "x" * 129), "cannot be a sid", id="long-sid"),
        pytest.param(("simulate", "--latency=nan"), "`nan` is not a number", id="latency-nan"),
        pytest.param(
            ("simulate", "--failure-rate=1.5"), "`1.5` is not a number from 0 to 1", id="rate"
        ),
        pytest.param(
            ("simulate", "--requests-per-minute=0"), "`0` would refuse everything", id="limit-0"
        ),
        pytest.param(
            ("numbers", "--format=xml"), "invalid choice: 'xml'", id="format-of-the-numbers"
        ),
        pytest.param(("number", "s", "--format=csv"), "invalid choice: 'csv'", id="format-of-one"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_where_help_is(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines on stderr, nothing on stdout."""
    code, out, err = call(*words, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("exophone-exporter: ")
    assert message in err
    assert re.search(r"\ntry `exophone-exporter( [a-z-]+)? --help`\n\Z", err)
    assert err.count("\n") == 2


def test_no_configuration_at_all_names_both_ways_and_the_demo() -> None:
    """Exit 2 on one line; and that is what no argument at all does."""
    ended = run()
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    for way in ("--config.file", "EXOTEL_ACCOUNT_SID", "EXOTEL_API_KEY", "EXOTEL_API_TOKEN"):
        assert way in ended.stderr
    assert "exophone-exporter demo" in ended.stderr


@pytest.mark.fault(93)
@pytest.mark.fault(123)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "accounts:\n\t- {}\n",
            r"exophone\.yml:2: .*tab",
            id="tab",
        ),
        pytest.param("accounts: [\n", r"exophone\.yml:\d+: ", id="broken-yaml"),
        pytest.param(
            "accounts:\n  - {name: a, sid: b, api_key: k, api_token: t}\npol: {}\n",
            r"exophone\.yml:3: pol: .*`poll`",
            id="misspelt-key",
        ),
        pytest.param(
            "accounts:\n  - {name: a, sid: b, api_key: k}\n",
            r"exophone\.yml:2: accounts\[0\]\.api_token: set exactly one of",
            id="missing-secret",
        ),
        pytest.param(
            "accounts:\n  - {name: a, sid: b, api_key: k, api_token_file: gone.txt}\n",
            r"exophone\.yml:2: .*gone\.txt.*No such file",
            id="secret-file-that-is-not-there",
        ),
        pytest.param("", r"exophone\.yml: the file is empty", id="empty"),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--config.file", "{}"), id="serve"),
        pytest.param(("once", "--config.file", "{}"), id="once"),
        pytest.param(("numbers", "--config.file", "{}"), id="numbers"),
        pytest.param(("number", "sid", "--config.file", "{}"), id="number"),
        pytest.param(("check-config", "{}"), id="check-config"),
    ],
)
def test_a_bad_file_exits_with_2_and_names_the_line(
    words: tuple[str, ...],
    text: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command reports it the same way: on stderr, with file and line."""
    file = tmp_path / "exophone.yml"
    file.write_text(text, encoding="utf-8")
    code, out, err = call(*(word.format(file) for word in words), capsys=capsys)
    assert (code, out) == (2, "")
    assert re.search(message, err)
