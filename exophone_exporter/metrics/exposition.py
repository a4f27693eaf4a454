"""The text format, as far as our families need it: byte for byte what prometheus_client writes.

prometheus_client spends 9 µs on a sample, most of it on names and labels that never change. Here a
metric prepares its template once and a number its label text once; what is left is joining text.
The samples of both formats are the same; the heads of counters differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from decimal import Decimal

MetricType = Literal["gauge", "counter", "histogram"]
Section = Literal["inventory", "number", "change", "polling", "exporter", "probe"]


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

    def line(self, label_text: str, value: float | Decimal) -> str:
        """One sample."""
        return f"{self.name}{label_text} {number_text(value)}\n"

    def sample(self, *label_values: str, value: float | Decimal) -> str:
        """One sample, from label values in the order of `labels`."""
        return self.line(self.label_text(*label_values), value)

    def head(self, *, openmetrics: bool) -> str:
        """HELP and TYPE; OpenMetrics names a counter's family without `_total`."""
        family = self.name.removesuffix("_total") if openmetrics else self.name
        return f"# HELP {family} {self.help}\n# TYPE {family} {self.type}\n"


@lru_cache(maxsize=65536)
def number_text(value: float | Decimal) -> str:
    """A value as Go writes it, such as 499.0 or 1.7e+09; a negative zero is zero."""
    return str(floatToGoString(float(value) + 0.0))  # type: ignore[no-untyped-call]  # it has no types


@lru_cache(maxsize=65536)
def escape(text: str) -> str:
    """A label value as it stands between quotes."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
