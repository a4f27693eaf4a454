"""The bytes of /metrics: when they are made and shared, and what gzip makes of them."""

from __future__ import annotations

import gc
import gzip
import json
import re
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from operator import le
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from exophone_exporter.config.number_rules import DEFAULT_RULES, NONE, NumberRule, NumberRules
from exophone_exporter.config.secrets import Secret
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import ServerFailed
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone, parse_page
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import Snapshot
from exophone_exporter.inventory.state import AccountState, AccountStatus, PollResult
from exophone_exporter.metrics.inventory import Inventory, inventory_of
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.poller import poll_once
from exophone_exporter.simulator import make_account
from tests.lib.exposed import assert_one_member
from tests.lib.processes import wait_until
from tests.lib.support import (
    INDIA,
    FakeTime,
    account,
    found,
    held_rendering,
    phone,
    snapshot,
)

DEADLINE_SECONDS: Final = 60
BUILD: Final = ExporterInfo("r", 0.0)
# A scrape that may overtake another has done so by then.
OVERTAKING_SECONDS: Final = 0.1
RETRIES: Final = b'exophone_api_retries_total{account="support"}'
COLLECTIONS: Final = b'python_gc_collections_total{generation="2"}'
FORMATS: Final = [pytest.param(False, id="text"), pytest.param(True, id="openmetrics")]


def numbers(count: int, region: str = "MU") -> tuple[ExoPhone, ...]:
    return tuple(phone(f"sid-{index:05}", region=region) for index in range(count))


def put(state: AccountState, time: FakeTime, numbers: tuple[ExoPhone, ...]) -> None:
    state.record_poll(found(time.clock.now(), *numbers))


def publishing(page: MetricsPage, state: AccountState) -> Callable[[PollResult], None]:
    return lambda result: page.refresh(
        lambda: [state.status().after(result)], lambda _: state.record_poll(result)
    )


def page_of(
    time: FakeTime, states: Sequence[AccountState], *, with_process: bool = False
) -> MetricsPage:
    def statuses() -> list[AccountStatus]:
        return [state.status() for state in states]

    return MetricsPage(statuses, lambda: BUILD, time.clock, with_process=with_process)


@pytest.fixture
def state() -> AccountState:
    return AccountState(account())


@pytest.fixture
def page(time: FakeTime, state: AccountState) -> MetricsPage:
    return page_of(time, [state])


def every_form(page: MetricsPage) -> dict[str, bytes]:
    return {
        "text": page.body(openmetrics=False, gzipped=False),
        "gzipped text": gzip.decompress(page.body(openmetrics=False, gzipped=True)),
        "OpenMetrics": page.body(openmetrics=True, gzipped=False),
        "gzipped OpenMetrics": gzip.decompress(page.body(openmetrics=True, gzipped=True)),
    }


@pytest.mark.parametrize("openmetrics", FORMATS)
def test_gzip_is_one_member_of_exactly_the_plain_bytes(
    time: FakeTime, state: AccountState, page: MetricsPage, openmetrics: bool
) -> None:
    put(state, time, numbers(10_000))
    page.refresh()
    plain = page.body(openmetrics=openmetrics, gzipped=False)
    gzipped = page.body(openmetrics=openmetrics, gzipped=True)
    assert plain.count(b'\nexophone_number_info{account="support"') == 10_000
    assert_one_member(gzipped, plain)
    assert len(gzipped) < len(plain) / 5


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
def test_poll_that_found_equal_numbers_renders_and_compresses_nothing(
    time: FakeTime, state: AccountState, page: MetricsPage, gzipped: bool
) -> None:
    """The large part is the very same object, and the time of the last success is the new one."""

    def large_part(*, openmetrics: bool = False) -> bytes:
        return max(page.chunks(openmetrics=openmetrics, gzipped=gzipped), key=len)

    def poll(count: int) -> None:
        time.pass_(300)
        listing = Listing(numbers(count), 1, Counter())
        poll_once(state, lambda *_: listing, time.clock, publish=publishing(page, state))

    poll(300)
    first = large_part()
    poll(300)
    assert large_part() is large_part(openmetrics=True) is first
    line = b'exophone_poll_last_success_timestamp_seconds{account="support"} 1.7000006e+09\n'
    assert line in page.body(openmetrics=False, gzipped=False)
    poll(301)
    assert large_part() is not first


