"""Files that are loaded again when they change."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from exophone_exporter.clock import Clock
from exophone_exporter.config.files import read_file
from exophone_exporter.errors import ConfigError
from exophone_exporter.logs import fields

_LOOK_EVERY_SECONDS: Final = 1.0
_RETRY_EVERY_SECONDS: Final = 60.0

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def fingerprint(path: str) -> tuple[int, ...] | None:
    """What changes with a file or its permissions; None for a file that does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path would be made once a second for nothing
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)


def read_regular_file(path: str, limit_bytes: int) -> bytes:
    """Like `read_file`, but refuses a pipe, which blocks or is empty when it is read again."""
    if Path(path).is_fifo():
        raise ValueError("is a pipe; use a regular file")
    return read_file(path, limit_bytes)


@dataclass(eq=False, repr=False)
class FollowedFiles(Generic[_T]):
    """What `load` makes of some files, loaded again when `version` changes.

    `current` looks at the version at most once a second. `accept` is called with the value in force
    and the new one, and raises ConfigError to refuse it. If loading fails or the value is refused,
    `failure` is logged once, the previous value is kept, and loading is tried again after a minute
    or by `retry`. Raises ConfigError if the first loading fails. To be used from one thread, except
    for `retry` and `is_up_to_date`.
    """

    _version: Callable[[], object]
    _load: Callable[[], _T]
    failure: str
    accept: Callable[[_T, _T], None]
    clock: Clock

    def __post_init__(self) -> None:
        self._seen = self._version()  # before the content: a change in between is noticed later
        self._value = self._load()
        self._look_at = self.clock.monotonic() + _LOOK_EVERY_SECONDS
        self._retry_at = math.inf
        self._logged = ""

    @property
    def is_up_to_date(self) -> bool:
        """Whether the last version could be used."""
        return self._retry_at == math.inf

    def current(self) -> _T:
        """What is in force now."""
        now = self.clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_SECONDS
            version = self._version()
            if version != self._seen:
                self._seen, self._retry_at, self._logged = version, now, ""
            if now >= self._retry_at:
                self._load_again(now)
        return self._value

    def retry(self) -> None:
        """Load again at the next look if the last loading failed; safe from any thread."""
        if self._retry_at < math.inf:
            self._look_at, self._retry_at, self._logged = 0.0, 0.0, ""

    def _load_again(self, now: float) -> None:
        self._retry_at = now + _RETRY_EVERY_SECONDS
        try:
            renewed = self._load()
            self.accept(self._value, renewed)
        except ConfigError as error:
            problem = " | ".join(error.problems)
            if problem != self._logged:
                _log.error(self.failure, extra=fields(problem=problem))
            self._logged = problem
            return
        self._value, self._retry_at, self._logged = renewed, math.inf, ""
