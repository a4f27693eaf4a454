"""How the HTTP side behaves, as the flags say it; light enough for `--help`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

OWN_PATHS: Final = ("/", "/-/healthy", "/-/ready")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*")


@dataclass(frozen=True)
class WebSettings:
    """Where the metrics stand, and how many requests may be in flight at once; 0 for no limit."""

    telemetry_path: str = "/metrics"
    max_requests: int = 40

    def __post_init__(self) -> None:
        """Refuse a path that cannot be served, with ValueError."""
        if _PATH.fullmatch(self.telemetry_path) is None or self.telemetry_path in OWN_PATHS:
            raise ValueError(
                f"`{self.telemetry_path}` is no path like /metrics, or one of"
                f" {', '.join(OWN_PATHS)}"
            )
