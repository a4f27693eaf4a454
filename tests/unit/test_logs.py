"""One line per record, whatever it contains, and no credentials."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exophone_exporter import logs
from exophone_exporter.logs import LogFormat, fields

Written = Callable[..., "Stderr"]

LOGGER = logging.getLogger("exophone_exporter.tested")
CANARY = "c4n4ry-t0ken"
# base64 of "key:c4n4ry-t0ken"
CANARY_BASIC = "a2V5OmM0bjRyeS10MGtlbg=="


class Stderr:
    """stderr as a file."""

    def __init__(self, path: Path) -> None:
        self.stream = path.open("w", encoding="utf-8")
        self._path = path

    def getvalue(self) -> str:
        logging.getLogger().handlers[0].flush()
        return self._path.read_text(encoding="utf-8")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Sets logging up in a format and returns what stderr receives."""
    opened: list[Stderr] = []

    def configure(log_format: LogFormat, level: str = "debug") -> Stderr:
        opened.append(Stderr(tmp_path / f"stderr-{len(opened)}"))
        monkeypatch.setattr(sys, "stderr", opened[-1].stream)
        logs.configure(level, log_format)
        return opened[-1]

    yield configure
    for each in opened:
        each.stream.close()


def without_time(text: str) -> str:
    """The line without the time, which is RFC 3339 in UTC with milliseconds."""
    assert re.match(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", text)
    assert text.endswith("\n")
    return text[30:-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', r'"a\"b"'),
        ("a=b", '"a=b"'),
        ("a\\b", r'"a\\b"'),
        ("a\nb\r\tc", r'"a\nb\r\tc"'),
        ("a\x00\x1b[31m", r'"a\u0000\u001b[31m"'),
        ("a\x85b\u2028c\x7f", r'"a\u0085b\u2028c\u007f"'),
        ("a\x7f", r'"a\u007f"'),
        ("a\x9b31m", r'"a\u009b31m"'),
        ("a\u2029b", r'"a\u2029b"'),
        ("\ud800", r'"\ud800"'),
        ("मुंबई", "मुंबई"),
        ("नवी मुंबई", '"नवी मुंबई"'),
        (1.23456, "1.235"),
        (7, "7"),
        (None, "None"),
    ],
)
def test_logfmt_quotes_what_needs_it(written: Written, value: object, text: str) -> None:
    stream = written("logfmt")
    LOGGER.info("seen", extra=fields(value=value))
    assert without_time(stream.getvalue()) == f"level=info logger=tested msg=seen value={text}"


def test_json_has_the_same_fields_with_their_types(written: Written) -> None:
    stream = written("json")
    LOGGER.warning(
        "the poll failed", extra=fields(numbers=3, price=Decimal("499.50"), name="x\ny\u2028z")
    )
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warn",
        "logger": "tested",
        "msg": "the poll failed",
        "numbers": 3,
        "price": "499.50",
        "name": "x\ny\u2028z",
    }


@pytest.mark.fault(128)
def test_time_is_that_of_the_record_in_utc(written: Written) -> None:
    stream = written("json")
    record = LOGGER.makeRecord(LOGGER.name, logging.INFO, "", 0, "seen", (), None)
    record.created = 1_700_000_000.0
    LOGGER.handle(record)
    assert json.loads(stream.getvalue())["time"] == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("debug", ["debug", "info", "warn", "error", "error"]),
        ("info", ["info", "warn", "error", "error"]),
        ("warn", ["warn", "error", "error"]),
        ("error", ["error", "error"]),
    ],
)
def test_level_and_above_are_logged_in_the_ecosystems_words(
    written: Written, level: str, logged: list[str]
) -> None:
    stream = written("json", level)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        LOGGER.log(number, "seen")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == logged


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        pytest.param(f"Authorization: Basic {CANARY_BASIC}", "Basic <secret>", id="basic"),
        pytest.param(f"{{'authorization': 'basic {CANARY_BASIC}'}}", "basic <secret>", id="repr"),
        pytest.param(f"Bearer {CANARY}", "Bearer <secret>", id="bearer"),
        pytest.param(
            f"[(b'authorization', b'Basic {CANARY_BASIC}')]", "Basic <secret>", id="scope"
        ),
        pytest.param(f"https://key:{CANARY}@api.exotel.com/v2", "<secret>@api.exotel", id="url"),
        pytest.param(f"https://{CANARY}@api.exotel.com", "<secret>@api.exotel", id="user-alone"),
        pytest.param(f"http://k:p@{CANARY}@api.exotel.com", "<secret>@api.exotel", id="two-ats"),
        pytest.param(f'http://k:"{CANARY}"@api.exotel.com', "<secret>@api.exotel", id="quoted"),
    ],
)
@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_credentials_are_redacted_everywhere(
    written: Written, log_format: LogFormat, text: str, redacted: str
) -> None:
    """In the message, in a field, in its arguments and in a traceback."""
    stream = written(log_format)
    try:
        raise ValueError(text)  # noqa: TRY301 - what is logged wants a traceback
    except ValueError:
        LOGGER.exception("failed: %s; %s", text, text, extra=fields(error=text))
    line = stream.getvalue()
    assert CANARY not in line
    assert CANARY_BASIC not in line
    assert line.count(redacted) == 4
    assert "Traceback (most recent call last)" in line
    assert line.count("\n") == 1
    if log_format == "json":
        assert "ValueError: " in json.loads(line)["traceback"]


