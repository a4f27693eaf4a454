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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

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
from exophone_exporter.metrics.samples import MetricText, probe_lines
from exophone_exporter.threads import begin

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


class RefusedError(Exception):
    """A probe that is not made: HTTP status, advice in one line, and when to retry."""

    def __init__(self, text: str, status: int = 400, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after


# The number, None if the API did not return it, and the seconds that this took.
_Answer: TypeAlias = tuple[ExoPhone | None, float] | RefusedError


@dataclass(eq=False, repr=False)
class Prober:
    """Answers probes, in the event loop; `clients` returns the current client of each account.

    `statuses` returns what their last polls found. Cached answers go with their client: after a
    reload, a removed account is unknown, and a changed account is queried again.
    """

    clients: Callable[[], Mapping[str, Client]]
    statuses: Callable[[], Sequence[AccountStatus]] = tuple

    def __post_init__(self) -> None:
        self._accounts: dict[str, _AccountProber] = {}
        # The share of the probes, by the limiter that it is a part of: it outlives a reload, too.
        self._allowances: WeakKeyDictionary[RateLimiter, RateLimiter] = WeakKeyDictionary()

    async def handle(self, request: Request) -> Response:
        """Answer /probe."""
        openmetrics, gzipped, headers = negotiated(request.headers)
        timeouts = request.headers.getlist(_TIMEOUT_HEADER)
        try:
            lines = await self.probe(request.scope["query_string"], timeouts)
        except RefusedError as error:
            headers = {"X-Content-Type-Options": "nosniff"}
            if error.retry_after_seconds is not None:
                headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
            return PlainTextResponse(f"{error}\n", error.status, headers)
        body = _exposition(lines, openmetrics=openmetrics)
        return Response(gzip.compress(body, mtime=0) if gzipped else body, headers=headers)

    async def probe(self, query: bytes, timeouts: Sequence[str]) -> Iterable[MetricText]:
        """The lines for a raw query string; raises RefusedError.

        `timeouts` are the values of the timeout header.
        """
        clients = self.clients()
        target, name = _parsed(query)
        sid, name = self._named(target, name, clients)
        within_seconds = _within_seconds(timeouts, clients[name].account)
        return await self._account(name, clients).probe(sid, within_seconds)

    def _named(
        self, target: str, name: str | None, clients: Mapping[str, Client]
    ) -> tuple[str, str]:
        """The sid of a target and its account; without a `name`, the one that has the number.

        Raises RefusedError unless a phone number is exactly one number of the last polls.
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
        for each in names:  # where numbers are masked, nobody may try fast which ones there are
            if clients[each].account.per_number.phone_number != "full":
                self._account(each, clients).take_share()
        if found:
            raise RefusedError(
                "several numbers of the last poll match; use a SID, or choose an account with"
                f" {_ACCOUNTS}"
            )
        if len(polled) == len(names):
            raise RefusedError(
                "the last poll has no number that matches; wait for the next one, or use a SID", 404
            )
        raise RefusedError(
            "a phone number is looked up in the last poll, and there was none yet; try again",
            503,
            10,
        )

    def _account(self, name: str, clients: Mapping[str, Client]) -> _AccountProber:
        """The prober of an account; the probers of former clients are dropped."""
        self._accounts = {
            name: prober
            for name, prober in self._accounts.items()
            if clients.get(name) is prober.client
        }
        if name not in self._accounts:
            client = clients[name]
            share = max(1, client.budget.requests_per_minute // BUDGET_SHARE)
            new = RateLimiter(share, client.clock.monotonic)
            allowance = self._allowances.setdefault(client.budget, new)
            allowance.resize(share)
            self._accounts[name] = _AccountProber(client, allowance)
        return self._accounts[name]


def _exposition(lines: Iterable[MetricText], *, openmetrics: bool) -> bytes:
    parts: list[str] = []
    for metric, family in groupby(lines, key=itemgetter(0)):
        parts.append(catalog.live(metric).header(openmetrics=openmetrics))
        parts.extend(text for _, text in family)
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _parsed(query: bytes) -> tuple[str, str | None]:
    """The sid, and the account's name or None; other parameters are ignored."""
    if query.count(b"&") >= _FIELDS_MAX:
        raise RefusedError(f"more than {_FIELDS_MAX} parameters; use one target, {_EXAMPLE}")
    parameters = QueryParams(query)
    targets, accounts = parameters.getlist("target"), parameters.getlist("account")
    if len(targets) != 1:
        raise RefusedError(f"exactly one target is required, {_EXAMPLE}")
    if len(accounts) > 1:
        raise RefusedError("the parameter account must be given only once")
    if not is_askable_sid(targets[0]) and not is_phone_number(targets[0]):
        raise RefusedError(
            "invalid target: a SID has 1 to 128 printable ASCII characters without space and"
            r" / \ ? # %, and is not . or ..; a phone number has 7 digits or more (encode + as %2B;"
            " URLs and hosts are not allowed)"
        )
    return targets[0], parameters.get("account")


def _account_name(name: str | None, clients: Mapping[str, Client]) -> str:
    if name is None and len(clients) == 1:
        return next(iter(clients))
    if name is None:
        raise RefusedError(f"there are several accounts; choose one with {_ACCOUNTS}")
    if name not in clients:
        raise RefusedError(f"unknown account; choose a configured one with {_ACCOUNTS}")
    return name


def _within_seconds(timeouts: Sequence[str], account: Account) -> float:
    """How long a probe may take: the account's own limit, or less if the scraper waits less."""
    poll = account.poll
    own = min(OWN_TIMEOUTS * poll.timeout_seconds, poll.deadline_seconds, LONGEST_SECONDS)
    if not timeouts:
        return own
    text = timeouts[0].strip(" \t")
    if len(timeouts) > 1 or _SECONDS.fullmatch(text) is None or float(text) == 0:
        raise RefusedError(f"{_TIMEOUT_HEADER} must be a number of seconds above 0, like 10 or 0.5")
    theirs = float(text)
    return min(own, theirs - OFFSET_SECONDS if theirs > OFFSET_SECONDS else theirs)


@dataclass(eq=False)
class _Request:
    """A request, which has `within_seconds`, and later its answer, and whether to cache that.

    Other probes share it `until` then, by the monotonic clock.
    """

    within_seconds: float
    until: float
    future: asyncio.Future[tuple[_Answer, bool]]


@dataclass(eq=False, repr=False)
class _AccountProber:
    """The probes of one client: their share of the budget, requests in flight, cached answers."""

    client: Client
    _allowance: RateLimiter
    _requests: dict[str, _Request] = field(default_factory=dict)  # the last one of each sid
    _in_flight: int = 0

    async def probe(self, sid: str, within_seconds: float) -> Iterable[MetricText]:
        """The lines for a number, in time; raises RefusedError."""
        account, began_at = self.client.account, self.client.clock.monotonic()
        request = self._requests.get(sid)
        # Not shared if it was abandoned, is too old, or has less time than this probe.
        if (
            request is None
            or request.until <= began_at
            or not (request.future.done() or request.within_seconds >= within_seconds)
        ):
            request = self._requests[sid] = self._begin(sid, within_seconds)
        try:
            answer, _ = await asyncio.wait_for(asyncio.shield(request.future), within_seconds)
        except TimeoutError:
            self._log_failure(sid, "timeout", f"there was no answer within {within_seconds:g}s")
            answer = None, self.client.clock.monotonic() - began_at
        if isinstance(answer, RefusedError):
            raise answer
        return probe_lines(account, *answer)

    def take_share(self) -> None:
        """Take a place in the share of the probes, or raise RefusedError where none is left."""
        if self._allowance.reserve(within_seconds=0) is None:
            share = self._allowance.requests_per_minute
            raise RefusedError(
                f"the probes of this account may make {share} requests a minute, so that the poll"
                " keeps the rest of its budget; probe fewer numbers or less often, or raise"
                " requests_per_minute",
                429,
                self._allowance.wait_seconds(),
            )

    def _begin(self, sid: str, within_seconds: float) -> _Request:
        busy = RefusedError(
            "too many probes of this account are waiting for the API; run fewer probes in parallel",
            503,
            1,
        )
        if self._in_flight >= PARALLEL_REQUESTS:
            raise busy
        if held_seconds := self.client.budget.hold_off_seconds():
            text = "the API asked to wait with requests about this account"
            raise RefusedError(text, 429, held_seconds)
        self.take_share()
        ends_at = self.client.clock.monotonic() + within_seconds
        try:
            future = begin(partial(self._ask, sid, within_seconds))
        except RuntimeError:  # the system has no thread left
            raise busy from None
        self._in_flight += 1
        request = _Request(within_seconds, ends_at, asyncio.wrap_future(future))
        request.future.add_done_callback(lambda _: self._end(sid, request))
        return request

    def _end(self, sid: str, request: _Request) -> None:
        self._in_flight -= 1
        _, lasts = request.future.result()
        if lasts:
            request.until = self.client.clock.monotonic() + CACHE_SECONDS
            self._requests[sid] = request
            if len(self._requests) > _CACHED_MAX:
                del self._requests[next(iter(self._requests))]  # the oldest
        elif self._requests.get(sid) is request:
            del self._requests[sid]

    def _ask(self, sid: str, within_seconds: float) -> tuple[_Answer, bool]:
        """The answer to a request, and whether to cache it, as a number or "no such number"."""
        monotonic = self.client.clock.monotonic
        began_at, number, lasts = monotonic(), None, False
        try:
            number, lasts = self.client.fetch_number(sid, within_seconds), True
        except BudgetSpent:
            text = (
                "the poll is using the account's request budget; probe less often, or raise"
                " requests_per_minute"
            )
            return RefusedError(text, 429, WINDOW_SECONDS), False
        except Stopped:
            text = "the exporter is stopping or was reloaded; try again"
            return RefusedError(text, 503, 1), False
        except PollError as error:
            self._log_failure(sid, error.reason, str(error))
            lasts = isinstance(error, NotFound)
        except Exception as error:  # noqa: BLE001 - the waiters need an answer after a bug, too
            about = fields(account=self.client.account.name)
            _log.error("a defect in the exporter", extra=about, exc_info=error)
        return (number, monotonic() - began_at), lasts

    def _log_failure(self, sid: str, reason: str, error: str) -> None:
        """Log at level debug why a probe failed, without a sid that must not be shown."""
        account = self.client.account
        shown = sid if account.per_number.phone_number == "full" else "…"
        _log.debug(
            "the probe failed",
            extra=fields(
                account=account.name, sid=shown, reason=reason, error=error.replace(sid, shown)
            ),
        )
