"""The running whole: accounts, their pollers, and the page that shows them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from exophone_exporter.budget import RequestBudget
from exophone_exporter.client import Client
from exophone_exporter.clock import Clock
from exophone_exporter.errors import Stopped
from exophone_exporter.metrics.page import Build, MetricsPage
from exophone_exporter.poller import Poller
from exophone_exporter.store import AccountState

if TYPE_CHECKING:
    from collections.abc import Callable

    from exophone_exporter.config import Config
    from exophone_exporter.store import View

# Accounts start one after the other, so that many do not ask at the same moment.
_FIRST_POLL_SPREAD_SECONDS: Final = 0.5
_JOIN_SECONDS: Final = 0.5


def client_for(state: AccountState, clock: Clock, stopping: threading.Event) -> Client:
    """A client of one account that counts in its state; `stopping` ends its waits."""

    def sleep(seconds: float) -> None:
        if stopping.wait(seconds):
            raise Stopped

    account = state.account
    return Client(
        account=account,
        budget=RequestBudget(account.poll.requests_per_minute, clock.monotonic),
        recorder=state,
        clock=clock,
        sleep=sleep,
    )


class Exporter:
    """Polls every account of a configuration in the background and knows how that goes.

    `on_death` is called when a poller died of something unforeseen: nothing polls that account any
    more, so the process had better end and be started again.
    """

    def __init__(
        self,
        config: Config,
        *,
        revision: str = "unknown",
        clock: Clock | None = None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self.clock = clock or Clock()
        self._stopping = threading.Event()
        self._states = tuple(AccountState(account) for account in config.accounts)
        self._build = Build(revision=revision, config_loaded_at=self.clock.wall())
        self.page = MetricsPage(self.views, lambda: self._build, self.clock)
        self._pollers = tuple(
            Poller(
                state,
                client_for(state, self.clock, self._stopping),
                clock=self.clock,
                stopping=self._stopping,
                on_result=lambda _: self.page.prepare(),
                on_death=on_death,
                first_delay_seconds=index * _FIRST_POLL_SPREAD_SECONDS,
            )
            for index, state in enumerate(self._states)
        )

    def start(self) -> None:
        """Begin to poll."""
        for poller in self._pollers:
            poller.start()

    def ask_to_stop(self) -> None:
        """End every wait; safe in a signal handler."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop polling. A request that is under way is left to itself: its thread is a daemon."""
        self.ask_to_stop()
        deadline = self.clock.monotonic() + _JOIN_SECONDS
        for poller in self._pollers:
            if poller.is_alive():
                poller.join(max(0.0, deadline - self.clock.monotonic()))

    def views(self) -> tuple[View, ...]:
        """Every account as it is now, in the order of the configuration."""
        return tuple(state.view() for state in self._states)

    def healthy(self) -> bool:
        """Whether every poller lives and moves; says nothing about the API."""
        return all(poller.healthy() for poller in self._pollers)

    def ready(self) -> bool:
        """Whether every account has had its first attempt, good or bad."""
        return all(state.attempted for state in self._states)
