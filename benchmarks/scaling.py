"""How many accounts one process carries: CPU, memory and scrapes of the real program, as a table.

The simulator runs in this process, the exporter in one of its own, with two memory pools as the
systemd unit has it. Every poll finds one changed number, which is the dear case: one that finds the
same renders nothing. About five minutes in all:

    python benchmarks/scaling.py [--repeat 3] [--case 100x100 ...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from exophone_exporter.simulator import Simulator, World, make_account

CASES = ("1x100", "10x100", "100x100", "500x100", "1x10000")
COLUMNS = (
    "accounts",
    "numbers each",
    "lines",
    "ready after",
    "memory",
    "CPU per poll",
    "CPU at 5m",
    "scrape",
)
DEFAULT_INTERVAL_SECONDS = 300
SCRAPES = 20
READY_WITHIN_SECONDS = 180.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Measured:
    """One run of one case."""

    ready_seconds: float
    resident_bytes: int
    cpu_seconds_per_poll: float
    scrape_seconds: float
    gzip_bytes: int
    lines: int


def main() -> None:
    """Measure each case and print its row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", default=CASES, metavar="ACCOUNTSxNUMBERS")
    parser.add_argument(
        "--repeat", type=int, default=1, help="runs of each case; shown is the best"
    )
    args = parser.parse_args()
    say(f"| {' | '.join(COLUMNS)} |")
    say("|---" * len(COLUMNS) + "|")
    for case in args.case:
        accounts, numbers = (int(word) for word in case.split("x"))
        say(row(accounts, numbers, [measure(accounts, numbers) for _ in range(args.repeat)]))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def row(accounts: int, numbers: int, runs: list[Measured]) -> str:
    """The least of each figure: whatever else the machine does only adds to it."""
    poll_seconds = min(run.cpu_seconds_per_poll for run in runs)
    scrape_seconds = min(run.scrape_seconds for run in runs)
    share = poll_seconds * accounts / DEFAULT_INTERVAL_SECONDS
    cells = (
        f"{accounts:,}",
        f"{numbers:,}",
        f"{runs[0].lines:,}",
        f"{min(run.ready_seconds for run in runs):.1f} s",
        f"{min(run.resident_bytes for run in runs) / 1e6:.0f} MB",
        f"{poll_seconds * 1e3:.1f} ms",
        f"{share:.2%} of a core",
        f"{scrape_seconds * 1e3:.1f} ms, {runs[0].gzip_bytes / 1e3:,.0f} kB",
    )
    return f"| {' | '.join(cells)} |"


def measure(accounts: int, numbers: int) -> Measured:
    """Start, wait for every first poll, let an interval pass, scrape, end."""
    # At the default of five minutes five hundred accounts are polled 1.7 times a second; here, 5.
    interval_seconds = max(10, accounts // 5)
    world = World(*(make_account(f"a{index}", numbers) for index in range(accounts)))
    with Simulator(world) as simulator, exporter(simulator, interval_seconds) as (pid, url):
        began = time.monotonic()
        wait_until_ready(url)
        ready_seconds = time.monotonic() - began
        polls, cpu_seconds = polls_of(url), cpu_seconds_of(pid)
        with changing(world, interval_seconds):
            wait_for_polls(url, polls + accounts, interval_seconds)
        polls, cpu_seconds = polls_of(url) - polls, cpu_seconds_of(pid) - cpu_seconds
        durations = [scrape(url)[0] for _ in range(SCRAPES)]
        return Measured(
            ready_seconds,
            resident_bytes_of(pid),
            cpu_seconds / polls,
            statistics.median(durations),
            len(scrape(url)[1]),
            len(text_of(url).splitlines()),
        )


@contextlib.contextmanager
def exporter(simulator: Simulator, interval_seconds: int) -> Iterator[tuple[int, str]]:
    """The pid and URL of the real program while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(configuration(simulator, interval_seconds), "utf-8")
        command = [sys.executable, "-m", "exophone_exporter", "--config.file", str(file)]
        process = subprocess.Popen(
            [*command, "--web.listen-address=127.0.0.1:0"],
            stderr=subprocess.PIPE,
            text=True,
            env={"MALLOC_ARENA_MAX": "2", **os.environ},  # as in the unit
        )
        try:
            assert process.stderr is not None  # noqa: S101 - a pipe, as asked for
            url = url_of(process.stderr)
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            yield process.pid, url
        finally:
            process.terminate()
            process.wait(30)


def configuration(simulator: Simulator, interval_seconds: int) -> str:
    poll = f"{{interval: {interval_seconds}s, requests_per_minute: 100000, deadline: 10s}}"
    accounts = (
        f"  - {{name: {account.sid}, sid: {account.sid}, base_url: {simulator.url},"
        f" api_key: {account.api_key}, api_token: {account.api_token}}}\n"
        for account in simulator.world.accounts.values()
    )
    return f"poll: {poll}\naccounts:\n{''.join(accounts)}"


def url_of(log: IO[str]) -> str:
    for line in log:
        if match := re.search(r'msg=listening url="?(http://\S+?)"? ', line):
            return match[1].replace("localhost", "127.0.0.1")
    raise SystemExit("the exporter ended before it listened")


def wait_until_ready(url: str) -> None:
    ends_at = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < ends_at:
        with contextlib.suppress(OSError), OPENER.open(f"{url}/-/ready", timeout=10):
            return
        threading.Event().wait(0.05)
    raise SystemExit(f"not ready within {READY_WITHIN_SECONDS:g} s")


def wait_for_polls(url: str, polls: int, interval_seconds: int) -> None:
    """Wait for so many in all; asked seldom, since asking costs the exporter something, too."""
    for _ in range(20):
        threading.Event().wait(interval_seconds / 2)
        if polls_of(url) >= polls:
            return
    raise SystemExit("the accounts are polled far less often than they should be")


@contextlib.contextmanager
def changing(world: World, interval_seconds: int) -> Iterator[None]:
    """Change one number of every account several times an interval while the block runs."""
    ended = threading.Event()

    def change() -> None:
        for count in range(sys.maxsize):
            for account in world.accounts.values():
                account.numbers[0]["friendly_name"] = f"Changed {count}"
            if ended.wait(interval_seconds / 5):
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def scrape(url: str) -> tuple[float, bytes]:
    """Seconds and bytes of one scrape, as Prometheus asks."""
    request = urllib.request.Request(  # noqa: S310 - our own http URL
        f"{url}/metrics", headers={"Accept-Encoding": "gzip"}
    )
    began = time.perf_counter()
    with OPENER.open(request, timeout=60) as answer:
        body: bytes = answer.read()
    return time.perf_counter() - began, body


def text_of(url: str) -> str:
    with OPENER.open(f"{url}/metrics", timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def polls_of(url: str) -> int:
    """How many polls there were, of all accounts."""
    found = re.findall(r"(?m)^exophone_polls_total\{.*\} (\S+)$", text_of(url))
    return int(sum(float(value) for value in found))


def cpu_seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_bytes_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * PAGE_BYTES


if __name__ == "__main__":
    main()
