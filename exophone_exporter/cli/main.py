"""Flags, the choice of the command, and exit codes: 0 success, 1 failure, 2 usage or configuration.

Heavy imports stand in the command that needs them, so that --version and --help answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from exophone_exporter import __version__
from exophone_exporter.errors import ConfigError, StartError
from exophone_exporter.exotel.model import is_askable_sid
from exophone_exporter.logs import LEVELS, configure, say
from exophone_exporter.web.settings import WebSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exophone_exporter.config.sharding import Shard

    Command = Callable[[argparse.Namespace], int]

_PROGRAM: Final = "exophone-exporter"
_EPILOG: Final = """\
Without a command, it serves. `exophone-exporter COMMAND --help` lists flags.
Without --config.file, the variables EXOTEL_ACCOUNT_SID, EXOTEL_API_KEY and
EXOTEL_API_TOKEN (each also with _FILE behind it) and EXOTEL_REGION describe one
account. Without an account, try `exophone-exporter demo`.
"""
_SERVING: Final = ("serve", "demo", "simulate")
# Named as in Prometheus and its exporters; fish is ours.
_COMPLETION_FLAGS: Final = {
    f"--completion-script-{shell}": shell for shell in ("bash", "zsh", "fish")
}
_WITHOUT_COMMAND: Final = ("-h", "--help", "--version", *_COMPLETION_FLAGS)
_LAST_STANDARD_STREAM: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_closed_streams()
    words = _with_command(sys.argv[1:] if argv is None else argv)
    if words[0] in _SERVING:
        # Until the server takes over, a signal ends the process with the same exit code as later.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
    if words[0] == "serve":
        # It reloads on SIGHUP; one that comes before there is anything to reload is early, no more.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        args = _parser().parse_args(words)
        configure(args.log_level, args.log_format)
        return _run(args)
    except ConfigError as error:
        for problem in error.problems:
            say(problem)
        return 2
    except StartError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 0  # whoever read our output has seen enough
    finally:
        _discard_unwritten()


def _run(args: argparse.Namespace) -> int:
    command: Command = _COMMANDS[args.command]()
    return command(args)


def _leave(*_: object) -> NoReturn:
    # Nothing needs an end yet. An exception would be lost where the signal strikes inside a
    # callback of the interpreter's own, of which importing has many.
    os._exit(0)


def _discard_unwritten() -> None:
    """What a full disk did not take must not be tried again, and fail, when the process ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_closed_streams() -> None:
    """Give standard streams that are closed to /dev/null; a socket would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_STREAM:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, kept open
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - likewise


def _serve() -> Command:
    from exophone_exporter.cli.serve import serve

    return serve


def _demo() -> Command:
    from exophone_exporter.cli.demo import demo

    return demo


def _simulate() -> Command:
    from exophone_exporter.cli.demo import simulate

    return simulate


def _check_config() -> Command:
    from exophone_exporter.cli.check import check_config

    return check_config


def _once() -> Command:
    from exophone_exporter.cli.query import once

    return once


def _numbers() -> Command:
    from exophone_exporter.cli.query import numbers

    return numbers


def _number() -> Command:
    from exophone_exporter.cli.query import number

    return number


_COMMANDS: Final[dict[str, Callable[[], Command]]] = {
    "serve": _serve,
    "demo": _demo,
    "simulate": _simulate,
    "check-config": _check_config,
    "once": _once,
    "numbers": _numbers,
    "number": _number,
}


def _with_command(argv: Sequence[str]) -> list[str]:
    """`exophone-exporter --config.file x` serves: the command may be left out."""
    if argv and (argv[0] in _COMMANDS or argv[0] in _WITHOUT_COMMAND):
        return list(argv)
    if argv and not argv[0].startswith("-"):
        return list(argv)  # a word that is no command: the parser says which there are
    return ["serve", *argv]


class _Parser(argparse.ArgumentParser):
    """Says in a line or two what is wrong and where help is, instead of every flag there is."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown here, so that the command's own help is named."""
        words = list(args or ())
        if self.prog == _PROGRAM and words and not words[0].startswith("-"):
            self._check_command(words[0])
        known, unknown = super().parse_known_args(args, namespace)
        commands = [word for word in unknown if word in _COMMANDS]
        if commands:
            self.error(f"the command stands first: {_PROGRAM} {commands[0]} ...")
        if unknown:
            self.error(f"unknown: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{_PROGRAM}: {message}\ntry `{self.prog} --help`\n")

    def _check_command(self, word: str) -> None:
        if word in _COMMANDS:
            return
        near = difflib.get_close_matches(word, _COMMANDS, n=1)
        meant = f" Did you mean `{near[0]}`?" if near else ""
        self.error(f"there is no command `{word}`.{meant} The commands: {', '.join(_COMMANDS)}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        usage="%(prog)s [COMMAND] [FLAGS]",
        description="Prometheus exporter for Exotel ExoPhones.",
        epilog=_EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    for flag, shell in _COMPLETION_FLAGS.items():
        parser.add_argument(
            flag, action=_Completion, const=shell, nargs=0, help=f"print the completion for {shell}"
        )
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands", prog=_PROGRAM
    )

    def add(name: str, summary: str, *groups: Callable[[argparse.ArgumentParser], None]) -> None:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        for add_flags in (*groups, _add_log_flags):
            add_flags(command)
        # Two dozen flags in brackets help nobody; they stand below, each with what it does.
        positionals = {_add_check: " [FILE]", _add_one: " SID"}
        given = "".join(word for group, word in positionals.items() if group in groups)
        command.usage = f"{_PROGRAM} {name} [FLAGS]{given}"

    add(
        "serve",
        "poll every account, serve /metrics (the default)",
        _add_config,
        _add_shard,
        _add_web,
    )
    add("demo", "the same on two simulated accounts; needs nothing", _add_web, _add_seed)
    add("simulate", "the simulated API alone", _add_simulator, _add_seed)
    add("check-config", "validate the configuration", _add_config, _add_shard, _add_check)
    add("once", "poll once and print the metrics", _add_config, _add_shard, _add_output)
    add("numbers", "list the numbers", _add_config, _add_shard, _add_account, _add_listing)
    add("number", "show one number", _add_config, _add_account, _add_one)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config.file", dest="config_file", metavar="FILE", help="configuration file (YAML)"
    )


