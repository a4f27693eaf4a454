"""The pages for browsers: what they show, that it is escaped, and that everybody can read it."""

from __future__ import annotations

import html
import html.parser
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest

from exophone_exporter.config.number_rules import NONE, NumberRule, NumberRules
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import CredentialsRejected, ListShifted
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.snapshot import build
from exophone_exporter.inventory.state import AccountState, BalanceResult, PollResult
from exophone_exporter.metrics.catalog import METRICS
from exophone_exporter.web import docs_page, status_page
from exophone_exporter.web.docs_page import ServedPath
from tests.lib.support import FakeTime, account, browse, phone

HOSTILE: Final = "\"><script>alert('1')</script><img src=https://evil.example/x onerror=alert(2)>"
VOID_TAGS: Final = {"meta", "link"}
UNCONFIRMED: Final = "no longer listed, but not known to be gone."
WRONG: Final = "with a problem; callers"
BUSY: Final = "hear a busy tone · ExoPhones"
OUTBOUND: Final = NumberRule(1, "outbound", {"sid": ("out*",)}, NONE, NONE, "sales")
PAID: Final = ("44", "https://pay.example/?key=secret")  # a URL may contain a secret
PAYMENTS: Final = NumberRule(2, "2", {"sid": ("pay*",)}, PAID, owner="payments")


def polled(
    time: FakeTime,
    *numbers: ExoPhone,
    name: str = "support",
    per_number: PerNumber | None = None,
    rules: tuple[NumberRule, ...] = (),
) -> AccountState:
    state = AccountState(replace(account(name, per_number=per_number), rules=NumberRules(rules)))
    now = time.clock.now()
    snapshot = build(Listing(numbers, 1, Counter()), now, 1.0, state.account.rules)
    state.record_poll(PollResult(now, 1.0, snapshot))
    return state


def fail(state: AccountState, time: FakeTime, message: str = "401: the key is wrong") -> None:
    now = time.clock.now()
    state.record_poll(PollResult(now, 1.0, error=CredentialsRejected(message)))


def page_of(
    time: FakeTime, *states: AccountState, probe: bool = False, telemetry_path: str = "/metrics"
) -> str:
    statuses = [state.status() for state in states]
    return status_page.render(statuses, time.clock.now(), telemetry_path, probe=probe)


def fresh_of(page: str) -> tuple[str, str]:
    """What the only card says of the age of its figures, and of the polls."""
    ((fresh, polls),) = re.findall(r'<p class="fresh">(.*?) <span class="soft">(.*?)</span>', page)
    return fresh, polls


def figures_of(page: str) -> dict[str, tuple[str, bool]]:
    """The figures of the only card by their names, and whether each is one to look at."""
    found = re.findall(r'<dt>(.*?)</dt><dd( class="some")?>(.*?)</dd>', page)
    return {name: (html.unescape(value), bool(some)) for name, some, value in found}


def rows_of(page: str) -> list[tuple[str, ...]]:
    """The cells of each number with a problem: number, name, problem, expected, owner, ..."""
    rows = re.findall(r'<tr role="row"><th scope="row"(.*?)</tr>', page, re.DOTALL)
    cells = [re.findall(r">([^<>]*)(?:</a>)?\s*</t[hd]>", row) for row in rows]
    return [tuple(map(html.unescape, row)) for row in cells]


def troubles_of(page: str) -> list[str]:
    overview, _, _ = page.partition("<section")
    _, _, listed = overview.partition('<div class="overview')
    return re.findall(r"<li>(.*)</li>", listed)


def title_of(page: str) -> str:
    return "".join(re.findall("<title>(.*)</title>", page))


class Reader(html.parser.HTMLParser):
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


