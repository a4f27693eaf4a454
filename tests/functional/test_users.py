"""Basic authentication and configured headers, on a real socket, from the server that users run."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Final

import bcrypt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exophone_exporter.clock import Clock
from exophone_exporter.server import web_config
from exophone_exporter.server.refusals import RefusedClients
from exophone_exporter.server.users import Guard, check_password, header_lines
from exophone_exporter.server.web_config import PasswordHash, RateLimit, WebConfig
from tests.lib.processes import DEADLINE_SECONDS
from tests.lib.servers import Answer, serving_app
from tests.lib.support import FakeTime


def hashed(password: bytes, cost: int = 4) -> str:
    """A hash that takes a millisecond to check."""
    return bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()


ASHA: Final = hashed(b"asha-password")
BALA: Final = hashed(b"bala-password")


@dataclass
class CountingCheck:
    """Checks passwords, notes what was asked, and waits while `go_on` is not set."""

    check: Callable[[bytes, bytes], bool] = check_password
    asked: list[tuple[bytes, bytes]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, password: bytes, encoded: bytes) -> bool:
        self.asked.append((password, encoded))
        self.begun.release()
        assert self.go_on.wait(DEADLINE_SECONDS)
        return self.check(password, encoded)

    def wait_until_begun(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.begun.acquire(timeout=DEADLINE_SECONDS)


async def _hello(_: Request) -> Response:
    return PlainTextResponse("hello", headers={"Content-Security-Policy": "its own"})


async def _busy(_: Request) -> Response:
    return PlainTextResponse("busy", status_code=503)


def application() -> Starlette:
    paths = ("/", "/metrics", "/-/healthy")
    return Starlette(routes=[*(Route(path, _hello) for path in paths), Route("/busy", _busy)])


@dataclass
class Door:
    """A server whose users a test may change."""

    port: int
    check: CountingCheck = field(default_factory=CountingCheck)
    users: dict[str, PasswordHash] = field(default_factory=dict)
    refused: RefusedClients = field(default_factory=lambda: RefusedClients(Clock()))

    def get(self, *authorizations: str | bytes, path: str = "/", method: str = "GET") -> Answer:
        """One request on a connection of its own, with any number of Authorization headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest(method, path)
            for value in authorizations:
                connection.putheader("Authorization", value)
            connection.endheaders()
            answer = connection.getresponse()
            names = [name for name, _ in answer.getheaders()]
            assert len(names) == len(set(names)), "a header appears twice"
            return Answer(answer.status, answer.headers, answer.read())

    def status(self, *authorizations: str | bytes) -> int:
        return self.get(*authorizations).status


def basic(name: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(name + b":" + password).decode()


RIGHT: Final = basic(b"asha", b"asha-password")
WRONG: Final = basic(b"asha", b"wrong")


@contextlib.contextmanager
def door_of(
    users: dict[str, str],
    waiting_max: int = 32,
    check: Callable[[bytes, bytes], bool] = check_password,
) -> Iterator[Door]:
    counting = CountingCheck(check)
    counting.go_on.set()
    stored = {name: PasswordHash(text) for name, text in users.items()}
    refused = RefusedClients(Clock())
    guard = Guard(
        application(),
        lambda: WebConfig(users=stored),
        refused,
        Clock(),
        check=counting,
        waiting_max=waiting_max,
    )
    with serving_app(guard) as port:
        try:
            yield Door(port, counting, stored, refused)
        finally:
            counting.go_on.set()


@pytest.fixture
def door() -> Iterator[Door]:
    with door_of({"asha": ASHA, "bala": BALA}) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Door]:
    """For tests that change nothing."""
    made = {
        "asha": ASHA,
        "bala": BALA,
        "अमृता": hashed(b"\xff\xfe"),
        "": hashed(b"of nobody"),
        "colon": hashed(b"a:b:c"),
        "long": hashed(b"p" * 72),
        **{version: ASHA.replace("$2b$", f"${version}$") for version in ("2a", "2b", "2y")},
    }
    with door_of(made) as running:
        yield running


# ---- which requests pass


