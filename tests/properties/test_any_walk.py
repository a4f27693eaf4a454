"""Any server of the list at all, moving and lying: the true numbers, or exactly one failure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from exophone_exporter.errors import BadEnvelope, NotFound, PollError, ServerFailed
from exophone_exporter.exotel.client import ignore_page
from exophone_exporter.exotel.listing import (
    MAX_CONFIRMATIONS,
    Listing,
    confirm_removals,
    fetch_listing,
)
from exophone_exporter.exotel.model import parse_number, parse_page
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.polling.poller import poll_once
from tests.lib.strategies import share
from tests.lib.support import INDIA, FakeTime, account, phone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exophone_exporter.exotel.model import ExoPhone, Page

PAGES_MAX: Final = 60
HONEST: Final = "honest"


@dataclass(frozen=True)
class Nature:
    """What kind of server it is; each word is one way of telling, or of lying.

    `cap` is the most numbers that it puts on a page, whatever was asked for; `sees` the most that
    it shows in all.
    """

    cap: int = 100
    states_page: str = HONEST
    states_size: str = HONEST
    more: str = HONEST
    offset: str = HONEST
    detail: str = HONEST
    sees: int = 1000
    endless: bool = False


@dataclass
class Server:
    """The numbers of an account, which change after each request, and the server before them."""

    numbers: list[str]
    changes: list[str]
    nature: Nature
    lists: int = 0
    details: int = 0
    ever: set[str] = field(default_factory=set)
    always: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ever, self.always = set(self.numbers), set(self.numbers)

    def page(self, index: int, size: int) -> Page:
        """One answer of the list, as bytes that are read like any other."""
        self.lists += 1
        answer = json.dumps(self._list(index, size)).encode()
        self._change()
        return parse_page(answer, INDIA)

    def number(self, sid: str) -> ExoPhone:
        """One answer of the detail endpoint; it speaks the truth or fails."""
        self.details += 1
        if self.nature.detail == "fails" and self.details > 1:
            raise ServerFailed("500")
        if self.nature.detail == "garbage":
            raise BadEnvelope("no")
        if sid not in self.numbers:
            raise NotFound("404")
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
            self.ever |= set(sids)
        is_last = start + given_size >= len(seen)
        answer: dict[str, Any] = {"incoming_phone_numbers": [{"sid": sid} for sid in sids]}
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
        self.ever |= set(self.numbers)
        self.always &= set(self.numbers)


CHANGES: Final = st.sampled_from(
    [
        *("none", "none", "remove first", "remove middle", "add first", "add last"),
        *("rotate", "reverse", "cross", "lose all", "lose half"),
    ]
)
GROWTH: Final = st.sampled_from(["none", "add first", "add last"])
NATURES: Final = st.builds(
    Nature,
    cap=st.integers(1, 8) | st.just(100),
    states_page=st.sampled_from([HONEST, "silent", "lying"]),
    states_size=st.sampled_from([HONEST, "silent", "lying"]),
    more=st.sampled_from([HONEST, "silent", "lying"]),
    offset=st.sampled_from([HONEST, "ignores Page", "clamps", "by what was asked", "overlaps"]),
    detail=st.sampled_from([HONEST, HONEST, "fails", "garbage"]),
    sees=st.sampled_from([1000, 1000, 0, 1, 5, 10]),
    endless=st.sampled_from([False, False, False, True]),
)
COUNTS: Final = st.integers(0, 12) | st.integers(13, 45)
SIZES: Final = st.integers(1, 8) | st.just(50)


def sids(count: int) -> list[str]:
    return [f"n{index}" for index in range(count)]


@dataclass(frozen=True)
class Fetcher:
    """What `Client.fetch_all` does with the answers of one account."""

    server: Server
    size: int

    def fetch_all(
        self,
        previous: Mapping[str, ExoPhone],
        on_page: Callable[[int, int], None] = ignore_page,
    ) -> Listing:
        walk = fetch_listing(self.server.page, self.size, on_page, max_pages=PAGES_MAX)
        return confirm_removals(walk, previous, self.server.number)


def fetched(server: Server, size: int, previous: list[str]) -> Listing | PollError:
    """What a poll made of it: a new snapshot, or the old one and exactly one failure."""
    clock, state = FakeTime().clock, AccountState(account())
    known = build(Listing(tuple(map(phone, previous)), 1, {}), clock.now(), 1.0)
    state.record_poll(PollResult(clock.now(), 1.0, known))
    result = poll_once(state, Fetcher(server, size).fetch_all, clock)
    status = state.status()
    assert status.polls == 2
    assert sum(status.failures.values()) == (result.error is not None)
    assert status.failures["internal"] == 0
    if result.error is not None:
        assert status.snapshot is known
        return result.error
    assert result.snapshot is not None
    assert status.snapshot is result.snapshot
    return result.snapshot.listing


def assert_true(server: Server, size: int, previous: list[str]) -> None:
    """Bounded; and of what was found, nothing invented, nothing twice, nothing known lost."""
    result = fetched(server, size, previous)
    assert server.lists <= PAGES_MAX
    assert server.details <= MAX_CONFIRMATIONS
    if isinstance(result, PollError):
        event(type(result).__name__)
        return
    event(f"{min(result.pages, 3)} pages, {min(server.details, 3)} asked for")
    found = [number.sid for number in result.numbers]
    assert len(found) == len(set(found))
    assert set(found) <= server.ever
    # One answer cannot shift under itself; of many that are gone the first twenty speak for all.
    missing = set(previous) - set(found)
    if result.pages > 1 and len(missing) <= MAX_CONFIRMATIONS:
        assert missing <= set(previous) - server.always


@share(200)
@given(
    count=COUNTS,
    size=SIZES,
    nature=NATURES,
    changes=st.lists(CHANGES, max_size=12),
    gone=st.integers(0, 25),
    known=st.integers(0, 45),
)
@example(count=40, size=7, nature=Nature(7), changes=["none", "reverse"], gone=0, known=40)
@example(count=30, size=7, nature=Nature(offset="overlaps"), changes=[], gone=25, known=30)
@pytest.mark.fault(71, 72, 76)
def test_any_server_gives_the_true_numbers_or_one_failure(
    *, count: int, size: int, nature: Nature, changes: list[str], gone: int, known: int
) -> None:
    """However the list moves, and whatever the server says of its pages.

    A number that was known and there all the time is there; one that never was is not.
    """
    previous = [*(f"gone-{index}" for index in range(gone)), *sids(count)[:known]]
    assert_true(Server(sids(count), changes, nature), size, previous)


@share(200)
@given(count=COUNTS, size=SIZES, cap=st.integers(1, 8) | st.just(100), gone=st.integers(0, 25))
@pytest.mark.fault(75, 79)
def test_honest_server_whose_list_rests_gives_exactly_its_list(
    *, count: int, size: int, cap: int, gone: int
) -> None:
    """In its order, without a failure, in no more requests than there are pages."""
    server = Server(sids(count), [], Nature(cap))
    previous = [f"gone-{index}" for index in range(gone)]
    walk = fetched(server, size, previous)
    assert not isinstance(walk, PollError)
    assert [number.sid for number in walk.numbers] == sids(count)
    assert server.lists == walk.pages == max(1, -(-count // min(size, cap)))


@share(200)
@given(
    count=COUNTS,
    size=SIZES,
    states_page=st.sampled_from([HONEST, "silent"]),
    more=st.sampled_from([HONEST, "silent", "lying"]),
    cap=st.integers(1, 8) | st.just(100),
    changes=st.lists(GROWTH, max_size=12),
)
@example(count=13, size=1, states_page=HONEST, more=HONEST, cap=100, changes=["add first"])
@pytest.mark.fault(70, 76)
def test_list_that_only_grows_loses_no_number_that_nobody_knew(
    *, count: int, size: int, states_page: str, more: str, cap: int, changes: list[str]
) -> None:
    """Numbers move to later pages then, never past one that was read; none needs confirmation.

    By less than a page from one request to the next; pages of one number, by two in all.
    """
    if min(size, cap) == 1:
        states_page, changes = HONEST, changes[:2]
    nature = Nature(cap, states_page=states_page, more=more)
    server = Server(sids(count), changes, nature)
    result = fetched(server, size, [])
    if not isinstance(result, PollError):
        assert set(sids(count)) <= {number.sid for number in result.numbers}
