"""What every query of every dashboard should answer, computed from the numbers of a fixed world.

One table for each dashboard, by the panel's title and the letter of its query. Gauges follow from
the numbers; counters from the raw samples, added up in Python.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final, TypeAlias

import pytest

from tests.lib.dashboards.grafana_queries import Range, Target, api
from tests.lib.dashboards.scene import (
    FIXED_WORLD,
    JOB,
    NEW_SID,
    POLL_INTERVAL_SECONDS,
    RULES,
    SCRAPE_SECONDS,
    STALE_AFTER_SECONDS,
    STALE_AFTER_SOON_SECONDS,
    STEPS,
    STRETCH,
    Number,
    Rule,
    Scene,
)
from tests.lib.servers import Prometheus

FLOWS: Final = ("voice", "sms")
FRESH: Final = ("support", "apac", "empty")
KNOWN: Final = (*FRESH, "stale")

Labels: TypeAlias = frozenset[tuple[str, str]]
Series: TypeAlias = dict[Labels, Any]
Expected: TypeAlias = "Callable[[View], Series]"


@dataclass(frozen=True)
class Within:
    low: float
    high: float
    optional: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and self.low <= other <= self.high

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class View:
    """One way to look at a scene: which Prometheus, which range, what is chosen."""

    scene: Scene
    server: Prometheus
    span: Range
    instances: tuple[str, ...]
    job: str = JOB
    series: str = "all"
    pace: float = 1
    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def accounts(self) -> tuple[str, ...]:
        return self.chosen.get("account", tuple(FIXED_WORLD))

    @property
    def fresh(self) -> tuple[str, ...]:
        return tuple(name for name in FRESH if name in self.accounts)

    @property
    def numbers(self) -> list[Number]:
        return self._chosen(self.scene.numbers)

    @property
    def before(self) -> list[Number]:
        return self._chosen(FIXED_WORLD)

    def moment(self, at: float) -> float:
        return self.span.end - (self.scene.end - at) * self.pace

    def whatever(self, *keys: str) -> View:
        return replace(self, chosen={k: v for k, v in self.chosen.items() if k not in keys})

    def at_the_start(self) -> View:
        """The same view of the world before anything has happened."""
        return replace(self, scene=replace(self.scene, numbers=FIXED_WORLD))

    def raw(self, metric: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """The samples of a metric in the range, as they were scraped, of what is chosen."""
        query = f'{metric}{{job="{self.job}"}}[{self.span.seconds:.0f}s]'
        found = api(self.server, "query", query=query, time=f"{self.span.end:.3f}")
        return [
            (series["metric"], [(at, float(value)) for at, value in series["values"]])
            for series in found["data"]["result"]
            if series["metric"].get("account", self.accounts[0]) in self.accounts
            and series["metric"]["instance"] in self.instances
        ]

    def _chosen(self, world: Mapping[str, list[Number]]) -> list[Number]:
        return [
            number
            for account in self.accounts
            for number in world.get(account, ())
            if all(number.get(key, "") in self.chosen[key] for key in GROUP if key in self.chosen)
        ]


GROUP: Final = ("region", "number_type", "currency")


def rule_of(number: Number) -> Rule:
    """The first rule that matches; the words of `RULES` are spelled out, without globs."""
    matching = (rule for rule in RULES if number.get("friendly_name", "") in rule.names)
    return next(matching, Rule())


def problem(number: Number, flow: str) -> str | None:
    """What is wrong with a channel; "" where nothing is, None where it is not checked."""
    expected, has = getattr(rule_of(number), flow), number[f"{flow}_url"]
    if expected == "unchecked" or not number["capabilities"][flow]:
        return None
    if expected == "none":
        return "unwanted" if has else ""
    return "missing" if not has else "" if expected in ("any", flow_id(number, flow)) else "wrong"


def is_problem(number: Number, flow: str) -> bool:
    return bool(problem(number, flow))


def owner(number: Number) -> str:
    return rule_of(number).owner


def labels(**named: str) -> Labels:
    return frozenset((name, value) for name, value in named.items() if value)


def total(numbers: Iterable[Number], value: Callable[[Number], Any], *by: str) -> Series:
    sums: defaultdict[Labels, Decimal] = defaultdict(Decimal)
    for number in numbers:
        amount = value(number)
        if amount is not None:
            sums[labels(**{key: text(number, key) for key in by})] += amount
    return {key: float(amount) for key, amount in sums.items()}


def text(number: Number, key: str) -> str:
    if key == "owner":
        return owner(number)
    return str(number.get({"account": "account_sid"}.get(key, key), ""))


def rental(number: Number) -> Decimal | None:
    try:
        return Decimal(number["rental_price"])
    except InvalidOperation:
        return None


def unpriced_numbers(view: View) -> Series:
    """How many numbers have no rental, in whatever currency; nothing where all have one."""
    numbers = sum(rental(number) is None for number in view.whatever("currency").numbers)
    return {labels(): float(numbers)} if numbers else {}


def idle(number: Number) -> bool:
    """Without any flow, though a flow is expected on one of its channels."""
    expected = (getattr(rule_of(number), flow) for flow in FLOWS if number["capabilities"][flow])
    wanted = any(one not in ("none", "unchecked") for one in expected)
    return wanted and not number["voice_url"] and not number["sms_url"]


def idle_rental(number: Number) -> Decimal | None:
    """The rental if it is for nothing, else 0; None where it cannot be read."""
    amount = rental(number)
    return amount if amount is None or idle(number) else Decimal(0)


def missing(number: Number, flow: str) -> bool:
    return number["capabilities"][flow] and not number[f"{flow}_url"]


def idle_shares(view: View, *by: str) -> Series:
    of, idle_of = total(view.numbers, rental, *by), total(view.numbers, idle_rental, *by)
    return {key: idle_of[key] / amount for key, amount in of.items() if amount > 0}


def rental_columns(view: View, *by: str, circle: bool = False) -> Series:
    found: Series = {}
    for name, series in (
        ("Rental", total(view.numbers, rental, *by, "currency")),
        ("Idle", total(view.numbers, idle_rental, *by, "currency")),
        ("Share", idle_shares(view, *by, "currency")),
    ):
        for key, value in series.items():
            named = dict(key) | {"column": name}
            found[labels(**(of_group(named) if circle else named))] = value
    return found


def with_circle(named: dict[str, str]) -> dict[str, str]:
    return named | {"circle": f"{named.get('country', '')}-{named.get('region', '')}"}


def of_group(named: dict[str, str]) -> dict[str, str]:
    return {"number_type": "Unknown"} | with_circle(named)


def names(number: Number, *keys: str) -> dict[str, str]:
    return {key: text(number, key) for key in keys}


def dearest_idle(view: View) -> Series:
    if view.series == "none":
        return {}
    keys = ("account", "sid", "phone_number", "friendly_name", "country", "region", "number_type")
    return {
        labels(
            **with_circle(names(number, *keys)),
            job=view.job,
            column="Rental",
            currency=number["currency"],
        ): float(number["rental_price"])
        for number in view.numbers
        if idle(number)
    }


def by_owner(view: View, column: str, value: Callable[[Number], Any]) -> Series:
    """Of the numbers with a rental, in accounts whose numbers all have series."""
    partly = {one["account_sid"] for one in view.numbers if not has_series(one, view)}
    numbers = [
        one for one in view.numbers if one["account_sid"] not in partly if rental(one) is not None
    ]
    sums = total(numbers, value, "owner", "currency")
    return {
        labels(column=column, **{"owner": "No owner"} | dict(key)): amount
        for key, amount in sums.items()
    }


BALANCE_STEP_SECONDS: Final = 600


def balances(view: View, at: float, lookback: float = 0) -> Series:
    """The last balance that was scraped of each account, the highest of the replicas'."""
    # A balance that is not known any more ends with its last scrape.
    lookback = lookback or (SCRAPE_SECONDS * STRETCH - 1 if view.pace > 1 else 3 * SCRAPE_SECONDS)
    view = replace(view, span=Range(at - lookback, at))
    found: Series = {}
    for named, samples in view.raw("exophone_account_balance"):
        key = labels(account=named["account"], currency=named["currency"], job=view.job)
        if named["currency"] in view.chosen.get("currency", (named["currency"],)):
            found[key] = max(samples[-1][1], found.get(key, samples[-1][1]))
    return found


