"""Loads of a bounded time: wrk for throughput, sockets of our own for clients that misbehave."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from subjects import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

# By then the system has taken what it takes of an answer immediately.
_SETTLED_SECONDS: Final = 1.0
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_LATENCY: Final = re.compile(r"^\s+(50|99)%\s+([0-9.]+)(us|ms|s|m)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers, seconds, and the time of one answer at two percentiles."""

    requests: int
    seconds: float
    p50_seconds: float
    p99_seconds: float

    @property
    def seconds_a_request(self) -> float:
        """Throughput, as the time that one answer takes of it."""
        return self.seconds / max(1, self.requests)


def wrk(url: str, clients: int, seconds: float) -> Load:
    """Scrapes by so many concurrent clients, each as soon as its last one is answered."""
    words = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout=60s", "--latency"]
    words += ["-H", "Accept-Encoding: gzip", url]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    counted = re.search(r"(\d+) requests in ([0-9.]+)(us|ms|s|m),", told)
    assert counted, told  # noqa: S101 - what wrk prints
    latency = {name: float(value) * _UNITS[unit] for name, value, unit in _LATENCY.findall(told)}
    spent = float(counted[2]) * _UNITS[counted[3]]
    return Load(int(counted[1]), spent, latency["50"], latency["99"])


def scrape_seconds(url: str, count: int = 20) -> list[float]:
    """How long each of some scrapes took, one after the other."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        fetch(url)
        taken.append(time.perf_counter() - began)
    return taken


@contextlib.contextmanager
def clients(url: str, count: int, first_words: bytes, receive_bytes: int = 0) -> Iterator[None]:
    """So many connections that say something and then nothing, and read none of the answer."""
    where = urlsplit(url)
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.socket())
            if receive_bytes:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            client.connect((where.hostname, where.port))
            client.sendall(first_words)
        time.sleep(_SETTLED_SECONDS)
        yield
