"""Grafana's own libraries: they accept our dashboards, and can read and draw a panel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.lib.dashboards.grafana_node import FOLDER, run_script
from tests.lib.paths import ROOT

DASHBOARDS: Final = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))


@pytest.mark.end_to_end
def test_the_dashboards_have_the_types_of_grafana(program: Callable[[str], str]) -> None:
    """Each option of each panel, field, override, variable and query is one that Grafana knows."""
    done = run_script(program("node"), "check_types.mjs", *map(str, DASHBOARDS))
    assert done.code == 0, done.stdout + done.stderr


@pytest.mark.end_to_end
def test_our_scripts_use_grafanas_libraries_by_their_types(program: Callable[[str], str]) -> None:
    done = run_script(program("node"), "node_modules/typescript/bin/tsc", "-p", str(FOLDER))
    assert done.code == 0, done.stdout


@pytest.mark.end_to_end
def test_what_grafana_does_not_know_is_found(program: Callable[[str], str], tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARDS[1].read_text("utf-8"))
    table = next(panel for panel in dashboard["panels"] if panel["type"] == "table")
    wrong = {"id": "custom.widht", "value": 150}
    table["fieldConfig"]["overrides"][0]["properties"].append(wrong)
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(dashboard), encoding="utf-8")
    done = run_script(program("node"), "check_types.mjs", str(file))
    assert (done.code, "custom.widht" in done.stdout) == (1, True)
