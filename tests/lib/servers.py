"""Servers that tests run: our own and a webhook in threads, real ones of others as processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trustme

from exophone_exporter.server.server import Server, listen
from exophone_exporter.server.tls import Tls
from exophone_exporter.server.tls_settings import CURVES
from tests.lib.processes import DEADLINE_SECONDS, get, wait_until

# What a process of its own serves.
APP = """
from exophone_exporter.server import open_server

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})
"""


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def running_app(
    app: Callable[..., Any],
    *,
    tls: ssl.SSLContext | Callable[[], Tls] | None = None,
    **options: Any,
) -> Iterator[Server]:
    """The server that users run, around an application; `options` go to Server."""
    current = (lambda: tls_of(tls)) if isinstance(tls, ssl.SSLContext) else tls
    with running(Server(app, listen(["127.0.0.1:0"]), tls=current, **options)) as server:
        yield server


@contextlib.contextmanager
def serving_app(app: Callable[..., Any], **options: Any) -> Iterator[int]:
    with running_app(app, **options) as server:
        yield port_of(server)


def port_of(server: Server) -> int:
    return int(server.urls[0].rpartition(":")[2])


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """A server to ask; each request has a connection of its own."""

    port: int

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


def tls_of(context: ssl.SSLContext) -> Tls:
    """TLS with one context, whatever the client offers."""
    return Tls({curve.number: context for curve in CURVES.values()})


def tls_contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server that is called localhost, and of a client that trusts it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def hello_of(version: ssl.TLSVersion) -> bytes:
    """The first bytes of a real client; its record has a header of five bytes."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.maximum_version = version
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


def rest_of(client: socket.socket) -> bytes:
    received = []
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := client.recv(65536):
            received.append(piece)
    return b"".join(received)


