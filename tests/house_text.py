"""Calls that read or write text in an encoding that the locale chooses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from house_source import Nodes, files_of, nodes_of

STARTS = {"run", "Popen", "check_output", "check_call"}
"""Functions of `subprocess` that decode what a program prints if `text` is given."""


def texts_of_the_locale(root: Path) -> list[str]:
    """One line for each call; libraries set the C locale in long processes, so text names UTF-8."""
    return [
        f"{path.relative_to(root)}:{call.lineno}: text without encoding: say encoding='utf-8'"
        for path in files_of(root, "segmed", "pipelines", "tests", "docs")
        for call in _calls(nodes_of(path))
    ]


def _calls(nodes: Nodes) -> Iterator[ast.Call]:
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg for keyword in node.keywords}
        if given.isdisjoint({"encoding", None}) and _is_text(node, given):
            yield node


def _is_text(call: ast.Call, given: set[str | None]) -> bool:
    """Return whether a call without `encoding` reads or writes text."""
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and "b" not in _mode(call, 1)
    if not isinstance(call.func, ast.Attribute):
        return False
    match call.func.attr:
        case "read_text":
            return not call.args
        case "write_text":
            return len(call.args) < 2  # the second is the encoding
        case "open":  # of a path; other things are opened by a name, or by modes of their own
            return set(_mode(call, 0)) <= set("rwaxt+")
        case name:
            return name in STARTS and not given.isdisjoint({"text", "universal_newlines"})


def _mode(call: ast.Call, place: int) -> str:
    """Mode of a call of `open`, `r` if it gives none, `b` if it is no constant."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    given += call.args[place : place + 1]
    if not given:
        return "r"
    mode = given[0]
    return str(mode.value) if isinstance(mode, ast.Constant) else "b"
