"""`serve`, and the part of it that `demo` shares."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exophone_exporter import __version__, config, web
from exophone_exporter.exporter import Exporter
from exophone_exporter.logs import fields
from exophone_exporter.serving import Server, listen, url_of
from exophone_exporter.web_settings import WebSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_log = logging.getLogger(__name__)


def serve(args: argparse.Namespace) -> int:
    """Poll the configured accounts and serve their metrics until a signal comes."""
    loaded = config.load(args.config_file)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    return run(loaded, args, lambda urls: _announce(loaded, urls))


def run(
    loaded: config.Config, args: argparse.Namespace, on_listening: Callable[[list[str]], None]
) -> int:
    """Serve a configuration; returns the exit code. The sockets open before the first request."""
    sockets = listen(args.web_listen_address)
    died: list[bool] = []

    def end_by_death() -> None:
        died.append(True)
        server.should_exit = True

    exporter = Exporter(loaded, revision=config.revision(), on_death=end_by_death)
    settings = WebSettings(args.web_telemetry_path, args.web_max_requests)
    server = Server(web.application(exporter, settings), on_signal=exporter.ask_to_stop)
    exporter.start()
    on_listening([url_of(listening) for listening in sockets])
    server.run(sockets=sockets)
    exporter.stop()
    return 1 if died else 0


def _announce(loaded: config.Config, urls: list[str]) -> None:
    _log.info(
        "listening",
        extra=fields(
            url=" ".join(urls),
            version=__version__,
            configuration=loaded.source,
            accounts=len(loaded.accounts),
        ),
    )
