"""ExoPhones / Rental: what is paid, and how much of it for unused numbers. For finance."""

from __future__ import annotations

from typing import Any, Final

from exophone_dashboards.balance import BALANCE_TREND, BALANCES, DAYS_LEFT, days_until_charge
from exophone_dashboards.circles import circle_mappings, of_group, with_circle
from exophone_dashboards.layout import (
    ACCOUNT,
    CURRENCY,
    EXPORTER,
    INSTANCE,
    JOB,
    NUMBER_TYPE,
    REGION,
    Dashboard,
    row,
)
from exophone_dashboards.links import account_links, number_links
from exophone_dashboards.money import DECIMALS, OTHER_UNIT, money_overrides
from exophone_dashboards.panels import (
    BLUE,
    GREEN,
    ORANGE,
    SMALL,
    YELLOW,
    Json,
    Panel,
    Query,
    Step,
    below_one_another,
    column,
    columns_by,
    empty_cell,
    name_column,
    now,
    over_time,
    plain,
    stat,
    table,
    thresholds,
    time_series,
    value_mapping,
)
from exophone_dashboards.queries import (
    COLUMN,
    GROUP,
    as_column,
    of_account,
    of_exporters,
    once,
    total,
)
from exophone_dashboards.queries import CURRENCY as OF_CURRENCY

RENTAL: Final = of_account("exophone_monthly_rental", *GROUP, OF_CURRENCY)
IDLE_RENTAL: Final = of_account("exophone_idle_monthly_rental", *GROUP, OF_CURRENCY)
NUMBERS: Final = of_account("exophone_numbers", *GROUP)
UNPRICED_NUMBERS: Final = of_account("exophone_numbers_unpriced", *GROUP)

IDLE_STEPS: Final = (Step(GREEN), Step(ORANGE, 0.01))
SHARE_STEPS: Final = (Step(GREEN), Step(YELLOW, 0.0001), Step(ORANGE, 0.1))
UNPRICED: Final = "Unpriced numbers"
NO_RENTAL: Final = "No rental known"
NO_HISTORY: Final = "No history yet"
# The columns of labels, renamed and not only shown so: Grafana 10 keeps a name once it is shown.
NAMES: Final = {
    "phone_number": "Number",
    "friendly_name": "Name",
    "account": "Account",
    "circle": "Circle",
    "number_type": "Type",
    "owner": "Owner",
    "currency": "Currency",
}
FIGURES: Final = ("Rental", "Idle", "Share")
# As often as accounts are polled at least.
STEP: Final = "5m"
# The most expensive of each currency: enough to act on, and few enough to read.
DEAREST: Final = 50


def idle_share(*labels: str) -> str:
    """Idle rental of rental, within one currency; there is no share without rental."""
    return f"{total(IDLE_RENTAL, *labels)} / ({total(RENTAL, *labels)} > 0)"


def known(selected: str, window: str, before: str = "") -> str:
    """The value, or where no exporter of the account was scraped the last one of the window.

    An exporter that is scraped knows best: what it no longer has is not there.
    """
    shift = f" offset {before}" if before else ""
    scraped = of_account("exophone_poll_interval_seconds")
    last = f"last_over_time({selected}[{window}]{shift})"
    return f"({selected}{shift} or ({last} unless on (job, account) {scraped}{shift}))"


def at_last(selected: str) -> str:
    """The last value of each step of a graph: missed scrapes leave no hole in it.

    The step that begins at the point, not the one that ends there: so the newest value is in the
    graph from the first scrape on, where a step of a range of 30 days is an hour.
    """
    return known(selected, "$__interval", before="-$__interval")


def before_the_range(selected: str) -> str:
    """The value as the range began; of the day before where nothing was scraped then."""
    return known(selected, "1d", before="$__range")


def of_each_account(expression: str) -> str:
    """Sums over the groups of an account, whatever other labels tell accounts apart."""
    return f"sum without (country, region, number_type) ({once(expression)})"


def idle_numbers_with_rental() -> str:
    """Rental of each idle number, with its names.

    The two series are joined within one exporter, whose names agree; replicas may for one poll
    know different ones.
    """
    names = ("phone_number", "friendly_name", "country", "region", "number_type")
    rental = of_account("exophone_number_monthly_rental", OF_CURRENCY)
    info = of_account("exophone_number_info", *GROUP, 'voice_flow_id=""', 'sms_flow_id=""')
    same = "on (job, instance, account, sid)"
    # A rule may want no flow: then the number is not idle.
    wanted = of_account("exophone_number_flow_as_expected")
    return once(
        f"({of_exporters(rental)}) * {same} group_left ({', '.join(names)}) {info}"
        f" and {same} ({wanted} == 0)"
    )


