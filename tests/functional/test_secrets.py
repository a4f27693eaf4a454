"""Secrets are in the Authorization header to the configured origin, and nowhere else.

Every session is also searched for the secrets that its tests use; see `canary`.
"""

from __future__ import annotations

import base64
import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
import trustme

from exophone_exporter.errors import PollError
from exophone_exporter.exotel.client import Client
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib import canary
from tests.lib.canary import KEY, TOKEN
from tests.lib.fault_server import FaultServer, answering, ok
from tests.lib.paths import ROOT
from tests.lib.processes import LOOPBACK, config_file, get, run, started
from tests.lib.servers import tls_contexts
from tests.lib.support import account, client_for

pytest_plugins = ["pytester"]

BASIC = base64.b64encode(f"{KEY}:{TOKEN}".encode()).decode()
LIST = b'{"page": 0, "next_page_uri": null, "incoming_phone_numbers": [{"sid": "a"}]}'


def client_of(origin: str, **settings: Any) -> Client:
    """A client whose secrets are the canaries."""
    known: dict[str, Any] = {"api_key": KEY, "api_token": TOKEN, "timeout_seconds": 1.0}
    return client_for(account(origin=origin, **(known | settings)))


def failure(client: Client) -> PollError:
    with pytest.raises(PollError) as caught:
        client.fetch_all({})
    return caught.value


# ---- an API that repeats what it was sent


def xml(message: str) -> bytes:
    return f"<RestException><Message>{message}</Message></RestException>".encode()


def inner(message: str) -> bytes:
    error = {"code": 1, "error_data": {"description": message}}
    return json.dumps({"http_code": 409, "response": error}).encode()