def test_the_right_password_passes_and_every_other_request_gets_401(door: Door) -> None:
    """With exactly the words that exporter-toolkit uses; a login is checked once."""
    for refusal in (door.get(), door.get(WRONG)):
        assert (refusal.status, refusal.body) == (401, b"Unauthorized\n")
        assert refusal.headers["www-authenticate"] == 'Basic realm="exporter"'
    assert [door.get(RIGHT).body for _ in range(5)] == [b"hello"] * 5
    assert len(door.check.asked) == 2


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/reload", "/nothing-here"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_path_requires_a_login(shared: Door, path: str, method: str) -> None:
    """A stranger does not even learn which paths exist."""
    assert shared.get(path=path, method=method).status == 401


def test_without_users_everybody_passes() -> None:
    with door_of({}) as door:
        assert [door.status(), door.status(WRONG)] == [200, 200]
        assert door.check.asked == []


ENCODED: Final = RIGHT.removeprefix("Basic ")
LOGINS: Final[dict[str, tuple[str | bytes, int]]] = {
    "lower-case": (f"basic {ENCODED}", 200),
    "upper-case": (f"BASIC {ENCODED}", 200),
    "other-scheme": (f"Bearer {ENCODED}", 401),
    "no-space": (f"Basic{ENCODED}", 401),
    "two-spaces": (f"Basic  {ENCODED}", 401),
    "tab": (f"Basic\t{ENCODED}", 401),
    "space-behind": (f"Basic {ENCODED} ", 200),
    "blanks-around": (f" \t Basic {ENCODED}\t \t", 200),
    "scheme-alone": ("Basic", 401),
    "empty": ("", 401),
    "other-login": ("Basic YTpi", 401),
    "no-padding": ("Basic YXNoYTp4eQ", 401),
    "too-much-padding": (f"Basic {ENCODED}====", 401),
    "not-base64": (f"Basic {ENCODED[:4]}!{ENCODED[4:]}", 401),
    "not-ascii": (b"Basic \xff\xfe", 401),
    "no-colon": ("Basic YXNoYQ==", 401),
    "colon-alone": ("Basic Og==", 401),
    "no-name": (basic(b"", b"asha-password"), 401),
    "no-password": (basic(b"asha", b""), 401),
    "name-in-other-case": (basic(b"Asha", b"asha-password"), 401),
    "name-with-nul": (basic(b"asha\0", b"asha-password"), 401),
    "password-with-nul": (basic(b"asha", b"asha-password\0x"), 401),
    "password-with-newline": (basic(b"asha", b"asha-password\n"), 401),
    "name-not-utf8": (basic(b"\xff\xfe", b"asha-password"), 401),
    "password-not-utf8": (basic(b"asha", b"\xff\xfe"), 401),
    "password-of-another": (basic(b"bala", b"asha-password"), 401),
    "hash-as-password": (basic(b"asha", ASHA.encode()), 401),
    "oversize": (basic(b"a" * 3000, b"b" * 20_000), 401),
    "name-in-any-script": (basic("अमृता".encode(), b"\xff\xfe"), 200),
    "name-in-any-script-wrong": (basic("अमृता".encode(), b"of nobody"), 401),
    "empty-name": (basic(b"", b"of nobody"), 200),
    "password-with-colons": (basic(b"colon", b"a:b:c"), 200),
    "password-to-its-colon": (basic(b"colon", b"a"), 401),
    "72-bytes": (basic(b"long", b"p" * 72), 200),
    "71-bytes": (basic(b"long", b"p" * 71), 401),
    "more-than-bcrypt-reads": (basic(b"long", b"p" * 5000), 200),  # as in Go
    "hash-2a": (basic(b"2a", b"asha-password"), 200),
    "hash-2b": (basic(b"2b", b"asha-password"), 200),
    "hash-2y-of-htpasswd": (basic(b"2y", b"asha-password"), 200),
}


@pytest.mark.parametrize(("value", "status"), LOGINS.values(), ids=LOGINS)
def test_only_exactly_a_users_login_passes(shared: Door, value: str | bytes, status: int) -> None:
    """Never a 500, and never another user's login."""
    assert shared.status(value) == status
    assert shared.status(value) == status  # nor when it is remembered


