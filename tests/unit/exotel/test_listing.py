"""The walk over the pages, and the numbers that it lacks."""

from __future__ import annotations

import pytest

from exophone_exporter.errors import (
    BadBody,
    BadEnvelope,
    BadPagination,
    ConnectFailed,
    CredentialsRejected,
    DeadlinePassed,
    Forbidden,
    ListShifted,
    NotFound,
    PollError,
    RateLimited,
    ServerFailed,
    Stopped,
    UnexpectedStatus,
)
from exophone_exporter.exotel.listing import Listing, confirm_removals, fetch_listing
from exophone_exporter.exotel.model import ExoPhone, Page
from tests.lib.support import phone

NOTHING_REJECTED = {"not_an_object": 0, "no_sid": 0, "duplicate": 0}
NEXT, LAST, SILENT = True, False, None


def ignore_page(_pages: int, _numbers: int) -> None:
    """Nobody watches the walk."""


def page(
    sids: str = "",
    more: bool | None = SILENT,
    *,
    page: int | None = None,
    page_size: int | None = None,
    bad: int = 0,
) -> Page:
    """A page with a number for each letter of `sids`, and so many records without a sid."""
    numbers = tuple(phone(sid) for sid in sids)
    rejected = {"no_sid": bad} if bad else {}
    return Page(numbers, page, page_size, more, len(sids) + bad, rejected)


def refused(status: int) -> PollError:
    error = (NotFound if status in (404, 410) else UnexpectedStatus)(f"{status}")
    error.status = status
    return error


class Script:
    def __init__(self, *pages: Page | PollError) -> None:
        self.pages = pages
        self.asked: list[tuple[int, int]] = []

    def __call__(self, index: int, size: int) -> Page:
        self.asked.append((index, size))
        answer = self.pages[min(len(self.asked), len(self.pages)) - 1]
        if isinstance(answer, PollError):
            raise answer
        return answer

    def walk(self, page_size: int = 2) -> str:
        listing = fetch_listing(self, page_size, ignore_page, max_pages=50)
        return "".join(number.sid for number in listing.numbers)


# What each page answers, the numbers found, and the pages asked for.
ENDS = [
    pytest.param([page("a", LAST)], "a", "0", id="null"),
    pytest.param([page("ab", LAST)], "ab", "0", id="full-and-null"),
    pytest.param([page("", LAST)], "", "0", id="empty-and-null", marks=pytest.mark.fault(80)),
    pytest.param([page()], "", "0", id="empty-and-silent", marks=pytest.mark.fault(80)),
    pytest.param([page("ab"), page("c"), page()], "abc", "012", id="silent-until-empty"),
    pytest.param([page("ab"), page("c")], "abc", "012", id="silent-until-nothing-new"),
    pytest.param([page("a"), page("bc"), page("d"), page()], "abcd", "0123", id="short-and-silent"),
    pytest.param([page("abc"), page("d"), page()], "abcd", "012", id="overfull-and-silent"),
    pytest.param([page("a", NEXT), page("b", LAST)], "ab", "01", id="short-and-next"),
    pytest.param([page("a", NEXT)], "a", "01", id="same-for-ever"),
    pytest.param([page("a", page=0), page("a", page=0)], "a", "01", id="short-page-for-ever"),
    pytest.param(
        [page("ab", page=0), page("cd", page=1), page("cd", page=1)],
        "abcd",
        "012",
        id="last-page-again-under-its-own-number",
    ),
    pytest.param([page("ab", NEXT, page=n) for n in range(9)], "ab", "01", id="numbered-for-ever"),
    pytest.param([page("ab", NEXT), page("bc", NEXT), page("ac", NEXT)], "abc", "012", id="known"),
    pytest.param([page("ab", NEXT), page("", NEXT)], "ab", "01122", id="two-empty-pages"),
    pytest.param([page("", NEXT)], "", "0011", id="nothing-but-empty-pages"),
    pytest.param(
        [page("ab", NEXT), page("", NEXT), page("cd", NEXT), page("e", LAST)],
        "abcde",
        "0112",
        id="page-that-was-empty-once",
    ),
    pytest.param(
        [page("ab", NEXT), page("", NEXT), page("", NEXT), page("cd", NEXT), page("e", LAST)],
        "abcde",
        "01123",
        id="hole-of-one-page",
    ),
    pytest.param(
        [page("a", NEXT), *[page("", NEXT)] * 2, page("b", NEXT), *[page("", NEXT)] * 3],
        "ab",
        "01123344",
        id="holes-that-are-not-neighbours",
    ),
    pytest.param([page("ab", NEXT), page("", LAST)], "ab", "01", id="empty-and-then-null"),
]


