"""Loads of a bounded time: wrk for throughput, sockets of our own for clients that misbehave."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from subjects import fetch

# By then the system has taken what it takes of an answer immediately.
_SETTLED_SECONDS: Final = 1.0
_WINDOW_BYTES: Final = 4096
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


def scrape_seconds(url: str, count: int = 20, pause_seconds: float = 0.0) -> list[float]:
    """How long each of some scrapes took, one after the other."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        fetch(url)
        taken.append(time.perf_counter() - began)
        time.sleep(pause_seconds)
    return taken


@dataclass(frozen=True)
class Crowd:
    """So many clients that say something and read nothing, or a little now and then."""

    count: int
    first_words: bytes
    reads: bool = False


@contextlib.contextmanager
def crowds(url: str, *kinds: Crowd) -> Iterator[None]:
    """Connections that stay open, with small windows."""
    where = urlsplit(url)
    readers: list[socket.socket] = []

    def read() -> None:
        for client in readers:
            with contextlib.suppress(OSError):  # nothing yet, or it was cut off
                client.recv(_WINDOW_BYTES)

    with contextlib.ExitStack() as opened:
        for kind in kinds:
            for _ in range(kind.count):
                client = opened.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
                client.connect((where.hostname, where.port))
                client.sendall(kind.first_words)
                if kind.reads:
                    client.setblocking(False)
                    readers.append(client)
        time.sleep(_SETTLED_SECONDS)
        with _repeated(read, 0.1):
            yield


@contextlib.contextmanager
def hellos(url: str, first_words: bytes, a_second: float) -> Iterator[None]:
    """New connections all the time that say this, and nothing more."""
    where = urlsplit(url)
    with contextlib.ExitStack() as opened:

        def connect() -> None:
            client = socket.create_connection((where.hostname, where.port))
            opened.enter_context(client).sendall(first_words)

        with _repeated(connect, 1 / a_second):
            time.sleep(_SETTLED_SECONDS)
            yield


def hello(group: str) -> bytes:
    """What openssl says first as a client that offers a key of this group."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ["openssl", "s_client", "-tls1_3", "-groups", group]
        words += ["-connect", f"127.0.0.1:{listener.getsockname()[1]}"]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as client:
            accepted, _ = listener.accept()
            with accepted:
                said = accepted.recv(65536)
            client.kill()
    return said


@contextlib.contextmanager
def _repeated(do: Callable[[], None], every_seconds: float) -> Iterator[None]:
    """Do something again and again in a thread while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every_seconds):
            do()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