@pytest.mark.fault(132)
def test_scrape_during_a_rendering_shows_the_previous_poll_whole(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    """Neither success nor changes nor numbers run ahead; what the client counts does not wait."""
    put(state, time, numbers(5))
    page.refresh()
    before = every_form(page)
    time.pass_(300)
    with held_rendering(page, state, snapshot(*numbers(7), completed=time.clock.now())):
        assert every_form(page) == before
        state.record_retry()
        time.pass_(1)
        text = page.body(openmetrics=False, gzipped=False)
        assert value_of(RETRIES, text) == 1
        assert value_of(b'exophone_polls_total{account="support"}', text) == 1
        assert text.count(b"\nexophone_number_info{") == 5
    assert every_form(page)["text"].count(b"\nexophone_number_info{") == 7


@pytest.mark.fault(132)
@pytest.mark.parametrize(("accounts", "count"), [(1, 4000), (4, 1000)])
def test_a_number_costs_2500_bytes_at_rest_and_5000_while_its_account_is_rendered(
    time: FakeTime, accounts: int, count: int
) -> None:
    """As the API sends them, with every series: objects, text and gzip; the bytes of before too."""
    walks = [pages_of(f"acme{index}", count) for index in range(accounts)]
    states = [AccountState(account(f"a{index}", sid=f"acme{index}")) for index in range(accounts)]
    tracemalloc.start()
    try:
        page = page_of(time, states)
        for turn in range(2):
            for state, pages in zip(states, walks, strict=True):
                put(state, time, parsed(pages)[turn:])
                page.refresh()
        at_rest, at_most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    plain = page.body(openmetrics=False, gzipped=False)
    assert plain.count(b"\nexophone_number_info{") == accounts * (count - 1)
    assert at_rest / (accounts * count) < 2500
    assert at_most / (accounts * count) < 5000


def pages_of(sid: str, count: int) -> list[bytes]:
    sent = make_account(sid, count).numbers
    pages = [sent[index : index + 50] for index in range(0, count, 50)]
    return [json.dumps({"incoming_phone_numbers": page}).encode() for page in pages]


def parsed(pages: list[bytes]) -> tuple[ExoPhone, ...]:
    return tuple(number for page in pages for number in parse_page(page, INDIA).numbers)


def test_data_goes_stale_without_a_poll(time: FakeTime) -> None:
    """On time; the health series and other accounts stay."""
    old, new = AccountState(account("old")), AccountState(account("new"))
    page = page_of(time, [old, new])

    def shown() -> list[bytes]:
        text = every_form(page)["gzipped text"]
        assert b'exophone_up{account="old"} 1.0\n' in text
        return [name for name in (b"old", b"new") if b'number_info{account="%s"' % name in text]

    put(old, time, numbers(2))
    time.pass_(600)
    put(new, time, numbers(3))
    page.refresh()
    time.pass_(299)
    assert shown() == [b"old", b"new"]
    time.pass_(0.001)
    assert shown() == [b"new"]
    put(old, time, numbers(2))
    page.refresh()
    assert shown() == [b"old", b"new"]


@pytest.mark.fault(171)
def test_pseudonyms_follow_a_token_that_was_rotated_in_its_file(time: FakeTime) -> None:
    own = account(per_number=PerNumber("all", 10_000, "hidden"))
    state = AccountState(own)
    page = page_of(time, [state])
    put(state, time, (phone("01140000001"),))

    def shown() -> set[str]:
        text = page.body(openmetrics=False, gzipped=False).decode()
        return {*re.findall(r'sid="([^"]*)"', text)}

    before = shown()
    assert {masked_identity(phone("01140000001"), "hidden", own.pseudonym_key).sid} == before
    own.credentials.api_token.loaded = Secret("rotated")
    after = shown()
    assert {masked_identity(phone("01140000001"), "hidden", own.pseudonym_key).sid} == after
    assert before != after
    with_key = replace(own, per_number=replace(own.per_number, pseudonym_key=Secret("k")))
    own.credentials.api_token.loaded = Secret("rotated again")
    assert with_key.pseudonym_key == Secret("k").key(b"pseudonyms")


def value_of(series: bytes, text: bytes) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith(series + b" "))
    return float(line.split()[-1])


def test_no_counter_decreases_for_a_client_that_switches_formats(
    time: FakeTime, state: AccountState
) -> None:
    """Neither ours nor those of the process; all are read again after a second."""
    page = page_of(time, [state], with_process=True)
    seen = []
    for turn in range(12):
        state.record_retry()
        gc.collect()
        text = page.body(openmetrics=turn % 2 == 1, gzipped=False)
        seen.append((value_of(RETRIES, text), value_of(COLLECTIONS, text)))
        time.pass_(0.33)
    ours, of_process = zip(*seen, strict=True)
    # As of the first scrape of a second: four scrapes, and then the next four.
    assert ours == (1.0,) * 4 + (5.0,) * 4 + (9.0,) * 4
    assert list(of_process) == sorted(of_process)
    assert len({*of_process}) == 3


