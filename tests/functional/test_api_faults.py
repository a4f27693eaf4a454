"""What the faults of the API come to, from the wire to the metrics.

What other tests hold of a single layer is held here of all of them together, on real sockets: a
fault that fails a poll strikes between two good ones; one that does not is seen in what a scrape
finds.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import logging
import ssl
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from exophone_exporter.clock import Clock
from exophone_exporter.errors import REASONS
from exophone_exporter.inventory.state import AccountState, PollResult
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from exophone_exporter.polling.poll_log import PollLogger
from exophone_exporter.polling.poller import poll_once
from tests.lib.canary import KEY, TOKEN, traces
from tests.lib.fault_server import (
    CHUNKED,
    HEAD,
    Conversation,
    FaultServer,
    Script,
    dripping,
    hanging_port,
    ok,
    saying,
    saying_then_reset,
    saying_then_silence,
)
from tests.lib.support import FakeTime, account, client_for, closed_port

Samples: TypeAlias = "Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]"
# What an account is polled with while the fault lasts: its origin, and what goes with it.
Settings: TypeAlias = "dict[str, Any]"
Fault: TypeAlias = "Callable[[], contextlib.AbstractContextManager[Settings]]"

MIB: Final = 1024 * 1024
ACCOUNT: Final = (("account", "support"),)
LAST_SUCCESS: Final = "exophone_poll_last_success_timestamp_seconds"


def listing(*numbers: object, **envelope: object) -> bytes:
    """An answer of the list endpoint; it is the last page unless told otherwise."""
    whole = {"next_page_uri": None, "incoming_phone_numbers": numbers} | envelope
    return json.dumps(whole).encode()


GOOD: Final = listing({"sid": "a", "phone_number": "+911140000001", "rental_price": "499.00"})


class Watched:
    """One account as it is polled, logged, and shown on /metrics; tests move its clock."""

    def __init__(self, time: FakeTime) -> None:
        self._time = time
        self._account = account(api_key=KEY, api_token=TOKEN)
        self.state = AccountState(self._account)
        self._poll_logger = PollLogger(self._account)
        self._page = MetricsPage(
            lambda: [self.state.status()],
            lambda: ExporterInfo("r", 0.0),
            time.clock,
            with_process=False,
        )

    def poll(self, **settings: Any) -> PollResult:
        """One poll five minutes after the last; waits before a retry take no time."""
        self._time.pass_(300)
        own = account(api_key=KEY, api_token=TOKEN, **settings)
        client = client_for(own, FakeTime(), recorder=self.state, clock=Clock())
        result = poll_once(self.state, client.fetch_all, self._time.clock)
        self._poll_logger.log(result)
        self._page.refresh()
        return result

    def poll_well(self) -> None:
        with FaultServer(saying(ok(GOOD))) as server:
            assert self.poll(origin=server.url).error is None

    @property
    def requests(self) -> int:
        return sum(self.state.status().requests.values())

    @property
    def text(self) -> str:
        return self._page.body(openmetrics=False, gzipped=False).decode()

    @property
    def samples(self) -> Samples:
        return {
            family.name: {tuple(sorted(s.labels.items())): s.value for s in family.samples}
            for family in text_string_to_metric_families(self.text)
        }


def inventory(samples: Samples) -> Samples:
    """All that is known of numbers; the rest is about polling."""
    about_numbers = ("exophone_number", "exophone_monthly", "exophone_idle", "exophone_flow")
    return {name: found for name, found in samples.items() if name.startswith(about_numbers)}


def failures(samples: Samples) -> dict[str, float]:
    found = samples["exophone_poll_failures"]
    return {reason: found[(*ACCOUNT, ("reason", reason))] for reason in REASONS}


@pytest.fixture
def watched(time: FakeTime) -> Watched:
    """An account whose first poll was good."""
    own = Watched(time)
    own.poll_well()
    return own


# Faults


def on_the_wire(script: Script, **settings: Any) -> Fault:
    """A server that plays this to every connection."""

    @contextlib.contextmanager
    def fault() -> Iterator[Settings]:
        with FaultServer(script) as server:
            yield {"origin": server.url} | settings

    return fault


def answered(body: bytes, *headers: str, status: str = "200 OK", **settings: Any) -> Fault:
    """A server that gives every request the same whole answer, on a connection of its own."""
    return on_the_wire(saying(ok(body, "Connection: close", *headers, status=status)), **settings)


def at(origin: str, **settings: Any) -> Fault:
    @contextlib.contextmanager
    def fault() -> Iterator[Settings]:
        yield {"origin": origin} | settings

    return fault


@contextlib.contextmanager
def refusing() -> Iterator[Settings]:
    yield {"origin": f"http://127.0.0.1:{closed_port()}"}


@contextlib.contextmanager
def hanging() -> Iterator[Settings]:
    with hanging_port() as port:
        yield {"origin": f"http://127.0.0.1:{port}", "timeout_seconds": 0.15}


@contextlib.contextmanager
def tls_on_a_plain_port() -> Iterator[Settings]:
    def script(conversation: Conversation) -> None:
        conversation.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        conversation.stay_silent()

    with FaultServer(script) as server:
        yield {"origin": server.url.replace("http:", "https:")}


def certified(name: str, days: int, *, trusted: bool) -> Fault:
    """A server with such a certificate; it must not hear a word."""

    @contextlib.contextmanager
    def fault() -> Iterator[Settings]:
        authority = trustme.CA()
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name, not_after=expiry).configure_cert(context)
        with (
            authority.cert_pem.tempfile() as ca_file,
            FaultServer(saying(ok(GOOD)), tls=context) as server,
        ):
            yield {"origin": server.url, "ca_file": ca_file if trusted else None}
            assert server.requests == []

    return fault


def in_turn(*answers: bytes) -> Script:
    """A script that gives each request the next answer, on whatever connection it comes."""
    rest = iter(answers)

    def script(conversation: Conversation) -> None:
        while True:
            conversation.read_request()
            conversation.send(next(rest, answers[-1]))

    return script


def page_after_page(conversation: Conversation) -> None:
    """Pages with a new number each; the third never comes, though no single one was late."""
    for index in range(2):
        conversation.read_request()
        conversation.wait(0.15)
        conversation.send(ok(listing({"sid": f"n{index}"}, next_page_uri="x")))
    conversation.stay_silent()


@contextlib.contextmanager
def late_page() -> Iterator[Settings]:
    with FaultServer(in_turn(ok(MORE), ok(b"", status="500 Oh"))) as server:
        yield {"origin": server.url}


def storm(conversation: Conversation) -> None:
    """Interim answers, and never the one that counts."""
    conversation.read_request()
    conversation.flood(b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 60_000 + b"\r\n\r\n", 64 * MIB)


MORE: Final = listing({"sid": "new"}, next_page_uri="x")
CUT_GZIP: Final = gzip.compress(GOOD * 99)[:-40]
GZIPPED: Final = "Content-Encoding: gzip"
LIST_IS_NULL: Final = b'{"incoming_phone_numbers": null}'
LIST_IS_AN_OBJECT: Final = b'{"incoming_phone_numbers": {}}'
KYC: Final = b"<RestException><Message>KYC is pending</Message></RestException>"
INNER_CODE: Final = b'{"http_code": 402, "response": {"error_data": {"message": "KYC"}}}'
INNER_XML: Final = b"<RestException><Status>429</Status></RestException>"
INNER_EXCEPTION: Final = b'{"RestException": {"Message": "KYC"}}'
LONG_HEAD: Final = HEAD + b"Content-Length: 999\r\n\r\n"
LIST_PATH: Final = "/v2_beta/Accounts/acme/IncomingPhoneNumbers?Page=0&PageSize=50"
LONG_NAME: Final = "http://" + "a" * 300
NO_SUCH_NAME: Final = "http://" + "a-name-longer-than-any-that-there-is." * 9 + "invalid"
LONG_HEADER: Final = "X-Long: " + "x" * 70_000
ARABIC: Final = b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK\r\n\r\n"
# Words of the messages.
LATE: Final = "did not answer in time"
CUT: Final = "was cut short"
NOT_HTTP: Final = "does not speak valid HTTP"
NOT_JSON: Final = "bytes is not JSON"
NOT_FOLLOWED: Final = "which is not followed; fix base_url or region"


def row(  # noqa: PLR0917 - the columns of a table
    number: int, name: str, fault: Fault, reason: str, attempts: int, says: str
) -> Any:
    """One fault of a row: the reason it has, the requests it costs, words of the message."""
    marks = pytest.mark.fault(number)
    return pytest.param(fault, reason, attempts, says, id=f"{number}-{name}", marks=marks)


def refused(number: int, status: str, reason: str, attempts: int, *headers: str) -> Any:
    """A row about a status, with words of the vendor's in the body."""
    fault = answered(KYC, *headers, status=f"{status} Odd", deadline_seconds=5.0)
    return row(number, "-".join((status, *headers)), fault, reason, attempts, f"{status}: ")


