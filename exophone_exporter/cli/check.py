"""`check-config`: without --live it is offline and opens no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exophone_exporter.cli import output
from exophone_exporter.config import loader
from exophone_exporter.logs import say

if TYPE_CHECKING:
    import argparse


def check_config(args: argparse.Namespace) -> int:
    """Validate the configuration; with --live also make one API request for each account."""
    whole = loader.load(args.file or args.config_file)
    loaded = whole.share(args.shard)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    many = "account" if len(whole.accounts) == 1 else "accounts"
    mine = "" if args.shard is None else f", {len(loaded.accounts)} of them in shard {args.shard}"
    output.write(f"{loaded.source}: valid, {len(whole.accounts)} {many}{mine}\n")
    output.print_pairs(
        (
            account.name,
            f"{account.sid} at {account.origin}, every {account.poll.interval_seconds:g} s",
        )
        for account in loaded.accounts
    )
    if not args.live:
        return 0
    from exophone_exporter.cli.query import check_live  # noqa: PLC0415 - urllib3 opens a socket

    return check_live(loaded.accounts)
