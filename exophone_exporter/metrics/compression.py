"""Raw deflate, by the fastest library that is there.

isal compresses these texts ten times as fast as zlib and to the same size; it has wheels for the
usual machines and is left out on others. Both let other threads run meanwhile.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_RAW: Final = -zlib.MAX_WBITS


def fastest(load: Callable[[str], Any] = import_module) -> Any:
    """The module whose `compressobj` is used: isal's, or the standard one where it is missing."""
    try:
        return load("isal.isal_zlib")
    except ImportError:
        return zlib


_LIBRARY: Final = fastest()


def deflated(data: bytes) -> bytes:
    """Deflate up to a byte boundary, without an end: what is deflated next may follow."""
    return _deflated(data, zlib.Z_FULL_FLUSH)


def deflated_to_end(data: bytes) -> bytes:
    """Deflate with its end, behind which nothing may follow."""
    return _deflated(data, zlib.Z_FINISH)


def _deflated(data: bytes, flush: int) -> bytes:
    compressor = _LIBRARY.compressobj(wbits=_RAW)
    return bytes(compressor.compress(data) + compressor.flush(flush))
