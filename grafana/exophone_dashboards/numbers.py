"""ExoPhones / Numbers: which numbers are unattached, now, and since when? For operations."""

from __future__ import annotations

from typing import Final

from exophone_dashboards.circles import circle_mappings, with_circle
from exophone_dashboards.layout import (
    ACCOUNT,
    EXPORTER,
    INSTANCE,
    JOB,
    NUMBER,
    NUMBER_TYPE,
    REGION,
    Annotation,
    Dashboard,
    row,
)
from exophone_dashboards.links import HISTORY_ID, account_links, number_links
from exophone_dashboards.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SMALL,
    YELLOW,
    Json,
    Override,
    Panel,
    Query,
    Step,
    column,
    columns_by,
    empty_cell,
    fixed,
    now,
    over_time,
    plain,
    rows,
    stat,
    state_timeline,
    table,
    thresholds,
    time_series,
    value_mapping,
)
from exophone_dashboards.queries import GROUP, of_account, once, total
from exophone_exporter.metrics.catalog import NUMBER_INFO

NUMBERS_METRIC: Final = of_account("exophone_numbers", *GROUP)
UNATTACHED_VOICE: Final = of_account("exophone_numbers_unattached", *GROUP, 'flow="voice"')
UNATTACHED_SMS: Final = of_account("exophone_numbers_unattached", *GROUP, 'flow="sms"')
IDLE: Final = of_account("exophone_numbers_idle", *GROUP)
INFO: Final = of_account("exophone_number_info", *GROUP)
ATTACHED: Final = of_account("exophone_number_flow_attached")
# Every account whose data is fresh has this series, an account without numbers too.
FRESH: Final = of_account("exophone_number_series_dropped")

NOT_FRESH: Final = "No fresh data"
NO_HISTORY: Final = "No history yet"
ACT: Final = (Step(GREEN), Step(RED, 1))
LOOK: Final = (Step(GREEN), Step(ORANGE, 1))
NOTE: Final = (Step(GREEN), Step(YELLOW, 1))
NAMES: Final = ("phone_number", "friendly_name", "country", "region", "number_type")
# Most rows of the timeline, and most points in which the past of a number is looked at.
ROWS_MAX: Final = 50
POINTS_MAX: Final = 300


def counted(selected: str) -> str:
    """The sum over the accounts whose data is fresh; 0 where those have no such group."""
    return f"{total(selected)} or sum ({once(FRESH)} * 0)"


# ---- Freshness

SUCCESS: Final = once(of_account("exophone_poll_last_success_timestamp_seconds"))
AGE: Final = f"time() - {SUCCESS}"
STALE_AFTER: Final = once(of_account("exophone_poll_stale_after_seconds"))
# Two of three intervals, which are the default: a poll was missed.
LATE: Final = "2 / 3"
# As many accounts of a colour as can be read on a telephone.
SHOWN: Final = 4


def age_where(condition: str) -> Query:
    """The oldest data of which the age, as a part of stale_after, meets a condition."""
    part = f"(({AGE}) / {STALE_AFTER} {condition})"
    return now(f"topk({SHOWN}, ({AGE}) and ({SUCCESS} > 0) and {part})", "{{account}}")


FRESHNESS: Final = stat(
    "Age of the data",
    f"Time since the last complete poll, of the {SHOWN} oldest accounts of each colour. Yellow: a"
    " poll was missed, two thirds of stale_after are over. Red: older than stale_after, all panels"
    " below leave out the account's numbers.",
    age_where(f"< {LATE}"),
    age_where(f">= {LATE} <= 1"),
    age_where("> 1"),
    now(f"topk({SHOWN}, {SUCCESS} == 0)", "{{account}}"),
    unit="s",
    decimals=0,
    color="background",
    text="value_and_name",
    size=SMALL,
    no_value="No exporter matches this selection",
    overrides=(
        Override("byFrameRefID", "A", fixed(GREEN)),
        Override("byFrameRefID", "B", fixed(YELLOW)),
        Override("byFrameRefID", "C", fixed(RED)),
        Override(
            "byFrameRefID",
            "D",
            fixed(RED) | {"mappings": [value_mapping({"0": {"text": "Never", "index": 0}})]},
        ),
    ),
    width=24,
    height=3,
)

