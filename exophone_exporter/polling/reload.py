"""Reloading the configuration while the process runs.

SIGHUP and POST /-/reload both arrive in the event loop. A reload runs in a thread, one at a time;
requests during a reload share the next one.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from exophone_exporter.clock import Clock
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import ConfigError, ExoPhoneError
from exophone_exporter.logs import fields, redact
from exophone_exporter.polling.accounts import ReloadSummary
from exophone_exporter.polling.auto_reload import ConfigFiles
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.threads import Start, in_thread, start_daemon

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How one reload ended: what it did, or the problems that left everything as it was."""

    summary: ReloadSummary | None = None
    problems: tuple[str, ...] = ()


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
    start: Start = start_daemon
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
            return await in_thread(self._reload, self.start)

    def _reload(self) -> Outcome:
        """Reload once; the log and the metrics show the outcome, whatever it is."""
        began = self._clock.monotonic()
        self.on_begin()
        outcome = self._attempt()
        try:
            self._exporter.note_reload(successful=not outcome.problems)
        except Exception as error:  # noqa: BLE001 - a defect must not end the process
            outcome = _defect(error)
        self.on_end(not outcome.problems)
        self._log_outcome(outcome, self._clock.monotonic() - began)
        return outcome

    def _attempt(self) -> Outcome:
        try:
            config = self._load()
            summary = self._exporter.reload(config)
        except ConfigError as error:
            return Outcome(problems=tuple(redact(problem) for problem in error.problems))
        except ExoPhoneError as error:
            return Outcome(problems=(redact(str(error)),))
        except Exception as error:  # noqa: BLE001 - a defect must not end the process
            return _defect(error)
        for warning in config.warnings:
            if warning not in self.warnings:
                _log.warning("%s", warning)
        self.warnings = config.warnings
        return Outcome(summary)

    def _log_outcome(self, outcome: Outcome, duration_seconds: float) -> None:
        for problem in outcome.problems:
            _log.error("the configuration was not reloaded", extra=fields(problem=problem))
        if outcome.summary is None:
            return
        named = {
            name: " ".join(accounts)
            for name, accounts in vars(outcome.summary).items()
            if accounts and name != "kept"
        }
        note = {"note": self.note} if self.note else {}
        _log.info(
            "the configuration was reloaded",
            extra=fields(
                **named, kept=len(outcome.summary.kept), duration_seconds=duration_seconds, **note
            ),
        )


def _defect(error: Exception) -> Outcome:
    """Log where a defect occurred, without its message, which might hold a secret."""
    kind = type(error).__name__
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a defect in the exporter", extra=fields(error=kind, traceback=where))
    return Outcome(problems=(f"a defect in the exporter ({kind}), see the log",))
