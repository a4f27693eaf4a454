"""The numbers of one account at one moment, and what they add up to. Pure.

A snapshot is immutable and made from one complete listing. The sums are computed once, as decimals.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, TypeVar

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.number_rules import DEFAULT_RULES, NumberRules
from exophone_exporter.config.settings import Account
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.exotel.model import CHANNELS, Channel, ExoPhone, flow_id
from exophone_exporter.inventory.expectations import PROBLEMS, Judged, Problem, Verdict, judge_all

# The most values of an aggregate label: a vendor that invents one per number must not give every
# number series of its own. There are 22 telecom circles.
LABEL_VALUES_MAX: Final = 100
GROUPS_MAX: Final = 200
FLOW_IDS_MAX: Final = 1000
# Amounts in the rarer currencies cannot be added to any others: their numbers count as unpriced.
CURRENCIES_MAX: Final = 10
OTHER: Final = "other"

_T = TypeVar("_T", str, tuple[str, str, str])


@dataclass(frozen=True, slots=True)
class Group:
    """What the numbers of one country, region and type add up to.

    `problems` counts the numbers of which a channel is in `unexpected`. `idle` numbers have no
    flow, and no rule expects that. `rental` and `idle_rental` are monthly, by currency; both have
    the same currencies. They lack the `unpriced` numbers, whose rental is not known.
    """

    country: str
    region: str
    number_type: str
    numbers: int
    unattached: Mapping[Channel, int]
    unexpected: Mapping[tuple[Channel, Problem], int]
    problems: int
    idle: int
    unpriced: int
    rental: Mapping[str, Decimal]
    idle_rental: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One account as of its last complete poll.

    `groups` and `flow_numbers` are in a stable order; `unreadable` counts values by field.
    `verdicts` are those of the `rules`, in the order of the numbers; `rule_matches` counts the
    numbers of each rule by its label.
    """

    listing: Listing
    rules: NumberRules
    verdicts: tuple[Verdict, ...]
    rule_matches: Mapping[str, int]
    groups: tuple[Group, ...]
    flow_numbers: Mapping[tuple[Channel, str], int]
    unreadable: Mapping[str, int]
    completed: ClockReading
    duration_seconds: float

    @property
    def started(self) -> ClockReading:
        """When the poll began: nothing in the snapshot is older."""
        return self.completed.before(self.duration_seconds)

    @property
    def numbers(self) -> tuple[ExoPhone, ...]:
        """Every number of the account, in the API's order."""
        return self.listing.numbers

    def judged_by(self, rules: NumberRules) -> Snapshot:
        """The same numbers by other rules; itself if the rules are equal."""
        if rules == self.rules:
            return self
        return build(self.listing, self.completed, self.duration_seconds, rules)

    def seen_again(
        self, listing: Listing, completed: ClockReading, duration_seconds: float
    ) -> Snapshot:
        """The snapshot of a later listing of equal numbers, without computing the sums again.

        It keeps the tuples of numbers and verdicts, so that readers detect "unchanged" by identity.
        """
        return replace(
            self,
            listing=replace(listing, numbers=self.numbers),
            completed=completed,
            duration_seconds=duration_seconds,
        )


def build(
    listing: Listing,
    completed: ClockReading,
    duration_seconds: float,
    rules: NumberRules = DEFAULT_RULES,
    previous: Snapshot | None = None,
) -> Snapshot:
    """The snapshot of a listing that was complete at `completed`.

    A number that has not changed since the `previous` one is not matched against the rules again.
    """
    known = previous if previous and previous.rules == rules else None
    judged = zip(known.numbers, known.verdicts, strict=True) if known else ()
    verdicts = judge_all(listing.numbers, rules, judged)
    matches = Counter(verdict.rule.label for verdict in verdicts if verdict.rule)
    return Snapshot(
        listing=listing,
        rules=rules,
        verdicts=verdicts,
        rule_matches={rule.label: matches[rule.label] for rule in rules.rules},
        groups=_groups(listing.numbers, verdicts),
        flow_numbers=_flow_numbers(listing.numbers),
        unreadable=Counter(field for number in listing.numbers for field in number.unreadable),
        completed=completed,
        duration_seconds=duration_seconds,
    )


