"""Sockets, the HTTP server around them, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn

from exophone_exporter.errors import StartError
from exophone_exporter.logs import fields
from exophone_exporter.server.connections import Connection, ConnectionLimit, Limits

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})"
)
_BACKLOG: Final = 1024
_PORT_MAX: Final = 65535
# A scrape that is being written when the end comes may take so long to finish.
_GRACE_SECONDS: Final = 1
# So many are accepted before others get their turn.
_ACCEPT_AT_ONCE: Final = 64
_PAUSE_SECONDS: Final = 0.1
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Whoever is short of descriptors all the time is told of it so often.
_REMINDER_SECONDS: Final = 3600.0
# A scrape that comes while a poll is being read and rendered waits for the interpreter so long at
# the most, for each step of its own; Python's default is ten times as much.
_SWITCH_SECONDS: Final = 0.0005

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


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    """The URL under which this machine reaches a listening socket, `unix:PATH` for a Unix one."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    if host in ("::", "0.0.0.0", "127.0.0.1", "::1"):  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _end_at_once(sig: int) -> None:
    os._exit(128 + sig)


class _Acceptor:
    """Takes the connections of one listening socket.

    By hand, because both loops fall short when descriptors run out: asyncio logs a traceback
    for each attempt, and uvloop can close the listening socket for good without a word. Here
    those that wait for a request make room, and the rest of the queue waits.
    """

    def __init__(
        self,
        listening: socket.socket,
        limit: ConnectionLimit,
        protocol: Callable[[bool], Connection],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._limit = limit
        self._protocol = protocol
        self._tls = tls
        self._told_at = -_REMINDER_SECONDS
        self._pause: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more, and end what is not connected yet."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        for task in self._connecting:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait for what `close` ended."""
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._rest(error)
                    return
                continue  # the client has left already
            self._take(accepted)

    def _rest(self, error: OSError) -> None:
        """Out of descriptors: the loop would turn without end, so it looks away for a while."""
        now = self._loop.time()
        if now - self._told_at >= _REMINDER_SECONDS:
            self._told_at = now
            _log.warning(
                "no more connections for now; raise the limit of open files (ulimit -n)",
                extra=fields(error=error.strerror),
            )
        self._limit.evict_idle()
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _take(self, accepted: socket.socket) -> None:
        if self._limit.has_room():
            connection = self._protocol(False)
        elif self._limit.has_room_to_refuse():
            connection = self._protocol(True)
        else:
            accepted.close()
            return
        self._limit.add(connection)
        task = self._loop.create_task(self._connect(accepted, connection))
        connection.handshake = task
        self._connecting.add(task)
        task.add_done_callback(lambda done: self._settle(done, accepted, connection))

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        limits = self._limit.limits
        timeouts: dict[str, Any] = {}
        if self._tls is not None:
            timeouts["ssl_handshake_timeout"] = limits.handshake_seconds
            timeouts["ssl_shutdown_timeout"] = limits.write_seconds
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.connect_accepted_socket(
            lambda: connection, accepted, ssl=self._tls, **timeouts
        )

    def _settle(
        self, task: asyncio.Task[None], accepted: socket.socket, connection: Connection
    ) -> None:
        """A connection was made, or failed, or was ended before, perhaps before it began."""
        self._connecting.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        accepted.close()
        self._limit.remove(connection)
        _log.debug("no connection was made", extra=fields(error=error))


class Supervisor(Protocol):
    """Who is told how the server does, in its loop; `supervision.Supervision` is one."""

    def tick(self) -> None:
        """It serves: called as it begins to, and ten times a second from then on."""
        ...

    def stopping(self) -> None:
        """It accepts no more; what is under way has a moment to finish."""
        ...


class Server(uvicorn.Server):
    """uvicorn, with limits on its clients, ending on the first signal and at once on the second.

    `on_signal` is called by SIGTERM or SIGINT, in the handler of the signal: it only sets flags.
    `on_hangup` is called in the loop soon after SIGHUP, once for several that come together;
    without it SIGHUP is left as it is. With `tls` every socket speaks TLS, and `accepts` is asked
    once per connection after its handshake; where it says no, nothing is served.

    Relied on of uvicorn.Server: `startup`, `on_tick` (at once, then ten times a second),
    `shutdown`, `capture_signals`, `handle_exit`, `should_exit`, and that `servers` are closed at
    the end.
    """

    def __init__(  # noqa: PLR0913 - each is named, and most have a default
        self,
        app: Callable[..., Any],
        *,
        on_signal: Callable[[], None],
        on_hangup: Callable[[], None] | None = None,
        tls: ssl.SSLContext | None = None,
        accepts: Callable[[ssl.SSLObject], bool] | None = None,
        limits: Limits | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        limits = limits or Limits()
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here asks who the client is
                timeout_graceful_shutdown=_GRACE_SECONDS,
                timeout_keep_alive=limits.keep_alive_seconds,
                workers=1,  # or uvicorn reads WEB_CONCURRENCY
            )
        )
        self._on_signal = on_signal
        self._on_hangup = on_hangup
        self._tls = tls
        self._limit = ConnectionLimit(limits, accepts)
        self._supervisor = supervisor
        self._signals = 0
        self._hung_up = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes."""
        if threading.current_thread() is threading.main_thread():
            sys.setswitchinterval(_SWITCH_SECONDS)
            gc.freeze()  # what was imported stays: a collection that looks at it holds scrapes up
        super().run(sockets)
        if threading.current_thread() is threading.main_thread():
            # uvicorn put the earlier handlers back; what is left is short, and may be cut short.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on sockets that listen already."""
        await super().startup(sockets=[])
        accepting: Any = [
            _Acceptor(each, self._limit, self._connection, self._tls) for each in sockets or ()
        ]
        self.servers = accepting

    async def on_tick(self, counter: int) -> bool:
        """What has to be done now and then; whether to end."""
        if self._supervisor:
            self._supervisor.tick()
        self._limit.end_overdue(asyncio.get_running_loop().time())
        if self._hung_up and self._on_hangup:
            self._hung_up = False
            try:
                self._on_hangup()
            except Exception:  # noqa: BLE001 - the server goes on whatever it raised
                _log.exception("SIGHUP had no effect")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is served."""
        if self._supervisor:
            self._supervisor.stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The handlers of signals while the server runs."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            if self._on_hangup:
                signal.signal(signal.SIGHUP, self._note_hangup)  # harmless after the server too
        with super().capture_signals():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's form
        """Only set flags: the loop ends by itself. uvicorn would raise the signal again."""
        self._signals += 1
        if self._signals > 1:
            _end_at_once(sig)
        self.should_exit = True
        # Answers still being written may be cut off now, which uvicorn would call an error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._on_signal()
        _log.info("stopping", extra=fields(signal=signal.Signals(sig).name))

    def _note_hangup(self, *_: object) -> None:
        self._hung_up = True

    def _connection(self, is_refused: bool) -> Connection:
        return Connection(
            self._limit,
            self.config,
            self.server_state,
            asyncio.get_running_loop(),
            is_refused=is_refused,
        )
