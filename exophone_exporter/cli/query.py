"""The commands that ask the API once and print: `once`, `numbers`, `number`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, Final, TypeAlias

from exophone_exporter.cli import output, streams, textfile
from exophone_exporter.clock import Clock
from exophone_exporter.config import loader
from exophone_exporter.errors import ConfigError, NotFound, PollError
from exophone_exporter.inventory.phone_numbers import is_phone_number, numbers_called
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

    _Found: TypeAlias = tuple[str, ExoPhone]

_PARALLEL_POLLS: Final = 8


def once(args: argparse.Namespace) -> int:
    """Poll every account once and write the exposition; returns 1 if a poll failed.

    The output shows a failure as `exophone_up 0`. It has no series about the process: the collector
    that reads the file has its own.
    """
    states = [AccountState(account) for account in _loaded(args).accounts]
    results = _poll_all(states, _clients(states))
    info = ExporterInfo(loader.revision(), Clock().wall())
    text = text_of_one_poll([state.status() for state in states], info)
    textfile.write(args.output, text)
    return _report_failures(states, results)


def numbers(args: argparse.Namespace) -> int:
    """Print the numbers as a table, JSON or CSV."""
    states = [AccountState(account) for account in _chosen(_loaded(args), args.account)]
    results = _poll_all(states, _clients(states))
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
    """Print one number from the detail endpoint.

    It is the one with this SID in the first account that has it, or else the only one in the lists
    of all accounts with this phone number.
    """
    text = args.sid_or_phone_number
    accounts = _chosen(loader.load(args.config_file), args.account)
    states = [AccountState(account) for account in accounts]
    clients = _clients(states)
    found, problems = None, list[str]()
    # Many SIDs are a local phone number: one request for it costs less than a list.
    if text.isdigit() or not is_phone_number(text):
        found, problems = _with_sid(text, clients)
    if not found and is_phone_number(text):
        found, problems = _with_phone_number(text, states, clients)
    if found:
        _print_number(*found, args.format)
        return 0
    for problem in problems:
        say(problem)
    return 1


def _with_sid(sid: str, clients: Sequence[Client]) -> tuple[_Found | None, list[str]]:
    """The number with this SID in the first account that has it, or why there is none."""
    without: list[str] = []
    problems: list[str] = []
    for client in clients:
        name = client.account.name
        try:
            return (name, client.fetch_number(sid)), []
        except NotFound:
            without.append(name)
        except PollError as error:
            problems.append(f"{name}: {error}")
    if without:
        problems.append(f"no number with the SID `{sid}` in {', '.join(without)}")
    return None, problems


def _with_phone_number(
    text: str, states: Sequence[AccountState], clients: Sequence[Client]
) -> tuple[_Found | None, list[str]]:
    """The only number with this phone number, or why there is not exactly one."""
    results = _poll_all(states, clients)
    polled = [
        (client, result.snapshot.numbers)
        for client, result in zip(clients, results, strict=True)
        if result.snapshot
    ]
    found = [
        (client, each.sid) for client, listed in polled for each in numbers_called(text, listed)
    ]
    if len(found) == 1:
        ((client, sid),) = found
        return _with_sid(sid, [client])
    problems = _failures(states, results)
    if found:
        named = ", ".join(f"{sid} in {client.account.name}" for client, sid in found)
        problems.append(f"several numbers match `{text}`: {named}; use a SID or --account")
    elif polled:
        names = ", ".join(client.account.name for client, _ in polled)
        problems.append(f"no number matches `{text}` in {names}")
    return None, problems


def _print_number(account: str, number: ExoPhone, form: str) -> None:
    if form == "table":
        output.print_number(account, number)
    else:
        output.print_json(output.record(account, number))


def check_live(accounts: Sequence[Account]) -> int:
    """Fetch the first page of each account and print the outcomes; returns 1 if one failed."""
    code = 0
    for client in _clients([AccountState(account) for account in accounts]):
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


def _clients(states: Sequence[AccountState]) -> Sequence[Client]:
    return clients_of(states, Clock(), threading.Event())


def _poll_all(states: Sequence[AccountState], clients: Sequence[Client]) -> list[PollResult]:
    """One poll of each account, in parallel."""
    fetches = [client.fetch_all for client in clients]
    progress, reporters = output.show_progress([state.account.name for state in states])
    with progress, ThreadPoolExecutor(_PARALLEL_POLLS) as pool:
        return list(pool.map(poll_once, states, fetches, repeat(Clock()), reporters))


def _failures(states: Sequence[AccountState], results: Sequence[PollResult]) -> list[str]:
    """Which accounts failed and why."""
    return [
        f"{state.account.name}: {result.error}"
        for state, result in zip(states, results, strict=True)
        if result.error is not None
    ]


def _report_failures(states: Sequence[AccountState], results: Sequence[PollResult]) -> int:
    """Print on stderr which accounts failed and why; returns 1 if one did."""
    failures = _failures(states, results)
    for failure in failures:
        say(failure)
    return 1 if failures else 0