@pytest.mark.parametrize(("pages", "sids", "asked"), ENDS)
@pytest.mark.fault(68, 69, 70, 71, 74)
def test_walk_ends_where_the_api_has_no_more(pages: list[Page], sids: str, asked: str) -> None:
    script = Script(*pages)
    assert script.walk() == sids
    assert script.asked == [(int(index), 2) for index in asked]


@pytest.mark.parametrize("status", [204, 400, 404, 410, 416, 422])
@pytest.mark.parametrize("more", [NEXT, SILENT])
@pytest.mark.fault(137)
def test_refusal_of_a_page_behind_a_good_one_is_the_end(status: int, more: bool | None) -> None:
    script = Script(page("ab", more), refused(status))
    walk = fetch_listing(script, 2, ignore_page)
    assert [number.sid for number in walk.numbers] == ["a", "b"]
    assert (walk.pages, len(script.asked)) == (1, 2)
    with pytest.raises(PollError, match=str(status)):
        Script(refused(status)).walk()


@pytest.mark.parametrize(
    "error",
    [
        *(refused(status) for status in (405, 409, 451)),
        ServerFailed("500"),
        Forbidden("403"),
        BadBody("cut"),
    ],
    ids=str,
)
@pytest.mark.fault(39)
def test_other_errors_of_a_late_page_fail_the_walk(error: PollError) -> None:
    with pytest.raises(type(error)):
        Script(page("ab", NEXT), error).walk()


@pytest.mark.parametrize("most", [7, None])
@pytest.mark.fault(72)
def test_endless_new_numbers_are_a_failure(most: int | None) -> None:
    asked: list[int] = []

    def endless(index: int, _size: int) -> Page:
        asked.append(index)
        return Page((phone(f"n{index}"),), None, None, True, 1, {})

    limit = {} if most is None else {"max_pages": most}
    with pytest.raises(BadPagination, match=rf"^the list does not end after {most or 5000} pages$"):
        fetch_listing(endless, 1, ignore_page, **limit)
    assert asked == list(range(most or 5000))


@pytest.mark.fault(75)
def test_cap_of_the_page_size_is_taken_over() -> None:
    script = Script(page("ab", NEXT, page_size=2), page("cd", page_size=2), page("e", LAST))
    assert script.walk(page_size=100) == "abcde"
    assert script.asked == [(0, 100), (1, 2), (2, 2)]


def test_claim_of_a_larger_page_leaves_no_gap() -> None:
    """Page 1 of 100 would begin at the hundredth number, though only two were given."""
    script = Script(page("ab", NEXT, page_size=100), page("c", LAST, page_size=100))
    assert script.walk() == "abc"
    assert script.asked == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("asked", "first", "second"),
    [
        pytest.param(2, 2, 1, id="smaller"),
        pytest.param(2, 2, 4, id="larger"),
        pytest.param(2, None, 1, id="said-too-late"),
        # Even to the size that was asked for at first: the second page began at the third number.
        pytest.param(100, 2, 100, id="cap-that-is-lifted"),
    ],
)
@pytest.mark.parametrize("more", [NEXT, SILENT])
def test_page_size_that_changes_on_the_way_is_a_failure(
    asked: int, first: int | None, second: int, more: bool | None
) -> None:
    script = Script(page("ab", more, page_size=first), page("cd", more, page_size=second))
    with pytest.raises(BadPagination, match=f"changed from 2 to {second}"):
        script.walk(asked)


