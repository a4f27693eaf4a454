"""From the simulated API to a webhook: the exporter, Prometheus and Alertmanager with our files.

Rules and routing are those that we ship, in copies that differ in durations and addresses only.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from exophone_exporter.simulator import Account, Simulator, World, make_account
from tests.lib.paths import ROOT
from tests.lib.processes import Running, config_file, started, wait_until
from tests.lib.programs import BUILT, INSTALLED, programs
from tests.lib.servers import (
    Alertmanager,
    Notified,
    Prometheus,
    Webhook,
    alertmanager,
    prometheus,
    victoria_metrics,
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
# What vmalert records is there for its next rule about three seconds later, and the third one looks
# back: by much more than that.
_MOST_SECONDS_OF_VMALERT: Final = 30.0
_POLL: Final = "interval: 1s, deadline: 3s, stale_after: 5s"
_SCRAPE_INTERVAL_SECONDS: Final = 1.0

_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
# A repetition that came as soon would look like a second notification.
_DURATION: Final = re.compile(r"(?<=[\[: ])(?<!repeat_interval: )(\d+)([smhdw])(?![\w.])")


def shortened(text: str, most_seconds: float = _MOST_SECONDS) -> str:
    """A text whose durations are a 300th as long, from two seconds to ten; zero stays zero."""

    def short(duration: re.Match[str]) -> str:
        seconds = int(duration[1]) * _UNIT_SECONDS[duration[2]]
        is_kept = text.endswith("keep_firing_for: ", 0, duration.start())
        least = min(seconds, _LEAST_KEPT_SECONDS if is_kept else _LEAST_SECONDS)
        return f"{round(min(max(seconds / _TIMES_SHORTER, least), most_seconds) * 1000)}ms"

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
class Watcher:
    """What evaluates our rules, with an Alertmanager and a webhook of its own."""

    server: Prometheus
    alertmanager: Alertmanager
    webhook: Webhook
    most_seconds: float

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
            f"{alert} {labels} {status}; see {self.server.log}",
            DEADLINE_SECONDS,
        )
        return found[0]

    def wait_until_held_back(self, alert: str, **labels: str) -> None:
        """Alertmanager has been sent an alert with these labels, and others keep it in."""
        wanted = _labels(alert).items() | labels.items()
        wait_until(
            lambda: any(wanted <= held.items() for held in self.alertmanager.inhibited()),
            f"{alert} {labels} held back; see {self.server.log}",
            DEADLINE_SECONDS,
        )

    def load_rules(self) -> None:
        self.server.reload()
        wait_until(self.server.rules, "the rules are loaded")
        # It forgot the Alertmanager when it loaded them; what fires before it is found is not sent.
        wait_until(self.server.alertmanagers, "an Alertmanager is found")

    def stay_quiet(self) -> None:
        """No alert has fired since the rules are there, though each had the time to."""
        samples = "min(count_over_time(up[5m]))"
        enough = self.most_seconds / _SCRAPE_INTERVAL_SECONDS + self.server.ask(samples)[0][1]
        wait_until(
            lambda: self.server.ask(samples)[0][1] > enough,
            "more scrapes than any alert waits for",
            DEADLINE_SECONDS,
        )
        for rule in self.server.rules():
            assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        fired = self.server.ask('max_over_time(ALERTS{alertstate="firing"}[5m])')
        assert not fired, fired
        assert not self.webhook.alerts

    def assert_grafana_sees_the_same(self) -> None:
        """Grafana's queries have had our series since the beginning, and no name of one.

        What lasted for less than five seconds may be seen by one of them only.
        """
        file = (ROOT / "grafana" / "alerting" / "exophone.yml").read_text("utf-8")
        groups = yaml.safe_load(shortened(file))["groups"]
        of_grafana = {
            (rule["title"].split()[0], *sorted(rule["labels"].items())): rule["data"][0]["model"]
            for group in groups
            for rule in group["rules"]
        }
        (_, seconds), *_ = self.server.ask("max(count_over_time(up[10m]))")
        for rule in [rule for rule in self.server.rules() if rule["type"] == "alerting"]:
            query = of_grafana.pop((rule["name"], *sorted(rule["labels"].items())))["expr"]
            one = self.server.ever(rule["query"], round(seconds))
            other = {
                frozenset(pair for pair in labels if pair[0] != "phone_number"): count
                for labels, count in self.server.ever(query, round(seconds)).items()
            }
            for seen, also in (one, other), (other, one):
                assert {labels for labels in seen if seen[labels] >= 5} <= also.keys(), rule
            assert not any("__name__" in dict(labels) for labels in one | other), rule
        assert not of_grafana


@dataclass(frozen=True)
class Scene:
    simulator: Simulator
    exporters: list[Running]
    watchers: list[Watcher]
    folder: Path

    def account(self, sid: str) -> Account:
        return self.simulator.world.accounts[sid]

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

    def wait_for(self, alert: str, status: str = "firing", **labels: str) -> list[Notified]:
        """The first notification of each watcher."""
        return [watcher.wait_for(alert, status, **labels) for watcher in self.watchers]

    def wait_until_held_back(self, alert: str, **labels: str) -> None:
        for watcher in self.watchers:
            watcher.wait_until_held_back(alert, **labels)

    def stay_quiet(self) -> None:
        for watcher in self.watchers:
            watcher.stay_quiet()


@contextlib.contextmanager
def scene(
    folder: Path,
    *accounts: Account,
    replicas: int = 1,
    settings: Mapping[str, str] | None = None,
    more: str = "",
    vmalert: bool = False,
) -> Iterator[Scene]:
    """Everything runs and knows of the rest, then the block.

    The same exporters are watched by Prometheus as it is built, and as it is installed, or by
    VictoriaMetrics and vmalert. `settings` are more keys of the exporter's configuration, by sid of
    an account; `more` is its end.
    """
    with contextlib.ExitStack() as stack:
        simulator = stack.enter_context(Simulator(World(*accounts)))
        file = config_file(folder, simulator, _POLL, **(settings or {}))
        with file.open("a", encoding="utf-8") as end:
            end.write(more)
        exporters = [stack.enter_context(_exporter(file, accounts)) for _ in range(replicas)]
        watchers = [
            stack.enter_context(_watcher(folder, programs(path), vmalert=vmalert))
            for path in ((BUILT,) if vmalert else (BUILT, INSTALLED))
        ]
        made = Scene(simulator, exporters, watchers, folder)
        made.scrape(*exporters)
        for watcher in watchers:
            watcher.server.wait_for("up == 1", replicas)
        # Now that all is there, the rules: Prometheus takes its time to find targets.
        rules = shortened(_rules(), watchers[0].most_seconds)
        (folder / "rules.short.yml").write_text(rules, encoding="utf-8")
        for watcher in watchers:
            watcher.load_rules()
        yield made


@contextlib.contextmanager
def _watcher(of_scene: Path, program: Callable[[str], str], *, vmalert: bool) -> Iterator[Watcher]:
    folder = Path(tempfile.mkdtemp(dir=of_scene))
    start, most_seconds = _prometheus, _MOST_SECONDS
    if vmalert:
        start, most_seconds = _victoria_metrics, _MOST_SECONDS_OF_VMALERT
    with webhook() as hook:
        routing = shortened(with_webhooks(hook.url))
        with (
            alertmanager(program("alertmanager"), folder, routing) as manager,
            start(program, folder, of_scene, manager.url) as server,
        ):
            yield Watcher(server, manager, hook, most_seconds)


def _prometheus(
    program: Callable[[str], str], folder: Path, of_scene: Path, alertmanager_url: str
) -> AbstractContextManager[Prometheus]:
    configuration = scraping(_targets_file(of_scene), alertmanager_url, of_scene / "rules.*.yml")
    return prometheus(program("prometheus"), folder, configuration)


def _victoria_metrics(
    program: Callable[[str], str], folder: Path, of_scene: Path, alertmanager_url: str
) -> AbstractContextManager[Prometheus]:
    rules = of_scene / "rules.*.yml"
    return victoria_metrics(
        program,
        folder,
        scraping(_targets_file(of_scene), alertmanager_url, rules),
        f"-rule={rules}",
        f"-notifier.url={alertmanager_url}",
        f"-evaluationInterval={_SCRAPE_INTERVAL_SECONDS}s",
    )


@contextlib.contextmanager
def _exporter(file: Path, accounts: tuple[Account, ...]) -> Iterator[Running]:
    with started("--config.file", str(file), "--web.listen-address=127.0.0.1:0") as running:
        for account in accounts:
            running.wait_for(f"first poll is complete.*account={account.sid}")
        yield running


def _targets_file(folder: Path) -> Path:
    return folder / "targets.json"
