"""Names of the two packages that nothing in them reaches: tests alone keep no code alive."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from house_source import Nodes, files_of, nodes_of

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
    paths = files_of(root, "segmed", "pipelines")
    used = Counter(name for path in paths for name in _uses(nodes_of(path)))
    return [
        f"{path.relative_to(root)}:{line}: nothing reaches {name}: remove it or publish it"
        for path in paths
        for name, line in _definitions(nodes_of(path))
        if not (used[name] or name.startswith("__"))
        and name not in CALLED_FROM_OUTSIDE
        and not name.startswith(BY_PREFIX)
    ]


def _definitions(nodes: Nodes) -> Iterator[tuple[str, int]]:
    """Names that a module defines, without those that a decorator registers somewhere."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            marks = (ast.unparse(mark).split("(")[0] for mark in node.decorator_list)
            if PLAIN.issuperset(marks):
                yield node.name, node.lineno
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.lineno


def _uses(nodes: Nodes) -> Iterator[str]:
    """Names that a module reads, or lists as a string, such as in `__all__`."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from node.value.split() if len(node.value) < 200 else ()
