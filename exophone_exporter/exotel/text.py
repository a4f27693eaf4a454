"""Keys and texts of the vendor, in the forms that they may take. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

TEXT_MAX: Final = 256
# C0, DEL and C1, since a terminal takes U+009B for the start of a command, and line separators.
_CONTROLS: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029"
# With them a name looks like another: they have no width, or text after them runs backwards.
_INVISIBLE: Final = "\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_UNFIT: Final = re.compile(f"([{_CONTROLS}])|([{_INVISIBLE}])|[\ud800-\udfff]")
_WHOLE: Final = re.compile(r"\s*[0-9]{1,9}\s*")
_NOTHING: Final = frozenset({"null", "undefined", "none", "nil", "false"})


def clean_text(text: str, limit: int = TEXT_MAX) -> str:
    """`text` as a label: no surrogates, controls or invisible characters, at most `limit` long."""
    if _UNFIT.search(text):
        text = _UNFIT.sub(_replacement, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _replacement(match: re.Match[str]) -> str:
    control, invisible = match.groups()
    return " " if control else "" if invisible else "\ufffd"


def is_word_for_nothing(text: str) -> bool:
    """Whether a text is a word that programs write where they have no value."""
    return text.strip().lower() in _NOTHING


def whole_number(text: str) -> int | None:
    """A text of at most nine ASCII digits as a number, None for any other."""
    return int(text) if _WHOLE.fullmatch(text) else None


def folded(value: dict[str, Any]) -> dict[str, Any]:
    """An object by its keys without case and separators: `next_page_uri` is `nextpageuri`."""
    return {key.lower().replace("_", "").replace("-", ""): own for key, own in value.items()}
