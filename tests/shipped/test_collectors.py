"""The recipes of docs/collectors.md scrape as prometheus.yml does, and add no labels."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.lib.paths import ROOT

PROMETHEUS = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text("utf-8"))
(JOB,) = PROMETHEUS["scrape_configs"]
INTERVAL = PROMETHEUS["global"]["scrape_interval"]


def test_the_collector_scrapes_as_prometheus_does_and_adds_no_labels() -> None:
    recipe = (ROOT / "deploy" / "opentelemetry" / "collector.yaml").read_text("utf-8")
    parts = yaml.safe_load(recipe)
    (exporter,) = parts["exporters"].values()
    assert parts["receivers"]["prometheus"]["config"] == {
        "scrape_configs": [JOB | {"scrape_interval": INTERVAL}]
    }
    assert (exporter["disable_scope_info"], exporter["target_info"]) == (True, {"enabled": False})
    assert parts["service"]["pipelines"] == {
        "metrics": {kind: list(parts[kind]) for kind in ("receivers", "exporters")}
    }


def test_alloy_scrapes_as_prometheus_does() -> None:
    recipe = (ROOT / "deploy" / "alloy" / "config.alloy").read_text("utf-8")
    arguments: dict[str, Any] = dict(
        re.findall(r"^  (\w+) += (.+?)(?: //.*)?$", recipe, re.MULTILINE)
    )
    (target,) = JOB["static_configs"][0]["targets"]
    assert arguments == {
        "targets": f'[{{"__address__" = "{target}"}}]',
        "job_name": f'"{JOB["job_name"]}"',
        "honor_labels": str(JOB["honor_labels"]).lower(),
        "scrape_interval": f'"{INTERVAL}"',
        "forward_to": "[prometheus.remote_write.default.receiver]",
    }
    assert 'prometheus.remote_write "default"' in recipe
