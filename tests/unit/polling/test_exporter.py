"""Another configuration while the exporter runs: what stays, what goes, and who sees which."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exophone_exporter.clock import Clock
from exophone_exporter.config.secrets import Secret, SecretSource
from exophone_exporter.config.settings import Account, Config, PerNumber
from exophone_exporter.errors import StartError
from exophone_exporter.exotel.responses import Answer
from exophone_exporter.inventory.state import AccountState, AccountStatus
from exophone_exporter.metrics import page
from exophone_exporter.polling.accounts import ReloadSummary
from exophone_exporter.polling.exporter import Exporter, spread_seconds
from exophone_exporter.polling.poller import poll_once
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import wait_until
from tests.lib.simulation.virtual_time import VirtualTime
from tests.lib.support import FakeTime, account, found, number_rules, phone

Run = Callable[..., Exporter]
Simulated = Callable[..., Account]

ALL = PerNumber("all", 10_000, "full")
NONE = PerNumber("none", 10_000, "full")
NOTHING = ReloadSummary((), (), (), ())


def configuration(*accounts: Account) -> Config:
    return Config("test", accounts, ())


def one_line(secret: bytes) -> Callable[[str, int], bytes]:
    return lambda _path, _limit: secret


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(*(make_account(sid, 3) for sid in ("a", "b", "c")))) as running:
        yield running


@pytest.fixture
def simulated(sim: Simulator) -> Simulated:
    def make(sid: str, **changes: Any) -> Account:
        named: dict[str, Any] = {
            "name": sid,
            "sid": sid,
            "origin": sim.url,
            "api_key": f"{sid}-key",
            "api_token": f"{sid}-token",
        }
        return account(**(named | changes))

    return make


@pytest.fixture
def running() -> Iterator[Run]:
    started: list[Exporter] = []

    def start(*accounts: Account, **options: Any) -> Exporter:
        exporter = Exporter(configuration(*accounts), **options)
        started.append(exporter)
        exporter.start()
        return exporter

    yield start
    for exporter in started:
        exporter.stop()
    wait_until(lambda: not pollers(), "the end of every poller")


def pollers() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("poller ")}


def view_of(exporter: Exporter, name: str) -> AccountStatus:
    (status,) = (status for status in exporter.statuses() if status.account.name == name)
    return status


def polled(exporter: Exporter, name: str, polls: int = 1) -> AccountStatus:
    wait_until(lambda: view_of(exporter, name).polls >= polls, f"poll {polls} of {name}")
    return view_of(exporter, name)


def scrape(exporter: Exporter) -> str:
    return exporter.page.body(openmetrics=False, gzipped=False).decode()


def accounts_shown(exporter: Exporter, family: str) -> list[str]:
    families = {f.name: f for f in text_string_to_metric_families(scrape(exporter))}
    samples = families[family].samples if family in families else []
    return [sample.labels["account"] for sample in samples]


@pytest.mark.fault(126)
@pytest.mark.parametrize(
    ("accounts", "last_begins_after"), [(1, 0.0), (2, 0.5), (61, 29.5), (500, 29.94)]
)
def test_accounts_begin_one_after_the_other_and_all_of_them_soon(
    accounts: int, last_begins_after: float
) -> None:
    """They do not ask all together, and the five hundredth is not without data for minutes."""
    pause_seconds = spread_seconds(accounts)
    assert 0 < pause_seconds <= 0.5
    assert (accounts - 1) * pause_seconds == pytest.approx(last_begins_after, abs=0.01)


class TestWhatIsCompared:
    """By the summary: an account that is equal is kept, one that differs in anything is not."""

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            pytest.param({}, replace(NOTHING, kept=("a",)), id="equal"),
            *(
                pytest.param(changes, replace(NOTHING, changed=("a",)), id=next(iter(changes)))
                for changes in (
                    {"interval_seconds": 60.0},
                    {"requests_per_minute": 10},
                    {"per_number": NONE},
                    {"api_key": "another"},
                    {"api_token": "another"},
                    {"ca_file": "ca.pem"},
                    {"proxy_url": "http://proxy.test"},
                )
            ),
            *(
                pytest.param(changes, replace(NOTHING, removed=("a",), added=("a",)), id=name)
                for name, changes in (
                    ("another-sid", {"sid": "other"}),
                    ("another-origin", {"origin": "https://api.in.exotel.com"}),
                )
            ),
            pytest.param(
                {"name": "b"},
                replace(NOTHING, removed=("a",), added=("b",)),
                marks=pytest.mark.fault(105),
                id="renamed",
            ),
        ],
    )
    def test_account_is_kept_changed_or_another(
        self, changes: dict[str, Any], expected: ReloadSummary
    ) -> None:
        after = account(**({"name": "a"} | changes))
        assert Exporter(configuration(account("a"))).reload(configuration(after)) == expected

    def test_of_a_secret_the_path_is_compared_and_not_the_content(self) -> None:
        """Its content is read at each poll; what was read last is not part of the configuration."""

        def keyed(content: str, path: str | None = None) -> Config:
            key = SecretSource(Secret(content), path, one_line(content.encode()))
            of = account("a")
            return configuration(replace(of, credentials=replace(of.credentials, api_key=key)))

        exporter = Exporter(keyed("one", "key"))
        assert exporter.reload(keyed("two", "key")).kept == ("a",)
        assert exporter.reload(keyed("two", "key2")).changed == ("a",)
        assert exporter.reload(keyed("two")).changed == ("a",)

    def test_summary_follows_the_new_order_and_the_removed_the_old(self) -> None:
        old = [account(name) for name in "abcdef"]
        new = [account(name) for name in "xfwe"] + [account("d", api_key="k")]
        summary = Exporter(configuration(*old)).reload(configuration(*new, account("c", sid="s")))
        assert summary == ReloadSummary(
            added=("x", "w", "c"), removed=("a", "b", "c"), changed=("d",), kept=("f", "e")
        )


class TestKept:
    def test_account_that_is_equal_goes_on_untouched(
        self, sim: Simulator, running: Run, simulated: Simulated
    ) -> None:
        """The same thread, client and budget; its next poll is not sooner."""
        exporter = running(simulated("a"))
        before = polled(exporter, "a")
        (thread,) = (t for t in threading.enumerate() if t.name == "poller a")
        client = exporter.clients()["a"]
        exporter.reload(configuration(simulated("b"), simulated("a")))
        polled(exporter, "b")
        assert thread.is_alive()
        assert exporter.clients()["a"] is client
        assert view_of(exporter, "a").snapshot is before.snapshot
        assert [r.path.split("/")[3] for r in sim.requests] == ["a", "b"]

    def test_changed_account_keeps_numbers_and_counters_and_is_polled_at_once(
        self, running: Run, simulated: Simulated
    ) -> None:
        """Though its next poll would have been in 5 minutes."""
        exporter = running(simulated("a"))
        before, budget = polled(exporter, "a"), exporter.clients()["a"].budget
        exporter.reload(configuration(simulated("a", page_size=2)))
        at_once = view_of(exporter, "a")
        assert at_once.snapshot is not None
        assert before.snapshot is not None
        assert at_once.snapshot.numbers is before.snapshot.numbers
        after = polled(exporter, "a", polls=2)
        assert after.requests["list", "200"] == 1 + 2
        assert exporter.clients()["a"].budget is budget
        assert pollers() == {"poller a"}

    @pytest.mark.fault(172)
    def test_timestamps_read_in_another_zone_are_not_a_change_of_any_number(
        self, running: Run, simulated: Simulated
    ) -> None:
        exporter = running(simulated("a"))
        before = polled(exporter, "a").snapshot
        exporter.reload(configuration(simulated("a", timezone=ZoneInfo("UTC"))))
        status = polled(exporter, "a", polls=2)
        assert before is not None
        assert status.snapshot is not None
        assert status.snapshot.numbers != before.numbers
        assert not any(status.changes.values())

    @pytest.mark.parametrize(
        ("sid", "expected"),
        [
            pytest.param("a", ("a", 2, 1, None), id="other-credentials"),
            pytest.param("b", ("b", 1, 0, None), id="another-account-by-the-same-name"),
        ],
    )
    def test_counters_go_on_where_the_account_is_the_same(
        self, sim: Simulator, running: Run, simulated: Simulated, sid: str, expected: object
    ) -> None:
        exporter = running(simulated("a", api_key="wrong"))
        assert polled(exporter, "a").failures["auth"] == 1
        exporter.reload(configuration(simulated(sid, name="a")))
        status = polled(exporter, "a", polls=2 if sid == "a" else 1)
        seen = (status.account.sid, status.polls, status.failures["auth"], status.error)
        assert (seen, len(sim.requests)) == (expected, 2)

    def test_other_settings_of_series_are_rendered_without_a_new_poll(
        self, time: FakeTime, simulated: Simulated
    ) -> None:
        """The numbers are the same objects; the lines are not."""
        exporter = Exporter(configuration(simulated("a")), clock=time.clock)
        assert poll_once_into(exporter, exporter.clients()["a"]) == 3
        assert len(accounts_shown(exporter, "exophone_number_info")) == 3
        exporter.reload(configuration(simulated("a", per_number=NONE)))
        assert accounts_shown(exporter, "exophone_number_info") == []
        assert accounts_shown(exporter, "exophone_number_series_dropped") == ["a"]
        exporter.reload(configuration(simulated("a", per_number=PerNumber("all", 2, "full"))))
        assert accounts_shown(exporter, "exophone_number_info") == ["a", "a"]

    @pytest.mark.fault(237)
    def test_other_rules_judge_the_last_poll_and_fetch_nothing(
        self, running: Run, simulated: Simulated
    ) -> None:
        rules = number_rules({"sid": "*", "voice": "none", "owner": "south", "name": "out"})
        exporter = running(simulated("a"), simulated("b"))
        before = polled(exporter, "a")
        polled(exporter, "b")
        after = [simulated("a", rules=rules), simulated("b")]
        summary = exporter.reload(configuration(*after))
        status = view_of(exporter, "a")
        assert (summary.kept, summary.changed) == (("a", "b"), ())
        assert (status.polls, status.requests) == (before.polls, before.requests)
        assert (status.changes, status.last_attempt) == (before.changes, before.last_attempt)
        assert [verdict.voice for verdict in status.snapshot.verdicts] == ["unwanted"] * 3  # type: ignore[union-attr]  # it was polled
        assert 'owner="south"' in scrape(exporter)
        assert 'exophone_number_rule_matches{rule="out"} 3.0' in scrape(exporter)
        exporter.reload(configuration(simulated("a"), simulated("b")))
        assert "exophone_number_rule_matches{" not in scrape(exporter)
        assert view_of(exporter, "a").polls == before.polls

    @pytest.mark.fault(237)
    def test_a_poll_that_began_before_a_reload_is_judged_by_the_new_rules(
        self, time: FakeTime
    ) -> None:
        state, rules = AccountState(account()), number_rules({"sid": "*", "voice": "none"})
        result = found(time.clock.now(), phone())
        state.record_rules(state.status(account(rules=rules)).judged())
        state.record_poll(result)
        assert [v.voice for v in state.snapshot.verdicts] == ["unwanted"]  # type: ignore[union-attr]  # it was polled

    @pytest.mark.parametrize(
        "later",
        [
            pytest.param([{"name": "a", "page_size": 7}], id="changed"),
            pytest.param([{"name": "b"}], id="renamed"),
            pytest.param([None, {"name": "a"}], id="removed-and-back-after-minutes"),
        ],
    )
    @pytest.mark.fault(32)
    def test_wait_that_the_api_asked_of_an_account_outlasts_a_reload(
        self, later: list[dict[str, Any] | None]
    ) -> None:
        """Whatever the account is called then, and though the poll that learned it is given up."""
        other = account("other", sid="other")
        with limited(account("a", deadline_seconds=900.0)) as (exporter, time, asked):
            for changes in later:
                time.pass_until(time.now + 200)
                named = [] if changes is None else [account(**changes)]
                exporter.reload(configuration(*named, other))
                time.adopt()
            time.pass_until(1600)
        assert asked["acme"] == pytest.approx([1000.0, 1500.0])

    @pytest.mark.fault(170)
    def test_wait_that_the_api_asked_holds_every_name_of_the_account(self) -> None:
        twins = [account(name, interval_seconds=60.0) for name in ("a", "b")]
        with limited(*twins) as (_, time, asked):
            time.pass_until(1499)
            assert asked["acme"] == [1000.0]


@contextlib.contextmanager
def limited(*accounts: Account) -> Iterator[tuple[Exporter, VirtualTime, dict[str, list[float]]]]:
    """An exporter whose API always asks to wait 500 seconds, and when it was asked, by sid."""
    time, asked = VirtualTime(), defaultdict[str, list[float]](list)

    def connect(of: Account, _monotonic: object) -> Any:
        def get(*_: object, **__: object) -> Answer:
            asked[of.sid].append(time.now)
            return Answer(429, {"Retry-After": "500"}, b"")

        return SimpleNamespace(get=get, close=lambda: None)

    exporter = Exporter(configuration(*accounts), clock=time.clock, connect=connect)
    exporter.start()
    with contextlib.closing(time):
        time.adopt()
        yield exporter, time, asked
        exporter.ask_to_stop()
        time.end(within_seconds=1)


def poll_once_into(exporter: Exporter, client: Any) -> int:
    result = poll_once(client.recorder, client.fetch_all, exporter.clock)
    exporter.page.refresh()
    assert result.snapshot is not None
    return len(result.snapshot.numbers)


class TestGone:
    @pytest.mark.fault(105)
    def test_account_that_is_removed_or_added_has_no_series_and_thread_or_both(
        self, running: Run, simulated: Simulated
    ) -> None:
        """Immediately, though the thread of the removed one waited for a poll in 5 minutes."""
        exporter = running(simulated("a"))
        polled(exporter, "a")
        exporter.reload(configuration(simulated("a"), simulated("b")))
        assert exporter.healthy()
        polled(exporter, "b")
        wait_until(lambda: 'exophone_numbers{account="b"' in scrape(exporter), "its series")
        assert pollers() == {"poller a", "poller b"}
        assert [*exporter.clients()] == ["a", "b"]
        exporter.reload(configuration(simulated("b")))
        assert 'account="a"' not in scrape(exporter)
        assert 'exophone_up{account="b"} 1.0' in scrape(exporter)
        wait_until(lambda: pollers() == {"poller b"}, "the end of its thread")
        assert [*exporter.clients()] == ["b"]
        assert exporter.healthy()

    @pytest.mark.parametrize(("again", "in_request"), [(False, True), (True, True), (False, False)])
    def test_poll_under_way_is_discarded(
        self, sim: Simulator, running: Run, simulated: Simulated, again: bool, in_request: bool
    ) -> None:
        """The account is changed or removed.

        The old walk is held in its first request, and asks for no second; or it is complete, and
        held by the clock on the way to its record.
        """
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            if not held.is_set():
                held.set()
                go_on.wait(10)

        def wall() -> float:
            if not in_request and threading.current_thread().name == "poller a" and sim.requests:
                hold()  # at the poll's end
            return 1_700_000_000.0

        if in_request:
            sim.on_request = lambda _: hold()
        size = 1 if in_request else 40
        exporter = running(simulated("a", page_size=size), clock=Clock(wall=wall))
        (old,) = (t for t in threading.enumerate() if t.name == "poller a")
        state: Any = exporter.clients()["a"].recorder
        assert held.wait(10)
        exporter.reload(configuration(simulated("a", page_size=49) if again else simulated("b")))
        polled(exporter, "a" if again else "b")
        go_on.set()
        old.join(10)
        assert not old.is_alive()
        assert state.status().polls == (1 if again else 0)
        assert [r.query["PageSize"] for r in sim.requests].count(str(size)) == 1
        if not in_request:
            assert state.status().requests["list", "200"] == 1

    def test_order_follows_the_new_file(self, time: FakeTime, simulated: Simulated) -> None:
        exporter = Exporter(configuration(simulated("a"), simulated("b")), clock=time.clock)
        for client in exporter.clients().values():
            poll_once_into(exporter, client)
        assert accounts_shown(exporter, "exophone_number_series_dropped") == ["a", "b"]
        exporter.reload(configuration(simulated("b"), simulated("a")))
        assert accounts_shown(exporter, "exophone_number_series_dropped") == ["b", "a"]
        assert accounts_shown(exporter, "exophone_poll_interval_seconds") == ["b", "a"]
        assert [*exporter.clients()] == ["b", "a"]


class TestBudget:
    """Never more than the budget in any minute, whatever is reloaded."""

    def budget(self, exporter: Exporter, name: str = "a") -> Any:
        return exporter.clients()[name].budget

    def waits(self, exporter: Exporter, count: int, name: str = "a") -> list[float]:
        slots = [self.budget(exporter, name).reserve(1000.0) for _ in range(count)]
        return [slot.at - exporter.clock.monotonic() for slot in slots]

    @pytest.mark.parametrize(
        ("after", "waits"),
        [
            pytest.param({"requests_per_minute": 1}, [61, 122], id="smaller"),
            pytest.param({"requests_per_minute": 3}, [0, 61], id="larger"),
            pytest.param({"name": "b"}, [61, 61], id="renamed"),
            pytest.param({"origin": "https://api.exotel.com:443"}, [61, 61], id="port-written-out"),
            pytest.param({"sid": "other"}, [0, 0], id="another-account"),
            pytest.param({"origin": "https://api.in.exotel.com"}, [0, 0], id="another-origin"),
        ],
    )
    def test_account_takes_what_it_spent_along(
        self, time: FakeTime, after: dict[str, Any], waits: list[float]
    ) -> None:
        """Whatever it is called, and however much it may spend then."""
        settings: dict[str, Any] = {"name": "a", "requests_per_minute": 2}
        exporter = Exporter(configuration(account(**settings)), clock=time.clock)
        assert self.waits(exporter, 2) == [0, 0]
        settings |= after
        exporter.reload(configuration(account(**settings)))
        assert self.waits(exporter, 2, settings["name"]) == waits

    def test_account_that_comes_back_has_not_a_second_budget(self, time: FakeTime) -> None:
        one, two = account("a", requests_per_minute=2), account("b", sid="other")
        exporter = Exporter(configuration(one, two), clock=time.clock)
        assert self.waits(exporter, 2) == [0, 0]
        for accounts in ([two], [two], [one, two]):
            exporter.reload(configuration(*accounts))
            time.pass_(10)
        assert self.waits(exporter, 1) == [31]

    @pytest.mark.parametrize("sizes", [(3, 2), (2, 3)], ids=str)
    def test_two_accounts_that_are_one_for_the_api_share_the_smaller_budget(
        self, time: FakeTime, sizes: tuple[int, int]
    ) -> None:
        """Whether they come together or the second by a reload."""
        accounts = [
            account(n, requests_per_minute=size) for n, size in zip("ab", sizes, strict=True)
        ]
        together = Exporter(configuration(*accounts), clock=time.clock)
        assert [*self.waits(together, 1, "a"), *self.waits(together, 2, "b")] == [0, 0, 61]
        later = Exporter(configuration(accounts[0]), clock=time.clock)
        assert self.waits(later, 1, "a") == [0]
        later.reload(configuration(*accounts))
        assert self.waits(later, 2, "b") == [0, 61]

    def test_budget_of_a_removed_account_is_let_go_in_time(self, time: FakeTime) -> None:
        one, two = account("a"), account("b", sid="other")
        exporter = Exporter(configuration(one, two), clock=time.clock)
        budget = self.budget(exporter)
        exporter.reload(configuration(two))
        time.pass_(123)
        exporter.reload(configuration(one, two))
        assert self.budget(exporter) is not budget


class TestEnds:
    def test_reload_before_the_start_starts_nothing(self, simulated: Simulated) -> None:
        exporter = Exporter(configuration(simulated("a")))
        exporter.reload(configuration(simulated("b")))
        assert pollers() == set()
        exporter.start()
        polled(exporter, "b")
        assert pollers() == {"poller b"}
        exporter.stop()
        wait_until(lambda: not pollers(), "the end of the poller")

    def test_reload_after_the_end_leaves_no_poller(
        self, sim: Simulator, running: Run, simulated: Simulated
    ) -> None:
        exporter = running(simulated("a"))
        polled(exporter, "a")
        exporter.stop()
        exporter.reload(configuration(simulated("b")))
        wait_until(lambda: not pollers(), "the end of every poller")
        assert [r.path.split("/")[3] for r in sim.requests] == ["a"]

    @pytest.mark.fault(119)
    def test_reload_before_the_first_poll_takes_its_place(
        self, running: Run, simulated: Simulated
    ) -> None:
        """The second account would have begun half a second later."""
        exporter = running(simulated("a"), simulated("b", api_key="wrong"))
        exporter.reload(configuration(simulated("b")))
        assert polled(exporter, "b").error is None
        wait_until(lambda: pollers() == {"poller b"}, "the end of the others")

    @pytest.mark.fault(131)
    def test_without_threads_nothing_changes(
        self, running: Run, simulated: Simulated, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The system refuses the second of two new threads: the first ends, the old one goes on."""
        exporter = running(simulated("a"))
        polled(exporter, "a")
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "poller c":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StartError, match="no thread can be started"):
            exporter.reload(configuration(simulated("b"), simulated("c")))
        assert [status.account.name for status in exporter.statuses()] == ["a"]
        wait_until(lambda: pollers() == {"poller a"}, "the end of the new one")
        assert exporter.healthy()


