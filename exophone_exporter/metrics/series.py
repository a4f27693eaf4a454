"""Which lines an account has: snapshot and counters in, text by metric out. Pure."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from exophone_exporter.metrics import table
from exophone_exporter.metrics.exposition import number_text
from exophone_exporter.model import FIELDS, FLOWS, REJECTIONS
from exophone_exporter.privacy import shown
from exophone_exporter.store import DURATION_BUCKETS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from decimal import Decimal

    from exophone_exporter.config import Account, PerNumber
    from exophone_exporter.metrics.exposition import Metric
    from exophone_exporter.model import ExoPhone
    from exophone_exporter.snapshot import Group, Snapshot
    from exophone_exporter.store import Durations, Endpoint, View

Line: TypeAlias = "tuple[Metric, str]"


def inventory_lines(account: Account, snapshot: Snapshot) -> Iterator[Line]:
    """The lines of a snapshot: the aggregates, and the per-number series that are wanted."""
    for group in snapshot.groups:
        yield from _group_lines(account.name, group)
    for (flow, flow_id), numbers in snapshot.flow_numbers.items():
        yield _line(table.FLOW_NUMBERS, account.name, flow, flow_id, value=numbers)
    chosen, dropped = _numbers_with_series(snapshot.numbers, account.per_number)
    for number in chosen:
        yield from _number_lines(account, number)
    yield _line(table.NUMBER_SERIES_DROPPED, account.name, value=dropped)


def probe_lines(
    account: Account, number: ExoPhone | None, duration_seconds: float
) -> Iterator[Line]:
    """The lines of one probe; `number` is None where the API did not give it.

    They are those of /metrics, whatever `per_number.series` says: who asks for a number wants it.
    """
    yield _line(table.PROBE_SUCCESS, value=number is not None)
    yield _line(table.PROBE_DURATION, value=duration_seconds)
    if number is not None:
        yield from _number_lines(account, number)


def polling_lines(view: View) -> Iterator[Line]:
    """The lines about the polling of an account: they stay when the inventory is stale."""
    name, poll = view.account.name, view.account.poll
    if view.last_attempt is not None:
        yield _line(table.UP, name, value=view.error is None)
    last_attempt = view.last_attempt.wall if view.last_attempt else 0
    yield _line(table.POLL_INTERVAL, name, value=poll.interval_seconds)
    yield _line(table.POLL_STALE_AFTER, name, value=poll.stale_after_seconds)
    yield _line(table.POLL_LAST_ATTEMPT, name, value=last_attempt)
    last_success = view.snapshot.completed.wall if view.snapshot else 0
    yield _line(table.POLL_LAST_SUCCESS, name, value=last_success)
    yield from _last_success_lines(name, view.snapshot)
    yield from _counter_lines(name, view)


def _last_success_lines(name: str, snapshot: Snapshot | None) -> Iterator[Line]:
    if snapshot is None:
        return
    yield _line(table.POLL_DURATION, name, value=snapshot.duration_seconds)
    yield _line(table.POLL_PAGES, name, value=snapshot.walk.pages)
    for reason in REJECTIONS:
        value = snapshot.walk.rejected.get(reason, 0)
        yield _line(table.POLL_REJECTED_RECORDS, name, reason, value=value)
    for field in FIELDS:
        value = snapshot.unreadable.get(field, 0)
        yield _line(table.POLL_UNREADABLE_VALUES, name, field, value=value)


def _counter_lines(name: str, view: View) -> Iterator[Line]:
    yield _line(table.POLLS, name, value=view.polls)
    for reason, count in view.failures.items():
        yield _line(table.POLL_FAILURES, name, reason, value=count)
    for change, count in view.changes.items():
        yield _line(table.NUMBER_CHANGES, name, change, value=count)
    for (endpoint, code), count in sorted(view.requests.items()):
        yield _line(table.API_REQUESTS, name, endpoint, code, value=count)
    yield _line(table.API_RETRIES, name, value=view.retries)
    yield _line(table.API_WAIT_SECONDS, name, value=view.wait_seconds)
    for endpoint, durations in view.durations.items():
        yield table.API_REQUEST_DURATION, _histogram(name, endpoint, durations)


def _histogram(account: str, endpoint: Endpoint, durations: Durations) -> str:
    """The buckets, count and sum of one histogram, in prometheus_client's order."""
    metric = table.API_REQUEST_DURATION
    label_text = metric.label_text(account, endpoint)
    bounds = [*map(number_text, DURATION_BUCKETS_SECONDS), "+Inf"]
    counts = [*accumulate(durations.counts)]
    lines = [
        f'{metric.name}_bucket{label_text[:-1]},le="{bound}"}} {number_text(count)}\n'
        for bound, count in zip(bounds, counts, strict=True)
    ]
    lines.append(f"{metric.name}_count{label_text} {number_text(counts[-1])}\n")
    lines.append(f"{metric.name}_sum{label_text} {number_text(durations.sum_seconds)}\n")
    return "".join(lines)