def test_shortest_credentials_are_redacted_too() -> None:
    """`YTpi` is `a:b`."""
    assert logs.redact("Authorization: Basic YTpi") == "Authorization: Basic <secret>"


def test_what_only_looks_like_credentials_is_left_alone() -> None:
    text = "see https://api.exotel.com/v2_beta and mail to help@exotel.com; a basic fee"
    text += "; HTTP Basic ends the name there; Basic authentication; the Basic ExoPhone plan"
    assert logs.redact(text) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=30))
def test_any_text_stays_on_one_line_and_json_stays_json(written: Written, text: str) -> None:
    for log_format in ("logfmt", "json"):
        stream = written(log_format)
        LOGGER.info("%s", text, extra=fields(value=text))
        line = stream.getvalue()
        assert len(line.splitlines()) == 1
        line.encode("utf-8")
    assert json.loads(line)["level"] == "info"


@pytest.mark.fault(122)
def test_closed_stderr_loses_the_line_and_raises_nothing(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    written("logfmt").stream.close()
    LOGGER.error("lost")
    logging.getLogger().handlers[0].flush()
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault(122)
@pytest.mark.parametrize("path", ["/dev/full", None], ids=["full", "none"])
def test_full_or_missing_stderr_raises_nothing(
    written: Written, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    stderr = written("json")
    with open(path or os.devnull, "w") as stream:  # noqa: PTH123 - a device
        monkeypatch.setattr(sys, "stderr", stream if path else None)
        LOGGER.error("lost")
        logging.getLogger().handlers[0].flush()
    monkeypatch.setattr(sys, "stderr", stderr.stream)
    LOGGER.error("written")
    assert [json.loads(line)["msg"] for line in stderr.getvalue().splitlines()] == ["written"]


@pytest.mark.fault(122)
def test_stderr_that_nobody_reads_blocks_nobody_and_drops_are_counted(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipe takes part of one line, and 1,000 more wait; the first after them says the rest."""
    written("json")
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        LOGGER.info("x" * 1_000_000)
        select.select([reader], [], [])  # the writer is in the middle of this line
        for number in range(1250):
            LOGGER.info("line", extra=fields(number=number))
        assert logs.lines_dropped() == 250
        numbers = [json.loads(reader.readline()).get("number") for _ in range(1001)]
        assert numbers == [None, *range(1000)]
        LOGGER.info("after")
        dropped, after = (json.loads(reader.readline()) for _ in range(2))
        assert (dropped["level"], dropped["lines"], after["msg"]) == ("warn", 250, "after")
        assert logs.lines_dropped() == 250


def test_configuring_twice_does_not_log_twice(written: Written) -> None:
    before = written("json")
    stream = written("logfmt")
    LOGGER.info("once")
    assert (before.getvalue(), stream.getvalue().count("once")) == ("", 1)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("urllib3.connectionpool", "INFO"),
        ("urllib3.connection", "WARNING"),  # a traceback with all that the server sent
        ("uvicorn", "INFO"),
        ("uvicorn.error", "INFO"),
        ("uvicorn.access", "INFO"),
        ("asyncio", "INFO"),
    ],
)
def test_chatter_of_libraries_is_not_logged(written: Written, name: str, level: str) -> None:
    stream = written("logfmt")
    logging.getLogger(name).log(logging.getLevelName(level), "chatter")
    assert stream.getvalue() == ""
