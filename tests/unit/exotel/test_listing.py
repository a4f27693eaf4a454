"""The walk over the pages, and the numbers that it only missed."""

from __future__ import annotations

import pytest

from exophone_exporter.errors import BadPagination, NotFound, ServerFailed
from exophone_exporter.exotel.client import ignore_page
from exophone_exporter.exotel.listing import Listing, confirm_removals, fetch_listing
from exophone_exporter.exotel.model import ExoPhone, Page
from tests.lib.support import phone

NOTHING_REJECTED = {"not_an_object": 0, "no_sid": 0, "duplicate": 0}


def page(
    *sids: str,
    page: int | None = None,
    page_size: int | None = None,
    more: bool | None = None,
    items: int | None = None,
    rejected: dict[str, int] | None = None,
) -> Page:
    numbers = tuple(phone(sid) for sid in sids)
    seen = len(sids) if items is None else items
    return Page(numbers, page, page_size, more, seen, rejected or {})


class Script:
    """Gives the scripted pages in turn, the last one for ever, and notes what was asked."""

    def __init__(self, *pages: Page) -> None:
        self.pages = pages
        self.asked: list[tuple[int, int]] = []

    def __call__(self, index: int, size: int) -> Page:
        self.asked.append((index, size))
        return self.pages[min(len(self.asked), len(self.pages)) - 1]

    def walk(self, page_size: int = 2) -> list[str]:
        return [n.sid for n in fetch_listing(self, page_size, ignore_page, max_pages=50).numbers]


@pytest.mark.parametrize(
    ("pages", "sids", "requests"),
    [
        pytest.param([page()], "", 1, id="no-numbers", marks=pytest.mark.fault(80)),
        pytest.param([page("a", more=False)], "a", 1, id="one-and-null"),
        pytest.param([page("a", "b", more=False)], "ab", 1, id="full-and-null"),
        pytest.param([page("a")], "a", 1, id="short-and-missing"),
        pytest.param([page("a", "b"), page("c")], "abc", 2, id="full-and-missing"),
        pytest.param([page("a", "b", "c"), page("d")], "abcd", 2, id="overfull-and-missing"),
        pytest.param([page("a", "b"), page()], "ab", 2, id="full-and-missing-then-empty"),
        pytest.param([page("a", "b", more=True), page()], "ab", 2, id="more-then-empty"),
        pytest.param([page("a", more=True), page("b", more=False)], "ab", 2, id="short-and-more"),
        pytest.param([page("a", more=True)], "a", 2, id="same-for-ever"),
        pytest.param(
            [page("a", "b", more=True), page("c", "d", more=True)], "abcd", 3, id="last-for-ever"
        ),
        pytest.param(
            [page("a", "b", more=True), page("b", "c", more=True), page("a", "c", more=True)],
            "abc",
            3,
            id="known-ones-in-another-order",
        ),
    ],
)
@pytest.mark.fault(68, 69, 70, 71)
def test_walk_ends_where_the_api_has_no_more(pages: list[Page], sids: str, requests: int) -> None:
    """An unsaid next page is asked for after a full one; a page without anything new is the end."""
    script = Script(*pages)
    assert script.walk() == list(sids)
    assert script.asked == [(index, 2) for index in range(requests)]


@pytest.mark.fault(74)
def test_server_that_ignores_page_costs_one_more_request() -> None:
    script = Script(page("a", "b", more=True))
    assert script.walk() == ["a", "b"]
    assert len(script.asked) == 2


@pytest.mark.fault(72)
def test_endless_new_numbers_are_a_failure() -> None:
    asked: list[int] = []

    def endless(index: int, _size: int) -> Page:
        assert index < 7
        asked.append(index)
        return page(f"n{index}", more=True)

    with pytest.raises(BadPagination, match=r"^the list does not end after 7 pages$"):
        fetch_listing(endless, 1, ignore_page, max_pages=7)
    assert asked == list(range(7))


