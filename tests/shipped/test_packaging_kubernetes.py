"""The manifests: valid in old and new Kubernetes, restricted, and of one piece."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from exophone_exporter import __version__
from exophone_exporter.config import loader
from exophone_exporter.metrics.catalog import METRICS
from tests.lib.kustomize import build
from tests.lib.paths import ROOT
from tests.lib.processes import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KUBERNETES = ROOT / "deploy" / "kubernetes"
NODE = ROOT / "tests" / "lib" / "kubernetes"
ALL = build(KUBERNETES / "operator")
OF_THE_OPERATOR = [r for r in ALL if r["apiVersion"].startswith("monitoring.coreos.com/")]
# What kubectl apply keeps of a resource in an annotation of it.
LAST_APPLIED_MAX_BYTES = 262_144
# The labels that the operator gives every target of a ServiceMonitor.
OF_THE_TARGET = {"namespace", "service", "pod", "container", "endpoint", "node", "job", "instance"}


def the(kind: str) -> dict[str, Any]:
    """The only resource of a kind."""
    (found,) = [resource for resource in ALL if resource["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = the("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


def named(resource: dict[str, Any]) -> str:
    return f"{resource['kind']}/{resource['metadata']['name']}"


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("resource", [r for r in ALL if r not in OF_THE_OPERATOR], ids=named)
def test_kubernetes_knows_every_field(resource: dict[str, Any], version: str) -> None:
    """Strictly by its schemas, of an old and a new version; the operator's own come below."""
    kubernetes_validate.validate(resource, version, strict=True)


def test_a_field_that_is_none_is_found() -> None:
    """The schemas do tell a slip."""
    service = the("Service")
    wrong = service | {"spec": service["spec"] | {"publishNotReady": True}}
    with pytest.raises(kubernetes_validate.ValidationError, match="publishNotReady"):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def check_operator(program: Callable[[str], str], *resources: Any) -> tuple[int, str]:
    """What the schemas and types of the operator say."""
    if not (NODE / "node_modules" / ".package-lock.json").exists():
        problem = "not installed; run: npm ci --prefix tests/lib/kubernetes"
        pytest.fail(problem) if os.environ.get("EXOPHONE_REQUIRE_END_TO_END") else pytest.skip(
            problem
        )
    done = subprocess.run(
        [program("node"), NODE / "check.mjs"],
        input=json.dumps(resources),
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.end_to_end
def test_the_operator_knows_every_field(program: Callable[[str], str]) -> None:
    """By the schemas of its definitions, and by the types made from them; and it tells a slip."""
    monitor = the("ServiceMonitor")
    assert len(OF_THE_OPERATOR) == 2
    assert check_operator(program, *OF_THE_OPERATOR) == (0, "2 resources checked, 0 problems\n")
    (endpoint,) = monitor["spec"]["endpoints"]
    spec = monitor["spec"] | {"endpoints": [endpoint | {"intervall": "1m", "interval": "1 m"}]}
    code, said = check_operator(program, monitor | {"spec": spec})
    assert code == 1
    assert "'\"intervall\"' does not exist" in said
    assert "interval must match pattern" in said


def test_the_pod_is_restricted() -> None:
    """What the Pod Security Standards ask of the profile `restricted`, and a read-only root."""
    labels = the("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    own, of_pod = container()["securityContext"], pod()["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] == of_pod["runAsGroup"] == 65532
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod())
    assert all({"configMap", "secret"} & set(volume) for volume in pod()["volumes"])
    assert "USER 65532:65532\n" in (ROOT / "Dockerfile").read_text("utf-8")


