"""The status page: what it says of each account, and that it says it safely."""

from __future__ import annotations

import functools
import html.parser
import re
import threading
from collections import Counter
from decimal import Decimal
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import pytest
from support import FakeTime, account, browse, phone

from exophone_exporter import status
from exophone_exporter.config import PerNumber
from exophone_exporter.errors import CredentialsRejected
from exophone_exporter.snapshot import Walk, build
from exophone_exporter.store import AccountState, PollResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exophone_exporter.model import ExoPhone

HOSTILE: Final = "\"><script>alert('1')</script><img src=https://evil.example/x onerror=alert(2)>"
VOID_TAGS: Final = {"meta"}


def polled(
    time: FakeTime, *numbers: ExoPhone, name: str = "support", per_number: PerNumber | None = None
) -> AccountState:
    """An account whose one poll found these numbers, now."""
    state = AccountState(account(name, per_number=per_number))
    now = time.clock.now()
    snapshot = build(Walk(numbers, 1, Counter()), now, 1.0)
    state.record_poll(PollResult(now, 1.0, snapshot))
    return state


def fail(state: AccountState, time: FakeTime, message: str = "401: the key is wrong") -> None:
    now = time.clock.now()
    state.record_poll(PollResult(now, 1.0, error=CredentialsRejected(message)))


def page_of(time: FakeTime, *states: AccountState) -> str:
    return status.render([state.view() for state in states], time.clock.now(), "/metrics")


def card_of(time: FakeTime, state: AccountState) -> status.Card:
    return status.card(state.view(), time.clock.now())