def balances_of_the_last_step(view: View) -> Series:
    """Those that ended within the step may be there, too."""
    ended = balances(view, view.span.end, lookback=300)
    some = {key: Within(value, value, optional=True) for key, value in ended.items()}
    return some | balances(view, view.span.end)


def after_the_next_charge(view: View) -> Series:
    charges = total(view.whatever("region", "number_type").numbers, rental, "account", "currency")
    found = balances(view, view.span.end)
    return {key: value - charges.get(key - {("job", view.job)}, 0) for key, value in found.items()}


def days_left(view: View) -> Series:
    """By the spend, or until the charge where it is not covered: whichever is first."""
    (until_charge,) = days_until_charge(view).values()
    now, by_spend = balances(view, view.span.end), days_left_by_spend(view)
    unpaid = {key for key, after in after_the_next_charge(view).items() if after < 0 < now[key]}
    return by_spend | {key: min(until_charge, by_spend.get(key, until_charge)) for key in unpaid}


def days_left_by_spend(view: View) -> Series:
    """At the average of all falls of the last week, ten minutes apart."""
    last = view.span.end - view.span.end % BALANCE_STEP_SECONDS
    moments = [last - i * BALANCE_STEP_SECONDS for i in range(30)]
    known = [balances(view, at) for at in reversed(moments)]
    falls: defaultdict[Labels, list[float]] = defaultdict(list)
    for before, after in pairwise(known):
        for key in before.keys() & after.keys():
            falls[key].append(max(0.0, before[key] - after[key]))
    days = {key: sum(found) / len(found) * 144 for key, found in falls.items()}
    now = balances(view, view.span.end)
    return {key: now[key] / days[key] for key in now if days.get(key)}


