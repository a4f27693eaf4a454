"""What can only be measured inside of a process: rendering, and the CPU of a poll."""

from __future__ import annotations

import contextlib
import gc
import http.server
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import certifi
import msgspec
import trustme
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from served import Prepared, configuration, pages_of

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.config.number_rules import MatchKey, NumberRule, NumberRules
from exophone_exporter.config.settings import Account
from exophone_exporter.exotel.client import Client, Connect
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.exotel.transport import Transport
from exophone_exporter.inventory.expectations import judge_all
from exophone_exporter.inventory.snapshot import Snapshot, build
from exophone_exporter.inventory.state import AccountState
from exophone_exporter.metrics.catalog import METRICS
from exophone_exporter.metrics.inventory import NUMBERS_A_STEP
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.metrics.samples import (
    by_metric,
    number_lines,
    numbers_with_series,
    sum_lines,
)
from exophone_exporter.polling.poller import poll_once

_ROUNDS: Final = 15


def rendering(numbers: int, rounds: int = _ROUNDS) -> tuple[float, float, float]:
    """Seconds to render so many numbers, those of the reference, and the median of their ratios.

    Both give the same bytes, which is checked; they take turns.
    """
    account, snapshot = _account_and_snapshot(numbers)
    text = b"".join(_rendered(account, snapshot))
    registry = CollectorRegistry()
    registry.register(_Families([*text_string_to_metric_families(text.decode())]))
    if generate_latest(registry) != text:
        raise RuntimeError("the reference writes other bytes")
    gc.freeze()  # the reference's families are not what ours has to look after
    ours, reference = [], []
    for _ in range(rounds):
        ours.append(_cpu_seconds(lambda: _rendered(account, snapshot)))
        reference.append(_cpu_seconds(lambda: generate_latest(registry)))
    ratios = [theirs / own for own, theirs in zip(ours, reference, strict=True)]
    return statistics.median(ours), statistics.median(reference), statistics.median(ratios)


def judging(numbers: int, rules: int, changed: int) -> tuple[float, float]:
    """CPU seconds that the rules add to the first snapshot, and to one where some have changed.

    A third of the rules each is about phone numbers, names and sids; most match little. All pages
    were read again, so that no number is the same object.
    """
    _, first = _account_and_snapshot(numbers)
    keys: tuple[tuple[MatchKey, str], ...] = (
        ("phone_number", "+91{:03}*"),
        ("friendly_name", "*desk {} *"),
        ("sid", "*{:03}"),
    )
    made = NumberRules(
        tuple(
            NumberRule(at, str(at), {key: (glob.format(at),)})
            for at in range(1, rules + 1)
            for key, glob in (keys[at % len(keys)],)
        )
    )
    step = numbers // changed
    read_again = tuple(
        msgspec.structs.replace(number, sms_url="" if at % step == 0 else number.sms_url)
        for at, number in enumerate(first.numbers)
    )
    verdicts = judge_all(first.numbers, made, ())
    judged = [*zip(first.numbers, verdicts, strict=True)]
    return (
        statistics.median(
            _cpu_seconds(lambda: judge_all(first.numbers, made, ())) for _ in range(_ROUNDS)
        ),
        statistics.median(
            _cpu_seconds(lambda: judge_all(read_again, made, judged)) for _ in range(_ROUNDS)
        ),
    )


def poll_cpu(numbers: int, accounts: int = 1, rounds: int = _ROUNDS) -> tuple[float, float]:
    """CPU of a poll that found nothing changed, and of one that found every number changed.

    Reading, comparing, rendering and compressing, of one of so many accounts with so many numbers
    each; the answers are at hand.
    """
    unchanged, changed = [], []
    one, other = (
        {f"a{n}": pages_of(f"a{n}", numbers, mark) for n in range(accounts)} for mark in ("", "'")
    )
    poll = _poll_of(Prepared([one, one, other, other]), accounts)
    poll()
    for _ in range(rounds):
        unchanged.append(_cpu_seconds(poll))
        changed.append(_cpu_seconds(poll))
    return statistics.median(unchanged), statistics.median(changed)


def https_poll_cpu(numbers: int, folder: Path, rounds: int = _ROUNDS) -> float:
    """CPU of a poll over https that finds nothing changed, in the thread of the poll alone.

    The CA file holds all that certifi's does, which is the default.
    """
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    (account,) = configuration(1, 300.0).accounts
    with _https_api(pages_of("a0", numbers), authority) as origin:
        account = replace(account, origin=origin, ca_file=str(ca_file))
        state = AccountState(account)
        client = _client(account, state, Transport)
        used = []
        for _ in range(rounds + 1):
            began = time.thread_time()
            if poll_once(state, client.fetch_all, Clock()).error:
                raise RuntimeError("a poll failed")
            used.append(time.thread_time() - began)
    return statistics.median(used[1:])


@contextlib.contextmanager
def _https_api(pages: Sequence[bytes], authority: trustme.CA) -> Iterator[str]:
    """The origin of an API with these pages, which keeps connections open."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each page waits for a delayed ACK

        def do_GET(self) -> None:
            body = pages[int(parse_qs(urlsplit(self.path).query)["Page"][0])]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()


def _poll_of(connect: Prepared, accounts: int) -> Callable[[], None]:
    """A poll of the first account, with what follows it; the others have been polled."""
    clock = Clock()
    states = [AccountState(account) for account in configuration(accounts, 300.0).accounts]
    clients = [_client(state.account, state, connect) for state in states]
    page = MetricsPage(
        lambda: [s.status() for s in states], lambda: ExporterInfo("benchmark", 0.0), clock
    )
    for state, client in zip(states[1:], clients[1:], strict=True):
        poll_once(state, client.fetch_all, clock)

    def poll() -> None:
        poll_once(states[0], clients[0].fetch_all, clock)
        page.refresh()

    return poll


def _client(account: Account, state: AccountState, connect: Connect) -> Client:
    budget = RateLimiter(account.poll.requests_per_minute, Clock().monotonic)
    return Client(
        account=account,
        budget=budget,
        recorder=state,
        clock=Clock(),
        sleep=lambda _: None,
        connect=connect,
    )


def _account_and_snapshot(numbers: int) -> tuple[Account, Snapshot]:
    (account,) = configuration(1, 300.0).accounts
    client = _client(account, AccountState(account), Prepared([{"a0": pages_of("a0", numbers)}]))
    return account, build(client.fetch_all({}), ClockReading(0.0, 0.0), 0.0)


def _rendered(account: Account, snapshot: Snapshot) -> list[bytes]:
    """The blocks of the inventory in their order, without what compresses and keeps them."""
    chosen, dropped = numbers_with_series(snapshot, account.per_number)
    begins = range(0, len(chosen), NUMBERS_A_STEP)
    blocks = [number_lines(account, chosen[each : each + NUMBERS_A_STEP]) for each in begins]
    parts = [
        {name: text.encode() for name, text in by_metric(lines).items()}
        for lines in (sum_lines(account, snapshot, dropped), *blocks)
    ]
    texts = []
    for metric in METRICS:
        lines = [part[metric.name] for part in parts if metric.name in part]
        texts += [metric.header(openmetrics=False).encode(), *lines] if lines else []
    return texts


class _Families:
    """The same families for prometheus_client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """What is registered."""
        return self._families


def _cpu_seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began
