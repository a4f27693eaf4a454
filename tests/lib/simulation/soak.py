"""A day in a minute: an API with random faults, clients of every kind, and what the process holds.

Everything random follows from one seed; the program under test is a process of its own.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import re
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from exophone_exporter.simulator import Fault, Simulator

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from exophone_exporter.simulator.server import RecordedRequest

_GARBAGE_BYTES: Final = 20_000
_WHOLE_PARSE_EVERY: Final = 100
_COUNTING: Final = ("_total", "_bucket", "_count", "_sum")
_GONE: Final = -1.0
# As long as the server keeps what it rendered of itself.
_KEPT_SECONDS: Final = 1.0


# ---- the API on a bad day


def _bodies(rng: random.Random) -> tuple[bytes, ...]:
    return (
        b"",
        b"<html><h1>Welcome to the hotel</h1></html>",
        rng.randbytes(_GARBAGE_BYTES),
        b"[" * _GARBAGE_BYTES,
        b'{"page": 0, "incoming_phone_numbers": [{"sid": "a", ',
        b'{"page": 0, "incoming_phone_numbers": [17, null, "x"]}',
        b'{"page": %b, "incoming_phone_numbers": []}' % (b"9" * 5000),
        b'{"http_code": 409, "response": {"code": 409, "error_data": {"message": "no"}}}',
    )


def bad_answer(rng: random.Random) -> Fault:
    """One of the failures that a client meets: statuses, resets, cuts, silence, garbage."""
    whole = b'{"page": 0, "incoming_phone_numbers": [' + b" " * 3000
    return rng.choice(
        (
            Fault(status=500),
            Fault(status=502, body=b"<html>no gateway</html>"),
            Fault(status=503, headers={"Retry-After": "0"}),
            Fault(status=429, headers={"Retry-After": "1"}),
            Fault(status=429),
            Fault(status=401),
            Fault(status=302, headers={"Location": "http://elsewhere.example/"}),
            Fault(after="reset"),
            Fault(after="hang"),
            Fault(status=500, delay_seconds=rng.uniform(0, 0.15)),
            Fault(status=200, body=whole, headers={"Content-Length": "9000"}),
            Fault(
                status=200,
                body=gzip.compress(rng.randbytes(3000))[:-1000],
                headers={"Content-Encoding": "gzip"},
            ),
            Fault(status=200, body=rng.choice(_bodies(rng))),
        )
    )


class BadDays:
    """Lets a simulator fail, be slow and change its world; at random, before each list request."""

    def __init__(self, simulator: Simulator, rng: random.Random, share: float) -> None:
        self._simulator = simulator
        self._rng = rng
        self._share = share
        self._lock = threading.Lock()
        self._slow = threading.Event()
        simulator.on_request = self._on_request

    def _on_request(self, request: RecordedRequest) -> None:
        with self._lock:
            fault = bad_answer(self._rng) if self._rng.random() < self._share else None
            slow_seconds = self._rng.uniform(0, 0.1) if self._rng.random() < self._share else 0.0
            if self._rng.random() < self._share:
                self._simulator.world.tick()
            on_detail = self._rng.random() < self._share
        if fault is not None:
            fault.account_sid = request.account_sid
            fault.endpoint = "detail" if on_detail else "list"
            self._simulator.fail(fault)
        if slow_seconds:
            self._slow.wait(slow_seconds)  # never set: a wait


# ---- clients


class Exposition(NamedTuple):
    """One scrape: when it was asked for and when it came, by the monotonic clock."""

    openmetrics: bool
    text: str
    asked_at: float
    came_at: float


class _Followed:
    """Counters of one format, which never go back from one scrape to one a second later.

    What is rendered serves for up to a second in its format, and another thread may have rendered
    meanwhile: whoever asks sooner may be given either.
    """

    def __init__(self) -> None:
        self._old: tuple[float, Mapping[str, float]] = (0.0, {})
        self._next: tuple[float, Mapping[str, float]] = (0.0, {})

    def follow(self, exposition: Exposition, counters: Mapping[str, float]) -> None:
        """Compare with the newest that came a second before this one was asked for."""
        if exposition.asked_at - self._next[0] >= _KEPT_SECONDS:
            self._old, self._next = self._next, (exposition.came_at, counters)
        old = self._old[1]
        back = {s: value for s, value in old.items() if counters.get(s, _GONE) < value}
        assert not back, {series: (value, counters.get(series)) for series, value in back.items()}


class Checker:
    """Looks at the expositions that one client gets one after the other.

    Each line is read by the parser of prometheus_client when it is first seen, each hundredth
    exposition as a whole; between them most lines are the same.
    """

    def __init__(self) -> None:
        self.checked = 0
        self._read: dict[str, tuple[str, float] | None] = {}
        self._followed = {False: _Followed(), True: _Followed()}

    def check(self, exposition: Exposition) -> None:
        """It is complete, every line is one of the format, and no counter went back."""
        lines = exposition.text.split("\n")
        assert lines.pop() == "", exposition.text[-100:]
        if exposition.openmetrics:
            assert lines.pop() == "# EOF"
        assert lines[-1].startswith("python_gc_collections_total{"), lines[-1]  # the last of all
        counters = dict(self._counters(lines))
        self._followed[exposition.openmetrics].follow(exposition, counters)
        if self.checked % _WHOLE_PARSE_EVERY == 0:
            _parse(exposition)
        self.checked += 1

    def _counters(self, lines: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Series and value of each counter. Lines of the last scrape need no second look."""
        known, self._read = self._read, {}
        for line in lines:
            counter = known[line] if line in known else _counter(line)
            self._read[line] = counter
            if counter is not None:
                yield counter


