"""Money on the screen: every amount in the notation of its own currency, none added across two."""

from __future__ import annotations

from typing import Final

from exophone_dashboards.panels import Override

# Grouped as the reader's browser groups: in lakhs and crores where it is set to India.
# `currencyINR` would shorten to ₹1.23M. Grafana before 12.1 does not know `financial`: it shortens
# too, and shows the word; docs/dashboards.md tells what to write instead there.
# Other currencies are plain figures of two decimals; the series or the column names them.
_UNITS: Final = {"INR": "currency:financial:₹", "USD": "currency:financial:$"}
USUAL: Final = tuple(_UNITS)
OTHER_UNIT: Final = "none"
DECIMALS: Final = 2


def money_overrides() -> tuple[Override, ...]:
    """Units of the fields whose name ends with a currency: "INR", "Idle INR", "acme INR"."""
    return tuple(
        Override("byRegexp", f"/(^| ){currency}$/", {"unit": unit})
        for currency, unit in _UNITS.items()
    )


def named_by_currency(expression: str, prefix: str = "") -> str:
    """An expression whose currency label becomes the name of a column: `Idle INR`."""
    return f'label_replace({expression}, "currency", "{prefix}$1", "currency", "(.*)")'
