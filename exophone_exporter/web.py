"""Routes to small handlers. Nothing here asks the API, and nothing but /metrics renders figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exophone_exporter import status
from exophone_exporter.metrics import negotiation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from exophone_exporter.clock import Clock
    from exophone_exporter.metrics.page import MetricsPage
    from exophone_exporter.store import View
    from exophone_exporter.web_settings import WebSettings

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# A large answer is written in pieces, each when the one before has gone: a client that reads slowly
# then counts as in flight and holds no copy of the answer.
_PIECE_BYTES: Final = 256 * 1024


class Exporter(Protocol):
    """What is served; `exporter.Exporter` is one."""

    @property
    def clock(self) -> Clock:
        """The clock of everything shown."""
        ...

    @property
    def page(self) -> MetricsPage:
        """The bytes of /metrics."""
        ...

    def views(self) -> Sequence[View]:
        """Every account as it is now."""
        ...

    def healthy(self) -> bool:
        """Whether the process does its work."""
        ...

    def ready(self) -> bool:
        """Whether every account has had its first attempt."""
        ...


def application(exporter: Exporter, settings: WebSettings) -> Starlette:
    """The ASGI application. HEAD works as GET; other methods get 405 with Allow."""
    handlers = _Handlers(exporter, settings)
    app = Starlette(
        routes=[
            Route(settings.telemetry_path, handlers.metrics),
            Route("/", handlers.status),
            Route("/-/healthy", handlers.healthy),
            Route("/-/ready", handlers.ready),
        ],
        middleware=[Middleware(_RequestLimit, most=settings.max_requests)],
    )
    app.router.redirect_slashes = False
    return app


class _Handlers:
    def __init__(self, exporter: Exporter, settings: WebSettings) -> None:
        self._exporter = exporter
        self._settings = settings

    async def metrics(self, request: Request) -> Response:
        """The exposition, in the format and encoding that the scraper prefers."""
        content_type = negotiation.content_type(request.headers.get("Accept", ""))
        gzipped = negotiation.accepts_gzip(request.headers.get("Accept-Encoding", ""))
        parts = self._exporter.page.parts(
            openmetrics=content_type == negotiation.OPENMETRICS, gzipped=gzipped
        )
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzipped:
            headers["Content-Encoding"] = "gzip"
        return _PartsResponse(parts, headers)

    async def status(self, _: Request) -> Response:
        """The page for people."""
        page = status.render(
            self._exporter.views(), self._exporter.clock.now(), self._settings.telemetry_path
        )
        return HTMLResponse(page, headers=_PAGE_HEADERS)

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
        for piece in self._pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    def _pieces(self) -> Iterator[memoryview]:
        for part in self._parts:
            whole = memoryview(part)
            for begin in range(0, len(whole), _PIECE_BYTES):
                yield whole[begin : begin + _PIECE_BYTES]


class _RequestLimit:
    """Answers 503 when too many requests are in flight, as the official exporters do.

    Health is told all the same: busy is not dead, and whoever asks might end the process.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        if self._most and self._in_flight >= self._most:
            text = f"Limit of concurrent requests reached ({self._most}), try again later.\n"
            refusal = PlainTextResponse(text, status_code=503, headers={"Retry-After": "1"})
            await refusal(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
