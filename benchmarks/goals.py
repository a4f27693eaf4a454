"""Every goal of docs/performance.md, measured beside its anchor in one run.

    python benchmarks/goals.py [--goal N ...] [--write]

Prints goal by goal the figure, the anchor, the ratio, and whether the goal is met; then what it
costs as the work grows. Where a program is missing, what needs it is left out with a word. The
whole takes about ten minutes; `--write` puts the tables and the plot into docs/performance.md.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import growth
import load
import subjects
from in_process import poll_cpu, rendering
from served import PAGE_SIZE

from exophone_exporter.simulator import Simulator, World, make_account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "performance.md"
TEN_THOUSAND: Final = 10_000
_ROUNDS: Final = 3
_PROGRAM: Final = [sys.executable, "-m", "exophone_exporter"]


@dataclass(frozen=True)
class Result:
    """One figure beside its anchor: a time, a size or a ratio, in the words that are printed."""

    goal: int
    what: str
    figure: str
    anchor: str
    ratio: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """Whether the goal is met; nothing where there is none."""
        return {True: "met", False: "missed", None: ""}[self.met]


def scrape_beside_others(folder: Path) -> Iterator[Result]:
    """Goal 1: at least as fast as nginx with a file, and 1,000 times as fast as node_exporter."""
    with subjects.exporter(TEN_THOUSAND) as ours:
        gzipped = subjects.fetch(ours.url)
        text = gzip.decompress(gzipped)
        with (
            subjects.nginx(folder, text, gzipped) as nginx,
            subjects.node_exporter(folder, text) as node,
        ):
            for clients in (1, 32):
                yield from _scrape_by(clients, ours, nginx, node)


def _scrape_by(
    clients: int, ours: subjects.Served, nginx: subjects.Served, node: subjects.Served
) -> Iterator[Result]:
    taken: dict[str, list[float]] = {"ours": [], "nginx": [], "node": []}
    for _ in range(_ROUNDS):
        taken["ours"].append(load.wrk(ours.url, clients, 3).seconds_a_request)
        taken["nginx"].append(load.wrk(nginx.url, clients, 3).seconds_a_request)
        if clients == 1:  # by 32 it is so slow that none has an answer in ten seconds
            taken["node"].append(load.wrk(node.url, clients, 4).seconds_a_request)
    figure, file = (statistics.median(taken[name]) for name in ("ours", "nginx"))
    what = f"scrape, 10,000 numbers, gzip, {clients} client{'s' * (clients > 1)}"
    beside = f"nginx, a file: {_ms(file)}"
    yield Result(1, what, _ms(figure), beside, f"{file / figure:.2f}", figure <= file)
    if clients == 1:
        textfile = statistics.median(taken["node"])
        ratio, beside = textfile / figure, f"node_exporter: {_ms(textfile)}"
        yield Result(1, what, _ms(figure), beside, f"{ratio:,.0f}", ratio >= 1000)


def cpu_a_scrape(_: Path) -> Iterator[Result]:
    """Goal 2: under 1 ms of CPU at 10,000 numbers; the program's own part does not grow."""
    own: dict[int, float] = {}
    for numbers in (1000, TEN_THOUSAND, 100_000):
        with subjects.exporter(numbers) as ours:
            load.wrk(ours.url, 1, 1)
            before = ours.cpu_seconds()
            done = load.wrk(ours.url, 1, 4).requests
            used = [
                (now - then) / done for now, then in zip(ours.cpu_seconds(), before, strict=True)
            ]
        own[numbers] = used[0]
        yield Result(
            2,
            f"CPU of a scrape, {numbers:,} numbers (program + system)",
            f"{_ms(used[0])} + {_ms(used[1])}",
            f"program at 1,000: {_ms(own[1000])}",
            f"{used[0] / own[1000]:.2f}",
            sum(used) < 0.001 if numbers == TEN_THOUSAND else None,
        )


def rendering_and_unchanged_polls(_: Path) -> Iterator[Result]:
    """Goal 3: 12 times as fast as the reference, byte for byte; nothing changed costs a tenth."""
    ours, reference, ratio = rendering(TEN_THOUSAND)
    yield Result(
        3,
        "rendering 10,000 numbers",
        _ms(ours),
        f"generate_latest: {_ms(reference)}",
        f"{ratio:.1f}",
        ratio >= 12,
    )
    unchanged, changed = poll_cpu(TEN_THOUSAND)
    yield Result(
        3,
        "CPU of a poll that found nothing changed, without the wire",
        _ms(unchanged),
        f"everything changed: {_ms(changed)}",
        f"{unchanged / changed:.2f}",
        unchanged <= changed / 10,
    )


