"""Files of a tree, each parsed once for all rules."""

from __future__ import annotations

import ast
import io
import tokenize
from functools import cache
from pathlib import Path

Nodes = tuple[ast.AST, ...]


def files_of(root: Path, *folders: str) -> list[Path]:
    """The Python files below some folders of a tree."""
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]


def text_of(path: Path) -> str:
    """The text of a file."""
    stamp = path.stat()
    return _text(path, stamp.st_mtime_ns, stamp.st_size)


def nodes_of(path: Path) -> Nodes:
    """All nodes of the syntax tree of a file, the module first."""
    stamp = path.stat()
    return _nodes(path, stamp.st_mtime_ns, stamp.st_size)


def comments_of(path: Path) -> dict[int, str]:
    """The comments of a file by line."""
    tokens = tokenize.generate_tokens(io.StringIO(text_of(path)).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


@cache
def _text(path: Path, _changed: int, _size: int) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _nodes(path: Path, changed: int, size: int) -> Nodes:
    return tuple(ast.walk(ast.parse(_text(path, changed, size))))
