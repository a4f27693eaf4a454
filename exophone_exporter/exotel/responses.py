"""What a status means, when to ask again, and how long to wait: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from exophone_exporter.errors import (
    BillingRefused,
    CredentialsRejected,
    ErrorInside,
    Forbidden,
    NotFound,
    PollError,
    RateLimited,
    ServerFailed,
    UnexpectedStatus,
)
from exophone_exporter.exotel import error_bodies
from exophone_exporter.exotel.model import Endpoint
from exophone_exporter.exotel.text import clean_text

# The limit that an answer names and the requests that are left of it; None where it names none.
RateLimits: TypeAlias = tuple[int | None, int | None]

RETRY_AFTER_CAP_SECONDS: Final = 600.0
_BACKOFF_FIRST_SECONDS: Final = 0.5
# The vendor's advice for a limit without a Retry-After: begin with a second, and double.
_LIMIT_FIRST_SECONDS: Final = 1.0
_BACKOFF_CAP_SECONDS: Final = 10.0
_BACKOFF_DOUBLINGS_MAX: Final = 16
_DIGITS_MAX: Final = 9
_OK: Final = 200
_TOO_MANY_REQUESTS: Final = 429
# With a Retry-After they are limits too.
_PERHAPS_LIMITS: Final = (403, 503)
_PARAMETERS: Final = (400, 422)
_CLASS_OF_REDIRECTS: Final = 3
_CLASS_OF_FAILURES: Final = 5

_ERRORS: Final[Mapping[int, tuple[type[PollError], str]]] = {
    202: (UnexpectedStatus, "the API accepted the request and sent no result yet"),
    400: (UnexpectedStatus, "the API rejects the parameters of the request"),
    401: (
        CredentialsRejected,
        (
            "the API key, token or SID is wrong, or the region is: an account in Mumbai"
            " (region: mumbai) gets the same answer from Singapore"
        ),
    ),
    402: (BillingRefused, "the account's plan or balance does not allow it"),
    403: (Forbidden, "the account is suspended or the key lacks the permission"),
    404: (NotFound, "no such account or number; is the sid right?"),
    408: (ServerFailed, "the server waited too long"),
    409: (UnexpectedStatus, "the request conflicts with the state of the account"),
    410: (NotFound, "the account or number is gone"),
    422: (UnexpectedStatus, "the API rejects the parameters of the request"),
    425: (ServerFailed, "the server asked to retry later"),
    503: (ServerFailed, "the API is down, overloaded, or limits the requests"),
}


@dataclass(frozen=True)
class Answer:
    """A response. `body` is decompressed; of an error it is at most the first 4 KiB.

    Where the server repeats a secret that it was sent, `<secret>` replaces it. `mask` does so in a
    text that is made from the body, which could have written the secret with escapes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    mask: Callable[[str], str] = str


@dataclass(frozen=True)
class _Said:
    """What an answer says: its status, headers and words, and where the status was."""

    status: int
    headers: Mapping[str, str]
    words: str
    inside: bool = False
    html: bool = False

    @property
    def label(self) -> str:
        return f"{self.status} inside a 200" if self.inside else f"{self.status}"

    @property
    def quoted(self) -> str:
        """The words for the end of a message, "" where they say no more than the status."""
        speaker = "an HTML page, not the API," if self.html else "the API"
        silent = self.words in ("", str(self.status))
        return "" if silent else f' ({speaker} says: "{self.words}")'


def error_of(answer: Answer, now_wall: float, endpoint: Endpoint) -> PollError | None:
    """The error that an answer is, None for a 200; `now_wall` dates a Retry-After."""
    if answer.status == _OK:
        return None
    words = _fit(error_bodies.vendor_message(answer.body), answer)
    html = error_bodies.is_html(answer.body)
    return _error(_Said(answer.status, answer.headers, words, html=html), now_wall, endpoint)


