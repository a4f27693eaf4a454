"""A real Prometheus scrapes the real program and answers what the simulated world says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exophone_exporter.simulator import Simulator, World, demo_world
from tests.lib.processes import config_file, get, output_of, started, wait_until
from tests.lib.servers import Prometheus, prometheus

pytestmark = pytest.mark.end_to_end


def numbers_of(world: World) -> list[dict[str, Any]]:
    return [number for account in world.accounts.values() for number in account.numbers]


def ask(server: Prometheus, query: str, label: str) -> dict[str, float]:
    return {labels.get(label, ""): value for labels, value in server.ask(query)}


def unattached(world: World) -> dict[tuple[str, ...], float]:
    """Numbers without a flow they could have, by account, region, type and flow; zeros too."""
    counts: Counter[tuple[str, ...]] = Counter()
    for number in numbers_of(world):
        for flow in ("voice", "sms"):
            missing = number["capabilities"][flow] and number[f"{flow}_url"] is None
            group = (number["account_sid"], number["region"], number["number_type"], flow)
            counts[group] += missing
    return dict(counts)


def unattached_in(server: Prometheus) -> dict[tuple[str, ...], float]:
    names = ("account", "region", "number_type", "flow")
    series = server.ask("exophone_numbers_unattached")
    return {tuple(labels[name] for name in names): value for labels, value in series}


def test_prometheus_answers_what_the_world_says(
    tmp_path: Path, each_program: Callable[[str], str]
) -> None:
    """Counts by circle, rental by currency, unattached numbers; and a change after a poll."""
    binary = each_program("prometheus")
    world = demo_world()
    with (
        Simulator(world) as sim,
        started(
            "--config.file",
            str(config_file(tmp_path, sim, "interval: 1s, deadline: 1s")),
            "--web.listen-address=127.0.0.1:0",
        ) as running,
    ):
        running.wait_for("first poll is complete.*account=acme-sg")
        target = running.url().removeprefix("http://")
        configuration = (
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"
            f"  - job_name: exophone\n    static_configs: [{{targets: ['{target}']}}]\n"
        )
        with prometheus(binary, tmp_path, configuration) as server:
            wait_until(lambda: server.ask("exophone_numbers"), "a scrape")
            _assert_as_the_world(server, world)
            number = next(n for n in numbers_of(world) if n["voice_url"])
            number["voice_url"] = None
            expected = unattached(world)
            wait_until(lambda: unattached_in(server) == expected, "the detached number")
            _assert_scraped_cleanly(server)
        log = server.log.read_text("utf-8")
        assert not re.findall(r"(?i)level=(?:warn|error).*(?:scrape|append).*", log)


def _assert_as_the_world(server: Prometheus, world: World) -> None:
    numbers = numbers_of(world)
    assert ask(server, "up", "job") == {"exophone": 1}
    assert ask(server, "exophone_up", "account") == {"acme-support": 1, "acme-sg": 1}
    by_region = Counter(number["region"] for number in numbers)
    assert ask(server, "sum by (region) (exophone_numbers)", "region") == by_region
    rental = {"INR": 0.0, "USD": 0.0}
    for number in numbers:
        rental[number["currency"]] += float(number["rental_price"])
    answer = ask(server, "sum by (currency) (exophone_monthly_rental)", "currency")
    assert answer == pytest.approx(rental)
    assert unattached_in(server) == unattached(world)


def _assert_scraped_cleanly(server: Prometheus) -> None:
    _, body = get(f"{server.url}/api/v1/targets?state=active")
    (target,) = json.loads(body)["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_the_snippet_of_the_demo_is_a_configuration_of_prometheus(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    """Pasted under scrape_configs, as the banner says, promtool accepts it."""
    promtool = program("promtool")
    with started("demo", "--web.listen-address=127.0.0.1:0") as running:
        running.wait_for("Press Ctrl-C to stop", "stdout")
        _, _, rest = running.stdout.partition("exophone.rules.yml:\n\n")
    snippet, _, _ = rest.partition("\n\n")
    assert "targets:" in snippet
    file = tmp_path / "prometheus.yml"
    file.write_text(f"scrape_configs:\n{snippet}\n", encoding="utf-8")
    assert "SUCCESS" in output_of(promtool, "check", "config", file)
