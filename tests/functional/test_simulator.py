"""The simulator against the vendor's page, over real sockets."""

from __future__ import annotations

import ast
import http.client
import json
import random
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests

from exophone_exporter import simulator
from exophone_exporter.simulator import (
    Account,
    Fault,
    RecordedRequest,
    Simulator,
    World,
    demo_world,
    make_account,
    make_number,
)
from exophone_exporter.simulator.responses import RequestWindow

if TYPE_CHECKING:
    from collections.abc import Iterator

CIRCLES = {
    "AP",
    "AS",
    "BR",
    "DL",
    "GJ",
    "HP",
    "HR",
    "JK",
    "KA",
    "KL",
    "KO",
    "MH",
    "MP",
    "MU",
    "NE",
    "OR",
    "PB",
    "RJ",
    "TN",
    "UE",
    "UW",
    "WB",
}
NUMBER_KEYS = [
    "sid",
    "date_created",
    "date_updated",
    "account_sid",
    "friendly_name",
    "phone_number",
    "capabilities",
    "country",
    "region",
    "one_time_price",
    "rental_price",
    "incoming_rate",
    "incoming_pulse",
    "currency",
    "number_type",
    "vanity_number",
    "voice_url",
    "sms_url",
    "uri",
]
ENVELOPE_KEYS = [
    "page",
    "page_size",
    "uri",
    "first_page_uri",
    "next_page_uri",
    "previous_page_uri",
    "incoming_phone_numbers",
]
TIMEOUT_SECONDS = 5


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


def list_url(sim: Simulator, sid: str = "acme") -> str:
    return f"{sim.url}/v2_beta/Accounts/{sid}/IncomingPhoneNumbers"


def get(
    sim: Simulator,
    path: str = "",
    *,
    sid: str = "acme",
    auth: tuple[str, str] | None = ("acme-key", "acme-token"),
    method: str = "GET",
    headers: dict[str, str] | None = None,
    **query: Any,
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            list_url(sim, sid) + path,
            params=query,
            auth=auth,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )


def open_socket(sim: Simulator) -> socket.socket:
    parts = urlsplit(sim.url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=TIMEOUT_SECONDS)


def raw_get(path: str = "/v2_beta/Accounts/acme/IncomingPhoneNumbers") -> bytes:
    # acme-key:acme-token
    auth = "Authorization: Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{auth}\r\n\r\n".encode()


def walk(sim: Simulator, pages: int, **query: Any) -> list[str]:
    return [
        number["sid"]
        for page in range(pages)
        for number in get(sim, Page=page, **query).json()["incoming_phone_numbers"]
    ]