def test_the_pod_gets_no_token_and_no_twin() -> None:
    """Nothing here speaks to Kubernetes; two pods would spend an account's requests twice."""
    assert pod()["automountServiceAccountToken"] is False
    assert the("ServiceAccount")["automountServiceAccountToken"] is False
    assert pod()["serviceAccountName"] == the("ServiceAccount")["metadata"]["name"]
    assert the("Deployment")["spec"]["replicas"] == 1
    assert the("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_everything_finds_its_pod() -> None:
    """Selectors and ports agree, and what the pod mounts is made or told."""
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert the("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert the("Service")["spec"]["selector"] == labels
    assert the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    selected = the("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= the("Service")["metadata"]["labels"].items()
    assert [port["name"] for port in container()["ports"]] == ["http"]
    assert [port["name"] for port in the("Service")["spec"]["ports"]] == ["http"]
    assert [e["port"] for e in the("ServiceMonitor")["spec"]["endpoints"]] == ["http"]
    maps = {r["metadata"]["name"]: r for r in ALL if r["kind"] == "ConfigMap"}
    config_map, secret = pod()["volumes"]
    assert "config.yaml" in maps[config_map["configMap"]["name"]]["data"]
    told = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    assert f"create secret generic {secret['secret']['secretName']} " in told


def test_one_namespace_holds_it_all() -> None:
    """The one that is made here."""
    name = the("Namespace")["metadata"]["name"]
    own = [resource for resource in ALL if resource["kind"] != "Namespace"]
    assert {resource["metadata"]["namespace"] for resource in own} == {name}


def test_the_probes_ask_what_is_served() -> None:
    """Paths that the exporter has, none of which depends on the API."""
    for probe, path in (
        ("startupProbe", "/-/healthy"),
        ("livenessProbe", "/-/healthy"),
        ("readinessProbe", "/-/ready"),
    ):
        assert container()[probe]["httpGet"] == {"path": path, "port": "http"}


def test_the_configuration_is_right(tmp_path: Path) -> None:
    """The exporter accepts it as soon as the Secret is there, and its arguments name it."""
    (maps,) = [
        r for r in ALL if r["kind"] == "ConfigMap" and r["metadata"]["name"] == "exophone-exporter"
    ]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert f"--config.file={mounts['config']}/config.yaml" in container()["args"]
    for name in ("api-key", "api-token"):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
        (tmp_path / name).chmod(0o440)
    text = maps["data"]["config.yaml"]
    assert text.count(mounts["exotel"] + "/") == 2
    loaded = loader.parse(text.replace(mounts["exotel"], str(tmp_path)), "config.yaml", {})
    assert [account.name for account in loaded.accounts] == ["support"]


def test_the_image_is_that_of_this_version() -> None:
    """The tag follows the version; the place is the reader's."""
    assert container()["image"] == f"registry.example.com/exophone-exporter:{__version__}"


def test_the_labels_of_the_exporter_win() -> None:
    """Where a target's label has the name of one of ours, ours must not become exported_..."""
    taken = {label for metric in METRICS for label in metric.labels} & OF_THE_TARGET
    assert taken == {"endpoint"}
    (endpoint,) = the("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True


def test_the_rules_are_those_of_prometheus() -> None:
    """The same groups, whatever was done to the text around them."""
    rules = yaml.safe_load((ROOT / "prometheus" / "exophone.rules.yml").read_text("utf-8"))
    assert the("PrometheusRule")["spec"] == rules


def test_every_dashboard_is_found_by_the_sidecar() -> None:
    """Each in a ConfigMap of its own, with the label and the folder."""
    files = {path.name for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    maps = [r for r in ALL if r["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    assert {name for resource in maps for name in resource["data"]} == files
    assert all(len(resource["data"]) == 1 for resource in maps)
    assert {resource["metadata"]["annotations"]["grafana_folder"] for resource in maps} == {
        "ExoPhones"
    }


@pytest.mark.parametrize("resource", ALL, ids=named)
def test_kubectl_can_remember_it(resource: dict[str, Any]) -> None:
    """A resource whose text does not fit an annotation cannot be applied twice."""
    assert len(json.dumps(resource)) < LAST_APPLIED_MAX_BYTES


def test_what_goes_in_and_out() -> None:
    """Prometheus comes in; out go questions of names, and HTTPS, but not to a cloud's metadata."""
    spec = the("NetworkPolicy")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == ["http"]
    assert all("namespaceSelector" in peer for rule in spec["ingress"] for peer in rule["from"])
    dns, api = spec["egress"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert [port["port"] for port in api["ports"]] == [443]
    assert any("169.254.0.0/16" in peer["ipBlock"]["except"] for peer in api["to"])


def test_the_base_needs_no_operator() -> None:
    """A cluster without the Prometheus operator takes it whole."""
    groups = {resource["apiVersion"] for resource in build(KUBERNETES / "base")}
    assert groups == {"v1", "apps/v1", "networking.k8s.io/v1"}
