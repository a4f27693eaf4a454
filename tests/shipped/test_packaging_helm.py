"""The chart as Helm renders it: valid, strict, and equal to the manifests for kustomize."""

from __future__ import annotations

import functools
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from exophone_exporter import __version__
from exophone_exporter.config import loader
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.manifests import Resource, check_fields
from tests.lib.paths import DATA, ROOT
from tests.lib.processes import LOOPBACK, ended, get, output_of, started

CHART = ROOT / "deploy" / "helm" / "exophone-exporter"
VALUES = sorted(CHART.glob("ci/*-values.yaml"))
# A release of another version must still accept the values of an older one.
FROZEN = sorted((DATA / "chart").glob("*.yaml"), key=lambda path: [*map(int, path.stem.split("."))])
RULES = yaml.safe_load((ROOT / "prometheus" / "exophone.rules.yml").read_text("utf-8"))["groups"]
DASHBOARDS = {path.name: path for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
SECRETS = "/run/secrets/exotel"
CLIENT_CERTIFICATES = '{"tls_server_config": {"client_auth_type": "RequireAndVerifyClientCert"}}'
QUOTE = "value must be 'text in quotes, such as \"0123456789\"'"
NO_ACCOUNT = "No account: set config.accounts, existingConfigMap, or EXOTEL_ACCOUNT_SID and"

pytestmark = pytest.mark.end_to_end

Render = Callable[..., dict[str, Resource]]


@pytest.fixture(scope="module")
def render(program: Callable[[str], str]) -> Render:
    """The resources of a release `exophone-exporter`, by kind and, of ConfigMaps, by name."""

    @functools.cache
    def rendered(values: Path, *more: str) -> dict[str, Resource]:
        words = (f"--values={values}", "--namespace=exophone", *(f"--set-json={m}" for m in more))
        text = output_of(program("helm"), "template", "exophone-exporter", CHART, *words)
        resources = [*yaml.safe_load_all(text)]
        named = {
            (r["kind"] if r["kind"] != "ConfigMap" else r["metadata"]["name"]): r for r in resources
        }
        assert len(named) == len(resources)
        return named

    return rendered


def ci(name: str) -> Path:
    return CHART / "ci" / f"{name}-values.yaml"


def at(resource: Any, path: str) -> Any:
    """What a resource has at a path such as `spec.rules.0.host`; None where it ends before."""
    for key in path.split("."):
        place = resource.get(key) if isinstance(resource, dict) else resource[int(key)]
        if place is None:
            return None
        resource = place
    return resource


def container_of(resources: dict[str, Resource]) -> dict[str, Any]:
    workload = resources.get("Deployment") or resources["StatefulSet"]
    container: dict[str, Any] = workload["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize("values", [*VALUES, *FROZEN], ids=lambda path: path.stem)
def test_values_give_valid_resources_and_a_configuration_that_the_exporter_accepts(
    program: Callable[[str], str], render: Render, tmp_path: Path, values: Path
) -> None:
    """Of each example and of each release so far, by real Helm and the schemas of clusters."""
    output_of(program("helm"), "lint", "--strict", CHART, "--values", values)
    resources = render(values)
    check_fields(program, resources.values())
    config = resources.get("exophone-exporter") or resources.get("voice-exophones")
    if config is None:
        assert values.stem == "minimal-values"
        return
    for name in ("api-key", "api-token", "pseudonyms", *map("-".join, KEYS_OF_SHARDS)):
        (tmp_path / name).write_text("x" * 40, encoding="utf-8")
        (tmp_path / name).chmod(0o440)
    text = config["data"]["config.yaml"].replace(SECRETS, str(tmp_path))
    given = yaml.safe_load(values.read_text("utf-8"))["config"]
    assert yaml.safe_load(text) == yaml.safe_load(yaml.dump(given).replace(SECRETS, str(tmp_path)))
    loader.parse(text, "config.yaml", {"SALES_KEY": "x" * 40, "SALES_TOKEN": "x" * 40})


KEYS_OF_SHARDS = [(account, what) for account in ("support", "sales") for what in ("key", "token")]


def test_everything_sets_every_value() -> None:
    """Each to another value than its default, so that no line of a template is left unrendered."""
    names = re.findall(r"(?m)^\| `([\w.]+)` \|", (CHART / "README.md").read_text("utf-8"))
    default, given = (
        yaml.safe_load(path.read_text("utf-8"))
        for path in (CHART / "values.yaml", ci("everything"))
    )
    assert [name for name in names if at(given, name) in (None, at(default, name))] == [
        "serviceAccount.create",
        "existingConfigMap",  # in place of config
    ]


def test_the_rules_are_ours(program: Callable[[str], str], render: Render, tmp_path: Path) -> None:
    rules = render(ci("operator"))["PrometheusRule"]["spec"]
    assert rules == {"groups": RULES}
    file = tmp_path / "rules.yml"
    for name in ("operator", "everything"):
        file.write_text(yaml.dump(render(ci(name))["PrometheusRule"]["spec"]), encoding="utf-8")
        output_of(program("promtool"), "check", "rules", file)


def test_switches_of_the_rules_change_nothing_else(render: Render) -> None:
    expected = yaml.dump(RULES, width=100_000)
    expected = expected.replace(
        "https://example.com/exophone-exporter/docs/runbooks.md",
        "https://docs.example.net/runbooks",
    ).replace("https://grafana.example.com/", "https://grafana.example.net/")
    groups = yaml.safe_load(expected)
    for group in groups:
        group["rules"] = [r for r in group["rules"] if r.get("alert") != "ExoPhoneSMSFlowMissing"]
        for rule in group["rules"]:
            if rule.get("alert") == "ExoPhoneNumbersDisappeared":
                rule["labels"]["severity"] = "warning"
    assert render(ci("everything"))["PrometheusRule"]["spec"]["groups"] == groups
    assert groups != RULES


@pytest.mark.parametrize("name", ["operator", "everything"])
def test_the_dashboards_are_ours_to_the_byte(render: Render, name: str) -> None:
    maps = [r for r in render(ci(name)).values() if "dashboard" in r["metadata"]["name"]]
    held = {file: text for each in maps for file, text in each["data"].items()}
    assert {file: text.encode() for file, text in held.items()} == {
        file: path.read_bytes() for file, path in DASHBOARDS.items()
    }
    assert len(maps) == len(DASHBOARDS)


def test_kube_prometheus_stack_picks_up_monitor_rules_and_dashboards(render: Render) -> None:
    """By its default selectors: its release, and the label of its sidecar."""
    resources = render(ci("operator"))
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert resources[kind]["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    for name, resource in resources.items():
        if "dashboard" in name:
            assert resource["metadata"]["labels"]["grafana_dashboard"] == "1"
            assert resource["metadata"]["annotations"] == {"grafana_folder": "ExoPhones"}
    selected = resources["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= resources["Service"]["metadata"]["labels"].items()


def test_the_documented_values_install_all_of_it(render: Render, tmp_path: Path) -> None:
    documented = {
        re.findall(r"```yaml\n(# values.yaml\n.*?)```", page.read_text("utf-8"), re.DOTALL)[0]
        for page in (ROOT / "docs" / "kubernetes.md", CHART / "README.md")
    }
    (values,) = documented
    (tmp_path / "values.yaml").write_text(values, "utf-8")
    assert {*render(tmp_path / "values.yaml")} == {*render(ci("operator"))} - {"NetworkPolicy"}


def test_chart_and_kustomize_say_the_same(program: Callable[[str], str], render: Render) -> None:
    """But for the labels that Helm adds, and the name of the ConfigMap, which has a hash there."""
    built = output_of(program("kustomize"), "build", ROOT / "deploy" / "kubernetes" / "operator")
    theirs = {
        r["kind"]: r for r in yaml.safe_load_all(built) if "dashboard" not in r["metadata"]["name"]
    }
    ours = render(ci("operator"))
    pods = [each["Deployment"]["spec"]["template"]["spec"] for each in (theirs, ours)]
    for pod in pods:
        pod["volumes"][0]["configMap"]["name"] = "exophone-exporter"
        pod["containers"][0].pop("imagePullPolicy", None)
    assert pods[0] == pods[1]
    own = ours["NetworkPolicy"]["spec"]["ingress"][0]["from"].pop()
    assert own["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "exophone-exporter-test"
    for kind in ("NetworkPolicy", "Service", "ServiceMonitor", "PrometheusRule"):
        specs = [without_selectors(each[kind]["spec"]) for each in (theirs, ours)]
        assert specs[0] == specs[1], kind
    for kind, path in (
        ("Deployment", "spec.strategy"),
        ("ServiceAccount", "automountServiceAccountToken"),
    ):
        assert at(theirs[kind], path) == at(ours[kind], path)


def without_selectors(spec: dict[str, Any]) -> dict[str, Any]:
    defaults = {"type": "ClusterIP"} if "publishNotReadyAddresses" in spec else {}
    return defaults | {key: value for key, value in spec.items() if "elector" not in key}


@pytest.mark.parametrize(
    ("values", "kind", "path", "expected"),
    [
        ("minimal", "Deployment", "spec.template.spec.volumes", None),
        ("minimal", "NetworkPolicy", "", None),
        ("secret", "Deployment", "spec.template.metadata.annotations.checksum/config", ...),
        ("shards", "StatefulSet", "spec.template.metadata.annotations", None),
        ("shards", "StatefulSet", "spec.replicas", 3),
        (
            "shards",
            "StatefulSet",
            "spec.template.spec.containers.0.args.3",
            "--shard=$(SHARD_INDEX)/3",
        ),
        (
            "everything",
            "StatefulSet",
            "spec.template.spec.containers.0.livenessProbe.tcpSocket.port",
            "http",
        ),
        ("everything", "StatefulSet", "spec.template.spec.containers.1.name", "pause"),
        ("everything", "StatefulSet", "spec.template.spec.serviceAccountName", "exophones"),
        ("everything", "ServiceMonitor", "spec.namespaceSelector.matchNames.0", "voice"),
        ("everything", "ServiceMonitor", "spec.endpoints.0.honorLabels", False),
        ("everything", "PodMonitor", "spec.podMetricsEndpoints.0.basicAuth.username.key", "user"),
        (
            "everything",
            "Ingress",
            "spec.rules.0.http.paths.0.backend.service.name",
            "voice-exophones",
        ),
        ("everything", "HTTPRoute", "spec.rules.0.backendRefs.0.port", 80),
        ("everything", "NetworkPolicy", "spec.egress.0.ports.0.port", 3128),
        ("everything", "voice-exophones-more", "data.release", "exophone-exporter"),
        ("everything", "exophone-exporter-text", "kind", "ConfigMap"),
        ("everything", "voice-exophones-dashboard-rental", "metadata.namespace", "monitoring"),
    ],
)
def test_a_switch_changes_what_its_name_says(
    render: Render, values: str, kind: str, path: str, expected: Any
) -> None:
    resources = render(ci(values))
    found = at(resources[kind], path) if path else resources.get(kind)
    assert found if expected is ... else found == expected


@pytest.mark.parametrize(
    ("more", "path", "expected"),
    [
        ('image.digest=""', "image", "registry.example.net/voice/exophone-exporter:0.1.0-slim"),
        ("webConfig.basic_auth_users=null", "readinessProbe.httpGet.scheme", "HTTPS"),
        ("webConfig=null", "readinessProbe.httpGet", {"path": "/-/ready", "port": "http"}),
        (f"webConfig={CLIENT_CERTIFICATES}", "startupProbe.tcpSocket.port", "http"),
        ("shards=0", "env.0.name", "SALES_KEY"),
        ('configReload="checksum"', "args.2", "--shard=$(SHARD_INDEX)/2"),
    ],
)
def test_the_container_follows_its_values(
    render: Render, more: str, path: str, expected: Any
) -> None:
    assert at(container_of(render(ci("everything"), more)), path) == expected


def test_a_changed_configuration_replaces_the_pod_and_the_same_one_does_not(render: Render) -> None:
    def template(*more: str) -> Any:
        return render(ci("secret"), *more)["Deployment"]["spec"]["template"]

    assert template() == template("service.port=80")
    assert template() != template('config.poll={"interval": "5m"}')


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("replicas=1", "additional properties 'replicas' not allowed"),
        ("config.accounts[0].sid=123", f"/sid': {QUOTE}"),
        ("config.accounts[0].name=false", f"/name': {QUOTE}"),
        ('config.accounts[0].region="bombay"', "value must be one of 'singapore', 'mumbai'"),
        ('config.accounts[0].api_key="x"', "additional properties 'api_key' not allowed"),
        ("config.polls={}", "additional properties 'polls' not allowed"),
        ('config={"poll": {}}', "at '/config': missing property 'accounts'"),
        ('config.poll.interval="5 minutes"', "/interval': '5 minutes' does not match pattern"),
        ('config.numbers=[{"match": {"sid": "*"}, "voice": 123}]', f"/voice': {QUOTE}"),
        ('podLabels={"release": 1}', f"/podLabels/release': {QUOTE}"),
        ("image.tag=1.0", f"/image/tag': {QUOTE}"),
        ('prometheusRule.disabled=["ExoPhoneFlowMissing"]', "value must be one of 'ExoPhoneAPI"),
        ('prometheusRule.severities={"X": "info"}', "additional properties 'X' not allowed"),
        ("shards=-1", "/shards': minimum: got -1, want 0"),
        ('configReload="no"', "value must be one of 'checksum', 'watch'"),
        ("config=null", NO_ACCOUNT),
        ('existingConfigMap="x"', "Set config or existingConfigMap, not both."),
    ],
)
def test_bad_values_are_refused_with_what_would_be_right(
    program: Callable[[str], str], more: str, said: str
) -> None:
    words = ("template", CHART, f"--values={ci('secret')}", f"--set-json={more}")
    answer = ended(program("helm"), *words)
    assert answer.code == 1
    assert said in answer.stderr


def test_the_pod_serves_and_helm_test_sees_it(render: Render, tmp_path: Path) -> None:
    """The exporter with the arguments and files of the pod, asked by the pod of `helm test`."""
    with Simulator(World(make_account("acme1", 3))) as simulator:
        account = simulator.world.accounts["acme1"]
        values = (
            ci("secret").read_text("utf-8").replace("region: mumbai", f"base_url: {simulator.url}")
        )
        (tmp_path / "values.yaml").write_text(values, "utf-8")
        more = ('configReload="watch"', "shards=1", 'extraArgs=["--log.format=logfmt"]')
        resources = render(tmp_path / "values.yaml", *more)
        for name, text in (
            ("config.yaml", resources["exophone-exporter"]["data"]["config.yaml"]),
            ("api-key", account.api_key),
            ("api-token", account.api_token),
        ):
            (tmp_path / name).write_text(text.replace(SECRETS, str(tmp_path)), "utf-8")
        words = " ".join(container_of(resources)["args"])
        words = words.replace("/etc/exophone-exporter", str(tmp_path)).replace(
            "$(SHARD_INDEX)", "0"
        )
        with started(*words.split(), LOOPBACK) as exporter:
            url = exporter.url().rstrip("/")
            (asking,) = resources["Pod"]["spec"]["containers"]
            script = (*asking["command"][1:], asking["args"][0])
            port = url.rpartition(":")[2]
            said = output_of(sys.executable, *script, "false", "127.0.0.1", port, "60")
            assert "/-/ready 200" in said
            assert 'exophone_up{account="support"} 1' in get(f"{url}/metrics")[1]
        port = simulator.url.rpartition(":")[2]
        assert ended(sys.executable, *script, "false", "127.0.0.1", port, "1").code == 1


def test_the_package_has_this_version_and_no_examples(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    output_of(program("helm"), "package", CHART, "--destination", tmp_path)
    with tarfile.open(tmp_path / f"exophone-exporter-{__version__}.tgz") as package:
        names = {name.removeprefix("exophone-exporter/") for name in package.getnames()}
        about = yaml.safe_load(package.extractfile("exophone-exporter/Chart.yaml") or b"")
    assert about["version"] == about["appVersion"] == __version__ == FROZEN[-1].stem
    assert {"README.md", "values.schema.json", "rules/exophone.rules.yml"} <= names
    assert {f"dashboards/{name}" for name in DASHBOARDS} <= names
    assert not [name for name in names if name.startswith("ci/")]
