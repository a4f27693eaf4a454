"""docs/scaling.md: its examples are accepted, and its figures are those of the code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from exophone_exporter.config import loader
from exophone_exporter.exotel.rate_limiter import RateLimiter
from exophone_exporter.metrics.catalog import METRICS
from tests.lib.paths import ROOT
from tests.lib.processes import output_of
from tests.lib.support import FakeTime

MANUAL = (ROOT / "docs" / "scaling.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
PROMETHEUS = [block for block in BLOCKS if "scrape_configs:" in block]
RULES = yaml.safe_load((ROOT / "prometheus" / "exophone.rules.yml").read_text("utf-8"))
RECORDED = [rule["record"] for g in RULES["groups"] for rule in g["rules"] if "record" in rule]
PER_MINUTE = 50
_ROW = re.compile(r"^\| ([\d,]+) \| (\d+) \| (.+) \| (.+) \| (\d+)(s|m) \|$", re.MULTILINE)
TABLE = _ROW.findall(MANUAL.partition("<!-- budget -->")[2].partition("<!-- /budget -->")[0])


@pytest.mark.end_to_end
def test_prometheus_accepts_each_example(program: Callable[[str], str], tmp_path: Path) -> None:
    assert len(PROMETHEUS) == len(BLOCKS) - 1 == 3
    for block in PROMETHEUS:
        file = tmp_path / "prometheus.yml"
        file.write_text(block, "utf-8")
        output_of(program("promtool"), "check", "config", "--syntax-only", file)


def test_the_configuration_of_a_pair_spends_the_budget_once() -> None:
    (text,) = (block for block in BLOCKS if "accounts:" in block)
    loaded = loader.parse(text, "config.yaml", {}, lambda _path, _limit: b"secret\n")
    assert [2 * account.poll.requests_per_minute for account in loaded.accounts] == [PER_MINUTE]


def walk_seconds(requests: int) -> float:
    time = FakeTime()
    budget = RateLimiter(PER_MINUTE, lambda: time.monotonic)
    for _ in range(requests):
        slot = budget.reserve(math.inf)
        assert slot is not None
        time.pass_(budget.delay_seconds(slot))
    return time.monotonic - FakeTime().monotonic


@pytest.mark.parametrize(
    ("numbers", "requests", "takes", "share", "interval", "unit"),
    [pytest.param(*row, id=row[0]) for row in TABLE],
)
def test_the_table_of_the_budget_is_right(  # noqa: PLR0917 - the columns of a table
    numbers: str, requests: str, takes: str, share: str, interval: str, unit: str
) -> None:
    """Pages of 50, a budget of 50 a minute as the exporter keeps it, five minutes between polls."""
    pages = math.ceil(int(numbers.replace(",", "")) / 50)
    assert int(requests) == pages
    seconds = walk_seconds(pages)
    assert takes == f"{seconds:.0f} s"
    of_budget = pages / (5 * PER_MINUTE)
    assert share == (
        "more than there is"
        if of_budget > 1
        else f"{of_budget:.1%}".replace("%", " %").replace(".0 ", " ")
    )
    sensible_seconds = int(interval) * (60 if unit == "m" else 1)
    assert pages / sensible_seconds * 60 <= PER_MINUTE / 2


def test_what_is_not_sent_away_is_what_names_a_number() -> None:
    """The pattern of the example drops every series with a sid, and keeps every other."""
    (pattern,) = re.findall(r'regex: "(exophone_number_.*)"', MANUAL)
    names = {metric.name: "sid" in metric.labels for metric in METRICS}
    names |= {name: "_sid" in name for name in RECORDED}
    names |= {"ALERTS": True, "ALERTS_FOR_STATE": True, "up": False}
    dropped = {name for name in names if re.fullmatch(pattern, name)}
    assert dropped == {name for name, names_a_number in names.items() if names_a_number}


def test_what_is_federated_are_the_sums_of_accounts() -> None:
    """Not the recorded series of single numbers, nor those of replicas."""
    (pattern,) = re.findall(r'=~"(account[^"]*)"', MANUAL)
    taken = {name for name in RECORDED if re.fullmatch(pattern, name)}
    assert taken == {name for name in RECORDED if re.match(r"account(_flow|_currency)?:", name)}
    assert "account:exophone_numbers:sum" in taken
    assert not any("sid" in name or "instance" in name for name in taken)
