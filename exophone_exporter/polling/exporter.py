"""The running whole: accounts, their pollers, and the page that shows them."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exophone_exporter.clock import Clock
from exophone_exporter.errors import StartError, Stopped
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.rate_limiter import WINDOW_SECONDS, RateLimiter
from exophone_exporter.exotel.transport import Transport
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exophone_exporter.config.secrets import Secret, SecretSource
    from exophone_exporter.config.settings import Account, Config
    from exophone_exporter.errors import PollError
    from exophone_exporter.exotel.client import Connect
    from exophone_exporter.inventory.snapshot import Snapshot
    from exophone_exporter.inventory.state import AccountStatus, PollResult

# Accounts start one after the other, so that many do not ask at the same moment; but however many
# there are, all have begun soon, or the last of them would be without data for minutes.
_FIRST_POLL_SPREAD_SECONDS: Final = 0.5
_FIRST_POLLS_WITHIN_SECONDS: Final = 30.0
_JOIN_SECONDS: Final = 0.5
# What a poll had asked for when its account was removed reaches the API within so long.
_BUDGET_KEPT_SECONDS: Final = 2 * WINDOW_SECONDS


def client_for(state: AccountState, clock: Clock, stopping: threading.Event) -> Client:
    """A client of one account that counts in its state; `stopping` ends its waits."""
    return Client(
        account=state.account,
        budget=_budget_of(state.account, clock),
        recorder=state,
        clock=clock,
        sleep=_sleep(clock, stopping),
    )


def _sleep(clock: Clock, stopping: threading.Event) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        if clock.wait(stopping, seconds):
            raise Stopped

    return sleep


def _budget_of(account: Account, clock: Clock) -> RateLimiter:
    return RateLimiter(account.poll.requests_per_minute, clock.monotonic)


class _Ledger:
    """What is known of one account, by the settings of one configuration.

    The state outlives the ledger where a reload changes only settings. Once closed, nothing is
    recorded any more: a poll that was under way must not come back.
    """

    def __init__(self, account: Account, state: AccountState) -> None:
        self.account = account
        self.state = state
        self.closed = threading.Event()
        self._recording = threading.Lock()

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good snapshot, however old."""
        return self.state.snapshot

    @property
    def error(self) -> PollError | None:
        """Why the last attempt failed; None after a success."""
        return self.state.error

    def record_poll(self, result: PollResult) -> None:
        """Take the result of one attempt, or raise Stopped."""
        with self._recording:
            self._check_open()
            self.state.record_poll(result)

    def record_defect(self, error: PollError) -> None:
        """Note that a result could not be published, or raise Stopped."""
        with self._recording:
            self._check_open()
            self.state.record_defect(error)

    def status(self) -> AccountStatus:
        """The account at this instant, by these settings."""
        return self.state.status(self.account)

    def close(self) -> None:
        """Refuse what comes from now on; returns when nothing is being recorded."""
        with self._recording:
            self.closed.set()

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise Stopped


@dataclass(frozen=True, eq=False)
class _Watch:
    """One account under watch: all that a reload keeps as it is, or replaces as a whole."""

    ledger: _Ledger
    budget: RateLimiter
    client: Client
    poller: Poller

    @property
    def account(self) -> Account:
        return self.ledger.account


