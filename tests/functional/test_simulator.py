"""The simulator against the vendor's documentation, over real sockets."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from exophone_exporter.simulator import (
    Account,
    Fault,
    RecordedRequest,
    Simulator,
    World,
    demo_world,
    make_account,
)
from exophone_exporter.simulator.balance import Balance
from exophone_exporter.simulator.drill import COMMANDS
from exophone_exporter.simulator.responses import RequestWindow
from exophone_exporter.simulator.script import ROUND_SECONDS, Script
from tests.lib.processes import wait_until

CIRCLES = "AP|AS|BR|DL|GJ|HP|HR|JK|KA|KL|KO|MH|MP|MU|NE|OR|PB|RJ|TN|UE|UW|WB"
NUMBER_KEYS = (
    "sid date_created date_updated account_sid friendly_name phone_number capabilities country"
    " region one_time_price rental_price incoming_rate incoming_pulse currency number_type"
    " vanity_number voice_url sms_url uri"
)
ENVELOPE_KEYS = (
    "page page_size uri first_page_uri next_page_uri previous_page_uri incoming_phone_numbers"
)
TIMEOUT_SECONDS = 30
STUCK_SECONDS = 30
ACME = ("acme-key", "acme-token")
OTHER = ("other-key", "other-token")
AUTHORIZATION = "Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="  # acme-key:acme-token
BALANCE = "/v1/Accounts/{}/Balance.json"
LIST_PATH = "/v2_beta/Accounts/acme/IncomingPhoneNumbers"


@pytest.fixture
def account() -> Account:
    return make_account("acme", 120)


@pytest.fixture
def world(account: Account) -> World:
    return World(account, make_account("other", 3))


@pytest.fixture
def sim(world: World) -> Iterator[Simulator]:
    with Simulator(world) as running:
        yield running


def get(
    sim: Simulator,
    path: str = "",
    *,
    sid: str = "acme",
    auth: tuple[str, str] | None = ACME,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    base: str = "/v2_beta/Accounts/{}/IncomingPhoneNumbers",
    **query: Any,
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            f"{sim.url}{base.format(sid)}{path}",
            params=query,
            auth=auth,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )


def statuses(sim: Simulator, count: int) -> list[int]:
    return [get(sim).status_code for _ in range(count)]


def open_socket(sim: Simulator) -> socket.socket:
    parts = urlsplit(sim.url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=TIMEOUT_SECONDS)


def raw_get(path: str = LIST_PATH) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTHORIZATION}\r\n\r\n".encode()


def sids_of(account: Account) -> list[str]:
    return [number["sid"] for number in account.numbers]


def walk(sim: Simulator, pages: int, **query: Any) -> list[str]:
    return [
        number["sid"]
        for page in range(pages)
        for number in get(sim, Page=page, **query).json()["incoming_phone_numbers"]
    ]


# ---- numbers and accounts


def test_a_number_has_the_documented_keys_and_forms() -> None:
    """Prices are decimal strings, times have no zone, flows are URLs of the account or null."""
    numbers = make_account("acme", 500).numbers
    for number in numbers:
        assert " ".join(number) == NUMBER_KEYS
        assert list(number["capabilities"]) == ["voice", "sms"]
        assert re.fullmatch(r"0\d{10}|[0-9a-f]{32}", number["sid"])
        assert re.fullmatch(r"\+91\d{10}", number["phone_number"])
        assert re.fullmatch(CIRCLES, number["region"])
        assert number["rental_price"] in {"499.000000", "999.000000", "0.000000"}
        assert number["number_type"] in {"Landline", "Mobile", "TollFree"}
        for key in ("date_created", "date_updated"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", number[key])
        assert number["date_created"] <= number["date_updated"]
        for kind in ("voice", "sms"):
            pattern = rf"https://my\.exotel\.in/acme/exoml/start_{kind}/\d+"
            url = number[f"{kind}_url"]
            assert url is None or re.fullmatch(pattern, url)
        assert number["capabilities"]["sms"] or number["sms_url"] is None
        assert number["uri"].endswith(f"/Accounts/acme/IncomingPhoneNumbers/{number['sid']}")
    assert {len(number["sid"]) for number in numbers} == {11, 32}
    assert len({number["voice_url"] for number in numbers}) < 10
    assert {number["number_type"] for number in numbers} == {"Landline", "Mobile", "TollFree"}
    assert len({number["region"] for number in numbers}) > 15


@pytest.mark.parametrize("country", ["IN", "SG"])
def test_sids_and_phone_numbers_are_unique_in_a_large_account(country: str) -> None:
    numbers = make_account("acme", 10_000, country=country).numbers
    assert len({number["sid"] for number in numbers}) == 10_000
    assert len({number["phone_number"] for number in numbers}) == 10_000


def test_an_account_follows_from_its_sid_and_seed_and_hides_its_token() -> None:
    account = make_account("acme", 30, seed=4)
    assert account == make_account("acme", 30, seed=4) != make_account("acme", 30, seed=5)
    assert (account.api_key, account.api_token) == ACME
    assert "acme-token" not in repr(account)
    with pytest.raises(ValueError, match="'XX'"):
        make_account("acme", 1, country="XX")


@pytest.mark.parametrize("seed", [1, 99])
def test_the_demo_is_a_support_desk_and_a_branch_abroad(seed: int) -> None:
    accounts = demo_world(seed).accounts
    support, branch = accounts["acme-support"].numbers, accounts["acme-sg"].numbers
    attached = Counter((bool(n["voice_url"]), bool(n["sms_url"])) for n in support)
    assert attached == {(True, True): 219, (True, False): 8, (False, True): 4, (False,) * 2: 9}
    outbound = [n for n in support if n["friendly_name"].startswith("Outbound ")]
    assert [(n["voice_url"], n["sms_url"]) for n in outbound] == [(None, None)] * 5
    payments = [n for n in support if n["friendly_name"].startswith("Payments ")]
    flows = [n["voice_url"].rpartition("/")[2] for n in payments]
    assert flows == ["411208"] * 4 + ["415502"]
    assert len(branch) == 12
    assert {(n["country"], n["region"], n["currency"]) for n in branch} == {("SG", "SG", "USD")}
    assert all(n["phone_number"].startswith("+65") for n in branch)


# ---- changes


def flat_numbers(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (account.sid, number["phone_number"]): dict(number)
        for account in world.accounts.values()
        for number in account.numbers
    }


def test_changes_follow_from_the_seed() -> None:
    worlds = [demo_world(seed) for seed in (1, 1, 2)]
    first, again, other = ([world.tick() for _ in range(40)] for world in worlds)
    assert first == again != other
    assert worlds[0].accounts == worlds[1].accounts


def test_each_tick_changes_the_number_that_it_names() -> None:
    world = demo_world()
    seen = ""
    for _ in range(400):
        before, sentence, after = flat_numbers(world), world.tick(), flat_numbers(world)
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        assert len(changed) == 1, sentence
        ((sid, phone),) = changed
        assert sentence.startswith(f"{sid}: {phone} ")
        if "was removed" not in sentence:
            assert after[sid, phone]["date_updated"] > "2025-01-06 09:00:00"
        if before.keys() == after.keys():
            now = {"date_updated": after[sid, phone]["date_updated"]}
            assert before[sid, phone] | now != after[sid, phone], sentence
        seen += sentence
    for words in (
        *("lost its voice flow", "lost its sms flow", "got voice flow", "moved to voice flow"),
        *("moved to sms flow", "was added for", "was removed", "went from", "is called"),
    ):
        assert words in seen


def test_many_changes_keep_the_account_recognisable() -> None:
    """Its size stays near the start, few numbers lack a flow, and new ones are of its country."""
    world = World(make_account("acme", 100, country="SG", currency="USD"))
    for _ in range(3000):
        world.tick()
        numbers = world.accounts["acme"].numbers
        assert 97 <= len(numbers) <= 103
        assert sum(not number["voice_url"] for number in numbers) <= 7
    assert len({number["sid"] for number in numbers}) == len(numbers)
    assert {(n["country"], n["currency"]) for n in numbers} == {("SG", "USD")}


def test_calm_changes_fire_no_alert() -> None:
    """No number comes, goes, gains or loses a flow, and most changes are changes."""
    world = demo_world()
    before = flat_numbers(world)
    sentences = [world.tick(calm=True) for _ in range(400)]
    after = flat_numbers(world)
    for number, now in zip(before.values(), after.values(), strict=True):
        if number["friendly_name"].startswith(("Outbound ", "Payments ")):
            priceless = {"rental_price": "", "date_updated": ""}
            assert number | priceless == now | priceless
    assert after.keys() == before.keys()
    assert after != before
    for key in ("voice_url", "sms_url"):
        assert all(bool(after[phone][key]) == bool(before[phone][key]) for phone in before)
    assert sum("nothing changed" not in sentence for sentence in sentences) > 300
    account = make_account("acme", 5)
    steady = World(account, steady=account.numbers)
    assert all(re.search(r" a month$", steady.tick(calm=True)) for _ in range(20))
    assert World(make_account("acme", 0)).tick(calm=True) == "acme: nothing changed"


def test_a_world_changes_whatever_accounts_it_has() -> None:
    """None is an error, an empty one grows, and one that was added later changes too."""
    world = World()
    with pytest.raises(ValueError, match="without accounts"):
        world.tick()
    world.accounts["late"] = make_account("late", 0)
    assert re.match(r"late: \S+ was added", world.tick())
    assert len(world.accounts["late"].numbers) == 1


# ---- the fire drill


def command(sim: Simulator, name: str, method: str = "POST", **query: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        url = f"{sim.url}/-/{name}"
        return session.request(method, url, params=query, timeout=TIMEOUT_SECONDS)


def ordered(sim: Simulator, name: str, **query: str) -> str:
    """What a command that succeeds answers."""
    response = command(sim, name, **query)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    return response.text


@pytest.mark.parametrize("channel", ["voice", "sms"])
@pytest.mark.parametrize("name", ["sid", "phone_number", "as typed", "by default"])
def test_a_flow_is_detached_and_attached_again(
    sim: Simulator, account: Account, name: str, channel: str
) -> None:
    """By the sid or the phone number; the answer names the number, the alert, and the way back."""
    number = next(n for n in account.numbers if n[f"{channel}_url"])
    query = {} if channel == "voice" else {"channel": channel}
    if name == "as typed":  # the plus in a URL is a space
        query["number"] = f" {number['phone_number'][1:]}"
    elif name != "by default":
        query["number"] = number[name]
    assert ordered(sim, "detach", **query) == (
        f"{number['phone_number']} (account acme) lost its {channel} flow.\n"
        "Expect ExoPhoneFlowDetached; /-/attach puts it right.\n"
    )
    lost = get(sim, f"/{number['sid']}").json()
    assert lost[f"{channel}_url"] is None
    assert ordered(sim, "attach", **{k: v for k, v in query.items() if k == "number"}) == (
        f"{number['phone_number']} (account acme) has its {channel} flow again.\n"
        "Expect ExoPhoneFlowDetached to be resolved.\n"
    )
    assert account == make_account("acme", 120)
    again = command(sim, "attach")
    assert (again.status_code, again.text) == (409, "nothing to attach: use /-/detach first\n")


def test_released_numbers_disappear(sim: Simulator, account: Account) -> None:
    """One by its name, or the first ones of an account."""
    first, second, third, last = (account.numbers[i] for i in (0, 1, 2, -1))
    answer = ordered(sim, "release", number=last["sid"])
    assert answer.startswith(f"{last['phone_number']} (account acme) was released.\nExpect ")
    assert ordered(sim, "release").count("was released") == 1
    assert ordered(sim, "release", count="2", account="acme").count("was released") == 2
    left = walk(sim, 3)
    for gone in (first, second, third, last):
        assert gone["sid"] not in left
        assert get(sim, f"/{gone['sid']}").status_code == 404
    assert len(left) == 116
    assert ordered(sim, "release", account="other", count="3")
    empty = command(sim, "release", account="other")
    assert (empty.status_code, empty.text) == (409, "account other has no numbers\n")


def test_the_key_is_refused_and_pages_fail_for_a_time(sim: Simulator) -> None:
    """For one account or for all."""
    ordered(sim, "refuse-key", account="other")
    assert get(sim, sid="other", auth=OTHER).status_code == 401
    ordered(sim, "fail", account="acme", status="502", seconds="1")
    wait_until(lambda: get(sim).status_code == 200, "the end of the failures")
    ordered(sim, "fail")
    assert get(sim).status_code == 503
    assert get(sim, "/any").status_code == 503
    ordered(sim, "fail", status="500")
    assert get(sim).status_code == 500
    ordered(sim, "refuse-key")
    assert get(sim).status_code == 401


def test_the_balance_is_used_up_and_after_ten_days_the_numbers_are_gone(
    sim: Simulator, account: Account
) -> None:
    ordered(sim, "fail")
    ordered(sim, "cut-balance", account="other")
    assert get(sim).status_code == 200
    assert get(sim, sid="other", auth=OTHER).status_code == 402
    sids = sids_of(account)
    ordered(sim, "cut-balance", days="9")
    assert [get(sim, path).status_code for path in ("", f"/{sids[0]}")] == [402, 402]
    ordered(sim, "cut-balance", days="10")
    assert get(sim).json()["incoming_phone_numbers"] == []
    assert get(sim, f"/{sids[0]}").status_code == 404
    assert balance(sim)["Balance"] == "0.00"
    ordered(sim, "restore")
    assert sids_of(account) == sids
    assert float(balance(sim)["Balance"]) > 0


def test_the_key_may_not_read_the_balance_until_it_is_restored(sim: Simulator) -> None:
    ordered(sim, "refuse-balance", account="acme")
    refused = get(sim, base=BALANCE)
    assert (refused.status_code, get(sim).status_code) == (403, 200)
    message = refused.json()["RestException"]["Message"]
    assert message == "API key does not have permission to read balance"
    ordered(sim, "restore")
    assert balance(sim)["Currency"] == "INR"


def test_restore_puts_everything_right(sim: Simulator, world: World) -> None:
    before = flat_numbers(world)
    for name in (*COMMANDS, "detach", "release", "cut-balance"):
        if name not in ("attach", "restore"):
            ordered(sim, name)
    assert flat_numbers(world) != before
    assert "Expect the alerts of the drill to be resolved." in ordered(sim, "restore")
    assert flat_numbers(world) == before
    assert get(sim).status_code == get(sim, sid="other", auth=OTHER).status_code == 200
    assert command(sim, "restore").status_code == 200


@pytest.mark.fault(240)
@pytest.mark.parametrize(
    ("name", "query", "status", "text"),
    [
        ("detahc", {}, 404, "unknown command /-/detahc\n\nCommands for a fire drill"),
        ("detach", {"number": "+91123"}, 404, "unknown number `+91123`; the first ones are +91"),
        ("attach", {"number": "x"}, 404, "unknown number `x`; the first ones are +91"),
        ("detach", {"channel": "fax"}, 400, "unknown channel `fax`; the channels are voice and"),
        ("detach", {"sid": "x"}, 400, "unknown parameter `sid`; /-/detach has: number, channel"),
        ("restore", {"now": "1"}, 400, "unknown parameter `now`; /-/restore has: none"),
        ("release", {"count": "0"}, 400, "count must be a whole number from 1 to 120, not `0`"),
        ("release", {"count": "²"}, 400, "count must be a whole number from 1 to 120, not `²`"),
        (
            "fail",
            {"status": "404"},
            400,
            "status must be a whole number from 500 to 599, not `404`",
        ),
        (
            "fail",
            {"seconds": "9" * 5000},
            400,
            "seconds must be a whole number from 1 to 86400, not `9999",
        ),
        ("fail", {"account": "x"}, 404, "unknown account `x`; the accounts are acme, other"),
    ],
)
def test_a_wrong_command_changes_nothing_and_says_what_is_right(
    sim: Simulator, name: str, query: dict[str, str], status: int, text: str
) -> None:
    before = flat_numbers(sim.world)
    response = command(sim, name, **query)
    assert response.status_code == status
    assert text in response.text
    assert flat_numbers(sim.world) == before
    assert get(sim).status_code == 200


@pytest.mark.fault(240)
def test_a_number_without_a_flow_has_none_to_detach(sim: Simulator, account: Account) -> None:
    """And where no number has a flow, no number can be chosen."""
    bare = next(n for n in account.numbers if not n["sms_url"])
    one = command(sim, "detach", number=bare["sid"], channel="sms")
    phone = f"{bare['phone_number']} (account acme)"
    assert (one.status_code, one.text) == (409, f"{phone} has no sms flow\n")
    for held in sim.world.accounts.values():
        for number in held.numbers:
            number["voice_url"] = None
    none = command(sim, "detach")
    assert (none.status_code, none.text) == (409, "no number has a voice flow\n")


@pytest.mark.fault(240)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_command_needs_post(sim: Simulator, method: str) -> None:
    response = command(sim, "detach", method)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.text == f"/-/detach needs POST, not {method}\n"


@pytest.mark.fault(240)
def test_a_parameter_in_the_body_is_refused(sim: Simulator) -> None:
    """As `curl -d` sends it: it would choose another number than was meant."""
    url = f"{sim.url}/-/detach"
    response = requests.post(url, data={"number": "x"}, timeout=TIMEOUT_SECONDS)
    assert response.status_code == 400
    assert response.text.startswith("put parameters in the URL: /-/detach?NAME=VALUE")


@pytest.mark.fault(240)
@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.9.9.9", 200), ("::1", 200), ("::ffff:127.0.0.1", 200)),
        *(("192.0.2.1", 403), ("::ffff:192.0.2.1", 403), ("2001:db8::1", 403)),
    ],
)
def test_commands_come_from_this_machine_only(sim: Simulator, host: str, status: int) -> None:
    request = RecordedRequest("POST", "/-/detach", {}, {}, None, 0, 0.0)
    response = sim.drill.respond(request, host)
    assert response.status == status
    assert (b"only from the machine" in response.body) is (status == 403)


def test_the_commands_are_listed(sim: Simulator) -> None:
    """As text that fits 80 columns; commands are no requests to the API."""
    response = command(sim, "", "GET")
    for name in COMMANDS:
        assert f"\n  /-/{name}" in response.text
    assert sim.url in response.text
    assert max(map(len, response.text.splitlines())) <= 80
    assert command(sim, "", "HEAD").text == ""
    refused = command(sim, "")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert sim.requests == []


# ---- the balance


def balance(sim: Simulator, **changes: Any) -> dict[str, Any]:
    response = get(sim, base=BALANCE, **changes)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    assert document["Account"].keys() == {"AccountSid", "BalanceData"}
    assert document["Account"]["AccountSid"] == changes.get("sid", "acme")
    data: dict[str, Any] = document["Account"]["BalanceData"]
    assert " ".join(data) == "Balance Currency PricingPlan DateUpdated"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", data["DateUpdated"])
    return data


def test_the_balance_is_a_text_a_number_or_xml(world: World, account: Account) -> None:
    account.balance.amount = Decimal("1543.75")
    with Simulator(world) as sim:
        assert balance(sim)["Balance"] == "1543.75"
        assert get(sim, base=BALANCE, auth=OTHER).status_code == 401
        xml = get(sim, base=BALANCE.removesuffix(".json"))
        assert xml.headers["Content-Type"] == "application/xml"
        assert "<AvailableBalance>1543.75</AvailableBalance>" in xml.text
    with Simulator(world, balance_as_number=True) as sim:
        assert balance(sim)["Balance"] == 1543.75


def test_the_balance_is_spent_by_the_minute_and_charged_on_the_1st(account: Account) -> None:
    """By the vendor's calendar: in India the month begins five and a half hours before UTC."""
    moment = datetime(2026, 11, 30, 18, 28, 30, tzinfo=UTC)
    rental = sum((Decimal(number["rental_price"]) for number in account.numbers), Decimal(0))
    account.balance = Balance(rental + 100, per_minute=Decimal(2))
    left = []
    with Simulator(World(account), now=lambda: moment) as sim:
        for seconds in (0, 59, 1, 29, 1, 59, 1, 86_400):
            moment += timedelta(seconds=seconds)
            left.append(Decimal(balance(sim)["Balance"]) - rental)
            status = get(sim).status_code
        assert left == [100, 100, 98, 98, 98 - rental, 98 - rental, 96 - rental, -rental]
        assert (status, len(account.numbers)) == (402, 120)
        moment += timedelta(days=10)
        assert get(sim).json()["incoming_phone_numbers"] == []