# ---- Totals


def count(title: str, description: str, selected: str, steps: tuple[Step, ...]) -> Panel:
    """One count of numbers, over all accounts whose data is fresh."""
    return stat(
        title,
        description,
        now(counted(selected), title),
        unit="none",
        decimals=0,
        steps=steps,
        no_value=NOT_FRESH,
        width=6,
        height=5,
    )


TOTALS: Final = (
    count(
        "Numbers",
        "ExoPhones of the accounts whose data is fresh.",
        NUMBERS_METRIC,
        plain(BLUE),
    ),
    count(
        "Unattached voice",
        "Numbers that can take calls but have no voice flow. Callers hear a busy tone.",
        UNATTACHED_VOICE,
        ACT,
    ),
    count(
        "Unattached SMS",
        "Numbers that can receive SMS but have no SMS flow. Incoming SMS are not delivered.",
        UNATTACHED_SMS,
        NOTE,
    ),
    count(
        "Idle",
        "Numbers with neither a voice nor an SMS flow. Their rental is wasted.",
        IDLE,
        LOOK,
    ),
)

# ---- The table

SAME_NUMBER: Final = "on (job, account, sid)"
SAME_FLOW: Final = "on (job, account, sid, flow)"
SAME_ACCOUNT: Final = "on (job, account)"
LACKING: Final = f"{once(ATTACHED)} == 0"
# Each point of the range; few enough of them for ten thousand numbers, see POINTS_MAX.
END: Final = "@ end()"
EACH_STEP: Final = "[$__range:$__interval]"
COLUMN: Final = "column"
# A column that is not shown: a number may have no other.
LISTED: Final = "Listed"
INFO_LABELS: Final = tuple(label for label in NUMBER_INFO.labels if label not in ("account", "sid"))


def states(unattached: str, attached: str = GREEN) -> Json:
    """The mapping of a flow's state to words and colours."""
    return value_mapping(
        {
            "0": {"text": "Unattached", "color": unattached, "index": 0},
            "1": {"text": "Attached", "color": attached, "index": 1},
        }
    )


# Red: callers hear a busy tone. Yellow: many numbers do not need an SMS flow.
VOICE_STATES: Final = states(RED)
SMS_STATES: Final = states(YELLOW)


def as_column(name: str, expression: str) -> Query:
    """An expression whose values become a column with a name."""
    return now(f'label_replace({expression}, "{COLUMN}", "{name}", "", "")')


def of_lacking(expression: str) -> str:
    """Series of those numbers only that lack a flow, of the chosen circles and types."""
    return f"{expression} and {SAME_NUMBER} ({LACKING}) and {SAME_NUMBER} {INFO}"


def names() -> str:
    """The names of each number that lacks a flow: one series a number.

    Replicas may for one poll know different names; a second row would be one number too many.
    """
    one = f"topk without ({', '.join(INFO_LABELS)}) (1, {once(INFO)})"
    return with_circle(f"{one} and {SAME_NUMBER} ({LACKING})")


def state_of(flow: str) -> str:
    """Whether the flow is attached, for each number that lacks one; unattached ones first."""
    selected = of_account("exophone_number_flow_attached", f'flow="{flow}"')
    return f"sort({of_lacking(f'max without (instance, pod, flow) ({selected})')})"


def came_without() -> str:
    """Flows that are missing from numbers whose series a step before did not exist.

    Such are numbers that came without a flow, and where only unattached numbers have series of
    their own (`per_number.series: unattached`) all that lose one. Not where the whole account was
    unknown a step before.
    """
    known_before = f"{ATTACHED} offset $__interval"
    fresh_before = f"{FRESH} offset $__interval"
    return f"{ATTACHED} == 0 unless {SAME_FLOW} {known_before} and {SAME_ACCOUNT} {fresh_before}"


