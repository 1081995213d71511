"""Modules that an import loads: module-level imports only, followed through our own files.

A look at `sys.modules` would lie: one import elsewhere in the suite is enough to fill it. Names
that a package exports late (`segmed.lazy`) count where a module asks for them at its top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

OURS = ("segmed", "pipelines")


def imported_by(*modules: str) -> dict[str, tuple[str, ...]]:
    """Every module that importing these imports, with a shortest way there.

    Args:
        modules: Names of our own modules.

    Returns:
        By module (for foreign ones the first part of the name): the modules that lead there.
    """
    ways: dict[str, tuple[str, ...]] = {}
    waiting = [(name, ()) for module in modules for name in _with_parents(module)]
    while waiting:
        name, way = waiting.pop(0)
        if name in ways:
            continue
        ways[name] = (*way, name)
        if name.partition(".")[0] in OURS:
            waiting += [(child, ways[name]) for child in _imports_of(name)]
    return ways


def imports_in(node: ast.AST, module: str) -> Iterator[str]:
    """The modules that the import statements at the top of a piece of code import."""
    for statement in _executed(node):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from _with_parents(alias.name)
        elif isinstance(statement, ast.ImportFrom):
            yield from _from(statement)


def file_of(module: str) -> Path | None:
    """The file of one of our modules; None for a name that is no module."""
    place = REPOSITORY.joinpath(*module.split("."))
    if (place / "__init__.py").exists():
        return place / "__init__.py"
    return place.with_suffix(".py") if place.with_suffix(".py").exists() else None


@cache
def _imports_of(module: str) -> tuple[str, ...]:
    path = file_of(module)
    assert path is not None, module
    return tuple(imports_in(ast.parse(path.read_text(encoding="utf-8")), module))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Statements that run where the code runs: not inside of functions, nor for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _executed(other)
            continue
        yield child
        yield from _executed(child)


def _from(statement: ast.ImportFrom) -> Iterator[str]:
    assert statement.level == 0, "relative imports are not used here"
    origin = str(statement.module)
    yield from _with_parents(origin)
    if origin.partition(".")[0] not in OURS:
        return
    for alias in statement.names:
        if file_of(f"{origin}.{alias.name}"):
            yield f"{origin}.{alias.name}"
        elif late := _lazy_exports(origin).get(alias.name):
            yield from _with_parents(late)


@cache
def _lazy_exports(module: str) -> dict[str, str]:
    path = file_of(module)
    assert path is not None, module
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_exports":
            table: dict[str, str] = ast.literal_eval(node.args[1])
            return {name: place for place, names in table.items() for name in names.split()}
    return {}


def _with_parents(module: str) -> Iterator[str]:
    """The module and the packages around it; a foreign module by its first part alone."""
    parts = module.split(".")
    if parts[0] not in OURS:
        yield parts[0]
        return
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])
