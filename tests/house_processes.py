"""Forks of a process that may have threads: the child has their locks, and may wait for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from house_source import Nodes, files_of, nodes_of

FORKS = {"fork", "forkpty"}
"""Functions of `os` and `pty`, and the start method of `multiprocessing`."""
FORKING_BY_DEFAULT = {"Process", "Pool"}
"""Classes of `multiprocessing` that fork on Linux unless a context is named."""
ALLOWED = {
    "segmed/io/isolated_child.py": "the server that forks has one thread",
    "tests/pipelines/terminal/test_interrupt_on_terminal.py": "the child runs a program at once",
}


def forks_beside_threads(root: Path) -> list[str]:
    """One line for each place that forks this process; `tests/fresh_processes.py` is the way."""
    return [
        f"{path.relative_to(root)}:{call.lineno}: forks a process that may have threads: start a "
        "fresh one by spawn, forkserver or subprocess"
        for path in files_of(root, "segmed", "pipelines", "tests", "docs")
        if path.relative_to(root).as_posix() not in ALLOWED
        for call in _forks(nodes_of(path))
    ]


def _forks(nodes: Nodes) -> Iterator[ast.Call]:
    return (node for node in nodes if isinstance(node, ast.Call) and _is_fork(node))


def _is_fork(call: ast.Call) -> bool:
    """Return whether a call forks, now or when the processes of its context are started."""
    name, owner = _names(call.func)
    keywords = {keyword.arg for keyword in call.keywords}
    if "preexec_fn" in keywords:
        return True
    if name == "ProcessPoolExecutor":
        return "mp_context" not in keywords
    if name in {"get_context", "set_start_method"}:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        return not given or (
            isinstance(given[0], ast.Constant) and given[0].value in {"fork", None}
        )
    if owner == "multiprocessing":
        return name in FORKING_BY_DEFAULT
    return name in FORKS and owner in {"os", "pty"}


def _names(function: ast.expr) -> tuple[str, str]:
    """Name of a called function, and the name before its dot."""
    if isinstance(function, ast.Attribute):
        owner = function.value
        return function.attr, owner.id if isinstance(owner, ast.Name) else ""
    return (function.id if isinstance(function, ast.Name) else ""), ""