@dataclass(frozen=True)
class ReloadSummary:
    """What a reload did, as names of accounts in their order, the removed ones in that of before.

    One that is another account by the same name (its SID or origin differs) is removed and added.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]


class Exporter:
    """Polls every account of a configuration in the background and knows how that goes.

    `clock`, `connect` and `uniform` are its world: the time, the way to the API, and the chance in
    the intervals and in the waits before a retry. `new_state` makes what holds results.
    `on_death` is called when a poller died of something unforeseen: nothing polls that account any
    more, so the process had better end and be started again.
    """

    def __init__(  # noqa: PLR0913 - each is a seam with an honest default
        self,
        config: Config,
        *,
        revision: str = "unknown",
        clock: Clock | None = None,
        connect: Connect = Transport,
        uniform: Callable[[float, float], float] = random.uniform,
        new_state: Callable[[Account], AccountState] = AccountState,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self.clock = clock or Clock()
        self._connect = connect
        self._uniform = uniform
        self._new_state = new_state
        self._on_death = on_death
        self._stopping = threading.Event()
        self._reloading = threading.Lock()
        self._started = False
        self._former_budgets: dict[tuple[str, str], tuple[RateLimiter, float]] = {}
        self._build = ExporterInfo(revision=revision, config_loaded_at=self.clock.wall())
        self.page = MetricsPage(self.statuses, lambda: self._build, self.clock)
        self._watches = self._watches_of(config, former={}, budgets={}, begin=None)
        _size_budgets(self._watches)

    def start(self) -> None:
        """Begin to poll."""
        with self._reloading:
            self._started = True
            for watch in self._watches:
                watch.poller.start()

    def ask_to_stop(self) -> None:
        """End every wait; safe in a signal handler."""
        self._stopping.set()
        for watch in self._watches:
            watch.ledger.closed.set()

    def stop(self) -> None:
        """Stop polling. A request that is under way is left to itself: its thread is a daemon."""
        self.ask_to_stop()
        deadline = self.clock.monotonic() + _JOIN_SECONDS
        for watch in self._watches:
            if watch.poller.is_alive():
                watch.poller.join(max(0.0, deadline - self.clock.monotonic()))

    def statuses(self) -> tuple[AccountStatus, ...]:
        """Every account as it is now, in the order of the configuration: of one configuration."""
        return tuple(watch.ledger.status() for watch in self._watches)

    def clients(self) -> Mapping[str, Client]:
        """The client of each account by name, in the order of the configuration.

        It shares the budget of the account's polls, whatever is reloaded. After a reload ask again:
        the waits of a client whose account was changed or removed raise Stopped.
        """
        return {watch.account.name: watch.client for watch in self._watches}

    def healthy(self) -> bool:
        """Whether every poller lives and moves; says nothing about the API."""
        return all(watch.poller.healthy() for watch in self._watches)

    def ready(self) -> bool:
        """Whether every account has had its first attempt, good or bad."""
        return all(watch.ledger.state.attempted for watch in self._watches)

    def note_reload(self, *, successful: bool) -> None:
        """Show in the metrics how the last attempt to load the configuration ended.

        A failure leaves the time of the last success as it was.
        """
        loaded_at = self.clock.wall() if successful else self._build.config_loaded_at
        self._build = replace(
            self._build, config_loaded_at=loaded_at, config_reload_successful=successful
        )
        self.page.refresh()

    def reload(self, config: Config) -> ReloadSummary:
        """Watch the accounts of another configuration from now on.

        - An account that is equal, where its secrets come from included, goes on untouched. (A
          secret in a file is read at each poll: the same path is the same secret.)
        - One with the same name, SID and origin and other settings keeps its numbers, its counters
          and its budget. A new poller polls it by the new settings at once, or when a Retry-After
          that the API gave has passed; a poll under way is given up.
        - Another SID or origin is another account, whatever its name: the counters start anew.
        - A removed account's series go at once, its waits end, and a result that still comes is
          dropped. Its budget is kept for some time, and with it what is left of a Retry-After: who
          comes back, by whatever name, has not more than before, and is not polled sooner.

        Readers see one configuration or the other. Raises StartError where no thread can be started
        for an account; nothing has changed then.
        """
        with self._reloading:
            before, begin = self._watches, threading.Event()
            continued = _continued(before, config)
            budgets = self._known_budgets(before)
            watches = self._watches_of(config, former=continued, budgets=budgets, begin=begin)
            added = [watch for watch in watches if watch not in before]
            left = [watch for watch in before if watch not in watches]
            if self._started:
                _start(added, begin)
            self._watches = watches
            for watch in left:
                watch.ledger.close()
            _size_budgets(watches)
            used = {watch.budget for watch in watches}
            self._former_budgets = {k: v for k, v in budgets.items() if v[0] not in used}
            begin.set()
            if self._stopping.is_set():
                self.ask_to_stop()  # it came while these watches could not hear it
            self.page.refresh()
            return _summary(before, watches, continued)

    def _watches_of(
        self,
        config: Config,
        *,
        former: Mapping[str, _Watch],
        budgets: dict[tuple[str, str], tuple[RateLimiter, float]],
        begin: threading.Event | None,
    ) -> tuple[_Watch, ...]:
        """A watch for each account: the former one, one that continues it, or one that begins.

        `budgets` are those that are known; new ones are added. Two accounts that are one for the
        API share theirs.
        """
        watches: list[_Watch] = []
        delay_seconds = 0.0
        pause_seconds = spread_seconds(len(config.accounts))
        for account in config.accounts:
            known = former.get(account.name)
            if known is not None and _equal(known.account, account):
                watches.append(known)
                continue
            state = self._new_state(account) if known is None else known.ledger.state
            new = _budget_of(account, self.clock), self.clock.monotonic()
            budget, _ = budgets.setdefault(_budget_key(account), new)
            wait_seconds = max(delay_seconds, budget.hold_off_seconds())
            watches.append(self._watch(_Ledger(account, state), budget, begin, wait_seconds))
            delay_seconds += pause_seconds
        return tuple(watches)

    def _watch(
        self,
        ledger: _Ledger,
        budget: RateLimiter,
        begin: threading.Event | None,
        first_delay_seconds: float,
    ) -> _Watch:
        client = Client(
            account=ledger.account,
            budget=budget,
            recorder=ledger.state,
            clock=self.clock,
            sleep=_sleep(self.clock, ledger.closed),
            connect=self._connect,
            uniform=self._uniform,
        )
        poller = Poller(
            ledger,
            client,
            clock=self.clock,
            stopping=ledger.closed,
            on_result=lambda _: self.page.refresh(),
            on_death=lambda: None if ledger.closed.is_set() else self._on_death(),
            begin=begin,
            first_delay_seconds=first_delay_seconds,
            uniform=self._uniform,
        )
        return _Watch(ledger, budget, client, poller)

    def _known_budgets(
        self, before: Iterable[_Watch]
    ) -> dict[tuple[str, str], tuple[RateLimiter, float]]:
        """Every budget that may still matter, each with the time at which it was last in use."""
        now = self.clock.monotonic()
        former = {
            key: (budget, since)
            for key, (budget, since) in self._former_budgets.items()
            if now - since <= _BUDGET_KEPT_SECONDS or budget.hold_off_seconds() > 0
        }
        return former | {_budget_key(watch.account): (watch.budget, now) for watch in before}


def _size_budgets(watches: Iterable[_Watch]) -> None:
    """Give each budget its size: the smallest that one of the accounts that share it has."""
    sizes: dict[RateLimiter, int] = {}
    for watch in watches:
        size = watch.account.poll.requests_per_minute
        sizes[watch.budget] = min(size, sizes.get(watch.budget, size))
    for budget, size in sizes.items():
        budget.resize(size)


def spread_seconds(accounts: int) -> float:
    """The time between the first polls of two accounts, where so many begin together."""
    return min(_FIRST_POLL_SPREAD_SECONDS, _FIRST_POLLS_WITHIN_SECONDS / max(1, accounts))


def _continued(before: Iterable[_Watch], config: Config) -> dict[str, _Watch]:
    """The watches, by name, of accounts that are the same ones by the new configuration."""
    old = {watch.account.name: watch for watch in before}
    return {
        account.name: old[account.name]
        for account in config.accounts
        if account.name in old and _budget_key(old[account.name].account) == _budget_key(account)
    }


def _budget_key(account: Account) -> tuple[str, str]:
    """What makes an account the same one for the API, whatever its name here."""
    return account.origin, account.sid


def _equal(one: Account, other: Account) -> bool:
    """Whether nothing in the configuration of an account differs."""
    secrets = [
        [
            _origin_of(source)
            for source in (account.credentials.api_key, account.credentials.api_token)
        ]
        for account in (one, other)
    ]
    return secrets[0] == secrets[1] and replace(one, credentials=other.credentials) == other


def _origin_of(source: SecretSource) -> Secret | str:
    """What the configuration says of a secret: the path of its file, or the value itself."""
    return source.loaded if source.file is None else source.file


def _start(watches: Iterable[_Watch], begin: threading.Event) -> None:
    """Start their threads, which wait for `begin`; all of them, or StartError and none."""
    try:
        for watch in watches:
            watch.poller.start()
    except RuntimeError as error:
        for watch in watches:
            watch.ledger.closed.set()
        begin.set()
        raise StartError(
            "no thread can be started for another account; the old ones go on"
        ) from error


def _summary(
    before: Iterable[_Watch], after: Iterable[_Watch], continued: Mapping[str, _Watch]
) -> ReloadSummary:
    kept = {watch.account.name for watch in after if watch in set(before)}
    return ReloadSummary(
        added=tuple(w.account.name for w in after if w.account.name not in continued),
        removed=tuple(w.account.name for w in before if w.account.name not in continued),
        changed=tuple(
            w.account.name
            for w in after
            if w.account.name in continued and w.account.name not in kept
        ),
        kept=tuple(w.account.name for w in after if w.account.name in kept),
    )
