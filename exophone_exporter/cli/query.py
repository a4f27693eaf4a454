"""The commands that ask the API once and print: `once`, `numbers`, `number`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from exophone_exporter.cli import output, streams, textfile
from exophone_exporter.cli.as_rules import rules_text
from exophone_exporter.clock import Clock
from exophone_exporter.config import loader
from exophone_exporter.config.number_rules import DEFAULT_RULES
from exophone_exporter.config.settings import Account, Config
from exophone_exporter.errors import ConfigError, ConnectFailed, NotFound, PollError, TimedOut
from exophone_exporter.exotel.client import Client
from exophone_exporter.inventory.expectations import Verdict, judge
from exophone_exporter.inventory.formatting import total
from exophone_exporter.inventory.phone_numbers import is_phone_number, numbers_called
from exophone_exporter.inventory.snapshot import Snapshot, rule_matches
from exophone_exporter.inventory.state import AccountState, BalanceResult
from exophone_exporter.logs import say
from exophone_exporter.metrics.page import ExporterInfo, text_of_one_poll
from exophone_exporter.polling.exporter import clients_of
from exophone_exporter.polling.poller import ask_once, poll_once

_PARALLEL_POLLS: Final = 8
_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def once(args: argparse.Namespace) -> int:
    """Poll every account once and write the exposition; returns 1 if a poll failed.

    The output shows a failure as `exophone_up 0`. It has no series about the process: the collector
    that reads the file has its own. A balance that is not known is a line on stderr.
    """
    states, clients = _sources(_loaded(args).accounts)
    _poll_all(states, clients)
    _ask_balances(states, clients)
    statuses = [state.status() for state in states]
    info = ExporterInfo(loader.revision(), Clock().wall())
    textfile.write(args.output, text_of_one_poll(statuses, info))
    if Path(args.output).is_file() and not args.output.endswith(".prom"):
        say(f"warning: {args.output}: node_exporter only reads files whose names end in .prom")
    return _report_failures(states)


def numbers(args: argparse.Namespace) -> int:
    """Print the numbers as a table, JSON or CSV, or rules that describe them."""
    if args.as_rules and (args.problems or args.unattached or args.format != "table"):
        raise ConfigError(
            ["--as-rules is about all numbers; omit --problems, --unattached, --format"]
        )
    loaded = _loaded(args)
    states, clients = _sources(_chosen(loaded, args.account))
    _poll_all(states, clients)
    polled = {state.account.name: state.snapshot for state in states if state.snapshot}
    if args.as_rules:
        listed = {name: snapshot.numbers for name, snapshot in polled.items()}
        streams.write(rules_text(listed, name_accounts=len(loaded.accounts) > 1))
    elif not _print_numbers(args, polled) and 0 < len(states) == len(polled):
        kind = " with a problem" if args.problems else ""
        say(f"no {'unattached ' if args.unattached else ''}numbers{kind}")
    return _report_failures(states)


def _print_numbers(args: argparse.Namespace, polled: Mapping[str, Snapshot]) -> bool:
    """Print the chosen numbers; returns whether anything was printed."""
    listed = [
        (name, number, verdict)
        for name, snapshot in polled.items()
        for number, verdict in zip(snapshot.numbers, snapshot.verdicts, strict=True)
        if (verdict.has_problem or not args.problems)
        and (number.needs_attention or not args.unattached)
    ]
    if args.format == "json":
        output.print_json([output.record(*entry) for entry in listed])
    elif args.format == "csv":
        output.print_csv([output.record(*entry) for entry in listed])
    elif listed:
        output.print_numbers(listed, _summary(polled.values()))
    return bool(listed) or args.format != "table"


def _summary(snapshots: Iterable[Snapshot]) -> str:
    """What the numbers add up to, whether they are listed or not."""
    groups = [group for snapshot in snapshots for group in snapshot.groups]
    numbers = sum(group.numbers for group in groups)
    problems = sum(group.problems for group in groups)
    have = "has" if problems == 1 else "have"
    idle = total(group.idle_rental for group in groups if group.idle)
    rental = f"; {idle} a month idle" if idle != "none" else ""
    return f"{problems} of {numbers} numbers {have} a problem{rental}"


def number(args: argparse.Namespace) -> int:
    """Print one number from the detail endpoint.

    It is the one with this SID in the first account that has it, or else the only one in the lists
    of all accounts with this phone number.
    """
    text = args.sid_or_phone_number
    states, clients = _sources(_chosen(loader.load(args.config_file), args.account))
    found, problems = None, list[str]()
    # Many SIDs are a local phone number: one request for it costs less than a list.
    if text.isdigit() or not is_phone_number(text):
        found, problems = _with_sid(text, clients)
    if not found and is_phone_number(text):
        found, problems = _with_phone_number(text, states, clients)
    if found:
        if args.format == "table":
            output.print_number(*found)
        else:
            output.print_json(output.record(*found))
        return 0
    for problem in problems:
        say(problem)
    return 1


def _with_sid(sid: str, clients: Sequence[Client]) -> tuple[output.Listed | None, list[str]]:
    """The number with this SID in the first account that has it, or why no account has it."""
    without: list[str] = []
    problems: list[str] = []
    for client in clients:
        name = client.account.name
        try:
            number = client.fetch_number(sid)
        except NotFound:
            without.append(name)
        except PollError as error:
            problems.append(f"{name}: {error}")
        else:
            return (name, number, judge(number, client.account.rules)), []
    if without:
        problems.append(f"no number with the SID `{sid}` in {', '.join(without)}")
    return None, problems


def _with_phone_number(
    text: str, states: Sequence[AccountState], clients: Sequence[Client]
) -> tuple[output.Listed | None, list[str]]:
    """The only number with this phone number, or why there is not exactly one."""
    _poll_all(states, clients)
    polled = [state.account.name for state in states if state.snapshot]
    found = [
        (client, each.sid)
        for client, state in zip(clients, states, strict=True)
        if state.snapshot
        for each in numbers_called(text, state.snapshot.numbers)
    ]
    if len(found) == 1:
        ((client, sid),) = found
        return _with_sid(sid, [client])
    problems = [f"{name}: {error}" for name, error in _errors(states).items()]
    if found:
        named = ", ".join(f"{sid} in {client.account.name}" for client, sid in found)
        problems.append(f"several numbers match `{text}`: {named}; use a SID or --account")
    elif polled:
        problems.append(f"no number matches `{text}` in {', '.join(polled)}")
    return None, problems


def check_live(accounts: Sequence[Account]) -> int:
    """Fetch the first page of each account, or with rules all, and print the outcomes.

    So is the balance, where it is enabled. Returns 1 if one failed, a balance excepted.
    """
    states, clients = _sources(accounts)
    has_rules = any(account.rules != DEFAULT_RULES for account in accounts)
    if has_rules:
        _poll_all(states, clients)
        outcomes = [
            f"{len(state.snapshot.numbers)} numbers" if state.snapshot else state.status().error
            for state in states
        ]
    else:
        outcomes = [_first_page(client) for client in clients]
    for client, outcome in zip(clients, outcomes, strict=True):
        if isinstance(outcome, PollError):
            said = f"failed ({outcome.reason}): {outcome}"
        else:
            said = f"OK, {outcome}{_balance_of(client)}"
        streams.write(f"{client.account.name}: {said}\n")
    _hint_at_proxy(outcomes)
    if has_rules:
        _print_rules(states)
    return int(any(isinstance(outcome, PollError) for outcome in outcomes))


def _first_page(client: Client) -> PollError | str:
    try:
        return f"{len(client.fetch_first_page().numbers)} numbers on the first page"
    except PollError as error:
        return error


def _print_rules(states: Sequence[AccountState]) -> None:
    """The rules, how many numbers each applies to, and how many of these have a problem now."""
    matches = rule_matches((state.account, state.snapshot) for state in states)
    rules = {rule.label: rule for state in states for rule in state.account.rules.rules}
    verdicts = [v for state in states if state.snapshot for v in state.snapshot.verdicts]
    problems = Counter(_label(verdict) for verdict in verdicts if verdict.has_problem)
    without = sum(not _label(verdict) for verdict in verdicts)
    output.print_rules(
        [(rules[label], count, problems[label]) for label, count in matches.items()]
        + [(None, without, problems[""])]
    )
    for label in (label for label, count in matches.items() if count == 0):
        say(f"warning: rule {label} matches no number")


def _label(verdict: Verdict) -> str:
    return verdict.rule.label if verdict.rule else ""


def _balance_of(client: Client) -> str:
    """What to print of a balance, "" where it is not enabled."""
    result = _ask_balance(client)
    if result is None:
        return ""
    if result.balance is None:
        return f"; the balance cannot be read: {result.error}"
    return f"; the balance is {result.balance.amount} {result.balance.currency}"


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


def _sources(accounts: Sequence[Account]) -> tuple[Sequence[AccountState], Sequence[Client]]:
    """What is known of each account, and what asks for it."""
    states = [AccountState(account) for account in accounts]
    return states, clients_of(states)


def _poll_all(states: Sequence[AccountState], clients: Sequence[Client]) -> None:
    """One poll of each account, in parallel."""

    def poll(state: AccountState, client: Client, on_page: Callable[[int, int], None]) -> None:
        poll_once(state, partial(client.fetch_all, on_page=on_page), Clock())

    progress, reporters = output.show_progress([state.account.name for state in states])
    with progress, ThreadPoolExecutor(_PARALLEL_POLLS) as pool:
        list(pool.map(poll, states, clients, reporters))


def _ask_balance(client: Client) -> BalanceResult | None:
    """One request for the balance, None where it is not enabled."""
    if client.account.balance_interval_seconds is None:
        return None
    return ask_once(client.account, client.fetch_balance, Clock(), set())


def _ask_balances(states: Sequence[AccountState], clients: Sequence[Client]) -> None:
    """Ask for each balance that is enabled, in parallel."""
    with ThreadPoolExecutor(_PARALLEL_POLLS) as pool:
        results = [*pool.map(_ask_balance, clients)]
    for state, result in zip(states, results, strict=True):
        if result is not None:
            state.record_balance(result)
            if result.error is not None:
                say(f"{state.account.name}: the balance is not known: {result.error}")


def _errors(states: Sequence[AccountState]) -> Mapping[str, PollError]:
    """Why the polls of some accounts failed, by account."""
    errors = {state.account.name: state.status().error for state in states}
    return {name: error for name, error in errors.items() if error}


def _report_failures(states: Sequence[AccountState]) -> int:
    """Print on stderr which accounts failed and why; returns 1 if one did."""
    errors = _errors(states)
    for name, error in errors.items():
        say(f"{name}: {error}")
    _hint_at_proxy(errors.values())
    return 1 if errors else 0


def _hint_at_proxy(outcomes: Iterable[object]) -> None:
    """Say that a proxy of the environment is not used, where that may be why."""
    unused = [name for name in _PROXIES if loader.environment().get(name)]
    if unused and any(isinstance(each, ConnectFailed | TimedOut) for each in outcomes):
        say(f"{unused[0]} is not used; set proxy_url for the account in the configuration file")
