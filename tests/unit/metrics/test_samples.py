"""The series that accounts have, against the metric contract.

test_golden.py shows those of a whole world, and test_any_store.py those of any.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import pytest

from exophone_exporter.config.settings import PerNumber
from exophone_exporter.errors import ServerFailed
from exophone_exporter.exotel.balance import Balance
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.expectations import expected_label
from exophone_exporter.inventory.state import AccountState, BalanceResult
from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.exposition import Metric
from exophone_exporter.metrics.page import ExporterInfo, MetricsPage
from tests.lib.exposed import assert_exposed
from tests.lib.support import FakeTime, account, found, number_rules, phone

GROUP: Final = "account country region number_type"
# The contract, written out: a difference is a broken promise to users.
CONTRACT: Final = {
    "exophone_numbers": ("gauge", GROUP),
    "exophone_monthly_rental": ("gauge", f"{GROUP} currency"),
    "exophone_numbers_unpriced": ("gauge", GROUP),
    "exophone_numbers_unattached": ("gauge", f"{GROUP} flow"),
    "exophone_numbers_unexpected": ("gauge", f"{GROUP} flow problem"),
    "exophone_number_rule_matches": ("gauge", "rule"),
    "exophone_numbers_idle": ("gauge", GROUP),
    "exophone_idle_monthly_rental": ("gauge", f"{GROUP} currency"),
    "exophone_flow_numbers": ("gauge", "account flow flow_id"),
    "exophone_number_info": (
        "gauge",
        (
            "account sid phone_number friendly_name country region number_type vanity voice_flow_id"
            " sms_flow_id owner"
        ),
    ),
    "exophone_number_flow_attached": ("gauge", "account sid flow"),
    "exophone_number_flow_as_expected": ("gauge", "account sid flow expected"),
    "exophone_number_monthly_rental": ("gauge", "account sid currency"),
    "exophone_number_one_time_price": ("gauge", "account sid currency"),
    "exophone_number_incoming_rate": ("gauge", "account sid currency"),
    "exophone_number_incoming_pulse_seconds": ("gauge", "account sid"),
    "exophone_number_created_timestamp_seconds": ("gauge", "account sid"),
    "exophone_number_updated_timestamp_seconds": ("gauge", "account sid"),
    "exophone_number_series_dropped": ("gauge", "account"),
    "exophone_number_changes_total": ("counter", "account change"),
    "exophone_account_info": ("gauge", "account pricing_plan"),
    "exophone_account_balance": ("gauge", "account currency"),
    "exophone_account_balance_up": ("gauge", "account"),
    "exophone_account_balance_last_success_timestamp_seconds": ("gauge", "account"),
    "exophone_up": ("gauge", "account"),
    "exophone_poll_interval_seconds": ("gauge", "account"),
    "exophone_poll_stale_after_seconds": ("gauge", "account"),
    "exophone_poll_last_attempt_timestamp_seconds": ("gauge", "account"),
    "exophone_poll_last_success_timestamp_seconds": ("gauge", "account"),
    "exophone_poll_duration_seconds": ("gauge", "account"),
    "exophone_poll_pages": ("gauge", "account"),
    "exophone_polls_total": ("counter", "account"),
    "exophone_poll_failures_total": ("counter", "account reason"),
    "exophone_poll_failing": ("gauge", "account reason"),
    "exophone_poll_unconfirmed_numbers": ("gauge", "account"),
    "exophone_poll_rejected_records": ("gauge", "account reason"),
    "exophone_poll_unreadable_values": ("gauge", "account field"),
    "exophone_api_requests_total": ("counter", "account endpoint code"),
    "exophone_api_rate_limit_requests": ("gauge", "account endpoint"),
    "exophone_api_rate_limit_remaining_requests": ("gauge", "account endpoint"),
    "exophone_api_retries_total": ("counter", "account"),
    "exophone_api_wait_seconds_total": ("counter", "account"),
    "exophone_api_request_duration_seconds": ("histogram", "account endpoint"),
    "exophone_exporter_build_info": ("gauge", "version revision python_version"),
    "exophone_exporter_config_last_reload_successful": ("gauge", ""),
    "exophone_exporter_web_config_last_reload_successful": ("gauge", ""),
    "exophone_exporter_config_last_reload_success_timestamp_seconds": ("gauge", ""),
    "exophone_exporter_log_lines_dropped_total": ("counter", ""),
    "exophone_exporter_tls_certificate_expiry_timestamp_seconds": ("gauge", ""),
    "exophone_exporter_clients_refused_total": ("counter", "reason"),
    "exophone_probe_success": ("gauge", ""),
    "exophone_probe_duration_seconds": ("gauge", ""),
}
MUMBAI: Final = 'account="support",country="IN",number_type="Landline",region="MU"'


class World:
    """One account whose polls a test tells, and the page that shows it."""

    def __init__(
        self,
        time: FakeTime,
        per_number: PerNumber | None = None,
        name: str = "support",
        **changes: Any,
    ) -> None:
        self.time = time
        self.state = AccountState(replace(account(name, per_number=per_number), **changes))
        self.page = MetricsPage(
            lambda: [self.state.status()],
            lambda: ExporterInfo("r", 5.0),
            time.clock,
            with_process=False,
        )
        self.page.refresh()

    def found(self, *numbers: ExoPhone) -> World:
        self.state.record_poll(found(self.time.clock.now(), *numbers))
        self.page.refresh()
        return self

    @property
    def samples(self) -> dict[str, float]:
        text = self.page.body(openmetrics=False, gzipped=False).decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in lines}

    def family(self, name: str) -> dict[str, float]:
        return {
            series.removeprefix(name).strip("{}"): value
            for series, value in self.samples.items()
            if series == name or series.startswith(f"{name}{{")
        }


@pytest.fixture
def world(time: FakeTime) -> World:
    return World(time)


def test_table_is_the_contract() -> None:
    assert {m.name: (m.type, " ".join(m.labels)) for m in catalog.METRICS} == CONTRACT
    assert len(catalog.METRICS) == len(CONTRACT)


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in catalog.METRICS])
def test_help_is_a_plain_sentence(metric: Metric) -> None:
    """Quotes and backslashes would be escaped differently by the two formats."""
    assert not set(metric.help) & set('"\\\n')
    assert metric.help.endswith(".")
    assert metric.help == metric.help.strip()
    assert metric.help[0].isupper() or metric.help.startswith("ExoPhone")
    if metric.section in {"inventory", "number"}:
        assert "last complete poll" in metric.help


def test_sections_are_those_of_the_contract() -> None:
    """A rule on sections must not miss a metric that was filed wrongly."""
    assert [m.section for m in catalog.METRICS] == [
        *["inventory"] * 9,
        *["number"] * 10,
        "change",
        *["account"] * 4,
        *["polling"] * 19,
        *["exporter"] * 7,
        *["probe"] * 2,
    ]


def test_inventory_and_numbers_vanish_past_stale_after_while_health_stays(world: World) -> None:
    world.found(phone())
    sections = {metric.name: metric.section for metric in catalog.METRICS}
    of_poll = {name for name, section in sections.items() if section in {"inventory", "number"}}
    fresh = {series.partition("{")[0] for series in world.samples}
    assert of_poll - fresh == {"exophone_number_rule_matches"}  # no rules
    world.time.pass_(899)
    assert {series.partition("{")[0] for series in world.samples} == fresh
    world.time.pass_(0.5)
    assert {series.partition("{")[0] for series in world.samples} == fresh - of_poll


@pytest.mark.fault(250)
def test_a_balance_vanishes_after_three_intervals_and_its_history_stays(time: FakeTime) -> None:
    world = World(time, balance_interval_seconds=60.0)

    def shown() -> dict[str, float]:
        return {
            series.removeprefix("exophone_"): value
            for series, value in world.samples.items()
            if series.startswith("exophone_account_")
        }

    success = 'account_balance_last_success_timestamp_seconds{account="support"}'
    unknown = 'account_info{account="support",pricing_plan=""}'
    assert shown() == {unknown: 1, success: 0}
    known = BalanceResult(time.clock.now(), Balance(Decimal("-2.5"), "INR", "Pay As You Go"))
    world.state.record_balance(known)
    time.pass_(180)
    up = 'account_balance_up{account="support"}'
    history = {up: 1, success: time.wall - 180}
    assert (
        shown()
        == {
            'account_info{account="support",pricing_plan="Pay As You Go"}': 1,
            'account_balance{account="support",currency="INR"}': -2.5,
        }
        | history
    )
    world.state.record_balance(BalanceResult(time.clock.now(), error=ServerFailed("500")))
    time.pass_(1)
    assert shown() == {unknown: 1} | history | {up: 0}


@pytest.mark.parametrize(
    ("per_number", "sids", "dropped"),
    [
        pytest.param(PerNumber("all", 10, "full"), "a b c d e", 0, id="all"),
        pytest.param(PerNumber("all", 5, "full"), "a b c d e", 0, id="exactly-the-limit"),
        pytest.param(PerNumber("all", 3, "full"), "a c e", 2, id="unattached-first"),
        pytest.param(PerNumber("all", 1, "full"), "e", 4, id="problems-before-idle"),
        pytest.param(PerNumber("unattached", 10, "full"), "c e", 0, id="unattached"),
        pytest.param(PerNumber("unattached", 1, "full"), "e", 1, id="unattached-over-the-limit"),
        pytest.param(PerNumber("none", 1, "full"), "", 0, id="none"),
    ],
)
def test_numbers_that_have_series_of_their_own(
    time: FakeTime, per_number: PerNumber, sids: str, dropped: int
) -> None:
    """The aggregates count every number, whatever has series."""
    world = World(time, per_number).found(
        phone("e", sms_url=""),
        phone("d"),
        phone("c", voice_url="", sms_url="", voice_capable=False, sms_capable=False),
        phone("b", sms_capable=False, sms_url=""),
        phone("a"),
    )
    infos = world.family("exophone_number_info")
    assert [labels.partition('sid="')[2].partition('"')[0] for labels in infos] == sids.split()
    assert world.family("exophone_number_series_dropped") == {'account="support"': dropped}
    assert world.family("exophone_numbers") == {MUMBAI: 5}
    assert world.family("exophone_numbers_idle") == {MUMBAI: 1}
    others = {s.partition("{")[0] for s in world.samples if 'sid="a"' in s}
    assert len(others) == (9 if "a" in sids else 0)


@pytest.mark.fault(92)
@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        pytest.param("last4", "…1111", id="last4"),
        pytest.param("hidden", "", id="hidden"),
    ],
)
def test_privacy_covers_every_place_where_the_number_could_stand(
    time: FakeTime, setting: str, shown: str
) -> None:
    per_number = PerNumber("all", 10, setting)  # type: ignore[arg-type]  # a parameter is a str
    number = phone("02248901111", friendly_name="022-48901111")
    world = World(time, per_number).found(number)
    assert not any("48901111" in series for series in world.samples)
    (info,) = world.family("exophone_number_info")
    assert f'phone_number="{shown}"' in info
    assert f'friendly_name="{shown}"' in info


@pytest.mark.fault(255)
@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        pytest.param(("none",), "none", id="word"),
        pytest.param(("2", "1"), "2 or 1", id="flow-ids"),
        pytest.param(
            ("1", "https://my.exotel.in/acme/exoml/start_voice/7", "https://a/?key=secret", "//b"),
            "1 or 7 or external",
            id="urls",
        ),
    ],
)
def test_label_of_what_a_rule_expects_has_no_url(expected: tuple[str, ...], shown: str) -> None:
    """A URL of one's own may contain a secret; the flow that a number has is shown alike."""
    assert expected_label(expected) == shown


