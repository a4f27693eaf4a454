"""What the log says of the polls of one account."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import Account
from exophone_exporter.errors import PollError
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.inventory.changes import Change
from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.inventory.snapshot import Snapshot
from exophone_exporter.inventory.state import PollResult
from exophone_exporter.logs import fields

_REMIND_AFTER_SECONDS: Final = 3600.0
_CHANGES_LOGGED_MAX: Final = 50
_UNCONFIRMED_NAMED_MAX: Final = 10

_log = logging.getLogger(__name__)


class FailureLog:
    """Logs each new reason why something fails, and a reminder per hour; `what` names it."""

    def __init__(self, account: Account, what: str) -> None:
        self._account = account
        self._what = what
        self._logged: dict[str, ClockReading] = {}  # each reason, and when it was logged

    def log(self, error: PollError, ended: ClockReading) -> None:
        """Log a failure, unless its reason was logged within the hour."""
        logged = self._logged.get(error.reason)
        if logged is None:
            self.log_once(f"{self._what} failed", error, ended)
        elif ended.seconds_since(logged) >= _REMIND_AFTER_SECONDS:
            del self._logged[error.reason]
            self.log_once(f"{self._what} still fails", error, ended)

    def log_once(self, message: str, error: PollError, ended: ClockReading) -> None:
        """Log a failure whose reason was not logged yet."""
        if error.reason not in self._logged:
            self._logged[error.reason] = ended
            about = fields(account=self._account.name, reason=error.reason, error=str(error))
            _log.warning(message, extra=about)

    def log_end(self, **about: object) -> bool:
        """Log a success that ends failures; returns whether there were any."""
        if not self._logged:
            return False
        self._logged.clear()
        message = f"{self._what} works again"
        _log.info(message, extra=fields(account=self._account.name, **about))
        return True


class PollLogger:
    """Logs the results of one account: changes, each new failure, and a reminder per hour.

    `previous` is what an earlier poller of the account found, if there was one.
    """

    def __init__(self, account: Account, previous: Snapshot | None = None) -> None:
        self._account = account
        self._failures = FailureLog(account, "the poll")
        self._shown = previous
        self._unconfirmed = bool(previous and previous.listing.missed)
        self._first_message: str | None = (
            "the first poll is complete"
            if previous is None
            else "the first poll by the new configuration is complete"
        )
        self._slow = False

    def log(self, result: PollResult) -> None:
        """Log one result."""
        if result.error is not None:
            self._failures.log(result.error, result.ended)
        if result.snapshot is not None:
            self._log_success(result.snapshot)
            self._log_changes(result.changes)
        if result.missed is not None:
            self._log_unconfirmed(result.missed)

    def _log_success(self, snapshot: Snapshot) -> None:
        figures = {
            "numbers": len(snapshot.numbers),
            "pages": snapshot.listing.pages,
            "duration_seconds": snapshot.duration_seconds,
        }
        about = fields(account=self._account.name, **figures)
        if not self._failures.log_end(**figures) and self._first_message is not None:
            _log.info(self._first_message, extra=about)
        self._first_message = None
        if self._shown and self._shown.numbers and not snapshot.numbers:
            _log.warning("the account had numbers and has none now", extra=about)
        self._shown = snapshot
        interval_seconds = self._account.poll.interval_for(snapshot.listing.pages)
        slow = snapshot.duration_seconds > interval_seconds
        if slow and not self._slow:
            _log.warning("the poll takes longer than its interval", extra=about)
        self._slow = slow

    def _log_unconfirmed(self, missed: Mapping[str, int]) -> None:
        """One line when the list begins to lack numbers that are shown, and one when that ends."""
        if bool(missed) == self._unconfirmed:
            return
        self._unconfirmed = bool(missed)
        if not missed:
            about = fields(account=self._account.name)
            _log.info("every number shown is on the list again", extra=about)
            return
        _log.info(
            "the list lacks numbers that are not known to be gone; they are shown until it has"
            " lacked them three times",
            extra=fields(account=self._account.name, numbers=len(missed), sids=self._names(missed)),
        )

    def _names(self, missed: Mapping[str, int]) -> str:
        """The first of these numbers, as far as they may be named."""
        numbers = self._shown.numbers if self._shown else ()
        lacking = [number for number in numbers if number.sid in missed][:_UNCONFIRMED_NAMED_MAX]
        names = [self._identity(number).sid for number in lacking]
        return " ".join(names if len(missed) <= len(names) else [*names, "…"])

    def _identity(self, number: ExoPhone) -> ExoPhone:
        setting = self._account.per_number.phone_number
        return masked_identity(number, setting, self._account.pseudonym_key)

    def _log_changes(self, changes: Sequence[Change]) -> None:
        for change in changes[:_CHANGES_LOGGED_MAX]:
            self._log_change(change)
        rest = Counter(change.kind for change in changes[_CHANGES_LOGGED_MAX:])
        if rest:
            counts = {str(kind): count for kind, count in rest.items()}
            _log.info("more numbers changed", extra=fields(account=self._account.name, **counts))

    def _log_change(self, change: Change) -> None:
        identity = self._identity(change.number)
        values = {"before": change.before, "after": change.after}
        if change.kind == "other":  # the values of these fields may be what is masked
            values = {"fields": change.after}
        _log.info(
            "a number changed",
            extra=fields(
                account=self._account.name,
                change=change.kind,
                sid=identity.sid,
                phone_number=identity.phone_number,
                friendly_name=identity.friendly_name,
                **values,
            ),
        )
