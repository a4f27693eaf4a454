"""The page of /metrics against prometheus_client: read back, written again, unpacked.

What the samples must be is computed here from the statuses, one by one, without the renderer.
"""

from __future__ import annotations

import fnmatch
import gzip
import platform
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest as generate_text
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_of
from prometheus_client.parser import text_string_to_metric_families as text_of

from exophone_exporter import __version__
from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.config.number_rules import NumberRule
from exophone_exporter.config.settings import Account
from exophone_exporter.exotel import model
from exophone_exporter.exotel.model import CHANNELS, FIELDS, REJECTIONS, Channel, ExoPhone
from exophone_exporter.exotel.text import clean_text
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import Snapshot
from exophone_exporter.inventory.state import DURATION_BUCKETS_SECONDS, AccountStatus
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage

Series: TypeAlias = "tuple[str, frozenset[tuple[str, str]]]"
_Sample: TypeAlias = "tuple[str, float | Decimal | None, dict[str, str]]"
_VANITY: Final = {None: "", True: "true", False: "false"}


class Exposition:
    """The page over the statuses of some accounts, which may change between two checks."""

    def __init__(
        self, statuses: Callable[[], Sequence[AccountStatus]], build: ExporterInfo, clock: Clock
    ) -> None:
        self._statuses = statuses
        self._build = build
        self._clock = clock
        self._page = MetricsPage(statuses, lambda: build, clock, with_process=False)

    def check(self) -> None:
        self._page.refresh()
        _assert_exposed(self._page, _expected(self._statuses(), self._build, self._clock.now()))


def assert_exposed(statuses: Sequence[AccountStatus], build: ExporterInfo, clock: Clock) -> None:
    Exposition(lambda: statuses, build, clock).check()


def _assert_exposed(page: MetricsPage, samples: Iterable[_Sample]) -> None:
    expected = _series_of(samples)
    for openmetrics in (False, True):
        content = page.body(openmetrics=openmetrics, gzipped=False)
        families = _read(content, openmetrics=openmetrics)
        assert written(families, openmetrics=openmetrics) == content
        found = [(s.name, s.value, s.labels) for family in families for s in family.samples]
        assert _series_of(found) == expected
        assert_one_member(page.body(openmetrics=openmetrics, gzipped=True), content)


def assert_one_member(packed: bytes, content: bytes) -> None:
    strict = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    assert strict.decompress(packed) + strict.flush() == content
    assert (strict.eof, strict.unused_data) == (True, b"")
    assert gzip.decompress(packed) == content
    assert zlib.decompress(packed, wbits=zlib.MAX_WBITS | 32) == content


def _read(content: bytes, *, openmetrics: bool) -> list[Family]:
    parsed: Any = openmetrics_of if openmetrics else text_of
    return [*parsed(content.decode())]


def written(families: Iterable[Family], *, openmetrics: bool) -> bytes:
    class Collector:
        def collect(self) -> Iterable[Family]:
            return families

    registry = CollectorRegistry()
    registry.register(Collector())
    if openmetrics:
        return bytes(generate_openmetrics(registry))  # type: ignore[no-untyped-call]  # it has no types
    return generate_text(registry)


def _series_of(samples: Iterable[_Sample]) -> dict[Series, float]:
    """Samples by name and labels, of which no two may be the same."""
    series: dict[Series, float] = {}
    for name, value, labels in samples:
        if value is not None:
            key = (name, frozenset(labels.items()))
            assert key not in series, f"twice: {key}"
            series[key] = float(value)
    return series


def _expected(
    statuses: Iterable[AccountStatus], build: ExporterInfo, now: ClockReading
) -> Iterator[_Sample]:
    statuses = [*statuses]
    yield from _rule_matches(statuses, now)
    for status in statuses:
        name = status.account.name
        for metric, value, labels in [
            *_account(status, now),
            *_polling(status),
            *_inventory(status.fresh_snapshot(now), status.account),
        ]:
            yield f"exophone_{metric}", value, labels | {"account": name}
    reloaded = "exophone_exporter_config_last_reload_success"
    yield f"{reloaded}ful", build.config_reload_successful, {}
    if build.server.web_config_successful is not None:
        web_config = "exophone_exporter_web_config_last_reload_successful"
        yield web_config, build.server.web_config_successful, {}
    yield "exophone_exporter_log_lines_dropped_total", build.log_lines_dropped, {}
    if build.server.certificate_expires_at is not None:
        certificate = "exophone_exporter_tls_certificate_expiry_timestamp_seconds"
        yield certificate, build.server.certificate_expires_at, {}
    for reason, count in build.server.clients_refused.items():
        yield "exophone_exporter_clients_refused_total", count, {"reason": reason}
    yield f"{reloaded}_timestamp_seconds", build.config_loaded_at, {}
    own = {"version": __version__, "python_version": platform.python_version()}
    yield "exophone_exporter_build_info", 1, own | {"revision": clean_text(build.revision)}