def unattached_since() -> str:
    """When a flow that a number lacks now was last seen attached, in milliseconds.

    Without such a moment it is when the number came; 0 is earlier than the range. Of each point of
    the past only what is missing now is looked at: ten thousand numbers take seconds, not minutes.
    """
    missing_now = f"{SAME_FLOW} ({once(f'{ATTACHED} {END}')} == 0)"
    was_attached = f"{ATTACHED} == 1 and {missing_now}"
    attached = once(f"max_over_time(timestamp({was_attached}){EACH_STEP})")
    came = once(f"max_over_time(timestamp({came_without()}){EACH_STEP})")
    since = f"({attached} or {came}) and {SAME_FLOW} ({LACKING}) or {LACKING}"
    return of_lacking(f"max without (flow) ({since}) * 1000")


def in_place_of_numbers(expression: str, text: str) -> str:
    """Series of accounts as rows among those of numbers, with a text for a name."""
    row_id = f'label_replace({expression}, "sid", "all others", "", "")'
    return f'label_replace({row_id}, "friendly_name", "{text}", "", "")'


def not_listed() -> str:
    """How many unattached numbers of an account have no series of their own, at least.

    Compared within one exporter: its own figures agree.
    """
    of = "by (job, instance, account, flow)"
    known = f"sum {of} ({of_account('exophone_numbers_unattached', *GROUP)})"
    listed = f"count {of} ({ATTACHED} == 0 and on (job, instance, account, sid) {INFO})"
    missing = f"max by (job, account) ({known} - ({listed} or {known} * 0)) > 0"
    return in_place_of_numbers(missing, "More, not listed: per_number.series or per_number.limit")


def without_data() -> str:
    """Accounts of which nothing can be said."""
    stale = f"max by (job, account) ({SUCCESS}) unless {SAME_ACCOUNT} {FRESH}"
    return in_place_of_numbers(stale, "Unknown: no fresh data for this account")


STATE_CELL: Final[Json] = {
    "custom__cellOptions": {"type": "color-text"},
    "custom__align": "left",
    "custom__width": 105,
}
EARLIER: Final = value_mapping({"0": {"text": "Earlier", "index": 0}})
TABLE_COLUMNS: Final = (
    empty_cell("-"),
    column(
        "phone_number",
        displayName="Number",
        unit="string",
        custom__width=130,
        links=number_links("sid", "account"),
    ),
    column("friendly_name", displayName="Name", unit="string", custom__minWidth=150),
    column("account", displayName="Account", unit="string", links=account_links()),
    column("circle", displayName="Circle", unit="string", mappings=circle_mappings()),
    column("Voice", **STATE_CELL, mappings=[states(RED, GREY)]),
    column("SMS", **STATE_CELL, mappings=[states(YELLOW, GREY)]),
    column(
        "Since",
        unit="dateTimeAsIso",
        custom__align="left",
        custom__width=160,
        mappings=[EARLIER],
    ),
    column("sid", custom__hideFrom={"viz": True, "legend": False, "tooltip": False}),
)
HIDDEN: Final = ("number_type", "vanity", "voice_flow_id", "sms_flow_id")
COLUMNS: Final = (
    "phone_number",
    "friendly_name",
    "account",
    "circle",
    "Voice",
    "SMS",
    "Not listed",
    "Since",
)


UNATTACHED_TABLE: Final = table(
    "Unattached numbers",
    "Numbers without a flow, those without a voice flow first. Since: when the flow was last"
    " attached, to within 1/300 of the time range; Earlier is before the time range. A dash means"
    " not capable, or unknown. Click on a number for its history.",
    as_column("Voice", state_of("voice")),
    as_column("SMS", state_of("sms")),
    as_column("Since", unattached_since()),
    as_column(LISTED, names()),
    as_column("Not listed", not_listed()),
    as_column(LISTED, without_data()),
    unit="none",
    no_value="All numbers of accounts with fresh data have their flows",
    transformations=columns_by(COLUMN, "job", "country", "region", LISTED, *HIDDEN, first=COLUMNS),
    overrides=TABLE_COLUMNS,
    points_max=POINTS_MAX,
    width=24,
    height=12,
)

# ---- In the range


def restless_flows() -> str:
    """Flows that changed in the range, or were missing from a number as it came.

    All is said of the end of the range, so that Prometheus finds it once and not at each point.
    """
    changes = once(f"changes({ATTACHED}[$__range] {END})")
    came = once(f"count_over_time(({came_without()}){EACH_STEP} {END})")
    return f"(topk({ROWS_MAX}, {changes} > 0) or topk({ROWS_MAX}, {came}))"


