"""`/probe?target=SID_OR_PHONE_NUMBER[&account=NAME]`: queries the API for one number on demand.

Every probe is bounded. Its target is checked before any request and becomes one quoted segment of
one path; a phone number becomes the sid that the last poll has for it. Its answer comes in time,
whatever the API does. All probes of an account share a fifth of its request budget, probes of the
same number at the same time share one request, and an answer is cached for some seconds.

The request runs in a daemon thread, which is abandoned when its time is over: a name server that
hangs must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account
from exophone_exporter.errors import BudgetSpent, NotFound, PollError, Stopped
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.model import ExoPhone, is_askable_sid
from exophone_exporter.exotel.rate_limiter import WINDOW_SECONDS, RateLimiter
from exophone_exporter.inventory.phone_numbers import is_phone_number, numbers_called
from exophone_exporter.inventory.state import AccountStatus
from exophone_exporter.logs import fields
from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.negotiation import negotiated
from exophone_exporter.metrics.samples import probe_lines
from exophone_exporter.threads import Start, start_daemon

# Without a scrape timeout, a probe may take this many times the timeout of a single read.
OWN_TIMEOUTS: Final = 3
# The server gives an answer a minute.
LONGEST_SECONDS: Final = 55.0
# Subtracted from the scrape timeout, so that the answer arrives before it ends.
OFFSET_SECONDS: Final = 0.5
# The probes of an account may use one part in this many of its request budget.
BUDGET_SHARE: Final = 5
# How long an answer of the API, "no such number" included, is cached.
CACHE_SECONDS: Final = 10.0
# Parallel requests of one account, abandoned ones included.
PARALLEL_REQUESTS: Final = 16
_CACHED_MAX: Final = 1000
_FIELDS_MAX: Final = 20

_SECONDS: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"
_EXAMPLE: Final = "like /probe?target=SID_OR_PHONE_NUMBER"
_ACCOUNTS: Final = "account=NAME; the names are the label `account` on /metrics"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probed:
    """The result of a probe: `number` is None if the API did not return it within `seconds`."""

    account: Account
    number: ExoPhone | None
    seconds: float


@dataclass(frozen=True)
class Refusal:
    """A probe that was not made: HTTP status, advice in one line, and when to retry."""

    status: int
    text: str
    retry_after_seconds: int | None = None


Outcome: TypeAlias = Probed | Refusal


class _RefusedError(Exception):
    """The probe cannot be made: an answer, or what is wrong with the request."""

    def __init__(self, why: str | Refusal) -> None:
        super().__init__()
        self.refusal = Refusal(400, why) if isinstance(why, str) else why


@dataclass(eq=False, repr=False)
class Prober:
    """Answers probes, in the event loop; `clients` returns the current client of each account.

    `statuses` returns what their last polls found. Cached answers go with their client: after a
    reload, a removed account is unknown, and a changed account is queried again. `start` runs a
    function in another thread, or raises RuntimeError.
    """

    clients: Callable[[], Mapping[str, Client]]
    _clock: Clock
    statuses: Callable[[], Sequence[AccountStatus]] = tuple
    start: Start = start_daemon

    def __post_init__(self) -> None:
        self._accounts: dict[str, _AccountProber] = {}
        # The share of the probes, by the limiter that it is a part of: it outlives a reload, too.
        self._allowances: WeakKeyDictionary[RateLimiter, RateLimiter] = WeakKeyDictionary()

    async def probe(self, query: bytes, timeouts: Sequence[str]) -> Outcome:
        """The outcome of a raw query string; `timeouts` are the values of the timeout header."""
        clients = self.clients()
        try:
            target, name = _parsed(query)
            sid, name = self._named(target, name, clients)
            within_seconds = _within_seconds(timeouts, clients[name].account)
            return await self._in_time(self._account(name, clients), sid, within_seconds)
        except _RefusedError as error:
            return error.refusal

    def _named(
        self, target: str, name: str | None, clients: Mapping[str, Client]
    ) -> tuple[str, str]:
        """The sid of a target and its account; without a `name`, the one that has the number.

        Raises _RefusedError unless a phone number is exactly one number of the last polls.
        """
        if not is_phone_number(target):
            return target, _account_name(name, clients)
        names = list(clients) if name is None else [_account_name(name, clients)]
        polled = {
            status.account.name: status.snapshot.numbers
            for status in self.statuses()
            if status.snapshot and status.account.name in names
        }
        found = [(n.sid, own) for own in polled for n in numbers_called(target, polled[own])]
        if len(found) == 1:
            return found[0]
        if not found and target.isdigit():  # many a sid is a local phone number
            return target, _account_name(name, clients)
        self._bound_guesses([clients[each] for each in names], clients)
        if found:
            raise _RefusedError(_SEVERAL)
        raise _RefusedError(_NOT_FOUND if len(polled) == len(names) else _NOT_POLLED)

    def _bound_guesses(self, asked: Iterable[Client], clients: Mapping[str, Client]) -> None:
        """Where numbers are masked, nobody may try fast which ones there are."""
        for account in (client.account for client in asked):
            if account.per_number.phone_number != "full":
                self._account(account.name, clients).take_share()

    def _account(self, name: str, clients: Mapping[str, Client]) -> _AccountProber:
        """The prober of an account; the probers of former clients are dropped."""
        self._accounts = {
            name: prober
            for name, prober in self._accounts.items()
            if clients.get(name) is prober.client
        }
        if name not in self._accounts:
            client = clients[name]
            self._accounts[name] = _AccountProber(client, self._allowance(client), self.start)
        return self._accounts[name]

    def _allowance(self, client: Client) -> RateLimiter:
        """The part of an account's request limit that its probes, by any name, may use."""
        share = max(1, client.budget.requests_per_minute // BUDGET_SHARE)
        new = RateLimiter(share, self._clock.monotonic)
        allowance = self._allowances.setdefault(client.budget, new)
        allowance.resize(share)
        return allowance

    async def _in_time(self, account: _AccountProber, sid: str, within_seconds: float) -> Outcome:
        started_at = self._clock.monotonic()
        future = asyncio.wrap_future(account.probe(sid, within_seconds))
        try:
            return await asyncio.wait_for(future, within_seconds)
        except TimeoutError:
            account.log_failure(sid, "timeout", f"there was no answer within {within_seconds:g}s")
            return Probed(account.client.account, None, self._clock.monotonic() - started_at)


def probe_handler(prober: Prober) -> Callable[[Request], Awaitable[Response]]:
    """The Starlette handler of /probe."""

    async def probe(request: Request) -> Response:
        timeouts = request.headers.getlist(_TIMEOUT_HEADER)
        outcome = await prober.probe(request.scope["query_string"], timeouts)
        if isinstance(outcome, Refusal):
            return _refusal_response(outcome)
        openmetrics, gzipped, headers = negotiated(request.headers)
        body = _exposition(outcome, openmetrics=openmetrics)
        return Response(gzip.compress(body, mtime=0) if gzipped else body, headers=headers)

    return probe


def _refusal_response(refusal: Refusal) -> Response:
    wait_seconds = refusal.retry_after_seconds
    headers = {"X-Content-Type-Options": "nosniff"}
    if wait_seconds is not None:
        headers["Retry-After"] = str(wait_seconds)
    return PlainTextResponse(f"{refusal.text}\n", refusal.status, headers)


def _exposition(probed: Probed, *, openmetrics: bool) -> bytes:
    parts: list[str] = []
    lines = probe_lines(probed.account, probed.number, probed.seconds)
    for metric, family in groupby(lines, key=itemgetter(0)):
        parts.append(catalog.live(metric).header(openmetrics=openmetrics))
        parts.extend(text for _, text in family)
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _parsed(query: bytes) -> tuple[str, str | None]:
    """The sid, and the account's name or None; other parameters are ignored."""
    if query.count(b"&") >= _FIELDS_MAX:
        raise _RefusedError(f"more than {_FIELDS_MAX} parameters; use one target, {_EXAMPLE}")
    parameters = QueryParams(query)
    targets, accounts = parameters.getlist("target"), parameters.getlist("account")
    if len(targets) != 1:
        raise _RefusedError(f"exactly one target is required, {_EXAMPLE}")
    if len(accounts) > 1:
        raise _RefusedError("the parameter account must be given only once")
    if not is_askable_sid(targets[0]) and not is_phone_number(targets[0]):
        raise _RefusedError(
            "invalid target: a SID has 1 to 128 printable ASCII characters without space and"
            r" / \ ? # %, and is not . or ..; a phone number has 7 digits or more (encode + as %2B;"
            " URLs and hosts are not allowed)"
        )
    return targets[0], parameters.get("account")


def _account_name(name: str | None, clients: Mapping[str, Client]) -> str:
    if name is None and len(clients) == 1:
        return next(iter(clients))
    if name is None:
        raise _RefusedError(f"there are several accounts; choose one with {_ACCOUNTS}")
    if name not in clients:
        raise _RefusedError(f"unknown account; choose a configured one with {_ACCOUNTS}")
    return name


def _within_seconds(timeouts: Sequence[str], account: Account) -> float:
    """How long a probe may take: the account's own limit, or less if the scraper waits less."""
    poll = account.poll
    own = min(OWN_TIMEOUTS * poll.timeout_seconds, poll.deadline_seconds, LONGEST_SECONDS)
    if not timeouts:
        return own
    text = timeouts[0].strip(" \t")
    if len(timeouts) > 1 or _SECONDS.fullmatch(text) is None or float(text) == 0:
        raise _RefusedError(
            f"{_TIMEOUT_HEADER} must be a number of seconds above 0, like 10 or 0.5"
        )
    theirs = float(text)
    return min(own, theirs - OFFSET_SECONDS if theirs > OFFSET_SECONDS else theirs)


@dataclass(frozen=True, eq=False)
class _Request:
    """A request in flight: it has `within_seconds`, until `ends_at` by the monotonic clock."""

    within_seconds: float
    ends_at: float
    future: Future[Outcome] = field(default_factory=Future)


@dataclass(eq=False, repr=False)
class _AccountProber:
    """The probes of one client: their share of the budget, requests in flight, cached answers."""

    client: Client
    _allowance: RateLimiter
    _start: Start

    def __post_init__(self) -> None:
        self._monotonic = self.client.clock.monotonic
        self._lock = threading.Lock()
        self._requests: dict[str, _Request] = {}
        self._in_flight = 0
        # By sid: until when an answer is cached, by the monotonic clock, and the answer.
        self._cached: dict[str, tuple[float, Future[Outcome]]] = {}

    def probe(self, sid: str, within_seconds: float) -> Future[Outcome]:
        """The outcome for a number, now or later; the future cannot be cancelled.

        Raises _RefusedError where there is no place for another request.
        """
        with self._lock:
            now = self._monotonic()
            expires_at, future = self._cached.get(sid, (-math.inf, Future()))
            if expires_at > now:
                return future
            request = self._requests.get(sid)
            # Not shared if it was abandoned, or has less time than this probe.
            if request and request.ends_at > now and request.within_seconds >= within_seconds:
                return request.future
            return self._start_request(sid, within_seconds)

    def take_share(self) -> None:
        """Take a place in the share of the probes, or raise _RefusedError where none is left."""
        if self._allowance.reserve(within_seconds=0) is None:
            text = _OVER_SHARE.format(self._allowance.requests_per_minute)
            raise _RefusedError(Refusal(429, text, math.ceil(self._allowance.wait_seconds())))

    def log_failure(self, sid: str, reason: str, error: str) -> None:
        """Log at level debug why a probe failed, without a sid that must not be shown."""
        account = self.client.account
        shown = sid if account.per_number.phone_number == "full" else "…"
        _log.debug(
            "the probe failed",
            extra=fields(
                account=account.name, sid=shown, reason=reason, error=error.replace(sid, shown)
            ),
        )

    def _start_request(self, sid: str, within_seconds: float) -> Future[Outcome]:
        if self._in_flight >= PARALLEL_REQUESTS:
            raise _RefusedError(_BUSY)
        if held_seconds := self.client.budget.hold_off_seconds():
            raise _RefusedError(Refusal(429, _HELD_OFF, math.ceil(held_seconds)))
        self.take_share()
        request = _Request(within_seconds, self._monotonic() + within_seconds)
        request.future.set_running_or_notify_cancel()  # so that no waiter cancels it for others
        try:
            self._start(lambda: self._run(sid, request))
        except RuntimeError:  # the system has no thread left
            raise _RefusedError(_BUSY) from None
        self._in_flight += 1
        self._requests[sid] = request
        return request.future

    def _run(self, sid: str, request: _Request) -> None:
        """Make the request, in its own thread; the future gets an outcome whatever happens."""
        outcome, lasts = self._outcome(sid, request.within_seconds)
        with self._lock:
            self._in_flight -= 1
            if self._requests.get(sid) is request:
                del self._requests[sid]
            if lasts:
                self._cached[sid] = self._monotonic() + CACHE_SECONDS, request.future
                if len(self._cached) > _CACHED_MAX:
                    del self._cached[next(iter(self._cached))]  # the oldest
        request.future.set_result(outcome)

    def _outcome(self, sid: str, within_seconds: float) -> tuple[Outcome, bool]:
        """The outcome of a request, and whether to cache it, as a number or "no such number"."""
        started_at, number, lasts = self._monotonic(), None, False
        try:
            number, lasts = self.client.fetch_number(sid, within_seconds), True
        except BudgetSpent:
            return _POLL_COMES_FIRST, False
        except Stopped:
            return _STOPPING, False
        except PollError as error:
            self.log_failure(sid, error.reason, str(error))
            lasts = isinstance(error, NotFound)
        except Exception as error:  # noqa: BLE001 - the waiters need an outcome after a bug, too
            about = fields(account=self.client.account.name)
            _log.error("a defect in the exporter", extra=about, exc_info=error)
        return Probed(self.client.account, number, self._monotonic() - started_at), lasts


_BUSY: Final = Refusal(
    503, "too many probes of this account are waiting for the API; run fewer probes in parallel", 1
)
_POLL_COMES_FIRST: Final = Refusal(
    429,
    "the poll is using the account's request budget; probe less often, or raise"
    " requests_per_minute",
    math.ceil(WINDOW_SECONDS),
)
_STOPPING: Final = Refusal(503, "the exporter is stopping or was reloaded; try again", 1)
_NOT_FOUND: Final = Refusal(
    404, "the last poll has no number that matches; wait for the next one, or use a SID"
)
_NOT_POLLED: Final = Refusal(
    503, "a phone number is looked up in the last poll, and there was none yet; try again", 10
)

_SEVERAL: Final = (
    f"several numbers of the last poll match; use a SID, or choose an account with {_ACCOUNTS}"
)
_HELD_OFF: Final = "the API asked to wait with requests about this account"
_OVER_SHARE: Final = (
    "the probes of this account may make {} requests a minute, so that the poll keeps the rest of"
    " its budget; probe fewer numbers or less often, or raise requests_per_minute"
)