@pytest.mark.parametrize("more", [NEXT, SILENT])
def test_short_page_may_state_its_own_length_as_the_size(more: bool | None) -> None:
    pages = page("ab", more, page_size=2), page("c", more, page_size=1), page("de", page_size=2)
    assert Script(*pages).walk() == "abcde"


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([page("a", page=1)], id="first"),
        pytest.param([page(page=1)], id="first-and-empty"),
        pytest.param([page("ab", NEXT, page=0), page("c", page=0)], id="new-numbers"),
        pytest.param([page("a", NEXT, page=0), page("b", page=0)], id="after-a-short-page"),
    ],
)
@pytest.mark.fault(77)
def test_page_that_was_not_asked_for_is_a_failure(pages: list[Page]) -> None:
    with pytest.raises(BadPagination, match=r"asked for page \d and was given page \d"):
        Script(*pages).walk()


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


@pytest.mark.parametrize(
    ("pages", "sids", "bad"),
    [
        pytest.param([page("a", bad=1), page("b", bad=1), page()], "ab", 2, id="among-good-ones"),
        pytest.param([page("ab", NEXT), page("", LAST, bad=1)], "ab", 1, id="alone-at-the-end"),
        pytest.param([page("ab"), page(bad=1), page()], "ab", 1, id="alone-and-silent"),
        pytest.param([page("", NEXT, bad=2), page("ab", LAST)], "ab", 2, id="the-first-page"),
        pytest.param([page("ab"), *[page(bad=2)] * 3, page("c"), page()], "abc", 6, id="pages"),
        pytest.param([page("a", NEXT), page(bad=1)], "a", 11, id="for-ever"),
        pytest.param([page("ab", page=0), page(bad=1, page=1)], "ab", 2, id="last-page-for-ever"),
        pytest.param([page("a", bad=1)], "a", 1, id="counted-once-where-the-page-comes-again"),
    ],
)
@pytest.mark.fault(59)
def test_bad_records_never_end_or_fail_a_walk(pages: list[Page], sids: str, bad: int) -> None:
    walk = fetch_listing(Script(*pages), 2, ignore_page)
    assert "".join(n.sid for n in walk.numbers) == sids
    assert walk.rejected == NOTHING_REJECTED | {"no_sid": bad}


@pytest.mark.fault(59)
def test_walk_with_records_and_not_one_number_is_a_failure() -> None:
    with pytest.raises(BadEnvelope, match=r"^none of the 3 items is an ExoPhone with a sid$"):
        Script(page("", NEXT, bad=2), page("", LAST, bad=1)).walk()


def test_progress_counts_pages_and_numbers() -> None:
    told: list[tuple[int, int]] = []
    script = Script(page("ab"), page("bc"), page("d", LAST))
    fetch_listing(script, 2, lambda pages, numbers: told.append((pages, numbers)))
    assert told == [(1, 2), (2, 3), (3, 4)]


class Detail:
    def __init__(self, there: str = "", **errors: Exception) -> None:
        self.there = there
        self.errors = errors
        self.asked: list[str] = []

    def __call__(self, sid: str) -> ExoPhone:
        self.asked.append(sid)
        if sid not in self.there:
            raise self.errors.get(sid, NotFound("404"))
        return phone(sid, friendly_name="as of now")


def confirmed(
    detail: Detail, known: str, missed: dict[str, int] | None = None, pages: int = 2
) -> Listing:
    """What becomes of a walk that found one number, "0", where these were known too."""
    walk = Listing((phone("0"),), pages, NOTHING_REJECTED)
    return confirm_removals(walk, {s: phone(s) for s in "0" + known}, missed or {}, detail)