def last_names() -> str:
    """The names of numbers as the range ends; of one that is gone, names that it had.

    Names of the time would break a number's bar where it was renamed.
    """
    known = f"{INFO} {END} * 2 or last_over_time({INFO}[$__range] {END})"
    of_restless = f"({known}) and {SAME_NUMBER} {restless_flows()}"
    return f"(topk by (job, account, sid) (1, {of_restless}) > bool 0)"


TIMELINE: Final = state_timeline(
    "Attachment of the numbers that changed",
    "Voice and SMS flows that were attached or detached within the time range, and numbers that"
    f" were added without one; the {ROWS_MAX} that changed most often of each.",
    over_time(
        f"{once(f'{ATTACHED} and {SAME_FLOW} {restless_flows()}')}"
        f" * {SAME_NUMBER} group_left ({', '.join(NAMES)}) {last_names()}",
        "{{friendly_name}} {{phone_number}} {{flow}}",
    ),
    unit="none",
    mappings=(VOICE_STATES,),
    overrides=(Override("byRegexp", "/ sms$/", {"mappings": [SMS_STATES]}),),
    no_value="No attachment changed within the time range, or per-number series are off",
    points_max=POINTS_MAX,
    width=24,
    height=11,
)
HISTORY: Final = state_timeline(
    "History of one number",
    "Voice and SMS flows of the number on which you clicked in a table.",
    over_time(
        once(of_account("exophone_number_flow_attached", 'sid="$number"')),
        "{{flow}}",
    ),
    unit="none",
    mappings=(VOICE_STATES,),
    overrides=(Override("byRegexp", "/sms$/", {"mappings": [SMS_STATES]}),),
    no_value="Click on a number in a table to see its history",
    panel_id=HISTORY_ID,
    width=24,
    height=6,
)


def changed(by: str) -> str:
    """Changes of numbers between two points of a graph, exactly.

    `increase` extrapolates to the ends of its window, and would show 256 for 240 numbers that
    lost their flows together. Replicas see a change in different polls, so the counters are made
    one before they are compared: that of the replica which has seen most. It falls where that
    one restarts, and a scrape that is missed must not look like it.
    """
    counter = f"last_over_time({of_account('exophone_number_changes_total')}[10m])"
    before = (
        f"last_over_time({of_account('exophone_number_changes_total')}[10m] offset $__interval)"
    )
    return f"sum by ({by}) (({once(counter)} - {once(before)}) > 0)"


# Colours of losses, gains, and the rest: red only for what callers notice.
CHANGE_COLORS: Final = {
    "removed": RED,
    "voice_detached": "semi-dark-red",
    "sms_detached": YELLOW,
    "added": GREEN,
    "voice_attached": "semi-dark-green",
    "sms_attached": "light-green",
    "voice_moved": BLUE,
    "sms_moved": "light-blue",
    "rental_changed": PURPLE,
    "other": GREY,
}


def change_named(change: str) -> str:
    """A change as a title: Voice detached."""
    return change.replace("_", " ").capitalize().replace("Sms", "SMS")


CHANGES: Final = time_series(
    "Changes",
    "Changes between two polls: numbers added or removed, flows attached, detached or moved,"
    " rentals. For whole accounts, regardless of circle and type.",
    over_time(changed("change"), "{{change}}", interval="1m"),
    unit="none",
    decimals=0,
    stacked=True,
    bars=True,
    no_value="No number changed within the time range",
    overrides=tuple(
        column(change, displayName=change_named(change), **fixed(color))
        for change, color in CHANGE_COLORS.items()
    ),
    width=12,
    height=9,
)
TREND: Final = time_series(
    "Unattached over time",
    "Numbers without a voice flow, without an SMS flow, and with neither.",
    over_time(total(UNATTACHED_VOICE), "Voice"),
    over_time(total(UNATTACHED_SMS), "SMS"),
    over_time(total(IDLE), "Idle"),
    unit="none",
    decimals=0,
    no_value=NO_HISTORY,
    overrides=(
        column("Voice", **fixed(RED)),
        column("SMS", **fixed(YELLOW)),
        column("Idle", **fixed(ORANGE)),
    ),
    width=12,
    height=9,
)