class Reader(html.parser.HTMLParser):
    """What a browser would see: tags, attributes and text; tags must be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: Counter[str] = Counter()
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        self.ids.update(value or "" for name, value in attrs if name == "id")
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.text.append(data.strip())


def test_account_without_a_poll_waits(time: FakeTime) -> None:
    card = card_of(time, AccountState(account()))
    assert (card.state, card.headline) == ("waiting", "The first poll is under way.")
    assert not card.has_figures


def test_account_whose_last_poll_was_complete_is_ok(time: FakeTime) -> None:
    state = polled(time, phone())
    time.pass_(45)
    card = card_of(time, state)
    assert (card.state, card.headline, card.error) == ("ok", "As of 45 s ago.", "")
    assert card.has_figures


def test_failing_account_shows_what_was_found_last(time: FakeTime) -> None:
    state = polled(time, phone())
    time.pass_(300)
    fail(state, time)
    card = card_of(time, state)
    assert card.state == "failing"
    assert card.headline == "The last poll failed; shown is what was found 5 min ago."
    assert (card.error, card.numbers, card.has_figures) == ("401: the key is wrong", 1, True)


def test_account_that_never_worked_is_failing(time: FakeTime) -> None:
    state = AccountState(account())
    fail(state, time)
    card = card_of(time, state)
    assert (card.state, card.headline) == ("failing", "No poll has been complete yet.")
    assert not card.has_figures
    assert "<dl>" not in page_of(time, state)


def test_stale_account_shows_no_figures(time: FakeTime) -> None:
    state = polled(time, phone("a", voice_url=""))
    fail(state, time)
    time.pass_(901)
    card = card_of(time, state)
    assert card.state == "stale"
    assert card.headline == "The last complete poll was 15 min ago: too old to be shown."
    assert (card.has_figures, card.rows) == (False, ())
    page = page_of(time, state)
    assert "✗ stale" in page
    assert "<dl>" not in page
    assert "401: the key is wrong" in page


@pytest.mark.fault(80)
def test_zero_numbers_that_a_failing_account_had_are_figures_too(time: FakeTime) -> None:
    state = polled(time)
    fail(state, time)
    assert "<dl>" in page_of(time, state)


def test_figures_of_an_account(time: FakeTime) -> None:
    card = card_of(
        time,
        polled(
            time,
            phone("a", rental_price=Decimal(132773)),
            phone("b", voice_url=""),
            phone("c", voice_url="", sms_url=""),
            phone("d", voice_url="", sms_url="", currency="USD", rental_price=Decimal("1234.5")),
            phone("e", sms_url="", sms_capable=False),
        ),
    )
    assert (card.numbers, card.unattached_voice, card.unattached_sms, card.idle) == (5, 3, 2, 2)
    assert card.rental == "₹1,34,270.00 + $1,234.50"
    assert card.idle_rental == "₹499.00 + $1,234.50"


def test_figures_stand_beside_their_names(time: FakeTime) -> None:
    page = Reader(page_of(time, polled(time, phone("a"), phone("b", sms_url=""))))
    figures = page.text[page.text.index("numbers") :]
    assert figures[:8] == [
        *("numbers", "2", "without a voice flow", "0"),
        *("without an SMS flow", "1", "idle: neither", "0"),
    ]


def test_account_without_prices_has_none(time: FakeTime) -> None:
    card = card_of(time, polled(time, phone(rental_price=None)))
    assert (card.rental, card.idle_rental) == ("none", "none")


def test_rows_are_the_unattached_numbers_idle_ones_first(time: FakeTime) -> None:
    card = card_of(
        time,
        polled(
            time,
            phone("ok"),
            phone("no-sms", phone_number="+1", sms_url=""),
            phone("no-voice", phone_number="+2", voice_url=""),
            phone("idle-2", phone_number="+4", voice_url="", sms_url=""),
            phone("idle-1", phone_number="+3", voice_url="", sms_url=""),
        ),
    )
    assert [row.phone_number for row in card.rows] == ["+3", "+4", "+2", "+1"]
    assert [row.idle for row in card.rows] == [True, True, False, False]
    assert [(row.voice, row.sms) for row in card.rows[2:]] == [
        ("unattached", "22"),
        ("11", "unattached"),
    ]


def test_row_names_the_circle_and_writes_money_as_its_country_does(time: FakeTime) -> None:
    indian = phone("a", voice_url="", rental_price=Decimal("123456.5"), region="UW")
    singaporean = phone(
        "b", voice_url="", phone_number="", country="SG", region="SG", currency="EUR"
    )
    unknown = phone("c", voice_url="", sms_capable=False, rental_price=None, region="XX")
    rows = {row.sms: row for row in card_of(time, polled(time, indian, singaporean)).rows}
    first, second = card_of(time, polled(time, indian, singaporean)).rows
    assert {first.phone_number, second.phone_number} == {"+912248901111", "b"}
    by_circle = {row.circle: row.rental for row in (first, second)}
    assert by_circle == {"Uttar Pradesh West": "₹1,23,456.50", "SG": "499.00 EUR"}
    assert set(rows) == {"22"}
    (row,) = card_of(time, polled(time, unknown)).rows
    assert (row.circle, row.rental, row.sms) == ("XX", "", "22")


def test_no_table_where_nothing_is_unattached(time: FakeTime) -> None:
    page = page_of(time, polled(time, phone()))
    assert "<table>" not in page
    assert "<details" not in page


@pytest.mark.parametrize(
    ("count", "rows", "told"),
    [
        pytest.param(200, 200, "", id="all-fit"),
        pytest.param(201, 200, "1 more are not shown", id="one-too-many"),
        pytest.param(1200, 200, "1000 more are not shown", id="many"),
    ],
)
def test_rows_past_the_most_are_counted_and_told(
    time: FakeTime, count: int, rows: int, told: str
) -> None:
    page = page_of(time, polled(time, *(phone(f"s{n}", voice_url="") for n in range(count))))
    assert page.count("<tr><td>") == rows
    assert f"Unattached numbers ({count})" in page
    assert ("more are not shown" in page) == bool(told)
    assert told in page


@pytest.mark.parametrize(
    ("count", "is_open"),
    [pytest.param(25, True, id="short-is-open"), pytest.param(26, False, id="long-is-closed")],
)
def test_long_table_is_folded(time: FakeTime, count: int, is_open: bool) -> None:
    page = page_of(time, polled(time, *(phone(f"s{n}", voice_url="") for n in range(count))))
    assert ("<details open>" in page) == is_open


@pytest.mark.fault(67)
@pytest.mark.fault(117)
def test_everything_from_outside_is_escaped(time: FakeTime) -> None:
    """The hostile page has the very tags and attributes of a harmless one."""

    def page(text: str) -> Reader:
        changes: dict[str, Any] = dict.fromkeys(
            ("phone_number", "friendly_name", "region", "country", "number_type", "currency"), text
        )
        url = f"http://my.exotel.in/a/exoml/start/{text.replace('/', '')}"
        state = polled(time, phone(text, voice_url="", sms_url=url, **changes), name=text)
        fail(state, time, text)
        return Reader(page_of(time, state))

    hostile, harmless = page(HOSTILE), page("x")
    assert hostile.tags == harmless.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in harmless.attributes]
    assert hostile.text.count(HOSTILE) == 6  # account, error, number, name, region, type
    assert hostile.open == []


def test_telemetry_path_is_escaped_and_linked(time: FakeTime) -> None:
    page = Reader(status.render([], time.clock.now(), '/m"><b>'))
    assert ("href", '/m"><b>') in page.attributes
    assert page.tags["b"] == 0


@pytest.mark.fault(92)
@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        pytest.param("last4", "…1111", id="last4"),
        pytest.param("hidden", "number-", id="hidden"),
    ],
)
def test_privacy_holds_on_the_page(time: FakeTime, setting: str, shown: str) -> None:
    per_number = PerNumber("all", 10, setting)  # type: ignore[arg-type]  # a parameter is a str
    number = phone("02248901111", friendly_name="02248901111", voice_url="")
    page = page_of(time, polled(time, number, per_number=per_number))
    assert "48901111" not in page
    assert f"<tr><td>{shown}" in page


def test_page_is_sound_html_that_refers_to_nothing_elsewhere(time: FakeTime) -> None:
    """No script, no image, no font, no style sheet: what CSP forbids is not tried."""
    text = page_of(time, polled(time, phone(voice_url="")), polled(time, name="two"))
    page = Reader(text)
    assert page.open == []
    assert set(page.ids.values()) == {1}
    assert {"script", "img", "link", "iframe"} & set(page.tags) == set()
    links = {value for name, value in page.attributes if name in {"href", "src"}}
    assert links == {"/metrics", "/-/healthy", "/-/ready"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert not {name for name, _ in page.attributes if name.startswith("on") or name == "style"}


def test_page_tells_when_it_was_made(time: FakeTime) -> None:
    assert "made at 2023-11-14 22:13:20 UTC" in page_of(time)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.end_to_end
def test_page_fits_a_telephone(
    time: FakeTime, program: Callable[[str], str], tmp_path: Path
) -> None:
    """No horizontal scroll bar, whatever the names: a frame of 390 pixels measures the page.

    A headless window is never so narrow, and the real page refuses to be framed.
    """
    numbers = [phone(f"s{n}", voice_url="", friendly_name=HOSTILE * 2) for n in range(3)]
    long = phone("long", sms_url="", friendly_name="x" * 250, number_type="y" * 250)
    state = polled(time, *numbers, long, name="a" * 100)
    fail(state, time, "no " + "spaces" * 50)
    (tmp_path / "page.html").write_text(page_of(time, state), "utf-8")
    (tmp_path / "frame.html").write_text(
        '<p id="width"></p><iframe src="page.html" width="390" height="900" onload="'
        "document.getElementById('width').textContent = 'width '"
        ' + contentDocument.documentElement.scrollWidth"></iframe>',
        "utf-8",
    )
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/frame.html"
            framed = browse(program("chromium"), tmp_path / "profile", "--dump-dom", url)
        finally:
            server.shutdown()
    (width,) = re.findall(r">width (\d+)<", framed.stdout)
    assert 0 < int(width) <= 390
