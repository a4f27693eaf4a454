"""A fire drill on this machine, from a number that loses its flow to a pager that rings.

`make drill` needs Prometheus and Alertmanager. The rules, the defaults of the exporter and the
configurations of the other two are those that we ship; only addresses and receivers differ.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lib.alerting_scene import FOLDER, with_webhooks
from tests.lib.processes import LOOPBACK, Running, started, wait_until
from tests.lib.servers import Prometheus, Webhook, alertmanager, prometheus, webhook

ALERT = "ExoPhoneFlowDetached"
PROMISED_SECONDS = 240  # of a flow that is lost, for accounts of up to NUMBERS
NUMBERS = 500
_NAMES = {
    "Prometheus": ("prometheus",),
    "Alertmanager": ("prometheus-alertmanager", "alertmanager"),  # Debian's name, and the usual one
}
_DEADLINE_SECONDS = 600.0
_ASK_EVERY_SECONDS = 0.5
_TO_INSTALL = """\
The drill needs programs that are not installed: {missing}.

  Debian, Ubuntu   apt install prometheus prometheus-alertmanager
  elsewhere        https://prometheus.io/download/
"""
_WELCOME = """\
A fire drill with the shipped rules and default settings, all on this machine.
A number loses its flow, a pager rings, and the number gets its flow back. This
takes up to twelve minutes; Ctrl-C ends it.
"""


@dataclass(frozen=True)
class Drill:
    """The programs of a drill, which run while it does."""

    api_url: str
    exporter: Running
    prometheus: Prometheus
    pager: Webhook

    def command(self, name: str) -> str:
        """Send a command to the simulator; what happened."""
        request = urllib.request.Request(f"{self.api_url}/-/{name}", method="POST")  # noqa: S310 - our own
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - likewise
            return str(answer.read().decode().splitlines()[0])

    def logged(self, change: str) -> bool:
        """Whether the exporter noticed a change."""
        return f"change={change} " in self.exporter.stderr

    def fires(self) -> bool:
        return bool(self.prometheus.ask(f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}'))

    def received(self, status: str) -> str:
        """The summary of the first notification about the alert; empty before there is one."""
        for sent in self.pager.alerts:
            if (sent.labels["alertname"], sent.status) == (ALERT, status):
                return sent.annotations["summary"]
        return ""


@contextlib.contextmanager
def drill(folder: Path, programs: dict[str, str]) -> Iterator[Drill]:
    """Everything is started and knows of the rest, then the block."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(started("simulate", LOOPBACK, f"--numbers={NUMBERS}"))
        api.wait_for("Press Ctrl-C", "stdout")
        file = folder / "exophone.yml"
        file.write_text(accounts(api.stdout), encoding="utf-8")
        exporter = stack.enter_context(started("--config.file", str(file), LOOPBACK))
        log = folder / "exporter.log"
        stack.callback(lambda: log.write_text(exporter.stderr, encoding="utf-8"))
        exporter.wait_for("first poll is complete")
        pager = stack.enter_context(webhook())
        routing = with_webhooks(pager.url)
        manager = stack.enter_context(alertmanager(programs["Alertmanager"], folder, routing))
        shutil.copy(FOLDER / "exophone.rules.yml", folder)
        scraping = with_targets(exporter.url(), manager.url)
        server = stack.enter_context(prometheus(programs["Prometheus"], folder, scraping))
        url = api.wait_for(r"listens on (\S+)\.\s", "stdout")[1]
        yield Drill(url, exporter, server, pager)


def run(scene: Drill) -> float:
    """The drill; how many seconds passed until the pager rang."""
    _wait_for(lambda: scene.prometheus.ask("exophone_number_flow_attached == 1"), "a scrape")
    _wait_for(scene.prometheus.alertmanagers, "Prometheus finds Alertmanager")
    began_at = time.monotonic()

    def say(step: str, text: str) -> float:
        passed = time.monotonic() - began_at
        minutes, seconds = divmod(int(passed), 60)
        _print(
            textwrap.fill(
                f"  {minutes}:{seconds:02}  {step:<11} {text}", 80, subsequent_indent=" " * 20
            )
        )
        return passed

    say("detached", scene.command("detach"))
    _wait_for(lambda: scene.logged("voice_detached"), "a poll")
    say("polled", "The exporter noticed it.")
    _wait_for(scene.fires, "the alert fires")
    say("fired", f"{ALERT} fires in Prometheus.")
    summary = _wait_for(lambda: scene.received("firing"), "a notification")
    rang = say("notified", f"The pager rings: {summary}")
    say("reattached", scene.command("attach"))
    _wait_for(lambda: scene.logged("voice_attached"), "a poll")
    say("polled", "The exporter noticed it.")
    _wait_for(lambda: scene.received("resolved"), "a notification that it is resolved")
    say("resolved", "The pager says that it is over.")
    return rang


def main() -> int:
    """Run the drill; 0 if the pager rang in time."""
    programs = {
        name: next(filter(None, map(shutil.which, names)), "") for name, names in _NAMES.items()
    }
    missing = " and ".join(name for name, path in programs.items() if not path)
    if missing:
        _print(_TO_INSTALL.format(missing=missing))
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="exophone-drill-"))
    _print(_WELCOME)
    try:
        with drill(folder, programs) as scene:
            rang = run(scene)
    except AssertionError as error:
        _print(f"\nThe drill failed: {error}. The logs are in {folder}.")
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        return 130
    shutil.rmtree(folder)
    _print(f"\nThe pager rang after {rang:.0f} s; {PROMISED_SECONDS} s are promised.")
    return int(rang > PROMISED_SECONDS)


def accounts(printed: str) -> str:
    """The accounts that a simulator printed, as a configuration of defaults for the rest."""
    _, _, shown = printed.partition("A configuration file for these accounts:\n\n")
    lines = [line[2:] for line in shown.splitlines() if line.startswith("  ")]
    return "\n".join(line for line in lines if not line.startswith(("poll:", "balance:")))


def with_targets(exporter_url: str, alertmanager_url: str) -> str:
    """The configuration of Prometheus as we ship it, with other addresses."""
    text = (FOLDER / "prometheus.yml").read_text("utf-8")
    for shipped, url in (("localhost:10396", exporter_url), ("localhost:9093", alertmanager_url)):
        assert shipped in text
        text = text.replace(shipped, url.removeprefix("http://"))
    return text


def _wait_for(true: Callable[[], Any], what: str) -> Any:
    return wait_until(true, what, _DEADLINE_SECONDS, _ASK_EVERY_SECONDS)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
