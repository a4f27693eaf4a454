"""Draws the pictures of docs/dashboards.md: the world of the tests, by Grafana's own components.

`make pictures` needs prometheus, promtool, node, chromium and tests/lib/grafana.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.lib.dashboards.grafana_node import packages_problem, run_script
from tests.lib.dashboards.grafana_queries import payload, variables
from tests.lib.dashboards.scene import scene
from tests.lib.paths import ROOT

TOOLS = ROOT / "tests" / "lib" / "grafana"


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not installed")
    return path


def draw(content: dict[str, object], folder: Path, out: Path) -> None:
    file = folder / f"{out.stem}.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    done = run_script(program("node"), "picture.mjs", str(file), str(out), program("chromium"))
    if done.code:
        sys.exit(done.stderr)


def main() -> None:
    if problem := packages_problem(TOOLS):
        sys.exit(problem)
    with tempfile.TemporaryDirectory() as name, scene(program, Path(name)) as played:
        for file in sorted((ROOT / "grafana" / "dashboards").glob("*.json")):
            dashboard = json.loads(file.read_text("utf-8"))
            chosen = variables(dashboard, played.stretched, played.slow)
            content = payload(dashboard, played.stretched, chosen, played.slow)
            out = ROOT / "docs" / f"dashboards-{file.stem.removeprefix('exophone-')}.png"
            draw(content, Path(name), out)
            sys.stdout.write(f"{out.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
