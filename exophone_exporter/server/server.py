"""Listening sockets, the HTTP server on them, and what ends it."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn

from exophone_exporter.clock import Clock
from exophone_exporter.errors import ConfigError
from exophone_exporter.logs import fields
from exophone_exporter.server import tls, unix_socket, web_config
from exophone_exporter.server.connections import Connection, ConnectionLimit, Limits
from exophone_exporter.server.followed_files import FollowedFiles
from exophone_exporter.server.refusals import RefusedClients
from exophone_exporter.server.systemd import Supervision, all_or_none, passed_sockets
from exophone_exporter.server.tls import Tls
from exophone_exporter.server.tls_transport import TlsTransport
from exophone_exporter.server.unix_socket import cannot_listen
from exophone_exporter.server.users import Guard, header_lines
from exophone_exporter.threads import interruptible

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})"
)
_ADDRESS_FORM: Final = (
    "write it like :10396, 127.0.0.1:10396, [::1]:10396 or unix:/run/exophone.sock"
)
_BACKLOG: Final = 1024
_PORT_MAX: Final = 65535
# How long answers may take to finish once the server stops, and what is left of it at most.
_GRACE_SECONDS: Final = 1
_END_WITHIN_SECONDS: Final = 1.5
# How many connections are accepted in one step of the event loop.
_ACCEPT_COUNT: Final = 64
_PAUSE_SECONDS: Final = 0.1
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_WARN_EVERY_SECONDS: Final = 3600.0
# How long a scrape waits at most for the interpreter while a poll is being read and rendered, in
# each of its steps; Python's default is ten times as much.
_SWITCH_SECONDS: Final = 0.0005

_log = logging.getLogger(__name__)


def open_server(
    app: Callable[..., Any],
    *,
    addresses: Iterable[str] = (),
    systemd_socket: Mapping[str, str] | None = None,
    web_config_file: str | None = None,
    clock: Clock | None = None,
    **options: Any,
) -> Server:
    """Open the sockets of a server, as a Go exporter does with exporter-toolkit.

    It listens on each of `addresses`, or on the sockets that systemd announces in
    `systemd_socket`, the environment of the process. `options` are those of `Server`. From now on
    SIGHUP does not end the process if there is `on_hangup`. Raises ConfigError for an invalid web
    configuration or address, StartError for the sockets.
    """
    clock = clock or Clock()
    refused_clients = options["refused_clients"] = RefusedClients(clock)
    followed: list[FollowedFiles[Any]] = []
    current_tls = None
    if web_config_file:
        web_config.check_web_config(web_config_file)
        config = web_config.follow(web_config_file, clock)
        followed.append(config)
        app = Guard(app, config.current, refused_clients, clock)
        options["headers"] = lambda: header_lines(config.current())
        if settings := config.current().tls:
            followed.append(tls.follow(lambda: config.current().tls, settings, clock))
            current_tls = followed[-1].current
    if systemd_socket is None:
        sockets = listen(addresses)
    else:
        sockets = passed_sockets(systemd_socket, os.getpid())
    return Server(app, sockets, tls=current_tls, followed=followed, **options)


def _config(app: Callable[..., Any], keep_alive_seconds: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the client's address is not used
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=keep_alive_seconds,
        workers=1,  # or uvicorn reads WEB_CONCURRENCY
    )


def listen(addresses: Iterable[str]) -> list[socket.socket]:
    """Return a listening socket for each address; raises ConfigError or StartError.

    An address is `[host]:port`, where an empty host means all interfaces, over IPv6 and IPv4 if the
    machine has both, or `unix:/path`.
    """
    return all_or_none(map(_listening_socket, addresses))


def _listening_socket(address: str) -> socket.socket:
    if address.startswith(unix_socket.PREFIX):
        return unix_socket.listen(address, _BACKLOG)
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > _PORT_MAX:
        raise ConfigError([f"invalid address `{address}`: {_ADDRESS_FORM}"])
    host, port = match["v6"] or match["host"] or "", int(match["port"])
    try:
        if host in ("", "::"):  # as in Go, whose users write [::] for every address of the machine
            return _on_all_interfaces(port)
        family = socket.AF_INET6 if match["v6"] else socket.AF_INET
        create = partial(socket.create_server, (host, port), family=family, backlog=_BACKLOG)
        is_name = not match["v6"] and not host.replace(".", "").isdigit()
        return interruptible(create) if is_name else create()
    except OSError as error:
        reason = error.strerror or str(error)
        raise cannot_listen(address, reason.split(" (")[0]) from error


def _on_all_interfaces(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - as documented


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a listening socket on this machine, `unix:PATH` for a Unix one."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    if host in ("::", "0.0.0.0", "127.0.0.1", "::1"):  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@dataclass(eq=False, repr=False)
class _Acceptor:
    """Accepts the connections of one listening socket.

    This does not use the event loop's own servers, because of what they do when file descriptors
    run out: asyncio logs a traceback for each attempt, and uvloop can close the listening socket
    without an error. Here connections that wait for their clients are ended, and new ones wait in
    the backlog.
    """

    _listening: socket.socket
    _limit: ConnectionLimit
    _protocol: Callable[[], Connection]
    _warned_at: float = -_WARN_EVERY_SECONDS
    _pause: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._listening.setblocking(False)
        # Accepted sockets inherit these.
        held_bytes = self._limit.limits.send_buffer_bytes
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, held_bytes)
        if self._listening.family != socket.AF_UNIX:
            self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)

    async def wait_closed(self) -> None:
        """Wait for connections that are being made."""
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPT_COUNT):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._pause_accepting(error)
                    return
                continue  # the client has left already
            self._admit(accepted)

    def _pause_accepting(self, error: OSError) -> None:
        """Without a pause the event loop would try again in each of its steps."""
        now = self._loop.time()
        if now - self._warned_at >= _WARN_EVERY_SECONDS:
            self._warned_at = now
            _log.warning(
                "too many open files; accepting is paused, raise the limit (ulimit -n)",
                extra=fields(error=error.strerror),
            )
        self._limit.evict_waiting()
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(
            _PAUSE_SECONDS, self._loop.add_reader, self._listening, self._accept
        )

    def _admit(self, accepted: socket.socket) -> None:
        connection = self._protocol()
        self._limit.add(connection)
        task = self._loop.create_task(self._connect(accepted, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        protocol = TlsTransport(connection.tls, connection) if connection.tls else connection
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except OSError as error:
            accepted.close()
            self._limit.discard(connection)
            _log.debug("no connection was made", extra=fields(error=error))


class Server(uvicorn.Server):
    """uvicorn with limits on its clients. The first signal ends it, the second the process.

    `on_stop` is called in the event loop when the server begins to end.
    `on_hangup` is called in the event loop soon after SIGHUP, once for several that come together;
    without it SIGHUP is not handled. `on_tick` is called there ten times a second. `tls` gives each
    new connection its TLS; without it the server speaks plain HTTP. `headers` gives those of
    answers that do not come from `app`. `urls` are where it listens.

    Relied on of uvicorn.Server: `startup`, `on_tick` (first immediately, then ten times a second),
    `shutdown`, `handle_exit`, `should_exit`, and that `servers` are closed at the end.
    """

    def __init__(  # noqa: PLR0913 - each is named, and most have a default
        self,
        app: Callable[..., Any],
        sockets: Sequence[socket.socket],
        *,
        limits: Limits | None = None,
        tls: Callable[[], Tls] | None = None,
        followed: Sequence[FollowedFiles[Any]] = (),
        refused_clients: RefusedClients | None = None,
        on_stop: Callable[[], None] = lambda: None,
        on_hangup: Callable[[], object] | None = None,
        on_tick: Callable[[], None] = lambda: None,
        supervision: Supervision | None = None,
        headers: Callable[[], list[tuple[bytes, bytes]]] = list,
    ) -> None:
        self.refused_clients = refused_clients or RefusedClients(Clock())
        self._limit = ConnectionLimit(limits or Limits(), self.refused_clients)
        super().__init__(_config(app, self._limit.limits.keep_alive_seconds))
        self.urls = [url_of(each, "https" if tls else "http") for each in sockets]
        self._sockets = sockets
        self._tls = tls
        self.certificate_expires_at: float | None = None
        self._followed = followed
        self._on_stop = on_stop
        self._on_hangup = on_hangup
        self._on_tick = on_tick
        self._supervision = supervision
        self._headers = headers
        self._signals: list[int] = []
        self._hung_up = False
        if on_hangup and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, self._note_hangup)  # harmless after the server too

    def run(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's form
        """Serve until a signal comes or `stop` is called."""
        if threading.current_thread() is not threading.main_thread():
            super().run([])
            return
        sys.setswitchinterval(_SWITCH_SECONDS)
        gc.freeze()  # imported objects stay: collections that visit them would delay scrapes
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        super().run([])
        signal.setitimer(signal.ITIMER_REAL, 0)
        # uvicorn restored the earlier handlers; what is left is short and may be interrupted.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)

    def stop(self) -> None:
        """End soon; safe from any thread."""
        self.should_exit = True

    def retry_files(self) -> None:
        """Load files again whose last version could not be used; safe from any thread."""
        for files in self._followed:
            files.retry()

    def files_are_up_to_date(self) -> bool | None:
        """Whether the last versions of the followed files are in force; None without any."""
        return all(files.is_up_to_date for files in self._followed) if self._followed else None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's form
        """Accept connections."""
        await super().startup(sockets=[])
        acceptors: Any = [
            _Acceptor(each, self._limit, self._new_connection) for each in self._sockets
        ]
        self.servers = acceptors

    async def on_tick(self, counter: int) -> bool:
        """Do what is due; whether to end."""
        if self._supervision:
            self._supervision.tick()
        self._limit.end_overdue(asyncio.get_running_loop().time())
        try:
            self._look_at_files()
        except Exception:  # noqa: BLE001 - the server goes on whatever it raised
            _log.exception("a reload had no effect")
        return await super().on_tick(counter)

    def _look_at_files(self) -> None:
        if self._hung_up and self._on_hangup:
            self._hung_up = False
            self._on_hangup()
        self._on_tick()
        for files in self._followed:
            files.current()
        if self._tls:
            self.certificate_expires_at = self._tls().expires_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's form
        """Close the sockets and end the connections."""
        if self._signals:
            _log.info("stopping", extra=fields(signal=signal.Signals(self._signals[0]).name))
        # Answers that are being written may now be cut off, which uvicorn would log as an error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._on_stop()
        if self._supervision:
            self._supervision.stopping()
        await super().shutdown(list(self._sockets))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's form
        """Set flags only: the loop ends by itself. uvicorn would raise the signal again."""
        if self._signals:
            os._exit(128 + sig)
        self._signals.append(sig)
        self.should_exit = True
        # The loop may be blocked, for example by a file on a network that is gone.
        signal.setitimer(signal.ITIMER_REAL, _END_WITHIN_SECONDS)

    def _note_hangup(self, *_: object) -> None:
        self._hung_up = True

    def _new_connection(self) -> Connection:
        return Connection(
            self._limit,
            self.config,
            self.server_state,
            asyncio.get_running_loop(),
            tls=self._tls() if self._tls else None,
            headers=self._headers,
        )