def soonest(view: View) -> Series:
    found = days_left(view)
    first = min(found, key=lambda key: found[key], default=None)
    return {first: found[first]} if first else {}


def in_column(name: str, expected: Expected) -> Expected:
    return lambda view: {key | {("column", name)}: value for key, value in expected(view).items()}


def has_series(number: Number, view: View) -> bool:
    needs_attention = any(missing(number, flow) or is_problem(number, flow) for flow in FLOWS)
    return view.series == "all" or (view.series == "unattached" and needs_attention)


def rental_change(view: View) -> Series:
    """Rental now less rental at the start, of the accounts that are known now."""
    now = total(view.numbers, rental, "currency")
    known = [number for number in view.before if number["account_sid"] in view.fresh]
    then = total(known, rental, "currency")
    return {key: value - then[key] for key, value in now.items()}


def days_until_charge(view: View) -> Series:
    """Days until the 1st in India, 0 on it."""
    today = datetime.fromtimestamp(view.span.end, UTC) + timedelta(hours=5, minutes=30)
    first = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return {labels(): 0.0 if today.day == 1 else float((first - today).days)}


def each_instance(value: Any, **more: str) -> Expected:
    return lambda view: {
        labels(job=view.job, instance=instance, **more): _of(value, view)
        for instance in view.instances
    }


def each_account(value: Any, accounts: tuple[str, ...] = KNOWN, **more: str) -> Expected:
    def expected(view: View) -> Series:
        return {
            labels(job=view.job, instance=instance, account=account, **more): _of(
                value[account] if isinstance(value, Mapping) else value, view
            )
            for instance in view.instances
            for account in view.accounts
            if account in accounts
        }

    return expected


def _of(value: Any, view: View) -> Any:
    return value(view) if callable(value) else value


def fresh(share: float = 1.0) -> Callable[[View], Within]:
    return lambda view: Within(0, 5 * POLL_INTERVAL_SECONDS * view.pace * share)


