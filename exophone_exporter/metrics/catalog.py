"""Every metric: its name, type, labels and help. The contract, in code.

The renderer, the reference in the docs, the golden files, and the tests of rules and dashboards are
driven from this table. Help texts have no quotes and no backslashes, so both formats write them
alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from exophone_exporter.metrics.exposition import Metric, MetricType, Section

_GROUP = ("account", "country", "region", "number_type")
_POLL = "as of the account's last complete poll"
_PROBE = "as the API reports now"


def _metric(
    section: Section, metric_type: MetricType, name: str, labels: tuple[str, ...], text: str
) -> Metric:
    return Metric(f"exophone_{name}", metric_type, labels, text, section)


def live(metric: Metric) -> Metric:
    """The same metric on /probe, whose help must not mention a poll."""
    return replace(metric, help=metric.help.replace(_POLL, _PROBE))


NUMBERS: Final = _metric("inventory", "gauge", "numbers", _GROUP, f"ExoPhones rented, {_POLL}.")
MONTHLY_RENTAL: Final = _metric(
    "inventory",
    "gauge",
    "monthly_rental",
    (*_GROUP, "currency"),
    f"Sum of the monthly rentals in units of the currency, {_POLL}.",
)
NUMBERS_UNATTACHED: Final = _metric(
    "inventory",
    "gauge",
    "numbers_unattached",
    (*_GROUP, "flow"),
    f"ExoPhones that can receive on the channel (flow) and have no flow attached, {_POLL}.",
)
NUMBERS_IDLE: Final = _metric(
    "inventory",
    "gauge",
    "numbers_idle",
    _GROUP,
    f"ExoPhones with neither a voice nor an SMS flow, {_POLL}.",
)
IDLE_MONTHLY_RENTAL: Final = _metric(
    "inventory",
    "gauge",
    "idle_monthly_rental",
    (*_GROUP, "currency"),
    f"Monthly rental of the idle ExoPhones in units of the currency, {_POLL}.",
)
FLOW_NUMBERS: Final = _metric(
    "inventory",
    "gauge",
    "flow_numbers",
    ("account", "flow", "flow_id"),
    f"ExoPhones attached to each flow; external is any URL that is not an Exotel flow, {_POLL}.",
)

NUMBER_INFO: Final = _metric(
    "number",
    "gauge",
    "number_info",
    (
        "account",
        "sid",
        "phone_number",
        "friendly_name",
        "country",
        "region",
        "number_type",
        "vanity",
        "voice_flow_id",
        "sms_flow_id",
    ),
    f"One ExoPhone and its names, always 1; join on account and sid; {_POLL}.",
)
NUMBER_FLOW_ATTACHED: Final = _metric(
    "number",
    "gauge",
    "number_flow_attached",
    ("account", "sid", "flow"),
    f"Whether the ExoPhone has a flow attached, for each channel that it supports, {_POLL}.",
)
NUMBER_MONTHLY_RENTAL: Final = _metric(
    "number",
    "gauge",
    "number_monthly_rental",
    ("account", "sid", "currency"),
    f"Monthly rental of the ExoPhone in units of the currency, {_POLL}.",
)
NUMBER_ONE_TIME_PRICE: Final = _metric(
    "number",
    "gauge",
    "number_one_time_price",
    ("account", "sid", "currency"),
    f"Price paid once for the ExoPhone in units of the currency, {_POLL}.",
)
NUMBER_INCOMING_RATE: Final = _metric(
    "number",
    "gauge",
    "number_incoming_rate",
    ("account", "sid", "currency"),
    f"Price of one pulse of an incoming call in units of the currency, {_POLL}.",
)
NUMBER_INCOMING_PULSE_SECONDS: Final = _metric(
    "number",
    "gauge",
    "number_incoming_pulse_seconds",
    ("account", "sid"),
    f"Duration of one pulse of an incoming call, {_POLL}.",
)
NUMBER_CREATED: Final = _metric(
    "number",
    "gauge",
    "number_created_timestamp_seconds",
    ("account", "sid"),
    f"When the ExoPhone was bought, in seconds since 1970, {_POLL}.",
)
NUMBER_UPDATED: Final = _metric(
    "number",
    "gauge",
    "number_updated_timestamp_seconds",
    ("account", "sid"),
    f"When the ExoPhone was last updated, in seconds since 1970, {_POLL}.",
)
NUMBER_SERIES_DROPPED: Final = _metric(
    "number",
    "gauge",
    "number_series_dropped",
    ("account",),
    f"ExoPhones without series of their own because of per_number.limit, {_POLL}.",
)

NUMBER_CHANGES: Final = _metric(
    "change",
    "counter",
    "number_changes_total",
    ("account", "change"),
    "Changes of ExoPhones between two complete polls.",
)

UP: Final = _metric(
    "polling",
    "gauge",
    "up",
    ("account",),
    "Whether the last poll of the account succeeded; absent before the first poll.",
)
POLL_INTERVAL: Final = _metric(
    "polling",
    "gauge",
    "poll_interval_seconds",
    ("account",),
    "Configured time from the start of one poll to the start of the next.",
)
POLL_STALE_AFTER: Final = _metric(
    "polling",
    "gauge",
    "poll_stale_after_seconds",
    ("account",),
    "Configured age after which data is no longer served.",
)
POLL_LAST_ATTEMPT: Final = _metric(
    "polling",
    "gauge",
    "poll_last_attempt_timestamp_seconds",
    ("account",),
    "End of the last poll, successful or not, in seconds since 1970; 0 before the first.",
)
POLL_LAST_SUCCESS: Final = _metric(
    "polling",
    "gauge",
    "poll_last_success_timestamp_seconds",
    ("account",),
    "End of the last complete poll, in seconds since 1970; 0 before the first.",
)
POLL_DURATION: Final = _metric(
    "polling",
    "gauge",
    "poll_duration_seconds",
    ("account",),
    "Duration of the last complete poll, including time spent waiting for the request budget.",
)
POLL_PAGES: Final = _metric(
    "polling", "gauge", "poll_pages", ("account",), "Pages read by the last complete poll."
)
POLLS: Final = _metric(
    "polling", "counter", "polls_total", ("account",), "Polls of the account, successful or not."
)
POLL_FAILURES: Final = _metric(
    "polling",
    "counter",
    "poll_failures_total",
    ("account", "reason"),
    "Failed polls of the account, by reason.",
)
POLL_REJECTED_RECORDS: Final = _metric(
    "polling",
    "gauge",
    "poll_rejected_records",
    ("account", "reason"),
    "Records of the last complete poll that are not ExoPhones, or repeat one with other contents.",
)
POLL_UNREADABLE_VALUES: Final = _metric(
    "polling",
    "gauge",
    "poll_unreadable_values",
    ("account", "field"),
    "Values of the last complete poll that cannot be read, by field.",
)
API_REQUESTS: Final = _metric(
    "polling",
    "counter",
    "api_requests_total",
    ("account", "endpoint", "code"),
    "Requests to the API, by HTTP status; none if there was no response.",
)
API_RETRIES: Final = _metric(
    "polling", "counter", "api_retries_total", ("account",), "Retried requests to the API."
)
API_WAIT_SECONDS: Final = _metric(
    "polling",
    "counter",
    "api_wait_seconds_total",
    ("account",),
    "Time spent waiting for the request budget or before a retry.",
)
API_REQUEST_DURATION: Final = _metric(
    "polling",
    "histogram",
    "api_request_duration_seconds",
    ("account", "endpoint"),
    "Time from sending a request to the end of its response.",
)

BUILD_INFO: Final = _metric(
    "exporter",
    "gauge",
    "exporter_build_info",
    ("version", "revision", "python_version"),
    "Version of the exporter and of Python, always 1.",
)
CONFIG_RELOAD_SUCCESSFUL: Final = _metric(
    "exporter",
    "gauge",
    "exporter_config_last_reload_successful",
    (),
    "Whether the last attempt to load the configuration succeeded.",
)
CONFIG_RELOAD_TIMESTAMP: Final = _metric(
    "exporter",
    "gauge",
    "exporter_config_last_reload_success_timestamp_seconds",
    (),
    "When the configuration was last loaded successfully, in seconds since 1970.",
)

PROBE_SUCCESS: Final = _metric(
    "probe",
    "gauge",
    "probe_success",
    (),
    "Whether the API returned the probed ExoPhone in time; on /probe only.",
)
PROBE_DURATION: Final = _metric(
    "probe",
    "gauge",
    "probe_duration_seconds",
    (),
    "Duration of the request to the API, including waiting; on /probe only.",
)

METRICS: Final[tuple[Metric, ...]] = (
    NUMBERS,
    MONTHLY_RENTAL,
    NUMBERS_UNATTACHED,
    NUMBERS_IDLE,
    IDLE_MONTHLY_RENTAL,
    FLOW_NUMBERS,
    NUMBER_INFO,
    NUMBER_FLOW_ATTACHED,
    NUMBER_MONTHLY_RENTAL,
    NUMBER_ONE_TIME_PRICE,
    NUMBER_INCOMING_RATE,
    NUMBER_INCOMING_PULSE_SECONDS,
    NUMBER_CREATED,
    NUMBER_UPDATED,
    NUMBER_SERIES_DROPPED,
    NUMBER_CHANGES,
    UP,
    POLL_INTERVAL,
    POLL_STALE_AFTER,
    POLL_LAST_ATTEMPT,
    POLL_LAST_SUCCESS,
    POLL_DURATION,
    POLL_PAGES,
    POLLS,
    POLL_FAILURES,
    POLL_REJECTED_RECORDS,
    POLL_UNREADABLE_VALUES,
    API_REQUESTS,
    API_RETRIES,
    API_WAIT_SECONDS,
    API_REQUEST_DURATION,
    BUILD_INFO,
    CONFIG_RELOAD_SUCCESSFUL,
    CONFIG_RELOAD_TIMESTAMP,
    PROBE_SUCCESS,
    PROBE_DURATION,
)
