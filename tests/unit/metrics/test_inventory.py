"""The large part of the page: what is made anew, what serves again, and what it adds up to."""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.clock import ClockReading
from exophone_exporter.config.settings import PerNumber
from exophone_exporter.exotel.listing import Listing
from exophone_exporter.inventory.snapshot import Snapshot, build
from exophone_exporter.metrics import compression, inventory
from exophone_exporter.metrics.inventory import NOTHING, Inventory, inventory_of
from tests.lib.support import account, phone

if TYPE_CHECKING:
    from exophone_exporter.exotel.model import ExoPhone

SIZE = 3


def numbers(count: int, **of_the_first: Any) -> tuple[ExoPhone, ...]:
    """So many numbers, in objects of their own."""
    first = (phone("sid-00000", **of_the_first),) if count else ()
    return (*first, *these(*range(1, count)))


def these(*indexes: int) -> tuple[ExoPhone, ...]:
    """The numbers of these indexes, in objects of their own and in this order."""
    return tuple(phone(f"sid-{index:05}") for index in indexes)


def snapshot(found: tuple[ExoPhone, ...]) -> Snapshot:
    return build(Listing(found, 1, Counter()), ClockReading(0.0, 0.0), 0.0)


def page_of(*found: tuple[ExoPhone, ...], former: Inventory = NOTHING) -> Inventory:
    """The inventory of accounts `a0`, `a1` and so on with these numbers."""
    accounts = [account(f"a{index}") for index in range(len(found))]
    return inventory_of(zip(accounts, map(snapshot, found), strict=True), former, SIZE)


def made_anew(page: Inventory, former: Inventory) -> list[str]:
    """The metrics whose blocks were made for this page, once a block."""
    known = {id(text) for text in former.texts}
    new = [text.decode() for text in page.texts if id(text) not in known]
    return [text.partition("{")[0].removeprefix("exophone_") for text in new]


def holds(page: Inventory) -> bytes:
    """The text, after its other forms were held against it."""
    text = b"".join(page.texts)
    assert zlib.decompressobj(-zlib.MAX_WBITS).decompress(page.deflated) == text
    assert (page.length, page.checksum) == (len(text), zlib.crc32(text))
    return text


def test_change_of_one_number_makes_its_blocks_anew_and_no_others() -> None:
    """10,000 numbers of which one changed cost a fifth of the rendering and compressing."""
    before = page_of(numbers(2 * SIZE + 1))
    after = page_of(numbers(2 * SIZE + 1, friendly_name="other"), former=before)
    names = made_anew(after, before)
    assert len(names) == len({*names})
    assert "number_info" in names
    assert holds(after) == holds(page_of(numbers(2 * SIZE + 1, friendly_name="other")))


@pytest.mark.parametrize(
    ("found", "blocks_made"),
    [
        pytest.param((10, 15, *range(20, 100, 10)), 1, id="added-to-the-first"),
        pytest.param((5, *range(10, 100, 10)), 1, id="added-before-all"),
        pytest.param((*range(10, 100, 10), 95), 1, id="added-behind-all"),
        pytest.param((*range(10, 50, 10), *range(60, 100, 10)), 1, id="removed"),
        pytest.param((10, 20, *range(40, 100, 10), 65, 99), 3, id="one-in-each"),
        pytest.param(tuple(range(90, 0, -10)), 0, id="in-another-order"),
        pytest.param(tuple(range(40, 100, 10)), 2, id="a-whole-block-removed-moves-the-others"),
    ],
)
def test_number_that_comes_or_goes_makes_only_its_own_blocks_anew(
    found: tuple[int, ...], blocks_made: int
) -> None:
    """However many are before it: they do not move from block to block."""
    before = page_of(these(*range(10, 100, 10)))
    after = page_of(these(*found), former=before)
    assert made_anew(after, before).count("number_info") == blocks_made
    assert holds(after) == holds(page_of(these(*found)))


def test_shares_that_grew_or_shrank_too_much_are_cut_anew() -> None:
    """Thousands of numbers later a block is still a small step, and not one number's."""
    page = page_of(these(*range(0, 90, 10)))
    for more in range(1, 90):
        page = page_of(these(*range(0, 90, 10), *range(90, 90 + more)), former=page)
    assert max(numbers_by_block(page)) <= 2 * SIZE
    page = page_of(these(*range(0, 90, 9)), former=page_of(these(*range(90))))
    assert len(numbers_by_block(page)) <= 1 + 2 * 10 // SIZE


def numbers_by_block(page: Inventory) -> list[int]:
    infos = [text for text in page.texts if text.startswith(b"exophone_number_info{")]
    return [text.count(b"\n") for text in infos]


def test_change_of_one_account_leaves_the_blocks_of_the_other() -> None:
    before = page_of(numbers(3), numbers(3))
    after = page_of(numbers(3, region="DL"), numbers(3), former=before)
    changed = [text for text in after.texts if id(text) not in {id(old) for old in before.texts}]
    assert changed
    assert all(b'account="a0"' in text for text in changed)
    assert not any(b'account="a1"' in text for text in changed)


