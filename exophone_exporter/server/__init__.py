"""The HTTP server: to this exporter what prometheus/exporter-toolkit is to one in Go."""

from exophone_exporter.server.connections import Limits
from exophone_exporter.server.server import Server, open_server
from exophone_exporter.server.systemd import Notifier, Supervision

__all__ = ["Limits", "Notifier", "Server", "Supervision", "open_server"]
