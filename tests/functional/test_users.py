"""Basic authentication and configured headers, on a real socket, from the server that users run."""

from __future__ import annotations

import base64
import contextlib
import http.client
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import bcrypt
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from exophone_exporter.server import web_config
from exophone_exporter.server.users import BasicAuth, ExtraHeaders, check_password
from exophone_exporter.server.web_config import PasswordHash, WebConfig
from tests.lib.servers import serving_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from tests.lib.support import FakeTime

DEADLINE_SECONDS: Final = 10


def hashed(password: bytes, cost: int = 4) -> str:
    """A hash that takes a millisecond to check."""
    return bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()


ASHA: Final = hashed(b"asha-password")
BALA: Final = hashed(b"bala-password")


def config(**users: str) -> WebConfig:
    return WebConfig(users={name: PasswordHash(text) for name, text in users.items()})


@dataclass
class CountingCheck:
    """Checks passwords, notes what was asked, and waits when told to."""

    asked: list[tuple[bytes, bytes]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.go_on.set()

    def __call__(self, password: bytes, encoded: bytes) -> bool:
        self.asked.append((password, encoded))
        self.begun.release()
        assert self.go_on.wait(DEADLINE_SECONDS)
        return check_password(password, encoded)

    def wait_until_begun(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.begun.acquire(timeout=DEADLINE_SECONDS)


async def _hello(_: Request) -> Response:
    return PlainTextResponse("hello", headers={"Content-Security-Policy": "its own"})


async def _busy(_: Request) -> Response:
    return PlainTextResponse("busy", status_code=503)


def application() -> Starlette:
    return Starlette(
        routes=[Route(path, _hello) for path in ("/", "/metrics", "/-/healthy")]
        + [Route("/busy", _busy)]
    )


@dataclass
class Door:
    """A server whose users a test may change."""

    port: int
    check: CountingCheck
    users: dict[str, PasswordHash]

    def get(self, *authorizations: str | bytes, path: str = "/", method: str = "GET") -> Answer:
        """One request on a connection of its own, with any number of Authorization headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.putrequest(method, path)
            for value in authorizations:
                connection.putheader("Authorization", value)
            connection.endheaders()
            answer = connection.getresponse()
            names = [name for name, _ in answer.getheaders()]
            assert len(names) == len(set(names)), "a header stands there twice"
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def status(self, *authorizations: str | bytes) -> int:
        return self.get(*authorizations).status


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def basic(name: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(name + b":" + password).decode()


RIGHT: Final = basic(b"asha", b"asha-password")
WRONG: Final = basic(b"asha", b"wrong")


@contextlib.contextmanager
def door_of(users: dict[str, str], waiting_max: int = 32) -> Iterator[Door]:
    check = CountingCheck()
    stored = {name: PasswordHash(text) for name, text in users.items()}
    auth = BasicAuth(
        application(), lambda: WebConfig(users=stored), check=check, waiting_max=waiting_max
    )
    with serving_app(auth) as port:
        try:
            yield Door(port, check, stored)
        finally:
            check.go_on.set()


@pytest.fixture
def door() -> Iterator[Door]:
    with door_of({"asha": ASHA, "bala": BALA}) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Door]:
    """For tests that change nothing: a server takes a fifth of a second to end."""
    with door_of({"asha": ASHA, "bala": BALA}) as made:
        yield made


# ---- who passes


def test_the_right_password_passes_and_all_else_is_asked_for_it(door: Door) -> None:
    """With exactly the words that exporter-toolkit uses."""
    assert door.get(RIGHT).body == b"hello"
    refusal = door.get()
    assert (refusal.status, refusal.body) == (401, b"Unauthorized\n")
    assert refusal.headers["www-authenticate"] == 'Basic realm="exporter"'
    assert door.get(WRONG).headers["www-authenticate"] == 'Basic realm="exporter"'


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/reload", "/nothing-here"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_path_is_behind_the_door(shared: Door, path: str, method: str) -> None:
    """A stranger does not even learn which paths there are."""
    assert shared.get(path=path, method=method).status == 401


def test_without_users_everybody_passes() -> None:
    """And no password is checked, though one is given."""
    with door_of({}) as door:
        assert door.status() == 200
        assert door.status(WRONG) == 200
        assert door.check.asked == []


ENCODED: Final = RIGHT.removeprefix("Basic ")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        pytest.param(f"basic {ENCODED}", 200, id="lower-case"),
        pytest.param(f"BASIC {ENCODED}", 200, id="upper-case"),
        pytest.param(f"Bearer {ENCODED}", 401, id="other-scheme"),
        pytest.param(f"Basic{ENCODED}", 401, id="no-space"),
        pytest.param(f"Basic  {ENCODED}", 401, id="two-spaces"),
        pytest.param("Basic", 401, id="scheme-alone"),
        pytest.param("", 401, id="empty"),
        pytest.param("Basic YTpi", 401, id="other-login"),
        pytest.param("Basic YXNoYTp4eQ", 401, id="no-padding"),
        pytest.param(f"Basic {ENCODED}====", 401, id="too-much-padding"),
        pytest.param(f"Basic {ENCODED[:4]}!{ENCODED[4:]}", 401, id="not-base64"),
        pytest.param(b"Basic \xff\xfe", 401, id="not-ascii"),
        pytest.param("Basic " + base64.b64encode(b"asha").decode(), 401, id="no-colon"),
        pytest.param("Basic " + base64.b64encode(b":").decode(), 401, id="colon-alone"),
        pytest.param(basic(b"", b"asha-password"), 401, id="no-name"),
        pytest.param(basic(b"asha", b""), 401, id="no-password"),
        pytest.param(basic(b"Asha", b"asha-password"), 401, id="name-in-other-case"),
        pytest.param(basic(b"asha\0", b"asha-password"), 401, id="name-with-nul"),
        pytest.param(basic(b"asha", b"asha-password\0x"), 401, id="password-with-nul"),
        pytest.param(basic(b"asha", b"asha-password\n"), 401, id="password-with-newline"),
        pytest.param(basic(b"\xff\xfe", b"asha-password"), 401, id="name-not-utf8"),
        pytest.param(basic(b"asha", b"\xff\xfe"), 401, id="password-not-utf8"),
        pytest.param(basic(b"bala", b"asha-password"), 401, id="password-of-another"),
        pytest.param(basic(b"asha", ASHA.encode()), 401, id="hash-as-password"),
        pytest.param(basic(b"a" * 3000, b"b" * 20_000), 401, id="oversize"),
    ],
)
def test_what_is_not_exactly_a_users_login_is_refused(
    shared: Door, value: str | bytes, status: int
) -> None:
    """Never a 500, and never somebody else's login."""
    assert shared.status(value) == status
    assert shared.status(value) == status  # nor when it is remembered


def test_of_two_headers_the_first_counts(shared: Door) -> None:
    """As in Go: a second one can neither help nor hurt."""
    assert shared.status(RIGHT, WRONG) == 200
    assert shared.status(WRONG, RIGHT) == 401


def test_names_and_passwords_are_bytes() -> None:
    """A name of any script, and a password that is not text."""
    name = "अमृता"
    with door_of({name: hashed(b"\xff\xfe"), "": hashed(b"of nobody")}) as door:
        assert door.status(basic(name.encode(), b"\xff\xfe")) == 200
        assert door.status(basic(b"", b"of nobody")) == 200
        assert door.status(basic(name.encode(), b"of nobody")) == 401


def test_a_password_with_a_colon_is_whole() -> None:
    """Only the first colon ends the name."""
    with door_of({"asha": hashed(b"a:b:c")}) as door:
        assert door.status(basic(b"asha", b"a:b:c")) == 200
        assert door.status(basic(b"asha", b"a")) == 401


@pytest.mark.parametrize(
    ("stored", "given", "status"),
    [
        pytest.param(72, 72, 200, id="all-of-it"),
        pytest.param(72, 71, 401, id="one-byte-less"),
        pytest.param(72, 100, 200, id="more-than-bcrypt-reads"),
        pytest.param(72, 5000, 200, id="much-more"),
    ],
)
def test_bcrypt_reads_72_bytes_of_a_password(stored: int, given: int, status: int) -> None:
    """As in Go, whose comparison leaves the rest away; no longer password is a 500."""
    with door_of({"asha": hashed(b"p" * stored)}) as door:
        assert door.status(basic(b"asha", b"p" * given)) == status


@pytest.mark.parametrize("version", ["$2a$", "$2b$", "$2y$"])
def test_the_hashes_of_every_maker_are_understood(version: str) -> None:
    """$2y$ is what htpasswd and PHP write."""
    with door_of({"asha": ASHA.replace("$2b$", version)}) as door:
        assert door.status(RIGHT) == 200
        assert door.status(WRONG) == 401


# ---- what a stranger can learn


def test_an_unknown_user_costs_as_much_as_a_known_one(door: Door) -> None:
    """One check each, of a hash of the same cost; the answers are the same."""
    known = door.get(basic(b"asha", b"guess"))
    unknown = door.get(basic(b"nobody", b"guess"))
    not_text = door.get(basic(b"\xff", b"guess"))
    assert (known.status, known.body) == (unknown.status, unknown.body) == (401, b"Unauthorized\n")
    assert {*known.headers} == {*unknown.headers} == {*not_text.headers}
    assert [password for password, _ in door.check.asked] == [b"guess"] * 3
    assert [encoded[:7] for _, encoded in door.check.asked] == [b"$2b$04$"] * 3


def test_what_is_remembered_tells_nothing_either(door: Door) -> None:
    """A second wrong try costs no check, whoever it is for."""
    for name in (b"asha", b"nobody"):
        for _ in range(3):
            assert door.status(basic(name, b"guess")) == 401
    assert len(door.check.asked) == 2


def test_unknown_users_cost_as_much_as_the_dearest_known_one() -> None:
    with door_of({"asha": ASHA, "bala": hashed(b"x", 5)}) as door:
        assert door.status(basic(b"nobody", b"guess")) == 401
        assert [encoded[4:6] for _, encoded in door.check.asked] == [b"05"]


def test_no_password_opens_the_door_of_a_user_who_is_not_there() -> None:
    """Not even if the check that is made for appearance should find it right."""
    auth = BasicAuth(application(), lambda: config(asha=ASHA), check=lambda *_: True)
    with serving_app(auth) as port:
        door = Door(port, CountingCheck(), {})
        for _ in range(2):
            assert door.status(basic(b"nobody", b"fakepassword")) == 401
        assert door.status(basic(b"asha", b"anything")) == 200


# ---- what is remembered


def test_a_login_is_checked_once(door: Door) -> None:
    """Every scrape brings it along; a hash costs a tenth of a second."""
    assert [door.status(RIGHT) for _ in range(5)] == [200] * 5
    assert len(door.check.asked) == 1


@pytest.mark.parametrize(
    ("poison", "attempt"),
    [
        pytest.param(
            (b"asha" + ASHA.encode(), b"asha-password"), (b"asha", ASHA.encode()), id="moved-hash"
        ),
        pytest.param((b"ash", b"aasha-password"), (b"asha", b"asha-passwor"), id="moved-letter"),
        pytest.param((b"asha", b"asha-password"), (b"ash", b"a:asha-password"), id="moved-colon"),
        pytest.param(
            (b"asha", b"asha-password"), (b"asha\0asha-password", b""), id="moved-with-nul"
        ),
        pytest.param((b"asha", b"asha-password"), (b"bala", b"asha-password"), id="other-name"),
    ],
)
def test_no_login_can_be_made_to_pass_for_another(
    door: Door, poison: tuple[bytes, bytes], attempt: tuple[bytes, bytes]
) -> None:
    """CVE-2022-46146: what is remembered of one must not answer for the other."""
    expected = 200 if poison == (b"asha", b"asha-password") else 401
    assert door.status(basic(*poison)) == expected
    assert door.status(basic(*attempt)) == 401
    assert door.status(RIGHT) == 200


def test_parts_that_join_to_the_same_bytes_are_remembered_apart() -> None:
    """The attack itself, had the hash for names of nobody a password that somebody knows."""
    asked: list[tuple[bytes, bytes]] = []

    def check(password: bytes, encoded: bytes) -> bool:
        asked.append((password, encoded))
        return password == b"fakepassword"

    auth = BasicAuth(application(), lambda: config(asha=ASHA), check=check)
    with serving_app(auth) as port:
        door = Door(port, CountingCheck(), {})
        assert door.status(basic(b"asha" + ASHA.encode(), b"fakepassword")) == 401
        of_nobody = asked[0][1]
        assert of_nobody != ASHA.encode()
        assert door.status(basic(b"asha", of_nobody + b"fakepassword")) == 401
    assert [password for password, _ in asked] == [b"fakepassword", of_nobody + b"fakepassword"]


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


def test_a_flood_of_wrong_passwords_does_not_displace_the_right_one(door: Door) -> None:
    """A scraper that is known goes on without a check."""
    assert door.status(RIGHT) == 200
    for number in range(150):
        assert door.status(basic(b"asha", b"%d" % number)) == 401
    checks = len(door.check.asked)
    assert checks == 151
    assert door.status(RIGHT) == 200
    assert len(door.check.asked) == checks


def test_what_is_remembered_has_an_end(door: Door) -> None:
    """The oldest of many wrong passwords is forgotten, and checked again."""
    for number in range(101):
        assert door.status(basic(b"asha", b"%d" % number)) == 401
    assert door.status(basic(b"asha", b"100")) == 401
    assert len(door.check.asked) == 101
    assert door.status(basic(b"asha", b"0")) == 401
    assert len(door.check.asked) == 102


# ---- many together


def test_the_same_login_many_times_at_once_is_checked_once(door: Door) -> None:
    """As in exporter-toolkit's own test: every one of 150 clients gets the right answer."""
    with ThreadPoolExecutor(30) as clients:
        right = [clients.submit(door.status, RIGHT) for _ in range(150)]
        wrong = [clients.submit(door.status, WRONG) for _ in range(150)]
        assert {answer.result() for answer in right} == {200}
        assert {answer.result() for answer in wrong} == {401}
    assert len(door.check.asked) == 2


def test_a_check_that_takes_long_stops_nobody_else() -> None:
    """The event loop goes on: known users get an answer, and so do requests without a login."""
    with door_of({"asha": ASHA}) as door, ThreadPoolExecutor(1) as clients:
        assert door.status(RIGHT) == 200
        door.check.wait_until_begun()
        door.check.go_on.clear()
        slow = clients.submit(door.status, WRONG)
        door.check.wait_until_begun()
        assert door.status(RIGHT) == 200
        assert door.status() == 401
        assert not slow.done()
        door.check.go_on.set()
        assert slow.result(DEADLINE_SECONDS) == 401


def test_past_the_limit_of_waiting_checks_the_answer_is_503() -> None:
    """A flood neither grows without end nor takes more than two threads."""
    with door_of({"asha": ASHA}, waiting_max=3) as door, ThreadPoolExecutor(6) as clients:
        assert door.status(RIGHT) == 200
        door.check.wait_until_begun()
        door.check.go_on.clear()
        flood = [clients.submit(door.get, basic(b"asha", b"%d" % n)) for n in range(6)]
        first = as_completed(flood, DEADLINE_SECONDS)
        refused = [next(first).result() for _ in range(3)]
        assert door.status(RIGHT) == 200
        door.check.wait_until_begun(2)
        assert len(door.check.asked) == 3  # the right one, and two that run
        door.check.go_on.set()
        assert [answer.result().status for answer in first] == [401] * 3
        assert door.status(basic(b"asha", b"0")) == 401
    for answer in refused:
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.body == b"Too many logins are being checked, try again later.\n"
        assert "www-authenticate" not in answer.headers


def test_a_check_that_fails_lets_nobody_in() -> None:
    """Whatever goes wrong, and it is not remembered as an answer."""
    asked: list[bytes] = []

    def check(password: bytes, _encoded: bytes) -> bool:
        asked.append(password)
        raise ValueError("Invalid salt")

    auth = BasicAuth(application(), lambda: config(asha=ASHA), check=check)
    with serving_app(auth) as port:
        door = Door(port, CountingCheck(), {})
        assert [door.status(RIGHT), door.status(RIGHT)] == [500, 500]
    assert asked == [b"asha-password"] * 2


# ---- the file, the headers


def test_users_changed_in_the_file_take_effect_at_the_next_request(
    tmp_path: Path, time: FakeTime
) -> None:
    """All of it together: file, users, server."""
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users:\n  asha: {ASHA}\n")
    file = web_config.follow(str(path), time.clock)
    auth = BasicAuth(application(), file.current)
    with serving_app(auth) as port:
        door = Door(port, CountingCheck(), {})
        assert door.status(RIGHT) == 200
        path.write_text(f"basic_auth_users:\n  bala: {BALA}\n  chitra: {BALA}\n")
        time.pass_(1)
        assert door.status(RIGHT) == 401
        assert door.status(basic(b"bala", b"bala-password")) == 200
        path.write_text("# everybody\n")
        time.pass_(1)
        assert door.status() == 200


HEADERS: Final = (
    "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    "    Strict-Transport-Security: max-age=31536000\n"
    "    Content-Security-Policy: default-src 'self'\n"
)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        pytest.param("/", "GET", 200, id="200"),
        pytest.param("/", "HEAD", 200, id="head"),
        pytest.param("/nothing-here", "GET", 404, id="404"),
        pytest.param("/", "POST", 405, id="405"),
        pytest.param("/busy", "GET", 503, id="503"),
    ],
)
def test_the_configured_headers_stand_in_every_answer(path: str, method: str, status: int) -> None:
    """Once each; what a page says for itself counts, as in exporter-toolkit."""
    loaded = web_config.parse(HEADERS, "FILE")
    with serving_app(ExtraHeaders(application(), lambda: loaded)) as port:
        answer = Door(port, CountingCheck(), {}).get(path=path, method=method)
    assert answer.status == status
    assert answer.headers["x-frame-options"] == "deny"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    own = "its own" if path == "/" and method != "POST" else "default-src 'self'"
    assert answer.headers["content-security-policy"] == own


def test_the_configured_headers_stand_in_a_refusal_too() -> None:
    """The outermost layer adds them."""
    loaded = web_config.parse(HEADERS + f"basic_auth_users:\n  asha: {ASHA}\n", "FILE")
    auth = BasicAuth(application(), lambda: loaded)
    with serving_app(ExtraHeaders(auth, lambda: loaded)) as port:
        answer = Door(port, CountingCheck(), {}).get()
    assert (answer.status, answer.headers["x-frame-options"]) == (401, "deny")
    assert answer.headers["www-authenticate"] == 'Basic realm="exporter"'


def test_without_configured_headers_answers_are_as_they_were() -> None:
    """The page's own headers stay."""
    with serving_app(ExtraHeaders(application(), WebConfig)) as port:
        answer = Door(port, CountingCheck(), {}).get()
    assert answer.headers["content-security-policy"] == "its own"
    assert "x-frame-options" not in answer.headers
