"""The reference at /docs: every metric and every path, from the code that serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exophone_exporter.metrics.catalog import METRICS
from exophone_exporter.web import html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from exophone_exporter.metrics.exposition import Metric

SECTIONS: Final[Mapping[str, str]] = {
    "inventory": "Inventory",
    "number": "Per number",
    "change": "Change",
    "polling": "Health of polling",
    "exporter": "The exporter itself",
    "probe": "Probes",
}


@dataclass(frozen=True)
class Path:
    """One path that is served, in words; `methods` as people write them, "GET, HEAD".

    `linked` says that a plain click gives an answer: no parameter is needed, and nothing is done.
    """

    path: str
    methods: str
    meaning: str
    linked: bool = True


@dataclass(frozen=True)
class MetricSection:
    """The metrics that stand under one title."""

    title: str
    metrics: tuple[Metric, ...]


def render(paths: Sequence[Path], telemetry_path: str, *, link: Callable[[str], str] = str) -> str:
    """The page as HTML; `link` makes what stands in a link of a path of ours."""
    served = {path.path for path in paths}
    metrics = (m for m in METRICS if m.section != "probe" or "/probe" in served)
    return html.page(
        "docs.html",
        sections=sections(metrics),
        paths=paths,
        telemetry_path=telemetry_path,
        link=link,
    )


def sections(metrics: Iterable[Metric]) -> tuple[MetricSection, ...]:
    """The metrics by section, in the order of the table."""
    grouped: dict[str, list[Metric]] = {}
    for metric in metrics:
        grouped.setdefault(metric.section, []).append(metric)
    return tuple(
        MetricSection(SECTIONS.get(section, section.capitalize()), tuple(members))
        for section, members in grouped.items()
    )
