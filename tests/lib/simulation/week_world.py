"""The API of the simulated week, at the seam of the transport: accounts, numbers, and bad weather.

It answers with statuses, headers and bytes, and takes virtual time for it. What it hears and says
it tells the model, in the model's own words: never what the exporter makes of it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from random import Random
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from exophone_exporter.config.settings import Account
from exophone_exporter.errors import (
    BadBody,
    BodyCut,
    ConnectFailed,
    NotHttp,
    PollError,
    TimedOut,
    TlsFailed,
    TooLarge,
)
from exophone_exporter.exotel.responses import RETRY_AFTER_CAP_SECONDS, Answer
from tests.lib.simulation.virtual_time import VirtualTime
from tests.lib.simulation.week_model import Call, Model, Number
from tests.lib.support import number_as_sent

HOUR: Final = 3600.0
_PATH: Final = "/v2_beta/Accounts/"
_TRAVEL_SECONDS_MAX: Final = 0.9

# No answer at all: the error of the transport's, and whether asking again is of no use.
_BROKEN: Final[Mapping[str, tuple[type[PollError], bool]]] = {
    "refused": (ConnectFailed, False),
    "not-http": (NotHttp, True),
    "tls": (TlsFailed, True),
    "too-large": (TooLarge, True),
    "cut": (BodyCut, False),
    "not-gzip": (BadBody, True),
}
# Statuses, and bodies of a 200 that are not a page: whether asking again is of no use.
_STATUSES: Final = dict.fromkeys([302, 204, 400, 401, 402, 403, 404, 999], True) | dict.fromkeys(
    [408, 425, 500, 502, 503], False
)
_BODIES: Final[Mapping[bytes, bool]] = {
    b"<html>maintenance</html>": True,
    b'{"incoming_phone_numbers": [{"sid": "0': False,
    b"\xff\xfe": True,
    b"": True,
    b"[]": True,
    b'{"http_code": 409, "response": {"error_data": {"message": "no"}}}': True,
    b'{"page": 0}': True,
}
_KINDS: Final[tuple[str | int | bytes, ...]] = (
    *_BROKEN,
    *_STATUSES,
    *_BODIES,
    *["silent", "drip", "pages", "defect", "limited", "limited", "limited", "limited"] * 2,
    *["empty", "short"] * 2,
)
# What a page behind the last one is answered with, by the account; None is an empty page.
BEHIND: Final = (None, None, 204, 400, 404, 410, 416, 422, "again")
_REFUSED_BEHIND: Final = {204, 400, 404, 410, 416, 422}
# What the detail endpoint says of a number that has left the list.
AFTERLIVES: Final = (404, 404, 404, 410, 403, 500, b"404", b"500", "there", "other")
_GONE: Final = {404, 410, b"404"}


@dataclass(frozen=True)
class Weather:
    """What is wrong with an account until a time of the API's: each request with some chance."""

    kind: str | int | bytes
    chance: float
    until: float
    slow: float = 1.0


_FAIR: Final = Weather("", 0.0, 0.0)


