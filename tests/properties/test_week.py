"""A week of twenty accounts in some seconds: whatever happens, the promises of time are kept.

The exporter is the real one, with its threads, its waits and its retries; the clock and the API are
ours (`virtual_time`, `week_world`), and a model of their own (`week_model`) says after each step
what must hold. All chance comes from one seed, which a failure tells, with the last events:

    EXOPHONE_WEEKS=50 pytest tests/properties/test_week.py   # the seeds 1 to 50, as `make week`
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from exophone_exporter.config.settings import Account, Config
from exophone_exporter.errors import REASONS, PollError, Stopped
from exophone_exporter.polling.exporter import Exporter
from tests.lib.simulation.virtual_time import VirtualTime
from tests.lib.simulation.week_model import JITTER, Model, Number
from tests.lib.simulation.week_world import AFTERLIVES, BEHIND, Api, ApiAccount
from tests.lib.support import account

SEEDS = range(1, 1 + int(os.environ.get("EXOPHONE_WEEKS", "1")))
ACCOUNTS = 20
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WEEK = 7 * DAY
EVENT_EVERY_SECONDS = 400.0
# Each slice of a wait is a change of threads: most of what a week costs on a busy machine.
SLICE_SECONDS = 240.0
ORIGINS = ("https://api.exotel.com", "https://api.in.exotel.com")


class Week:
    """What happens: the configuration and its reloads, the numbers, the weather, and the clocks."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.time = VirtualTime(slice_seconds=SLICE_SECONDS)
        self.model = Model(self.time)
        self.api = Api(self.time, self.model, Random(seed))
        self._count = 0
        self.accounts = [self._new_account() for _ in range(ACCOUNTS)]
        self.exporter = Exporter(
            Config("week", tuple(self.accounts), ()),
            clock=self.time.clock,
            connect=self.api.connect,
            on_death=lambda: self.model.blame("a poller died"),
        )
        self.model.load(self.accounts)

    # What is configured

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _new_account(self) -> Account:
        n = self._next()
        sid, origin = f"sid{n}", self.random.choice(ORIGINS)
        says_more, behind = self.random.choice([True, None, False]), self.random.choice(BEHIND)
        own = ApiAccount(sid, says_more=says_more, behind=behind)
        self.api.accounts[origin, sid] = own
        for _ in range(50 if n % 10 == 0 else self.random.randint(0, 8)):
            self._buy(own)
        return account(f"account{n}", sid=sid, origin=origin, **self._settings(n))

    def _settings(self, n: int) -> dict[str, Any]:
        rng = self.random
        interval = rng.choice([300.0, 1200.0, 1800.0, 3600.0, 3600.0, 3600.0])
        stale_after = interval * rng.choice([1.2, 1.5, 3.0, 3.0])
        return {
            "interval_seconds": interval,
            "stale_after_seconds": stale_after,
            "timeout_seconds": rng.choice([2.0, 10.0, 30.0]),
            "deadline_seconds": min(stale_after, rng.choice([30.0, 120.0, 300.0, 600.0])),
            "page_size": rng.choice([4, 10]) if n % 10 == 0 else rng.choice([3, 50, 50]),
            "requests_per_minute": rng.choice([5, 8]) if n % 10 == 0 else rng.choice([5, 20, 50]),
        }

    def start(self) -> None:
        self.exporter.start()
        self.time.adopt()

    # What happens

    def happen(self) -> None:
        happenings: list[tuple[Callable[[], None], int]] = [
            (self.numbers_change, 30),
            (self.weather_changes, 30),
            (self.someone_probes, 20),
            (self.configuration_is_reloaded, 10),
            (self.clock_is_set, 4),
            (self.machine_sleeps, 3),
            (lambda: None, 20),
        ]
        (happening,) = self.random.choices(
            [what for what, _ in happenings], [often for _, often in happenings]
        )
        happening()

    def _any(self) -> Account:
        busy = [own for own in self.accounts if self.model.is_polled(own)]
        some = busy if busy and self.random.random() < 0.5 else self.accounts
        return self.random.choice(some)

    def _any_of_the_api(self) -> ApiAccount:
        return self.api.accounts[self._key(self._any())]

    def _key(self, of: Account) -> tuple[str, str]:
        return of.origin, of.sid

    def _buy(self, own: ApiAccount) -> None:
        n = self._next()
        voice, sms = self.random.choices(["", "11", "22"], k=2)
        rental = self.random.choice([0, 499, 999])
        own.numbers[f"0{n}"] = Number(f"0{n}", f"name {n}", voice, sms, rental)
        own.changed()

    def numbers_change(self) -> None:
        own, rng = self._any_of_the_api(), self.random
        many = rng.choice([1, 1, 2, 3, 30])
        flood = many > 3 and rng.random() < 0.3
        for _ in range(many):
            sids = [*own.numbers]
            what = "drop" if flood else rng.choice(["buy", "drop", "change", "change"])
            if (what == "buy" and len(sids) < 60) or not sids:
                self._buy(own)
            elif what == "drop":
                own.drop(rng.choice(sids), rng.choice(AFTERLIVES))
            else:
                sid = rng.choice(sids)
                own.numbers[sid] = self._otherwise(own.numbers[sid])
        own.changed()

    def _otherwise(self, number: Number) -> Number:
        choose = self.random.choice
        what = choose(["voice", "sms", "rental", "name"])
        if what == "voice":
            return number._replace(voice=choose(["", "11", "22", "33"]))
        if what == "sms":
            return number._replace(sms=choose(["", "11", "22", "33"]))
        if what == "rental":
            return number._replace(rental=choose([0, 499, 999]))
        return number._replace(name=f"name {self._next()}")

    def weather_changes(self) -> None:
        weather = self.api.new_weather()
        several = self.random.random() < 0.1
        for own in [self._any_of_the_api() for _ in range(8 if several else 1)]:
            own.weather = weather
        self.model.note(f"weather {weather}")

    def someone_probes(self) -> None:
        clients = self.exporter.clients()
        client = clients[self.random.choice([*clients])]
        sids = [*self.api.accounts[self._key(client.account)].numbers, "nobody"]
        within = self.random.choice([0.4, 10.0, 90.0])
        for _ in range(self.random.choice([1, 1, 4])):
            sid = self.random.choice(sids)

            def probe(sid: str = sid) -> None:
                with contextlib.suppress(PollError, Stopped, ZeroDivisionError):
                    client.fetch_number(sid, within)

            self.time.spawn(f"probe {self._next()}", probe)
        self.model.note(f"probes of {client.account.name}")

    def clock_is_set(self) -> None:
        seconds = self.random.choice([-3 * DAY, -HOUR, -30.0, 30.0, HOUR, 3 * DAY])
        self.model.note(f"the wall clock is set by {seconds}")
        self.time.step(seconds)

    def machine_sleeps(self) -> None:
        seconds = self.random.choice([10.0, 600.0, HOUR, 8 * HOUR])
        self.model.note(f"the machine sleeps for {seconds}")
        self.time.suspend(seconds)
        self.model.woke()

    def configuration_is_reloaded(self) -> None:
        """Some accounts are removed, changed, renamed, swapped or added; the others are equal."""
        before = self.accounts
        rng = self.random
        after = [replace(own) for own in before]
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            self._change_one(after)
        if rng.random() < 0.2:
            rng.shuffle(after)
        self.accounts = after
        self._load(before)

    def _change_one(self, after: list[Account]) -> None:
        rng, chosen = self.random, self._any().name
        place = next((i for i, own in enumerate(after) if own.name == chosen), 0)
        own = after[place]
        what = rng.choice(["poll", "poll", "budget", "key", "rename", "swap", "gone", "back"])
        if what == "poll":
            n = int(own.sid.removeprefix("sid"))
            after[place] = account(own.name, sid=own.sid, origin=own.origin, **self._settings(n))
        elif what == "budget":
            poll = replace(own.poll, requests_per_minute=rng.choice([3, 10, 50]))
            after[place] = replace(own, poll=poll)
        elif what == "key":
            after[place] = replace(own, proxy_url=f"http://proxy{self._next()}.test")
        elif what == "rename":
            after[place] = replace(own, name=f"renamed{self._next()}")
        elif what == "swap":
            other = rng.randrange(len(after))
            names = own.name, after[other].name
            after[other] = replace(after[other], name=names[0])
            after[place] = replace(after[place], name=names[1])
        elif len(after) > ACCOUNTS - 3:
            del after[place]
        else:
            self._add_one(after)

    def _add_one(self, after: list[Account]) -> None:
        """An account that is new, or one that was there before and comes back."""
        taken = {self._key(own) for own in after}
        known = [key for key in self.api.accounts if key not in taken]
        if not known or self.random.random() < 0.3:
            after.append(self._new_account())
            return
        origin, sid = self.random.choice(known)
        n = int(sid.removeprefix("sid"))
        name = self.random.choice([f"account{n}", f"again{self._next()}"])
        if name not in {own.name for own in after}:
            after.append(account(name, sid=sid, origin=origin, **self._settings(n)))

    def _load(self, before: list[Account]) -> None:
        same = {own.name for own in self.accounts if own in before}
        self.model.note(f"reload: {sorted({own.name for own in self.accounts} - same)}")
        self.exporter.reload(Config("week", tuple(self.accounts), ()))
        self.time.adopt()
        self.model.load(self.accounts, same)

    # How it goes

    def pass_(self, seconds: float) -> None:
        """Let so much time of the API's pass, and check everything after each step."""
        time, model = self.time, self.model
        ends_at, next_at = time.true + seconds, time.now
        while time.true < ends_at and not model.blames:
            time.pass_until(min(next_at, *model.edges(), time.now + HOUR), model.news)
            if model.news.is_set():
                if next_at == math.inf and not model.ambush:
                    next_at = time.now + self.random.choice([0.1, 0.5, 1.0, 5.0, 100.0])
                model.settle(self.exporter.statuses())
                if model.polls % 20:
                    continue
            elif time.now >= next_at:
                self.happen()
                next_at = self._next_at()
            model.check(self.exporter)

    def _next_at(self) -> float:
        """When the next thing happens: some time, or soon after the next poll has begun."""
        self.model.ambush = self.random.random() < 0.4
        if self.model.ambush:
            return math.inf
        return self.time.now + self.random.expovariate(1 / EVENT_EVERY_SECONDS)

    def end(self) -> None:
        """All threads end by themselves when asked to."""
        self.exporter.ask_to_stop()
        self.time.end(within_seconds=10 * MINUTE)
        self.exporter.stop()


