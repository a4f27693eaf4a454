"""YAML as its writer meant it: every scalar is text, and every value knows its line.

A general YAML loader turns `sid: 01112345671` into an octal number, drops the plus of `+9122...`,
reads `no` as False, keeps the last of two equal keys, and lets a 300-byte merge bomb work for
seconds. Here scalars stay text, and aliases, anchors, tags and duplicate keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import yaml

from exophone_exporter.errors import ConfigError

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"
Path: TypeAlias = tuple[str | int, ...]

_PLAIN_TAGS: Final = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")}

_SHOWN_MAX = 80
_TAGS = "tags are not supported: remove the word that starts with `!`, or quote the value"
_INDENTATION: Final = "indented differently from the lines above; align the keys of a section"
# What to do, by a part of what PyYAML says.
_ADVICE: Final = {
    "tag handle": _TAGS,  # PyYAML quotes what may be a secret
    "found character '\\t'": "contains a tab; indent with spaces",
    "cannot start any token": "quote a value that starts with `@`, `%` or a backtick",
    "mapping values are not allowed here": (
        "second `: ` on one line; quote a value that contains one, or check the indentation"
    ),
    "could not find expected ':'": "a key must be followed by a colon and a space",
    "but found another document": "a second document starts here; remove the line `---`",
    "found unexpected end of stream": "a quote is never closed",
    "while scanning an alias": "quote a value that starts with `*`, or has one after a bracket",
    "while scanning an anchor": "quote a value that starts with `&`",
    "while scanning a block scalar": "quote a value that starts with `|` or `>`",
    "while parsing a flow": "close the bracket, or quote a value that starts with `[` or `{`",
    "expected the node content": "close the bracket, or quote a value that starts with one",
}


class _Unfit(Exception):  # noqa: N818 - it is not an error that leaves this module
    """What is wrong with the text: a line, counted from 1, and a message."""


@dataclass(frozen=True)
class Document:
    """`value` holds text, lists and mappings, None where nothing was written after a key.

    `lines` gives the line of the key, or list item, at each path.
    """

    value: Value
    lines: Mapping[Path, int]


def parse(text: str, source: str) -> Document:
    """Read one YAML document; raises ConfigError in a line that names the source."""
    lines: dict[Path, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return Document(None if node is None else _value(node, (), lines), lines)
    except _Unfit as error:
        line, message = error.args
    except yaml.MarkedYAMLError as error:
        line, message = _from_marked(error)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = "contains a character that YAML does not allow; save the file as UTF-8"
    except (ValueError, OverflowError):
        # PyYAML's scanner trusts the digits of "\UFFFFFFFF" and of %YAML 1.999...
        line = loader.line + 1
        message = "contains an escape sequence for a character that does not exist"
    except RecursionError:
        line, message = 0, "is nested too deeply"
    # Raised out here, where it has no cause: PyYAML's errors quote the lines around them.
    raise ConfigError([f"{source}:{line}: {message}" if line else f"{source}: {message}"])


def _from_marked(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    # PyYAML's reader always says what is wrong and where, though its types allow for less.
    problem, mark = cast("str", error.problem), cast("yaml.Mark", error.problem_mark)
    said = f"{error.context}: {problem}"
    message = next((advice for part, advice in _ADVICE.items() if part in said), problem)
    if problem.startswith("expected <block end>"):
        before = cast("str", mark.buffer)[: mark.pointer].rpartition("\n")[2]
        message = "quote the whole value" if before.strip(" -") else _INDENTATION
    return mark.line + 1, f"{message} (column {mark.column + 1})"


class _Loader(yaml.BaseLoader):
    """The composer without aliases and anchors.

    Merge bombs are made of aliases; an anchor would silently take the first word from a value.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
        if getattr(event, "anchor", None) is None:
            return super().compose_node(parent, index)
        problem = "anchors are not supported: quote a value that starts with `&`"
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases are not supported: quote a value that starts with `*`"
        raise yaml.composer.ComposerError(None, None, problem, event.start_mark)


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Value:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if node.tag not in _PLAIN_TAGS:
        raise _Unfit(line, _TAGS)
    if isinstance(node, yaml.ScalarNode):
        return None if node.value == "" and node.style is None else _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    return _mapping(node, path, lines)


def _scalar(node: yaml.ScalarNode) -> str:
    """The text of a scalar; half a surrogate pair cannot be encoded, so it is refused."""
    text = str(node.value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Unfit(
            node.start_mark.line + 1,
            "contains half a character (an escape from \\ud800 to \\udfff)",
        )
    return text


def shown(text: str) -> str:
    """Text of the file as a message shows it: its first word, printable and shortened.

    A line that is indented too far continues the value before it, and may hold a secret.
    """
    word, *more = text.split(maxsplit=1) or [""]
    if not more:  # a newline at the end must be seen
        word = re.sub(r"[^\S ]", lambda space: repr(space[0])[1:-1], text)
    word = "".join(character if character.isprintable() else "?" for character in word)
    return word if len(word) <= _SHOWN_MAX and not more else f"{word[:_SHOWN_MAX]}…"


def shown_key(key: str) -> str:
    """A key as a message shows it; of `api_key:abc`, which lacks a space, only what is the key."""
    name = re.split("[:=\\s]", key, maxsplit=1)[0]
    return shown(name) + ("…" if name != key else "")


def _mapping(node: yaml.Node, path: Path, lines: dict[Path, int]) -> dict[str, Value]:
    result: dict[str, Value] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _Unfit(line, "a key must be plain text")
        key = _scalar(key_node)
        if key in result:
            first = lines[(*path, key)]
            raise _Unfit(line, f"the key `{shown_key(key)}` is duplicated (first on line {first})")
        lines[(*path, key)] = line
        result[key] = _value(value_node, (*path, key), lines)
    return result
