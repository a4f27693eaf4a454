"""The page /docs: every metric and every path, from the code that serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from exophone_exporter.metrics.catalog import METRICS
from exophone_exporter.web import html

SECTIONS: Final[Mapping[str, str]] = {
    "inventory": "Inventory",
    "number": "Per number",
    "change": "Change",
    "account": "Account and balance",
    "polling": "Health of polling",
    "exporter": "The exporter itself",
    "probe": "Probes",
}


@dataclass(frozen=True)
class ServedPath:
    """A path and what it does.

    `linked` means that the page links to it: a GET needs no parameter and changes nothing.
    """

    path: str
    meaning: str
    methods: str = "GET, HEAD"
    linked: bool = True


def render(
    paths: Sequence[ServedPath], telemetry_path: str, *, link: Callable[[str], str] = str
) -> str:
    """The page as HTML; `link` turns a served path into what a browser must ask for."""
    served = {path.path for path in paths}
    return html.page(
        "docs.html",
        sections={
            title: [metric for metric in METRICS if metric.section == section]
            for section, title in SECTIONS.items()
            if section != "probe" or "/probe" in served
        },
        paths=paths,
        telemetry_path=telemetry_path,
        link=link,
    )
