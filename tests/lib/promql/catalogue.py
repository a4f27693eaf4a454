"""What a linter knows of our metrics: kinds, labels, and what each label tells apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from exophone_exporter.metrics.catalog import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exophone_exporter.metrics.exposition import Metric

Labels = frozenset[str]
NONE: Final[Labels] = frozenset()

# What Prometheus and the usual discovery put on every series of a target. The first two always.
TARGET: Final[Labels] = frozenset({"job", "instance"})
MAYBE_OF_TARGET: Final[Labels] = frozenset({"pod", "namespace", "cluster", "environment"})
# By these the replicas of one exporter differ.
REPLICA: Final[Labels] = frozenset({"instance", "pod"})

# May be the empty text, which Prometheus takes for no label at all.
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
_REPLICATED_SECTIONS: Final = {"inventory", "number", "change"}
# A number's names follow from its sid, its currency from its rental: no two series differ by them.
_NUMBER: Final[Labels] = frozenset({"account", "sid", "flow"})
# What names follow from: without one of these they tell series apart themselves.
_NAMING: Final[Labels] = TARGET | {"account", "sid"}


@dataclass(frozen=True)
class Series:
    """What is known of the series an expression answers with.

    `labels` may stand on them, `sure` stand on each, `key` tell one from another, `named` follow
    from the key as long as one replica is asked, `partial` are missing on one side of an `or`.
    `money` are the labels that keep currencies apart; None: the values are no money. `replicated`
    values are the same facts whichever replica reports them; those that are `repeated` are of an
    account as each replica sees it. Neither is ever added up over replicas.
    """

    labels: Labels = NONE
    sure: Labels = NONE
    key: Labels = NONE
    named: Labels = NONE
    partial: Labels = NONE
    money: Labels | None = None
    replicated: bool = False
    repeated: bool = False
    kind: Literal["gauge", "counter", "histogram"] = "gauge"

    def keeping(self, kept: Labels) -> Series:
        """The series when only some labels are left on them; what told them apart may be lost."""
        lost = (self.key - kept) & _NAMING
        return replace(
            self,
            labels=self.labels & kept,
            sure=self.sure & kept,
            key=(self.key & kept) | (self.named & kept if lost else NONE),
            named=NONE if lost else self.named & kept,
            partial=self.partial & kept,
            money=None if self.money is None else self.money & kept,
            kind="gauge",
        )

    def one_for_each(self, grouping: Labels) -> Series:
        """One of the series for each combination of some labels, with all that stands on it."""
        key = self.key & grouping
        return replace(self, key=key, named=self.labels - key)

    def fixed(self, label: str) -> Series:
        """The series that have one given value of a label."""
        one_currency = self.money is not None and label in self.money
        return replace(
            self,
            sure=self.sure | {label},
            key=self.key - {label},
            partial=self.partial - {label},
            money=None if one_currency else self.money,
        )

    def lacking(self, label: str) -> Series:
        """The series that do not have a label."""
        return replace(
            self,
            labels=self.labels - {label},
            sure=self.sure - {label},
            key=self.key - {label},
            named=self.named - {label},
        )


Catalogue = dict[str, Series]


def of_target(labels: Labels = NONE, kind: Literal["gauge", "counter"] = "gauge") -> Series:
    """A metric with labels of its own beside those of its target."""
    return Series(
        labels=labels | TARGET | MAYBE_OF_TARGET,
        sure=(labels - _MAYBE_EMPTY) | TARGET,
        key=labels | TARGET,
        named=frozenset({"pod"}),
        kind=kind,
    )


def _of_ours(metric: Metric) -> Series:
    own = frozenset(metric.labels)
    names = own - _NUMBER if metric.section == "number" and "sid" in own else NONE
    return replace(
        of_target(own),
        key=(own - names) | TARGET,
        named=names | {"pod"},
        money=frozenset({"currency"}) if "currency" in own else None,
        replicated=metric.section in _REPLICATED_SECTIONS,
        repeated=metric.section == "polling" and metric.type == "gauge",
        kind=metric.type,
    )


def _of_histogram(name: str, series: Series) -> Catalogue:
    counter = replace(series, kind="counter")
    le = frozenset({"le"})
    bucket = replace(counter, labels=series.labels | le, sure=series.sure | le, key=series.key | le)
    return {f"{name}_bucket": bucket, f"{name}_sum": counter, f"{name}_count": counter}


def _ours() -> Catalogue:
    found: Catalogue = {}
    for metric in METRICS:
        series = _of_ours(metric)
        found[metric.name] = series
        if metric.type == "histogram":
            found |= _of_histogram(metric.name, series)
    return found


_GAUGES_OF_TARGETS: Final = [
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
]
_COUNTERS_BY_GENERATION: Final = [
    "python_gc_objects_collected_total",
    "python_gc_objects_uncollectable_total",
    "python_gc_collections_total",
]
_PYTHON_INFO: Final = frozenset({"implementation", "major", "minor", "patchlevel", "version"})
_OF_ALERTS: Final = frozenset({"alertname", "alertstate", "severity", "scope"})


def _alerts(ours: Mapping[str, Series]) -> Series:
    """Alerts carry what their expressions left on them: any label of ours, none of it surely."""
    every = frozenset[str]().union(*(series.labels for series in ours.values())) - {"le"}
    sure = frozenset({"alertname", "alertstate"})
    return Series(labels=every | _OF_ALERTS, sure=sure, key=every | _OF_ALERTS)


def known_metrics() -> Catalogue:
    """Every metric that a Prometheus with our exporter and none of our rules has."""
    ours = _ours()
    return {
        **ours,
        **{name: of_target() for name in _GAUGES_OF_TARGETS},
        **{
            name: of_target(frozenset({"generation"}), "counter")
            for name in _COUNTERS_BY_GENERATION
        },
        "process_cpu_seconds_total": of_target(kind="counter"),
        "python_info": of_target(_PYTHON_INFO),
        "ALERTS": _alerts(ours),
        "ALERTS_FOR_STATE": _alerts(ours),
    }


KNOWN: Final = known_metrics()
