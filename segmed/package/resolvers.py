"""Resolvers of model references that are not paths, registered by the reader of the registry.

The library reads package folders and zips. A reference such as `models:/NAME@champion` belongs to a
registry: the module that reads it registers a resolver for its scheme, and an installed package
announces this module:

```toml
[project.entry-points."segmed.resolvers"]
models = "pipelines.registry"
```

It is imported when a reference with its scheme is used, never before.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from segmed.errors import UsageError

Resolver = Callable[[str], Path]
"""Takes a whole reference, returns the folder of the package."""

RESOLVERS: dict[str, Resolver] = {}

GROUP = "segmed.resolvers"
"""Entry-point group under which installed packages announce resolvers, by scheme."""


def register_resolver(scheme: str, resolve: Resolver) -> None:
    """Let references that begin with `scheme:` be resolved.

    Args:
        scheme: Such as `models`.
        resolve: Takes a whole reference, returns the folder of the package.
    """
    RESOLVERS[scheme] = resolve


def resolver_of(scheme: str) -> Resolver | None:
    """Return the resolver of a scheme, of an announced module if none is registered yet.

    Args:
        scheme: Such as `models`.

    Raises:
        UsageError: The announced module cannot be imported, or registers no resolver.
    """
    for announced in () if scheme in RESOLVERS else entry_points(group=GROUP, name=scheme):
        try:
            announced.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"references of {scheme}: need {announced.value!r}, which cannot be imported: "
                f"{error}"
            ) from error
        if scheme not in RESOLVERS:
            raise UsageError(
                f"{announced.value!r} is announced for references of {scheme}:, and registers no "
                f"resolver: call register_resolver({scheme!r}, ...) there"
            )
    return RESOLVERS.get(scheme)
