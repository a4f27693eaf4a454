"""Grafana's own libraries: they accept our dashboards, and can read and draw a panel."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.lib.dashboards.grafana_node import FOLDER, Json, packages_problem, read_cells, run_script
from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DASHBOARDS: Final = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
NOW: Final = 1_760_000_000


@pytest.mark.end_to_end
def test_the_dashboards_have_the_types_of_grafana(program: Callable[[str], str]) -> None:
    """Each option of each panel, field, override, variable and query is one that Grafana knows."""
    done = run_script(program("node"), "check_types.mjs", *map(str, DASHBOARDS))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.end_to_end
def test_our_scripts_use_grafanas_libraries_by_their_types(program: Callable[[str], str]) -> None:
    done = run_script(program("node"), "node_modules/typescript/bin/tsc", "-p", str(FOLDER))
    assert done.returncode == 0, done.stdout


def of_type(dashboard: Json, kind: str) -> Json:
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


WRONG: Final[list[tuple[Callable[[Json], Any], str]]] = [
    (
        lambda d: of_type(d, "stat")["options"].update(graphMode="areas"),
        "Type '\"areas\"' is not assignable",
    ),
    (
        lambda d: of_type(d, "timeseries")["fieldConfig"]["defaults"]["custom"].update(fill=1),
        "'\"fill\"' does not exist",
    ),
    (
        lambda d: of_type(d, "table")["fieldConfig"]["overrides"][0]["properties"].append(
            {"id": "custom.widht", "value": 150}
        ),
        "custom.widht",
    ),
    (
        lambda d: of_type(d, "stat").update(type="singlestat"),
        "Property 'singlestat' does not exist on type 'Panels'",
    ),
    (
        lambda d: d["templating"]["list"][1].update(refresh=3),
        "Type '3' is not assignable",
    ),
]


@pytest.mark.end_to_end
def test_what_grafana_does_not_know_is_found(program: Callable[[str], str], tmp_path: Path) -> None:
    """One run of the compiler reads a dashboard for each mistake."""
    files = [tmp_path / f"{place}.json" for place in range(len(WRONG))]
    for file, (spoil, _) in zip(files, WRONG, strict=True):
        dashboard = json.loads(DASHBOARDS[1].read_text("utf-8"))
        spoil(dashboard)
        file.write_text(json.dumps(dashboard), encoding="utf-8")
    done = run_script(program("node"), "check_types.mjs", *map(str, files))
    assert done.returncode == 1, done.stderr
    found = re.split(r"^(?=\S+\.json)", done.stdout, flags=re.MULTILINE)
    for file, (_, message) in zip(files, WRONG, strict=True):
        assert message in "".join(text for text in found if text.startswith(file.name)), file.name


def payload() -> Json:
    """A dashboard with one table, and the answer to its query."""
    panel = {
        "id": 1,
        "type": "table",
        "title": "Numbers of $account",
        "gridPos": {"x": 0, "y": 0, "w": 24, "h": 6},
        "targets": [{"refId": "A", "expr": "up", "format": "table", "legendFormat": "__auto"}],
        "fieldConfig": {"defaults": {"unit": "short"}, "overrides": []},
    }
    result = [{"metric": {"phone_number": "+912248901111"}, "value": [NOW, "1"]}]
    response = {"status": "success", "data": {"resultType": "vector", "result": result}}
    return {
        "dashboard": {"uid": "scene", "title": "Scene", "panels": [panel]},
        "range": {"from": NOW * 1000, "to": (NOW + 600) * 1000},
        "variables": {"account": ["support"]},
        "answers": [{"panelId": 1, "refId": "A", "response": response}],
    }


def spoiled(**changes: Any) -> Json:
    made = payload()
    made["dashboard"]["panels"][0].update(changes)
    return made


UNREADABLE: Final = {
    "no answer to query A of panel": payload() | {"answers": []},
    "has no transformation merg": spoiled(transformations=[{"id": "merg", "options": {}}]),
    "sorted by Rent, which is none of Time,": spoiled(
        options={"sortBy": [{"displayName": "Rent"}]}
    ),
    "nobody reads panels of type heatmap": spoiled(type="heatmap"),
}


@pytest.mark.end_to_end
@pytest.mark.parametrize("message", UNREADABLE)
def test_a_panel_that_cannot_be_read_is_an_error(
    program: Callable[[str], str], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        read_cells(program("node"), UNREADABLE[message])


@pytest.mark.end_to_end
def test_a_numeric_unit_ruins_a_phone_number(program: Callable[[str], str]) -> None:
    """Why the tables have the unit string: +912248901111 would be 912 Bil."""
    (panel,) = read_cells(program("node"), payload())
    assert panel["title"] == "Numbers of support"
    assert panel["tables"][0]["rows"][0][1] == "912 Bil"


def draw(program: Callable[[str], str], folder: Path, content: Json) -> tuple[int, str, Path]:
    """The exit status and standard error of the program that draws, and the picture."""
    file, out = folder / "payload.json", folder / "out.png"
    file.write_text(json.dumps(content), encoding="utf-8")
    done = run_script(program("node"), "picture.mjs", str(file), str(out), program("chromium"))
    return done.returncode, done.stderr, out


@pytest.mark.end_to_end
def test_a_dashboard_can_be_drawn(program: Callable[[str], str], tmp_path: Path) -> None:
    status, said, out = draw(program, tmp_path, payload())
    assert status == 0, said
    picture = out.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") == 1600
    assert 2_000 < len(picture) < 400_000


@pytest.mark.end_to_end
def test_a_panel_that_cannot_be_drawn_is_an_error(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    status, said, _ = draw(program, tmp_path, spoiled(type="heatmap"))
    assert status == 1
    assert "no view of panels of type heatmap" in said


def test_missing_packages_are_explained(tmp_path: Path) -> None:
    """Without npm's packages, or with others than the lock file's, the message says what to run."""
    assert "not installed; run: npm ci --prefix tests/lib/grafana" in packages_problem(tmp_path)
    (tmp_path / "node_modules").mkdir()
    for name, version in (("package-lock.json", "2"), ("node_modules/.package-lock.json", "1")):
        lock = {"packages": {"node_modules/a": {"version": version}}}
        (tmp_path / name).write_text(json.dumps(lock), encoding="utf-8")
    assert "not those of package-lock.json" in packages_problem(tmp_path)