# ---- the script of the demo


def test_the_demo_breaks_and_restores_two_numbers_at_fixed_times_in_every_round() -> None:
    """Within five minutes a flow is lost, a number disappears, and both come back."""
    world = demo_world()
    before = flat_numbers(world)
    lost, gone = world.accounts["acme-support"].numbers[0], world.accounts["acme-sg"].numbers[-1]
    script = Script(Simulator(world).drill)
    for start in (0, ROUND_SECONDS, 2 * ROUND_SECONDS):
        assert script.advance(start + 59.9) == []
        assert [lost["phone_number"] in said for said in script.advance(start + 60)] == [True]
        assert (lost["voice_url"], script.advance(start + 89.9)) == (None, [])
        assert [gone["phone_number"] in said for said in script.advance(start + 90)] == [True]
        assert gone not in world.accounts["acme-sg"].numbers
        assert script.advance(start + 239.9) == []
        assert len(script.advance(start + 240)) == 1
        assert flat_numbers(world) == before
    # It catches up after a suspend.
    assert len(script.advance(4 * ROUND_SECONDS + 60)) == 4


# ---- the list


def test_the_envelope_is_that_of_the_documented_sample(sim: Simulator) -> None:
    """Keys in order, pages from 0, 50 by default, URIs on another host over plain http."""
    response = get(sim)
    envelope = response.json()
    base = f"http://twilix.exotel.com{LIST_PATH}"
    assert response.headers["Content-Type"] == "application/json"
    assert " ".join(envelope) == ENVELOPE_KEYS
    assert (envelope["page"], envelope["page_size"]) == (0, 50)
    assert envelope["uri"] == envelope["first_page_uri"] == f"{base}?Page=0&PageSize=50"
    assert envelope["next_page_uri"] == f"{base}?Page=1&PageSize=50"
    assert envelope["previous_page_uri"] is None
    later = get(sim, Page=2, PageSize=30).json()
    assert (later["page"], later["previous_page_uri"]) == (2, f"{base}?Page=1&PageSize=30")


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (50, [50, 0]), (51, [50, 1]), (120, [50, 50, 20, 0])]
)
def test_pages_partition_the_account(count: int, sizes: list[int]) -> None:
    """A page has a next one if more numbers follow; a page beyond the last is empty."""
    account = make_account("acme", count)
    with Simulator(World(account)) as sim:
        pages = [get(sim, Page=page).json() for page in range(len(sizes))]
        assert walk(sim, len(sizes)) == sids_of(account)
    assert [len(page["incoming_phone_numbers"]) for page in pages] == sizes
    has_next = [page["next_page_uri"] is not None for page in pages]
    assert has_next == [50 * (page + 1) < count for page in range(len(sizes))]