def by_owner(*factors: str) -> str:
    """The sum of series of numbers by owner and currency; joined like idle numbers.

    Only of accounts whose numbers all have series: sums of some of them would mislead.
    """
    info = of_account("exophone_number_info", *GROUP)
    rental = of_account("exophone_number_monthly_rental", OF_CURRENCY)
    each = "(job, instance, account)"
    all_have_series = f"count by {each} ({info}) == sum by {each} ({NUMBERS})"
    joined = (
        f"{rental} * on (job, instance, account, sid) group_left (owner) {info}"
        f" and on {each} ({all_have_series})"
    )
    named = f'label_replace({once(joined)}, "owner", "No owner", "owner", "")'
    return f"sum by (owner, currency) ({named}{''.join(factors)})"


def by_currency(expr: str, legend: str = "{{currency}}") -> Query:
    """The present amounts, one a currency."""
    return now(f"sort_desc({expr})", legend)


def money_stat(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """One amount a currency."""
    shown: Json = {"unit": OTHER_UNIT, "decimals": DECIMALS, "overrides": money_overrides()}
    shown |= {"no_value": NO_RENTAL, "width": 6, "height": 5, "size": SMALL} | more
    return below_one_another(stat(title, description, *queries, text="value_and_name", **shown))


def as_columns(*figures: str, labels: tuple[str, ...]) -> tuple[Json, ...]:
    """A row for the same labels and one currency, with a column for each figure."""
    first = (*labels, "currency", *figures)
    return columns_by(COLUMN, "job", "country", "region", first=first, renamed=NAMES)


def rental_table(title: str, description: str, *labels: str, **more: Any) -> Panel:
    """Rental, idle rental and its share by some labels and currency."""
    figures = (
        total(RENTAL, *labels, "currency"),
        total(IDLE_RENTAL, *labels, "currency"),
        idle_share(*labels, "currency"),
    )
    found = " or ".join(map(as_column, FIGURES, figures))
    expr = of_group(found) if "region" in labels else found
    return table(
        title,
        description,
        Query(expr, instant=True),
        unit=OTHER_UNIT,
        decimals=DECIMALS,
        no_value=NO_RENTAL,
        sort_by="Idle",
        overrides=(empty_cell("-"), *LABEL_COLUMNS, SHARES),
        **more,
    )


SHARES: Final = column(
    "Share",
    unit="percentunit",
    decimals=1,
    thresholds=thresholds(SHARE_STEPS),
    custom__cellOptions={"type": "color-text"},
    custom__width=62,
)
LABEL_COLUMNS: Final = (
    name_column("Number", custom__width=125, links=number_links("sid", "Account")),
    name_column("Name", custom__minWidth=125),
    name_column("Account", custom__minWidth=105, links=account_links()),
    name_column("Circle", custom__minWidth=115, mappings=circle_mappings()),
    name_column("Type", noValue="Unknown", custom__width=90),
    column("Currency", unit="string", custom__width=80),
    column("Rental", custom__width=105),
    column("Idle", custom__width=95),
    column("sid", custom__hideFrom__viz=True),
)

MONTHLY_RENTAL: Final = money_stat(
    "Monthly rental",
    "Rental charged on the 1st of every month. It lacks the unpriced numbers.",
    by_currency(total(RENTAL, "currency")),
    now(f"{total(UNPRICED_NUMBERS)} > 0", UNPRICED),
    overrides=(*money_overrides(), column(UNPRICED, unit="none", decimals=0)),
)
IDLE: Final = money_stat(
    "Idle rental",
    "Monthly rental of numbers with neither a voice nor an SMS flow.",
    by_currency(total(IDLE_RENTAL, "currency")),
    steps=IDLE_STEPS,
)
YEARLY_WASTE: Final = money_stat(
    "Yearly waste",
    "Twelve months of idle rental, if these numbers are neither used nor released.",
    by_currency(f"{total(IDLE_RENTAL, 'currency')} * 12"),
    steps=IDLE_STEPS,
)
NEXT_CHARGE: Final = stat(
    "Next charge",
    "Days until the rental is charged, on the 1st of the month in India.",
    now(days_until_charge(), "Days"),
    unit="suffix:days",
    decimals=0,
    steps=plain(BLUE),
    mappings=(
        value_mapping({"0": {"text": "Today", "index": 0}, "1": {"text": "Tomorrow", "index": 1}}),
    ),
    no_value="No answer",
    width=6,
    height=5,
)
TREND: Final = time_series(
    "Rental over time",
    "Monthly rental, and the rental of idle numbers; each currency has its own axis.",
    over_time(total(at_last(RENTAL), "currency"), "Rental {{currency}}", STEP),
    over_time(total(at_last(IDLE_RENTAL), "currency"), "Idle {{currency}}", STEP),
    unit=OTHER_UNIT,
    decimals=DECIMALS,
    overrides=money_overrides(),
    no_value=NO_HISTORY,
    legend="table",
    width=12,
    height=9,
)
SHARE_TREND: Final = time_series(
    "Idle share over time",
    "Idle rental as a share of all rental in the same currency.",
    over_time(
        f"{total(at_last(IDLE_RENTAL), 'currency')} / ({total(at_last(RENTAL), 'currency')} > 0)",
        "{{currency}}",
        STEP,
    ),
    unit="percentunit",
    decimals=1,
    minimum=0,
    no_value=NO_HISTORY,
    legend="table",
    width=12,
    height=9,
)
CHANGE: Final = money_stat(
    "Change in the range",
    "Monthly rental now minus that at the start of the time range, for accounts known at both.",
    by_currency(
        f"sum by (currency) ({of_each_account(RENTAL)}"
        f" - {of_each_account(before_the_range(RENTAL))})"
    ),
    no_value="No rental known at the start yet",
    width=12,
    height=9,
)
BY_ACCOUNT: Final = rental_table(
    "Rental by account",
    "Monthly rental, idle rental and idle share of each account.",
    "account",
    transformations=as_columns(*FIGURES, labels=("account",)),
    width=12,
)
BY_CIRCLE: Final = rental_table(
    "Rental by circle and type",
    "Monthly rental, idle rental and idle share of each circle and number type.",
    "country",
    "region",
    "number_type",
    transformations=as_columns(*FIGURES, labels=("circle", "number_type")),
)
BY_OWNER: Final = table(
    "Rental by owner",
    "Monthly rental of the numbers of each owner, as the rules of the section numbers name them,"
    " in accounts whose numbers all have series.",
    now(as_column("Numbers", by_owner(" * 0 + 1"))),
    now(as_column("Rental", by_owner())),
    unit=OTHER_UNIT,
    decimals=DECIMALS,
    no_value="No rental known, or per-number series are off (per_number.series)",
    sort_by="Rental",
    transformations=columns_by(
        COLUMN, first=("owner", "currency", "Numbers", "Rental"), renamed=NAMES
    ),
    overrides=(
        empty_cell("-"),
        name_column("Owner", custom__minWidth=100),
        column("Currency", unit="string", custom__width=80),
        column("Rental", custom__width=120),
        column("Numbers", unit="none", decimals=0, custom__width=100),
    ),
    width=12,
)
DEAREST_FIRST: Final = f"sort_desc(topk by (currency) ({DEAREST}, {idle_numbers_with_rental()}))"
DEAREST_IDLE: Final = table(
    "Most expensive idle numbers",
    f"The {DEAREST} most expensive idle numbers of each currency, with their monthly rental.",
    Query(with_circle(as_column("Rental", DEAREST_FIRST)), instant=True),
    transformations=as_columns(
        "Rental", labels=("phone_number", "friendly_name", "account", "circle", "number_type")
    ),
    unit=OTHER_UNIT,
    decimals=DECIMALS,
    overrides=(empty_cell("-"), *LABEL_COLUMNS),
    no_value="No idle numbers, or per-number series are off (per_number.series)",
    width=24,
    height=12,
)

DASHBOARD: Final = Dashboard(
    uid="exophone-rental",
    title="ExoPhones / Rental",
    description="What rental you pay, and how much of it for unused numbers.",
    variables=(JOB, INSTANCE, ACCOUNT, REGION, NUMBER_TYPE, CURRENCY, EXPORTER),
    rows=(
        row("This month", MONTHLY_RENTAL, IDLE, YEARLY_WASTE, NEXT_CHARGE),
        row("Balance", DAYS_LEFT, BALANCES),
        row("Trend", TREND, BALANCE_TREND, SHARE_TREND, CHANGE),
        row("Where it goes", BY_ACCOUNT, BY_OWNER, BY_CIRCLE),
        row("Idle numbers", DEAREST_IDLE),
    ),
    time_from="now-30d",
    refresh="5m",
)
