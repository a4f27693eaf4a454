"""Every input that once broke something: tests/data/corpus/KIND/NAME, bytes as they came.

One that is large stands compressed, as NAME.gz.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.lib.paths import DATA

_CORPUS = DATA / "corpus"


def corpus(kind: str) -> list[Any]:
    """The inputs of one kind as parameters of a test, each by the name of its file."""
    files = sorted((_CORPUS / kind).iterdir())
    assert files, f"no inputs of the kind {kind}"
    return [pytest.param(_content(file), id=file.name) for file in files]


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == ".gz" else content
