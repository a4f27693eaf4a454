"""What the exporter must do and show, kept apart from it, from what happens to it alone.

The model hears of every request and answer from the API's side, of every reload and clock step from
their makers, and reads no state of the exporter's: it says what is wrong when the exporter
asks too much, too soon, too late or twice, and compares what is shown with what must be.

All times are in seconds of the monotonic clock unless they are a `Moment`.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import Account
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.state import AccountStatus
from exophone_exporter.polling.exporter import Exporter
from tests.lib.simulation.virtual_time import VirtualTime

JITTER: Final = 0.05
SPREAD_SECONDS: Final = 0.5
MINUTE: Final = 60.0
# What the sums of many floats may be off.
EPSILON: Final = 1e-4
EDGE: Final = 1e-3
# Beyond these the last events are not kept for the report of a failure.
LAST_EVENTS: Final = 60


class Number(NamedTuple):
    """One number as the API has it; a flow is an id, "" where none is attached."""

    sid: str
    name: str
    voice: str
    sms: str
    rental: int


@dataclass
class Known:
    """What must be known of one account, however often its settings change."""

    polls: int = 0
    failed: int = 0
    attempted: ClockReading | None = None
    up: bool = False
    numbers: dict[str, Number] | None = None
    # From how many complete walks in a row numbers were missing that are shown all the same.
    missed: dict[str, int] = field(default_factory=dict)
    completed: ClockReading | None = None
    # Counters of which the model only knows that they never fall.
    seen: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Watched:
    """One account of the configuration: by which settings, and when it was last polled.

    The first poll is due at `due_at`. A wait notices a suspend late, at most by `late_seconds`.
    """

    account: Account
    known: Known
    due_at: float
    started: ClockReading | None = None
    walk: Call | None = None
    took_seconds: float = 0.0
    overdue_at: float = math.inf
    late_seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        return self.account.origin, self.account.sid


@dataclass(eq=False)
class Call:
    """One walk or one probe, from its first moment to its last."""

    watched: Watched
    is_walk: bool
    started: ClockReading
    suspended_seconds: float
    given_up: bool = False
    found: dict[str, Number] = field(default_factory=dict)
    empty: Counter[int] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    there: dict[str, Number] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    listed: bool = False
    failed: bool = False
    final: bool = False


@dataclass
class Traffic:
    """The requests of one account, whatever its names, by the API's own clock.

    It wants none until `held_until`.
    """

    arrivals: list[float] = field(default_factory=list)
    held_until: float = 0.0
    calls: set[Call] = field(default_factory=set)


class Model:
    """Notes what happens, and blames the exporter for what must not.

    `news` is set where a poll has ended, whose result `settle` then compares; and where one has
    begun while `ambush` was set, which it then no longer is.
    """

    def __init__(self, time: VirtualTime) -> None:
        self.time = time
        self.watched: dict[str, Watched] = {}
        self.news = threading.Event()
        self.ambush = False
        self.blames: list[str] = []
        self.events: deque[str] = deque(maxlen=LAST_EVENTS)
        self.traffic: dict[tuple[str, str], Traffic] = {}
        self.reasons: Counter[str] = Counter()
        self.ratios: list[float] = []
        self.polls = self.requests = self.given_up = self.scrapes = self.unconfirmed = 0
        self.fingerprint = 0
        self._ended: list[Call] = []
        self._scraped_at = -math.inf
        self._inventory: tuple[list[bytes], dict[str, set[tuple[str, ...]]]] = ([], {})

    def note(self, event: str) -> None:
        line = f"{self.time.now:.3f} {event}"
        self.fingerprint = hash((self.fingerprint, self.time.now, len(event)))
        self.events.append(line)

    def blame(self, what: str) -> None:
        self.note(f"WRONG {what}")
        self.blames.append(f"at {self.time.now:.3f}: {what}")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.blame(what)

    # What the driver does

    def load(self, accounts: Sequence[Account], equal: Iterable[str] = ()) -> None:
        """Another configuration is loaded; the accounts named in `equal` do not differ."""
        equal, now, begins = {*equal}, self.time.true, 0
        before, self.watched, self._scraped_at = self.watched, {}, -math.inf
        for account in accounts:
            old = before.get(account.name)
            if account.name in equal and old is not None:
                self.watched[account.name] = old
                continue
            goes_on = old is not None and old.key == (account.origin, account.sid)
            known = old.known if goes_on and old is not None else Known()
            due_at = now + SPREAD_SECONDS * begins
            self.watched[account.name] = Watched(account, known, due_at)
            begins += 1
        staying = {*self.watched.values()}
        for old in before.values():
            if old not in staying:
                self._give_up(old)

    def is_polled(self, account: Account) -> bool:
        watched = self.watched.get(account.name)
        return watched is not None and watched.walk is not None

    def _give_up(self, old: Watched) -> None:
        for call in self._of(old).calls:
            if call.watched is old:
                call.given_up = True
                self.given_up += call.is_walk

    def woke(self) -> None:
        """The machine slept: what has become due begins within a slice of a wait."""
        for watched in self.watched.values():
            watched.overdue_at, watched.late_seconds = math.inf, self.time.clock.slice_seconds
            if watched.walk is None and self._due_at(watched) <= self.time.true:
                watched.overdue_at = self.time.now + self.time.clock.slice_seconds

    def _due_at(self, watched: Watched) -> float:
        """When the next poll, as late as jitter allows, begins."""
        held_until = self._of(watched).held_until
        if watched.started is None:
            return max(watched.due_at, held_until)
        interval = (1 + JITTER) * watched.account.poll.interval_for(0)
        return max(watched.started.monotonic + max(interval, watched.took_seconds), held_until)

    def _of(self, watched: Watched) -> Traffic:
        return self.traffic.setdefault(watched.key, Traffic())

    # What the API hears

    def opened(self, account: Account, *, is_walk: bool) -> Call:
        watched = self.watched.get(account.name)
        if watched is None or watched.account is not account:
            self.expect(not is_walk, f"{account.name} is polled by settings that are gone")
            watched = Watched(account, Known(), self.time.true)
        call = Call(watched, is_walk, self.time.moment, self.time.suspended_seconds)
        self._of(watched).calls.add(call)
        if is_walk:
            self._begin(call)
        return call

    def _begin(self, call: Call) -> None:
        watched = call.watched
        name = watched.account.name
        self.note(f"poll {name}")
        others = [
            other
            for other in self._of(watched).calls
            if other.is_walk and other is not call and not other.given_up
        ]
        self.expect(not others, f"{name} is polled twice in parallel")
        self._check_not_early(watched)
        self._check_not_late(watched, EPSILON)
        if self.ambush:
            self.ambush = False
            self.news.set()
        watched.started, watched.walk = call.started, call
        watched.due_at = watched.overdue_at = math.inf
        watched.late_seconds = 0.0

    def _check_not_early(self, watched: Watched) -> None:
        if watched.started is None:
            self.expect(
                self.time.true >= watched.due_at - EPSILON, f"{watched.account.name} crowds in"
            )
            return
        passed = self.time.moment.seconds_since(watched.started)
        interval = watched.account.poll.interval_for(0)
        least = (1 - JITTER) * interval - EPSILON
        self.expect(passed >= least, f"{watched.account.name} is polled after {passed:.1f}s only")
        if watched.took_seconds < least and passed < (1 + JITTER) * interval + EPSILON:
            self.ratios.append(passed / interval)

    def _check_not_late(self, watched: Watched, slack: float) -> None:
        name, slack = watched.account.name, slack + watched.late_seconds
        if watched.overdue_at != math.inf:
            held_until = self._of(watched).held_until - self.time.suspended_seconds
            at = max(watched.overdue_at, held_until)
            self.expect(self.time.now <= at + slack, f"{name} is not polled after a resume")
            return
        self.expect(self.time.true <= self._due_at(watched) + slack, f"{name} is polled late")

    def sent(self, call: Call, sid: str, travels_seconds: float) -> None:
        """A request leaves, and reaches the API so much later; `sid` is "" for the list."""
        if sid:
            call.asked.append(sid)
        watched, name = call.watched, call.watched.account.name
        self.requests += 1
        if call.is_walk:
            self.expect(not call.given_up, f"the poll of {name} asks on after it was given up")
            self.expect(not call.final, f"{name} is asked again after a final answer")
            call.failed = False
            self.expect(not sid or call.listed, f"{name} is asked for {sid} too early")
        left = self._of(watched).held_until - self.time.true
        self.expect(left <= EPSILON, f"{name} is asked {left:.1f}s before the API wants it")
        self._check_budget(watched, travels_seconds)

    def _check_budget(self, watched: Watched, travels_seconds: float) -> None:
        """Any minute of the API's holds no more requests than the account may make."""
        traffic, limit = self._of(watched), watched.account.poll.requests_per_minute
        arrival = self.time.true + travels_seconds
        arrivals = traffic.arrivals
        insort(arrivals, arrival)
        while arrivals[0] < arrival - 3 * MINUTE:
            arrivals.pop(0)
        position = arrivals.index(arrival)
        for first in range(max(0, position - limit), position + 1):
            if first + limit < len(arrivals) and (
                arrivals[first + limit] - arrivals[first] < MINUTE
            ):
                self.blame(f"{watched.account.name} has more than {limit} requests in a minute")
                break

    def failed(self, call: Call, *, final: bool, defect: bool = False) -> None:
        """A request got no answer, or a bad one; after a final one the poll must not go on.

        A question about one number is not asked again, and fails nothing but by a defect.
        """
        if not call.listed or defect:
            call.failed, call.final = True, final

    def limited(self, call: Call, seconds: float | None) -> None:
        """The API asked to wait so long; None where it did not say so in a way that counts."""
        self.failed(call, final=False)
        traffic = self._of(call.watched)
        if seconds is not None:
            traffic.held_until = max(traffic.held_until, self.time.true + seconds)

    def listed(
        self, call: Call, index: int, numbers: Sequence[Number], *, more: bool | None
    ) -> None:
        """A page of the list was given; `more` is None where it says nothing of a next one.

        An empty page that promises more is asked for twice, and two of them are the end.
        """
        new = {number.sid: number for number in numbers if number.sid not in call.found}
        call.found |= new
        if numbers or not more:
            call.listed = not new or more is False
        else:
            call.empty[index] += 1
            call.listed = call.empty[index] == call.empty[index - 1] == 2

    def ended(self, call: Call) -> None:
        """A page behind a good one was refused: the list ends before it."""
        call.listed = True

    def detailed(self, call: Call, sid: str, number: Number | None, *, gone: bool = False) -> None:
        """The detail endpoint gave a number, or said that it is gone, or said nothing useful."""
        if gone:
            call.gone.add(sid)
        elif number is not None:
            call.there[sid] = number

    def closed(self, call: Call) -> None:
        self._of(call.watched).calls.discard(call)
        if not call.is_walk or call.given_up:
            return
        call.watched.walk = None
        took = self.time.true - call.started.monotonic
        call.watched.took_seconds = took
        took -= self.time.suspended_seconds - call.suspended_seconds
        deadline_seconds = call.watched.account.poll.deadline_seconds
        self.expect(took <= deadline_seconds + EPSILON, f"a poll took {took:.1f}s")
        self._ended.append(call)
        self.news.set()

    # What must be shown

    def settle(self, statuses: Sequence[AccountStatus]) -> None:
        self.news.clear()
        ended, self._ended = self._ended, []
        if self.blames:
            return
        by_name = {status.account.name: status for status in statuses}
        for call in ended:
            self._scraped_at = -math.inf  # the page is made again
            self.polls += 1
            self._settle(call, by_name[call.watched.account.name])

    def _settle(self, call: Call, status: AccountStatus) -> None:
        known, now = call.watched.known, self.time.moment
        known.polls += 1
        started = now.before(now.monotonic - call.started.monotonic)
        known.attempted, known.up = started, status.error is None
        name, complete = call.watched.account.name, call.listed and not call.failed
        numbers = self._numbers_after(call) if complete else None
        if status.error is None:
            self.note(f"{name} has {len(call.found)}")
            self.expect(numbers is not None, f"the poll of {name} must not count as a success")
            known.numbers, known.completed = numbers, started
        else:
            reason = status.error.reason
            self.note(f"{name} fails: {reason}")
            may_fail = not complete or (numbers is None and reason == "pagination")
            self.expect(may_fail, f"the complete poll of {name} fails with {reason}")
            self.reasons[reason] += 1
            known.failed += 1
        self._compare(call.watched, status)

    def _numbers_after(self, call: Call) -> dict[str, Number] | None:
        """What is shown after a complete walk: what it lacks is kept until it is known to be gone.

        None where the list shifted.
        """
        known = call.watched.known
        before = known.numbers or {}
        missed = {sid: known.missed.get(sid, 0) + 1 for sid in before if sid not in call.found}
        doubtful = [sid for sid, walks in missed.items() if walks < 3]
        name = call.watched.account.name
        must = doubtful[: min(20, len(call.asked))]
        self.expect(call.asked == must, f"{name} is asked for {call.asked} and not {must}")
        if len(doubtful) > 20 and call.there:
            known.missed = missed
            return None
        kept = {sid: call.there.get(sid, before[sid]) for sid in doubtful if sid not in call.gone}
        known.missed = {sid: missed[sid] for sid in kept}
        self.unconfirmed += bool(kept)
        return call.found | kept

    def _compare(self, watched: Watched, status: AccountStatus) -> None:
        """The exporter's view of one account, after each poll."""
        known, name, snapshot = watched.known, watched.account.name, status.snapshot
        shown = (status.polls, sum(status.failures.values()), status.last_attempt, status.account)
        must = (known.polls, known.failed, known.attempted, watched.account)
        self.expect(shown == must, f"{name} is {shown} and must be {must}")
        completed = None if snapshot is None else snapshot.started
        self.expect(completed == known.completed, f"the last complete poll of {name}: {completed}")
        if snapshot is not None:
            numbers = {number.sid: as_sent(number) for number in snapshot.numbers}
            self.expect(numbers == known.numbers, f"the numbers of {name}: {numbers}")

    def edges(self) -> Iterator[float]:
        """When next to look: just before and just after data becomes too old to be served."""
        for watched in self.watched.values():
            completed = watched.known.completed
            if completed is not None and self._is_fresh(watched):
                stale_after = watched.account.poll.stale_after_seconds
                at = completed.monotonic + stale_after - self.time.suspended_seconds
                yield at - EDGE if at - 2 * EDGE > self.time.now else at + EDGE

    def _is_fresh(self, watched: Watched) -> bool:
        completed = watched.known.completed
        if completed is None:
            return False
        age = self.time.moment.seconds_since(completed)
        return age <= watched.account.poll.stale_after_seconds

    def check(self, exporter: Exporter) -> None:
        """Whether everything lives, nothing is late, and the page shows what must be shown."""
        self.expect(exporter.healthy(), "the exporter is not healthy")
        attempted = all(watched.known.attempted for watched in self.watched.values())
        self.expect(exporter.ready() == attempted, f"the exporter is ready: {not attempted}")
        for watched in self.watched.values():
            if watched.walk is None:
                self._check_not_late(watched, EPSILON)
        *inventory, live = exporter.page.chunks(openmetrics=False, gzipped=False)
        self.scrapes += 1
        # A page serves for a second, unless a poll ends or something in it becomes too old.
        is_new = self.time.now > self._scraped_at + 1 + EPSILON
        self._scraped_at = self.time.now
        self._check_inventory(inventory, is_new=is_new)
        if is_new:
            self._check_live(by_account(live))

    def _check_inventory(self, texts: list[bytes], *, is_new: bool) -> None:
        if texts != self._inventory[0]:
            accounts = by_account(b"".join(texts))
            self._inventory = texts, {name: _inventory_of(accounts[name]) for name in accounts}
        shown = self._inventory[1]
        fresh = {name for name, watched in self.watched.items() if self._is_fresh(watched)}
        self.expect(
            {*shown} == fresh or ({*shown} < fresh and not is_new),
            f"inventory of {sorted({*shown} - fresh)} is shown and must not be,"
            f" of {sorted(fresh - {*shown})} is not and must be",
        )
        for name in fresh & {*shown}:
            numbers = (self.watched[name].known.numbers or {}).values()
            must = {(number.sid, number.name, number.voice, number.sms) for number in numbers}
            self.expect(shown[name] == must, f"inventory of {name}")

    def _check_live(self, shown: Mapping[str, dict[str, float]]) -> None:
        self.expect([*shown] == [*self.watched], f"the page shows {[*shown]}")
        for name, watched in self.watched.items():
            values = shown.get(name, {})
            wrong = {
                series: (values.get(series), value)
                for series, value in _expected(watched).items()
                if values.get(series) != value
            }
            self.expect(not wrong, f"series of {name}, shown and expected: {wrong}")
            self._check_growth(watched, values)

    def _check_growth(self, watched: Watched, values: Mapping[str, float]) -> None:
        name, seen = watched.account.name, watched.known.seen
        for series, value in values.items():
            if series.partition(",")[0].endswith(("_total", "_count", "_bucket")):
                self.expect(value >= seen.get(series, 0.0), f"{series} of {name} fell to {value}")
                seen[series] = value