# ---- Where

COUNT_CELL: Final[Json] = {
    "custom__cellOptions": {"type": "color-text"},
    "custom__width": 110,
    "decimals": 0,
}


def by_group(name: str, selected: str) -> Query:
    """A column with the sum of each circle and type."""
    summed = total(selected, "country", "region", "number_type")
    return as_column(name, with_circle(summed))


BY_CIRCLE: Final = table(
    "By circle and type",
    "Numbers of each circle and type, and how many of them have no flow.",
    by_group("Numbers", NUMBERS_METRIC),
    by_group("No voice", UNATTACHED_VOICE),
    by_group("No SMS", UNATTACHED_SMS),
    by_group("Idle", IDLE),
    unit="none",
    no_value=NOT_FRESH,
    sort_by="No voice",
    transformations=columns_by(
        COLUMN,
        "country",
        "region",
        first=("circle", "number_type", "Numbers", "No voice", "No SMS", "Idle"),
    ),
    overrides=(
        column("circle", displayName="Circle", unit="string", mappings=circle_mappings()),
        column("number_type", displayName="Type", unit="string", noValue="Unknown"),
        column("Numbers", decimals=0, custom__width=100),
        column("No voice", **COUNT_CELL, thresholds=thresholds(ACT)),
        column("No SMS", **COUNT_CELL, thresholds=thresholds(NOTE)),
        column("Idle", **(COUNT_CELL | {"custom__width": 80}), thresholds=thresholds(LOOK)),
    ),
    width=14,
    height=12,
)
PER_FLOW: Final = table(
    "Numbers per flow",
    "How many numbers use each flow; external is any URL that is not an Exotel flow."
    " For whole accounts, regardless of circle and type.",
    rows(f"sort_desc({total(of_account('exophone_flow_numbers'), 'account', 'flow', 'flow_id')})"),
    unit="none",
    no_value="No number has a flow, or there is no fresh data",
    sort_by="Numbers",
    transformations=(
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {
                    name: index
                    for index, name in enumerate(("account", "flow", "flow_id", "Value"))
                },
                "renameByName": {},
            },
        },
    ),
    overrides=(
        column("account", displayName="Account", unit="string"),
        column(
            "flow",
            displayName="Channel",
            unit="string",
            mappings=[
                value_mapping(
                    {"voice": {"text": "Voice", "index": 0}, "sms": {"text": "SMS", "index": 1}}
                )
            ],
        ),
        column("flow_id", displayName="Flow", unit="string"),
        column("Value", displayName="Numbers", decimals=0, custom__width=110),
    ),
    width=10,
    height=12,
)

# ---- The dashboard

# Alerts on the exporter itself have no account, and some no job.
ALERTS: Final = (
    'ALERTS{alertname=~"ExoPhone.*", alertstate="firing",'
    ' job=~"|$job", instance=~"|$instance", account=~"|$account"}'
)
ANNOTATIONS: Final = (
    Annotation(
        "Firing alerts",
        f"max by (alertname, severity, account) ({ALERTS})",
        "{{alertname}}",
        "{{account}} ({{severity}})",
        color=RED,
    ),
    Annotation(
        "Changes",
        "sum by (account, change) ("
        + once(f"increase({of_account('exophone_number_changes_total')}[$__rate_interval])")
        + ") > 0",
        "{{change}}",
        "{{account}}",
        enabled=False,
    ),
)

DASHBOARD: Final = Dashboard(
    uid="exophone-numbers",
    title="ExoPhones / Numbers",
    description="Which numbers are unattached, and since when.",
    variables=(JOB, INSTANCE, ACCOUNT, REGION, NUMBER_TYPE, EXPORTER, NUMBER),
    rows=(
        row("Now", FRESHNESS, *TOTALS),
        row("Unattached", UNATTACHED_TABLE),
        row("Within the time range", TIMELINE, HISTORY, TREND, CHANGES),
        row("Where", BY_CIRCLE, PER_FLOW),
    ),
    annotations=ANNOTATIONS,
)
