"""Plain technical English: titles that are no clauses, and words that have a technical one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from house_source import Nodes, files_of, nodes_of

CLAUSE = re.compile(r"(?:What|Whether|Where|That|How|Which|Who|Why)\b")
"""First word of a docstring that is a clause, not a verb phrase or a noun phrase of the field."""
DIALECT = {
    r"says?|said|tells?|told": "state, report or print",
    r"wants?|wanted": "request or require",
    r"stands?(?!-in)|stood": "be, represent",
    r"knows?|knew": "have, detect, support",
    r"meets": "find, reach",
    r"nobody": "no user, unknown",
    r"anew": "again",
    r"go(?:es|ing)? on": "continue",
    r"for ever": "forever",
    r"mend(?:s|ed|ing)?": "repair",
    r"sound": "valid",
    r"whoever": "any, all",
}
"""Words that give files and programs a mind, or that the field has another word for."""
WORDS = re.compile(rf"\b(?:{'|'.join(DIALECT)})\b", flags=re.IGNORECASE)
Text = tuple[int, str]
"""Line and words."""


def clauses_for_titles(root: Path) -> list[str]:
    """One line for each docstring that opens with a clause, such as "What it returns"."""
    return [
        f"{path.relative_to(root)}: {title!r} opens with a clause: begin with a verb or a noun"
        for path in files_of(root, "segmed", "pipelines", "tests", "docs")
        for _, title in _titles(nodes_of(path))
        if CLAUSE.match(title)
    ]


def dialect(root: Path) -> list[str]:
    """One line for each title, help text or error message with a word of `DIALECT`."""
    found = []
    for path in files_of(root, "segmed", "pipelines"):
        nodes = nodes_of(path)
        for line, text in (*_titles(nodes), *_shown(nodes)):
            match = WORDS.search(re.sub(r"`[^`]*`", "", text))
            if match:
                found.append(
                    f"{path.relative_to(root)}:{line}: {match.group()!r} in {text[:90]!r}: "
                    f"{_advice(match.group())}"
                )
    return found


def _advice(word: str) -> str:
    return next(words for kind, words in DIALECT.items() if re.fullmatch(kind, word, re.IGNORECASE))


def _titles(nodes: Nodes) -> Iterator[Text]:
    """First lines of the docstrings."""
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            title = (ast.get_docstring(node) or "").split("\n", 1)[0]
            yield getattr(node, "lineno", 1), title


def _shown(nodes: Nodes) -> Iterator[Text]:
    """Help texts of options, and messages of errors."""
    for node in nodes:
        if isinstance(node, ast.keyword) and node.arg == "help":
            yield node.value.lineno, _words(node.value)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args[:1]:
                yield argument.lineno, _words(argument)


def _words(node: ast.expr) -> str:
    """Constant text of an expression; what is filled in stays out."""
    return " ".join(
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )
