"""The secrets of the tests, and every form in which one could come to light.

Each simulated account `acme` has the key `acme-key` and the token `acme-token`, as the simulator
makes them; a test that wants other secrets calls them a canary. Every session is searched for both:
what is logged, printed or shown (`conftest`), and what processes say (`processes`).
"""

from __future__ import annotations

import base64
import re
import traceback
from collections.abc import Generator
from typing import Final

import pytest

KEY: Final = "canary-key-7Qx2"
TOKEN: Final = "canary-token-9Zr5"


def _base64_forms(text: bytes) -> set[str]:
    """What stays of a text in Base64, wherever in a group of three bytes it begins."""
    cores = set()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text).decode()
        # The first and the last letters also hold bits of the neighbours.
        core = whole[-(-before * 8 // 6) : len(text + b"\0" * before) * 8 // 6]
        cores.add(core)
    return cores


_BASE64: Final = _base64_forms(b"canary") | _base64_forms(b"-token") | _base64_forms(b"-key:")
_TRACE: Final = re.compile(
    "|".join(
        [
            r"canary(?!\.)",  # canary.py itself may be in a traceback
            r"\b(?:acme|beta)(?:-[a-z]+)?-(?:key|token)\b",
            b"canary".hex(),
            *map(re.escape, sorted(_BASE64)),
        ]
    )
)


def traces(text: str | bytes) -> list[str]:
    """Every secret of a test in a text: as it is, in hexadecimal or in Base64."""
    return _TRACE.findall(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def everything_of(error: BaseException | None) -> str:
    """All that a person or a log can see of an error and of the errors behind it."""
    if error is None:
        return ""
    own = [str(error), repr(error), repr(error.args), repr(vars(error))]
    own += traceback.format_exception_only(error)
    return "\n".join([*own, everything_of(error.__cause__), everything_of(error.__context__)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever a test logged, at every level, or printed: a secret in it fails the test."""
    report = yield
    if report.when == "teardown" and report.passed:
        found = {trace for _, text in report.sections for trace in traces(text)}
        if found:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} showed a secret: {', '.join(sorted(found))}"
    return report
