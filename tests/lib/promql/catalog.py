"""The metrics that a query may select: their labels, and what each label tells apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exophone_exporter.metrics.catalog import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exophone_exporter.metrics.exposition import Metric

Labels = frozenset[str]
NONE: Final[Labels] = frozenset()

# The labels that Prometheus and the usual service discovery add. Every series has the first two.
TARGET: Final[Labels] = frozenset({"job", "instance"})
MAYBE_OF_TARGET: Final[Labels] = frozenset({"pod", "namespace", "cluster", "environment"})
# By these the replicas of one exporter differ.
REPLICA: Final[Labels] = frozenset({"instance", "pod"})

# A label with an empty value is the same as no label.
_MAYBE_EMPTY: Final[Labels] = frozenset(
    [
        "country",
        "region",
        "number_type",
        "phone_number",
        "friendly_name",
        "vanity",
        "voice_flow_id",
        "sms_flow_id",
        "flow_id",
        "revision",
    ]
)
_SHARED_SECTIONS: Final = {"inventory", "number", "change"}
# A number's other labels follow from its sid: no two series differ only by them.
_NUMBER: Final[Labels] = frozenset({"account", "sid", "flow"})
_IDENTITY: Final[Labels] = TARGET | {"account", "sid"}


@dataclass(frozen=True)
class Series:
    """What is known of the series that an expression returns.

    Each series may have `labels` and has those that are `sure`. No two have the same `key`. Labels
    that are `named` follow from the key, but only within one replica. `money` has the labels that
    keep currencies apart; it is None where the values are not amounts. Values that are `shared` are
    the same in every replica, so a sum of them needs one replica.
    """

    labels: Labels = NONE
    sure: Labels = NONE
    key: Labels = NONE
    named: Labels = NONE
    money: Labels | None = None
    shared: bool = False
    kind: str = "gauge"

    def keeping(self, kept: Labels) -> Series:
        """The series with only some of their labels."""
        lost = (self.key - kept) & _IDENTITY
        return replace(
            self,
            labels=self.labels & kept,
            sure=self.sure & kept,
            key=(self.key & kept) | (self.named & kept if lost else NONE),
            named=NONE if lost else self.named & kept,
            money=None if self.money is None else self.money & kept,
            kind="gauge",
        )

    def one_for_each(self, grouping: Labels) -> Series:
        """One of the series for each combination of some labels, with all its labels."""
        key = self.key & grouping
        return replace(self, key=key, named=self.labels - key)

    def fixed(self, label: str) -> Series:
        """The series that have one given value of a label."""
        one_currency = self.money is not None and label in self.money
        return replace(
            self,
            sure=self.sure | {label},
            key=self.key - {label},
            money=None if one_currency else self.money,
        )


Catalog = dict[str, Series]


def _of_target(labels: Labels = NONE, kind: str = "gauge") -> Series:
    """A metric with these labels and those of its target."""
    return Series(
        labels=labels | TARGET | MAYBE_OF_TARGET,
        sure=(labels - _MAYBE_EMPTY) | TARGET,
        key=labels | TARGET,
        named=frozenset({"pod"}),
        kind=kind,
    )


def _of_exporter(metric: Metric) -> Series:
    labels = frozenset(metric.labels)
    names = labels - _NUMBER if metric.section == "number" and "sid" in labels else NONE
    state_of_an_account = metric.section == "polling" and metric.type == "gauge"
    return replace(
        _of_target(labels, metric.type),
        key=(labels - names) | TARGET,
        named=names | {"pod"},
        money=frozenset({"currency"}) if "currency" in labels else None,
        shared=metric.section in _SHARED_SECTIONS or state_of_an_account,
    )


def _exporter() -> Iterator[tuple[str, Series]]:
    for metric in METRICS:
        series = _of_exporter(metric)
        if metric.type != "histogram":
            yield metric.name, series
            continue
        counter = replace(series, kind="counter")
        le = frozenset({"le"})
        yield f"{metric.name}_sum", counter
        yield f"{metric.name}_count", counter
        yield (
            f"{metric.name}_bucket",
            replace(
                counter, labels=counter.labels | le, sure=counter.sure | le, key=counter.key | le
            ),
        )


def _alerts(exporter: Catalog) -> Series:
    """Alerts may have any label that their expressions left."""
    labels = frozenset({"alertname", "alertstate", "severity", "scope"}).union(
        *(series.labels for series in exporter.values())
    )
    return Series(labels=labels, sure=frozenset({"alertname", "alertstate"}), key=labels)


_EXPORTER: Final = dict(_exporter())
_OF_EVERY_TARGET: Final = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
)
# Every metric in a Prometheus that scrapes the exporter and has none of our recording rules.
KNOWN: Final[Catalog] = {
    **_EXPORTER,
    **{name: _of_target() for name in _OF_EVERY_TARGET},
    "process_cpu_seconds_total": _of_target(kind="counter"),
    "ALERTS": _alerts(_EXPORTER),
}
