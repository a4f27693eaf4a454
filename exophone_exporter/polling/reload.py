"""Reloading the configuration while the process runs: SIGHUP and POST /-/reload.

Whoever asks puts a ticket in a queue; one thread takes all that wait, reloads once, and gives each
the outcome. So there is one reload at a time, whoever comes while one runs gets the next one, and
neither a signal handler nor the event loop ever waits or reads a file.
"""

from __future__ import annotations

import logging
import threading
import traceback
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from exophone_exporter.errors import ConfigError, ExoPhoneError
from exophone_exporter.logs import fields, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from exophone_exporter.clock import Clock
    from exophone_exporter.config.settings import Config
    from exophone_exporter.polling.exporter import ReloadSummary

_JOIN_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """What is reloaded; `exporter.Exporter` is one."""

    def reload(self, config: Config) -> ReloadSummary:
        """Go on with another configuration, or raise ExoPhoneError and change nothing."""
        ...

    def note_reload(self, *, successful: bool) -> None:
        """Show how the last reload ended."""
        ...


class Witness(Protocol):
    """Who is told of each reload while it runs; `supervision.Supervision` is one."""

    def reloading(self) -> None:
        """A reload begins."""
        ...

    def reloaded(self, *, successful: bool) -> None:
        """It has ended, and what is loaded now is served."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How one reload ended: what it did, or the problems that left everything as it was."""

    summary: ReloadSummary | None = None
    problems: tuple[str, ...] = ()


_ENDING: Final = Outcome(problems=("the exporter is ending; nothing was reloaded",))


class Reloader:
    """Reloads when asked, in a thread of its own; `load` reads the configuration anew.

    `note` is a sentence for whoever reloads: what a reload does not take up. Between `start` and
    `stop` each request is answered by a reload that began after it; all that wait share one.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        exporter: Reloadable,
        clock: Clock,
        *,
        note: str = "",
        witness: Witness | None = None,
    ) -> None:
        self.note = note
        self._witness = witness
        self._load = load
        self._exporter = exporter
        self._clock = clock
        # Not an Event: a signal handler that strikes inside Event.set would wait for itself.
        self._tickets: SimpleQueue[Future[Outcome] | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="reloader", daemon=True)

    def start(self) -> None:
        """Begin to serve requests; those made before are served now."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse what waits. A reload that reads from a disk that hangs is left to itself."""
        self._stopped.set()
        self._tickets.put(None)
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def hang_up(self) -> None:
        """Ask for a reload whose outcome only the log tells; safe in a signal handler."""
        self.request()

    def request(self) -> Future[Outcome]:
        """Ask for a reload; its outcome comes with the future."""
        ticket: Future[Outcome] = Future()
        if self._stopped.is_set():
            ticket.set_result(_ENDING)
        self._tickets.put(ticket)
        return ticket

    def _serve(self) -> None:
        while True:
            waiting, ending = self._take_waiting(), self._stopped.is_set()
            outcome = _ENDING if ending else self._reload()
            for ticket in waiting:
                ticket.set_result(outcome)
            if ending:
                return

    def _take_waiting(self) -> list[Future[Outcome]]:
        """All tickets that wait, at least one of them; less those whose owner has left."""
        tickets = [self._tickets.get()]
        while True:
            try:
                tickets.append(self._tickets.get_nowait())
            except Empty:
                return [
                    ticket
                    for ticket in tickets
                    if ticket is not None and ticket.set_running_or_notify_cancel()
                ]

    def _reload(self) -> Outcome:
        """One reload, told in the log and in the metrics whatever comes of it."""
        began = self._clock.monotonic()
        if self._witness:
            self._witness.reloading()
        outcome = self._attempt()
        try:
            self._exporter.note_reload(successful=not outcome.problems)
        except Exception as error:  # noqa: BLE001 - a defect must not end the thread
            outcome = _defect(error)
        if self._witness:
            self._witness.reloaded(successful=not outcome.problems)
        self._tell(outcome, self._clock.monotonic() - began)
        return outcome

    def _attempt(self) -> Outcome:
        try:
            config = self._load()
            summary = self._exporter.reload(config)
        except ConfigError as error:
            return Outcome(problems=tuple(redact(problem) for problem in error.problems))
        except ExoPhoneError as error:
            return Outcome(problems=(redact(str(error)),))
        except Exception as error:  # noqa: BLE001 - a defect must not end the thread
            return _defect(error)
        for warning in config.warnings:
            _log.warning("%s", warning)
        return Outcome(summary)

    def _tell(self, outcome: Outcome, duration_seconds: float) -> None:
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
                **named,
                kept=len(outcome.summary.kept),
                duration_seconds=duration_seconds,
                **note,
            ),
        )


def _defect(error: Exception) -> Outcome:
    """A defect of ours: where it arose stands in the log, its message might hold a secret."""
    kind = type(error).__name__
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a defect in the exporter", extra=fields(error=kind, traceback=where))
    return Outcome(problems=(f"a defect in the exporter ({kind}); the log says where",))
