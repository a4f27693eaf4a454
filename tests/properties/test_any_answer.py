"""Any answer of the API at all: numbers that can be shown everywhere, or one of our errors."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.cli import output
from exophone_exporter.config.number_rules import DEFAULT_RULES
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import REASONS, PollError
from exophone_exporter.exotel.error_bodies import vendor_message
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import (
    FIELDS,
    REJECTIONS,
    ExoPhone,
    Page,
    parse_number,
    parse_page,
)
from exophone_exporter.exotel.text import clean_text
from exophone_exporter.inventory.expectations import Verdict, judge
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.metrics.page import ExporterInfo
from exophone_exporter.web import status_page
from tests.lib.corpus import corpus
from tests.lib.exposed import assert_exposed
from tests.lib.strategies import ANY_TEXT, edited, share
from tests.lib.support import INDIA, SAMPLES, FakeTime, account

BUILD: Final = ExporterInfo("r", 0.0)
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")  # what a terminal may take for a command
SETTINGS: Final = (
    PerNumber("all", 10_000, "full"),
    PerNumber("unattached", 1, "last4"),
    PerNumber("all", 2, "hidden"),
)
# Valid JSON, however odd, and invalid JSON.
ODD: Final = (
    *("null", "true", "false", "0", "-0", "7", "1e3", "-1.5", "1e999", "1E-999", "-1e999"),
    *('"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '""', '"  "', "[]", "{}"),
    *("1e" + "9" * 30, "0." + "1" * 400, '"' + "a" * 5000 + '"', '"NaN"', '"-1"', '"1e9"'),
    *('"499.000000"', '"0499"', '"499,00"', '"\u0661\u0662"', '"INR"', '"IN"', '"MU"', "1" * 99),
    *('"2017-09-22 17:17:00"', '"0000-00-00 00:00:00"', '"9999-12-31T23:59:60Z"', '"other"'),
    *('"0001-01-01 00:00:00"', '"9999-12-31 23:59:59"', '"2016-02-30 00:00:00"', '"=1+1"'),
    *('"http://my.exotel.in/a/exoml/start_voice/1"', '"https://my.exotel.com/exoml/start/x?"'),
    *('{"voice": true, "sms": false}', '{"voice": "yes", "sms": {}}', '"{}%s\\\\\\""'),
    *('"\\u2028\\r\\n\\t\\u0085\\u009b31m"', '"[bold]x[/bold]"', '"<script>"', '"+912248901111"'),
    '"external"',
)
BROKEN: Final = (
    *("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1", "nul", "undefined", ""),
    *('"\\x"', '"', "'a'", '"a', "[", "]", "{", "}", '"\n"', "1" * 5000, "[" * 3000, "//"),
)
VALUES: Final = st.recursive(
    st.sampled_from(ODD)
    | st.integers().map(str)
    | st.floats().map(json.dumps)
    | ANY_TEXT.map(json.dumps)
    | ANY_TEXT.map(lambda text: json.dumps(text, ensure_ascii=False)),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(ANY_TEXT.map(json.dumps), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)
INSERTIONS: Final = (
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"),
    *(b"NaN", b"1e999", b"9" * 5000, b"[" * 3000, b"]", b"{", b"}", b'"', b"\\", b"\\u", b","),
    *(b'"sid":', b'"sid": "",', b'"incoming_phone_numbers":', b'"page": -1,', b"null"),
)
SIDS: Final = ('"a"', '"b"', '"+912248901111"', "1", '"1"', '" \\ud800/"', "9223372036854775808")


@st.composite
def objects(draw: st.DrawFn) -> str:
    """A number as it is documented, but for what any value may be; keys may be missing or twice."""
    key = st.sampled_from(FIELDS).map(json.dumps) | ANY_TEXT.map(json.dumps)
    pairs = draw(st.lists(st.tuples(key, VALUES), max_size=12))
    pairs.insert(draw(st.integers(0, len(pairs))), ('"sid"', draw(st.sampled_from(SIDS))))
    return "{" + ",".join(f"{key}: {value}" for key, value in pairs) + "}"


@st.composite
def envelopes(draw: st.DrawFn) -> str:
    """A list of numbers as it is documented, but for what any value around them may be."""
    items = draw(st.lists(objects() | objects() | VALUES, max_size=4))
    said = ("page", "page_size", "next_page_uri", "uri", "http_code", "RestException", "status")
    # Not often one that makes the whole answer an error.
    likely = said[: draw(st.sampled_from([4, 4, 7]))]
    around = draw(st.lists(st.tuples(st.sampled_from(likely), VALUES), max_size=3))
    members = [f'"incoming_phone_numbers": [{", ".join(items)}]']
    members += [f"{json.dumps(key)}: {value}" for key, value in around]
    return "{" + ", ".join(draw(st.permutations(members))) + "}"


def encoded(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


DOCUMENTS: Final = encoded(envelopes() | objects())
BODIES: Final = st.one_of(
    st.binary(),
    encoded(VALUES),
    DOCUMENTS,
    DOCUMENTS.map(lambda body: b"\xef\xbb\xbf \n" + body + b"\n"),
    st.tuples(DOCUMENTS, st.sampled_from(BROKEN)).map(
        lambda pair: pair[0].replace(b'"a"', pair[1].encode(), 1)
    ),
    st.tuples(envelopes(), st.sampled_from(["utf-16", "utf-16-le", "utf-32"])).map(
        lambda pair: pair[0].encode(pair[1], "surrogatepass")
    ),
    edited(
        st.sampled_from([(SAMPLES / name).read_bytes() for name in ("list.json", "detail.json")])
        | DOCUMENTS,
        INSERTIONS,
    ),
)


def texts_of(number: ExoPhone) -> dict[str, str]:
    values = {name: getattr(number, name) for name in ExoPhone.__struct_fields__}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def assert_fit(number: ExoPhone) -> None:
    """Every text can be a label value, every name of a field is known, and there is a sid."""
    for name, text in texts_of(number).items():
        text.encode("utf-8")
        assert len(text) <= (2048 if name.endswith("_url") else 256)
        assert not CONTROL.search(text)
    for flow in ("voice", "sms"):
        assert len(number.flow_id(flow)) <= 256
    assert number.sid == number.sid.strip() != ""
    assert set(number.unreadable) <= set(FIELDS)


def assert_fit_page(page: Page) -> None:
    """Nothing is lost without being counted, and what is said of other pages makes sense."""
    assert set(page.rejected) <= set(REJECTIONS)
    assert page.items == len(page.numbers) + sum(page.rejected.values())
    assert page.page is None or (type(page.page) is int and page.page >= 0)
    assert page.page_size is None or (type(page.page_size) is int and page.page_size > 0)
    for number in page.numbers:
        assert_fit(number)


def parsed(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except PollError as error:
        refused = error
    message = str(refused)
    message.encode("utf-8")
    assert refused.reason in REASONS
    assert not CONTROL.search(message)
    assert 0 < len(message) < 400
    return None


def assert_survives(body: bytes) -> None:
    """Numbers that can be shown wherever we show numbers, or a PollError; and nothing else."""
    page = parsed(lambda: parse_page(body, INDIA))
    number = parsed(lambda: parse_number(body, INDIA))
    if page is not None:
        assert_fit_page(page)
        assert parse_page(body, INDIA) == page
        once = {number.sid: number for number in page.numbers}
        assert_shown(
            Listing((*once.values(),), 1, page.rejected), SETTINGS[len(body) % len(SETTINGS)]
        )
    if number is not None:
        assert_fit(number)
    assert len(clean_text(vendor_message(body))) <= 256


def assert_shown(walk: Listing, per_number: PerNumber) -> None:
    time = FakeTime()
    now, state = time.clock.now(), AccountState(account(per_number=per_number))
    state.record_poll(PollResult(now, 1.0, build(walk, now, 1.0)))
    assert_exposed([state.status()], BUILD, time.clock)
    page = status_page.render([state.status()], now, "/metrics", probe=True)
    assert "<script>" not in page.encode().decode()
    assert_printed([("support", n, judge(n, DEFAULT_RULES)) for n in walk.numbers])


def assert_printed(numbers: list[tuple[str, ExoPhone, Verdict]]) -> None:
    records = [output.record(*listed) for listed in numbers]
    table = printed(lambda: output.print_numbers(numbers, "")) if numbers else "head\n\n\n"
    assert table.count("\n") == len(numbers) + 3
    assert not CONTROL.search(table.replace("\n", ""))
    assert json.loads(printed(lambda: output.print_json(records))) == records
    lines = printed(lambda: output.print_csv(records))
    rows = list(csv.DictReader(io.StringIO(lines, newline="")))
    assert [(row["sid"], row["friendly_name"]) for row in rows] == [
        (number.sid, number.friendly_name) for _, number, _ in numbers
    ]
    for listed in numbers[:1]:
        assert printed(lambda listed=listed: output.print_number(*listed))  # type: ignore[misc]  # a default binds it


def printed(show: Callable[[], object]) -> str:
    content = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(content, encoding="utf-8")):
        show()
        sys.stdout.flush()
        return content.getvalue().decode()


@share(200)
@given(BODIES)
@pytest.mark.fault(64)
def test_any_answer_becomes_numbers_that_can_be_shown_or_an_error_of_ours(body: bytes) -> None:
    """Bytes, JSON of any kind, lists that are nearly right, edited ones, in any encoding."""
    assert_survives(body)


@pytest.mark.parametrize("body", corpus("answers"))
@pytest.mark.fault(64)
def test_answers_that_once_broke_something(body: bytes) -> None:
    assert_survives(body)
