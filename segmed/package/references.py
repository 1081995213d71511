"""Packages from paths and from references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmed.errors import PackageError, UsageError
from segmed.package.model_package import ModelPackage
from segmed.package.resolvers import resolver_of


def load_package(model: str | Path) -> ModelPackage:
    """Load a package from a folder, a zip, or a reference with a registered resolver.

    Args:
        model: A path, or such as `models:/NAME@champion`.

    Raises:
        UsageError: Nothing resolves the reference, or it names nothing.
        PackageError: The package is missing or damaged.
    """
    scheme, colon, _ = str(model).partition(":/")
    if not colon or isinstance(model, Path) or Path(model).exists():
        return ModelPackage.load(model)
    resolve = resolver_of(scheme)
    if resolve is not None:
        return ModelPackage.load(resolve(str(model)))
    if scheme == "models":
        raise UsageError(
            f"{model!r} is in a model registry, and no installed package reads it: install segmed "
            "with its package `pipelines` (in a checkout, `import pipelines.registry`), or give "
            "the path of a model package"
        )
    raise PackageError(f"{model!r} does not exist; give the path of a package folder or zip")


def members_of(packages: ModelPackage | Sequence[ModelPackage]) -> list[ModelPackage]:
    """Return one or several packages as a list.

    Raises:
        UsageError: Anything else is among them, such as a path.
    """
    given: Any = packages
    is_one = isinstance(given, ModelPackage | str | Path) or not hasattr(given, "__iter__")
    members: list[Any] = [given] if is_one else list(given)
    for member in members:
        if not isinstance(member, ModelPackage):
            raise UsageError(
                f"a predictor is made of packages, got a {type(member).__name__}: give "
                "ModelPackage.load(path), or call Predictor.load(path)"
            )
    return members