def test_nothing_of_the_project_and_nothing_installed() -> None:
    """One misreading of the vendor's page cannot stand on both sides; no dependency is used."""
    modules = set()
    for file in Path(simulator.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(f"{'.' * node.level}{node.module}")
    foreign = {
        name
        for name in modules
        if name.split(".")[0] not in sys.stdlib_module_names
        and not name.startswith("exophone_exporter.simulator")
    }
    assert "socket" in modules
    assert foreign == set()


def test_has_the_documented_keys_in_the_documented_order() -> None:
    number = make_number(0, account_sid="acme", rng=random.Random(1))
    assert list(number) == NUMBER_KEYS
    assert list(number["capabilities"]) == ["voice", "sms"]


def test_values_have_the_documented_forms() -> None:
    """Prices are decimal strings, times bare, flows URLs of the account or null."""
    for number in make_account("acme", 500).numbers:
        assert re.fullmatch(r"0\d{10}|[0-9a-f]{32}", number["sid"])
        assert re.fullmatch(r"\+91\d{10}", number["phone_number"])
        assert number["region"] in CIRCLES
        assert number["rental_price"] in {"499.000000", "999.000000", "0.000000"}
        assert number["number_type"] in {"Landline", "Mobile", "TollFree"}
        for key in ("date_created", "date_updated"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", number[key])
        assert number["date_created"] <= number["date_updated"]
        for kind in ("voice", "sms"):
            pattern = rf"https://my\.exotel\.in/acme/exoml/start_{kind}/\d+"
            url = number[f"{kind}_url"]
            assert url is None or re.fullmatch(pattern, url)
        assert number["uri"].endswith(f"/Accounts/acme/IncomingPhoneNumbers/{number['sid']}")


def test_number_without_the_sms_capability_has_no_sms_flow() -> None:
    incapable = [n for n in make_account("a", 240).numbers if not n["capabilities"]["sms"]]
    assert incapable
    assert {number["sms_url"] for number in incapable} == {None}


def test_both_forms_of_sid_occur() -> None:
    assert {len(n["sid"]) for n in make_account("acme", 50).numbers} == {11, 32}


def test_several_numbers_share_a_flow() -> None:
    urls = Counter(n["voice_url"] for n in make_account("acme", 100).numbers if n["voice_url"])
    assert len(urls) < 10


@pytest.mark.parametrize(
    "country",
    [pytest.param("IN", id="india"), pytest.param("SG", id="singapore-with-short-numbers")],
)
def test_sids_and_phones_are_unique_in_a_large_account(country: str) -> None:
    numbers = make_account("acme", 10_000, country=country).numbers
    assert len({number["sid"] for number in numbers}) == 10_000
    assert len({number["phone_number"] for number in numbers}) == 10_000


def test_account_follows_from_its_seed() -> None:
    assert make_account("acme", 30, seed=4) == make_account("acme", 30, seed=4)
    assert make_account("acme", 30, seed=4) != make_account("acme", 30, seed=5)


def test_credentials_follow_from_the_sid_and_the_token_is_not_shown() -> None:
    account = make_account("acme", 1)
    assert (account.api_key, account.api_token) == ("acme-key", "acme-token")
    assert "acme-token" not in repr(account)


def test_country_without_a_numbering_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="'XX'"):
        make_account("acme", 1, country="XX")


@pytest.mark.parametrize("seed", [pytest.param(1, id="seed-1"), pytest.param(99, id="seed-99")])
def test_few_numbers_are_unattached_whatever_the_seed(seed: int) -> None:
    numbers = demo_world(seed).accounts["acme-support"].numbers
    attached = Counter((bool(n["voice_url"]), bool(n["sms_url"])) for n in numbers)
    assert attached == {(True, True): 224, (True, False): 8, (False, True): 4, (False,) * 2: 4}


def test_support_desk_shows_every_type_and_both_prices_across_india() -> None:
    numbers = demo_world().accounts["acme-support"].numbers
    assert len(numbers) == 240
    assert {n["number_type"] for n in numbers} == {"Landline", "Mobile", "TollFree"}
    assert {n["rental_price"] for n in numbers} >= {"499.000000", "999.000000"}
    assert len({n["region"] for n in numbers}) > 15


def test_branch_abroad_has_its_own_country_and_currency() -> None:
    numbers = demo_world().accounts["acme-sg"].numbers
    assert len(numbers) == 12
    assert {(n["country"], n["region"], n["currency"]) for n in numbers} == {("SG", "SG", "USD")}
    assert all(n["phone_number"].startswith("+65") for n in numbers)


def test_changes_follow_from_the_seed() -> None:
    worlds = [demo_world(seed) for seed in (1, 1, 2)]
    first, again, other = ([world.tick() for _ in range(40)] for world in worlds)
    assert first == again
    assert worlds[0].accounts == worlds[1].accounts
    assert first != other


def test_each_tick_changes_one_number_of_the_account_it_names() -> None:
    world = demo_world()
    for _ in range(200):
        before = flat_numbers(world)
        sentence = world.tick()
        after = flat_numbers(world)
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        assert len(changed) == 1, sentence
        sid, phone = changed.pop()
        assert sentence.startswith(f"{sid}: {phone} ")


@pytest.mark.parametrize(
    "words",
    [
        "lost its voice flow",
        "lost its sms flow",
        "got voice flow",
        "moved to voice flow",
        "moved to sms flow",
        "was added for",
        "was removed",
        "went from",
        "is called",
    ],
    ids=lambda words: words.replace(" ", "-"),
)
def test_every_kind_of_change_comes_up(words: str) -> None:
    world = demo_world()
    assert any(words in world.tick() for _ in range(400))


def test_long_life_keeps_the_account_recognisable() -> None:
    """After many changes the count is near the start and few numbers lack a flow."""
    world = World(make_account("acme", 100))
    for _ in range(3000):
        world.tick()
        numbers = world.accounts["acme"].numbers
        assert 97 <= len(numbers) <= 103
        assert sum(not number["voice_url"] for number in numbers) <= 7
    assert len({number["sid"] for number in numbers}) == len(numbers)


def test_added_number_is_of_the_accounts_country_and_currency() -> None:
    world = World(make_account("sg", 4, country="SG", currency="USD"))
    while "was added" not in world.tick():
        pass
    numbers = world.accounts["sg"].numbers
    assert {(n["country"], n["currency"]) for n in numbers} == {("SG", "USD")}


def test_account_that_starts_empty_can_only_grow_first() -> None:
    world = World(make_account("empty", 0))
    assert "was added" in world.tick()
    assert len(world.accounts["empty"].numbers) == 1


def test_account_joined_later_is_changed_too() -> None:
    world = World()
    world.accounts["late"] = make_account("late", 5)
    assert world.tick().startswith("late: ")


def test_change_moves_date_updated_forward() -> None:
    world = demo_world()
    while "is called" not in (sentence := world.tick()):
        pass
    sid, phone, *_ = sentence.replace(":", "").split()
    assert flat_numbers(world)[sid, phone]["date_updated"] > "2025-01-06 09:00:00"


def test_world_without_accounts_refuses() -> None:
    with pytest.raises(ValueError, match="without accounts"):
        World().tick()


def flat_numbers(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    """A copy of every number, by account and phone number."""
    return {
        (account.sid, number["phone_number"]): dict(number)
        for account in world.accounts.values()
        for number in account.numbers
    }


def test_envelope_is_that_of_the_documented_sample(sim: Simulator) -> None:
    """Keys in order, pages from 0, 50 by default, URIs on another host over plain http."""
    envelope = get(sim).json()
    base = "http://twilix.exotel.com/v2_beta/Accounts/acme/IncomingPhoneNumbers"
    assert list(envelope) == ENVELOPE_KEYS
    assert (envelope["page"], envelope["page_size"]) == (0, 50)
    assert envelope["uri"] == f"{base}?Page=0&PageSize=50"
    assert envelope["first_page_uri"] == f"{base}?Page=0&PageSize=50"
    assert envelope["next_page_uri"] == f"{base}?Page=1&PageSize=50"
    assert envelope["previous_page_uri"] is None
    assert len(envelope["incoming_phone_numbers"]) == 50


def test_answer_is_json(sim: Simulator) -> None:
    assert get(sim).headers["Content-Type"] == "application/json"


def test_later_page_names_the_one_before(sim: Simulator) -> None:
    envelope = get(sim, Page=2, PageSize=30).json()
    assert envelope["page"] == 2
    assert envelope["previous_page_uri"].endswith("?Page=1&PageSize=30")


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        pytest.param(0, [0], id="none"),
        pytest.param(1, [1], id="one"),
        pytest.param(50, [50], id="exactly-a-page"),
        pytest.param(51, [50, 1], id="a-page-and-one"),
    ],
)
def test_pages_partition_the_account(count: int, sizes: list[int]) -> None:
    """Only the last page has no next one, also where the numbers fill it exactly."""
    with Simulator(World(make_account("acme", count))) as sim:
        pages = [get(sim, Page=page).json() for page in range(len(sizes))]
    assert [len(page["incoming_phone_numbers"]) for page in pages] == sizes
    has_next = [page["next_page_uri"] is not None for page in pages]
    assert has_next == [True] * (len(sizes) - 1) + [False]


