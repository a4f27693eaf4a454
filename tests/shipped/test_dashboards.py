"""The dashboards as files: generated, complete, and made of metrics that the exporter has."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import jsonschema  # type: ignore[import-untyped]  # no stubs among the lint tools
import pytest
import yaml

from tests.lib.paths import ROOT
from tests.lib.processes import output_of
from tests.lib.queries import LABELS, unknown_names

Json = dict[str, Any]

GRAFANA: Final = ROOT / "grafana"
FILES: Final = sorted((GRAFANA / "dashboards").iterdir())
DASHBOARDS: Final[dict[str, Json]] = {
    file.stem: json.loads(file.read_text("utf-8")) for file in FILES
}
SCHEMA: Final = json.loads((ROOT / "tests/lib/grafana/dashboard.schema.json").read_text("utf-8"))
MAX_BYTES: Final = 256 * 1024
DOCUMENTATION: Final = (ROOT / "docs" / "dashboards.md").read_text("utf-8")

_LABEL_VALUES: Final = re.compile(r"label_values\((.+), *(\w+)\)")

every_dashboard = pytest.mark.parametrize("uid", DASHBOARDS)


def panels(dashboard: Json) -> list[Json]:
    return [one for panel in dashboard["panels"] for one in (panel, *panel.get("panels", ()))]


def variables_of(uid: str) -> set[str]:
    return {variable["name"] for variable in DASHBOARDS[uid]["templating"]["list"]}


def test_the_json_is_what_the_source_makes() -> None:
    assert output_of(sys.executable, GRAFANA / "generate_dashboards.py", "--check") == ""


def test_a_dashboard_is_found_by_its_uid_and_small_enough_for_a_config_map() -> None:
    assert [file.stem for file in FILES] == [
        "exophone-exporter",
        "exophone-numbers",
        "exophone-rental",
    ]
    for file in FILES:
        assert DASHBOARDS[file.stem]["uid"] == file.stem
        assert file.stat().st_size < MAX_BYTES


# What Grafana's own linter does not check.


def problems(dashboard: Json) -> list[str]:
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(dashboard)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


@every_dashboard
def test_a_dashboard_matches_the_schema(uid: str) -> None:
    """Descriptions, thresholds, reasons for emptiness: nothing is forgotten."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert not problems(DASHBOARDS[uid])


@every_dashboard
def test_no_two_panels_overlap_or_have_the_same_id(uid: str) -> None:
    ids = [panel["id"] for panel in panels(DASHBOARDS[uid])]
    assert len(set(ids)) == len(ids)
    for shown in (DASHBOARDS[uid], *(one for one in panels(DASHBOARDS[uid]) if "panels" in one)):
        cells = Counter(cell for panel in shown["panels"] for cell in _cells(**panel["gridPos"]))
        assert set(cells.values()) <= {1}
        assert all(column < 24 for column, _ in cells)


def _cells(x: int, y: int, w: int, h: int) -> Iterator[tuple[int, int]]:
    yield from ((column, line) for column in range(x, x + w) for line in range(y, y + h))


# What a dashboard asks.


def queries(dashboard: Json) -> Iterator[tuple[str, str, str]]:
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match, variable["query"]
            yield f"variable {variable['name']}", match[1], f"{{{{{match[2]}}}}}"
    for one in dashboard["annotations"]["list"]:
        yield f"annotation {one['name']}", one["expr"], one["titleFormat"] + one["textFormat"]


@every_dashboard
def test_queries_and_legends_ask_for_what_exists(uid: str) -> None:
    """Without our recording rules: the dashboards work in a Prometheus that has none of them."""
    found = list(queries(DASHBOARDS[uid]))
    assert len(found) > 10
    for where, text, legend in found:
        assert unknown_names(text) == set(), where
        assert set(re.findall(r"{{ *(\w+) *}}", legend)) <= LABELS, where


@every_dashboard
def test_links_lead_to_our_dashboards_and_choose_variables_that_they_have(uid: str) -> None:
    for target, query in re.findall(r'"/d/([\w-]+)\?([^"]*)"', json.dumps(DASHBOARDS[uid])):
        chosen = set(re.findall(r"var-(\w+)=", query))
        kept = set(re.findall(r"\$\{(\w+):queryparam\}", query))
        assert chosen <= variables_of(target), (target, chosen)
        assert kept <= variables_of(uid) & variables_of(target), (target, kept)


@every_dashboard
def test_the_documentation_names_every_panel_and_variable(uid: str) -> None:
    titles = {panel["title"] for panel in panels(DASHBOARDS[uid]) if panel["type"] != "row"}
    assert {title for title in titles if title not in DOCUMENTATION} == set()
    assert all(f"`{name}`" in DOCUMENTATION for name in variables_of(uid))


# How Grafana loads them.


def provisioned(kind: str) -> Json:
    text = (GRAFANA / "provisioning" / kind / "exophone.yml").read_text("utf-8")
    loaded: Json = yaml.safe_load(text)
    assert loaded["apiVersion"] == 1
    return loaded


def test_provisioning_reads_the_dashboards_and_nobody_changes_them_in_grafana() -> None:
    (provider,) = provisioned("dashboards")["providers"]
    assert (provider["type"], provider["folder"]) == ("file", "ExoPhones")
    assert provider["allowUiUpdates"] is False
    assert f"/grafana/dashboards:{provider['options']['path']}:ro" in DOCUMENTATION


def test_provisioning_has_a_prometheus_that_the_dashboards_can_choose() -> None:
    (source,) = provisioned("datasources")["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert urlsplit(source["url"]).scheme == "http"
    for dashboard in DASHBOARDS.values():
        assert dashboard["templating"]["list"][0]["query"] == source["type"]
    scraping = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
