"""The status page: health, age, counts and cost of each account, and its numbers with a problem.

This module finds what there is to show; the words are in the template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Any, Final
from urllib.parse import quote, urlencode

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import Account
from exophone_exporter.config.sharding import WHOLE, Shard
from exophone_exporter.exotel.model import CHANNELS, ExoPhone, is_askable_sid
from exophone_exporter.inventory import formatting
from exophone_exporter.inventory.expectations import Judged, Verdict
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import Group, Snapshot, rule_matches
from exophone_exporter.inventory.state import AccountStatus
from exophone_exporter.web import html

_ROWS_MAX: Final = 200


def render(  # noqa: PLR0913 - each is named, and most have a default
    statuses: Sequence[AccountStatus],
    now: ClockReading,
    telemetry_path: str,
    *,
    link: Callable[[str], str] = str,
    probe: bool = False,
    shard: Shard = WHOLE,
) -> str:
    """The page as HTML; every value is escaped.

    `link` turns a served path into what a browser must ask for. `probe` means that /probe is
    served. The page names the `shard` unless it is the only one.
    """
    found = [(status.account, status.fresh_snapshot(now)) for status in statuses]
    known = [snapshot for _, snapshot in found if snapshot]
    return html.page(
        "status.html",
        cards=[_card(at, status, now, probe=probe) for at, status in enumerate(statuses, start=1)],
        all_known=len(known) == len(statuses),
        any_known=bool(known),
        sums=_sums([group for snapshot in known for group in snapshot.groups]),
        unmatched_rules=[rule for rule, count in rule_matches(found).items() if count == 0],
        shard="" if shard.is_whole else str(shard),
        telemetry_path=telemetry_path,
        link=link,
        now=now,
        generated_at=datetime.fromtimestamp(now.wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        formatting=formatting,
    )


def _card(at: int, status: AccountStatus, now: ClockReading, *, probe: bool) -> dict[str, Any]:
    """One account; without a snapshot nothing is known of its numbers, and no sum means anything.

    A failed poll leaves the state at "failing" until the figures are "stale".
    """
    snapshot = status.fresh_snapshot(now)
    state = "ok" if snapshot and status.error is None else "failing"
    if status.last_attempt is None:
        state = "waiting"
    elif status.snapshot and snapshot is None:
        state = "stale"
    judged = _most_urgent(snapshot) if snapshot else []
    return {
        "id": f"account-{at}",
        "name": status.account.name,
        "status": status,
        "snapshot": snapshot,
        "state": state,
        "sums": _sums(snapshot.groups if snapshot else ()),
        "rows": [_row(*each, status.account, probe=probe) for each in judged],
    }


def _sums(groups: Sequence[Group]) -> dict[str, Any]:
    """What groups add up to; callers of the numbers that are `busy` hear a busy tone."""
    unpriced = sum(group.unpriced for group in groups)
    return {
        "numbers": sum(group.numbers for group in groups),
        "problems": sum(group.problems for group in groups),
        "busy": sum(group.unexpected["voice", "missing"] for group in groups),
        "unattached": {channel: sum(g.unattached[channel] for g in groups) for channel in CHANNELS},
        "idle": sum(group.idle for group in groups),
        "rental": formatting.total((group.rental for group in groups), unpriced),
        "idle_rental": formatting.total(group.idle_rental for group in groups),
    }


def _most_urgent(snapshot: Snapshot) -> Sequence[Judged]:
    """The numbers with a problem that get a row.

    Those whose callers hear a busy tone come first, then other problems with voice, each kind
    sorted by number. An account may have 100,000 numbers: only the shown ones are sorted.
    """

    def urgency(judged: Judged) -> tuple[bool, bool, str]:
        number, verdict = judged
        voice = verdict.problem("voice")
        return voice != "missing", voice is None, number.phone_number

    judged = zip(snapshot.numbers, snapshot.verdicts, strict=True)
    return nsmallest(_ROWS_MAX, (each for each in judged if each[1].has_problem), key=urgency)


def _row(number: ExoPhone, verdict: Verdict, account: Account, *, probe: bool) -> dict[str, Any]:
    """A number with a problem; without a `probe_query` it has no link to its probe."""
    names = masked_identity(number, account.per_number.phone_number, account.pseudonym_key)
    has_link = probe and names.sid == number.sid and is_askable_sid(number.sid)
    target = {"target": number.sid, "account": account.name}
    return {
        "number": number,
        "verdict": verdict,
        "names": names,
        "probe_query": urlencode(target, quote_via=quote, safe="") if has_link else "",
    }