def scrape_while_rendering(_: Path) -> Iterator[Result]:
    """Goal 4: p99 under 5 ms with 10,000 numbers, 25 ms with 100,000, while all of them change."""
    for numbers, limit_seconds in ((TEN_THOUSAND, 0.005), (100_000, 0.025)):
        with subjects.exporter(numbers) as idle:
            load.wrk(idle.url, 1, 2)
            rest = load.wrk(idle.url, 1, 3).p99_seconds
        with subjects.exporter(numbers, busy=True) as busy:
            p99 = statistics.median(load.wrk(busy.url, 1, 8).p99_seconds for _ in range(_ROUNDS))
        what = f"p99 of a scrape while {numbers:,} numbers are read and rendered"
        yield Result(
            4, what, _ms(p99), f"at rest: {_ms(rest)}", f"{p99 / rest:.1f}", p99 < limit_seconds
        )


def walk(_: Path) -> Iterator[Result]:
    """Goal 5: at most 1.05 times what round trips, or the budget, allow."""
    pages = 100
    with Simulator(World(make_account("acme", pages * PAGE_SIZE)), latency_seconds=0.05) as api:
        taken = _poll_seconds(api, "requests_per_minute: 100000")
        limit = _round_trips_seconds(api, pages)
    yield Result(
        5,
        f"a walk of {pages} pages, 50 ms each",
        f"{taken:.2f} s",
        f"raw requests: {limit:.2f} s",
        f"{taken / limit:.3f}",
        taken <= 1.05 * limit,
    )
    with Simulator(World(make_account("acme", 55 * PAGE_SIZE))) as api:
        taken = _poll_seconds(api, "requests_per_minute: 50")
    yield Result(
        5,
        "a walk of 55 pages at 50 requests a minute",
        f"{taken:.2f} s",
        "the budget: 61.00 s",
        f"{taken / 61:.3f}",
        taken <= 1.05 * 61,
    )