def test_the_page_size_is_capped(world: World, account: Account) -> None:
    """Asked for 100 with a cap of 50, page 1 starts at the 51st number: there is no gap."""
    with Simulator(world, page_size_cap=50) as sim:
        assert get(sim, PageSize=100).json()["page_size"] == 50
        assert walk(sim, 3, PageSize=100) == sids_of(account)


@pytest.mark.parametrize(
    "query",
    [
        *({"Page": text} for text in ("-1", "one", "", "\u0661", "9" * 10)),
        *({"PageSize": text} for text in ("0", "1.5")),
    ],
    ids=str,
)
def test_an_invalid_page_is_400(sim: Simulator, query: dict[str, Any]) -> None:
    assert get(sim, **query).status_code == 400


@pytest.mark.parametrize(
    ("last_page", "expected"),
    [
        ("null", None),
        ("empty", ""),
        ("missing", "<missing>"),
        ("lying", f"http://twilix.exotel.com{LIST_PATH}?Page=3&PageSize=50"),
    ],
)
def test_the_last_page_can_end_in_several_ways(
    world: World, last_page: Any, expected: object
) -> None:
    with Simulator(world, last_page=last_page) as sim:
        assert get(sim, Page=2).json().get("next_page_uri", "<missing>") == expected
        assert get(sim, Page=1).json()["next_page_uri"].endswith("Page=2&PageSize=50")
        assert get(sim, Page=3).json()["incoming_phone_numbers"] == []


