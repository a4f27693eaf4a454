"""What systemd passes and receives: real descriptors, real datagrams, a real process."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from exophone_exporter.errors import StartError
from exophone_exporter.server.systemd import Notifier, passed_sockets
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import ask, config_file, environment, get, started, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEADLINE_SECONDS: Final = 10.0
_TAKE: Final = """
from exophone_exporter.errors import StartError
from exophone_exporter.server.systemd import passed_sockets
"""
_SERVE_PASSED: Final = """
import os, sys
from exophone_exporter.errors import StartError
from exophone_exporter.server import open_server

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})

# What systemd does: the descriptors from 3 on, and the pid of the process itself.
passed = [int(word) for word in sys.argv[1].split(",")]
moved = [os.dup(each) for each in passed]
for number, each in enumerate(moved):
    os.dup2(each, 3 + number)
    os.set_inheritable(3 + number, True)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(passed)),
           "LISTEN_FDNAMES": ":".join("web" for _ in passed)}
try:
    server = open_server(app, systemd_socket=environ)
except StartError as error:
    sys.exit(str(error))
print([os.get_inheritable(3 + number) for number in range(len(passed))], flush=True)
server.run()
"""


def passing(*descriptors: int) -> subprocess.Popen[str]:
    """A process that was passed descriptors."""
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE_PASSED, ",".join(map(str, descriptors))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=descriptors,
        env=environment(),
    )


def test_sockets_that_systemd_passes_are_served(tmp_path: Path) -> None:
    """IPv4 and Unix ones; a process that is started later does not get them."""
    with (
        socket.create_server(("127.0.0.1", 0)) as internet,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as client,
    ):
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        with passing(internet.fileno(), unix.fileno()) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "[False, False]\n"
                assert "served" in ask(socket.create_connection(internet.getsockname()))
                client.connect(str(tmp_path / "socket"))
                assert "served" in ask(client)
                process.terminate()
                assert process.wait(_DEADLINE_SECONDS) == 0
            finally:
                process.kill()


def test_a_passed_socket_that_takes_no_connections_is_told() -> None:
    """Datagrams, a connection of its own, a file: each with what to write in the unit."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as datagram,
        socket.socket() as unbound,
        Path(__file__).open(encoding="utf-8") as file,
    ):
        told = [
            process.communicate(timeout=_DEADLINE_SECONDS)[1].splitlines()
            for each in (datagram, unbound, file)
            for process in [passing(each.fileno())]
        ]
    assert told == [
        [
            (
                "--web.systemd-socket: descriptor 3 (web) is not a stream socket;"
                " use ListenStream= in the .socket unit"
            )
        ],
        [
            (
                "--web.systemd-socket: descriptor 3 (web) does not listen;"
                " use Accept=no in the .socket unit"
            )
        ],
        [
            (
                "--web.systemd-socket: descriptor 3 (web) is not a socket;"
                " use ListenStream= in the .socket unit"
            )
        ],
    ]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({}, "systemd passed no socket; start the service by its", id="nothing"),
        pytest.param({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, "passed no socket", id="none"),
        pytest.param({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, "passed no socket", id="no-number"),
        pytest.param({"LISTEN_FDS": "-1", "LISTEN_PID": "7"}, "passed no socket", id="negative"),
        pytest.param(
            {"LISTEN_FDS": "1", "LISTEN_PID": "8"},
            "were passed to process 8, this is 7; have ExecStart= run exophone-exporter itself",
            id="other-process",
        ),
        pytest.param({"LISTEN_FDS": "1"}, "were passed to process ?, this is 7", id="no-process"),
        pytest.param(
            {"LISTEN_FDS": "9999", "LISTEN_PID": "7"}, "is not a", id="more-than-there-are"
        ),
    ],
)
def test_without_a_socket_from_systemd_one_line_says_what_to_do(
    environ: dict[str, str], message: str
) -> None:
    """And nothing of what the test's own process has open is taken."""
    if environ.get("LISTEN_FDS") == "9999":
        told = refused_in_a_process_of_its_own(environ)
    else:
        with pytest.raises(StartError) as caught:
            passed_sockets(environ, 7)
        told = str(caught.value)
    assert told.startswith("--web.systemd-socket: ")
    assert message in told
    assert "\n" not in told


