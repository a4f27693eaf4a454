"""The commands, their flags, and the parser that reads them.

It imports nothing heavy, so that --version and --help answer immediately.
"""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from exophone_exporter import __version__
from exophone_exporter.cli import streams
from exophone_exporter.config import sharding
from exophone_exporter.config.durations import seconds_of
from exophone_exporter.exotel.model import is_askable_sid
from exophone_exporter.inventory.phone_numbers import is_phone_number
from exophone_exporter.logs import LEVELS
from exophone_exporter.web import settings
from exophone_exporter.web.settings import WebSettings

PROGRAM: Final = "exophone-exporter"
# Named as in Prometheus and its exporters; fish is our addition.
COMPLETION_FLAGS: Final = {
    f"--completion-script-{shell}": shell for shell in ("bash", "zsh", "fish")
}
_EPILOG: Final = f"""\
`{PROGRAM} COMMAND --help` lists the flags of a command. The default
command is `serve`.

Without --config.file, the environment variables EXOTEL_ACCOUNT_SID,
EXOTEL_API_KEY and EXOTEL_API_TOKEN (each also with the suffix _FILE) and
EXOTEL_REGION configure one account. To try the exporter without an account,
run `{PROGRAM} demo`.
"""


def _meant(word: str, known: Iterable[str]) -> str:
    """A question about the known word that is nearest to a wrong one; "" without one."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


class _StoreOnce(argparse.Action):
    """Refuses a flag that is repeated, as Prometheus does: the first value would be dropped."""

    given = False

    def __call__(self, _parser: Any, namespace: Any, values: Any, _flag: Any = None) -> None:
        if self.given:
            raise argparse.ArgumentError(self, "cannot be repeated")
        self.given = True
        setattr(namespace, self.dest, values)


class _Flag:
    """A flag, named as the help shows it: `--name VALUE`, or `--name` for a switch.

    `VALUE` and `[VALUE]` are a required and an optional argument. `parse` raises ValueError;
    `options` are those of argparse.
    """

    def __init__(
        self, name: str, text: str, parse: Callable[[str], object] = str, **options: Any
    ) -> None:
        self.name = name
        self.word, _, self._metavar = name.partition(" ")
        self.text = text
        self._parse = parse
        self.options = options

    @property
    def is_argument(self) -> bool:
        """Whether it is given by its place."""
        return not self.name.startswith("-")

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Let a parser read it; the help shows its choices and its default."""
        name, metavar = self.word, self._metavar
        choices = self.options.get("choices")
        one_of = f" One of: {', '.join(choices)}." if choices else ""
        default = " (default: %(default)s)" if "default" in self.options else ""
        options = {"help": f"{self.text}{one_of}{default}", **self.options}
        if self.is_argument:
            metavar = name.strip("[]")
            options["nargs"] = "?" if name.startswith("[") else None
            name = metavar.lower()
        else:
            options.setdefault("action", _StoreOnce if metavar else "store_true")
            options["dest"] = name.lstrip("-").replace(".", "_").replace("-", "_")
        if metavar:
            options |= {"metavar": metavar, "type": self._value}
        parser.add_argument(name, **options)

    def _value(self, text: str) -> object:
        choices = self.options.get("choices") or (text,)
        if text not in choices:
            advice = f"`{text}` is not one of {', '.join(choices)}{_meant(text, choices)}"
            raise argparse.ArgumentTypeError(advice)
        try:
            return self._parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error


class Command(NamedTuple):
    """A command: the function that runs it, as "module:name", what it does, and its flags."""

    function: str
    summary: str
    flags: tuple[_Flag, ...]


def _format(*choices: str) -> _Flag:
    return _Flag("--format FORMAT", "Output format.", choices=choices, default="table")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"`{text}` is not a whole number of 0 or more")
    return int(text)


def _positive_count(text: str) -> int:
    if _count(text) == 0:
        raise ValueError("`0` would refuse every request; omit the flag for no limit")
    return int(text)


