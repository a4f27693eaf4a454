"""What is released: the wheel and the sdist, what is in them, and what they do on their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exophone_exporter import __version__
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.paths import ROOT
from tests.lib.processes import (
    DEADLINE_SECONDS,
    LOOPBACK,
    config_file,
    get,
    output_of,
    run,
    started,
)

NAME = f"exophone_exporter-{__version__}"
# Documents, flags and each layer: enough to see that no file they read is missing.
SOME_TESTS = (
    "shipped/test_architecture.py",
    "shipped/test_docs.py",
    "unit/metrics/test_golden.py",
    "unit/inventory/test_state.py",
)

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, built as a release is: the sdist from the tree, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    output_of(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    wheel, sdist = folder / f"{NAME}-py3-none-any.whl", folder / f"{NAME}.tar.gz"
    assert sorted(folder.iterdir()) == [wheel, sdist]
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(released: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel alone, as docs/installing.md says."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    output_of(*pip, "--require-hashes", "-r", ROOT / "requirements.txt")
    output_of(*pip, "--no-deps", released[0])
    return folder / "bin"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 120), make_account("beta", 3))) as running:
        yield running


def tracked() -> set[str]:
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


def test_the_wheel_is_the_package_and_its_licence(released: tuple[Path, Path]) -> None:
    """With templates, simulator and the mark of types; no test, no cache, nothing else."""
    with zipfile.ZipFile(released[0]) as wheel:
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


def test_the_sdist_is_the_repository(released: tuple[Path, Path]) -> None:
    with tarfile.open(released[1]) as sdist:
        names = {name.removeprefix(f"{NAME}/") for name in sdist.getnames()}
    assert names - {"PKG-INFO"} == tracked()
    assert {"LICENSE", "tests/functional/test_packaging.py"} <= names


def test_the_sdist_runs_its_tests(released: tuple[Path, Path], tmp_path: Path) -> None:
    """From where it was unpacked, without the repository; all of them are found."""
    with tarfile.open(released[1]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    unpacked = tmp_path / NAME
    env = {"PYTHONPATH": str(unpacked), "PATH": os.environ["PATH"]}
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    output_of(*pytest_, "--collect-only", cwd=unpacked, env=env)
    output_of(*pytest_, *(f"tests/{name}" for name in SOME_TESTS), cwd=unpacked, env=env)


class TestInstalled:
    """In an environment of its own, from a folder of its own."""

    @pytest.fixture
    def ask(self, installed: Path, tmp_path: Path) -> Callable[..., str]:
        def asked(*words: str, program: str = "exophone-exporter") -> str:
            alone = [str(installed / program), *(["-I", "-m"] if program == "python" else [])]
            ended = run(*words, program=alone, cwd=tmp_path, env={"PYTHONPATH": ""})
            assert ended.code == 0, ended.stderr
            return ended.stdout

        return asked

    def test_it_says_its_version(self, ask: Callable[..., str], installed: Path) -> None:
        version = f"exophone-exporter {__version__}\n"
        assert ask("--version") == ask("exophone_exporter", "--version", program="python")
        assert ask("--version") == version
        (installed.parent / "where.py").write_text(
            "import exophone_exporter as e; print(e.__file__)"
        )
        where = output_of(installed / "python", "-I", installed.parent / "where.py").strip()
        assert Path(where).is_relative_to(installed.parent)

    def test_it_asks_and_prints(
        self, ask: Callable[..., str], tmp_path: Path, simulator: Simulator
    ) -> None:
        file = str(config_file(tmp_path, simulator))
        assert ask("check-config", file).startswith(f"{file}: valid, 2 accounts\n")
        assert 'exophone_up{account="acme"} 1.0\n' in ask("once", "--config.file", file)
        assert ask("numbers", "--config.file", file, "--format=csv").count("\n") == 124

    def test_it_serves(self, installed: Path, tmp_path: Path, simulator: Simulator) -> None:
        """Metrics, and the pages, whose templates are in the wheel."""
        words = ("--config.file", str(config_file(tmp_path, simulator)), LOOPBACK)
        program = [str(installed / "exophone-exporter")]
        with started(*words, program=program, cwd=tmp_path) as running:
            running.wait_for("first poll is complete.*account=acme")
            url = running.url()
            assert 'exophone_up{account="acme"} 1.0\n' in get(f"{url}/metrics")[1]
            for path in ("/", "/docs", "/-/healthy"):
                assert get(url + path)[0] == 200
            assert running.end(seconds=DEADLINE_SECONDS) == 0

    def test_its_demo_answers(self, installed: Path, tmp_path: Path) -> None:
        program = [str(installed / "exophone-exporter")]
        with started("demo", LOOPBACK, program=program, cwd=tmp_path) as running:
            url = running.wait_for(r"Status page +(http://\S+)/", "stdout")[1]
            running.wait_for("first poll is complete")
            assert "exophone_up{" in get(f"{url}/metrics")[1]
            assert running.end(seconds=DEADLINE_SECONDS) == 0
