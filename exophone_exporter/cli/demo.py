"""`demo` and `simulate`: a simulated API, which needs no account."""

from __future__ import annotations

import argparse
import contextlib
import logging
import textwrap
import threading
import time
from typing import Final, NoReturn
from urllib.parse import urlsplit

from exophone_exporter.cli import streams
from exophone_exporter.cli.serve import run
from exophone_exporter.config import loader
from exophone_exporter.errors import ConfigError, StartError
from exophone_exporter.server import listen, url_of
from exophone_exporter.simulator import Simulator, World, demo_world, make_account
from exophone_exporter.simulator.script import ROUND_SECONDS, Script

_log = logging.getLogger(__name__)

# The simulator sets no limit unless it is asked to.
_QUICK: Final = "requests_per_minute: 10000"
# With stale_after, a scrape interval of a minute loses no data.
_LIVELY: Final = f"interval: 5s, timeout: 2s, deadline: 10s, stale_after: 2m, {_QUICK}"
_ACCOUNT: Final = """\
  - name: {account.sid}
    sid: {account.sid}
    base_url: {url}
    api_key: {account.api_key}
    api_token: {account.api_token}
"""

# What the numbers of the demo should do; docs/number-rules.md explains it.
RULES: Final = """\
numbers:
  - name: outbound
    match: {friendly_name: "Outbound *"}
    voice: none
    sms: none
    owner: sales
  - name: payments
    match: {friendly_name: "Payments *"}
    voice: 411208
    owner: payments
  - name: branch
    match: {account: acme-sg}
    owner: singapore
  - name: desk
    match: {account: acme-support}
    owner: support
"""

_DRILL: Final = """\
Break something, and see whether your pager rings (docs/fire-drill.md):

  curl -X POST {url}/-/detach
  curl {url}/-/              # lists all commands
"""

_WELCOME: Final = """
exophone-exporter demo: two simulated accounts. No data is real, and no request
leaves this machine.

  Status page   {url}/
  Metrics       {url}{path}

What is wrong from the start: a number for payments is on the flow of a
campaign, some numbers have no flow, and the balance of acme-support does not
last for the month. The status page names the numbers, what was expected, and
their owners. Five more rightly have no flow: a rule says that they only call
out.

What happens, in minutes after the start, and again every {every} minutes:

{timetable}

Nothing else pages: some requests fail at random, and are retried. After eleven
minutes tickets name the numbers without a voice flow, and the one on the wrong
flow.

To see the alerts fire, start Prometheus and Alertmanager in the first minute,
each in the directory prometheus/ of the repository:

  prometheus --config.file=prometheus.yml
  alertmanager --config.file=alertmanager.yml

Or add this to scrape_configs of your own Prometheus, with exophone.rules.yml:

  - job_name: exophone
    honor_labels: true
{details}    static_configs:
      - targets: ["{target}"]

Press Ctrl-C to stop.
"""


def demo(args: argparse.Namespace) -> int:
    """Serve two simulated accounts until a signal arrives."""
    world = demo_world(args.seed)
    with Simulator(world, latency_seconds=0.03, failure_rate=0.03, seed=args.seed) as simulator:
        loaded = loader.parse(configuration(simulator) + RULES, "demo", {})
        script = Script(simulator.drill)
        ticker = threading.Thread(target=_keep_changing, args=(world, script), daemon=True)

        def welcome(urls: list[str]) -> None:
            # A Unix socket is nothing to open in a browser.
            url = next((url for url in urls if url.startswith("http")), urls[0])
            _welcome(url, args.web_telemetry_path, script)
            ticker.start()

        return run(loaded, args, welcome, lambda: loaded)


def configuration(simulator: Simulator, poll: str = _LIVELY) -> str:
    """A configuration file for every account of a simulator."""
    return f"poll: {{{poll}}}\nbalance: {{enabled: true, interval: 1m}}\naccounts:\n" + "".join(
        _ACCOUNT.format(account=account, url=simulator.url)
        for account in simulator.world.accounts.values()
    )


def simulate(args: argparse.Namespace) -> int:
    """Serve the simulated API alone until a signal arrives."""
    world = demo_world(args.seed)
    if args.numbers is not None:
        account = make_account("acme", args.numbers, seed=args.seed)
        world = World(account, seed=args.seed, steady=account.numbers)
    if args.web_listen_address.startswith("unix:"):
        raise ConfigError(["the simulated API needs an address with a port, not a Unix socket"])
    listening = listen([args.web_listen_address])[0]
    simulator = Simulator(
        world,
        listening=listening,
        url=url_of(listening),
        latency_seconds=args.latency,
        failure_rate=args.failure_rate,
        requests_per_minute=args.requests_per_minute,
        seed=args.seed,
    )
    with simulator:
        _write(_simulated(simulator))
        _keep_changing(world)


def _simulated(simulator: Simulator) -> str:
    lines = [f"\nThe simulated ExoPhones API listens on {simulator.url}. Its accounts:\n"]
    for account in simulator.world.accounts.values():
        lines.append(f"  {account.sid}, {len(account.numbers)} numbers:")
        lines.append(f"  curl --user {account.api_key}:{account.api_token} \\")
        path = f"/v2_beta/Accounts/{account.sid}/IncomingPhoneNumbers"
        lines.append(f"    {simulator.url}{path}\n")
    lines.append(_DRILL.format(url=simulator.url))
    lines.append("A configuration file for these accounts:\n")
    lines.append(textwrap.indent(configuration(simulator, _QUICK), "  "))
    return "\n".join([*lines, "Press Ctrl-C to stop.\n"])


def _keep_changing(world: World, script: Script | None = None) -> NoReturn:
    began_at = time.monotonic()
    while True:
        time.sleep(15)
        _log.debug("the simulated world: %s", world.tick(calm=True))
        for happened in script.advance(time.monotonic() - began_at) if script else ():
            _log.info("the demo: %s", happened)


def _welcome(url: str, path: str, script: Script) -> None:
    parts = urlsplit(url)
    details = f"    metrics_path: {parts.path}{path}\n" if parts.path + path != "/metrics" else ""
    details += "    scheme: https\n" if parts.scheme == "https" else ""
    text = _WELCOME.format(
        url=url,
        path=path,
        every=ROUND_SECONDS // 60,
        timetable=script.timetable(),
        details=details,
        target=parts.netloc,
    )
    _write(text)


def _write(text: str) -> None:
    # Without a reader of this text, the metrics are served all the same.
    with contextlib.suppress(StartError, BrokenPipeError):
        streams.write(text + "\n")
