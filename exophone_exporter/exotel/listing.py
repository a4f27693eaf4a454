"""The walk over the pages of the list: pure, with the requests as parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Final

from exophone_exporter.errors import BadEnvelope, BadPagination, ListShifted, NotFound, PollError
from exophone_exporter.exotel.model import REJECTIONS, ExoPhone, Page

MAX_PAGES: Final = 5000
MAX_CONFIRMATIONS: Final = 20
# What is missing from this many complete walks in a row is gone, whatever else the API says.
WALKS_BELIEVED: Final = 3
# What a page behind the last one is answered with, where it is not an empty page.
_STATUSES_BEHIND_THE_END: Final = {204, 400, 404, 410, 416, 422}
# So many pages in a row may hold nothing but bad records before the walk ends.
_UNREADABLE_PAGES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of one complete walk of the list: every number once, in the API's order.

    `missed` are the numbers among them, at the end, that the list lacks and that are not known to
    be gone: by sid, from how many complete walks in a row each was missing. Their timestamps were
    read in `timezone`.
    """

    numbers: tuple[ExoPhone, ...]
    pages: int
    rejected: Mapping[str, int]
    missed: Mapping[str, int] = field(default_factory=dict)
    timezone: str = ""


def fetch_listing(
    fetch_page: Callable[[int, int], Page],
    page_size: int,
    on_page: Callable[[int, int], None],
    max_pages: int = MAX_PAGES,
) -> Listing:
    """Ask for one page after the other, by our own count, until the API has no more.

    `on_page` hears after each page how many pages and numbers there are so far. Raises
    BadPagination where the pages contradict each other or do not end, and BadEnvelope where they
    hold records but not one number.
    """
    found: dict[str, ExoPhone] = {}
    rejected = dict.fromkeys(REJECTIONS, 0)
    stated = size = page_size
    without_new = pages = 0
    for index in range(max_pages):
        page = _page(fetch_page, index, size)
        if page is None:
            break
        pages = index + 1
        fresh = _take(page, found, rejected)
        without_new = 0 if fresh else without_new + 1
        _check_index(page, index, fresh)
        on_page(pages, len(found))
        if index == 0:
            # An API that caps the size says so on its first page; the count goes on with its size.
            # One that claims more than was asked is not asked for more: that could leave a gap.
            stated = page.page_size or page_size
            size = min(stated, page_size)
        if page.more is False or without_new > _patience(page, index):
            break
        _check_size(page, stated)
    else:
        raise BadPagination(f"the list does not end after {max_pages} pages")
    check_readable(found, rejected)
    return Listing(tuple(found.values()), pages, rejected)


def _page(fetch_page: Callable[[int, int], Page], index: int, size: int) -> Page | None:
    """One page, or None where the API refuses to go beyond the page before.

    An empty page that names a next page is asked for once more.
    """
    try:
        page = fetch_page(index, size)
        return fetch_page(index, size) if page.more and not page.items else page
    except PollError as error:
        if index > 0 and error.status in _STATUSES_BEHIND_THE_END:
            return None
        raise


def _patience(page: Page, index: int) -> int:
    """How many pages in a row may bring nothing new, this one included, before it is the last."""
    if page.items == 0:
        return 1 if page.more else 0
    if page.numbers or page.page not in (None, index):
        return 0
    return _UNREADABLE_PAGES_MAX


def _check_index(page: Page, index: int, fresh: int) -> None:
    """A server may give its last page for every page behind it, but no other page for this one."""
    if page.page not in (None, index) and (fresh or index == 0):
        raise BadPagination(f"asked for page {index} and was given page {page.page}")


def _check_size(page: Page, stated: int) -> None:
    """A short page may state its own length as the size; any other change could leave a gap."""
    if page.page_size not in (None, stated, min(page.items, stated)):
        raise BadPagination(f"the page size changed from {stated} to {page.page_size} on the way")


def check_readable(numbers: Sized, rejected: Mapping[str, int]) -> None:
    """Raise BadEnvelope where there were records and not one number among them."""
    bad = sum(rejected.values())
    if bad and not numbers:
        raise BadEnvelope(f"none of the {bad} items is an ExoPhone with a sid")


def _take(page: Page, found: dict[str, ExoPhone], rejected: dict[str, int]) -> int:
    """Add what a page brings; returns how many of its numbers are new.

    The same number on two pages has only moved while the pages were walked; with other contents it
    is a duplicate, and the first one wins.
    """
    before = len(found)
    for number in page.numbers:
        first = found.setdefault(number.sid, number)
        rejected["duplicate"] += first != number
    fresh = len(found) - before
    if fresh or not page.numbers:  # else its records, too, were on the page before
        for reason, items in page.rejected.items():
            rejected[reason] += items
    return fresh


def confirm_removals(
    walk: Listing,
    previous: Mapping[str, ExoPhone],
    missed: Mapping[str, int],
    fetch_number: Callable[[str], ExoPhone],
) -> Listing:
    """The walk, with those of the `previous` numbers that it lacks and that may still be there.

    Pages shift while they are walked, so a number can slip through between two of them. Gone is
    what the detail endpoint calls gone, and what was `missed` by the last walks too. Any other
    answer keeps a number for now. Of more than 20, the first 20 are asked about, and one that is
    still there means that the list shifted: ListShifted is raised.
    """
    found = {number.sid for number in walk.numbers}
    counts = {sid: missed.get(sid, 0) + 1 for sid in previous if sid not in found}
    doubtful = [sid for sid, walks in counts.items() if walks < WALKS_BELIEVED]
    kept = {sid: previous[sid] for sid in doubtful}
    for sid in doubtful[:MAX_CONFIRMATIONS]:
        try:
            kept[sid] = fetch_number(sid)
        except NotFound:
            del kept[sid]
        except PollError:
            continue  # not known to be gone
        else:
            if len(doubtful) > MAX_CONFIRMATIONS:
                raise ListShifted(len(doubtful), counts)
    return replace(
        walk, numbers=(*walk.numbers, *kept.values()), missed={sid: counts[sid] for sid in kept}
    )
