"""Containers that really run, on a base that is made of this machine's own Debian.

Nothing comes from a registry of images: debootstrap makes the base, podman builds on it and runs
the result. What was bootstrapped is kept in the user's cache folder; images and containers are not.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.paths import ROOT
from tests.lib.processes import Running

BUILD_BASE = "localhost/exophone-build-base"
BASE = "localhost/exophone-base"
_PROGRAMS = ("podman", "runc", "debootstrap", "make", "tar")
_DEADLINE_SECONDS = 600
# What no image needs; and what one that only runs the exporter has no use for.
_NEVER = ("dev/*", "proc/*", "var/cache", "var/lib/apt", "usr/share/doc", "usr/share/locale")
_NOT_TO_RUN = (
    *("bin/*sh", "usr/bin/*sh", "usr/bin/perl*", "usr/bin/apt*", "usr/bin/dpkg*"),
    *("usr/lib/*/perl*", "usr/share/perl*", "usr/lib/apt", "usr/lib/*/libapt*", "usr/share/man"),
    *("usr/lib/python3*/ensurepip", "usr/share/python-wheels", "usr/lib/python3/dist-packages"),
)


def require_containers() -> None:
    """Skip the test where images can be neither made nor run, or fail if that is asked for."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    problem = f"{', '.join(missing)} missing" if missing else ""
    if not problem and os.geteuid() != 0:
        problem = "debootstrap needs root"
    if problem and os.environ.get("EXOPHONE_REQUIRE_IMAGE"):
        pytest.fail(f"the image cannot be built: {problem}; EXOPHONE_REQUIRE_IMAGE asks for it")
    if problem:
        pytest.skip(f"the image is not built here: {problem}")


class Engine:
    def __init__(self, folder: Path) -> None:
        # cgroupfs and runc work without systemd.
        places = ["--root", str(folder / "store"), "--runroot", str(folder / "run")]
        kinds = ["--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=none"]
        self.words = ["podman", *places, *kinds, "--log-level=fatal"]
        # An overlay is fast; it cannot be on top of another one, as in a container.
        if self.try_("--storage-driver=overlay", "info").returncode == 0:
            self.words.append("--storage-driver=overlay")
        else:
            self.words.append("--storage-driver=vfs")

    def do(self, *words: str) -> str:
        done = self.try_(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def try_(self, *words: str) -> subprocess.CompletedProcess[str]:
        return _run([*self.words, *words])

    def make_image(self, image: str) -> str:
        """`make image` on the bases; what it says."""
        # chroot: a build needs no container. The certificates: some networks have their own.
        flags = "--isolation=chroot --volume=/etc/ssl/certs:/etc/ssl/certs:ro --pull-never"
        words = [f"ENGINE={' '.join(self.words)}", f"IMAGE={image}", f"BASE={BASE}"]
        done = _run(["make", "image", *words, f"BUILD_BASE={BUILD_BASE}", f"BUILD_FLAGS={flags}"])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(
        self, image: str, *words: str, options: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, Running]]:
        """A container's name and its process 1, started as a careful operator would.

        Read-only, without capabilities, in namespaces of its own but for the network.
        """
        hardened = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--network=host"]
        hardened += ["--security-opt=no-new-privileges", "--health-interval=disable"]
        # Limits below those of the machine: to raise them takes a capability that root may lack.
        hardened += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        name = self.do("create", *hardened, *options, image, *words).strip()
        process = subprocess.Popen(
            [*self.words, "start", "--attach", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield name, Running(process)
        finally:
            self.try_("rm", "--force", "--time=0", name)
            process.wait(_DEADLINE_SECONDS)

    def run(
        self, image: str, *words: str, entrypoint: str = ""
    ) -> subprocess.CompletedProcess[str]:
        flags = ["--rm", "--network=none", "--no-healthcheck", "--ulimit=nofile=1024:1024"]
        flags += ["--ulimit=nproc=64:64", *([f"--entrypoint={entrypoint}"] if entrypoint else ())]
        return self.try_("run", *flags, image, *words)


def import_bases(engine: Engine) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exophone-exporter"
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    files = {
        name: cache / f"{codename}-{platform.machine()}-{kind}.tar"
        for name, kind in ((BUILD_BASE, "build"), (BASE, "run"))
    }
    if not all(file.exists() for file in files.values()):
        cache.mkdir(parents=True, exist_ok=True)
        _bootstrap(codename, files[BUILD_BASE], files[BASE])
    for name, file in files.items():
        engine.do("import", "--quiet", str(file), name)


def _bootstrap(codename: str, to_build: Path, to_run: Path) -> None:
    with tempfile.TemporaryDirectory(dir=to_build.parent) as scratch:
        tree = Path(scratch) / "tree"
        include = "--include=python3-venv,ca-certificates"
        made = _run(["debootstrap", "--variant=minbase", include, codename, str(tree), _mirror()])
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr
        for file, left_out in ((to_run, (*_NEVER, *_NOT_TO_RUN)), (to_build, _NEVER)):
            packed = Path(scratch) / file.name
            excluded = [f"--exclude=./{pattern}" for pattern in left_out]
            done = _run(["tar", "-C", str(tree), *excluded, "-cf", str(packed), "."])
            assert done.returncode == 0, done.stderr
            packed.rename(file)  # whole, or not at all


def _mirror() -> str:
    """Where this machine has its own packages from."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"]
    return _run([*targets, "Component: main"]).stdout.split()[0]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=_DEADLINE_SECONDS,
    )
