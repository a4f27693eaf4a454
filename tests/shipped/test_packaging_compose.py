"""The compose file: valid, hardened, and made of files that are there and know each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.lib.paths import ROOT
from tests.lib.processes import wait_until
from tests.lib.servers import alertmanager, prometheus

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["services"]

each_service = pytest.mark.parametrize("name", SERVICES)


def mounts(name: str) -> dict[str, Path]:
    """The folders of the repository that a service sees, by where it sees them."""
    found = {}
    for volume in SERVICES[name].get("volumes", ()):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"], volume
            found[target] = (FOLDER / source).resolve()
    return found


def as_mounted(name: str, path: str) -> Path:
    """The file of the repository that a service sees at a path."""
    (own,) = [
        folder / Path(path).relative_to(target)
        for target, folder in mounts(name).items()
        if Path(path).is_relative_to(target)
    ]
    return own


def flag(name: str, flag_name: str) -> str:
    """The value of a flag in the command of a service."""
    prefix = f"--{flag_name}="
    (value,) = [w.removeprefix(prefix) for w in SERVICES[name]["command"] if w.startswith(prefix)]
    return str(value)


def test_it_is_a_compose_file() -> None:
    """As the schema of the Compose Specification has it."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema=vendor.compose-spec", FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@each_service
def test_what_is_mounted_is_there(name: str) -> None:
    """Docker makes an empty folder of a path that is missing, and the service has no settings."""
    for folder in mounts(name).values():
        assert any(folder.iterdir())
        assert folder.is_relative_to(ROOT)


@each_service
def test_a_service_can_do_little(name: str) -> None:
    """A root that cannot be written, no capability, and none to gain."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


@each_service
def test_only_this_machine_reaches_it(name: str) -> None:
    """Every port is on loopback, and the port inside is the same."""
    for port in SERVICES[name].get("ports", ()):
        address, outside, inside = port.split(":")
        assert (address, outside) == ("127.0.0.1", inside)


@each_service
def test_an_image_cannot_change_unseen(name: str) -> None:
    """A version for people and a digest, but for our own, which is built from this tree."""
    image = SERVICES[name]["image"]
    if name == "exporter":
        assert (FOLDER / SERVICES[name]["build"]).resolve() == ROOT
    else:
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", image)


@each_service
def test_health_is_asked_without_a_shell(name: str) -> None:
    """In exec form; our own image brings its check along."""
    if name == "exporter":
        assert "healthcheck" not in SERVICES[name]
        assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text("utf-8")
    else:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_variables_are_those_of_the_example() -> None:
    """Whoever fills .env.example in has set all that the exporter and Grafana want."""
    text = FILE.read_text("utf-8")
    wanted = set(re.findall(r"\$\{([A-Z_]+)", text)) | set(SERVICES["exporter"]["environment"])
    example = (FOLDER / ".env.example").read_text("utf-8")
    offered = re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)
    assert set(offered) == wanted - {"EXOPHONE_IMAGE"}
    assert "EXOPHONE_COMMAND=serve\n" in example
    assert "/deploy/compose/.env" in (ROOT / ".gitignore").read_text("utf-8").split()


def test_prometheus_finds_its_neighbours() -> None:
    """On localhost, as its own file has it: who listens there is in its network."""
    config = yaml.safe_load(
        as_mounted("prometheus", flag("prometheus", "config.file")).read_text("utf-8")
    )
    (job,) = config["scrape_configs"]
    (manager,) = config["alerting"]["alertmanagers"]
    groups = (*job["static_configs"], *manager["static_configs"])
    targets = {target for group in groups for target in group["targets"]}
    assert targets == {"localhost:10396", "localhost:9093"}
    for name in ("exporter", "alertmanager"):
        assert SERVICES[name]["network_mode"] == "service:prometheus"
    published = {port.split(":")[2] for port in SERVICES["prometheus"]["ports"]}
    assert published == {"9090", "9093", "10396"}


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    """The address of the data source is a service's; the folder of the dashboards is mounted."""
    provisioning = mounts("grafana")["/etc/grafana/provisioning"]
    sources = yaml.safe_load((provisioning / "datasources" / "exophone.yml").read_text("utf-8"))
    (source,) = sources["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES
    assert urlsplit(source["url"]).port == 9090
    providers = yaml.safe_load((provisioning / "dashboards" / "exophone.yml").read_text("utf-8"))
    (provider,) = providers["providers"]
    assert list(as_mounted("grafana", provider["options"]["path"]).glob("*.json"))
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert as_mounted("grafana", home).exists()


@pytest.mark.end_to_end
def test_the_files_as_mounted_are_accepted(program: Callable[[str], str]) -> None:
    """By Prometheus and by Alertmanager."""
    file = as_mounted("prometheus", flag("prometheus", "config.file"))
    checked = subprocess.run(
        [program("promtool"), "check", "config", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "1 rule files found" in checked.stdout
    file = as_mounted("alertmanager", flag("alertmanager", "config.file"))
    checked = subprocess.run(
        [program("amtool"), "check-config", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def check_health(name: str, program: Callable[[str], str], url: str) -> bool:
    """Run the health check of a service, by its own program, against another address."""
    _, command, *words = SERVICES[name]["healthcheck"]["test"]
    asked = [re.sub(r"http://localhost:\d+", url, word) for word in words]
    assert asked != words
    return (
        subprocess.run([program(command), *asked], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.end_to_end
def test_health_checks_tell_up_from_down(program: Callable[[str], str], tmp_path: Path) -> None:
    """Each is right about a server that runs, and about one that has ended."""
    with prometheus(program("prometheus"), tmp_path, "scrape_configs: []") as running:
        wait_until(lambda: check_health("prometheus", program, running.url), "health", 30)
    assert not check_health("prometheus", program, running.url)
    configuration = (ROOT / "prometheus" / "alertmanager.yml").read_text("utf-8")
    name = "prometheus-alertmanager"
    with alertmanager(program(name), tmp_path, configuration) as manager:
        assert check_health("alertmanager", program, manager.url)
    assert not check_health("alertmanager", program, manager.url)