def old(view: View) -> Within:
    return Within(STALE_AFTER_SOON_SECONDS * view.pace, 60 * view.pace)


def paced(seconds: float) -> Callable[[View], float]:
    return lambda view: seconds * view.pace


def growth(samples: list[tuple[float, float]]) -> float:
    values = [value for _, value in samples]
    return sum(b - a if b >= a else b for a, b in pairwise(values))


def scraped_seconds(samples: list[tuple[float, float]]) -> float:
    """How long a series was scraped, without gaps."""
    steps = [b - a for (a, _), (b, _) in pairwise(samples)]
    usual = median(steps)
    return sum(step for step in steps if step <= 3 * usual)


@dataclass(frozen=True)
class Course:
    """A graph: its last points, its first ones, those of its last window, what all add up to.

    `of_next_step`: each point is of the step that begins there, so the last one is not of the past.
    """

    last: Expected | None = None
    of_next_step: bool = False
    first: Expected | None = None
    within_window: Expected | None = None
    adds_up_to: Expected | None = None


def course(value: Expected, *, of_next_step: bool = False) -> Course:
    """A graph of what the numbers say, from the start to the end."""
    return Course(value, of_next_step, first=lambda view: value(view.at_the_start()))


AVERAGED_SECONDS: Final = 20 * 60


def per_hour(metric: str, *by: str, without_zeros: bool = False) -> Course:
    """A graph of how much a counter grows in an hour, by some labels: an average over 20 minutes.

    Of a series that is younger, over its age, and at most over the time that it was scraped,
    without the gap of a restart. Prometheus extrapolates to the edges of its windows, so a quarter
    and one event are allowed for.
    """

    def expected(view: View) -> Series:
        low: defaultdict[Labels, float] = defaultdict(float)
        high: defaultdict[Labels, float] = defaultdict(float)
        rated = view.span.seconds - AVERAGED_SECONDS
        inner = view.span.start + 2 * rated
        # Of a series that ended after its first sample in the window, Prometheus has no rate.
        for named, samples in (one for one in view.raw(metric) if len(one[1]) > 1):
            key = labels(**{key: named[key] for key in by})
            hours = min(AVERAGED_SECONDS, view.span.end - samples[0][0]) / 3600
            # The query leaves out the first window of a young series, too.
            certain = max(inner, samples[0][0] + 2 * rated)
            surely = growth([one for one in samples if one[0] >= certain])
            most = growth(samples)
            low[key] += (0.75 * surely - 1) / hours
            scraped = min(hours, scraped_seconds(samples) / 3600)
            high[key] += (1.25 * most + 1) / scraped if most or not without_zeros else 0
        return {
            key: Within(low[key], most, optional=without_zeros and low[key] <= 0)
            for key, most in high.items()
            if most
        }

    return Course(within_window=expected)


def nothing(_: View) -> Series:
    return {}


RENTAL: Final[dict[tuple[str, str], Expected | Course]] = {
    ("Monthly rental", "A"): lambda view: total(view.numbers, rental, "currency"),
    ("Monthly rental", "B"): unpriced_numbers,
    ("Idle rental", "A"): lambda view: total(view.numbers, idle_rental, "currency"),
    ("Yearly waste", "A"): lambda view: {
        key: 12 * value for key, value in total(view.numbers, idle_rental, "currency").items()
    },
    ("Next charge", "A"): days_until_charge,
    ("Rental over time", "A"): course(
        lambda view: total(view.numbers, rental, "currency"), of_next_step=True
    ),
    ("Rental over time", "B"): course(
        lambda view: total(view.numbers, idle_rental, "currency"), of_next_step=True
    ),
    ("Idle share over time", "A"): course(
        lambda view: idle_shares(view, "currency"), of_next_step=True
    ),
    ("Change in the range", "A"): rental_change,
    ("Days left", "A"): soonest,
    ("Balance by account", "A"): in_column("Balance", lambda view: balances(view, view.span.end)),
    ("Balance by account", "B"): in_column("After the next charge", after_the_next_charge),
    ("Balance by account", "C"): in_column("Days left", days_left),
    ("Balance over time", "A"): Course(balances_of_the_last_step, of_next_step=True),
    ("Rental by account", "A"): lambda view: rental_columns(view, "account"),
    ("Rental by owner", "A"): lambda view: by_owner(view, "Numbers", lambda _: 1),
    ("Rental by owner", "B"): lambda view: by_owner(view, "Rental", rental),
    ("Rental by circle and type", "A"): lambda view: rental_columns(
        view, "country", "region", "number_type", circle=True
    ),
    ("Most expensive idle numbers", "A"): dearest_idle,
}

