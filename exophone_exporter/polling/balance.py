"""Asking for the balance: a schedule, a log and a failure of its own, apart from the polls.

It has a thread of its own, in the same loop as the polls. A walk of the list may take five minutes
and would delay the balance; a balance that hangs would delay a poll.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account
from exophone_exporter.errors import Forbidden, NotFound, PollError
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.inventory.state import BalanceResult
from exophone_exporter.polling.poll_log import FailureLog
from exophone_exporter.polling.poller import Task, result_or_error

# `Client.fetch_balance`: what is left on the account, or PollError, or Stopped.
Fetch: TypeAlias = Callable[[], Balance]


def ask_once(account: Account, fetch: Fetch, clock: Clock, defects: set[str]) -> BalanceResult:
    """One request for the balance; the result holds whatever went wrong. May raise Stopped."""
    balance = result_or_error(fetch, account, defects)
    if isinstance(balance, PollError):
        return BalanceResult(clock.now(), error=balance)
    defects.clear()
    return BalanceResult(clock.now(), balance)


def balance_task(
    account: Account,
    interval_seconds: float,
    fetch: Fetch,
    clock: Clock,
    publish: Callable[[BalanceResult], None],
) -> Task:
    """The requests for the balance of one account; `publish` takes each result."""
    defects: set[str] = set()
    failures = FailureLog(account, "the request for the balance")

    def ask() -> float:
        result = ask_once(account, fetch, clock, defects)
        publish(result)
        if result.error is None:
            failures.log_end()
        elif isinstance(result.error, (Forbidden, NotFound)):
            failures.log_once("the balance is not available", result.error, result.ended)
        else:
            failures.log(result.error, result.ended)
        return interval_seconds

    return ask
