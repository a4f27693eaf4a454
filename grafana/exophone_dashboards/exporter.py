"""ExoPhones / Exporter: is the exporter healthy, is the data fresh? For the platform team.

Health is per replica, so this dashboard shows each replica; only accounts are counted once.
"""

from __future__ import annotations

from typing import Any, Final

from exophone_dashboards.layout import ACCOUNT, INSTANCE, JOB, Dashboard, row
from exophone_dashboards.links import account_links
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
    empty_cell,
    fixed,
    name_column,
    now,
    organized,
    over_time,
    plain,
    rows,
    stat,
    table,
    thresholds,
    time_series,
    value_mapping,
)
from exophone_dashboards.queries import of_account, of_exporters, selector, total

# Polls are minutes apart: shorter windows would show spikes instead of a trend. The rate is
# averaged, and not taken over 20 minutes, because such a rate is too low for the first 20 minutes.
AVERAGED: Final = "[20m:]"
PER_HOUR: Final = "suffix:/h"
OF_ACCOUNT: Final = "{{account}} {{instance}}"
NO_POLL: Final = "No poll yet"
NO_EXPORTER: Final = "No exporter is scraped"
NO_HISTORY: Final = "No history yet"
NOT_TOLD: Final = "Not available on this system"

UP: Final = value_mapping(
    {
        "0": {"text": "Down", "color": RED, "index": 0},
        "1": {"text": "Up", "color": GREEN, "index": 1},
    }
)
COMPLETE: Final = value_mapping(
    {
        "0": {"text": "Failed", "color": RED, "index": 0},
        "1": {"text": "Complete", "color": GREEN, "index": 1},
    }
)
LOADED: Final = value_mapping(
    {
        "0": {"text": "Rejected", "color": RED, "index": 0},
        "1": {"text": "Loaded", "color": GREEN, "index": 1},
    }
)
GOOD_IS_ONE: Final = (Step(RED), Step(GREEN, 1))
# Of stale_after: the default is three intervals, so two thirds are a missed poll, 1 is data gone.
SHARE_OF_LIMIT: Final = (Step(GREEN), Step(YELLOW, 0.67), Step(RED, 1))

SUCCESS: Final = of_account("exophone_poll_last_success_timestamp_seconds")
STALE_AFTER: Final = of_account("exophone_poll_stale_after_seconds")
INTERVAL: Final = of_account("exophone_poll_interval_seconds")
DURATION: Final = of_account("exophone_poll_duration_seconds")
AGE: Final = f"time() - ({SUCCESS} > 0)"


def per_second(metric: str) -> str:
    """How much counters grow in a second: the average of 20 minutes, or of what there is.

    Only of whole windows: the first rate of a counter, of half a window, is half of the truth.
    """
    counter = of_account(metric)
    whole = f"(rate({counter}[$__rate_interval]) and {counter} offset $__rate_interval)"
    return f"avg_over_time({whole}{AVERAGED})"


def per_hour(metric: str, *labels: str) -> str:
    """How much a counter grows in an hour, as it does now."""
    return f"sum by ({', '.join(labels)}) ({per_second(metric)}) * 3600"


def quantile(share: float) -> str:
    """Duration of requests that so many of them kept within; no requests give no duration."""
    buckets = per_second("exophone_api_request_duration_seconds_bucket")
    return f"histogram_quantile({share}, sum by (le, endpoint) ({buckets})) >= 0"


# No two alike; a code that is not here has a colour of Grafana's palette.
CODE_COLORS: Final = {
    "200": GREEN,
    "404": BLUE,
    "429": YELLOW,
    "401": RED,
    "402": "dark-red",
    "403": "light-red",
    "500": ORANGE,
    "502": PURPLE,
    "503": "dark-orange",
    "504": "light-purple",
    "none": GREY,
}


def colored(pattern: str, color: str) -> Override:
    """A colour for the series whose name matches."""
    return Override("byRegexp", f"/{pattern}/", fixed(color))


def hourly(title: str, description: str, query: Query, **more: Any) -> Panel:
    """How often something happens in an hour, stacked."""
    shown: Json = {"unit": PER_HOUR, "decimals": 1, "minimum": 0, "stacked": True} | more
    said = f"{description} Averaged over 20 minutes."
    return time_series(title, said, query, **shown, width=8)


def lines(*, soft_max: float) -> Json:
    """A graph that reaches at least so high: small shares look small."""
    return {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 0,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "none", "group": "A"},
        "axisSoftMin": 0,
        "axisSoftMax": soft_max,
    }


