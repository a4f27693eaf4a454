"""What is left on a simulated account: spent by the minute, charged the rentals on the 1st."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

# Numbers are gone for good so many days after the balance was used up.
GONE_AFTER_DAYS: Final = 10
_IST: Final = timezone(timedelta(hours=5, minutes=30))
_MINUTE: Final = timedelta(minutes=1)


def now() -> datetime:
    """The time of the simulated vendor."""
    return datetime.now(UTC)


@dataclass
class Balance:
    """The amount as of `at`, in the currency, and what calls cost in a minute.

    `empty_at` is when it was used up; while it is, the service stops.
    """

    amount: Decimal = Decimal(1_000_000)
    currency: str = "INR"
    plan: str = "Pay As You Go"
    per_minute: Decimal = Decimal(0)
    at: datetime | None = None
    empty_at: datetime | None = None

    def advance(self, moment: datetime, numbers: Iterable[Mapping[str, Any]]) -> None:
        """Spend what calls and numbers have cost until now."""
        before = self.at or moment
        minutes = max(0, (moment - before) // _MINUTE)
        if self.amount > 0:
            self.amount -= min(self.amount, minutes * self.per_minute)
        if months := _month(moment) - _month(before):
            self.amount -= months * rental(numbers)[self.currency]
        # The minute that has begun is paid with the next one, unless a month begins in it.
        self.at = moment if months or self.at is None else before + minutes * _MINUTE
        if self.amount > 0:
            self.empty_at = None
        elif self.empty_at is None:
            self.empty_at = self.at

    def is_empty(self) -> bool:
        """Whether the account is used up."""
        return self.empty_at is not None

    def loses_numbers(self, moment: datetime) -> bool:
        """Whether it has been used up for so long that the numbers are gone."""
        gone_after = timedelta(days=GONE_AFTER_DAYS)
        return self.empty_at is not None and moment - self.empty_at >= gone_after

    def document(self, sid: str, *, as_number: bool) -> dict[str, Any]:
        """The answer in JSON, with the amount as a text or as a number."""
        data = {
            "Balance": float(self.amount) if as_number else f"{self.amount:.2f}",
            "Currency": self.currency,
            "PricingPlan": self.plan,
            "DateUpdated": (self.at or now()).astimezone(_IST).strftime("%Y-%m-%d %H:%M:%S"),
        }
        return {"Account": {"AccountSid": sid, "BalanceData": data}}

    def xml(self, sid: str) -> bytes:
        """The answer of the form without `.json`."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<TwilioResponse>\n <Account>\n'
            f"  <Sid>{sid}</Sid>\n  <AvailableBalance>{self.amount:.2f}</AvailableBalance>\n"
            f"  <Currency>{self.currency}</Currency>\n </Account>\n</TwilioResponse>\n"
        ).encode()


def rental(numbers: Iterable[Mapping[str, Any]]) -> defaultdict[str, Decimal]:
    """What numbers cost in a month, by currency."""
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for number in numbers:
        sums[number["currency"]] += Decimal(number["rental_price"])
    return sums


def _month(moment: datetime) -> int:
    local = moment.astimezone(_IST)
    return local.year * 12 + local.month
