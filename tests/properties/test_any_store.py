"""Any accounts, numbers, counters and settings: prometheus_client reads back what went in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exophone_exporter import errors
from exophone_exporter.clock import ClockReading
from exophone_exporter.config.loader import revision
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import FIELDS, REJECTIONS, ExoPhone
from exophone_exporter.exotel.text import clean_text
from exophone_exporter.inventory.changes import Change
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, BalanceResult, PollResult
from exophone_exporter.metrics.page import ExporterInfo
from tests.lib.exposed import Exposition
from tests.lib.strategies import ANY_TEXT, share
from tests.lib.support import FakeTime, account, phone

# What `model` lets through, and what escaping, masking and folding might trip over.
TEXTS: Final = st.one_of(
    ANY_TEXT.map(clean_text),
    st.text('"\\n{},=%#…/ \u2028', max_size=6),
    st.sampled_from(["other", "external", "", "IN", "MU", "12345678", "+91 22 4890-1111", "a/b"]),
)
SIDS: Final = TEXTS.map(str.strip).filter(bool)
FLOW_URLS: Final = st.one_of(
    st.none(),
    TEXTS,
    TEXTS.map(lambda flow: f"https://my.exotel.com/acme/exoml/start_voice/{flow}"),
)
PRICES: Final = st.none() | st.decimals(0, 999_999_999_999, places=9)
# From the year 1 to 9999.
TIMESTAMPS_SECONDS: Final = st.none() | st.integers(-62_135_510_400, 253_402_300_799)
ATTRIBUTES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "account_sid": TEXTS,
    "phone_number": TEXTS,
    "friendly_name": TEXTS,
    "country": TEXTS,
    "region": TEXTS,
    "number_type": TEXTS,
    "currency": TEXTS,
    "vanity_number": st.none() | st.booleans(),
    "voice_capable": st.booleans(),
    "sms_capable": st.booleans(),
    "voice_url": FLOW_URLS,
    "sms_url": FLOW_URLS,
    "rental_price": PRICES,
    "one_time_price": PRICES,
    "incoming_rate": PRICES,
    "incoming_pulse_seconds": PRICES,
    "created_timestamp_seconds": TIMESTAMPS_SECONDS,
    "updated_timestamp_seconds": TIMESTAMPS_SECONDS,
    "unreadable": st.lists(st.sampled_from(FIELDS), max_size=3, unique=True).map(tuple),
}
FEW: Final = st.dictionaries(SIDS, st.fixed_dictionaries({}, optional=ATTRIBUTES), max_size=5).map(
    lambda by_sid: tuple(phone(sid, **attributes) for sid, attributes in by_sid.items())
)


@st.composite
def polls(draw: st.DrawFn) -> list[tuple[ExoPhone, ...] | errors.PollError]:
    """What one poll after the other finds: often the same numbers but for one, or none at all."""
    found: list[tuple[ExoPhone, ...] | errors.PollError] = []
    numbers = draw(FEW)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["same", "one changed", "one gone", "others", "failure"]))
        if kind == "failure":
            found.append(draw(FAILURES))
            continue
        if kind == "others":
            numbers = draw(FEW)
        elif kind != "same" and numbers:
            at = draw(st.integers(0, len(numbers) - 1))
            changed = phone(numbers[at].sid, **draw(st.fixed_dictionaries({}, optional=ATTRIBUTES)))
            kept = (changed,) if kind == "one changed" else ()
            numbers = (*numbers[:at], *kept, *numbers[at + 1 :])
        found.append(numbers)
    return found


# More circles and flows than there may be label values: the rest is `other`, as is one of them.
MANY: Final = st.integers(101, 110).map(
    lambda count: tuple(
        phone(
            f"sid-{index}",
            region="other" if index == 7 else f"R{index % count}",
            voice_url=f"http://my.exotel.in/a/exoml/start_voice/{index}",
        )
        for index in range(115)
    )
)
FAILURES: Final = st.sampled_from(
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.PollError)
        and kind
        not in (errors.PollError, errors.RateLimited, errors.ErrorInside, errors.ListShifted)
    ]
).map(lambda kind: kind("no"))
SECONDS: Final = st.floats(0, 1e9)


@dataclass(frozen=True)
class Polled:
    """What happened to one account: its settings, what was counted, its polls, their age."""

    per_number: PerNumber
    requests: list[tuple[Any, int, float]]
    waits: list[float]
    found: list[tuple[ExoPhone, ...] | errors.PollError]
    rejected: dict[str, int]
    age_seconds: float
    labels: dict[str, str]
    balances: list[Balance | errors.PollError]
    rate_limits: tuple[int | None, int | None]


PER_NUMBER: Final = st.builds(
    PerNumber,
    st.sampled_from(["all", "unattached", "none"]),
    st.integers(0, 4) | st.just(10_000),
    st.sampled_from(["full", "last4", "hidden"]),
)
BALANCES: Final = st.builds(
    Balance, st.decimals("-1e12", "1e12", places=4), st.sampled_from(["INR", "USD"]), TEXTS
)
POLLED: Final = st.builds(
    Polled,
    PER_NUMBER,
    st.lists(
        st.tuples(st.sampled_from(["list", "detail", "balance"]), st.integers(100, 999), SECONDS),
        max_size=4,
    ),
    st.lists(SECONDS, max_size=3),
    polls(),
    st.dictionaries(st.sampled_from(REJECTIONS), st.integers(0, 10**6)),
    st.sampled_from([0.0, 1.5, 900.0, 901.0]),
    st.dictionaries(st.sampled_from(["team", "_x", "Abc", "z9"]), TEXTS, max_size=3),
    st.lists(BALANCES | FAILURES, max_size=2),
    st.tuples(st.none() | st.integers(0, 10**9), st.none() | st.integers(0, 10**9)),
)
ACCOUNTS: Final = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True), POLLED, max_size=3
)


def state_of(name: str, polled: Polled) -> AccountState:
    own = account(name, per_number=polled.per_number)
    interval = 300.0 if polled.balances else None
    labels = tuple(polled.labels.items())
    state = AccountState(replace(own, balance_interval_seconds=interval, labels=labels))
    for found in polled.balances:
        error = found if isinstance(found, errors.PollError) else None
        balance = found if isinstance(found, Balance) else None
        state.record_balance(BalanceResult(FakeTime().clock.now(), balance, error))
    state.record_rate_limits("list", polled.rate_limits)
    for endpoint, code, seconds in polled.requests:
        state.record_request(endpoint, str(code), seconds)
    for seconds in polled.waits:
        state.record_wait(seconds)
        state.record_retry()
    return state


def record_poll(state: AccountState, polled: Polled, attempt: int, now: ClockReading) -> None:
    for found in polled.found[attempt : attempt + 1]:
        if isinstance(found, errors.PollError):
            state.record_poll(PollResult(now, 1.0, error=found))
            continue
        changes = tuple(Change("added", number) for number in found)
        snapshot = build(Listing(found, 2, polled.rejected), now, 1.0)
        state.record_poll(PollResult(now, 1.0, snapshot, changes))


def assert_exposed_throughout(accounts: dict[str, Polled], build: ExporterInfo) -> None:
    """Before the first poll and after each, on one page, which keeps what did not change."""
    time = FakeTime()
    states = {name: state_of(name, polled) for name, polled in accounts.items()}
    page = Exposition(lambda: [state.status() for state in states.values()], build, time.clock)
    page.check()
    for attempt in range(max((len(polled.found) for polled in accounts.values()), default=0)):
        for name, polled in accounts.items():
            record_poll(states[name], polled, attempt, time.clock.now())
            time.pass_(polled.age_seconds)
        time.pass_(1.0)  # what is alive serves for a second
        page.check()


@share(60)
@given(ACCOUNTS, ANY_TEXT, st.booleans(), SECONDS)
@example({}, "\udcff", True, 0.0)
@pytest.mark.fault(63, 64, 65, 80, 87, 89, 129)
def test_any_store_is_exposed_as_it_is_and_as_the_reference_writes_it(
    accounts: dict[str, Polled], commit: str, reloaded: bool, loaded_at: float
) -> None:
    """Exactly its label values and numbers, no series twice, the same bytes, one gzip member.

    The commit comes from the environment, where anything may stand.
    """
    build = ExporterInfo(revision({"EXOPHONE_REVISION": commit}), loaded_at, reloaded)
    assert_exposed_throughout(accounts, build)


@share(4)
@given(MANY, PER_NUMBER)
@pytest.mark.fault(88)
def test_more_label_values_than_there_may_be_are_no_series_twice(
    numbers: tuple[ExoPhone, ...], per_number: PerNumber
) -> None:
    """A circle that is called other among them."""
    polled = Polled(per_number, [], [], [numbers], {}, 0.0, {}, [], (None, None))
    assert_exposed_throughout({"support": polled}, ExporterInfo("r", 0.0))
