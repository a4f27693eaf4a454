"""Any server of the list at all, moving and lying, over many polls: the list wins in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from exophone_exporter.errors import BadEnvelope, Forbidden, NotFound, ServerFailed
from exophone_exporter.exotel.listing import (
    MAX_CONFIRMATIONS,
    Listing,
    confirm_removals,
    fetch_listing,
)
from exophone_exporter.exotel.model import ExoPhone, Page, parse_number, parse_page
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.polling.poller import poll_once
from tests.lib.strategies import share
from tests.lib.support import INDIA, FakeTime, account

PAGES_MAX: Final = 80
HONEST: Final = "honest"
ERRORS: Final = {
    "fails": ServerFailed("500"),
    "refuses": Forbidden("403"),
    "garbage": BadEnvelope("no"),
}


@dataclass(frozen=True)
class Nature:
    """What kind of server it is; each word is one way of telling, or of lying.

    `cap` is the most numbers that it puts on a page, whatever was asked for; `sees` the most that
    it shows in all. `holes` are pages that are empty, `bad` places in the list that hold a record
    without a sid, and a page from `breaks` on is an error with `behind` as its status.
    """

    cap: int = 100
    states_page: str = HONEST
    states_size: str = HONEST
    more: str = HONEST
    offset: str = HONEST
    detail: tuple[str, ...] = (HONEST,)
    sees: int = 1000
    endless: bool = False
    holes: frozenset[int] = frozenset()
    bad: frozenset[int] = frozenset()
    breaks: int = 1000
    behind: int = 404


@dataclass
class Server:
    """The numbers of an account, which change after each request, and the server before them."""

    numbers: list[str]
    changes: list[str] = field(default_factory=list)
    nature: Nature = field(default_factory=Nature)
    lists: int = 0
    asked: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    ever: set[str] = field(default_factory=set)

    def page(self, index: int, size: int) -> Page:
        self.lists += 1
        if index >= self.nature.breaks:
            error = NotFound("404") if self.nature.behind == 404 else ServerFailed("500")
            error.status = self.nature.behind
            raise error
        answer = json.dumps(self._list(index, size)).encode()
        self._change()
        page = parse_page(answer, INDIA)
        self.ever |= {number.sid for number in page.numbers}
        return page

    def number(self, sid: str) -> ExoPhone:
        self.asked.append(sid)
        way = self.nature.detail[(len(self.asked) - 1) % len(self.nature.detail)]
        if way in ERRORS:
            raise ERRORS[way]
        if way == HONEST and sid not in self.numbers:
            raise NotFound("404")
        self.there.append(sid)
        return parse_number(json.dumps({"sid": sid}).encode(), INDIA)

    def _list(self, index: int, size: int) -> dict[str, Any]:
        nature, given_size = self.nature, min(size, self.nature.cap)
        start = {
            HONEST: index * given_size,
            "ignores Page": 0,
            "clamps": min(index * given_size, max(0, len(self.numbers) - 1)),
            "by what was asked": index * size,
            "overlaps": index * max(1, given_size - 1),
        }[nature.offset]
        seen = self.numbers[: nature.sees]
        sids = seen[start : start + given_size]
        if nature.endless:
            sids = [f"endless-{self.lists}-{place}" for place in range(given_size)]
        is_last = start + given_size >= len(seen)
        items = [{"sid": "" if start + n in nature.bad else sid} for n, sid in enumerate(sids)]
        answer: dict[str, Any] = {"incoming_phone_numbers": items}
        if index in nature.holes:
            answer["incoming_phone_numbers"] = []
        answer |= self._told("page", nature.states_page, index, 0)
        answer |= self._told("page_size", nature.states_size, given_size, len(sids) or 1)
        answer |= self._told("next_page_uri", nature.more, None if is_last else "/next", "/next")
        return answer

    @staticmethod
    def _told(key: str, way: str, truth: Any, lie: Any) -> dict[str, Any]:
        return {} if way == "silent" else {key: truth if way == HONEST else lie}

    def _change(self) -> None:
        change = self.changes[self.lists - 1] if self.lists <= len(self.changes) else "none"
        middle = len(self.numbers) // 2
        before, after = self.numbers[:middle], self.numbers[middle:]
        self.numbers = {
            "none": self.numbers,
            "remove first": self.numbers[1:],
            "remove middle": [*before, *after[1:]],
            "add first": [f"new-{self.lists}", *self.numbers],
            "add last": [*self.numbers, f"new-{self.lists}"],
            "rotate": [*self.numbers[1:], *self.numbers[:1]],
            "reverse": self.numbers[::-1],
            "cross": [*after, *before],
            "lose all": [],
            "lose half": before,
        }[change]


CHANGES: Final = st.sampled_from(
    [
        *("none", "none", "remove first", "remove middle", "add first", "add last"),
        *("rotate", "reverse", "cross", "lose all", "lose half"),
    ]
)
GROWTH: Final = st.sampled_from(["none", "add first", "add last"])
CAPS: Final = st.integers(1, 8) | st.just(100)
DETAILS: Final = st.lists(
    st.sampled_from([HONEST, HONEST, "there", *ERRORS]), min_size=1, max_size=4
).map(tuple)
NATURES: Final = st.builds(
    Nature,
    cap=CAPS,
    states_page=st.sampled_from([HONEST, "silent", "lying"]),
    states_size=st.sampled_from([HONEST, "silent", "lying"]),
    more=st.sampled_from([HONEST, "silent", "lying"]),
    offset=st.sampled_from([HONEST, "ignores Page", "clamps", "by what was asked", "overlaps"]),
    detail=DETAILS,
    sees=st.sampled_from([1000, 1000, 0, 1, 5, 10]),
    endless=st.sampled_from([False, False, False, True]),
    holes=st.frozensets(st.integers(0, 5), max_size=3),
    bad=st.frozensets(st.integers(0, 45), max_size=5),
    breaks=st.just(1000) | st.integers(0, 5),
    behind=st.sampled_from([400, 404, 410, 416, 422, 500]),
)
COUNTS: Final = st.integers(0, 12) | st.integers(13, 45)
SIZES: Final = st.integers(1, 8) | st.just(50)


def sids(count: int) -> list[str]:
    return [f"n{index}" for index in range(count)]


@dataclass
class Polled:
    """An account that is polled again and again, and what must come of each poll."""

    size: int
    clock: Any = field(default_factory=lambda: FakeTime().clock)
    state: AccountState = field(default_factory=lambda: AccountState(account()))
    ever: set[str] = field(default_factory=set)
    complete: bool = False

    def poll(self, server: Server) -> list[str]:
        """One poll; returns what is shown after it."""
        self.complete = False
        shown, missed = self.shown(), self.state.missed

        def fetch(
            previous: Mapping[str, ExoPhone],
            missed: Mapping[str, int],
            on_page: Callable[[int, int], None],
        ) -> Listing:
            walk = fetch_listing(server.page, self.size, on_page, max_pages=PAGES_MAX)
            self.complete = True
            return confirm_removals(walk, previous, missed, server.number)

        result = poll_once(self.state, fetch, self.clock)
        self.ever |= server.ever
        lacking = [sid for sid in shown if sid not in server.ever and missed.get(sid, 0) < 2]
        shifted = len(lacking) > MAX_CONFIRMATIONS and bool(server.there)
        assert (result.error is None) == (self.complete and not shifted)
        assert self.state.status().failures["internal"] == 0
        assert len(server.asked) == len({*server.asked}) <= MAX_CONFIRMATIONS
        assert server.lists <= 2 * PAGES_MAX
        now = self.shown()
        assert len(now) == len({*now})
        assert {*now} <= self.ever
        if result.error is not None:
            assert now == shown
        event("up" if result.error is None else result.error.reason)
        return now

    def shown(self) -> list[str]:
        snapshot = self.state.snapshot
        return [number.sid for number in snapshot.numbers] if snapshot else []


@share(150)
@given(
    counts=st.lists(COUNTS, min_size=1, max_size=6),
    natures=st.lists(NATURES, min_size=6, max_size=6),
    changes=st.lists(st.lists(CHANGES, max_size=12), min_size=6, max_size=6),
    size=SIZES,
    cap=CAPS,
    last=COUNTS,
    detail=DETAILS,
)
@pytest.mark.fault(71, 72, 76, 138, 139, 140)
def test_whatever_a_server_did_the_list_wins_within_three_polls(
    *,
    counts: list[int],
    natures: list[Nature],
    changes: list[list[str]],
    size: int,
    cap: int,
    last: int,
    detail: tuple[str, ...],
) -> None:
    """However the list moves, and whatever the server says of its pages and its numbers.

    It then rests and is given honestly; the detail endpoint still says what it likes.
    """
    account = Polled(size)
    for count, nature, moves in zip(counts, natures, changes, strict=False):
        account.poll(Server(sids(count), moves, nature))
    for _ in range(3):
        account.poll(Server(sids(last), nature=Nature(cap, detail=detail)))
    assert account.shown() == sids(last)
    assert account.state.status().error is None
    assert account.state.missed == {}


@share(200)
@given(count=COUNTS, size=SIZES, cap=CAPS, gone=st.integers(0, 20))
@pytest.mark.fault(75, 79)
def test_honest_server_whose_list_rests_gives_exactly_its_list(
    *, count: int, size: int, cap: int, gone: int
) -> None:
    """In its order, without a failure, in no more requests than there are pages."""
    account = Polled(50)
    account.poll(Server([*(f"gone-{index}" for index in range(gone)), *sids(count)]))
    server = Server(sids(count), nature=Nature(cap))
    account.size = size
    assert account.poll(server) == sids(count)
    assert server.lists == max(1, -(-count // min(size, cap)))


@share(200)
@given(
    count=COUNTS,
    size=st.integers(2, 8) | st.just(50),
    states_page=st.sampled_from([HONEST, "silent"]),
    more=st.sampled_from([HONEST, "silent", "lying"]),
    cap=st.integers(2, 8) | st.just(100),
    changes=st.lists(GROWTH, max_size=12),
)
@example(count=13, size=2, states_page=HONEST, more=HONEST, cap=100, changes=["add first"])
@pytest.mark.fault(70, 76)
def test_list_that_only_grows_loses_no_number_that_nobody_knew(
    *, count: int, size: int, states_page: str, more: str, cap: int, changes: list[str]
) -> None:
    """Numbers move to later pages then, by less than a page from one request to the next."""
    nature = Nature(cap, states_page=states_page, more=more)
    shown = Polled(size).poll(Server(sids(count), changes, nature))
    assert {*sids(count)} <= {*shown}
