"""What is released: the wheel and the sdist, what is in them, and what they do on their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exophone_exporter import __version__
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.paths import ROOT
from tests.lib.processes import DEADLINE_SECONDS, config_file, get, run, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = f"exophone_exporter-{__version__}"
LOOPBACK = "--web.listen-address=127.0.0.1:0"
# Documents, flags and the way of each layer: enough to tell that nothing they read is missing.
SOME_TESTS = (
    "shipped/test_architecture.py",
    "shipped/test_docs.py",
    "unit/metrics/test_golden.py",
    "unit/inventory/test_state.py",
)

pytestmark = pytest.mark.end_to_end


@dataclass(frozen=True)
class Released:
    """The two files of a release."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Built as a release is: the sdist from the tree, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel, sdist = folder / f"{NAME}-py3-none-any.whl", folder / f"{NAME}.tar.gz"
    assert sorted(folder.iterdir()) == [wheel, sdist]
    return Released(wheel, sdist)


@pytest.fixture(scope="module")
def installed(released: Released, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment in which nothing but the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--constraint"]
    done = subprocess.run(
        [*pip, ROOT / "constraints.txt", released.wheel],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 120), make_account("beta", 3))) as running:
        yield running


def tracked() -> set[str]:
    """The files of the repository by their paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git of the PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a repository but an unpacked sdist")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


class TestContents:
    def test_the_wheel_is_the_package_and_its_licence(self, released: Released) -> None:
        """With templates, simulator and the mark of types; no test, no cache, nothing else."""
        with zipfile.ZipFile(released.wheel) as wheel:
            names = set(wheel.namelist())
        metadata = {
            f"{NAME}.dist-info/{file}"
            for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
        }
        assert names - metadata == {n for n in tracked() if n.startswith("exophone_exporter/")}
        assert metadata <= names
        assert {
            "exophone_exporter/py.typed",
            "exophone_exporter/web/templates/status.html",
            "exophone_exporter/simulator/server.py",
        } <= names

    def test_the_sdist_is_the_repository(self, released: Released) -> None:
        """Whoever has it can build, test, and read everything; nothing that was made lies in it."""
        with tarfile.open(released.sdist) as sdist:
            names = {name.removeprefix(f"{NAME}/") for name in sdist.getnames()}
        assert names - {"PKG-INFO"} == tracked()
        assert {"LICENSE", "tests/functional/test_packaging.py"} <= names

    def test_the_sdist_runs_its_tests(self, released: Released, tmp_path: Path) -> None:
        """From where it was unpacked, without the repository; all of them are found."""
        with tarfile.open(released.sdist) as sdist:
            sdist.extractall(tmp_path, filter="data")
        unpacked = tmp_path / NAME
        for words in (("--collect-only",), tuple(f"tests/{name}" for name in SOME_TESTS)):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
                cwd=unpacked,
                env={"PYTHONPATH": str(unpacked), "PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2000:]


def alone(installed: Path, name: str = "exophone-exporter") -> Sequence[str]:
    """The program as it was installed, isolated from every path of this tree."""
    return [str(installed / name), *(["-I", "-m", "exophone_exporter"] if name == "python" else [])]


class TestInstalled:
    """In an environment of its own, from a folder of its own."""

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("exophone-exporter", id="the-program"),
            pytest.param("python", id="python-m"),
        ],
    )
    def test_it_says_its_version(self, installed: Path, tmp_path: Path, name: str) -> None:
        ended = run(
            "--version", program=alone(installed, name), cwd=tmp_path, env={"PYTHONPATH": ""}
        )
        assert (ended.code, ended.stdout) == (0, f"exophone-exporter {__version__}\n")

    def test_it_is_not_the_source_tree(self, installed: Path, tmp_path: Path) -> None:
        """What the other tests here say is said of the wheel."""
        found = subprocess.run(
            [installed / "python", "-I", "-c", "import exophone_exporter as e; print(e.__file__)"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(found.stdout.strip()).is_relative_to(installed.parent)

    def test_it_asks_and_prints(
        self, installed: Path, tmp_path: Path, simulator: Simulator
    ) -> None:
        """check-config, once and numbers."""
        ask = _asker(installed, tmp_path)
        file = str(config_file(tmp_path, simulator))
        assert ask("check-config", file).startswith(f"{file}: valid, 2 accounts\n")
        assert 'exophone_up{account="acme"} 1.0\n' in ask("once", "--config.file", file)
        assert ask("numbers", "--config.file", file, "--format=csv").count("\n") == 124

    def test_it_serves(self, installed: Path, tmp_path: Path, simulator: Simulator) -> None:
        """Metrics, and the pages, whose templates came along."""
        file = str(config_file(tmp_path, simulator))
        words = ("--config.file", file, LOOPBACK)
        with started(*words, program=alone(installed), cwd=tmp_path) as running:
            running.wait_for("first poll is complete.*account=acme")
            url = running.url()
            assert 'exophone_up{account="acme"} 1.0\n' in get(f"{url}/metrics")[1]
            for path in ("/", "/docs", "/-/healthy"):
                assert get(url + path)[0] == 200
            assert running.end(seconds=DEADLINE_SECONDS) == 0

    def test_its_demo_answers(self, installed: Path, tmp_path: Path) -> None:
        """The simulator came along, too."""
        with started("demo", LOOPBACK, program=alone(installed), cwd=tmp_path) as running:
            url = running.wait_for(r"Status page +(http://\S+)/", "stdout")[1]
            running.wait_for("first poll is complete")
            assert "exophone_up{" in get(f"{url}/metrics")[1]
            assert running.end(seconds=DEADLINE_SECONDS) == 0


def _asker(installed: Path, folder: Path) -> Callable[..., str]:
    def ask(*words: str) -> str:
        ended = run(*words, program=alone(installed), cwd=folder)
        assert ended.code == 0, ended.stderr
        return ended.stdout

    return ask
