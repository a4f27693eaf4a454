"""The status page: health, age, counts and cost of each account, and its numbers with a problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Final
from urllib.parse import quote, urlencode

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import Account
from exophone_exporter.config.sharding import WHOLE, Shard
from exophone_exporter.exotel.model import CHANNELS, ExoPhone, is_askable_sid
from exophone_exporter.inventory.expectations import Judged, Verdict
from exophone_exporter.inventory.formatting import (
    circle,
    expected,
    money,
    problem,
    span,
    total,
)
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import Snapshot, rule_matches
from exophone_exporter.inventory.state import AccountStatus
from exophone_exporter.web import html

ROWS_MAX: Final = 200
_ROWS_SHOWN_OPEN: Final = 25
# More accounts than this get a table of accounts.
_ACCOUNTS_LISTED_FROM: Final = 2
_TROUBLES_MAX: Final = 5
_MINUTE_SECONDS: Final = 60


@dataclass(frozen=True)
class Row:
    """A number with a problem, as shown; without a `probe_query` it has no link to its probe."""

    phone_number: str
    friendly_name: str
    circle: str
    problem: str
    expected: str
    owner: str
    rental: str
    probe_query: str


@dataclass(frozen=True)
class Figure:
    """A value, how old it is, and whether somebody should look at it."""

    value: str
    age: str
    urgent: bool


@dataclass(frozen=True)
class Card:
    """One account, as shown. `state` is ok, failing, stale or waiting.

    Without `has_figures` nothing is known of the numbers and the counts mean nothing. Callers of
    the numbers that are `busy` hear a busy tone. `balance` is None where it is not asked for.
    """

    name: str
    state: str
    headline: str
    polling: str
    error: str
    has_figures: bool
    numbers: int
    problems: int
    busy: int
    unattached: str
    idle: int
    rental: str
    idle_rental: str
    balance: Figure | None
    rows: tuple[Row, ...]
    rows_left_out: int


@dataclass(frozen=True)
class Trouble:
    """An account that does not work, and the anchor of its card."""

    name: str
    anchor: str
    text: str


@dataclass(frozen=True)
class Overview:
    """All accounts in one line. `state` is ok, attention, failing or waiting.

    `title` begins with the state, because the tab of a browser shows only the beginning.
    """

    state: str
    headline: str
    title: str
    troubles: tuple[Trouble, ...]


def render(  # noqa: PLR0913 - each is named, and most have a default
    statuses: Sequence[AccountStatus],
    now: ClockReading,
    telemetry_path: str,
    *,
    link: Callable[[str], str] = str,
    probe: bool = False,
    shard: Shard = WHOLE,
) -> str:
    """The page as HTML; every value is escaped.

    `link` turns a served path into what a browser must ask for. `probe` means that /probe is
    served. The page names the `shard` unless it is the only one.
    """
    cards = [card(status, now, probe=probe) for status in statuses]
    return html.page(
        "status.html",
        overview=overview(cards),
        unmatched_rules=_unmatched_rules(statuses, now),
        cards=cards,
        shard="" if shard.is_whole else str(shard),
        accounts_listed_from=_ACCOUNTS_LISTED_FROM,
        rows_shown_open=_ROWS_SHOWN_OPEN,
        telemetry_path=telemetry_path,
        link=link,
        generated_at=datetime.fromtimestamp(now.wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def overview(cards: Sequence[Card]) -> Overview:
    """The summary at the top of the page."""
    problems = sum(card.problems for card in cards)
    states = {card.state for card in cards}
    state, brief = "ok", "✓ no problems"
    if {"failing", "stale"} & states:
        state, brief = "failing", f"✗ {_who_fails(cards)}"
    elif "waiting" in states:
        state, brief = "waiting", "… waiting"
    elif problems:
        state, brief = "attention", f"! {_count(problems, 'problem')}"
    headline = _counts(cards, problems)
    return Overview(state, headline, f"{brief}: {headline} · ExoPhones", _troubles(cards))


def _who_fails(cards: Sequence[Card]) -> str:
    failing = [card for card in cards if card.state in ("failing", "stale")]
    if len(failing) > 1:
        return f"{len(failing)} of {len(cards)} accounts fail"
    return f"{failing[0].name} {'is stale' if failing[0].state == 'stale' else 'fails'}"


def _counts(cards: Sequence[Card], problems: int) -> str:
    known = [card for card in cards if card.has_figures]
    accounts = _count(len(cards), "account")
    if not known:
        return f"{accounts}, no figures"
    numbers = _count(sum(card.numbers for card in known), "number")
    some = " known" if len(known) < len(cards) else ""
    busy = sum(card.busy for card in known)
    heard = f"; callers of {busy} hear a busy tone" if busy else ""
    return f"{accounts}, {numbers}{some}, {problems or 'none'} with a problem{heard}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _troubles(cards: Sequence[Card]) -> tuple[Trouble, ...]:
    """The accounts that do not work, failing ones first; a single account needs no list."""
    words = {"failing": "fails", "stale": "is stale", "waiting": "is waiting for its first poll"}
    found = [
        Trouble(card.name, f"account-{index}", words[card.state])
        for index, card in enumerate(cards, start=1)
        if card.state in words
    ]
    found.sort(key=lambda trouble: trouble.text == words["waiting"])
    more = len(found) - _TROUBLES_MAX
    if more > 0:
        found[_TROUBLES_MAX:] = [Trouble("", "", f"and {more} more")]
    return tuple(found) if len(cards) > 1 else ()


def card(status: AccountStatus, now: ClockReading, *, probe: bool = False) -> Card:
    """The card of one account."""
    snapshot = status.fresh_snapshot(now)
    state, headline = _headline(status, snapshot, now)
    groups = snapshot.groups if snapshot else ()
    rows = _most_urgent(snapshot) if snapshot else []
    problems = sum(group.problems for group in groups)
    unattached = {channel: sum(g.unattached[channel] for g in groups) for channel in CHANNELS}
    return Card(
        name=status.account.name,
        state=state,
        headline=headline,
        polling=_polling(status, now),
        error=str(status.error) if status.error else "",
        has_figures=snapshot is not None,
        numbers=sum(group.numbers for group in groups),
        problems=problems,
        busy=sum(group.unexpected["voice", "missing"] for group in groups),
        unattached=f"voice {unattached['voice']}, SMS {unattached['sms']}",
        idle=sum(group.idle for group in groups),
        rental=total((group.rental for group in groups), sum(group.unpriced for group in groups)),
        idle_rental=total(group.idle_rental for group in groups),
        balance=_balance(status, now),
        rows=tuple(_row(*judged, status.account, probe=probe) for judged in rows),
        rows_left_out=problems - len(rows),
    )


def _balance(status: AccountStatus, now: ClockReading) -> Figure | None:
    if status.account.balance_interval_seconds is None:
        return None
    balance, known = status.fresh_balance(now), status.known_balance
    if balance is None or known is None:
        return Figure("not known", "", urgent=status.last_balance is not None)
    age = f"{span(now.seconds_since(known.ended))} ago"
    return Figure(money(balance.amount, balance.currency), age, urgent=balance.amount <= 0)


def _most_urgent(snapshot: Snapshot) -> Sequence[Judged]:
    """The numbers with a problem that get a row.

    Those whose callers hear a busy tone come first, then other problems with voice, each kind
    sorted by number. An account may have 100,000 numbers: only the shown ones are sorted.
    """
    kinds: dict[tuple[bool, bool], list[Judged]] = {
        kind: [] for kind in ((True, True), (False, True), (False, False))
    }
    for number, verdict in zip(snapshot.numbers, snapshot.verdicts, strict=True):
        if verdict.has_problem:
            voice = verdict.problem("voice")
            kinds[voice == "missing", voice is not None].append((number, verdict))
    rows: list[Judged] = []
    for kind in kinds.values():
        rows += nsmallest(ROWS_MAX - len(rows), kind, key=lambda judged: judged[0].phone_number)
    return rows


def _unmatched_rules(statuses: Sequence[AccountStatus], now: ClockReading) -> Sequence[str]:
    """The names or positions of the rules that apply to no number, as far as that is known."""
    fresh = ((status.account, status.fresh_snapshot(now)) for status in statuses)
    return [rule for rule, count in rule_matches(fresh).items() if count == 0]


def _headline(
    status: AccountStatus, snapshot: Snapshot | None, now: ClockReading
) -> tuple[str, str]:
    if status.last_attempt is None:
        return "waiting", "The first poll is running."
    if snapshot is not None:
        age = span(now.seconds_since(snapshot.started))
        if status.error is None:
            return "ok", f"As of {age} ago.{_unconfirmed(status)}"
        return "failing", f"The last poll failed. The figures are {age} old.{_unconfirmed(status)}"
    if status.snapshot is None:
        return "failing", "No poll has succeeded yet."
    age = span(now.seconds_since(status.snapshot.started))
    return "stale", f"The last complete poll was {age} ago. Its figures are too old to show."


def _unconfirmed(status: AccountStatus) -> str:
    """How many of the numbers shown the API no longer lists."""
    numbers = _count(len(status.missed), "number")
    return f" {numbers} no longer listed, but not known to be gone." if status.missed else ""


def _polling(status: AccountStatus, now: ClockReading) -> str:
    """How often the account is polled and, after a failure, when it was polled last."""
    seconds = status.interval_seconds
    exact = seconds < _MINUTE_SECONDS or seconds % _MINUTE_SECONDS == 0
    every = f"Polled every {span(seconds) if exact else f'{seconds:g} s'}"
    if status.error is None or status.last_attempt is None:
        return f"{every}."
    return f"{every}; the last attempt was {span(now.seconds_since(status.last_attempt))} ago."


def _row(number: ExoPhone, verdict: Verdict, account: Account, *, probe: bool) -> Row:
    names = masked_identity(number, account.per_number.phone_number, account.pseudonym_key)
    has_link = probe and names.sid == number.sid and is_askable_sid(number.sid)
    target = {"target": number.sid, "account": account.name}
    return Row(
        phone_number=names.phone_number or names.sid,
        friendly_name=names.friendly_name,
        circle=circle(number),
        problem=problem(verdict, number),
        expected=expected(verdict, of_problems=True),
        owner=verdict.owner,
        rental=money(number.rental_price, number.currency),
        probe_query=urlencode(target, quote_via=quote, safe="") if has_link else "",
    )