def test_pages_together_are_the_account_in_order(sim: Simulator, account: Account) -> None:
    assert walk(sim, 3) == [number["sid"] for number in account.numbers]


def test_page_beyond_the_last_is_empty(sim: Simulator) -> None:
    envelope = get(sim, Page=9).json()
    assert envelope["incoming_phone_numbers"] == []
    assert envelope["next_page_uri"] is None


def test_page_size_is_capped_and_the_effective_one_is_told(world: World) -> None:
    """Asked for 100 with a cap of 50, page 1 begins at the 51st number: there is no gap."""
    with Simulator(world, page_size_cap=50) as sim:
        assert get(sim, PageSize=100).json()["page_size"] == 50
        sids = walk(sim, 3, PageSize=100)
    assert sids == [number["sid"] for number in world.accounts["acme"].numbers]


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({"Page": "-1"}, id="negative-page"),
        pytest.param({"Page": "one"}, id="word"),
        pytest.param({"Page": ""}, id="empty-page"),
        pytest.param({"Page": "\u0661"}, id="arabic-digit"),
        pytest.param({"Page": "9" * 10}, id="huge-page"),
        pytest.param({"PageSize": "0"}, id="page-size-0"),
        pytest.param({"PageSize": "1.5"}, id="fraction"),
    ],
)
def test_bad_page_is_400(sim: Simulator, query: dict[str, Any]) -> None:
    assert get(sim, **query).status_code == 400