def as_sent(number: ExoPhone) -> Number:
    rental = int(number.rental_price or 0)
    voice, sms = number.flow_id("voice"), number.flow_id("sms")
    return Number(number.sid, number.friendly_name, voice, sms, rental)


def by_account(text: bytes) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for line in text.decode().split("\n"):
        name, is_labelled, rest = line.partition('{account="')
        if is_labelled and not name.startswith("#"):
            account, _, rest = rest.partition('"')
            labels, _, value = rest.rpartition("} ")
            found.setdefault(account, {})[name + labels] = float(value)
    return found


def _inventory_of(values: Mapping[str, float]) -> set[tuple[str, ...]]:
    numbers = set()
    for series in values:
        if series.startswith("exophone_number_info,"):
            pairs = (pair.partition('="') for pair in series.split(",")[1:])
            label = {name: value[:-1] for name, _, value in pairs}
            names = ("sid", "friendly_name", "voice_flow_id", "sms_flow_id")
            numbers.add(tuple(label[name] for name in names))
    return numbers


def _expected(watched: Watched) -> dict[str, float | None]:
    """Series of one account without the label of its name; None for one that must be absent."""
    known, poll = watched.known, watched.account.poll
    return {
        "exophone_up": None if known.attempted is None else float(known.up),
        "exophone_poll_stale_after_seconds": poll.stale_after_seconds,
        "exophone_poll_last_attempt_timestamp_seconds": _wall(known.attempted),
        "exophone_poll_last_success_timestamp_seconds": _wall(known.completed),
        "exophone_polls_total": known.polls,
        "exophone_poll_unconfirmed_numbers": None if known.numbers is None else len(known.missed),
    }


def _wall(reading: ClockReading | None) -> float:
    return reading.wall if reading else 0.0
