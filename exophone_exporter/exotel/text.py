"""Keys and texts of the vendor, in the forms that they may take. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

TEXT_MAX: Final = 256
# C0, DEL and C1: a terminal takes U+009B for the start of a command.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOTHING: Final = frozenset({"null", "undefined", "none", "nil", "false"})


def clean_text(text: str, limit: int = TEXT_MAX) -> str:
    """`text` as a label value may be: no surrogates or control characters, at most `limit` long."""
    if _UNFIT.search(text):
        text = _UNFIT.sub(lambda match: " " if match.group() < "\ud800" else "\ufffd", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_word_for_nothing(text: str) -> bool:
    """Whether a text is a word that programs write where they have no value."""
    return text.strip().lower() in _NOTHING


def folded(value: dict[str, Any]) -> dict[str, Any]:
    """An object by its keys without case and separators: `next_page_uri` is `nextpageuri`."""
    return {key.lower().replace("_", "").replace("-", ""): own for key, own in value.items()}