def test_a_page_past_the_end_can_be_refused_or_be_the_last_one_again(world: World) -> None:
    with Simulator(world, past_end="refused") as sim:
        assert get(sim, Page=3).status_code == 404
    with Simulator(world, past_end="repeated") as sim:
        assert get(sim, Page=3).json() == get(sim, Page=2).json()


# ---- the detail, credentials, methods and connections


def test_a_detail_is_the_bare_current_number(
    sim: Simulator, world: World, account: Account
) -> None:
    with account.lock:
        account.numbers[77] |= {"sid": "a b", "voice_url": None}
    assert get(sim, "/a%20b").json() == account.numbers[77]
    assert get(sim, Page=1).json()["incoming_phone_numbers"][27] == account.numbers[77]
    account.unlisted.append(account.numbers.pop(77))
    assert get(sim, "/a%20b").json() == account.unlisted[0]
    for sid in ("0" * 32, "", "a/b", world.accounts["other"].numbers[0]["sid"]):
        assert get(sim, f"/{sid}").status_code == 404


@pytest.mark.parametrize(
    ("sid", "auth", "headers"),
    [
        ("acme", None, {}),
        ("acme", ("acme-key", "wrong"), {}),
        ("acme", ("wrong", "acme-token"), {}),
        ("acme", OTHER, {}),
        ("nobody", ACME, {}),
        ("acme", None, {"Authorization": "Bearer x"}),
        ("acme", None, {"Authorization": "Basic %%%"}),
        ("acme", None, {"Authorization": "Basic //8="}),
    ],
)
def test_bad_credentials_are_401_in_the_vendors_form(
    sim: Simulator, sid: str, auth: tuple[str, str] | None, headers: dict[str, str]
) -> None:
    response = get(sim, sid=sid, auth=auth, headers=headers)
    assert response.status_code == 401
    assert "<RestException>" in response.text
    assert "<Status>401</Status>" in response.text
    assert [(seen.account_sid, seen.status) for seen in sim.requests] == [(sid, 401)]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_405_and_recorded(sim: Simulator, method: str) -> None:
    """A client that would buy or delete a number is found out."""
    assert get(sim, method=method).status_code == 405
    assert [(seen.method, seen.status) for seen in sim.requests] == [(method, 405)]


