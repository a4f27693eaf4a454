"""HEALTHCHECK of the image: whether the exporter in this container is healthy; exit 0 or 1.

The flags of process 1 say where it listens, so that the check follows `--web.listen-address`,
`--web.route-prefix` and `--web.config.file`. It runs every half minute: it imports little.
"""

from __future__ import annotations

import argparse
import http.client
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exophone_exporter.web.settings import WebSettings, route_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TIMEOUT_SECONDS: Final = 3.0
_EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - recognised, not listened on
_LOOPBACK: Final = ("127.0.0.1", "::1")
_OK: Final = 200
_UNAUTHORIZED: Final = 401


def main() -> int:
    """Check process 1; what is wrong stands in the log of the container's health."""
    words = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    problem = check(words)
    sys.stdout.write(f"{problem or 'healthy'}\n")
    return 1 if problem else 0


def check(words: Sequence[str]) -> str:
    """What is wrong with the exporter that was started with these words; empty if nothing is.

    An exporter that asks for a password or a client's certificate is alive, and tells no more.
    """
    flags = _flags(words)
    path = _settings(flags).prefix + "/-/healthy"
    problem = ""
    for connection in _connections(flags):
        try:
            connection.connect()
            status = _status(connection, path)
        except (OSError, http.client.HTTPException) as error:
            problem = f"no answer: {error}"
            continue
        finally:
            connection.close()
        return "" if status in (_OK, _UNAUTHORIZED) else f"{path} answers {status}"
    return problem


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    """The status of the answer; 401 for a server that hangs up after it has agreed on TLS.

    That is how one behaves that asks for a certificate: TLS 1.3 tells a client of it too late.
    """
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (ConnectionError, ssl.SSLError):
        if isinstance(connection, http.client.HTTPSConnection):
            return _UNAUTHORIZED
        raise


def _flags(words: Sequence[str]) -> argparse.Namespace:
    """The flags that matter here; a program before ours, such as an init, does no harm."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--web.listen-address", dest="listen", action="append")
    parser.add_argument("--web.external-url", dest="url", default="")
    parser.add_argument("--web.route-prefix", dest="prefix")
    parser.add_argument("--web.config.file", dest="config")
    return parser.parse_known_args([word for word in words if word != "--"])[0]


def _settings(flags: argparse.Namespace) -> WebSettings:
    prefix = route_prefix(flags.prefix) if flags.prefix else ""
    return WebSettings(external_url=flags.url, route_prefix=prefix)


def _connections(flags: argparse.Namespace) -> Iterator[http.client.HTTPConnection]:
    """Ways to reach the first address, the likeliest first."""
    host, _, port = (flags.listen or [":10396"])[0].rpartition(":")
    host = host.strip("[]")
    for name in _LOOPBACK if host in _EVERYWHERE else (host,):
        if flags.config:  # it may ask for TLS, or for no more than a password
            yield http.client.HTTPSConnection(
                name, int(port), timeout=_TIMEOUT_SECONDS, context=_any_certificate()
            )
        yield http.client.HTTPConnection(name, int(port), timeout=_TIMEOUT_SECONDS)


def _any_certificate() -> ssl.SSLContext:
    """For one's own address: its certificate names another, and no secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    sys.exit(main())
