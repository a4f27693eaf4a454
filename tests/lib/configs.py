"""Configuration files whose first lines say what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from exophone_exporter.errors import ConfigError


def cases(folder: Path) -> list[Any]:
    """The files of a folder as parameters of a test."""
    return [pytest.param(path, id=path.stem) for path in sorted(folder.iterdir())]


def expected_problems(text: str) -> tuple[str, ...]:
    head = takewhile(lambda line: line.startswith("# expect: "), text.splitlines())
    return tuple(line.removeprefix("# expect: ") for line in head)


def refusal(call: Callable[[], object]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        call()
    return caught.value
