"""The HTTP server: to this exporter what prometheus/exporter-toolkit is to one in Go."""

from exophone_exporter.server.connections import Limits
from exophone_exporter.server.server import Server, listen, open_server, url_of
from exophone_exporter.server.systemd import Supervision
from exophone_exporter.server.web_config import check_web_config

__all__ = [
    "Limits",
    "Server",
    "Supervision",
    "check_web_config",
    "listen",
    "open_server",
    "url_of",
]
