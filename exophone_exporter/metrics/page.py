"""The bytes of /metrics: a large part that is made when numbers change, a small one that is alive.

The inventory is rendered and compressed when a poll has ended; the health of polling and of the
process at most once a second, for both formats from one look. Both parts are one gzip stream: the
first is deflated up to a byte boundary, the second follows it, and one checksum spans both. (Two
gzip members in a row would be legal too, but browsers show the first one only.)
"""

from __future__ import annotations

import platform
import threading
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exophone_exporter import __version__
from exophone_exporter.clock import ClockReading
from exophone_exporter.exotel.model import clean_text
from exophone_exporter.metrics import catalog
from exophone_exporter.metrics.compression import deflated_to_end
from exophone_exporter.metrics.inventory import NOTHING, Inventory, inventory_of
from exophone_exporter.metrics.samples import by_metric, polling_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric as Family

    from exophone_exporter.clock import Clock
    from exophone_exporter.config.settings import Account
    from exophone_exporter.inventory.state import AccountStatus
    from exophone_exporter.metrics.samples import MetricText

_LIVE_SECONDS: Final = 1.0
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class ExporterInfo:
    """What runs here and how its configuration fares, for the exporter's own metrics."""

    revision: str
    config_loaded_at: float
    config_reload_successful: bool = True


@dataclass(frozen=True)
class _Form:
    """The small part in one format."""

    text: bytes

    @cached_property
    def deflated(self) -> bytes:
        """Raw deflate with its end, to follow the inventory's."""
        return deflated_to_end(self.text)


@dataclass(frozen=True)
class _Families:
    """What prometheus_client's collectors told at one moment, for it to write in any format."""

    families: tuple[Family, ...]

    def collect(self) -> Iterable[Family]:
        """The families."""
        return self.families


@dataclass(frozen=True)
class _Live:
    """The small part as of one moment, and how long the page serves with it.

    Both formats tell of that moment, so that no counter steps back for who asks for one and then
    the other; each is written when it is asked for. `lines` are one text a metric.
    `until` is the end of its second, or of the freshness of an account, by either clock.
    """

    lines: tuple[MetricText, ...]
    process: _Families
    until: ClockReading

    def serves(self, now: ClockReading) -> bool:
        """Whether nothing that is shown has become untrue."""
        return now.monotonic < self.until.monotonic and now.wall < self.until.wall

    def form(self, *, openmetrics: bool) -> _Form:
        """The small part in one format, written once."""
        return self._openmetrics if openmetrics else self._text

    @cached_property
    def _text(self) -> _Form:
        return _Form(self._own(openmetrics=False) + generate_text(self.process))

    @cached_property
    def _openmetrics(self) -> _Form:
        # The end mark is prometheus_client's own: it stands behind the last part.
        process = bytes(generate_openmetrics(self.process))  # type: ignore[no-untyped-call]  # it has no types
        return _Form(self._own(openmetrics=True) + process)

    def _own(self, *, openmetrics: bool) -> bytes:
        families = (metric.header(openmetrics=openmetrics) + lines for metric, lines in self.lines)
        return "".join(families).encode()


@dataclass(eq=False)
class _Shown:
    """What is shown of one configuration: both parts are of the same accounts.

    `stale` names those whose numbers were too old to be shown. `live` is the last small part, which
    is made when it is asked for.
    """

    accounts: tuple[Account, ...]
    inventory: Inventory
    stale: frozenset[str] = frozenset()
    live: _Live | None = None


