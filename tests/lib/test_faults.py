"""The table of faults is whole, and the report of a run is true; with workers of xdist, too."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from exophone_exporter.errors import REASONS
from tests.lib.faults import TABLE, rows_of

Reported = Callable[..., tuple[int, list[str]]]

LONG = "a very long story, which does not end before the line does, and goes on"
DOCUMENT = f"""
# Faults
## Wire
| | what goes wrong | what happens |
|---:|---|---|
| 1 | The cable is cut | `connect` |
| 2 | The cable hums | nothing |
| 3 | The cable is long | nothing |
## Body
| 7 | The body is **void** | {LONG} |
"""
CUT, HUMS = "The cable is cut → connect", "The cable hums → nothing"
LENGTH = "The cable is long → nothing"
VOID = "The body is void → a very long story, which does not end before the line does,"
KEPT = """
import pytest
fault = pytest.mark.fault

@fault(1)
@fault(2)
def test_cable(): pass

@fault(2, 3)
def test_wire(): pass

@fault(7)
def test_body(): pass
"""


def test_rows_keep_their_numbers_for_ever() -> None:
    """Row 91 was given up, and its number is not used again; later rows are in any section."""
    numbers = [row.number for row in rows_of(TABLE.read_text("utf-8"))]
    assert len(numbers) == len({*numbers})
    assert {*range(1, 137)} - {*numbers} == {91}


def test_reasons_of_the_table_are_those_of_the_metric() -> None:
    table = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("|")]
    assert set(re.findall(r"\(`([a-z_]+)`", "\n".join(table))) == set(REASONS)


@pytest.fixture
def report(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Reported:
    monkeypatch.delenv("EXOPHONE_REQUIRE_END_TO_END", raising=False)

    def run(module: str, *words: str) -> tuple[int, list[str]]:
        document = pytester.makefile(".md", table=DOCUMENT)
        pytester.makeini("[pytest]\nmarkers =\n  fault(number)\n  slow")
        pytester.makepyfile(test_it=module)
        plugins = ("-p", "tests.lib.faults", "-p", "tests.lib.surrogates")
        ended = pytester.runpytest_inprocess(*plugins, f"--fault-table={document}", *words)
        lines = ended.outlines
        begin = next(number for number, line in enumerate(lines) if " faults " in line)
        end = next(n for n, line in enumerate(lines[begin + 1 :], begin + 1) if line[:3] == "===")
        return int(ended.ret), lines[begin + 1 : end]

    return run


def line(number: int, promise: str, tests: int, outcome: str) -> str:
    return f"{number:>4}  {promise:<78}  {tests:>4}  {outcome}"


def test_rows_that_are_not_kept_fail_the_run_and_name_their_tests(report: Reported) -> None:
    """One test that does not pass suffices. What it prints need not be Unicode."""
    module = f"""{KEPT.replace("@fault(2, 3)", "@fault(2)")}
@pytest.fixture
def broken(): print('\\udcff'); assert '\\udcff' == ''

@fault(2)
def test_hum(broken): pass

@fault(7)
def test_skipped(): pytest.skip("no body")

@pytest.mark.slow
@fault(7)
@fault(8)
def test_slow(): pass

@fault(9)
def test_of_no_row(): pass
"""
    code, lines = report(module, "--faults=all", "-m", "not slow", "-n2")
    assert lines == [
        "Wire",
        line(1, CUT, 1, "passed"),
        line(2, HUMS, 3, "FAILED"),
        "      FAILED: test_it.py::test_hum",
        line(3, LENGTH, 0, "no test"),
        "Body",
        line(7, VOID, 2, "skipped"),
        "      and goes on",
        "      skipped: test_it.py::test_skipped",
        "   9  is not the number of a row",
        "1 of 4 rows kept, 6 tests; 1 more not selected",
    ]
    assert max(map(len, lines)) <= 100
    assert code == pytest.ExitCode.TESTS_FAILED


def test_run_whose_tests_all_pass_fails_where_a_number_has_no_row(report: Reported) -> None:
    """Of the rows it prints only those that were not kept; without such a number it is well."""
    assert report(KEPT, "--faults=unkept") == (pytest.ExitCode.OK, ["4 of 4 rows kept, 3 tests"])
    code, lines = report(KEPT.replace("@fault(7)", "@fault(7, 8)"), "--faults=unkept")
    assert lines == ["   8  is not the number of a row", "4 of 4 rows kept, 3 tests"]
    assert code == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "test",
    [
        "def test_hum(): pytest.skip('no cable')",
        "@pytest.mark.skip\ndef test_hum(): pass",
        "@pytest.mark.xfail\ndef test_hum(): assert False",
    ],
)
def test_where_nothing_may_be_missing_a_skipped_fault_is_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    """With or without `--faults`; a test without a row may still be skipped."""
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
