"""What can be said of the Dockerfile without building it; test_image.py builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from exophone_exporter import __version__
from tests.lib.paths import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def test_the_dockerfile_is_sound() -> None:
    """As hadolint sees it, without an exception."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_cannot_change_unseen() -> None:
    """A tag for people, a digest for the build; every stage stands on it."""
    text = DOCKERFILE.read_text("utf-8")
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", base)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BUILD_BASE}", "${BASE}"]
    assert "ARG BUILD_BASE=${BASE}\n" in text


def test_what_the_image_is_made_of_reaches_the_build() -> None:
    """Each path that is copied from here is let in, and nothing else is."""
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {path for line in copied for path in line.split()} == {
        line[1:] for line in lines if line.startswith("!")
    }
    assert "*" in lines
    assert all((ROOT / line[1:]).exists() for line in lines if line.startswith("!"))


def test_what_builds_the_wheel_is_pinned() -> None:
    """The image takes every version from one file."""
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    assert re.search(r"^hatchling==", pins, re.MULTILINE)
    assert re.search(r"^trove-classifiers==", pins, re.MULTILINE)


def test_without_an_engine_it_is_said(tmp_path: Path) -> None:
    """`make image` names what it needs, and a client of docker without an engine is not it."""
    for name in ("dirname", "sed", "git"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    docker.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", ROOT / "deploy" / "container" / "build"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "takes docker, podman or buildah" in done.stderr


def test_the_engine_that_is_here_is_told_all(tmp_path: Path) -> None:
    """Version and revision; the bases that were asked for; the format that has HEALTHCHECK."""
    podman = tmp_path / "podman"
    podman.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    podman.chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", ROOT / "deploy" / "container" / "build", "--pull-never"],
        env={"PATH": "/usr/bin:/bin", "ENGINE": str(podman), "IMAGE": "x:1", "BASE": "b:2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {
        "build",
        f"VERSION={__version__}",
        "BASE=b:2",
        "x:1",
        "--format=docker",
        "--pull-never",
    } <= set(said)
    assert [
        word for word in said if re.fullmatch(r"REVISION=([0-9a-f]{40}(-dirty)?|unknown)", word)
    ]
    assert not [word for word in said if word.startswith("BUILD_BASE=")]
    assert said[-1] == "."
