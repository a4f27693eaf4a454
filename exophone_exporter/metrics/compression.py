"""Raw deflate in pieces that can follow each other, for one gzip member of a large and a live part.

zlib lets other threads run while it compresses. Level 1 takes a quarter of the time of level 9.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def deflated(pieces: Iterable[bytes], flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Deflate up to a byte boundary, after which more may follow; or, with Z_FINISH, to the end."""
    compressor = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    return b"".join([*map(compressor.compress, pieces), compressor.flush(flush)])
