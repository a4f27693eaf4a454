"""Every goal of docs/performance.md, measured with its anchor in one run, and that several times.

    python benchmarks/goals.py [--goal N ...] [--runs N] [--write]

Prints figure by figure what it is, its anchor, the ratio, and whether the goal is met; then the
median of the runs, what it costs as the work grows, and what a number costs by how it is kept.
Where a program is missing, what needs it is left out with a word. A run takes about four minutes;
`--write` makes three and puts the tables and the plot into docs/performance.md.
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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import growth
import load
import representation
import results
import subjects
import tables
import trustme
from in_process import https_poll_cpu, judging, poll_cpu, rendering
from results import Result
from served import PAGE_SIZE

from exophone_exporter.simulator import Simulator, World, make_account

TEN_THOUSAND: Final = 10_000
_RUNS_WRITTEN: Final = 3
_PROGRAM: Final = [sys.executable, "-m", "exophone_exporter"]


def scrape_and_others(folder: Path) -> Iterator[Result]:
    """Goal 1: near nginx with a file, and 1,000 times as fast as node_exporter."""
    for numbers, times in ((20, 8), (1000, 8), (TEN_THOUSAND, 4)):
        with subjects.exporter(numbers) as ours:
            gzipped = subjects.fetch(ours.url)
            text = gzip.decompress(gzipped)
            with subjects.nginx(folder, text, gzipped) as nginx:
                yield _against_nginx(numbers, 1, times, ours, nginx)
                yield _against_nginx(numbers, 32, 16, ours, nginx)
            if numbers == TEN_THOUSAND:
                with subjects.node_exporter(folder, text) as node:
                    yield _against_node_exporter(ours, node)


def _against_nginx(
    numbers: int, clients: int, times: int, ours: subjects.Served, nginx: subjects.Served
) -> Result:
    value, file = _means(clients, ours, nginx)
    what = f"scrape, {numbers:,} numbers, gzip, {clients} client{'s' * (clients > 1)}"
    return Result(1, what, value, "ms", "nginx, a file", file, value / file, value <= times * file)


def _against_node_exporter(ours: subjects.Served, node: subjects.Served) -> Result:
    """With one client: with 32 none has an answer of node_exporter in ten seconds."""
    value, text = _means(1, ours, node)
    what, ratio = f"scrape, {TEN_THOUSAND:,} numbers, gzip, 1 client", text / value
    return Result(1, what, value, "ms", "node_exporter", text, ratio, ratio >= 1000)


def _means(clients: int, *served: subjects.Served) -> list[float]:
    """The seconds of a request to each, measured in turns."""
    taken = [[load.wrk(each.url, clients, 3).seconds_a_request for each in served] for _ in "12"]
    return [statistics.mean(same) for same in zip(*taken, strict=True)]


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
        what = f"CPU of a scrape, {numbers:,} numbers"
        limit, met = 0.001, sum(used) < 0.001 if numbers == TEN_THOUSAND else None
        yield Result(2, what, sum(used), "ms", "goal at 10,000", limit, sum(used) / limit, met)
        least = own[1000]
        what = f"the program's part of it, {numbers:,} numbers"
        yield Result(2, what, used[0], "ms", "at 1,000", least, used[0] / least, None)


def rendering_a_snapshot(_: Path) -> Iterator[Result]:
    """Goal 3: 12 times as fast as the reference, byte for byte."""
    ours, reference, ratio = rendering(TEN_THOUSAND, rounds=9)
    what = "rendering 10,000 numbers"
    yield Result(3, what, ours, "ms", "generate_latest", reference, ratio, ratio >= 12)


def judging_by_rules(_: Path) -> Iterator[Result]:
    """Goal 11: 200 rules cost a first snapshot under 1 s, one with 100 changes under 10 ms."""
    first, changed = judging(TEN_THOUSAND, rules=200, changed=100)
    for what, value, limit in (("all", first, 1.0), ("100 of", changed, 0.01)):
        name = f"judging {what} 10,000 numbers by 200 rules"
        yield Result(11, name, value, "ms", "goal", limit, value / limit, value < limit)


def scrape_while_all_change(_: Path) -> Iterator[Result]:
    """Goal 5: p99 under 6 ms with 10,000 numbers, 25 ms with 100,000, while all of them change.

    Each load is long enough for a thousand answers and more, of which p99 leaves ten.
    """
    for numbers, limit, seconds in ((TEN_THOUSAND, 0.006, 8), (100_000, 0.025, 20)):
        with subjects.exporter(numbers) as idle:
            load.wrk(idle.url, 1, 1)
            rest = load.wrk(idle.url, 1, 3).p99_seconds
        with subjects.exporter(numbers, busy=True) as busy:
            load.wrk(busy.url, 1, 1)
            p99 = load.wrk(busy.url, 1, seconds).p99_seconds
        what = f"p99 of a scrape while {numbers:,} numbers change"
        yield Result(5, what, p99, "ms", "at rest", rest, p99 / rest, p99 < limit)


def walk(_: Path) -> Iterator[Result]:
    """Goal 6: at most 1.05 times what round trips, or the budget, allow."""
    pages = 100
    with Simulator(World(make_account("acme", pages * PAGE_SIZE)), latency_seconds=0.05) as api:
        taken = _poll_seconds(api, "requests_per_minute: 100000")
        limit = _round_trips_seconds(api, pages)
    what, ratio = f"a walk of {pages} pages, 50 ms each", taken / limit
    yield Result(6, what, taken, "s", "raw requests", limit, ratio, ratio <= 1.05)
    with Simulator(World(make_account("acme", 55 * PAGE_SIZE))) as api:
        taken = _poll_seconds(api, "requests_per_minute: 50")
    what, budget = "a walk of 55 pages at 50 requests a minute", 61.0
    yield Result(6, what, taken, "s", "the budget", budget, taken / budget, taken <= 1.05 * budget)


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
    """Goal 7: at most 2.5 kB a number, with all series, text and gzip, after many changes."""
    with subjects.exporter(0, busy=True) as nothing:
        time.sleep(2)
        empty = nothing.resident_bytes()
    for numbers in (TEN_THOUSAND, 100_000):
        with subjects.exporter(numbers) as ours:
            load.wrk(ours.url, 1, 1)
            subjects.fetch(ours.url, "identity")
            each = (ours.resident_bytes() - empty) / numbers
        yield _within(7, f"memory of one of {numbers:,} numbers", each, "B", 2500)


def start(_: Path) -> Iterator[Result]:
    """Goal 8: the first answer within 0.6 s of the start, --version within 0.2 s."""
    with Simulator(World(make_account("acme", 50))) as api:
        first = statistics.median(_first_answer_seconds(api) for _ in range(7))
    yield _within(8, "from the start to the first answer", first, "s", 0.6)
    version = statistics.median(_version_seconds() for _ in range(7))
    yield _within(8, "--version", version, "s", 0.2)


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


def clients_that_misbehave(folder: Path) -> Iterator[Result]:
    """Goal 9: with hundreds of them, a scrape within 50 ms, and under 30 MB more."""
    half = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    whole = half + b"\r\n"
    crowds = (
        load.Crowd(100, b""),
        load.Crowd(100, half),
        load.Crowd(100, whole, reads=True),
        load.Crowd(50, whole),
        load.Crowd(30, whole + (256 * 1024 // len(whole)) * whole),
    )
    with subjects.exporter(TEN_THOUSAND) as ours:
        load.scrape_seconds(ours.url)
        before = ours.resident_bytes()
        with load.crowds(ours.url, *crowds):
            yield from _misbehaviour("380 clients", ours, before)
    with subjects.exporter(TEN_THOUSAND, web_config=_web_config(folder)) as ours:
        load.scrape_seconds(ours.url)
        before = ours.resident_bytes()
        with load.hellos(ours.url, load.hello("ffdhe8192"), 20):
            yield from _misbehaviour("20 dear TLS hellos a second", ours, before)


def _misbehaviour(what: str, ours: subjects.Served, before_bytes: int) -> Iterator[Result]:
    worst = max(load.scrape_seconds(ours.url, 200, 0.02))
    yield _within(9, f"slowest scrape with {what}", worst, "ms", 0.05)
    yield _within(9, f"memory of {what}", ours.resident_bytes() - before_bytes, "MB", 30e6)


def _web_config(folder: Path) -> Path:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    file = folder / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.pem, key_file: server.pem}\n", "utf-8")
    return file


def poll_that_finds_nothing_changed(folder: Path) -> Iterator[Result]:
    """Goal 4: over https 10 ms of CPU for a page, 5 + 0.2 ms for each of more.

    Without the wire it costs a tenth of a poll that finds everything changed.
    """
    for pages, limit in ((1, 0.010), (20, 0.009), (200, 0.045)):
        used = https_poll_cpu(pages * PAGE_SIZE, folder, rounds=9)
        yield _within(4, f"CPU of a poll over https, unchanged, pages: {pages}", used, "ms", limit)
    unchanged, changed = poll_cpu(TEN_THOUSAND, rounds=9)
    what, ratio = "CPU of a poll that found nothing changed", unchanged / changed
    yield Result(4, what, unchanged, "ms", "everything changed", changed, ratio, ratio <= 0.1)


def _within(goal: int, what: str, value: float, unit: str, limit: float) -> Result:
    """A result whose anchor is the goal itself."""
    return Result(goal, what, value, unit, "goal", limit, value / limit, value < limit)


GOALS: Final[dict[int, tuple[Callable[[Path], Iterator[Result]], tuple[str, ...]]]] = {
    1: (scrape_and_others, ("wrk", "nginx", "prometheus-node-exporter")),
    2: (cpu_a_scrape, ("wrk",)),
    3: (rendering_a_snapshot, ()),
    4: (poll_that_finds_nothing_changed, ()),
    5: (scrape_while_all_change, ("wrk",)),
    6: (walk, ()),
    7: (memory, ("wrk",)),
    8: (start, ()),
    9: (clients_that_misbehave, ("openssl",)),
    11: (judging_by_rules, ()),
}


def measured(goals: Iterable[int]) -> Iterator[Result]:
    """The results of one run, each as soon as it is there."""
    for goal in goals:
        measure, programs = GOALS[goal]
        absent = subjects.missing(*programs)
        if absent:
            _tell(f"{goal} left out: {', '.join(absent)} not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            yield from measure(Path(folder))


def _run(goals: Iterable[int]) -> list[Result]:
    """One run, printed as it goes."""
    found = []
    for result in measured(goals):
        _tell(result.line())
        found.append(result)
    return found


def _tell(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> None:
    """Print the results as they come; with `--write`, the documentation too."""
    args = _arguments()
    goals = args.goal or [*GOALS]
    if args.runs == 1:
        _tell("One run. Those of docs/performance.md are three: make bench RUNS=3")
    runs = []
    for count in range(1, args.runs + 1):
        _tell(*(["", f"Run {count} of {args.runs}"] if args.runs > 1 else []))
        runs.append(_run(goals))
    table = results.table(results.rows(runs))
    if args.runs > 1:
        _tell("", "The median run, and what all runs found", *table.without("reference").aligned())
    if args.goal:
        return
    costs, kinds = [*growth.costs()], representation.measured()
    _tell("", *growth.table(costs).aligned(), "", *representation.table(kinds).aligned())
    if args.write:
        tables.write("goals", table)
        tables.write("growth", growth.table(costs))
        tables.write("representation", representation.table(kinds))
        growth.plot(costs, tables.DOCUMENT.with_suffix(".svg"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--goal", type=int, action="append", choices=GOALS, help="only this goal")
    parser.add_argument("--runs", type=int, help="1, or 3 with --write")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md again")
    args = parser.parse_args()
    args.runs = args.runs or (_RUNS_WRITTEN if args.write else 1)
    needed = [program for _, programs in GOALS.values() for program in programs]
    absent = subjects.missing(*dict.fromkeys(needed))
    if args.write and (args.goal or absent):
        parser.error(f"--write needs every goal; {', '.join(absent) or '--goal'} is in the way")
    return args


if __name__ == "__main__":
    main()
