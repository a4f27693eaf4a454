"""Durations in Prometheus' notation; it imports nothing heavy, for the flags."""

from __future__ import annotations

import re
from typing import Final

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"([0-9]+)(ms|s|m|h|d)", re.ASCII)


def seconds_of(text: str, shown: str, least: float, most: float) -> float:
    """The seconds of a duration within a range; raises ValueError, which names it as `shown`."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{shown} is not a valid duration; use a value such as 30s, 5m or 1h30m")
    seconds = sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
    if not least <= seconds <= most:
        allowed = f"{duration_text(least)} to {duration_text(most)}"
        raise ValueError(f"{shown} is out of range; use {allowed}")
    return float(seconds)


def duration_text(seconds: float) -> str:
    """Seconds in the largest unit that leaves a whole number, such as 90s or 5m."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNIT_SECONDS[unit] and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds / _UNIT_SECONDS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms"
