"""Everything that can go wrong, in one tree.

ExoPhoneError
├── ConfigError, StartError, Stopped
└── PollError
    ├── ConnectFailed
    │   └── NotHttp
    ├── TimedOut
    │   └── DeadlinePassed
    │       └── BudgetSpent
    ├── TlsFailed, CredentialsRejected, Forbidden, BillingRefused, NotFound, RateLimited,
    │   ServerFailed, UnexpectedStatus, TooLarge
    ├── BadBody
    │   └── BodyCut, JsonCut
    ├── BadEnvelope
    │   └── ErrorInside
    ├── BadPagination
    │   └── ListShifted
    └── InternalError

Exceptions of requests, urllib3 and json are translated where they are met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final


class ExoPhoneError(Exception):
    """Root of the errors that this package raises."""


class ConfigError(ExoPhoneError):
    """The configuration cannot be used.

    `problems` holds a line for each thing that is wrong, `FILE:LINE: path: what and what instead`;
    none of them shows a secret.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StartError(ExoPhoneError):
    """The process cannot start; the message is one line for the person who started it."""


class Stopped(ExoPhoneError):
    """A wait was ended because the process ends, or because a reload removed the account."""


class PollError(ExoPhoneError):
    """Asking the API failed.

    `reason` is the label of `exophone_poll_failures_total` and closed: a new reason is a change of
    the metric contract. `attempts` says how often one request is tried in all before the failure
    stands: 1 is never again. `status` is that of the answer, or the one inside a 200; None where
    there is neither.
    """

    reason: ClassVar[str]
    attempts: ClassVar[int]
    status: int | None = None

    def __init_subclass__(cls, *, reason: str = "", attempts: int = 1) -> None:
        cls.reason = reason or cls.reason
        cls.attempts = attempts


class ConnectFailed(PollError, reason="connect", attempts=3):
    """No connection could be made, or it broke before an answer."""


class NotHttp(ConnectFailed):
    """What answered does not speak HTTP; asking again would get the same."""


class TimedOut(PollError, reason="timeout", attempts=3):
    """No answer within the timeout."""


class DeadlinePassed(TimedOut):
    """The whole poll took longer than its deadline."""


class BudgetSpent(DeadlinePassed):
    """The account's budget had no place in the time that was left, so nothing was asked."""


class TlsFailed(PollError, reason="tls"):
    """The certificate was refused or the handshake failed."""


class CredentialsRejected(PollError, reason="auth"):
    """401: the key, the token or the region is wrong."""


class Forbidden(PollError, reason="forbidden"):
    """403: suspended, or without the permission."""


class BillingRefused(PollError, reason="billing"):
    """402: the plan or the balance."""


class NotFound(PollError, reason="not_found"):
    """404 or 410: no such account, or no such number."""


class RateLimited(PollError, reason="rate_limited", attempts=3):
    """429, or 403 or 503 with Retry-After; `retry_after_seconds` is None where there was none."""

    def __init__(self, message: str, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ServerFailed(PollError, reason="server", attempts=3):
    """408, 425 or 5xx."""


class UnexpectedStatus(PollError, reason="status"):
    """A status that the list and the detail endpoint do not give."""


class TooLarge(PollError, reason="too_large"):
    """More bytes than an answer may have, counted after decompression."""


class BadBody(PollError, reason="bad_body"):
    """Not the JSON that was promised."""


class BodyCut(BadBody, attempts=3):
    """The connection ended before the body."""


class JsonCut(BadBody, attempts=2):
    """The JSON ended before its end."""


class BadEnvelope(PollError, reason="envelope"):
    """JSON, but not the documented object, or an error inside a 200."""


class ErrorInside(BadEnvelope):
    """A 200 with an error inside: `code` is the status there, None where it cannot be read."""

    def __init__(self, words: str, code: int | None = None) -> None:
        super().__init__(
            f"the API answered 200 with an error inside: {words or 'without a message'}"
        )
        self.code = code
        self.words = words


class BadPagination(PollError, reason="pagination"):
    """Pages that contradict each other, or that never end."""


class ListShifted(BadPagination):
    """The walk lacks many numbers that are still there: the list shifted on the way.

    `missed` says by sid from how many complete walks in a row each was missing, this one included.
    """

    def __init__(self, missing: int, missed: Mapping[str, int]) -> None:
        super().__init__(
            f"the list lacks {missing} numbers, and not all are gone: it shifted on the way"
        )
        self.missed = missed


class InternalError(PollError, reason="internal"):
    """A defect in the exporter, caught so that polling continues."""


# In the order of the tree: each kind of PollError has a reason of its own.
REASONS: Final = tuple(kind.reason for kind in PollError.__subclasses__())
