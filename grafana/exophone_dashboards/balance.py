"""The balance of each account, how long it lasts, and whether it pays the next rental."""

from __future__ import annotations

from typing import Final

from exophone_dashboards.links import account_links
from exophone_dashboards.money import DECIMALS, OTHER_UNIT, money_overrides
from exophone_dashboards.panels import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    SMALL,
    Step,
    column,
    columns_by,
    name_column,
    now,
    over_time,
    stat,
    table,
    thresholds,
    time_series,
    value_mapping,
)
from exophone_dashboards.queries import COLUMN, CURRENCY, as_column, of_account, once

_METRIC: Final = of_account("exophone_account_balance", CURRENCY)
BALANCE: Final = once(_METRIC)
RENTAL: Final = once(of_account("exophone_monthly_rental", CURRENCY))
# The last value of the step that begins at a point, as in the graphs of rental.
OF_EACH_STEP: Final = once(f"last_over_time({_METRIC}[$__interval] offset -$__interval)")
# The balance is asked for once an hour, so a shorter step would only find the same falls.
STEP_SECONDS: Final = 600
STEPS: Final = "[7d:10m]"
# The first is for the text where nothing is known.
DAYS_STEPS: Final = (Step(GREY), Step(RED, 0), Step(ORANGE, 3), Step(GREEN, 14))
DAYS: Final = "suffix: days"


def spent_in_a_day() -> str:
    """The average of the last week, or of what there is of it.

    Falls only: a top-up is not income, and `deriv` would take it for one.
    """
    before = once(f"{_METRIC} offset {STEP_SECONDS}s")
    fall = f"clamp_min({before} - {BALANCE}, 0)"
    return f"avg_over_time({fall}{STEPS}) * {86400 // STEP_SECONDS}"


def days_until_charge() -> str:
    """Days until the rental is charged, on the 1st of the month in India; on it 0."""
    today = "vector(time() + 19800)"
    days = f"days_in_month({today})"
    return f"({days} - day_of_month({today}) + 1) % {days}"


def after_the_next_charge() -> str:
    """The balance less a month's rental in its currency."""
    rental = f"sum without (country, region, number_type) ({RENTAL})"
    return f"({BALANCE} - {rental} or {BALANCE})"


def days_left() -> str:
    """How long the balance lasts: at the average spend, but not over a charge that it cannot pay.

    Nothing where it pays the charge and nothing was spent yet.
    """
    by_spend = f"clamp_min({BALANCE}, 0) / ({spent_in_a_day()} > 0)"
    unpaid = f"({BALANCE} > bool 0 and {after_the_next_charge()} < 0)"
    by_charge = f"{unpaid} * scalar({days_until_charge()})"
    charge = f'label_replace({by_charge}, "reason", "charge", "", "")'
    return f"min without (reason) ({by_spend} or {charge})"


# Whole days are those until a charge that cannot be paid: red, however far away it is.
UNPAID_CHARGE: Final = value_mapping(
    {
        str(days): {"text": f"{days} day{'s' * (days != 1)}", "color": RED, "index": days}
        for days in range(31)
    }
)
DAYS_LEFT: Final = stat(
    "Days left",
    "How long the balance lasts, of the account where it ends first: until the next charge, if it"
    " does not pay it; else at the average spend of the last week, or of the time since the first"
    " scrape. A rental that was charged counts as spend.",
    now(f"bottomk(1, {days_left()})", "{{account}} {{currency}}"),
    unit=DAYS,
    decimals=1,
    steps=DAYS_STEPS,
    mappings=(UNPAID_CHARGE,),
    text="value_and_name",
    size=SMALL,
    no_value="No balance, or nothing spent yet",
    width=6,
    height=6,
)
BALANCES: Final = table(
    "Balance by account",
    "Balance now, after the monthly rental is charged on the 1st, and how long it lasts: until"
    " then, if it does not pay the rental; else at the average spend of the last week. For postpaid"
    " plans Exotel does not say what it means.",
    now(as_column("Balance", BALANCE)),
    now(as_column("After the next charge", after_the_next_charge())),
    now(as_column("Days left", days_left())),
    unit=OTHER_UNIT,
    decimals=DECIMALS,
    no_value="No balance known: balance.enabled is off, or the key may not read it",
    sort_by="After the next charge",
    down=False,
    transformations=columns_by(
        COLUMN,
        "job",
        first=("account", "currency", "Balance", "After the next charge", "Days left"),
        renamed={"account": "Account", "currency": "Currency"},
    ),
    overrides=(
        name_column("Account", custom__minWidth=115, links=account_links()),
        column("Currency", unit="string", custom__width=80),
        column("Balance", custom__width=150),
        column(
            "After the next charge",
            custom__width=210,
            custom__cellOptions={"type": "color-text"},
            thresholds=thresholds((Step(RED), Step(GREEN, 0))),
        ),
        column(
            "Days left",
            unit=DAYS,
            decimals=1,
            noValue="-",
            mappings=[UNPAID_CHARGE],
            custom__width=120,
            custom__cellOptions={"type": "color-text"},
            thresholds=thresholds(DAYS_STEPS),
        ),
    ),
    width=18,
    height=6,
)
BALANCE_TREND: Final = time_series(
    "Balance over time",
    "Balance of each account; each currency has its own axis.",
    over_time(OF_EACH_STEP, "{{account}} {{currency}}", interval="5m"),
    unit=OTHER_UNIT,
    decimals=DECIMALS,
    overrides=money_overrides(),
    no_value="No balance known: it is not enabled, or there is no history yet",
    legend="table",
    width=12,
    height=9,
)
