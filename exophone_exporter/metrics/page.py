"""The bytes of /metrics: a large part, made when numbers change, and a live part.

The inventory is rendered and compressed when a poll has ended. The health of polling and of the
process is rendered at most once a second, both formats from the same reading. Both parts are one
gzip member: the first is deflated up to a byte boundary, the second follows it, and one checksum
covers both. (Two members in a row would be legal too, but browsers show only the first.)
"""

from __future__ import annotations

import math
import platform
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import Metric as Family
from prometheus_client import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exophone_exporter import __version__
from exophone_exporter.clock import Clock, ClockReading
from exophone_exporter.exotel.text import clean_text
from exophone_exporter.inventory.state import AccountStatus
from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.inventory import Found, Inventory, deflated, inventory_of
from exophone_exporter.metrics.samples import MetricText, account_lines, by_metric, polling_lines

_LIVE_SECONDS: Final = 1.0
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class ServerInfo:
    """What the HTTP server reports about itself; nothing where there is no server."""

    clients_refused: Mapping[str, int] = field(default_factory=dict)
    web_config_successful: bool | None = None
    certificate_expires_at: float | None = None


@dataclass(frozen=True)
class ExporterInfo:
    """What runs and how its configuration fares, for the exporter's own metrics."""

    revision: str
    config_loaded_at: float
    config_reload_successful: bool = True
    log_lines_dropped: int = 0
    server: ServerInfo = field(default_factory=ServerInfo)


@dataclass(frozen=True)
class _Live:
    """The live part from one reading: no counter decreases when a client switches formats."""

    statuses: Sequence[AccountStatus]
    exporter: ExporterInfo
    process: Sequence[Family]
    read: ClockReading
    _bodies: dict[bool, tuple[bytes, bytes]] = field(default_factory=dict)

    def collect(self) -> Iterable[Family]:
        """The families about the process, for prometheus_client to write."""
        return self.process

    @cached_property
    def _lines(self) -> Sequence[MetricText]:
        accounts = [
            (*account_lines(status, self.read), *polling_lines(status)) for status in self.statuses
        ]
        texts = by_metric(chain(*accounts, _exporter_lines(self.exporter)))
        return [(metric, texts[metric.name]) for metric in catalog.METRICS if metric.name in texts]

    def body(self, *, openmetrics: bool) -> tuple[bytes, bytes]:
        """The live part in one format, and the same as raw deflate with its end."""
        if openmetrics not in self._bodies:
            own = [metric.header(openmetrics=openmetrics) + text for metric, text in self._lines]
            # prometheus_client ends its part with the end mark.
            process: bytes = (generate_openmetrics if openmetrics else generate_text)(self)
            text = "".join(own).encode() + process
            self._bodies[openmetrics] = text, deflated([text], zlib.Z_FINISH)
        return self._bodies[openmetrics]


