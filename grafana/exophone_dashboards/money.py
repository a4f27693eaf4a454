"""Money on the screen: every amount in the notation of its own currency, none added across two."""

from __future__ import annotations

from typing import Final

from exophone_dashboards.panels import Override

# Grouped as the reader's browser groups: in lakhs and crores where it is set to India.
# `currencyINR` would shorten to ₹1.23M. Grafana before 12.1 does not know `financial`: it shortens
# too, and shows the word; docs/dashboards.md tells what to write instead there.
_UNITS: Final = {"INR": "currency:financial:₹", "USD": "currency:financial:$"}
# Other currencies, and columns of several: the same without a sign, for which a thin space stands,
# because Grafana does not group digits without one. The series or a column names the currency.
OTHER_UNIT: Final = "currency:financial:\u200a"
DECIMALS: Final = 2


def money_overrides() -> tuple[Override, ...]:
    """Units of the fields whose name ends with a currency: "INR", "Idle INR"."""
    return tuple(
        Override("byRegexp", f"/(^| ){currency}$/", {"unit": unit})
        for currency, unit in _UNITS.items()
    )