@contextlib.contextmanager
def simulated(seed: int) -> Iterator[Week]:
    """A week that is over at the end; a failure tells its seed and its last events."""
    before = random.getstate()
    random.seed(seed)
    week = Week(seed)
    try:
        week.start()
        yield week
        week.end()
    except BaseException as error:
        week.exporter.ask_to_stop()
        week.time.close()
        error.add_note(f"seed {seed}, at {week.time.now:.3f}, after these events:")
        error.add_note("\n".join(week.model.events))
        raise
    finally:
        random.setstate(before)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A week of failures would log thousands of lines, which other tests look at."""
    caplog.set_level("CRITICAL", logger="exophone_exporter")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.fault(124, 125, 126, 127)
def test_promises_of_time_are_kept_for_a_week(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    """Of budget, freshness, age, order and life; the model says which one was broken, and when."""
    with simulated(seed) as week:
        week.pass_(WEEK)
        model = week.model
        assert not model.blames
    for what in ("polls", "requests", "scrapes", "given_up", "unconfirmed"):
        record_property(what, getattr(model, what))
    record_property("steps", week.time.steps)
    # Each reason has its weather in every week, but a short one may fall between two polls.
    assert len({*REASONS} - {*model.reasons}) <= 2
    assert min(model.ratios) < 1 - 0.9 * JITTER
    assert max(model.ratios) > 1 + 0.9 * JITTER


@pytest.mark.parametrize("seed", [2, 3])
def test_same_seed_gives_the_same_day(seed: int) -> None:
    """Otherwise a failure could not be looked at again."""
    fingerprints = set()
    for _ in range(2):
        with simulated(seed) as week:
            week.pass_(DAY)
            assert not week.model.blames
        fingerprints.add(week.model.fingerprint)
    assert len(fingerprints) == 1
