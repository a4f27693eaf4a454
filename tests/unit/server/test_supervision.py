"""What the service manager receives, message by message."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from exophone_exporter.errors import CredentialsRejected
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.inventory.formatting import status_line
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.server.systemd import Notifier, Supervision
from tests.lib.support import FakeTime, account, phone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exophone_exporter.clock import Clock
    from exophone_exporter.exotel.model import ExoPhone
    from exophone_exporter.inventory.state import AccountStatus

NO_ACCOUNTS = "STATUS=0 accounts, 0 numbers, 0 without a voice flow"


@dataclass
class FakeNotifier(Notifier):
    """Records what it receives; while `takes` is false, nothing is accepted."""

    watchdog_seconds: float | None = None
    is_enabled: bool = True
    takes: bool = True
    told: list[tuple[str, ...]] = field(default_factory=list)

    def notify(self, *assignments: str, wait: bool = False) -> bool:
        assert wait != assignments[0].startswith(("WATCHDOG", "STATUS"))
        self.told.append(assignments)
        return self.takes

    def news(self) -> list[str]:
        """The messages since the last look, each by its first assignment."""
        told, self.told = self.told, []
        return [assignments[0] for assignments in told]


@dataclass
class FakeExporter:
    clock: Clock
    is_healthy: bool = True
    states: list[AccountState] = field(default_factory=list)

    def statuses(self) -> Sequence[AccountStatus]:
        return [state.status() for state in self.states]

    def healthy(self) -> bool:
        return self.is_healthy


@dataclass
class Scene:
    time: FakeTime
    notifier: FakeNotifier
    exporter: FakeExporter
    supervision: Supervision

    def tick_for(self, seconds: float) -> list[str]:
        """What it receives while so many seconds pass, with ten ticks in each."""
        for _ in range(round(seconds * 10)):
            self.time.pass_(0.1)
            self.supervision.tick()
        return self.notifier.news()


def scene(time: FakeTime, notifier: FakeNotifier | None = None) -> Scene:
    told, exporter = notifier or FakeNotifier(), FakeExporter(time.clock)
    supervision = Supervision(
        told,
        time.clock,
        healthy=exporter.healthy,
        status=lambda: status_line(exporter.statuses(), time.clock.now()),
    )
    return Scene(time, told, exporter, supervision)


def test_the_first_tick_says_ready_and_no_other_does(time: FakeTime) -> None:
    """The loop ticks when it serves; a reader of the journal sees its state immediately."""
    it = scene(time)
    it.supervision.tick()
    assert it.notifier.news() == ["READY=1", NO_ACCOUNTS]
    assert it.tick_for(60) == []


def test_nobody_who_listens_means_nothing_is_reckoned(time: FakeTime) -> None:
    """Outside systemd a tick costs nothing."""
    it = scene(time, FakeNotifier(is_enabled=False, watchdog_seconds=2.0))
    it.supervision.reloading()
    it.supervision.stopping()
    assert it.tick_for(10) == []


class TestWatchdog:
    def test_signs_of_life_come_in_half_the_time(self, time: FakeTime) -> None:
        it = scene(time, FakeNotifier(watchdog_seconds=20.0))
        it.supervision.tick()
        assert it.notifier.news() == ["READY=1", "WATCHDOG=1", NO_ACCOUNTS]
        assert it.tick_for(9.8) == []
        assert it.tick_for(0.3) == ["WATCHDOG=1"]
        assert it.tick_for(102) == ["WATCHDOG=1"] * 10

    def test_a_hung_poller_gets_none_and_a_status_says_why(self, time: FakeTime) -> None:
        """Then systemd restarts the service, and its log keeps the reason."""
        it = scene(time, FakeNotifier(watchdog_seconds=20.0))
        it.supervision.tick()
        it.notifier.news()
        it.exporter.is_healthy = False
        assert it.tick_for(60) == [f"{NO_ACCOUNTS}; a poller has died or is stuck, see the log"]

    def test_a_poller_that_goes_on_is_a_sign_of_life_at_once(self, time: FakeTime) -> None:
        it = scene(time, FakeNotifier(watchdog_seconds=20.0))
        it.exporter.is_healthy = False
        it.tick_for(19)
        it.exporter.is_healthy = True
        assert it.tick_for(0.1) == ["WATCHDOG=1"]

    def test_an_api_that_refuses_is_no_reason_to_restart(self, time: FakeTime) -> None:
        """The same truth as /-/healthy: it never depends on the API."""
        it = scene(time, FakeNotifier(watchdog_seconds=20.0))
        it.exporter.states.append(polled("support", time, error=True))
        assert "WATCHDOG=1" in it.tick_for(0.1)
        assert it.tick_for(102).count("WATCHDOG=1") == 10

    def test_a_sign_that_was_not_taken_is_tried_again_in_time(self, time: FakeTime) -> None:
        """Several times before systemd gives up, not with every tick."""
        it = scene(time, FakeNotifier(watchdog_seconds=20.0, takes=False))
        it.supervision.tick()
        it.notifier.news()
        assert 8 <= it.tick_for(20).count("WATCHDOG=1") <= 10


class TestReload:
    def test_it_is_told_with_the_time_and_ends_with_ready(self, time: FakeTime) -> None:
        it = scene(time)
        it.supervision.tick()
        it.notifier.told.clear()
        it.supervision.reloading()
        it.supervision.reloaded(True)
        assert it.notifier.told == [("RELOADING=1", "MONOTONIC_USEC=1000000000"), ("READY=1",)]

    def test_a_failure_is_in_the_status_until_one_succeeds(self, time: FakeTime) -> None:
        it = scene(time)
        it.supervision.tick()
        it.supervision.reloaded(False)
        it.notifier.news()
        assert it.tick_for(10) == [f"{NO_ACCOUNTS}; the last reload failed, see the log"]
        it.supervision.reloaded(True)
        it.notifier.news()
        assert it.tick_for(10) == [NO_ACCOUNTS]

    def test_one_before_the_server_is_not_told(self, time: FakeTime) -> None:
        """READY=1 at its end would say that requests are answered."""
        it = scene(time)
        it.supervision.reloading()
        it.supervision.reloaded(True)
        assert it.notifier.news() == []


def test_the_end_is_told(time: FakeTime) -> None:
    """What is under way then has a moment to finish."""
    it = scene(time)
    it.supervision.tick()
    it.notifier.told.clear()
    it.supervision.stopping()
    assert it.notifier.told == [("STOPPING=1", "STATUS=stopping")]


def test_a_status_that_did_not_change_is_not_repeated(time: FakeTime) -> None:
    """And one that did is reported within five seconds."""
    it = scene(time)
    it.supervision.tick()
    it.notifier.news()
    assert it.tick_for(60) == []
    it.exporter.states.append(AccountState(account("support")))
    assert it.tick_for(5.2) == [
        "STATUS=1 account, 0 numbers, 0 without a voice flow; waiting for the first poll: support"
    ]


def polled(name: str, time: FakeTime, *numbers: ExoPhone, error: bool = False) -> AccountState:
    state = AccountState(account(name))
    now = time.clock.now()
    if numbers:
        state.record_poll(PollResult(now, 0.1, build(Listing(numbers, 1, Counter()), now, 0.1)))
    if error:
        state.record_poll(PollResult(now, 0.1, error=CredentialsRejected()))
    return state


class TestWords:
    def test_fresh_accounts_are_summed_up(self, time: FakeTime) -> None:
        statuses = [
            polled("support", time, phone("1"), phone("2", voice_url="")).status(),
            polled("sales", time, phone("3")).status(),
        ]
        said = status_line(statuses, time.clock.now())
        assert said == "2 accounts, 3 numbers, 1 without a voice flow"

    def test_stale_numbers_do_not_count(self, time: FakeTime) -> None:
        """As everywhere else they are gone."""
        state = polled("support", time, phone("1"))
        time.pass_(901)
        assert status_line([state.status()], time.clock.now()).startswith("1 account, 0 numbers")

    @pytest.mark.parametrize(
        ("count", "names"),
        [
            pytest.param(1, "a0 (auth)", id="one"),
            pytest.param(3, "a0 (auth), a1 (auth), a2 (auth)", id="three"),
            pytest.param(9, "a0 (auth), a1 (auth), a2 (auth) and 6 more", id="many"),
        ],
    )
    def test_accounts_that_fail_are_named_with_the_reason(
        self, time: FakeTime, count: int, names: str
    ) -> None:
        """The line stays one that `systemctl status` shows whole."""
        statuses = [polled(f"a{n}", time, error=True).status() for n in range(count)]
        assert status_line(statuses, time.clock.now()).endswith(f"; failing: {names}")
