"""Responses of the simulated API: pages, error bodies in the vendor's three forms, and faults."""

from __future__ import annotations

import json
import math
import random
import re
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, NamedTuple

from exophone_exporter.simulator.world import Account

Endpoint = Literal["list", "detail", "balance"]
ErrorForm = Literal["xml", "json", "http_code"]
After = Literal["answer", "reset", "hang"]
LastPage = Literal["null", "empty", "missing", "lying"]
PastEnd = Literal["empty", "repeated", "refused"]

FOREIGN_ORIGIN: Final = "http://twilix.exotel.com"
LIMIT_WINDOW_SECONDS: Final = 60.0

_OK: Final = 200
_FIRST_ERROR: Final = 400
BODILESS: Final = (204, 304)
_CONFLICT: Final = 409
_HTML: Final = {"Content-Type": "text/html"}
_COUNT: Final = re.compile("[0-9]{1,9}")
_MESSAGES: Final = {
    400: "Missing or invalid parameters",
    401: "Authentication failed. Invalid API Key or Token.",
    402: "Plan limit exceeded or insufficient balance",
    403: "Account suspended or insufficient permissions",
    404: "The requested resource was not found",
    429: "Rate limit exceeded",
    503: "Service temporarily down",
}


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it arrived, and the status of its response.

    `path` is as sent, without the query; `account_sid` is the one in the path, if any. `status` is
    0 until there is a response, and stays 0 if the connection is reset or held open. `at` is
    `time.monotonic()` at arrival.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    account_sid: str | None
    status: int
    at: float


@dataclass
class Fault:
    """A response that replaces the real one for authorised requests that match.

    `status`, `body` and `headers` are what is sent. A body of None is the vendor's error body for
    the status, in `form`; with a status below 400 the error inside it is `inner`. The headers
    replace the simulator's own headers of the same name, so that even a wrong Content-Length can be
    sent. Informational responses with the statuses in `interim` come before it.
    `endpoint`, `page` (of the list) and `account_sid` restrict what matches; None matches all.
    `times` limits how often it is used, None sets no limit; at `ends_at`, in seconds of the
    monotonic clock, it ends. After `delay_seconds`, `after` decides:
    "answer" sends the response, "reset" closes the connection with a TCP reset, "hang" keeps it
    open until the client leaves or the simulator stops.
    """

    status: int = 500
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    endpoint: Endpoint | None = None
    page: int | None = None
    account_sid: str | None = None
    times: int | None = 1
    ends_at: float = math.inf
    after: After = "answer"
    form: ErrorForm = "xml"
    inner: int = _CONFLICT
    interim: tuple[int, ...] = ()

    def matches(self, endpoint: Endpoint, page: int | None, account_sid: str, at: float) -> bool:
        """Whether the fault applies to a request at a time; `page` is None for a detail."""
        return (
            self.times != 0
            and at < self.ends_at
            and self.endpoint in (None, endpoint)
            and self.page in (None, page)
            and self.account_sid in (None, account_sid)
        )

    def response(self) -> Response:
        """What to send."""
        default = error_response(self.status, self.form, inner=self.inner)
        own = {name.lower() for name in self.headers}
        kept = {name: text for name, text in default.headers.items() if name.lower() not in own}
        return Response(
            self.status,
            default.body if self.body is None else self.body,
            kept | self.headers,
            delay_seconds=self.delay_seconds,
            after=self.after,
            verbatim=self.body is not None,
            interim=self.interim,
        )


@dataclass(frozen=True)
class Response:
    """A response before it is sent; `verbatim` forbids compressing the body."""

    status: int
    body: bytes
    headers: dict[str, str]
    delay_seconds: float = 0.0
    after: After = "answer"
    verbatim: bool = False
    interim: tuple[int, ...] = ()


def json_response(document: dict[str, Any]) -> Response:
    """A success, as JSON."""
    return Response(_OK, json.dumps(document).encode(), {"Content-Type": "application/json"})


