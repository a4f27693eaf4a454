"""What the benchmarks make of what they measure. How long anything takes is not looked at here."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import against
import pytest
import representation
import requests
import results
import tables

from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BENCHMARKS = ROOT / "benchmarks"
RESULT = results.Result(1, "scrape", 0.00034, "ms", "n", 0.00046, 1.3529, met=True)


def of_runs(*values: float, missed: int = 0) -> results.Row:
    """A row of runs with these values, the first of which missed the goal."""
    runs = [replace(RESULT, value=value) for value in values]
    return results.Row(tuple(replace(run, met=at >= missed) for at, run in enumerate(runs)))


class TestResults:
    @pytest.mark.parametrize(
        ("missed", "verdict"),
        [(0, "met"), (1, "missed in 1 of 3"), (2, "missed in 2 of 3"), (3, "missed")],
    )
    def test_met_is_what_every_run_met(self, missed: int, verdict: str) -> None:
        """One run that misses is reported, whichever run is the median."""
        assert of_runs(0.001, 0.002, 0.003, missed=missed).verdict == verdict

    def test_what_has_no_goal_has_no_verdict(self) -> None:
        """A figure for comparison is neither met nor missed."""
        assert results.Row((replace(RESULT, met=None),) * 3).verdict == ""

    @pytest.mark.parametrize(
        ("values", "median"),
        [((0.3,), 0.3), ((0.3, 0.1), 0.1), ((0.3, 0.1, 0.2), 0.2)],
        ids=["one", "two", "three"],
    )
    def test_the_run_in_the_middle_is_shown(self, values: tuple[float, ...], median: float) -> None:
        """Not the mean: figure, anchor and ratio are of one run."""
        assert of_runs(*values).median.value == median

    def test_the_table_has_the_median_run_and_all_runs(self) -> None:
        """From the least to the greatest, whatever their order was."""
        runs = [
            [replace(RESULT, value=0.00036, anchor_value=0.0005, ratio=1.3889)],
            [RESULT],
            [replace(RESULT, value=0.00033, met=False)],
        ]
        assert results.table(results.rows(runs)).markdown() == [
            "| goal | what | figure | all runs | reference | ratio |  |",
            "|--:|---|--:|--:|---|--:|---|",
            "| 1 | scrape | 0.34 ms | 0.33 · 0.34 · 0.36 | n: 0.46 ms | 1.353 | missed in 1 of 3 |",
        ]

    def test_the_table_of_a_terminal_leaves_out_what_the_runs_have_said(self) -> None:
        """It has columns, and fits."""
        table = results.table([of_runs(0.00034, 0.00035)])
        assert table.without("reference").aligned() == [
            "goal  what     figure     all runs  ratio",
            "   1  scrape  0.34 ms  0.34 · 0.35  1.353  met",
        ]

    def test_runs_that_measured_different_things_are_no_table(self) -> None:
        """Figures of different goals are never in one row."""
        with pytest.raises(ValueError, match="shorter"):
            results.rows([[RESULT, RESULT], [RESULT]])

    def test_a_result_is_a_line(self) -> None:
        """What is printed as it comes fits a terminal."""
        assert RESULT.line().split("  ")[0] == "1 scrape"
        assert RESULT.line().endswith("0.34 ms  n: 0.46 ms                   1.353  met")
        assert len(replace(RESULT, what="w" * 50, anchor="everything changed").line()) <= 120


class TestTables:
    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [
            (0.00034, "ms", "0.34 ms"),
            (0.0365, "ms", "36.5 ms"),
            (3.7224, "ms", "3,722 ms"),
            (61.02, "s", "61.0 s"),
            (0.0000013, "µs", "1.30 µs"),
            (2177, "B", "2,177 B"),
            (0.76e6, "MB", "0.76 MB"),
            (-0.2e6, "MB", "-0.20 MB"),
        ],
    )
    def test_an_amount_has_the_digits_that_mean_something(
        self, value: float, unit: str, text: str
    ) -> None:
        """Seconds and bytes, in the unit asked for."""
        assert tables.amount(value, unit) == text

    @pytest.mark.parametrize(
        ("ratio", "text"), [(1.0444, "1.044"), (0.052, "0.052"), (9.83, "9.8"), (2003.4, "2,003")]
    )
    def test_a_ratio_is_exact_where_the_goals_are(self, ratio: float, text: str) -> None:
        """1.044 and 1.054 are on both sides of a goal."""
        assert tables.ratio_text(ratio) == text

    def test_only_what_stands_between_the_marks_is_written(self, tmp_path: Path) -> None:
        """What people wrote stays, and so do the other tables."""
        page = tmp_path / "page.md"
        page.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n<!-- y:begin -->\n")
        tables.write("x", tables.Table(["new"], [["cell"]], "r"), page)
        new = "a\n<!-- x:begin -->\n| new |\n|--:|\n| cell |\n<!-- x:end -->\nb\n<!-- y:begin -->\n"
        assert page.read_text() == new

    @pytest.mark.parametrize("text", ["none", "<!-- x:begin -->\nno end\n"])
    def test_a_page_without_the_marks_stays_as_it_is(self, tmp_path: Path, text: str) -> None:
        """It is an error, and nothing is lost."""
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(ValueError, match=r"page\.md has no marks x"):
            tables.write("x", tables.Table(["new"], [], "r"), page)
        assert page.read_text() == text


class TestAgainst:
    def test_a_revision_that_does_not_exist_is_one_line(self) -> None:
        """Whoever mistypes a tag reads that, and nothing is installed."""
        done = subprocess.run(
            [sys.executable, BENCHMARKS / "against.py", "v0.0.0-none"],
            capture_output=True,
            text=True,
            check=False,
        )
        said = "against.py: v0.0.0-none is not a revision of this repository\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)

    def test_the_least_of_all_rounds_is_compared(self) -> None:
        """What else the machine did in one round is left out."""
        then, now = (
            [[against.Cost("scrape", s, "ms"), against.Cost("memory", b, "MB")] for s, b in rounds]
            for rounds in (((0.002, 89e6), (0.5, 90e6)), ((0.7, 89e6), (0.001, 178e6)))
        )
        assert against.table("v1", then, now) == tables.Table(
            ("what", "v1", "now", "ratio"),
            [
                ("scrape", "2.00 ms", "1.00 ms", "0.500"),
                ("memory", "89.0 MB", "89.0 MB", "1.000"),
            ],
            "lrrr",
        )

    def test_every_number_changes_from_poll_to_poll_and_in_none(self) -> None:
        """Only while that is asked for: else what a poll finds is what the last one found."""
        api = against.Api(numbers=60)
        with api.served() as url:
            still = [names_of_a_poll(url) for _ in range(2)]
            api.changing = True
            moving = [names_of_a_poll(url) for _ in range(12)]
        assert len(still[0]) == 60
        assert still[0] == still[1]
        for one, next_one in pairwise([still[1], *moving]):
            assert all(a != b for a, b in zip(one, next_one, strict=True))

    def test_a_poll_begins_with_its_first_page(self) -> None:
        """That is how a program's work is counted, whatever its version shows of itself."""
        api = against.Api(numbers=60)
        with api.served() as url:
            for _ in range(3):
                names_of_a_poll(url)
            api.wait_for_polls(1)
            assert api.forget() == 2


