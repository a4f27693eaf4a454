"""The routes and their handlers. None of them queries the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exophone_exporter.config.sharding import WHOLE, Shard
from exophone_exporter.metrics.negotiation import negotiated
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.threads import in_thread
from exophone_exporter.web import docs_page, status_page
from exophone_exporter.web.docs_page import ServedPath
from exophone_exporter.web.settings import WebSettings

Handler = Callable[[Request], Awaitable[Response]]

_PAGE_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PROBE: Final = ServedPath(
    "/probe",
    "Queries the API for one number: ?target=SID_OR_PHONE_NUMBER, with &account=NAME if there are"
    " several.",
    linked=False,
)
RELOAD: Final = ServedPath(
    "/-/reload",
    "Reloads the configuration. An invalid one changes nothing and returns 500. Returns 403"
    " without --web.enable-lifecycle.",
    methods="POST",
    linked=False,
)
# A large answer is written in pieces, each after the one before is gone: a slow client then holds
# no copy of the answer, except one small piece under TLS. Smaller pieces take more turns of the
# loop, and each turn waits for the interpreter while a poll is read.
_PIECE_BYTES: Final = {"http": 1024 * 1024, "https": 16 * 1024}
# Parts up to this size are copied, at most so many bytes for each client.
_SMALL_BYTES: Final = 16 * 1024


def application(
    exporter: Exporter,
    settings: WebSettings,
    *,
    probe: Handler | None = None,
    reload: Handler | None = None,
    shard: Shard = WHOLE,
) -> Starlette:
    """The ASGI application. HEAD works as GET; other methods get 405 with Allow.

    `probe` and `reload` handle /probe and /-/reload, which do not exist without them; `reload` gets
    every method. With a route prefix every path is under it, and `/` redirects there. The status
    page names the `shard`.
    """
    served = Handlers(exporter, settings, probe, reload, shard).served
    prefix = settings.prefix
    # No methods means every method; None would mean GET.
    routes = [
        Route(prefix + path.path, handler, methods=[] if path is RELOAD else ["GET"])
        for path, handler in served.items()
    ]
    to_prefix = RedirectResponse(f"{prefix}/", status_code=302)
    routes += [Route(path, to_prefix, methods=["GET"]) for path in ("/", prefix) if prefix]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


@dataclass(eq=False, repr=False)
class Handlers:
    """The handlers of the pages; `served` are all paths with their handlers."""

    _exporter: Exporter
    _settings: WebSettings
    _probe: Handler | None = None
    _reload: Handler | None = None
    _shard: Shard = WHOLE
    _status: asyncio.Future[Response] | None = None

    def __post_init__(self) -> None:
        most = self._settings.max_requests
        metrics = "Metrics in the Prometheus text format or OpenMetrics. Never queries the API."
        healthy = "200 while every poller works, whatever the API answers; 503 otherwise."
        ready = "200 once every account has been polled, successfully or not; 503 before."
        self.served: dict[ServedPath, Handler] = {
            ServedPath("/", "Status page."): self.status,
            ServedPath(self._settings.telemetry_path, metrics): _limited(self.metrics, most),
            ServedPath("/docs", "This reference."): self.docs,
            ServedPath("/-/healthy", healthy): self.healthy,
            ServedPath("/-/ready", ready): self.ready,
        }
        if self._probe:  # counted apart: it waits for the API, and scrapes must not wait for it
            self.served[PROBE] = _limited(self._probe, most)
        if self._reload:
            self.served[RELOAD] = self._reload

    async def metrics(self, request: Request) -> Response:
        """The exposition, in the format and encoding that the scraper prefers."""
        openmetrics, gzipped, headers = negotiated(request.headers)
        page = self._exporter.page
        parts = page.cached_chunks(openmetrics=openmetrics, gzipped=gzipped)
        if parts is None:  # the loop answers other requests while a thread renders it
            make = partial(page.chunks, openmetrics=openmetrics, gzipped=gzipped)
            parts = await in_thread(make)
        return _PartsResponse(parts, headers)

    async def status(self, _: Request) -> Response:
        """The status page, which takes long with many numbers or accounts.

        Only one is made at a time, for all requests that wait for it: with a thread each, the loop
        would rarely get its turn.
        """
        if self._status is None or self._status.done():
            self._status = asyncio.ensure_future(in_thread(self._status_page))
        return await asyncio.shield(self._status)

    def _status_page(self) -> Response:
        page = status_page.render(
            self._exporter.statuses(),
            self._exporter.clock.now(),
            self._settings.telemetry_path,
            link=self._settings.link,
            probe=PROBE in self.served,
            shard=self._shard,
        )
        return _PartsResponse([page.encode()], _PAGE_HEADERS)

    async def docs(self, _: Request) -> Response:
        """The reference of paths and metrics."""
        return self._docs_page

    @cached_property
    def _docs_page(self) -> Response:
        path, link = self._settings.telemetry_path, self._settings.link
        page = docs_page.render([*self.served], path, link=link)
        return _PartsResponse([page.encode()], _PAGE_HEADERS)

    async def healthy(self, _: Request) -> Response:
        """Whether the pollers work, whatever the API does."""
        if self._exporter.healthy():
            return PlainTextResponse("exophone-exporter is healthy.\n")
        return PlainTextResponse("Unhealthy: a poller has died or is stuck.\n", status_code=503)

    async def ready(self, _: Request) -> Response:
        """Whether a scrape shows every account."""
        if self._exporter.ready():
            return PlainTextResponse("exophone-exporter is ready.\n")
        return PlainTextResponse("Not ready: waiting for the first poll.\n", status_code=503)


class _PartsResponse(Response):
    """An answer in parts shared between requests, written no faster than the client reads."""

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
        """Pieces of the parts: large ones cut, small ones joined.

        Only small parts are copied: slow clients share the large ones.
        """
        small = b""
        for part in self._parts:
            if len(small) + len(part) < _SMALL_BYTES:
                small += part
                continue
            yield small
            small = b""
            whole = memoryview(part)
            for begin in range(0, len(whole), piece_bytes):
                yield whole[begin : begin + piece_bytes]
        yield small


def _limited(handler: Handler, most: int) -> Handler:
    """Answer 503 while `most` requests are being handled, as the official exporters do.

    A request counts until its answer is made: a client that reads slowly holds no other one up.
    """
    places = asyncio.Semaphore(most)

    async def limited(request: Request) -> Response:
        if places.locked():
            text = f"Limit of concurrent requests reached ({most}), try again later.\n"
            return PlainTextResponse(text, status_code=503, headers={"Retry-After": "1"})
        async with places:
            return await handler(request)

    return limited if most else handler