def test_uris_can_name_the_simulator_itself(world: World) -> None:
    with Simulator(world, foreign_next_page_uri=False) as sim:
        assert get(sim).json()["next_page_uri"] == f"{list_url(sim)}?Page=1&PageSize=50"


@pytest.mark.parametrize(
    ("last_page", "expected"),
    [
        pytest.param("null", None, id="null"),
        pytest.param("empty", "", id="empty-text"),
        pytest.param("missing", "<missing>", id="missing"),
    ],
)
def test_last_page_can_end_in_several_ways(world: World, last_page: Any, expected: object) -> None:
    with Simulator(world, last_page=last_page) as sim:
        assert get(sim, Page=2).json().get("next_page_uri", "<missing>") == expected
        assert get(sim, Page=1).json()["next_page_uri"].endswith("Page=2&PageSize=50")


def test_lying_last_page_names_a_page_that_is_empty(world: World) -> None:
    with Simulator(world, last_page="lying") as sim:
        assert get(sim, Page=2).json()["next_page_uri"].endswith("Page=3&PageSize=50")
        after = get(sim, Page=3).json()
    assert after["incoming_phone_numbers"] == []
    assert after["next_page_uri"].endswith("Page=4&PageSize=50")


def test_change_of_the_world_shows_in_the_next_answer(sim: Simulator, account: Account) -> None:
    with account.lock:
        account.numbers[0]["voice_url"] = None
    assert get(sim).json()["incoming_phone_numbers"][0]["voice_url"] is None


def test_is_the_bare_object(sim: Simulator, account: Account) -> None:
    number = account.numbers[77]
    assert get(sim, f"/{number['sid']}").json() == number


@pytest.mark.parametrize(
    "sid",
    [
        pytest.param("0".zfill(32), id="unknown-sid"),
        pytest.param("", id="empty-sid"),
        pytest.param("a/b", id="deeper-path"),
    ],
)
def test_unknown_number_is_404(sim: Simulator, sid: str) -> None:
    assert get(sim, f"/{sid}").status_code == 404


def test_number_of_another_account_is_404(sim: Simulator, world: World) -> None:
    assert get(sim, f"/{world.accounts['other'].numbers[0]['sid']}").status_code == 404


def test_sid_in_the_path_is_percent_decoded(sim: Simulator, account: Account) -> None:
    account.numbers[0]["sid"] = "a b"
    assert get(sim, "/a%20b").json()["sid"] == "a b"


@pytest.mark.parametrize(
    ("sid", "auth", "headers"),
    [
        pytest.param("acme", None, {}, id="missing"),
        pytest.param("acme", ("acme-key", "wrong"), {}, id="wrong-token"),
        pytest.param("acme", ("wrong", "acme-token"), {}, id="wrong-key"),
        pytest.param("acme", ("other-key", "other-token"), {}, id="key-of-another-account"),
        pytest.param("nobody", ("acme-key", "acme-token"), {}, id="unknown-account"),
        pytest.param("acme", None, {"Authorization": "Bearer x"}, id="another-scheme"),
        pytest.param("acme", None, {"Authorization": "Basic %%%"}, id="not-base64"),
        pytest.param("acme", None, {"Authorization": "Basic //8="}, id="not-utf-8"),
    ],
)
def test_bad_credentials_are_401_in_the_vendors_form(
    sim: Simulator, sid: str, auth: tuple[str, str] | None, headers: dict[str, str]
) -> None:
    response = get(sim, sid=sid, auth=auth, headers=headers)
    assert response.status_code == 401
    assert "<RestException>" in response.text
    assert "<Status>401</Status>" in response.text


def test_each_account_answers_to_its_own_key(sim: Simulator) -> None:
    response = get(sim, sid="other", auth=("other-key", "other-token"))
    assert len(response.json()["incoming_phone_numbers"]) == 3


