"""The text format against prometheus_client, which is the reference."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.exposition import (
    Metric,
    escape,
    escaped_column,
    format_timestamps,
    format_value,
)
from exophone_exporter.metrics.samples import polling_lines
from tests.lib.exposed import written
from tests.lib.support import account

# What `model` lets through: any text without surrogates and control characters.
LABEL_VALUES: Final = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
VALUES: Final = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),  # no -0.0
    st.integers(-(2**53), 2**53),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=0, max_value=10**12),
    st.booleans(),
)
LABELS: Final = ("zone", "account", "m")
HELP: Final = "What the metric means; a sentence."


def written_by_the_reference(family: Family, *, openmetrics: bool) -> str:
    return written([family], openmetrics=openmetrics).decode().removesuffix("# EOF\n")


@pytest.mark.fault(64, 65)
@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
@pytest.mark.parametrize("kind", ["gauge", "counter"])
@given(samples=st.lists(st.tuples(LABEL_VALUES, LABEL_VALUES, LABEL_VALUES, VALUES), min_size=1))
def test_family_is_byte_for_byte_what_the_reference_writes(
    kind: str, openmetrics: bool, samples: list[tuple[str, str, str, float | Decimal]]
) -> None:
    family: GaugeMetricFamily | CounterMetricFamily
    if kind == "gauge":
        metric = Metric("x_numbers", "gauge", LABELS, HELP, "polling")
        family = GaugeMetricFamily("x_numbers", HELP, labels=LABELS)
    else:
        metric = Metric("x_numbers_total", "counter", LABELS, HELP, "polling")
        family = CounterMetricFamily("x_numbers", HELP, labels=LABELS)
    for *values, number in samples:
        family.add_metric(values, float(number))
    ours = metric.header(openmetrics=openmetrics) + "".join(
        metric.sample(*values, value=number) for *values, number in samples
    )
    assert ours == written_by_the_reference(family, openmetrics=openmetrics)


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
@given(seconds=st.lists(st.floats(0, 100), max_size=20), name=LABEL_VALUES)
def test_histogram_is_byte_for_byte_what_the_reference_writes(
    openmetrics: bool, seconds: list[float], name: str
) -> None:
    """A request that takes exactly a bound counts below it."""
    state = AccountState(account(name))
    for taken in seconds:
        state.record_request("list", "200", taken)
    bounds = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, math.inf)
    buckets = [
        ("+Inf" if bound == math.inf else str(bound), float(sum(s <= bound for s in seconds)))
        for bound in bounds
    ]
    metric = Metric("exophone_api_request_duration_seconds", "histogram", (), HELP, "polling")
    family = HistogramMetricFamily(metric.name, HELP, labels=["account", "endpoint"])
    total = 0.0
    for taken in seconds:
        total += taken  # in the order they were observed, as floats add up
    family.add_metric([name, "list"], buckets, total)
    ours = next(
        line
        for metric, line in polling_lines(state.status())
        if metric.name == family.name and 'endpoint="list"' in line
    )
    expected = written_by_the_reference(family, openmetrics=openmetrics)
    assert metric.header(openmetrics=openmetrics) + ours == expected


@pytest.mark.fault(64)
@pytest.mark.parametrize("values", [(), ("a", "b"), ("a", "b", "c", "d")])
def test_wrong_number_of_label_values_is_an_error_when_the_line_is_built(
    values: tuple[str, ...],
) -> None:
    """prometheus_client would merge the series silently."""
    metric = Metric("x", "gauge", LABELS, HELP, "polling")
    with pytest.raises(ValueError, match="x has the labels"):
        metric.sample(*values, value=1)
    with pytest.raises(ValueError, match="x has the labels"):
        metric.block(*[[value] for value in values])


@pytest.mark.fault(65)
def test_label_value_is_escaped_between_quotes() -> None:
    text, expected = 'a"b\\n\nc %s {} ٪', r"a\"b\\n\nc %s {} ٪"
    assert escape(text) == expected
    metric = Metric("x", "gauge", ("a",), HELP, "polling")
    assert metric.sample(text, value=0) == f'x{{a="{expected}"}} 0.0\n'


def test_negative_zero_is_zero() -> None:
    """The two are equal, so one text serves both."""
    assert (format_value(-0.0), format_value(0.0)) == ("0.0", "0.0")


@given(st.lists(st.tuples(LABEL_VALUES, LABEL_VALUES, LABEL_VALUES), max_size=20))
def test_block_is_its_samples_one_by_one(rows: list[tuple[str, str, str]]) -> None:
    """Whichever label needs escaping."""
    metric = Metric("x_numbers", "gauge", LABELS, HELP, "number")
    columns = [escaped_column(row[index] for row in rows) for index in range(len(LABELS))]
    expected = "".join(metric.sample(*labels, value=1) for labels in rows)
    assert metric.block(*columns) == expected


@given(
    st.lists(
        st.none()
        | st.integers(10**9 - 3, 2 * 10**9 + 3)
        | st.integers(-62_135_596_800, 253_402_300_799)
    )
)
@example([10**9 - 1, 10**9, 10**9 + 1, 2 * 10**9 - 1, 2 * 10**9, 10**10 - 1])
@example([-1_700_000_000, -123456789, 1, 0, -1, 10**10])
@example([1_700_000_000, 1_700_000_001, 1_000_000_010])
def test_times_are_written_as_numbers_are(seconds: list[int | None]) -> None:
    expected = [None if each is None else format_value(each) for each in seconds]
    assert format_timestamps(seconds) == expected