def rule_matches(accounts: Iterable[tuple[Account, Snapshot | None]]) -> Mapping[str, int | None]:
    """How many numbers each rule applies to, by its label, in the order of the rules.

    None where an account that it may match has no snapshot: nobody knows whether it applies there.
    """
    totals: defaultdict[tuple[int, str], float] = defaultdict(int)
    for account, snapshot in accounts:
        for rule in account.rules.rules:
            matches = snapshot.rule_matches if snapshot else {}
            totals[rule.position, rule.label] += matches.get(rule.label, math.nan)
    return {
        label: None if math.isnan(total) else int(total)
        for (_, label), total in sorted(totals.items())
        if label
    }


def _groups(numbers: tuple[ExoPhone, ...], verdicts: tuple[Verdict, ...]) -> tuple[Group, ...]:
    countries = _bounded((n.country for n in numbers), LABEL_VALUES_MAX, OTHER)
    regions = _bounded((n.region for n in numbers), LABEL_VALUES_MAX, OTHER)
    types = _bounded((n.number_type for n in numbers), LABEL_VALUES_MAX, OTHER)
    keys = [(countries[n.country], regions[n.region], types[n.number_type]) for n in numbers]
    shown = _bounded(keys, GROUPS_MAX, (OTHER, OTHER, OTHER))
    summed = _bounded((n.currency for n in numbers if n.priced), CURRENCIES_MAX, "")
    members: defaultdict[tuple[str, str, str], list[Judged]] = defaultdict(list)
    for key, judged in zip(keys, zip(numbers, verdicts, strict=True), strict=True):
        members[shown[key]].append(judged)
    return tuple(_group(key, members[key], summed) for key in sorted(members))


def _group(key: tuple[str, str, str], judged: list[Judged], summed: Mapping[str, str]) -> Group:
    rental: defaultdict[str, Decimal] = defaultdict(Decimal)
    idle_rental: defaultdict[str, Decimal] = defaultdict(Decimal)
    unpriced, idle = 0, 0
    for number, verdict in judged:
        is_idle = number.idle and not verdict.expects_no_flow
        idle += is_idle
        if number.rental_price is None or not summed.get(number.currency):
            unpriced += 1
            continue
        rental[number.currency] += number.rental_price
        idle_rental[number.currency] += number.rental_price if is_idle else 0
    return Group(
        *key,
        numbers=len(judged),
        unattached={channel: sum(n.unattached(channel) for n, _ in judged) for channel in CHANNELS},
        unexpected=_unexpected([verdict for _, verdict in judged]),
        problems=sum(verdict.has_problem for _, verdict in judged),
        idle=idle,
        unpriced=unpriced,
        rental=dict(sorted(rental.items())),
        idle_rental=dict(sorted(idle_rental.items())),
    )


def _unexpected(verdicts: list[Verdict]) -> Mapping[tuple[Channel, Problem], int]:
    states = {c: Counter([getattr(verdict, c) for verdict in verdicts]) for c in CHANNELS}
    return {(c, problem): states[c][problem] for c in CHANNELS for problem in PROBLEMS}


def _flow_numbers(numbers: tuple[ExoPhone, ...]) -> Mapping[tuple[Channel, str], int]:
    counts: Counter[tuple[Channel, str]] = Counter()
    for channel in CHANNELS:
        ids: Counter[str] = Counter()
        for url, count in Counter([n.flow_url(channel) for n in numbers]).items():
            ids[flow_id(url or "")] += count  # many numbers share a flow: each URL is read once
        del ids[""]
        names = _bounded(ids.elements(), FLOW_IDS_MAX, OTHER)
        for flow, count in ids.items():
            counts[channel, names[flow]] += count
    return dict(sorted(counts.items()))


def _bounded(values: Iterable[_T], most: int, other: _T) -> Mapping[_T, _T]:
    """Each value to what is shown for it: itself if it is among the most frequent, else `other`."""
    counts = Counter(values)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return {value: value if rank < most else other for rank, value in enumerate(ranked)}
