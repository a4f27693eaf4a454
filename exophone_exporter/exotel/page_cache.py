"""The pages of the last walk: one that comes again byte for byte is not read again.

Reading JSON into ExoPhones is most of the cost of a poll, and numbers that are the same objects as
before compare quickly. The cache keeps a digest of each response, and the snapshot's own numbers.
"""

from __future__ import annotations

import hashlib
from datetime import tzinfo

from exophone_exporter.exotel import model
from exophone_exporter.exotel.model import Page


class PageCache:
    """What the answers for the pages of one account were read as; safe between threads."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[bytes, Page]] = {}
        # Not sys.intern: Python 3.12 never frees what was interned.
        self._shared: dict[str, str] = {}

    def read(self, index: int, body: bytes, zone: tzinfo) -> Page:
        """The answer for a page, as `model.parse_page` reads it; `zone` is always the same."""
        if index == 0:
            self._shared = {}
        digest = hashlib.sha256(body).digest()
        known = self._known.get(index)
        if known is not None and known[0] == digest:
            return known[1]
        page = model.parse_page(body, zone, self._shared, first=index == 0)
        self._known[index] = (digest, page)
        return page

    def forget_from(self, index: int) -> None:
        """Drop what lies behind the end of the list."""
        for beyond in [each for each in tuple(self._known) if each >= index]:
            self._known.pop(beyond, None)