def test_a_connection_is_kept_alive_after_responses_and_errors(sim: Simulator) -> None:
    with open_socket(sim) as client:
        for path, status in ((LIST_PATH, 200), ("/nowhere", 404), (LIST_PATH, 200)):
            client.sendall(raw_get(path))
            response = http.client.HTTPResponse(client)
            response.begin()
            response.read()
            assert response.status == status


@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("GET", 404), ("HEAD", 405)])
def test_a_request_body_ends_the_connection(sim: Simulator, method: str, status: int) -> None:
    """The body is never read, so what follows it must not be taken for a request."""
    with open_socket(sim) as client, client.makefile("rb") as responses:
        client.sendall(f"{method} / HTTP/1.1\r\nContent-Length: 99\r\n\r\n".encode())
        response = responses.read()
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in response
    assert response.endswith(b"\r\n\r\n") is (method == "HEAD")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("br, gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
    ],
)
def test_a_body_is_compressed_for_clients_that_accept_gzip(
    sim: Simulator, accept: str, coding: str | None
) -> None:
    response = get(sim, headers={"Accept-Encoding": accept})
    assert response.headers.get("Content-Encoding") == coding
    assert len(response.json()["incoming_phone_numbers"]) == 50


def test_a_client_that_leaves_prints_nothing(
    sim: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    client = open_socket(sim)
    client.sendall(b"GET /")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert get(sim).status_code == 200  # accepted after the one that left
    sim.stop()
    assert capfd.readouterr() == ("", "")


# ---- the record


def test_a_request_is_recorded_as_it_arrived(sim: Simulator) -> None:
    before = time.monotonic()
    get(sim, headers={"User-Agent": "probe/1"}, Page=1, PageSize=20)
    requests.get(f"{sim.url}/v1/Accounts/acme", timeout=TIMEOUT_SECONDS)
    seen, unknown = sim.requests
    assert (unknown.path, unknown.account_sid, unknown.status) == ("/v1/Accounts/acme", None, 404)
    assert (seen.method, seen.path) == ("GET", LIST_PATH)
    assert seen.query == {"Page": "1", "PageSize": "20"}
    assert seen.headers["User-Agent"] == "probe/1"
    assert (seen.account_sid, seen.status) == ("acme", 200)
    assert before <= seen.at <= unknown.at <= time.monotonic()


# ---- faults


def test_faults_are_used_in_order_for_authorised_requests_as_often_as_set(sim: Simulator) -> None:
    once = Fault(status=402)
    for fault in (Fault(times=2), once, once, Fault(status=503, times=None)):
        sim.fail(fault)
    assert get(sim, auth=None).status_code == 401
    assert statuses(sim, 7) == [500, 500, 402, 402, 503, 503, 503]
    assert [seen.status for seen in sim.requests] == [401, 500, 500, 402, 402, 503, 503, 503]
    sim.clear_faults()
    assert get(sim).status_code == 200


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        (Fault(times=None), {"page 0", "page 1", "detail", "other"}),
        (Fault(times=None, endpoint="list"), {"page 0", "page 1", "other"}),
        (Fault(times=None, endpoint="detail"), {"detail"}),
        (Fault(times=None, page=1), {"page 1"}),
        (Fault(times=None, page=0), {"page 0", "other"}),
        (Fault(times=None, account_sid="other"), {"other"}),
    ],
)
def test_a_fault_applies_only_to_what_it_matches(
    sim: Simulator, account: Account, fault: Fault, failing: set[str]
) -> None:
    sim.fail(fault)
    responses = {
        "page 0": get(sim),
        "page 1": get(sim, Page=1),
        "detail": get(sim, f"/{account.numbers[0]['sid']}"),
        "other": get(sim, sid="other", auth=OTHER),
    }
    assert {name for name, response in responses.items() if not response.ok} == failing


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param(
            Fault(status=403),
            '<?xml version="1.0" encoding="UTF-8"?>\n<TwilioResponse>\n <RestException>\n'
            "  <Status>403</Status>\n"
            "  <Message>Account suspended or insufficient permissions</Message>\n"
            " </RestException>\n</TwilioResponse>\n",
            id="xml",
        ),
        pytest.param(
            Fault(status=999, form="json"),
            '{"RestException": {"Status": 999, "Message": "Unknown"}}',
            id="json-of-an-unknown-status",
        ),
        pytest.param(
            Fault(status=200, form="http_code", inner=429),
            '{"http_code": 429, "method": "GET", "response": {"code": 429, "error_data": '
            '{"code": 429, "message": "Rate limit exceeded", "description": null},'
            ' "status": "failure"}}',
            id="success-with-an-inner-error",
        ),
        pytest.param(Fault(status=204), "", id="status-without-a-body"),
    ],
)
def test_the_body_of_a_fault(sim: Simulator, fault: Fault, expected: str) -> None:
    sim.fail(fault)
    response = get(sim)
    assert (response.status_code, response.text) == (fault.status, expected)


