"""What the benchmarks make of what they measure. How long anything takes is not looked at here."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import against
import pytest
import results
import tables

from tests.lib.paths import ROOT
from tests.lib.processes import Ended, ended

RESULT = results.Result(1, "scrape", 0.00034, "ms", "n", 0.00046, 1.3529, met=True)


def test_the_table_has_the_median_run_and_every_verdict() -> None:
    """Figure, anchor and ratio are of one run; a run that misses the goal is shown."""
    runs = [
        [replace(RESULT, value=0.00036, anchor_value=0.0005, ratio=1.3889)],
        [RESULT],
        [replace(RESULT, value=0.00033, met=False)],
    ]
    table = results.table(results.rows(runs))
    assert table.markdown() == [
        "| goal | what | figure | all runs | reference | ratio |  |",
        "|--:|---|--:|--:|---|--:|---|",
        "| 1 | scrape | 0.34 ms | 0.33 · 0.34 · 0.36 | n: 0.46 ms | 1.353 | missed in 1 of 3 |",
    ]
    assert table.without("reference").aligned() == [
        "goal  what     figure            all runs  ratio",
        "   1  scrape  0.34 ms  0.33 · 0.34 · 0.36  1.353  missed in 1 of 3",
    ]
    verdicts = [(True, "met"), (False, "missed"), (None, "")]
    assert [results.Row((replace(RESULT, met=met),) * 3).verdict for met, _ in verdicts] == [
        verdict for _, verdict in verdicts
    ]
    with pytest.raises(ValueError, match="shorter"):
        results.rows([[RESULT, RESULT], [RESULT]])


def test_only_the_text_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n<!-- y:begin -->\n")
    tables.write("x", tables.Table(["new"], [["cell"]], "r"), page)
    new = "a\n<!-- x:begin -->\n| new |\n|--:|\n| cell |\n<!-- x:end -->\nb\n<!-- y:begin -->\n"
    assert page.read_text() == new
    with pytest.raises(ValueError, match=r"page\.md has no marks y"):
        tables.write("y", tables.Table(["new"], [], "r"), page)
    assert page.read_text() == new


def test_a_revision_that_does_not_exist_is_one_line() -> None:
    done = ended(sys.executable, ROOT / "benchmarks" / "against.py", "v0.0.0-none")
    said = "against.py: v0.0.0-none is not a revision of this repository\n"
    assert done == Ended(1, "", said)


def test_the_least_of_all_rounds_is_compared() -> None:
    then, now = (
        [[against.Cost("scrape", s, "ms"), against.Cost("memory", b, "MB")] for s, b in rounds]
        for rounds in (((0.002, 89e6), (0.5, 90e6)), ((0.7, 89e6), (0.001, 178e6)))
    )
    assert against.table("v1", then, now) == tables.Table(
        ("what", "v1", "now", "ratio"),
        [("scrape", "2.00 ms", "1.00 ms", "0.500"), ("memory", "89.0 MB", "89.0 MB", "1.000")],
        "lrrr",
    )


@pytest.mark.parametrize("mark", ["goals", "growth", "representation", "since"])
def test_the_document_has_a_place_for_each_table(mark: str) -> None:
    text = tables.DOCUMENT.read_text("utf-8")
    assert len(re.findall(rf"<!-- {mark}:begin -->\n(\|.*\n)+<!-- {mark}:end -->", text)) == 1
