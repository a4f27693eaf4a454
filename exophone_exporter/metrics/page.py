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
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exophone_exporter import __version__
from exophone_exporter.metrics import table
from exophone_exporter.metrics.series import inventory_lines, polling_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from exophone_exporter.clock import Clock, Moment
    from exophone_exporter.config import Account, PerNumber
    from exophone_exporter.metrics.series import Line
    from exophone_exporter.model import ExoPhone
    from exophone_exporter.snapshot import Snapshot
    from exophone_exporter.store import View

# Lines of one metric; a view where they are a part of a text that is there anyway.
_Lines: TypeAlias = "bytes | memoryview"

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
    """The lines of one account by metric, and what they were made of."""

    numbers: tuple[ExoPhone, ...]
    per_number: PerNumber
    lines: Mapping[str, _Lines]


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

    @cached_property
    def deflated(self) -> bytes:
        """Raw deflate with its end, to follow the inventory's."""
        compressor = zlib.compressobj(wbits=_RAW_DEFLATE)
        return compressor.compress(self.text) + compressor.flush()


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is shown of one configuration: both parts are of the same accounts.

    `live` holds the small part by format, made when it is asked for.
    """

    accounts: tuple[Account, ...]
    inventory: _Inventory
    live: dict[bool, _Live] = field(default_factory=dict)


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
        self._shown = _Shown((), _Inventory({}, b""))

    def prepare(self) -> None:
        """Render and compress what has changed; called when a poll has ended, by its thread.

        A scrape meanwhile gets the bytes from before.
        """
        with self._rendering:
            self._prepare()

    def _prepare(self) -> tuple[_Shown, Sequence[View]]:
        """What is to be shown now, and the views of which it was made. Needs the lock."""
        now, views = self._clock.now(), self._views()
        chunks = {
            view.account.name: self._chunk(view, snapshot)
            for view in views
            if (snapshot := view.fresh_snapshot(now)) is not None
        }
        inventory = self._shown.inventory
        # As lists: accounts that only changed places are another page.
        if [*chunks.items()] != [*inventory.chunks.items()]:
            inventory = _inventory(chunks)
        self._shown = _Shown(_accounts(views), inventory)
        return self._shown, views

    def render(self, *, openmetrics: bool, gzipped: bool) -> bytes:
        """The whole exposition in one format."""
        return b"".join(self.parts(openmetrics=openmetrics, gzipped=gzipped))

    def parts(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...]:
        """What `render` joins: the large part is shared by all scrapes until the numbers change."""
        ready = self.ready_parts(openmetrics=openmetrics, gzipped=gzipped)
        if ready is not None:
            return ready
        with self._rendering:
            shown, views = self._prepare()
        return self._parts(shown, views, openmetrics=openmetrics, gzipped=gzipped)

    def ready_parts(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...] | None:
        """What `parts` gives, at once; None where the large part must be made anew for that."""
        shown, views = self._shown, self._views()
        # The accounts differ where the configuration has just been replaced.
        if shown.accounts != _accounts(views) or _has_stale_part(
            shown.inventory, views, self._clock.now()
        ):
            return None
        return self._parts(shown, views, openmetrics=openmetrics, gzipped=gzipped)

    def _parts(
        self, shown: _Shown, views: Sequence[View], *, openmetrics: bool, gzipped: bool
    ) -> tuple[bytes, ...]:
        """The large part and the small one, of the same accounts by the same settings."""
        inventory, live = shown.inventory, self._live_part(shown, views, openmetrics=openmetrics)
        if not gzipped:
            return inventory.text, live.text
        length = len(inventory.text) + len(live.text)
        return (
            _GZIP_HEAD,
            inventory.deflated,
            live.deflated,
            zlib.crc32(live.text, inventory.checksum).to_bytes(4, "little"),
            (length % 2**32).to_bytes(4, "little"),
        )

    def _chunk(self, view: View, snapshot: Snapshot) -> _Chunk:
        """The account's lines; those from before where its numbers are the same."""
        per_number = view.account.per_number
        known = self._shown.inventory.chunks.get(view.account.name)
        if (
            known is not None
            and known.numbers is snapshot.numbers
            and known.per_number == per_number
        ):
            return known
        lines = _joined(inventory_lines(view.account, snapshot))
        return _Chunk(snapshot.numbers, per_number, lines)

    def _live_part(self, shown: _Shown, views: Sequence[View], *, openmetrics: bool) -> _Live:
        live, now = shown.live.get(openmetrics), self._clock.monotonic()
        if live is None or now >= live.until_monotonic:
            text = self._render_live(views, openmetrics=openmetrics)
            live = _Live(text, now + _LIVE_SECONDS)
            shown.live[openmetrics] = live
        return live

    def _render_live(self, views: Sequence[View], *, openmetrics: bool) -> bytes:
        parts = [_joined(polling_lines(view)) for view in views]
        parts.append(_joined(_exporter_lines(self._build())))
        own = b"".join(text for _, _, text in _families(parts, openmetrics=openmetrics))
        if not openmetrics:
            return own + generate_text(self._process)
        # The end mark is prometheus_client's own: it stands behind the last part.
        return own + bytes(generate_openmetrics(self._process))  # type: ignore[no-untyped-call]  # it has no types


def _accounts(views: Sequence[View]) -> tuple[Account, ...]:
    return tuple(view.account for view in views)


def _has_stale_part(inventory: _Inventory, views: Sequence[View], now: Moment) -> bool:
    fresh = {view.account.name for view in views if view.fresh_snapshot(now)}
    return not fresh.issuperset(inventory.chunks)


def _inventory(chunks: Mapping[str, _Chunk]) -> _Inventory:
    """The text of all accounts. Their lines are kept as parts of it, so that they cost nothing."""
    pieces = [*_families([chunk.lines for chunk in chunks.values()], openmetrics=False)]
    text = b"".join(piece for _, _, piece in pieces)
    lines: list[dict[str, _Lines]] = [{} for _ in chunks]
    whole, end = memoryview(text), 0
    for part, metric, piece in pieces:
        begin, end = end, end + len(piece)
        if part is not None:
            lines[part][metric] = whole[begin:end]
    kept = {name: replace(chunks[name], lines=lines[part]) for part, name in enumerate(chunks)}
    inventory = _Inventory(kept, text)
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


def _joined(lines: Iterable[Line]) -> dict[str, _Lines]:
    """The lines of each metric in one text, by the metric's name."""
    texts: dict[str, list[str]] = {}
    for metric, line in lines:
        texts.setdefault(metric.name, []).append(line)
    return {name: "".join(parts).encode() for name, parts in texts.items()}


def _families(
    parts: Sequence[Mapping[str, _Lines]], *, openmetrics: bool
) -> Iterator[tuple[int | None, str, _Lines]]:
    """Families in the order of the table, each with one head and the lines of every part.

    Piece by piece: the index of the part, None for a head; the name of the metric; the text.
    """
    for metric in table.METRICS:
        lines = [(i, part[metric.name]) for i, part in enumerate(parts) if part.get(metric.name)]
        if lines:
            yield None, metric.name, metric.head(openmetrics=openmetrics).encode()
        for index, text in lines:
            yield index, metric.name, text
