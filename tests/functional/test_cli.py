"""Flags, help and exit codes, as they are typed."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from exophone_exporter import __version__
from exophone_exporter.cli import main
from tests.lib.processes import run

CONFIG = {"--config.file", "--shard"}
LOG = {"--log.level", "--log.format"}
WEB = {
    "--web.listen-address",
    "--web.telemetry-path",
    "--web.max-requests",
    "--web.disable-exporter-metrics",
    "--web.config.file",
    "--web.enable-lifecycle",
    "--web.external-url",
    "--web.route-prefix",
    "--web.systemd-socket",
}
SIMULATOR = {"--web.listen-address", "--numbers", "--latency", "--failure-rate", "--seed"}
FLAGS = {
    "serve": CONFIG | {"--config.enable-auto-reload", "--config.auto-reload-interval"} | WEB | LOG,
    "demo": {"--seed"} | WEB | LOG,
    "simulate": SIMULATOR | {"--requests-per-minute"} | LOG,
    "check-config": CONFIG | {"--web.config.file", "--no-secrets", "--live"} | LOG,
    "once": CONFIG | {"--output"} | LOG,
    "numbers": CONFIG | {"--account", "--problems", "--unattached", "--as-rules", "--format"} | LOG,
    "number": {"--config.file", "--account", "--format"} | LOG,
}


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """The program sets signal handlers of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def call(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """One call in this process, for what needs no process of its own."""
    try:
        code = main.main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("words", ["--version", "serve --version", "--log.level=debug --version"])
def test_version_is_one_line_on_stdout(words: str) -> None:
    ended = run(*words.split())
    assert (ended.code, ended.stdout, ended.stderr) == (0, f"exophone-exporter {__version__}\n", "")


@pytest.mark.parametrize("words", ["", "once"])
def test_the_command_help_is_the_flag(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("help", *words.split(), capsys=capsys) == call(
        *words.split(), "--help", capsys=capsys
    )


def test_help_names_every_command_and_fits_a_terminal() -> None:
    ended = run("--help", env={"COLUMNS": "80"})
    assert ended.code == 0
    assert re.findall(r"(?m)^    ([a-z-]+)  +\S", ended.stdout) == list(FLAGS)
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for variable in ("EXOTEL_ACCOUNT_SID", "EXOTEL_API_KEY", "EXOTEL_API_TOKEN", "EXOTEL_REGION"):
        assert variable in ended.stdout


@pytest.mark.parametrize("command", FLAGS)
def test_help_of_a_command_lists_its_flags_and_no_others(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(command, "--help", capsys=capsys)
    assert code == 0
    assert set(re.findall(r"--[a-z][a-z.-]*", out)) - {"--help"} == FLAGS[command]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "numbrs",
            "unknown command `numbrs`; did you mean `numbers`? Commands: serve, demo, simulate, c",
        ),
        ("--bogus", "unknown flag: --bogus\ntry `exophone-exporter serve --help`"),
        ("numbers --bogus", "unknown flag: --bogus\ntry `exophone-exporter numbers --help`"),
        ("once extra", "unexpected argument: extra\ntry `exophone-exporter once --help`"),
        ("--config.file x numbers", "put the command first: exophone-exporter numbers ..."),
        # flags cannot be abbreviated
        ("--web.listen :1", "unknown flag: --web.listen; did you mean `--web.listen-address`?"),
        ("--confg.file=x", "unknown flag: --confg.file; did you mean `--config.file`?"),
        ("-config.file x", "unknown flag: -config.file; did you mean `--config.file`?"),
        ("numbers --formt json", "unknown flag: --formt; did you mean `--format`?"),
        ("numbers --live", "unknown flag: --live; it belongs to check-config\n"),
        ("numbers --output=x", "unknown flag: --output; it belongs to once\n"),
        ("numbers c.yaml", "unexpected argument: c.yaml; did you mean `--config.file c.yaml`?"),
        ("c.yml", "unknown command `c.yml`; did you mean `--config.file c.yml`? Commands: serve"),
        ("check-config a b", "unexpected argument: b\n"),
        ("--config.file a --config.file b", "argument --config.file: cannot be repeated"),
        ("simulate --seed=1 --seed=2", "argument --seed: cannot be repeated"),  # 1 is the default
        ("number a b", "unexpected argument: b\n"),
        ("--config.file", "expected one argument"),
        ("--log.level=loud", "`loud` is not one of debug, info, warn, error\n"),
        ("--log.level=inf", "`inf` is not one of debug, info, warn, error; did you mean `info`?"),
        ("--log.format=xml", "`xml` is not one of logfmt, json\n"),
        ("--config.auto-reload-interval=5", "`5` is not a valid duration; use a value such as"),
        ("--config.auto-reload-interval=500ms", "`500ms` is out of range; use 1s to 1d"),
        ("help numbrs", "unknown command `numbrs`; did you mean `numbers`?"),
        ("--web.max-requests=-1", "`-1` is not a whole number of 0 or more"),
        ("--web.max-requests=٣", "`٣` is not a whole number of 0 or more"),
        ("--web.telemetry-path=metrics", "invalid path `metrics`: use a path like /metrics"),
        ("--web.external-url=h/x", "the URL must start with http:// or https://"),
        ("--web.route-prefix=/..", "use a path like /exophone"),
        ("--shard=3/3", "`3/3`"),
        ("number", "required: SID_OR_PHONE_NUMBER"),
        ("number a/b", "`a/b` is neither a SID nor a phone number"),
        ("simulate --latency=nan", "`nan` is not a number from 0 to 3600"),
        ("simulate --failure-rate=1.5", "`1.5` is not a number from 0 to 1"),
        ("simulate --requests-per-minute=0", "`0` would refuse every request"),
        ("numbers --format=xml", "`xml` is not one of table, json, csv\n"),
        ("number s --format=csv", "`csv` is not one of table, json\n"),
    ],
)
def test_a_wrong_call_exits_with_2_and_names_the_help(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(*words.split(), capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("exophone-exporter: ")
    assert message in err
    assert re.search(r"\ntry `exophone-exporter( [a-z-]+)? --help`\n\Z", err)
    assert err.count("\n") == 2


def test_no_configuration_at_all_names_both_ways_and_the_demo() -> None:
    ended = run()
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    for way in ("--config.file", "EXOTEL_ACCOUNT_SID", "EXOTEL_API_KEY", "EXOTEL_API_TOKEN"):
        assert way in ended.stderr
    assert "exophone-exporter demo" in ended.stderr


@pytest.mark.fault(121)
@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_what_is_not_an_address_exits_with_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(command, "--web.listen-address=:x", capsys=capsys)
    assert (code, out) == (2, "")
    assert "invalid address `:x`" in err
    code, out, err = call("simulate", "--web.listen-address=unix:/x", capsys=capsys)
    assert (code, out) == (2, "")
    assert "not a Unix socket" in err


@pytest.mark.fault(93, 123)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accounts:\n\t- {}\n", r"exophone\.yml:2: .*tab"),
        (
            "accounts:\n  - {name: a, sid: b, api_key: k, api_token: t}\npol: {}\n",
            r"exophone\.yml:3: pol: .*`poll`",
        ),
        (
            "accounts:\n  - {name: a, sid: b, api_key: k, api_token_file: gone.txt}\n",
            r"exophone\.yml:2: .*gone\.txt.*No such file",
        ),
        ("", r"exophone\.yml: the file is empty"),
    ],
    ids=["tab", "misspelt-key", "missing-secret-file", "empty"],
)
@pytest.mark.parametrize(
    "words",
    [
        "--config.file {}",
        "once --config.file {}",
        "numbers --config.file {}",
        "number sid --config.file {}",
        "check-config {}",
    ],
)
def test_a_bad_file_exits_with_2_and_names_the_line(
    words: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "exophone.yml"
    file.write_text(text, encoding="utf-8")
    code, out, err = call(*words.format(file).split(), capsys=capsys)
    assert (code, out) == (2, "")
    assert re.search(message, err)
