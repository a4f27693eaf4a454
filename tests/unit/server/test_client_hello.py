"""What a client offers is read from its hello, however it is cut; nonsense is left to OpenSSL."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.server.client_hello import HELLO_MAX_BYTES, HelloReader, Offer
from tests.lib.servers import hello_of
from tests.lib.strategies import edited

X25519, P256 = 0x1D, 0x17


TLS13 = hello_of(ssl.TLSVersion.TLSv1_3)
TLS12 = hello_of(ssl.TLSVersion.TLSv1_2)


def in_records(hello: bytes, size: int) -> bytes:
    """The same hello in records of this size."""
    message = hello[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2) + piece for piece in pieces)


def read(content: bytes, size: int = 1 << 20) -> list[Offer | None]:
    """What the reader says to each piece."""
    reader = HelloReader()
    return [reader.feed(content[at : at + size]) for at in range(0, len(content), size)]


@pytest.mark.fault(191)
@pytest.mark.parametrize("segment_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("record_bytes", [1, 100, 1 << 14])
def test_a_hello_is_read_however_it_is_cut(segment_bytes: int, record_bytes: int) -> None:
    *earlier, offer = read(in_records(TLS13, record_bytes), segment_bytes)
    assert set(earlier) <= {None}
    assert offer
    groups, key_shares = offer
    assert X25519 in key_shares
    assert {X25519, P256} <= set(groups)


def test_a_client_without_tls_1_3_sends_no_keys() -> None:
    (offer,) = read(TLS12)
    assert offer
    groups, key_shares = offer
    assert key_shares == ()
    assert {X25519, P256} <= set(groups)


@pytest.mark.fault(191)
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x80\x2e\x01\x00\x02", id="sslv2"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="ssh"),
        pytest.param(b"\x17" + TLS13[1:], id="another-record"),
        pytest.param(TLS13[:5] + b"\x02" + TLS13[6:], id="another-message"),
        pytest.param(TLS13[:3] + b"\xff\xff" + TLS13[5:], id="a-record-too-long"),
        pytest.param(TLS13[:6] + b"\xff" + TLS13[7:], id="a-message-too-long"),
        pytest.param(TLS13[:43] + b"\xff" + TLS13[44:], id="a-session-too-long"),
        pytest.param(in_records(TLS13[:5] + b"\x01\x00\x00\x01\x03", 99), id="too-short"),
        pytest.param(b"\x16\x03\x01\x00\x00" * (HELLO_MAX_BYTES // 5 + 1), id="empty-records"),
    ],
)
def test_nonsense_is_for_openssl(sent: bytes) -> None:
    assert read(sent)[-1] == ((), ())


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2"])
def test_plain_http_is_recognised_by_its_method(request_: bytes) -> None:
    reader = HelloReader()
    for byte in request_.partition(b" ")[0]:
        assert reader.feed(bytes([byte])) is None
        assert not reader.is_http
    reader.feed(b" ")
    assert reader.is_http


@given(edited(st.sampled_from([TLS13, TLS12]), [b"\x16", b"\x03", b"\xff\xff", b"\0\x33", b"GET "]))
@pytest.mark.fault(191)
def test_any_bytes_are_a_hello_or_not(sent: bytes) -> None:
    for found in read(sent, 64):
        assert found is None or len(found) == 2