def error_inside(
    found: ErrorInside, answer: Answer, now_wall: float, endpoint: Endpoint
) -> PollError:
    """The error that the same status would be outside of a 200; without a status an envelope."""
    words = _fit(found.words, answer)
    if found.code is None:
        return ErrorInside(words)
    return _error(_Said(found.code, answer.headers, words, inside=True), now_wall, endpoint)


def _fit(words: str, answer: Answer) -> str:
    """Words for a message: however the body wrote a secret, it is masked before they are cut."""
    return clean_text(answer.mask(words))


def _error(said: _Said, now_wall: float, endpoint: Endpoint) -> PollError:
    error = _limit(said, now_wall) or _refusal(said, endpoint)
    error.status = said.status
    return error


def _limit(said: _Said, now_wall: float) -> RateLimited | None:
    """The limit that an answer is, if it is one."""
    retry_after = said.headers.get("Retry-After")
    wait = retry_after_seconds(retry_after, now_wall)
    perhaps = said.status in _PERHAPS_LIMITS and retry_after is not None
    if said.status != _TOO_MANY_REQUESTS and not perhaps:
        return None
    asks = "" if wait is None else f", and asks to wait {wait:g}s"
    return RateLimited(f"{said.label}: the API limits the requests{asks}{said.quoted}", wait)


def _refusal(said: _Said, endpoint: Endpoint) -> PollError:
    status_class = said.status // 100
    if status_class == _CLASS_OF_REDIRECTS:
        return UnexpectedStatus(_redirect_advice(said))
    kind, advice = _ERRORS.get(
        said.status,
        (ServerFailed, "the API failed")
        if status_class == _CLASS_OF_FAILURES
        else (UnexpectedStatus, "a status that the API's documentation does not list"),
    )
    if said.status in _PARAMETERS and endpoint == "list":
        advice += "; is page_size larger than it allows?"
    if kind is NotFound and endpoint == "balance":
        advice = "the API has no balance for the account"
    if kind is Forbidden and said.html:
        advice = "a firewall or proxy in front of the API refused the request"
    return kind(f"{said.label}: {advice}{said.quoted}")


def _redirect_advice(said: _Said) -> str:
    """Where a redirect leads, as an origin alone: the rest of it may hold anything."""
    try:
        location = urlsplit(said.headers["Location"])
        host = location.netloc.rpartition("@")[2]
        where = f"{location.scheme}://{host}" if location.scheme and host else "elsewhere"
    except (KeyError, ValueError):  # none at all, or a malformed one
        where = "elsewhere"
    where = clean_text(where)
    return f"{said.label}: a redirect to {where}, which is not followed; fix base_url or region"


def retry_delay_seconds(
    attempt: int, error: PollError, uniform: Callable[[float, float], float]
) -> float:
    """Seconds before attempt `attempt` + 1: what the API asks, else exponential, full jitter.

    The jitter of a limit comes on top: a sooner request would be refused again.
    """
    doubled = 2 ** min(attempt - 1, _BACKOFF_DOUBLINGS_MAX)
    if not isinstance(error, RateLimited):
        return uniform(0, min(_BACKOFF_CAP_SECONDS, _BACKOFF_FIRST_SECONDS * doubled))
    if error.retry_after_seconds is not None:
        return error.retry_after_seconds
    least = min(_BACKOFF_CAP_SECONDS, _LIMIT_FIRST_SECONDS * doubled)
    return uniform(least, 2 * least)


def retry_after_seconds(header: str | None, now_wall: float) -> float | None:
    """Seconds that a Retry-After asks to wait, from 0 to the cap; None where it makes no sense.

    ASCII digits or an HTTP date, as RFC 9110 has it; int() would also read Arabic digits.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_CAP_SECONDS)
    try:
        date = parsedate_to_datetime(text)
        wait_seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_wall
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(0.0, wait_seconds), RETRY_AFTER_CAP_SECONDS)


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """The vendor's X-RateLimit headers; what is not a whole number is as good as none."""
    return _whole(headers.get("X-RateLimit-Limit")), _whole(headers.get("X-RateLimit-Remaining"))


def _whole(header: str | None) -> int | None:
    text = (header or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None
