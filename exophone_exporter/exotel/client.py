"""One account's questions to the API, each with its budget, its retries and its deadline."""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from itertools import count
from types import MappingProxyType
from typing import Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Account
from exophone_exporter.errors import (
    BudgetSpent,
    CredentialsRejected,
    DeadlinePassed,
    ErrorInside,
    NotFound,
    PollError,
    RateLimited,
    TimedOut,
)
from exophone_exporter.exotel.balance import Balance, parse_balance
from exophone_exporter.exotel.listing import (
    Listing,
    check_readable,
    confirm_removals,
    fetch_listing,
)
from exophone_exporter.exotel.model import Endpoint, ExoPhone, Page, parse_number
from exophone_exporter.exotel.page_cache import PageCache
from exophone_exporter.exotel.rate_limiter import RateLimiter, Slot
from exophone_exporter.exotel.responses import (
    Answer,
    RateLimits,
    error_of,
    rate_limits,
    retry_delay_seconds,
)
from exophone_exporter.exotel.transport import Transport
from exophone_exporter.logs import fields

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Recorder(Protocol):
    """Where the client counts what it does: `AccountState`, which this package may not import."""

    def record_request(self, endpoint: Endpoint, code: str, seconds: float) -> None:
        """One request was answered with a status code, or with "none" not at all."""

    def record_rate_limits(self, endpoint: Endpoint, limits: RateLimits) -> None:
        """One answer named these limits."""

    def record_retry(self) -> None:
        """One request is made again."""

    def record_wait(self, seconds: float) -> None:
        """So much time was spent waiting, for the budget or before a retry."""


# Opens a connection to an account's origin, which measures time by the given monotonic clock.
Connect: TypeAlias = Callable[[Account, Callable[[], float]], Transport]


@dataclass(frozen=True, kw_only=True)
class Client:
    """Asks the API about one account.

    `sleep` waits, or raises Stopped where nothing more is wanted; it is called before each request,
    if only with 0. Every method may raise PollError and Stopped. Safe between threads: each call
    has a connection of its own.
    """

    account: Account
    budget: RateLimiter
    recorder: Recorder
    clock: Clock
    sleep: Callable[[float], None]
    connect: Connect = Transport
    uniform: Callable[[float, float], float] = random.uniform
    pages: PageCache = field(default_factory=PageCache, init=False, repr=False)

    def fetch_all(
        self,
        previous: Mapping[str, ExoPhone],
        missed: Mapping[str, int] = MappingProxyType({}),
        on_page: Callable[[int, int], None] = lambda _pages, _numbers: None,
    ) -> Listing:
        """Every number of the account, all or nothing, within the deadline of a poll.

        `previous` holds the numbers known so far, by sid, and `missed` how many walks in a row
        lacked them; see `listing.confirm_removals`.
        """
        with self._calls() as calls:
            walk = fetch_listing(calls.page, self.account.poll.page_size, on_page)
            self.pages.forget_from(walk.pages)
            ask = partial(calls.number, once=True)
            listing = confirm_removals(walk, previous, missed, ask)
        return replace(listing, timezone=self.account.poll.timezone.key or "")

    def fetch_number(self, sid: str, within_seconds: float = math.inf) -> ExoPhone:
        """One number from the detail endpoint; NotFound where the account has no such sid.

        `within_seconds` limits the wait for the budget, after which it raises BudgetSpent, and the
        wait for the response. Such a request is not retried and uses one place of the budget; the
        caller may retry.
        """
        with self._calls(within_seconds) as calls:
            return calls.number(sid)

    def fetch_first_page(self) -> Page:
        """One page of the list: proves the host, the account, the key and the token."""
        with self._calls() as calls:
            page = calls.page(0, self.account.poll.page_size)
        if not page.more:
            check_readable(page.numbers, page.rejected)
        return page

    def fetch_balance(self) -> Balance:
        """What is left on the account, within the deadline of a poll."""
        with self._calls() as calls:
            return calls.balance()

    @contextlib.contextmanager
    def _calls(self, within_seconds: float = math.inf) -> Iterator[_Calls]:
        connection = self.connect(self.account, self.clock.monotonic)
        with contextlib.closing(connection):
            yield _Calls(self, connection, within_seconds)


