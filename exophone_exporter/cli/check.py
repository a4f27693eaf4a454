"""`check-config`: without --live it is offline and opens no socket."""

from __future__ import annotations

import argparse

from exophone_exporter.cli import output, streams
from exophone_exporter.config import loader
from exophone_exporter.config.durations import duration_text
from exophone_exporter.config.settings import Config, Poll
from exophone_exporter.errors import ConfigError
from exophone_exporter.logs import say


def check_config(args: argparse.Namespace) -> int:
    """Validate the configuration; with --live also make one API request for each account.

    --web.config.file is validated, too, or alone if no other file is named.
    """
    if args.file and args.config_file:
        raise ConfigError(["give the configuration file as FILE or with --config.file, not both"])
    if args.live and args.no_secrets:
        raise ConfigError(["--live needs the secrets; omit --no-secrets"])
    problems: list[str] = []
    loaded = None
    try:
        if args.file or args.config_file or args.live or not args.web_config_file:
            loaded = _check_accounts(args)
    except ConfigError as error:
        problems += error.problems  # reported together with those of the other file
    try:
        if args.web_config_file:
            _check_web_config(args.web_config_file, with_files=not args.no_secrets)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    if not loaded or not args.live:
        return 0
    from exophone_exporter.cli.query import check_live  # noqa: PLC0415 - urllib3 opens a socket

    return check_live(loaded.accounts)


def _check_web_config(path: str, *, with_files: bool) -> None:
    from exophone_exporter.server import check_web_config  # noqa: PLC0415 - takes long to import

    checked = check_web_config(path, with_files=with_files)
    users = "1 user" if len(checked.users) == 1 else f"{len(checked.users)} users"
    streams.write(f"{path}: valid, {'TLS' if checked.tls else 'no TLS'}, {users}\n")


def _check_accounts(args: argparse.Namespace) -> Config:
    whole = loader.load(args.file or args.config_file, with_secrets=not args.no_secrets)
    loaded = whole.share(args.shard)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    many = "account" if len(whole.accounts) == 1 else "accounts"
    mine = "" if args.shard is None else f", {len(loaded.accounts)} of them in shard {args.shard}"
    read = "; no secret was read" if args.no_secrets else ""
    streams.write(f"{loaded.source}: valid, {len(whole.accounts)} {many}{mine}{read}\n")
    output.print_pairs(
        (account.name, f"{account.sid} at {account.origin}, every {_interval(account.poll)}")
        for account in loaded.accounts
    )
    return loaded


def _interval(poll: Poll) -> str:
    """How often an account is polled, such as 5m or, by the length of its list, 1m to 5m."""
    bounds = (poll.interval_for(0), poll.longest_interval_seconds)
    return " to ".join(dict.fromkeys(map(duration_text, bounds)))