@pytest.mark.parametrize(
    "method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], ids=str.lower
)
def test_other_methods_are_405_and_recorded(sim: Simulator, method: str) -> None:
    """A client that would buy or delete a number is found out, credentials or not."""
    assert get(sim, method=method).status_code == 405
    assert [(seen.method, seen.status) for seen in sim.requests] == [(method, 405)]


def test_unknown_path_is_404_and_recorded_without_an_account(sim: Simulator) -> None:
    requests.get(f"{sim.url}/v1/Accounts/acme", timeout=TIMEOUT_SECONDS)
    assert [(r.path, r.account_sid, r.status) for r in sim.requests] == [
        ("/v1/Accounts/acme", None, 404)
    ]


def test_connection_is_kept_alive_after_answers_and_errors(sim: Simulator) -> None:
    with open_socket(sim) as client:
        for request, status in (
            (raw_get(), 200),
            (raw_get("/nowhere"), 404),
            (raw_get(), 200),
        ):
            client.sendall(request)
            response = http.client.HTTPResponse(client)
            response.begin()
            response.read()
            assert response.status == status


@pytest.mark.parametrize(
    ("method", "status"), [pytest.param("POST", 405, id="post"), pytest.param("GET", 404, id="get")]
)
def test_request_body_ends_the_connection(sim: Simulator, method: str, status: int) -> None:
    """The body is never read, so what follows it must not be taken for a request."""
    with open_socket(sim) as client, client.makefile("rb") as answers:
        client.sendall(f"{method} / HTTP/1.1\r\nContent-Length: 99\r\n\r\n".encode())
        answer = answers.read()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer


def test_answer_to_head_has_no_body(sim: Simulator) -> None:
    with open_socket(sim) as client, client.makefile("rb") as answers:
        client.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
        assert answers.read().endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        pytest.param("gzip, deflate", "gzip", id="plain-list"),
        pytest.param("br, gzip;q=0.5", "gzip", id="weighted"),
        pytest.param("gzip;q=1.0", "gzip", id="full-weight"),
        pytest.param("gzip;q=0", None, id="refused"),
        pytest.param("identity", None, id="identity-only"),
    ],
)
def test_body_is_compressed_for_clients_that_take_gzip(
    sim: Simulator, accept: str, coding: str | None
) -> None:
    response = get(sim, headers={"Accept-Encoding": accept})
    assert response.headers.get("Content-Encoding") == coding
    assert len(response.json()["incoming_phone_numbers"]) == 50


def test_concurrent_clients_each_get_whole_answers(sim: Simulator, account: Account) -> None:
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(walk(sim, 3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[number["sid"] for number in account.numbers]] * 8


def test_client_that_leaves_prints_nothing(
    sim: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    """A reset in the middle of a request is nobody's error; no request is logged either."""
    client = open_socket(sim)
    client.sendall(b"GET /")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert get(sim).status_code == 200  # accepted after the one that left
    sim.stop()
    assert capfd.readouterr() == ("", "")


def test_request_is_recorded_as_it_arrived(sim: Simulator) -> None:
    before = time.monotonic()
    get(sim, headers={"User-Agent": "probe/1"}, Page=1, PageSize=20)
    (seen,) = sim.requests
    assert (seen.method, seen.path) == ("GET", urlsplit(list_url(sim)).path)
    assert seen.query == {"Page": "1", "PageSize": "20"}
    assert seen.headers["User-Agent"] == "probe/1"
    assert (seen.account_sid, seen.status) == ("acme", 200)
    assert before <= seen.at <= time.monotonic()


def test_refused_request_names_the_account_it_asked_for(sim: Simulator) -> None:
    get(sim, sid="nobody")
    assert [(r.account_sid, r.status) for r in sim.requests] == [("nobody", 401)]


def test_record_can_be_cleared_and_is_a_copy(sim: Simulator) -> None:
    get(sim)
    copy = sim.requests
    sim.clear_requests()
    assert (len(copy), sim.requests) == (1, [])


def test_record_keeps_the_newest_ten_thousand(world: World) -> None:
    sim = Simulator(world)
    for at in range(10_001):
        sim.respond(RecordedRequest("PUT", "/", {}, {}, None, 0, float(at)))
    assert len(sim.requests) == 10_000
    assert sim.requests[0].at == 1.0


def test_fault_is_answered_once_by_default(sim: Simulator) -> None:
    sim.fail(Fault())
    assert [get(sim).status_code for _ in range(2)] == [500, 200]
    assert [seen.status for seen in sim.requests] == [500, 200]


def test_fault_can_last_for_ever_until_cleared(sim: Simulator) -> None:
    sim.fail(Fault(status=503, times=None))
    assert [get(sim).status_code for _ in range(3)] == [503] * 3
    sim.clear_faults()
    assert get(sim).status_code == 200


def test_faults_are_used_in_the_order_they_were_added(sim: Simulator) -> None:
    sim.fail(Fault(status=500, times=2))
    sim.fail(Fault(status=402))
    assert [get(sim).status_code for _ in range(4)] == [500, 500, 402, 200]


def test_one_fault_can_be_used_again(sim: Simulator) -> None:
    """The simulator counts on a copy of its own."""
    fault = Fault()
    for _ in range(2):
        sim.fail(fault)
        assert get(sim).status_code == 500


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        pytest.param(Fault(times=None), {"page 0", "page 1", "detail", "other"}, id="all"),
        pytest.param(Fault(times=None, endpoint="list"), {"page 0", "page 1", "other"}, id="list"),
        pytest.param(Fault(times=None, endpoint="detail"), {"detail"}, id="detail"),
        pytest.param(Fault(times=None, page=1), {"page 1"}, id="page"),
        pytest.param(Fault(times=None, page=0), {"page 0", "other"}, id="unnamed-page-is-0"),
        pytest.param(Fault(times=None, account_sid="other"), {"other"}, id="account"),
    ],
)
def test_fault_meets_only_what_it_is_meant_for(
    sim: Simulator, account: Account, fault: Fault, failing: set[str]
) -> None:
    sim.fail(fault)
    responses = {
        "page 0": get(sim),
        "page 1": get(sim, Page=1),
        "detail": get(sim, f"/{account.numbers[0]['sid']}"),
        "other": get(sim, sid="other", auth=("other-key", "other-token")),
    }
    assert {name for name, answer in responses.items() if not answer.ok} == failing