def _add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard", metavar="I/N", type=_shard, help="only share I, from 0, of N of the accounts"
    )


def _add_web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.listen-address",
        dest="web_listen_address",
        metavar="ADDRESS",
        action=_Addresses,
        default=[":10396"],
        help="address to listen on, repeatable (default :10396, all interfaces)",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="web_telemetry_path",
        metavar="PATH",
        type=_telemetry_path,
        default="/metrics",
        help="path of the metrics (default /metrics)",
    )
    parser.add_argument(
        "--web.max-requests",
        dest="web_max_requests",
        metavar="N",
        type=_count,
        default=40,
        help="requests in flight before 503, 0 for no limit (default 40)",
    )
    parser.add_argument(
        "--web.config.file",
        dest="web_config_file",
        metavar="FILE",
        help="TLS, users and headers, in exporter-toolkit's format",
    )
    parser.add_argument(
        "--web.enable-lifecycle",
        dest="web_enable_lifecycle",
        action="store_true",
        help="allow POST /-/reload",
    )
    parser.add_argument(
        "--web.external-url",
        dest="web_external_url",
        metavar="URL",
        default="",
        help="where people reach the exporter, behind a proxy",
    )
    parser.add_argument(
        "--web.route-prefix",
        dest="web_route_prefix",
        metavar="PATH",
        help="prefix of every path (default: the path of --web.external-url)",
    )
    parser.add_argument(
        "--web.systemd-socket",
        dest="web_systemd_socket",
        action="store_true",
        help="listen on the sockets that systemd passes",
    )