class _Calls:
    """The requests of one poll or probe: they share a connection and a deadline.

    `within_seconds` is infinite for a poll, whose deadline is that of the configuration.
    """

    def __init__(self, client: Client, connection: Transport, within_seconds: float) -> None:
        self._client = client
        self._poll = client.account.poll
        self._connection = connection
        self._is_probe = within_seconds < math.inf
        if self._is_probe:
            self._too_late = f"there was no answer within {within_seconds:g}s"
            self._spent = f"is spent for the next {within_seconds:g}s"
        else:
            deadline = f"deadline of {self._poll.deadline_seconds:g}s"
            self._too_late = f"the poll was not complete after its {deadline}"
            self._spent = f"is spent before the {deadline}; raise the deadline"
        self._ends_at = client.clock.monotonic() + min(self._poll.deadline_seconds, within_seconds)
        origin, sid = client.account.origin, quote(client.account.sid, safe="")
        self._list_url = f"{origin}/v2_beta/Accounts/{sid}/IncomingPhoneNumbers"
        self._balance_url = f"{origin}/v1/Accounts/{sid}/Balance.json"

    def page(self, index: int, size: int) -> Page:
        """One page of the list, counted from 0."""
        url = f"{self._list_url}?Page={index}&PageSize={size}"
        pages, zone = self._client.pages, self._poll.timezone
        return self._ask("list", url, lambda body: pages.read(index, body, zone))

    def number(self, sid: str, *, once: bool = False) -> ExoPhone:
        """One number."""
        if sid in (".", ".."):  # no request can name it: in a path it means another place
            raise NotFound("the API cannot be asked about a sid of dots")
        url, zone = f"{self._list_url}/{quote(sid, safe='')}", self._poll.timezone
        return self._ask("detail", url, lambda body: parse_number(body, zone, sid), once=once)

    def balance(self) -> Balance:
        """What is left on the account."""
        sid = self._client.account.sid
        return self._ask("balance", self._balance_url, lambda body: parse_balance(body, sid))

    def _ask(
        self, endpoint: Endpoint, url: str, read: Callable[[bytes], _T], *, once: bool = False
    ) -> _T:
        """What `read` makes of a good answer; the only place that asks again.

        It does so as often as the error allows and the deadline leaves.
        """
        for attempt in count(1):
            try:
                return self._ask_once(endpoint, url, read)
            except PollError as error:
                wait_seconds = retry_delay_seconds(attempt, error, self._client.uniform)
                attempts = 1 if once or self._is_probe else error.attempts
                if attempt >= attempts or wait_seconds >= self._remaining_seconds():
                    raise
                self._log_retry(error, wait_seconds)
            self._client.recorder.record_retry()
            self._wait(wait_seconds)
        raise AssertionError  # pragma: no cover - count() has no end

    def _ask_once(self, endpoint: Endpoint, url: str, read: Callable[[bytes], _T]) -> _T:
        """One request: what `read` makes of a good answer, or the PollError that it is."""
        answer = self._get(endpoint, url)
        self._client.recorder.record_rate_limits(endpoint, rate_limits(answer.headers))
        inside = None
        if answer.status == HTTPStatus.OK:
            try:
                return read(answer.body)
            except ErrorInside as found:
                inside = found
        error = error_of(answer, self._client.clock.wall(), endpoint, inside)
        if isinstance(error, RateLimited) and error.retry_after_seconds is not None:
            only_balance = endpoint == "balance"
            self._client.budget.hold_off(error.retry_after_seconds, only_balance=only_balance)
        problems = self._client.account.credentials.problems
        if isinstance(error, CredentialsRejected) and problems:
            error = CredentialsRejected(
                f"{error}; perhaps because the last secrets are still used: {problems}"
            )
        raise error  # not from what was caught: its words are not masked

    def _get(self, endpoint: Endpoint, url: str) -> Answer:
        """One request and its answer, whatever the status."""
        client = self._client
        slot = self._take_slot(endpoint)
        # A whole answer may take three times as long as a single read.
        within_seconds = min(3 * self._poll.timeout_seconds, self._time_left_seconds())
        codes = ["none"]
        started_at = client.clock.monotonic()
        try:
            return self._connection.get(
                url,
                within_seconds=within_seconds,
                on_connect=lambda: client.budget.stamp(slot),
                on_status=lambda status: codes.append(str(status)),
            )
        except TimedOut:
            self._time_left_seconds()  # the poll's own deadline is the better reason, if it passed
            raise
        finally:
            seconds = client.clock.monotonic() - started_at
            client.recorder.record_request(endpoint, codes[-1], seconds)

    def _take_slot(self, endpoint: Endpoint) -> Slot:
        """Wait until one more request may be sent; raises PollError if that is too late."""
        limiter, of_balance = self._client.budget, endpoint == "balance"
        if of_balance:  # before it takes a slot: the next request for the list would wait behind it
            wait_seconds = limiter.hold_off_seconds(of_balance=True)
            if wait_seconds > self._time_left_seconds():
                raise self._not_in_time(of_balance=True)
            self._wait(wait_seconds)
        slot = limiter.reserve(self._time_left_seconds())
        while slot is not None:
            wait_seconds = limiter.delay_seconds(slot)
            if wait_seconds > self._time_left_seconds():
                break
            self._wait(wait_seconds)
            if wait_seconds == 0:
                return slot
        raise self._not_in_time(of_balance=of_balance)

    def _not_in_time(self, *, of_balance: bool) -> PollError:
        held_seconds = self._client.budget.hold_off_seconds(of_balance=of_balance)
        if held_seconds > self._remaining_seconds():
            asked = f"the API asked to wait for another {held_seconds:.0f}s"
            return RateLimited(asked, held_seconds)
        budget = f"the budget of {self._poll.requests_per_minute} requests a minute"
        return BudgetSpent(f"{budget} {self._spent}")

    def _wait(self, seconds: float) -> None:
        """Wait, if only to hear that no more is wanted."""
        self._client.sleep(seconds)
        if seconds > 0:
            self._client.recorder.record_wait(seconds)

    def _remaining_seconds(self) -> float:
        return self._ends_at - self._client.clock.monotonic()

    def _time_left_seconds(self) -> float:
        """Seconds to the deadline; raises DeadlinePassed if it has passed."""
        remaining = self._remaining_seconds()
        if remaining <= 0:
            raise DeadlinePassed(self._too_late)
        return remaining

    def _log_retry(self, error: PollError, wait_seconds: float) -> None:
        about = fields(
            account=self._client.account.name,
            reason=error.reason,
            error=str(error),
            wait_seconds=wait_seconds,
        )
        _log.debug("asking again", extra=about)
