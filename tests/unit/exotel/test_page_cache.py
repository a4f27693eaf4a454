"""Pages that come again: what is read again, what is the same, and what is freed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from exophone_exporter.errors import BadEnvelope
from exophone_exporter.exotel.client import Client
from exophone_exporter.exotel.model import parse_page
from exophone_exporter.exotel.page_cache import PageCache
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.support import INDIA, account, client_for


def body(*sids: str, **more: Any) -> bytes:
    return json.dumps({"incoming_phone_numbers": [{"sid": sid} for sid in sids], **more}).encode()


def client_of(sim: Simulator) -> Client:
    return client_for(account(origin=sim.url))


def test_page_that_comes_again_is_the_same_object() -> None:
    memory = PageCache()
    first = memory.read(0, body("a"), INDIA)
    assert memory.read(0, body("a"), INDIA) is first
    assert first == parse_page(body("a"), INDIA)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(body("b"), id="number"),
        pytest.param(body("a", "b"), id="longer"),
        pytest.param(body("a", page=1), id="envelope"),
        pytest.param(body("a") + b" ", id="blank"),
    ],
)
def test_any_other_byte_is_read_again(other: bytes) -> None:
    memory = PageCache()
    first = memory.read(0, body("a"), INDIA)
    read = memory.read(0, other, INDIA)
    assert read is not first
    assert read == parse_page(other, INDIA)
    assert memory.read(0, other, INDIA) is read


def test_each_page_has_its_own_place() -> None:
    memory = PageCache()
    pages = [memory.read(index, body(f"s{index}"), INDIA) for index in range(3)]
    assert [memory.read(index, body(f"s{index}"), INDIA) for index in range(3)] == pages
    assert memory.read(1, body("s0"), INDIA) is not pages[0]


def test_body_that_cannot_be_read_is_an_error_each_time() -> None:
    memory = PageCache()
    known = memory.read(0, body("a"), INDIA)
    for _ in range(2):
        with pytest.raises(BadEnvelope):
            memory.read(0, b"[]", INDIA)
    assert memory.read(0, body("a"), INDIA) is known


@pytest.mark.fault(58, 137)
def test_null_is_an_empty_list_behind_the_first_page_only() -> None:
    memory, nothing = PageCache(), b'{"incoming_phone_numbers": null}'
    assert memory.read(1, nothing, INDIA).items == 0
    with pytest.raises(BadEnvelope):
        memory.read(0, nothing, INDIA)


def test_what_lies_behind_the_end_is_let_go() -> None:
    memory = PageCache()
    pages = [memory.read(index, body(f"s{index}"), INDIA) for index in range(3)]
    memory.forget_from(1)
    assert memory.read(0, body("s0"), INDIA) is pages[0]
    assert memory.read(1, body("s1"), INDIA) is not pages[1]


def test_walk_reads_only_the_pages_that_changed() -> None:
    """The numbers of the others are the very objects of the walk before."""
    with Simulator(World(make_account("acme", 120))) as sim:
        client = client_of(sim)
        before = client.fetch_all({})
        sim.world.accounts["acme"].numbers[60]["friendly_name"] = "other"
        after = client.fetch_all({})
        same = [new is old for new, old in zip(after.numbers, before.numbers, strict=True)]
    assert same == [True] * 50 + [False] * 50 + [True] * 20
    assert after.numbers[60].friendly_name == "other"


def test_walk_that_became_shorter_forgets_the_rest() -> None:
    with Simulator(World(make_account("acme", 120))) as sim:
        client = client_of(sim)
        numbers = sim.world.accounts["acme"].numbers
        taken, before = numbers[50:], client.fetch_all({})
        del numbers[50:]
        client.fetch_all({})
        numbers += taken
        again = client.fetch_all({})
    same = [new is old for new, old in zip(again.numbers, before.numbers, strict=True)]
    assert not any(same[50:])


def test_numbers_of_a_walk_share_their_texts_and_nothing_keeps_them_after_it() -> None:
    """Not by sys.intern: Python 3.12 never frees what was interned."""
    url = "https://customer.example/" + "u" * 100
    answer = json.dumps({"incoming_phone_numbers": [{"sid": "a", "voice_url": url}]}).encode()
    memory = PageCache()
    first, second = (memory.read(i, answer, INDIA).numbers[0].voice_url for i in (0, 1))
    next_walk = memory.read(0, answer + b" ", INDIA).numbers[0].voice_url
    assert first is second
    assert next_walk == first
    assert next_walk is not first
    assert sys.intern(str(url)) is not first