def test_scrape_does_not_overtake_one_that_read_the_accounts_earlier(
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
        return value_of(RETRIES, page.body(openmetrics=False, gzipped=False))

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


def test_end_of_a_poll_shows_immediately(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    assert b"exophone_up" not in page.body(openmetrics=False, gzipped=False)
    now = time.clock.now()
    result = PollResult(now, 1.0, error=ServerFailed("no"))
    page.refresh_live(lambda: state.record_poll(result))
    assert b'exophone_up{account="support"} 0.0' in page.body(openmetrics=False, gzipped=False)


def test_once_has_no_series_about_its_process(time: FakeTime, state: AccountState) -> None:
    without = page_of(time, [state]).body(openmetrics=False, gzipped=False)
    samples = [line for line in without.splitlines() if not line.startswith(b"#")]
    assert all(line.startswith(b"exophone_") for line in samples)
    with_process = page_of(time, [state], with_process=True).body(openmetrics=False, gzipped=False)
    assert with_process.startswith(without)
    assert b"\nprocess_resident_memory_bytes " in with_process[len(without) :]


@pytest.mark.fault(132)
def test_scrapes_by_many_threads_are_whole_while_snapshots_are_swapped(
    time: FakeTime, state: AccountState, page: MetricsPage
) -> None:
    """Each scrape is one snapshot: its sum and the series of its numbers agree."""
    sizes = (40, 11, 25)
    publish = publishing(page, state)
    put(state, time, numbers(40))
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
                both = (*numbers(size, "MU")[:half], *numbers(size, "DL")[half:])
                publish(found(time.clock.now(), *both))
                wait_for_a_scrape()
        finally:
            done.set()

    def scrape(turn: int) -> set[bytes]:
        seen: set[bytes] = set()
        while True:
            ending = done.is_set()
            gzipped = turn % 2 == 0
            body = page.body(openmetrics=turn % 3 == 0, gzipped=gzipped)
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
    text = body.decode().removesuffix("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    total = sum(sample.value for sample in families["exophone_numbers"].samples)
    info = families["exophone_number_info"].samples
    rental = families["exophone_number_monthly_rental"].samples
    assert len(info) == len(rental) == total == len({s.labels["sid"] for s in info})
    return int(total)


SETTINGS: Final = (
    PerNumber("all", 10_000, "full"),
    PerNumber("all", 10_000, "last4"),
    PerNumber("unattached", 10_000, "full"),
    PerNumber("all", 1, "full"),
)
SIDS: Final = ("", "0", "1", "056789")
RULES: Final = (
    DEFAULT_RULES,
    NumberRules((NumberRule(1, "five", {"sid": ("*5",)}, NONE),)),
    NumberRules((NumberRule(1, "five", {"sid": ("*5",)}, NONE), NumberRule(2, "2", {}))),
)
ACCOUNTS: Final = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from([*SIDS, None]),
        st.sampled_from(SETTINGS),
        st.sampled_from(range(len(RULES))),
    ),
    unique_by=lambda each: each[0],
    max_size=4,
)


@given(st.lists(ACCOUNTS, min_size=1, max_size=6))
@example([[(name, "0", SETTINGS[0], 0) for name in order] for order in ("ab", "ba")])
@example([[("a", sids, SETTINGS[0], rules)] for sids in ("", None) for rules in range(len(RULES))])
def test_inventory_does_not_depend_on_the_one_before_or_on_the_steps(
    turns: list[list[tuple[str, str | None, PerNumber, int]]],
) -> None:
    """Numbers and accounts come and go; the order, settings and rules of accounts change."""
    polled = {sids: snapshot(*(phone(f"sid-{sid}", voice_url="") for sid in sids)) for sids in SIDS}
    judged: dict[tuple[str | None, int], Snapshot] = {
        (sids, at): polled[sids].judged_by(rules) for sids in SIDS for at, rules in enumerate(RULES)
    }
    made = Inventory()
    for turn in turns:
        shown = [
            (account(name, per_number=own, rules=RULES[at]), judged.get((sids, at)), b"key")
            for name, sids, own, at in turn
        ]
        made = inventory_of(shown, made, 3)
        assert inventory_of(shown, made, 3).texts is made.texts
        assert b"".join(made.texts) == b"".join(inventory_of(shown, Inventory(), 30).texts)
