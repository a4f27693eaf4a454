"""The commands that ask the API once and print: `once`, `numbers`, `number`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exophone_exporter.cli import output
from exophone_exporter.clock import Clock
from exophone_exporter.config import loader
from exophone_exporter.errors import ConfigError, NotFound, PollError, StartError
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.logs import say
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.exporter import client_for
from exophone_exporter.polling.poller import poll_once

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from exophone_exporter.config.settings import Account, Config
    from exophone_exporter.inventory.state import PollResult

# node_exporter's textfile collector reads the file as another user.
_FILE_MODE: Final = 0o644
_AT_ONCE: Final = 8


def once(args: argparse.Namespace) -> int:
    """One poll of every account as exposition text; 1 where an account failed.

    The health series tell of a failure; the process and interpreter series are left out, since
    whoever collects the file has those of its own.
    """
    states = [AccountState(account) for account in _loaded(args).accounts]
    results = _poll_all(states)
    clock = Clock()
    page = MetricsPage(
        lambda: [state.status() for state in states],
        lambda: ExporterInfo(loader.revision(), clock.wall()),
        clock,
        with_process=False,
    )
    page.refresh()
    text = page.render(openmetrics=False, gzipped=False)
    if args.output is None:
        output.write_bytes(text)
    else:
        _write_atomically(Path(args.output), text)
    return _failures_told(states, results)


def numbers(args: argparse.Namespace) -> int:
    """The numbers as a table, JSON or CSV."""
    states = [AccountState(account) for account in _chosen(args)]
    results = _poll_all(states)
    listed = [
        (state.account.name, number)
        for state, result in zip(states, results, strict=True)
        for number in (result.snapshot.numbers if result.snapshot else ())
        if not args.unattached or number.needs_attention
    ]
    if args.format == "table":
        if listed:
            output.print_numbers(listed)
        elif states and all(result.error is None for result in results):
            say("no number is unattached" if args.unattached else "no numbers")
    elif args.format == "json":
        output.print_json([output.record(*entry) for entry in listed])
    else:
        output.print_csv([output.record(*entry) for entry in listed], output.RECORD_FIELDS)
    return _failures_told(states, results)


def number(args: argparse.Namespace) -> int:
    """One number from the detail endpoint: of the account named, or of the first that has it."""
    not_found: list[str] = []
    failures: list[str] = []
    for account in _chosen(args):
        state = AccountState(account)
        client = client_for(state, Clock(), threading.Event())
        try:
            found = client.fetch_number(args.sid)
        except NotFound:
            not_found.append(account.name)
            continue
        except PollError as error:
            failures.append(f"{account.name}: {error}")
            continue
        if args.format == "table":
            output.print_number(account.name, found)
        else:
            output.print_json(output.record(account.name, found))
        return 0
    for failure in failures:
        say(failure)
    if not_found:
        say(f"no number with the sid `{args.sid}` in {', '.join(not_found)}")
    return 1


def check_live(account: Account) -> int:
    """Ask one account for its first page and say what came; 1 where that failed."""
    state = AccountState(account)
    try:
        page = client_for(state, Clock(), threading.Event()).fetch_first_page()
    except PollError as error:
        output.write(f"{account.name}: failed ({error.reason}): {error}\n")
        return 1
    output.write(f"{account.name}: answers, {page.items} numbers on the first page\n")
    return 0


def _loaded(args: argparse.Namespace) -> Config:
    """The configuration, less the accounts of other shards."""
    loaded = loader.load(args.config_file).share(args.shard)
    if not loaded.accounts:
        say(f"no account belongs to shard {loaded.shard}")
    return loaded


def _chosen(args: argparse.Namespace) -> Sequence[Account]:
    """The accounts that --account names, or all."""
    loaded = _loaded(args)
    if args.account is None:
        return loaded.accounts
    chosen = [account for account in loaded.accounts if account.name == args.account]
    if not chosen:
        known = ", ".join(account.name for account in loaded.accounts) or "none"
        where = "" if loaded.shard.is_whole else f" in shard {loaded.shard}"
        raise ConfigError([f"--account={args.account}: no such account{where}; there are: {known}"])
    return chosen


def _poll_all(states: Sequence[AccountState]) -> list[PollResult]:
    """One poll of each account, side by side: each has a budget of its own."""
    clock, stopping = Clock(), threading.Event()
    progress, reporters = output.show_progress([state.account.name for state in states])
    places = threading.Semaphore(_AT_ONCE)
    results: dict[str, PollResult] = {}

    def poll(state: AccountState, on_page: Callable[[int, int], None]) -> None:
        with places:
            fetcher = client_for(state, clock, stopping)
            results[state.account.name] = poll_once(state, fetcher, clock, on_page)

    # Daemons, which a pool's threads are not: Ctrl-C must not wait for an API that hangs.
    threads = [
        threading.Thread(target=poll, args=pair, daemon=True)
        for pair in zip(states, reporters, strict=True)
    ]
    with progress:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [results[state.account.name] for state in states]


def _failures_told(states: Sequence[AccountState], results: Sequence[PollResult]) -> int:
    """Say on stderr which accounts failed and why; 1 where one did."""
    failed = [
        (state.account.name, result.error)
        for state, result in zip(states, results, strict=True)
        if result.error is not None
    ]
    for name, error in failed:
        say(f"{name}: {error}")
    return 1 if failed else 0


def _write_atomically(path: Path, content: bytes) -> None:
    """Replace the file as a whole: a collector sees the old one or the new one."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(_FILE_MODE)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from error