class TestRendering:
    @pytest.mark.fault(120)
    def test_poll_that_cannot_be_rendered_is_a_failure_and_not_a_success(
        self, running: Run, simulated: Simulated, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or old figures would be shown with a new time of success."""
        exporter = running(simulated("a", interval_seconds=0.1))
        polled(exporter, "a")
        monkeypatch.setattr(page, "inventory_of", broken)

        def failed(times: int) -> AccountStatus:
            wait_until(lambda: view_of(exporter, "a").failures["internal"] >= times, "failures")
            return view_of(exporter, "a")

        first, later = failed(1), failed(3)
        assert (later.snapshot is first.snapshot, str(later.error)) == (True, "MemoryError")
        assert later.polls - first.polls == later.failures["internal"] - first.failures["internal"]
        assert 'exophone_up{account="a"} 0.0' in scrape(exporter)
        assert len(accounts_shown(exporter, "exophone_number_info")) == 3

    def test_reload_whose_page_cannot_be_rendered_changes_nothing(
        self, running: Run, simulated: Simulated, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exporter = running(simulated("a"))
        polled(exporter, "a")
        monkeypatch.setattr(page, "inventory_of", broken)
        with pytest.raises(MemoryError):
            exporter.reload(configuration(simulated("a", page_size=7), simulated("b")))
        monkeypatch.undo()
        assert [status.account.poll.page_size for status in exporter.statuses()] == [50]
        assert accounts_shown(exporter, "exophone_poll_interval_seconds") == ["a"]
        wait_until(lambda: pollers() == {"poller a"}, "the end of the new ones")
        assert exporter.healthy()


def broken(*_: object) -> None:
    raise MemoryError


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.fault(105)
def test_every_scrape_during_500_reloads_is_whole_and_of_one_configuration(
    simulated: Simulated,
) -> None:
    """Every family about polling has exactly its accounts, those of the inventory none besides."""
    threads, descriptors = threading.active_count(), open_descriptors()
    configurations = {
        # b: its own series in the one, and none and another interval in the other.
        ("a", "b"): configuration(simulated("a"), simulated("b", interval_seconds=100.0)),
        ("b", "c"): configuration(
            simulated("b", interval_seconds=200.0, per_number=NONE), simulated("c")
        ),
    }
    exporter = Exporter(configurations["a", "b"])
    exporter.start()
    polled(exporter, "b")
    bodies: list[str] = []
    turns = threading.Semaphore(0)  # as many scrapes as reloads have begun, so that both go on

    def scrape_often() -> None:
        for _ in range(125):
            assert turns.acquire(timeout=10)
            bodies.append(scrape(exporter))

    scrapers = [threading.Thread(target=scrape_often) for _ in range(4)]
    for scraper in scrapers:
        scraper.start()
    for turn in range(500):
        turns.release()
        exporter.reload(configurations["b", "c"] if turn % 2 == 0 else configurations["a", "b"])
    for scraper in scrapers:
        scraper.join()
    exporter.stop()
    assert len(bodies) == 500
    seen = {shown_configuration(body) for body in set(bodies)}
    assert seen == set(configurations)
    wait_until(lambda: threading.active_count() <= threads, "the end of every poller")
    wait_until(lambda: open_descriptors() <= descriptors, "every connection closed")


def shown_configuration(body: str) -> tuple[str, ...]:
    """The accounts that a scrape shows, having checked that all of it agrees."""
    assert body.endswith("\n")
    shown: dict[str, Sequence[str]] = {}
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(body):
        if family.name.startswith("exophone_"):
            labels = [s.labels["account"] for s in family.samples if "account" in s.labels]
            shown[family.name] = [*dict.fromkeys(labels)]
            values |= {(family.name, s.labels.get("account", "")): s.value for s in family.samples}
    accounts = shown.pop("exophone_poll_interval_seconds")
    about_polling = ("exophone_polls", "exophone_poll_last_attempt_timestamp_seconds")
    for name in (*about_polling, "exophone_poll_failures", "exophone_api_wait_seconds"):
        assert shown[name] == accounts
    assert all(set(names) <= set(accounts) for names in shown.values())
    interval = values["exophone_poll_interval_seconds", "b"]
    with_series = shown.get("exophone_number_info", [])
    assert interval == (100.0 if accounts == ["a", "b"] else 200.0)
    assert ("b" in with_series) == (interval == 100.0)
    return tuple(accounts)
