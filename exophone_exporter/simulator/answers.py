"""What the simulated API answers: pages, error bodies in the vendor's three forms, and faults."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    import random

    from exophone_exporter.simulator.world import Account

Endpoint = Literal["list", "detail"]
ErrorForm = Literal["xml", "json", "http_code"]
After = Literal["answer", "reset", "hang"]
LastPage = Literal["null", "empty", "missing", "lying"]

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


@dataclass
class Fault:
    """An answer given instead of the real one to authorised requests that it matches.

    `status`, `body` and `headers` are what is sent; a body of None is the vendor's error body for
    the status, in `form` (with a status below 400 its inner code is 409). The headers replace
    the simulator's own of the same name, so that even a wrong Content-Length can be sent.
    `endpoint`, `page` and `account_sid` restrict what is matched; None matches all, and `page` is
    that of the list. `times` counts the answers, None is for ever. `delay_seconds` comes first,
    then `after`: "answer" sends the answer, "reset" closes the connection with a TCP reset, "hang"
    holds it open until the client leaves or the simulator stops.
    """

    status: int = 500
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    endpoint: Endpoint | None = None
    page: int | None = None
    account_sid: str | None = None
    times: int | None = 1
    after: After = "answer"
    form: ErrorForm = "xml"

    def matches(self, endpoint: Endpoint, page: int | None, account_sid: str) -> bool:
        """Whether this fault is meant for such a request; `page` is None for a detail."""
        return (
            self.times != 0
            and self.endpoint in (None, endpoint)
            and self.page in (None, page)
            and self.account_sid in (None, account_sid)
        )

    def answer(self) -> Answer:
        """What to send."""
        usual = error_answer(self.status, self.form)
        headers = {
            name: value
            for name, value in usual.headers.items()
            if name.lower() not in {own.lower() for own in self.headers}
        }
        return Answer(
            self.status,
            usual.body if self.body is None else self.body,
            headers | self.headers,
            delay_seconds=self.delay_seconds,
            after=self.after,
            verbatim=self.body is not None,
        )


@dataclass(frozen=True)
class Answer:
    """An answer before it is put on the wire; `verbatim` forbids compressing the body."""

    status: int
    body: bytes
    headers: dict[str, str]
    delay_seconds: float = 0.0
    after: After = "answer"
    verbatim: bool = False


def json_answer(document: dict[str, Any]) -> Answer:
    """A success, as JSON."""
    return Answer(_OK, json.dumps(document).encode(), {"Content-Type": "application/json"})


def error_answer(
    status: int, form: ErrorForm = "xml", headers: dict[str, str] | None = None
) -> Answer:
    """A failure, in one of the three forms that the vendor's pages show."""
    kind = "application/xml" if form == "xml" else "application/json"
    body = b"" if status in BODILESS else _error_body(status, form)
    return Answer(status, body, {"Content-Type": kind} | (headers or {}))


def _error_body(status: int, form: ErrorForm) -> bytes:
    # A success with an error inside is a thing the vendor does: the status outside says 200 then.
    inner = status if status >= _FIRST_ERROR else _CONFLICT
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
    """The phrase of the standard, or "Unknown" for a status that no standard has."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Page(NamedTuple):
    """A page of the list: its number from 0, and how many numbers it has room for."""

    number: int
    size: int


def read_page(query: dict[str, str], size_cap: int) -> Page | None:
    """The page that a query asks for, no larger than `size_cap`; None if it makes no sense."""
    number = _digits(query.get("Page", "0"))
    size = _digits(query.get("PageSize", "50"))
    return None if number is None or not size else Page(number, min(size, size_cap))


def _digits(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


def list_page(account: Account, page: Page, *, origin: str, last_page: LastPage) -> dict[str, Any]:
    """The envelope of the documented sample, around one page of the account's numbers now.

    `origin` begins every URI in it. Hold the account's lock until the result has been written out.
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
    """Whether a request is within its limit, how many more are, and seconds until another is."""

    allowed: bool
    remaining: int
    retry_after_seconds: int


class RequestWindow:
    """A limit of requests in any 60 seconds; refused requests do not count against it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: deque[float] = deque()

    def take(self, now: float) -> Allowance:
        """Count a request made at `now`, in seconds of any clock that never goes back."""
        while self._taken and now - self._taken[0] >= LIMIT_WINDOW_SECONDS:
            self._taken.popleft()
        allowed = len(self._taken) < self._limit
        if allowed:
            self._taken.append(now)
        oldest = self._taken[0] if self._taken else now
        wait_seconds = math.ceil(oldest + LIMIT_WINDOW_SECONDS - now)
        return Allowance(allowed, self._limit - len(self._taken), wait_seconds)


def random_fault(rng: random.Random) -> Fault:
    """One of the failures that a client of any API meets on a bad day."""
    return rng.choice(
        (
            Fault(status=500),
            Fault(status=502, body=b"<html><h1>502 Bad Gateway</h1></html>\n", headers=_HTML),
            Fault(status=503, headers={"Retry-After": "1"}),
            Fault(status=429, form="json", headers={"Retry-After": "1"}),
            Fault(after="reset"),
        )
    )
