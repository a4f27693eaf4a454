"""Every operation of a cycle fails in every way that it can, one at a time.

After each the poller lives, the old or the new world is served whole, the failure is counted once
under its reason or healed by a retry, nothing shows a secret, and the next cycle is as good as any.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

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
    PAGES,
    SIDS,
    WHOLE_ANSWERS,
    Case,
    Logs,
    Operation,
    Resources,
    Rig,
    Scrape,
    ServedPage,
    cases_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def clean_cycle() -> tuple[Sequence[Operation], Mapping[str, Scrape]]:
    """The operations of a cycle in which nothing fails, and what is served before and after."""
    with ServedPage().served() as page, Rig(page) as rig:
        old = rig.scrape()
        rig.tortured_cycle()
        return rig.tape.operations, {"old": old, "new": rig.scrape()}


# Run where tests are collected: there is a test for each of its operations.
OPERATIONS, GOLDEN = clean_cycle()
REQUESTS: Final = [(step.endpoint, step.code) for step in OPERATIONS if step.kind == "count"]


# ---- what must come of a case


@dataclass(frozen=True)
class Expected:
    """What the retry rules make of a case.

    `reason` is that of the failure, None where a retry heals or nothing is lost. `requests` are
    those of the cycle, by endpoint and code. `world` is the one that is known and served. `status`
    is that of the scrape in the cycle.
    """

    reason: str | None = None
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    retries: int = 0
    world: str = "new"
    status: int = 200


def expected_of(case: Case) -> Expected:
    """A retry heals what strikes once, if `errors` says that such an error is worth one."""
    kind = case.operation.kind
    done = sum(step.kind == "count" for step in OPERATIONS[: case.k - 1])
    if kind == "scrape":
        return Expected(requests=Counter(REQUESTS), status=500)
    if case.fault in EXCEPTIONS:
        return Expected("internal", Counter(REQUESTS[:done]), world="old")
    endpoint, usual = REQUESTS[done]
    code, error = attempt(case.operation, case.fault, usual)
    if error is None:
        return Expected(requests=Counter(REQUESTS))
    if error.attempts > 1 and not case.lasting:
        return Expected(requests=Counter([*REQUESTS, (endpoint, code)]), retries=1)
    asked = [(endpoint, code)] * (error.attempts if case.lasting else 1)
    requests = Counter([*REQUESTS[:done], *asked])
    return Expected(error.reason, requests, len(asked) - 1, world="old")


def attempt(operation: Operation, fault: str, usual: str) -> tuple[str, type[PollError] | None]:
    """The code that is counted for a request that meets a fault, and the error that it makes.

    The body of a 404 is of no interest: its status is the answer.
    """
    if fault in WHOLE_ANSWERS:
        return ANSWERED[fault]
    in_body = operation.kind == "read" and operation.part > 1
    ends_head = operation.kind == "read" and operation.part == 1 and fault in ("fin", "garbage")
    if usual == "404" and (in_body or ends_head):
        return usual, None
    if ends_head:  # as far as anyone can tell a head without a length, and an empty body
        return usual, BadBody
    if fault == "silence":
        return usual if in_body else "none", TimedOut
    if in_body:
        is_whole = fault == "garbage" and operation.form != "chunked"
        return usual, BadBody if is_whole else BodyCut
    return "none", NotHttp if fault == "garbage" else ConnectFailed


ANSWERED: Final[Mapping[str, tuple[str, type[PollError]]]] = {
    "500": ("500", ServerFailed),
    "429": ("429", RateLimited),
    "401": ("401", CredentialsRejected),
    "cut-gzip": ("200", JsonCut),
    "cut-json": ("200", JsonCut),
    "no-json": ("200", BadBody),
}


def clean(world: str) -> Expected:
    """A cycle without a fault: the details asked for are those of what the list lacks."""
    details = REQUESTS[PAGES:] if world == "old" else [("detail", "200")]
    return Expected(requests=Counter([*REQUESTS[:PAGES], *details]))


class Figures:
    """The figures that /metrics must show, reckoned from what has happened; time stands still."""

    def __init__(self, first_cycle: Scrape) -> None:
        self._live = dict(first_cycle.live)
        self._requests: Counter[tuple[str, str]] = Counter({("list", "200"): PAGES})

    def note(self, expected: Expected, now: float) -> None:
        """A cycle whose poll ended now."""
        if expected.world == "new":
            of_world = ("exophone_poll_pages", "exophone_number_changes_total")
            self._live |= {k: v for k, v in GOLDEN["new"].live.items() if k.startswith(of_world)}
            self._live[_series("poll_last_success_timestamp_seconds")] = now
        if expected.reason is not None:
            self._live[_series("poll_failures_total", reason=expected.reason)] += 1
        self._live[_series("poll_last_attempt_timestamp_seconds")] = now
        self._live[_series("up")] = expected.reason is None
        self._live[_series("polls_total")] += 1
        self._live[_series("api_retries_total")] += expected.retries
        self._requests.update(expected.requests)

    def live(self) -> Mapping[str, float]:
        """Every series of the live part but those of the process."""
        for (endpoint, code), count in self._requests.items():
            self._live[_series("api_requests_total", code=code, endpoint=endpoint)] = count
        return {series: self._of_duration(series, value) for series, value in self._live.items()}

    def _of_duration(self, series: str, value: float) -> float:
        """Every request took no time, and so is in the first bucket and all that follow."""
        if not series.startswith("exophone_api_request_duration_seconds") or "_sum{" in series:
            return value
        endpoint = series.partition('endpoint="')[2].partition('"')[0]
        return sum(count for (asked, _), count in self._requests.items() if asked == endpoint)


def _series(name: str, **labels: str) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in {"account": NAME, **labels}.items())
    return f"exophone_{name}{{{pairs}}}"


# ---- tests


@pytest.fixture(scope="module")
def page() -> Iterator[ServedPage]:
    with ServedPage().served() as served:
        yield served


@pytest.fixture
def logs() -> Iterator[Logs]:
    with Logs().heard() as heard:
        yield heard


@pytest.fixture(scope="module")
def silences() -> Mapping[Case, BaseException | None]:
    """What came of each case in which something is silent.

    All that these do is wait, and so they run side by side, each with a server of its own.
    """
    before = Resources.now()
    with Logs().heard() as logs, ThreadPoolExecutor(len(SILENT)) as pool:
        outcomes = dict(zip(SILENT, pool.map(_outcome, SILENT), strict=True))
    before.wait_until_no_more()
    assert not canary.traces("\n".join(logs.lines))
    return outcomes


def _outcome(case: Case) -> BaseException | None:
    try:
        with ServedPage().served() as page:
            assert_whole_after(case, page, alone=False)
    except BaseException as error:  # noqa: BLE001 - raised again in the test of the case
        return error
    return None


CASES: Final = cases_of(OPERATIONS)
SILENT: Final = [case for case in CASES if case.fault == "silence"]


def test_clean_cycle_is_the_real_thing(page: ServedPage, logs: Logs) -> None:
    """Pages in every form, a number that slipped through, one that is gone; and it is repeatable.

    The secrets are sent, and the logs are heard: the search for the one in the other can succeed.
    """
    with Rig(page) as rig:
        rig.tortured_cycle()
        assert rig.tape.operations == OPERATIONS
        assert rig.scrape().inventory == GOLDEN["new"].inventory
        assert canary.traces("".join(rig.vendor.server.requests))
    assert [*REQUESTS] == [("list", "200")] * PAGES + [("detail", "200"), ("detail", "404")]
    assert Counter(step.kind for step in OPERATIONS) == {
        "connect": 2,
        "send": 5,
        "read": 20,
        "count": 5,
        "parse": 6,
        "put": 1,
        "render": 11,
        "scrape": 1,
    }
    assert {world: shown.sids for world, shown in GOLDEN.items()} == SIDS
    assert any("the first poll is complete" in line for line in logs.lines)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.fault != "silence"], ids=lambda case: case.id
)
@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.fault(8)
@pytest.mark.fault(9)
@pytest.mark.fault(39)
@pytest.mark.fault(54)
@pytest.mark.fault(120)
@pytest.mark.fault(134)
def test_fault_of_one_operation_leaves_everything_whole(
    page: ServedPage, logs: Logs, case: Case
) -> None:
    assert_whole_after(case, page)
    assert not canary.traces("\n".join(logs.lines))


@pytest.mark.parametrize("case", SILENT, ids=lambda case: case.id)
@pytest.mark.xdist_group("silence")  # the fixture waits once for all of them
@pytest.mark.fault(5)
@pytest.mark.fault(6)
def test_silence_in_one_operation_leaves_everything_whole(
    silences: Mapping[Case, BaseException | None], case: Case
) -> None:
    error = silences[case]
    if error is not None:
        raise error


def assert_whole_after(case: Case, page: ServedPage, *, alone: bool = True) -> None:
    """Run a case and look at all that can be seen of it.

    Descriptors and threads are those of the process, and are counted where no other case runs.
    """
    page.said.clear()
    expected = expected_of(case)
    with Rig(page, case) as rig:
        figures = Figures(rig.scrape())
        rig.settle()
        before = Resources.now()
        assert rig.tortured_cycle() == expected.status
        assert rig.is_alive()
        figures.note(expected, rig.time.wall)
        assert_shown(rig, expected.world, figures)
        assert not canary.traces(repr(rig.error))
        rig.poll()
        figures.note(clean(expected.world), rig.time.wall)
        assert_shown(rig, "new", figures)
        rig.settle()
        if alone:
            before.wait_until_no_more()
    assert not canary.traces(b"".join(page.said))


def assert_shown(rig: Rig, world: str, figures: Figures) -> None:
    """The world, byte for byte, and every figure of the polls."""
    shown = rig.scrape()
    assert shown.inventory == GOLDEN[world].inventory
    assert shown.live == figures.live()
