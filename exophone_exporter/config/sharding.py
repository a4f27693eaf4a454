"""Sharding: each account is watched by exactly one of several processes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

_FORM: Final = re.compile(r"(?P<index>[0-9]{1,4})/(?P<count>[0-9]{1,4})")
_COUNT_MAX: Final = 1000


@dataclass(frozen=True)
class Shard:
    """Shard `index`, counted from 0, of `count`; the only shard of 1 holds every account."""

    index: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there are no other shards."""
        return self.count == 1

    def holds(self, account: str) -> bool:
        """Whether the account of this name belongs to the shard.

        Rendezvous hashing: the shard with the greatest weight for a name gets it. An additional
        shard therefore takes an equal part from each of the others and moves no other account. The
        weights are the same in every process and version.
        """
        weights = [sha256(f"{index} {account}".encode()).digest() for index in range(self.count)]
        return max(weights) == weights[self.index]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE: Final = Shard()


def parse(text: str) -> Shard:
    """The shard that a text such as `0/3` names; raises ValueError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid shard `{text}`: use a value such as 0/3 for the first of three")
    index, count = int(match["index"]), int(match["count"])
    if not 1 <= count <= _COUNT_MAX:
        raise ValueError(f"invalid shard `{text}`: there can be 1 to {_COUNT_MAX} shards")
    if index >= count:
        raise ValueError(f"invalid shard `{text}`: use 0/{count} to {count - 1}/{count}")
    return Shard(index, count)
