"""The front door as one: TLS, users, probe and reload of the real program."""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme

from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.paths import ROOT
from tests.lib.processes import (
    DEADLINE_SECONDS,
    LOOPBACK,
    config_file,
    get,
    run,
    started,
    wait_until,
)
from tests.lib.servers import prometheus, under_scrape_configs

PASSWORD = "open-sesame"


class House:
    """A program behind TLS and a user, and what a client needs to come in."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        self.sim = sim
        self.ca_file = folder / "ca.pem"
        self.web_config = folder / "web.yml"
        self.config = config_file(folder, sim, "interval: 1s, deadline: 1s")
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.ca_file)
        certificate = ca.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        self.web_config.write_text(
            "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n"
            "http_server_config: {headers: {Strict-Transport-Security: max-age=31536000}}\n"
            f"basic_auth_users: {{prometheus: {hashed}}}\n",
            encoding="utf-8",
        )

    def get(self, url: str, password: str | None = PASSWORD, method: str = "GET") -> Any:
        """Status, headers and body over TLS, as the user or as nobody."""
        request = urllib.request.Request(url, method=method)  # noqa: S310 - our own https URL
        if password is not None:
            login = base64.b64encode(f"prometheus:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {login}")
        context = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310 - likewise
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with Simulator(World(make_account("acme", 12))) as sim:
        yield House(tmp_path, sim)


def serving(house: House, *flags: str) -> Any:
    return started(
        "--config.file",
        str(house.config),
        "--web.config.file",
        str(house.web_config),
        LOOPBACK,
        *flags,
    )


def address(running: Any) -> str:
    """Where it listens, which is https here."""
    found: str = running.wait_for(r"msg=listening url=\"?(https://[^\s\"]+)")[1]
    return found.replace("localhost", "127.0.0.1")


@pytest.mark.fault(190, 192)
def test_a_client_with_the_password_is_answered_over_tls(house: House) -> None:
    sid = house.sim.world.accounts["acme"].numbers[0]["sid"]
    with serving(house) as running:
        url = address(running)
        running.wait_for("first poll is complete")
        for path in ("/", "/metrics", "/-/healthy", f"/probe?target={sid}"):
            status, headers, _ = house.get(url + path)
            assert (path, status) == (path, 200)
            assert headers["Strict-Transport-Security"] == "max-age=31536000"
            assert house.get(url + path, password=None)[0] == 401
            assert house.get(url + path, password="wrong")[0] == 401
        status, headers, _ = house.get(url, method="UNKNOWN")
        assert (status, headers["Strict-Transport-Security"]) == (400, "max-age=31536000")
        assert "exophone_probe_success 1.0" in house.get(f"{url}/probe?target={sid}")[2]
        plain = get(url.replace("https://", "http://"))
        assert plain == (400, "Client sent an HTTP request to an HTTPS server.\n")
        running.wait_for("client refused.*reason=plain_http client=127.0.0.1")
        wait_until(
            lambda: (
                'exophone_exporter_clients_refused_total{reason="plain_http"} 1.0'
                in house.get(f"{url}/metrics")[2]
            ),
            "the metric counts it",
        )
        assert running.end() == 0
    assert PASSWORD not in running.stderr


def test_an_invalid_web_configuration_ends_it_before_any_request(
    house: House,
) -> None:
    house.web_config.write_text("tls_server_config: {cert_file: gone.pem}\n", encoding="utf-8")
    ended = run("--config.file", str(house.config), "--web.config.file", str(house.web_config))
    assert ended.code == 2
    assert f"{house.web_config}:1: tls_server_config" in ended.stderr
    assert house.sim.requests == []


@pytest.mark.fault(200)
def test_files_that_cannot_be_used_show_in_the_metrics_and_open_nothing(house: House) -> None:
    """An emptied web configuration, and a key that cannot be read, each until it is fixed."""
    good = house.web_config.read_text("utf-8")
    key = house.web_config.with_name("server.pem")
    with serving(house) as running:
        url = address(running)

        def successful() -> str:
            page = house.get(f"{url}/metrics")[2]
            assert house.get(f"{url}/metrics", password=None)[0] == 401
            (value,) = re.findall(
                r"\nexophone_exporter_web_config_last_reload_successful (.+)", page
            )
            return str(value)

        assert successful() == "1.0"
        house.web_config.write_text("", encoding="utf-8")
        running.wait_for("basic_auth_users: no longer keeps clients out")
        wait_until(lambda: successful() == "0.0", "the failed reload")
        house.web_config.write_text(good, encoding="utf-8")
        wait_until(lambda: successful() == "1.0", "the fixed file")
        key.rename(key.with_suffix(".away"))
        running.wait_for("reloading TLS certificates failed")
        wait_until(lambda: successful() == "0.0", "the missing key")
        key.with_suffix(".away").rename(key)
        wait_until(lambda: successful() == "1.0", "the fixed key")
        assert running.end() == 0


@pytest.mark.fault(118)
@pytest.mark.fault(201)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one loopback address")
def test_checks_that_take_days_delay_neither_another_client_nor_the_end(house: House) -> None:
    """64 logins wait for a hash of cost 31, which holds for unknown users, too."""
    cheap = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    dear = cheap.replace("$04$", "$31$")
    house.web_config.write_text(
        f"basic_auth_users: {{prometheus: {cheap}, slow: {dear}}}\n", encoding="utf-8"
    )

    def status(port: int, source: str, name: str, password: str) -> int:
        connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=DEADLINE_SECONDS, source_address=(source, 0)
        )
        login = base64.b64encode(f"{name}:{password}".encode()).decode()
        with contextlib.closing(connection):
            connection.request("GET", "/", headers={"Authorization": f"Basic {login}"})
            return connection.getresponse().status

    with serving(house) as running, ThreadPoolExecutor(65) as clients:
        port = int(running.wait_for(r"msg=listening url=http://localhost:(\d+)")[1])
        flood = [clients.submit(status, port, "127.0.0.1", f"guess{n}", "x") for n in range(65)]
        assert next(as_completed(flood, DEADLINE_SECONDS)).result() == 503
        assert status(port, "127.0.0.2", "prometheus", PASSWORD) == 200
        assert running.end() == 0
        wait(flood, DEADLINE_SECONDS)


def test_every_path_is_under_the_route_prefix(house: House) -> None:
    """The path of the external URL is the prefix; `/` leads there."""
    with serving(house, "--web.external-url=https://example.com/exophone/") as running:
        url = address(running)
        assert url.endswith("/exophone")
        assert house.get(f"{url}/metrics")[0] == 200
        root = url.removesuffix("/exophone")
        assert house.get(f"{root}/metrics")[0] == 404
        assert 'href="/exophone/metrics"' in house.get(f"{root}/")[2]
        assert running.end() == 0


@pytest.mark.end_to_end
def test_prometheus_scrapes_over_tls_and_runs_the_documented_probe_job(
    house: House, tmp_path: Path, program: Callable[[str], str]
) -> None:
    """Scrape and shipped probe job, both over https as the user; each target answers."""
    binary = program("prometheus")
    sid = house.sim.world.accounts["acme"].numbers[0]["sid"]
    with serving(house) as running:
        target = address(running).removeprefix("https://")
        running.wait_for("first poll is complete")
        with prometheus(binary, tmp_path, _configuration(house, target, sid)) as server:
            up = server.wait_for("up", 3)
            success = server.wait_for("exophone_probe_success", 2)
            probed = server.wait_for('exophone_number_info{job="exophone-probe"}', 1)
            numbers = server.wait_for("sum(exophone_numbers)", 1)
        assert running.end() == 0
    assert {value for _, value in up} == {1}
    assert {(labels["instance"], value) for labels, value in success} == {(sid, 1), ("+nobody", 0)}
    assert [(labels["instance"], labels["account"]) for labels, _ in probed] == [(sid, "acme")]
    assert {seen.path.rpartition("/")[2] for seen in house.sim.requests} >= {sid, "%2Bnobody"}
    assert numbers == [({}, 12)]


def _configuration(house: House, target: str, sid: str) -> str:
    """The job of docs/web-config.md, and the shipped probe job with the same door."""
    door = (
        "  scheme: https\n"
        f"  tls_config: {{ca_file: {house.ca_file}}}\n"
        f"  basic_auth: {{username: prometheus, password: {PASSWORD}}}\n"
    )
    probe = (ROOT / "prometheus" / "probe-job.yml").read_text("utf-8")
    for shipped, ours in (
        ("0f1e2d3c4b5a69788796a5b4c3d2e1f0", sid),
        ("1a2b3c4d5e6f70819293a4b5c6d7e8f9", "'+nobody'"),
        ("        exophone_account: support\n", "        exophone_account: acme\n"),
        ("127.0.0.1:10396", target),
        ("scrape_interval: 2m", "scrape_interval: 1s"),
        ("scrape_timeout: 20s", "scrape_timeout: 1s"),
        ("  metrics_path: /probe\n", "  metrics_path: /probe\n" + door),
    ):
        assert probe.count(shipped) == 1, shipped
        probe = probe.replace(shipped, ours)
    scrape = (
        "- job_name: exophone\n  scrape_interval: 1s\n  scrape_timeout: 1s\n"
        f"{door}  static_configs: [{{targets: ['{target}']}}]\n"
    )
    return under_scrape_configs(scrape, probe)