def test_unauthorised_request_does_not_use_a_fault_up(sim: Simulator) -> None:
    sim.fail(Fault())
    assert [get(sim, auth=None).status_code, get(sim).status_code] == [401, 500]


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
            Fault(status=418, form="json"),
            '{"RestException": {"Status": 418, "Message": "I\'m a Teapot"}}',
            id="json",
        ),
        pytest.param(
            Fault(status=200, form="http_code"),
            '{"http_code": 409, "method": "GET", "response": {"code": 409, "error_data": '
            '{"code": 409, "message": "Conflict", "description": null}, "status": "failure"}}',
            id="success-with-an-inner-error",
        ),
        pytest.param(Fault(status=204), "", id="status-without-a-body"),
        pytest.param(Fault(status=200, body=b"hello"), "hello", id="body-of-the-test"),
        pytest.param(Fault(status=200, body=b""), "", id="empty-body"),
    ],
)
def test_error_body(sim: Simulator, fault: Fault, expected: str) -> None:
    sim.fail(fault)
    response = get(sim)
    assert (response.status_code, response.text) == (fault.status, expected)


def test_status_of_no_standard_can_be_sent(sim: Simulator) -> None:
    sim.fail(Fault(status=999))
    assert (get(sim).status_code, sim.requests[0].status) == (999, 999)


def test_header_of_a_fault_replaces_the_usual_one(sim: Simulator) -> None:
    sim.fail(Fault(body=b"<html>", headers={"content-type": "text/html", "Retry-After": "7"}))
    headers = get(sim).headers
    assert headers["Content-Type"] == "text/html"
    assert headers["Retry-After"] == "7"


def test_body_can_be_shorter_than_its_stated_length(sim: Simulator) -> None:
    """The connection is closed after it: a body cut in the middle."""
    sim.fail(Fault(status=200, body=b"{", headers={"Content-Length": "100"}))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="99 more expected"):
        get(sim)


