"""What can be said of the Dockerfile without building it; test_image.py builds it."""

from __future__ import annotations

import re
from pathlib import Path

from exophone_exporter import __version__
from tests.lib.paths import ROOT
from tests.lib.processes import BIN, ended, output_of

DOCKERFILE = ROOT / "Dockerfile"
BUILD = ROOT / "deploy" / "container" / "build"


def test_hadolint_finds_nothing() -> None:
    assert output_of(BIN / "hadolint", DOCKERFILE) == ""


def test_the_base_is_pinned_by_digest_and_used_by_every_stage() -> None:
    text = DOCKERFILE.read_text("utf-8")
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", base)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BUILD_BASE}", "${BASE}"]
    assert "ARG BUILD_BASE=${BASE}\n" in text


def test_what_the_image_is_made_of_reaches_the_build_and_nothing_else() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {path for line in copied for path in line.split()} == {
        line[1:] for line in lines if line.startswith("!")
    }
    assert "*" in lines
    assert all((ROOT / line[1:]).exists() for line in lines if line.startswith("!"))


def test_without_an_engine_make_image_names_what_it_needs(tmp_path: Path) -> None:
    """A client of docker without an engine builds nothing."""
    for name in ("dirname", "sed", "git"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    script(tmp_path / "docker", "exit 1")
    done = ended("/bin/sh", BUILD, env={"PATH": str(tmp_path)})
    assert done.code == 1
    assert "needs docker, podman or buildah" in done.stderr


def test_the_engine_gets_version_revision_and_base(tmp_path: Path) -> None:
    """And the format that has HEALTHCHECK; it need not be built here, so it only prints."""
    podman = script(tmp_path / "podman", 'printf "%s\\n" "$@"')
    env = {"PATH": "/usr/bin:/bin", "ENGINE": str(podman), "IMAGE": "x:1", "BASE": "b:2"}
    said = output_of("/bin/sh", BUILD, "--pull-never", env=env).splitlines()
    wanted = {"build", f"VERSION={__version__}", "BASE=b:2", "x:1", "--format=docker"}
    assert wanted | {"--pull-never"} <= set(said)
    assert re.search(r"\nREVISION=([0-9a-f]{40}(-dirty)?|unknown)\n", "\n".join(said))
    assert not [word for word in said if word.startswith("BUILD_BASE=")]
    assert said[-1] == "."


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