EVERY: Final = tuple(FIXED_WORLD)
AGE: Final = each_account(dict.fromkeys(FRESH, fresh()) | {"stale": old})
OF_STALE_AFTER: Final = each_account(
    dict.fromkeys(FRESH, Within(0, 0.25)) | {"stale": Within(1, 30)}
)
STALE_AFTER: Final = dict.fromkeys(EVERY, paced(STALE_AFTER_SECONDS)) | {
    "stale": paced(STALE_AFTER_SOON_SECONDS)
}
UP: Final = dict.fromkeys(FRESH, 1.0) | {"stale": 0.0, "refused": 0.0}


def failing(view: View) -> Series:
    return {labels(): float(len({"refused", "stale"} & set(view.accounts)))}


def oldest(view: View) -> Series:
    return {labels(): (old if "stale" in view.accounts else fresh())(view)}


def latency(quantile: Within) -> Expected:
    """Of the detail endpoint only where the last 20 minutes have a request of it."""
    found = {labels(endpoint=endpoint): quantile for endpoint in ("list", "balance")}
    found[labels(endpoint="detail")] = replace(quantile, optional=True)
    return lambda _: found


def build(view: View) -> Series:
    found = view.raw("exophone_exporter_build_info")
    return {series_key({"metric": named}): 1.0 for named, _ in found}


EXPORTER: Final[dict[tuple[str, str], Expected | Course]] = {
    ("Exporters", "A"): each_instance(1.0),
    ("Failing accounts", "A"): failing,
    ("Stale accounts", "A"): failing,
    ("Oldest data", "A"): oldest,
    ("Configuration", "A"): each_instance(1.0),
    ("Uptime", "A"): each_instance(lambda view: Within(1, 60 * view.pace)),
    ("Accounts", "A"): each_account(UP, EVERY),
    ("Accounts", "B"): AGE,
    ("Accounts", "C"): OF_STALE_AFTER,
    ("Accounts", "D"): each_account(paced(POLL_INTERVAL_SECONDS), EVERY),
    ("Accounts", "E"): each_account(STALE_AFTER, EVERY),
    ("Accounts", "F"): each_account(Within(0, 1)),
    ("Age of data", "A"): Course(AGE),
    ("Age against stale_after", "A"): Course(OF_STALE_AFTER),
    ("Polls", "A"): per_hour("exophone_polls_total", "account", "job", "instance"),
    ("Failed polls by reason", "A"): per_hour(
        "exophone_poll_failures_total",
        *("reason", "account", "job", "instance"),
        without_zeros=True,
    ),
    ("API answers by code", "A"): per_hour("exophone_api_requests_total", "code"),
    ("Poll duration", "A"): Course(each_account(Within(0, 1))),
    ("Duration against the interval", "A"): Course(each_account(Within(0, 1))),
    ("Pages", "A"): Course(each_account(1.0)),
    ("API latency", "A"): Course(latency(Within(0.0001, 0.5))),
    ("API latency", "B"): Course(latency(Within(0.045, 2))),
    ("Waiting for the budget", "A"): Course(each_account(Within(0, 1), EVERY)),
    ("Retries", "A"): per_hour(
        "exophone_api_retries_total", "account", "job", "instance", without_zeros=True
    ),
    ("Rejected records", "A"): Course(each_account(1.0, ("apac",), reason="no_sid")),
    ("Unreadable values", "A"): Course(each_account(1.0, ("support",), field="rental_price")),
    ("Numbers without series", "A"): Course(nothing),
    ("Samples in a scrape", "A"): Course(each_instance(Within(500, 1200))),
    ("New series in a scrape", "A"): Course(each_instance(Within(0, 100))),
    ("Scrape duration", "A"): Course(each_instance(Within(0, 0.5))),
    ("Memory", "A"): Course(each_instance(Within(20e6, 300e6))),
    ("CPU", "A"): Course(each_instance(Within(0, 1))),
    ("Open files", "A"): Course(each_instance(Within(0, 0.5))),
    ("Build", "A"): build,
    ("Build", "B"): each_instance(
        lambda view: Within(1000 * view.span.end - 6e4 * view.pace, 1000 * view.span.end)
    ),
}

