"""Which shard an account belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.config.settings import Config
from exophone_exporter.config.sharding import WHOLE, Shard, parse
from tests.lib.support import account

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=64)
THOUSAND = [f"account-{number}" for number in range(1000)]
FORM = "use a value such as 0/3 for the first of three"


def owner(account: str, count: int) -> int:
    (index,) = [index for index in range(count) if Shard(index, count).holds(account)]
    return index


@given(NAMES, st.integers(1, 20))
def test_an_additional_shard_takes_accounts_and_moves_no_other(account: str, count: int) -> None:
    assert owner(account, count + 1) in (owner(account, count), count)


@given(st.lists(NAMES, unique=True, max_size=6), st.integers(1, 5))
def test_a_configuration_keeps_the_accounts_of_its_shard_in_order(
    names: list[str], count: int
) -> None:
    whole = Config("FILE", tuple(map(account, names)), ("a warning",))
    assert whole.share(None) is whole
    for shard in (Shard(index, count) for index in range(count)):
        part = whole.share(shard)
        assert part.shard == shard
        mine = [name for name in names if owner(name, count) == shard.index]
        assert [one.name for one in part.accounts] == mine


@pytest.mark.parametrize("count", [2, 3, 10])
def test_shards_are_about_equal(count: int) -> None:
    """No shard of a thousand accounts is a third larger than its part."""
    owners = [owner(name, count) for name in THOUSAND]
    assert max(map(owners.count, range(count))) < 1000 / count * 4 / 3


def test_shards_are_the_same_in_every_version() -> None:
    """An update that changed them would move accounts."""
    names = ("support", "sales", "acme1", "acme2", "billing", "north", "south")
    assert [owner(name, 3) for name in names] == [2, 1, 0, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "shard"),
    [("0/3", Shard(0, 3)), ("2/3", Shard(2, 3)), ("0/1", WHOLE), ("999/1000", Shard(999, 1000))],
)
def test_a_shard_is_read_and_written_the_same(text: str, shard: Shard) -> None:
    assert parse(text) == shard
    assert str(shard) == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("3/3", "use 0/3 to 2/3"),
        ("1/1", "use 0/1 to 0/1"),
        ("0/0", "there can be 1 to 1000 shards"),
        ("0/1001", "there can be 1 to 1000 shards"),
        *((text, FORM) for text in ("", "1", "-1/3", "1 / 3", "1/3/5", "a/b", "\u0660/3", "0/3\n")),
    ],
)
def test_an_invalid_shard_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match="invalid shard") as caught:
        parse(text)
    assert str(caught.value) == f"invalid shard `{text}`: {advice}"
