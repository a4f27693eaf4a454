"""Programs from outside: what `make tools` builds, and what is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.lib.paths import TOOLS

BUILT = str(TOOLS)
INSTALLED = os.environ["PATH"]
ANY = f"{BUILT}{os.pathsep}{INSTALLED}"
_NAMES_IN_DEBIAN = {"alertmanager": "prometheus-alertmanager"}


def programs(path: str) -> Callable[[str], str]:
    """The path of a program by its name; without it the test is skipped, or fails if required."""

    def find(name: str) -> str:
        found = shutil.which(name, path=path)
        if found is None and name in _NAMES_IN_DEBIAN:
            found = shutil.which(_NAMES_IN_DEBIAN[name], path=path)
        if found is None:
            problem = f"there is no {name} in {path}"
            if os.environ.get("EXOPHONE_REQUIRE_END_TO_END"):
                pytest.fail(f"{problem}, and EXOPHONE_REQUIRE_END_TO_END asks for it")
            pytest.skip(problem)
        return found

    return find