def test_body_of_a_fault_is_sent_as_it_is(sim: Simulator) -> None:
    sim.fail(Fault(status=200, body=b"no gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(requests.exceptions.ContentDecodingError):
        get(sim)


def test_reset_closes_without_an_answer(sim: Simulator) -> None:
    sim.fail(Fault(after="reset"))
    with open_socket(sim) as client:
        client.sendall(raw_get())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert [seen.status for seen in sim.requests] == [0]
    assert get(sim).status_code == 200


def test_hang_holds_the_connection_until_the_client_leaves(sim: Simulator) -> None:
    sim.fail(Fault(after="hang"))
    threads_before = set(threading.enumerate())
    with open_socket(sim) as client:
        client.sendall(raw_get())
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        (serving,) = set(threading.enumerate()) - threads_before
    serving.join(TIMEOUT_SECONDS)
    assert not serving.is_alive()
    assert [seen.status for seen in sim.requests] == [0]


def test_delay_comes_before_the_answer(sim: Simulator) -> None:
    sim.fail(Fault(status=500, delay_seconds=0.05))
    assert get(sim).elapsed.total_seconds() >= 0.05


def test_latency_comes_before_every_answer(world: World) -> None:
    with Simulator(world, latency_seconds=0.05) as sim:
        responses = [get(sim), get(sim, auth=None)]
    assert all(answer.elapsed.total_seconds() >= 0.05 for answer in responses)


def test_failures_by_chance_follow_from_the_seed(world: World) -> None:
    first, again, other = (outcomes(world, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_failures_are_of_several_kinds_and_some_requests_succeed(world: World) -> None:
    assert set(outcomes(world, 1)) == {0, 200, 429, 500, 502, 503}


def test_certain_failure_spares_none(world: World) -> None:
    with Simulator(world, failure_rate=1.0) as sim:
        assert 200 not in {sim.respond(authorised_request()).status for _ in range(50)}


def authorised_request() -> RecordedRequest:
    headers = {"Authorization": "Basic YWNtZS1rZXk6YWNtZS10b2tlbg=="}
    path = "/v2_beta/Accounts/acme/IncomingPhoneNumbers"
    return RecordedRequest("GET", path, {}, headers, None, 0, 0.0)


def outcomes(world: World, seed: int) -> list[int]:
    sim = Simulator(world, failure_rate=0.5, seed=seed)
    for _ in range(60):
        sim.respond(authorised_request())
    return [seen.status for seen in sim.requests]


def test_request_over_the_limit_is_429_and_says_when_to_come_back(world: World) -> None:
    with Simulator(world, requests_per_minute=2) as sim:
        answers = [get(sim) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    remaining = [answer.headers["X-RateLimit-Remaining"] for answer in answers]
    assert remaining == ["1", "0", "0"]
    refused = answers[2]
    assert refused.headers["X-RateLimit-Limit"] == "2"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert 0 < int(refused.headers["X-RateLimit-Reset"]) - time.time() <= 61
    assert refused.json()["RestException"]["Status"] == 429


def test_each_account_has_a_limit_of_its_own(world: World) -> None:
    with Simulator(world, requests_per_minute=1) as sim:
        assert get(sim).status_code == 200
        assert get(sim, sid="other", auth=("other-key", "other-token")).status_code == 200


def test_unauthorised_requests_do_not_count(world: World) -> None:
    with Simulator(world, requests_per_minute=1) as sim:
        assert [get(sim, auth=None).status_code, get(sim).status_code] == [401, 200]


def test_requests_that_meet_a_fault_count(world: World) -> None:
    with Simulator(world, requests_per_minute=1) as sim:
        sim.fail(Fault(status=500))
        assert [get(sim).status_code for _ in range(2)] == [500, 429]


def test_window_slides() -> None:
    """A request is allowed again 60 s after the oldest counted one; refusals do not count."""
    window = RequestWindow(2)
    taken = [window.take(now) for now in (0.0, 10.0, 50.5, 59.9, 60.0, 69.0)]
    assert [allowance.allowed for allowance in taken] == [True, True, False, False, True, False]
    assert [allowance.retry_after_seconds for allowance in taken] == [60, 50, 10, 1, 10, 1]


def test_limit_of_zero_refuses_all() -> None:
    assert RequestWindow(0).take(5.0) == (False, 0, 60)


def test_hook_runs_before_the_page_is_cut(sim: Simulator, account: Account) -> None:
    """A number removed between two pages shifts the rest: one number is on neither page."""
    missed = account.numbers[50]["sid"]

    def remove_before_page_1(request: RecordedRequest) -> None:
        if request.query["Page"] == "1":
            account.numbers.pop(0)

    sim.on_request = remove_before_page_1
    sids = walk(sim, 3)
    assert len(sids) == 119
    assert missed not in sids


def test_hook_sees_authorised_list_requests_only(sim: Simulator, account: Account) -> None:
    seen: list[RecordedRequest] = []
    sim.on_request = seen.append
    get(sim, auth=None)
    get(sim, f"/{account.numbers[0]['sid']}")
    get(sim, method="POST")
    get(sim, Page=1)
    assert [(r.account_sid, r.query, r.status) for r in seen] == [("acme", {"Page": "1"}, 0)]


def test_hook_can_order_a_fault_for_the_request_it_sees(sim: Simulator) -> None:
    sim.on_request = lambda _: sim.fail(Fault(status=503))
    assert get(sim).status_code == 503


def test_error_in_a_hook_is_told(sim: Simulator, capfd: pytest.CaptureFixture[str]) -> None:
    """A failed assertion of a test must not vanish in a thread."""

    def broken(_: RecordedRequest) -> None:
        raise AssertionError("the hook is wrong")

    sim.on_request = broken
    with pytest.raises(requests.ConnectionError):
        get(sim)
    sim.stop()
    assert "the hook is wrong" in capfd.readouterr().err


def test_has_no_address_before_it_is_started(world: World) -> None:
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = Simulator(world).url


def test_starting_or_stopping_twice_does_no_harm(world: World) -> None:
    sim = Simulator(world)
    sim.stop()
    sim.start()
    url = sim.url
    sim.start()
    assert sim.url == url
    assert get(sim).status_code == 200
    sim.stop()
    sim.stop()


def test_stopped_simulator_refuses_connections_and_comes_back_at_its_address(
    sim: Simulator,
) -> None:
    url = sim.url
    sim.stop()
    with pytest.raises(requests.ConnectionError):
        get(sim)
    sim.start()
    assert (sim.url, get(sim).status_code) == (url, 200)


def test_port_in_use_is_an_error_at_once(sim: Simulator, world: World) -> None:
    port = urlsplit(sim.url).port
    assert port is not None
    with pytest.raises(OSError, match="in use"):
        Simulator(world, port=port).start()


def test_no_name_is_looked_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`http.server` asks for the host's own name when it binds, which can take seconds."""

    def look_up(*_: object) -> str:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getfqdn", look_up)
    with Simulator(world) as sim:
        assert get(sim).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(after="hang"), id="held-by-the-simulator"),
        pytest.param(Fault(delay_seconds=60), id="waiting-for-a-late-answer"),
        pytest.param(None, id="idle-after-an-answer"),
    ],
)
def test_stop_is_quick_while_clients_hang_and_leaves_no_thread(
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
        assert time.monotonic() - began < 1
        assert threading.active_count() == threads_before - 1  # nor the one that accepted


def test_stop_does_not_wait_for_a_hook_that_never_returns(sim: Simulator) -> None:
    entered, leave = threading.Event(), threading.Event()

    def stuck(_: RecordedRequest) -> None:
        entered.set()
        leave.wait()

    sim.on_request = stuck
    with open_socket(sim) as client:
        client.sendall(raw_get())
        assert entered.wait(TIMEOUT_SECONDS)
        began = time.monotonic()
        sim.stop()
        assert time.monotonic() - began < 1
    leave.set()


def test_hook_may_stop_the_simulator(sim: Simulator) -> None:
    """The vendor vanishes in the middle of a walk."""
    sim.on_request = lambda _: sim.stop()
    with pytest.raises(requests.ConnectionError):
        get(sim)


def test_ten_thousand_numbers_are_walked_quickly() -> None:
    """Two hundred pages in under 4 s: delayed acknowledgements alone would take 8 s."""
    with Simulator(World(make_account("acme", 10_000))) as sim, requests.Session() as session:
        session.trust_env = False
        session.auth = ("acme-key", "acme-token")
        began = time.monotonic()
        sids = {
            number["sid"]
            for page in range(200)
            for number in fetch_page(session, list_url(sim), page)
        }
        elapsed_seconds = time.monotonic() - began
    assert len(sids) == 10_000
    assert elapsed_seconds < 4


def fetch_page(session: requests.Session, url: str, page: int) -> list[dict[str, Any]]:
    response = session.get(url, params={"Page": page}, timeout=TIMEOUT_SECONDS)
    numbers: list[dict[str, Any]] = json.loads(response.content)["incoming_phone_numbers"]
    return numbers