INFO: Final = ("phone_number", "friendly_name", "country", "region", "number_type")
NO_BAR: Final = {labels(flow="none"): 8.0}


def with_problem(view: View) -> list[Number]:
    if view.series == "none":
        return []
    owners = view.chosen.get("owner")
    return [
        one
        for one in view.numbers
        if any(is_problem(one, flow) for flow in FLOWS)
        if owners is None or owner(one) in owners
    ]


def cells(column: str, value: Callable[[Number], Any]) -> Expected:
    def expected(view: View) -> Series:
        found = {
            labels(
                column=column.format_map(number), job=view.job, **names(number, "account", "sid")
            ): value(number)
            for number in with_problem(view)
        }
        return {key: cell for key, cell in found.items() if cell is not None}

    return expected


def state(number: Number, flow: str) -> float | None:
    """As the mapping of states has it."""
    if not number["capabilities"][flow]:
        return None
    found, has = problem(number, flow), bool(number[f"{flow}_url"])
    if found is None:
        return 4.0 + has
    if getattr(rule_of(number), flow) == "none":
        return 7.0 - has
    return 0.0 if found == "missing" else 1.0 if found else 3.0


def expected(view: View) -> Series:
    """What is expected of voice, or of SMS where voice has no problem: one row a number."""
    found: Series = {}
    for number in with_problem(view):
        flow = next(flow for flow in FLOWS if is_problem(number, flow))
        named = names(number, "account", "sid") | {"expected": getattr(rule_of(number), flow)}
        found[labels(column="Listed", job=view.job, **named)] = 1.0
    return found


def problem_since(view: View) -> Series:
    """When the number lost its flow or came without one; 0 where that was before the range."""
    lost = {
        change.sid: Within(
            view.moment(began - 2 * POLL_INTERVAL_SECONDS) * 1000, view.moment(ended) * 1000
        )
        for step, began, ended in zip(STEPS, *view.scene.steps, strict=True)
        for change in step
        if change.kind in ("voice_detached", "sms_detached", "voice_moved", "added")
    }
    return cells("Since", lambda number: lost.get(number["sid"], 0.0))(view)


def listed(view: View) -> Series:
    found: Series = {}
    for number in with_problem(view):
        flows = {f"{flow}_flow_id": flow_id(number, flow) for flow in FLOWS}
        named = with_circle(names(number, "account", "sid", "owner", *INFO)) | flows
        found[labels(column="Listed", job=view.job, vanity="false", **named)] = 1.0
    return found


def not_listed(view: View) -> Series:
    if view.series != "none":
        return {}
    found: Series = {}
    for account in view.fresh:
        own = [one for one in view.numbers if one["account_sid"] == account]
        most = max(sum(is_problem(one, flow) for one in own) for flow in FLOWS)
        if most:
            found[_in_place(view, account, f"{most} more, not listed")] = 1.0
    return found


def without_data(view: View) -> Series:
    moments = {"refused": 0.0, "stale": Within(view.span.start, view.span.end)}
    return {
        _in_place(view, account, "No fresh data"): moments[account]
        for account in moments
        if account in view.accounts
    }


