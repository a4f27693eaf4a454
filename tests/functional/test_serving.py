"""Listening sockets, the names that people read for them, and the signals that end a server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from exophone_exporter.errors import StartError
from exophone_exporter.server.server import listen, url_of
from tests.lib.processes import ask, environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence


def close(sockets: list[socket.socket]) -> None:
    for listening in sockets:
        listening.close()


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        pytest.param("127.0.0.1:0", {"127.0.0.1"}, id="ipv4"),
        pytest.param("localhost:0", {"127.0.0.1"}, id="name"),
        pytest.param("[::1]:0", {"::1"}, id="ipv6"),
        pytest.param(":0", {"127.0.0.1", "::1"}, id="all-interfaces"),
        pytest.param("0.0.0.0:0", {"127.0.0.1"}, id="all-of-ipv4"),
        pytest.param("[::]:0", {"127.0.0.1", "::1"}, id="unspecified-as-in-go"),
    ],
)
def test_an_address_is_reached_where_it_says(address: str, hosts: set[str]) -> None:
    """And nowhere else on this machine."""
    sockets = listen([address])
    try:
        port = sockets[0].getsockname()[1]
        assert {host for host in ("127.0.0.1", "::1") if can_connect(host, port)} == hosts
        assert url_of(sockets[0]) == f"http://localhost:{port}"
    finally:
        close(sockets)


@pytest.mark.fault(121)
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param("abc", "write it like :10396, 127.0.0.1:10396 or [::1]:10396", id="no-port"),
        pytest.param(":65536", "write it like", id="port-too-large"),
        pytest.param(":-1", "write it like", id="negative-port"),
        pytest.param(":٣", "write it like", id="arabic-digit"),
        pytest.param("::1:80", "write it like", id="ipv6-without-brackets"),
        pytest.param("[::1]", "write it like", id="ipv6-without-port"),
        pytest.param("http://x:1", "write it like", id="url"),
        pytest.param("", "write it like", id="empty"),
        pytest.param("192.0.2.1:0", "Cannot assign requested address", id="foreign-address"),
        pytest.param("[2001:db8::1]:0", "Cannot assign requested address", id="foreign-ipv6"),
        pytest.param("[::1%nosuch0]:0", "", id="unknown-zone"),
        pytest.param(f"{'a' * 70}.example:0", "", id="label-too-long"),
    ],
)
def test_an_address_that_cannot_be_is_told_in_one_line(address: str, reason: str) -> None:
    """The line repeats the address and says what to do."""
    with pytest.raises(StartError) as caught:
        close(listen([address]))
    message = str(caught.value)
    assert address in message
    assert reason in message
    assert "\n" not in message
    assert "write it like" in message or "--web.listen-address" in message


@pytest.mark.fault(121)
def test_a_port_in_use_is_told_and_the_other_sockets_are_closed_again() -> None:
    """All of the addresses or none."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("", 0)) as free:
        port = taken.getsockname()[1]
        free_port = free.getsockname()[1]
        free.close()
        with pytest.raises(StartError, match="Address already in use; choose another address"):
            listen([f"127.0.0.1:{free_port}", f"127.0.0.1:{port}"])
        assert not can_connect("127.0.0.1", free_port)


