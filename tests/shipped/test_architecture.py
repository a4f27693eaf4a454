"""What import-linter cannot say about the structure. Its contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lib.paths import ROOT

PACKAGE: Final = ROOT / "exophone_exporter"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))
MODULES_MAX: Final = 13


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def test_no_folder_has_more_modules_than_one_can_see() -> None:
    counts = {folder: len([*folder.glob("*.py")]) for folder in {path.parent for path in MODULES}}
    assert max(counts.values()) <= MODULES_MAX, counts


def test_the_environment_is_read_in_one_place() -> None:
    users = {_name(path) for path in MODULES if re.search(r"os\.environ|getenv", path.read_text())}
    assert users == {"config/loader"}


def test_a_secret_is_revealed_in_the_transport_only() -> None:
    """The value of a secret goes into the Authorization header and nowhere else."""
    users = {_name(path) for path in MODULES if ".reveal(" in path.read_text("utf-8")}
    assert users == {"exotel/transport"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_module_has_state(path: Path) -> None:
    """No `global`, and what is mutable at the top of a module is declared Final."""
    tree = ast.parse(path.read_text("utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    plain = [node for node in tree.body if isinstance(node, ast.Assign)]
    names = [ast.unparse(node.targets[0]) for node in plain if isinstance(node.value, mutable)]
    assert set(names) <= {"__all__"}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def test_every_path_in_the_settings_exists() -> None:
    """Coverage, mutation and per-file ignores would silently cover nothing."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    gate = re.search(
        "^WHOLLY_COVERED := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
    )
    covered = gate[1].replace("*/", "", 1).split(",*/") if gate else []
    named = {text.partition("::")[0] for text in _strings(settings)}
    paths = {text for text in named if "/" in text}
    paths |= {*settings["mypy"]["files"], *settings["pytest"]["testpaths"]}
    assert len(paths) > len(settings["mutmut"]["only_mutate"])
    missing = [text for text in sorted(paths) if not [*ROOT.glob(text)]]
    missing += [text for text in covered if not [*PACKAGE.glob(text)]]
    assert covered
    assert missing == []