def rule_for(number: ExoPhone, account: Account) -> NumberRule | None:
    """The first rule of the account that matches, tried one by one."""
    for rule in account.rules.rules:
        fields = {key: globs for key, globs in rule.match.items() if key != "account"}
        if all(
            any(_matches(glob, getattr(number, key)) for glob in globs)
            for key, globs in fields.items()
        ):
            return rule
    return None


def _matches(glob: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), glob.lower().replace("[", "[[]"))


def problem_of(number: ExoPhone, account: Account, channel: Channel) -> str | None:
    """`missing`, `wrong`, `unwanted`, "" where all is well, or None where nobody can say."""
    rule = rule_for(number, account)
    expected = getattr(rule, channel) if rule else ("any",)
    url = number.flow_url(channel)
    if not number.capable(channel) or expected == ("unchecked",) or url is None:
        return None
    if expected == ("none",):
        return "unwanted" if url else ""
    if not url:
        return "missing"
    return "" if expected == ("any",) or {url, number.flow_id(channel)} & {*expected} else "wrong"


def expected_text(expected: Iterable[str]) -> str:
    shown = [model.flow_id(each) if "://" in each else each for each in expected]
    return " or ".join(sorted({*shown}, key=shown.index))


def _rule_matches(statuses: Sequence[AccountStatus], now: ClockReading) -> Iterator[_Sample]:
    for label in {rule.label for status in statuses for rule in status.account.rules.rules} - {""}:
        having = [s for s in statuses if label in {rule.label for rule in s.account.rules.rules}]
        snapshots = [status.fresh_snapshot(now) for status in having]
        if all(snapshots):
            applied = [
                rule_for(number, status.account)
                for status, snapshot in zip(having, snapshots, strict=True)
                for number in (snapshot.numbers if snapshot else ())
            ]
            count = sum(rule is not None and rule.label == label for rule in applied)
            yield "exophone_number_rule_matches", count, {"rule": label}


def _account(status: AccountStatus, now: ClockReading) -> Iterator[_Sample]:
    interval, known = status.account.balance_interval_seconds, status.known_balance
    balance = None
    if interval and known and now.monotonic - known.ended.monotonic <= 3 * interval:
        balance = known.balance
    plan = balance.pricing_plan if balance else ""
    yield "account_info", 1, {**dict(status.account.labels), "pricing_plan": plan}
    if interval:
        if balance:
            yield "account_balance", balance.amount, {"currency": balance.currency}
        if status.last_balance:
            yield "account_balance_up", status.last_balance.balance is not None, {}
        success = "account_balance_last_success_timestamp_seconds"
        yield success, known.ended.wall if known else 0, {}


def _polling(status: AccountStatus) -> Iterator[_Sample]:
    if status.last_attempt is not None:
        yield "up", status.error is None, {}
    if status.error is not None:
        yield "poll_failing", 1, {"reason": status.error.reason}
    yield "poll_interval_seconds", status.interval_seconds, {}
    yield "poll_stale_after_seconds", status.account.poll.stale_after_seconds, {}
    attempt = status.last_attempt.wall if status.last_attempt else 0
    success = status.snapshot.started.wall if status.snapshot else 0
    yield "poll_last_attempt_timestamp_seconds", attempt, {}
    yield "poll_last_success_timestamp_seconds", success, {}
    if status.snapshot is not None:
        yield from _last_success(status.snapshot)
        yield "poll_unconfirmed_numbers", len(status.missed), {}
    yield "polls_total", status.polls, {}
    yield "api_retries_total", status.retries, {}
    yield "api_wait_seconds_total", status.wait_seconds, {}
    for reason, count in status.failures.items():
        yield "poll_failures_total", count, {"reason": reason}
    for change, count in status.changes.items():
        yield "number_changes_total", count, {"change": change}
    for (endpoint, code), count in status.requests.items():
        yield "api_requests_total", count, {"endpoint": endpoint, "code": code}
    for endpoint, (limit, remaining) in status.rate_limits.items():
        yield "api_rate_limit_requests", limit, {"endpoint": endpoint}
        yield "api_rate_limit_remaining_requests", remaining, {"endpoint": endpoint}
    yield from _durations(status)


