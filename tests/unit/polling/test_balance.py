"""Asking for the balance again and again: what is recorded, what is logged, and when."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial

import pytest

from exophone_exporter.errors import (
    Forbidden,
    NotFound,
    PollError,
    RateLimited,
    ServerFailed,
    Stopped,
)
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.inventory.state import BalanceResult
from exophone_exporter.polling.poller import Poller, balance_task
from tests.lib.support import FakeTime, TimedEvent, account, log_lines

KNOWN = Balance(Decimal("1543.75"), "INR", "Pay As You Go")
NOT_AVAILABLE = ("WARNING", "the balance is not available")
FAILED = ("WARNING", "the request for the balance failed")
STILL_FAILS = ("WARNING", "the request for the balance still fails")
WORKS_AGAIN = ("INFO", "the request for the balance works again")
DEFECT = ("ERROR", "a defect in the exporter")
Outcome = Balance | Exception


class Api:
    """Answers with the next of some outcomes, then says that no more is wanted."""

    def __init__(self, time: FakeTime, *outcomes: Outcome) -> None:
        self._time = time
        self._outcomes = iter(outcomes)
        self.own = replace(account(), balance_interval_seconds=3600.0)
        self.limiter = RateLimiter(10, lambda: time.monotonic)
        self.asked_at: list[float] = []
        self.results: list[BalanceResult] = []
        publish = self.results.append
        self.run = balance_task(self.own, 3600.0, self._fetch, time.clock, publish)

    def _fetch(self) -> Balance:
        self.asked_at.append(self._time.monotonic)
        outcome = next(self._outcomes, Stopped())
        if isinstance(outcome, RateLimited):
            self.limiter.hold_off(outcome.retry_after_seconds or 0.0, only_balance=True)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="exophone_exporter")


@pytest.mark.fault(246, 247)
@pytest.mark.parametrize(
    ("outcomes", "lines"),
    [
        pytest.param([KNOWN, KNOWN], [[], []], id="known"),
        pytest.param([Forbidden("403")] * 3, [[NOT_AVAILABLE], [], []], id="403"),
        pytest.param(
            [Forbidden("403"), KNOWN, NotFound("404")],
            [[NOT_AVAILABLE], [WORKS_AGAIN], [NOT_AVAILABLE]],
            id="again",
        ),
        pytest.param([ServerFailed("500")] * 3, [[FAILED], [], [STILL_FAILS]], id="500"),
        pytest.param(
            [RuntimeError("x"), RuntimeError("x"), KNOWN],
            [[DEFECT, FAILED], [], [WORKS_AGAIN]],
            id="defect",
        ),
    ],
)
def test_each_reason_is_logged_once_with_a_reminder_unless_the_balance_is_not_available(
    time: FakeTime,
    caplog: pytest.LogCaptureFixture,
    outcomes: list[Outcome],
    lines: list[list[tuple[str, str]]],
) -> None:
    api, logged = Api(time, *outcomes), []
    for _ in outcomes:
        api.run()
        logged.append(log_lines(caplog))
        time.pass_(1800)
    assert logged == lines


@pytest.mark.fault(247)
def test_a_result_holds_the_balance_or_an_error_without_its_causes(time: FakeTime) -> None:
    api = Api(time, KNOWN, ServerFailed("500"), RuntimeError("secret"))
    for _ in range(3):
        api.run()
    with pytest.raises(Stopped):
        api.run()
    known, failed, defect = api.results
    assert known == BalanceResult(time.clock.now(), KNOWN)
    assert (failed.balance, str(failed.error)) == (None, "500")
    assert isinstance(defect.error, PollError)
    assert (defect.error.reason, str(defect.error)) == ("internal", "RuntimeError")
    assert [result.error.__context__ for result in (failed, defect) if result.error] == [None, None]


@pytest.mark.fault(248)
def test_it_is_asked_every_interval_and_not_while_the_api_asks_to_wait(time: FakeTime) -> None:
    """Whichever endpoint asked for it; a wait for the balance holds no poll."""
    api = Api(time, KNOWN, RateLimited("429", 4000.0), KNOWN)
    Poller(
        api.own,
        api.run,
        clock=time.clock,
        stopping=TimedEvent(time),
        on_death=partial(pytest.fail, "it died"),
        hold_off_seconds=partial(api.limiter.hold_off_seconds, of_balance=True),
        uniform=lambda low, high: (low + high) / 2,
    ).run()
    assert [at - api.asked_at[0] for at in api.asked_at] == [0, 3600, 7600, 11200]
    assert api.limiter.hold_off_seconds() == 0
