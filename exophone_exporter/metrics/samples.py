"""Which lines an account has: snapshot and counters in, text by metric out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from heapq import nsmallest
from itertools import accumulate, repeat
from typing import Any, Final, TypeAlias, TypeVar

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import Account, PerNumber
from exophone_exporter.exotel.model import (
    CHANNELS,
    FIELDS,
    REJECTIONS,
    Endpoint,
    ExoPhone,
    flow_id,
    is_attached,
)
from exophone_exporter.inventory.expectations import (
    PROBLEMS,
    ChannelState,
    Judged,
    Verdict,
    expectation,
    expected_label,
    judge,
)
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import Group, Snapshot, rule_matches
from exophone_exporter.inventory.state import DURATION_BUCKETS_SECONDS, AccountStatus, Durations
from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.exposition import (
    Metric,
    escape,
    escaped_column,
    format_timestamps,
    format_value,
)

# A metric and the text of one of its samples, or of several.
MetricText: TypeAlias = tuple[Metric, str]

_Kind = TypeVar("_Kind")

# Written in the place of a sid; no text of the API or of the configuration has it.
_SID: Final = "\0"
# A channel in another state has no sample: it is not checked, or nobody can say.
_AS_EXPECTED: Final[Mapping[str, bool]] = {"as_expected": True, **dict.fromkeys(PROBLEMS, False)}
_VANITY: Final = {None: "", True: "true", False: "false"}


def by_metric(lines: Iterable[MetricText]) -> dict[str, str]:
    """The lines of each metric in one text, by the metric's name; no metric without a line."""
    texts: dict[str, list[str]] = {}
    for metric, line in lines:
        if line:
            texts.setdefault(metric.name, []).append(line)
    return {name: "".join(parts) for name, parts in texts.items()}


def sum_lines(account: Account, snapshot: Snapshot, dropped: int) -> Iterator[MetricText]:
    """The lines about all numbers of a snapshot; `dropped` of them have no series of their own."""
    for group in snapshot.groups:
        yield from _group_lines(account.name, group)
    for labels, numbers in snapshot.flow_numbers.items():
        yield _line(catalog.FLOW_NUMBERS, account.name, *labels, value=numbers)
    yield _line(catalog.NUMBER_SERIES_DROPPED, account.name, value=dropped)


def rule_lines(accounts: Iterable[tuple[Account, Snapshot | None]]) -> Iterator[MetricText]:
    """The lines about the rules of all accounts; a count that is not known has no sample."""
    for label, count in rule_matches(accounts).items():
        if count is not None:
            yield _line(catalog.NUMBER_RULE_MATCHES, label, value=count)


def probe_lines(
    account: Account, number: ExoPhone | None, duration_seconds: float
) -> Iterator[MetricText]:
    """The lines of one probe; `number` is None where the API did not give it.

    They are those of /metrics, whatever `per_number.series` is.
    """
    yield _line(catalog.PROBE_SUCCESS, value=number is not None)
    yield _line(catalog.PROBE_DURATION, value=duration_seconds)
    if number is not None:
        yield from number_lines(account, [(number, judge(number, account.rules))])


def account_lines(status: AccountStatus, now: ClockReading) -> Iterator[MetricText]:
    """The lines about the account itself and what is left on it."""
    account, balance = status.account, status.fresh_balance(now)
    info = catalog.ACCOUNT_INFO
    info = replace(info, labels=(*info.labels, *[name for name, _ in account.labels]))
    plan, values = balance.pricing_plan if balance else "", [value for _, value in account.labels]
    yield _line(info, account.name, plan, *values, value=1)
    if account.balance_interval_seconds is None:
        return
    if balance is not None:
        yield _line(catalog.ACCOUNT_BALANCE, account.name, balance.currency, value=balance.amount)
    if status.last_balance is not None:
        value = status.last_balance.error is None
        yield _line(catalog.ACCOUNT_BALANCE_UP, account.name, value=value)
    success = status.known_balance.ended.wall if status.known_balance else 0
    yield _line(catalog.ACCOUNT_BALANCE_LAST_SUCCESS, account.name, value=success)


def polling_lines(status: AccountStatus) -> Iterator[MetricText]:
    """The lines about the polling of an account: they stay when the inventory is stale."""
    name, poll = status.account.name, status.account.poll
    if status.last_attempt is not None:
        yield _line(catalog.UP, name, value=status.error is None)
    last_attempt = status.last_attempt.wall if status.last_attempt else 0
    if status.error is not None:
        yield _line(catalog.POLL_FAILING, name, status.error.reason, value=1)
    yield _line(catalog.POLL_INTERVAL, name, value=status.interval_seconds)
    yield _line(catalog.POLL_STALE_AFTER, name, value=poll.stale_after_seconds)
    yield _line(catalog.POLL_LAST_ATTEMPT, name, value=last_attempt)
    last_success = status.snapshot.started.wall if status.snapshot else 0
    yield _line(catalog.POLL_LAST_SUCCESS, name, value=last_success)
    if status.snapshot is not None:
        yield from _last_success_lines(name, status.snapshot)
        yield _line(catalog.POLL_UNCONFIRMED_NUMBERS, name, value=len(status.missed))
    yield from _counter_lines(name, status)


