"""How the HTTP side behaves, as the flags say it; light enough for `--help`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

OWN_PATHS: Final = ("/", "/docs", "/probe", "/-/healthy", "/-/ready", "/-/reload")
# Characters that mean nothing to the router and need no escape in a link.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")
_ALLOWED: Final = "letters, digits, `-`, `_`, `.` and `~` between single slashes"
_LIKE: Final = "write it like https://example.com/exophone"


@dataclass(frozen=True)
class WebSettings:
    """How the HTTP side behaves.

    `telemetry_path` is where the metrics stand. `max_requests` may be in flight at once, 0 for no
    limit. `enable_lifecycle` allows POST /-/reload. `external_url` is where people and browsers
    reach the exporter, "" where that is not known. `route_prefix` stands before every path that is
    served, "" for none: a proxy that takes the prefix away leaves none to serve. Both are kept
    without a slash at the end.
    """

    telemetry_path: str = "/metrics"
    max_requests: int = 40
    enable_lifecycle: bool = False
    external_url: str = ""
    route_prefix: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be served, with ValueError in one line of advice."""
        _check_telemetry_path(self.telemetry_path)
        object.__setattr__(self, "external_url", _external_url(self.external_url))
        object.__setattr__(self, "route_prefix", _route_prefix(self.route_prefix))

    @classmethod
    def from_flags(
        cls,
        telemetry_path: str,
        max_requests: int,
        enable_lifecycle: bool,
        external_url: str,
        route_prefix: str | None,
    ) -> WebSettings:
        """The settings that the flags mean; raises ValueError whose text names the flag.

        As in Prometheus, the prefix is the external URL's own path unless it was given; `/` is
        none.
        """
        try:
            _check_telemetry_path(telemetry_path)
        except ValueError as error:
            raise ValueError(f"--web.telemetry-path: {error}") from None
        prefix = route_prefix or urlsplit(_external_url(external_url)).path
        return cls(telemetry_path, max_requests, enable_lifecycle, external_url, prefix)

    def link(self, path: str) -> str:
        """What a link to a path of ours says in a browser, which may stand behind a proxy."""
        prefix = urlsplit(self.external_url).path if self.external_url else self.route_prefix
        return prefix + path


def _check_telemetry_path(path: str) -> None:
    if not _servable(path) or path in OWN_PATHS:
        raise ValueError(f"`{path}` is no path like /metrics, or one of {', '.join(OWN_PATHS)}")


def _servable(path: str) -> bool:
    """Whether a request can ask for exactly this path: browsers resolve dots, `//x` is a host."""
    segments = path.removesuffix("/").split("/")[1:]
    return _PATH.fullmatch(path) is not None and {"", ".", ".."}.isdisjoint(segments)


def _external_url(text: str) -> str:
    """The URL without a slash at its end. No message repeats it: there may be a password in it."""
    if not text:
        return ""
    problem = _problem_of_url(text)
    if problem:
        raise ValueError(f"--web.external-url: {problem}; {_LIKE}")
    return text.rstrip("/")


def _problem_of_url(text: str) -> str:
    if _PRINTABLE.fullmatch(text) is None:
        return "only printable ASCII characters, without spaces, make a URL"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "the host or the port cannot be read"
    problems = {
        "the URL starts with neither http:// nor https://": url.scheme not in ("http", "https"),
        "user and password do not belong there": "@" in url.netloc,
        "a query or fragment does not belong there": "?" in text or "#" in text,
        "the host is missing or is none, or its port is 0": port == 0
        or _HOST.fullmatch(url.hostname or "") is None,
        f"the path may have {_ALLOWED}": not _servable(url.path.rstrip("/") or "/"),
    }
    return next((problem for problem, is_so in problems.items() if is_so), "")


def _route_prefix(text: str) -> str:
    """`/x/y` for any of x/y, /x/y and /x/y/; "" for `/` and for nothing."""
    prefix = "/" + text.strip("/")
    if not _servable(prefix):
        raise ValueError(
            f"--web.route-prefix: the prefix may have {_ALLOWED}; write it like /exophone"
        )
    return prefix.rstrip("/")
