"""What tests share: numbers, accounts and a clock that obeys."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.config.files import ReadFile
from exophone_exporter.config.number_rules import (
    DEFAULT_RULES,
    MATCH_KEYS,
    NumberRule,
    NumberRules,
)
from exophone_exporter.config.secrets import Credentials, Secret, SecretSource
from exophone_exporter.config.settings import Account, PerNumber, Poll
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.inventory.snapshot import Snapshot, build
from exophone_exporter.inventory.state import AccountState, AccountStatus, PollResult
from exophone_exporter.metrics.page import MetricsPage
from tests.lib.paths import DATA

SAMPLES = DATA / "samples"
INDIA = ZoneInfo("Asia/Kolkata")
_DEADLINE_SECONDS = 60.0
_START = ClockReading(wall=0.0, monotonic=0.0)

_PHONE = ExoPhone(
    sid="sid-1",
    account_sid="acme",
    phone_number="+912248901111",
    friendly_name="Support Mumbai",
    country="IN",
    region="MU",
    number_type="Landline",
    currency="INR",
    vanity_number=False,
    voice_capable=True,
    sms_capable=True,
    voice_url="http://my.exotel.in/acme/exoml/start_voice/11",
    sms_url="http://my.exotel.in/acme/exoml/start_sms/22",
    rental_price=Decimal("499.000000"),
    one_time_price=Decimal("0.000000"),
    incoming_rate=Decimal("0.000000"),
    incoming_pulse_seconds=Decimal(60),
    created_timestamp_seconds=1457092910,  # 2016-03-04 12:01:50 UTC
    updated_timestamp_seconds=1506100620,  # 2017-09-22 17:17:00 UTC
    uri="/v2_beta/Accounts/acme/IncomingPhoneNumbers/sid-1",
    unreadable=(),
)


def phone(sid: str = "sid-1", **changes: Any) -> ExoPhone:
    """A number with both flows attached, except for the changes."""
    return msgspec.structs.replace(_PHONE, sid=sid, **changes)


def snapshot(
    *numbers: ExoPhone,
    completed: ClockReading = _START,
    rules: NumberRules = DEFAULT_RULES,
    previous: Snapshot | None = None,
) -> Snapshot:
    """These numbers as one page of the list had them."""
    return build(Listing(numbers, pages=1, rejected={}), completed, 1.0, rules, previous)


def number_rules(*rules: Mapping[str, str]) -> NumberRules:
    """Rules by the keys of what they match and those of the rule; flows are words of one text."""
    return NumberRules(
        tuple(
            NumberRule(
                position,
                rule.get("name", str(position)),
                {key: (rule[key],) for key in MATCH_KEYS if key in rule},
                tuple(rule.get("voice", "any").split()),
                tuple(rule.get("sms", "any").split()),
                rule.get("owner", ""),
            )
            for position, rule in enumerate(rules, 1)
        )
    )


def found(now: ClockReading, *numbers: ExoPhone) -> PollResult:
    """A poll of a second that ends now, complete with these numbers."""
    return PollResult(now, 1.0, snapshot(*numbers, completed=now))


def number_as_sent(
    sid: str, voice: str | None, sms: str | None = None, account_sid: str = "acme"
) -> dict[str, Any]:
    """A number as the API sends it, with these flows, and without dates."""
    start = f"http://my.exotel.in/{account_sid}/exoml/start"
    return {
        "sid": sid,
        "account_sid": account_sid,
        "phone_number": f"+9122489011{int(sid, 36)}",
        "friendly_name": f"Desk {sid}",
        "country": "IN",
        "region": "MU",
        "number_type": "Landline",
        "currency": "INR",
        "capabilities": {"voice": True, "sms": True},
        "voice_url": voice and f"{start}_voice/{voice}",
        "sms_url": sms and f"{start}_sms/{sms}",
        "rental_price": "499.000000",
    }


def account(
    name: str = "support",
    *,
    sid: str = "acme",
    origin: str = "https://api.exotel.com",
    api_key: str = "acme-key",
    api_token: str = "acme-token",
    ca_file: str | None = None,
    proxy_url: str | None = None,
    per_number: PerNumber | None = None,
    rules: NumberRules = DEFAULT_RULES,
    **poll: Any,
) -> Account:
    """An account of the simulator; keyword arguments left over change how it is polled."""
    settings: dict[str, Any] = {
        "interval_seconds": 300.0,
        "timeout_seconds": 2.0,
        "deadline_seconds": 30.0,
        "page_size": 50,
        "requests_per_minute": 100_000,
        "stale_after_seconds": 900.0,
        "timezone": INDIA,
    }
    return Account(
        name=name,
        sid=sid,
        origin=origin,
        credentials=Credentials(SecretSource(Secret(api_key)), SecretSource(Secret(api_token))),
        poll=Poll(**(settings | poll)),
        per_number=per_number or PerNumber("all", 10_000, "full"),
        ca_file=ca_file,
        proxy_url=proxy_url,
        rules=rules,
    )


def files_of(contents: Mapping[str, bytes | Exception]) -> ReadFile:
    """Reads files that are not on the disk; an error is raised in place of its file."""

    def read(path: str, _limit_bytes: int) -> bytes:
        if "\0" in path:
            raise ValueError("embedded null byte")
        content = contents.get(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        if isinstance(content, Exception):
            raise content
        return content

    return read


@dataclass
class FakeTime:
    """Two clocks that only the test moves; `sleep` moves them and notes how far."""

    wall: float = 1_700_000_000.0
    monotonic: float = 1000.0
    suspended: float = 0.0
    slept: list[float] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return Clock(
            lambda: self.wall, lambda: self.monotonic, awake=lambda: self.monotonic - self.suspended
        )

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep, and with it every wait."""
        self.suspended += seconds
        self.pass_(seconds)

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
        self.pass_(seconds)


