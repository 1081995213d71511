"""Lazy exports of a package, each imported at its first use (PEP 562).

So `from segmed.manifest import read_manifest` loads what reads manifests, and not PyTorch with all
else that the package can do.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that imports its exports at their first use.

    Args:
        package: Name of the package.
        names: By full name of a module: the names that come from it, with blanks between.

    Returns:
        What gives an attribute by its name, and keeps it.
    """
    places = {name: module for module, listed in names.items() for name in listed.split()}

    def attribute(name: str) -> Any:
        """The exported object."""
        module = places.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(module), name)
        setattr(sys.modules[package], name, found)
        return found

    return attribute
