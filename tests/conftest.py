"""Fixtures that every test may ask for."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.lib.canary import pytest_runtest_makereport  # noqa: F401 - a hook of pytest
from tests.lib.dashboards.scene import Scene, scene
from tests.lib.programs import ANY, BUILT, INSTALLED, programs
from tests.lib.support import FakeTime

# `pytester` tests the other two.
pytest_plugins = ["tests.lib.faults", "tests.lib.surrogates", "pytester"]

# A busy machine is not a defect: what takes long is measured by benchmarks, not by tests.
# `make test` tries the same examples every time, so that what breaks was broken by the change at
# hand; `make fuzz` (--hypothesis-profile=long) tries others, and many.
settings.register_profile("exophone", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, derandomize=False, max_examples=2000)
settings.load_profile("exophone")

# A shell lets what it runs in the background ignore SIGINT, and so would each program we start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What a test configures of logging ends with it."""
    names = (None, "urllib3", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    return programs(ANY)


@pytest.fixture(scope="session", params=[BUILT, INSTALLED], ids=["built", "installed"])
def each_program(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """`program` for what is tested in two versions, such as Prometheus 3 and 2."""
    return programs(request.param)


@pytest.fixture(scope="session")
def played_scene(
    program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A fixed world as a real Prometheus saw it; played once, it stays as it is."""
    with scene(program, tmp_path_factory.mktemp("scene")) as played:
        yield played
