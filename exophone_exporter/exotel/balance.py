"""What is left on an account: untrusted JSON becomes a Balance.

Source: the vendor's page on balances. Pure: bytes in, a frozen value or a PollError out. Nothing is
guessed where money is concerned: an amount that is not plain digits, or that has no currency, is an
error.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from exophone_exporter.errors import BadEnvelope
from exophone_exporter.exotel.model import FieldReader, read_object


@dataclass(frozen=True, slots=True)
class Balance:
    """The amount in units of the currency, below zero if the account owes; "" without a plan."""

    amount: Decimal
    currency: str
    pricing_plan: str


def parse_balance(body: bytes, sid: str) -> Balance:
    """Read one answer of the balance endpoint, asked about the account `sid`.

    Raises BadBody for what is not JSON and BadEnvelope for JSON without the amount and currency of
    this account: as ErrorInside where it holds an error.
    """
    account = FieldReader(read_object(body)).inner("Account")
    if account is None or (data := account.inner("BalanceData")) is None:
        raise BadEnvelope("the answer has no Account with BalanceData")
    answered = account.text("AccountSid").strip()
    if account.unreadable or answered.lower() not in ("", sid.lower()):
        raise BadEnvelope("the balance endpoint answered about another account")
    amount, currency = data.decimal("Balance", signed=True), data.currency("Currency")
    if amount is None:
        raise BadEnvelope("the answer has no amount that can be read")
    if not currency:
        raise BadEnvelope("the amount has no currency that can be read")
    return Balance(amount, currency, data.text("PricingPlan").strip())
