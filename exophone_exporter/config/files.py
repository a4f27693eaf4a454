"""Bounded reads of the files that a user names, and why one cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from exophone_exporter.errors import ConfigError

CONFIG_FILE_MAX_BYTES: Final = 1024 * 1024

# Reads a file of at most so many bytes; raises OSError, or ValueError for a larger one.
ReadFile = Callable[[str, int], bytes]


def read_file(path: str, limit_bytes: int) -> bytes:
    """The bytes of a file of at most `limit_bytes`; raises OSError, ValueError for a larger one."""
    with Path(path).open("rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"is larger than {limit_bytes // 1024} KiB")
    return content


def read_text(path: str, read_file: ReadFile) -> str:
    """The text of a configuration file; raises ConfigError in a line that names it."""
    try:
        content = read_file(path, CONFIG_FILE_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {reason_of(error)}"]) from error
    # What is not UTF-8 is refused with its line, as YAML; a decoding error would hold the bytes.
    return content.decode("utf-8", "surrogateescape")


def reason_of(error: OSError | ValueError) -> str:
    """Why a file cannot be used, in the system's words."""
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