@pytest.mark.fault(138)
def test_card_says_how_many_numbers_are_no_longer_listed(time: FakeTime) -> None:
    state, now = polled(time, phone("a")), time.clock.now()
    assert UNCONFIRMED not in page_of(time, state)
    listing = Listing((phone("a"),), 1, Counter(), {"a": 1})
    state.record_poll(PollResult(now, 1.0, build(listing, now, 1.0)))
    assert fresh_of(page_of(time, state))[0].endswith(f" ago. 1 number {UNCONFIRMED}")
    fail(state, time)
    assert fresh_of(page_of(time, state))[0].endswith(f" old. 1 number {UNCONFIRMED}")
    state.record_poll(PollResult(now, 1.0, error=ListShifted(2, {"a": 2, "b": 1})))
    assert f"2 numbers {UNCONFIRMED}" in page_of(time, state)


@pytest.mark.fault(250)
def test_card_shows_the_balance_and_its_age_also_where_no_figures_are_known(time: FakeTime) -> None:
    state = AccountState(replace(account(), balance_interval_seconds=3600.0))
    assert "balance" not in figures_of(page_of(time, polled(time, phone())))
    assert figures_of(page_of(time, state)) == {"balance": ("not known", False)}
    amount = Balance(Decimal("-48213.5"), "INR", "")
    state.record_balance(BalanceResult(time.clock.now(), amount))
    time.pass_(720)
    figures = figures_of(page_of(time, state))
    assert figures == {"balance, 12 min ago": ("-₹48,213.50", True)}
    state.record_balance(BalanceResult(time.clock.now(), error=CredentialsRejected("401")))
    time.pass_(3 * 3600)
    assert figures_of(page_of(time, state)) == {"balance": ("not known", True)}


@pytest.mark.parametrize(
    ("age_seconds", "failed", "state", "headline"),
    [
        (None, False, "waiting", "The first poll is running."),
        (44, False, "ok", "As of 45 s ago."),
        (300, True, "failing", "The last poll failed. The figures are 5 min old."),
        (None, True, "failing", "No poll has succeeded yet."),
        (
            901,
            True,
            "stale",
            "The last complete poll was 15 min ago. Its figures are too old to show.",
        ),
    ],
    ids=["waiting", "ok", "failing", "never-worked", "stale"],
)
def test_card_shows_the_state_and_only_fresh_figures(
    time: FakeTime, age_seconds: float | None, failed: bool, state: str, headline: str
) -> None:
    account_state = AccountState(account())
    if age_seconds is not None:
        account_state = polled(time, phone("a", voice_url=""))
        time.pass_(age_seconds)
    if failed:
        fail(account_state, time)
    page = page_of(time, account_state)
    assert re.findall('<span class="state (.*?)">', page) == [state]
    assert fresh_of(page)[0] == headline
    errors = re.findall('<p class="error">(.*?)</p>', page)
    assert errors == (["401: the key is wrong"] if failed else [])
    is_fresh = age_seconds in (44, 300)
    assert (len(rows_of(page)), "<dl>" in page) == (is_fresh, is_fresh)


@pytest.mark.fault(80)
def test_zero_numbers_of_a_failing_account_are_figures_too(time: FakeTime) -> None:
    state = polled(time)
    fail(state, time)
    assert "<dl>" in page_of(time, state)


def test_figures_are_next_to_their_names(time: FakeTime) -> None:
    state = polled(
        time,
        phone("a", rental_price=Decimal(132773)),
        phone("b", voice_url=""),
        phone("c", voice_url="", sms_url=""),
        phone("d", voice_url="", sms_url="", currency="USD", rental_price=Decimal("1234.5")),
        phone("e", sms_url="", sms_capable=False),
    )
    text = Reader(page_of(time, state)).text
    assert text[text.index("numbers") :][:11] == [
        *("numbers", "5", "with a problem", "3", "idle", "2"),
        *("rental of idle numbers", "₹499.00 + $1,234.50"),
        *("monthly rental", "₹1,34,270.00 + $1,234.50"),
        "Without a flow, expected or not: voice 3, SMS 2.",
    ]


@pytest.mark.parametrize(
    ("numbers", "rental"),
    [
        ([], "none"),
        ([phone(rental_price=None)], "1 unpriced number"),
        (
            [phone("a"), phone("b", currency=""), phone("c", rental_price=None)],
            "₹499.00 + 2 unpriced numbers",
        ),
    ],
    ids=["no-numbers", "no-price", "some-prices"],
)
@pytest.mark.fault(89)
def test_rental_says_how_many_numbers_it_lacks(
    time: FakeTime, numbers: list[ExoPhone], rental: str
) -> None:
    figures = figures_of(page_of(time, polled(time, *numbers)))
    assert figures["monthly rental"] == (rental, False)