def _in_place(view: View, account: str, name: str) -> Labels:
    return labels(
        column="Listed", job=view.job, account=account, sid="all others", friendly_name=name
    )


def flow_id(number: Number, flow: str) -> str:
    url = str(number[f"{flow}_url"] or "")
    return url.rpartition("/")[2] if "exotel" in url or not url else "external"


def timeline(view: View) -> Series:
    """The flows that changed; without any, a bar that says so."""
    changed = {
        (change.sid, flow)
        for step in STEPS
        for change in step
        for flow in FLOWS
        if change.kind in ("added", f"{flow}_attached", f"{flow}_detached")
    }
    flows = {
        labels(flow=flow, job=view.job, **names(number, "account", "sid", *INFO)): float(
            bool(number[f"{flow}_url"])
        )
        for number in view.numbers
        for flow in FLOWS
        if (number["sid"], flow) in changed and view.series != "none"
    }
    return flows or NO_BAR


def timeline_at_start(view: View) -> Series:
    came = {key: value for key, value in timeline(view).items() if ("sid", NEW_SID) in key}
    return timeline(view.at_the_start()) | came


def history(view: View) -> Series:
    """The states of the number; without one, a bar that says what to do."""
    states = {
        labels(account=one["account_sid"], sid=one["sid"], job=view.job, flow=flow): found
        for one in view.whatever(*GROUP).numbers
        for flow in FLOWS
        if one["sid"] in view.chosen.get("number", ())
        if (found := state(one, flow)) is not None
    }
    return states or NO_BAR


def changes(view: View) -> Series:
    kinds = Counter(
        change.kind for step in STEPS for change in step if change.account in view.accounts
    )
    return {labels(change=kind): float(count) for kind, count in kinds.items()}


def count(value: Callable[[Number], Any]) -> Expected:
    return lambda view: {labels(): float(sum(value(one) for one in view.numbers))}


def by_circle(column: str, value: Callable[[Number], Any]) -> Expected:
    def expected(view: View) -> Series:
        groups = total(view.numbers, value, "country", "region", "number_type")
        return {
            labels(column=column, **of_group(dict(key))): amount for key, amount in groups.items()
        }

    return expected


def per_flow(view: View) -> Series:
    found = Counter(
        labels(account=one["account_sid"], flow=flow, flow_id=flow_id(one, flow))
        for one in view.whatever(*GROUP).numbers
        for flow in FLOWS
        if one[f"{flow}_url"]
    )
    return {key: float(number) for key, number in found.items()}


def of_accounts(value: Any, *accounts: str) -> Expected:
    return lambda view: {
        labels(account=name, job=view.job): _of(value, view)
        for name in accounts
        if name in view.accounts
    }


VOICE_PROBLEM, SMS_PROBLEM = (partial(is_problem, flow=flow) for flow in FLOWS)


def by_kind(view: View) -> Series:
    found = Counter(problem(one, flow) for one in view.numbers for flow in FLOWS)
    kinds = ("missing", "wrong", "unwanted") if view.numbers else ()
    return {labels(problem=kind): float(found[kind]) for kind in kinds}


def without_a_flow(view: View) -> Series:
    return {
        labels(flow=flow): float(sum(missing(one, flow) for one in view.numbers))
        for flow in FLOWS
        if view.numbers
    }


def rules_without_numbers(view: View) -> Series:
    """Of all accounts: a rule has no account."""
    matched = {rule_of(one).name for numbers in view.scene.numbers.values() for one in numbers}
    unused = [rule.name for rule in RULES if rule.name not in matched]
    return {labels(job=view.job, rule=name): 0.0 for name in unused}


