"""Templates, styles and scripts of the pages."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

ASSETS = Path(__file__).parent / "assets"


@cache
def page_templates() -> jinja2.Environment:
    """The templates, compiled once a process.

    Text is escaped, and a value that a template lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A name that a browser may wrap after `_`, `/`, `.` and `:`, beside spaces and hyphens."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/.:])(?=[^_/.:])", name))


def asset(name: str) -> str:
    """Content of a style or a script, to be put into a page."""
    return (ASSETS / name).read_text(encoding="utf-8")
