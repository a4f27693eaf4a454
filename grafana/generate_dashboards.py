"""Writes the dashboards' JSON from their source, and the alerts for Grafana from Prometheus' rules.

`make generate` writes; with --check this only says what is out of date, exit 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from exophone_dashboards import exporter, numbers, rental
from exophone_dashboards.alerts import as_provisioning
from exophone_dashboards.layout import as_model
from exophone_dashboards.panels import Json

HERE: Final = Path(__file__).resolve().parent
FOLDER: Final = HERE / "dashboards"
RULES: Final = HERE.parent / "prometheus" / "exophone.rules.yml"


def generated() -> dict[Path, str]:
    """Every file, as it should be."""
    dashboards = {
        FOLDER / f"{made.uid}.json": as_text(as_model(made))
        for made in (numbers.DASHBOARD, rental.DASHBOARD, exporter.DASHBOARD)
    }
    alerts = as_provisioning(RULES.read_text("utf-8"))
    return dashboards | {HERE / "alerting" / "exophone.yml": alerts}


def as_text(made: Json) -> str:
    """JSON whose differences can be read: indented, in the order of the source."""
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write what is out of date, or with --check only name it."""
    stale = {
        file: text
        for file, text in generated().items()
        if not file.exists() or file.read_text("utf-8") != text
    }
    for file, text in stale.items():
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{file.name}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
