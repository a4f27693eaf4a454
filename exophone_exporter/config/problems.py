"""What is wrong with a YAML file, collected and told by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exophone_exporter.config import strict_yaml
from exophone_exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def read_document(text: str, source: str) -> strict_yaml.Document:
    """Read one YAML document; raises ConfigError in a line that names the source."""
    try:
        return strict_yaml.parse(text)
    except strict_yaml.YamlError as error:
        where = f"{source}:{error.line}" if error.line else source
        raise ConfigError([f"{where}: {error.message}"]) from error


def dotted(path: strict_yaml.Path) -> str:
    """A path as people write it, such as accounts[0].sid; "file" for the whole."""
    text = ""
    for part in path:
        key = f"[{part}]" if isinstance(part, int) else strict_yaml.shown_key(part) or '""'
        text += key if isinstance(part, int) or not text else f".{key}"
    return text or "file"


class Problems:
    """The problems of one source, each with its line; `name` says what people call a place."""

    def __init__(
        self,
        source: str,
        lines: Mapping[strict_yaml.Path, int],
        name: Callable[[strict_yaml.Path], str] = dotted,
    ) -> None:
        self._source = source
        self._lines = lines
        self._name = name
        self._found: list[tuple[int, str]] = []
        self._named: set[str] = set()

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, path: strict_yaml.Path) -> bool:
        """Whether a problem was noted at this very place."""
        return self._name(path) in self._named

    def note(self, path: strict_yaml.Path, message: str) -> None:
        """Note what is wrong at a place, and what would be right."""
        name, line = self._name(path), self._line(path)
        self._named.add(name)
        where = f"{self._source}:{line}" if line else self._source
        self._found.append((line, f"{where}: {name}: {message}"))

    def error(self) -> ConfigError:
        """All of them as one error, in the order of their lines."""
        return ConfigError(text for _, text in sorted(self._found, key=lambda found: found[0]))

    def _line(self, path: strict_yaml.Path) -> int:
        """The line of the path, or of the nearest thing around it; 0 where nothing has lines."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)
