"""What every YAML configuration is made of: the base of its sections, and readers of values.

Every scalar arrives as the text that was written. A reader raises `refuse(...)`, whose message
says what is wrong with the value and what would be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from exophone_exporter.config.strict_yaml import shown

if TYPE_CHECKING:
    from collections.abc import Callable


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def refuse(message: str) -> PydanticCustomError:
    """The error that a reader of a value raises."""
    # The text goes in as a value: a brace that a user wrote is not a template.
    return PydanticCustomError("configuration", "{text}", {"text": message})


def quoted(text: str) -> str:
    """A value as a message shows it."""
    return f"`{shown(text)}`"


def text_of(value: Any, if_empty: str = "set a value or leave it out") -> str:
    """The text of one value; an empty one, a list and a mapping are refused."""
    if not isinstance(value, str):
        raise refuse("must be a single value, not a list or a mapping")
    if not value:
        raise refuse(f"is empty; {if_empty}")
    return value


def one_of(*words: str) -> Callable[[Any], str]:
    """A reader of exactly one of these words."""

    def read(value: Any) -> str:
        text = text_of(value)
        if text not in words:
            raise refuse(f"{quoted(text)} is not one of {', '.join(words)}")
        return text

    return read