def _poll_seconds(api: Simulator, poll: str) -> float:
    """How long one poll of the program took, as it says itself."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exophone.yml"
        file.write_text(
            f"poll: {{{poll}}}\naccounts:\n  - {{name: acme, sid: acme, base_url: {api.url},"
            " api_key: acme-key, api_token: acme-token}\n",
            encoding="utf-8",
        )
        words = [*_PROGRAM, "once", "--config.file", str(file)]
        said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=200).stdout
    found = [row for row in said.splitlines() if row.startswith("exophone_poll_duration_seconds{")]
    return float(found[0].split()[1])


def _round_trips_seconds(api: Simulator, pages: int) -> float:
    """The same requests, one after the other on one connection, by the standard library."""
    host = api.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    began = time.perf_counter()
    for index in range(pages):
        path = f"/v2_beta/Accounts/acme/IncomingPhoneNumbers?Page={index}&PageSize={PAGE_SIZE}"
        connection.request(
            "GET", path, headers={"Authorization": "Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="}
        )
        connection.getresponse().read()
    connection.close()
    return time.perf_counter() - began


def memory(_: Path) -> Iterator[Result]:
    """Goal 6: at most 2.5 kB a number, with all series, text and gzip, after many changes."""
    with subjects.exporter(0, busy=True) as nothing:
        time.sleep(2)
        empty = nothing.resident_bytes()
    for numbers in (TEN_THOUSAND, 100_000):
        with subjects.exporter(numbers) as ours:
            load.wrk(ours.url, 1, 1)
            subjects.fetch(ours.url, "identity")
            each = (ours.resident_bytes() - empty) / numbers
        yield Result(
            6,
            f"memory of one of {numbers:,} numbers",
            f"{each:,.0f} B",
            "goal: 2,500 B",
            f"{each / 2500:.2f}",
            each <= 2500,
        )


def start(_: Path) -> Iterator[Result]:
    """Goal 7: the first answer within 0.6 s of the start, --version within 0.2 s."""
    with Simulator(World(make_account("acme", 50))) as api:
        first = statistics.median(_first_answer_seconds(api) for _ in range(7))
    yield Result(
        7,
        "from the start to the first answer",
        f"{first:.2f} s",
        "goal: 0.6 s",
        f"{first / 0.6:.2f}",
        first < 0.6,
    )
    version = statistics.median(_version_seconds() for _ in range(7))
    yield Result(
        7, "--version", f"{version:.2f} s", "goal: 0.2 s", f"{version / 0.2:.2f}", version < 0.2
    )


def _first_answer_seconds(api: Simulator) -> float:
    port = subjects.free_port()
    environ = {
        "EXOTEL_ACCOUNT_SID": "acme",
        "EXOTEL_API_KEY": "acme-key",
        "EXOTEL_API_TOKEN": "acme-token",
        "EXOTEL_BASE_URL": api.url,
    }
    words = [*_PROGRAM, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    began = time.perf_counter()
    with subjects.process(words, environ=environ) as process:
        subjects.when_ready(f"http://127.0.0.1:{port}/metrics", process)
        return time.perf_counter() - began


def _version_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([*_PROGRAM, "--version"], check=True, stdout=subprocess.DEVNULL, timeout=20)
    return time.perf_counter() - began


def idle_and_slow_clients(_: Path) -> Iterator[Result]:
    """Goal 8: a scrape within 50 ms beside 200 idle clients or 100 slow ones, for under 30 MB.

    By default 40 requests are in flight at most, and who comes while slow readers hold them all is
    told to come back; here there may be more.
    """
    half = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    crowds = (
        ("200 idle connections", 200, b"", 0),
        ("200 half-sent requests", 200, half, 0),
        ("100 clients that read slowly", 100, half + b"\r\n", 4096),
    )
    with subjects.exporter(TEN_THOUSAND, max_requests=200) as ours:
        load.scrape_seconds(ours.url)
        for what, count, words, window in crowds:
            before = ours.resident_bytes()
            with load.clients(ours.url, count, words, window):
                worst = max(load.scrape_seconds(ours.url))
                added = ours.resident_bytes() - before
            yield Result(
                8,
                f"slowest of 20 scrapes beside {what}",
                _ms(worst),
                "goal: 50 ms",
                f"{worst / 0.05:.2f}",
                worst < 0.05,
            )
            yield Result(
                8,
                f"memory of {what}",
                f"{added / 1e6:.1f} MB",
                "goal: 30 MB",
                f"{added / 30e6:.2f}",
                added < 30e6,
            )


GOALS: Final[dict[int, tuple[Callable[[Path], Iterator[Result]], tuple[str, ...]]]] = {
    1: (scrape_beside_others, ("wrk", "nginx", "prometheus-node-exporter")),
    2: (cpu_a_scrape, ("wrk",)),
    3: (rendering_and_unchanged_polls, ()),
    4: (scrape_while_rendering, ("wrk",)),
    5: (walk, ()),
    6: (memory, ("wrk",)),
    7: (start, ()),
    8: (idle_and_slow_clients, ()),
}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def measured(goals: list[int]) -> Iterator[Result]:
    """The results, each as soon as it is there."""
    for goal in goals:
        measure, programs = GOALS[goal]
        absent = subjects.missing(*programs)
        if absent:
            yield Result(goal, f"left out: {', '.join(absent)} not installed", "", "", "", None)
            continue
        with tempfile.TemporaryDirectory() as folder:
            yield from measure(Path(folder))


def tell(result: Result) -> None:
    """One result on a line."""
    sys.stdout.write(
        f"{result.goal} {result.what:62} {result.figure:>18}  {result.anchor:30}"
        f" {result.ratio:>7}  {result.verdict}\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Print the results as they come; with `--write`, the documentation too."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--goal", type=int, action="append", choices=GOALS, help="only this goal")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md anew")
    args = parser.parse_args()
    results = []
    for result in measured(args.goal or [*GOALS]):
        tell(result)
        results.append(result)
    if args.goal:
        return
    rows = [*growth.costs()]
    sys.stdout.write("\n".join(["", *growth.table(rows), ""]))
    if args.write:
        _write(results, rows)


def _write(results: list[Result], rows: list[growth.Cost]) -> None:
    """The tables between the marks of the document, and the plot beside it."""
    table = ["| goal | what | figure | beside | ratio | |", "|--:|---|--:|---|--:|---|"]
    table += [
        f"| {each.goal} | {each.what} | {each.figure} | {each.anchor} | {each.ratio} |"
        f" {each.verdict} |"
        for each in results
    ]
    text = DOCUMENT.read_text("utf-8")
    for mark, lines in (("goals", table), ("growth", growth.table(rows))):
        begin, end = f"<!-- {mark}:begin -->\n", f"<!-- {mark}:end -->"
        head, _, rest = text.partition(begin)
        text = head + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    DOCUMENT.write_text(text, encoding="utf-8")
    growth.plot(rows, DOCUMENT.with_suffix(".svg"))


if __name__ == "__main__":
    main()