@dataclass
class CountingRecorder:
    """Notes what the client counts: requests as (endpoint, code), their seconds, retries, waits."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    retries: int = 0
    waits: list[float] = field(default_factory=list)
    limits: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)

    def record_request(self, endpoint: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((endpoint, code))
        self.seconds.append(seconds)

    def record_rate_limits(self, endpoint: str, limits: tuple[int | None, int | None]) -> None:
        self.limits[endpoint] = limits

    def record_retry(self) -> None:
        self.retries += 1

    def record_wait(self, seconds: float) -> None:
        self.waits.append(seconds)


def client_for(own: Account, time: FakeTime | None = None, **changes: Any) -> Client:
    """A client of an account; it waits in the time that is given, and not at all without one."""
    clock = time.clock if time else Clock()
    settings: dict[str, Any] = {
        "budget": RateLimiter(own.poll.requests_per_minute, clock.monotonic),
        "recorder": CountingRecorder(),
        "clock": clock,
        "sleep": time.sleep if time else lambda _: None,
    }
    return Client(account=own, **(settings | changes))


@contextlib.contextmanager
def held_rendering(page: MetricsPage, state: AccountState, found: Snapshot) -> Iterator[None]:
    """Another thread publishes this snapshot, and is held while it renders it in the block.

    The state is the only one of the page.
    """
    held, go_on = threading.Event(), threading.Event()
    result = PollResult(found.completed, 1.0, found)

    def statuses() -> list[AccountStatus]:
        held.set()
        assert go_on.wait(_DEADLINE_SECONDS)
        return [state.status().after(result)]

    publish = partial(page.refresh, statuses, lambda _: state.record_poll(result))
    renderer = threading.Thread(target=publish)
    renderer.start()
    try:
        assert held.wait(_DEADLINE_SECONDS)
        yield
    finally:
        go_on.set()
        renderer.join(_DEADLINE_SECONDS)
    assert not renderer.is_alive()


class TimedEvent(threading.Event):
    """A wait for it takes no time but the clock's; `on_wait` gets the number of waits before."""

    def __init__(self, time: FakeTime, on_wait: Callable[[int], object] = lambda _: None) -> None:
        super().__init__()
        self._time = time
        self._on_wait = on_wait
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._on_wait(len(self.waited))
        self.waited.append(timeout)
        self._time.pass_(timeout)
        return self.is_set()


def log_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return lines


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def browse(chromium: str, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
