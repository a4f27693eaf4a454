"""Sockets, the HTTP server around them, and what ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from exophone_exporter.errors import StartError
from exophone_exporter.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType


_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})"
)
_BACKLOG: Final = 1024
_PORT_MAX: Final = 65535
# A scrape that is being written when the end comes may take so long to finish.
_GRACE_SECONDS: Final = 1
# Longer than a usual scrape interval, so that Prometheus keeps its connection.
_KEEP_ALIVE_SECONDS: Final = 75

_log = logging.getLogger(__name__)


def listen(addresses: Iterable[str]) -> list[socket.socket]:
    """A listening socket for each `[host]:port`; raises StartError in one line for a person.

    An empty host is all interfaces, over IPv6 and IPv4 where the machine has both.
    """
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(_listening_socket(address)) for address in addresses]
        opened.pop_all()  # all of them or none
        return sockets


def _listening_socket(address: str) -> socket.socket:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > _PORT_MAX:
        raise StartError(
            f"cannot listen on `{address}`: write it like :10396, 127.0.0.1:10396 or [::1]:10396"
        )
    host, port = match["v6"] or match["host"] or "", int(match["port"])
    try:
        if host in ("", "::"):  # as in Go, whose users write [::] for every address of the machine
            return _on_all_interfaces(port)
        family = socket.AF_INET6 if match["v6"] else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"cannot listen on {address}: {reason.split(' (')[0]};"
            " choose another address with --web.listen-address"
        ) from error


def _on_all_interfaces(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        except OSError as error:
            if error.errno is not None and error.strerror and "in use" in error.strerror:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - as documented


def url_of(listening: socket.socket) -> str:
    """The URL under which this machine reaches a listening socket."""
    host, port = listening.getsockname()[:2]
    if host in ("::", "0.0.0.0", "127.0.0.1", "::1"):  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _end_at_once(sig: int, *_: object) -> None:
    os._exit(128 + sig)


class Server(uvicorn.Server):
    """uvicorn, ending with exit 0 on the first signal and at once on the second."""

    def __init__(self, app: Callable[..., Any], *, on_signal: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )
        self._on_signal = on_signal

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes."""
        super().run(sockets)
        if threading.current_thread() is threading.main_thread():
            # uvicorn put the earlier handlers back; what is left is short, and may be cut short.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _end_at_once)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's form
        """Only set flags: the loop ends by itself. uvicorn would raise the signal again."""
        if self.should_exit:
            _end_at_once(sig)
        self.should_exit = True
        # Answers still being written may be cut off now, which uvicorn would call an error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._on_signal()
        _log.info("stopping", extra=fields(signal=signal.Signals(sig).name))
