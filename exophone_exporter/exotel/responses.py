"""What a status means, when to ask again, and how long to wait: pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from exophone_exporter.errors import (
    BillingRefused,
    CredentialsRejected,
    Forbidden,
    NotFound,
    PollError,
    RateLimited,
    ServerFailed,
    UnexpectedStatus,
)
from exophone_exporter.exotel import model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RETRY_AFTER_CAP_SECONDS: Final = 600.0
_BACKOFF_FIRST_SECONDS: Final = 0.5
_BACKOFF_CAP_SECONDS: Final = 10.0
_BACKOFF_DOUBLINGS_MAX: Final = 16
_OK: Final = 200
_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503

_ERRORS: Final[Mapping[int, tuple[type[PollError], str]]] = {
    401: (
        CredentialsRejected,
        (
            "401: the API key or token is wrong, or the region is: an account in Mumbai"
            " (region: mumbai) gets the same answer from Singapore"
        ),
    ),
    402: (BillingRefused, "402: the account's plan or balance does not allow it"),
    403: (Forbidden, "403: the account is suspended or the key lacks the permission"),
    404: (NotFound, "404: no such account or number; is the sid right?"),
    408: (ServerFailed, "408: the server waited too long"),
    425: (ServerFailed, "425: the server asks to come again later"),
}


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, now_wall: float
) -> PollError | None:
    """The error that an answer is, None for a 200; `now_wall` dates a Retry-After."""
    if status == _OK:
        return None
    said = model.vendor_message(body)
    behind = f' (the API says: "{said}")' if said else ""
    retry_after = headers.get("Retry-After")
    if status == _TOO_MANY_REQUESTS or (status == _UNAVAILABLE and retry_after is not None):
        wait = retry_after_seconds(retry_after, now_wall)
        asks = "" if wait is None else f", and asks to wait {wait:g}s"
        return RateLimited(f"{status}: the API limits the requests{asks}{behind}", wait)
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        return UnexpectedStatus(_redirect_advice(status, headers))
    if status in _ERRORS:
        kind, message = _ERRORS[status]
        return kind(message + behind)
    if 500 <= status < 600:  # noqa: PLR2004 - the class of server errors
        return ServerFailed(f"{status}: the API failed{behind}")
    return UnexpectedStatus(
        f"{status}: an answer that the API's documentation does not know{behind}"
    )


def _redirect_advice(status: int, headers: Mapping[str, str]) -> str:
    """Where a redirect leads, as an origin alone: the rest of it may hold anything."""
    try:
        location = urlsplit(headers["Location"])
        host = location.netloc.rpartition("@")[2]
        where = f"{location.scheme}://{host}" if location.scheme and host else "elsewhere"
    except (KeyError, ValueError):  # none at all, or a malformed one
        where = "elsewhere"
    where = model.clean_text(where)
    return f"{status}: a redirect to {where}, which is not followed; fix base_url or region"


def retry_delay_seconds(
    attempt: int, error: PollError, uniform: Callable[[float, float], float]
) -> float:
    """Seconds before attempt `attempt` + 1: what the API asks, else exponential, full jitter."""
    if isinstance(error, RateLimited) and error.retry_after_seconds is not None:
        return error.retry_after_seconds
    doublings = min(attempt - 1, _BACKOFF_DOUBLINGS_MAX)
    return uniform(0, min(_BACKOFF_CAP_SECONDS, _BACKOFF_FIRST_SECONDS * 2**doublings))


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
