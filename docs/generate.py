"""Writes what is derived: tables of metrics and alerts, schemas, rules, parts of the chart.

`make generate` writes; `python docs/generate.py --check` only says what is out of date, exit 1.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import chart
import command_line
import yaml

from exophone_exporter.config import loader
from exophone_exporter.metrics.catalog import METRICS
from exophone_exporter.metrics.exposition import Metric
from exophone_exporter.web.docs_page import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
_PROMETHEUS_RULE = """\
# Written by make generate from prometheus/exophone.rules.yml; edit that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: exophone-exporter
  labels:
    app.kubernetes.io/name: exophone-exporter
spec:
"""


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Seconds: polls of up to 500 numbers begin within a minute or so; two fail; data becomes stale.
_POLL, _TWO_POLLS, _STALE, _BALANCE = 63, 126, 900, 3600
# What happens, the alert with its severity, and the seconds until the exporter shows it.
_HAPPENS: Final = (
    ("a number loses its voice flow", "FlowDetached", "critical", _POLL),
    ("a number disappears", "NumbersDisappeared", "critical", _POLL),
    ("credentials are rejected", "CredentialsRejected", "critical", _POLL),
    ("an account is unpaid", "AccountUnpaid", "critical", _POLL),
    ("the balance is used up", "BalanceExhausted", "critical", _BALANCE),
    ("the exporter dies", "ExporterDown", "critical", 0),
    ("Prometheus finds no exporter", "ExporterAbsent", "critical", 0),
    ("a number never had a voice flow", "VoiceFlowMissing", "warning", _POLL),
    ("a number has a wrong flow", "WrongFlow", "warning", _POLL),
    ("polls of an account fail", "PollFailing", "warning", _TWO_POLLS),
    ("polls of an account fail for long", "DataStale", "critical", _STALE),
)


def time_table(severities: tuple[str, ...]) -> str:
    """A Markdown table: how long it takes at most until somebody is notified."""
    rules, server, routing = (
        yaml.safe_load((ROOT / "prometheus" / f"{name}.yml").read_text("utf-8"))
        for name in ("exophone.rules", "prometheus", "alertmanager")
    )
    alerts = {
        (rule["alert"], rule["labels"]["severity"]): _seconds(rule["for"])
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    intervals = ("scrape_interval", "evaluation_interval")
    always = sum(_seconds(server["global"][name]) for name in intervals)
    always += _seconds(routing["route"]["group_wait"])
    rows = ["| what happens | alert | severity | notified within |", "|---|---|---|---|"]
    for happens, name, severity, shown in _HAPPENS:
        if severity in severities:
            minutes = math.ceil((shown + alerts[f"ExoPhone{name}", severity] + always) / 60)
            rows.append(f"| {happens} | `ExoPhone{name}` | {severity} | {minutes} minutes |")
    return "\n".join(rows)


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


def metric_table(metrics: Iterable[Metric]) -> str:
    """A Markdown table of metrics."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {metric.help} |")
    return "\n".join(rows)


def metric_sections(level: int) -> str:
    """Every metric, in one table a section."""
    return "\n\n".join(
        f"{'#' * level} {title}\n\n{metric_table(m for m in METRICS if m.section == section)}"
        for section, title in SECTIONS.items()
    )


def prometheus_rule(rules: str) -> str:
    """The resource of the Prometheus operator around a file of rules, comments and all."""
    lines = rules.splitlines(keepends=True)
    return _PROMETHEUS_RULE + "".join(f"  {line}" if line.strip() else line for line in lines)


def metrics_json() -> str:
    """Every metric, for programs."""
    keys = ("name", "type", "labels", "help", "section")
    return _as_json([{key: getattr(metric, key) for key in keys} for metric in METRICS])


def alerts_json(rules: str) -> str:
    """Every alert and what it uses, for programs: `recorded` has expressions by name."""
    every = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    alerts = [
        {
            "name": rule["alert"],
            "severity": rule["labels"]["severity"],
            "labels": rule["labels"],
            "for": rule["for"],
            "keep_firing_for": rule.get("keep_firing_for", "0s"),
            "summary": rule["annotations"]["summary"],
            "description": rule["annotations"]["description"],
            "expression": rule["expr"],
            "runbook": f"runbooks.md#{rule['alert'].lower()}",
        }
        for rule in every
        if "alert" in rule
    ]
    recorded = {rule["record"]: rule["expr"] for rule in every if "record" in rule}
    return _as_json({"alerts": alerts, "recorded": recorded})


def _as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def between_marks(text: str, name: str, content: str) -> str:
    """The text with what stands between the marks of a name replaced."""
    pattern = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda m: f"{m.group(1)}{content}\n{m.group(2)}", text)
    if count != 1:
        raise SystemExit(f"the marks of {name} stand {count} times where once is right")
    return replaced


def _command_line_page(text: str) -> str:
    for part in (command_line.commands, command_line.variables, command_line.paths):
        text = between_marks(text, part.__name__, part())
    return text


def generated() -> dict[Path, str]:
    """Every derived file, as it should be."""
    reference, readme = ROOT / "docs" / "metrics.md", ROOT / "README.md"
    runbooks, flags = (ROOT / "docs" / f"{name}.md" for name in ("runbooks", "command-line"))
    rules = (ROOT / "prometheus" / "exophone.rules.yml").read_text("utf-8")
    return {
        **chart.generated(),
        ROOT / "docs" / "config.schema.json": json.dumps(loader.json_schema(), indent=2) + "\n",
        ROOT / "docs" / "metrics.json": metrics_json(),
        ROOT / "docs" / "alerts.json": alerts_json(rules),
        ROOT / "deploy" / "kubernetes" / "operator" / "prometheusrule.yaml": prometheus_rule(rules),
        reference: between_marks(reference.read_text("utf-8"), "metrics", metric_sections(3)),
        runbooks: between_marks(
            runbooks.read_text("utf-8"), "time", time_table(("critical", "warning"))
        ),
        flags: _command_line_page(flags.read_text("utf-8")),
        readme: between_marks(readme.read_text("utf-8"), "time", time_table(("critical",))),
    }


def main() -> int:
    """Write the files, or with --check compare them."""
    stale = {
        path: text
        for path, text in generated().items()
        if not path.exists() or path.read_text("utf-8") != text
    }
    check = "--check" in sys.argv[1:]
    for path, text in stale.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        verb = "is out of date; run make generate" if check else "written"
        sys.stdout.write(f"{path.relative_to(ROOT)} {verb}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