@pytest.mark.fault(72)
def test_endless_walk_is_given_up_after_5000_pages() -> None:
    asked: list[int] = []

    def endless(index: int, _size: int) -> Page:
        assert index < 5000
        asked.append(index)
        return page(f"n{index}", more=True)

    with pytest.raises(BadPagination, match="5000"):
        fetch_listing(endless, 1, ignore_page)
    assert len(asked) == 5000


@pytest.mark.fault(75)
def test_cap_of_the_page_size_is_taken_over() -> None:
    script = Script(
        page("a", "b", page_size=2, more=True), page("c", "d", page_size=2), page("e", page_size=2)
    )
    assert script.walk(page_size=100) == list("abcde")
    assert script.asked == [(0, 100), (1, 2), (2, 2)]


def test_claim_of_a_larger_page_leaves_no_gap() -> None:
    """Page 1 of 100 would begin at the hundredth number, though only two were given."""
    script = Script(page("a", "b", page_size=100, more=True), page("c", page_size=100))
    assert script.walk() == list("abc")
    assert script.asked == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(2, 1, id="smaller"),
        pytest.param(2, 4, id="larger"),
        pytest.param(None, 1, id="said-too-late"),
    ],
)
def test_page_size_that_changes_on_the_way_is_a_failure(first: int | None, second: int) -> None:
    script = Script(
        page("a", "b", page_size=first, more=True), page("c", "d", page_size=second, more=True)
    )
    with pytest.raises(BadPagination, match=f"changed from 2 to {second}"):
        script.walk()


def test_cap_that_is_lifted_on_the_way_is_a_failure() -> None:
    """Even to the size that was asked for at first: the second page began at the third number."""
    script = Script(
        page("a", "b", page_size=2, more=True), page("c", "d", page_size=100, more=True)
    )
    with pytest.raises(BadPagination, match="changed from 2 to 100"):
        script.walk(page_size=100)


def test_last_page_may_state_its_own_length_as_the_size() -> None:
    script = Script(page("a", "b", page_size=2, more=True), page("c", page_size=1, more=False))
    assert script.walk() == list("abc")


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([page("a", page=1)], id="first"),
        pytest.param([page(page=1)], id="first-and-empty"),
        pytest.param([page("a", "b", page=0, more=True), page("c", page=0)], id="new-numbers"),
        pytest.param(
            [page("a", page=0, more=True), page("b", page=0)], id="new-numbers-after-a-short-page"
        ),
        pytest.param([page("a", "b", page=0, more=True)], id="same-again-after-a-full-page"),
    ],
)
@pytest.mark.fault(77)
def test_page_that_was_not_asked_for_is_a_failure(pages: list[Page]) -> None:
    with pytest.raises(BadPagination, match=r"asked for page \d and was given page \d"):
        Script(*pages).walk()


def test_short_page_that_comes_again_under_its_own_number_is_the_end() -> None:
    """A server that gives its last page for every page beyond says so honestly."""
    script = Script(page("a", page=0, more=True))
    assert script.walk() == ["a"]


@pytest.mark.fault(76)
@pytest.mark.parametrize("grown", [pytest.param(1, id="one-page"), pytest.param(2, id="two")])
def test_list_that_grew_by_whole_pages_is_followed_to_its_end(grown: int) -> None:
    """The same page comes again under the number that was asked for: the rest follows it."""
    again = [page("a", "b", page=1 + n, more=True) for n in range(grown)]
    last = page("c", page=1 + grown, more=False)
    script = Script(page("a", "b", page=0, more=True), *again, last)
    assert script.walk() == ["a", "b", "c"]


@pytest.mark.fault(71)
def test_page_that_comes_for_ever_under_any_number_is_given_up_after_two_more() -> None:
    """A server that ignores what page is asked for and repeats the number costs no more."""
    script = Script(*(page("a", "b", page=number, more=True) for number in range(9)))
    assert script.walk() == ["a", "b"]
    assert len(script.asked) == 4


