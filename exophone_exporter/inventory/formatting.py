"""Figures as people read them: money, ages, circles. For the terminal and the status page."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import Final

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.number_rules import CIRCLES, Expectation
from exophone_exporter.exotel.model import CHANNELS, Channel, ExoPhone
from exophone_exporter.inventory.expectations import Verdict, expectation, expected_label
from exophone_exporter.inventory.state import AccountStatus

_NAMES_MAX: Final = 3
# Before thousands, lakhs and crores: the last group has three digits, the others two.
_INDIAN_GROUP: Final = re.compile(r"(?<=\d)(?=(?:\d\d)*\d{3}$)")
_SIGNS: Final[Mapping[str, str]] = {"INR": "₹", "USD": "$"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def money(amount: Decimal | None, currency: str) -> str:
    """An amount as its country writes it: ₹12,34,567.89, $1,234,567.89; "" for None.

    Exact: the price of a pulse may have more than two decimals. No currency is named as missing.
    """
    if amount is None:
        return ""
    if amount < 0:
        return f"-{money(-amount, currency)}"
    whole, _, decimals = f"{amount:f}".partition(".")
    cents = decimals.rstrip("0").ljust(2, "0")
    grouped = _INDIAN_GROUP.sub(",", whole) if currency == "INR" else f"{int(whole):,}"
    sign, written = _SIGNS.get(currency), f"{grouped}.{cents}"
    return f"{sign}{written}" if sign else f"{written} {currency or '(no currency)'}"


def total(prices: Iterable[Mapping[str, Decimal]], unpriced: int = 0) -> str:
    """One sum for each currency, and how many numbers it lacks; "none" if nothing has a price."""
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for currency, amount in chain.from_iterable(each.items() for each in prices):
        totals[currency] += amount
    sums = [money(amount, currency) for currency, amount in sorted(totals.items())]
    if unpriced:
        sums.append(f"{unpriced} unpriced number{'' if unpriced == 1 else 's'}")
    return " + ".join(sums) or "none"


def circle(number: ExoPhone) -> str:
    """The region by its name where it is an Indian telecom circle, else as it was sent."""
    return CIRCLES.get(number.region, number.region) if number.country == "IN" else number.region


def flow_state(number: ExoPhone, channel: Channel) -> str:
    """What to show for a channel: the flow, or why there is no flow."""
    if number.attached(channel):
        return number.flow_id(channel)
    if number.attached(channel) is None:
        return "unreadable"
    return "unattached" if number.capable(channel) else "not capable"


def problem(verdict: Verdict, number: ExoPhone | None = None) -> str:
    """What is not as expected, such as `voice wrong, sms missing`; "" for nothing.

    With the number also the flow that it has: `voice wrong (11), sms missing`.
    """
    problems: list[str] = []
    for channel in CHANNELS:
        if kind := verdict.problem(channel):
            flow_id = number.flow_id(channel) if number else ""
            problems.append(f"{channel} {kind}" + (f" ({flow_id})" if flow_id else ""))
    return ", ".join(problems)


def expected(
    verdict: Verdict,
    *,
    of_problems: bool = False,
    text: Callable[[Expectation], str] = expected_label,
) -> str:
    """What is expected of both channels, such as `any`, or of each: `voice 11 or 12, sms none`.

    Or only of the channels with a problem, if there are any. `text` spells one expectation.
    """
    wrong = [channel for channel in CHANNELS if of_problems and verdict.problem(channel)]
    texts = {c: text(expectation(verdict.rule, c)) for c in wrong or CHANNELS}
    if len({*texts.values()}) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{channel} {text}" for channel, text in texts.items())


def span(seconds: float) -> str:
    """A time span in its two largest units: 45 s, 3 min, 2 h 5 min, 3 d 4 h."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def status_line(statuses: Sequence[AccountStatus], now: ClockReading) -> str:
    """Every account in one line, as `systemctl status` shows it."""
    known = [snapshot for status in statuses if (snapshot := status.fresh_snapshot(now))]
    numbers = sum(len(snapshot.numbers) for snapshot in known)
    problems = sum(group.problems for snapshot in known for group in snapshot.groups)
    accounts = f"{len(statuses)} account{'' if len(statuses) == 1 else 's'}"
    failing = [
        f"{status.account.name} ({status.error.reason})" for status in statuses if status.error
    ]
    waiting = [status.account.name for status in statuses if status.last_attempt is None]
    return (
        f"{accounts}, {numbers} numbers, {problems} with a problem"
        f"{_listed('failing', failing)}{_listed('waiting for the first poll', waiting)}"
    )


def _listed(what: str, names: Sequence[str]) -> str:
    """The first few of some accounts, if there are any."""
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return f"; {what}: {', '.join(names[:_NAMES_MAX])}{more}" if names else ""
