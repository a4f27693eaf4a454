"""The walk over the pages of the list: pure, with the requests as parameters."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exophone_exporter.errors import BadPagination, NotFound
from exophone_exporter.exotel.model import REJECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exophone_exporter.exotel.model import ExoPhone, Page

MAX_PAGES: Final = 5000
MAX_CONFIRMATIONS: Final = 20
# A list that grew by a page while it was walked shows one again; it is followed so far.
_PAGES_SEEN_AGAIN_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of one complete walk of the list: every number once, in the API's order."""

    numbers: tuple[ExoPhone, ...]
    pages: int
    rejected: Mapping[str, int]


def fetch_listing(
    fetch_page: Callable[[int, int], Page],
    page_size: int,
    on_page: Callable[[int, int], None],
    max_pages: int = MAX_PAGES,
) -> Listing:
    """Ask for one page after the other, by our own count, until the API has no more.

    `on_page` hears after each page how many pages and numbers there are so far. Raises
    BadPagination where the pages contradict each other or do not end.
    """
    found: dict[str, ExoPhone] = {}
    rejected = dict.fromkeys(REJECTIONS, 0)
    stated = size = page_size
    full, seen_again = True, 0
    for index in range(max_pages):
        page = fetch_page(index, size)
        fresh = _take(page, found, rejected)
        if page.page not in (None, index) and (fresh or full):
            raise BadPagination(f"asked for page {index} and was given page {page.page}")
        on_page(index + 1, len(found))
        if index == 0:
            # An API that caps the size says so on its first page; the count goes on with its size.
            # One that claims more than was asked is not asked for more: that could leave a gap.
            stated = page.page_size or page_size
            size = min(stated, page_size)
        full = page.items >= size
        seen_again = 0 if fresh else seen_again + 1
        # Of a full page that says itself which it is, the list has moved; else it is the end.
        patience = _PAGES_SEEN_AGAIN_MAX if full and page.page == index else 0
        if seen_again > patience or not (full if page.more is None else page.more):
            return Listing(tuple(found.values()), index + 1, rejected)
        if page.page_size not in (None, stated):
            raise BadPagination(
                f"the page size changed from {stated} to {page.page_size} on the way"
            )
    raise BadPagination(f"the list does not end after {max_pages} pages")


def _take(page: Page, found: dict[str, ExoPhone], rejected: dict[str, int]) -> int:
    """Add what a page brings; returns how many of its numbers are new.

    The same number on two pages has only moved while the pages were walked; with other contents it
    is a duplicate, and the first one wins.
    """
    for reason, items in page.rejected.items():
        rejected[reason] += items
    before = len(found)
    for number in page.numbers:
        first = found.setdefault(number.sid, number)
        rejected["duplicate"] += first != number
    return len(found) - before


def confirm_removals(
    walk: Listing, previous: Mapping[str, ExoPhone], fetch_number: Callable[[str], ExoPhone]
) -> Listing:
    """The walk, with those of the `previous` numbers that it only missed.

    Pages shift while they are walked, so a number can slip through between two of them. Gone is
    what the detail endpoint calls gone. Of more than 20, the first 20 speak for the rest: where all
    are gone the list is believed, where one is not BadPagination is raised.
    """
    if walk.pages == 1:
        return walk  # one answer cannot shift under itself
    found = {number.sid for number in walk.numbers}
    missing = [sid for sid in previous if sid not in found]
    kept: list[ExoPhone] = []
    for sid in missing[:MAX_CONFIRMATIONS]:
        with contextlib.suppress(NotFound):
            kept.append(fetch_number(sid))
    if kept and len(missing) > MAX_CONFIRMATIONS:
        raise BadPagination(
            f"the list lacks {len(missing)} numbers, and not all are gone: it shifted on the way"
        )
    return Listing((*walk.numbers, *kept), walk.pages, walk.rejected)
