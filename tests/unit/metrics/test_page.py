"""The bytes of /metrics: when they are made, shared and let go, and what gzip makes of them."""

from __future__ import annotations

import gc
import gzip
import json
import subprocess
import threading
import tracemalloc
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, HTTPServer
from operator import le
from typing import TYPE_CHECKING, Final

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from exophone_exporter.errors import ServerFailed
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import parse_page
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.metrics import page as metrics_page
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.metrics.samples import polling_lines
from exophone_exporter.polling.poller import poll_once
from exophone_exporter.simulator import make_account
from tests.lib.processes import wait_until
from tests.lib.support import INDIA, FakeTime, account, held_rendering, phone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exophone_exporter.exotel.model import ExoPhone
    from exophone_exporter.inventory.state import AccountStatus
    from exophone_exporter.metrics.samples import MetricText

DEADLINE_SECONDS: Final = 10
BUILD: Final = ExporterInfo("r", 0.0)
# A scrape that may overtake another has done so by then.
OVERTAKING_SECONDS: Final = 0.1
RETRIES: Final = b'exophone_api_retries_total{account="support"}'
COLLECTIONS: Final = b'python_gc_collections_total{generation="2"}'
FORMATS: Final = [pytest.param(False, id="text"), pytest.param(True, id="openmetrics")]


def numbers(count: int, region: str = "MU") -> tuple[ExoPhone, ...]:
    return tuple(phone(f"sid-{index:05}", region=region) for index in range(count))


def put(state: AccountState, time: FakeTime, found: tuple[ExoPhone, ...]) -> None:
    """A complete poll that found these numbers."""
    now = time.clock.now()
    snapshot = build(Listing(found, 1, Counter()), now, 1.0)
    state.record_poll(PollResult(now, 1.0, snapshot))


def page_of(time: FakeTime, *states: AccountState, with_process: bool = False) -> MetricsPage:
    def statuses() -> list[AccountStatus]:
        return [state.status() for state in states]

    return MetricsPage(statuses, lambda: BUILD, time.clock, with_process=with_process)


@pytest.fixture
def state() -> AccountState:
    return AccountState(account())


@pytest.fixture
def page(time: FakeTime, state: AccountState) -> MetricsPage:
    return page_of(time, state)


def every_form(page: MetricsPage) -> dict[str, bytes]:
    """The exposition in each format and encoding, plain again."""
    return {
        "text": page.render(openmetrics=False, gzipped=False),
        "gzipped text": gzip.decompress(page.render(openmetrics=False, gzipped=True)),
        "OpenMetrics": page.render(openmetrics=True, gzipped=False),
        "gzipped OpenMetrics": gzip.decompress(page.render(openmetrics=True, gzipped=True)),
    }


class OneWalk:
    """A fetcher whose every walk finds equal numbers, in objects of their own each time."""

    def fetch_all(self, *_: object) -> Listing:
        return Listing(numbers(3), 1, Counter())


@pytest.mark.parametrize("openmetrics", FORMATS)
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(0, id="empty"),
        pytest.param(3, id="small"),
        pytest.param(10_000, id="ten-thousand"),
    ],
)
def test_gzip_is_one_member_of_exactly_the_plain_bytes(
    time: FakeTime, state: AccountState, page: MetricsPage, count: int, openmetrics: bool
) -> None:
    """Browsers show only the first member of a stream: there must be no second."""
    if count:
        put(state, time, numbers(count))
        page.refresh()
    plain = page.render(openmetrics=openmetrics, gzipped=False)
    gzipped = page.render(openmetrics=openmetrics, gzipped=True)
    assert plain.count(b'\nexophone_number_info{account="support"') == count
    assert gzip.decompress(gzipped) == plain
    stream = zlib.decompressobj(wbits=31)
    assert stream.decompress(gzipped) == plain
    assert (stream.eof, stream.unused_data) == (True, b"")
    assert len(gzipped) < len(plain) / 5


@pytest.mark.end_to_end
def test_curl_decompresses_it(
    time: FakeTime, state: AccountState, page: MetricsPage, program: Callable[[str], str]
) -> None:
    put(state, time, numbers(100))
    page.refresh()
    gzipped = page.render(openmetrics=False, gzipped=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(gzipped)))
            self.end_headers()
            self.wfile.write(gzipped)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        fetched = subprocess.run(
            [program("curl"), "--noproxy", "*", "-sS", "--compressed", url],
            capture_output=True,
            check=True,
            timeout=DEADLINE_SECONDS,
        )
    assert fetched.stdout == page.render(openmetrics=False, gzipped=False)


