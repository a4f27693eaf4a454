"""The workflows: valid, pinned, of few rights, and about what this repository has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exophone_exporter import __version__
from tests.lib.paths import ROOT

GITHUB = ROOT / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
DEPENDABOT = GITHUB / "dependabot.yml"
BIN = Path(sys.executable).parent

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def workflow(name: str) -> dict[str, Any]:
    """A workflow, parsed; its key `on` is True in the YAML of Python."""
    parsed: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / name).read_text("utf-8"))
    return parsed


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        pytest.param("vendor.github-workflows", FILES, id="workflows"),
        pytest.param("custom.github-workflows-require-timeout", FILES, id="timeouts"),
        pytest.param("vendor.dependabot", [DEPENDABOT], id="dependabot"),
    ],
)
def test_each_file_is_what_it_seems(schema: str, files: list[Path]) -> None:
    """As the schemas have it; and every job ends some day."""
    command = [str(BIN / "check-jsonschema"), f"--builtin-schema={schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing() -> None:
    """Pins, rights, credentials that stay, texts that become commands: strictly."""
    words = ["--offline", "--no-progress", "--persona=pedantic", "--no-config", "-q", str(GITHUB)]
    done = subprocess.run([BIN / "zizmor", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_an_action_is_a_commit_with_its_version(file: Path) -> None:
    """A tag can be moved to other code; the comment is for people and for Dependabot."""
    used = re.findall(r"uses: (?!\$/)(.+)$", file.read_text("utf-8"), re.MULTILINE)
    pinned = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [use for use in used if not pinned.fullmatch(use)] == []


@each_file
def test_nothing_is_allowed_unless_said(file: Path) -> None:
    """The workflow permits nothing; each right of a job has its reason beside it."""
    parsed = workflow(file.name)
    assert parsed["permissions"] == {}
    assert all(job["permissions"] for job in parsed["jobs"].values())
    rights = re.findall(
        r"^      [a-z-]+: (?:read|write)\b(.*)$", file.read_text("utf-8"), re.MULTILINE
    )
    assert rights
    assert all(reason.startswith(" # ") for reason in rights)


def test_every_python_that_is_promised_is_tested() -> None:
    """On Linux and on macOS."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    promised = re.findall(r":: Python :: (3\.\d+)'", str(project["classifiers"]))
    matrix = workflow("tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert [system.split("-")[0] for system in matrix["system"]] == ["ubuntu", "macos"]


def test_what_is_published_was_tested_and_attested() -> None:
    """Nothing leaves before the tests, nor a package before its attestation."""
    jobs = workflow("release.yml")["jobs"]
    assert jobs["tests"]["uses"] == "$/.github/workflows/tests.yml"
    assert jobs["packages"]["needs"] == "tests"
    assert {"packages", "attest", "image"} == set(jobs["publish"]["needs"])
    assert jobs["release"]["needs"] == "publish"
    for name in ("image", "publish"):
        assert jobs[name]["environment"] == "release"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_dependabot_watches_every_pin() -> None:
    """Each place that pins something is one that it looks at."""
    updates = yaml.safe_load(DEPENDABOT.read_text("utf-8"))["updates"]
    watched = {
        (update["package-ecosystem"], place)
        for update in updates
        for place in update.get("directories", [update.get("directory")])
    }
    locks = [path.parent for path in ROOT.glob("tests/lib/*/package-lock.json")]
    assert watched == {
        ("github-actions", "/"),
        ("pip", "/"),
        ("docker", "/"),
        ("docker-compose", "/deploy/compose"),
        *(("npm", f"/{folder.relative_to(ROOT)}") for folder in locks),
    }
    assert len(locks) >= 2


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


def notes(tmp_path: Path, version: str, changelog: str) -> subprocess.CompletedProcess[str]:
    """What the release would say, from a changelog."""
    for path in ("deploy/release/notes", "exophone_exporter/__init__.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    script = tmp_path / "deploy" / "release" / "notes"
    return subprocess.run([script, version], capture_output=True, text=True, check=False)


def test_a_release_tells_of_its_own_changes(tmp_path: Path) -> None:
    """What stands under its heading, and nothing of its neighbours."""
    done = notes(tmp_path, __version__, CHANGELOG)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["", "### Added", "", "- What is new.", ""]


@pytest.mark.parametrize(
    ("version", "changelog", "message"),
    [
        pytest.param("9.9.9", CHANGELOG, f"has version {__version__}, not 9.9.9", id="another tag"),
        pytest.param(
            __version__,
            "## Unreleased\n\n- Not yet.\n",
            f"CHANGELOG.md says nothing of {__version__}",
            id="no changes",
        ),
    ],
)
def test_a_tag_that_nobody_prepared_is_refused(
    tmp_path: Path, version: str, changelog: str, message: str
) -> None:
    """Before anything is built."""
    done = notes(tmp_path, version, changelog)
    assert done.returncode == 1
    assert message in done.stderr
