"""The table of faults is whole, and what is told of a run is true."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from exophone_exporter.errors import REASONS
from tests.lib.faults import TABLE, Row, rows_of
from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    Told = Callable[..., tuple[int, list[str]]]

LONG = "a very long story, which does not end before the line does, and goes on"
FIRST_LINE_OF_LONG = (
    "The body is void → a very long story, which does not end before the line does,"
)
DOCUMENT = f"""
# Faults
## Wire
| | what goes wrong | what happens |
|---:|---|---|
| 1 | The cable is cut | `connect` |
| 2 | The cable hums | nothing |
## Body
| 7 | The body is **void** | {LONG} |
"""
KEPT = """
import pytest
fault = pytest.mark.fault

@fault(1)
@fault(2)
def test_cable(): pass

@fault(2)
def test_wire(): pass

@fault(7)
def test_body(): pass
"""


def test_document_is_read_row_by_row() -> None:
    """Without the marks of Markdown."""
    assert rows_of(DOCUMENT) == [
        Row(1, "Wire", "The cable is cut", "connect"),
        Row(2, "Wire", "The cable hums", "nothing"),
        Row(7, "Body", "The body is void", LONG),
    ]


def test_rows_keep_their_numbers_for_ever() -> None:
    """Row 91 was given up, and its number is not used again."""
    numbers = [row.number for row in rows_of(TABLE.read_text("utf-8"))]
    assert numbers == [*range(1, 91), *range(92, 137)]


def test_reasons_of_the_table_are_those_of_the_metric() -> None:
    """Each reason why a poll can fail has a row that tells of it, and no row invents one."""
    table = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("|")]
    assert set(re.findall(r"\(`([a-z_]+)`", "\n".join(table))) == set(REASONS)


def test_every_row_has_a_test_and_every_number_a_row() -> None:
    """Tests are collected and not run; only those that `make test` would run count."""
    words = ("--collect-only", "-qq", "-m", "not end_to_end and not soak", "--faults=unkept")
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = collected.stdout.rpartition(" faults ")[2]
    assert (collected.returncode, "135 of 135 rows have tests" in found) == (0, True), found


@pytest.fixture
def told(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Run a module of tests under the document above: exit code, and what is told of faults."""
    monkeypatch.delenv("EXOPHONE_REQUIRE_END_TO_END", raising=False)

    def run(module: str, *words: str) -> tuple[int, list[str]]:
        document = pytester.makefile(".md", table=DOCUMENT)
        pytester.makeini("[pytest]\nmarkers =\n  fault(number)\n  slow")
        pytester.makepyfile(test_it=module)
        ended = pytester.runpytest_inprocess(
            "-p", "tests.lib.faults", f"--fault-table={document}", *words
        )
        lines = ended.outlines
        begin = next(number for number, line in enumerate(lines) if " faults " in line)
        end = next(n for n, line in enumerate(lines[begin + 1 :], begin + 1) if line[:3] == "===")
        return int(ended.ret), lines[begin + 1 : end]

    return run


def line(number: int, promise: str, tests: int, outcome: str) -> str:
    return f"{number:>4}  {promise:<78}  {tests:>4}  {outcome}"


def test_whole_table_has_each_promise_its_tests_and_what_came_of_them(told: Told) -> None:
    """Whole promises, in a hundred columns."""
    code, lines = told(KEPT, "--faults=all")
    assert lines == [
        "Wire",
        line(1, "The cable is cut → connect", 1, "passed"),
        line(2, "The cable hums → nothing", 2, "passed"),
        "Body",
        line(7, FIRST_LINE_OF_LONG, 1, "passed"),
        "      and goes on",
        "3 of 3 rows kept, 3 tests",
    ]
    assert code == pytest.ExitCode.OK
    assert max(map(len, lines)) <= 100


def test_of_rows_that_are_kept_only_their_count_is_told_where_nobody_asks(told: Told) -> None:
    assert told(KEPT, "--faults=unkept") == (0, ["3 of 3 rows kept, 3 tests"])


