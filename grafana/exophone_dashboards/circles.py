"""Circles by their names: codes in the series, names on the screen.

Outside India the region is the country's code, and some are spelled as a circle of India is (BR is
Bihar and Brazil). So the names are looked up by country and region together.
"""

from __future__ import annotations

from typing import Final

from exophone_dashboards.panels import Json
from exophone_exporter.config.number_rules import CIRCLES

# Where the vendor has numbers outside India. Others are shown by their codes.
COUNTRIES: Final = {
    "AE": "United Arab Emirates",
    "AU": "Australia",
    "GB": "United Kingdom",
    "HK": "Hong Kong",
    "ID": "Indonesia",
    "MY": "Malaysia",
    "PH": "Philippines",
    "SA": "Saudi Arabia",
    "SG": "Singapore",
    "TH": "Thailand",
    "US": "United States",
    "VN": "Vietnam",
}
# The label that `with_circle` adds: IN-KA, SG-SG.
LABEL: Final = "circle"


def with_circle(expression: str) -> str:
    """An expression whose series have country and region, with both in one label."""
    return f'label_join({expression}, "{LABEL}", "-", "country", "region")'


def of_group(expression: str) -> str:
    """The same for sums of groups, all of which have a type.

    Grafana joins a row that lacks a label with those that have any value of it.
    """
    return f'label_replace({with_circle(expression)}, "number_type", "Unknown", "number_type", "")'


def circle_mappings() -> list[Json]:
    """Mappings of that label: the circle's name in India, the country's name elsewhere."""
    names: Json = {
        f"IN-{code}": {"text": name, "index": index}
        for index, (code, name) in enumerate(CIRCLES.items())
    }
    names |= {
        f"{code}-{code}": {"text": name, "index": len(names) + index}
        for index, (code, name) in enumerate(COUNTRIES.items())
    }
    return [
        {"type": "value", "options": names},
        _pattern("[^-]*-", "Unknown", len(names)),
        _pattern("[^-]*-(.+)", "$1", len(names) + 1),
    ]


def _pattern(pattern: str, text: str, index: int) -> Json:
    """A mapping of what matches as a whole."""
    result = {"text": text, "index": index}
    return {"type": "regex", "options": {"pattern": pattern, "result": result}}