NUMBERS: Final[dict[tuple[str, str], Expected | Course]] = {
    ("Age of the data", "A"): of_accounts(fresh(), *FRESH),
    ("Age of the data", "B"): nothing,
    ("Age of the data", "C"): of_accounts(old, "stale"),
    ("Age of the data", "D"): of_accounts(0.0, "refused"),
    ("Numbers", "A"): count(lambda _: 1),
    ("Voice problems", "A"): count(VOICE_PROBLEM),
    ("SMS problems", "A"): count(SMS_PROBLEM),
    ("Problems by kind", "A"): by_kind,
    ("Idle", "A"): count(idle),
    ("Without a flow", "A"): without_a_flow,
    ("Rules that match nothing", "A"): rules_without_numbers,
    ("Numbers with a problem", "A"): cells("Voice", partial(state, flow="voice")),
    ("Numbers with a problem", "B"): cells("SMS", partial(state, flow="sms")),
    ("Numbers with a problem", "C"): expected,
    ("Numbers with a problem", "D"): problem_since,
    ("Numbers with a problem", "E"): listed,
    ("Numbers with a problem", "F"): not_listed,
    ("Numbers with a problem", "G"): without_data,
    ("Attachment of the numbers that changed", "A"): Course(timeline, first=timeline_at_start),
    ("History of one number", "A"): course(history),
    ("Problems over time", "A"): course(count(VOICE_PROBLEM)),
    ("Problems over time", "B"): course(count(SMS_PROBLEM)),
    ("Problems over time", "C"): course(count(idle)),
    ("Changes", "A"): Course(adds_up_to=changes),
    ("Problems by circle and type", "A"): by_circle("Numbers", lambda _: 1),
    ("Problems by circle and type", "B"): by_circle("Voice", VOICE_PROBLEM),
    ("Problems by circle and type", "C"): by_circle("SMS", SMS_PROBLEM),
    ("Problems by circle and type", "D"): by_circle("Idle", idle),
    ("Numbers per flow", "A"): per_flow,
}

EXPECTED: Final = {
    "exophone-numbers": NUMBERS,
    "exophone-rental": RENTAL,
    "exophone-exporter": EXPORTER,
}


def values(answer: Any, place: int) -> Series:
    return {
        series_key(series): float(series.get("values", [series.get("value")])[place][1])
        for series in answer["data"]["result"]
    }


def sums(answer: Any) -> Series:
    return {
        series_key(series): sum(float(value) for _, value in series["values"])
        for series in answer["data"]["result"]
    }


def series_key(series: Any) -> Labels:
    return labels(**{key: value for key, value in series["metric"].items() if key != "__name__"})


def at_the_end(answer: Any, target: Target, steps: int = 1) -> Series:
    since = target.span.end - steps * target.step_seconds
    every = answer["data"]["result"]
    current = [one for one in every if "value" in one or one["values"][-1][0] > since]
    return values({"data": {"result": current}}, -1)


def close(expected: Series) -> Series:
    """Figures compared as floats are; what is within a range stays so."""
    return {
        key: value if isinstance(value, Within) else pytest.approx(float(value), rel=1e-9, abs=1e-9)
        for key, value in expected.items()
    }


def findings(view: View, target: Target, expected: Expected | Course) -> list[str]:
    expected = expected if isinstance(expected, Course) else Course(expected)
    answer, found = target.ask(view.server), []
    if expected.last:
        actual = at_the_end(answer, target, 2 if expected.of_next_step else 1)
        found += differences(target, "at the end", actual, expected.last(view))
    if expected.first:
        found += differences(target, "at first", values(answer, 0), expected.first(view))
    if expected.within_window:
        wanted = expected.within_window(replace(view, span=target.last_window(AVERAGED_SECONDS)))
        found += differences(target, "in the window", at_the_end(answer, target), wanted)
    if expected.adds_up_to:
        found += differences(target, "in all", sums(answer), expected.adds_up_to(view))
    return found


def differences(target: Target, when: str, actual: Series, expected: Series) -> list[str]:
    expected = close(expected)
    return [
        f"{target.key} {when} {dict(sorted(key))}:"
        f" {actual.get(key, 'nothing')}, expected {expected.get(key, 'nothing')}"
        for key in sorted(actual.keys() | expected.keys(), key=sorted)
        if key not in actual or key not in expected or actual[key] != expected[key]
        if key in actual or not getattr(expected[key], "optional", False)
    ]
