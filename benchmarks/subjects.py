"""What is measured and what it is measured against, each a process of its own on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
_OPENER: Final = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323, SLF001 - our own server
)
_READY_SECONDS: Final = 120.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")

_NGINX: Final = """\
daemon off;
worker_processes 1;
error_log stderr crit;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    gzip_static on;
    default_type text/plain;
  }}
}}
"""


@dataclass(frozen=True)
class Served:
    """A process that serves: where, and what it has used so far."""

    url: str
    pid: int

    def cpu_seconds(self) -> tuple[float, float]:
        """Processor time in the program and in the system for it, of all its threads."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return int(stat[11]) / _TICKS, int(stat[12]) / _TICKS

    def resident_bytes(self) -> int:
        """Memory that is its own."""
        rows = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(int(row.split()[1]) * 1024 for row in rows if row.startswith("Private_"))


def fetch(url: str, encoding: str = "gzip") -> bytes:
    """The body of one answer, as it came."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": encoding})  # noqa: S310 - our own URL
    with _OPENER.open(request, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def missing(*programs: str) -> list[str]:
    """Those that are not installed."""
    return [program for program in programs if shutil.which(program) is None]


@contextlib.contextmanager
def exporter(
    numbers: int, accounts: int = 1, *, busy: bool = False, web_config: Path | None = None
) -> Iterator[Served]:
    """Our exporter with so many numbers in each account, after its first polls."""
    words = [sys.executable, str(HERE / "served.py"), f"--numbers={numbers}"]
    words += [f"--accounts={accounts}"]
    words += ["--busy"] if busy else []
    words += [f"--web-config={web_config}"] if web_config else []
    with process(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None  # noqa: S101 - it was asked for
        url = running.stdout.readline().decode().strip()
        yield Served(f"{url}/metrics", running.pid)


@contextlib.contextmanager
def nginx(folder: Path, text: bytes, gzipped: bytes) -> Iterator[Served]:
    """Nginx with one worker, serving these bytes as files."""
    folder.chmod(0o755)  # started by root, its worker is somebody else
    (folder / "metrics").write_bytes(text)
    (folder / "metrics.gz").write_bytes(gzipped)
    file, port = folder / "nginx.conf", free_port()
    file.write_text(_NGINX.format(folder=folder, port=port), encoding="utf-8")
    program = shutil.which("nginx") or "nginx"
    words = [program, "-c", str(file), "-p", str(folder)]
    with process(words, stderr=subprocess.DEVNULL) as running:  # it complains of wrk
        yield when_ready(f"http://127.0.0.1:{port}/metrics", running)


@contextlib.contextmanager
def node_exporter(folder: Path, text: bytes) -> Iterator[Served]:
    """node_exporter whose textfile collector, and no other, serves these series."""
    lines = [line for line in text.splitlines(keepends=True) if b"exophone_" in line]
    (folder / "exophone.prom").write_bytes(b"".join(lines))
    port = free_port()
    words = [
        "prometheus-node-exporter",
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={folder}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with process(words, stderr=subprocess.DEVNULL) as running:  # likewise
        yield when_ready(f"http://127.0.0.1:{port}/metrics", running)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def when_ready(url: str, process: subprocess.Popen[bytes]) -> Served:
    """The process, as soon as it answers."""
    ends_at = time.monotonic() + _READY_SECONDS
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(OSError):
            fetch(url)
            return Served(url, process.pid)
        time.sleep(0.005)
    state = "runs" if process.poll() is None else f"ended with {process.returncode}"
    raise RuntimeError(f"nothing answers at {url}; what should {state}")


@contextlib.contextmanager
def process(
    words: Sequence[str],
    stdout: int = subprocess.DEVNULL,
    stderr: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block runs."""
    env = None if environ is None else {**os.environ, **environ}
    with subprocess.Popen(words, stdout=stdout, stderr=stderr, env=env) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(20)
