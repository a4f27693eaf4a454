"""Which of several processes watches an account: exactly one, and the same one tomorrow. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"(?P<index>[0-9]{1,4})/(?P<count>[0-9]{1,4})")
_COUNT_MAX: Final = 1000


@dataclass(frozen=True)
class Shard:
    """The share `index`, from 0, of `count`; the only share of 1 is everything."""

    index: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there are no other shares."""
        return self.count == 1

    def holds(self, account: str) -> bool:
        """Whether the account of this name belongs to the share.

        By rendezvous hashing: a name belongs to the share that draws the greatest lot for it. One
        share more therefore only takes accounts, from each of the others alike, and moves no other.
        """
        return max(range(self.count), key=lambda index: _lot(index, account)) == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE: Final = Shard()


def parse(text: str) -> Shard:
    """The shard that `0/3` means; raises ValueError that says what would be right."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is no shard; write it like 0/3, the first of three")
    index, count = int(match["index"]), int(match["count"])
    if not 1 <= count <= _COUNT_MAX:
        raise ValueError(f"`{text}` is no shard; there may be 1 to {_COUNT_MAX} of them")
    if index >= count:
        last = f"{count - 1}/{count}"
        raise ValueError(f"`{text}` is no shard; they count from 0, the last one is {last}")
    return Shard(index, count)


def _lot(index: int, account: str) -> bytes:
    """What a share draws for an account; the same in every process and every version."""
    return hashlib.sha256(f"{index} {account}".encode()).digest()
