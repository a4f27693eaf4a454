"""Every operation of a cycle fails in every way that it can, one at a time.

After each the poller lives, the old or the new world is served whole, the failure is counted once
under its reason or healed by a retry, nothing shows a secret, and the next cycle is as good as any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from exophone_exporter.errors import (
    BadBody,
    BodyCut,
    ConnectFailed,
    CredentialsRejected,
    JsonCut,
    NotHttp,
    PollError,
    RateLimited,
    ServerFailed,
    TimedOut,
)
from tests.lib import canary
from tests.lib.simulation.torture import (
    EXCEPTIONS,
    NAME,
    SIDS,
    WHOLE_ANSWERS,
    Case,
    Operation,
    Resources,
    Rig,
    Scrape,
    ServedPage,
    cases_of,
)


def clean_cycle() -> tuple[Sequence[Operation], Mapping[str, Scrape]]:
    """The operations of a cycle in which nothing fails, and what is served before and after."""
    with ServedPage().served() as page, Rig(page) as rig:
        old = rig.scrape()
        rig.tortured_cycle()
        return rig.tape.operations, {"old": old, "new": rig.scrape()}


# Run where tests are collected: there is a test for each of its operations.
OPERATIONS, GOLDEN = clean_cycle()
CASES: Final = cases_of(OPERATIONS)
# What is shown where nobody hears that "e" is gone.
KEPT: Final = "abcdefg"


# ---- what must come of a case

ANSWERED: Final[Mapping[str, type[PollError]]] = {
    "500": ServerFailed,
    "429": RateLimited,
    "401": CredentialsRejected,
    "cut-gzip": JsonCut,
    "cut-json": JsonCut,
    "no-json": BadBody,
}


def expected_of(case: Case) -> tuple[str | None, int]:
    """The reason of the failure, None without one or where a retry heals it; and the retries."""
    if case.operation.kind == "scrape":
        return None, 0
    if case.fault in EXCEPTIONS:
        return "internal", 0
    error = error_of(case.operation, case.fault)
    if error is None or case.operation.endpoint == "detail":  # asked once, and kept without it
        return None, 0
    return (None, 1) if error.attempts > 1 else (error.reason, 0)


def shown_after(case: Case, reason: str | None) -> str:
    """The numbers after the poll: "e" is gone only where the answer that says so arrives."""
    if reason is not None:
        return SIDS["old"]
    unheard = case.operation.code == "404" and case.fault not in EXCEPTIONS
    kept = unheard and error_of(case.operation, case.fault) is not None
    return KEPT if kept else SIDS["new"]


def error_of(operation: Operation, fault: str) -> type[PollError] | None:
    """The error that a fault on the wire makes.

    The body of a 404 is of no interest: its status is the answer.
    """
    if fault in WHOLE_ANSWERS:
        return ANSWERED[fault]
    in_body = operation.kind == "read" and operation.part > 1
    ends_head = operation.kind == "read" and operation.part == 1 and fault in ("fin", "garbage")
    if operation.code == "404" and (in_body or ends_head):
        return None
    if ends_head:  # as far as anyone can tell a head without a length, and an empty body
        return BadBody
    if fault == "silence":
        return TimedOut
    if in_body:
        is_whole = fault == "garbage" and operation.form != "chunked"
        return BadBody if is_whole else BodyCut
    return NotHttp if fault == "garbage" else ConnectFailed


# ---- tests


@pytest.fixture(scope="module")
def page() -> Iterator[ServedPage]:
    with ServedPage().served() as served:
        yield served


def test_clean_cycle_is_the_real_thing(page: ServedPage) -> None:
    """Pages in every form, a number that slipped through, one that is gone; and it is repeatable.

    The secrets are sent: the search for them can succeed.
    """
    with Rig(page) as rig:
        rig.tortured_cycle()
        assert rig.tape.operations == OPERATIONS
        assert rig.scrape().inventory == GOLDEN["new"].inventory
        assert canary.traces("".join(rig.vendor.server.requests))
    assert [(step.endpoint, step.code) for step in OPERATIONS if step.kind == "count"] == [
        *[("list", "200")] * 3,
        ("detail", "200"),
        ("detail", "404"),
    ]
    assert Counter(step.kind for step in OPERATIONS) == {
        "connect": 2,
        "send": 5,
        "read": 20,
        "count": 5,
        "parse": 6,
        "put": 1,
        "render": 26,
        "scrape": 1,
    }
    assert {world: shown.sids for world, shown in GOLDEN.items()} == SIDS


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.fault != "silence"], ids=lambda case: case.id
)
@pytest.mark.fault(3, 4, 8, 9, 39, 54, 120, 134)
def test_fault_of_one_operation_leaves_everything_whole(page: ServedPage, case: Case) -> None:
    assert_whole_after(case, page)


@pytest.mark.fault(5, 6)
def test_silence_in_any_operation_leaves_everything_whole() -> None:
    """These cases only wait, and so they run at the same time, each with a server of its own."""
    before = Resources.now()
    silent = [case for case in CASES if case.fault == "silence"]
    with ThreadPoolExecutor(len(silent)) as pool:
        errors = [error for error in pool.map(error_after, silent) if error]
    if errors:
        raise BaseExceptionGroup("silence", errors)
    before.wait_until_no_more()


def error_after(case: Case) -> BaseException | None:
    try:
        with ServedPage().served() as page:
            assert_whole_after(case, page, alone=False)
    except BaseException as error:  # noqa: BLE001 - raised again by the test
        error.add_note(case.id)
        return error
    return None


def assert_whole_after(case: Case, page: ServedPage, *, alone: bool = True) -> None:
    """Run a case and a clean cycle after it, and look at all that can be seen.

    Descriptors and threads are those of the process, and are counted where no other case runs.
    """
    page.said.clear()
    reason, retries = expected_of(case)
    with Rig(page, case) as rig:
        rig.scrape()  # opens the connection
        rig.settle()
        before = Resources.now()
        assert rig.tortured_cycle() == (500 if case.operation.kind == "scrape" else 200)
        assert rig.is_alive()
        sids = shown_after(case, reason)
        assert_shown(rig, sids, reason, retries, polls=2)
        assert not canary.traces(repr(rig.error))
        rig.poll()
        assert_shown(rig, SIDS["new"], reason, retries, polls=3)
        rig.settle()
        if alone:
            before.wait_until_no_more()
    assert not canary.traces(b"".join(page.said))


def assert_shown(rig: Rig, sids: str, reason: str | None, retries: int, *, polls: int) -> None:
    """The old world after a failure, else the new one, byte for byte; and the polls' figures."""
    shown, now, failed = rig.scrape(), rig.time.wall, sids == SIDS["old"]
    assert shown.sids == sids
    assert sids == KEPT or shown.inventory == GOLDEN["old" if failed else "new"].inventory
    assert shown.failures == ({reason: 1} if reason else {})
    figures = {
        "up": not failed,
        "polls_total": polls,
        "api_retries_total": retries,
        "poll_last_attempt_timestamp_seconds": now,
        "poll_last_success_timestamp_seconds": now - 1 if failed else now,
    }
    assert figures == {name: shown.live[f'exophone_{name}{{account="{NAME}"}}'] for name in figures}
