"""The whole exposition of a fixed world at a fixed time, byte for byte.

`EXOPHONE_UPDATE_GOLDEN=1` writes the files again; read the difference line by line before you keep
it. Two things differ between machines and are normalised: the labels `python_version` and `version`
of `exophone_exporter_build_info` become `X`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import pytest

from exophone_exporter.config.settings import Account, PerNumber
from exophone_exporter.errors import CredentialsRejected, Forbidden, ServerFailed
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import ExoPhone, parse_page
from exophone_exporter.inventory.changes import Change
from exophone_exporter.inventory.snapshot import Snapshot, build
from exophone_exporter.inventory.state import AccountState, AccountStatus, BalanceResult, PollResult
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage, ServerInfo
from tests.lib.exposed import assert_exposed
from tests.lib.paths import DATA
from tests.lib.support import INDIA, FakeTime, account, number_rules

BUILD: Final = ExporterInfo(
    revision="0123abc",
    config_loaded_at=1_700_000_000.0,
    server=ServerInfo(
        {"tls_handshake": 0, "plain_http": 3},
        web_config_successful=False,
        certificate_expires_at=1_800_000_000.0,
    ),
)
GOLDEN: Final = DATA / "golden"
FILES: Final = {False: GOLDEN / "metrics.txt", True: GOLDEN / "metrics.openmetrics.txt"}
FORMATS: Final = [pytest.param(False, id="text"), pytest.param(True, id="openmetrics")]
PER_NUMBER: Final = {
    "private": PerNumber("all", 10_000, "last4"),
    "limited": PerNumber("unattached", 1, "full"),
    "empty": PerNumber("none", 10_000, "full"),
}
BALANCE: Final = Balance(Decimal("48213.50"), "INR", 'Pay "As You Go"')
RULES: Final = number_rules(
    {
        "account": "support",
        "phone_number": "+9122*",
        "voice": "none",
        "owner": 'a "b"',
        "name": "out",
    },
    {"account": "apac", "sid": "*", "voice": "31 https://bot.example/a", "sms": "unchecked"},
    {"account": "private", "friendly_name": "never", "owner": "nobody"},
    {"account": "stale", "sid": "*"},
)
_BUILD_LABELS: Final = re.compile(rb'((?:python_)?version)="[^"]*"')


def normalised(exposition: bytes) -> bytes:
    lines = exposition.splitlines(keepends=True)
    return b"".join(
        _BUILD_LABELS.sub(rb'\1="X"', line)
        if line.startswith(b"exophone_exporter_build_info{")
        else line
        for line in lines
    )


def snapshot_of(pages: Iterable[Any], time: FakeTime) -> Snapshot:
    parsed = [parse_page(json.dumps(page).encode(), INDIA) for page in pages]
    numbers = tuple(number for page in parsed for number in page.numbers)
    rejected: Counter[str] = Counter()
    for page in parsed:
        rejected.update(page.rejected)
    return build(Listing(numbers, len(parsed), rejected), time.clock.now(), 1.25)


def own_account(name: str) -> Account:
    own = account(name, per_number=PER_NUMBER.get(name), rules=RULES.of_account(name))
    if name in ("support", "refused", "waiting"):
        own = replace(own, balance_interval_seconds=3600.0)
    labels = (("cost_center", "0113"), ("team", 'né "1"'))
    return replace(own, labels=labels if name == "support" else ())


def world(time: FakeTime) -> tuple[AccountStatus, ...]:
    """Every account of world.json, each with the history that its name tells."""
    pages = {
        name: of_account["pages"]
        for name, of_account in json.loads((GOLDEN / "world.json").read_text("utf-8")).items()
    }
    states = {name: AccountState(own_account(name)) for name in pages}

    def succeeds(name: str, *changes: Change) -> None:
        snapshot = snapshot_of(pages[name], time)
        states[name].record_poll(PollResult(time.clock.now(), 1.25, snapshot, changes))
        states[name].record_request("list", "200", 0.04)

    succeeds("stale")
    time.pass_(901)
    succeeds("support")
    states["support"].record_request("list", "200", 0.05)
    states["support"].record_request("list", "500", 31.0)
    states["support"].record_request("list", "none", 5.0)
    states["support"].record_request("detail", "404", 0.3)
    states["support"].record_request("balance", "200", 0.2)
    states["support"].record_rate_limits("balance", (50, 0))
    states["support"].record_rate_limits("list", (None, None))
    states["support"].record_balance(BalanceResult(time.clock.now(), BALANCE))
    states["refused"].record_balance(BalanceResult(time.clock.now(), error=Forbidden("no")))
    states["support"].record_retry()
    states["support"].record_wait(2.5)
    first: ExoPhone = states["support"].status().snapshot.numbers[0]  # type: ignore[union-attr]  # it succeeded
    time.pass_(60.5)
    succeeds("support", Change("added", first), Change("added", first), Change("sms_moved", first))
    for name in ("apac", "private", "limited", "empty"):
        succeeds(name)
    time.pass_(30)
    for name in ("private", "refused", "refused", "stale"):
        error = CredentialsRejected("no") if name == "refused" else ServerFailed("no")
        states[name].record_poll(PollResult(time.clock.now(), 0.5, error=error))
    return tuple(state.status() for state in states.values())


@pytest.fixture
def page(time: FakeTime) -> MetricsPage:
    statuses = world(time)
    made = MetricsPage(lambda: statuses, lambda: BUILD, time.clock, with_process=False)
    made.refresh()
    return made


@pytest.mark.parametrize("openmetrics", FORMATS)
@pytest.mark.fault(65, 129)
def test_exposition_of_the_fixed_world_is_the_golden_file(
    page: MetricsPage, openmetrics: bool
) -> None:
    found = normalised(page.body(openmetrics=openmetrics, gzipped=False))
    if os.environ.get("EXOPHONE_UPDATE_GOLDEN"):
        FILES[openmetrics].write_bytes(found)
    assert found == FILES[openmetrics].read_bytes()


@pytest.mark.fault(82)
def test_parsers_read_it_with_one_series_for_each_label_set(time: FakeTime) -> None:
    """Prometheus drops a second one silently; promtool and the parsers do not mind."""
    assert_exposed(world(time), BUILD, time.clock)


@pytest.mark.end_to_end
def test_promtool_has_nothing_to_say(page: MetricsPage, program: Callable[[str], str]) -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=page.body(openmetrics=False, gzipped=False),
        capture_output=True,
        check=False,
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == (b"", b"", 0)