@pytest.mark.parametrize(
    "gzipped", [pytest.param(False, id="plain"), pytest.param(True, id="gzip")]
)
def test_poll_that_found_the_same_numbers_renders_and_compresses_nothing(
    time: FakeTime, state: AccountState, page: MetricsPage, gzipped: bool
) -> None:
    """The large part is the very same object, whatever the scrape asks for."""

    def large_part(*, openmetrics: bool = False) -> bytes:
        return max(page.chunks(openmetrics=openmetrics, gzipped=gzipped), key=len)

    put(state, time, numbers(300))
    page.refresh()
    first = large_part()
    same = state.snapshot
    assert same is not None
    for _ in range(3):
        time.pass_(300)
        again = same.seen_again(same.listing, time.clock.now(), 2.0)
        state.record_poll(PollResult(time.clock.now(), 2.0, again))
        page.refresh()
        assert large_part() is first
        assert large_part(openmetrics=True) is first
    put(state, time, numbers(301))
    page.refresh()
    assert large_part() is not first


def test_poller_that_finds_equal_numbers_keeps_the_large_part(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    kept = []
    for _ in range(3):
        time.pass_(300)
        poll_once(state, OneWalk(), time.clock)
        page.refresh()
        kept.append(page.chunks(openmetrics=False, gzipped=False)[:-1])
    assert all(one is two is three for one, two, three in zip(*kept, strict=True))
    assert b"exophone_numbers{" in b"".join(kept[0])


def test_equal_numbers_are_told_with_the_new_time_of_success(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    """What is kept is the inventory: freshness is of the last poll."""
    for _ in range(2):
        time.pass_(300)
        poll_once(state, OneWalk(), time.clock)
        page.refresh()
    line = b'exophone_poll_last_success_timestamp_seconds{account="support"} 1.7000006e+09\n'
    assert line in page.render(openmetrics=False, gzipped=False)


def test_one_account_that_changes_leaves_the_other_as_it_was(time: FakeTime) -> None:
    one, two = (AccountState(account(name)) for name in ("one", "two"))
    page = page_of(time, one, two)
    put(one, time, numbers(2))
    put(two, time, numbers(3))
    page.refresh()
    put(two, time, numbers(1))
    page.refresh()
    text = page.render(openmetrics=False, gzipped=False)
    counts = [
        line.split()[-1] for line in text.splitlines() if line.startswith(b"exophone_numbers{")
    ]
    assert counts == [b"2.0", b"1.0"]


@pytest.mark.fault(132)
def test_scrape_during_a_rendering_gets_the_previous_bytes_whole(time: FakeTime) -> None:
    """The thread that renders is held in the middle of the second of three accounts."""
    states = [AccountState(account(name)) for name in ("one", "two", "three")]
    page = page_of(time, *states)
    for state in states:
        put(state, time, numbers(5))
    page.refresh()
    before = every_form(page)
    for state in states:
        put(state, time, numbers(7))
    with held_rendering(page, states[1]):
        assert every_form(page) == before
        assert before["text"].count(b"\nexophone_number_info{") == 15
    assert every_form(page)["text"].count(b"\nexophone_number_info{") == 21


@pytest.mark.fault(132)
def test_health_of_polling_is_alive_during_a_rendering(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    """Only the inventory is of before: what it counts meanwhile does not wait for it."""
    put(state, time, numbers(5))
    page.refresh()
    put(state, time, numbers(7))
    with held_rendering(page, state):
        state.record_retry()
        time.pass_(1)
        text = page.render(openmetrics=False, gzipped=False)
        assert b'\nexophone_api_retries_total{account="support"} 1.0\n' in text
        assert text.count(b"\nexophone_number_info{") == 5


@pytest.mark.fault(132)
@pytest.mark.parametrize(
    ("accounts", "count"), [pytest.param(1, 4000, id="one"), pytest.param(4, 1000, id="several")]
)
def test_a_number_costs_2500_bytes_at_rest_and_5000_while_its_account_is_rendered(
    time: FakeTime, accounts: int, count: int
) -> None:
    """As the API sends them, with every series: objects, text and gzip; the bytes of before too."""
    walks = [pages_of(f"acme{index}", count) for index in range(accounts)]
    states = [AccountState(account(f"a{index}", sid=f"acme{index}")) for index in range(accounts)]
    tracemalloc.start()
    try:
        page = page_of(time, *states)
        for turn in range(2):
            for state, pages in zip(states, walks, strict=True):
                put(state, time, parsed(pages)[turn:])
                page.refresh()
        at_rest, at_most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    plain = page.render(openmetrics=False, gzipped=False)
    assert plain.count(b"\nexophone_number_info{") == accounts * (count - 1)
    assert at_rest / (accounts * count) < 2500
    assert at_most / (accounts * count) < 5000


def pages_of(sid: str, count: int) -> list[bytes]:
    """The answers that list so many numbers."""
    found = make_account(sid, count).numbers
    pages = [found[index : index + 50] for index in range(0, count, 50)]
    return [json.dumps({"incoming_phone_numbers": page}).encode() for page in pages]


def parsed(pages: list[bytes]) -> tuple[ExoPhone, ...]:
    """The numbers of the answers."""
    return tuple(number for page in pages for number in parse_page(page, INDIA).numbers)


@pytest.mark.parametrize(
    "gzipped", [pytest.param(False, id="plain"), pytest.param(True, id="gzip")]
)
def test_data_goes_stale_without_a_poll(
    time: FakeTime, state: AccountState, page: MetricsPage, gzipped: bool
) -> None:
    put(state, time, numbers(2))
    page.refresh()

    def scrape() -> bytes:
        body = page.render(openmetrics=False, gzipped=gzipped)
        return gzip.decompress(body) if gzipped else body

    time.pass_(900)
    assert b"exophone_numbers{" in scrape()
    time.pass_(0.001)
    stale = scrape()
    assert b"exophone_number" not in stale.replace(b"exophone_number_changes", b"")
    assert b'exophone_up{account="support"} 1.0\n' in stale


@pytest.mark.fault(124)
def test_data_that_only_a_wrong_clock_made_stale_is_served_again(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    """The clock is set on by an hour and back, and no poll comes; a second later they are there."""
    put(state, time, numbers(2))
    page.refresh()
    before = page.render(openmetrics=False, gzipped=False)
    time.wall += 3600
    assert b"exophone_numbers{" not in page.render(openmetrics=False, gzipped=False)
    time.wall -= 3600
    time.pass_(1)
    assert page.render(openmetrics=False, gzipped=False) == before


def test_stale_account_leaves_the_fresh_one_alone(time: FakeTime) -> None:
    old, new = AccountState(account("old")), AccountState(account("new"))
    page = page_of(time, old, new)
    put(old, time, numbers(2))
    time.pass_(600)
    put(new, time, numbers(3))
    page.refresh()
    time.pass_(600)
    text = page.render(openmetrics=False, gzipped=False)
    assert b'exophone_numbers{account="new"' in text
    assert b'exophone_numbers{account="old"' not in text
    put(old, time, numbers(2))
    page.refresh()
    assert b'exophone_numbers{account="old"' in page.render(openmetrics=False, gzipped=False)


@pytest.mark.parametrize("openmetrics", FORMATS)
def test_health_of_polling_is_at_most_one_second_old(
    time: FakeTime, state: AccountState, page: MetricsPage, openmetrics: bool
) -> None:
    """Many scrapers in one second cost one rendering."""

    def retries() -> bytes:
        text = page.render(openmetrics=openmetrics, gzipped=False)
        (line,) = (x for x in text.splitlines() if x.startswith(b"exophone_api_retries_total{"))
        return line.split()[-1]

    assert retries() == b"0.0"
    state.record_retry()
    time.pass_(0.99)
    assert retries() == b"0.0"
    time.pass_(0.01)
    assert retries() == b"1.0"


def value_of(series: bytes, text: bytes) -> float:
    """The value of one series."""
    (line,) = (line for line in text.splitlines() if line.startswith(series + b" "))
    return float(line.split()[-1])


def test_no_counter_steps_back_for_who_asks_for_one_format_and_then_the_other(
    time: FakeTime, state: AccountState
) -> None:
    """Ours and those of the process, while each grows before every scrape."""
    page = page_of(time, state, with_process=True)
    seen = []
    for turn in range(12):
        state.record_retry()
        gc.collect()
        text = page.render(openmetrics=turn % 2 == 1, gzipped=False)
        seen.append((value_of(RETRIES, text), value_of(COLLECTIONS, text)))
        time.pass_(0.3)
    ours, of_process = zip(*seen, strict=True)
    # As of the first scrape of a second: four scrapes, and then the next four.
    assert ours == (1.0,) * 4 + (5.0,) * 4 + (9.0,) * 4
    assert list(of_process) == sorted(of_process)
    assert len({*of_process}) == 3


def test_who_saw_an_account_earlier_does_not_show_it_later(
    time: FakeTime, state: AccountState
) -> None:
    """A scrape is held when it has seen the account; one that comes then must not overtake it."""
    prepared, has_seen, go_on = threading.Event(), threading.Event(), threading.Event()

    def statuses() -> list[AccountStatus]:
        seen = [state.status()]
        if prepared.is_set() and not has_seen.is_set():
            has_seen.set()
            assert go_on.wait(DEADLINE_SECONDS)
        return seen

    page = MetricsPage(statuses, lambda: BUILD, time.clock, with_process=False)

    def retries() -> float:
        return value_of(RETRIES, page.render(openmetrics=False, gzipped=False))

    page.refresh()
    prepared.set()
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(retries)
        assert has_seen.wait(DEADLINE_SECONDS)
        state.record_retry()
        next_one = pool.submit(retries)
        wait([next_one], OVERTAKING_SECONDS)
        go_on.set()
        assert held.result(DEADLINE_SECONDS) <= next_one.result(DEADLINE_SECONDS) <= retries()


def test_account_to_which_nothing_happened_is_not_looked_at_again(
    time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hundreds of accounts a scrape costs what happened since the one before."""
    states = [AccountState(account(name)) for name in ("busy", "quiet")]
    page = page_of(time, *states)
    every_form(page)
    told: list[str] = []

    def lines(status: AccountStatus) -> Iterator[MetricText]:
        told.append(status.account.name)
        return polling_lines(status)

    monkeypatch.setattr(metrics_page, "polling_lines", lines)
    time.pass_(2)
    states[0].record_retry()
    text = every_form(page)["text"]
    assert told == ["busy"]
    for name, retries in ((b"busy", b"1"), (b"quiet", b"0")):
        assert b'exophone_api_retries_total{account="%s"} %s.0' % (name, retries) in text


def test_end_of_a_poll_shows_at_once(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    assert b"exophone_up" not in page.render(openmetrics=False, gzipped=False)
    now = time.clock.now()
    state.record_poll(PollResult(now, 1.0, error=ServerFailed("no")))
    page.refresh()
    assert b'exophone_up{account="support"} 0.0' in page.render(openmetrics=False, gzipped=False)


def test_once_has_no_series_about_its_process(time: FakeTime, state: AccountState) -> None:
    """A process that has ended has no file descriptors to tell of."""
    without = page_of(time, state).render(openmetrics=False, gzipped=False)
    names = {line.split(b"{")[0].split(b" ")[0] for line in without.splitlines() if line[0] != 35}
    assert {name for name in names if not name.startswith(b"exophone_")} == set()
    with_process = page_of(time, state, with_process=True).render(openmetrics=False, gzipped=False)
    assert with_process.startswith(without)
    assert b"\nprocess_resident_memory_bytes " in with_process[len(without) :]


def test_scrape_before_the_first_prepare_is_whole(page: MetricsPage) -> None:
    text = page.render(openmetrics=True, gzipped=False).decode()
    found = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # it has no types
    assert "exophone_polls" in {family.name for family in found}


@pytest.mark.fault(132)
def test_scrapes_by_many_threads_are_whole_while_snapshots_are_swapped(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    """Each scrape is one snapshot: its sum and the series of its numbers agree."""
    sizes = (40, 11, 25)
    put(state, time, numbers(40))
    page.refresh()
    done = threading.Event()
    scraped = [0] * 8

    def wait_for_a_scrape() -> None:
        """One that is under way may have got the bytes of before; the next has not."""
        enough = [count + 2 for count in scraped]
        wait_until(lambda: any(map(le, enough, scraped)), "a scrape")

    def swap() -> None:
        try:
            for turn in range(45):
                size = sizes[turn % 3]
                half = size // 2
                put(state, time, (*numbers(size, "MU")[:half], *numbers(size, "DL")[half:]))
                page.refresh()
                wait_for_a_scrape()
        finally:
            done.set()

    def scrape(turn: int) -> set[bytes]:
        seen: set[bytes] = set()
        while True:
            ending = done.is_set()
            gzipped = turn % 2 == 0
            body = page.render(openmetrics=turn % 3 == 0, gzipped=gzipped)
            seen.add(gzip.decompress(body) if gzipped else body)
            scraped[turn] += 1
            if ending:
                return seen

    with ThreadPoolExecutor(9) as pool:
        swapping = pool.submit(swap)
        scrapes = [pool.submit(scrape, turn) for turn in range(8)]
        swapping.result(DEADLINE_SECONDS)
        bodies = set.union(*(scraped.result(DEADLINE_SECONDS) for scraped in scrapes))
    assert {size_of(body) for body in bodies} == set(sizes)


def size_of(body: bytes) -> int:
    """How many numbers a scrape tells of; it must say so consistently, in every family."""
    text = body.decode().removesuffix("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    total = sum(sample.value for sample in families["exophone_numbers"].samples)
    info = families["exophone_number_info"].samples
    rental = families["exophone_number_monthly_rental"].samples
    assert len(info) == len(rental) == total == len({s.labels["sid"] for s in info})
    return int(total)
