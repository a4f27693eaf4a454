"""What every YAML configuration is made of: the base of its sections, and readers of values.

Every scalar arrives as the text that was written. A reader raises `refuse(...)`, whose message
says what is wrong with the value and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from exophone_exporter.config.strict_yaml import shown


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


def plain_text(value: Any) -> str:
    """The text of one value, which may be empty; a list and a mapping are refused."""
    if not isinstance(value, str):
        raise refuse("must be a single value, not a list or a mapping")
    return value


def text_of(value: Any, if_empty: str = "set a value or leave it out") -> str:
    """The text of one value; an empty one, a list and a mapping are refused."""
    text = plain_text(value)
    if not text:
        raise refuse(f"is empty; {if_empty}")
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """A check that a text is one of these words."""

    def check(text: str) -> str:
        if text not in words:
            raise refuse(f"{quoted(text)} is not one of {', '.join(words)}")
        return text

    return check


def known(kind: str, names: Iterable[str]) -> AfterValidator:
    """One of some names, with advice for any other; `kind` says what they name."""
    choices = list(names)

    def check(text: str) -> str:
        if text not in choices:
            near = difflib.get_close_matches(text, choices, 1)
            advice = f"did you mean `{near[0]}`?" if near else f"use one of {', '.join(choices)}"
            raise refuse(f"{quoted(text)} is not a supported {kind}; {advice}")
        return text

    return AfterValidator(check)


def checked(is_right: Callable[[Any], object], message: str) -> AfterValidator:
    """A value that passes a check; `{}` in the message is the value."""

    def check(value: Any) -> Any:
        if not is_right(value):
            raise refuse(message.format(shown(str(value))))
        return value

    return AfterValidator(check)