def shown(listing: Listing) -> str:
    return "".join(number.sid for number in listing.numbers[1:])


MANY = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.fault(76, 138)
def test_missing_number_is_asked_for_and_shown_as_it_is_now(pages: int) -> None:
    """However many pages the walk had: one odd page is not the truth."""
    detail = Detail("b")
    walk = confirmed(detail, "bc", pages=pages)
    assert [(n.sid, n.friendly_name) for n in walk.numbers] == [
        ("0", "Support Mumbai"),
        ("b", "as of now"),
    ]
    assert detail.asked == ["b", "c"]
    assert (walk.pages, walk.rejected, walk.missed) == (pages, NOTHING_REJECTED, {"b": 1})


@pytest.mark.parametrize(
    "error",
    [
        UnexpectedStatus("400"),
        CredentialsRejected("401"),
        Forbidden("403"),
        RateLimited("429", 30.0),
        ServerFailed("500"),
        ConnectFailed("reset"),
        DeadlinePassed("late"),
        BadBody("cut"),
        BadEnvelope("about another number"),
    ],
    ids=str,
)
@pytest.mark.fault(138)
def test_number_that_no_answer_calls_gone_is_kept(error: PollError) -> None:
    detail = Detail(a=error)
    walk = confirmed(detail, "ab")
    assert (shown(walk), walk.missed, detail.asked) == ("a", {"a": 1}, ["a", "b"])
    assert walk.numbers[1] == phone("a")


def test_stop_ends_the_questions() -> None:
    with pytest.raises(Stopped):
        confirmed(Detail(a=Stopped()), "ab")


@pytest.mark.parametrize("there", ["a", ""], ids=["there", "403"])
@pytest.mark.fault(139)
def test_list_wins_after_three_walks(there: str) -> None:
    """And the walks count again from one when the number was found in between."""
    detail = Detail(there, a=Forbidden("403"))
    missed: list[dict[str, int]] = [{}]
    for _ in range(3):
        missed.append(dict(confirmed(detail, "a", missed[-1]).missed))
    assert missed == [{}, {"a": 1}, {"a": 2}, {}]
    assert detail.asked == ["a", "a"]
    assert confirmed(detail, "", {"0": 2}).missed == {}


@pytest.mark.fault(76)
def test_up_to_twenty_missing_numbers_are_all_kept() -> None:
    assert shown(confirmed(Detail(MANY), MANY[:20])) == MANY[:20]


@pytest.mark.fault(140)
def test_of_many_removals_only_those_asked_about_are_believed() -> None:
    """The rest is asked about next time: the 21st may only have slipped through."""
    detail = Detail()
    walk = confirmed(detail, MANY)
    assert (shown(walk), "".join(detail.asked)) == (MANY[20:], MANY[:20])
    again = confirmed(Detail("z"), MANY[20:], dict(walk.missed))
    assert (shown(again), again.missed) == ("z", {"z": 2})


@pytest.mark.fault(140)
def test_many_removals_of_which_one_is_not_true_are_a_failure() -> None:
    """Asked no further, and the walk counts: the list wins over this one in the end, too."""
    detail = Detail("c", a=ServerFailed("500"))
    with pytest.raises(ListShifted, match="lacks 25 numbers") as caught:
        confirmed(detail, MANY[:26], {"z": 2, "y": 1})
    assert detail.asked == ["a", "b", "c"]
    assert caught.value.missed == dict.fromkeys(MANY, 1) | {"y": 2, "z": 3}
    assert shown(confirmed(Detail(), MANY, dict.fromkeys(MANY, 2))) == ""


@pytest.mark.fault(140)
def test_many_questions_without_an_answer_keep_every_number() -> None:
    detail = Detail()
    detail.errors = dict.fromkeys(MANY, ServerFailed("500"))
    assert shown(confirmed(detail, MANY)) == MANY