@dataclass
class ApiAccount:
    """The numbers of one account as they are now; bodies are made once a change.

    `says_more` is how it announces a next page: True (always), None (never) or False (in truth).
    """

    sid: str
    numbers: dict[str, Number] = field(default_factory=dict)
    says_more: bool | None = False
    behind: int | str | None = None
    left: dict[str, tuple[int | bytes | str, Number]] = field(default_factory=dict)
    weather: Weather = _FAIR
    _bodies: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def changed(self) -> None:
        self._bodies.clear()

    def drop(self, sid: str, afterlife: int | bytes | str) -> None:
        self.left[sid] = afterlife, self.numbers.pop(sid)

    def page(self, index: int, size: int) -> tuple[list[Number], bool | None, bytes]:
        numbers = [*self.numbers.values()]
        given = index
        if self.behind == "again":
            given = min(index, max(0, len(numbers) - 1) // size)
        wanted = numbers[given * size : (given + 1) * size]
        more = len(numbers) > (given + 1) * size if self.says_more is False else self.says_more
        if (index, size) not in self._bodies:
            self._bodies[index, size] = self.body(given, size, wanted, more=more)
        return wanted, more, self._bodies[index, size]

    def body(self, index: int, size: int, numbers: list[Number], *, more: bool | None) -> bytes:
        envelope: dict[str, Any] = {
            "page": index,
            "page_size": size,
            "incoming_phone_numbers": [self.item(number) for number in numbers],
        }
        if more is not None:
            envelope["next_page_uri"] = "http://elsewhere.test/more" if more else None
        return json.dumps(envelope).encode()

    def item(self, number: Number) -> dict[str, Any]:
        shown = {"friendly_name": number.name, "rental_price": f"{number.rental}.000000"}
        flows = number.voice or None, number.sms or None
        return number_as_sent(number.sid, *flows, account_sid=self.sid) | shown


class Api:
    """Every account of the vendor's, by origin and sid; `connect` is the seam."""

    def __init__(self, time: VirtualTime, model: Model, random: Random) -> None:
        self.time = time
        self.model = model
        self.random = random
        self.accounts: dict[tuple[str, str], ApiAccount] = {}
        self._kinds: list[str | int | bytes] = []

    def connect(self, account: Account, _monotonic: Callable[[], float]) -> Any:
        return Connection(self, account)

    def new_weather(self) -> Weather:
        """Some trouble for minutes or hours, total or now and then; or only slowness."""
        random, until = self.random, self.time.true + self.random.expovariate(1 / HOUR)
        if random.random() < 0.2:
            return Weather("", 0.0, until, slow=random.choice([20.0, 60.0, 200.0]))
        if not self._kinds:
            self._kinds = random.sample(_KINDS, len(_KINDS))
        return Weather(self._kinds.pop(), random.choice([1.0, 1.0, 0.3]), until)


class Connection:
    def __init__(self, api: Api, account: Account) -> None:
        self._api = api
        self._account = account
        self._of = api.accounts[account.origin, account.sid]
        if api.model.news.is_set():
            api.time.sleep(0)  # one poll ended and the next begins: let the first be compared
        is_walk = threading.current_thread().name.startswith("poller ")
        self._call: Call = api.model.opened(account, is_walk=is_walk)

    def close(self) -> None:
        self._api.model.closed(self._call)

    def get(
        self,
        url: str,
        *,
        within_seconds: float,
        on_connect: Callable[[], None],  # noqa: ARG002 - connecting takes no time
        on_status: Callable[[int], None],
    ) -> Answer:
        """One request: it travels, is answered by the weather, and tells the model of it."""
        api, random = self._api, self._api.random
        path, _, query = url.partition("?")
        sid = self._sid_of(path)
        api.model.sent(self._call, sid, random.uniform(0, _TRAVEL_SECONDS_MAX))
        weather = self._of.weather if api.time.true < self._of.weather.until else _FAIR
        kind = weather.kind if random.random() < weather.chance else ""
        asked = _Asked(sid, dict(parse_qsl(query)), on_status)
        if kind == "silent":
            self._time_out(min(self._account.poll.timeout_seconds, within_seconds))
        if kind == "drip":
            on_status(200)
            self._time_out(within_seconds)
        self._take(random.uniform(0.05, 0.6) * weather.slow, within_seconds)
        return self._answer(asked, kind)

    def _sid_of(self, url: str) -> str:
        """The number that a URL asks for, "" where it is the list of the right account."""
        start = f"{self._account.origin}{_PATH}{self._account.sid}/IncomingPhoneNumbers"
        self._api.model.expect(url.startswith(start), f"a request goes to {url}")
        return unquote(url[len(start) + 1 :])

    def _take(self, seconds: float, within_seconds: float) -> None:
        """Let the answer take its time; a machine that sleeps meanwhile often loses it."""
        time = self._api.time
        suspended = time.suspended_seconds
        if seconds >= within_seconds:
            self._time_out(within_seconds)
        time.sleep(seconds)
        if time.suspended_seconds != suspended and self._api.random.random() < 0.5:
            self._fail(final=False)
            raise ConnectFailed("the connection was lost in the night")

    def _time_out(self, seconds: float) -> None:
        self._api.time.sleep(seconds)
        self._fail(final=False)
        raise TimedOut("nothing came in time")

    def _fail(self, *, final: bool) -> None:
        self._api.model.failed(self._call, final=final)

    def _answer(self, asked: _Asked, kind: str | int | bytes) -> Answer:
        """What the weather makes of it; a kind that does not fit the question is ignored."""
        if isinstance(kind, int):
            return self._status(asked, kind)
        if isinstance(kind, bytes) and not asked.sid:
            self._fail(final=_BODIES[kind])
            return asked.answer(200, kind)
        if isinstance(kind, str) and kind in _BROKEN:
            error, final = _BROKEN[kind]
            self._fail(final=final)
            raise error(kind)
        if kind == "defect":
            self._api.model.failed(self._call, final=True, defect=True)
            raise ZeroDivisionError
        if kind == "limited":
            return self._limited(asked)
        return self._number(asked) if asked.sid else self._page(asked, kind)

    def _status(self, asked: _Asked, status: int) -> Answer:
        if asked.sid and status == 404:
            return self._number(asked)
        if status in _REFUSED_BEHIND and asked.query.get("Page", "0") != "0":
            self._api.model.ended(self._call)
        else:
            self._fail(final=_STATUSES.get(status, True))
        return asked.answer(status, b"<RestException><Message>no</Message></RestException>")

    def _limited(self, asked: _Asked) -> Answer:
        """429, or 503 with a Retry-After that makes sense or none; the reset is hours off."""
        header, seconds = self._retry_after()
        status = self._api.random.choice([429, 429, 503]) if header is not None else 429
        self._api.model.limited(self._call, seconds)
        self._api.model.note(f"{status} {header} to {self._account.name}")
        reset = self._api.time.moment.wall + self._api.random.choice([-5, 0, 5]) * HOUR
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{reset:.0f}"}
        if header is not None:
            headers["Retry-After"] = header
        return asked.answer(status, b"", headers)

    def _retry_after(self) -> tuple[str | None, float | None]:
        """A header of some shape, and the seconds that it asks for; None where it asks nothing."""
        random, wall = self._api.random, self._api.time.moment.wall
        digits = random.choice([0, 1, 7, 30, 120, 400, 601, 3600, 10**30])
        date = int(wall + random.choice([-7200, -1, 5, 45, 300, 7200]))
        when = format_datetime(datetime.fromtimestamp(date, UTC), usegmt=True)
        senseless = random.choice([None, "", "-5", "1e12", "NaN", "soon", "١٢", "3.5"])
        cap = RETRY_AFTER_CAP_SECONDS
        shapes = [
            (str(digits), min(float(digits), cap)),
            (when, min(max(0.0, date - wall), cap)),
            (senseless, None),
        ]
        return random.choice(shapes)

    def _page(self, asked: _Asked, kind: str | int | bytes) -> Answer:
        index, size = int(asked.query["Page"]), int(asked.query["PageSize"])
        numbers, more, body = self._of.page(index, size)
        # The last page again, under its own index, and it has grown since it was first read.
        grown = self._of.behind == "again" and index * size >= len(self._of.numbers)
        is_new = any(number.sid not in self._call.found for number in numbers)
        if is_new and (kind == "pages" or (index and grown)):
            self._fail(final=True)
            return asked.answer(200, body.replace(b'"page": ', b'"page": 9', 1))
        if index and not numbers and isinstance(self._of.behind, int):
            return self._status(asked, self._of.behind)
        if kind in ("empty", "short") and more is not False:
            numbers = numbers[:-1] if kind == "short" else []
            body = self._of.body(index, size, numbers, more=more)
        self._api.model.listed(self._call, index, numbers, more=more)
        return asked.answer(200, body)

    def _number(self, asked: _Asked) -> Answer:
        sid, number = asked.sid, self._of.numbers.get(asked.sid)
        afterlife, was = self._of.left.get(sid, (404, number))
        if number is None and afterlife == "there":
            number = was
        gone = number is None and afterlife in _GONE
        self._api.model.detailed(self._call, sid, number, gone=gone)
        if number is not None:
            return asked.answer(200, json.dumps(self._of.item(number)).encode())
        if isinstance(afterlife, int):
            return asked.answer(afterlife, b"")
        if isinstance(afterlife, bytes):
            return asked.answer(200, b'{"RestException": {"Status": %b}}' % afterlife)
        return asked.answer(200, b'{"sid": "another"}')


@dataclass(frozen=True)
class _Asked:
    """One request: `sid` is "" where it is for a page of the list."""

    sid: str
    query: Mapping[str, str]
    on_status: Callable[[int], None]

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        self.on_status(status)
        return Answer(status, headers or {}, body)