@pytest.mark.fault(255)
def test_rows_are_the_numbers_with_a_problem(time: FakeTime) -> None:
    """What is wrong, what was expected, and whose it is; busy numbers come first."""
    other = {"phone_number": "", "country": "SG", "region": "SG", "currency": "EUR"}
    numbers = (
        phone("ok"),
        phone("out-1", voice_url="", sms_url=""),
        phone("out-2", phone_number="+0", voice_url=""),
        phone("pay-1", phone_number="+3", region="UW"),
        phone("pay-2", phone_number="+2", voice_url="", rental_price=Decimal("123456.5")),
        phone("no-sid", voice_url="", sms_capable=False, rental_price=None, region="XX"),
        phone("idle", voice_url="", sms_url="", **other),
    )
    page = page_of(time, polled(time, *numbers, rules=(OUTBOUND, PAYMENTS)))
    rows = rows_of(page)
    any_flow, payments = ("any", ""), ("44 or external", "payments")
    assert [(row[0], *row[2:5]) for row in rows] == [
        ("idle", "voice missing, sms missing", *any_flow),
        ("+2", "voice missing", *payments),
        ("+912248901111", "voice missing", *any_flow),
        ("+3", "voice wrong (11)", *payments),
        ("+0", "sms unwanted (22)", "none", "sales"),
    ]
    assert [row[5:] for row in rows[:4]] == [
        ("SG", "499.00 EUR"),
        ("Mumbai", "₹1,23,456.50"),
        ("XX", ""),
        ("Uttar Pradesh West", "₹499.00"),
    ]
    figures = figures_of(page)
    assert (figures["with a problem"], figures["idle"]) == (("5", True), ("1", True))
    assert f"5 {WRONG} of 3 {BUSY}" in title_of(page)


def test_rows_are_the_most_urgent_of_all_with_a_problem(time: FakeTime) -> None:
    """Every way in which a number can have one or not, with more of each kind than fit."""
    urls = ("", None, "https://example.com/flow")
    ways = [*product((True, False), (True, False), urls, urls, ("", "out-", "pay-"))]
    numbers = [
        phone(
            f"{kind}{index}",
            phone_number=f"+{index * 7919 % 3000:04}",
            voice_capable=voice_capable,
            sms_capable=sms_capable,
            voice_url=voice_url,
            sms_url=sms_url,
        )
        for index, (voice_capable, sms_capable, voice_url, sms_url, kind) in enumerate(ways * 20)
    ]
    state = polled(time, *numbers, rules=(OUTBOUND, PAYMENTS))
    assert state.snapshot is not None
    judged = zip(numbers, state.snapshot.verdicts, strict=True)
    wrong = [(number, verdict) for number, verdict in judged if verdict.has_problem]
    wrong.sort(
        key=lambda each: (
            each[1].voice != "missing",
            each[1].problem("voice") is None,
            each[0].phone_number,
        )
    )
    page = page_of(time, state)
    assert [row[0] for row in rows_of(page)] == [n.phone_number for n, _ in wrong[:200]]
    assert f">{len(wrong) - 200} more are not shown" in page


def test_rules_that_match_no_number_are_named(time: FakeTime) -> None:
    """Once every account is polled that they may match."""
    rules = (OUTBOUND, PAYMENTS)
    state = polled(time, phone("pay-1"), rules=rules)
    assert "<p>This rule matches no number: outbound.</p>" in page_of(time, state)
    assert "match no number: outbound, 2.</p>" in page_of(time, polled(time, rules=rules))
    assert "no number:" not in page_of(time, state, AccountState(state.account))


