"""The text format against prometheus_client, which is the reference."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest as generate_text
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.utils import floatToGoString

from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.exposition import (
    Metric,
    escape,
    escaped_column,
    format_timestamps,
    format_value,
    format_values,
)
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.metrics.samples import polling_lines
from tests.lib.support import FakeTime, account

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric as Family

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
    """The family as prometheus_client writes it, without the end mark."""

    class Collector:
        def collect(self) -> Iterable[Family]:
            return [family]

    registry = CollectorRegistry()
    registry.register(Collector())
    if openmetrics:
        written: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]  # it has no types
        return written.decode().removesuffix("# EOF\n")
    return generate_text(registry).decode()


@pytest.mark.fault(64)
@pytest.mark.fault(65)
@pytest.mark.parametrize(
    "openmetrics", [pytest.param(False, id="text"), pytest.param(True, id="openmetrics")]
)
@pytest.mark.parametrize(
    "kind", [pytest.param("gauge", id="gauge"), pytest.param("counter", id="counter")]
)
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


@pytest.mark.parametrize(
    "openmetrics", [pytest.param(False, id="text"), pytest.param(True, id="openmetrics")]
)
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


def test_histogram_buckets_never_fall() -> None:
    state = AccountState(account())
    for taken in (0.01, 0.3, 0.3, 7.0, 99.0):
        state.record_request("list", "200", taken)
    lines = "".join(line for _, line in polling_lines(state.status())).splitlines()
    counts = [
        float(line.split()[-1]) for line in lines if '_bucket{account="support",endpoint="l' in line
    ]
    assert counts == [1, 1, 1, 3, 3, 3, 3, 4, 4, 5]
    assert all(a <= b for a, b in pairwise(counts))


@pytest.mark.fault(64)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param((), id="none"),
        pytest.param(("a", "b"), id="too-few"),
        pytest.param(("a", "b", "c", "d"), id="too-many"),
    ],
)
def test_wrong_number_of_label_values_is_an_error_when_the_line_is_built(
    values: tuple[str, ...],
) -> None:
    """prometheus_client would merge the series silently."""
    metric = Metric("x", "gauge", LABELS, HELP, "polling")
    with pytest.raises(ValueError, match="x has the labels"):
        metric.sample(*values, value=1)
    with pytest.raises(ValueError, match="x has the labels"):
        metric.labelsets(*[[value] for value in values])


def test_labels_are_written_in_the_order_of_the_alphabet() -> None:
    metric = Metric("x", "gauge", LABELS, HELP, "polling")
    assert metric.sample("Z", "A", "M", value=2) == 'x{account="A",m="M",zone="Z"} 2.0\n'


def test_metric_without_labels_has_no_braces() -> None:
    assert Metric("x", "gauge", (), HELP, "polling").sample(value=True) == "x 1.0\n"


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('"', '\\"', id="quote"),
        pytest.param("\\", "\\\\", id="backslash"),
        pytest.param("\\n", "\\\\n", id="backslash-before-n"),
        pytest.param("a\nb", "a\\nb", id="newline"),
        pytest.param("%s %d {} ٪", "%s %d {} ٪", id="percent-and-braces"),
        pytest.param("", "", id="empty"),
    ],
)
def test_label_value_between_quotes(text: str, expected: str) -> None:
    assert escape(text) == expected
    metric = Metric("x", "gauge", ("a",), HELP, "polling")
    assert metric.sample(text, value=0) == f'x{{a="{expected}"}} 0.0\n'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(499, "499.0", id="whole"),
        pytest.param(Decimal("499.100000"), "499.1", id="decimal"),
        pytest.param(Decimal("0.000000"), "0.0", id="zero"),
        pytest.param(1_700_000_000.5, "1.7000000005e+09", id="time"),
        pytest.param(True, "1.0", id="true"),
        pytest.param(-19801.0, "-19801.0", id="before-1970"),
        pytest.param(0.00005, "5e-05", id="small"),
    ],
)
def test_value_as_go_writes_it(value: float | Decimal, expected: str) -> None:
    assert format_value(value) == expected


def test_negative_zero_is_zero_whichever_comes_first() -> None:
    """The two are equal, so one text serves both."""
    assert (format_value(-0.0), format_value(0.0)) == ("0.0", "0.0")
    assert format_values([-0.0, 0.0]) == format_values([0.0, -0.0]) == ["0.0", "0.0"]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_value_is_written_as_the_reference_does(value: float) -> None:
    assert format_value(value) == floatToGoString(float(value) + 0.0)  # type: ignore[no-untyped-call]  # it has no types


@given(
    st.lists(st.tuples(LABEL_VALUES, LABEL_VALUES, LABEL_VALUES, st.none() | VALUES), max_size=20)
)
def test_block_is_its_samples_one_by_one(
    rows: list[tuple[str, str, str, float | Decimal | None]],
) -> None:
    """Whichever label needs escaping; a row without a value has no sample."""
    metric = Metric("x_numbers", "gauge", LABELS, HELP, "number")
    columns = [escaped_column(str(row[index]) for row in rows) for index in range(len(LABELS))]
    expected = "".join(
        metric.sample(*labels, value=value) for *labels, value in rows if value is not None
    )
    values = format_values(row[-1] for row in rows)
    assert metric.block(metric.labelsets(*columns), values) == expected


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
    """They have a way of their own, because hardly two of them are the same."""
    assert format_timestamps(seconds) == format_values(seconds)


def test_one_scrape_of_each_kind_ends_as_its_format_asks(time: FakeTime) -> None:
    """OpenMetrics ends with its mark, also without any process series."""
    page = MetricsPage(lambda: (), lambda: ExporterInfo("r", 0.0), time.clock, with_process=False)
    assert page.body(openmetrics=True, gzipped=False).endswith(b"\n# EOF\n")
    assert b"# EOF" not in page.body(openmetrics=False, gzipped=False)