@pytest.mark.fault(82, 83)
def test_first_of_two_versions_wins_and_the_other_is_counted() -> None:
    def pages(index: int, _size: int) -> Page:
        name = ("first", "first", "second")[index]
        more = index < 2
        return Page((phone("a", friendly_name=name), phone(f"n{index}")), index, 2, more, 2, {})

    walk = fetch_listing(pages, 2, ignore_page)
    assert [n.sid for n in walk.numbers] == ["a", "n0", "n1", "n2"]
    assert walk.numbers[0].friendly_name == "first"
    assert walk.rejected == NOTHING_REJECTED | {"duplicate": 1}


@pytest.mark.fault(59)
def test_rejections_add_up_and_count_towards_a_full_page() -> None:
    script = Script(
        page("a", items=2, rejected={"no_sid": 1}),
        page("b", items=2, rejected={"no_sid": 1}),
        page("c", items=2, rejected={"not_an_object": 1}),
        page(),
    )
    walk = fetch_listing(script, 2, ignore_page)
    assert [n.sid for n in walk.numbers] == ["a", "b", "c"]
    assert walk.rejected == {"not_an_object": 1, "no_sid": 2, "duplicate": 0}
    assert walk.pages == 4


def test_progress_counts_pages_and_numbers() -> None:
    told: list[tuple[int, int]] = []
    script = Script(page("a", "b"), page("b", "c"), page("d"))
    fetch_listing(script, 2, lambda pages, numbers: told.append((pages, numbers)))
    assert told == [(1, 2), (2, 3), (3, 4)]


class Detail:
    """The detail endpoint: knows the sids it was given, and notes what was asked."""

    def __init__(self, *sids: str, error: Exception | None = None) -> None:
        self.sids = sids
        self.error = error
        self.asked: list[str] = []

    def __call__(self, sid: str) -> ExoPhone:
        self.asked.append(sid)
        if self.error is not None:
            raise self.error
        if sid not in self.sids:
            raise NotFound("404")
        return phone(sid, friendly_name="as of now")


def walked(*sids: str, pages: int = 2) -> Listing:
    return Listing(tuple(phone(sid) for sid in sids), pages, NOTHING_REJECTED)


def known(*sids: str) -> dict[str, ExoPhone]:
    return {sid: phone(sid) for sid in sids}


@pytest.mark.fault(76)
def test_number_that_was_only_missed_is_kept_as_it_is_now() -> None:
    detail = Detail("b")
    walk = confirm_removals(walked("a", "d"), known("a", "b", "c"), detail)
    assert [(n.sid, n.friendly_name) for n in walk.numbers] == [
        ("a", "Support Mumbai"),
        ("d", "Support Mumbai"),
        ("b", "as of now"),
    ]
    assert detail.asked == ["b", "c"]
    assert (walk.pages, walk.rejected) == (2, NOTHING_REJECTED)


def test_list_of_one_page_needs_no_confirmation() -> None:
    detail = Detail("b")
    assert confirm_removals(walked("a", pages=1), known("a", "b"), detail) == walked("a", pages=1)
    assert detail.asked == []


def test_many_removals_are_believed_once_twenty_are_confirmed() -> None:
    detail = Detail()
    previous = known(*(f"n{i}" for i in range(500)))
    assert confirm_removals(walked("a"), previous, detail) == walked("a")
    assert detail.asked == [f"n{i}" for i in range(20)]


def test_twenty_missed_numbers_are_all_kept() -> None:
    sids = [f"n{i}" for i in range(20)]
    walk = confirm_removals(walked("a"), known(*sids), Detail(*sids))
    assert [n.sid for n in walk.numbers] == ["a", *sids]


def test_many_removals_of_which_one_is_not_true_are_a_failure() -> None:
    """Those beyond the twentieth cannot be distinguished, and do not fire an alert."""
    detail = Detail("n19")
    with pytest.raises(BadPagination, match="lacks 21 numbers"):
        confirm_removals(walked("a"), known(*(f"n{i}" for i in range(21))), detail)
    assert len(detail.asked) == 20


def test_confirmation_that_fails_fails_the_poll() -> None:
    with pytest.raises(ServerFailed):
        confirm_removals(walked("a"), known("b"), Detail(error=ServerFailed("500")))
