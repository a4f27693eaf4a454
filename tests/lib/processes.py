"""The real program as a process: started, waited for with a bound, and ended by its own pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from exophone_exporter.simulator import Simulator
from tests.lib import canary

DEADLINE_SECONDS = 60.0
LOOPBACK = "--web.listen-address=127.0.0.1:0"
PROGRAM = [sys.executable, "-m", "exophone_exporter"]
BIN = Path(sys.executable).parent
_CAPTURED: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
}
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str


def environment(**variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | variables


def run(
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    program: Sequence[str] = PROGRAM,
    **streams: Any,
) -> Ended:
    """The program from start to end; fails where a person would see a traceback or a secret."""
    done = subprocess.run(
        [*program, *words],
        env=environment(**(env or {})),
        cwd=cwd,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
        **(_CAPTURED | streams),
    )
    ended = Ended(done.returncode, done.stdout or "", done.stderr or "")
    assert "Traceback" not in ended.stderr, ended.stderr
    assert not canary.traces(ended.stdout + ended.stderr)
    return ended


def ended(*command: str | Path, seconds: float = 120, **options: Any) -> Ended:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds, **options
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def output_of(*command: str | Path, **options: Any) -> str:
    """What a tool says on stdout and then on stderr; it must succeed."""
    done = ended(*command, **options)
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_until(
    true: Callable[[], Any],
    what: str,
    seconds: float = DEADLINE_SECONDS,
    every: float = 0.005,
) -> Any:
    """The first true value of a function that is asked again and again."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        value = true()
        if value:
            return value
        threading.Event().wait(every)
    raise AssertionError(f"not within {seconds} s: {what}")


def get(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own http URL
    try:
        with _OPENER.open(request, timeout=DEADLINE_SECONDS) as answer:
            status, body = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read().decode()
    assert not canary.traces(body)
    return status, body


def can_get(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def ask(client: socket.socket) -> str:
    with client:
        client.settimeout(DEADLINE_SECONDS)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


class Running:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._said: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        return "".join(self._said["stdout"])

    @property
    def stderr(self) -> str:
        return "".join(self._said["stderr"])

    def wait_for(self, pattern: str, stream: str = "stderr") -> re.Match[str]:
        def found() -> re.Match[str] | None:
            match = re.search(pattern, "".join(self._said[stream]))
            assert match or self.process.poll() is None, f"it ended: {self.stderr}"
            return match

        match: re.Match[str] = wait_until(found, f"{pattern} in {stream}")
        return match

    def url(self) -> str:
        return self.wait_for(r"msg=listening url=\"?(http://[^\s\"]+)")[1]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(
        self, number: signal.Signals = signal.SIGTERM, seconds: float = DEADLINE_SECONDS
    ) -> int:
        """Send a signal; the exit code, which must come within so many seconds."""
        self.send(number)
        return self.code(seconds)

    def code(self, seconds: float = DEADLINE_SECONDS) -> int:
        """The exit code, which must come within so many seconds; nothing bad was seen."""
        code = self.process.wait(timeout=seconds)
        for reader in self._readers:
            reader.join(DEADLINE_SECONDS)
        assert "Traceback" not in self.stderr, self.stderr
        assert not canary.traces(self.stderr)
        return code

    def handles_signals(self) -> bool:
        """Whether the program's own handler for SIGTERM is in place, as Linux reports."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        caught = int(re.findall(r"SigCgt:\s*([0-9a-f]+)", status)[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def threads(self) -> int:
        return len([*Path(f"/proc/{self.pid}/task").iterdir()])

    def descriptors(self) -> int:
        return len([*Path(f"/proc/{self.pid}/fd").iterdir()])

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._said[name].append(line)


@contextlib.contextmanager
def started(
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    wrapper: str = "",
    program: Sequence[str] = PROGRAM,
    **streams: Any,
) -> Iterator[Running]:
    """The program while the block runs, then killed where it still lives.

    `wrapper` is a line of sh that ends with `exec "$@"`, the program.
    """
    process: subprocess.Popen[str] = subprocess.Popen(
        [*(("sh", "-c", wrapper, "sh") if wrapper else ()), *program, *words],
        env=environment(**(env or {})),
        cwd=cwd,
        text=True,
        **(_CAPTURED | streams),
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_SECONDS)
        for reader in running._readers:  # noqa: SLF001 - one thing in two halves
            reader.join(DEADLINE_SECONDS)


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """The end of a pipe that takes nothing more, though its reader is still there."""
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing):
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writing, b"x" * 4096):
                pass
        os.set_blocking(writing, True)
        yield writing


def config_file(path: Path, simulator: Simulator, poll: str = "", **extra: str) -> Path:
    """A configuration for every account of a simulator; `extra` are more keys by account sid."""
    lines = [f"poll: {{requests_per_minute: 10000{', ' if poll else ''}{poll}}}", "accounts:"]
    for account in simulator.world.accounts.values():
        more = extra.get(account.sid.replace("-", "_"), "")
        lines.append(
            f"  - {{name: {account.sid}, sid: {account.sid}, base_url: {simulator.url},"
            f" api_key: {account.api_key}, api_token: {account.api_token}"
            f"{', ' if more else ''}{more}}}"
        )
    file = path / "exophone.yml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
