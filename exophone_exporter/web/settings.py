"""Settings of the HTTP side, as the flags give them; it imports nothing heavy, for `--help`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

LISTEN_ADDRESS: Final = ":10396"
OWN_PATHS: Final = ("/", "/docs", "/probe", "/-/healthy", "/-/ready", "/-/reload")
# Characters that mean nothing to the router and need no escape in a link.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")
_ALLOWED: Final = "letters, digits, `-`, `_`, `.` and `~` between single slashes"


@dataclass(frozen=True)
class WebSettings:
    """Settings of the HTTP side; the functions of this module check paths and URLs.

    At most `max_requests` scrapes, and as many probes, may be in flight, 0 for no limit.
    `enable_lifecycle` allows POST /-/reload. `external_url` is how browsers reach the exporter, ""
    if unknown. `route_prefix` is as the user wrote it; "" means the path of `external_url`.
    """

    telemetry_path: str = "/metrics"
    max_requests: int = 40
    enable_lifecycle: bool = False
    external_url: str = ""
    route_prefix: str = ""

    @property
    def prefix(self) -> str:
        """The prefix of every served path, without a slash at the end; "" for none."""
        return (self.route_prefix or urlsplit(self.external_url).path).rstrip("/")

    def link(self, path: str) -> str:
        """A served path as a browser must ask for it, which may be behind a proxy."""
        if self.external_url:
            return urlsplit(self.external_url).path.rstrip("/") + path
        return self.prefix + path


def telemetry_path(text: str) -> str:
    """The path as written; raises ValueError if it cannot be served."""
    if not _servable(text) or text in OWN_PATHS:
        raise ValueError(
            f"invalid path `{text}`: use a path like /metrics, but not {', '.join(OWN_PATHS)}"
        )
    return text


def route_prefix(text: str) -> str:
    """`/x/y` for any of x/y, /x/y and /x/y/; raises ValueError if it cannot be served."""
    if not text:
        return ""
    prefix = "/" + text.strip("/")
    if not _servable(prefix):
        raise ValueError(f"the prefix may contain {_ALLOWED}; use a path like /exophone")
    return prefix


def external_url(text: str) -> str:
    """The URL as written; raises ValueError, which never repeats it: it may hold a password."""
    problem = _problem_of_url(text) if text else ""
    if problem:
        raise ValueError(f"{problem}; use a URL like https://example.com/exophone")
    return text


def _servable(path: str) -> bool:
    """Whether a request can ask for exactly this path: browsers resolve dots, `//x` is a host."""
    segments = path.removesuffix("/").split("/")[1:]
    return _PATH.fullmatch(path) is not None and {"", ".", ".."}.isdisjoint(segments)


def _problem_of_url(text: str) -> str:
    if _PRINTABLE.fullmatch(text) is None:
        return "the URL may contain only printable ASCII characters, no spaces"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "invalid host or port"
    problems = {
        "the URL must start with http:// or https://": url.scheme not in ("http", "https"),
        "the URL must not contain a user or a password": "@" in url.netloc,
        "the URL must not contain a query or a fragment": "?" in text or "#" in text,
        "missing or invalid host, or port 0": port == 0
        or _HOST.fullmatch(url.hostname or "") is None,
        f"the path may contain {_ALLOWED}": not _servable(url.path.rstrip("/") or "/"),
    }
    return next((problem for problem, is_so in problems.items() if is_so), "")