def redirected(number: int, status: str, location: str, told: str) -> Any:
    """A row about a redirect, and what the message says of where it leads."""
    fault = answered(b"", f"Location: {location}", status=f"{status} Odd")
    says = f"{status}: a redirect to {told}, {NOT_FOLLOWED}"
    return row(number, f"{status}-{told}", fault, "status", 1, says)


def silent(data: bytes) -> Fault:
    """A server that says this, and then nothing for longer than a read may take."""
    return on_the_wire(saying_then_silence(data), timeout_seconds=0.15)


inner_limit = answered(INNER_XML, "Retry-After: 30", deadline_seconds=5.0)
drip = on_the_wire(dripping(LONG_HEAD, b" " * 999), deadline_seconds=0.5)
slow_pages = on_the_wire(page_after_page, deadline_seconds=2.0)

NETWORK: Final = [
    row(1, "name", at(NO_SUCH_NAME), "connect", 3, "Name or service not known"),
    row(2, "hangs", hanging, "timeout", 3, LATE),
    row(3, "refused", refusing, "connect", 3, "Connection refused"),
    row(4, "reset", on_the_wire(saying_then_reset(b"")), "connect", 3, "reset by peer"),
    row(4, "closed", on_the_wire(saying(b"")), "connect", 3, "closed without a response"),
    row(5, "silence", silent(b""), "timeout", 3, LATE),
    row(6, "headers-alone", silent(LONG_HEAD), "timeout", 3, LATE),
    row(7, "drip", drip, "timeout", 1, "not complete after its deadline of 0.5s"),
    row(8, "cut", on_the_wire(saying(LONG_HEAD + b'{"page"')), "bad_body", 3, CUT),
    row(8, "reset", on_the_wire(saying_then_reset(LONG_HEAD + b"{")), "bad_body", 3, CUT),
    row(9, "chunk-cut", on_the_wire(saying(CHUNKED + b"40\r\nab")), "bad_body", 3, CUT),
    row(9, "no-chunk", on_the_wire(saying(CHUNKED + b"xyz\r\n")), "bad_body", 3, CUT),
    row(10, "ssh", on_the_wire(saying(b"SSH-2.0-OpenSSH_9.6\r\n")), "connect", 1, NOT_HTTP),
    row(11, "long-header", answered(GOOD, LONG_HEADER), "connect", 1, NOT_HTTP),
    row(11, "101-headers", answered(GOOD, *["X-Many: 1"] * 101), "connect", 1, NOT_HTTP),
    row(11, "two-lengths", answered(GOOD, "Content-Length: 1, 2"), "connect", 1, NOT_HTTP),
    row(13, "expired", certified("localhost", -1, trusted=True), "tls", 1, "has expired"),
    row(13, "name", certified("a.example", 1, trusted=True), "tls", 1, "Hostname mismatch"),
    row(13, "unknown", certified("localhost", 1, trusted=False), "tls", 1, "is a ca_file needed?"),
    row(14, "plain-port", tls_on_a_plain_port, "tls", 1, "the port does not speak TLS"),
    row(17, "slow", slow_pages, "timeout", 3, "not complete after its deadline of 2s"),
]
STATUS: Final = [
    row(19, "html", answered(b"<html>canary</html>"), "bad_body", 1, f"19 {NOT_JSON}"),
    row(20, "code", answered(INNER_CODE), "billing", 1, 'not allow it (the API says: "KYC")'),
    row(20, "exception", answered(INNER_EXCEPTION), "envelope", 1, "200 with an error inside: KYC"),
    row(20, "limit", inner_limit, "rate_limited", 1, "429 inside a 200: "),
    row(20, "status", answered(listing(status="failure")), "envelope", 1, "an error inside"),
    row(21, "201", answered(GOOD, status="201 Created"), "status", 1, "201: "),
    row(21, "202", answered(GOOD, status="202 Accepted"), "status", 1, "202: "),
    row(21, "204", answered(b"", status="204 No Content"), "status", 1, "204: "),
    row(21, "206", answered(GOOD, status="206 Partial"), "status", 1, "206: "),
    *(redirected(22, status, "/x", "elsewhere") for status in ("301", "302", "303", "307", "308")),
    redirected(23, "302", "https://u:canary@a.example:1/canary?canary", "https://a.example:1"),
    redirected(24, "302", "http://[::1", "elsewhere"),
    redirected(24, "302", "http://h:99999999/", "http://h:99999999"),
    redirected(24, "302", LONG_NAME + "/", LONG_NAME[:255] + "…"),
    redirected(24, "302", "http://\xff\xfe/", "http://\xff\xfe"),
    redirected(24, "302", "file:///etc/passwd", "elsewhere"),
    redirected(24, "302", "http://.../", "http://..."),
    redirected(25, "302", LIST_PATH, "elsewhere"),
    row(26, "400", answered(b"", status="400 Odd"), "status", 1, "is page_size larger than it"),
    refused(27, "401", "auth", 1),
    refused(28, "402", "billing", 1),
    refused(29, "403", "forbidden", 1),
    refused(29, "403", "rate_limited", 1, "Retry-After: 30"),
    refused(30, "404", "not_found", 1),
    refused(30, "410", "not_found", 1),
    *(refused(31, status, "server", 3) for status in ("408", "425", "502", "504")),
    refused(32, "429", "rate_limited", 3, "Retry-After: 4"),
    refused(32, "429", "rate_limited", 1, "Retry-After: 30"),
    refused(33, "429", "rate_limited", 3, "Retry-After: NaN"),
    refused(33, "429", "rate_limited", 1, "Retry-After: 1000000000000"),
    refused(33, "429", "rate_limited", 3),
    refused(34, "429", "rate_limited", 3, "X-RateLimit-Reset: 99999999999"),
    refused(35, "500", "server", 3),
    refused(36, "503", "rate_limited", 3, "Retry-After: 4"),
    refused(36, "503", "rate_limited", 1, "Retry-After: 30"),
    refused(38, "999", "status", 1),
    row(38, "101", answered(GOOD, status="101 Switching Protocols"), "status", 1, "101: "),
    row(38, "000", answered(GOOD, status="000 Odd"), "connect", 1, NOT_HTTP),
    row(38, "arabic", on_the_wire(saying(ARABIC)), "connect", 1, NOT_HTTP),
    row(38, "storm", on_the_wire(storm, timeout_seconds=10.0), "too_large", 1, "larger than 8 MiB"),
    row(39, "late", late_page, "server", 4, "500: "),
]
BODY: Final = [
    row(40, "empty", answered(b""), "bad_body", 1, f"0 {NOT_JSON}"),
    row(41, "null", answered(b"null"), "envelope", 1, "a JSON null where an object"),
    row(42, "cut", answered(GOOD[:-9]), "bad_body", 2, NOT_JSON),
    row(43, "not-utf-8", answered(b'{"a": "\xff"}'), "bad_body", 1, "is not UTF-8"),
    row(45, "utf-16", answered(GOOD.decode().encode("utf-16")), "bad_body", 1, "is not UTF-8"),
    row(45, "utf-16-le", answered(GOOD.decode().encode("utf-16-le")), "bad_body", 2, NOT_JSON),
    row(45, "utf-32", answered(GOOD.decode().encode("utf-32-be")), "bad_body", 1, NOT_JSON),
    row(46, "deep", answered(b"[" * 10**5 + b"]" * 10**5), "bad_body", 1, "beyond all measure"),
    row(47, "digits", answered(b"9" * 5000), "bad_body", 1, "beyond all measure"),
    row(48, "nan", answered(b'{"a": NaN}'), "bad_body", 1, "beyond all measure"),
    row(51, "announced", answered(GOOD + b" " * 8 * MIB), "too_large", 1, "larger than 8 MiB"),
    row(53, "bad-gzip", answered(b"x" * 99, GZIPPED), "bad_body", 1, "cannot be decompressed"),
    row(54, "cut-gzip", answered(CUT_GZIP, GZIPPED), "bad_body", 2, NOT_JSON),
    row(55, "brotli", answered(GOOD, "Content-Encoding: br"), "bad_body", 1, "not requested"),
    row(55, "deflate", answered(GOOD, "Content-Encoding: deflate"), "bad_body", 1, "not requested"),
    row(55, "twice", answered(GOOD, f"{GZIPPED}, gzip"), "bad_body", 1, "not requested"),
    row(57, "missing", answered(b"{}"), "envelope", 1, "is missing where a list"),
    row(58, "null", answered(LIST_IS_NULL), "envelope", 1, "is missing where a list"),
    row(58, "object", answered(LIST_IS_AN_OBJECT), "envelope", 1, "the type object where a list"),
    row(59, "no-item", answered(listing(1, {"sid": ""})), "envelope", 1, "none of the 2 items"),
]


