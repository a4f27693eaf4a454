"""The names in a PromQL query. What its figures are, a real Prometheus says in other tests."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import promql_parser

from exophone_exporter.metrics.catalog import METRICS

LABELS: Final = {
    *("job", "instance", "pod", "le", "alertname", "severity", "scope"),
    *(label for metric in METRICS for label in metric.labels),
}
_METRICS: Final = {
    f"{metric.name}{suffix}": {*metric.labels, "job", "instance"}
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
}
# In the order of a query: `name{matchers}`, and the labels of an aggregation or a join.
_OURS: Final = re.compile(r"\bexophone_\w+\b(?!:)|\b\w+:\w+:\w+\b")
_SELECTOR: Final = re.compile(r"(\bexophone_\w+)\{([^}]*)\}")
_MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!=|!~|=)\s*"')
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_\w+) *\(([\w, ]*)\)")


def unknown_names(query: str, recorded: Collection[str] = ()) -> set[str]:
    """The metrics and labels of a query that nothing exports; raises ValueError if it is not one.

    Grafana's variables may be in it, and labels that Prometheus renamed.
    """
    text = re.sub(r"\$\w+", "5m", query).replace("exported_", "")
    promql_parser.parse(text)
    found = {name for name in _OURS.findall(text) if name not in _METRICS and name not in recorded}
    for name, matchers in _SELECTOR.findall(text):
        found |= {*_MATCHER.findall(matchers)} - _METRICS.get(name, LABELS)
    for labels in _GROUPING.findall(text):
        found |= {*re.findall(r"\w+", labels)} - LABELS
    return found