def _add_log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log.level",
        dest="log_level",
        metavar="LEVEL",
        choices=LEVELS,
        default="info",
        help=f"least level logged: {_alternatives(LEVELS)} (default info)",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        metavar="FORMAT",
        choices=("logfmt", "json"),
        default="logfmt",
        help="form of the log: logfmt or json (default logfmt)",
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=_count, metavar="N", default=1, help="another simulated world (default 1)"
    )


def _add_simulator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.listen-address",
        dest="web_listen_address",
        metavar="ADDRESS",
        default="127.0.0.1:10397",
        help="address to listen on (default 127.0.0.1:10397)",
    )
    parser.add_argument(
        "--numbers", type=_count, metavar="N", help="one account of N numbers (default: the demo's)"
    )
    parser.add_argument(
        "--latency",
        type=_number_up_to(3600),
        metavar="SECONDS",
        default=0.0,
        help="time each answer takes",
    )
    parser.add_argument(
        "--failure-rate",
        dest="failure_rate",
        type=_number_up_to(1),
        metavar="RATE",
        default=0.0,
        help="share of requests that fail, 0 to 1",
    )
    parser.add_argument(
        "--requests-per-minute",
        dest="requests_per_minute",
        type=_positive_count,
        metavar="N",
        help="limit of each account, answered with 429 beyond it",
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="configuration file (YAML)")
    parser.add_argument(
        "--live", action="store_true", help="also make one request for each account"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="FILE.prom", help="file to replace, for node_exporter's textfiles"
    )


def _add_account(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--account", metavar="NAME", help="only this account")


def _add_listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unattached", action="store_true", help="only numbers that lack a flow they could have"
    )
    _add_format(parser, ("table", "json", "csv"))


def _add_format(parser: argparse.ArgumentParser, forms: Sequence[str]) -> None:
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        choices=forms,
        default="table",
        help=f"form of what is printed: {_alternatives(forms)} (default table)",
    )


def _alternatives(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"


def _add_one(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(shard=None)  # a number is asked for wherever it is
    parser.add_argument(
        "sid", metavar="SID", type=_sid, help="the number's sid, as in `numbers --format csv`"
    )
    _add_format(parser, ("table", "json"))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in two columns wide enough for our flags, so that few of them take two lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class _Completion(argparse.Action):
    """Prints the completion for the shell that it is made for, and ends as --version does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse's form
        values: str | Sequence[object] | None,  # noqa: ARG002 - argparse's form
        option_string: str | None = None,  # noqa: ARG002 - argparse's form
    ) -> None:
        from exophone_exporter.cli import completion

        # Those of `serve`, which is meant where no command stands.
        for add_flags in (_add_config, _add_shard, _add_web, _add_log_flags):
            add_flags(parser)
        sys.stdout.write(completion.script(parser, str(self.const)))
        parser.exit()


class _Addresses(argparse.Action):
    """Collects addresses; the first one given takes the place of the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's form
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,  # noqa: ARG002 - argparse's form
    ) -> None:
        given = getattr(namespace, self.dest)
        kept = [] if given is self.default else given
        setattr(namespace, self.dest, [*kept, str(values)])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 0")
    return int(text)


def _positive_count(text: str) -> int:
    if _count(text) == 0:
        raise argparse.ArgumentTypeError("`0` would refuse everything; leave it out for no limit")
    return int(text)


def _number_up_to(most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"`{text}` is not a number from 0 to {most:g}")
        return value

    return number


def _sid(text: str) -> str:
    if not is_askable_sid(text):
        raise argparse.ArgumentTypeError(
            f"`{text}` cannot be a sid; `{_PROGRAM} numbers --format csv` lists them"
        )
    return text


def _shard(text: str) -> Shard:
    from exophone_exporter.config import sharding

    try:
        return sharding.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _telemetry_path(text: str) -> str:
    try:
        return WebSettings(telemetry_path=text).telemetry_path
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
