"""`/probe?target=SID[&account=NAME]`: one number, asked of the API while the scraper waits.

A probe is bounded in every respect. Its target is checked before anything is asked and becomes one
quoted segment of one path. Its answer comes in time, whatever the API does. All the probes of an
account have a fifth of its request budget, the same question at the same time is one request, and
an answer serves for some seconds.

The event loop reads the question and writes the answer; the request runs in a thread, which is left
behind when its time is over. The threads are daemons: a name server that hangs must not keep the
process from ending, as the threads of an executor would.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.responses import PlainTextResponse, Response

from exophone_exporter.errors import BudgetSpent, NotFound, PollError, Stopped
from exophone_exporter.exotel.model import is_askable_sid
from exophone_exporter.exotel.rate_limiter import WINDOW_SECONDS, RateLimiter
from exophone_exporter.logs import fields
from exophone_exporter.metrics import catalog, negotiation
from exophone_exporter.metrics.samples import probe_lines
from exophone_exporter.threads import start_daemon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from exophone_exporter.clock import Clock
    from exophone_exporter.config.settings import Account
    from exophone_exporter.exotel.client import Client
    from exophone_exporter.exotel.model import ExoPhone
    from exophone_exporter.threads import Start

# Without a word from the scraper a probe may take so many times the timeout of a single read.
OWN_TIMEOUTS: Final = 3
# Kept back from the scraper's timeout, so that the answer is there before it has passed.
OFFSET_SECONDS: Final = 0.5
# The probes of an account may make this part of its requests; the rest is the poll's.
BUDGET_SHARE: Final = 5
# An answer of the API, "no such number" included, serves again for so long.
CACHE_SECONDS: Final = 10.0
# Requests of one account under way at once, those left behind included.
FETCHES_AT_ONCE: Final = 16
_CACHED_MAX: Final = 1000
_FIELDS_MAX: Final = 20

_SECONDS: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"
_EXAMPLE: Final = "like /probe?target=SID"
_ACCOUNTS: Final = "account=NAME; the names are the label `account` on /metrics"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probed:
    """What a probe found: `number` is None where the API did not give it within `seconds`."""

    account: Account
    number: ExoPhone | None
    seconds: float


@dataclass(frozen=True)
class Refusal:
    """A probe that was not made: HTTP status, a line that says what to do, when to come again."""

    status: int
    text: str
    retry_after_seconds: int | None = None


Outcome: TypeAlias = "Probed | Refusal"


class _BadQuestion(ValueError):  # noqa: N818 - it says what happened
    """The request is no probe; the message says what would be one."""


class Prober:
    """Answers probes; `clients` gives the accounts by name and is asked anew by every probe.

    What is remembered of a client goes with it: an account that a reload removed is unknown at
    once, and one that it changed is asked afresh. `start` runs a function in another thread, or
    raises RuntimeError where there are no more threads.
    """

    def __init__(
        self,
        clients: Callable[[], Mapping[str, Client]],
        clock: Clock,
        *,
        start: Start = start_daemon,
    ) -> None:
        self._clients = clients
        self._clock = clock
        self._start = start
        self._lock = threading.Lock()
        self._desks: dict[str, _Desk] = {}

    async def probe(self, query: bytes, timeouts: Sequence[str]) -> Outcome:
        """What a raw query string asks for.

        `timeouts` are the values of the scraper's timeout header, in seconds.
        """
        clients = self._clients()
        try:
            sid, name = _asked(query)
            name = _account_name(name, clients)
            within_seconds = _within_seconds(timeouts, clients[name].account)
        except _BadQuestion as error:
            return Refusal(400, str(error))
        return await self._in_time(self._desk(name, clients), sid, within_seconds)

    def _desk(self, name: str, clients: Mapping[str, Client]) -> _Desk:
        """What is known of the account's client; that of all former clients is forgotten."""
        with self._lock:
            self._desks = {
                known: desk
                for known, desk in self._desks.items()
                if clients.get(known) is desk.client
            }
            if name not in self._desks:
                self._desks[name] = _Desk(clients[name], self._clock.monotonic, self._start)
            return self._desks[name]

    async def _in_time(self, desk: _Desk, sid: str, within_seconds: float) -> Outcome:
        started_at = self._clock.monotonic()
        landing = asyncio.wrap_future(desk.ask(sid, within_seconds))
        try:
            return await asyncio.wait_for(landing, within_seconds)
        except TimeoutError:
            desk.log_failure(sid, "timeout", f"there was no answer within {within_seconds:g}s")
            return Probed(desk.client.account, None, self._clock.monotonic() - started_at)


