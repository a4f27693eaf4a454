"""Everything that can go wrong, in one tree.

ExoPhoneError
├── ConfigError             the configuration cannot be used; holds every problem found
├── StartError              the process cannot start: a port in use, a bad address
├── Stopped                 the process ends, or the account is removed; not a failure
└── PollError               asking the API failed; has a reason and a number of attempts
    ├── ConnectFailed       connect      no connection, or it broke before an answer
    │   └── NotHttp         connect      what answered does not speak HTTP
    ├── TimedOut            timeout      no answer in time
    │   └── DeadlinePassed  timeout      the whole poll took too long
    │       └── BudgetSpent timeout      it would, as no request is left before the deadline
    ├── TlsFailed           tls          the certificate or the handshake
    ├── CredentialsRejected auth         401
    ├── Forbidden           forbidden    403
    ├── BillingRefused      billing      402
    ├── NotFound            not_found    404, 410
    ├── RateLimited         rate_limited 429, or 403 or 503 with Retry-After
    ├── ServerFailed        server       408, 425, 5xx
    ├── UnexpectedStatus    status       any other status
    ├── TooLarge            too_large    more bytes than an answer may have
    ├── BadBody             bad_body     not the JSON that was promised
    │   ├── BodyCut         bad_body     the connection ended before the body
    │   └── JsonCut         bad_body     the JSON ended before its end
    ├── BadEnvelope         envelope     JSON, but not the documented object
    │   └── ErrorInside     envelope     an error inside a 200, before its code is read
    ├── BadPagination       pagination   pages that contradict each other
    │   └── ListShifted     pagination   many numbers are missing from them, and still there
    └── InternalError       internal     a defect in the exporter

`reason` is the label of `exophone_poll_failures_total` and closed: a new reason is a change of the
metric contract. Exceptions of requests, urllib3 and json are translated where they are met.
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

    `reason` is the metric label. `attempts` says how often one request is tried in all before the
    failure stands: 1 is never again. `status` is that of the answer, or the one inside a 200; None
    where there is neither.
    """

    reason: ClassVar[str]
    attempts: ClassVar[int] = 1
    status: int | None = None


class ConnectFailed(PollError):
    """No connection could be made, or it broke before an answer."""

    reason = "connect"
    attempts = 3


class NotHttp(ConnectFailed):
    """What answered does not speak HTTP; asking again would get the same."""

    attempts = 1


class TimedOut(PollError):
    """No answer within the timeout."""

    reason = "timeout"
    attempts = 3


class DeadlinePassed(TimedOut):
    """The whole poll took longer than its deadline."""

    attempts = 1


class BudgetSpent(DeadlinePassed):
    """The account's budget had no place in the time that was left, so nothing was asked."""


class TlsFailed(PollError):
    """The certificate was refused or the handshake failed."""

    reason = "tls"


class CredentialsRejected(PollError):
    """401: the key, the token or the region is wrong."""

    reason = "auth"


class Forbidden(PollError):
    """403: suspended, or without the permission."""

    reason = "forbidden"


class BillingRefused(PollError):
    """402: the plan or the balance."""

    reason = "billing"


class NotFound(PollError):
    """404 or 410: no such account, or no such number."""

    reason = "not_found"


class RateLimited(PollError):
    """429, or 403 or 503 with Retry-After; `retry_after_seconds` is None where there was none."""

    reason = "rate_limited"
    attempts = 3

    def __init__(self, message: str, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ServerFailed(PollError):
    """408, 425 or 5xx."""

    reason = "server"
    attempts = 3


class UnexpectedStatus(PollError):
    """A status that the list and the detail endpoint do not give."""

    reason = "status"


class TooLarge(PollError):
    """More bytes than an answer may have, counted after decompression."""

    reason = "too_large"


class BadBody(PollError):
    """Not the JSON that was promised."""

    reason = "bad_body"


class BodyCut(BadBody):
    """The connection ended before the body."""

    attempts = 3


class JsonCut(BadBody):
    """The JSON ended before its end; asked for once more."""

    attempts = 2


class BadEnvelope(PollError):
    """JSON, but not the documented object, or an error inside a 200."""

    reason = "envelope"


class ErrorInside(BadEnvelope):
    """A 200 with an error inside: `code` is the status there, None where it cannot be read."""

    def __init__(self, words: str, code: int | None = None) -> None:
        super().__init__(
            f"the API answered 200 with an error inside: {words or 'without a message'}"
        )
        self.code = code
        self.words = words


class BadPagination(PollError):
    """Pages that contradict each other, or that never end."""

    reason = "pagination"


class ListShifted(BadPagination):
    """The walk lacks many numbers that are still there: the list shifted on the way.

    `missed` says by sid from how many complete walks in a row each was missing, this one included.
    """

    def __init__(self, missing: int, missed: Mapping[str, int]) -> None:
        super().__init__(
            f"the list lacks {missing} numbers, and not all are gone: it shifted on the way"
        )
        self.missed = missed


class InternalError(PollError):
    """A defect in the exporter, caught so that polling continues."""

    reason = "internal"


# In the order of the tree: each kind of PollError has a reason of its own.
REASONS: Final = tuple(kind.reason for kind in PollError.__subclasses__())
