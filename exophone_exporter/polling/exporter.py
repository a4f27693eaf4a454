"""The running whole: accounts, their pollers, and the page that shows them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from typing import Final

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account, Config
from exophone_exporter.errors import Stopped
from exophone_exporter.exotel.client import Client, Connect
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.exotel.transport import Transport
from exophone_exporter.inventory.state import AccountState, AccountStatus, BalanceResult, PollResult
from exophone_exporter.logs import lines_dropped
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage, ServerInfo
from exophone_exporter.polling import accounts
from exophone_exporter.polling.accounts import AccountRuntime, ReloadSummary
from exophone_exporter.polling.poller import Poller, Task, balance_task, poll_task

# First polls are spread, so that many accounts do not ask at the same moment; but within this time
# all have begun, or the last accounts would be without data for minutes.
_FIRST_POLL_SPREAD_SECONDS: Final = 0.5
_FIRST_POLLS_WITHIN_SECONDS: Final = 30.0
_JOIN_SECONDS: Final = 0.5


def clients_of(states: Sequence[AccountState]) -> Sequence[Client]:
    """A client for each account, which counts in its state.

    Accounts with the same SID and origin share one rate limiter.
    """
    clock = Clock()
    limits = accounts.requests_per_minute(state.account for state in states)
    limiters = {key: RateLimiter(limit, clock.monotonic) for key, limit in limits.items()}
    return [
        Client(
            account=state.account,
            budget=limiters[accounts.key_of(state.account)],
            recorder=state,
            clock=clock,
            sleep=_sleep(clock, threading.Event()),
        )
        for state in states
    ]


def _sleep(clock: Clock, stopping: threading.Event) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        if clock.wait(stopping, seconds):
            raise Stopped

    return sleep


def spread_seconds(count: int) -> float:
    """The time between the first polls of two accounts, if this many begin together."""
    return min(_FIRST_POLL_SPREAD_SECONDS, _FIRST_POLLS_WITHIN_SECONDS / max(1, count))


@dataclass(eq=False, repr=False, kw_only=True)
class Exporter:
    """Polls every account of a configuration in the background.

    `clock`, `connect` and `uniform` are its world: the time, the way to the API, and the randomness
    of intervals and of waits before a retry. `new_state` makes what holds results. `on_death` is
    called when a poller died of an unforeseen error: nothing polls that account any more, so the
    process should end and be started again. `server_info` is what the HTTP server reports;
    `with_process` is that of `MetricsPage`.
    """

    config: InitVar[Config] = field(kw_only=False)
    revision: str = "unknown"
    with_process: bool = True
    clock: Clock = field(default_factory=Clock)
    connect: Connect = Transport
    uniform: Callable[[float, float], float] = random.uniform
    new_state: Callable[[Account], AccountState] = AccountState
    on_death: Callable[[], None] = lambda: None
    server_info: Callable[[], ServerInfo] = ServerInfo

    def __post_init__(self, config: Config) -> None:
        self._stopping = threading.Event()
        self._reloading = threading.Lock()
        self._started = False
        self._info = ExporterInfo(revision=self.revision, config_loaded_at=self.clock.wall())
        self.page = MetricsPage(
            self.statuses, self._exporter_info, self.clock, with_process=self.with_process
        )
        self._limiters: dict[accounts.Key, RateLimiter] = {}
        self._runtimes: Sequence[AccountRuntime] = ()
        self._runtimes = self._runtimes_of(config, begin=None)

    def start(self) -> None:
        """Begin to poll."""
        with self._reloading:
            self._started = True
            for poller in accounts.pollers_of(self._runtimes):
                poller.start()

    def _exporter_info(self) -> ExporterInfo:
        return replace(self._info, log_lines_dropped=lines_dropped(), server=self.server_info())

    def ask_to_stop(self) -> None:
        """End every wait; not for a signal handler, which could interrupt itself in a lock."""
        self._stopping.set()
        for runtime in self._runtimes:
            runtime.closed.set()

    def stop(self) -> None:
        """Stop polling. A request in flight is not waited for: its thread is a daemon."""
        self.ask_to_stop()
        deadline = self.clock.monotonic() + _JOIN_SECONDS
        for poller in accounts.pollers_of(self._runtimes):
            if poller.is_alive():
                poller.join(max(0.0, deadline - self.clock.monotonic()))

    def statuses(self) -> Sequence[AccountStatus]:
        """Every account as it is now, in the order of the configuration: of one configuration."""
        return [runtime.status() for runtime in self._runtimes]

    def clients(self) -> Mapping[str, Client]:
        """The client of each account by name, in the order of the configuration.

        It shares the rate limiter of the account's polls. After a reload ask again: the waits of a
        client whose account was changed or removed raise Stopped.
        """
        return {runtime.account.name: runtime.client for runtime in self._runtimes}

    def healthy(self) -> bool:
        """Whether no poller has died or hangs; says nothing about the API."""
        return all(poller.healthy() for poller in accounts.pollers_of(self._runtimes))

    def ready(self) -> bool:
        """Whether every account has had its first attempt, good or bad."""
        return all(runtime.state.status().last_attempt for runtime in self._runtimes)

    def note_reload(self, *, successful: bool) -> None:
        """Show in the metrics how the last attempt to load the configuration ended.

        A failure leaves the time of the last success as it was.
        """
        loaded_at = self.clock.wall() if successful else self._info.config_loaded_at
        self._info = replace(
            self._info, config_loaded_at=loaded_at, config_reload_successful=successful
        )
        self.page.refresh_live()

    def reload(self, config: Config) -> ReloadSummary:
        """Poll the accounts of another configuration from now on.

        - An account that is equal, the sources of its secrets included, goes on untouched. Other
          rules judge the numbers of its last poll; nothing is fetched for them.
        - One with the same name, SID and origin but other settings keeps its numbers, counters and
          rate limiter. A new poller polls it immediately, or when a pending Retry-After has passed;
          a poll in progress is given up.
        - Another SID or origin is another account, whatever its name: the counters start at zero.
        - A removed account's series vanish immediately, its waits end, and a result that still
          comes is dropped. Its rate limiter is kept for two minutes after its last request, or
          longer for a pending Retry-After: removing and adding an account under any name does not
          bypass the limit.

        Readers see one configuration or the other. Raises before anything has changed: StartError
        if no thread can be started for an account, or whatever made rendering fail.
        """
        with self._reloading:
            before, begin = self._runtimes, threading.Event()
            after = self._runtimes_of(config, begin)
            added = [runtime for runtime in after if runtime not in before]
            try:
                if self._started:
                    accounts.start_all(added)
                self.page.refresh(
                    lambda: [runtime.status().judged() for runtime in after],
                    lambda judged: self._replace(after, judged),
                )
            except BaseException:
                for runtime in added:
                    runtime.closed.set()
                raise
            finally:
                begin.set()
            if self._stopping.is_set():
                self.ask_to_stop()  # it could not reach these accounts when it came
            return accounts.summary_of(before, after)

    def _replace(self, after: Sequence[AccountRuntime], judged: Sequence[AccountStatus]) -> None:
        for runtime in self._runtimes:
            if runtime not in after:
                runtime.closed.set()
        for runtime, status in zip(after, judged, strict=True):
            runtime.state.record_rules(status)
        self._runtimes = after
        limits = accounts.requests_per_minute(runtime.account for runtime in after)
        for key, limit in limits.items():
            self._limiters[key].resize(limit)

    def _runtimes_of(
        self, config: Config, begin: threading.Event | None
    ) -> Sequence[AccountRuntime]:
        """A runtime for each account: the same one, one that continues it, or a new one.

        Accounts that are the same one for the API share a rate limiter.
        """
        known = {(r.account.name, accounts.key_of(r.account)): r for r in self._runtimes}
        in_use = {key for _, key in known}
        self._limiters = {
            key: limiter
            for key, limiter in self._limiters.items()
            if key in in_use or not limiter.is_idle()
        }
        runtimes: list[AccountRuntime] = []
        limits = accounts.requests_per_minute(config.accounts)
        delay_seconds = 0.0
        for account in config.accounts:
            key = accounts.key_of(account)
            previous = known.get((account.name, key))
            if previous is not None:
                # No poll depends on the rules: they judge what it found.
                judging = replace(previous.account, rules=account.rules)
                if judging == account:
                    runtimes.append(replace(previous, account=judging))
                    continue
            state = self.new_state(account) if previous is None else previous.state
            unused = RateLimiter(limits[key], self.clock.monotonic)
            limiter = self._limiters.setdefault(key, unused)
            runtimes.append(self._new_runtime(account, state, limiter, begin, delay_seconds))
            delay_seconds += spread_seconds(len(config.accounts))
        return runtimes

    def _new_runtime(
        self,
        account: Account,
        state: AccountState,
        limiter: RateLimiter,
        begin: threading.Event | None,
        first_delay_seconds: float,
    ) -> AccountRuntime:
        closed = threading.Event()
        client = Client(
            account=account,
            budget=limiter,
            recorder=state,
            clock=self.clock,
            sleep=_sleep(self.clock, closed),
            connect=self.connect,
            uniform=self.uniform,
        )
        runtime = AccountRuntime(account, state, client, [], closed)
        new_poller = partial(
            Poller,
            account,
            clock=self.clock,
            stopping=closed,
            on_death=lambda: None if closed.is_set() else self.on_death(),
            begin=begin,
            first_delay_seconds=first_delay_seconds,
            uniform=self.uniform,
        )
        publish = partial(self._publish, runtime)
        polls = poll_task(account, state, client.fetch_all, self.clock, publish)
        runtime.pollers.append(new_poller(polls, hold_off_seconds=limiter.hold_off_seconds))
        if account.balance_interval_seconds is not None:
            held_seconds = partial(limiter.hold_off_seconds, of_balance=True)
            asks = self._balance_task(runtime, account.balance_interval_seconds)
            runtime.pollers.append(new_poller(asks, kind="balance", hold_off_seconds=held_seconds))
        return runtime

    def _balance_task(self, runtime: AccountRuntime, interval_seconds: float) -> Task:
        def publish(result: BalanceResult) -> None:
            self.page.refresh_live(lambda: runtime.open_state().record_balance(result))

        fetch = runtime.client.fetch_balance
        return balance_task(runtime.account, interval_seconds, fetch, self.clock, publish)

    def _publish(self, runtime: AccountRuntime, result: PollResult) -> None:
        """Record a result together with the bytes that show it; a failure needs no rendering."""

        def record() -> None:
            runtime.open_state().record_poll(result)

        def statuses() -> Sequence[AccountStatus]:
            return [
                each.status().after(result) if each == runtime else each.status()
                for each in self._runtimes
            ]

        if result.error is None:
            self.page.refresh(statuses, lambda _: record())
        else:
            self.page.refresh_live(record)