def test_of_two_headers_the_first_counts(shared: Door) -> None:
    """As in Go."""
    assert [shared.status(RIGHT, WRONG), shared.status(WRONG, RIGHT)] == [200, 401]


# ---- what a stranger can learn


def test_an_unknown_user_costs_as_much_as_the_most_expensive_known_one(door: Door) -> None:
    """One check each, the same answer, and no check when it is repeated."""
    door.users["bala"] = PasswordHash(hashed(b"x", 5))
    names = (b"bala", b"nobody", b"\xff")
    for _ in range(3):
        answers = [door.get(basic(name, b"guess")) for name in names]
        assert {(answer.status, answer.body) for answer in answers} == {(401, b"Unauthorized\n")}
        assert len({tuple(answer.headers) for answer in answers}) == 1
    assert [password for password, _ in door.check.asked] == [b"guess"] * 3
    assert [encoded[:7] for _, encoded in door.check.asked] == [b"$2b$05$"] * 3


def test_no_password_opens_the_door_of_an_unknown_user() -> None:
    """Not even if its check, which only takes time, finds it right."""
    with door_of({"asha": ASHA}, check=lambda *_: True) as door:
        for _ in range(2):
            assert door.status(basic(b"nobody", b"fakepassword")) == 401
        assert door.status(basic(b"asha", b"anything")) == 200


# ---- what is remembered


def test_parts_that_join_to_the_same_bytes_are_remembered_apart() -> None:
    """CVE-2022-46146, with a hash of unknown users whose password somebody knows."""
    with door_of({"asha": ASHA}, check=lambda given, _: given == b"fakepassword") as door:
        assert door.status(basic(b"asha" + ASHA.encode(), b"fakepassword")) == 401
        of_nobody = door.check.asked[0][1]
        assert of_nobody != ASHA.encode()
        assert door.status(basic(b"asha", of_nobody + b"fakepassword")) == 401
        asked = [password for password, _ in door.check.asked]
    assert asked == [b"fakepassword", of_nobody + b"fakepassword"]


def test_the_hash_that_was_checked_is_part_of_what_is_remembered(door: Door) -> None:
    """Changed users take effect at the next request, in both directions."""
    assert door.status(RIGHT) == 200
    door.users["asha"] = PasswordHash(hashed(b"changed"))
    assert door.status(RIGHT) == 401
    assert door.status(basic(b"asha", b"changed")) == 200
    del door.users["asha"]
    assert door.status(basic(b"asha", b"changed")) == 401
    door.users["asha"] = PasswordHash(ASHA)
    assert door.status(RIGHT) == 200


def test_of_many_wrong_passwords_the_oldest_is_forgotten_but_never_a_right_one(
    door: Door,
) -> None:
    wrong = [basic(b"asha", b"%d" % number) for number in range(101)]
    assert door.status(RIGHT) == 200
    assert {door.status(login) for login in wrong} == {401}
    assert [door.status(RIGHT), door.status(wrong[100])] == [200, 401]
    assert len(door.check.asked) == 102
    assert door.status(wrong[0]) == 401
    assert len(door.check.asked) == 103


# ---- many together


def test_the_same_login_many_times_in_parallel_is_checked_once(door: Door) -> None:
    """As in exporter-toolkit's own test: every one of 150 clients gets the right answer."""
    with ThreadPoolExecutor(30) as clients:
        right = [clients.submit(door.status, RIGHT) for _ in range(150)]
        wrong = [clients.submit(door.status, WRONG) for _ in range(150)]
        assert {answer.result() for answer in right} == {200}
        assert {answer.result() for answer in wrong} == {401}
    assert len(door.check.asked) == 2


