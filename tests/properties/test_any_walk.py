"""Any server at all, moving, lying and failing, over many polls: the list wins in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from exophone_exporter.errors import TimedOut
from exophone_exporter.exotel.responses import Answer
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.polling.poller import poll_once
from tests.lib.strategies import share
from tests.lib.support import FakeTime, account, client_for

QUESTIONS_MAX: Final = 20
WALKS_BELIEVED: Final = 3
# Each request takes a second, so a list without an end meets the deadline.
REQUESTS_MAX: Final = 80
HONEST: Final = "honest"
# What a request is answered with in place of its answer: a status, or the body of a 200.
FAILURES: Final[Mapping[str, tuple[int, bytes]]] = {
    "fails": (500, b""),
    "refuses": (403, b"<html>no</html>"),
    "limits": (429, b""),
    "rejects": (400, b""),
    "garbage": (200, b"<html>"),
    "cut": (200, b'{"sid": "'),
    "nothing": (204, b""),
    "inner failure": (200, b'{"RestException": {"Status": 500}}'),
    "unreadable failure": (200, b'{"status": "failure"}'),
    "another number": (200, b'{"sid": "another"}'),
}
# The statuses that end the list behind a good page.
ENDS: Final = {204, 400, 404, 410, 416, 422}
GONE: Final = ("404", "410", "inner 404")


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
    detail: tuple[str, ...] = ("404",)
    sees: int = 1000
    endless: bool = False
    holes: frozenset[int] = frozenset()
    bad: frozenset[int] = frozenset()
    breaks: int = 1000
    behind: int = 404


@dataclass
class Server:
    """The numbers of an account, and the server before them, as the transport shows it.

    After each request for a page comes the next of `happens`: a change of the list, or a failure of
    that request. `detail` says in turn how each question is answered about a number that is gone.
    `refused` is whether the last page was refused in a way that does not end the list.
    """

    numbers: list[str]
    happens: list[str] = field(default_factory=list)
    nature: Nature = field(default_factory=Nature)
    pass_second: Callable[[], None] = lambda: None
    lists: int = 0
    refused: bool = False
    asked: list[str] = field(default_factory=list)
    there: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)

    def close(self) -> None:
        pass

    def get(self, url: str, *, within_seconds: float, **_: object) -> Answer:
        self.pass_second()
        if within_seconds < 1:
            raise TimedOut("late")
        asked = dict(parse_qsl(urlsplit(url).query))
        if asked:
            return self._page(int(asked["Page"]), int(asked["PageSize"]))
        return self._number(url.rpartition("/")[2])

    def _page(self, index: int, size: int) -> Answer:
        self.lists += 1
        happens = self.happens[self.lists - 1] if self.lists <= len(self.happens) else "none"
        failure = FAILURES.get(happens)
        if failure is None and index >= self.nature.breaks:
            failure = self.nature.behind, b""
        self.refused = failure is not None and (index == 0 or failure[0] not in ENDS)
        if failure is not None:
            return _answer(*failure)
        page = self._list(index, size)
        self.listed |= {item["sid"] for item in page["incoming_phone_numbers"]}
        self._change(happens)
        return _answer(200, json.dumps(page).encode())

    def _number(self, sid: str) -> Answer:
        """The truth about a number; of one that is gone it may know nothing, or not that."""
        self.asked.append(sid)
        way = self.nature.detail[(len(self.asked) - 1) % len(self.nature.detail)]
        if way in FAILURES:
            return _answer(*FAILURES[way])
        if way == "there" or sid in self.numbers:
            self.there.add(sid)
            return _answer(200, json.dumps({"sid": sid}).encode())
        self.gone.add(sid)
        inner = b'{"http_code": 404, "response": {"code": 404, "status": "failure"}}'
        return _answer(200, inner) if way == "inner 404" else _answer(int(way))

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

    def _change(self, change: str) -> None:
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


def _answer(status: int, body: bytes = b"") -> Answer:
    return Answer(status, {}, body)


MOVES: Final = (
    *("none", "none", "remove first", "remove middle", "add first", "add last"),
    *("rotate", "reverse", "cross", "lose all", "lose half"),
)
HAPPENS: Final = st.sampled_from([*MOVES, *MOVES, *MOVES, *FAILURES])
GROWTH: Final = st.sampled_from(["none", "add first", "add last"])
CAPS: Final = st.integers(1, 8) | st.just(100)
DETAILS: Final = st.lists(
    st.sampled_from(GONE) | st.sampled_from(["there", *FAILURES]), min_size=1, max_size=4
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
    behind=st.sampled_from([204, 400, 404, 410, 416, 422, 500]),
)
COUNTS: Final = st.integers(0, 12) | st.integers(13, 45)
SIZES: Final = st.integers(1, 8) | st.just(50)


def sids(count: int) -> list[str]:
    return [f"n{index}" for index in range(count)]


class Polled:
    """An account that is polled again and again, and what must come of each poll."""

    def __init__(self, size: int) -> None:
        self._time = FakeTime()
        own = account(page_size=size, deadline_seconds=REQUESTS_MAX + 0.5)
        self.state = AccountState(own)
        self._server = Server([])
        self._client = client_for(
            own, self._time, connect=lambda *_: self._server, uniform=lambda low, _: low
        )
        self._ever: set[str] = set()

    def poll(self, server: Server, *, must_succeed: bool = False) -> list[str]:
        """One poll; returns what is shown after it."""
        shown, missed = self.shown(), self.state.status().missed
        self._server, server.pass_second = server, lambda: self._time.pass_(1.0)
        result = poll_once(self.state, self._client.fetch_all, self._time.clock)
        event("up" if result.error is None else result.error.reason)
        now = self.shown()
        self._ever |= server.listed
        lacking = [sid for sid in shown if sid not in server.listed]
        doubtful = [sid for sid in lacking if missed.get(sid, 0) < WALKS_BELIEVED - 1]
        shifted = len(doubtful) > QUESTIONS_MAX and bool(server.there)
        assert not (server.refused and (server.asked or result.error is None))
        # A question about a number is asked of a whole walk only, and no answer to it fails one.
        if server.asked or must_succeed:
            assert (result.error is None) != shifted
        assert server.asked == doubtful[: len(server.asked)][:QUESTIONS_MAX]
        assert server.lists + len(server.asked) <= REQUESTS_MAX + 1
        assert self.state.status().failures["internal"] == 0
        assert len(now) == len({*now})
        assert {*now} <= self._ever
        if result.error is not None:
            assert now == shown
        else:
            believed = {sid for sid in lacking if sid not in doubtful}
            assert {*shown} - {*now} == (server.gone & {*doubtful}) | believed
        return now

    def shown(self) -> list[str]:
        snapshot = self.state.snapshot
        return [number.sid for number in snapshot.numbers] if snapshot else []


@share(150)
@given(
    counts=st.lists(COUNTS, min_size=1, max_size=6),
    natures=st.lists(NATURES, min_size=6, max_size=6),
    happens=st.lists(st.lists(HAPPENS, max_size=12), min_size=6, max_size=6),
    size=SIZES,
    cap=CAPS,
    last=COUNTS,
    detail=DETAILS,
)
@pytest.mark.fault(71, 76, 137, 138, 139, 140)
def test_whatever_a_server_did_the_list_wins_within_three_polls(
    *,
    counts: list[int],
    natures: list[Nature],
    happens: list[list[str]],
    size: int,
    cap: int,
    last: int,
    detail: tuple[str, ...],
) -> None:
    """However the list moves, and whatever the server says of its pages and its numbers.

    It then rests and is given honestly; the detail endpoint still says what it likes.
    """
    account = Polled(size)
    for count, nature, events in zip(counts, natures, happens, strict=False):
        account.poll(Server(sids(count), events, nature))
    for _ in range(WALKS_BELIEVED):
        account.poll(Server(sids(last), nature=Nature(cap, detail=detail)), must_succeed=True)
    assert account.shown() == sids(last)
    assert account.state.status().error is None
    assert account.state.status().missed == {}


@share(200)
@given(count=COUNTS, size=SIZES, cap=CAPS, gone=st.integers(0, 20))
@pytest.mark.fault(75, 79)
def test_honest_server_whose_list_rests_gives_exactly_its_list(
    *, count: int, size: int, cap: int, gone: int
) -> None:
    """In its order, without a failure, in no more requests than there are pages."""
    account = Polled(size)
    account.poll(Server([*(f"gone-{index}" for index in range(gone)), *sids(count)]))
    server = Server(sids(count), nature=Nature(cap))
    assert account.poll(server, must_succeed=True) == sids(count)
    assert server.lists == max(1, -(-count // min(size, cap)))


@share(200)
@given(
    count=COUNTS,
    size=st.integers(2, 8) | st.just(50),
    states_page=st.sampled_from([HONEST, "silent"]),
    more=st.sampled_from([HONEST, "silent", "lying"]),
    cap=st.integers(2, 8) | st.just(100),
    growth=st.lists(GROWTH, max_size=12),
)
@example(count=13, size=2, states_page=HONEST, more=HONEST, cap=100, growth=["add first"])
@pytest.mark.fault(70, 76)
def test_list_that_only_grows_loses_no_number_that_nobody_knew(
    *, count: int, size: int, states_page: str, more: str, cap: int, growth: list[str]
) -> None:
    """Numbers move to later pages then, by less than a page from one request to the next."""
    nature = Nature(cap, states_page=states_page, more=more)
    shown = Polled(size).poll(Server(sids(count), growth, nature), must_succeed=True)
    assert {*sids(count)} <= {*shown}
