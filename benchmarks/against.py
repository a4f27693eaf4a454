"""What changed in speed and memory since another revision: both programs, side by side in one run.

    python benchmarks/against.py REVISION [--write]

The revision and the working tree are installed, each with its own constraints, into environments of
their own under .venv/against. They take turns at polling the simulator. Only what is promised is
used of them, the command line, the configuration file and HTTP, so that any older version will do.
Takes about five minutes; `--write` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import queue
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import load
import subjects
from tables import Table, amount, ratio_text, write

from exophone_exporter.simulator import RecordedRequest, Simulator, World, make_account

_ROOT: Final = Path(__file__).parent.parent
_INSTALLED: Final = _ROOT / ".venv" / "against"
_NUMBERS: Final = 10_000
_ROUNDS: Final = 5
_POLLS: Final = 5
_NEXT_POLL_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Cost:
    """One figure of one program in one round, in seconds or bytes; `unit` is how it is shown."""

    what: str
    value: float
    unit: str


@dataclass
class Api:
    """The vendor's API as a program sees it; tells when a poll begins, by its first page.

    While `changing`, every number has another name in each poll.
    """

    numbers: int = _NUMBERS
    changing: bool = False

    def __post_init__(self) -> None:
        self._begun: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._account = make_account("acme", self.numbers)
        self._names = [number["friendly_name"] for number in self._account.numbers]
        self._polls = 0

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        """Its URL while the block runs."""
        with Simulator(World(self._account)) as simulator:
            simulator.on_request = self._notice
            yield simulator.url

    def _notice(self, request: RecordedRequest) -> None:
        if request.query.get("Page", "0") != "0":
            return
        self._polls += 1
        if self.changing:
            with self._account.lock:
                for number, name in zip(self._account.numbers, self._names, strict=True):
                    number["friendly_name"] = f"{name} {self._polls % 10}"
        self._begun.put(None)

    def forget(self) -> int:
        """How many polls have begun that nobody waited for; from now on others are waited for."""
        forgotten = 0
        while not self._begun.empty():
            self._begun.get()
            forgotten += 1
        return forgotten

    def wait_for_polls(self, count: int) -> None:
        """Return when so many have begun."""
        for _ in range(count):
            self._begun.get(timeout=_NEXT_POLL_SECONDS)


def commit_of(revision: str) -> str:
    """The commit that a revision names; ends the program if there is no such commit."""
    words = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    found = _git(*words)
    if found.returncode:
        sys.exit(f"against.py: {revision} is not a revision of this repository")
    return found.stdout.decode().strip()


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, check=False)  # noqa: S607 - the git on the PATH


def installed_revision(commit: str) -> Path:
    """The program as it was at a commit, installed once."""
    folder = _INSTALLED / commit
    program = folder / "bin" / "exophone-exporter"
    if not program.exists():
        with tempfile.TemporaryDirectory() as source:
            archive = io.BytesIO(_git("archive", commit).stdout)
            with tarfile.open(fileobj=archive) as files:
                files.extractall(source, filter="data")
            _install(Path(source), folder)
    return program


def installed_now() -> Path:
    """The program of this work tree, installed like the other one: not editable, alone."""
    folder = _INSTALLED / "now"
    _install(_ROOT, folder)
    return folder / "bin" / "exophone-exporter"


def _install(source: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pinned = ["--constraint", str(source / "constraints.txt")]
    done = subprocess.run([*pip, "install", *pinned, str(source)], check=False)
    if done.returncode:
        sys.exit(f"against.py: {folder.name} cannot be installed; pip has said why")


def costs_of(program: Path) -> list[Cost]:
    """One round: once with a single poll, then with a poll every second."""
    api = Api()
    with api.served() as api_url:
        with _started(program, api_url, "1d") as (ours, first_answer_seconds):
            load.wrk(ours.url, 1, 1)
            scrape_seconds = load.wrk(ours.url, 1, 3).seconds_a_request
        with _started(program, api_url, "1s") as (ours, _):
            unchanged_seconds = _poll_seconds(api, ours)
            api.changing = True
            changed_seconds = _poll_seconds(api, ours)
            p99_seconds = load.wrk(ours.url, 1, 8).p99_seconds
            _hold_that_all_changed(ours)
            private_bytes = ours.resident_bytes()
    version_seconds = min(_version_seconds(program) for _ in range(5))
    return [
        Cost("a scrape, gzip, 1 client", scrape_seconds, "ms"),
        Cost("p99 of a scrape while every number changes", p99_seconds, "ms"),
        Cost("CPU of a poll that found nothing changed", unchanged_seconds, "ms"),
        Cost("CPU of a poll that found every number changed", changed_seconds, "ms"),
        Cost("memory of the process after that", private_bytes, "MB"),
        Cost("from the start to the first answer", first_answer_seconds, "ms"),
        Cost("--version", version_seconds, "ms"),
    ]


@contextlib.contextmanager
def _started(program: Path, api_url: str, interval: str) -> Iterator[tuple[subjects.Served, float]]:
    """The program after its first poll, and how long its first answer took."""
    url = f"http://127.0.0.1:{subjects.free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exophone.yml"
        file.write_text(
            f"poll: {{interval: {interval}, stale_after: 2d, requests_per_minute: 100000}}\n"
            f"accounts:\n  - {{name: acme, sid: acme, base_url: '{api_url}',"
            " api_key: acme-key, api_token: acme-token}\n",
            encoding="utf-8",
        )
        words = [str(program), "--config.file", str(file), "--log.level=error"]
        words += ["--web.listen-address", url.removeprefix("http://")]
        began = time.perf_counter()
        with subjects.process(words) as process:
            served = subjects.when_ready(f"{url}/metrics", process)
            first_answer_seconds = time.perf_counter() - began
            subjects.when_ready(f"{url}/-/ready", process)
            yield served, first_answer_seconds


def _poll_seconds(api: Api, ours: subjects.Served) -> float:
    """CPU from the begin of a poll to that of the next: requests, reading, rendering, serving."""
    api.forget()
    api.wait_for_polls(1)
    before = sum(ours.cpu_seconds())
    api.wait_for_polls(_POLLS)
    return (sum(ours.cpu_seconds()) - before) / _POLLS


def _hold_that_all_changed(ours: subjects.Served) -> None:
    text = subjects.fetch(ours.url, "identity").decode()
    changes = re.search(r'(?m)^exophone_number_changes_total\{.*change="other".*\} (\S+)$', text)
    if changes is None or float(changes[1]) < _POLLS * _NUMBERS:
        raise RuntimeError("not every number changed from poll to poll")


def _version_seconds(program: Path) -> float:
    began = time.perf_counter()
    subprocess.run([str(program), "--version"], check=True, stdout=subprocess.DEVNULL, timeout=20)
    return time.perf_counter() - began


def table(revision: str, then: list[list[Cost]], now: list[list[Cost]]) -> Table:
    """The least of each program's rounds, and how they compare.

    The least, since whatever else the machine does only adds to it, and seldom to both alike.
    """
    rows = []
    for olds, news in zip(zip(*then, strict=True), zip(*now, strict=True), strict=True):
        what, unit = olds[0].what, olds[0].unit
        old, new = (min(cost.value for cost in costs) for costs in (olds, news))
        rows.append((what, amount(old, unit), amount(new, unit), ratio_text(new / old)))
    return Table(("what", revision, "now", "ratio"), rows, "lrrr")


def main() -> None:
    """Measure by turns; print as it goes and the table at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("revision", help="a tag, a branch or a commit")
    parser.add_argument("--write", action="store_true", help="write the table into the document")
    args = parser.parse_args()
    commit = commit_of(args.revision)
    if subjects.missing("wrk"):
        sys.exit("against.py: wrk is not installed")
    then: list[list[Cost]] = []
    now: list[list[Cost]] = []
    turns = ((args.revision, installed_revision(commit), then), ("now", installed_now(), now))
    for count in range(1, _ROUNDS + 1):
        for name, program, rounds in turns:
            _tell(f"round {count} of {_ROUNDS}: {name}")
            rounds.append(costs_of(program))
    compared = table(args.revision, then, now)
    _tell("", *compared.aligned())
    if args.write:
        write("since", compared)


def _tell(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
