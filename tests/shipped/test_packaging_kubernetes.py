"""The manifests as kustomize builds them: valid in old and new Kubernetes, and restricted."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from exophone_exporter import __version__
from exophone_exporter.config import loader
from tests.lib.manifests import Resource, check_fields
from tests.lib.paths import ROOT
from tests.lib.processes import output_of

KUBERNETES = ROOT / "deploy" / "kubernetes"

pytestmark = pytest.mark.end_to_end

Resources = list[Resource]


@pytest.fixture(scope="module")
def every(program: Callable[[str], str]) -> Resources:
    built = output_of(program("kustomize"), "build", KUBERNETES / "operator")
    return [*yaml.safe_load_all(built)]


@pytest.fixture
def one(every: Resources) -> Mapping[str, dict[str, Any]]:
    return {
        resource["kind"]: resource
        for resource in every
        if "dashboard" not in resource["metadata"]["name"]
    }


@pytest.fixture
def pod(one: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = one["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return dict(only)


@pytest.mark.parametrize(
    ("overlay", "scraped_by"),
    [
        ("operator", "ServiceMonitor"),
        ("podmonitor", "PodMonitor"),
        ("scrapeconfig", "ScrapeConfig"),
    ],
)
def test_each_overlay_is_valid_and_scrapes_once(
    program: Callable[[str], str], every: Resources, overlay: str, scraped_by: str
) -> None:
    """The alternatives differ from the operator's in that one resource."""
    built = output_of(program("kustomize"), "build", KUBERNETES / overlay)
    resources = [*yaml.safe_load_all(built)]
    check_fields(program, resources)
    (scraping,) = (each for each in resources if each not in every or each["kind"] == scraped_by)
    assert scraping["kind"] == scraped_by
    endpoints = scraping["spec"].get("endpoints") or scraping["spec"].get("podMetricsEndpoints")
    assert all(each["honorLabels"] for each in endpoints or [scraping["spec"]])
    assert len(resources) == len(every)


def test_the_pod_is_restricted(
    one: Mapping[str, dict[str, Any]], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """As the Pod Security Standards' profile `restricted` asks; no token, no second pod."""
    labels = one["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    of_pod = pod["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] == of_pod["runAsGroup"] == 65532
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert all({"configMap", "secret"} & set(volume) for volume in pod["volumes"])
    assert "USER 65532:65532\n" in (ROOT / "Dockerfile").read_text("utf-8")
    assert pod["automountServiceAccountToken"] is False
    assert one["ServiceAccount"]["automountServiceAccountToken"] is False
    assert one["Deployment"]["spec"]["replicas"] == 1
    assert one["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_everything_finds_its_pod(
    one: Mapping[str, dict[str, Any]], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """Selectors and ports agree, and what the pod mounts is made or documented."""
    labels = one["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert one["Service"]["spec"]["selector"] == labels
    assert one["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    selected = one["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= one["Service"]["metadata"]["labels"].items()
    assert pod["serviceAccountName"] == one["ServiceAccount"]["metadata"]["name"]
    for ports in (container["ports"], one["Service"]["spec"]["ports"]):
        assert [port["name"] for port in ports] == ["http"]
    assert [e["port"] for e in one["ServiceMonitor"]["spec"]["endpoints"]] == ["http"]
    config_map, secret = pod["volumes"]
    assert config_map["configMap"]["name"] == one["ConfigMap"]["metadata"]["name"]
    documented = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    assert f"create secret generic {secret['secret']['secretName']} " in documented


def test_the_probes_ask_what_does_not_depend_on_the_api(container: dict[str, Any]) -> None:
    for probe, path in (
        ("startupProbe", "/-/healthy"),
        ("livenessProbe", "/-/healthy"),
        ("readinessProbe", "/-/ready"),
    ):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}


def test_the_exporter_accepts_its_configuration(
    one: Mapping[str, dict[str, Any]], container: dict[str, Any], tmp_path: Path
) -> None:
    """As soon as the Secret is there; the arguments name the file, the image this version."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert f"--config.file={mounts['config']}/config.yaml" in container["args"]
    for name in ("api-key", "api-token"):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
        (tmp_path / name).chmod(0o440)
    text = one["ConfigMap"]["data"]["config.yaml"]
    assert text.count(mounts["exotel"] + "/") == 2
    loaded = loader.parse(text.replace(mounts["exotel"], str(tmp_path)), "config.yaml", {})
    assert [account.name for account in loaded.accounts] == ["support"]
    assert container["image"] == f"registry.example.com/exophone-exporter:{__version__}"


def test_the_sidecar_finds_every_dashboard(every: Resources) -> None:
    files = {path.name for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    maps = [r for r in every if r["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    assert {name for resource in maps for name in resource["data"]} == files
    assert {resource["metadata"]["annotations"]["grafana_folder"] for resource in maps} == {
        "ExoPhones"
    }


def test_the_network_lets_scrapes_in_and_dns_and_https_out(
    one: Mapping[str, dict[str, Any]],
) -> None:
    spec = one["NetworkPolicy"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert all("namespaceSelector" in peer for rule in spec["ingress"] for peer in rule["from"])
    dns, openshift, api = spec["egress"]
    assert "to" not in dns
    assert {port["port"] for port in dns["ports"]} == {53}
    assert openshift["to"] == [{"namespaceSelector": {}}]
    assert {port["port"] for port in openshift["ports"]} == {5353}
    assert [port["port"] for port in api["ports"]] == [443]
    assert any("169.254.0.0/16" in peer["ipBlock"]["except"] for peer in api["to"])


def test_the_base_needs_no_operator(program: Callable[[str], str]) -> None:
    built = output_of(program("kustomize"), "build", KUBERNETES / "base")
    groups = {resource["apiVersion"] for resource in yaml.safe_load_all(built)}
    assert groups == {"v1", "apps/v1", "networking.k8s.io/v1"}


def test_the_documented_patch_keeps_passwords_out_of_probes(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    (patch,) = re.findall(r"  ```yaml\n(  # a patch of the Deployment\n.*?)  ```", text, re.DOTALL)
    shutil.copytree(KUBERNETES / "base", tmp_path / "base")
    wanted = {"resources": ["base"], "patches": [{"patch": textwrap.dedent(patch)}]}
    (tmp_path / "kustomization.yaml").write_text(yaml.dump(wanted), "utf-8")
    built = yaml.safe_load_all(output_of(program("kustomize"), "build", tmp_path))
    (pod,) = (r["spec"]["template"]["spec"] for r in built if r["kind"] == "Deployment")
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = pod["containers"][0][name]
        assert probe["tcpSocket"] == {"port": "http"}
        assert "httpGet" not in probe
