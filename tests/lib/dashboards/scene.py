"""A small world written by hand, and what real exporters and a real Prometheus see happen in it."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

from exophone_exporter.simulator import Account, Fault, Simulator, World
from tests.lib.dashboards.grafana_queries import Range, api
from tests.lib.processes import Running, started, wait_until
from tests.lib.servers import Prometheus, free_address, prometheus

Json = dict[str, Any]
Number = dict[str, Any]
Programs: TypeAlias = "Callable[[str], str]"

JOB: Final = "exophone"
OTHER_JOB: Final = "phones (acme)+in.eu"  # nothing that a regular expression takes as it stands
NONE_JOB, UNATTACHED_JOB = "aggregates-only", "attention-only"
# The jobs of single exporters, and what each has for `per_number.series`.
CROWD: Final = {OTHER_JOB: "all", NONE_JOB: "none", UNATTACHED_JOB: "unattached"}
POLL_INTERVAL_SECONDS, STALE_AFTER_SECONDS, SCRAPE_SECONDS = 1, 20, 0.5
STALE_AFTER_SOON_SECONDS, HEALTHY_ACCOUNTS = 2, 3
# A scrape a minute and a poll every two: what a graph needs that takes steps of minutes.
STRETCH: Final = 120
# The stretched scene ends on a round moment, so that aligned steps end there too: 20:00 UTC on the
# last of January, which is the 1st of February in India.
STRETCHED_END: Final = 1769889600.0

_FLOW_URL: Final = "https://my.exotel.in/{account}/exoml/start_{flow}/{flow_id}"
_EXTERNAL: Final = "https://hooks.example.com/incoming"


def _number(account: str, row: tuple[str, ...], **more: Any) -> Number:
    """A number as documented; `row` is number, name, region, type, rental, voice and SMS flow."""
    phone, name, region, number_type, rental, voice, sms = row
    sid = phone.removeprefix("+")
    return {
        "sid": sid,
        "date_created": "2024-02-29 10:00:00",
        "date_updated": "2025-01-06 09:00:00",
        "account_sid": account,
        "friendly_name": name,
        "phone_number": phone,
        "capabilities": {"voice": True, "sms": True},
        "country": "IN",
        "region": region,
        "one_time_price": "0.000000",
        "rental_price": rental,
        "incoming_rate": "0.150000",
        "incoming_pulse": "60",
        "currency": "INR",
        "number_type": number_type,
        "vanity_number": False,
        "voice_url": _url(account, "voice", voice),
        "sms_url": _url(account, "sms", sms),
        "uri": f"/v2_beta/Accounts/{account}/IncomingPhoneNumbers/{sid}",
    } | more


def _url(account: str, flow: str, flow_id: str) -> str | None:
    if flow_id == "external":
        return _EXTERNAL
    return _FLOW_URL.format(account=account, flow=flow, flow_id=flow_id) if flow_id else None


_LANDLINES: Final = (
    ("+912248901111", "02248901111", "MU", "Landline", "499.000000", "", ""),
    ("+911141190002", "Sales Delhi", "DL", "Landline", "499.000000", "410232", "420118"),
    ("+918045670003", "Support Bengaluru", "KA", "Landline", "499.500000", "", "420118"),
    ("+914449870004", "Clinic Chennai", "TN", "Landline", "499.000000", "412660", ""),
    ("+919513880005", "Campaign", "MH", "Mobile", "1203726.390000", "external", "420119"),
    ("+912240110007", "Delivery Mumbai 1", "MU", "Landline", "499.000000", "410377", "420118"),
    ("+912240110008", "Delivery Mumbai 2", "MU", "Landline", "499.000000", "410377", "420118"),
    ("+913340110009", "Kolkata", "KO", "Landline", "499.000000", "", "420118"),
    ("+914040110010", "Old", "AP", "Landline", "499.000000", "410231", "420118"),
    ("+917940110012", "Ahmedabad", "GJ", "Landline", "on request", "410231", "420118"),
    ("+911414110013", 'Jaipur "Pink" {1}', "RJ", "Landline", "0.000000", "410231", "420118"),
)
_TOLL_FREE: Final = ("+911800123006", "Toll free", "DL", "TollFree", "25250.000000", "", "")
_SMS_ONLY: Final = ("+919513880014", "OTP", "WB", "Mobile", "999.000000", "", "1")


def _support() -> list[Number]:
    """An Indian account: with what happens to it, 12,34,467.89 rupees a month."""
    return [
        *(_number("support", row) for row in _LANDLINES),
        _number("support", _TOLL_FREE, capabilities={"voice": True, "sms": False}),
        _number("support", _SMS_ONLY, capabilities={"voice": False, "sms": True}),
    ]


def _apac() -> list[Number]:
    """A branch in Singapore that pays in three currencies; one number is hardly described."""
    local, foreign = ({"country": "SG", "currency": currency} for currency in ("SGD", "USD"))
    desk = ("+6531580016", "Desk", "SG", "Landline", "12.500000", "500001", "")
    spare = ("+6531580017", "Spare", "SG", "Landline", "25.000000", "", "")
    fax = ("+6531580018", "Fax", "SG", "Landline", "40.000000", "500001", "")
    in_mumbai = ("+912240990021", "Liaison", "MU", "Landline", "100.000000", "500001", "")
    bare = _number("apac", ("+6531580019", "", "", "", "7.250000", "500001", ""), **foreign)
    for key in ("phone_number", "region", "number_type"):
        del bare[key]
    return [
        _number("apac", desk, **local),
        _number("apac", spare, **local),
        _number("apac", fax, **foreign),
        _number("apac", in_mumbai),
        bare,
    ]


FIXED_WORLD: Final[Mapping[str, list[Number]]] = {
    "support": _support(),
    "apac": _apac(),
    "empty": [],
    "stale": [
        _number("stale", ("+914049870030", "Branch", "AP", "Landline", "750.000000", "1", "2"))
    ],  # it fails for good in the middle: its data grows old
    "refused": [],  # its credentials are wrong: never polled
}


@dataclass(frozen=True)
class Change:
    kind: str
    account: str
    sid: str
    values: Number = field(default_factory=dict)

    def apply(self, numbers: list[Number]) -> None:
        if self.kind == "added":
            numbers.append(dict(self.values))
            return
        (number,) = (one for one in numbers if one.get("sid") == self.sid)
        number.update(self.values)
        if self.kind == "removed":
            numbers.remove(number)


def _flow(account: str, sid: str, kind: str, flow_id: str = "") -> Change:
    flow = kind.partition("_")[0]
    return Change(kind, account, sid, {f"{flow}_url": _url(account, flow, flow_id)})


_NEW: Final = _number(
    "support", ("+918040110011", "New Bengaluru", "KA", "Landline", "499.000000", "", "")
)
NEW_SID: Final = _NEW["sid"]


@dataclass(frozen=True)
class Rule:
    """A rule for numbers with one of some names."""

    name: str = ""
    names: tuple[str, ...] = ()
    voice: str = "any"
    sms: str = "any"
    owner: str = ""


RULES: Final = (
    Rule("outbound", ("Toll free", "Clinic Chennai"), "none", "unchecked", "sales"),
    Rule("desks", ("Desk", "Fax"), "500001", "none", "apac"),
    Rule("deliveries", ("Delivery Mumbai 1", "Delivery Mumbai 2"), "410377", owner="logistics"),
    Rule("closed", ("Closed branch",)),
)
# Steps, one after the other; each is seen by every exporter before the next.
BEFORE_RESTART: Final = (
    (
        _flow("support", "912240110008", "voice_detached"),
        _flow("support", "912240110007", "voice_moved", "411045"),
        _flow("apac", "6531580017", "sms_attached", "500009"),
    ),
    (
        Change("added", "support", NEW_SID, _NEW),
        Change("removed", "support", "914040110010"),
        Change("rental_changed", "support", "918045670003", {"rental_price": "999.500000"}),
    ),
)
AFTER_RESTART: Final = (
    (
        _flow("support", "913340110009", "voice_attached", "411045"),
        _flow("support", "911141190002", "sms_moved", "420119"),
        Change("other", "support", "911414110013", {"friendly_name": 'Jaipur "Pink" {2}'}),
        _flow("apac", "6531580017", "sms_detached"),
        _flow("apac", "6531580016", "voice_detached"),
    ),
)
STEPS: Final = BEFORE_RESTART + AFTER_RESTART
SPENT_IN_A_STEP: Final = Decimal("1000.50")
STALE_FAULT: Final = Fault(status=500, account_sid="stale", times=None)
FAULTS: Final = (
    STALE_FAULT,
    Fault(status=500, account_sid="apac", times=None),
    Fault(status=429, account_sid="support", times=None, headers={"Retry-After": "2"}),
)


@dataclass(frozen=True)
class Scene:
    """What was seen: by one job of two replicas, and by several jobs of one exporter each.

    `steps` are the moments at which each step began, and at which every exporter had seen it. The
    exporters stopped after `end`.
    `stretched` holds what `pair` scraped, slowed down to the pace of a real exporter.
    """

    numbers: Mapping[str, list[Number]] = field(repr=False)
    pair: Prometheus
    crowd: Prometheus
    stretched: Prometheus
    restarted: str
    instances: tuple[str, ...]
    crowd_instances: Mapping[str, str]
    steps: tuple[list[float], list[float]]
    start: float
    end: float

    @property
    def live(self) -> Range:
        return Range(self.start, self.end, SCRAPE_SECONDS)

    @property
    def slow(self) -> Range:
        start = STRETCHED_END - (self.end - self.start) * STRETCH
        return Range(start, STRETCHED_END, SCRAPE_SECONDS * STRETCH)


class _Stage:
    def __init__(self, folder: Path, simulator: Simulator, running: contextlib.ExitStack) -> None:
        self.folder = folder
        self.simulator = simulator
        self.running = running
        self.exporters: dict[str, Running] = {}
        self.addresses: dict[str, str] = {}
        self.steps: tuple[list[float], list[float]] = ([], [])

    def start(self, name: str, series: str = "all") -> None:
        self.addresses.setdefault(name, free_address())
        file = self.folder / f"{name}.yml"
        file.write_text(_configuration(self.simulator, series), encoding="utf-8")
        address = self.addresses[name]
        words = ["--config.file", str(file), f"--web.listen-address={address}"]
        self.exporters[name] = self.running.enter_context(started(*words))

    def restart(self, name: str, servers: list[Prometheus]) -> None:
        self.exporters[name].end(seconds=10)
        self.start(name)
        for server in servers:
            server.wait_for('resets(exophone_polls_total{account="support"}[1m]) > 0', 1)
        self.polled_again(servers)

    def numbers(self) -> dict[str, list[Number]]:
        return {
            sid: copy.deepcopy(
                [number for number in account.numbers if "sid" in number and sid != "stale"]
            )
            for sid, account in self.simulator.world.accounts.items()
        }

    def play(self, steps: tuple[tuple[Change, ...], ...], servers: list[Prometheus]) -> None:
        began, ended = self.steps
        for step in steps:
            began.append(time.time())
            self.simulator.world.accounts["support"].balance.amount -= SPENT_IN_A_STEP
            for change in step:
                account = self.simulator.world.accounts[change.account]
                with account.lock:
                    change.apply(account.numbers)
            self.polled_again(servers)
            ended.append(time.time())

    def polled_again(self, servers: list[Prometheus]) -> None:
        """Wait until two more polls of every account have begun, ended, and been scraped."""
        now = time.time() + POLL_INTERVAL_SECONDS
        query = f"exophone_poll_last_attempt_timestamp_seconds > {now}"
        for server in servers:
            count = len(server.ask("up")) * len(FIXED_WORLD)
            server.wait_for(query, count)

    def fail(self, servers: list[Prometheus]) -> None:
        for fault in FAULTS:
            self.simulator.fail(fault)
        for server in servers:
            count = len(server.ask("up"))
            for reason in ("server", "rate_limited"):
                failed = f'{{reason="{reason}", account!="stale"}} > 0'
                server.wait_for(f"exophone_poll_failures_total{failed}", count)
        self.simulator.clear_faults()
        self.simulator.fail(STALE_FAULT)
        for server in servers:
            server.wait_for("exophone_up == 1", len(server.ask("up")) * HEALTHY_ACCOUNTS)
            server.wait_for('absent(exophone_numbers{account="stale"})', 1)


def _configuration(simulator: Simulator, series: str) -> str:
    pace = f"interval: {POLL_INTERVAL_SECONDS}s, stale_after: {STALE_AFTER_SECONDS}s"
    lines = [
        f"poll: {{{pace}, deadline: 1s, requests_per_minute: 10000}}",
        f"per_number: {{series: {series}}}",
        "accounts:",
    ]
    for account in simulator.world.accounts.values():
        token = "wrong" if account.sid == "refused" else account.api_token
        soon = f", poll: {{stale_after: {STALE_AFTER_SOON_SECONDS}s}}"
        lines.append(
            f"  - {{name: {account.sid}, sid: {account.sid}, base_url: {simulator.url},"
            f" api_key: {account.api_key}, api_token: {token}"
            f"{soon if account.sid == 'stale' else ''}}}"
        )
    lines += ["balance: {enabled: true, interval: 1s}", "numbers:", *map(_rule_line, RULES)]
    return "\n".join(lines) + "\n"


def _rule_line(rule: Rule) -> str:
    """Of accounts that have data: where an account has none, nobody knows what a rule matches."""
    match = f"{{account: [support, apac, empty], friendly_name: [{', '.join(rule.names)}]}}"
    owner = f", owner: {rule.owner}" if rule.owner else ""
    expected = f"voice: {rule.voice}, sms: {rule.sms}"
    return f"  - {{name: {rule.name}, match: {match}, {expected}{owner}}}"


# So that annotations of firing alerts have something to show; the rules themselves have tests of
# their own.
_ALERT: Final = """
groups:
  - name: scene
    rules:
      - alert: ExoPhoneVoiceFlowMissing
        expr: exophone_number_flow_attached{flow="voice"} == 0
        labels: {severity: warning}
        annotations: {summary: a number lacks its voice flow}
