"""The text format, as far as our families need it: byte for byte what prometheus_client writes.

prometheus_client spends 4 µs on a sample, most of it on names and labels that never change. Here
many rows are written together, from columns: label sets and values are spelled once. The samples of
both formats are the same, only the heads of counters differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, repeat
from typing import Literal, TypeVar

from prometheus_client.utils import floatToGoString

MetricType = Literal["gauge", "counter", "histogram"]
Section = Literal["inventory", "number", "change", "account", "polling", "exporter", "probe"]

_T = TypeVar("_T")
_Text = TypeVar("_Text")


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics: a family with its labels, in the order of the contract."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str
    section: Section

    _order: tuple[int, ...] = field(init=False, repr=False)
    _label_prefixes: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        order = sorted(range(len(self.labels)), key=self.labels.__getitem__)
        starts = ("{", *repeat('",', len(order)))
        openings = [f'{start}{self.labels[at]}="' for start, at in zip(starts, order, strict=False)]
        object.__setattr__(self, "_order", tuple(order))
        object.__setattr__(self, "_label_prefixes", tuple(openings))

    def labelset(self, *values: str) -> str:
        """The label set in braces; values in the order of `labels`. Raises for a wrong count."""
        escaped = map(escape, self._in_order(values))
        pairs = "".join(chain.from_iterable(zip(self._label_prefixes, escaped, strict=True)))
        return f'{pairs}"}}' if pairs else ""

    def labelsets(self, *escaped_columns: Iterable[str]) -> Sequence[str]:
        """The label sets of many rows, for this metric and every other with the same labels.

        Escaped values in columns, in the order of `labels`; the shortest says how many rows.
        """
        openings = map(repeat, self._label_prefixes)
        columns = zip(openings, self._in_order(escaped_columns), strict=True)
        rows = zip(*chain.from_iterable(columns), repeat('"}'), strict=False)
        return [*map("".join, rows)]

    def _in_order(self, values: Sequence[_T]) -> Sequence[_T]:
        """Reorder values from the order of `labels` to alphabetical order."""
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)} of them")
        return [values[at] for at in self._order]

    def sample(self, *label_values: str, value: float | Decimal) -> str:
        """One sample, from label values in the order of `labels`."""
        return f"{self.name}{self.labelset(*label_values)} {format_value(value)}\n"

    def block(self, labelsets: Iterable[str], value_texts: Iterable[str | None]) -> str:
        """One sample a row; a row whose value is None has no sample."""
        labels, values = [*labelsets], [*value_texts]
        texts = [value for value in values if value is not None]
        if len(texts) < len(values):
            rows = zip(labels, values, strict=True)
            labels = [each for each, value in rows if value is not None]
        # Joining the pieces of all rows together takes half the time of a text for each row.
        pieces = [f"\n{self.name}", "", " ", ""] * len(texts)
        pieces[1::4], pieces[3::4] = labels, texts
        return "".join(pieces)[1:] + "\n" if texts else ""

    def header(self, *, openmetrics: bool) -> str:
        """HELP and TYPE; OpenMetrics names a counter's family without `_total`."""
        family = self.name.removesuffix("_total") if openmetrics else self.name
        return f"# HELP {family} {self.help}\n# TYPE {family} {self.type}\n"


def format_value(value: float | Decimal) -> str:
    """A value as Go writes it, such as 499.0 or 1.7e+09; a negative zero is zero."""
    return str(floatToGoString(float(value) + 0.0))  # type: ignore[no-untyped-call]  # it has no types


def format_values(values: Iterable[float | Decimal | None]) -> Sequence[str | None]:
    """Many values, as `format_value` has them."""
    return each_once(values, lambda value: None if value is None else format_value(value))


def each_once(values: Iterable[_T], spell: Callable[[_T], _Text]) -> Sequence[_Text]:
    """A column in which few values are many numbers': each is spelled once."""
    column = [*values]
    texts = {value: spell(value) for value in {*column}}
    return [texts[value] for value in column]


def format_timestamps(timestamps: Iterable[int | None]) -> Sequence[str | None]:
    """Many times, in whole seconds since 1970; hardly two are the same.

    Those between 2001 and 2033 are spelled here, in a third of the time: ten digits with a point
    behind the first, without the zeros at their end.
    """
    return [
        None
        if seconds is None
        else f"1.{str(seconds)[1:].rstrip('0')}e+09"
        if 1_000_000_000 < seconds < 2_000_000_000  # noqa: PLR2004 - in a loop a name costs
        else format_value(seconds)
        for seconds in timestamps
    ]


def escape(text: str) -> str:
    """A label value as it stands between quotes."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def escaped_column(texts: Iterable[str]) -> Sequence[str]:
    """Each label value as it stands between quotes. Hardly any needs more than the one look."""
    column = [*texts]
    together = "".join(column)
    if any(special in together for special in '\\\n"'):
        return [escape(text) for text in column]
    return column
