"""Routes to small handlers. Nothing here asks the API, and nothing but /metrics renders figures."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from exophone_exporter.config.sharding import WHOLE
from exophone_exporter.metrics import negotiation
from exophone_exporter.threads import in_thread, start_daemon
from exophone_exporter.web import docs_page, status_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from exophone_exporter.config.sharding import Shard
    from exophone_exporter.polling.exporter import Exporter
    from exophone_exporter.threads import Start
    from exophone_exporter.web.settings import WebSettings

    Handler = Callable[[Request], Awaitable[Response]]

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_READING: Final = "GET, HEAD"
_PROBE: Final = docs_page.Path(
    "/probe",
    _READING,
    "Asks the API for one number, live: ?target=SID, and &account=NAME where there are several.",
    linked=False,
)
_RELOAD: Final = docs_page.Path(
    "/-/reload",
    "POST",
    "Loads the configuration again; one that is wrong changes nothing and is answered with 500."
    " 403 without --web.enable-lifecycle.",
    linked=False,
)
# A large answer is written in pieces, each when the one before has gone: a client that reads slowly
# then counts as in flight and holds no copy of the answer, but under TLS of a piece. Smaller ones
# would cost more turns of the loop, and each waits for the interpreter while a poll is read.
_PIECE_BYTES: Final = {"http": 1024 * 1024, "https": 256 * 1024}
_SMALL_BYTES: Final = 16 * 1024


def application(  # noqa: PLR0913 - each is named, and most have a default
    exporter: Exporter,
    settings: WebSettings,
    *,
    probe: Handler | None = None,
    reload: Handler | None = None,
    shard: Shard = WHOLE,
    start: Start = start_daemon,
) -> Starlette:
    """The ASGI application. HEAD works as GET; other methods get 405 with Allow.

    `probe` and `reload` answer /probe and /-/reload, which are not served without them; `reload`
    sees every method. With a route prefix every path stands under it, and `/` leads there.
    The page for people says which `shard` this is, where there are others.
    `start` runs what takes long in another thread, or raises RuntimeError where there are no more.
    """
    handlers = _Handlers(exporter, settings, start)
    handlers.shard = shard
    served = _served(handlers, settings.telemetry_path)
    if probe is not None:
        served.append((_PROBE, probe))
    if reload is not None:
        served.append((_RELOAD, reload))
    handlers.paths = tuple(path for path, _ in served)
    prefix = settings.prefix
    app = Starlette(
        routes=[_route(prefix, path, handler) for path, handler in served]
        + [Route(path, handlers.to_prefix) for path in ("/", prefix) if prefix],
        middleware=[Middleware(_RequestLimit, settings.max_requests, prefix)],
    )
    app.router.redirect_slashes = False
    return app


def _route(prefix: str, path: docs_page.Path, handler: Handler) -> Route:
    # An empty list means every method; None would mean GET.
    return Route(prefix + path.path, handler, methods=[] if path is _RELOAD else ["GET"])


def _served(handlers: _Handlers, telemetry_path: str) -> list[tuple[docs_page.Path, Handler]]:
    """What is always served, each path in words and its handler."""
    return [
        (docs_page.Path("/", _READING, "Status page for people."), handlers.status),
        (
            docs_page.Path(
                telemetry_path,
                _READING,
                "The metrics, as text or OpenMetrics. Always 200; never asks the API.",
            ),
            handlers.metrics,
        ),
        (docs_page.Path("/docs", _READING, "This reference."), handlers.docs),
        (
            docs_page.Path(
                "/-/healthy",
                _READING,
                "200 while the accounts are being polled, whatever the API answers; else 503.",
            ),
            handlers.healthy,
        ),
        (
            docs_page.Path(
                "/-/ready",
                _READING,
                "200 once every account has had its first poll, good or bad; 503 before.",
            ),
            handlers.ready,
        ),
    ]


class _Handlers:
    def __init__(self, exporter: Exporter, settings: WebSettings, start: Start) -> None:
        self._exporter = exporter
        self._settings = settings
        self._start = start
        self._one_status_page = asyncio.Lock()
        self.paths: tuple[docs_page.Path, ...] = ()
        self.shard = WHOLE

    async def metrics(self, request: Request) -> Response:
        """The exposition, in the format and encoding that the scraper prefers."""
        content_type = negotiation.content_type(request.headers.get("Accept", ""))
        gzipped = negotiation.accepts_gzip(request.headers.get("Accept-Encoding", ""))
        parts = await self._parts(content_type == negotiation.OPENMETRICS, gzipped)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzipped:
            headers["Content-Encoding"] = "gzip"
        return _PartsResponse(parts, headers)

    async def _parts(self, openmetrics: bool, gzipped: bool) -> Sequence[bytes]:
        """The exposition; others are answered while it waits for what must be rendered first."""
        page = self._exporter.page
        ready = page.cached_chunks(openmetrics=openmetrics, gzipped=gzipped)
        if ready is not None:
            return ready
        make = partial(page.chunks, openmetrics=openmetrics, gzipped=gzipped)
        return await in_thread(make, self._start)

    async def status(self, _: Request) -> Response:
        """The page for people, which takes long where numbers or accounts are many.

        One at a time: a thread each would take turns with the loop, which then is seldom its own.
        """
        async with self._one_status_page:
            page = await in_thread(self._status_page, self._start)
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    def _status_page(self) -> str:
        return status_page.render(
            self._exporter.statuses(),
            self._exporter.clock.now(),
            self._settings.telemetry_path,
            link=self._settings.link,
            probe=_PROBE in self.paths,
            shard=self.shard,
        )

    async def docs(self, _: Request) -> Response:
        """What is served here, and what it means."""
        page = docs_page.render(self.paths, self._settings.telemetry_path, link=self._settings.link)
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def to_prefix(self, _: Request) -> Response:
        """From where nothing stands to where everything does."""
        return RedirectResponse(f"{self._settings.prefix}/", status_code=302)

    async def healthy(self, _: Request) -> Response:
        """Whether the process does its work; whatever the API does."""
        if self._exporter.healthy():
            return PlainTextResponse("exophone-exporter is healthy.\n")
        return PlainTextResponse("A poller died or hangs; the log says why.\n", status_code=503)

    async def ready(self, _: Request) -> Response:
        """Whether a scrape would see every account."""
        if self._exporter.ready():
            return PlainTextResponse("exophone-exporter is ready.\n")
        return PlainTextResponse("Some accounts wait for their first poll.\n", status_code=503)


class _PartsResponse(Response):
    """An answer in parts that others share, written no faster than the client reads."""

    def __init__(self, parts: Sequence[bytes], headers: dict[str, str]) -> None:
        length = sum(len(part) for part in parts)
        super().__init__(headers=headers | {"Content-Length": str(length)})
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        for piece in self._pieces(_PIECE_BYTES[scope["scheme"]]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    def _pieces(self, piece_bytes: int) -> Iterator[memoryview | bytes]:
        """Each a step of the loop: large parts cut, small ones together.

        Only small ones are copied: a client that reads slowly holds what others hold too.
        """
        small: list[bytes] = []
        for part in self._parts:
            if len(part) < _SMALL_BYTES:
                small.append(part)
                continue
            yield b"".join(small)
            small.clear()
            whole = memoryview(part)
            for begin in range(0, len(whole), piece_bytes):
                yield whole[begin : begin + piece_bytes]
        yield b"".join(small)


class _RequestLimit:
    """Answers 503 when too many requests are in flight, as the official exporters do.

    Probes are counted apart: they wait for the API, and must not keep scrapes out when it hangs.
    Health is told all the same: busy is not dead, and whoever asks might end the process.
    """

    def __init__(self, app: ASGIApp, most: int, prefix: str) -> None:
        self._app = app
        self._most = most
        self._exempt = f"{prefix}/-/"
        self._probe = prefix + _PROBE.path
        self._in_flight = {True: 0, False: 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        is_probe = scope["path"] == self._probe
        if self._most and self._in_flight[is_probe] >= self._most:
            text = f"Limit of concurrent requests reached ({self._most}), try again later.\n"
            refusal = PlainTextResponse(text, status_code=503, headers={"Retry-After": "1"})
            await refusal(scope, receive, send)
            return
        self._in_flight[is_probe] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight[is_probe] -= 1
