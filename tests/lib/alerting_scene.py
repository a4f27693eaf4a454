"""From the simulated API to a webhook: the exporter, Prometheus and Alertmanager with our files.

Rules and routing are those that we ship, in copies that differ in durations and addresses only.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from exophone_exporter.simulator import Account, Simulator, World, make_account
from tests.lib.paths import ROOT
from tests.lib.processes import Running, config_file, started, wait_until
from tests.lib.servers import (
    Alertmanager,
    Notified,
    Prometheus,
    Webhook,
    alertmanager,
    alertmanager_program,
    prometheus,
    webhook,
)

FOLDER: Final = ROOT / "prometheus"
DEADLINE_SECONDS: Final = 120.0
JOB: Final = "exophone"

# A 300th of the time, but no less than two seconds and no more than ten.
_TIMES_SHORTER: Final = 300
_LEAST_SECONDS: Final = 2.0
# Alerts must outlast the `for` of those that hold them back by several evaluations, as they do when
# durations are not shortened.
_LEAST_KEPT_SECONDS: Final = 8.0
_MOST_SECONDS: Final = 10.0
_POLL: Final = "interval: 1s, deadline: 3s, stale_after: 5s"
_SCRAPE_INTERVAL_SECONDS: Final = 1.0

_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
# A repetition that came as soon would look like a second notification.
_DURATION: Final = re.compile(r"(?<=[\[: ])(?<!repeat_interval: )(\d+)([smhdw])(?![\w.])")


def shortened(text: str) -> str:
    """A text whose durations are a 300th as long, from two seconds to ten; zero stays zero."""

    def short(duration: re.Match[str]) -> str:
        seconds = int(duration[1]) * _UNIT_SECONDS[duration[2]]
        is_kept = text.endswith("keep_firing_for: ", 0, duration.start())
        least = min(seconds, _LEAST_KEPT_SECONDS if is_kept else _LEAST_SECONDS)
        return f"{round(min(max(seconds / _TIMES_SHORTER, least), _MOST_SECONDS) * 1000)}ms"

    return _DURATION.sub(short, text)


def _rules() -> str:
    return (FOLDER / "exophone.rules.yml").read_text("utf-8")


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """The alerting rules as we ship them, by name and the values of the labels that they set."""
    groups = yaml.safe_load(_rules())["groups"]
    every = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    found = {" ".join((rule["alert"], *rule["labels"].values())): rule for rule in every}
    assert len(found) == len(every), "two alerts that cannot be distinguished"
    return found


def with_webhooks(url: str) -> str:
    """Our configuration of Alertmanager with every receiver at one address."""
    document = yaml.safe_load((FOLDER / "alertmanager.yml").read_text(encoding="utf-8"))
    document["receivers"] = [
        {
            "name": receiver["name"],
            "webhook_configs": [{"url": url, "send_resolved": True, "max_alerts": 0}],
        }
        for receiver in document["receivers"]
    ]
    return yaml.safe_dump(document, sort_keys=False)


def scraping(targets: Path, alertmanager_url: str, rule_files: Path) -> str:
    """Our configuration of Prometheus, in haste, with the job's targets from a file."""
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = [job for job in document["scrape_configs"] if job["job_name"] == JOB]
    for key in [key for key in job if key.endswith("_sd_configs") or key == "static_configs"]:
        del job[key]
    every = f"{_SCRAPE_INTERVAL_SECONDS * 1000:.0f}ms"
    hasty = {"scrape_interval": every, "scrape_timeout": every}
    job |= hasty | {"file_sd_configs": [{"files": [str(targets)]}]}
    document["global"] |= hasty | {"evaluation_interval": every}
    document["scrape_configs"] = [job]
    document["rule_files"] = [str(rule_files)]
    (sent_to,) = document["alerting"]["alertmanagers"]
    sent_to["static_configs"] = [{"targets": [alertmanager_url.removeprefix("http://")]}]
    return yaml.safe_dump(document, sort_keys=False)


def healthy_account(sid: str, count: int = 3) -> Account:
    account = make_account(sid, count)
    for number in account.numbers:
        number["voice_url"] = f"https://my.exotel.in/{sid}/exoml/start_voice/1"
        number["sms_url"] = f"https://my.exotel.in/{sid}/exoml/start_sms/2"
    return account


def _labels(alert: str) -> dict[str, str]:
    """What an alert's name and the labels that it sets are in a notification."""
    rule = alerts()[alert]
    return {"alertname": rule["alert"], **rule["labels"]}