REPEATED = f"no such user {KEY} with {TOKEN} in {BASIC}"
MASKED = "no such user <secret> with <secret> in <secret>"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        pytest.param(ok(xml(REPEATED), status="401 No"), MASKED, id="xml"),
        pytest.param(
            ok(json.dumps({"RestException": {"Message": REPEATED}}).encode(), status="403 No"),
            MASKED,
            id="json",
        ),
        pytest.param(ok(inner(REPEATED), status="400 No"), MASKED, id="inner"),
        pytest.param(ok(inner(REPEATED)), MASKED, id="inside-200"),
        pytest.param(
            ok(xml("x" * 250 + TOKEN), status="401 No"), "x" * 250 + "<secr", id="at-the-cut"
        ),
        pytest.param(
            ok(b"", f"Location: https://{TOKEN}.example/", status="302 Found"),
            "https://<secret>.example",
            id="location",
        ),
        pytest.param(
            ok(b"", f"Location: https://{KEY}:{TOKEN}@other.example/", status="302 Found"),
            "https://other.example",
            id="userinfo",
        ),
        pytest.param(
            ok(b"", f"Retry-After: {TOKEN}", status="429 Slow"), "429: the API", id="retry-after"
        ),
        pytest.param(
            ok(b"x", f"Content-Encoding: {TOKEN}"), "a content encoding", id="content-encoding"
        ),
        pytest.param(ok(REPEATED.encode()), "is not JSON", id="not-json"),
        pytest.param(f"HTTP/1.1 {TOKEN}\r\n\r\n".encode(), "speak valid HTTP", id="status-line"),
        pytest.param(
            f"HTTP/1.1 200 {TOKEN}\r\nContent-Length: 0\r\n\r\n".encode(),
            "is not JSON",
            id="reason-phrase",
        ),
        pytest.param(f"{KEY} {TOKEN}\r\n".encode(), "speak valid HTTP", id="banner"),
    ],
)
def test_what_the_api_repeats_of_the_credentials_is_masked(
    answer: bytes, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Error bodies are for people, and so end in logs; some APIs quote what they refused."""
    caplog.set_level(logging.DEBUG)
    with FaultServer(answering(*[answer] * 3)) as server:
        error = failure(client_of(server.url))
    assert shown in str(error)
    assert not canary.traces(str(error))
    assert not canary.traces(caplog.text)


@pytest.mark.parametrize(
    ("settings", "name", "shown"),
    [
        pytest.param({}, f"x{TOKEN}x", "x<secret>x", id="the-token"),
        pytest.param({"api_token": "Canary-8"}, "Canary-8", "<secret>", id="eight-characters"),
        # A key of a few digits would tear holes into SIDs and prices.
        pytest.param({"api_key": "0224"}, "02248901111", "02248901111", id="short"),
        # Older accounts have it so; their names and URLs must not be full of holes.
        pytest.param(
            {"sid": "acme-in", "api_key": "acme-in"}, "acme-in 1", "acme-in 1", id="key-is-the-sid"
        ),
    ],
)
def test_a_number_named_like_a_secret_is_shown_without_it(
    settings: dict[str, str], name: str, shown: str
) -> None:
    """Names become labels, which everybody reads."""
    named = json.dumps({"incoming_phone_numbers": [{"sid": "a", "friendly_name": name}]})
    with FaultServer(answering(ok(named.encode()))) as server:
        (number,) = client_of(server.url, **settings).fetch_first_page().numbers
    assert number.friendly_name == shown


# ---- what went wrong with other clients, by its number in the public list of vulnerabilities


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


REDIRECTS = [
    pytest.param("/other/path", id="on-the-same-host"),
    pytest.param("http://localhost:{port}/", id="CVE-2018-18074-from-https-to-http"),
    pytest.param("http://127.0.0.1:{port}/", id="CVE-2023-32681-43804-2025-50181-to-another-host"),
    pytest.param("//127.0.0.1:{port}/", id="CVE-2018-18074-without-a-scheme"),
    pytest.param("http://localhost:@127.0.0.1:{port}/", id="CVE-2024-47081-host-before-a-colon"),
    pytest.param("HTTP://127.0.0.1:{port}\\@localhost/", id="CVE-2018-20060-backslash"),
]


@pytest.mark.fault(23)
@pytest.mark.parametrize("location", REDIRECTS)
@pytest.mark.parametrize("status", ["301 Moved", "303 See Other", "308 Permanent Redirect"])
def test_no_redirect_takes_the_credentials_elsewhere(
    location: str, status: str, authority: trustme.CA, ca_file: str
) -> None:
    tls, _ = tls_contexts(authority)
    with FaultServer(answering(ok(LIST))) as other:
        answer = ok(
            b"",
            f"Location: {location.format(port=other.port)}",
            "Set-Cookie: session=1; Domain=127.0.0.1",
            status=status,
        )
        with FaultServer(answering(answer), tls=tls) as server:
            assert failure(client_of(server.url, ca_file=ca_file)).reason == "status"
            assert f"Authorization: Basic {BASIC}" in server.requests[0]
            assert (len(server.requests), other.connections) == (1, 0)


def test_cookies_of_an_answer_go_no_further_than_its_poll() -> None:
    """CVE-2023-43804: what a server set once must not follow later requests about."""
    with FaultServer(answering(ok(LIST, "Set-Cookie: session=1"))) as server:
        client = client_of(server.url)
        client.fetch_first_page()
        client.fetch_first_page()
    assert len(server.requests) == 2
    assert "cookie:" not in "".join(server.requests).lower()


# ---- the whole program


FAILURES = {
    "reason=auth": Fault(status=401, body=xml(REPEATED)),
    "reason=status": Fault(
        status=302, headers={"Location": f"http://{KEY}:{TOKEN}@elsewhere.example/{TOKEN}"}
    ),
    "reason=forbidden": Fault(status=403, body=inner(REPEATED)),
    "reason=envelope": Fault(status=200, body=json.dumps({"message": REPEATED}).encode()),
    "reason=bad_body": Fault(status=200, body=REPEATED.encode()),
    "reason=billing": Fault(status=402, body=xml("x" * 250 + TOKEN)),
}


MISTAKES = f"""\
  - {{name: b, sid: b, api_kye: {KEY}, api_token: {TOKEN}, api_token_file: {TOKEN}}}
  - {TOKEN}
  - [{KEY}, {TOKEN}]
"""


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_secrets_are_found_nowhere(log_format: str, tmp_path: Path) -> None:
    """Not in the log at debug level, a page, the list of processes, or a refused reload."""
    own = make_account("acme", 60)
    own.api_key, own.api_token = KEY, TOKEN
    with Simulator(World(own)) as sim:
        config = config_file(tmp_path, sim, "interval: 1s, deadline: 1s")
        words = ("--config.file", str(config), LOOPBACK, "--log.level=debug")
        with started(*words, f"--log.format={log_format}") as running:
            running.wait_for("first poll is complete")
            url = running.wait_for('"?url[=":, ]+(http://[^\\s"]+)')[1]
            for reason, fault in FAILURES.items():
                sim.fail(fault)
                running.wait_for(reason.replace("=", '[=":, ]+'))
                pages = ("/metrics", "/", "/docs", "/nowhere", "/probe?target=a")
                assert all(get(url + page)[1] for page in pages)
            config.write_text(f"{config.read_text('utf-8')}{MISTAKES}", encoding="utf-8")
            running.send(signal.SIGHUP)
            running.wait_for("the configuration was not reloaded")
            assert not canary.traces(Path(f"/proc/{running.pid}/cmdline").read_bytes())
            assert running.end() == 0
        assert not canary.traces(running.stdout + running.stderr)
    assert {request.headers["Authorization"] for request in sim.requests} == {f"Basic {BASIC}"}


@pytest.mark.parametrize(
    ("words", "code"),
    [("numbers", 0), ("once", 0), ("number nosuch", 1), ("check-config --live", 0)],
)
@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
def test_a_command_that_asks_shows_no_secret(
    words: str, code: int, refused: bool, tmp_path: Path
) -> None:
    """`run` searches what it printed; the API quotes what it refuses."""
    own = make_account("acme", 60)
    own.api_key, own.api_token = KEY, TOKEN
    with Simulator(World(own)) as sim:
        if refused:
            sim.fail(Fault(status=401, body=xml(REPEATED), times=None))
        config = config_file(tmp_path, sim)
        ended = run(*words.split(), "--config.file", str(config), "--log.level=debug")
    assert ended.code == (1 if refused else code)
    assert (MASKED in ended.stdout + ended.stderr) == refused


# ---- the search itself


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(KEY, id="as-it-is"),
        pytest.param(f"x{TOKEN}x", id="inside"),
        pytest.param(f"Basic {BASIC}", id="basic"),
        pytest.param(base64.b64encode(f"ab{TOKEN}".encode()).decode(), id="base64-shifted"),
        pytest.param(TOKEN.encode().hex(), id="hexadecimal"),
        pytest.param("acme-support-token", id="of-the-simulator"),
        pytest.param(
            base64.b64encode(b"beta-key:beta-token").decode(), id="basic-of-the-simulator"
        ),
    ],
)
def test_search_finds_a_secret_in_every_form(text: str) -> None:
    """A search that finds nothing proves something only if it can find."""
    assert canary.traces(f"time=12:00 msg=x error={text}\n")
    assert canary.traces(text.encode())


LEAKS = """
import logging, sys
def test_log(): logging.getLogger('x').debug('canary-key')
def test_print(): print('acme-token')
def test_stderr(): sys.stderr.write('YWNtZS1rZXk6YWNtZS10b2tlbg==')
"""


def test_a_test_that_shows_a_secret_fails(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The search of every session, tried on a session that has something to find."""
    pytester.makepyfile(LEAKS)
    pytester.makeconftest("from tests.lib.canary import pytest_runtest_makereport")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = pytester.runpytest_subprocess("-o", "log_level=DEBUG")
    capsys.readouterr()  # what it showed did not leak in this session
    result.assert_outcomes(passed=3, errors=3)
    result.stdout.fnmatch_lines(["*showed a secret*"])
