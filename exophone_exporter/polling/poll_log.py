"""What the log says of the polls of one account."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from exophone_exporter.inventory.privacy import masked_identity
from exophone_exporter.logs import fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exophone_exporter.clock import ClockReading
    from exophone_exporter.config.settings import Account
    from exophone_exporter.errors import PollError
    from exophone_exporter.inventory.changes import Change
    from exophone_exporter.inventory.snapshot import Snapshot
    from exophone_exporter.inventory.state import PollResult

_REMIND_AFTER_SECONDS: Final = 3600.0
_CHANGES_LOGGED_MAX: Final = 50

_log = logging.getLogger(__name__)


class PollLogger:
    """Logs the results of one account: changes, each new failure, and a reminder per hour.

    `previous` is what an earlier poller of the account found, if there was one.
    """

    def __init__(self, account: Account, previous: Snapshot | None = None) -> None:
        self._account = account
        self._failing: tuple[str, ClockReading] | None = None  # the reason, and when it was logged
        self._size = None if previous is None else len(previous.numbers)
        self._first_message: str | None = (
            "the first poll is complete"
            if previous is None
            else "the first poll by the new configuration is complete"
        )
        self._slow = False

    def log(self, result: PollResult) -> None:
        """Log one result."""
        if result.error is not None:
            self._log_failure(result.error, result.ended)
        if result.snapshot is not None:
            self._log_success(result.snapshot)
            self._log_changes(result.changes)

    def _log_failure(self, error: PollError, ended: ClockReading) -> None:
        reason, logged_at = self._failing or ("", ended)
        again = reason == error.reason
        if again and ended.seconds_since(logged_at) < _REMIND_AFTER_SECONDS:
            return
        self._failing = (error.reason, ended)
        _log.warning(
            "the poll still fails" if again else "the poll failed",
            extra=fields(account=self._account.name, reason=error.reason, error=str(error)),
        )

    def _log_success(self, snapshot: Snapshot) -> None:
        about = fields(
            account=self._account.name,
            numbers=len(snapshot.numbers),
            pages=snapshot.listing.pages,
            duration_seconds=snapshot.duration_seconds,
        )
        message = "the poll works again" if self._failing else self._first_message
        if message is not None:
            _log.info(message, extra=about)
        self._failing = self._first_message = None
        if self._size and not snapshot.numbers:
            _log.warning("the account had numbers and has none now", extra=about)
        self._size = len(snapshot.numbers)
        slow = snapshot.duration_seconds > self._account.poll.interval_seconds
        if slow and not self._slow:
            _log.warning("the poll takes longer than its interval", extra=about)
        self._slow = slow

    def _log_changes(self, changes: Sequence[Change]) -> None:
        for change in changes[:_CHANGES_LOGGED_MAX]:
            self._log_change(change)
        rest = Counter(change.kind for change in changes[_CHANGES_LOGGED_MAX:])
        if rest:
            counts = {str(kind): count for kind, count in rest.items()}
            _log.info("more numbers changed", extra=fields(account=self._account.name, **counts))

    def _log_change(self, change: Change) -> None:
        account = self._account
        identity = masked_identity(
            change.number, account.per_number.phone_number, account.pseudonym_key
        )
        _log.info(
            "a number changed",
            extra=fields(
                account=account.name,
                change=change.kind,
                sid=identity.sid,
                phone_number=identity.phone_number,
                friendly_name=identity.friendly_name,
                before=change.before,
                after=change.after,
            ),
        )
