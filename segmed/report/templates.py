"""Templates, styles and scripts of the pages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

ASSETS = Path(__file__).parent / "assets"


@cache
def page_templates() -> jinja2.Environment:
    """The templates, compiled once a process.

    Text is escaped, and a value that a template lacks is an error.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def asset(name: str) -> str:
    """Content of a style or a script, to be put into a page."""
    return (ASSETS / name).read_text(encoding="utf-8")
