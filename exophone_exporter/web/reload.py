"""POST /-/reload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exophone_exporter.polling.accounts import ReloadSummary
from exophone_exporter.polling.reload import Reloader

# Sec-Fetch-Site of requests by our own page, or typed by the user.
_OWN_SITES: Final = ("same-origin", "none")
_PORTS: Final = {"http": 80, "https": 443}


def endpoint(reloader: Reloader, *, enabled: bool) -> Callable[[Request], Awaitable[Response]]:
    """The handler of /-/reload, for a route of every method.

    POST reloads: 200, or 500 with a line for each problem. 403 if that is not enabled, or if a
    browser sends it from another site; 405 for every other method.
    """

    async def reload(request: Request) -> Response:
        if request.method != "POST":
            return _answer(405, "Reload with POST.", Allow="POST")
        if not enabled:
            return _answer(403, "Reloading is not enabled; start with --web.enable-lifecycle.")
        if _is_foreign(request):
            return _answer(403, "Cross-site requests are not allowed.")
        outcome = await asyncio.shield(reloader.request())  # others may wait for it too
        if isinstance(outcome, ReloadSummary):
            return _answer(200, _success_text(outcome, reloader.note))
        return _answer(500, "\n".join(("The configuration was not reloaded:", *outcome)))

    return reload


def _answer(status: int, text: str, **headers: str) -> Response:
    named = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers}
    return PlainTextResponse(f"{text}\n", status_code=status, headers=named)


def _success_text(summary: ReloadSummary, note: str) -> str:
    lines = [
        f"{name}: {', '.join(accounts)}" for name, accounts in vars(summary).items() if accounts
    ]
    return "\n".join(("The configuration was reloaded.", *lines, *([note] if note else ())))


def _is_foreign(request: Request) -> bool:
    """Whether a browser sent it from another site; other clients send no such headers."""
    sites = request.headers.getlist("Sec-Fetch-Site")
    host = request.headers.get("Host", "")
    return any(site not in _OWN_SITES for site in sites) or not all(
        _is_same(origin, host) for origin in request.headers.getlist("Origin")
    )


def _is_same(origin: str, host: str) -> bool:
    """Whether an Origin has this host and port; an omitted port is the scheme's."""
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
        usual = _PORTS[theirs.scheme]
        return bool(ours.hostname) and (theirs.hostname, theirs.port or usual) == (
            ours.hostname,
            ours.port or usual,
        )
    except (KeyError, ValueError):  # `null`, another scheme, not a URL
        return False