@pytest.mark.parametrize(("fault", "reason", "attempts", "says"), [*NETWORK, *STATUS, *BODY])
def test_poll_that_fails_keeps_the_figures_and_tells_once_why(
    *,
    watched: Watched,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    reason: str,
    attempts: int,
    says: str,
) -> None:
    """One failure is counted, one warning written, no secret told; the next poll is as before."""
    caplog.set_level(logging.DEBUG)
    before, requests = watched.samples, watched.requests
    with fault() as settings:
        error = watched.poll(**settings).error
    after = watched.samples
    assert (watched.requests - requests, after["exophone_up"]) == (attempts, {ACCOUNT: 0})
    assert failures(after) == failures(before) | {reason: 1}
    assert inventory(after) == inventory(before) != {}
    assert after[LAST_SUCCESS] == before[LAST_SUCCESS]
    (warning,) = [vars(record) for record in caplog.records if record.levelno >= logging.WARNING]
    assert (warning["msg"], warning["fields"]["reason"]) == ("the poll failed", reason)
    assert says in warning["fields"]["error"]
    assert error is not None
    raised = [*traceback.format_exception(error), repr(error.__context__)]
    told = [vars(record) for record in caplog.records]
    assert traces(f"{watched.text} {told} {raised}") == []
    watched.poll_well()
    assert inventory(watched.samples) == inventory(before)
    assert watched.samples["exophone_up"] == {ACCOUNT: 1}
    assert failures(watched.samples) == failures(after)


