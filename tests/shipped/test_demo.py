"""What the demo announces, against the rules and configurations that we ship."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from exophone_exporter.cli.demo import RULES, configuration
from exophone_exporter.simulator import Simulator, demo_world
from exophone_exporter.simulator.script import Script
from tests.lib.paths import ROOT
from tests.lib.processes import run

# The demo changes the world every 15 s and polls it every 5 s.
NOTICED_SECONDS = 20


def shipped(name: str) -> Any:
    return yaml.safe_load((ROOT / "prometheus" / name).read_text("utf-8"))


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def first_alert(name: str) -> dict[str, Any]:
    rules = [rule for group in shipped("exophone.rules.yml")["groups"] for rule in group["rules"]]
    return next(rule for rule in rules if rule.get("alert") == name)


def test_the_demo_pages_and_resolves_no_later_than_it_says() -> None:
    """As the intervals and durations of the shipped files add up at worst."""
    intervals, routing = shipped("prometheus.yml")["global"], shipped("alertmanager.yml")["route"]
    (pager,) = [route for route in routing["routes"] if route.get("receiver") == "pager"]
    seen = NOTICED_SECONDS + seconds(intervals["scrape_interval"])
    seen += seconds(intervals["evaluation_interval"])
    *losses, end = Script(Simulator(demo_world()).drill).steps
    for loss in losses:
        alert = first_alert(loss.expect.split()[0])
        assert alert["labels"]["severity"] == "critical"
        fires_at = loss.at + seen + seconds(alert["for"])
        assert fires_at < end.at
        assert fires_at + seconds(routing["group_wait"]) <= announced(loss.expect)
        resolves_at = end.at + seen + seconds(alert["keep_firing_for"])
        assert resolves_at + seconds(pager["group_interval"]) <= announced(end.expect)


def test_a_dead_exporter_does_not_resolve_what_the_demo_shows() -> None:
    """ExoPhoneExporterDown fires, and mutes it, an evaluation before it would be resolved."""
    dead = seconds(first_alert("ExoPhoneExporterDown")["for"])
    evaluation = seconds(shipped("prometheus.yml")["global"]["evaluation_interval"])
    for name in ("ExoPhoneFlowDetached", "ExoPhoneNumbersDisappeared"):
        assert seconds(first_alert(name)["keep_firing_for"]) > dead + evaluation


def test_the_demo_has_rules_owners_and_a_number_on_a_wrong_flow(tmp_path: Path) -> None:
    """Numbers that only call out are right, every rule matches, and every number is owned."""
    with Simulator(demo_world()) as simulator:
        file = tmp_path / "demo.yaml"
        file.write_text(configuration(simulator) + RULES, encoding="utf-8")
        listed = json.loads(run("numbers", "--format=json", "--config.file", str(file)).stdout)
        wrong = run("numbers", "--problems", "--format=json", "--config.file", str(file)).stdout
        checked = run("check-config", "--live", str(file))
    owners = Counter(number["owner"] for number in listed)
    assert owners == {"sales": 5, "payments": 5, "singapore": 12, "support": 230}
    problems = Counter((number["owner"], number["problem"]) for number in json.loads(wrong))
    assert problems["payments", "voice wrong"] == 1
    assert sum(problems.values()) == 14
    assert "sales" not in {owner for owner, _ in problems}
    assert [number["expected"] for number in listed if number["owner"] == "sales"] == ["none"] * 5
    assert (checked.code, checked.stderr) == (0, "")


def announced(text: str) -> int:
    minutes, rest = re.findall(r"by (\d+):(\d\d)\.", text)[0]
    return int(minutes) * 60 + int(rest)