@pytest.mark.fault(121)
def test_a_port_in_use_on_all_interfaces_is_told() -> None:
    """No quiet fall-back to IPv4 alone, which could be free."""
    with socket.create_server(("::", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match="Address already in use"):
            close(listen([f":{port}"]))


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
def test_a_privileged_port_is_told() -> None:
    """The system's reason, in one line; as a user other than root.

    Containers often let everybody have every port; there the refusal is made as the system's is.
    """
    told = subprocess.run(
        [sys.executable, "-c", _LISTEN_AS_NOBODY, "127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines() == [
        (
            "cannot listen on 127.0.0.1:1: Permission denied;"
            " choose another address with --web.listen-address"
        )
    ]


@pytest.mark.fault(133)
def test_the_backlog_takes_a_burst_of_scrapers() -> None:
    """At least 128 connections wait without being refused (the default of Python is 5)."""
    sockets = listen(["127.0.0.1:0"])
    address = sockets[0].getsockname()
    clients: list[socket.socket] = []
    try:
        clients += [socket.create_connection(address, timeout=2) for _ in range(200)]
        assert len(clients) == 200
    finally:
        close([*clients, *sockets])


def test_the_url_has_the_scheme_that_is_spoken() -> None:
    """And a Unix socket, which has no URL, its path."""
    sockets = listen(["127.0.0.1:0"])
    try:
        port = sockets[0].getsockname()[1]
        assert url_of(sockets[0], "https") == f"https://localhost:{port}"
    finally:
        close(sockets)
    with socket.socket(socket.AF_UNIX) as unix:
        assert url_of(unix) == "unix:"


# --- signals

_DEADLINE_SECONDS: Final = 10.0
_SERVE: Final = """
import os, signal, sys
from exophone_exporter import logs
from exophone_exporter.server import open_server

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})

def hang_up():
    print("hangup", flush=True)
    if "raise" in sys.argv:
        raise RuntimeError("no such file")
"""
_SIGNALLED: Final = (
    _SERVE
    + """
logs.configure("info", "logfmt")
server = open_server(
    app,
    addresses=["127.0.0.1:0"],
    on_stop=lambda: os.write(1, b"told\\n"),
    on_hangup=hang_up if "hangup" in sys.argv else None,
)
print(server.urls[0].rpartition(":")[2], flush=True)
if "died" in sys.argv:
    server.stop()
server.run()
if "died" in sys.argv or "slow" in sys.argv:
    print("ended", flush=True)
    import threading
    threading.Event().wait(10)
sys.exit(7)
"""
)


def signalled(*words: str) -> subprocess.Popen[str]:
    """A server that prints what its callbacks receive, and ends with exit code 7."""
    return subprocess.Popen(
        [sys.executable, "-c", _SIGNALLED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def lines(process: subprocess.Popen[str], count: int) -> Sequence[str]:
    """So many lines of what it prints."""
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def wait_until_it_serves(process: subprocess.Popen[str]) -> int:
    """The port; its signal handlers stand then."""
    port = int(lines(process, 1)[0])
    assert "served" in ask(socket.create_connection(("127.0.0.1", port)))
    return port


@pytest.mark.fault(119)
@pytest.mark.parametrize(
    "words", [pytest.param(("hangup",), id="works"), pytest.param(("hangup", "raise"), id="fails")]
)
def test_sighup_is_told_and_the_server_goes_on(words: tuple[str, ...]) -> None:
    """Each time, even if a callback fails."""
    with signalled(*words) as process:
        try:
            port = wait_until_it_serves(process)
            for _ in range(2):
                process.send_signal(signal.SIGHUP)
                assert lines(process, 1) == ["hangup"]
            heard_at = time.monotonic()
            wait_until(lambda: time.monotonic() > heard_at + 0.3, "it would be called again")
            assert "served" in ask(socket.create_connection(("127.0.0.1", port)))
            process.terminate()
            assert lines(process, 1) == ["told"]
            assert process.wait(_DEADLINE_SECONDS) == 7
        finally:
            process.kill()


@pytest.mark.fault(119)
def test_sigpipe_is_ignored() -> None:
    """A reader that leaves is an error of one write, not the end of the process."""
    with signalled() as process:
        try:
            port = wait_until_it_serves(process)
            process.send_signal(signal.SIGPIPE)
            assert "served" in ask(socket.create_connection(("127.0.0.1", port)))
        finally:
            process.kill()


@pytest.mark.fault(118)
def test_a_second_signal_ends_at_once_even_after_the_server() -> None:
    """What follows the server, like waiting for pollers, may be cut short; SIGHUP does not."""
    with signalled("slow", "hangup") as process:
        try:
            wait_until_it_serves(process)
            process.terminate()
            assert lines(process, 2) == ["told", "ended"]
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
            assert process.wait(_DEADLINE_SECONDS) == 130
        finally:
            process.kill()


@pytest.mark.fault(120)
def test_the_first_signal_after_a_death_is_the_first() -> None:
    """A poller's death ends the server without a signal: the next signal does not cut it short."""
    with signalled("died") as process:
        try:
            lines(process, 1)
            assert lines(process, 1) == ["ended"]
            process.terminate()
            assert lines(process, 1) == ["told"]
            assert process.poll() is None
            process.terminate()
            assert process.wait(_DEADLINE_SECONDS) == 143
        finally:
            process.kill()