def _number_up_to(most: float, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise ValueError(f"`{text}` is not a number from 0 to {most:g}")
    return value


def _interval(text: str) -> float:
    return seconds_of(text, f"`{text}`", 1, 86400)


def _sid_or_phone_number(text: str) -> str:
    if not is_askable_sid(text) and not is_phone_number(text):
        raise ValueError(
            f"`{text}` is neither a SID nor a phone number; `{PROGRAM} numbers --format csv` lists"
            " both"
        )
    return text


LOG: Final = (
    _Flag(
        "--log.level LEVEL",
        "Only log messages with the given severity or above.",
        choices=LEVELS,
        default="info",
    ),
    _Flag(
        "--log.format FORMAT",
        "Output format of log messages.",
        choices=("logfmt", "json"),
        default="logfmt",
    ),
)
_CONFIG: Final = _Flag("--config.file FILE", "The configuration file (YAML).")
_AUTO_RELOAD: Final = (
    _Flag(
        "--config.enable-auto-reload",
        "Reload the configuration when its file, or a file that it names, changes.",
    ),
    _Flag(
        "--config.auto-reload-interval DURATION",
        "How often to look for changes.",
        _interval,
        default="30s",
    ),
)
_SHARD: Final = _Flag(
    "--shard I/N", "Use only shard I of N of the accounts, counted from 0.", sharding.parse
)
_ACCOUNT: Final = _Flag("--account NAME", "Use only this account.")
_SEED: Final = _Flag("--seed N", "Seed of the simulated data.", _count, default=1)
_WEB: Final = (
    _Flag(
        "--web.listen-address ADDRESS",
        "Address on which to expose metrics and web interface, or unix:/path. Repeatable for"
        " multiple addresses."
        f" (default: {settings.LISTEN_ADDRESS})",
        action="append",
    ),
    _Flag(
        "--web.telemetry-path PATH",
        "Path under which to expose metrics.",
        settings.telemetry_path,
        default=WebSettings.telemetry_path,
    ),
    _Flag(
        "--web.max-requests N",
        "Maximum number of parallel scrape requests. Use 0 to disable.",
        _count,
        default=WebSettings.max_requests,
    ),
    _Flag(
        "--web.disable-exporter-metrics", "Exclude metrics about the process (process_*, python_*)."
    ),
    _Flag(
        "--web.config.file FILE",
        "Path to configuration file that can enable TLS or authentication (exporter-toolkit).",
    ),
    _Flag("--web.enable-lifecycle", "Enable reload via HTTP request (POST /-/reload)."),
    _Flag(
        "--web.external-url URL",
        "The URL under which the exporter is externally reachable, for example via a reverse"
        " proxy.",
        settings.external_url,
    ),
    _Flag(
        "--web.route-prefix PATH",
        "Prefix for the internal routes of web endpoints. Defaults to the external URL's path.",
        settings.route_prefix,
    ),
    _Flag(
        "--web.systemd-socket", "Use systemd socket activation listeners instead of port listeners."
    ),
)
_SIMULATOR: Final = (
    _Flag(
        "--web.listen-address ADDRESS",
        "Address on which to expose the simulated API.",
        default="127.0.0.1:10397",
    ),
    _Flag("--numbers N", "Simulate one account with N numbers.", _count),
    _Flag("--latency SECONDS", "Delay of each response.", partial(_number_up_to, 3600), default=0),
    _Flag(
        "--failure-rate RATE",
        "Share of requests that fail, 0 to 1.",
        partial(_number_up_to, 1),
        default=0,
    ),
    _Flag(
        "--requests-per-minute N",
        "Rate limit of each account; further requests get a 429.",
        _positive_count,
    ),
)

COMMANDS: Final = {
    "serve": Command(
        "serve:serve",
        "Poll every account and serve the metrics (default).",
        (_CONFIG, *_AUTO_RELOAD, _SHARD, *_WEB),
    ),
    "demo": Command(
        "demo:demo", "Serve two simulated accounts without credentials.", (*_WEB, _SEED)
    ),
    "simulate": Command("demo:simulate", "Serve the simulated API alone.", (*_SIMULATOR, _SEED)),
    "check-config": Command(
        "check:check_config",
        "Check if the configuration is valid.",
        (
            _Flag("[FILE]", "The configuration file (YAML)."),
            _CONFIG,
            _SHARD,
            _Flag("--web.config.file FILE", "Also check this web configuration file, or it alone."),
            _Flag("--no-secrets", "Read no secret, and no file that the configuration names."),
            _Flag(
                "--live", "Also query the API: one page of each account, or all if there are rules."
            ),
        ),
    ),
    "once": Command(
        "query:once",
        "Poll every account once and print the metrics.",
        (
            _CONFIG,
            _SHARD,
            _Flag(
                "--output FILE.prom",
                "Write to this file, for node_exporter's textfile collector; - is stdout.",
                default="-",
            ),
        ),
    ),
    "numbers": Command(
        "query:numbers",
        "List the numbers.",
        (
            _CONFIG,
            _SHARD,
            _ACCOUNT,
            _Flag("--problems", "List only numbers that are not as the rules expect."),
            _Flag("--unattached", "List only numbers that support a channel but lack its flow."),
            _Flag("--as-rules", "Print rules that expect what each number does today."),
            _format("table", "json", "csv"),
        ),
    ),
    "number": Command(
        "query:number",
        "Show one number.",
        (
            _Flag(
                "SID_OR_PHONE_NUMBER", "The number, as `numbers` lists it.", _sid_or_phone_number
            ),
            _CONFIG,
            _ACCOUNT,
            _format("table", "json"),
        ),
    ),
}


class _Parser(argparse.ArgumentParser):
    """Reports an error in two lines instead of listing every flag."""

    def __init__(self, **options: Any) -> None:
        # The first column is wide enough for the flags, so that few of them take two lines.
        form = partial(argparse.RawDescriptionHelpFormatter, max_help_position=32)
        super().__init__(formatter_class=form, allow_abbrev=False, add_help=False, **options)
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")
        shown = "Show application version." if self.prog == PROGRAM else argparse.SUPPRESS
        version = f"{PROGRAM} {__version__}"
        self.add_argument("--version", action="version", version=version, help=shown)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown words here, so that the error names the help of the command."""
        command = next(iter(args or ()), "-")
        if self.prog == PROGRAM and not command.startswith("-") and command not in COMMANDS:
            meant = _meant(command, COMMANDS) or _meant_file(command) or "."
            self.error(f"unknown command `{command}`{meant} Commands: {', '.join(COMMANDS)}")
        known, unknown = super().parse_known_args(args, namespace)
        commands = [word for word in unknown if word in COMMANDS]
        if commands:
            self.error(f"put the command first: {PROGRAM} {commands[0]} ...")
        if unknown:
            self.error(self._unknown(unknown[0]))
        return known, unknown

    def _unknown(self, word: str) -> str:
        """What is wrong with a word that the command does not know, and what may be meant."""
        flag = word.partition("=")[0]
        if not flag.startswith("-"):
            return f"unexpected argument: {word}{_meant_file(word)}"
        owners = [
            name
            for name, command in COMMANDS.items()
            if any(flag == each.word for each in command.flags)
        ]
        if owners:
            return f"unknown flag: {flag}; it belongs to {', '.join(owners)}"
        return f"unknown flag: {flag}{_meant(flag, self._option_string_actions)}"

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help as any other output: argparse would ignore a full disk."""
        if file is sys.stdout:
            streams.write(message)
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{PROGRAM}: {message}\ntry `{self.prog} --help`\n")


def _meant_file(word: str) -> str:
    is_file = word.endswith((".yaml", ".yml"))
    return f"; did you mean `--config.file {word}`?" if is_file else ""


def parser(*, for_completion: bool = False) -> argparse.ArgumentParser:
    """The parser of every command; a completion also offers the flags of `serve` without it."""
    whole = _Parser(
        prog=PROGRAM,
        usage="%(prog)s [COMMAND] [FLAGS]",
        description="Prometheus exporter for Exotel ExoPhones.",
        epilog=_EPILOG,
    )
    for name, shell in COMPLETION_FLAGS.items():
        _Flag(name, f"Output completion script for {shell}.").add_to(whole)
    commands = whole.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands", prog=PROGRAM
    )
    for name, command in COMMANDS.items():
        arguments = [flag.name for flag in command.flags if flag.is_argument]
        added = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            usage=" ".join((PROGRAM, name, "[FLAGS]", *arguments)),
        )
        _add_flags(added, command)
    if for_completion:
        _add_flags(whole, COMMANDS["serve"])
    return whole


def _add_flags(to: argparse.ArgumentParser, command: Command) -> None:
    for flag in (*command.flags, *LOG):
        flag.add_to(to)