def test_a_reset_closes_without_a_response(sim: Simulator) -> None:
    sim.fail(Fault(after="reset"))
    with open_socket(sim) as client:
        client.sendall(raw_get())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert [seen.status for seen in sim.requests] == [0]
    assert get(sim).status_code == 200


def test_a_hang_holds_the_connection_until_the_client_leaves(sim: Simulator) -> None:
    sim.fail(Fault(after="hang"))
    threads_before = set(threading.enumerate())
    with open_socket(sim) as client:
        client.sendall(raw_get())
        wait_until(lambda: sim.requests, "the request arrived")
        (serving,) = set(threading.enumerate()) - threads_before
    serving.join(TIMEOUT_SECONDS)
    assert not serving.is_alive()
    assert [seen.status for seen in sim.requests] == [0]


def test_delay_and_latency_come_before_the_response(world: World) -> None:
    with Simulator(world, latency_seconds=0.05) as sim:
        assert get(sim, auth=None).elapsed.total_seconds() >= 0.05
        sim.fail(Fault(delay_seconds=0.05))
        assert get(sim).elapsed.total_seconds() >= 0.1


def outcomes(world: World, seed: int, failure_rate: float = 0.5) -> list[int]:
    sim = Simulator(world, failure_rate=failure_rate, seed=seed)
    headers = {"Authorization": AUTHORIZATION}
    for _ in range(60):
        sim.respond(RecordedRequest("GET", LIST_PATH, {}, headers, None, 0, 0.0))
    return [seen.status for seen in sim.requests]


