"""A thousand polls of a bad API and ten thousand scrapes leave the process as it was."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest

from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import Running, config_file, started
from tests.lib.simulation.soak import BadDays, Holding, Scraper, Watch, run_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.soak

POLLS: Final = 1000
SCRAPES: Final = 10_000
# An account may be polled once a second: more of them make more polls, and no promise is bent.
ACCOUNTS: Final = 24
NUMBERS: Final = 30
BAD_SHARE: Final = 0.15
SCRAPERS: Final = 4
SCRAPE_PAUSE_SECONDS: Final = 0.01
MOST_SECONDS: Final = 400.0
LOOKS_PER_RELOAD: Final = 20
# From the second quarter of the time to the last, by medians. A request to the API or a client that
# just comes or goes is a descriptor at the moment of one look, a poller that a reload replaced is a
# thread until its poll ends: their number swings, and its median by these. What allocators and
# caches of the interpreter still take is below 2 MiB (measured); a body kept per poll would be 10.
TOLERANCE: Final = Holding(descriptors=4, threads=2, resident_kib=4 * 1024)


class Configuration:
    """The file of the program: a reload finds pages of another size, or now and then no YAML."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self._folder = folder
        self._simulator = simulator
        self._sizes = count(10)
        self.path = self.write()

    def write(self) -> Path:
        """The next one."""
        size = next(self._sizes)
        poll = f"interval: 1s, deadline: 1s, timeout: 200ms, page_size: {size}"
        path = config_file(self._folder, self._simulator, poll)
        with path.open("a", encoding="utf-8") as file:
            file.write(
                "per_number: {series: unattached, limit: 1}\n" if size % 3 else "per_number: [\n"
            )
        return path


def world(seed: int) -> World:
    """Accounts whose names the search for secrets knows."""
    sids = [f"acme-{chr(ord('a') + index)}" for index in range(ACCOUNTS)]
    return World(*(make_account(sid, NUMBERS, seed=seed) for sid in sids), seed=seed)


def polls_seen(scraper: Scraper) -> int:
    """Of every account, in the last scrape."""
    text = scraper.last.text if scraper.last else ""
    found = re.findall(r"^exophone_polls_total\{.*\} (.*)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


@pytest.mark.fault(133)
def test_faults_and_scrapes_without_number_leave_nothing_behind(tmp_path: Path) -> None:
    """EXOPHONE_SOAK_SEED=N plays the same faults again; the order of threads is the machine's."""
    seed = int(os.environ.get("EXOPHONE_SOAK_SEED") or random.randrange(2**32))
    print(f"EXOPHONE_SOAK_SEED={seed}")  # noqa: T201 - pytest shows it where the test fails
    with Simulator(world(seed)) as simulator:
        BadDays(simulator, random.Random(seed), BAD_SHARE)
        configuration = Configuration(tmp_path, simulator)
        flags = ("--config.file", str(configuration.path), "--web.listen-address=127.0.0.1:0")
        with started(*flags) as running:
            watch, scrapers = soak(running, configuration, seed)
            assert running.end(seconds=5.0) == 0
    assert_as_before(watch)
    assert_lived_through(running.stderr, scrapers)


def soak(running: Running, configuration: Configuration, seed: int) -> tuple[Watch, list[Scraper]]:
    """Poll, scrape and reload until there was enough of each."""
    stopping = threading.Event()
    port = int(running.url().rpartition(":")[2])
    watch = Watch(running.pid, stopping, every_seconds=0.25)
    scrapers = [
        Scraper(port, random.Random(f"{seed}-{index}"), SCRAPE_PAUSE_SECONDS, stopping)
        for index in range(SCRAPERS)
    ]
    looks = count(1)

    def enough() -> bool:
        if next(looks) % LOOKS_PER_RELOAD == 0:
            configuration.write()
            running.send(signal.SIGHUP)
        scraped = sum(scraper.checker.checked for scraper in scrapers)
        return scraped >= SCRAPES and polls_seen(scrapers[0]) >= POLLS

    for thread in (watch, *scrapers):
        thread.start()
    try:
        run_until(enough, scrapers, MOST_SECONDS)
    finally:
        stopping.set()
        for thread in (watch, *scrapers):
            thread.join()
    return watch, scrapers


def assert_as_before(watch: Watch) -> None:
    """Descriptors, threads and memory did not grow."""
    growth = watch.growth()
    print(f"{len(watch.samples)} looks; growth {growth}; last {watch.samples[-1]}")  # noqa: T201 - likewise
    assert all(grown <= most for grown, most in zip(growth, TOLERANCE, strict=True))


def assert_lived_through(log: str, scrapers: list[Scraper]) -> None:
    """There were failures and reloads of both kinds, and no defect."""
    text = scrapers[0].last.text if scrapers[0].last else ""
    failures = re.findall(
        r'^exophone_poll_failures_total\{.*reason="(.*)"\} (.*)$', text, re.MULTILINE
    )
    seen = {reason for reason, value in failures if float(value)}
    print(f"{polls_seen(scrapers[0])} polls; failures {sorted(seen)}")  # noqa: T201 - likewise
    assert seen >= {"timeout", "auth", "server", "status", "bad_body", "envelope"}
    assert "internal" not in seen
    assert "the configuration was reloaded" in log
    assert "the configuration was not reloaded" in log
    assert not re.findall(r".*(?:traceback|a defect|died).*", log)