def limits() -> Json:
    """The thresholds as dashed lines in a graph of shares."""
    return lines(soft_max=1) | {"thresholdsStyle": {"mode": "dashed"}}


EXPORTERS: Final = stat(
    "Exporters",
    "Whether Prometheus can scrape each exporter.",
    now(of_exporters(selector("up")), "{{instance}}"),
    unit="none",
    steps=GOOD_IS_ONE,
    mappings=(UP,),
    no_value=NO_EXPORTER,
    color="background",
    text="value_and_name",
    size=SMALL,
    width=8,
)
FAILING: Final = stat(
    "Failing accounts",
    "Accounts whose last poll failed on any replica.",
    now(total(f"{of_account('exophone_up')} == bool 0"), "Failing"),
    unit="none",
    decimals=0,
    steps=(Step(GREEN), Step(RED, 1)),
    no_value=NO_POLL,
    width=8,
)
STALE: Final = stat(
    "Stale accounts",
    "Accounts for which a replica has no data, or only data older than stale_after.",
    now(total(f"time() - {SUCCESS} > bool {STALE_AFTER}"), "Stale"),
    unit="none",
    decimals=0,
    steps=(Step(GREEN), Step(RED, 1)),
    no_value=NO_EXPORTER,
    width=8,
)
OLDEST: Final = stat(
    "Oldest data",
    "Age of the oldest data of all accounts that have data.",
    now(f"max({AGE})", "Oldest"),
    unit="s",
    decimals=0,
    steps=plain(BLUE),
    no_value="No complete poll yet",
    width=8,
)
CONFIGURATION: Final = stat(
    "Configuration",
    "Whether the last reload of the configuration succeeded; if not, the previous one is used.",
    now(selector("exophone_exporter_config_last_reload_successful"), "{{instance}}"),
    unit="none",
    steps=GOOD_IS_ONE,
    mappings=(LOADED,),
    no_value=NO_EXPORTER,
    color="background",
    text="value_and_name",
    size=SMALL,
    width=8,
)
UPTIME: Final = stat(
    "Uptime",
    "Time since each exporter started.",
    now(of_exporters(f"time() - {selector('process_start_time_seconds')}"), "{{instance}}"),
    unit="dtdurations",
    steps=plain(BLUE),
    no_value=NOT_TOLD,
    text="value_and_name",
    size=SMALL,
    width=8,
)
_ACCOUNT_COLUMNS: Final = (
    ("Last poll", of_account("exophone_up")),
    ("Age", AGE),
    ("Of stale_after", f"({AGE}) / {STALE_AFTER}"),
    ("Interval", INTERVAL),
    ("Stale after", STALE_AFTER),
    ("Duration", DURATION),
)
_SECONDS: Final[Json] = {"unit": "s", "decimals": 0}
ACCOUNTS: Final = table(
    "Accounts",
    "The last poll of each account by each replica, and the age of its data compared with"
    " stale_after, after which its series are no longer exposed.",
    *(rows(f"max by (job, instance, account) ({expr})") for _, expr in _ACCOUNT_COLUMNS),
    transformations=(
        {"id": "merge", "options": {}},
        organized(
            "job",
            first=("account", "instance"),
            renamed={"account": "Account", "instance": "Instance"}
            | {
                f"Value #{chr(ord('A') + index)}": name
                for index, (name, _) in enumerate(_ACCOUNT_COLUMNS)
            },
        ),
    ),
    unit="none",
    no_value=NO_EXPORTER,
    sort_by="Last poll",
    down=False,
    overrides=(
        empty_cell("-"),
        name_column("Account", custom__minWidth=115, links=account_links()),
        name_column("Instance", custom__width=150),
        column(
            "Last poll",
            mappings=[COMPLETE],
            custom__width=110,
            custom__cellOptions={"type": "color-text"},
            noValue=NO_POLL,
        ),
        column("Age", noValue="Never complete", custom__width=90, **_SECONDS),
        column(
            "Of stale_after",
            unit="percentunit",
            decimals=0,
            min=0,
            max=1,
            thresholds=thresholds(SHARE_OF_LIMIT),
            custom__width=155,
            custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
        ),
        column("Interval", custom__width=90, **_SECONDS),
        column("Stale after", custom__width=105, **_SECONDS),
        column("Duration", unit="s", decimals=1, custom__width=95),
    ),
    height=8,
)
AGE_OVER_TIME: Final = time_series(
    "Age of data",
    "Time since the last complete poll; normally a little more than the poll interval.",
    over_time(AGE, OF_ACCOUNT),
    unit="s",
    no_value="No complete poll yet",
    legend="table",
)
AGE_OF_LIMIT: Final = time_series(
    "Age against stale_after",
    "Age of the data as a share of stale_after; above 100 % its series are not exposed.",
    over_time(f"({AGE}) / {STALE_AFTER}", OF_ACCOUNT),
    unit="percentunit",
    decimals=0,
    minimum=0,
    steps=SHARE_OF_LIMIT,
    custom=limits(),
    no_value="No complete poll yet",
    legend="table",
)
POLLS: Final = hourly(
    "Polls",
    "Polls per hour.",
    over_time(per_hour("exophone_polls_total", "account", "job", "instance"), OF_ACCOUNT),
    no_value=NO_HISTORY,
)
FAILURES: Final = hourly(
    "Failed polls by reason",
    "Failed polls per hour.",
    over_time(
        f"{per_hour('exophone_poll_failures_total', 'reason', 'account', 'job', 'instance')} > 0",
        "{{reason}} {{account}} {{instance}}",
    ),
    no_value="No failed polls in the range",
)
ANSWERS: Final = hourly(
    "API answers by code",
    "Requests per hour by HTTP status, of all exporters; none if there was no response. A 404"
    " confirms that a number was removed.",
    over_time(per_hour("exophone_api_requests_total", "code"), "{{code}}"),
    overrides=tuple(colored(f"^{code}$", color) for code, color in CODE_COLORS.items()),
    no_value=NO_HISTORY,
)
LATENCY: Final = time_series(
    "API latency",
    "Median (p50) and 95th percentile (p95) of the request duration, estimated from a histogram,"
    " of all exporters.",
    over_time(quantile(0.5), "p50 {{endpoint}}"),
    over_time(quantile(0.95), "p95 {{endpoint}}"),
    unit="s",
    minimum=0,
    no_value=NO_HISTORY,
    width=8,
)
WAITING: Final = time_series(
    "Waiting for the budget",
    "Share of the time spent waiting for the request budget or before a retry.",
    over_time(per_second("exophone_api_wait_seconds_total"), OF_ACCOUNT),
    unit="percentunit",
    minimum=0,
    custom=lines(soft_max=0.1),
    no_value=NO_HISTORY,
    width=8,
)
RETRIES: Final = hourly(
    "Retries",
    "Requests per hour that were retries after a failure.",
    over_time(
        f"{per_hour('exophone_api_retries_total', 'account', 'job', 'instance')} > 0",
        OF_ACCOUNT,
    ),
    no_value="No retries in the range",
)
POLL_DURATION: Final = time_series(
    "Poll duration",
    "Duration of the last complete poll, including time spent waiting for the request budget.",
    over_time(DURATION, OF_ACCOUNT),
    unit="s",
    no_value="No complete poll yet",
    width=8,
)
DURATION_OF_INTERVAL: Final = time_series(
    "Duration against the interval",
    "Duration of the last complete poll as a share of the interval; above 100 % polls are late.",
    over_time(f"{DURATION} / {INTERVAL}", OF_ACCOUNT),
    unit="percentunit",
    decimals=0,
    steps=(Step(GREEN), Step(YELLOW, 0.8), Step(RED, 1)),
    custom=limits(),
    no_value="No complete poll yet",
    width=8,
)
PAGES: Final = time_series(
    "Pages",
    "Pages read by the last complete poll; each costs at least one request of the budget.",
    over_time(of_account("exophone_poll_pages"), OF_ACCOUNT),
    unit="none",
    decimals=0,
    no_value="No complete poll yet",
    width=8,
)
REJECTED: Final = time_series(
    "Rejected records",
    "Records of the last complete poll that are not ExoPhones, or repeat one with other contents.",
    over_time(
        f"{of_account('exophone_poll_rejected_records')} > 0",
        "{{reason}} {{account}} {{instance}}",
    ),
    unit="none",
    decimals=0,
    no_value="No rejected records in the range",
    width=8,
)
UNREADABLE: Final = time_series(
    "Unreadable values",
    "Values of the last complete poll that cannot be read, by field.",
    over_time(
        f"{of_account('exophone_poll_unreadable_values')} > 0",
        "{{field}} {{account}} {{instance}}",
    ),
    unit="none",
    decimals=0,
    no_value="No unreadable values in the range",
    width=8,
)
DROPPED: Final = time_series(
    "Numbers without series",
    "Numbers without series of their own because of per_number.limit.",
    over_time(f"{of_account('exophone_number_series_dropped')} > 0", OF_ACCOUNT),
    unit="none",
    decimals=0,
    no_value="No numbers left out in the range",
    width=8,
)
SAMPLES: Final = time_series(
    "Samples in a scrape",
    "Samples in each scrape of the exporter.",
    over_time(of_exporters(selector("scrape_samples_scraped")), "{{instance}}"),
    unit="none",
    decimals=0,
    no_value=NO_HISTORY,
    width=8,
)
ADDED: Final = time_series(
    "New series in a scrape",
    "Series that are new in a scrape, for example because of new numbers or flows.",
    over_time(
        of_exporters(f"max_over_time({selector('scrape_series_added')}[$__rate_interval])"),
        "{{instance}}",
    ),
    unit="none",
    decimals=0,
    no_value=NO_HISTORY,
    width=8,
)
SCRAPE_DURATION: Final = time_series(
    "Scrape duration",
    "Duration of scrapes as measured by Prometheus, the longest in each step.",
    over_time(
        of_exporters(f"max_over_time({selector('scrape_duration_seconds')}[$__rate_interval])"),
        "{{instance}}",
    ),
    unit="s",
    no_value=NO_HISTORY,
    width=8,
)
MEMORY: Final = time_series(
    "Memory",
    "Resident memory of the process.",
    over_time(of_exporters(selector("process_resident_memory_bytes")), "{{instance}}"),
    unit="bytes",
    no_value=NOT_TOLD,
    width=8,
)
CPU: Final = time_series(
    "CPU",
    "Processor time used; 100 % is one core.",
    over_time(
        of_exporters(f"rate({selector('process_cpu_seconds_total')}[$__rate_interval])"),
        "{{instance}}",
    ),
    unit="percentunit",
    no_value=NOT_TOLD,
    width=8,
)
FILES: Final = time_series(
    "Open files",
    "Open file descriptors as a share of the process's limit.",
    over_time(
        of_exporters(f"{selector('process_open_fds')} / {selector('process_max_fds')}"),
        "{{instance}}",
    ),
    unit="percentunit",
    decimals=1,
    steps=(Step(GREEN), Step(YELLOW, 0.7), Step(RED, 0.9)),
    custom=limits(),
    no_value=NOT_TOLD,
    width=8,
)
BUILD_COLUMNS: Final = {
    "job": "Job",
    "instance": "Instance",
    "version": "Version",
    "revision": "Revision",
    "python_version": "Python",
    "Value #B": "Configuration loaded",
}
BUILD: Final = table(
    "Build",
    "Version of each exporter, and when it last loaded its configuration.",
    rows(
        f"max by (job, instance, version, revision, python_version)"
        f" ({selector('exophone_exporter_build_info')})"
    ),
    rows(
        "max by (job, instance)"
        f" ({selector('exophone_exporter_config_last_reload_success_timestamp_seconds')}) * 1000"
    ),
    transformations=(
        {"id": "merge", "options": {}},
        organized("Value #A", first=[*BUILD_COLUMNS], renamed=BUILD_COLUMNS),
    ),
    unit="string",
    no_value=NO_EXPORTER,
    overrides=(
        empty_cell("-"),
        column("Instance", custom__minWidth=150),
        column("Revision", custom__minWidth=90),
        column("Configuration loaded", unit="dateTimeFromNow", custom__width=170),
    ),
    width=24,
    height=5,
)

DASHBOARD: Final = Dashboard(
    uid="exophone-exporter",
    title="ExoPhones / Exporter",
    description="Whether the exporter is healthy and its data fresh, for each replica.",
    variables=(JOB, INSTANCE, ACCOUNT),
    rows=(
        row("Now", EXPORTERS, CONFIGURATION, UPTIME, FAILING, STALE, OLDEST, ACCOUNTS),
        row("Freshness", AGE_OVER_TIME, AGE_OF_LIMIT),
        row("Polls", POLLS, FAILURES, ANSWERS, POLL_DURATION, DURATION_OF_INTERVAL, PAGES),
        row("API", LATENCY, WAITING, RETRIES),
        row("Data", REJECTED, UNREADABLE, DROPPED),
        row("Scrapes and process", SAMPLES, ADDED, SCRAPE_DURATION, MEMORY, CPU, FILES, BUILD),
    ),
    time_from="now-6h",
)
