"""What the tests of any input share: how many examples, and documents that are nearly right."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st

ANY_TEXT = st.text(st.characters(), max_size=20)  # surrogates and control characters too
_EDITS = ("cut", "flip", "delete", "repeat", "insert", "swap")


def share(percent: int) -> settings:
    profile = settings()
    return settings(max_examples=max(1, profile.max_examples * percent // 100))


@st.composite
def edited(
    draw: st.DrawFn,
    documents: st.SearchStrategy[bytes],
    insertions: Sequence[bytes],
    most: int = 4,
) -> bytes:
    """A document after a few edits: cut off, bits flipped, pieces lost, repeated, put in, swapped.

    With no edits at all now and then, so that the document itself is tried too.
    """
    content = draw(documents)
    for _ in range(draw(st.integers(0, most))):
        content = draw(_once_edited(content, insertions))
    return content


@st.composite
def _once_edited(draw: st.DrawFn, content: bytes, insertions: Sequence[bytes]) -> bytes:
    edit = draw(st.sampled_from(_EDITS))
    start = draw(st.integers(0, len(content)))
    end = min(len(content), start + draw(st.integers(0, 12)))
    before, piece, after = content[:start], content[start:end], content[end:]
    if edit == "cut":
        return before
    if edit == "flip":
        mask = 1 << draw(st.integers(0, 7))
        return before + bytes(byte ^ mask for byte in piece[:1]) + piece[1:] + after
    if edit == "repeat":
        return before + piece * 2 + after
    if edit == "insert":
        return before + draw(st.sampled_from(insertions)) + piece + after
    if edit == "swap":
        return before + after[:1] + piece + after[1:]
    return before + after


def edited_lines(draw: st.DrawFn, lines: list[bytes]) -> list[bytes]:
    """Lines of which one is lost, repeated, moved, indented otherwise or joined to the next."""
    if not lines:
        return lines
    index = draw(st.integers(0, len(lines) - 1))
    other = draw(st.integers(0, len(lines) - 1))
    before, line, after = lines[:index], lines[index], lines[index + 1 :]
    rest = [*before, *after]
    return {
        "lose": rest,
        "repeat": [*before, line, line, *after],
        "move": [*rest[:other], line, *rest[other:]],
        "indent": [*before, b" " * draw(st.integers(0, 9)) + line.lstrip(), *after],
        "join": [*before, line + b" " + (after[0] if after else b""), *after[1:]],
    }[draw(st.sampled_from(["lose", "repeat", "move", "indent", "join"]))]
