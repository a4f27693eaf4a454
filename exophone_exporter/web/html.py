"""Templates to HTML, by Jinja."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from exophone_exporter import __version__


def page(template: str, **values: Any) -> str:
    """A page as HTML; every value is escaped, and a missing one is an error."""
    return _environment().get_template(template).render(version=__version__, **values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("exophone_exporter.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
