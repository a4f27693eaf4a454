"""Asking for the balance: a schedule, a log and a failure of its own, apart from the polls.

It has a thread of its own, in the same loop as the polls. A walk of the list may take five minutes
and would delay the balance; a balance that hangs would delay a poll.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account
from exophone_exporter.errors import Forbidden, NotFound, PollError
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.inventory.state import BalanceResult
from exophone_exporter.polling.poll_log import FailureLog
from exophone_exporter.polling.poller import result_or_error

# `Client.fetch_balance`: what is left on the account, or PollError, or Stopped.
Fetch: TypeAlias = Callable[[], Balance]


def ask_once(account: Account, fetch: Fetch, clock: Clock, defects: set[str]) -> BalanceResult:
    """One request for the balance; the result holds whatever went wrong. May raise Stopped."""
    balance = result_or_error(fetch, account, defects)
    if isinstance(balance, PollError):
        return BalanceResult(clock.now(), error=balance)
    defects.clear()
    return BalanceResult(clock.now(), balance)


@dataclass(eq=False, repr=False)
class BalanceTask:
    """Asks for the balance of one account; `publish` takes each result."""

    _account: Account
    _fetch: Fetch
    _clock: Clock
    _publish: Callable[[BalanceResult], None]
    name: str = "balance"

    def __post_init__(self) -> None:
        self._defects: set[str] = set()
        self._failures = FailureLog(self._account, "the request for the balance")

    def run(self) -> None:
        """Ask once."""
        result = ask_once(self._account, self._fetch, self._clock, self._defects)
        self._publish(result)
        if result.error is None:
            self._failures.log_end()
        elif isinstance(result.error, (Forbidden, NotFound)):
            self._failures.log_once("the balance is not available", result.error, result.ended)
        else:
            self._failures.log(result.error, result.ended)

    def interval_seconds(self) -> float:
        """As configured."""
        return self._account.balance_interval_seconds or 0.0
