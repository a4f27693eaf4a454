"""What is kept of the head of a response."""

from __future__ import annotations

import io

import pytest

from exophone_exporter.exotel.response_head import readable_head


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param(b"A: 1:2\r\nb:2\n", b"A: 1:2\r\nb: 2\r\n", id="good"),
        pytest.param(b"A \t: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n", id="blank-before-the-colon"),
        pytest.param(b"My Param: 1\r\nB: 2\r\n", b"B: 2\r\n", id="blank-in-the-name"),
        pytest.param(b"A\x0b: 1\r\nB: 2\r\n", b"B: 2\r\n", id="odd-blank-in-the-name"),
        pytest.param(b"A\r\n: 1\r\n\xfc: 1\r\nB: 2\r\n", b"B: 2\r\n", id="no-name"),
        pytest.param(b" x\r\nA: 1\r\n\t 2 \r\n 3\r\n", b"A: 1 2 3\r\n", id="folds"),
        pytest.param(b"A B: 1\r\n 2\r\nC: 3\r\n", b"C: 3\r\n", id="fold-of-a-malformed-line"),
        pytest.param(b"A: 1\r2\r\n", b"A: 1 2\r\n", id="bare-carriage-return"),
        pytest.param(b"A:\r\nB: 2\r\n", b"B: 2\r\n", id="without-a-value"),
        pytest.param(b"content-length: 7 ,7, 7\r\n", b"content-length: 7\r\n", id="one-length"),
        pytest.param(b"Content-Length: 7, 8\r\n", b"Content-Length: 7, 8\r\n", id="two-lengths"),
        pytest.param(b"Content-Length: 7, 77\r\n", b"Content-Length: 7, 77\r\n", id="longer"),
        pytest.param(
            b"Content-Encoding: X-GZip, Identity,\r\n", b"Content-Encoding: gzip\r\n", id="gzip"
        ),
        pytest.param(b"Content-Encoding: identity,\r\n", b"", id="identity"),
        pytest.param(
            b"Content-Encoding: gzip, br\r\n", b"Content-Encoding: gzip, br\r\n", id="two"
        ),
        pytest.param(b"", b"", id="nothing"),
    ],
)
@pytest.mark.fault(150)
def test_head_is_what_http_has_a_meaning_for(sent: bytes, kept: bytes) -> None:
    assert readable_head(io.BytesIO(sent)) == kept + b"\r\n"
