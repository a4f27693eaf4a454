"""Templates to HTML, by Jinja."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from exophone_exporter import __version__

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("exophone_exporter.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, **values: Any) -> str:
    """A page as HTML; every value is escaped, and a missing one is an error."""
    return _ENVIRONMENT.get_template(template).render(version=__version__, **values)
