"""Listening sockets, and the names that people read for them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from exophone_exporter.errors import StartError
from exophone_exporter.serving import listen, url_of


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
import os, sys
from exophone_exporter.errors import StartError
from exophone_exporter.serving import listen
if os.geteuid() == 0:
    os.setuid(65534)
try:
    listen([sys.argv[1]])
except StartError as error:
    print(error)
"""


@pytest.mark.fault(121)
def test_a_privileged_port_is_told() -> None:
    """The system's reason, in one line; asked as a user who is not root."""
    first_free = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not first_free.exists() or int(first_free.read_text()) <= 1:
        pytest.skip("this machine has no privileged ports")
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