@pytest.mark.fault(201)
def test_beyond_its_places_a_client_gets_503() -> None:
    """Its logins are checked one at a time; known users and strangers do not wait."""
    with door_of({"asha": ASHA}, waiting_max=3) as door, ThreadPoolExecutor(6) as clients:
        assert door.status(RIGHT) == 200
        door.check.wait_until_begun()
        door.check.go_on.clear()
        flood = [clients.submit(door.get, basic(b"asha", b"%d" % n)) for n in range(6)]
        first = as_completed(flood, DEADLINE_SECONDS)
        refused = [next(first).result() for _ in range(3)]
        assert [door.status(RIGHT), door.status()] == [200, 401]
        door.check.wait_until_begun()
        assert len(door.check.asked) == 2  # the right one, and one that runs
        door.check.go_on.set()
        assert [answer.result().status for answer in first] == [401] * 3
        assert door.status(basic(b"asha", b"0")) == 401
        counts = door.refused.counts()
    assert {reason: count for reason, count in counts.items() if count} == {
        "no_password": 1,
        "wrong_password": 4,
        "too_many_logins": 3,
    }
    for answer in refused:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.body == b"Too many logins are being checked, try again later.\n"
        assert "www-authenticate" not in answer.headers


Login = tuple[str | None, bytes]


def held_guard(places: int) -> tuple[Guard, CountingCheck]:
    """Its checks wait until `go_on` is set."""
    config, check, clock = WebConfig(users={"asha": PasswordHash(ASHA)}), CountingCheck(), Clock()
    refused = RefusedClients(clock)
    guard = Guard(application(), lambda: config, refused, clock, check=check, waiting_max=places)
    return guard, check


