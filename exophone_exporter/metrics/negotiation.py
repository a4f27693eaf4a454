"""Which format and encoding a scraper gets: constant content types, q-values obeyed.

prometheus_client's own choice ignores q, echoes the client's text into the Content-Type and raises
on `version=abc`; Prometheus 3 refuses a scrape without a Content-Type that it knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="

_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", re.ASCII)
_OPENMETRICS_VERSIONS: Final = ("", "1.0.0", "0.0.1")
# How to write names that the format does not allow. We have no such name, so all are the same.
_ESCAPING_SCHEMES: Final = ("underscores", "allow-utf-8", "dots", "values")
# The most specific range that a client names says how much it wants the text format.
_TEXT_RANGES: Final = ("text/plain", "text/*", "*/*")


def negotiated(request: Mapping[str, str]) -> tuple[bool, bool, dict[str, str]]:
    """For the headers of a scrape: whether OpenMetrics, whether gzip, the headers of the answer."""
    kind = content_type(request.get("Accept", ""))
    headers = {
        "Content-Type": kind,
        "Vary": "Accept, Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    gzipped = accepts_gzip(request.get("Accept-Encoding", ""))
    if gzipped:
        headers["Content-Encoding"] = "gzip"
    return kind != TEXT, gzipped, headers


def content_type(accept: str) -> str:
    """TEXT, or OPENMETRICS with an escaping scheme, by an Accept header.

    TEXT for anything that asks for neither. prometheus/common names the same schemes.
    """
    openmetrics, escaping = 0.0, ""
    text: dict[str, float] = {}
    for media_range, parameters, quality in _offers(accept):
        if media_range == "application/openmetrics-text":
            known = parameters.get("version", "") in _OPENMETRICS_VERSIONS
            if known and quality > openmetrics:
                openmetrics, escaping = quality, parameters.get("escaping", "")
        elif media_range in _TEXT_RANGES:
            text[media_range] = max(quality, text.get(media_range, 0.0))
    text_quality = next((text[name] for name in _TEXT_RANGES if name in text), 0.0)
    if openmetrics == 0 or openmetrics < text_quality:
        return TEXT
    return OPENMETRICS + (escaping if escaping in _ESCAPING_SCHEMES else _ESCAPING_SCHEMES[0])


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip; a `q=0` refuses it."""
    qualities = {coding: quality for coding, _, quality in _offers(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _offers(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """The elements of a header: value, parameters, q; one whose q makes no sense is left out."""
    for element in header.split(","):
        value, *rest = element.split(";")
        pairs = (part.partition("=") for part in rest)
        parameters = {name.strip().lower(): text.strip(' \t"') for name, _, text in pairs}
        quality = parameters.get("q", "1")
        if _QUALITY.fullmatch(quality):
            yield value.strip().lower(), parameters, float(quality)
