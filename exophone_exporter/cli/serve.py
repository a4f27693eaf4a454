"""`serve`, and the part of it that `demo` shares."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from exophone_exporter import __version__
from exophone_exporter.config import loader
from exophone_exporter.errors import StartError
from exophone_exporter.inventory.formatting import status_line
from exophone_exporter.logs import fields
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.polling.reload import Reloader
from exophone_exporter.server.server import Server, listen, url_of
from exophone_exporter.server.supervision import Supervision
from exophone_exporter.server.systemd import Notifier, passed_sockets
from exophone_exporter.server.tls import ServerTls, TlsProblem
from exophone_exporter.server.users import BasicAuth, ExtraHeaders
from exophone_exporter.server.web_config import WebConfigFile
from exophone_exporter.web import reload, routes
from exophone_exporter.web.probe import Prober, probe_handler
from exophone_exporter.web.settings import LISTEN_ADDRESS, WebSettings

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Callable, Iterator

    from exophone_exporter.config.settings import Config
    from exophone_exporter.config.sharding import Shard

    Application = Callable[..., Any]

_VARIABLES_STAY: Final = (
    "Without --config.file a reload only reads the files again that the ..._FILE variables name;"
    " a change of the variables themselves takes a restart."
)

_log = logging.getLogger(__name__)


def serve(args: argparse.Namespace) -> int:
    """Poll the configured accounts and serve their metrics until a signal comes."""
    loaded = loader.load(args.config_file).share(args.shard)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    return run(
        loaded,
        args,
        lambda urls: _announce(loaded, urls),
        load=lambda: loader.load(args.config_file).share(args.shard),
        note="" if args.config_file else _VARIABLES_STAY,
    )


def run(
    loaded: Config,
    args: argparse.Namespace,
    on_listening: Callable[[list[str]], None],
    *,
    load: Callable[[], Config] | None = None,
    note: str = "",
) -> int:
    """Serve a configuration; returns the exit code. The sockets open before the first request.

    `load` reads the configuration anew for a reload, of which `note` says what it leaves out.
    Without it a reload changes nothing.
    """
    settings = _settings(args)
    file = WebConfigFile(args.web_config_file) if args.web_config_file else None
    tls, sockets = _tls(file), _sockets(args)
    died: list[bool] = []

    def end_by_death() -> None:
        died.append(True)
        server.should_exit = True

    exporter = Exporter(loaded, revision=loader.revision(), on_death=end_by_death)
    supervision = Supervision(
        Notifier(loader.environment(), os.getpid()),
        exporter.clock,
        healthy=exporter.healthy,
        status=lambda: status_line(exporter.statuses(), exporter.clock.now()),
    )
    again = load or (lambda: loaded)
    reloader = Reloader(again, exporter, exporter.clock, note=note, witness=supervision)
    with _guarded(_application(exporter, settings, reloader, loaded.shard), file) as guarded:
        server = Server(
            guarded,
            on_signal=exporter.ask_to_stop,
            on_hangup=reloader.hang_up,
            tls=tls.context if tls else None,
            accepts=tls.accepts if tls else None,
            supervisor=supervision,
        )
        with _working(exporter, reloader):
            prefix, scheme = settings.prefix, "https" if tls else "http"
            on_listening([url_of(each, scheme) + prefix for each in sockets])
            server.run(sockets=sockets)
    return 1 if died else 0


def _application(
    exporter: Exporter, settings: WebSettings, reloader: Reloader, shard: Shard
) -> Application:
    return routes.application(
        exporter,
        settings,
        probe=probe_handler(Prober(exporter.clients, exporter.clock)),
        reload=reload.endpoint(reloader, enabled=settings.enable_lifecycle),
        shard=shard,
    )


@contextlib.contextmanager
def _working(exporter: Exporter, reloader: Reloader) -> Iterator[None]:
    """What works beside the server; nothing of it holds up an end that came by an exception."""
    # The server takes this over; until then, too, SIGHUP must not end the process.
    signal.signal(signal.SIGHUP, lambda *_: reloader.hang_up())
    _start(exporter, reloader)
    yield
    reloader.stop()
    exporter.stop()


def _start(exporter: Exporter, reloader: Reloader) -> None:
    try:
        exporter.start()
        reloader.start()
    except RuntimeError as error:
        raise StartError(
            "the system gives no thread for the accounts; raise the limit of processes (ulimit -u,"
            " TasksMax=, --pids-limit) or of memory"
        ) from error


def _tls(file: WebConfigFile | None) -> ServerTls | None:
    if file is None or file.current().tls is None:
        return None
    try:
        return ServerTls(lambda: file.current().tls)
    except TlsProblem as problem:  # its files changed since the configuration was checked
        raise StartError(f"--web.config.file: {problem}") from problem


def _sockets(args: argparse.Namespace) -> list[socket.socket]:
    if args.web_systemd_socket:
        return passed_sockets(loader.environment(), os.getpid())
    return listen(args.web_listen_address or [LISTEN_ADDRESS])


@contextlib.contextmanager
def _guarded(app: Application, file: WebConfigFile | None) -> Iterator[Application]:
    """The application behind the users and with the headers of the web configuration."""
    if file is None:
        yield app
        return
    with contextlib.closing(BasicAuth(app, file.current)) as auth:
        yield ExtraHeaders(auth, file.current)


def _settings(args: argparse.Namespace) -> WebSettings:
    return WebSettings(
        args.web_telemetry_path,
        args.web_max_requests,
        args.web_enable_lifecycle,
        args.web_external_url or "",
        args.web_route_prefix or "",
    )


def _announce(loaded: Config, urls: list[str]) -> None:
    shard = {} if loaded.shard.is_whole else {"shard": loaded.shard}
    _log.info(
        "listening",
        extra=fields(
            url=" ".join(urls),
            version=__version__,
            configuration=loaded.source,
            accounts=len(loaded.accounts),
            **shard,
        ),
    )
    if not loaded.accounts:
        _log.info("no account belongs to this shard; nothing is polled", extra=fields(**shard))