@pytest.mark.parametrize(
    ("count", "rows", "more", "is_open"),
    [
        *((0, 0, 0, False), (25, 25, 0, True), (26, 26, 0, False)),
        *((200, 200, 0, False), (201, 200, 1, False)),
    ],
)
def test_many_rows_are_folded_and_too_many_counted(
    time: FakeTime, count: int, rows: int, more: int, is_open: bool
) -> None:
    unattached = [phone(f"s{n}", voice_url="") for n in range(count)]
    page = page_of(time, polled(time, phone(), *unattached))
    assert page.count('<th scope="row"') == rows
    assert page.count("<table") == page.count("<details") == bool(count)
    assert (f"Numbers with a problem ({count})" in page) == bool(count)
    assert re.findall(r"(\d+) more are not shown", page) == ([str(more)] if more else [])
    assert ("<details open>" in page) == is_open


@pytest.mark.fault(67, 117)
def test_everything_from_outside_is_escaped(time: FakeTime) -> None:
    """The hostile page has the same tags and attributes as a harmless one."""

    def page(text: str) -> Reader:
        others = [polled(time, name=name) for name in ("b", "c")]
        changes: dict[str, Any] = dict.fromkeys(
            ("phone_number", "friendly_name", "region", "country", "number_type", "currency"), text
        )
        flow = text.replace("/", "")
        url = f"http://my.exotel.in/a/exoml/start/{flow}"
        rules = (
            NumberRule(1, text, {"sid": ("none",)}),
            NumberRule(2, "2", {}, (flow,), owner=text),
        )
        number = phone(text, voice_url="", sms_url=url, **changes)
        state = polled(time, number, name=text, rules=rules)
        fail(state, time, text)
        return Reader(page_of(time, state, *others, probe=True, telemetry_path=text))

    hostile, harmless = page(HOSTILE), page("x/")
    assert hostile.tags == harmless.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in harmless.attributes]
    # The account three times: overview, list, heading; then error, number, name, owner, region.
    assert hostile.text.count(HOSTILE) == 8
    assert hostile.text.count(HOSTILE.replace("/", "")) == 1  # what is expected
    assert f"This rule matches no number: {HOSTILE}." in hostile.text
    assert ("href", HOSTILE) in hostile.attributes
    assert hostile.open == []


@pytest.mark.fault(92)
@pytest.mark.parametrize(("setting", "shown"), [("last4", "…1111"), ("hidden", "number-")])
def test_privacy_holds_on_the_page_and_in_its_links(
    time: FakeTime, setting: str, shown: str
) -> None:
    per_number = PerNumber("all", 10, setting)  # type: ignore[arg-type]  # a parameter is a str
    masked = phone("02248901111", friendly_name="02248901111", voice_url="")
    harmless = phone("cafe", voice_url="")
    page = page_of(time, polled(time, masked, harmless, per_number=per_number), probe=True)
    assert "48901111" not in page
    assert f'role="rowheader">{shown}' in page
    assert re.findall(r'href="/probe\?target=([^&]*)', page) == ["cafe"]


@pytest.mark.parametrize(
    ("unattached", "of", "state", "title"),
    [
        (8, 240, "attention", f"! 8 problems: 1 account, 240 numbers, 8 {WRONG} of 8 {BUSY}"),
        (1, 1, "attention", f"! 1 problem: 1 account, 1 number, 1 {WRONG} of 1 {BUSY}"),
        (0, 2, "ok", "✓ no problems: 1 account, 2 numbers, none with a problem · ExoPhones"),
        (0, None, "waiting", "… waiting: 1 account, no figures · ExoPhones"),
    ],
    ids=["several", "one", "none", "waiting"],
)
def test_overview_of_one_account(
    time: FakeTime, unattached: int, of: int | None, state: str, title: str
) -> None:
    """The title begins with the state: a browser's tab shows only the beginning."""
    account_state = AccountState(account())
    if of is not None:
        urls = [""] * unattached + ["u"] * (of - unattached)
        account_state = polled(time, *(phone(f"s{n}", voice_url=u) for n, u in enumerate(urls)))
    page = page_of(time, account_state)
    assert f'<div class="overview {state}">' in page
    assert (title_of(page), troubles_of(page)) == (title, [])
    assert f"<h1>{title.partition(': ')[2].removesuffix(' · ExoPhones')}</h1>" in page


