"""The bytes of /metrics: a large part that is made once per snapshot, a small one that is alive.

The inventory is rendered and compressed when a poll has ended; the health of polling and of the
process at most once a second. Both parts are one gzip stream: the first is deflated up to a byte
boundary, the second follows it, and one checksum spans both. (Two gzip members in a row would be
legal too, but browsers show the first one only.)
"""

from __future__ import annotations

import platform
import threading
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exophone_exporter import __version__
from exophone_exporter.metrics import table
from exophone_exporter.metrics.series import inventory_lines, polling_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from exophone_exporter.clock import Clock, Moment
    from exophone_exporter.metrics.series import Line
    from exophone_exporter.model import ExoPhone
    from exophone_exporter.snapshot import Snapshot
    from exophone_exporter.store import View

_LIVE_SECONDS: Final = 1.0
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_RAW_DEFLATE: Final = -zlib.MAX_WBITS


@dataclass(frozen=True)
class Build:
    """What runs here and how its configuration fares, for the exporter's own metrics."""

    revision: str
    config_loaded_at: float
    config_reload_successful: bool = True


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The lines of one account by metric, and the numbers that they were made of."""

    numbers: tuple[ExoPhone, ...]
    lines: dict[str, str]


@dataclass(frozen=True)
class _Inventory:
    """The large part: what it was made of, by account; its text, and the same deflated."""

    chunks: Mapping[str, _Chunk]
    text: bytes

    @cached_property
    def deflated(self) -> bytes:
        """Raw deflate up to a byte boundary, without an end, so that more can follow."""
        compressor = zlib.compressobj(wbits=_RAW_DEFLATE)
        return compressor.compress(self.text) + compressor.flush(zlib.Z_FULL_FLUSH)

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of the text."""
        return zlib.crc32(self.text)


@dataclass(frozen=True)
class _Live:
    """The small part in one format, and until when it serves."""

    text: bytes
    until_monotonic: float


class MetricsPage:
    """Makes the answer of /metrics; `views` gives the accounts in their order.

    `with_process` adds the standard series about the process and the interpreter.
    """

    def __init__(
        self,
        views: Callable[[], Sequence[View]],
        build: Callable[[], Build],
        clock: Clock,
        *,
        with_process: bool = True,
    ) -> None:
        self._views = views
        self._build = build
        self._clock = clock
        self._process = CollectorRegistry()
        if with_process:
            ProcessCollector(registry=self._process)
            PlatformCollector(registry=self._process)
            GCCollector(registry=self._process)
        self._rendering = threading.Lock()
        self._inventory = _Inventory({}, b"")
        self._live: dict[bool, _Live] = {}

    def prepare(self) -> None:
        """Render and compress what has changed; called when a poll has ended, by its thread.

        A scrape meanwhile gets the bytes from before.
        """
        with self._rendering:
            now = self._clock.now()
            chunks = {
                view.account.name: self._chunk(view, snapshot)
                for view in self._views()
                if (snapshot := view.fresh_snapshot(now)) is not None
            }
            if chunks != self._inventory.chunks:
                self._inventory = _inventory(chunks)
            self._live = {}

    def render(self, *, openmetrics: bool, gzipped: bool) -> bytes:
        """The whole exposition in one format."""
        return b"".join(self.parts(openmetrics=openmetrics, gzipped=gzipped))

    def parts(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...]:
        """What `render` joins: the large part is shared by all scrapes until the numbers change."""
        now = self._clock.now()
        if self._has_stale_part(now):
            self.prepare()
        inventory, live = self._inventory, self._live_text(now, openmetrics=openmetrics)
        if not gzipped:
            return inventory.text, live
        tail = zlib.compressobj(wbits=_RAW_DEFLATE)
        length = len(inventory.text) + len(live)
        return (
            _GZIP_HEAD,
            inventory.deflated,
            tail.compress(live) + tail.flush(),
            zlib.crc32(live, inventory.checksum).to_bytes(4, "little"),
            (length % 2**32).to_bytes(4, "little"),
        )

    def _has_stale_part(self, now: Moment) -> bool:
        shown = self._inventory.chunks
        fresh = {view.account.name for view in self._views() if view.fresh_snapshot(now)}
        return not fresh.issuperset(shown)

    def _chunk(self, view: View, snapshot: Snapshot) -> _Chunk:
        """The account's lines; those from before where its numbers are the same."""
        known = self._inventory.chunks.get(view.account.name)
        if known is not None and known.numbers is snapshot.numbers:
            return known
        return _Chunk(snapshot.numbers, _joined(inventory_lines(view.account, snapshot)))

    def _live_text(self, now: Moment, *, openmetrics: bool) -> bytes:
        live = self._live.get(openmetrics)
        if live is None or now.monotonic >= live.until_monotonic:
            text = self._render_live(openmetrics=openmetrics)
            live = _Live(text, now.monotonic + _LIVE_SECONDS)
            self._live[openmetrics] = live
        return live.text

    def _render_live(self, *, openmetrics: bool) -> bytes:
        parts = [_joined(polling_lines(view)) for view in self._views()]
        parts.append(_joined(_exporter_lines(self._build())))
        own = _families(parts, openmetrics=openmetrics).encode()
        if not openmetrics:
            return own + generate_text(self._process)
        # The end mark is prometheus_client's own: it stands behind the last part.
        return own + bytes(generate_openmetrics(self._process))  # type: ignore[no-untyped-call]  # it has no types


def _inventory(chunks: Mapping[str, _Chunk]) -> _Inventory:
    text = _families([chunk.lines for chunk in chunks.values()], openmetrics=False)
    inventory = _Inventory(chunks, text.encode())
    _ = inventory.deflated, inventory.checksum  # computed here, not by the first scrape
    return inventory


def _exporter_lines(build: Build) -> Iterable[Line]:
    yield (
        table.BUILD_INFO,
        table.BUILD_INFO.sample(__version__, build.revision, platform.python_version(), value=1),
    )
    successful = table.CONFIG_RELOAD_SUCCESSFUL
    yield successful, successful.sample(value=build.config_reload_successful)
    timestamp = table.CONFIG_RELOAD_TIMESTAMP
    yield timestamp, timestamp.sample(value=build.config_loaded_at)


def _joined(lines: Iterable[Line]) -> dict[str, str]:
    """The lines of each metric in one text, by the metric's name."""
    texts: dict[str, list[str]] = {}
    for metric, line in lines:
        texts.setdefault(metric.name, []).append(line)
    return {name: "".join(parts) for name, parts in texts.items()}


def _families(parts: Sequence[dict[str, str]], *, openmetrics: bool) -> str:
    """Families in the order of the table, each with one head and the lines of every part."""
    texts: list[str] = []
    for metric in table.METRICS:
        lines = [part[metric.name] for part in parts if metric.name in part]
        if lines:
            texts.append(metric.head(openmetrics=openmetrics))
            texts.extend(lines)
    return "".join(texts)
