"""The image, built by `make image` and run in containers as a careful operator runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exophone_exporter import __version__
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.containers import BASE, BUILD_BASE, Engine, import_bases, require_containers
from tests.lib.paths import ROOT
from tests.lib.processes import Running, config_file, get, wait_until
from tests.lib.servers import free_address

pytestmark = pytest.mark.end_to_end

NAME = "localhost/exophone-exporter:test"
PYTHON = "/opt/exophone-exporter/bin/python"
OWN_MAX_MB = 70
PATIENCE_SECONDS = 60
# An archive of the sources knows no commit.
COMMIT = r"[0-9a-f]{40}(-dirty)?|unknown"


@dataclass(frozen=True)
class Image:
    """An image and the engine that has it; `about` is what `inspect` says."""

    engine: Engine
    about: dict[str, Any]

    def size_mb(self, name: str = NAME) -> float:
        return int(self.engine.do("image", "inspect", "--format={{.Size}}", name)) / 1e6

    def healthy(self, container: str, address: str) -> bool:
        host, _, port = address.partition(":")
        _, *words = self.about["Healthcheck"]["Test"]
        check = words[-1].replace("localhost", host).replace("10396", port)
        assert check != words[-1]
        return self.engine.try_("exec", container, *words[:-1], check).returncode == 0

    def pid(self, container: str) -> int:
        """Process 1 of a container, as this machine counts it."""
        return int(self.engine.do("inspect", "--format={{.State.Pid}}", container))


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    require_containers()
    # Podman wants a path of at most 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman", ignore_cleanup_errors=True) as folder:
        engine = Engine(Path(folder))
        import_bases(engine)
        engine.make_image(NAME)
        yield Image(engine, json.loads(engine.do("image", "inspect", NAME))[0])
        engine.do("rmi", "--all", "--force")


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def scraped(running: Running, pattern: str) -> bool:
    return re.search(pattern, get(f"{running.url()}/metrics")[1], re.MULTILINE) is not None


def test_size_and_layers(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """One layer on the base; its size is printed and bounded."""
    layers = len(image.about["RootFS"]["Layers"])
    whole, base, build = (image.size_mb(name) for name in (NAME, BASE, BUILD_BASE))
    with capsys.disabled():
        told = f"{whole:.0f} MB in {layers} layers, {whole - base:.0f} MB of it ours"
        print(f"\nimage: {told}; built on {build:.0f} MB")  # noqa: T201 - for the log of CI
    assert layers == 2
    assert 10 < whole - base < OWN_MAX_MB


def test_what_it_says_of_itself(image: Image) -> None:
    """Labels of OCI, the port, a numeric user, and words that need no shell."""
    labels, config = image.about["Labels"], image.about["Config"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(COMMIT, labels["org.opencontainers.image.revision"])
    assert re.match(r"20[0-9]{2}-|unknown", labels["org.opencontainers.image.created"])
    assert config["User"] == "65532:65532"
    assert list(config["ExposedPorts"]) == ["10396/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/opt/exophone-exporter/bin/exophone-exporter"]
    assert image.about["Healthcheck"]["Test"][:2] == ["CMD", PYTHON]


def test_it_has_what_runs_and_no_more(image: Image) -> None:
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    listed = image.engine.run(NAME, "-c", script, entrypoint=PYTHON)
    found = {normal(name): version for name, version in json.loads(listed.stdout).items()}
    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split()]
    assert found.pop("exophone-exporter") == __version__
    assert len(found) > 20
    assert found.items() <= {normal(name): version for name, version in pins}.items()
    assert not {"pip", "hatchling", "pytest"} & set(found)


def normal(name: str) -> str:
    """A project's name as all of its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_there_is_no_shell(image: Image, shell: str) -> None:
    """So nothing of what the other tests see can have needed one."""
    done = image.engine.run(NAME, "-c", ":", entrypoint=f"/bin/{shell}")
    assert done.returncode == 127, done.stderr


def test_without_an_account_it_says_what_to_do(image: Image) -> None:
    done = image.engine.run(NAME)
    assert done.returncode == 2
    assert "EXOTEL_ACCOUNT_SID" in done.stderr
    assert "demo" in done.stderr


def test_the_demo_serves_and_ends(image: Image) -> None:
    """As nobody, without a capability, on a root that nobody can write; SIGTERM ends it with 0."""
    address = free_address()
    with image.engine.running(NAME, "demo", f"--web.listen-address={address}") as (name, running):
        wait_until(lambda: "Press Ctrl-C to stop" in running.stdout, "the banner", PATIENCE_SECONDS)
        metrics = f"http://{address}/metrics"
        wait_until(lambda: "\nexophone_up{" in get(metrics)[1], "metrics", PATIENCE_SECONDS)
        status = status_of(image.pid(name))
        assert status["Uid"].split() == ["65532"] * 4
        assert status["NSpid"].split()[-1] == "1"
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert "ro" in root_mount(image.pid(name))
        image.engine.do("stop", f"--time={PATIENCE_SECONDS}", name)
        assert running.code(PATIENCE_SECONDS) == 0


def root_mount(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text("utf-8").splitlines()
    (root,) = [fields for line in lines if (fields := line.split())[4] == "/"]
    return root[5].split(",")


def test_it_watches_an_account(image: Image, tmp_path: Path) -> None:
    """A mounted configuration is read; the commit that was built is on /metrics."""
    with Simulator(World(make_account("acme", 120))) as sim:
        file = config_file(tmp_path, sim)
        file.chmod(0o644)
        mount = f"--volume={file}:/etc/exophone-exporter/config.yaml:ro"
        words = ["--config.file=/etc/exophone-exporter/config.yaml"]
        words.append(f"--web.listen-address={free_address()}")
        with image.engine.running(NAME, *words, options=(mount,)) as (name, running):
            first = "first poll is complete.*account=acme"
            wait_until(lambda: re.search(first, running.stderr), "a poll", PATIENCE_SECONDS)
            assert scraped(running, r'^exophone_up\{account="acme"\} 1\.0$')
            revision = image.about["Labels"]["org.opencontainers.image.revision"]
            assert scraped(running, rf'^exophone_exporter_build_info\{{.*revision="{revision}"')
            image.engine.do("kill", "--signal=TERM", name)
            assert running.code(PATIENCE_SECONDS) == 0
            assert "msg=stopping signal=SIGTERM" in running.stderr


def test_health_follows_the_exporter(image: Image) -> None:
    """Not while it hangs; healthy again when it goes on."""
    address = free_address()
    words = ("demo", f"--web.listen-address={address}")
    with image.engine.running(NAME, *words) as (name, running):
        wait_until(lambda: "first poll" in running.stderr, "a poll", PATIENCE_SECONDS)
        assert image.healthy(name, address)
        os.kill(image.pid(name), signal.SIGSTOP)
        assert not image.healthy(name, address)
        os.kill(image.pid(name), signal.SIGCONT)
        wait_until(lambda: image.healthy(name, address), "health", PATIENCE_SECONDS)
