"""The layers of docs/architecture.md, held by reading the imports."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = ROOT / "exophone_exporter"
MODULES = sorted(PACKAGE.rglob("*.py"))
_ROW = re.compile(r"^\| ([0-9]+) \| `([a-z_.]+)` \|", re.MULTILINE)

# A library that only some modules may import, and those modules.
RESERVED = {
    "requests": {"client"},
    "urllib3": {"client"},
    "http.client": {"client"},
    "yaml": {"strict_yaml"},
    "pydantic": {"config", "config_shape"},
    "prometheus_client": {"metrics"},
    "rich": {"terminal"},
    "shtab": {"completion"},
    "jinja2": {"markup"},
    "bcrypt": {"web_auth"},
    "uvicorn": {"connections", "serving"},
    "httptools": {"connections"},
    "starlette": {"lifecycle", "probe", "web", "web_auth"},
}


def _name(path: Path) -> str:
    """`client.walk` for exophone_exporter/client/walk.py, `client` for its __init__."""
    relative = path.relative_to(PACKAGE).with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__")


# Packages that define nothing but what they are made of.
FACES = {"", "__main__", "commands", "metrics"}
LAYERED = [
    path for path in MODULES if _name(path) not in FACES and not _name(path).startswith("simulator")
]


def _layers() -> dict[str, int]:
    """The layer of each module, as the table in the document has it."""
    table = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    return {module: int(layer) for layer, module in _ROW.findall(table)}


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, with the names taken from it, for types or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _own_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their names in the table."""
    known = {_name(module) for module in MODULES} - {""}
    names = {name.removeprefix("exophone_exporter.") for name in _imports(path)}
    return names & known


def test_every_module_stands_in_the_table() -> None:
    """Whoever looks for the place of something finds it in docs/architecture.md."""
    assert set(_layers()) == {_name(path) for path in LAYERED} | {"simulator"}


@pytest.mark.parametrize("path", LAYERED, ids=_name)
def test_a_module_imports_only_lower_layers(path: Path) -> None:
    """No import runs upward or sideways, not even for types."""
    layers = _layers()
    own = layers[_name(path)]
    for imported in _own_imports(path) - FACES:
        layer = layers["simulator" if imported.startswith("simulator") else imported]
        assert layer < own, f"{_name(path)} ({own}) imports {imported} ({layer})"


@pytest.mark.parametrize("path", sorted((PACKAGE / "simulator").glob("*.py")), ids=_name)
def test_the_simulator_imports_nothing_of_ours(path: Path) -> None:
    """One misreading of the vendor's page cannot stand on both sides."""
    ours = {name for name in _imports(path) if name.startswith("exophone_exporter")}
    assert all(name.startswith("exophone_exporter.simulator") for name in ours)


@pytest.mark.parametrize("library", RESERVED)
def test_a_library_is_known_in_one_place_only(library: str) -> None:
    """Whoever replaces a library finds all that depends on it in one module."""
    users = {
        _name(path)
        for path in MODULES
        if any(name == library or name.startswith(f"{library}.") for name in _imports(path))
    }
    users = {user for user in users if not user.startswith("simulator")}
    assert users
    assert {user.split(".")[0] for user in users} == RESERVED[library]


def test_the_environment_is_read_in_config_only() -> None:
    """Settings come one way."""
    users = {_name(path) for path in MODULES if re.search(r"os\.environ|getenv", path.read_text())}
    assert users == {"config"}


def test_a_secret_is_revealed_in_the_transport_only() -> None:
    """The value of a secret goes into the Authorization header and nowhere else."""
    users = {_name(path) for path in MODULES if ".reveal(" in path.read_text("utf-8")}
    assert users == {"client.transport"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_module_has_state(path: Path) -> None:
    """No `global`, and what is mutable at the top of a module is declared Final."""
    tree = ast.parse(path.read_text("utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    plain = [node for node in tree.body if isinstance(node, ast.Assign)]
    names = [ast.unparse(node.targets[0]) for node in plain if isinstance(node.value, mutable)]
    assert set(names) <= {"__all__"}