def number(**sent: object) -> bytes:
    """A whole answer with one number, of which this is sent next to its sid."""
    return ok(listing({"sid": "a"} | sent))


def raw(text: bytes) -> bytes:
    """Likewise, with JSON that Python would not write."""
    return ok(b'{"incoming_phone_numbers": [{"sid": "a", %b}], "next_page_uri": null}' % text)


def found(row_: int, name: str, answer: bytes, *unreadable: str, **labels: str) -> Any:
    """One answer that a row takes: the fields that it cannot read, and labels of the number."""
    return pytest.param(
        answer, unreadable, labels, id=f"{row_}-{name}", marks=pytest.mark.fault(row_)
    )


ODD: Final = 'say "hi", {a="b"} # \\ دعم 📞 %s'


@pytest.mark.parametrize(
    ("answer", "unreadable", "labels"),
    [
        found(49, "beyond-a-double", raw(b'"rental_price": 1e999'), "rental_price"),
        found(49, "beyond-all", raw(b'"rental_price": 1e99999999999999999999'), "rental_price"),
        found(49, "below-all", raw(b'"rental_price": -1e99999999999999999999'), "rental_price"),
        found(50, "last-wins", raw(b'"region": "MU", "region": "DL"'), region="DL"),
        found(
            60, "more-fields", number(status="active", region="MU", more={"a": [1]}), region="MU"
        ),
        found(65, "odd", number(friendly_name=ODD), friendly_name=ODD),
    ],
)
def test_odd_answer_that_is_taken_comes_back_from_the_parser_of_a_scrape(
    watched: Watched, answer: bytes, unreadable: tuple[str, ...], labels: dict[str, str]
) -> None:
    """One number with these labels; what cannot be read is named and has no value, not even 0."""
    with FaultServer(saying(answer)) as server:
        assert watched.poll(origin=server.url).error is None
    samples = watched.samples
    ((info, _),) = samples["exophone_number_info"].items()
    assert dict(info).items() >= (labels | {"sid": "a"}).items()
    assert {
        dict(names)["field"]
        for names, count in samples["exophone_poll_unreadable_values"].items()
        if count
    } == set(unreadable)
    assert "exophone_number_monthly_rental" not in samples
    assert "None" not in watched.text
