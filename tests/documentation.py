"""What the pages of the documentation show: their fenced blocks and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("README.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "bash", "console", "shell")
PROGRAMS = ("segmed", "mlflow", "make", "python")
"""A block without a language holds commands where its lines begin with one of these words."""


@dataclass(frozen=True)
class Shown:
    """A command, or a block of Python or YAML, as a page shows it.

    Attributes:
        page: Path of the page in the repository.
        line: Line of the page on which its block begins.
        language: `sh`, `python` or `yaml`.
        text: One command line, continued lines joined; or the whole block.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def lines_of(block: str) -> Iterator[str]:
    """The lines of a shell block, continued ones joined, without prompts, comments and output."""
    for line in block.replace("\\\n", " ").splitlines():
        yield re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ")


def shown_on(page: Path) -> Iterator[Shown]:
    """Everything in the fenced blocks of a page that can be run, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(REPOSITORY).as_posix()
    for match in FENCE.finditer(text):
        language, body = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        if language in SHELLS:
            found = [one for one in lines_of(body) if one]
        elif not language:
            found = [one for one in lines_of(body) if one.split(" ", 1)[0] in PROGRAMS]
        else:
            yield Shown(name, line, language, body)
            continue
        for one in found:
            yield Shown(name, line, "sh", one)
