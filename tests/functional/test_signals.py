"""Signals end every command, whatever it waits for, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.fault_server import FaultServer, dripping
from tests.lib.processes import (
    DEADLINE_SECONDS,
    LOOPBACK,
    Running,
    can_get,
    config_file,
    full_pipe,
    started,
    wait_until,
)

ASKING: Final = ("once", "numbers", "number nosuch", "check-config --live")
AS_PROCESS_1: Final = 'exec {} --pid --fork --kill-child --mount --mount-proc -- "$@"'
# Of this process alone: tests may run in parallel.
NAMESERVER: Final = f"127.1.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 3))) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, sim: Simulator) -> str:
    return str(config_file(tmp_path, sim))


def configured(folder: Path, url: str, key: str = "api_key: k") -> str:
    """The configuration of one account at this address, with this line for its key."""
    file = folder / "exophone.yml"
    file.write_text(
        f"accounts: [{{name: acme, sid: acme, base_url: '{url}', {key}, api_token: t}}]\n",
        encoding="utf-8",
    )
    return str(file)


def wait_in_kernel(pid: int, name: str) -> None:
    """Wait until a process waits in a function of the kernel whose name has this part.

    A kernel may hide the name; then go on after some seconds.
    """
    where = Path(f"/proc/{pid}/wchan")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: name in where.read_text(encoding="ascii"), name, seconds=10)


@pytest.mark.fault(210)
class TestCommand:
    """Ends with 143 or 130, and says nothing."""

    @pytest.mark.parametrize("words", ASKING)
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_while_the_api_hangs(
        self, words: str, number: signal.Signals, code: int, config: str, sim: Simulator
    ) -> None:
        sim.fail(Fault(after="hang", times=None))
        with started(*words.split(), "--config.file", config) as running:
            wait_until(lambda: sim.requests, "a request")
            assert running.end(number) == code
        assert running.stderr == ""

    def test_while_the_api_drips(self, tmp_path: Path) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"
        with FaultServer(dripping(head, b" " * 10000)) as server:
            config = configured(tmp_path, server.url)
            with started("number", "nosuch", "--config.file", config) as running:
                wait_until(lambda: server.requests, "a request")
                assert running.end() == 143

    @pytest.mark.parametrize(
        ("words", "stream", "code"),
        [
            ("--help", "stdout", 143),
            ("once --config.file {config}", "stdout", 143),
            ("numbers --format=json --config.file {config}", "stdout", 143),
            ("check-config --config.file {config}", "stdout", 143),
            (f"simulate {LOOPBACK}", "stdout", 0),
            (f"demo {LOOPBACK}", "stdout", 0),
            ("once --config.file /nowhere", "stderr", 143),
        ],
    )
    def test_while_nobody_reads_what_it_says(
        self, words: str, stream: str, code: int, config: str
    ) -> None:
        call = words.format(config=config).split()
        streams: dict[str, Any] = {}
        with full_pipe() as streams[stream], started(*call, **streams) as running:
            wait_in_kernel(running.pid, "pipe_write")
            assert running.end() == code

    @pytest.mark.parametrize("words", ["serve", "once", "number nosuch"])
    @pytest.mark.parametrize("what", ["key", "configuration"])
    def test_while_it_reads_a_pipe_that_nobody_writes(
        self, words: str, what: str, tmp_path: Path
    ) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        config = configured(tmp_path, "http://localhost:9", f"api_key_file: {pipe}")
        if what == "configuration":
            config = str(pipe)
        with started(*words.split(), "--config.file", config) as running:
            wait_in_kernel(running.pid, "wait_for_partner")
            assert running.end() == (0 if words == "serve" else 143)


@pytest.mark.fault(118)
def test_a_server_ends_during_the_check_of_a_password(config: str, tmp_path: Path) -> None:
    """Which takes minutes at this cost."""
    web = tmp_path / "web.yml"
    salt_and_hash = "4VeFDzXIoPHKnKTU3O3GH.N.vZu06CVqczYZ8WvfzrddFU6tGqjR."
    web.write_text(f"basic_auth_users: {{bob: $2y$20${salt_and_hash}}}\n", encoding="utf-8")
    words = ("--config.file", config, LOOPBACK, "--web.config.file", str(web))
    with started(*words) as running:
        running.wait_for("first poll is complete")
        url = urlsplit(running.url())
        threads = running.threads()
        with socket.create_connection((url.hostname, url.port), DEADLINE_SECONDS) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n\r\n")
            wait_until(lambda: running.threads() > threads, "a thread that checks it")
            assert running.end() == 0


@pytest.fixture(scope="module")
def as_process_1(program: Callable[[str], str]) -> str:
    """What starts a program as the first of its own PID namespace, if the system allows that."""
    wrapper = AS_PROCESS_1.format(program("unshare"))
    with started(program=["true"], wrapper=wrapper) as probe:
        code = probe.code()
    if code and os.environ.get("EXOPHONE_REQUIRE_END_TO_END"):
        pytest.fail(f"no PID namespace: {probe.stderr}")
    if code:
        pytest.skip(f"no PID namespace: {probe.stderr}")
    return wrapper


def child_of(running: Running) -> int:
    """The program that runs as process 1, once it has its handlers."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    child = int(wait_until(lambda: children.read_text(encoding="ascii").split(), "a child")[0])
    status = Path(f"/proc/{child}/status")
    wait_until(lambda: re.search(r"NSpid:.*\t1\n", status.read_text("utf-8")), "it is process 1")
    return child