def names_of_a_poll(url: str) -> list[str]:
    """What the two pages of the account show."""
    found = []
    for page in (0, 1):
        answer = requests.get(
            f"{url}/v2_beta/Accounts/acme/IncomingPhoneNumbers",
            params={"Page": page, "PageSize": 50},
            auth=("acme-key", "acme-token"),
            timeout=10,
        )
        found += [number["friendly_name"] for number in answer.json()["incoming_phone_numbers"]]
    return found


class TestRepresentation:
    def test_each_kind_is_a_row(self) -> None:
        """Bytes and times of one number, and what a collection has to do with it."""
        kind = representation.Kind("dict", 464, 1.6e-6, 0.65e-6, 0.0004, followed=False)
        row = "| dict | 464 B | 1.60 µs | 0.65 µs | 0.40 ms | no |"
        assert representation.table([kind]).markdown()[2:] == [row]


@pytest.mark.parametrize(
    ("variables", "script"),
    [
        ("", "goals.py"),
        ("WRITE=1", "goals.py --write"),
        ("RUNS=3 WRITE=1", "goals.py --runs 3 --write"),
        ("AGAINST=v1.2.3", "against.py 'v1.2.3'"),
        ("AGAINST=v1.2.3 WRITE=1", "against.py 'v1.2.3' --write"),
    ],
)
def test_make_bench_runs_what_its_variables_say(variables: str, script: str) -> None:
    """The documents name `make bench`, and nothing else."""
    shown = subprocess.run(
        ["make", "--dry-run", "bench", *variables.split()],  # noqa: S607 - the make of whoever tests
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    (ran,) = re.findall("benchmarks/(.*)", shown)
    assert " ".join(ran.split()) == script


@pytest.mark.parametrize("mark", ["goals", "growth", "representation", "since"])
def test_the_document_has_a_place_for_each_table(mark: str) -> None:
    """`WRITE=1` finds its marks, in their order, and a table between them."""
    text = tables.DOCUMENT.read_text("utf-8")
    found = re.findall(rf"<!-- {mark}:begin -->\n(\|.*\n)+<!-- {mark}:end -->", text)
    assert len(found) == 1
