"""Listening sockets, the names that people read for them, and the signals that end a server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from exophone_exporter.errors import ConfigError, StartError
from exophone_exporter.server.server import listen, open_server, url_of
from tests.lib.processes import DEADLINE_SECONDS, Running, ask, run, started, wait_until
from tests.lib.servers import APP, running


@contextlib.contextmanager
def listening(*addresses: str) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(each) for each in listen(addresses)]
        yield sockets[0]


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=DEADLINE_SECONDS).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("127.0.0.1:0", {"127.0.0.1"}),
        ("localhost:0", {"127.0.0.1"}),
        ("[::1]:0", {"::1"}),
        (":0", {"127.0.0.1", "::1"}),
        ("0.0.0.0:0", {"127.0.0.1"}),
        ("[::]:0", {"127.0.0.1", "::1"}),  # as in Go
    ],
)
def test_an_address_is_reached_where_it_says_and_nowhere_else(
    address: str, hosts: set[str]
) -> None:
    with listening(address) as opened:
        port = opened.getsockname()[1]
        assert {host for host in ("127.0.0.1", "::1") if can_connect(host, port)} == hosts
        assert url_of(opened) == f"http://localhost:{port}"
        assert url_of(opened, "https") == f"https://localhost:{port}"


def test_a_unix_socket_is_named_by_its_path() -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        assert url_of(unix) == "unix:"


@pytest.mark.fault(264)
def test_a_unix_socket_is_served_and_its_file_goes_with_it(tmp_path: Path) -> None:
    """Owner and group may connect, whatever the umask; the client has no address, but limits."""
    path, web_config = tmp_path / "exporter.sock", tmp_path / "web.yml"
    web_config.write_text("rate_limit: {interval: 1h, burst: 1}\n", encoding="utf-8")

    async def app(scope: Any, _: Any, send: Any) -> None:
        assert scope["client"] is None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    before = os.umask(0o077)
    try:
        server = open_server(
            app, addresses=[f"unix:{path}", "127.0.0.1:0"], web_config_file=str(web_config)
        )
    finally:
        os.umask(before)
    with running(server):
        assert server.urls[0] == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        for expected in ("200 OK", "429 Too Many Requests"):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))
            assert ask(client).startswith(f"HTTP/1.1 {expected}\r\n")
        with pytest.raises(StartError, match="another process listens on it; choose another"):
            listen([f"unix:{path}"])
    assert not path.exists()


@pytest.mark.fault(264)
def test_only_the_unix_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "exporter.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    for opened in listen([f"unix:{path}"]):
        path.unlink()
        with listening(f"unix:{path}"):  # somebody removed the file, and started another process
            opened.close()
            assert path.is_socket()
    with pytest.raises(StartError, match="cannot listen on 192"):
        listen([f"unix:{path}", "192.0.2.1:0"])
    assert not path.exists()
    path.write_text("kept", encoding="utf-8")
    (tmp_path / "link").symlink_to(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagrams"))
        with pytest.raises(StartError, match="rotocol"):
            listen([f"unix:{tmp_path}/datagrams"])
    for name, reason in {
        "exporter.sock": "the file exists and is not a socket",
        "link": "the file exists and is not a socket",
        "gone/x": "No such file or directory",
        "x" * 200: "path too long",
    }.items():
        with pytest.raises(StartError, match=f"cannot listen on unix:.*: .*{reason}; choose"):
            listen([f"unix:{tmp_path}/{name}"])
    assert path.read_text("utf-8") == "kept"
    with pytest.raises(ConfigError, match="a Unix socket needs an absolute path"):
        listen(["unix:@abstract"])


FORM: Final = "write it like :10396, 127.0.0.1:10396, [::1]:10396 or unix:/run/exophone.sock"


@pytest.mark.fault(121)
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:0", "Cannot assign requested address; choose another address with --web.liste"),
        ("[2001:db8::1]:0", "Cannot assign requested address; choose another"),
        ("[::1%nosuch0]:0", "; choose another address with --web.listen-address"),
        (f"{'a' * 70}.example:0", "; choose another address with --web.listen-address"),
    ],
)
def test_an_unusable_address_is_one_line_that_repeats_it(address: str, reason: str) -> None:
    with pytest.raises(StartError) as caught, listening(address):
        pass
    message = str(caught.value)
    assert address in message
    assert reason in message
    assert "\n" not in message


@pytest.mark.fault(121)
@pytest.mark.parametrize(
    "address", ["abc", ":65536", ":-1", ":٣", "::1:80", "[::1]", "", "http://x:1"]
)
def test_what_is_not_an_address_is_refused_with_its_form(address: str) -> None:
    with pytest.raises(ConfigError) as caught, listening(address):
        pass
    assert caught.value.problems == (f"invalid address `{address}`: {FORM}",)


@pytest.mark.fault(121)
def test_with_a_port_in_use_the_other_sockets_are_closed_again() -> None:
    """All of the addresses or none, and no quiet fall-back to IPv4 alone, which could be free."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("", 0)) as free:
        port, free_port = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        with pytest.raises(StartError, match="Address already in use; choose another address"):
            listen([f"127.0.0.1:{free_port}", f"127.0.0.1:{port}"])
        assert not can_connect("127.0.0.1", free_port)
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6) as taken,
        pytest.raises(StartError, match="Address already in use"),
    ):
        listen([f":{taken.getsockname()[1]}"])


