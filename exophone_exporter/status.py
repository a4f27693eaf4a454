"""The status page: is it well, how fresh, how many, what does it cost, which are unattached."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from exophone_exporter import __version__
from exophone_exporter.display import circle, flow_state, money, span
from exophone_exporter.privacy import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exophone_exporter.clock import Moment
    from exophone_exporter.config import Account
    from exophone_exporter.model import ExoPhone
    from exophone_exporter.snapshot import Snapshot
    from exophone_exporter.store import View

ROWS_MAX: Final = 200


@dataclass(frozen=True)
class Row:
    """One unattached number, in words."""

    phone_number: str
    friendly_name: str
    circle: str
    number_type: str
    voice: str
    sms: str
    rental: str
    idle: bool


@dataclass(frozen=True)
class Card:
    """One account, in words. `state` is ok, failing, stale or waiting.

    Without `has_figures` nothing is known, and the counts are of no meaning.
    """

    name: str
    state: str
    headline: str
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


def render(views: Sequence[View], now: Moment, telemetry_path: str) -> str:
    """The page as HTML; every value that came from outside is escaped."""
    return _template().render(
        cards=[card(view, now) for view in views],
        telemetry_path=telemetry_path,
        version=__version__,
        made_at=datetime.fromtimestamp(now.wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def card(view: View, now: Moment) -> Card:
    """What the page says of one account."""
    snapshot = view.fresh_snapshot(now)
    state, headline = _headline(view, snapshot, now)
    numbers = snapshot.numbers if snapshot else ()
    groups = snapshot.groups if snapshot else ()
    unattached = [number for number in numbers if number.lacks_flow]
    unattached.sort(key=lambda n: (not n.idle, not n.unattached("voice"), n.phone_number))
    return Card(
        name=view.account.name,
        state=state,
        headline=headline,
        error=str(view.error) if view.error else "",
        has_figures=snapshot is not None,
        numbers=len(numbers),
        unattached_voice=sum(group.unattached["voice"] for group in groups),
        unattached_sms=sum(group.unattached["sms"] for group in groups),
        idle=sum(group.idle for group in groups),
        rental=_total(group.rental.items() for group in groups),
        idle_rental=_total(group.idle_rental.items() for group in groups),
        rows=tuple(_row(number, view.account) for number in islice(unattached, ROWS_MAX)),
        rows_left_out=max(0, len(unattached) - ROWS_MAX),
    )


def _headline(view: View, snapshot: Snapshot | None, now: Moment) -> tuple[str, str]:
    if view.last_attempt is None:
        return "waiting", "The first poll is under way."
    if snapshot is not None:
        age = span(now.seconds_since(snapshot.completed))
        if view.error is None:
            return "ok", f"As of {age} ago."
        return "failing", f"The last poll failed; shown is what was found {age} ago."
    if view.snapshot is None:
        return "failing", "No poll has been complete yet."
    age = span(now.seconds_since(view.snapshot.completed))
    return "stale", f"The last complete poll was {age} ago: too old to be shown."


def _total(prices: Iterable[Iterable[tuple[str, Decimal]]]) -> str:
    """Sums by currency, never across; "none" where nothing has a price."""
    totals: dict[str, Decimal] = {}
    for of_group in prices:
        for currency, amount in of_group:
            totals[currency] = totals.get(currency, Decimal()) + amount
    return (
        " + ".join(money(amount, currency) for currency, amount in sorted(totals.items())) or "none"
    )


def _row(number: ExoPhone, account: Account) -> Row:
    names = shown(number, account.per_number.phone_number)
    return Row(
        phone_number=names.phone_number or names.sid,
        friendly_name=names.friendly_name,
        circle=circle(number),
        number_type=number.number_type,
        voice=flow_state(number, "voice"),
        sms=flow_state(number, "sms"),
        rental=money(number.rental_price, number.currency),
        idle=number.idle,
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("exophone_exporter"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("status.html")
