"""The alerts for Grafana's own alerting. That they are up to date, test_dashboards.py holds.

tests/end_to_end/test_alerting.py holds that they fire for what Prometheus' rules fire for.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # no stubs among the lint tools
import pytest
import yaml
from exophone_dashboards.alerts import as_provisioning

from tests.lib.alerting_scene import alerts
from tests.lib.paths import ROOT
from tests.lib.queries import unknown_names

FILE: Final = yaml.safe_load((ROOT / "grafana" / "alerting" / "exophone.yml").read_text("utf-8"))
RULES: Final = [rule for group in FILE["groups"] for rule in group["rules"]]
SCHEMA: Final = json.loads((ROOT / "tests/lib/grafana/alerting.schema.json").read_text("utf-8"))
# What the inventory says: Grafana before 13 has no inhibition, so no stale figure may fire.
OF_NUMBERS: Final = re.compile(r"exophone_(?!number_rule|number_changes)(number|monthly|idle)")
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["uid"])


def query_of(rule: dict[str, Any]) -> str:
    query: str = rule["data"][0]["model"]["expr"]
    return query


def test_the_file_is_what_grafana_loads() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    assert not [error.message for error in validator.iter_errors(FILE)]


def test_each_alert_of_prometheus_is_one_rule_with_its_labels_and_times() -> None:
    made = [
        (rule["labels"], rule["for"], rule["keepFiringFor"], rule["title"].split()[0])
        for rule in RULES
    ]
    assert made == [
        (alert["labels"], alert["for"], alert.get("keep_firing_for", "0s"), alert["alert"])
        for alert in alerts().values()
    ]


@pytest.mark.parametrize("key", ["uid", "title"])
def test_no_two_rules_share_what_must_be_unique(key: str) -> None:
    assert len({rule[key] for rule in RULES}) == len(RULES)


def test_the_datasource_is_the_one_that_we_provision() -> None:
    sources = ROOT / "grafana" / "provisioning" / "datasources" / "exophone.yml"
    (source,) = yaml.safe_load(sources.read_text("utf-8"))["datasources"]
    assert {rule["data"][0]["datasourceUid"] for rule in RULES} == {source["uid"]}


@each_rule
def test_a_query_needs_no_recorded_series_and_no_stale_figure_fires(rule: dict[str, Any]) -> None:
    query = query_of(rule)
    assert unknown_names(query) == set()
    assert not re.search(r"\w:\w+:", query)
    if OF_NUMBERS.search(query) and rule["title"] != "ExoPhoneLabelsRenamed":
        assert "exophone_poll_stale_after_seconds" in query


@each_rule
def test_a_text_uses_only_what_grafana_has(rule: dict[str, Any]) -> None:
    """The function `query` finds nothing there, and `$value` may be a text."""
    for text in rule["annotations"].values():
        assert not re.search(r"\| *query|\bquery \"|\$value\b|grafana\.example", text), text
        assert text.count("{{") == text.count("}}")
        depth = [*re.findall(r"{{-? *(?:if|with|range)\b", text)]
        assert len(depth) == len(re.findall(r"{{-? *end\b", text)), text


def test_what_the_rewriting_can_and_cannot() -> None:
    text = """
groups:
  - name: one
    rules:
      - {record: "a:exophone_up:b", expr: "max by (account) (exophone_up)"}
      - alert: ExoPhoneX
        expr: |
          a:exophone_up:b{account="x"} > 0  # EDIT: a threshold
            and a:exophone_up:b offset 1h < min_over_time(a:exophone_up:b[6h] offset 1d)
            and present_over_time(a:exophone_up:b[6h])
        for: 0s
        labels: {severity: info}
        annotations:
          summary: 'A {{- with "x" | query }}{{ if . }}{{ end }}{{ else }}, C{{ end }} {{ $value }}'
"""
    (rule,) = yaml.safe_load(as_provisioning(text))["groups"][0]["rules"]
    assert rule["annotations"]["summary"] == 'A, C {{ (index $values "query").Value }}'
    up = "(max by (account) (exophone_up))"
    assert re.sub(r"\s+", "", query_of(rule)) == re.sub(
        r"\s+",
        "",
        f'({up} and on (account) label_replace(vector(1), "account", "x", "", "")) > 0'
        f" and last_over_time({up}[5m:1m] offset 1h) < min_over_time({up}[6h:1m] offset 1d)"
        f" and present_over_time({up}[6h:10m])",
    )