@pytest.mark.parametrize(
    ("test", "outcome"),
    [
        pytest.param("def test_hum(): assert False", "FAILED", id="failed"),
        pytest.param(
            "@pytest.fixture\ndef none(): 1 / 0\ndef test_hum(none): pass",
            "FAILED",
            id="broken-before-it",
        ),
        pytest.param(
            "@pytest.fixture\ndef none():\n  yield\n  1 / 0\ndef test_hum(none): pass",
            "FAILED",
            id="broken-after-it",
        ),
        pytest.param("def test_hum(): pytest.skip('no cable')", "skipped", id="skipped"),
        pytest.param("@pytest.mark.skip\ndef test_hum(): pass", "skipped", id="not-even-tried"),
        pytest.param(
            "@pytest.mark.xfail\ndef test_hum(): assert False", "skipped", id="excused-failure"
        ),
    ],
)
def test_row_with_a_test_that_did_not_pass_is_not_kept(told: Told, test: str, outcome: str) -> None:
    """One suffices, however many others passed; the run fails and names it."""
    code, lines = told(f"{KEPT}\n{test}\ntest_hum = fault(2)(test_hum)", "--faults=unkept")
    assert lines == [
        "Wire",
        line(2, "The cable hums → nothing", 3, outcome),
        f"      {outcome}: test_it.py::test_hum",
        "2 of 3 rows kept, 4 tests",
    ]
    assert code == pytest.ExitCode.TESTS_FAILED


def test_row_without_a_test_is_not_kept(told: Told) -> None:
    code, lines = told(KEPT.replace("@fault(7)", ""), "--faults=unkept")
    assert lines == [
        "Body",
        line(7, FIRST_LINE_OF_LONG, 0, "no test"),
        "      and goes on",
        "2 of 3 rows kept, 2 tests",
    ]
    assert code == pytest.ExitCode.TESTS_FAILED


def test_number_of_no_row_fails_the_run(told: Told) -> None:
    """A slip of the pen, or a row that was taken away."""
    code, lines = told(KEPT.replace("@fault(2)", "@fault(2)\n@fault(8)"), "--faults=unkept")
    assert lines == ["   8  is the number of no row", "3 of 3 rows kept, 3 tests"]
    assert code == pytest.ExitCode.TESTS_FAILED


def test_tests_that_were_not_selected_are_counted_apart(told: Told) -> None:
    module = KEPT.replace("def test_wire", "@pytest.mark.slow\ndef test_wire")
    assert told(module, "--faults=unkept", "-m", "not slow") == (
        0,
        ["3 of 3 rows kept, 2 tests; 1 more not selected"],
    )


def test_run_that_ends_early_keeps_no_row_that_it_did_not_reach(told: Told) -> None:
    code, lines = told("def test_first(): assert False\n" + KEPT, "--faults=unkept", "-x")
    assert lines[-1] == "0 of 3 rows kept, 3 tests"
    assert line(1, "The cable is cut → connect", 1, "not run") in lines
    assert code == pytest.ExitCode.TESTS_FAILED


def test_without_a_run_a_row_with_tests_counts(told: Told) -> None:
    assert told(KEPT, "--faults=unkept", "--collect-only") == (
        0,
        ["3 of 3 rows have tests, 3 tests"],
    )
    code, lines = told(KEPT.replace("@fault(1)", ""), "--faults=unkept", "--collect-only")
    assert lines[-1] == "2 of 3 rows have tests, 3 tests"
    assert code == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "test",
    [
        pytest.param("def test_hum(): pytest.skip('no cable')", id="skipped"),
        pytest.param("@pytest.mark.skip\ndef test_hum(): pass", id="not-even-tried"),
        pytest.param("@pytest.mark.xfail\ndef test_hum(): assert False", id="excused-failure"),
    ],
)
def test_where_nothing_may_be_missing_a_skipped_fault_is_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    """Whoever asks for the table or not; tests of no fault may still be skipped."""
    monkeypatch.setenv("EXOPHONE_REQUIRE_END_TO_END", "1")
    pytester.makeini("[pytest]\nmarkers = fault(number)")
    other = test.replace("test_hum", "test_other")
    pytester.makepyfile(
        f"import pytest\n{test}\ntest_hum = pytest.mark.fault(2)(test_hum)\n{other}"
    )
    ended = pytester.runpytest_inprocess("-p", "tests.lib.faults")
    assert ended.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = ended.parseoutcomes()
    assert (outcomes.get("failed", 0) + outcomes.get("errors", 0), sum(outcomes.values())) == (1, 2)
    ended.stdout.fnmatch_lines(["*EXOPHONE_REQUIRE_END_TO_END asks for every fault*"])