def test_overview_of_several_accounts_names_those_that_fail(time: FakeTime) -> None:
    stale = polled(time, phone("c"), name="old")
    time.pass_(901)
    fail(stale, time)
    failing = polled(time, phone("d", voice_url=""), name="sg")
    fail(failing, time)
    ok = polled(time, phone("a", voice_url=""), phone("b"), name="ok")
    waiting = AccountState(account("new"))
    page = page_of(time, waiting, ok, stale, failing)
    headline = f"4 accounts, 3 numbers known, 2 {WRONG} of 2 hear a busy tone"
    assert '<div class="overview failing">' in page
    assert f"<h1>{headline}</h1>" in page
    assert title_of(page) == f"✗ 2 of 4 accounts fail: {headline} · ExoPhones"
    assert troubles_of(page) == [
        '<a href="#account-3">old</a> is stale',
        '<a href="#account-4">sg</a> fails',
        '<a href="#account-1">new</a> is waiting for its first poll',
    ]
    assert '<h2 id="account-4">sg</h2>' in page


@pytest.mark.parametrize(
    ("age_seconds", "brief"),
    [
        (0, "✗ sg fails: 2 accounts, 1 number, "),
        (901, "✗ sg is stale: 2 accounts, 0 numbers known, "),
    ],
)
def test_title_names_the_one_account_that_fails(
    time: FakeTime, age_seconds: float, brief: str
) -> None:
    failing = polled(time, phone(), name="sg")
    time.pass_(age_seconds)
    fail(failing, time)
    assert title_of(page_of(time, polled(time, name="ok"), failing)).startswith(brief)


def test_overview_names_the_first_five_troubles_and_counts_the_rest(time: FakeTime) -> None:
    states = [polled(time, name=f"a{n}") for n in range(8)]
    for state in states:
        fail(state, time)
    first_five = [f'<a href="#account-{n + 1}">a{n}</a> fails' for n in range(5)]
    assert troubles_of(page_of(time, *states)) == [*first_five, "and 3 more"]
    assert troubles_of(page_of(time, *states[:6])) == [*first_five, "and 1 more"]
    assert troubles_of(page_of(time, *states[:5])) == first_five
    assert troubles_of(page_of(time, states[0])) == []


@pytest.mark.parametrize(("accounts", "listed"), [(2, False), (3, True)])
def test_many_accounts_get_a_table_with_links(time: FakeTime, accounts: int, listed: bool) -> None:
    states = [polled(time, phone(), name=f"a{n}") for n in range(accounts - 1)]
    page = page_of(time, *states, AccountState(account("new")))
    for part in ('<h2 id="accounts">', '<a href="#account-1">a0</a>', "no figures</td>"):
        assert (part in page) == listed


@pytest.mark.parametrize(
    ("interval_seconds", "shown"),
    [
        (5, "Polled every 5 s"),
        (90, "Polled every 90 s"),
        (300, "Polled every 5 min"),
        (5400, "Polled every 1 h 30 min"),
    ],
)
def test_card_shows_the_interval_and_after_a_failure_the_last_attempt(
    time: FakeTime, interval_seconds: float, shown: str
) -> None:
    state = AccountState(account(interval_seconds=interval_seconds))
    assert fresh_of(page_of(time, state))[1] == f"{shown}."
    fail(state, time)
    time.pass_(7)
    assert fresh_of(page_of(time, state))[1] == f"{shown}; the last attempt was 8 s ago."


@pytest.mark.parametrize("sid", ["sid-1", "a&account=x;=+b", "x" * 128, "..."])
def test_number_links_to_its_probe(time: FakeTime, sid: str) -> None:
    """/probe reads from the link what the link was made of."""
    state = polled(time, phone(sid, voice_url=""), name="a b/c&d")
    page = Reader(page_of(time, state, probe=True))
    (link,) = (value or "" for _, value in page.attributes if (value or "").startswith("/probe"))
    assert parse_qsl(link.removeprefix("/probe?")) == [("target", sid), ("account", "a b/c&d")]
    assert "/probe" not in page_of(time, state)