def _last_success_lines(name: str, snapshot: Snapshot) -> Iterator[MetricText]:
    yield _line(catalog.POLL_DURATION, name, value=snapshot.duration_seconds)
    yield _line(catalog.POLL_PAGES, name, value=snapshot.listing.pages)
    for reason in REJECTIONS:
        value = snapshot.listing.rejected.get(reason, 0)
        yield _line(catalog.POLL_REJECTED_RECORDS, name, reason, value=value)
    for field in FIELDS:
        value = snapshot.unreadable.get(field, 0)
        yield _line(catalog.POLL_UNREADABLE_VALUES, name, field, value=value)


def _counter_lines(name: str, status: AccountStatus) -> Iterator[MetricText]:
    yield _line(catalog.POLLS, name, value=status.polls)
    for reason, count in status.failures.items():
        yield _line(catalog.POLL_FAILURES, name, reason, value=count)
    for change, count in status.changes.items():
        yield _line(catalog.NUMBER_CHANGES, name, change, value=count)
    for (endpoint, code), count in sorted(status.requests.items()):
        yield _line(catalog.API_REQUESTS, name, endpoint, code, value=count)
    for endpoint, limits in sorted(status.rate_limits.items()):
        metrics = (catalog.API_RATE_LIMIT, catalog.API_RATE_LIMIT_REMAINING)
        for metric, limit in zip(metrics, limits, strict=True):
            if limit is not None:
                yield _line(metric, name, endpoint, value=limit)
    yield _line(catalog.API_RETRIES, name, value=status.retries)
    yield _line(catalog.API_WAIT_SECONDS, name, value=status.wait_seconds)
    for endpoint, durations in status.durations.items():
        yield catalog.API_REQUEST_DURATION, _histogram(name, endpoint, durations)


def _histogram(account: str, endpoint: Endpoint, durations: Durations) -> str:
    """The buckets, count and sum of one histogram, in prometheus_client's order."""
    metric = catalog.API_REQUEST_DURATION
    labelset = metric.labelset(account, endpoint)
    bounds = [*map(format_value, DURATION_BUCKETS_SECONDS), "+Inf"]
    counts = [*accumulate(durations.counts)]
    lines = [
        f'{metric.name}_bucket{labelset[:-1]},le="{bound}"}} {format_value(count)}\n'
        for bound, count in zip(bounds, counts, strict=True)
    ]
    lines.append(f"{metric.name}_count{labelset} {format_value(counts[-1])}\n")
    lines.append(f"{metric.name}_sum{labelset} {format_value(durations.sum_seconds)}\n")
    return "".join(lines)


def _group_lines(account: str, group: Group) -> Iterator[MetricText]:
    labels = (account, group.country, group.region, group.number_type)
    yield _line(catalog.NUMBERS, *labels, value=group.numbers)
    for currency, rental in group.rental.items():
        yield _line(catalog.MONTHLY_RENTAL, *labels, currency, value=rental)
    yield _line(catalog.NUMBERS_UNPRICED, *labels, value=group.unpriced)
    for channel in CHANNELS:
        yield _line(catalog.NUMBERS_UNATTACHED, *labels, channel, value=group.unattached[channel])
    for pair, count in group.unexpected.items():
        yield _line(catalog.NUMBERS_UNEXPECTED, *labels, *pair, value=count)
    yield _line(catalog.NUMBERS_IDLE, *labels, value=group.idle)
    for currency, rental in group.idle_rental.items():
        yield _line(catalog.IDLE_MONTHLY_RENTAL, *labels, currency, value=rental)


def numbers_with_series(snapshot: Snapshot, per_number: PerNumber) -> tuple[list[Judged], int]:
    """The numbers that get series of their own, by sid, and how many do not.

    Past the limit, numbers with a problem come first, then the other unattached ones, those of the
    lowest sids: they are what people look for.
    """
    if per_number.series == "none":
        return [], 0
    wanted = [*zip(snapshot.numbers, snapshot.verdicts, strict=True)]
    if per_number.series == "unattached":
        wanted = [(n, verdict) for n, verdict in wanted if verdict.has_problem or n.needs_attention]
    dropped = max(0, len(wanted) - per_number.limit)
    if dropped:
        wanted = nsmallest(per_number.limit, wanted, _rank)
    return sorted(wanted, key=lambda judged: judged[0].sid), dropped


def _rank(judged: Judged) -> tuple[bool, bool, str]:
    number, verdict = judged
    return not verdict.has_problem, not number.needs_attention, number.sid


