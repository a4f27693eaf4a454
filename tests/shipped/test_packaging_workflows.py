"""The workflows: valid, pinned, of few rights, and they cover what this repository has."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exophone_exporter import __version__
from tests.lib.paths import ROOT
from tests.lib.processes import BIN, Ended, ended, output_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GITHUB = ROOT / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
DEPENDABOT = GITHUB / "dependabot.yml"


def jobs_of(name: str) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / name).read_text("utf-8"))["jobs"]
    return jobs


def test_each_file_is_of_its_schema() -> None:
    for schema, files in (
        ("vendor.github-workflows", FILES),
        ("custom.github-workflows-require-timeout", FILES),
        ("vendor.dependabot", [DEPENDABOT]),
    ):
        output_of(BIN / "check-jsonschema", f"--builtin-schema={schema}", *files)


def test_zizmor_finds_nothing() -> None:
    """Its strictest persona wants pins, few rights with reasons, and no text that is run."""
    words = ("--offline", "--no-progress", "--persona=pedantic", "--no-config", "-q")
    output_of(BIN / "zizmor", *words, GITHUB)


def test_an_action_is_a_commit_with_its_version() -> None:
    text = "".join(file.read_text("utf-8") for file in FILES)
    used = re.findall(r"uses: (?!\$/)(.+)$", text, re.MULTILINE)
    pinned = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [use for use in used if not pinned.fullmatch(use)] == []


def test_every_python_that_is_promised_is_tested() -> None:
    promised = re.findall(r":: Python :: (3\.\d+)'", str(PROJECT["project"]["classifiers"]))
    matrix = jobs_of("tests.yml")["tests"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert [system.split("-")[0] for system in matrix["system"]] == ["ubuntu", "macos"]


def test_nothing_is_published_before_it_was_tested_and_attested() -> None:
    jobs = jobs_of("release.yml")
    assert jobs["tests"]["uses"] == "$/.github/workflows/tests.yml"
    assert jobs["packages"]["needs"] == "tests"
    assert {"packages", "attest", "image", "chart"} == set(jobs["publish"]["needs"])
    assert jobs["chart"]["needs"] == ["packages", "image"]
    assert jobs["release"]["needs"] == "publish"
    for name in ("image", "chart", "publish"):
        assert jobs[name]["environment"] == "release"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_dependabot_watches_every_pin() -> None:
    updates = yaml.safe_load(DEPENDABOT.read_text("utf-8"))["updates"]
    watched = {
        (update["package-ecosystem"], place)
        for update in updates
        for place in update.get("directories", [update.get("directory")])
    }
    modules = {path.parent for path in ROOT.glob("tests/lib/**/go.mod")}
    locks = [path.parent for path in ROOT.glob("tests/lib/*/package-lock.json")]
    assert watched == {
        ("github-actions", "/"),
        ("pip", "/"),
        ("docker", "/"),
        ("docker-compose", "/deploy/compose"),
        *(("gomod", f"/{folder.relative_to(ROOT)}") for folder in modules),
        *(("npm", f"/{folder.relative_to(ROOT)}") for folder in locks),
    }
    assert min(len(locks), len(modules)) >= 2


CHANGELOG = f"""\
# Changelog

## Unreleased

- Not yet.

## {__version__} - 2026-12-01

### Added

- What is new.

## 0.0.1 - 2026-11-01

- What was.
"""
EMPTY_CHANGELOG = "## Unreleased\n\n- Not yet.\n"
VERSION_FILE = "exophone_exporter/__init__.py"


@pytest.mark.parametrize(
    ("version", "changelog", "code", "stdout", "stderr"),
    [
        (__version__, CHANGELOG, 0, "\n### Added\n\n- What is new.\n", ""),
        ("9.9.9", CHANGELOG, 1, "", f"{VERSION_FILE} has version {__version__}, not 9.9.9\n"),
        (__version__, EMPTY_CHANGELOG, 1, "", f"CHANGELOG.md has no changes of {__version__}\n"),
    ],
    ids=["good", "another-tag", "no-changes"],
)
def test_release_notes_are_the_changes_of_the_tag(  # noqa: PLR0917 - the columns of a table
    tmp_path: Path, version: str, changelog: str, code: int, stdout: str, stderr: str
) -> None:
    """A tag that nobody prepared is refused before anything is built."""
    for path in ("deploy/release/notes", VERSION_FILE):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    script = tmp_path / "deploy" / "release" / "notes"
    assert ended(script, version) == Ended(code, stdout, stderr)


@pytest.mark.parametrize(
    ("lock", "required"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements-build.txt", PROJECT["build-system"]["requires"]),
    ],
)
def test_each_lock_has_the_tested_versions_with_hashes(lock: str, required: list[str]) -> None:
    """Of all that is required: pip refuses what has no hash in it."""
    tested = (ROOT / "constraints.txt").read_text("utf-8").lower().replace("_", "-").split()
    text = (ROOT / lock).read_text("utf-8")
    entry = r"(?m)^(\S+==\S+)(?: ;[^\\\n]+)? \\\n(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
    entries = re.findall(entry, text)
    assert len(entries) == len(re.findall(r"(?m)^\S", text))
    assert {*entries} <= {*tested}
    names = {re.split("[>=<;]", each)[0] for each in required}
    assert names <= {each.split("==")[0] for each in entries}
