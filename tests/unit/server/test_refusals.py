"""Clients that were refused: every one is counted, one a minute is logged for each reason."""

from __future__ import annotations

import logging

import pytest

from exophone_exporter.server.refusals import REASONS, Reason, RefusedClients
from tests.lib.support import FakeTime

CLIENT = ("192.0.2.7", 40_000)


def test_every_reason_starts_at_zero() -> None:
    assert dict(RefusedClients(FakeTime().clock).counts()) == dict.fromkeys(REASONS, 0)


@pytest.mark.fault(190)
def test_each_reason_is_logged_once_a_minute_with_the_clients_since_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = FakeTime()
    refused = RefusedClients(time.clock)

    def logged(reason: Reason, detail: str = "") -> object:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            refused.note(reason, CLIENT, detail)
        return [vars(record)["fields"] for record in caplog.records]

    first = {"reason": "plain_http", "client": "192.0.2.7", "count": 1}
    assert logged("plain_http") == [first]
    assert logged("plain_http") == []
    assert logged("tls_handshake", "no shared cipher") == [
        first | {"reason": "tls_handshake", "detail": "no shared cipher"}
    ]
    time.pass_(59.0)
    assert logged("plain_http") == []
    time.pass_(1.0)
    assert logged("plain_http") == [first | {"count": 3}]
    assert refused.counts()["plain_http"] == 4


def test_a_client_of_a_unix_socket_has_no_address(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        RefusedClients(FakeTime().clock).note("slow_request", None)
    assert vars(caplog.records[0])["fields"]["client"] == "unknown"
