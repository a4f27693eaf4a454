"""The table of faults and the outcome of its tests: a plugin of pytest behind `--faults`.

Each row of docs/faults.md is a promise, and `@pytest.mark.fault(23)` on a test or on a parameter
says that it tests row 23. A row is kept if it has tests and all of them passed. With `--faults` a
run prints which rows it kept, and fails where one was not or where a number has no row.

With pytest-xdist the workers collect the tests and the controller hears of their outcomes. Each
worker sends what it collected when it ends.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lib.paths import ROOT

TABLE: Final = ROOT / "docs" / "faults.md"
_REQUIRE: Final = "EXOPHONE_REQUIRE_END_TO_END"
_SECTION_OR_ROW: Final = re.compile(
    r"## (?P<section>.+)|\| (?P<number>[0-9]+) \| (?P<fault>[^|]+) \| (?P<then>[^|]+) \|"
)
# With the number before it and the count and the outcome behind, a line has 100 columns at most.
_PROMISE_COLUMNS: Final = 78
_WORST_FIRST: Final = ("FAILED", "skipped", "not run", "passed")
_COLOURS: Final = {"passed": "green", "skipped": "yellow", "not run": "yellow"}


@dataclass(frozen=True)
class Row:
    """One promise: its number, and what goes wrong and what happens then as plain text."""

    number: int
    section: str
    fault: str
    then: str


def rows_of(table: str) -> list[Row]:
    """The rows of a document like docs/faults.md, in its order."""
    rows: list[Row] = []
    section = ""
    for match in filter(None, map(_SECTION_OR_ROW.fullmatch, table.splitlines())):
        section = match["section"] or section
        if match["number"]:
            fault, then = (re.sub("[`*]", "", match[cell]) for cell in ("fault", "then"))
            rows.append(Row(int(match["number"]), section, fault, then))
    return rows


def numbers_of(item: pytest.Item) -> set[int]:
    return {number for mark in item.iter_markers("fault") for number in mark.args}


class FaultReport:
    """Follows a run and prints at its end the outcome of each row, or of those not kept only."""

    def __init__(self, rows: Sequence[Row], *, whole: bool) -> None:
        self._rows = rows
        self._whole = whole
        self._tests: defaultdict[int, list[str]] = defaultdict(list)
        self._outcomes: dict[str, str] = {}
        self._deselected = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for number in numbers_of(item):
                self._tests[number].append(item.nodeid)

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self._deselected += sum(bool(numbers_of(item)) for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of xdist collected; each of them collects the same."""
        if "faults" in getattr(node, "workeroutput", ()):
            tests, self._deselected = node.workeroutput["faults"]
            self._tests.update(tests)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test; a failure before or after it counts as its own."""
        if report.failed or report.skipped:
            self._outcomes[report.nodeid] = "FAILED" if report.failed else "skipped"
        elif report.when == "call":
            self._outcomes[report.nodeid] = "passed"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make a run fail that kept not every row; a worker only sends what it collected."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["faults"] = (dict(self._tests), self._deselected)
        elif session.exitstatus == pytest.ExitCode.OK and (self._unkept() or self._unknown()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the rows, and their count in the last line."""
        terminalreporter.write_sep("=", "faults")
        unkept, section = self._unkept(), ""
        for row in self._rows if self._whole else unkept:
            if row.section != section:
                section = row.section
                terminalreporter.write_line(section, bold=True)
            self._print(row, terminalreporter)
        for number in self._unknown():
            terminalreporter.write_line(f"{number:>4}  is not the number of a row", red=True)
        terminalreporter.write_line(self._summary(len(unkept)), bold=True)

    def _print(self, row: Row, out: pytest.TerminalReporter) -> None:
        """One row, and under it its tests that did not pass."""
        first, *more = textwrap.wrap(f"{row.fault} → {row.then}", _PROMISE_COLUMNS)
        tests, outcome = self._tests[row.number], self._outcome(row)
        out.write(f"{row.number:>4}  {first:<{_PROMISE_COLUMNS}}  {len(tests):>4}  ")
        out.write_line(outcome, **{_COLOURS.get(outcome, "red"): True})
        for line in more:
            out.write_line(f"      {line}")
        for test in tests:
            if self._outcome_of_test(test) != "passed":
                out.write_line(f"      {self._outcome_of_test(test)}: {test}")

    def _outcome(self, row: Row) -> str:
        outcomes = map(self._outcome_of_test, self._tests[row.number])
        return min(outcomes, key=_WORST_FIRST.index, default="no test")

    def _outcome_of_test(self, test: str) -> str:
        return self._outcomes.get(test, "not run")

    def _unkept(self) -> list[Row]:
        return [row for row in self._rows if self._outcome(row) != "passed"]

    def _unknown(self) -> list[int]:
        """The numbers that tests have and no row has."""
        used = {number for number, tests in self._tests.items() if tests}
        return sorted(used - {row.number for row in self._rows})

    def _summary(self, unkept: int) -> str:
        tests = len({test for tests in self._tests.values() for test in tests})
        left_out = f"; {self._deselected} more not selected" if self._deselected else ""
        return f"{len(self._rows) - unkept} of {len(self._rows)} rows kept, {tests} tests{left_out}"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--faults",
        choices=("all", "unkept"),
        help="print which rows of the table of faults are kept, and fail where one is not",
    )
    group.addoption("--fault-table", default=str(TABLE), help="the document with the rows")


def pytest_configure(config: pytest.Config) -> None:
    """Follow the run if asked to."""
    wanted = config.getoption("faults")
    if wanted is not None:
        rows = rows_of(Path(config.getoption("fault_table")).read_text("utf-8"))
        config.pluginmanager.register(FaultReport(rows, whole=wanted == "all"), "report of faults")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # to see what an expected failure was made of
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be missing, a skipped test of a fault is a failure."""
    report = yield
    if report.skipped and numbers_of(item) and os.environ.get(_REQUIRE):
        report.outcome = "failed"
        report.longrepr = f"skipped, and {_REQUIRE} asks for every fault: {report.longrepr}"
        vars(report).pop("wasxfail", None)  # or pytest still excuses it
    return report