def refused_in_a_process_of_its_own(environ: dict[str, str]) -> str:
    """Taking descriptors would take those of the tests."""
    code = f"{_TAKE}\ntry: passed_sockets({environ}, 7)\nexcept StartError as e: print(e, end='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


# --- what systemd receives


class Manager:
    """The other end of sd_notify(3): a datagram socket, and what arrived on it."""

    def __init__(self, address: str | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_DEADLINE_SECONDS)
        self._socket.bind(address)

    def close(self) -> None:
        self._socket.close()

    def receive(self) -> list[str]:
        """The assignments of the next message."""
        return self._socket.recv(65536).decode().split("\n")

    def wait_for(self, assignment: str) -> list[str]:
        """The assignments of the first message from now on that has this one."""

        def found() -> list[str]:
            assignments = self.receive()
            return assignments if assignment in assignments else []

        message: list[str] = wait_until(found, assignment)
        return message


@contextlib.contextmanager
def manager(address: str | bytes) -> Iterator[Manager]:
    """A service manager that listens at an address while the block runs."""
    with contextlib.closing(Manager(address)) as listening:
        yield listening


def test_a_message_arrives_at_a_path(tmp_path: Path) -> None:
    """Its assignments are lines, and no value can add one."""
    address = str(tmp_path / "notify")
    with manager(address) as systemd:
        notifier = Notifier({"NOTIFY_SOCKET": address}, 7)
        assert notifier.is_enabled
        assert notifier.notify("READY=1", "STATUS=well\nSTOPPING=1")
        assert systemd.receive() == ["READY=1", "STATUS=well STOPPING=1"]


def test_a_message_arrives_at_an_abstract_address() -> None:
    """`@name` is a name outside the file system."""
    name = f"exophone-test-{time.monotonic_ns()}"
    with manager(b"\0" + name.encode()) as systemd:
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}, 7).notify("READY=1")
        assert systemd.receive() == ["READY=1"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("{}/missing", id="nobody-is-there"),
        pytest.param("{}", id="a-folder"),
        pytest.param("/" + "x" * 200, id="too-long-for-a-socket"),
        pytest.param("@exophone-nobody", id="abstract-and-nobody-is-there"),
        pytest.param("vsock:2:1234", id="of-another-kind"),
        pytest.param("relative", id="relative"),
        pytest.param("@", id="only-the-sign"),
    ],
)
@pytest.mark.parametrize(
    "wait", [pytest.param(True, id="patient"), pytest.param(False, id="hasty")]
)
def test_an_address_where_nobody_listens_disturbs_nothing(
    tmp_path: Path, path: str, wait: bool
) -> None:
    """Whoever tells learns that it was not taken, and no more."""
    notifier = Notifier({"NOTIFY_SOCKET": path.format(tmp_path)}, 7)
    assert notifier.notify("READY=1", wait=wait) is False


def test_a_manager_that_reads_nothing_holds_up_nobody(tmp_path: Path) -> None:
    """Its queue fills; without patience it gives up immediately, else after a moment."""
    address = str(tmp_path / "notify")
    with manager(address):
        notifier = Notifier({"NOTIFY_SOCKET": address}, 7)
        wait_until(lambda: not notifier.notify("WATCHDOG=1"), "its queue is full")
        assert notifier.notify("READY=1", wait=True) is False


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="for-any-process"),
        pytest.param({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5, id="for-this-one"),
        pytest.param({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, None, id="for-another"),
        pytest.param({}, None, id="not-set"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="none"),
        pytest.param({"WATCHDOG_USEC": "-1"}, None, id="negative"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="no-number"),
        pytest.param({"WATCHDOG_USEC": "9" * 400}, None, id="endless"),
    ],
)
def test_the_watchdog_is_what_systemd_says_of_this_process(
    variables: dict[str, str], seconds: float | None
) -> None:
    """In seconds; None where no sign of life is waited for."""
    environ = {"NOTIFY_SOCKET": "/run/systemd/notify", **variables}
    assert Notifier(environ, 7).watchdog_seconds == seconds


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="not-set"),
        pytest.param({"NOTIFY_SOCKET": ""}, id="empty"),
        pytest.param({"WATCHDOG_USEC": "500000"}, id="only-a-watchdog"),
    ],
)
def test_without_systemd_nothing_is_told(variables: dict[str, str]) -> None:
    """And no watchdog is kept."""
    notifier = Notifier(variables, 7)
    assert (notifier.is_enabled, notifier.watchdog_seconds) == (False, None)
    assert notifier.notify("READY=1", wait=True) is False


