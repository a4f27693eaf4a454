"""What is wrong with a YAML file, collected and reported by line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from exophone_exporter.config import strict_yaml
from exophone_exporter.errors import ConfigError

Advice = Mapping[tuple[str, str], str]

_Model = TypeVar("_Model", bound=BaseModel)

_MAPPING_EXPECTED = "must be a mapping of keys to values"
_LIST_EXPECTED = "must be a list: lines that start with `- `"
_MESSAGES: Final = {
    "missing": "is missing",
    "model_type": _MAPPING_EXPECTED,
    "model_attributes_type": _MAPPING_EXPECTED,
    "dict_type": _MAPPING_EXPECTED,
    "list_type": _LIST_EXPECTED,
    "tuple_type": _LIST_EXPECTED,
}


def dotted(path: strict_yaml.Path) -> str:
    """A path as people write it, such as accounts[0].sid; "file" for the whole."""
    text = ""
    for part in path:
        key = f"[{part}]" if isinstance(part, int) else strict_yaml.shown_key(part) or '""'
        text += key if isinstance(part, int) or not text else f".{key}"
    return text or "file"


def listed(names: Iterable[str]) -> str:
    """Keys in a sentence, such as `a`, `b` and `c`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


@dataclass
class ProblemList:
    """The problems of one source: `found` has their paths and lines of text.

    `name` gives the displayed name of a path.
    """

    source: str
    lines: Mapping[strict_yaml.Path, int]
    name: Callable[[strict_yaml.Path], str] = dotted
    found: list[tuple[strict_yaml.Path, str]] = field(default_factory=list)
    _places: set[str] = field(default_factory=set)

    def __contains__(self, path: strict_yaml.Path) -> bool:
        """Whether a problem was noted at exactly this place."""
        return self.where(path) in self._places

    def note(self, path: strict_yaml.Path, message: str) -> None:
        """Note what is wrong at a place and what would be right."""
        self.found.append((path, f"{self.where(path)}: {message}"))
        self._places.add(self.where(path))

    def where(self, path: strict_yaml.Path) -> str:
        """A place as a line begins with it: file, line and path."""
        if path not in self.lines and path[:-1] in self.lines and isinstance(path[-1], int):
            path = path[:-1]  # the file has no such index: one value was read as a list
        line = self._line(path)
        source = f"{self.source}:{line}" if line else self.source
        return f"{source}: {self.name(path)}"

    def error(self) -> ConfigError:
        """All of them as one error, in the order of their lines."""
        found = sorted(self.found, key=lambda problem: self._line(problem[0]))
        return ConfigError(text for _, text in found)

    def _line(self, path: strict_yaml.Path) -> int:
        """The line of the path, or of the nearest thing around it; 0 where nothing has lines."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def validate(
    model: type[_Model],
    value: strict_yaml.Value,
    problems: ProblemList,
    advice: Advice | None = None,
) -> _Model | None:
    """The document as the model of the whole file; None where problems were noted.

    `advice` replaces the message for one type of pydantic's errors at one key, such as
    ("missing", "sid"). No error of pydantic leaves this function: it would hold secrets.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    for detail in details:
        path = detail["loc"]
        if path[-1:] == ("[key]",) and detail["type"] != "extra_forbidden":
            path = path[:-1]  # pydantic marks the key of a free mapping so
        if path not in problems:
            problems.note(path, _message(detail, model, advice or {}))
    return None


def _message(detail: ErrorDetails, model: type[BaseModel], advice: Advice) -> str:
    kind, path = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return _unknown_key(path, model)
    key = str(path[-1]) if path else ""
    return advice.get((kind, key)) or _MESSAGES.get(kind) or detail["msg"]


def _unknown_key(path: strict_yaml.Path, model: type[BaseModel]) -> str:
    """What to write in place of an unknown key: the nearest one, or the section it belongs to."""
    sections = dict(_sections(model))
    here = next((s for part in reversed(path[:-1]) if (s := sections.get(str(part)))), model)
    known = _keys(here)
    key = strict_yaml.shown_key(str(path[-1]))
    elsewhere = [name for name, section in sections.items() if key in _keys(section)]
    if key in _keys(model) and key not in known:
        return "unknown key here; it belongs at the top level"
    if elsewhere and key not in known:
        places = " or ".join(f"`{name}`" for name in elsewhere)
        return f"unknown key here; it belongs under {places}"
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean `{near[0]}`?" if near else f"valid keys are {listed(known)}"
    return f"unknown key; {advice}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a file, with the key that it is written under."""
    for name, info in model.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield info.alias or name, kind
                yield from _sections(kind)