@pytest.mark.end_to_end
@pytest.mark.fault(119, 210)
@pytest.mark.parametrize("words", ASKING)
def test_process_1_of_a_container_ends_by_a_signal(
    words: str, config: str, sim: Simulator, as_process_1: str
) -> None:
    """The kernel drops a signal that process 1 has no handler for."""
    sim.fail(Fault(after="hang", times=None))
    with started(*words.split(), "--config.file", config, wrapper=as_process_1) as running:
        wait_until(lambda: sim.requests, "a request")
        os.kill(child_of(running), signal.SIGTERM)
        assert running.code() == 143


@pytest.mark.end_to_end
@pytest.mark.fault(119)
def test_process_1_of_a_container_reloads_and_ends(config: str, as_process_1: str) -> None:
    with started("--config.file", config, LOOPBACK, wrapper=as_process_1) as running:
        running.wait_for("first poll is complete")
        os.kill(child_of(running), signal.SIGHUP)
        running.wait_for("the configuration was reloaded")
        os.kill(child_of(running), signal.SIGTERM)
        assert running.code() == 0


@pytest.mark.end_to_end
@pytest.mark.fault(210)
@pytest.mark.parametrize(
    ("words", "code"),
    [(words, 143) for words in ASKING] + [("serve --web.listen-address=exporter.example:0", 0)],
)
def test_a_look_up_that_hangs_holds_up_no_signal(
    words: str, code: int, tmp_path: Path, as_process_1: str
) -> None:
    """The name server takes every question and answers none."""
    config = configured(tmp_path, "https://api.example")
    resolver = tmp_path / "resolv.conf"
    slow = "options timeout:30 attempts:5"
    resolver.write_text(f"nameserver {NAMESERVER}\n{slow}\n", encoding="ascii")
    mount = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
    wrapper = as_process_1.replace('"$@"', f"""sh -c '{mount}' sh "$@" """)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((NAMESERVER, 53))
        server.settimeout(DEADLINE_SECONDS)
        with started(*words.split(), "--config.file", config, wrapper=wrapper) as running:
            server.recv(512)
            os.kill(child_of(running), signal.SIGTERM)
            assert running.code() == code


class Terminal:
    """A terminal that a program is started on; `close` is the end of its window."""

    def __init__(self) -> None:
        self._screen, self._keys = os.openpty()
        self.path = os.ttyname(self._keys)
        # A session's leader that opens a terminal gets it for its own.
        self.streams: dict[str, Any] = {
            "start_new_session": True,
            "wrapper": f'exec "$@" <{self.path}',
        }

    def fileno(self) -> int:
        return self._keys

    def wait_for(self, text: bytes) -> None:
        said = b""
        while text not in said:
            assert select.select([self._screen], [], [], DEADLINE_SECONDS)[0], said
            said += os.read(self._screen, 4096)

    def close(self) -> None:
        for descriptor in {self._screen, self._keys}:
            os.close(descriptor)


@pytest.mark.fault(210)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_cursor_is_shown_again_below_the_progress(
    number: signal.Signals, code: int, tmp_path: Path, sim: Simulator
) -> None:
    config = str(config_file(tmp_path, sim, "page_size: 2"))
    sim.fail(Fault(after="hang", page=1, times=None))
    env = {"TERM": "xterm"}
    with (
        contextlib.closing(Terminal()) as terminal,
        started("numbers", "--config.file", config, env=env, stderr=terminal) as running,
    ):
        terminal.wait_for(b"\x1b[?25l")
        terminal.wait_for(b"acme: 2 numbers on 1 pages")
        assert running.end(number) == code
        terminal.wait_for(b"\x1b[?25h")


VARIABLES: Final = {"EXOTEL_ACCOUNT_SID": "acme", "EXOTEL_API_KEY": "k", "EXOTEL_API_TOKEN": "t"}


@pytest.mark.fault(211)
class TestTerminal:
    @pytest.fixture(autouse=True)
    def hang_up(self) -> Iterator[None]:
        """The tests may run under nohup, which what they start would inherit."""
        inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        yield
        signal.signal(signal.SIGHUP, inherited)

    @pytest.mark.parametrize("command", ["demo", "serve", "simulate"])
    def test_its_end_is_that_of_what_it_runs(self, command: str, sim: Simulator) -> None:
        """`serve` without a file has nothing to reload for a person."""
        env = VARIABLES | {"EXOTEL_BASE_URL": sim.url}
        terminal = Terminal()
        with started(command, LOOPBACK, env=env, **terminal.streams) as running:
            running.wait_for("Ctrl-C|msg=listening", "stderr" if command == "serve" else "stdout")
            terminal.close()
            assert running.code() == -signal.SIGHUP

    @pytest.mark.parametrize("words", ["serve --config.file {}", "demo"])
    def test_its_end_is_survived_by_what_reloads_or_runs_under_nohup(
        self, words: str, config: str
    ) -> None:
        terminal = Terminal()
        streams = terminal.streams
        if words == "demo":
            streams["wrapper"] = f"trap '' HUP; {streams['wrapper']}"
        with started(*words.format(config).split(), LOOPBACK, **streams) as running:
            running.wait_for("first poll is complete")
            terminal.close()
            if words == "demo":
                running.send(signal.SIGHUP)
                url = running.wait_for(r"Metrics +(\S+)", "stdout")[1]
                assert can_get(url)
            else:
                running.wait_for("the configuration was reloaded")
            assert running.end() == 0