@pytest.mark.parametrize("sid", ["a/b", "..", "", "a b", "x" * 129, "ä"])
def test_sid_that_the_probe_refuses_has_no_link(time: FakeTime, sid: str) -> None:
    assert "/probe" not in page_of(time, polled(time, phone(sid, voice_url="")), probe=True)


def docs_as_html() -> str:
    paths = [ServedPath("/", "Status."), ServedPath("/probe", "Live.", linked=False)]
    return docs_page.render(paths, "/metrics")


@pytest.fixture(params=["status", "docs"])
def any_page(request: pytest.FixtureRequest, time: FakeTime) -> str:
    """The status page with accounts in every state and every part it can have, or the docs."""
    if request.param == "docs":
        return docs_as_html()
    states = [polled(time, phone(voice_url=""), name="stale")]
    time.pass_(901)
    states += [polled(time, phone(voice_url=""), name=name) for name in ("ok", "failing")]
    fail(states[0], time)
    fail(states[2], time)
    page = page_of(time, *states, AccountState(account("waiting")), probe=True)
    for words in ("✓ up to date", "✗ failing", "✗ stale", "… waiting"):
        assert page.count(words) >= 2
    assert "Generated at 2023-11-14 22:28:21 UTC" in page
    return page


def test_page_is_sound_html_that_loads_and_runs_nothing(any_page: str) -> None:
    """What the CSP forbids is not tried."""
    page = Reader(any_page)
    assert page.open == []
    assert {"script", "img", "iframe"} & set(page.tags) == set()
    assert re.findall("<link[^>]*>", any_page) == ['<link rel="icon" href="data:,">']  # none
    assert not re.search(r"url\(|@import|https?://", any_page)
    assert not {name for name, _ in page.attributes if name.startswith("on") or name == "style"}
    links = {value for name, value in page.attributes if name == "href"}
    assert {"#main", "/", "/metrics", "/docs", "/-/healthy", "/-/ready"} <= links