def error_response(
    status: int,
    form: ErrorForm = "xml",
    headers: dict[str, str] | None = None,
    inner: int = _CONFLICT,
) -> Response:
    """A failure, in one of the three forms in the vendor's documentation.

    The vendor may answer 200 with an error inside: below 400 that error is `inner`.
    """
    kind = "application/xml" if form == "xml" else "application/json"
    told = status if status >= _FIRST_ERROR else inner
    body = b"" if status in BODILESS else _error_body(told, form)
    return Response(status, body, {"Content-Type": kind} | (headers or {}))


def _error_body(inner: int, form: ErrorForm) -> bytes:
    message = _MESSAGES.get(inner, reason_phrase(inner))
    if form == "json":
        return json.dumps({"RestException": {"Status": inner, "Message": message}}).encode()
    if form == "http_code":
        error = {"code": inner, "message": message, "description": None}
        response = {"code": inner, "error_data": error, "status": "failure"}
        return json.dumps({"http_code": inner, "method": "GET", "response": response}).encode()
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<TwilioResponse>\n <RestException>\n'
        f"  <Status>{inner}</Status>\n  <Message>{message}</Message>\n"
        " </RestException>\n</TwilioResponse>\n"
    ).encode()


def reason_phrase(status: int) -> str:
    """The standard phrase, or "Unknown" for a status without one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class PageRequest(NamedTuple):
    """A page of the list: its number, from 0, and its size."""

    number: int
    size: int


def read_page_request(query: dict[str, str], size_cap: int) -> PageRequest | None:
    """The page that a query asks for, no larger than `size_cap`; None if the query is invalid."""
    number = _digits(query.get("Page", "0"))
    size = _digits(query.get("PageSize", "50"))
    return None if number is None or not size else PageRequest(number, min(size, size_cap))


def _digits(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


def list_page(
    account: Account, page: PageRequest, *, origin: str, last_page: LastPage
) -> dict[str, Any]:
    """The envelope of the documented sample, around one page of the account's current numbers.

    Every URI in it starts with `origin`. Hold the account's lock until the result is serialised.
    """
    start = page.number * page.size
    path = f"{origin}/v2_beta/Accounts/{account.sid}/IncomingPhoneNumbers"

    def uri(number: int) -> str:
        return f"{path}?Page={number}&PageSize={page.size}"

    has_more = start + page.size < len(account.numbers) or last_page == "lying"
    envelope = {
        "page": page.number,
        "page_size": page.size,
        "uri": uri(page.number),
        "first_page_uri": uri(0),
        "next_page_uri": uri(page.number + 1) if has_more else None,
        "previous_page_uri": uri(page.number - 1) if page.number else None,
        "incoming_phone_numbers": account.numbers[start : start + page.size],
    }
    if not has_more and last_page == "empty":
        envelope["next_page_uri"] = ""
    if not has_more and last_page == "missing":
        del envelope["next_page_uri"]
    return envelope


class Allowance(NamedTuple):
    """Whether a request is within the limit, how many are left, and seconds until the next one."""

    allowed: bool
    remaining: int
    retry_after_seconds: int


class RequestWindow:
    """A limit of requests in any 60 seconds; refused requests do not count."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: deque[float] = deque()

    def take(self, now: float) -> Allowance:
        """Count a request at `now`, in seconds of a monotonic clock."""
        while self._taken and now - self._taken[0] >= LIMIT_WINDOW_SECONDS:
            self._taken.popleft()
        allowed = len(self._taken) < self._limit
        if allowed:
            self._taken.append(now)
        oldest = self._taken[0] if self._taken else now
        wait_seconds = math.ceil(oldest + LIMIT_WINDOW_SECONDS - now)
        return Allowance(allowed, self._limit - len(self._taken), wait_seconds)


def random_fault(rng: random.Random) -> Fault:
    """One of the failures that every API has at times."""
    return rng.choice(
        (
            Fault(status=500),
            Fault(status=502, body=b"<html><h1>502 Bad Gateway</h1></html>\n", headers=_HTML),
            Fault(status=503, headers={"Retry-After": "1"}),
            Fault(status=429, form="json", headers={"Retry-After": "1"}),
            Fault(after="reset"),
        )
    )
