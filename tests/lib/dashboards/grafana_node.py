"""Grafana's own libraries under node: what a person sees in a dashboard, and its types."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.lib.processes import Ended, ended, environment

FOLDER = Path(__file__).parents[1] / "grafana"
INSTALL = "npm ci --prefix tests/lib/grafana"

Json = dict[str, Any]


def read_cells(node: str, payload: Json, locale: str = "en_IN") -> list[Json]:
    """What a person reads in each panel of a dashboard; src/payload.ts describes the payload.

    `locale` is that of the reader's browser: 12,34,567.89 is how India writes it (en_IN),
    1,234,567.89 how America does (en_US). Each panel has panelId, title, type, and one of
    - tables: each with columns, their widths (pixels: the fixed one or None, and the least), rows,
      and for each cell colors (None: uncoloured) and links
    - values: each with title, text, color (stat, gauge, bar gauge, pie chart)
    - series: each with title, the last value's text and color, calcs of the legend, points
    - timelines: each with title and states: text, color, from (milliseconds since 1970)
    - text: of a text panel
    - message: the text in the middle of an empty panel.
    """
    done = run_script(node, "read_cells.mjs", stdin=json.dumps(payload), locale=locale)
    assert done.code == 0, done.stderr
    panels: list[Json] = json.loads(done.stdout)
    return panels


def run_script(
    node: str, script: str, *words: str, stdin: str = "", locale: str = "en_IN"
) -> Ended:
    require_packages()
    env = environment(LC_ALL=f"{locale}.UTF-8", TZ="UTC")
    return ended(node, FOLDER / script, *words, input=stdin, env=env, encoding="utf-8")


def require_packages() -> None:
    """Skip the test where npm has not installed what the scripts need, or fail if required."""
    problem = packages_problem(FOLDER)
    if problem and os.environ.get("EXOPHONE_REQUIRE_END_TO_END"):
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)


def packages_problem(folder: Path) -> str:
    installed = folder / "node_modules" / ".package-lock.json"
    if not installed.exists():
        return f"Grafana's libraries are not installed; run: {INSTALL}"
    wanted = _versions(folder / "package-lock.json")
    if any(wanted.get(name) != version for name, version in _versions(installed).items()):
        return f"Grafana's libraries are not those of package-lock.json; run: {INSTALL}"
    return ""


def _versions(lock: Path) -> dict[str, str]:
    packages = json.loads(lock.read_text("utf-8"))["packages"]
    return {name: package.get("version", "") for name, package in packages.items()}
