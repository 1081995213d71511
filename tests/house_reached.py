"""Names of the two packages that nothing in them reaches: tests alone keep no code alive."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

CALLED_FROM_OUTSIDE = {
    "_block_type_name": "Prefect reads it from a block",
    "_block_type_slug": "Prefect reads it from a block",
    "_compute_tensor": "MONAI calls it of a cumulative metric",
    "_fields_": "ctypes reads it from a structure",
    "_repr_png_": "notebooks call it",
    "_transform": "MONAI calls it of a dataset",
    "aggregate": "MONAI calls it of a cumulative metric",
    "collect": "the Prometheus client calls it of a collector",
    "deployment_file": "docs/make_reference.py writes the file",
    "get_data": "MONAI calls it of an image reader",
    "load_context": "MLflow calls it of a Python model",
    "model_config": "pydantic reads it from a model",
    "prune": "users of U-Net++ call it, see docs/networks.md",
    "verify_suffix": "MONAI calls it of an image reader",
}
"""Names that other programs reach, and by what."""
BY_PREFIX = "_send_"
"""Methods that `pipelines/tracking/delivery.py` finds by the kind of a record."""

PLAIN = {
    "cache", "cached_property", "classmethod", "contextmanager", "dataclass", "lru_cache",
    "property", "staticmethod",
}  # fmt: skip
"""Decorators that register nothing."""


def unreached_names(root: Path) -> list[str]:
    """One line for each function, class and constant that neither package uses nor publishes."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for package in ("segmed", "pipelines")
        for path in sorted((root / package).rglob("*.py"))
    }
    used = Counter(name for tree in trees.values() for name in _uses(tree))
    return [
        f"{path.relative_to(root)}:{line}: nothing reaches {name}: remove it or publish it"
        for path, tree in trees.items()
        for name, line in _definitions(tree)
        if not (used[name] or name.startswith("__"))
        and name not in CALLED_FROM_OUTSIDE
        and not name.startswith(BY_PREFIX)
    ]


def _definitions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names that a module defines, without those that a decorator registers somewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            marks = (ast.unparse(mark).split("(")[0] for mark in node.decorator_list)
            if PLAIN.issuperset(marks):
                yield node.name, node.lineno
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.lineno


def _uses(tree: ast.Module) -> Iterator[str]:
    """Names that a module reads, or lists as a string, such as in `__all__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from node.value.split() if len(node.value) < 200 else ()
