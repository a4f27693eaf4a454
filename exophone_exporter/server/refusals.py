"""Clients that were refused: counted by reason, and logged at most once a minute for each."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, get_args

from exophone_exporter.clock import Clock
from exophone_exporter.logs import fields

Reason = Literal[
    "tls_handshake",
    "client_certificate",
    "plain_http",
    "too_many_connections",
    "slow_request",
    "slow_response",
    "malformed_request",
    "request_too_large",
    "no_password",
    "wrong_password",
    "too_many_logins",
    "rate_limit",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_LOG_EVERY_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class RefusedClients:
    """Counts refused clients; to be used from one thread, except for `counts`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, int] = dict.fromkeys(REASONS, 0)
        self._unlogged = Counter[str]()
        self._logged_at = dict.fromkeys(REASONS, -math.inf)

    def note(self, reason: Reason, client: tuple[str, int] | None, detail: str = "") -> None:
        """Count a client; `detail` is for the log, and must not hold what the client sent."""
        self._counts[reason] += 1
        self._unlogged[reason] += 1
        now = self._clock.monotonic()
        if now - self._logged_at[reason] < _LOG_EVERY_SECONDS:
            return
        self._logged_at[reason] = now
        more = {"detail": detail} if detail else {}
        address = client[0] if client else "unknown"  # a Unix socket names no client
        count = self._unlogged.pop(reason)
        _log.info(
            "client refused", extra=fields(reason=reason, client=address, count=count, **more)
        )

    def counts(self) -> Mapping[str, int]:
        """How many clients were refused so far, for each reason."""
        return {**self._counts}
