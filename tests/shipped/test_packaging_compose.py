"""The compose file: valid, hardened, and its files are there and agree with each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.lib.paths import ROOT
from tests.lib.processes import BIN, ended, output_of, wait_until
from tests.lib.servers import alertmanager, prometheus

FOLDER = ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
TOOLS = ROOT / "tests" / "lib" / "tools"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["services"]


def as_mounted(name: str, path: str) -> Path:
    for volume in SERVICES[name]["volumes"]:
        source, target, *mode = volume.split(":")
        if Path(path).is_relative_to(target):
            assert mode == ["ro"]
            return FOLDER.joinpath(source, Path(path).relative_to(target)).resolve()
    raise AssertionError(f"{name} sees nothing at {path}")


def test_it_is_a_compose_file() -> None:
    output_of(BIN / "check-jsonschema", "--builtin-schema=vendor.compose-spec", FILE)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_can_do_little_and_is_reached_from_this_machine_only(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add"} & set(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_images_are_of_the_versions_that_are_tested() -> None:
    """Prometheus 3.16.0 is version 0.316.0 of its Go module. Grafana was tried by hand."""
    images = {name: SERVICES[name]["image"] for name in SERVICES if name != "exporter"}
    for name, folder in (("prometheus", TOOLS), ("alertmanager", TOOLS / "alertmanager")):
        module = (folder / "go.mod").read_text("utf-8")
        (version,) = re.findall(rf"github.com/prometheus/{name} v(\S+)", module)
        released = version.replace("0.3", "3.", 1) if name == "prometheus" else version
        assert images.pop(name) == f"prom/{name}:v{released}"
    assert images == {"grafana": "grafana/grafana:12.3.3"}


def test_example_has_every_variable() -> None:
    text = FILE.read_text("utf-8")
    wanted = set(re.findall(r"\$\{([A-Z_]+)", text)) | set(SERVICES["exporter"]["environment"])
    example = (FOLDER / ".env.example").read_text("utf-8")
    offered = re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)
    assert set(offered) == wanted - {"EXOPHONE_IMAGE"}
    assert "EXOPHONE_COMMAND=serve\n" in example
    assert "/deploy/compose/.env" in (ROOT / ".gitignore").read_text("utf-8").split()


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_a_service_reads_the_configuration_that_is_shipped(name: str) -> None:
    """It is checked in test_rules.py, and finds its neighbours on localhost."""
    (path,) = re.findall(r"--config\.file=(\S+)'", str(SERVICES[name]["command"]))
    assert as_mounted(name, path) == ROOT / "prometheus" / f"{name}.yml"
    for neighbour in ("exporter", "alertmanager"):
        assert SERVICES[neighbour]["network_mode"] == "service:prometheus"
    ports = {port.split(":")[2] for port in SERVICES["prometheus"]["ports"]}
    assert ports == {"9090", "9093", "10396"}


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = as_mounted("grafana", "/etc/grafana/provisioning")
    sources = yaml.safe_load((provisioning / "datasources" / "exophone.yml").read_text("utf-8"))
    (source,) = sources["datasources"]
    assert urlsplit(source["url"]).netloc == "prometheus:9090"
    providers = yaml.safe_load((provisioning / "dashboards" / "exophone.yml").read_text("utf-8"))
    (provider,) = providers["providers"]
    assert list(as_mounted("grafana", provider["options"]["path"]).glob("*.json"))
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert as_mounted("grafana", home).exists()


def check_health(name: str, program: Callable[[str], str], url: str) -> bool:
    _, command, *words = SERVICES[name]["healthcheck"]["test"]
    asked = [re.sub(r"http://localhost:\d+", url, word) for word in words]
    assert asked != words
    return ended(program(command), *asked).code == 0


@pytest.mark.end_to_end
def test_health_checks_tell_up_from_down(program: Callable[[str], str], tmp_path: Path) -> None:
    with prometheus(program("prometheus"), tmp_path, "scrape_configs: []") as running:
        wait_until(lambda: check_health("prometheus", program, running.url), "health", 30)
    assert not check_health("prometheus", program, running.url)
    configuration = (ROOT / "prometheus" / "alertmanager.yml").read_text("utf-8")
    with alertmanager(program("alertmanager"), tmp_path, configuration) as manager:
        assert check_health("alertmanager", program, manager.url)
    assert not check_health("alertmanager", program, manager.url)