class MetricsPage:
    """Makes the answer of /metrics; `statuses` gives the accounts in their order.

    `with_process` adds the standard series about the process and the interpreter.
    """

    def __init__(
        self,
        statuses: Callable[[], Sequence[AccountStatus]],
        exporter: Callable[[], ExporterInfo],
        clock: Clock,
        *,
        with_process: bool = True,
    ) -> None:
        self._statuses = statuses
        self._exporter = exporter
        self._clock = clock
        self._process = CollectorRegistry()
        if with_process:
            ProcessCollector(registry=self._process)
            PlatformCollector(registry=self._process)
            GCCollector(registry=self._process)
        self._rendering = threading.Lock()
        # Held to read or to swap what scrapes get: the inventory and the last live part.
        self._showing = threading.Lock()
        self._inventory = Inventory()
        self._live: _Live | None = None

    def refresh(
        self,
        statuses: Callable[[], Sequence[AccountStatus]] | None = None,
        change: Callable[[Sequence[AccountStatus]], None] = lambda _: None,
    ) -> None:
        """Render and compress what differs, then show it; until then scrapes get the old bytes.

        `statuses` are those that `change`, which gets them, will bring about. Scrapes see the
        change and its bytes in the same moment. If rendering or the change raises, nothing has
        changed.
        """
        with self._rendering:
            coming = (statuses or self._statuses)()
            inventory = inventory_of(_found(coming, self._clock.now()), self._inventory)
            with self._showing:
                change(coming)
                self._inventory, self._live = inventory, None

    def refresh_live(self, change: Callable[[], None] = lambda: None) -> None:
        """Make a change that leaves the inventory as it is; the next scrape shows it."""
        with self._showing:
            change()
            self._live = None

    def body(self, *, openmetrics: bool, gzipped: bool) -> bytes:
        """The whole exposition in one format."""
        return b"".join(self.chunks(openmetrics=openmetrics, gzipped=gzipped))

    def chunks(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...]:
        """The pieces of `body`; all scrapes share the large ones until the numbers change."""
        cached = self.cached_chunks(openmetrics=openmetrics, gzipped=gzipped)
        if cached is not None:
            return cached
        self.refresh()
        with self._showing:
            inventory, live = self._inventory, self._read_live()
        return _chunks(inventory, live.body(openmetrics=openmetrics), gzipped=gzipped)

    def cached_chunks(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...] | None:
        """The same without a wait; None where the inventory must be rendered first.

        That is so when an account has become stale.
        """
        # The statuses are read under the lock, so that answers never go backwards in time.
        with self._showing:
            inventory, live = self._inventory, self._read_live()
            if _found(live.statuses, self._clock.now()) != inventory.found:
                return None
        return _chunks(inventory, live.body(openmetrics=openmetrics), gzipped=gzipped)

    def _read_live(self) -> _Live:
        """The live part, read again where it is older than a second."""
        live, now = self._live, self._clock.now()
        if live is None or now.seconds_since(live.read) >= _LIVE_SECONDS:
            process = tuple(self._process.collect())
            live = self._live = _Live(self._statuses(), self._exporter(), process, now)
        return live


def text_of_one_poll(statuses: Sequence[AccountStatus], exporter: ExporterInfo) -> bytes:
    """The text format of accounts that were just polled, however long the others took.

    It has nothing about the process.
    """
    before_all = Clock(monotonic=lambda: -math.inf)  # so that nothing counts as old
    page = MetricsPage(lambda: statuses, lambda: exporter, before_all, with_process=False)
    return page.body(openmetrics=False, gzipped=False)


def _found(statuses: Iterable[AccountStatus], now: ClockReading) -> Sequence[Found]:
    return [
        (status.account, status.fresh_snapshot(now), status.account.pseudonym_key)
        for status in statuses
    ]


def _chunks(inventory: Inventory, live: tuple[bytes, bytes], *, gzipped: bool) -> tuple[bytes, ...]:
    """The inventory and the live part, as they are or as one gzip member."""
    text, end = live
    if not gzipped:
        return (*inventory.texts, text)
    length = inventory.length + len(text)
    return (
        _GZIP_HEADER,
        inventory.deflated,
        end,
        zlib.crc32(text, inventory.checksum).to_bytes(4, "little"),
        (length % 2**32).to_bytes(4, "little"),
    )


def _exporter_lines(exporter: ExporterInfo) -> Iterable[MetricText]:
    versions = (__version__, clean_text(exporter.revision), platform.python_version())
    for metric, labels, value in (
        (catalog.BUILD_INFO, versions, 1),
        (catalog.CONFIG_RELOAD_SUCCESSFUL, (), exporter.config_reload_successful),
        (catalog.CONFIG_RELOAD_TIMESTAMP, (), exporter.config_loaded_at),
        (catalog.WEB_CONFIG_SUCCESSFUL, (), exporter.server.web_config_successful),
        (catalog.LOG_LINES_DROPPED, (), exporter.log_lines_dropped),
        (catalog.CERTIFICATE_EXPIRY, (), exporter.server.certificate_expires_at),
    ):
        if value is not None:
            yield metric, metric.sample(*labels, value=value)
    for reason, count in exporter.server.clients_refused.items():
        yield catalog.CLIENTS_REFUSED, catalog.CLIENTS_REFUSED.sample(reason, value=count)
