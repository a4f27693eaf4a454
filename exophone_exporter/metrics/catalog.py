"""Every metric: its name, type, labels and help. The contract, in code.

The renderer, the reference in the docs, the golden files, and the tests of rules and dashboards are
driven from this table. Help texts have no quotes and no backslashes, so both formats write them
alike.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from exophone_exporter.metrics.exposition import Metric, MetricType, Section

_ACCOUNT = ("account",)
_NUMBER = ("account", "sid")
_PRICE = (*_NUMBER, "currency")
_KIND = ("country", "region", "number_type")
_GROUP = ("account", *_KIND)
_POLL = "as of the account's last complete poll"
_PROBE = "as the API reports now"
_metrics: list[Metric] = []


def _metric(
    section: Section,
    name: str,
    labels: tuple[str, ...],
    text: str,
    metric_type: MetricType | None = None,
) -> Metric:
    """Add a metric to the table; without a type its name says whether it is a counter."""
    guessed: MetricType = "counter" if name.endswith("_total") else "gauge"
    metric = Metric(f"exophone_{name}", metric_type or guessed, labels, text, section)
    _metrics.append(metric)
    return metric


def live(metric: Metric) -> Metric:
    """The same metric on /probe, whose help must not mention a poll."""
    return replace(metric, help=metric.help.replace(_POLL, _PROBE))


_inventory = partial(_metric, "inventory")
NUMBERS: Final = _inventory("numbers", _GROUP, f"ExoPhones rented, {_POLL}.")
MONTHLY_RENTAL: Final = _inventory(
    "monthly_rental",
    (*_GROUP, "currency"),
    f"Sum of the monthly rentals in units of the currency, {_POLL}.",
)
NUMBERS_UNPRICED: Final = _inventory(
    "numbers_unpriced",
    _GROUP,
    f"ExoPhones whose monthly rental is not known, so that the sums lack it, {_POLL}.",
)
NUMBERS_UNATTACHED: Final = _inventory(
    "numbers_unattached",
    (*_GROUP, "flow"),
    f"ExoPhones that can receive on the channel (flow) and have no flow attached, {_POLL}.",
)
NUMBERS_UNEXPECTED: Final = _inventory(
    "numbers_unexpected",
    (*_GROUP, "flow", "problem"),
    "ExoPhones that lack the flow that they should have (missing), have another one (wrong) or have"
    f" one that they should not have (unwanted), {_POLL}.",
)
NUMBERS_IDLE: Final = _inventory(
    "numbers_idle",
    _GROUP,
    "ExoPhones with neither a voice nor an SMS flow, without those that a rule expects to have"
    f" none, {_POLL}.",
)
IDLE_MONTHLY_RENTAL: Final = _inventory(
    "idle_monthly_rental",
    (*_GROUP, "currency"),
    f"Monthly rental of the idle ExoPhones in units of the currency, {_POLL}.",
)
FLOW_NUMBERS: Final = _inventory(
    "flow_numbers",
    ("account", "flow", "flow_id"),
    f"ExoPhones attached to each flow; external is any URL that is not an Exotel flow, {_POLL}.",
)
NUMBER_RULE_MATCHES: Final = _inventory(
    "number_rule_matches",
    ("rule",),
    "ExoPhones that the rule of the section numbers applies to, as of the last complete polls;"
    " absent while data of an account that it can match is missing or stale.",
)

_number = partial(_metric, "number")
NUMBER_INFO: Final = _number(
    "number_info",
    (
        *_NUMBER,
        *("phone_number", "friendly_name", *_KIND, "vanity", "voice_flow_id", "sms_flow_id"),
        "owner",
    ),
    f"One ExoPhone and its names, always 1; join on account and sid; {_POLL}.",
)
NUMBER_FLOW_ATTACHED: Final = _number(
    "number_flow_attached",
    (*_NUMBER, "flow"),
    f"Whether the ExoPhone has a flow attached, for each channel that it supports, {_POLL}.",
)
NUMBER_FLOW_AS_EXPECTED: Final = _number(
    "number_flow_as_expected",
    (*_NUMBER, "flow", "expected"),
    "Whether the ExoPhone has the flow that it should have (expected: any, none or flow ids), for"
    f" each channel that it supports and a rule does not leave unchecked, {_POLL}.",
)
NUMBER_MONTHLY_RENTAL: Final = _number(
    "number_monthly_rental",
    _PRICE,
    f"Monthly rental of the ExoPhone in units of the currency, {_POLL}.",
)
NUMBER_ONE_TIME_PRICE: Final = _number(
    "number_one_time_price",
    _PRICE,
    f"Price paid once for the ExoPhone in units of the currency, {_POLL}.",
)
NUMBER_INCOMING_RATE: Final = _number(
    "number_incoming_rate",
    _PRICE,
    f"Price of one pulse of an incoming call in units of the currency, {_POLL}.",
)
NUMBER_INCOMING_PULSE_SECONDS: Final = _number(
    "number_incoming_pulse_seconds", _NUMBER, f"Duration of one pulse of an incoming call, {_POLL}."
)
NUMBER_CREATED: Final = _number(
    "number_created_timestamp_seconds",
    _NUMBER,
    f"When the ExoPhone was bought, in seconds since 1970, {_POLL}.",
)
NUMBER_UPDATED: Final = _number(
    "number_updated_timestamp_seconds",
    _NUMBER,
    f"When the ExoPhone was last updated, in seconds since 1970, {_POLL}.",
)
NUMBER_SERIES_DROPPED: Final = _number(
    "number_series_dropped",
    _ACCOUNT,
    f"ExoPhones without series of their own because of per_number.limit, {_POLL}.",
)

NUMBER_CHANGES: Final = _metric(
    "change",
    "number_changes_total",
    ("account", "change"),
    "Changes of ExoPhones between two complete polls.",
)

_account = partial(_metric, "account")
ACCOUNT_INFO: Final = _account(
    "account_info",
    ("account", "pricing_plan"),
    "One account with the labels that are configured for it, always 1; the pricing plan is empty"
    " while no balance is known; join on account.",
)
ACCOUNT_BALANCE: Final = _account(
    "account_balance",
    ("account", "currency"),
    "Balance of the account in units of the currency, as of the last request that gave one; absent"
    " after three intervals without, and where balance is not enabled.",
)
ACCOUNT_BALANCE_UP: Final = _account(
    "account_balance_up",
    _ACCOUNT,
    "Whether the last request for the balance gave an amount with a currency; absent before the"
    " first request, and where balance is not enabled.",
)
ACCOUNT_BALANCE_LAST_SUCCESS: Final = _account(
    "account_balance_last_success_timestamp_seconds",
    _ACCOUNT,
    "When a request last gave the balance, in seconds since 1970; 0 before the first, absent where"
    " balance is not enabled.",
)

_polling = partial(_metric, "polling")
UP: Final = _polling(
    "up", _ACCOUNT, "Whether the last poll of the account succeeded; absent before the first poll."
)
POLL_INTERVAL: Final = _polling(
    "poll_interval_seconds",
    _ACCOUNT,
    "Time from the start of one poll to the start of the next, as it is now.",
)
POLL_STALE_AFTER: Final = _polling(
    "poll_stale_after_seconds", _ACCOUNT, "Configured age after which data is no longer served."
)
POLL_LAST_ATTEMPT: Final = _polling(
    "poll_last_attempt_timestamp_seconds",
    _ACCOUNT,
    "Start of the last poll, successful or not, in seconds since 1970; 0 before the first.",
)
POLL_LAST_SUCCESS: Final = _polling(
    "poll_last_success_timestamp_seconds",
    _ACCOUNT,
    "Start of the last complete poll, in seconds since 1970; 0 before the first.",
)
POLL_DURATION: Final = _polling(
    "poll_duration_seconds",
    _ACCOUNT,
    "Duration of the last complete poll, including time spent waiting for the request budget.",
)
POLL_PAGES: Final = _polling("poll_pages", _ACCOUNT, "Pages read by the last complete poll.")
POLLS: Final = _polling("polls_total", _ACCOUNT, "Polls of the account, successful or not.")
POLL_FAILURES: Final = _polling(
    "poll_failures_total", ("account", "reason"), "Failed polls of the account, by reason."
)
POLL_FAILING: Final = _polling(
    "poll_failing",
    ("account", "reason"),
    "Why the last poll failed, always 1; absent after a complete poll.",
)
POLL_REJECTED_RECORDS: Final = _polling(
    "poll_rejected_records",
    ("account", "reason"),
    "Records of the last complete poll that are not ExoPhones, or repeat one with other contents.",
)
POLL_UNREADABLE_VALUES: Final = _polling(
    "poll_unreadable_values",
    ("account", "field"),
    "Values of the last complete poll that cannot be read, by field.",
)
POLL_UNCONFIRMED_NUMBERS: Final = _polling(
    "poll_unconfirmed_numbers",
    ("account",),
    "Numbers shown that the last complete poll lacked: the API did not confirm their removal.",
)
API_REQUESTS: Final = _polling(
    "api_requests_total",
    ("account", "endpoint", "code"),
    "Requests to the API, by HTTP status; none if there was no response.",
)
API_RATE_LIMIT: Final = _polling(
    "api_rate_limit_requests",
    ("account", "endpoint"),
    "Limit of requests that the last response of the API named; absent where it named none.",
)
API_RATE_LIMIT_REMAINING: Final = _polling(
    "api_rate_limit_remaining_requests",
    ("account", "endpoint"),
    "Requests left of that limit, by the last response of the API; absent where it named none.",
)
API_RETRIES: Final = _polling("api_retries_total", _ACCOUNT, "Retried requests to the API.")
API_WAIT_SECONDS: Final = _polling(
    "api_wait_seconds_total",
    _ACCOUNT,
    "Time spent waiting for the request budget or before a retry.",
)
API_REQUEST_DURATION: Final = _polling(
    "api_request_duration_seconds",
    ("account", "endpoint"),
    "Time from sending a request to the end of its response.",
    "histogram",
)

_exporter = partial(_metric, "exporter")
BUILD_INFO: Final = _exporter(
    "exporter_build_info",
    ("version", "revision", "python_version"),
    "Version of the exporter and of Python, always 1.",
)
CONFIG_RELOAD_SUCCESSFUL: Final = _exporter(
    "exporter_config_last_reload_successful",
    (),
    "Whether the last attempt to load the configuration succeeded.",
)
CONFIG_RELOAD_TIMESTAMP: Final = _exporter(
    "exporter_config_last_reload_success_timestamp_seconds",
    (),
    "When the configuration was last loaded successfully, in seconds since 1970.",
)
WEB_CONFIG_SUCCESSFUL: Final = _exporter(
    "exporter_web_config_last_reload_successful",
    (),
    "Whether the last attempt to load the web configuration and its certificates succeeded;"
    " absent without --web.config.file.",
)
LOG_LINES_DROPPED: Final = _exporter(
    "exporter_log_lines_dropped_total",
    (),
    "Log lines dropped because stderr was not read fast enough.",
)
CERTIFICATE_EXPIRY: Final = _exporter(
    "exporter_tls_certificate_expiry_timestamp_seconds",
    (),
    "When the certificate served over TLS expires, in seconds since 1970; absent without TLS.",
)
CLIENTS_REFUSED: Final = _exporter(
    "exporter_clients_refused_total", ("reason",), "Refused connections and requests, by reason."
)

_probe = partial(_metric, "probe")
PROBE_SUCCESS: Final = _probe(
    "probe_success", (), "Whether the API returned the probed ExoPhone in time; on /probe only."
)
PROBE_DURATION: Final = _probe(
    "probe_duration_seconds",
    (),
    "Duration of the request to the API, including waiting; on /probe only.",
)

# In the order of this file, which is that of the exposition and of the docs.
METRICS: Final[tuple[Metric, ...]] = (*_metrics,)
