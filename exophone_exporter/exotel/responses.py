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
from exophone_exporter.exotel.text import clean_text, whole_number

# The limit that an answer names and the requests that are left of it; None where it names none.
RateLimits: TypeAlias = tuple[int | None, int | None]

RETRY_AFTER_CAP_SECONDS: Final = 600.0
_BACKOFF_FIRST_SECONDS: Final = 0.5
# The vendor's advice for a limit without a Retry-After: begin with a second, and double.
_LIMIT_FIRST_SECONDS: Final = 1.0
_BACKOFF_CAP_SECONDS: Final = 10.0
_BACKOFF_DOUBLINGS_MAX: Final = 16
_CLASS_OF_REDIRECTS: Final = 3

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
    429: (RateLimited, "the API limits the requests"),
    503: (ServerFailed, "the API is down, overloaded, or limits the requests"),
}
_CLASSES: Final[Mapping[int, tuple[type[PollError], str]]] = {
    3: (UnexpectedStatus, "a redirect to {}, which is not followed; fix base_url or region"),
    5: (ServerFailed, "the API failed"),
}
_UNLISTED: Final = (UnexpectedStatus, "a status that the API's documentation does not list")


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


def error_of(
    answer: Answer, now_wall: float, endpoint: Endpoint, inside: ErrorInside | None = None
) -> PollError:
    """The error that an answer is, or that was found inside a 200.

    One inside a 200 is what the same status would be outside; without a status it is an envelope.
    `now_wall` dates a Retry-After.
    """
    status = inside.code if inside else answer.status
    words = inside.words if inside else error_bodies.vendor_message(answer.body)
    words = clean_text(answer.mask(words))  # masked before they are cut, however they were written
    if status is None:
        return ErrorInside(words)
    is_html = not inside and error_bodies.is_html(answer.body)
    kind, advice = _meaning(status, answer.headers, endpoint, is_html=is_html)
    wait = retry_after_seconds(answer.headers.get("Retry-After"), now_wall)
    if kind is RateLimited and wait is not None:
        advice += f", and asks to wait {wait:g}s"
    if words not in ("", f"{status}") and status // 100 != _CLASS_OF_REDIRECTS:
        speaker = "an HTML page, not the API," if is_html else "the API"
        advice += f' ({speaker} says: "{words}")'
    message = f"{status}{' inside a 200' if inside else ''}: {advice}"
    error = RateLimited(message, wait) if kind is RateLimited else kind(message)
    error.status = status
    return error


def _meaning(
    status: int, headers: Mapping[str, str], endpoint: Endpoint, *, is_html: bool
) -> tuple[type[PollError], str]:
    """The kind of error that a status is, and advice."""
    if status in (403, 503) and "Retry-After" in headers:
        return _ERRORS[429]
    kind, advice = _ERRORS.get(status) or _CLASSES.get(status // 100, _UNLISTED)
    if status // 100 == _CLASS_OF_REDIRECTS:
        advice = advice.format(_origin(headers.get("Location", "")))
    if status in (400, 422) and endpoint == "list":
        advice += "; is page_size larger than it allows?"
    if kind is NotFound and endpoint == "balance":
        advice = "the API has no balance for the account"
    if kind is Forbidden and is_html:
        advice = "a firewall or proxy in front of the API refused the request"
    return kind, advice


def _origin(location: str) -> str:
    """Where a redirect leads, without the rest of its URL, which may hold anything."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "elsewhere"
    host = parts.netloc.rpartition("@")[2]
    return clean_text(f"{parts.scheme}://{host}") if parts.scheme and host else "elsewhere"


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
    limit, remaining = (headers.get(f"X-RateLimit-{name}", "") for name in ("Limit", "Remaining"))
    return whole_number(limit), whole_number(remaining)