def slow_reader(port: int, path: str = "/metrics") -> socket.socket:
    """A client that reads only the first bytes of its answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(DEADLINE_SECONDS)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(9) == b"HTTP/1.1 "
    return client


class Prometheus:
    """A running Prometheus; its log is in `log`."""

    def __init__(self, url: str, log: Path, pid: int) -> None:
        self.url = url
        self.log = log
        self._pid = pid

    def reload(self) -> None:
        os.kill(self._pid, signal.SIGHUP)

    def rules(self) -> list[dict[str, Any]]:
        _, body = get(f"{self.url}/api/v1/rules")
        return [rule for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]

    def alertmanagers(self) -> list[str]:
        _, body = get(f"{self.url}/api/v1/alertmanagers")
        return [found["url"] for found in json.loads(body)["data"]["activeAlertmanagers"]]

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        try:
            status, body = get(f"{self.url}/api/v1/query?query={quote(query)}")
        except OSError:
            return []
        found = json.loads(body)["data"]["result"] if status == 200 else []
        return [(series["metric"], float(series["value"][1])) for series in found]

    def ever(self, query: str, seconds: int) -> dict[frozenset[tuple[str, str]], int]:
        """The labels of every series that a query had in the last seconds, and in how many."""
        end = self.ask("vector(time())")[0][1]
        span = f"start={end - seconds}&end={end}&step=1"
        _, body = get(f"{self.url}/api/v1/query_range?query={quote(query)}&{span}")
        found = json.loads(body)["data"]["result"]
        return {frozenset(series["metric"].items()): len(series["values"]) for series in found}

    def wait_for(self, query: str, count: int) -> list[tuple[dict[str, str], float]]:
        def found() -> list[tuple[dict[str, str], float]]:
            series = self.ask(query)
            return series if len(series) == count else []

        series: list[tuple[dict[str, str], float]] = wait_until(found, f"{count} series of {query}")
        return series


class VictoriaMetrics(Prometheus):
    """Which has the rules and Alertmanagers of vmalert."""

    def alertmanagers(self) -> list[str]:
        _, body = get(f"{self.url}/api/v1/notifiers")
        kinds = json.loads(body)["data"]["notifiers"]
        return [found["address"] for kind in kinds for found in kind["targets"]]


@contextlib.contextmanager
def prometheus(program: str, folder: Path, configuration: str, *flags: str) -> Iterator[Prometheus]:
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(configuration, encoding="utf-8")
    url = _free_url()
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        *flags,
    ]
    with _process(command, log) as pid:
        yield Prometheus(url, log, pid)


@contextlib.contextmanager
def victoria_metrics(
    program: Callable[[str], str], folder: Path, configuration: str, *of_vmalert: str
) -> Iterator[VictoriaMetrics]:
    """VictoriaMetrics and vmalert as one, in haste: by default they judge as of 30 seconds ago.

    It reads a configuration of Prometheus, except its rules and Alertmanagers.
    """
    file, log = folder / "prometheus.yml", folder / "victoria-metrics.log"
    file.write_text(configuration, encoding="utf-8")
    url, vmalert_url = _free_url(), _free_url()
    database = [
        program("victoria-metrics"),
        f"-promscrape.config={file}",
        "-promscrape.config.strictParse=false",
        "-promscrape.fileSDCheckInterval=1s",
        "-search.latencyOffset=2s",
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr={url.removeprefix('http://')}",
        f"-vmalert.proxyURL={vmalert_url}",
    ]
    vmalert = [
        program("vmalert"),
        f"-httpListenAddr={vmalert_url.removeprefix('http://')}",
        "-rule.evalDelay=2s",
        "-remoteWrite.flushInterval=100ms",
        *(f"-{kind}.url={url}" for kind in ("datasource", "remoteWrite", "remoteRead")),
        *of_vmalert,
    ]
    with _process(database, log):
        wait_until(lambda: _is_ready(f"{url}/health"), f"VictoriaMetrics is ready: {log}")
        with _process(vmalert, folder / "vmalert.log") as pid:
            wait_until(lambda: _is_ready(f"{vmalert_url}/health"), f"vmalert is ready: {folder}")
            yield VictoriaMetrics(url, log, pid)


def _is_ready(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def free_address() -> str:
    with listen(["127.0.0.1:0"])[0] as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def _free_url() -> str:
    return f"http://{free_address()}"


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[int]:
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=said, stderr=said) as server,
    ):
        try:
            yield server.pid
        finally:
            server.terminate()
            server.wait(DEADLINE_SECONDS)


class Alertmanager:
    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def send(self, *alerts: dict[str, str]) -> None:
        """Let alerts with these labels fire."""
        body = json.dumps([{"labels": labels} for labels in alerts])
        host = self.url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host)) as connection:
            connection.request("POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200

    def group_sizes(self, job: str) -> dict[str, int]:
        """How many alerts of a job go into one notification, by the name of the alert."""
        groups = json.loads(get(f"{self.url}/api/v2/alerts/groups")[1])
        return {
            group["labels"]["alertname"].removeprefix("ExoPhone"): len(group["alerts"])
            for group in groups
            if group["labels"].get("job") == job
        }

    def inhibited(self) -> list[dict[str, str]]:
        """The labels of the alerts that it has and holds back because of others."""
        _, body = get(f"{self.url}/api/v2/alerts?active=false&silenced=false&inhibited=true")
        return [alert["labels"] for alert in json.loads(body)]


@contextlib.contextmanager
def alertmanager(program: str, folder: Path, configuration: str) -> Iterator[Alertmanager]:
    """A real Alertmanager with a configuration, on a port and in a folder of its own, ready."""
    file, log = folder / "alertmanager.yml", folder / "alertmanager.log"
    file.write_text(configuration, encoding="utf-8")
    url = _free_url()
    command = [
        program,
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
    ]
    with _process(command, log):
        server = Alertmanager(url, log)
        wait_until(lambda: _is_ready(f"{url}/-/ready"), f"Alertmanager is ready: {log}")
        yield server


@dataclass(frozen=True)
class Notified:
    message: int
    receiver: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Webhook:
    """A receiver of Alertmanager's notifications; `url` may be followed by any path."""

    def __init__(self) -> None:
        self._bodies: list[dict[str, Any]] = []
        received = self._bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                received.append(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing: what arrives is what the tests look at."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def alerts(self) -> list[Notified]:
        """Every alert of every notification so far, oldest first."""
        return [
            Notified(
                message, body["receiver"], alert["status"], alert["labels"], alert["annotations"]
            )
            for message, body in enumerate(list(self._bodies))
            for alert in body["alerts"]
        ]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE_SECONDS)
        self._server.server_close()


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def under_scrape_configs(*jobs: str) -> str:
    """A configuration of Prometheus from jobs as they are pasted, each a list item."""
    lines = [line for job in jobs for line in job.splitlines()]
    return "scrape_configs:\n" + "".join(f"  {line}\n" for line in lines)