@dataclass(frozen=True)
class Scene:
    simulator: Simulator
    exporters: list[Running]
    prometheus: Prometheus
    alertmanager: Alertmanager
    webhook: Webhook
    folder: Path

    def account(self, sid: str) -> Account:
        return self.simulator.world.accounts[sid]

    def arrived(self, alert: str, status: str = "firing", **labels: str) -> list[Notified]:
        wanted = _labels(alert).items() | labels.items()
        return [
            sent
            for sent in self.webhook.alerts
            if sent.status == status and wanted <= sent.labels.items()
        ]

    def wait_for(self, alert: str, status: str = "firing", **labels: str) -> Notified:
        found: list[Notified] = wait_until(
            lambda: self.arrived(alert, status, **labels),
            f"{alert} {labels} {status}; see {self.folder}",
            DEADLINE_SECONDS,
        )
        return found[0]

    def wait_until_held_back(self, alert: str, **labels: str) -> None:
        """Alertmanager has been sent an alert with these labels, and others keep it in."""
        wanted = _labels(alert).items() | labels.items()
        wait_until(
            lambda: any(wanted <= held.items() for held in self.alertmanager.inhibited()),
            f"{alert} {labels} held back; see {self.folder}",
            DEADLINE_SECONDS,
        )

    def scrape(self, *exporters: Running) -> None:
        targets = [running.url().removeprefix("http://") for running in exporters]
        file = _targets_file(self.folder)
        part = file.with_suffix(".part")
        part.write_text(json.dumps([{"targets": targets}]), encoding="utf-8")
        part.replace(file)

    def misconfigure(self) -> None:
        (self.folder / "exophone.yml").write_text("accounts: []", encoding="utf-8")
        for running in self.exporters:
            running.send(signal.SIGHUP)

    def assert_grafana_sees_the_same(self) -> None:
        """Grafana's queries have had the series of ours since the beginning, and no name of one.

        What lasted for less than five seconds may be seen by one of them only.
        """
        file = (ROOT / "grafana" / "alerting" / "exophone.yml").read_text("utf-8")
        groups = yaml.safe_load(shortened(file))["groups"]
        of_grafana = {
            (rule["title"].split()[0], *sorted(rule["labels"].items())): rule["data"][0]["model"]
            for group in groups
            for rule in group["rules"]
        }
        (_, seconds), *_ = self.prometheus.ask("max(count_over_time(up[10m]))")
        for rule in [rule for rule in self.prometheus.rules() if rule["type"] == "alerting"]:
            query = of_grafana.pop((rule["name"], *sorted(rule["labels"].items())))["expr"]
            one = self.prometheus.ever(rule["query"], round(seconds))
            other = {
                frozenset(pair for pair in labels if pair[0] != "phone_number"): count
                for labels, count in self.prometheus.ever(query, round(seconds)).items()
            }
            for seen, also in (one, other), (other, one):
                assert {labels for labels in seen if seen[labels] >= 5} <= also.keys(), rule
            assert not any("__name__" in dict(labels) for labels in one | other), rule
        assert not of_grafana

    def stay_quiet(self) -> None:
        """No alert has fired since the rules are there, though each had the time to."""
        samples = "min(count_over_time(up[5m]))"
        enough = _MOST_SECONDS / _SCRAPE_INTERVAL_SECONDS + self.prometheus.ask(samples)[0][1]
        wait_until(
            lambda: self.prometheus.ask(samples)[0][1] > enough,
            "more scrapes than any alert waits for",
            DEADLINE_SECONDS,
        )
        for rule in self.prometheus.rules():
            assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        fired = self.prometheus.ask('max_over_time(ALERTS{alertstate="firing"}[5m])')
        assert not fired, fired
        assert not self.webhook.alerts


@contextlib.contextmanager
def scene(
    folder: Path,
    program: Callable[[str], str],
    *accounts: Account,
    replicas: int = 1,
    settings: Mapping[str, str] | None = None,
    more: str = "",
) -> Iterator[Scene]:
    """Everything runs and knows of the rest, then the block.

    `settings` are more keys of the exporter's configuration, by account sid; `more` is its end.
    """
    with contextlib.ExitStack() as stack:
        simulator = stack.enter_context(Simulator(World(*accounts)))
        file = config_file(folder, simulator, _POLL, **(settings or {}))
        with file.open("a", encoding="utf-8") as end:
            end.write(more)
        exporters = [stack.enter_context(_exporter(file, accounts)) for _ in range(replicas)]
        hook = stack.enter_context(webhook())
        routing = alertmanager(
            alertmanager_program(program), folder, shortened(with_webhooks(hook.url))
        )
        manager = stack.enter_context(routing)
        rule_files = folder / "rules.*.yml"
        configuration = scraping(_targets_file(folder), manager.url, rule_files)
        server = stack.enter_context(prometheus(program("prometheus"), folder, configuration))
        made = Scene(simulator, exporters, server, manager, hook, folder)
        made.scrape(*exporters)
        server.wait_for("up == 1", replicas)
        _add_rules(made)
        yield made


@contextlib.contextmanager
def _exporter(file: Path, accounts: tuple[Account, ...]) -> Iterator[Running]:
    with started("--config.file", str(file), "--web.listen-address=127.0.0.1:0") as running:
        for account in accounts:
            running.wait_for(f"first poll is complete.*account={account.sid}")
        yield running


def _add_rules(made: Scene) -> None:
    """Now that all is there, the rules: Prometheus takes its time to find targets."""
    (made.folder / "rules.short.yml").write_text(shortened(_rules()), encoding="utf-8")
    made.prometheus.reload()
    wait_until(made.prometheus.rules, "the rules are loaded")
    # It forgot the Alertmanager when it loaded them, and what fires before it is found is not sent.
    wait_until(made.prometheus.alertmanagers, "an Alertmanager is found")


def _targets_file(folder: Path) -> Path:
    return folder / "targets.json"
