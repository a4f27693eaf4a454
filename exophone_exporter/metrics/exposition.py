"""The text format, as far as our families need it: byte for byte what prometheus_client writes.

prometheus_client spends 4 µs on a sample, most of it on names and labels that never change. Here a
metric prepares its template once, and a block fills it row by row from columns of texts that were
escaped once for all metrics. The samples of both formats are the same, only the heads of counters
differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

MetricType = Literal["gauge", "counter", "histogram"]
Section = Literal["inventory", "number", "change", "polling", "exporter", "probe"]

_TEN_DIGITS: Final = 1e9


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics: a family with its labels, in the order of the contract."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str
    section: Section
    _order: tuple[int, ...] = field(init=False, repr=False)
    _template: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        order = sorted(range(len(self.labels)), key=self.labels.__getitem__)
        pairs = ",".join(f'{self.labels[index]}="%s"' for index in order)
        object.__setattr__(self, "_order", tuple(order))
        object.__setattr__(self, "_template", f"{{{pairs}}}" if pairs else "")

    def label_text(self, *values: str) -> str:
        """The label set in braces; values in the order of `labels`. Raises for a wrong count."""
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)} of them")
        return self._template % tuple(escape(values[index]) for index in self._order)

    def sample(self, *label_values: str, value: float | Decimal) -> str:
        """One sample, from label values in the order of `labels`."""
        return f"{self.name}{self.label_text(*label_values)} {number_text(value)}\n"

    def block(
        self, escaped_columns: Sequence[Iterable[str]], values: Iterable[float | Decimal | None]
    ) -> str:
        """One sample a row, from escaped label values in columns, in the order of `labels`.

        A row whose value is None has no sample. Columns may be longer than the values.
        """
        values = [*values]
        # Few prices are many numbers': each is spelled once.
        spelled = {value: None if value is None else number_text(value) for value in {*values}}
        texts = [spelled[value] for value in values]
        rows = zip(*(escaped_columns[index] for index in self._order), texts, strict=False)
        line = f"{self.name}{self._template} %s\n"
        return "".join(map(line.__mod__, compress(rows, texts)))

    def head(self, *, openmetrics: bool) -> str:
        """HELP and TYPE; OpenMetrics names a counter's family without `_total`."""
        family = self.name.removesuffix("_total") if openmetrics else self.name
        return f"# HELP {family} {self.help}\n# TYPE {family} {self.type}\n"


def number_text(value: float | Decimal) -> str:
    """A value as Go writes it, such as 499.0 or 1.7e+09; a negative zero is zero."""
    number = float(value) + 0.0
    if _TEN_DIGITS <= number < 10 * _TEN_DIGITS and number.is_integer():
        # A time in whole seconds: most values are, and this is twice as fast.
        digits = str(int(number))
        return f"{digits[0]}.{digits[1:]}".rstrip("0.") + "e+09"
    return str(floatToGoString(number))  # type: ignore[no-untyped-call]  # it has no types


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
