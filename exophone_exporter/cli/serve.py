"""`serve`, and the part of it that `demo` shares."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from typing import Final

from exophone_exporter import __version__
from exophone_exporter.cli import signals
from exophone_exporter.config import loader
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import StartError
from exophone_exporter.inventory.formatting import status_line
from exophone_exporter.logs import fields
from exophone_exporter.metrics.page import ServerInfo
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.polling.reload import ConfigFiles, Reloader
from exophone_exporter.server import Server, Supervision, open_server
from exophone_exporter.web import reload, routes
from exophone_exporter.web.probe import Prober
from exophone_exporter.web.settings import LISTEN_ADDRESS, WebSettings

_VARIABLES_STAY: Final = (
    "Without --config.file a reload reads only the files again that the ..._FILE variables name;"
    " a change of the variables themselves requires a restart."
)

_log = logging.getLogger(__name__)


def serve(args: argparse.Namespace) -> int:
    """Poll the configured accounts and serve their metrics until a signal comes."""
    files = ConfigFiles(args.config_auto_reload_interval)

    def load() -> Config:
        return loader.load(args.config_file, read_file=files.read).share(args.shard)

    loaded = load()
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    return run(
        loaded,
        args,
        lambda urls: _announce(loaded, urls),
        load,
        files if args.config_enable_auto_reload else None,
    )


def run(
    loaded: Config,
    args: argparse.Namespace,
    on_listening: Callable[[list[str]], None],
    load: Callable[[], Config],
    files: ConfigFiles | None = None,
) -> int:
    """Serve a configuration; returns the exit code. The sockets open before the first request.

    `load` reads the configuration again for a reload. A change of `files` reloads, too.
    """
    died: list[bool] = []

    def stop_after_death() -> None:
        died.append(True)
        server.stop()

    exporter = Exporter(
        loaded,
        revision=loader.revision(),
        on_death=stop_after_death,
        server_info=lambda: _info(server),
        with_process=not args.web_disable_exporter_metrics,
    )
    supervision = _supervision(exporter)
    reloader = Reloader(
        lambda: _load_again(server, load),
        exporter,
        exporter.clock,
        files=files,
        warnings=loaded.warnings,
        note=_VARIABLES_STAY if loaded.source == loader.ENVIRONMENT_SOURCE else "",
        on_begin=supervision.reloading,
        on_end=supervision.reloaded,
    )
    server = _open(args, loaded, exporter, reloader, supervision)
    _start(exporter)
    on_listening([url + _settings(args).prefix for url in server.urls])
    server.run()
    exporter.stop()
    return 1 if died else 0


def _load_again(server: Server, load: Callable[[], Config]) -> Config:
    server.retry_files()
    return load()


def _info(server: Server) -> ServerInfo:
    counts, expires_at = server.refused_clients.counts(), server.certificate_expires_at
    return ServerInfo(counts, server.files_are_up_to_date(), expires_at)


def _open(
    args: argparse.Namespace,
    loaded: Config,
    exporter: Exporter,
    reloader: Reloader,
    supervision: Supervision,
) -> Server:
    settings = _settings(args)
    prober = Prober(exporter.clients, exporter.statuses)
    reloads = args.command == "serve" and signals.hangup_reloads()
    return open_server(
        routes.application(
            exporter,
            settings,
            probe=prober.handle,
            reload=reload.endpoint(reloader, enabled=settings.enable_lifecycle),
            shard=loaded.shard,
        ),
        addresses=args.web_listen_address or [LISTEN_ADDRESS],
        systemd_socket=loader.environment() if args.web_systemd_socket else None,
        web_config_file=args.web_config_file,
        on_stop=exporter.ask_to_stop,
        on_hangup=reloader.request if reloads else None,
        on_tick=reloader.tick,
        supervision=supervision,
    )


def _supervision(exporter: Exporter) -> Supervision:
    return Supervision(
        loader.environment(),
        os.getpid(),
        exporter.clock,
        healthy=exporter.healthy,
        status=lambda: status_line(exporter.statuses(), exporter.clock.now()),
    )


def _start(exporter: Exporter) -> None:
    try:
        exporter.start()
    except RuntimeError as error:
        raise StartError(
            "cannot start a thread for each account; raise the limit of processes (ulimit -u,"
            " TasksMax=, --pids-limit) or of memory"
        ) from error


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
