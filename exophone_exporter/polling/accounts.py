"""The accounts that are polled: what each consists of, and what a reload keeps of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from exophone_exporter.config.settings import Account
from exophone_exporter.errors import StartError, Stopped
from exophone_exporter.exotel.client import Client
from exophone_exporter.inventory.state import AccountState, AccountStatus
from exophone_exporter.polling.poller import Poller

Key = tuple[str, str]


@dataclass(frozen=True)
class AccountRuntime:
    """The running parts of one account, which a reload keeps or replaces as a whole.

    Where a reload changes only settings, the next runtime continues the state and the rate limiter.
    Where it changes only the rules for numbers, it is the same runtime with another account: two
    with the same pollers, which `closed` ends, are equal.
    """

    account: Account = field(compare=False)
    state: AccountState = field(compare=False)
    client: Client = field(compare=False)
    pollers: list[Poller] = field(compare=False)
    closed: threading.Event

    def status(self) -> AccountStatus:
        """The account at this instant, with the settings of this runtime."""
        return self.state.status(self.account)

    def open_state(self) -> AccountState:
        """The state, to record a result; raises Stopped: a closed account must not come back."""
        if self.closed.is_set():
            raise Stopped
        return self.state


@dataclass(frozen=True)
class ReloadSummary:
    """What a reload did, as names of accounts in their order; `removed` in the old order.

    An account whose SID or origin differs is another account: it is removed and added.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]


def summary_of(before: Sequence[AccountRuntime], after: Sequence[AccountRuntime]) -> ReloadSummary:
    """What was done to get from the one to the other."""
    old, new = ({runtime.state for runtime in runtimes} for runtimes in (before, after))

    def names(runtimes: Iterable[AccountRuntime]) -> tuple[str, ...]:
        return tuple(runtime.account.name for runtime in runtimes)

    return ReloadSummary(
        added=names(r for r in after if r.state not in old),
        removed=names(r for r in before if r.state not in new),
        changed=names(r for r in after if r.state in old and r not in before),
        kept=names(r for r in after if r in before),
    )


def key_of(account: Account) -> Key:
    """What identifies an account at the API, whatever its name here."""
    default_port = ":443" if account.origin.startswith("https:") else ":80"
    return account.origin.removesuffix(default_port), account.sid


def requests_per_minute(accounts: Iterable[Account]) -> Mapping[Key, int]:
    """The limit of each account at the API: the smallest one of the names that share it."""
    limits: dict[Key, int] = {}
    for account in accounts:
        limit = account.poll.requests_per_minute
        limits[key_of(account)] = min(limit, limits.get(key_of(account), limit))
    return limits


def pollers_of(runtimes: Iterable[AccountRuntime]) -> list[Poller]:
    """The threads of some accounts."""
    return [poller for runtime in runtimes for poller in runtime.pollers]


def start_all(runtimes: Sequence[AccountRuntime]) -> None:
    """Start their threads; raises StartError if the system has none left."""
    try:
        for poller in pollers_of(runtimes):
            poller.start()
    except RuntimeError as error:
        raise StartError(
            "no thread can be started for another account; the old ones go on"
        ) from error
