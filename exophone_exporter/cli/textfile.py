"""The file of `once --output`, for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

from exophone_exporter.cli import streams
from exophone_exporter.cli.signals import unfinished_files
from exophone_exporter.errors import StartError

_REASONS: Final = {errno.ENXIO: "it is a FIFO that no program reads, or a socket"}


def write(name: str, content: bytes) -> None:
    """Write to the file of this name; `-` is stdout. Raises StartError, or as `write_bytes`.

    A regular file is replaced as a whole, so that a collector sees the previous content or the new
    one; it keeps its mode, owner, group and extended attributes. A symbolic link is followed. A
    device or a FIFO is written as it is.
    """
    path = Path(name)
    existing: os.stat_result | None = None
    try:
        with contextlib.suppress(FileNotFoundError):
            existing = path.stat()
        if name == "-" or (existing and os.path.samestat(existing, os.fstat(sys.stdout.fileno()))):
            streams.write_bytes(content)
        elif existing and not stat.S_ISREG(existing.st_mode):
            _write_special(path, content)
        else:
            _replace(Path(os.path.realpath(path)), existing, content)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise StartError(f"cannot write {name}: {reason}") from error


def _write_special(path: Path, content: bytes) -> None:
    # Without O_NONBLOCK it would wait for a reader of a FIFO, which may never come.
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _replace(path: Path, existing: os.stat_result | None, content: bytes) -> None:
    temporary = path.with_name(f".exophone-exporter-{secrets.token_hex(8)}")
    unfinished_files.add(str(temporary))
    mode = 0o666 if existing is None else 0o600  # less the umask
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if existing:
            _keep_attributes(path, existing, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _keep_attributes(path: Path, existing: os.stat_result, temporary: Path) -> None:
    try:
        os.chown(temporary, existing.st_uid, existing.st_gid)
    except PermissionError as error:
        error.strerror = (
            "its owner and group would change; run as user"
            f" {existing.st_uid} and as a member of group {existing.st_gid}"
        )
        raise
    shutil.copystat(path, temporary)
    os.utime(temporary)  # the collector exposes the time of the last write