def probe_handler(prober: Prober) -> Callable[[Request], Awaitable[Response]]:
    """The Starlette handler of /probe."""

    async def probe(request: Request) -> Response:
        timeouts = request.headers.getlist(_TIMEOUT_HEADER)
        outcome = await prober.probe(request.scope["query_string"], timeouts)
        if isinstance(outcome, Refusal):
            return _refused(outcome)
        return _answered(
            outcome, request.headers.get("Accept", ""), request.headers.get("Accept-Encoding", "")
        )

    return probe


def _refused(refusal: Refusal) -> Response:
    wait_seconds = refusal.retry_after_seconds
    headers = {} if wait_seconds is None else {"Retry-After": str(wait_seconds)}
    return PlainTextResponse(f"{refusal.text}\n", refusal.status, headers)


def _answered(probed: Probed, accept: str, accept_encoding: str) -> Response:
    content_type = negotiation.content_type(accept)
    body = _exposition(probed, openmetrics=content_type == negotiation.OPENMETRICS)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if negotiation.accepts_gzip(accept_encoding):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, mtime=0)
    return Response(body, headers=headers)


def _exposition(probed: Probed, *, openmetrics: bool) -> bytes:
    parts: list[str] = []
    lines = probe_lines(probed.account, probed.number, probed.seconds)
    for metric, family in groupby(lines, key=itemgetter(0)):
        parts.append(catalog.live(metric).header(openmetrics=openmetrics))
        parts.extend(text for _, text in family)
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _asked(query: bytes) -> tuple[str, str | None]:
    """The sid and the account's name, None where none is given; everything else is ignored."""
    if query.count(b"&") >= _FIELDS_MAX:
        raise _BadQuestion(f"more than {_FIELDS_MAX} parameters; ask for one number, {_EXAMPLE}")
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        values.setdefault(name, []).append(value)
    targets, accounts = values.get("target", []), values.get("account", [])
    if len(targets) != 1:
        raise _BadQuestion(f"a probe asks for exactly one target, {_EXAMPLE}")
    if len(accounts) > 1:
        raise _BadQuestion("a probe asks one account only; give the parameter account once")
    return _sid(targets[0]), accounts[0] if accounts else None


def _sid(text: str) -> str:
    if not is_askable_sid(text):
        raise _BadQuestion(
            "the target is no sid: 1 to 128 printable ASCII characters without space and without"
            r" / \ ? # %, not . or .., and no URL or host (in a URL, + is written %2B)"
        )
    return text


def _account_name(name: str | None, clients: Mapping[str, Client]) -> str:
    if name is None and len(clients) == 1:
        return next(iter(clients))
    if name is None:
        raise _BadQuestion(f"there are several accounts: say which one with {_ACCOUNTS}")
    if name not in clients:
        raise _BadQuestion(f"there is no such account; give a configured one with {_ACCOUNTS}")
    return name


def _within_seconds(timeouts: Sequence[str], account: Account) -> float:
    """How long a probe may take: the account's own bound, and less where the scraper waits less."""
    poll = account.poll
    own = min(OWN_TIMEOUTS * poll.timeout_seconds, poll.deadline_seconds)
    if not timeouts:
        return own
    text = timeouts[0].strip(" \t")
    if len(timeouts) > 1 or _SECONDS.fullmatch(text) is None or float(text) == 0:
        raise _BadQuestion(f"{_TIMEOUT_HEADER} is a number of seconds above 0, like 10 or 0.5")
    theirs = float(text)
    return min(own, theirs - OFFSET_SECONDS if theirs > OFFSET_SECONDS else theirs)


@dataclass(frozen=True, eq=False)
class _Flight:
    """A question under way, which has `within_seconds` until `ends_at`, by the monotonic clock."""

    within_seconds: float
    ends_at: float
    landing: Future[Outcome] = field(default_factory=Future)