def test_equal_numbers_are_not_rendered_but_the_older_objects_may_go() -> None:
    """A poll brings objects of its own; to keep those of each poll would be a leak."""
    older = numbers(3)
    held_here = sys.getrefcount(older[1])
    before = page_of(older)
    after = page_of(numbers(3), former=before)
    assert made_anew(after, before) == []
    del before
    held_at_last = sys.getrefcount(older[1])
    assert held_at_last == held_here


def test_same_snapshots_are_the_same_page() -> None:
    found = [(account(), snapshot(numbers(3)))]
    page = inventory_of(found, NOTHING)
    assert inventory_of(found, page) is page


@pytest.mark.parametrize(
    "per_number",
    [
        pytest.param(PerNumber("all", 10_000, "last4"), id="privacy"),
        pytest.param(PerNumber("none", 10_000, "full"), id="series"),
        pytest.param(PerNumber("all", 2, "full"), id="limit"),
    ],
)
def test_other_settings_are_another_page(per_number: PerNumber) -> None:
    found = snapshot(numbers(3))
    before = inventory_of([(account(), found)], NOTHING)
    other = account(per_number=per_number)
    after = inventory_of([(other, found)], before)
    assert holds(after) == holds(inventory_of([(other, found)], NOTHING)) != holds(before)


def test_accounts_that_change_places_are_another_page() -> None:
    one, two = (account("a"), snapshot(numbers(2))), (account("b"), snapshot(numbers(2)))
    before = inventory_of([one, two], NOTHING)
    after = inventory_of([two, one], before)
    assert holds(after) == holds(inventory_of([two, one], NOTHING)) != holds(before)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.integers(0, 99), unique=True), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_went_before_a_page_is_as_if_made_at_once(
    turns: list[tuple[int, list[int], bool]],
) -> None:
    """Numbers come and go, settings and accounts change: nothing of before shows through."""
    page = NOTHING
    for accounts, of_the_first, few in turns:
        found = [
            these(*of_the_first) if index == 0 else numbers(index) for index in range(accounts)
        ]
        settings = PerNumber("unattached" if few else "all", 3 * SIZE, "full")
        watched = [
            (account(f"a{index}", per_number=settings), snapshot(each))
            for index, each in enumerate(found)
        ]
        page = inventory_of(watched, page, SIZE)
        assert holds(page) == holds(inventory_of(watched, NOTHING, 10 * SIZE))


def test_no_account_is_an_empty_page() -> None:
    assert page_of() is NOTHING
    assert holds(NOTHING) == b""


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was compressed, in this order."""
    texts: list[bytes] = []

    def deflated(data: bytes) -> bytes:
        texts.append(data)
        return compression.deflated(data)

    monkeypatch.setattr(inventory, "deflated", deflated)
    return texts


def test_change_in_one_of_many_accounts_compresses_what_says_something_else(
    compressed: list[bytes],
) -> None:
    """However many accounts there are, and however small: what is beside it is a small part."""
    found = [numbers(3 * SIZE) for _ in range(100)]
    before = page_of(*found)
    whole = sum(map(len, compressed))
    compressed.clear()
    found[70] = numbers(3 * SIZE, friendly_name="other")
    after = page_of(*found, former=before)
    assert len(compressed) == 1
    assert b'account="a70",country="IN",friendly_name="other"' in compressed[0]
    assert len(compressed[0]) < whole / 20
    assert holds(after) == holds(page_of(*found))


def test_block_that_says_the_same_of_other_numbers_serves_again(compressed: list[bytes]) -> None:
    """Of nine metrics a change of the name shows in one."""
    before = page_of(numbers(SIZE))
    after = page_of(numbers(SIZE, friendly_name="other"), former=before)
    assert made_anew(after, before) == ["number_info"]
    assert len(compressed) == 2


def test_small_pages_are_compressed_as_one() -> None:
    """A block each would cost an account of three numbers half of what compression gains."""
    page = page_of(numbers(3))
    assert len(page.deflated) < page.length / 5


def test_zlib_serves_where_isal_is_missing() -> None:
    """On a machine for which there is no wheel."""

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    assert compression.fastest(missing) is zlib
    assert compression.fastest().__name__ in ("isal.isal_zlib", "zlib")


@given(st.lists(st.binary(max_size=2000), max_size=5), st.binary(max_size=2000))
def test_deflated_pieces_follow_each_other(pieces: list[bytes], last: bytes) -> None:
    """Up to a byte boundary each, and only the last has an end."""
    stream = b"".join(map(compression.deflated, pieces)) + compression.deflated_to_end(last)
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    assert reader.decompress(stream) == b"".join((*pieces, last))
    assert reader.eof