"""


@contextlib.contextmanager
def _prometheus(program: str, folder: Path, jobs: Mapping[str, list[str]]) -> Iterator[Prometheus]:
    folder.mkdir()
    (folder / "alert.yml").write_text(_ALERT, encoding="utf-8")
    lines = [
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}",
        f"rule_files: ['{folder / 'alert.yml'}']",
        "scrape_configs:",
        *(
            f"  - {{job_name: '{job}', static_configs: [{{targets: {targets}}}]}}"
            for job, targets in jobs.items()
        ),
    ]
    with prometheus(program, folder, "\n".join(lines) + "\n") as server:
        yield server


def fixed_world() -> World:
    """The world before anything has happened, free to be changed; one record of it has no sid."""
    world = World(
        *(
            Account(sid, f"{sid}-key", f"{sid}-token", copy.deepcopy(numbers))
            for sid, numbers in FIXED_WORLD.items()
        )
    )
    world.accounts["apac"].numbers.append({"phone_number": "+6531580020"})
    return world


_CLOCK_READINGS: Final = re.compile(
    r"exophone_poll_last_(attempt|success)_timestamp_seconds|process_start_time_seconds"
    r"|exophone_exporter_config_last_reload_success_timestamp_seconds"
)
_SPANS: Final = re.compile("exophone_poll_(interval|stale_after)_seconds")


def _stretched_value(name: str, value: str, end: float) -> str:
    """A sample as a stretched clock that stops at `end` would have made it; 0, for never, stays."""
    if _CLOCK_READINGS.fullmatch(name) and float(value):
        return f"{STRETCHED_END + (float(value) - end) * STRETCH:.3f}"
    return f"{float(value) * STRETCH:g}" if _SPANS.fullmatch(name) else value


def _stretched_lines(series: Json, end: float) -> Iterator[str]:
    """The samples of a series, a slot of time for each scrape, the last one at the very end.

    Slots, because a file cannot say when a series vanished: with a lookback that is shorter than
    a slot it is gone in the next one, as it is in a Prometheus that scrapes.
    """
    name = series["metric"].pop("__name__")
    labels = ",".join(f"{label}={json.dumps(text)}" for label, text in series["metric"].items())
    slots = {round((at - end) / SCRAPE_SECONDS): value for at, value in series["values"]}
    for slot, value in slots.items():
        at = STRETCHED_END + slot * SCRAPE_SECONDS * STRETCH
        yield f"{name}{{{labels}}} {_stretched_value(name, value, end)} {at:.0f}"


def _openmetrics(server: Prometheus, end: float) -> str:
    everything = api(server, "query", query='{__name__=~".+"}[1h]', time=f"{end:.3f}")
    sources: defaultdict[tuple[bool, str], list[Json]] = defaultdict(list)
    for series in everything["data"]["result"]:
        metric = series["metric"]
        # Scraped, and found by a rule: each at moments of its own.
        sources["alertname" in metric, metric["instance"]].append(series)
    lines = []
    for found in sources.values():
        last = max(series["values"][-1][0] for series in found)
        lines += [line for series in found for line in _stretched_lines(series, last)]
    return "\n".join([*lines, "# EOF\n"])


@contextlib.contextmanager
def _stretched(
    programs: Programs, folder: Path, server: Prometheus, end: float
) -> Iterator[Prometheus]:
    folder.mkdir()
    file = folder / "scene.om"
    file.write_text(_openmetrics(server, end), encoding="utf-8")
    into = str(folder / "data")
    fill = [programs("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(file), into]
    subprocess.run(fill, check=True, capture_output=True)
    flag = f"--query.lookback-delta={SCRAPE_SECONDS * STRETCH - 1:.0f}s"
    with prometheus(programs("prometheus"), folder, "scrape_configs: []\n", flag) as filled:
        wait_until(lambda: _answers(filled), "the stretched scene")
        yield filled


def _answers(server: Prometheus) -> bool:
    try:
        return bool(api(server, "query", query="exophone_up", time=STRETCHED_END)["data"]["result"])
    except (OSError, AssertionError):
        return False


@contextlib.contextmanager
def scene(programs: Programs, folder: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as running:
        simulator = running.enter_context(Simulator(fixed_world()))
        stage = _Stage(folder, simulator, running)
        for name in ("one", "two", "none", "unattached"):
            stage.start(name, name if name in CROWD.values() else "all")
        one, two, none, unattached = stage.addresses.values()
        jobs = {OTHER_JOB: [one], NONE_JOB: [none], UNATTACHED_JOB: [unattached]}
        binary = programs("prometheus")
        pair = running.enter_context(_prometheus(binary, folder / "pair", {JOB: [one, two]}))
        crowd = running.enter_context(_prometheus(binary, folder / "crowd", jobs))
        start, end = _played(stage, pair, crowd)
        filled = _stretched(programs, folder / "stretched", pair, end)
        yield Scene(
            numbers=stage.numbers(),
            pair=pair,
            crowd=crowd,
            stretched=running.enter_context(filled),
            restarted=one,
            instances=(one, two),
            crowd_instances={job: found[0] for job, found in jobs.items()},
            steps=stage.steps,
            start=start,
            end=end,
        )


def _played(stage: _Stage, pair: Prometheus, crowd: Prometheus) -> tuple[float, float]:
    servers = [pair, crowd]
    for server, exporters in ((pair, 2), (crowd, 3)):
        server.wait_for("exophone_up", exporters * len(FIXED_WORLD))
    stage.polled_again(servers)
    start = time.time()
    for _ in range(3):  # longer than the first step of a stretched graph
        stage.polled_again(servers)
    stage.play(BEFORE_RESTART, servers)
    stage.restart("one", servers)
    stage.fail(servers)
    stage.play(AFTER_RESTART, servers)
    end = time.time()
    for exporter in stage.exporters.values():
        exporter.end(seconds=10)
    return start, end
