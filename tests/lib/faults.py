"""The table of faults and what came of it: a plugin of pytest behind `--faults`.

Each row of docs/faults.md is a promise, and `@pytest.mark.fault(23)` on a test or on a parameter
says that it holds row 23. A row is kept if tests carry its number and all of them passed. With
`--faults` a run tells which rows it kept, and fails where one is not or where a number has no row.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

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
    """The rows that a test holds."""
    return {number for mark in item.iter_markers("fault") for number in mark.args}


class FaultReport:
    """Follows a run and tells at its end what came of each row.

    `whole` tells every row, else only those that are not kept. With `collect_only` nothing runs,
    and a row that has tests counts as kept.
    """

    def __init__(self, rows: Sequence[Row], *, whole: bool, collect_only: bool = False) -> None:
        self._rows = rows
        self._whole = whole
        self._good = ("passed", "not run") if collect_only else ("passed",)
        self._tests: defaultdict[int, list[str]] = defaultdict(list)
        self._outcomes: dict[str, str] = {}
        self._deselected = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which of the selected tests holds which rows."""
        for item in items:
            for number in numbers_of(item):
                self._tests[number].append(item.nodeid)
                self._outcomes[item.nodeid] = "not run"

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        """Count the others."""
        self._deselected += sum(bool(numbers_of(item)) for item in items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a test; what went wrong before or after it counts as its own."""
        if report.nodeid not in self._outcomes:
            return
        if report.failed or report.skipped:
            self._outcomes[report.nodeid] = "FAILED" if report.failed else "skipped"
        elif report.when == "call":
            self._outcomes[report.nodeid] = "passed"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let a run fail that would else be a success."""
        if session.exitstatus == pytest.ExitCode.OK and (self._unkept() or self._unknown()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell the rows, and their count in the last line."""
        terminalreporter.write_sep("=", "faults")
        unkept, section = self._unkept(), ""
        for row in self._rows if self._whole else unkept:
            if row.section != section:
                section = row.section
                terminalreporter.write_line(section, bold=True)
            self._tell(row, terminalreporter)
        for number in self._unknown():
            terminalreporter.write_line(f"{number:>4}  is the number of no row", red=True)
        terminalreporter.write_line(self._summary(len(unkept)), bold=True)

    def _tell(self, row: Row, out: pytest.TerminalReporter) -> None:
        """One row, and under it the tests that are to blame."""
        first, *more = textwrap.wrap(f"{row.fault} → {row.then}", _PROMISE_COLUMNS)
        tests, outcome = self._tests[row.number], self._outcome(row)
        out.write(f"{row.number:>4}  {first:<{_PROMISE_COLUMNS}}  {len(tests):>4}  ")
        out.write_line(outcome, **{_COLOURS.get(outcome, "red"): True})
        for line in more:
            out.write_line(f"      {line}")
        for test in tests:
            if self._outcomes[test] not in self._good:
                out.write_line(f"      {self._outcomes[test]}: {test}")

    def _outcome(self, row: Row) -> str:
        """The worst outcome of its tests."""
        outcomes = [self._outcomes[test] for test in self._tests[row.number]]
        return min(outcomes, key=_WORST_FIRST.index, default="no test")

    def _unkept(self) -> list[Row]:
        return [row for row in self._rows if self._outcome(row) not in self._good]

    def _unknown(self) -> list[int]:
        """The numbers that tests carry and no row has."""
        carried = {number for number, tests in self._tests.items() if tests}
        return sorted(carried - {row.number for row in self._rows})

    def _summary(self, unkept: int) -> str:
        left_out = f"; {self._deselected} more not selected" if self._deselected else ""
        return (
            f"{len(self._rows) - unkept} of {len(self._rows)} rows"
            f" {'have tests' if 'not run' in self._good else 'kept'},"
            f" {len(self._outcomes)} tests{left_out}"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("faults")
    group.addoption(
        "--faults",
        choices=("all", "unkept"),
        help="tell which rows of the table of faults are kept, and fail where one is not",
    )
    group.addoption("--fault-table", default=str(TABLE), help="the document with the rows")


def pytest_configure(config: pytest.Config) -> None:
    """Follow the run if asked to."""
    told = config.getoption("faults")
    if told is not None:
        rows = rows_of(Path(config.getoption("fault_table")).read_text("utf-8"))
        report = FaultReport(
            rows, whole=told == "all", collect_only=config.getoption("collectonly")
        )
        config.pluginmanager.register(report, "report of faults")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # to see what an expected failure was made of
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be missing, a test of a fault that is left out is a failure."""
    report = yield
    if report.skipped and numbers_of(item) and os.environ.get(_REQUIRE):
        report.outcome = "failed"
        report.longrepr = f"skipped, and {_REQUIRE} asks for every fault: {report.longrepr}"
        vars(report).pop("wasxfail", None)  # else pytest excuses it still
    return report