_LISTEN_AS_NOBODY: Final = """
import errno, os, pathlib, socket, sys
from exophone_exporter.errors import StartError
from exophone_exporter.server.server import listen
if os.geteuid() == 0:
    os.setuid(65534)
first_free = pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
if not first_free.exists() or int(first_free.read_text()) <= 1:
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    socket.socket.bind = refuse
try:
    listen([sys.argv[1]])
except StartError as error:
    print(error)
"""


@pytest.mark.fault(121)
def test_a_privileged_port_is_refused_with_the_systems_reason() -> None:
    """As a user other than root. Where every port is free, as in containers, it is simulated."""
    ended = run("127.0.0.1:1", program=[sys.executable, "-c", _LISTEN_AS_NOBODY])
    assert ended.stdout == (
        "cannot listen on 127.0.0.1:1: Permission denied;"
        " choose another address with --web.listen-address\n"
    )


@pytest.mark.fault(133)
def test_the_backlog_takes_a_burst_of_scrapers() -> None:
    """At least 128 connections wait without being refused (the default of Python is 5)."""
    with listening("127.0.0.1:0") as opened, contextlib.ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(
                socket.create_connection(opened.getsockname(), timeout=DEADLINE_SECONDS)
            )


# --- signals

_SIGNALLED: Final = (
    APP
    + """
import os, sys, time
from exophone_exporter import logs

def hang_up():
    print("hangup", flush=True)
    if "block" in sys.argv:
        time.sleep(3600)
    if "raise" in sys.argv:
        raise RuntimeError("no such file")

logs.configure("info", "logfmt")
server = open_server(
    app,
    addresses=["127.0.0.1:0"],
    on_stop=lambda: os.write(1, b"stop\\n"),
    on_hangup=hang_up if "hangup" in sys.argv else None,
)
print(server.urls[0], flush=True)
if "died" in sys.argv:
    server.stop()
server.run()
if "died" in sys.argv or "slow" in sys.argv:
    print("ended", flush=True)
    noted = False
    for _ in range(6000):
        time.sleep(0.01)  # a signal just before a long wait would be handled only after it
        if server._signals and not noted:
            print("noted", flush=True)
            noted = True
sys.exit(7)
"""
)


def signalled(*words: str) -> Any:
    """A server that prints which callbacks are called, and ends with exit code 7."""
    return started(*words, program=[sys.executable, "-c", _SIGNALLED])


def served(running: Running) -> bool:
    """Whether it answers; from then on it handles signals."""
    port = int(running.wait_for(r"localhost:(\d+)\n", "stdout")[1])
    return "served" in ask(socket.create_connection(("127.0.0.1", port)))


@pytest.mark.fault(119)
@pytest.mark.parametrize("words", [("hangup",), ("hangup", "raise")], ids=["works", "fails"])
def test_sighup_is_handled_once_each_time_and_the_server_goes_on(words: tuple[str, ...]) -> None:
    """Even if a callback fails; SIGPIPE, from a reader that leaves, is ignored."""
    with signalled(*words) as running:
        assert served(running)
        for count in (1, 2):
            running.send(signal.SIGHUP)
            running.wait_for("hangup\n" * count, "stdout")
        running.send(signal.SIGPIPE)
        sent_at = time.monotonic()
        wait_until(lambda: time.monotonic() > sent_at + 0.3, "it would be called again")
        assert served(running)
        running.send(signal.SIGTERM)
        assert running.process.wait(DEADLINE_SECONDS) == 7
    assert running.stdout.splitlines()[1:] == ["hangup", "hangup", "stop"]


@pytest.mark.fault(118)
def test_a_second_signal_ends_it_immediately_even_after_the_server() -> None:
    """What follows the server, like waiting for pollers, may be cut short; not by SIGHUP."""
    with signalled("slow", "hangup") as running:
        assert served(running)
        running.send(signal.SIGTERM)
        running.wait_for("stop\nended\n", "stdout")
        running.send(signal.SIGHUP)
        assert running.end(signal.SIGINT) == 130


@pytest.mark.fault(215)
def test_a_loop_that_is_blocked_ends_by_one_signal() -> None:
    with signalled("hangup", "block") as running:
        assert served(running)
        running.send(signal.SIGHUP)
        running.wait_for("hangup\n", "stdout")
        assert running.end() == 0


@pytest.mark.fault(120)
def test_the_first_signal_after_a_death_is_the_first() -> None:
    """A poller's death ends the server without a signal: the next signal does not cut it short."""
    with signalled("died") as running:
        running.wait_for("ended\n", "stdout")
        running.send(signal.SIGINT)
        running.wait_for("noted\n", "stdout")  # together, they could be handled in any order
        assert running.end(signal.SIGTERM) == 143
