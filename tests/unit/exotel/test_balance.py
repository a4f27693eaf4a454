"""The answer of the balance endpoint: what is an amount, and what is an error."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import pytest

from exophone_exporter.errors import BadBody, BadEnvelope, ErrorInside, PollError
from exophone_exporter.exotel.balance import Balance, parse_balance
from exophone_exporter.metrics.exposition import format_value

# As the vendor's page has it.
SAMPLE: Final = b"""{"Account": {"AccountSid": "Exotel", "BalanceData": {"Balance": "1543.75",
"Currency": "INR", "PricingPlan": "Pay As You Go", "DateUpdated": "2026-04-24 10:32:18"}}}"""


def answer(account_sid: object = "Exotel", **data: object) -> bytes:
    """The sample with other values; Ellipsis leaves a key out."""
    document = json.loads(SAMPLE)
    document["Account"]["AccountSid"] = account_sid
    document["Account"]["BalanceData"] |= data
    for part in (document["Account"], document["Account"]["BalanceData"]):
        for key in [key for key, value in part.items() if value is ...]:
            del part[key]
    return json.dumps(document).encode()


def raw(amount: str) -> bytes:
    """The sample with an amount that Python would not write."""
    return SAMPLE.replace(b'"1543.75"', amount.encode())


def test_the_sample_of_the_vendor() -> None:
    expected = Balance(Decimal("1543.75"), "INR", "Pay As You Go")
    assert parse_balance(SAMPLE, "Exotel") == expected


@pytest.mark.fault(245)
@pytest.mark.parametrize(
    ("body", "amount"),
    [
        (answer(Balance=" 0.00 "), "0.0"),
        (answer(Balance="-12.5"), "-12.5"),
        (answer(Balance="-0.00"), "0.0"),
        (raw("1543.75"), "1543.75"),
        (raw("-3"), "-3.0"),
        (raw("1.5e3"), "1500.0"),
        (raw("499.99999999999994"), "499.99999999999994"),
        (answer(Balance="999999999999"), "9.99999999999e+11"),
        (SAMPLE.lower().replace(b"account_sid", b"account-sid"), "1543.75"),
        (answer(account_sid="EXOTEL", Status="Active", Message="Recharge soon"), "1543.75"),
        (answer(account_sid=...), "1543.75"),
        (answer(PricingPlan=...), "1543.75"),
    ],
)
def test_an_amount_is_a_text_or_a_number_and_may_be_owed(body: bytes, amount: str) -> None:
    assert format_value(parse_balance(body, "Exotel").amount) == amount


@pytest.mark.fault(245)
@pytest.mark.parametrize(
    "amount",
    [
        *(
            "",
            " ",
            "null",
            "none",
            "NaN",
            "inf",
            "Infinity",
            "1e400",
            "1e3",
            "1,543.75",
            "1.543,75",
        ),
        *(
            "1 543.75",
            "₹1543.75",
            "1543.75 INR",
            "+5",
            "--5",
            "- 5",
            "-",
            ".5",
            "5.",
            "0x10",
            "\u0665",
        ),
        *("1" * 13, "1" * 10**6, "1." + "0" * 21),
        *(None, True, False, [], ["1543.75"], {"amount": 1}, ...),
    ],
    ids=lambda amount: str(amount)[:10] or "empty",
)
def test_an_amount_that_is_not_plain_digits_is_an_error_and_never_0(amount: object) -> None:
    with pytest.raises(BadEnvelope, match=r"^the answer has no amount that can be read$"):
        parse_balance(answer(Balance=amount), "Exotel")


CURRENCIES: Final[list[object]] = ["", None, "₹", "RUPEES", "null", 356, [], ...]


@pytest.mark.fault(245)
@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (raw("1e400"), BadEnvelope, "no amount that can be read"),
        (raw("-1e99999999999999999999"), BadEnvelope, "no amount that can be read"),
        (raw("NaN"), BadBody, "JSON beyond all measure"),
        *(
            (answer(Currency=currency), BadEnvelope, "no currency that can be read")
            for currency in CURRENCIES
        ),
        *(
            (answer(account_sid=sid), BadEnvelope, "answered about another account")
            for sid in ("Other", "Exotel2", ["Exotel"], {"sid": "Exotel"})
        ),
        (b"{}", BadEnvelope, "has no Account with BalanceData"),
        (b'{"Account": [1]}', BadEnvelope, "has no Account with BalanceData"),
        (b'{"Account": {"BalanceData": null}}', BadEnvelope, "has no Account with BalanceData"),
        (b'{"incoming_phone_numbers": []}', BadEnvelope, "has no Account with BalanceData"),
        (b"[]", BadEnvelope, "a JSON list where an object"),
        (b"<Account><AvailableBalance>5</AvailableBalance></Account>", BadBody, "is not JSON"),
        (b"<html>canary</html>", BadBody, "is not JSON"),
        (b"<RestException><Status>403</Status></RestException>", ErrorInside, "an error inside"),
        (b'{"http_code": 403, "response": {"code": 403}}', ErrorInside, "an error inside"),
        (SAMPLE.replace(b'{"Account"', b'{"http_code": 500, "Account"'), ErrorInside, "an error"),
    ],
)
def test_an_answer_without_this_accounts_amount_and_currency_is_an_error(
    body: bytes, kind: type[PollError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        parse_balance(body, "Exotel")
    assert "canary" not in str(caught.value)


@pytest.mark.fault(245)
@pytest.mark.parametrize(
    ("plan", "shown"),
    [
        (None, ""),
        ("null", ""),
        (7, "7"),
        ("Post\npaid\u202e", "Post paid"),
        ("p" * 10**6, "p" * 255 + "…"),
    ],
)
def test_a_pricing_plan_is_clean_text(plan: Any, shown: str) -> None:
    assert parse_balance(answer(PricingPlan=plan), "Exotel").pricing_plan == shown