async def status_of(guard: Guard, host: str | None, password: bytes, *received: str) -> int:
    """The answer to a login of a client's address, which sends these messages."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"authorization", basic(b"asha", password).encode())],
        "client": (host, 1) if host else None,
    }
    to_server: asyncio.Queue[Any] = asyncio.Queue()
    to_client: asyncio.Queue[Any] = asyncio.Queue()
    for message in received:
        to_server.put_nowait({"type": message})
    await guard(scope, to_server.get, to_client.put)
    return int((await to_client.get())["status"])


def answers(
    places: int, begin: int, logins: list[Login], later: list[Login] | None = None
) -> tuple[list[int], list[bytes]]:
    """The statuses for logins that come together, each a client's address and a password.

    Also the passwords whose check began before any had ended, which are `begin`. The `later` logins
    come when the others are answered.
    """
    guard, check = held_guard(places)

    async def all_of_them() -> tuple[list[int], list[bytes]]:
        tasks = [asyncio.create_task(status_of(guard, *login)) for login in logins]
        await asyncio.to_thread(check.wait_until_begun, begin)
        begun = sorted(password for password, _ in check.asked)
        check.go_on.set()
        first = await asyncio.gather(*tasks)
        return first + await asyncio.gather(
            *(status_of(guard, *each) for each in later or ())
        ), begun

    return asyncio.run(all_of_them())


def guesses(host: str | None, count: int) -> list[Login]:
    return [(host, b"%d of %r" % (number, host)) for number in range(count)]


NETWORKS: Final = {
    "another-address": ("10.0.0.1", "10.0.0.2", False),
    "one-ipv6-network": ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
    "another-ipv6-network": ("2001:db8::1", "2001:db8:0:1::1", False),
    "link-local": ("fe80::1%eth0", "fe80::2%eth0", True),
    "ipv4-on-an-ipv6-socket": ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
    "unix-socket": (None, None, True),
}


@pytest.mark.fault(201)
@pytest.mark.parametrize(("busy", "other", "share"), NETWORKS.values(), ids=NETWORKS)
def test_a_client_that_fills_its_places_keeps_only_its_own_network_out(
    busy: str | None, other: str | None, *, share: bool
) -> None:
    """However many logins it sends; the check of another one begins immediately."""
    flood = guesses(busy, 5)
    statuses, begun = answers(2, 1 if share else 2, [*flood, (other, b"asha-password")])
    assert statuses == [401, 401, 503, 503, 503, 503 if share else 200]
    assert begun == [flood[0][1]] + [b"asha-password"] * (not share)


@pytest.mark.fault(201)
def test_the_places_are_divided_among_the_networks_that_wait() -> None:
    """Many addresses do not fill the memory either. The first ones keep what they have."""
    first, second, third, fourth = (guesses(f"10.0.0.{number}", 4) for number in range(4))
    statuses, begun = answers(3, 2, first + second + third + fourth, fourth)
    assert statuses[:8] == [401, 401, 401, 503, 401, 503, 503, 503]
    assert statuses[8:16] == [401, 503, 503, 503, 503, 503, 503, 503]
    assert statuses[16:] == [401, 401, 401, 503]  # nobody else waits
    assert begun == [first[0][1], second[0][1]]


@pytest.mark.fault(201)
def test_a_client_that_leaves_waits_for_no_check() -> None:
    """Its request frees its memory; the check goes on, for others may wait for it."""
    guard, check = held_guard(2)
    left = ("http.request", "http.disconnect")

    async def leave_and_come_back() -> list[int]:
        first = [await status_of(guard, "10.0.0.1", b"asha-password", *left) for _ in range(3)]
        back = asyncio.create_task(status_of(guard, "10.0.0.1", b"asha-password", "http.request"))
        await asyncio.to_thread(check.wait_until_begun)
        check.go_on.set()
        return [*first, await back]

    assert asyncio.run(leave_and_come_back()) == [401, 401, 401, 200]
    assert len(check.asked) == 1


def test_a_check_that_fails_refuses_the_login_and_is_not_remembered() -> None:
    def check(_password: bytes, _encoded: bytes) -> bool:
        raise ValueError("Invalid salt")

    with door_of({"asha": ASHA}, check=check) as door:
        assert [door.status(RIGHT), door.status(RIGHT)] == [500, 500]
        assert len(door.check.asked) == 2


# ---- the file, the headers


@pytest.mark.fault(263)
def test_requests_beyond_the_rate_limit_get_429_until_time_has_passed() -> None:
    """Before any password is checked, as in exporter-toolkit; another limit begins full."""
    time, refused = FakeTime(), RefusedClients(Clock())
    limit = [RateLimit.model_validate({"interval": "2s", "burst": "3"})]

    def current() -> WebConfig:
        return WebConfig(users={"asha": PasswordHash(ASHA)}, rate_limit=limit[0])

    with serving_app(Guard(application(), current, refused, time.clock)) as port:
        door = Door(port)

        def statuses(count: int) -> list[int]:
            return [door.status(RIGHT) for _ in range(count)]

        assert (door.status(), *statuses(3)) == (401, 200, 200, 429)
        assert door.get(RIGHT).text == "Too Many Requests\n"
        time.pass_(3.9)
        assert statuses(2) == [200, 429]
        time.pass_(0.1)
        assert statuses(2) == [200, 429]
        time.pass_(1000)
        assert statuses(4) == [200, 200, 200, 429]
        limit[0] = RateLimit.model_validate({"interval": "1h", "burst": "1"})
        assert statuses(2) == [200, 429]
    assert refused.counts()["rate_limit"] == 6


def test_the_configured_headers_are_in_every_answer() -> None:
    """Once each; a header that a page sets itself stays, as in exporter-toolkit."""
    loaded = web_config.parse(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
        "    Strict-Transport-Security: max-age=31536000\n"
        "    Content-Security-Policy: default-src 'self'\n"
        f"basic_auth_users:\n  asha: {ASHA}\n",
        "FILE",
    )
    clock = Clock()
    app = Guard(application(), lambda: loaded, RefusedClients(clock), clock)
    with serving_app(app, headers=lambda: header_lines(loaded)) as port:
        door = Door(port)
        answers = {
            200: door.get(RIGHT),
            400: door.get(RIGHT, method="UNKNOWN"),
            401: door.get(),
            404: door.get(RIGHT, path="/nothing-here"),
            405: door.get(RIGHT, method="POST"),
            503: door.get(RIGHT, path="/busy"),
        }
        head = door.get(RIGHT, method="HEAD")
    for status, answer in [*answers.items(), (200, head)]:
        assert answer.status == status
        assert answer.headers["x-frame-options"] == "deny"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        own = "its own" if status == 200 else "default-src 'self'"
        assert answer.headers["content-security-policy"] == own
    assert answers[401].headers["www-authenticate"] == 'Basic realm="exporter"'


def test_without_configured_headers_answers_are_unchanged() -> None:
    clock = Clock()
    with serving_app(Guard(application(), WebConfig, RefusedClients(clock), clock)) as port:
        answer = Door(port).get()
    assert answer.headers["content-security-policy"] == "its own"
    assert "x-frame-options" not in answer.headers
