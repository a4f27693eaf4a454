"""The balance from the wire to the metrics, next to the polls that it must never disturb."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from exophone_exporter.config.settings import Account, Config
from exophone_exporter.errors import PollError, RateLimited
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.functional.test_api_faults import BODY, NETWORK, STATUS
from tests.functional.test_api_faults import Fault as ApiFault
from tests.lib.processes import wait_until
from tests.lib.support import CountingRecorder, FakeTime, account, client_for

PATH = "/v1/Accounts/acme/Balance.json"
BALANCE = b"""{"Account": {"AccountSid": "acme", "BalanceData": {"Balance": "1543.75",
"Currency": "INR", "PricingPlan": "Pay As You Go"}}}"""


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 3), make_account("beta", 1))) as running:
        yield running


def watching(sim: Simulator, name: str = "support", **changes: Any) -> Account:
    """An account that is polled many times a second, and asked for its balance at the start."""
    own = account(name, origin=sim.url, interval_seconds=0.05, timeout_seconds=20.0)
    return replace(own, **({"balance_interval_seconds": 3600.0} | changes))


class Running:
    """An exporter and what it shows."""

    def __init__(self, *accounts: Account) -> None:
        self.exporter = Exporter(Config("test", accounts, ()))
        self.exporter.start()

    def reload(self, *accounts: Account) -> None:
        self.exporter.reload(Config("test", accounts, ()))

    def values(self, metric: str) -> dict[str, float]:
        text = self.exporter.page.body(openmetrics=False, gzipped=False).decode()
        lines = [line.rpartition(" ") for line in text.splitlines()]
        begin = f"exophone_{metric}{{"
        return {
            series.removeprefix(begin).strip("}"): float(value)
            for series, _, value in lines
            if series.startswith(begin)
        }

    def wait_for(self, what: str, condition: Callable[[], object]) -> None:
        wait_until(lambda: bool(condition()), what)

    def wait_for_polls(self, more: int = 3) -> None:
        """Some polls more, all of them complete."""
        before = sum(self.values("polls_total").values())
        self.wait_for("polls", lambda: sum(self.values("polls_total").values()) >= before + more)
        assert set(self.values("up").values()) == {1}
        assert set(self.values("poll_failures_total").values()) == {0}


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*accounts: Account) -> Running:
        started.append(Running(*accounts))
        return started[-1]

    yield start
    for each in started:
        each.exporter.stop()


def asked(sim: Simulator) -> int:
    return sum(request.path.endswith(PATH.rpartition("/")[2]) for request in sim.requests)


def test_the_balance_is_asked_for_and_shown(sim: Simulator, run: Callable[..., Running]) -> None:
    labels = (("team", "voice"), ("abc", 'né "1"'))
    running = run(watching(sim, labels=labels), watching(sim, "off", balance_interval_seconds=None))
    running.wait_for("the balance", lambda: running.values("account_balance"))
    running.wait_for_polls()
    amount = float(sim.world.accounts["acme"].balance.amount)
    assert running.values("account_balance") == {'account="support",currency="INR"': amount}
    assert running.values("account_balance_up") == {'account="support"': 1}
    (success,) = running.values("account_balance_last_success_timestamp_seconds").values()
    assert success > 1_700_000_000
    assert running.values("account_info") == {
        'abc="né \\"1\\"",account="support",pricing_plan="Pay As You Go",team="voice"': 1,
        'account="off",pricing_plan=""': 1,
    }
    counted = running.values("api_requests_total")
    assert counted['account="support",code="200",endpoint="balance"'] > 0
    assert not [labels for labels in counted if "off" in labels and "balance" in labels]
    (request,) = {(r.method, r.path) for r in sim.requests if "Balance" in r.path}
    assert request == ("GET", PATH)


# All but those that only a second page can have.
FAULTS = [row for row in (*NETWORK, *STATUS, *BODY) if row.id not in {"17-slow", "39-late"}]


@pytest.mark.fault(247)
@pytest.mark.parametrize(("fault", "reason", "attempts", "_says"), FAULTS)
def test_the_balance_meets_every_fault_of_the_api_as_a_page_does(
    fault: ApiFault, reason: str, attempts: int, _says: str
) -> None:
    recorder = CountingRecorder()
    with fault() as settings:
        client = client_for(account(**settings), recorder=recorder)
        with pytest.raises(PollError) as caught:
            client.fetch_balance()
    assert caught.value.reason == reason
    assert [endpoint for endpoint, _ in recorder.requests] == ["balance"] * attempts


@pytest.mark.fault(246)
@pytest.mark.parametrize(
    ("status", "says"),
    [
        (403, "403: the account is suspended or"),
        (404, "404: the API has no balance for the account"),
    ],
)
def test_without_the_permission_the_balance_is_not_available_and_polls_go_on(
    sim: Simulator,
    run: Callable[..., Running],
    caplog: pytest.LogCaptureFixture,
    status: int,
    says: str,
) -> None:
    running = run(watching(sim, balance_interval_seconds=0.05))
    running.wait_for("the balance", lambda: running.values("account_balance"))
    sim.fail(Fault(status, endpoint="balance", times=None))
    counted = f'account="support",code="{status}",endpoint="balance"'
    running.wait_for("refusals", lambda: running.values("api_requests_total").get(counted, 0) > 2)
    running.wait_for_polls()
    assert running.values("account_balance_up") == {'account="support"': 0}
    running.wait_for("its end", lambda: not running.values("account_balance"))
    (line,) = [r for r in caplog.records if r.getMessage() == "the balance is not available"]
    assert vars(line)["fields"]["error"].startswith(says)
    sim.clear_faults()
    running.wait_for("the balance", lambda: running.values("account_balance"))


@pytest.mark.fault(249)
@pytest.mark.parametrize("hanging", ["balance", "list"])
def test_neither_waits_for_the_other(
    sim: Simulator, run: Callable[..., Running], hanging: Any
) -> None:
    """One that never ends delays neither the other nor the end of the process."""
    sim.fail(Fault(after="hang", endpoint=hanging, times=None))
    running = run(watching(sim))
    if hanging == "balance":
        running.wait_for_polls()
        assert running.values("account_balance_up") == {}
    else:
        running.wait_for("the balance", lambda: running.values("account_balance"))
        assert running.values("up") == {}
    assert running.exporter.healthy()


@pytest.mark.fault(248)
def test_a_retry_after_of_the_balance_holds_only_balances_over_a_reload_and_under_any_name(
    sim: Simulator, run: Callable[..., Running]
) -> None:
    limit = {"Retry-After": "500"}
    sim.fail(Fault(429, headers=limit, endpoint="balance", account_sid="acme", times=None))
    running = run(watching(sim))
    running.wait_for("the limit", lambda: running.values("account_balance_up"))
    requests = asked(sim)
    running.wait_for_polls()
    running.reload(watching(sim, balance_interval_seconds=0.1), watching(sim, "again"))
    running.wait_for_polls(6)
    assert asked(sim) == requests == 1
    for client in running.exporter.clients().values():
        assert client.budget.hold_off_seconds() == 0
        assert client.budget.hold_off_seconds(of_balance=True) > 400
        with pytest.raises(RateLimited, match="asked to wait for another"):
            client.fetch_balance()


@pytest.mark.fault(248)
def test_a_retry_after_of_the_list_holds_the_balance_too(sim: Simulator, time: FakeTime) -> None:
    sim.fail(Fault(429, headers={"Retry-After": "20"}, endpoint="list"))
    client = client_for(account(origin=sim.url, deadline_seconds=10.0), time)
    with pytest.raises(RateLimited):
        client.fetch_all({})
    with pytest.raises(RateLimited, match="another 20s"):
        client.fetch_balance()
    time.pass_(15)
    assert client.fetch_balance().currency == "INR"
    assert time.slept == [5]


@pytest.mark.fault(251)
def test_a_reload_changes_the_interval_ends_the_requests_or_removes_the_account(
    sim: Simulator, run: Callable[..., Running]
) -> None:
    running = run(watching(sim))
    running.wait_for("the balance", lambda: running.values("account_balance"))
    before = asked(sim)
    running.reload(watching(sim, balance_interval_seconds=1800.0))
    assert len(running.values("account_balance")) == 1  # what is known stays
    running.wait_for("a request", lambda: asked(sim) > before)
    running.reload(watching(sim, balance_interval_seconds=None))
    names = (
        "account_balance",
        "account_balance_up",
        "account_balance_last_success_timestamp_seconds",
    )
    assert [running.values(name) for name in names] == [{}, {}, {}]
    assert running.values("account_info") == {'account="support",pricing_plan=""': 1}
    held = asked(sim)
    running.wait_for_polls()
    assert asked(sim) == held
    running.reload(replace(watching(sim, "beta"), sid="beta"))
    success = running.values("account_balance_last_success_timestamp_seconds")
    assert list(success) == ['account="beta"']


@pytest.mark.fault(251)
def test_an_answer_to_the_old_configuration_is_dropped(
    sim: Simulator, run: Callable[..., Running]
) -> None:
    """Or a key that was corrected would seem wrong for another hour."""
    sim.fail(Fault(403, endpoint="balance", delay_seconds=0.5))
    running = run(watching(sim))
    running.wait_for("the request", lambda: asked(sim) == 1)
    running.reload(watching(sim, balance_interval_seconds=1800.0))
    running.wait_for("the balance", lambda: running.values("account_balance"))
    running.wait_for("the end of the old thread", lambda: threads_for_balances() == 1)
    assert running.values("account_balance_up") == {'account="support"': 1}


def threads_for_balances() -> int:
    return sum(thread.name == "balance support" for thread in threading.enumerate())


@pytest.mark.fault(253)
@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"}, [50, 0]),
        ({"x-ratelimit-limit": " 200 "}, [200]),
        ({"X-RateLimit-Limit": "50 per minute", "X-RateLimit-Remaining": "-1"}, []),
        ({"X-RateLimit-Limit": "1e3", "X-RateLimit-Remaining": "1234567890"}, []),
        ({"X-RateLimit-Limit": "\u00b2", "X-RateLimit-Remaining": ""}, []),
        ({}, []),
    ],
)
@pytest.mark.parametrize("status", [200, 403])
def test_the_limits_that_the_last_answer_names_are_shown(
    sim: Simulator,
    run: Callable[..., Running],
    status: int,
    headers: dict[str, str],
    shown: list[float],
) -> None:
    sim.fail(Fault(403, headers={"X-RateLimit-Limit": "7"}, endpoint="balance"))
    body = BALANCE if status == 200 else None
    sim.fail(Fault(status, body, headers, endpoint="balance", times=None))
    running = run(watching(sim, balance_interval_seconds=0.05))
    counted = f'account="support",code="{status}",endpoint="balance"'
    running.wait_for("answers", lambda: running.values("api_requests_total").get(counted, 0) > 1)
    labels = 'account="support",endpoint="balance"'
    found = (running.values(f"api_rate_limit_{name}requests") for name in ("", "remaining_"))
    assert [values[labels] for values in found if values] == shown
