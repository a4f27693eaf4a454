"""Any bytes that a server sends back: numbers, or one of our errors, from the real client."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.errors import REASONS, PollError
from exophone_exporter.exotel.model import Page
from tests.lib.corpus import corpus
from tests.lib.fault_server import Conversation, FaultServer, ok
from tests.lib.strategies import edited
from tests.lib.support import CountingRecorder, account, client_for

Ask = Callable[[bytes], tuple[Page | PollError, list[str]]]

LIST: Final = b'{"page": 0, "next_page_uri": null, "incoming_phone_numbers": [{"sid": "a"}]}'
PACKED: Final = gzip.compress(LIST, mtime=0)
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


class Endpoint:
    def __init__(self) -> None:
        self._answer = b""
        self._recorder = CountingRecorder()

    def play(self, conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(self._answer)

    def asked(self, url: str, answer: bytes) -> tuple[Page | PollError, list[str]]:
        self._answer = answer
        self._recorder.requests.clear()
        own = account(origin=url, timeout_seconds=5.0, deadline_seconds=10.0)
        client = client_for(own, recorder=self._recorder, uniform=lambda _, high: high)
        try:
            outcome: Page | PollError = client.fetch_first_page()
        except PollError as error:
            outcome = error
        return outcome, [code for _, code in self._recorder.requests]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    endpoint = Endpoint()
    with FaultServer(endpoint.play, lasts_seconds=3600) as server:
        yield lambda answer: endpoint.asked(server.url, answer)


STATUS_LINES: Final = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK"),
        *(b"HTTP/1.1 200", b"HTTP/1.1 204 No", b"HTTP/1.1 301 Go", b"HTTP/1.1 401 No"),
        *(b"HTTP/1.1 404 No", b"HTTP/1.1 429 Wait", b"HTTP/1.1 503 No", b"HTTP/1.1 999 x"),
        *(b"HTTP/1.1 099 x", b"HTTP/1.1 -1 x", b"HTTP/1.1 \xd9\xa3", b"HTTP/2 200", b"ICY 200 OK"),
        *(b"SSH-2.0-OpenSSH_9.6", b"", b"HTTP/1.1", b"HTTP/1.1 100 Continue", b"\x15\x03\x01\x00"),
    ]
)
HEADERS: Final = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Content-Type"),
                *(b"Location", b"Retry-After", b"Set-Cookie", b"Connection", b"X", b"", b" X"),
            ]
        ),
        st.sampled_from([b": ", b": ", b": ", b":", b" ", b""]),
        st.sampled_from(
            [
                *(b"0", b"5", b"-1", b"9" * 30, b"chunked", b"gzip", b"br", b"gzip, gzip", b"x"),
                *(b"identity", b"deflate", b"close", b"text/html; charset=utf-7", b"\xff\xfe"),
                *(b"http://[::1", b"//evil.example/\x1b[31m", b"a=b; domain=evil", b"NaN", b"1e12"),
                *(b"\xd9\xa1\xd9\xa2", b"Wed, 31 Feb 2026 00:00:00 GMT", b"-5", b"3", b"\x00"),
            ]
        ),
    ).map(b"".join),
    max_size=4,
).map(lambda lines: b"\r\n".join([b"", *lines, b"", b""]))
BODIES: Final = st.sampled_from(
    [
        *(LIST, LIST, PACKED, PACKED[:-9], PACKED + PACKED, zlib.compress(LIST)),
        *(b"", b"[]", b"null", b"<html>", b"\x1f\x8b", b"\x1f\x8b" + b"\0" * 20),
        *(b"4c\r\n" + LIST + b"\r\n0\r\n\r\n", b"4c\r\n" + LIST[:9], b"-1\r\n" + LIST, b"zz\r\n"),
        *(LIST[:30], LIST.decode().encode("utf-16")),
    ]
)
INSERTIONS: Final = (
    *(b"\r\n", b"\n", b"\x00", b"\xff", b": ", b"HTTP/1.1 100 Continue\r\n\r\n"),
    b"Retry-After: 9",
)
ANSWERS: Final = st.one_of(
    st.tuples(STATUS_LINES, HEADERS, BODIES).map(b"".join),
    st.tuples(
        BODIES, st.sampled_from(["Content-Encoding: gzip", "Content-Encoding: identity", "X: y"])
    ).map(lambda pair: ok(pair[0], pair[1])),
    edited(
        st.sampled_from([ok(LIST), ok(PACKED, "Content-Encoding: gzip"), ok(LIST, status="429 x")]),
        INSERTIONS,
    ),
    st.binary(max_size=60),
)


def assert_understood(ask: Ask, answer: bytes) -> None:
    """A page that is the one that was sent, or one failure in words; tried three times at most."""
    outcome, codes = ask(answer)
    assert 1 <= len(codes) <= 3
    if isinstance(outcome, PollError):
        assert outcome.reason in REASONS
        assert not CONTROL.search(str(outcome))
        assert 0 < len(str(outcome)) < 500
        return
    assert codes[-1] == "200"
    assert len(outcome.numbers) <= 1


@given(answer=ANSWERS)
@pytest.mark.fault(8, 10, 54)
def test_any_answer_on_the_wire_is_a_page_or_an_error_of_ours(ask: Ask, answer: bytes) -> None:
    """Heads, lengths, encodings and chunks that are nearly right, and what is not HTTP at all."""
    assert_understood(ask, answer)


@pytest.mark.parametrize("answer", corpus("responses"))
def test_responses_that_once_broke_something(ask: Ask, answer: bytes) -> None:
    assert_understood(ask, answer)
