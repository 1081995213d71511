"""Resolvers of model references that are not paths, registered by the reader of the registry.

The library reads package folders and zips. A reference such as `models:/NAME@champion` belongs to a
registry: the package that reads it registers a resolver for its scheme (`pipelines.registry` does
for `models:` when it is imported).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Resolver = Callable[[str], Path]
"""Takes a whole reference, returns the folder of the package."""

RESOLVERS: dict[str, Resolver] = {}


def register_resolver(scheme: str, resolve: Resolver) -> None:
    """Let references that begin with `scheme:` be resolved.

    Args:
        scheme: Such as `models`.
        resolve: Takes a whole reference, returns the folder of the package.
    """
    RESOLVERS[scheme] = resolve