def test_random_failures_follow_from_the_seed(world: World) -> None:
    assert outcomes(world, 1) == outcomes(world, 1) != outcomes(world, 2)
    assert set(outcomes(world, 1)) == {0, 200, 429, 500, 502, 503}
    assert 200 not in outcomes(world, 1, failure_rate=1.0)


# ---- the request limit


def test_a_request_over_the_limit_is_429_with_retry_after(world: World) -> None:
    """Each account has its own limit, and unauthorised requests do not count."""
    with Simulator(world, requests_per_minute=2) as sim:
        assert get(sim, auth=None).status_code == 401
        responses = [get(sim) for _ in range(3)]
        assert get(sim, sid="other", auth=OTHER).status_code == 200
    assert [response.status_code for response in responses] == [200, 200, 429]
    remaining = [response.headers["X-RateLimit-Remaining"] for response in responses]
    assert remaining == ["1", "0", "0"]
    refused = responses[2]
    assert refused.headers["X-RateLimit-Limit"] == "2"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert 0 < int(refused.headers["X-RateLimit-Reset"]) - time.time() <= 61
    assert refused.json()["RestException"]["Status"] == 429


def test_the_window_slides() -> None:
    """A request is allowed again 60 s after the oldest counted one; refusals do not count."""
    window = RequestWindow(2)
    taken = [window.take(now) for now in (0.0, 10.0, 50.5, 59.9, 60.0, 69.0)]
    assert [allowance.allowed for allowance in taken] == [True, True, False, False, True, False]
    assert [allowance.retry_after_seconds for allowance in taken] == [60, 50, 10, 1, 10, 1]
    assert RequestWindow(0).take(5.0) == (False, 0, 60)