def test_page_has_landmarks_headings_captions_and_scopes(any_page: str) -> None:
    """For screen readers: one h1, no level left out, each table named and headed."""
    page = Reader(any_page)
    assert ("lang", "en") in page.attributes
    assert {page.tags[tag] for tag in ("header", "nav", "main", "footer", "h1", "title")} == {1}
    headings = [int(level) for level in re.findall(r"<h([1-6])", any_page)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert page.tags["table"] == page.tags["caption"] > 1
    assert page.tags["th"] == [name for name, _ in page.attributes].count("scope")
    assert set(page.ids.values()) == {1}
    labels = [value for name, value in page.attributes if name == "aria-labelledby"]
    named = set(labels)
    assert len(named) == len(labels)  # two landmarks of one name cannot be told apart
    targets = {(v or "")[1:] for n, v in page.attributes if n == "href" and (v or "")[:1] == "#"}
    assert named | targets <= set(page.ids)


def test_keyboard_reaches_the_content_first_and_everything_in_order(any_page: str) -> None:
    first = re.search(r"<(?:a|summary|button)[^>]*>", any_page)
    assert first is not None
    assert first.group() == '<a class="skip" href="#main">'
    assert set(re.findall(r'tabindex="([^"]*)"', any_page)) <= {"0", "-1"}
    assert re.search(r":focus-visible \{ outline: 3px solid", any_page)


def test_current_page_is_marked(time: FakeTime) -> None:
    for path, page in (("/", page_of(time)), ("/docs", docs_as_html())):
        assert re.findall(r'href="([^"]*)" aria-current="page"', page) == [path]


def test_docs_show_every_metric_with_type_labels_and_help() -> None:
    text = Reader(docs_as_html()).text
    for metric in METRICS:
        at = text.index(metric.name)
        assert text[at + 1] == metric.type
        meaning = text.index(metric.help, at)
        assert tuple(word for word in text[at + 2 : meaning] if word != ",") == metric.labels
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", docs_as_html())
    assert titles[:4] == ["Paths", "Inventory", "Per number", "Change"]


def test_docs_escape_what_they_are_given() -> None:
    page = Reader(docs_page.render([ServedPath(HOSTILE, HOSTILE, HOSTILE)], HOSTILE))
    assert page.tags["script"] == page.tags["img"] == 0
    assert page.text.count(HOSTILE) == 4
    assert page.open == []


def _luminance(colour: str) -> float:
    """The relative luminance of #rgb or #rrggbb, as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("tint", ["ok", "warn", "bad", "soft"])
def test_text_stands_out_from_what_is_behind_it(scheme: int, tint: str) -> None:
    """4.5 to 1, the contrast that WCAG 2 asks of text (level AA)."""
    block = re.findall(r":root \{([^}]*)\}", docs_as_html())[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", block))
    behind = [colours[name] for name in ("ground", "card", f"{tint}-tint")]
    for ink in (tint, "ink", "link"):
        for ground in behind:
            light, dark = sorted((_luminance(colours[ink]), _luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


# Measures both pages, as the browser lays them out and as a screen reader reads them.
FRAME: Final = """<body><pre id="found"></pre><script>
const found = {};
function measure(frame) {
  const page = frame.contentDocument, roles = {};
  const told = "header, nav, main, footer, table, thead th, tbody tr:first-child > *";
  for (const element of page.querySelectorAll(told))
    roles[element.computedRole] = (roles[element.computedRole] || 0) + 1;
  found[frame.name] = {
    width: page.documentElement.scrollWidth,
    ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    wider: [...page.querySelectorAll(".wide")].filter((w) => w.scrollWidth > w.clientWidth).length,
    names: [...page.querySelectorAll("table")].map((table) => table.computedName),
    roles,
  };
  document.getElementById("found").textContent = JSON.stringify(found);
}
</script>
"""


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("flags", "ground"),
    [
        ((), "rgb(245, 246, 248)"),
        (("--blink-settings=preferredColorScheme=0",), "rgb(15, 19, 24)"),
    ],
    ids=["light", "dark"],
)
def test_pages_fit_a_telephone(
    time: FakeTime,
    program: Callable[[str], str],
    tmp_path: Path,
    flags: tuple[str, ...],
    ground: str,
) -> None:
    """No horizontal scroll bar, whatever the names, and tables stay tables for a screen reader.

    It is measured in a frame of 390 pixels: a headless window is never that narrow.
    """
    numbers = [phone(f"s{n}", voice_url="", friendly_name=HOSTILE * 2) for n in range(3)]
    long = phone("long", sms_url="", friendly_name="x" * 250, number_type="y" * 250)
    unnamed = phone("z" * 128, phone_number="", voice_url="")
    state = polled(time, *numbers, long, unnamed, name="a" * 100)
    fail(state, time, "no " + "spaces" * 50)
    others = [AccountState(account("b" * 100)), polled(time, phone(), name="c")]
    pages = {"status": page_of(time, state, *others, probe=True), "docs": docs_as_html()}
    frames = [
        f'<iframe name="{name}" srcdoc="{html.escape(page)}" width="390" height="900"'
        ' onload="measure(this)"></iframe>'
        for name, page in pages.items()
    ]
    file = tmp_path / "frame.html"
    file.write_text(FRAME + "".join(frames), "utf-8")
    framed = browse(
        program("chromium"),
        tmp_path / "profile",
        "--enable-blink-features=ComputedAccessibilityInfo",
        *flags,
        "--dump-dom",
        file.as_uri(),
    )
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', framed.stdout)
    seen = json.loads(html.unescape(text))
    for name, tables in (("status", 2), ("docs", docs_as_html().count("<table"))):
        assert 0 < seen[name]["width"] <= 390
        assert seen[name]["wider"] == 0  # nor does a table scroll by itself
        assert seen[name]["ground"] == ground
        roles = seen[name]["roles"]
        assert roles["banner"] == roles["navigation"] == roles["main"] == roles["contentinfo"] == 1
        assert roles["table"] == tables
        assert min(roles["columnheader"], roles["rowheader"], roles["cell"]) >= tables
        assert all(seen[name]["names"])