def number_lines(account: Account, judged: Sequence[Judged]) -> Iterator[MetricText]:
    """The series of single numbers: one text a metric."""
    numbers, verdicts = [number for number, _ in judged], [verdict for _, verdict in judged]
    # A comprehension for each column: it takes half the time of attrgetter.
    setting, key = account.per_number.phone_number, account.pseudonym_key
    names = numbers if setting == "full" else [masked_identity(n, setting, key) for n in numbers]
    sids = escaped_column([name.sid for name in names])
    info = catalog.NUMBER_INFO
    account_names = repeat(escape(account.name))
    yield info, info.block(account_names, sids, *_info_columns(names, numbers, verdicts))
    attached = [
        (
            is_attached(number.voice_url) if number.voice_capable else None,
            is_attached(number.sms_url) if number.sms_capable else None,
        )
        for number in numbers
    ]
    flows = catalog.NUMBER_FLOW_ATTACHED
    yield (
        flows,
        _alike(flows, account, sids, attached, lambda kind: zip(CHANNELS, kind, strict=True)),
    )
    yield catalog.NUMBER_FLOW_AS_EXPECTED, _as_expected_text(account, sids, verdicts)
    for metric, prices in (
        (catalog.NUMBER_MONTHLY_RENTAL, [(n.currency, n.rental_price) for n in numbers]),
        (catalog.NUMBER_ONE_TIME_PRICE, [(n.currency, n.one_time_price) for n in numbers]),
        (catalog.NUMBER_INCOMING_RATE, [(n.currency, n.incoming_rate) for n in numbers]),
    ):
        # Without a currency an amount means nothing.
        yield metric, _alike(metric, account, sids, prices, lambda of: [of] if of[0] else [])
    pulse = catalog.NUMBER_INCOMING_PULSE_SECONDS
    pulses = [number.incoming_pulse_seconds for number in numbers]
    yield pulse, _alike(pulse, account, sids, pulses, lambda seconds: [(seconds,)])
    for metric, timestamps in (
        (catalog.NUMBER_CREATED, [number.created_timestamp_seconds for number in numbers]),
        (catalog.NUMBER_UPDATED, [number.updated_timestamp_seconds for number in numbers]),
    ):
        start, _ = metric.sample(account.name, _SID, value=0).split(_SID)
        rows = zip(sids, format_timestamps(timestamps), strict=True)
        yield metric, "".join([f'{start}{sid}"}} {text}\n' for sid, text in rows if text])


def _info_columns(
    names: Sequence[ExoPhone], numbers: Sequence[ExoPhone], verdicts: Sequence[Verdict]
) -> Iterator[Sequence[str]]:
    """The labels of `exophone_number_info` behind account and sid."""
    yield escaped_column([name.phone_number for name in names])
    yield escaped_column([name.friendly_name for name in names])
    yield escaped_column([number.country for number in numbers])
    yield escaped_column([number.region for number in numbers])
    yield escaped_column([number.number_type for number in numbers])
    yield [_VANITY[number.vanity_number] for number in numbers]
    yield _flow_ids([number.voice_url for number in numbers])
    yield _flow_ids([number.sms_url for number in numbers])
    yield escaped_column([verdict.owner for verdict in verdicts])


def _flow_ids(urls: Sequence[str | None]) -> Sequence[str]:
    """As `ExoPhone.flow_id` has it: many numbers share a flow, and each URL is read once."""
    ids = {url: escape(flow_id(url or "")) for url in {*urls}}
    return [ids[url] for url in urls]


def _as_expected_text(account: Account, sids: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    rules = {id(verdict.rule): verdict.rule for verdict in verdicts}

    def rows(
        kind: tuple[int, ChannelState, ChannelState],
    ) -> Iterator[tuple[str, str, bool | None]]:
        for channel, state in zip(CHANNELS, kind[1:], strict=True):
            expected = expected_label(expectation(rules[kind[0]], channel))
            yield channel, expected, _AS_EXPECTED.get(state)

    kinds = [(id(verdict.rule), verdict.voice, verdict.sms) for verdict in verdicts]
    return _alike(catalog.NUMBER_FLOW_AS_EXPECTED, account, sids, kinds, rows)


def _alike(
    metric: Metric,
    account: Account,
    sids: Sequence[str],
    kinds: Sequence[_Kind],
    rows: Callable[[_Kind], Iterable[Sequence[Any]]],
) -> str:
    """The samples of numbers, of which many differ only in the sid: each kind is written once.

    `rows` are the samples of a kind: the labels behind account and sid, and the value, if any.
    """
    texts = {
        kind: "".join(
            metric.sample(account.name, _SID, *labels, value=value)
            for *labels, value in rows(kind)
            if value is not None
        ).split(_SID)
        for kind in {*kinds}
    }
    return "".join([sid.join(texts[kind]) for sid, kind in zip(sids, kinds, strict=True)])


def _line(metric: Metric, *label_values: str, value: float | Decimal) -> MetricText:
    return metric, metric.sample(*label_values, value=value)
