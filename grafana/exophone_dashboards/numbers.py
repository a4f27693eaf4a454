"""ExoPhones / Numbers: which numbers do not do what they should, since when? For operations."""

from __future__ import annotations

from typing import Any, Final

from exophone_dashboards.circles import circle_mappings, of_group, with_circle
from exophone_dashboards.layout import (
    ACCOUNT,
    EXPORTER,
    INSTANCE,
    JOB,
    MARK_STEP,
    NUMBER,
    NUMBER_TYPE,
    OWNER,
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
    below_one_another,
    column,
    columns_by,
    empty_cell,
    fixed,
    name_column,
    now,
    organized,
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
from exophone_dashboards.queries import COLUMN, GROUP, as_column, of_account, once, selector, total
from exophone_dashboards.queries import OWNER as OF_OWNER
from exophone_exporter.metrics.catalog import NUMBER_INFO

NUMBERS_METRIC: Final = of_account("exophone_numbers", *GROUP)
UNATTACHED: Final = of_account("exophone_numbers_unattached", *GROUP)
UNEXPECTED: Final = of_account("exophone_numbers_unexpected", *GROUP)
UNEXPECTED_VOICE: Final = of_account("exophone_numbers_unexpected", *GROUP, 'flow="voice"')
UNEXPECTED_SMS: Final = of_account("exophone_numbers_unexpected", *GROUP, 'flow="sms"')
IDLE: Final = of_account("exophone_numbers_idle", *GROUP)
INFO: Final = of_account("exophone_number_info", *GROUP, OF_OWNER)
INFO_OF_ALL_OWNERS: Final = of_account("exophone_number_info", *GROUP)
ATTACHED: Final = of_account("exophone_number_flow_attached")
AS_EXPECTED: Final = of_account("exophone_number_flow_as_expected")
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


def counts(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """Smaller figures, each with its name."""
    shown: Json = {"unit": "none", "decimals": 0, "no_value": NOT_FRESH, "height": 3} | more
    return stat(title, description, *queries, text="value_and_name", size=SMALL, **shown)


PROBLEM_STEPS: Final = {"missing": ACT, "wrong": LOOK, "unwanted": NOTE}
TOTALS: Final = (
    count(
        "Voice problems",
        "Numbers without the voice flow that they should have, with another one, or with one that"
        " they should not have. Without a rule, a number that can take calls should have a flow.",
        UNEXPECTED_VOICE,
        ACT,
    ),
    count(
        "SMS problems",
        "Numbers without the SMS flow that they should have, with another one, or with one that"
        " they should not have.",
        UNEXPECTED_SMS,
        NOTE,
    ),
    below_one_another(
        counts(
            "Problems by kind",
            "Missing: no flow where one should be. Wrong: another flow than expected. Unwanted: a"
            " flow where none should be. A number can have a problem on each channel.",
            now(total(UNEXPECTED, "problem"), "{{problem}}"),
            overrides=tuple(
                column(problem, displayName=problem.capitalize(), thresholds=thresholds(steps))
                for problem, steps in PROBLEM_STEPS.items()
            ),
            width=6,
            height=5,
        )
    ),
    count(
        "Idle",
        "Numbers with neither a voice nor an SMS flow, though one is expected. Their rental is"
        " wasted.",
        IDLE,
        LOOK,
    ),
)
BARE_FACTS: Final = (
    counts(
        "Numbers",
        "ExoPhones of the accounts whose data is fresh.",
        now(counted(NUMBERS_METRIC), "ExoPhones"),
        width=6,
    ),
    counts(
        "Without a flow",
        "Numbers without a flow on a channel that they support, whatever the rules expect.",
        now(total(UNATTACHED, "flow"), "{{flow}}"),
        overrides=(column("voice", displayName="Voice"), column("sms", displayName="SMS")),
        width=9,
    ),
    counts(
        "Rules that match nothing",
        "Rules of the section numbers that no number matches any more: the number is gone, or"
        " was renamed.",
        now(f"topk({SHOWN}, {once(selector('exophone_number_rule_matches'))} == 0)", "{{rule}}"),
        steps=plain(GREEN),
        overrides=(Override("byRegexp", "/.*/", fixed(ORANGE)),),
        no_value="No such rule",
        width=9,
    ),
)

# ---- The table

SAME_NUMBER: Final = "on (job, account, sid)"
SAME_FLOW: Final = "on (job, account, sid, flow)"
SAME_ACCOUNT: Final = "on (job, account)"
# What is expected is a label, which changes where a rule does.
JUDGED: Final = f"max without (instance, pod, expected) ({AS_EXPECTED})"
PROBLEM: Final = f"{JUDGED} == 0"
# Each point of the range; few enough of them for ten thousand numbers, see POINTS_MAX.
END: Final = "@ end()"
EACH_STEP: Final = "[$__range:$__interval]"
# A column that is not shown: a number may have no other.
LISTED: Final = "Listed"
INFO_LABELS: Final = tuple(label for label in NUMBER_INFO.labels if label not in ("account", "sid"))


def attachment(unattached: str) -> Json:
    """The mapping of a flow's attachment to words and colours."""
    return value_mapping(
        {
            "0": {"text": "Unattached", "color": unattached, "index": 0},
            "1": {"text": "Attached", "color": GREEN, "index": 1},
        }
    )


def states(problem: str, good: str) -> Json:
    """The mapping of `state` to words and colours."""
    fine, unchecked = ("As expected", good), ("Unchecked", GREY)
    texts = (
        *(("Missing", problem), ("Wrong flow", ORANGE), fine, fine, unchecked, unchecked),
        *(("Unwanted", YELLOW), fine),
    )
    return value_mapping(
        {
            str(value): {"text": text, "color": color, "index": value}
            for value, (text, color) in enumerate(texts)
        }
    )


EXPECTED: Final = value_mapping(
    {"any": {"text": "A flow", "index": 0}, "none": {"text": "No flow", "index": 1}}
)


def of_problems(expression: str) -> str:
    """Series of those numbers only that have a problem, of the chosen circles, types and owners."""
    return f"{expression} and {SAME_NUMBER} ({PROBLEM}) and {SAME_NUMBER} {INFO}"


def names() -> str:
    """The names of each number that has a problem: one series a number.

    Replicas may for one poll know different names; a second row would be one number too many.
    """
    one = f"topk without ({', '.join(INFO_LABELS)}) (1, {once(INFO)})"
    return with_circle(f"{one} and {SAME_NUMBER} ({PROBLEM})")


def state(*matchers: str) -> str:
    """The state of flows.

    0 is missing, 1 another flow than expected; 2, 3 and 7 are as expected, 4 and 5 unchecked; 6 is
    a flow where none is expected.
    """

    def judged(which: str) -> str:
        metric = of_account("exophone_number_flow_as_expected", *matchers, f'expected{which}"none"')
        return f"2 * max without (instance, pod, expected) ({metric})"

    attached = once(of_account("exophone_number_flow_attached", *matchers))
    no_flow_wanted = f"{attached} + 5 + {judged('=')}"
    return f"({attached} + {judged('!=')} or {no_flow_wanted} or {attached} + 4)"


def state_of(flow: str) -> str:
    """The state of a flow, for each number that has a problem; missing ones first."""
    of_flow = state(f'flow="{flow}"')
    return f"sort({of_problems(f'max without (flow) ({of_flow})')})"


def expected() -> str:
    """What is expected of each number with a problem; of voice, if both channels have one."""
    voice, sms = (
        once(of_account("exophone_number_flow_as_expected", f'flow="{flow}"')) + " == 0"
        for flow in ("voice", "sms")
    )
    voice_first = f"topk by (job, account, sid) (1, ({voice}) + 1 or {sms})"
    return f"max without (flow) ({of_problems(voice_first)}) * 0 + 1"


def came_without(metric: str) -> str:
    """Flows with a 0 for numbers whose series a step before did not exist.

    Such are numbers that came without a flow, and where only unattached numbers have series of
    their own (`per_number.series: unattached`) all that lose one. Not where the whole account was
    unknown a step before.
    """
    known_before = f"{metric} offset $__interval"
    fresh_before = f"{FRESH} offset $__interval"
    return f"{metric} == 0 unless {SAME_FLOW} {known_before} and {SAME_ACCOUNT} {fresh_before}"


def problem_since() -> str:
    """When a flow that is not as expected now was last seen as expected, in milliseconds.

    Without such a moment it is when the number came; 0 is earlier than the range. Of each point of
    the past only what is a problem now is looked at: ten thousand numbers take seconds.
    """
    of_flow = "max without (instance, pod, expected)"
    problem_now = f"{SAME_FLOW} ({of_flow} ({AS_EXPECTED} {END}) == 0)"
    was_good = f"{AS_EXPECTED} == 1 and {problem_now}"
    good = f"{of_flow} (max_over_time(timestamp({was_good}){EACH_STEP}))"
    came = f"{of_flow} (max_over_time(timestamp({came_without(AS_EXPECTED)}){EACH_STEP}))"
    since = f"({good} or {came}) and {SAME_FLOW} ({PROBLEM}) or {PROBLEM}"
    return of_problems(f"max without (flow) ({since}) * 1000")


def in_place_of_numbers(expression: str, text: str) -> str:
    """Series of accounts as rows among those of numbers; $1 in the text is the name so far."""
    row_id = f'label_replace({expression}, "sid", "all others", "", "")'
    return f'label_replace({row_id}, "friendly_name", "{text}", "friendly_name", "(.*)")'


def not_listed() -> str:
    """How many numbers with a problem of an account have no series of their own, at least.

    Compared within one exporter: its own figures agree.
    """
    of = "by (job, instance, account, flow)"
    known = f"sum {of} ({UNEXPECTED})"
    of_all = f"on (job, instance, account, sid) {INFO_OF_ALL_OWNERS}"
    listed = f"count {of} ({AS_EXPECTED} == 0 and {of_all})"
    missing = f"max by (job, account) ({known} - ({listed} or {known} * 0)) > 0"
    counted_as_name = f'count_values by (job, account) ("friendly_name", {missing})'
    return in_place_of_numbers(counted_as_name, "$1 more, not listed")


def without_data() -> str:
    """Accounts of which nothing can be said."""
    stale = f"max by (job, account) ({SUCCESS}) unless {SAME_ACCOUNT} {FRESH}"
    return in_place_of_numbers(stale, NOT_FRESH)


STATE_CELL: Final[Json] = {
    "custom__cellOptions": {"type": "color-text"},
    "custom__align": "left",
    "custom__filterable": True,
    "custom__width": 95,
}
EARLIER: Final = value_mapping({"0": {"text": "Earlier", "index": 0}})
TABLE_COLUMNS: Final = (
    empty_cell("-"),
    name_column(
        "phone_number",
        displayName="Number",
        custom__width=122,
        links=number_links("sid", "account"),
    ),
    name_column("friendly_name", displayName="Name", custom__minWidth=110),
    name_column(
        "account",
        displayName="Account",
        custom__width=105,
        links=account_links(),
    ),
    name_column(
        "circle",
        displayName="Circle",
        custom__width=125,
        mappings=circle_mappings(),
    ),
    column("Voice", **STATE_CELL, mappings=[states(RED, GREY)]),
    column("SMS", **STATE_CELL, mappings=[states(YELLOW, GREY)]),
    column(
        "expected",
        displayName="Expected",
        unit="string",
        custom__width=78,
        mappings=[EXPECTED],
    ),
    name_column("owner", displayName="Owner", custom__width=85),
    column(
        "Since",
        unit="dateTimeFromNow",
        custom__align="left",
        custom__width=110,
        mappings=[EARLIER],
    ),
    column("sid", custom__hideFrom__viz=True),
)
HIDDEN: Final = ("number_type", "vanity", "voice_flow_id", "sms_flow_id")
COLUMNS: Final = (
    "phone_number",
    "friendly_name",
    "account",
    "circle",
    "Voice",
    "SMS",
    "expected",
    "owner",
    "Since",
)


PROBLEM_TABLE: Final = table(
    "Numbers with a problem",
    "Numbers that do not do what is expected, those without a voice flow first. Since: when the"
    " flow was last as expected, to within 1/300 of the time range; Earlier is before the time"
    " range. A dash means not capable, or unknown. Not listed are numbers without series of their"
    " own, by per_number.series or per_number.limit. Click on a number for its history.",
    now(as_column("Voice", state_of("voice"))),
    now(as_column("SMS", state_of("sms"))),
    now(as_column(LISTED, expected())),
    now(as_column("Since", problem_since())),
    now(as_column(LISTED, names())),
    now(as_column(LISTED, not_listed())),
    now(as_column(LISTED, without_data())),
    unit="none",
    no_value="All numbers of accounts with fresh data are as expected",
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
    came = once(f"count_over_time(({came_without(ATTACHED)}){EACH_STEP} {END})")
    return f"(topk({ROWS_MAX}, {changes} > 0) or topk({ROWS_MAX}, {came}))"


def restless_numbers() -> str:
    """The same with the names of the numbers as the range ends; of one that is gone, what it had.

    Names of the time would break a number's bar where it was renamed.
    """
    known = f"{INFO} {END} * 2 or last_over_time({INFO}[$__range] {END})"
    one = f"(topk by (job, account, sid) (1, {known}) > bool 0)"
    names = f"{SAME_NUMBER} group_left ({', '.join(NAMES)})"
    return f"(({restless_flows()} >= bool 0) * {names} {one})"


def bar_where(nothing: str) -> str:
    """A bar for a text: of an empty timeline Grafana says that it has no time field."""
    bar = f'label_replace(vector({NO_BAR}), "flow", "none", "", "")'
    return f"({bar} and on () {nothing})"


def text_of_bar(text: str) -> Override:
    """What the bar of `bar_where` says."""
    mapping = value_mapping({str(NO_BAR): {"text": text, "color": GREY, "index": 0}})
    return Override("byRegexp", "/^ *none$/", {"displayName": "No number", "mappings": [mapping]})


NO_BAR: Final = 8
UNCHANGED: Final = "No flow changed, or per-number series are off"
TIMELINE: Final = state_timeline(
    "Attachment of the numbers that changed",
    "Voice and SMS flows that were attached or detached within the time range, and numbers that"
    f" were added without one; the {ROWS_MAX} that changed most often of each.",
    over_time(
        once(f"{ATTACHED} * {SAME_FLOW} group_left ({', '.join(NAMES)}) {restless_numbers()}")
        + f" or {bar_where(f'absent({restless_numbers()})')}",
        "{{friendly_name}} {{phone_number}} {{flow}}",
    ),
    unit="none",
    mappings=(attachment(RED),),
    overrides=(
        Override("byRegexp", "/ sms$/", {"mappings": [attachment(YELLOW)]}),
        text_of_bar(UNCHANGED),
    ),
    no_value=UNCHANGED,
    points_max=POINTS_MAX,
    width=24,
    height=11,
)


THE_NUMBER: Final = 'sid="$number"'
HISTORY_OF_THE_NUMBER: Final = (
    f"{of_account('exophone_number_flow_attached', THE_NUMBER)}[$__range]"
)
UNCLICKED: Final = "Click on a number in a table to see its history"
HISTORY: Final = state_timeline(
    "History of one number",
    "Whether the flows of the number on which you clicked in a table were as expected.",
    over_time(
        f"{state(THE_NUMBER)} or {bar_where(f'absent_over_time({HISTORY_OF_THE_NUMBER} {END})')}",
        "{{flow}}",
    ),
    unit="none",
    mappings=(states(RED, GREEN),),
    overrides=(
        column("voice", displayName="Voice"),
        column("sms", displayName="SMS", mappings=[states(YELLOW, GREEN)]),
        text_of_bar(UNCLICKED),
    ),
    no_value=UNCLICKED,
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
    "Problems over time",
    "Numbers with a problem of voice, with one of SMS, and idle ones.",
    over_time(total(UNEXPECTED_VOICE), "Voice"),
    over_time(total(UNEXPECTED_SMS), "SMS"),
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
    "custom__width": 80,
    "decimals": 0,
}


def by_group(name: str, selected: str) -> Query:
    """A column with the sum of each circle and type."""
    summed = total(selected, "country", "region", "number_type")
    return now(as_column(name, of_group(summed)))


BY_CIRCLE: Final = table(
    "Problems by circle and type",
    "Numbers of each circle and type, how many of them have a problem of voice or of SMS, and how"
    " many are idle.",
    by_group("Numbers", NUMBERS_METRIC),
    by_group("Voice", UNEXPECTED_VOICE),
    by_group("SMS", UNEXPECTED_SMS),
    by_group("Idle", IDLE),
    unit="none",
    no_value=NOT_FRESH,
    sort_by="Voice",
    transformations=columns_by(
        COLUMN,
        "country",
        "region",
        first=("circle", "number_type", "Numbers", "Voice", "SMS", "Idle"),
    ),
    overrides=(
        name_column(
            "circle",
            displayName="Circle",
            custom__minWidth=115,
            mappings=circle_mappings(),
        ),
        name_column(
            "number_type",
            displayName="Type",
            noValue="Unknown",
            custom__width=85,
        ),
        column("Numbers", decimals=0, custom__width=90),
        column("Voice", **COUNT_CELL, thresholds=thresholds(ACT)),
        column("SMS", **COUNT_CELL, thresholds=thresholds(NOTE)),
        column("Idle", **(COUNT_CELL | {"custom__width": 70}), thresholds=thresholds(LOOK)),
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
    transformations=(organized(first=("account", "flow", "flow_id", "Value")),),
    overrides=(
        name_column("account", displayName="Account", custom__minWidth=100),
        column(
            "flow",
            displayName="Channel",
            unit="string",
            custom__width=80,
            mappings=[
                value_mapping(
                    {"voice": {"text": "Voice", "index": 0}, "sms": {"text": "SMS", "index": 1}}
                )
            ],
        ),
        name_column("flow_id", displayName="Flow", custom__width=85),
        column("Value", displayName="Numbers", decimals=0, custom__width=105),
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
        # Where it began to fire: an alert of days would paint the graphs red.
        f"max by (alertname, severity, account) ({ALERTS} unless {ALERTS} offset {MARK_STEP})",
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
    description="Which numbers do not do what they should, and since when.",
    variables=(JOB, INSTANCE, ACCOUNT, REGION, OWNER, NUMBER_TYPE, EXPORTER, NUMBER),
    rows=(
        row("Now", FRESHNESS, *TOTALS, *BARE_FACTS),
        row("Problems", PROBLEM_TABLE),
        row("Within the time range", TIMELINE, HISTORY, TREND, CHANGES),
        row("Where", BY_CIRCLE, PER_FLOW),
    ),
    annotations=ANNOTATIONS,
)
