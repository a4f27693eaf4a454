"""Figures as people read them: money, ages, circles. For the terminal and the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from exophone_exporter.exotel.model import ExoPhone, Flow

# Source: the vendor's list of telecom circles. Outside India the region is the country's code.
CIRCLES: Final[Mapping[str, str]] = {
    "AP": "Andhra Pradesh",
    "AS": "Assam",
    "BR": "Bihar",
    "DL": "Delhi",
    "GJ": "Gujarat",
    "HP": "Himachal Pradesh",
    "HR": "Haryana",
    "JK": "Jammu and Kashmir",
    "KA": "Karnataka",
    "KL": "Kerala",
    "KO": "Kolkata",
    "MH": "Maharashtra",
    "MP": "Madhya Pradesh",
    "MU": "Mumbai",
    "NE": "North East",
    "OR": "Orissa",
    "PB": "Punjab",
    "RJ": "Rajasthan",
    "TN": "Tamil Nadu",
    "UE": "Uttar Pradesh East",
    "UW": "Uttar Pradesh West",
    "WB": "West Bengal",
}
_SIGNS: Final[Mapping[str, str]] = {"INR": "₹", "USD": "$"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def money(amount: Decimal | None, currency: str) -> str:
    """An amount as its country writes it: ₹12,34,567.89, $1,234,567.89; "" for None.

    Exact: the price of a pulse may have more than two decimals.
    """
    if amount is None:
        return ""
    whole, _, decimals = f"{amount:f}".partition(".")
    cents = decimals.rstrip("0").ljust(2, "0")
    grouped = _indian_groups(whole) if currency == "INR" else f"{int(whole):,}"
    sign = _SIGNS.get(currency)
    return f"{sign}{grouped}.{cents}" if sign else f"{grouped}.{cents} {currency}".rstrip()


def _indian_groups(digits: str) -> str:
    """Thousands, then lakhs and crores: groups of two."""
    head, tail = digits[:-3], digits[-3:]
    pairs: list[str] = []
    while head:
        head, pair = head[:-2], head[-2:]
        pairs.insert(0, pair)
    return ",".join([*pairs, tail])


def circle(number: ExoPhone) -> str:
    """The region by its name where it is an Indian telecom circle, else as it was sent."""
    return CIRCLES.get(number.region, number.region) if number.country == "IN" else number.region


def flow_state(number: ExoPhone, flow: Flow) -> str:
    """What a person wants to know of a channel: the flow, or why there is none."""
    if number.attached(flow):
        return number.flow_id(flow)
    if number.attached(flow) is None:
        return "unreadable"
    return "unattached" if number.capable(flow) else "not capable"


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