def _last_success(snapshot: Snapshot) -> Iterator[_Sample]:
    yield "poll_duration_seconds", snapshot.duration_seconds, {}
    yield "poll_pages", snapshot.listing.pages, {}
    for reason in REJECTIONS:
        yield "poll_rejected_records", snapshot.listing.rejected.get(reason, 0), {"reason": reason}
    unreadable = Counter(field for number in snapshot.numbers for field in number.unreadable)
    for field in FIELDS:
        yield "poll_unreadable_values", unreadable[field], {"field": field}


def _durations(status: AccountStatus) -> Iterator[_Sample]:
    bounds = [*(str(float(bound)) for bound in DURATION_BUCKETS_SECONDS), "+Inf"]
    for endpoint, durations in status.durations.items():
        labels: dict[str, str] = {"endpoint": endpoint}
        counts = [*accumulate(durations.counts)]
        for bound, count in zip(bounds, counts, strict=True):
            yield "api_request_duration_seconds_bucket", count, labels | {"le": bound}
        yield "api_request_duration_seconds_count", counts[-1], labels
        yield "api_request_duration_seconds_sum", durations.sum_seconds, labels


def _inventory(snapshot: Snapshot | None, account: Account) -> Iterator[_Sample]:
    if snapshot is None:
        return
    for group in snapshot.groups:
        labels = {"country": group.country, "region": group.region}
        labels |= {"number_type": group.number_type}
        yield "numbers", group.numbers, labels
        yield "numbers_unpriced", group.unpriced, labels
        yield "numbers_idle", group.idle, labels
        for channel in CHANNELS:
            yield "numbers_unattached", group.unattached[channel], labels | {"flow": channel}
            for problem in ("missing", "wrong", "unwanted"):
                count = group.unexpected[channel, problem]
                yield "numbers_unexpected", count, labels | {"flow": channel, "problem": problem}
        for currency, amount in group.rental.items():
            yield "monthly_rental", amount, labels | {"currency": currency}
        for currency, amount in group.idle_rental.items():
            yield "idle_monthly_rental", amount, labels | {"currency": currency}
    for (channel, flow_id), count in snapshot.flow_numbers.items():
        yield "flow_numbers", count, {"flow": channel, "flow_id": flow_id}
    chosen, dropped = _with_series(snapshot.numbers, account)
    yield "number_series_dropped", dropped, {}
    for number in chosen:
        yield from _number(number, account)


def _with_series(numbers: Sequence[ExoPhone], account: Account) -> tuple[list[ExoPhone], int]:
    """By the words of the manual: problems, then unattached ones, each by sid, up to the limit."""
    ranked = sorted(numbers, key=lambda number: number.sid)
    bad = [n for n in ranked if any(problem_of(n, account, channel) for channel in CHANNELS)]
    lacking = [*bad, *(n for n in ranked if n.needs_attention and n not in bad)]
    others = [number for number in ranked if number not in lacking]
    per_number = account.per_number
    wanted = {"all": [*lacking, *others], "unattached": lacking, "none": []}[per_number.series]
    return wanted[: per_number.limit], max(0, len(wanted) - per_number.limit)


def _number(number: ExoPhone, account: Account) -> Iterator[_Sample]:
    names = masked_identity(number, account.per_number.phone_number, account.pseudonym_key)
    own = {"sid": names.sid}
    described = {
        "phone_number": names.phone_number,
        "friendly_name": names.friendly_name,
        "country": number.country,
        "region": number.region,
        "number_type": number.number_type,
        "vanity": _VANITY[number.vanity_number],
        "voice_flow_id": number.flow_id("voice"),
        "sms_flow_id": number.flow_id("sms"),
        "owner": rule.owner if (rule := rule_for(number, account)) else "",
    }
    yield "number_info", 1, own | described
    for channel in CHANNELS:
        if number.capable(channel):
            yield "number_flow_attached", number.attached(channel), own | {"flow": channel}
        if (problem := problem_of(number, account, channel)) is not None:
            expected = getattr(rule_for(number, account), channel, ("any",))
            of_flow = {"flow": channel, "expected": expected_text(expected)}
            yield "number_flow_as_expected", not problem, own | of_flow
    if number.currency:
        priced = own | {"currency": number.currency}
        yield "number_monthly_rental", number.rental_price, priced
        yield "number_one_time_price", number.one_time_price, priced
        yield "number_incoming_rate", number.incoming_rate, priced
    yield "number_incoming_pulse_seconds", number.incoming_pulse_seconds, own
    yield "number_created_timestamp_seconds", number.created_timestamp_seconds, own
    yield "number_updated_timestamp_seconds", number.updated_timestamp_seconds, own
