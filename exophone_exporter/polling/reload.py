"""Reloading the configuration while the process runs.

SIGHUP, POST /-/reload and changes of files all arrive in the event loop. A reload runs in a thread,
one at a time; requests during a reload share the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from exophone_exporter.clock import Clock
from exophone_exporter.config.files import read_file
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import ConfigError, ExoPhoneError
from exophone_exporter.logs import fields, redact
from exophone_exporter.polling.accounts import ReloadSummary
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.threads import in_thread

_log = logging.getLogger(__name__)


# How one reload ended: what it did, or the problems that left everything as it was.
Outcome: TypeAlias = ReloadSummary | tuple[str, ...]


class ConfigFiles:
    """The files that the loader reads with `read`, and whether they have changed since.

    A link is followed, so that Kubernetes may swap it. A file that is gone or cannot be read counts
    as a content, too: a reload then reports it once, and its return is a change.
    """

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._look_at = 0.0
        self._task: asyncio.Task[None] | None = None
        # The limit with which each file was last read, and a digest of its content.
        self._seen: dict[str, tuple[int, bytes]] = {}

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Read a file as the loader wants it; may be called from any thread."""
        try:
            content = read_file(path, limit_bytes)
        except (OSError, ValueError):
            self._seen[path] = (limit_bytes, b"")
            raise
        self._seen[path] = (limit_bytes, hashlib.blake2b(content).digest())
        return content

    def look(self, reload: Callable[[], Awaitable[object]]) -> None:
        """Once an interval, look at the files and reload after a change; for the event loop.

        The files are read in a thread: one on a network that is gone blocks nothing else.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._look_at or (self._task and not self._task.done()):
            return
        self._look_at = loop.time() + self._interval_seconds
        self._task = loop.create_task(self._reload_after_change(reload))

    async def _reload_after_change(self, reload: Callable[[], Awaitable[object]]) -> None:
        changed = await in_thread(self._changed)
        if changed:
            _log.info("configuration files have changed", extra=fields(files=" ".join(changed)))
            await reload()

    def _changed(self) -> list[str]:
        before = dict(self._seen)
        for path, (limit_bytes, _) in before.items():
            with contextlib.suppress(OSError, ValueError):
                self.read(path, limit_bytes)
        return [path for path, seen in before.items() if self._seen[path] != seen]


@dataclass(eq=False, repr=False)
class Reloader:
    """Reloads on request; `load` reads the configuration. Its methods run in the event loop.

    A change of `files` is a request. `warnings` were logged already. `note` says what a reload does
    not take up. `on_begin` and `on_end` are called around each reload, in its thread; `on_end` with
    whether it succeeded.
    """

    _load: Callable[[], Config]
    _exporter: Exporter
    _clock: Clock
    files: ConfigFiles | None = None
    warnings: Sequence[str] = ()
    note: str = ""
    on_begin: Callable[[], None] = lambda: None
    on_end: Callable[[bool], None] = lambda _: None
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _next: asyncio.Task[Outcome] | None = None

    def request(self) -> asyncio.Task[Outcome]:
        """Return the next reload, which begins after this call and may be shared."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run_next())
        return self._next

    def tick(self) -> None:
        """Look at the files when it is time to."""
        if self.files:
            self.files.look(self.request)

    async def _run_next(self) -> Outcome:
        async with self._one_at_a_time:
            self._next = None
            return await in_thread(self._reload)

    def _reload(self) -> Outcome:
        """Reload once; the log and the metrics show the outcome, whatever it is."""
        began = self._clock.monotonic()
        self.on_begin()
        outcome = self._attempt()
        try:
            self._exporter.note_reload(successful=isinstance(outcome, ReloadSummary))
        except Exception as error:  # noqa: BLE001 - a defect must not end the process
            outcome = _defect(error)
        self.on_end(isinstance(outcome, ReloadSummary))
        self._log_outcome(outcome, self._clock.monotonic() - began)
        return outcome

    def _attempt(self) -> Outcome:
        try:
            config = self._load()
            summary = self._exporter.reload(config)
        except ConfigError as error:
            return tuple(redact(problem) for problem in error.problems)
        except ExoPhoneError as error:
            return (redact(str(error)),)
        except Exception as error:  # noqa: BLE001 - a defect must not end the process
            return _defect(error)
        for warning in config.warnings:
            if warning not in self.warnings:
                _log.warning("%s", warning)
        self.warnings = config.warnings
        return summary

    def _log_outcome(self, outcome: Outcome, duration_seconds: float) -> None:
        if not isinstance(outcome, ReloadSummary):
            for problem in outcome:
                _log.error("the configuration was not reloaded", extra=fields(problem=problem))
            return
        named = {
            name: " ".join(accounts)
            for name, accounts in vars(outcome).items()
            if accounts and name != "kept"
        }
        note = {"note": self.note} if self.note else {}
        about = fields(**named, kept=len(outcome.kept), duration_seconds=duration_seconds, **note)
        _log.info("the configuration was reloaded", extra=about)


def _defect(error: Exception) -> Outcome:
    """Log where a defect occurred, without its message, which might hold a secret."""
    kind = type(error).__name__
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a defect in the exporter", extra=fields(error=kind, traceback=where))
    return (f"a defect in the exporter ({kind}), see the log",)
