"""What the log says of the polls of one account, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import BadBody, ListShifted, PollError, TimedOut
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.changes import Change, diff
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import PollResult
from exophone_exporter.polling.poll_log import PollLogger
from tests.lib.support import FakeTime, account, log_lines, phone

VOICE_12 = "http://my.exotel.in/acme/exoml/start_voice/12"
FAILED = ("WARNING", "the poll failed")
STILL_FAILS = ("WARNING", "the poll still fails")
WORKS_AGAIN = ("INFO", "the poll works again")
FIRST = ("INFO", "the first poll is complete")


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="exophone_exporter")


def success(
    time: FakeTime,
    *numbers: ExoPhone,
    changes: tuple[Change, ...] = (),
    missed: Iterable[str] = (),
) -> PollResult:
    now, listing = time.clock.now(), Listing(numbers, 1, {}, dict.fromkeys(missed, 1))
    return PollResult(now, 2.0, build(listing, now, 2.0), changes)


def failure(time: FakeTime, error: PollError) -> PollResult:
    return PollResult(time.clock.now(), 2.0, error=error)


def logged_fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [vars(record)["fields"] for record in caplog.records]


def test_only_the_first_success_is_logged(time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    logger = PollLogger(account())
    for _ in range(3):
        logger.log(success(time, phone()))
    assert logged_fields(caplog) == [
        {"account": "support", "numbers": 1, "pages": 1, "duration_seconds": 2.0}
    ]
    assert log_lines(caplog) == [FIRST]
    PollLogger(account(), previous=success(time).snapshot).log(success(time))
    assert log_lines(caplog) == [("INFO", "the first poll by the new configuration is complete")]


@pytest.mark.fault(136)
def test_failure_is_logged_once_an_hour_and_so_is_recovery(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    logger = PollLogger(account())
    lines = []
    for seconds in (0, 3599, 1, 3599, 1):
        time.pass_(seconds)
        logger.log(failure(time, TimedOut("slow")))
        lines.append(log_lines(caplog))
    assert lines == [[FAILED], [], [STILL_FAILS], [], [STILL_FAILS]]
    logger.log(success(time, phone()))
    assert log_lines(caplog) == [WORKS_AGAIN]
    logger.log(failure(time, TimedOut("slow")))
    assert log_lines(caplog) == [FAILED]


@pytest.mark.fault(136)
def test_failures_that_alternate_are_logged_as_often_as_each_alone(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """The first of each immediately."""
    logger = PollLogger(account())
    for _ in range(100):
        logger.log(failure(time, TimedOut("slow")))
        logger.log(failure(time, BadBody("html")))
        time.pass_(60)
    assert logged_fields(caplog)[:2] == [
        {"account": "support", "reason": "timeout", "error": "slow"},
        {"account": "support", "reason": "bad_body", "error": "html"},
    ]
    assert log_lines(caplog) == [FAILED] * 2 + [STILL_FAILS] * 2


MISSED = {f"sid-{n}": 1 for n in range(12)}


@pytest.mark.parametrize(
    ("missed", "setting", "sids"),
    [
        pytest.param(["sid-3"], "full", "sid-3", id="one"),
        pytest.param([*MISSED], "full", " ".join([*MISSED][:10]) + " …", id="many"),
        pytest.param(["02248901111"], "hidden", "number-", id="hidden"),
    ],
)
@pytest.mark.fault(92, 138)
def test_unconfirmed_numbers_are_named_once_and_so_is_their_end(
    time: FakeTime, caplog: pytest.LogCaptureFixture, missed: list[str], setting: Any, sids: str
) -> None:
    """Also where they are first missed by a walk that failed, and across a reload."""
    own = account(per_number=PerNumber("all", 100, setting))
    logger, numbers = PollLogger(own), [phone(sid) for sid in missed]
    logger.log(success(time, *numbers))
    logger.log(failure(time, ListShifted(len(missed), dict.fromkeys(missed, 1))))
    logger.log(success(time, *numbers, missed=missed))
    last = success(time, *numbers, missed=missed)
    for again in (logger, PollLogger(own, last.snapshot)):
        again.log(last)
        again.log(success(time))
        again.log(success(time))
    begun, ended = [line for line in logged_fields(caplog) if "sids" in line], log_lines(caplog)
    assert [line["numbers"] for line in begun] == [len(missed)]
    assert str(begun[0]["sids"]).startswith(sids)
    assert "2248" not in str(begun[0]["sids"])
    assert ended.count(("INFO", "every number shown is on the list again")) == 2
    assert [level for level, said in ended if said.startswith("the list lacks")] == ["INFO"]


@pytest.mark.fault(81, 80)
def test_numbers_that_all_vanish_are_one_warning(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """An account that never had a number is not a warning."""
    logger = PollLogger(account())
    for numbers in ((), (phone(),), (), ()):
        logger.log(success(time, *numbers))
    assert log_lines(caplog) == [FIRST, ("WARNING", "the account had numbers and has none now")]


@pytest.mark.fault(78)
def test_poll_longer_than_its_interval_is_one_warning(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    for interval_seconds, warnings in ((1.0, 1), (2.0, 0)):
        logger = PollLogger(account(interval_seconds=interval_seconds))
        for _ in range(2):
            logger.log(success(time))
        slow = ("WARNING", "the poll takes longer than its interval")
        assert log_lines(caplog) == [FIRST, *[slow] * warnings]


def test_each_change_is_one_line_that_names_the_number(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    before = success(time, phone("a")).snapshot
    number = phone("a", voice_url=VOICE_12, rental_price=Decimal("999.000000"), region="DL")
    after = success(time, number).snapshot
    assert before is not None
    assert after is not None
    PollLogger(account(), before).log(success(time, number, changes=diff(before, after)))
    about = {
        "account": "support",
        "sid": "a",
        "phone_number": "+912248901111",
        "friendly_name": "Support Mumbai",
    }
    assert logged_fields(caplog)[1:] == [
        about | {"change": "voice_moved", "before": "11", "after": "12"},
        about | {"change": "rental_changed", "before": "499.000000", "after": "999.000000"},
        about | {"change": "other", "fields": "region"},
    ]


@pytest.mark.fault(81, 132)
def test_changes_beyond_50_are_one_line_with_their_counts(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    changes = [Change("added", phone(f"sid-{n}")) for n in range(49)]
    changes += [Change("removed", phone()), Change("sms_moved", phone())]
    changes += [Change("removed", phone())] * 5000
    PollLogger(account(), success(time).snapshot).log(success(time, changes=tuple(changes)))
    assert logged_fields(caplog)[-1] == {"account": "support", "sms_moved": 1, "removed": 5000}
    changed = ("INFO", "a number changed")
    assert log_lines(caplog)[1:] == [*[changed] * 50, ("INFO", "more numbers changed")]
    PollLogger(account(), success(time).snapshot).log(success(time, changes=tuple(changes[:50])))
    assert log_lines(caplog)[1:] == [changed] * 50


@pytest.mark.parametrize(
    ("setting", "phone_number"),
    [pytest.param("last4", "…1111", id="last4"), pytest.param("hidden", "", id="hidden")],
)
@pytest.mark.fault(92)
def test_change_shows_no_more_of_the_number_than_it_may(
    time: FakeTime, caplog: pytest.LogCaptureFixture, setting: Any, phone_number: str
) -> None:
    number = phone("02248901111", friendly_name="02248901111")
    change = Change("voice_moved", number, before="11", after="external")
    logger = PollLogger(account(per_number=PerNumber("all", 100, setting)))
    logger.log(success(time, number, changes=(change,)))
    line = logged_fields(caplog)[-1]
    assert (line["phone_number"], line["friendly_name"]) == (phone_number, phone_number)
    assert (line["change"], line["before"], line["after"]) == ("voice_moved", "11", "external")
    assert "2248" not in str(line)