class _Desk:
    """The probes of one client: what it may ask, what it is asking, and what it just learnt."""

    def __init__(
        self,
        client: Client,
        monotonic: Callable[[], float],
        start: Start,
    ) -> None:
        self.client = client
        self._monotonic = monotonic
        self._start = start
        self._lock = threading.Lock()
        self._share = max(1, client.account.poll.requests_per_minute // BUDGET_SHARE)
        self._allowance = RateLimiter(self._share, monotonic)
        self._flights: dict[str, _Flight] = {}
        self._under_way = 0
        # By sid: until when an answer serves, by the monotonic clock, and the answer.
        self._fresh: dict[str, tuple[float, Probed]] = {}

    def ask(self, sid: str, within_seconds: float) -> Future[Outcome]:
        """What is known of a number, or will be soon; the future cannot be cancelled."""
        with self._lock:
            expires_at, probed = self._fresh.get(sid, (-math.inf, None))
            if probed is not None and expires_at > self._monotonic():
                return _landed(probed)
            flight = self._flights.get(sid)
            if flight is not None and self._is_joined(flight, within_seconds):
                return flight.landing
            return self._depart(sid, within_seconds)

    def log_failure(self, sid: str, reason: str, error: str) -> None:
        """Say at level debug why a probe failed; a sid that must not be shown is left out."""
        account = self.client.account
        shown = sid if account.per_number.phone_number == "full" else "…"
        _log.debug(
            "the probe failed",
            extra=fields(
                account=account.name, sid=shown, reason=reason, error=error.replace(sid, shown)
            ),
        )

    def _is_joined(self, flight: _Flight, within_seconds: float) -> bool:
        """Not one that has less time than the new question has, nor one that was left behind."""
        return flight.within_seconds >= within_seconds and flight.ends_at > self._monotonic()

    def _depart(self, sid: str, within_seconds: float) -> Future[Outcome]:
        """Start a request, if there is room for one more of them."""
        if self._under_way >= FETCHES_AT_ONCE:
            return _landed(_BUSY)
        if self._allowance.reserve(within_seconds=0) is None:
            return _landed(self._over_share(self._allowance.wait_seconds()))
        flight = _Flight(within_seconds, self._monotonic() + within_seconds)
        flight.landing.set_running_or_notify_cancel()  # so that no waiter cancels it for the others
        try:
            self._start(lambda: self._fly(sid, flight))
        except RuntimeError:  # the system has no thread to give
            return _landed(_BUSY)
        self._under_way += 1
        self._flights[sid] = flight
        return flight.landing

    def _over_share(self, wait_seconds: float) -> Refusal:
        return Refusal(
            429,
            f"the probes of this account may make {self._share} requests a minute,"
            " so that the poll keeps the rest of its budget; probe fewer numbers or less often,"
            " or raise requests_per_minute",
            math.ceil(wait_seconds),
        )

    def _fly(self, sid: str, flight: _Flight) -> None:
        """Make the request, in a thread of its own; whatever happens, the waiters hear of it."""
        outcome, lasts = self._outcome(sid, flight.within_seconds)
        with self._lock:
            self._under_way -= 1
            if self._flights.get(sid) is flight:
                del self._flights[sid]
            if lasts and isinstance(outcome, Probed):
                self._remember(sid, outcome)
        flight.landing.set_result(outcome)

    def _outcome(self, sid: str, within_seconds: float) -> tuple[Outcome, bool]:
        """The answer to a question, and whether it is one that lasts for a while."""
        started_at = self._monotonic()
        try:
            number, lasts = self._fetched(sid, within_seconds)
        except BudgetSpent:
            return _POLL_COMES_FIRST, False
        except Stopped:
            return _STOPPING, False
        return Probed(self.client.account, number, self._monotonic() - started_at), lasts

    def _fetched(self, sid: str, within_seconds: float) -> tuple[ExoPhone | None, bool]:
        """The number, and whether that lasts; a failure does not, but "no such number" does."""
        try:
            return self.client.fetch_number(sid, within_seconds), True
        except (BudgetSpent, Stopped):
            raise
        except PollError as error:
            self.log_failure(sid, error.reason, str(error))
            return None, isinstance(error, NotFound)
        except Exception as error:  # noqa: BLE001 - the waiters must hear of a defect of ours, too
            about = fields(account=self.client.account.name)
            _log.error("a defect in the exporter", extra=about, exc_info=error)
            return None, False

    def _remember(self, sid: str, probed: Probed) -> None:
        self._fresh[sid] = self._monotonic() + CACHE_SECONDS, probed
        if len(self._fresh) > _CACHED_MAX:
            del self._fresh[next(iter(self._fresh))]  # the first that was learnt


_BUSY: Final = Refusal(
    503, "too many probes of this account are waiting for the API; probe fewer numbers at once", 1
)
_POLL_COMES_FIRST: Final = Refusal(
    429,
    "the poll is using the account's request budget; probe less often, or raise"
    " requests_per_minute",
    math.ceil(WINDOW_SECONDS),
)
_STOPPING: Final = Refusal(
    503, "this account is not asked any more: the exporter stops or was reloaded", 1
)


def _landed(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future
