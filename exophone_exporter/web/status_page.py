"""The status page: is it well, how fresh, how many, what does it cost, which are unattached."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from heapq import nsmallest
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from exophone_exporter.config.sharding import WHOLE
from exophone_exporter.exotel.model import is_askable_sid
from exophone_exporter.inventory.formatting import circle, flow_state, money, span
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.web import html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from exophone_exporter.clock import ClockReading
    from exophone_exporter.config.settings import Account
    from exophone_exporter.config.sharding import Shard
    from exophone_exporter.exotel.model import ExoPhone
    from exophone_exporter.inventory.snapshot import Snapshot
    from exophone_exporter.inventory.state import AccountStatus

ROWS_MAX: Final = 200
_ROWS_SHOWN_OPEN: Final = 25
# So few accounts are seen at a glance; more of them get a table of their own.
_ACCOUNTS_LISTED_FROM: Final = 2
_TROUBLES_MAX: Final = 5
_MINUTE_SECONDS: Final = 60


@dataclass(frozen=True)
class Row:
    """One unattached number, in words; without a `probe_query` it is not linked to its probe."""

    phone_number: str
    friendly_name: str
    circle: str
    number_type: str
    voice: str
    sms: str
    rental: str
    idle: bool
    probe_query: str


@dataclass(frozen=True)
class Card:
    """One account, in words. `state` is ok, failing, stale or waiting.

    Without `has_figures` nothing is known, and the counts are of no meaning.
    """

    name: str
    state: str
    headline: str
    polling: str
    error: str
    has_figures: bool
    numbers: int
    unattached_voice: int
    unattached_sms: int
    idle: int
    rental: str
    idle_rental: str
    rows: tuple[Row, ...]
    rows_left_out: int


@dataclass(frozen=True)
class Trouble:
    """An account that does not work, and where the page tells more of it."""

    name: str
    anchor: str
    text: str


@dataclass(frozen=True)
class Overview:
    """Every account in one line. `state` is ok, attention, failing or waiting.

    `title` begins with the state, which is all of it that the tab of a browser shows.
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
    """The page as HTML; every value that came from outside is escaped.

    `link` makes what stands in a link of a path of ours; `probe` says that /probe is served. Of a
    `shard` with others beside it the page says which it is.
    """
    cards = [card(status, now, probe=probe) for status in statuses]
    return html.page(
        "status.html",
        overview=overview(cards),
        cards=cards,
        shard="" if shard.is_whole else str(shard),
        accounts_listed_from=_ACCOUNTS_LISTED_FROM,
        rows_shown_open=_ROWS_SHOWN_OPEN,
        telemetry_path=telemetry_path,
        link=link,
        made_at=datetime.fromtimestamp(now.wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def overview(cards: Sequence[Card]) -> Overview:
    """What is to be known before anything else."""
    busy = sum(card.unattached_voice for card in cards)
    states = {card.state for card in cards}
    state, brief = "ok", "✓ all is well"
    if {"failing", "stale"} & states:
        state, brief = "failing", f"✗ {_who_fails(cards)}"
    elif "waiting" in states:
        state, brief = "waiting", "… waiting"
    elif busy:
        state, brief = "attention", f"! {busy} busy"
    headline = _counts(cards, busy)
    return Overview(state, headline, f"{brief}: {headline} · ExoPhones", _troubles(cards))


def _who_fails(cards: Sequence[Card]) -> str:
    failing = [card for card in cards if card.state in ("failing", "stale")]
    if len(failing) > 1:
        return f"{len(failing)} of {len(cards)} accounts fail"
    return f"{failing[0].name} {'is stale' if failing[0].state == 'stale' else 'fails'}"


def _counts(cards: Sequence[Card], busy: int) -> str:
    known = [card for card in cards if card.has_figures]
    accounts = _count(len(cards), "account")
    if not known:
        return f"{accounts}, no figures"
    numbers = _count(sum(card.numbers for card in known), "number")
    some = " known" if len(known) < len(cards) else ""
    verb = "give" if busy > 1 else "gives"
    return f"{accounts}, {numbers}{some}, {busy or 'none'} {verb} callers a busy tone"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _troubles(cards: Sequence[Card]) -> tuple[Trouble, ...]:
    """The accounts that do not work, those that fail first; one alone speaks for itself."""
    words = {"failing": "fails", "stale": "is stale", "waiting": "waits for its first poll"}
    found = [
        Trouble(card.name, f"account-{index}", words[card.state])
        for index, card in enumerate(cards, start=1)
        if card.state in words
    ]
    found.sort(key=lambda trouble: trouble.text == words["waiting"])
    shown_here, more = found[:_TROUBLES_MAX], len(found) - _TROUBLES_MAX
    if more > 0:
        shown_here.append(Trouble("", "", f"and {more} more"))
    return tuple(shown_here) if len(cards) > 1 else ()


def card(status: AccountStatus, now: ClockReading, *, probe: bool = False) -> Card:
    """What the page says of one account."""
    snapshot = status.fresh_snapshot(now)
    state, headline = _headline(status, snapshot, now)
    numbers = snapshot.numbers if snapshot else ()
    groups = snapshot.groups if snapshot else ()
    shown_here, left_out = _most_urgent(numbers)
    return Card(
        name=status.account.name,
        state=state,
        headline=headline,
        polling=_polling(status, now),
        error=str(status.error) if status.error else "",
        has_figures=snapshot is not None,
        numbers=len(numbers),
        unattached_voice=sum(group.unattached["voice"] for group in groups),
        unattached_sms=sum(group.unattached["sms"] for group in groups),
        idle=sum(group.idle for group in groups),
        rental=_total(group.rental.items() for group in groups),
        idle_rental=_total(group.idle_rental.items() for group in groups),
        rows=tuple(_row(number, status.account, probe=probe) for number in shown_here),
        rows_left_out=left_out,
    )


def _most_urgent(numbers: Iterable[ExoPhone]) -> tuple[Sequence[ExoPhone], int]:
    """The unattached numbers that get a row, and how many get none.

    Idle ones come first, then those that give a busy tone, each kind by the number. An account may
    have 100,000: nothing is asked twice of a number, and nothing is sorted that is not shown.
    """
    kinds: dict[tuple[bool, bool], list[ExoPhone]] = {
        (idle, busy): [] for idle in (True, False) for busy in (True, False)
    }
    for number in numbers:
        if number.voice_url != "" and number.sms_url != "":
            continue  # most are attached, and this tells it soonest
        idle, busy = number.idle, number.unattached("voice")
        if idle or busy or number.unattached("sms"):  # as ExoPhone.lacks_flow
            kinds[idle, busy].append(number)
    rows: list[ExoPhone] = []
    for kind in kinds.values():
        rows += nsmallest(ROWS_MAX - len(rows), kind, key=attrgetter("phone_number"))
    return rows, sum(map(len, kinds.values())) - len(rows)


def _headline(
    status: AccountStatus, snapshot: Snapshot | None, now: ClockReading
) -> tuple[str, str]:
    if status.last_attempt is None:
        return "waiting", "The first poll is under way."
    if snapshot is not None:
        age = span(now.seconds_since(snapshot.completed))
        if status.error is None:
            return "ok", f"As of {age} ago."
        return "failing", f"The last poll failed; shown is what was found {age} ago."
    if status.snapshot is None:
        return "failing", "No poll has been complete yet."
    age = span(now.seconds_since(status.snapshot.completed))
    return "stale", f"The last complete poll was {age} ago: too old to be shown."


def _polling(status: AccountStatus, now: ClockReading) -> str:
    """How often the account is polled and, where it went wrong, when that was."""
    seconds = status.account.poll.interval_seconds
    exact = seconds < _MINUTE_SECONDS or seconds % _MINUTE_SECONDS == 0
    every = f"Polled every {span(seconds) if exact else f'{seconds:g} s'}"
    if status.error is None or status.last_attempt is None:
        return f"{every}."
    return f"{every}; the last attempt was {span(now.seconds_since(status.last_attempt))} ago."


def _total(prices: Iterable[Iterable[tuple[str, Decimal]]]) -> str:
    """Sums by currency, never across; "none" where nothing has a price."""
    totals: dict[str, Decimal] = {}
    for of_group in prices:
        for currency, amount in of_group:
            totals[currency] = totals.get(currency, Decimal()) + amount
    return (
        " + ".join(money(amount, currency) for currency, amount in sorted(totals.items())) or "none"
    )


def _row(number: ExoPhone, account: Account, *, probe: bool) -> Row:
    names = masked_identity(number, account.per_number.phone_number)
    may_be_told = names.sid == number.sid
    return Row(
        phone_number=names.phone_number or names.sid,
        friendly_name=names.friendly_name,
        circle=circle(number),
        number_type=number.number_type,
        voice=flow_state(number, "voice"),
        sms=flow_state(number, "sms"),
        rental=money(number.rental_price, number.currency),
        idle=number.idle,
        probe_query=_probe_query(number.sid, account.name) if probe and may_be_told else "",
    )


def _probe_query(sid: str, account: str) -> str:
    """The query of a live probe of a number; "" where /probe would refuse the sid."""
    if not is_askable_sid(sid):
        return ""
    return urlencode({"target": sid, "account": account}, quote_via=quote, safe="")
