"""Reloads the configuration when a file that it was read from changes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable

from exophone_exporter.config.files import read_file
from exophone_exporter.logs import fields
from exophone_exporter.threads import in_thread

_log = logging.getLogger(__name__)


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
