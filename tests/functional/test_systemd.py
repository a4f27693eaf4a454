"""What systemd passes and receives: real descriptors, real datagrams, a real process."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from exophone_exporter.errors import StartError
from exophone_exporter.server.systemd import Supervision, passed_sockets
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import (
    DEADLINE_SECONDS,
    LOOPBACK,
    ask,
    config_file,
    get,
    started,
    wait_until,
)
from tests.lib.servers import APP
from tests.lib.support import FakeTime

_PASSED: Final = (
    APP
    + """
import os, sys
from exophone_exporter.errors import StartError

# What systemd does: the descriptors from 3 on, and the pid of the process itself.
moved = [os.dup(int(word)) for word in sys.argv[2:]]
for number, each in enumerate(moved):
    os.dup2(each, 3 + number)
    os.set_inheritable(3 + number, True)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1],
           "LISTEN_FDNAMES": ":".join("web" for _ in moved)}
try:
    server = open_server(app, systemd_socket=environ)
except StartError as error:
    sys.exit(str(error))
print([os.get_inheritable(3 + number) for number in range(len(moved))], flush=True)
server.run()
"""
)


def passing(*sockets: Any, count: int | None = None) -> Any:
    """A process that systemd passed some sockets, and says so of `count`."""
    passed = [each.fileno() for each in sockets]
    words = map(str, (count or len(passed), *passed))
    return started(*words, program=[sys.executable, "-c", _PASSED], pass_fds=passed)


def test_sockets_that_systemd_passes_are_served(tmp_path: Path) -> None:
    """IPv4 and Unix ones; they are not inherited further."""
    with (
        socket.create_server(("127.0.0.1", 0)) as internet,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as client,
    ):
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        with passing(internet, unix) as running:
            running.wait_for(r"\[False, False\]\n", "stdout")
            assert "served" in ask(socket.create_connection(internet.getsockname()))
            client.connect(str(tmp_path / "socket"))
            assert "served" in ask(client)
            assert running.end() == 0


def test_a_passed_socket_that_takes_no_connections_is_refused() -> None:
    """Each with what to write in the unit; one that was announced but not passed, too."""
    reasons = []
    with (
        socket.socket(type=socket.SOCK_DGRAM) as datagram,
        socket.socket() as unbound,
        Path(__file__).open(encoding="utf-8") as file,
        socket.create_server(("127.0.0.1", 0)) as good,
    ):
        for each, count in ((datagram, 1), (unbound, 1), (file, 1), (good, 9999)):
            with passing(each, count=count) as running:
                assert running.code() == 1
            reasons += running.stderr.splitlines()
    no_socket = "is not a socket; use ListenStream= in the .socket unit"
    start = "--web.systemd-socket: descriptor"
    assert reasons[:3] == [
        f"{start} 3 (web) is not a stream socket; use ListenStream= in the .socket unit",
        f"{start} 3 (web) does not listen; use Accept=no in the .socket unit",
        f"{start} 3 (web) {no_socket}",
    ]
    assert re.fullmatch(rf"{start} \d+ \(\?\) {no_socket}", reasons[3])
    assert len(reasons) == 4


NO_SOCKET: Final = "systemd passed no socket; start the service by its .socket unit, or omit"
OTHER: Final = "the sockets were passed to process {}, this is 7; have ExecStart= run exophone-ex"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, NO_SOCKET),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, NO_SOCKET),
        ({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, NO_SOCKET),
        ({"LISTEN_FDS": "-1", "LISTEN_PID": "7"}, NO_SOCKET),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "8"}, OTHER.format(8)),
        ({"LISTEN_FDS": "1"}, OTHER.format("?")),
    ],
)
def test_without_a_socket_from_systemd_one_line_says_what_to_do(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(StartError) as caught:
        passed_sockets(environ, 7)
    assert str(caught.value).startswith(f"--web.systemd-socket: {message}")
    assert "\n" not in str(caught.value)


# --- what systemd receives


class Manager:
    """The other end of sd_notify(3): a datagram socket at an address."""

    def __init__(self, address: str | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE_SECONDS)
        self._socket.bind(address)
        self.close = self._socket.close

    def receive(self) -> list[str]:
        """The assignments of the next message."""
        return self._socket.recv(65536).decode().split("\n")

    def wait_for(self, assignment: str) -> None:
        """Receive messages up to the first that has this assignment, or one that ends so."""
        wait_until(lambda: any(each.endswith(assignment) for each in self.receive()), assignment)


def notifier_of(environ: dict[str, str]) -> Supervision:
    """Of the process 7."""
    return Supervision(environ, 7, FakeTime().clock, healthy=lambda: True, status=str)


def manager(address: str | bytes) -> contextlib.closing[Manager]:
    """A service manager that listens at an address while the block runs."""
    return contextlib.closing(Manager(address))


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_a_message_arrives(tmp_path: Path, *, is_abstract: bool) -> None:
    """At a path, or at `@name` outside the file system; no value can add a line."""
    name = f"exophone-test-{time.monotonic_ns()}"
    path = f"@{name}" if is_abstract else str(tmp_path / "notify")
    with manager(b"\0" + name.encode() if is_abstract else path) as systemd:
        notifier = notifier_of({"NOTIFY_SOCKET": path})
        assert notifier.is_enabled
        assert notifier.notify("READY=1", "STATUS=well\nSTOPPING=1")
        assert systemd.receive() == ["READY=1", "STATUS=well STOPPING=1"]


@pytest.mark.parametrize(
    "path",
    [
        *("{}/missing", "{}", "/" + "x" * 200, "@exophone-nobody", "@"),
        *("vsock:2:1234", "relative", ""),
    ],
)
@pytest.mark.parametrize("wait", [True, False])
def test_an_address_where_nobody_listens_has_no_effect(
    tmp_path: Path, path: str, wait: bool
) -> None:
    notifier = notifier_of({"NOTIFY_SOCKET": path.format(tmp_path)})
    assert notifier.notify("READY=1", wait=wait) is False


def test_a_manager_that_reads_nothing_blocks_nothing(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address):
        notifier = notifier_of({"NOTIFY_SOCKET": address})
        wait_until(lambda: not notifier.notify("WATCHDOG=1"), "its queue is full")
        assert notifier.notify("READY=1", wait=True) is False


SOCKET: Final = {"NOTIFY_SOCKET": "/run/systemd/notify"}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        (SOCKET | {"WATCHDOG_USEC": "30000000"}, 30.0),
        (SOCKET | {"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        (SOCKET | {"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, None),
        (SOCKET, None),
        (SOCKET | {"WATCHDOG_USEC": "0"}, None),
        (SOCKET | {"WATCHDOG_USEC": "-1"}, None),
        (SOCKET | {"WATCHDOG_USEC": "soon"}, None),
        (SOCKET | {"WATCHDOG_USEC": "9" * 400}, None),
        ({"WATCHDOG_USEC": "500000"}, None),
        ({"WATCHDOG_USEC": "500000", "NOTIFY_SOCKET": ""}, None),
    ],
)
def test_the_watchdog_is_what_systemd_says_of_this_process(
    variables: dict[str, str], seconds: float | None
) -> None:
    """In seconds; None if systemd does not wait for it."""
    notifier = notifier_of(variables)
    assert notifier.watchdog_seconds == seconds
    assert notifier.is_enabled is bool(variables.get("NOTIFY_SOCKET"))


# --- the real program under a manager


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    with Simulator(World(make_account("acme", 12), make_account("beta", 3))) as simulator:
        yield config_file(tmp_path, simulator)


def serve(config: Path, address: str, watchdog: str = "0") -> Any:
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": watchdog}
    return started("--config.file", str(config), LOOPBACK, env=env)


def test_a_service_reports_ready_its_status_reloads_and_its_end(
    tmp_path: Path, config: Path
) -> None:
    """A reload that fails ends with READY=1 too, and the status says so."""
    address = str(tmp_path / "notify")
    with manager(address) as systemd, serve(config, address) as running:
        assert systemd.receive() == ["READY=1"]
        assert get(f"{running.url()}/-/healthy")[0] == 200
        systemd.wait_for("STATUS=2 accounts, 15 numbers, 1 with a problem")
        before = time.monotonic_ns() // 1000
        running.send(signal.SIGHUP)
        reloading, stamp = systemd.receive()
        assert reloading == "RELOADING=1"
        assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert systemd.receive() == ["READY=1"]
        config.write_text("accounts: []\n", encoding="utf-8")
        running.send(signal.SIGHUP)
        systemd.wait_for("READY=1")
        systemd.wait_for("; the last reload failed, see the log")
        running.send(signal.SIGTERM)
        systemd.wait_for("STOPPING=1")
        assert running.code() == 0


def test_a_healthy_service_pings_the_watchdog(tmp_path: Path, config: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as systemd, serve(config, address, "2000000") as running:
        for _ in range(3):
            systemd.wait_for("WATCHDOG=1")
        assert running.end() == 0


@pytest.mark.parametrize("path", ["{}/missing", "vsock:2:1"])
def test_a_broken_address_does_not_keep_the_program_from_serving(
    tmp_path: Path, config: Path, path: str
) -> None:
    """It starts, reloads and ends as without systemd, and logs nothing about it."""
    with serve(config, path.format(tmp_path), "200000") as running:
        assert get(f"{running.url()}/-/healthy")[0] == 200
        running.send(signal.SIGHUP)
        running.wait_for("the configuration was reloaded")
        assert running.end() == 0
    assert "systemd" not in running.stderr
