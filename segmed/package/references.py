"""Packages from paths and from references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.errors import PackageError, UsageError
from segmed.package.model_package import ModelPackage
from segmed.package.resolvers import RESOLVERS


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
    if scheme in RESOLVERS:
        return ModelPackage.load(RESOLVERS[scheme](str(model)))
    if scheme == "models":
        raise UsageError(
            f"{model!r} is in a model registry, which this library does not read by itself: "
            "`import pipelines.registry` first, which connects the two, or give the path of a "
            "package"
        )
    raise PackageError(f"{model!r} does not exist; give the path of a package folder or zip")


def members_of(packages: ModelPackage | Sequence[ModelPackage]) -> list[ModelPackage]:
    """Return one or several packages as a list.

    Raises:
        UsageError: Anything else is among them, such as a path.
    """
    members = [packages] if isinstance(packages, ModelPackage | str | Path) else list(packages)
    for member in members:
        if not isinstance(member, ModelPackage):
            raise UsageError(
                f"a predictor is made of packages, got a {type(member).__name__}: give "
                "ModelPackage.load(path), or call Predictor.load(path)"
            )
    return members