@pytest.mark.fault(239)
@pytest.mark.parametrize("setting", ["last4", "hidden"])
def test_rules_match_what_is_not_shown(time: FakeTime, setting: str) -> None:
    rules = number_rules({"phone_number": "+91224890*", "friendly_name": "022*", "owner": "south"})
    masked = account(per_number=PerNumber("all", 10, setting), rules=rules)  # type: ignore[arg-type]  # a parameter is a str
    state = AccountState(masked)
    state.record_poll(found(time.clock.now(), phone(friendly_name="022-48901111")))
    assert_exposed([state.status()], ExporterInfo("r", 0.0), time.clock)
    page = MetricsPage(lambda: [state.status()], lambda: ExporterInfo("r", 0.0), time.clock)
    text = page.body(openmetrics=False, gzipped=False).decode()
    assert 'owner="south"' in text
    assert "48901111" not in text


@pytest.mark.fault(84)
def test_one_phone_number_under_two_sids_is_two_series(world: World) -> None:
    assert len(world.found(phone("a"), phone("b")).family("exophone_number_info")) == 2


@pytest.mark.fault(85)
def test_one_sid_in_two_accounts_is_told_apart_by_the_account(time: FakeTime) -> None:
    states = [World(time, name=name).found(phone("same")).state for name in ("one", "two")]
    assert_exposed([state.status() for state in states], ExporterInfo("r", 0.0), time.clock)


@pytest.mark.parametrize(
    "openmetrics", [pytest.param(False, id="text"), pytest.param(True, id="openmetrics")]
)
def test_standard_process_series_are_there_and_no_created_ones(
    time: FakeTime, openmetrics: bool
) -> None:
    page = MetricsPage(lambda: (), lambda: ExporterInfo("r", 0.0), time.clock)
    text = page.body(openmetrics=openmetrics, gzipped=False).decode()
    names = {line.partition("{")[0].split()[0] for line in text.splitlines() if line[0] != "#"}
    assert {"process_open_fds", "python_info", "python_gc_collections_total"} <= names
    assert not [name for name in names if name.endswith("_created")]
