"""What the service manager receives, message by message."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from exophone_exporter.errors import CredentialsRejected
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.formatting import status_line
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.server.systemd import Supervision
from tests.lib.support import FakeTime, account, phone

NO_ACCOUNTS = "STATUS=0 accounts, 0 numbers, 0 with a problem"


@dataclass
class Scene(Supervision):
    """The end of systemd, and a process that it supervises; `accepts` is what `notify` returns."""

    time: FakeTime
    watchdog_seconds: float | None = 20.0
    is_enabled: bool = True
    accepts: bool = True
    healthy: bool = True
    states: list[AccountState] = field(default_factory=list)
    received: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        environ = {"NOTIFY_SOCKET": "/" if self.is_enabled else ""}
        if self.watchdog_seconds:
            environ["WATCHDOG_USEC"] = f"{self.watchdog_seconds * 1e6:.0f}"
        super().__init__(
            environ, 1, self.time.clock, healthy=lambda: self.healthy, status=self.status
        )

    def status(self) -> str:
        return status_line([state.status() for state in self.states], self.time.clock.now())

    def notify(self, *assignments: str, wait: bool = False) -> bool:
        assert wait != assignments[0].startswith(("WATCHDOG", "STATUS"))
        self.received.append(assignments)
        return self.accepts

    def ticks(self, seconds: float) -> list[str]:
        """What it receives in so many seconds of ten ticks, each by its first assignment."""
        for _ in range(round(seconds * 10)):
            self.time.pass_(0.1)
            self.tick()
        received, self.received = self.received, []
        return [assignments[0] for assignments in received]


@pytest.fixture
def scene(time: FakeTime) -> Scene:
    """A process that has said that it is ready."""
    made = Scene(time)
    assert made.ticks(0.1) == ["READY=1", "WATCHDOG=1", NO_ACCOUNTS]
    return made


def test_the_watchdog_is_pinged_after_half_its_time_and_a_status_is_not_repeated(
    scene: Scene,
) -> None:
    assert scene.ticks(9.8) == []
    assert scene.ticks(0.3) == ["WATCHDOG=1"]
    assert scene.ticks(102) == ["WATCHDOG=1"] * 10


def test_without_a_watchdog_or_systemd_there_are_no_pings(time: FakeTime) -> None:
    assert Scene(time, watchdog_seconds=None).ticks(60) == ["READY=1", NO_ACCOUNTS]
    outside = Scene(time, is_enabled=False)
    outside.reloading()
    outside.stopping()
    assert outside.ticks(10) == []


def test_while_a_poller_hangs_there_are_no_pings_and_the_status_says_why(scene: Scene) -> None:
    """Then systemd restarts the service. A poller that works again is a ping immediately."""
    scene.healthy = False
    assert scene.ticks(60) == [f"{NO_ACCOUNTS}; a poller has died or is stuck, see the log"]
    scene.healthy = True
    assert scene.ticks(0.1) == ["WATCHDOG=1"]


def test_a_ping_that_was_not_accepted_is_repeated_in_time_but_not_with_every_tick(
    time: FakeTime,
) -> None:
    assert 8 <= Scene(time, accepts=False).ticks(20).count("WATCHDOG=1") <= 11


def test_a_changed_status_is_sent_within_five_seconds(scene: Scene) -> None:
    scene.states.append(AccountState(account("support")))
    assert scene.ticks(5.2) == [
        "STATUS=1 account, 0 numbers, 0 with a problem; waiting for the first poll: support"
    ]


def test_a_reload_has_its_time_and_ends_with_ready(scene: Scene) -> None:
    scene.reloading()
    scene.reloaded(True)
    assert scene.received == [("RELOADING=1", "MONOTONIC_USEC=1000100000"), ("READY=1",)]


def test_a_failed_reload_is_in_the_status_until_one_succeeds(scene: Scene) -> None:
    scene.reloaded(False)
    failed = f"{NO_ACCOUNTS}; the last reload failed, see the log"
    assert scene.ticks(5.2) == ["READY=1", failed]
    scene.reloaded(True)
    assert scene.ticks(0.1) == ["READY=1", NO_ACCOUNTS]


def test_a_reload_before_the_server_is_not_reported(time: FakeTime) -> None:
    """READY=1 at its end would say that requests are answered."""
    scene = Scene(time)
    scene.reloading()
    scene.reloaded(True)
    assert scene.received == []


def test_the_end_is_reported(scene: Scene) -> None:
    scene.stopping()
    assert scene.received == [("STOPPING=1", "STATUS=stopping")]


# ---- the words of the status


def polled(name: str, time: FakeTime, *numbers: ExoPhone, error: bool = False) -> AccountState:
    state = AccountState(account(name))
    now = time.clock.now()
    if numbers:
        state.record_poll(PollResult(now, 0.1, build(Listing(numbers, 1, Counter()), now, 0.1)))
    if error:
        state.record_poll(PollResult(now, 0.1, error=CredentialsRejected()))
    return state


def test_the_status_sums_up_accounts_without_numbers_that_are_stale(time: FakeTime) -> None:
    scene = Scene(time)
    scene.states.append(polled("support", time, phone("1"), phone("2", voice_url="")))
    scene.states.append(polled("sales", time, phone("3")))
    assert scene.status() == "2 accounts, 3 numbers, 1 with a problem"
    time.pass_(901)
    assert scene.status().startswith("2 accounts, 0 numbers")


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (1, "a0 (auth)"),
        (3, "a0 (auth), a1 (auth), a2 (auth)"),
        (9, "a0 (auth), a1 (auth), a2 (auth) and 6 more"),
    ],
)
def test_the_status_names_accounts_that_fail_which_are_no_reason_to_restart(
    scene: Scene, count: int, names: str
) -> None:
    scene.states += [polled(f"a{n}", scene.time, error=True) for n in range(count)]
    assert scene.status().endswith(f"; failing: {names}")
    assert scene.ticks(102).count("WATCHDOG=1") == 10
