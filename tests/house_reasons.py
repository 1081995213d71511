"""Exceptions to the checks without a reason: ignored findings, and handlers of any exception."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from house_source import comments_of, files_of, nodes_of, text_of

IGNORE = re.compile(
    r"#\s*(?:noqa\b|nosec\b|type:\s*ignore\b|pragma:\s*no\s\w+|ruff:\s*noqa\b"
    r"|(?:mypy|pylint|pyright):\s*[\w=-]+)"
    r"(?:\[[^]]*\])?(?::?\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?"
)
"""An ignore with its codes; what follows them in the comment is the reason."""
BROAD = {"Exception", "BaseException"}
FOLDERS = ("segmed", "pipelines", "tests", "docs", "docker")


def ignores_without_reason(root: Path) -> list[str]:
    """One line for each ignored finding without a reason on its line or in the comment above."""
    return [
        f"{path.relative_to(root)}:{line}: ignored without a reason: {text}"
        for path in files_of(root, *FOLDERS)
        if IGNORE.search(text_of(path))
        for line, text in _unexplained(path)
    ]


def broad_handlers_without_reason(root: Path) -> list[str]:
    """One line for each `except Exception` without a comment on its line or above its first act."""
    found = []
    for path in files_of(root, *FOLDERS):
        handlers = [node for node in nodes_of(path) if isinstance(node, ast.ExceptHandler)]
        broad = [node for node in handlers if _is_broad(node.type)]
        comments = comments_of(path) if broad else {}
        for node in broad:
            lines = range(node.lineno, node.body[0].lineno + 1)
            if not any(_reason(comments[line]) for line in lines if line in comments):
                place = f"{path.relative_to(root)}:{node.lineno}"
                found.append(f"{place}: any exception is handled here without a reason")
    return found


def _unexplained(path: Path) -> list[tuple[int, str]]:
    comments = comments_of(path)
    lines = text_of(path).splitlines()
    found = []
    for number, comment in comments.items():
        if IGNORE.search(comment) is None or _reason(comment):
            continue
        above = comments.get(number - 1, "") if lines[number - 2].lstrip().startswith("#") else ""
        if not _reason(above):
            found.append((number, comment))
    return found


def _reason(comment: str) -> str:
    """Words of a comment that are no code of a check."""
    return IGNORE.sub("", comment).strip(" #-:")


def _is_broad(kind: ast.expr | None) -> bool:
    """Return whether a handler takes any exception, alone or in a tuple."""
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(isinstance(one, ast.Name) and one.id in BROAD for one in kinds)
