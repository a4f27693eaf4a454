"""One cycle of polling and scraping in which the k-th operation fails, as SQLite is tested.

A cycle is the real thing: the exporter polls a raw socket server (pages, a number that slipped
through between two of them, one that is gone), puts, renders, and is scraped through the server
that users run. Every operation is recorded on a tape as it happens: the vendor's side
notes connections, requests and each piece of an answer, a time zone each date that is parsed, an
account's store the counting of a request, the putting and the look at what is to be rendered, an
account's name each line that it is written into. The tape runs once as it is, and then once for
each operation and each fault that fits there; a new operation is recorded by itself.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import http.client
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import le
from typing import Any, Final, NamedTuple, Self, SupportsIndex
from zoneinfo import ZoneInfo

from exophone_exporter.config.settings import Account, Config
from exophone_exporter.errors import PollError
from exophone_exporter.exotel.model import Endpoint
from exophone_exporter.inventory.state import AccountState, AccountStatus, PollResult
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.polling.poller import Poller
from exophone_exporter.web import routes
from exophone_exporter.web.settings import WebSettings
from tests.lib import canary
from tests.lib.fault_server import Conversation, FaultServer, ok
from tests.lib.processes import wait_until
from tests.lib.servers import serving_app
from tests.lib.support import FakeTime, account, number_as_sent

NAME: Final = "tortured"
DEADLINE_SECONDS: Final = 10.0
# Far beyond what a busy machine takes between two bytes; where silence is the fault, each costs it.
_TIMEOUT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 1.0
# The poller looks at its clock so often, in real seconds; the clock moves when a test says so.
_INTERVAL_SECONDS: Final = 0.005
_SILENT_INTERVAL_SECONDS: Final = 0.05
_BEGIN_OF_THE_LIVE_PART: Final = b"# HELP exophone_number_changes_total"


# ---- what happens, and what may go wrong with it


@dataclass(frozen=True)
class Operation:
    """One step of a cycle.

    `endpoint` and `code` say of which request; `form` and `part` which piece of which kind of
    answer, counted from 0: status line, headers, half of the body, the rest.
    """

    kind: str
    endpoint: str = ""
    code: str = ""
    form: str = ""
    part: int = 0


@dataclass(frozen=True)
class Case:
    """The fault of the k-th operation, counted from 1."""

    k: int
    operation: Operation
    fault: str

    @property
    def id(self) -> str:
        return f"{self.operation.kind}-{self.k:03}-{self.fault}"


# How the vendor's side ends a connection in place of sending a piece.
_ENDS: Final[Mapping[str, Callable[[Conversation], None]]] = {
    "reset": Conversation.reset,
    "fin": Conversation.close,
    "silence": Conversation.stay_silent,
}
EXCEPTIONS: Final[Mapping[str, Callable[[], Exception]]] = {
    "runtime": lambda: RuntimeError("an accident"),
    "memory": MemoryError,
    "recursion": lambda: RecursionError("maximum recursion depth exceeded"),
    "emfile": lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    "value": lambda: ValueError("no such value"),
}


def faults_of(operation: Operation) -> tuple[str, ...]:
    """Every kind of fault that fits an operation.

    A ValueError of a time zone does not count: it says that a date does not exist, and then one
    date of one number is unreadable and counted as such.
    """
    if operation.kind == "connect":
        return ("refused", "reset", "fin", "silence")
    if operation.kind == "send":
        return ("reset", "silence")
    if operation.kind == "read":
        return (*_ENDS, "garbage", *(WHOLE_ANSWERS if operation.part == 0 else ()))
    if operation.kind == "parse":
        return tuple(name for name in EXCEPTIONS if name != "value")
    return tuple(EXCEPTIONS)


def cases_of(operations: Sequence[Operation]) -> list[Case]:
    """Each operation with each fault that fits. Faults that last are in test_api_faults.py."""
    return [
        Case(k, operation, fault)
        for k, operation in enumerate(operations, 1)
        for fault in faults_of(operation)
    ]


class Tape:
    """The operations while it is armed; each of them asks it first what goes wrong."""

    def __init__(self, case: Case | None = None) -> None:
        self.operations: list[Operation] = []
        self.before_refusal: Callable[[], None] = lambda: None
        self._case = case
        self._armed = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        self._armed = True
        self._refuse_what_is_next()
        yield
        self._armed = False

    def step(self, operation: Operation) -> str | None:
        """Note an operation that is about to be done; the fault that it meets."""
        with self._lock:
            if not self._armed:
                return None
            self.operations.append(operation)
            self._refuse_what_is_next()
            case, happened = self._case, len(self.operations)
            return case.fault if case and case.k == happened and case.fault != "refused" else None

    def check(self, operation: Operation) -> None:
        """The same for an operation whose fault is an exception."""
        fault = self.step(operation)
        if fault:
            make = EXCEPTIONS[fault]
            raise make()

    def _refuse_what_is_next(self) -> None:
        """A refused connection is never seen: the port must be closed before it comes."""
        case = self._case
        if case and case.fault == "refused" and len(self.operations) == case.k - 1:
            self.before_refusal()


# ---- the vendor's side


def _number(sid: str, flow: str = "11") -> dict[str, Any]:
    return number_as_sent(sid, flow) | {"date_created": "2017-09-22 22:47:00"}


# Numbers a to e; then b has another flow, d slips through between two pages, e is gone, f and g
# are new.
_LISTS: Final[Mapping[str, list[list[dict[str, Any]]]]] = {
    "old": [[_number("a"), _number("b")], [_number("c"), _number("d")], [_number("e")]],
    "new": [[_number("a"), _number("b", "12")], [_number("c"), _number("f")], [_number("g")]],
}
_DETAILS: Final = {"d": _number("d")}
SIDS: Final = {"old": "abcde", "new": "abcdfg"}


@dataclass(frozen=True)
class _Answer:
    """An answer in pieces, and what is to be noted of it."""

    endpoint: Endpoint
    code: str
    form: str
    pieces: tuple[bytes, bytes, bytes, bytes]

    @property
    def closes(self) -> bool:
        return b"Connection: close" in self.pieces[1]


def _answer_to(request: str, world: str) -> _Answer:
    """Each page comes in a form of its own, and the second one ends the connection."""
    path, _, query = request.split(" ")[1].partition("?")
    if query:
        index = int(query.partition("&")[0].removeprefix("Page="))
        body = _page(world, index)
        forms = (_plain(body), _gzipped(body, "Connection: close"), _chunked(body))
        return _Answer("list", "200", *forms[index])
    number = _DETAILS.get(path.rpartition("/")[2])
    if number is None:
        body, status = b"<Message>The number is not there</Message>", "404 Not Found"
        return _Answer("detail", "404", *_plain(body, status))
    return _Answer("detail", "200", *_plain(json.dumps(number).encode()))


def _page(world: str, index: int) -> bytes:
    pages = _LISTS[world]
    envelope = {
        "page": index,
        "page_size": 2,
        "incoming_phone_numbers": pages[index],
        "next_page_uri": "http://elsewhere.example/" if index + 1 < len(pages) else None,
    }
    return json.dumps(envelope).encode()


_Pieces = tuple[str, tuple[bytes, bytes, bytes, bytes]]
_OK: Final = b"HTTP/1.1 200 OK\r\n"


def _plain(body: bytes, status: str = "200 OK") -> _Pieces:
    head, half = _head(f"Content-Length: {len(body)}"), len(body) // 2
    return "plain", (f"HTTP/1.1 {status}\r\n".encode(), head, body[:half], body[half:])


def _gzipped(body: bytes, *headers: str) -> _Pieces:
    zipped = gzip.compress(body)
    head = _head("Content-Encoding: gzip", f"Content-Length: {len(zipped)}", *headers)
    half = len(zipped) // 2
    return "gzip", (_OK, head, zipped[:half], zipped[half:])


def _chunked(body: bytes) -> _Pieces:
    head, half = _head("Transfer-Encoding: chunked"), len(body) // 2
    first, second = (b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]))
    return "chunked", (_OK, head, first, second + b"0\r\n\r\n")


def _head(*headers: str) -> bytes:
    return "\r\n".join([*headers, "", ""]).encode()


WHOLE_ANSWERS: Final[Mapping[str, bytes]] = {
    "500": ok(b"<html>no</html>", status="500 Internal Server Error"),
    "429": ok(b"slower", status="429 Too Many Requests"),
    "401": ok(b"", status="401 Unauthorized"),
    "cut-gzip": ok(gzip.compress(_page("new", 0))[:-60], "Content-Encoding: gzip"),
    "cut-json": ok(_page("new", 0)[:-60]),
    "no-json": ok(b"<html>maintenance</html>"),
}


class _Vendor:
    def __init__(self, tape: Tape) -> None:
        self.world = "old"
        self.server = FaultServer(self._converse)
        self._tape = tape

    def _converse(self, conversation: Conversation) -> None:
        fault = self._tape.step(Operation("connect"))
        while not fault:
            conversation.read_request()
            answer = _answer_to(self.server.requests[-1], self.world)
            fault = self._tape.step(Operation("send", answer.endpoint, answer.code))
            if not fault and not self._say(conversation, answer):
                return
        _ENDS[fault](conversation)

    def _say(self, conversation: Conversation, answer: _Answer) -> bool:
        """Send an answer piece by piece; whether the connection goes on."""
        for part, piece in enumerate(answer.pieces):
            operation = Operation("read", answer.endpoint, answer.code, answer.form, part)
            fault = self._tape.step(operation)
            if fault is None:
                conversation.send(piece)
            elif fault in WHOLE_ANSWERS:
                conversation.send(WHOLE_ANSWERS[fault])
                return True
            elif fault in _ENDS:
                _ENDS[fault](conversation)
                return False
            elif part < 2:  # bytes of no protocol; in a body as many as were promised
                conversation.send(b"\xfe\xff\r\n")
                return False
            else:
                conversation.send(b"\xff" * (len(piece) - 2) + b"\r\n")
        return not answer.closes


# ---- our side: parameters of the exporter that note what is done with them


class Resources(NamedTuple):
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Self:
        return cls(len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208 - counted

    def wait_until_no_more(self) -> None:
        wait_until(lambda: all(map(le, Resources.now(), self)), f"no more than {self}")


def _in_poller() -> bool:
    return isinstance(threading.current_thread(), Poller)


class _Name(str):
    """The name of an account; a poller that renders writes it into each line."""

    __slots__ = ("tape",)
    tape: Tape

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if _in_poller():
            self.tape.check(Operation("render"))
        return super().replace(old, new, count)


class _Zone(ZoneInfo):
    tape: Tape

    def utcoffset(self, dt: datetime | None, /) -> timedelta | None:
        self.tape.check(Operation("parse"))
        return super().utcoffset(dt)


class _State(AccountState):
    tape: Tape

    def record_request(self, endpoint: Endpoint, code: str, seconds: float) -> None:
        self.tape.check(Operation("count", endpoint, code))
        super().record_request(endpoint, code, seconds)

    def record_poll(self, result: PollResult) -> None:
        self.tape.check(Operation("put"))
        super().record_poll(result)

    def status(self, account: Account | None = None) -> AccountStatus:
        self.tape.check(Operation("render" if _in_poller() else "scrape"))
        return super().status(account)


class Rig:
    """An exporter and its vendor, for one case; both are gone when the block ends.

    Time stands still but for the second before each poll, so every figure is known.
    """

    def __init__(self, page: ServedPage, case: Case | None = None) -> None:
        self._is_silent = case is not None and case.fault == "silence"
        self.tape = Tape(case)
        self.time = FakeTime()
        self.vendor = _Vendor(self.tape)
        self.tape.before_refusal = self.vendor.server.refuse
        self._ended = threading.Semaphore(0)
        self._died = threading.Event()
        self._page = page
        self.exporter = Exporter(
            self._config(),
            clock=self.time.clock,
            uniform=self._lowest,
            new_state=self._new_state,
            on_death=self._died.set,
        )

    def __enter__(self) -> Self:
        """Begin, with one clean poll behind it."""
        self._page.exporter = self.exporter
        self.vendor.server.__enter__()
        self.exporter.start()
        self._wait_for_poll()
        return self

    def __exit__(self, *details: object) -> None:
        self.exporter.stop()
        self.vendor.server.__exit__(*details)

    def poll(self) -> None:
        self.time.pass_(1.0)
        self._wait_for_poll()

    def tortured_cycle(self) -> int:
        """A poll of the changed world and a scrape, on the tape; the status of the scrape."""
        self.vendor.world = "new"
        with self.tape.armed():
            self.poll()
            status, _ = self._page.get("/metrics")
        self.vendor.server.accept_again()
        return status

    def scrape(self) -> Scrape:
        status, body = self._page.get("/metrics")
        assert status == 200
        return Scrape(body)

    @property
    def error(self) -> PollError | None:
        return self.exporter.statuses()[0].error

    def is_alive(self) -> bool:
        return not self._died.is_set() and self._page.get("/-/healthy")[0] == 200

    def settle(self) -> None:
        """Wait until every connection that our side has closed is gone on the vendor's too."""
        self.vendor.server.settle()

    def _config(self) -> Config:
        name, zone = _Name(NAME), _Zone.no_cache("Asia/Kolkata")
        name.tape = zone.tape = self.tape
        tortured = account(
            name,
            origin=self.vendor.server.url,
            api_key=canary.KEY,
            api_token=canary.TOKEN,
            page_size=2,
            interval_seconds=_SILENT_INTERVAL_SECONDS if self._is_silent else _INTERVAL_SECONDS,
            timeout_seconds=_SILENCE_SECONDS if self._is_silent else _TIMEOUT_SECONDS,
            timezone=zone,
        )
        return Config("", (tortured,), ())

    def _new_state(self, *args: Any) -> _State:
        state = _State(*args)
        state.tape = self.tape
        return state

    def _lowest(self, low: float, _high: float) -> float:
        """The wait before a poll; or before a retry, in which the vendor comes back."""
        if 0 < low < 1:
            self._ended.release()
            return low
        self.vendor.server.accept_again()
        return 0.0

    def _wait_for_poll(self) -> None:
        assert self._ended.acquire(timeout=DEADLINE_SECONDS), "the poll does not end"


# ---- what is served


class ServedPage:
    exporter: Exporter

    def __init__(self) -> None:
        current: Any = self
        self._app = routes.application(current, WebSettings())
        self.said: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """What the application asks of the exporter of the case."""
        return getattr(self.exporter, name)

    @contextlib.contextmanager
    def served(self) -> Iterator[Self]:
        with serving_app(self._app) as port:
            self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
            with contextlib.closing(self._client):
                yield self

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; kept in `said` with the headers."""
        self._client.request("GET", path)
        answer = self._client.getresponse()
        body = answer.read()
        if answer.status == 500:  # the server ends such a connection
            self._client.close()
        self.said.append(str(answer.headers).encode() + body)
        return answer.status, body


class Scrape:
    """An exposition in two parts: the inventory as bytes, the live part as figures by series."""

    def __init__(self, body: bytes) -> None:
        self.inventory, _, live = body.partition(_BEGIN_OF_THE_LIVE_PART)
        lines = [line for line in live.decode().splitlines() if not line.startswith(("#", " "))]
        pairs = [line.rpartition(" ") for line in lines]
        self.live = {series: float(value) for series, _, value in pairs}
        assert len(pairs) == len(self.live)

    @property
    def sids(self) -> str:
        found = re.findall(rb'^exophone_number_info\{.*sid="(.)"', self.inventory, re.MULTILINE)
        return b"".join(found).decode()

    @property
    def failures(self) -> dict[str, float]:
        return {
            series.partition('reason="')[2][:-2]: count
            for series, count in self.live.items()
            if series.startswith("exophone_poll_failures_total{") and count
        }