class MetricsPage:
    """Makes the answer of /metrics; `views` gives the accounts in their order.

    `with_process` adds the standard series about the process and the interpreter.
    """

    def __init__(
        self,
        statuses: Callable[[], Sequence[AccountStatus]],
        build: Callable[[], ExporterInfo],
        clock: Clock,
        *,
        with_process: bool = True,
    ) -> None:
        self._statuses = statuses
        self._build = build
        self._clock = clock
        self._process = CollectorRegistry()
        if with_process:
            ProcessCollector(registry=self._process)
            PlatformCollector(registry=self._process)
            GCCollector(registry=self._process)
        self._rendering = threading.Lock()
        self._live_lock = threading.Lock()
        self._polling: WeakKeyDictionary[AccountStatus, Mapping[str, str]] = WeakKeyDictionary()
        self._shown = _Shown((), NOTHING)

    def refresh(self) -> None:
        """Render and compress what has changed; called when a poll has ended, by its thread.

        A scrape meanwhile gets the bytes from before.
        """
        with self._rendering:
            now, statuses = self._clock.now(), self._statuses()
            fresh = [
                (status.account, snapshot)
                for status in statuses
                if (snapshot := status.fresh_snapshot(now)) is not None
            ]
            inventory = inventory_of(fresh, self._shown.inventory)
            stale = frozenset(status.account.name for status in statuses if status.snapshot)
            self._shown = _Shown(
                _accounts(statuses), inventory, stale.difference(inventory.accounts)
            )

    def render(self, *, openmetrics: bool, gzipped: bool) -> bytes:
        """The whole exposition in one format."""
        return b"".join(self.chunks(openmetrics=openmetrics, gzipped=gzipped))

    def chunks(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...]:
        """What `render` joins: the large part is shared by all scrapes until the numbers change."""
        while (ready := self.cached_chunks(openmetrics=openmetrics, gzipped=gzipped)) is None:
            self.refresh()
        return ready

    def cached_chunks(self, *, openmetrics: bool, gzipped: bool) -> tuple[bytes, ...] | None:
        """What `parts` gives, at once; None where the large part must be made anew for that."""
        # Views are taken under the lock, so that what is shown later was never seen earlier. It is
        # held for no longer than who waits for it would take to make the small part.
        with self._live_lock:
            shown = self._shown
            live = self._live_of(shown)
        if live is None:
            return None
        return _parts(shown.inventory, live.form(openmetrics=openmetrics), gzipped=gzipped)

    def _live_of(self, shown: _Shown) -> _Live | None:
        """The small part, made anew if need be; None where the large part does not fit it."""
        now = self._clock.now()
        if shown.live is None or not shown.live.serves(now):
            statuses = self._statuses()
            # The accounts differ where the configuration has just been replaced.
            if shown.accounts != _accounts(statuses) or _has_aged(shown, statuses, now):
                return None
            shown.live = self._new_live(shown, statuses, now)
        return shown.live

    def _new_live(
        self, shown: _Shown, statuses: Sequence[AccountStatus], now: ClockReading
    ) -> _Live:
        until = [now.later(_LIVE_SECONDS)] + [
            status.snapshot.completed.later(status.account.poll.stale_after_seconds)
            for status in statuses
            if status.snapshot is not None and status.account.name in shown.inventory.accounts
        ]
        parts = [*map(self._polling_part, statuses)]
        parts.append(by_metric(_exporter_lines(self._build())))
        return _Live(
            tuple(_in_order(parts)),
            _Families(tuple(self._process.collect())),
            ClockReading(min(each.wall for each in until), min(each.monotonic for each in until)),
        )

    def _polling_part(self, status: AccountStatus) -> Mapping[str, str]:
        """The lines about an account's polling, kept while nothing happens to it."""
        part = self._polling.get(status)
        if part is None:
            part = self._polling[status] = by_metric(polling_lines(status))
        return part


def _accounts(statuses: Sequence[AccountStatus]) -> tuple[Account, ...]:
    return tuple(status.account for status in statuses)


def _has_aged(shown: _Shown, statuses: Sequence[AccountStatus], now: ClockReading) -> bool:
    """Whether a part has become too old; or one is no longer, as the clock was set back."""
    fresh = {status.account.name for status in statuses if status.fresh_snapshot(now)}
    return not (fresh.issuperset(shown.inventory.accounts) and fresh.isdisjoint(shown.stale))


def _parts(inventory: Inventory, live: _Form, *, gzipped: bool) -> tuple[bytes, ...]:
    """The large part and the small one, as they are or as one gzip member."""
    if not gzipped:
        return (*inventory.texts, live.text)
    length = inventory.length + len(live.text)
    return (
        _GZIP_HEAD,
        inventory.deflated,
        live.deflated,
        zlib.crc32(live.text, inventory.checksum).to_bytes(4, "little"),
        (length % 2**32).to_bytes(4, "little"),
    )


def _exporter_lines(build: ExporterInfo) -> Iterable[MetricText]:
    yield (
        catalog.BUILD_INFO,
        catalog.BUILD_INFO.sample(
            __version__, clean_text(build.revision), platform.python_version(), value=1
        ),
    )
    successful = catalog.CONFIG_RELOAD_SUCCESSFUL
    yield successful, successful.sample(value=build.config_reload_successful)
    timestamp = catalog.CONFIG_RELOAD_TIMESTAMP
    yield timestamp, timestamp.sample(value=build.config_loaded_at)


def _in_order(parts: Sequence[Mapping[str, str]]) -> Iterator[MetricText]:
    """The lines of every part together, by metric, in the order of the table."""
    for metric in catalog.METRICS:
        lines = [part[metric.name] for part in parts if metric.name in part]
        if lines:
            yield metric, "".join(lines)