# ---- the hook


def test_the_hook_runs_before_the_page_is_cut(sim: Simulator, account: Account) -> None:
    """A number removed between two pages shifts the rest: one number is on neither page."""
    missed = account.numbers[50]["sid"]

    def remove_before_page_1(request: RecordedRequest) -> None:
        if request.query["Page"] == "1":
            account.numbers.pop(0)

    sim.on_request = remove_before_page_1
    sids = walk(sim, 3)
    assert len(sids) == 119
    assert missed not in sids


def test_the_hook_sees_authorised_list_requests_only(sim: Simulator, account: Account) -> None:
    """It may add a fault for the request that it sees."""
    seen: list[RecordedRequest] = []

    def note(request: RecordedRequest) -> None:
        seen.append(request)
        sim.fail(Fault(status=503))

    sim.on_request = note
    get(sim, auth=None)
    get(sim, f"/{account.numbers[0]['sid']}")
    get(sim, method="POST")
    assert get(sim, Page=1).status_code == 503
    assert [(r.account_sid, r.query, r.status) for r in seen] == [("acme", {"Page": "1"}, 0)]


def test_an_error_in_a_hook_is_printed(sim: Simulator, capfd: pytest.CaptureFixture[str]) -> None:
    """A failed assertion of a test must not vanish in a thread."""

    def broken(_: RecordedRequest) -> None:
        raise AssertionError("the hook is wrong")

    sim.on_request = broken
    with pytest.raises(requests.ConnectionError):
        get(sim)
    sim.stop()
    assert "the hook is wrong" in capfd.readouterr().err


# ---- start and stop


def test_it_keeps_its_address_over_a_stop_and_another_start(world: World) -> None:
    sim = Simulator(world)
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = sim.url
    sim.stop()
    for _ in range(2):
        sim.start()
    url = sim.url
    for _ in range(2):
        sim.stop()
    with pytest.raises(requests.ConnectionError):
        get(sim)
    with sim:
        assert (sim.url, get(sim).status_code) == (url, 200)


@pytest.mark.parametrize("fault", [Fault(after="hang"), Fault(delay_seconds=60), None])
def test_stop_does_not_wait_for_clients_and_leaves_no_thread(
    sim: Simulator, fault: Fault | None
) -> None:
    arrived = threading.Event()
    sim.on_request = lambda _: arrived.set()
    if fault is not None:
        sim.fail(fault)
    threads_before = threading.active_count()
    with open_socket(sim) as client:
        client.sendall(raw_get())
        assert arrived.wait(TIMEOUT_SECONDS)
        assert threading.active_count() == threads_before + 1
        began = time.monotonic()
        sim.stop()
        assert time.monotonic() - began < STUCK_SECONDS
        accepting_too = threads_before - 1
        wait_until(lambda: threading.active_count() == accepting_too, "no thread is left")