def _counter(line: str) -> tuple[str, float] | None:
    """Series and value of a line that is one of a counter; every other must be of the format."""
    if line.startswith("# "):
        assert re.match("# (?:HELP|TYPE) [a-z_]+ ", line), line
        return None
    (family,) = text_string_to_metric_families(f"{line}\n")
    (sample,) = family.samples
    return (line.rpartition(" ")[0], sample.value) if sample.name.endswith(_COUNTING) else None


def _parse(exposition: Exposition) -> None:
    if exposition.openmetrics:
        families = list(openmetrics_parser.text_string_to_metric_families(exposition.text))  # type: ignore[no-untyped-call]  # it has no types
    else:
        families = list(text_string_to_metric_families(exposition.text))
    names = [family.name for family in families]
    assert len(names) == len({*names})
    assert "exophone_polls" in names


@dataclass(eq=False, repr=False)
class Scraper(threading.Thread):
    """Scrapes until told to stop: in both formats, compressed or not, on old or new connections.

    Now and then it leaves in the middle. `error` is why it ended before its time.
    """

    port: int
    rng: random.Random
    pause_seconds: float
    stopping: threading.Event
    checker: Checker = field(default_factory=Checker)
    error: BaseException | None = None
    last: Exposition | None = None

    def __post_init__(self) -> None:
        super().__init__(name="scraper", daemon=True)

    def run(self) -> None:
        """Scrape, and check what comes."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            while not self.stopping.wait(self.rng.uniform(0, 2 * self.pause_seconds)):
                if self.rng.random() < 0.05:
                    client.close()
                if self.rng.random() < 0.03:
                    self._leave_in_the_middle()
                else:
                    self.last = self._scrape(client)
                    self.checker.check(self.last)
        except BaseException as error:  # noqa: BLE001 - raised again by the test
            self.error = error
        finally:
            client.close()

    def _scrape(self, client: http.client.HTTPConnection) -> Exposition:
        openmetrics, gzipped = self.rng.random() < 0.5, self.rng.random() < 0.5
        asked_at = time.monotonic()
        client.request("GET", "/metrics", headers=_headers(openmetrics, gzipped))
        answer = client.getresponse()
        body = answer.read()
        assert answer.status == 200
        assert (answer.headers["Content-Encoding"] == "gzip") is gzipped
        kind = "application/openmetrics-text" if openmetrics else "text/plain"
        assert answer.headers["Content-Type"].startswith(kind)
        text = (gzip.decompress(body) if gzipped else body).decode()
        return Exposition(openmetrics, text, asked_at, time.monotonic())

    def _leave_in_the_middle(self) -> None:
        leaving = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(leaving):
            leaving.request("GET", "/metrics")
            leaving.sock.recv(self.rng.randrange(1, 500))


def _headers(openmetrics: bool, gzipped: bool) -> Mapping[str, str]:
    accept = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain"
    return {"Accept": accept, "Accept-Encoding": "gzip" if gzipped else "identity"}


# ---- what the process holds


class Holding(NamedTuple):
    """What a process holds at one moment."""

    descriptors: int
    threads: int
    resident_kib: int


def holding(pid: int) -> Holding:
    """Of a process now, as Linux has it."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    threads, resident = (
        int(re.findall(rf"^{name}:\s+([0-9]+)", status, re.MULTILINE)[0])
        for name in ("Threads", "VmRSS")
    )
    return Holding(len([*Path(f"/proc/{pid}/fd").iterdir()]), threads, resident)


class Watch(threading.Thread):
    """Looks at a process now and then."""

    def __init__(self, pid: int, stopping: threading.Event, every_seconds: float) -> None:
        super().__init__(name="watch", daemon=True)
        self.samples: list[Holding] = []
        self._pid = pid
        self._stopping = stopping
        self._every_seconds = every_seconds

    def run(self) -> None:
        """Look until told to stop."""
        while not self._stopping.wait(self._every_seconds):
            self.samples.append(holding(self._pid))

    def growth(self) -> Holding:
        """From the second quarter of what was seen to the last, by their medians."""
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return Holding(*map(_growth, zip(*second, strict=True), zip(*last, strict=True)))


def _growth(before: Sequence[int], after: Sequence[int]) -> int:
    return round(statistics.median(after) - statistics.median(before))


def run_until(true: Callable[[], bool], scrapers: Sequence[Scraper], seconds: float) -> None:
    """Wait until something is true, at most so many seconds, while every scraper is content."""
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    try:
        while not true():
            assert not over.is_set(), f"not within {seconds} s"
            for scraper in scrapers:
                if scraper.error is not None:
                    raise scraper.error
            over.wait(0.2)
    finally:
        timer.cancel()
