"""Fenced blocks of the documentation pages, the commands in them, and how tests run these.

A page says in comments beside a block how tests/integration/test_docs_run.py runs its commands:

    <!-- skip: REASON -->           not run
    <!-- skip-page: REASON -->      from here on the page, nothing is run
    <!-- first: COMMAND -->         run before it, what the page takes for granted
    <!-- with: OLD = NEW -->        from here on the page, NEW is run in the place of OLD
    <!-- serves: SIGN -->           runs until the end of the page; works once it prints SIGN
    <!-- until: SIGN -->            likewise, and is stopped as soon as it works
    <!-- may-fail: REASON -->       may end with status 1
    <!-- leaves: PATH -->           PATH exists afterwards

A comment is about all commands of the next block, or with a text in backticks, as in
<!-- skip `segmed demo`: REASON -->, about those that contain the text. `{NAME}` stands for a value
of the running test, such as a free port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("README.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
NOTE_OR_FENCE = re.compile(
    r"<!-- (?P<kind>[a-z-]+)(?: `(?P<about>[^`]+)`)?: (?P<value>.*?) -->|" + FENCE.pattern,
    flags=FENCE.flags,
)
KINDS = {"skip", "skip-page", "first", "with", "serves", "until", "may-fail", "leaves"}
GENERATED = re.compile(r"<!-- (tree|model table|end of [a-z ]+)\b")
"""Marks around parts of pages that programs write."""
SHELLS = ("sh", "bash", "console", "shell")
PROGRAMS = ("segmed", "mlflow", "make", "python")
"""A block without a language holds commands where its lines begin with one of these words."""


@dataclass(frozen=True)
class Note:
    """A comment about commands of the next block."""

    kind: str
    about: str
    value: str


@dataclass(frozen=True)
class Shown:
    """A command, or a block of Python or YAML, as a page shows it.

    Attributes:
        page: Path of the page in the repository.
        line: Line of the page on which its block begins.
        language: `sh`, `python` or `yaml`.
        text: One command line, continued lines joined; or the whole block.
        notes: Comments about it.
        replaced: Old and new texts of `with`, in the order of the page.
    """

    page: str
    line: int
    language: str
    text: str
    notes: tuple[Note, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    def values(self, kind: str) -> list[str]:
        """Values of the notes of a kind."""
        return [note.value for note in self.notes if note.kind == kind]

    def as_run(self) -> str:
        """The text with what `with` puts in the place of parts of it."""
        text = self.text
        for old, new in self.replaced:
            text = text.replace(old, new)
        return text


def lines_of(block: str) -> Iterator[str]:
    """The lines of a shell block, continued ones joined, without prompts, comments and output."""
    for line in block.replace("\\\n", " ").splitlines():
        yield re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ")


def texts_of(language: str, body: str) -> tuple[str, list[str]]:
    """Language of a block and what of it can be run: its command lines, or the whole."""
    if language in SHELLS:
        return "sh", [one for one in lines_of(body) if one]
    if not language:
        return "sh", [one for one in lines_of(body) if one.split(" ", 1)[0] in PROGRAMS]
    return language, [body]


def shown_on(page: Path) -> list[Shown]:
    """Everything in the fenced blocks of a page that can be run, in the order of the page."""
    return read_page(page.relative_to(REPOSITORY).as_posix(), page.read_text(encoding="utf-8"))[0]


def read_page(name: str, text: str) -> tuple[list[Shown], list[str]]:
    """Commands that a page shows, and the faults of its notes.

    Returns:
        Commands and blocks in the order of the page; a line for each note that is about nothing.
    """
    shown: list[Shown] = []
    faults = [
        f"{name}: unknown note {comment.splitlines()[0]}"
        for comment in re.findall(r"<!--.*?-->", text, flags=re.DOTALL)
        if not GENERATED.match(comment)
        and ((found := NOTE_OR_FENCE.match(comment)) is None or found["kind"] not in KINDS)
    ]
    notes: list[Note] = []
    rest: list[Note] = []
    replaced: dict[str, str] = {}
    for match in NOTE_OR_FENCE.finditer(text):
        kind, about, value, language, body = match.groups()
        if kind == "with":
            old, _, new = value.partition(" = ")
            replaced[old] = new
        elif kind == "skip-page":
            rest = [Note("skip", "", value)]
        elif kind in KINDS:
            notes.append(Note(kind, about or "", " ".join(value.split())))
        elif kind is None:
            language, found = texts_of(language, body)
            line = text.count("\n", 0, match.start()) + 1
            for one in found:
                fitting = tuple(note for note in [*rest, *notes] if note.about in one)
                shown.append(Shown(name, line, language, one, fitting, tuple(replaced.items())))
            faults += [
                f"{name}:{line}: {note} is about no line of its block"
                for note in notes
                if not any(note.about in one for one in found)
            ]
            notes = []
    faults += [
        f"{name}: {old!r} is on no line after its note"
        for old in replaced
        if not any(old in one.text and (old, replaced[old]) in one.replaced for one in shown)
    ]
    notes += [note for note in rest if not shown or note not in shown[-1].notes]
    return shown, faults + [f"{name}: {note} is before no block" for note in notes]