# --- the real program under a manager

_LOOPBACK: Final = "--web.listen-address=127.0.0.1:0"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    with Simulator(World(make_account("acme", 12), make_account("beta", 3))) as simulator:
        yield config_file(tmp_path, simulator)


def test_a_service_tells_what_happens_to_it(tmp_path: Path, config: Path) -> None:
    """Ready when it answers, well, reloading and ready again, stopping."""
    address = str(tmp_path / "notify")
    words = ("--config.file", str(config), _LOOPBACK)
    with manager(address) as systemd, started(*words, env={"NOTIFY_SOCKET": address}) as running:
        assert systemd.receive() == ["READY=1"]
        assert get(f"{running.url()}/-/healthy")[0] == 200
        systemd.wait_for("STATUS=2 accounts, 15 numbers, 1 without a voice flow")
        before = time.monotonic_ns() // 1000
        running.send(signal.SIGHUP)
        reloading, stamp = systemd.receive()
        assert reloading == "RELOADING=1"
        assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert systemd.receive() == ["READY=1"]
        running.send(signal.SIGTERM)
        systemd.wait_for("STOPPING=1")
        assert running.code(_DEADLINE_SECONDS) == 0


def test_a_reload_that_fails_ends_too_and_the_status_says_so(tmp_path: Path, config: Path) -> None:
    """Systemd waits for READY=1 in any case: what was loaded before is served."""
    address = str(tmp_path / "notify")
    words = ("--config.file", str(config), _LOOPBACK)
    with manager(address) as systemd, started(*words, env={"NOTIFY_SOCKET": address}) as running:
        systemd.wait_for("READY=1")
        config.write_text("accounts: []\n", encoding="utf-8")
        running.send(signal.SIGHUP)
        systemd.wait_for("READY=1")
        wait_until(lambda: "the last reload failed" in systemd.receive()[0], "its status")
        assert running.end(seconds=_DEADLINE_SECONDS) == 0


def test_a_healthy_service_gives_signs_of_life(tmp_path: Path, config: Path) -> None:
    """More than one, without being asked."""
    address = str(tmp_path / "notify")
    words = ("--config.file", str(config), _LOOPBACK)
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}
    with manager(address) as systemd, started(*words, env=env) as running:
        for _ in range(3):
            systemd.wait_for("WATCHDOG=1")
        assert running.end(seconds=_DEADLINE_SECONDS) == 0


@pytest.mark.parametrize(
    "path", [pytest.param("{}/missing", id="nobody-is-there"), pytest.param("vsock:2:1", id="odd")]
)
def test_a_broken_address_does_not_keep_the_program_from_serving(
    tmp_path: Path, config: Path, path: str
) -> None:
    """It starts, reloads and ends as without systemd, and the log does not speak of it."""
    env = {"NOTIFY_SOCKET": path.format(tmp_path), "WATCHDOG_USEC": "200000"}
    with started("--config.file", str(config), _LOOPBACK, env=env) as running:
        assert get(f"{running.url()}/-/healthy")[0] == 200
        running.send(signal.SIGHUP)
        running.wait_for("the configuration was reloaded")
        assert running.end(seconds=_DEADLINE_SECONDS) == 0
    assert "systemd" not in running.stderr