def _group_lines(account: str, group: Group) -> Iterator[Line]:
    labels = (account, group.country, group.region, group.number_type)
    label_text = table.NUMBERS.label_text(*labels)
    yield table.NUMBERS, table.NUMBERS.line(label_text, group.numbers)
    for currency, rental in group.rental.items():
        yield _line(table.MONTHLY_RENTAL, *labels, currency, value=rental)
    for flow in FLOWS:
        yield _line(table.NUMBERS_UNATTACHED, *labels, flow, value=group.unattached[flow])
    yield table.NUMBERS_IDLE, table.NUMBERS_IDLE.line(label_text, group.idle)
    for currency, rental in group.idle_rental.items():
        yield _line(table.IDLE_MONTHLY_RENTAL, *labels, currency, value=rental)


def _numbers_with_series(
    numbers: Iterable[ExoPhone], per_number: PerNumber
) -> tuple[list[ExoPhone], int]:
    """The numbers that get series of their own, in the order of their sids, and how many do not.

    Past the limit the unattached ones come first: they are what people look for.
    """
    if per_number.series == "none":
        return [], 0
    wanted = [n for n in numbers if per_number.series == "all" or n.lacks_flow]
    if len(wanted) > per_number.limit:
        wanted.sort(key=lambda number: (not number.lacks_flow, number.sid))
    kept = sorted(wanted[: per_number.limit], key=lambda number: number.sid)
    return kept, len(wanted) - len(kept)


def _number_lines(account: Account, number: ExoPhone) -> Iterator[Line]:
    names = shown(number, account.per_number.phone_number)
    yield _line(
        table.NUMBER_INFO,
        account.name,
        names.sid,
        names.phone_number,
        names.friendly_name,
        number.country,
        number.region,
        number.number_type,
        "" if number.vanity_number is None else str(number.vanity_number).lower(),
        number.flow_id("voice"),
        number.flow_id("sms"),
        value=1,
    )
    for flow in FLOWS:
        attached = number.attached(flow)
        if number.capable(flow) and attached is not None:
            yield _line(table.NUMBER_FLOW_ATTACHED, account.name, names.sid, flow, value=attached)
    yield from _measured_lines(
        table.NUMBER_MONTHLY_RENTAL.label_text(account.name, names.sid, number.currency),
        (
            (table.NUMBER_MONTHLY_RENTAL, number.rental_price),
            (table.NUMBER_ONE_TIME_PRICE, number.one_time_price),
            (table.NUMBER_INCOMING_RATE, number.incoming_rate),
        ),
    )
    created, updated = number.created_at, number.updated_at
    yield from _measured_lines(
        table.NUMBER_CREATED.label_text(account.name, names.sid),
        (
            (table.NUMBER_INCOMING_PULSE_SECONDS, number.incoming_pulse_seconds),
            (table.NUMBER_CREATED, None if created is None else created.timestamp()),
            (table.NUMBER_UPDATED, None if updated is None else updated.timestamp()),
        ),
    )


def _measured_lines(
    label_text: str, values: Iterable[tuple[Metric, float | Decimal | None]]
) -> Iterator[Line]:
    """Metrics that share their labels; a value that is absent or unreadable has no line."""
    for metric, value in values:
        if value is not None:
            yield metric, metric.line(label_text, value)


def _line(metric: Metric, *label_values: str, value: float | Decimal) -> Line:
    return metric, metric.sample(*label_values, value=value)
