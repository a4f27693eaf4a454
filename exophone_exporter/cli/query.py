"""The commands that ask the API once and print: `once`, `numbers`, `number`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, Final

from exophone_exporter.cli import output, streams, textfile
from exophone_exporter.clock import Clock
from exophone_exporter.config import loader
from exophone_exporter.errors import ConfigError, NotFound, PollError
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.logs import say
from exophone_exporter.metrics.page import ExporterInfo, text_of_one_poll
from exophone_exporter.polling.exporter import clients_of
from exophone_exporter.polling.poller import poll_once

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from exophone_exporter.config.settings import Account, Config
    from exophone_exporter.exotel.client import Client
    from exophone_exporter.exotel.model import ExoPhone
    from exophone_exporter.inventory.state import PollResult

_PARALLEL_POLLS: Final = 8


def once(args: argparse.Namespace) -> int:
    """Poll every account once and write the exposition; returns 1 if a poll failed.

    The output shows a failure as `exophone_up 0`. It has no series about the process: the collector
    that reads the file has its own.
    """
    states = [AccountState(account) for account in _loaded(args).accounts]
    results = _poll_all(states)
    info = ExporterInfo(loader.revision(), Clock().wall())
    text = text_of_one_poll([state.status() for state in states], info)
    textfile.write(args.output, text)
    return _report_failures(states, results)


def numbers(args: argparse.Namespace) -> int:
    """Print the numbers as a table, JSON or CSV."""
    states = [AccountState(account) for account in _chosen(_loaded(args), args.account)]
    results = _poll_all(states)
    listed = [
        (state.account.name, number)
        for state, result in zip(states, results, strict=True)
        for number in (result.snapshot.numbers if result.snapshot else ())
        if not args.unattached or number.needs_attention
    ]
    if args.format == "json":
        output.print_json([output.record(*entry) for entry in listed])
    elif args.format == "csv":
        output.print_csv([output.record(*entry) for entry in listed])
    elif listed:
        output.print_numbers(listed)
    elif states and all(result.error is None for result in results):
        say("no unattached numbers" if args.unattached else "no numbers")
    return _report_failures(states, results)


def number(args: argparse.Namespace) -> int:
    """Print one number from the detail endpoint, of the first account that has it."""
    without: list[str] = []
    failures: list[str] = []
    for client in _clients(_chosen(loader.load(args.config_file), args.account)):
        name = client.account.name
        try:
            found = client.fetch_number(args.sid)
        except NotFound:
            without.append(name)
        except PollError as error:
            failures.append(f"{name}: {error}")
        else:
            _print_number(name, found, args.format)
            return 0
    for failure in failures:
        say(failure)
    if without:
        say(f"no number with the SID `{args.sid}` in {', '.join(without)}")
    return 1


def _print_number(account: str, number: ExoPhone, form: str) -> None:
    if form == "table":
        output.print_number(account, number)
    else:
        output.print_json(output.record(account, number))


def check_live(accounts: Sequence[Account]) -> int:
    """Fetch the first page of each account and print the outcomes; returns 1 if one failed."""
    code = 0
    for client in _clients(accounts):
        name = client.account.name
        try:
            page = client.fetch_first_page()
        except PollError as error:
            streams.write(f"{name}: failed ({error.reason}): {error}\n")
            code = 1
        else:
            streams.write(f"{name}: OK, {len(page.numbers)} numbers on the first page\n")
    return code


def _loaded(args: argparse.Namespace) -> Config:
    """The configuration, without the accounts of other shards."""
    loaded = loader.load(args.config_file).share(args.shard)
    if not loaded.accounts:
        say(f"no account belongs to shard {loaded.shard}")
    return loaded


def _chosen(loaded: Config, name: str | None) -> Sequence[Account]:
    """The account of this name, or all accounts without a name."""
    if name is None:
        return loaded.accounts
    chosen = [account for account in loaded.accounts if account.name == name]
    if not chosen:
        configured = ", ".join(account.name for account in loaded.accounts) or "none"
        where = "" if loaded.shard.is_whole else f" in shard {loaded.shard}"
        raise ConfigError([f"--account={name}: unknown account{where}; configured: {configured}"])
    return chosen


def _clients(accounts: Sequence[Account]) -> Sequence[Client]:
    return clients_of([AccountState(account) for account in accounts], Clock(), threading.Event())


def _poll_all(states: Sequence[AccountState]) -> list[PollResult]:
    """One poll of each account, in parallel."""
    clock = Clock()
    fetches = [each.fetch_all for each in clients_of(states, clock, threading.Event())]
    progress, reporters = output.show_progress([state.account.name for state in states])
    with progress, ThreadPoolExecutor(_PARALLEL_POLLS) as pool:
        return list(pool.map(poll_once, states, fetches, repeat(clock), reporters))


def _report_failures(states: Sequence[AccountState], results: Sequence[PollResult]) -> int:
    """Print on stderr which accounts failed and why; returns 1 if one did."""
    failed = [
        (state.account.name, result.error)
        for state, result in zip(states, results, strict=True)
        if result.error is not None
    ]
    for name, error in failed:
        say(f"{name}: {error}")
    return 1 if failed else 0
