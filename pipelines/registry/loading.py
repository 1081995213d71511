"""From a user's model reference to loaded packages; MLflow is used only for `models:/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.registry.cache import cache_folder
from pipelines.registry.embedded import registered_versions
from pipelines.registry.reference import (
    Resolved,
    Version,
    is_registered,
    one_version,
    parse_reference,
    resolve_path,
)
from pipelines.tracking.address import tracking_uri
from segmed.errors import PackageError
from segmed.package.card import Card, checked_card
from segmed.plan import Plan

if TYPE_CHECKING:
    from segmed.package import ModelPackage


def resolve_model(reference: str, *, folder: Path = Path()) -> Resolved:
    """A model reference, resolved.

    Args:
        reference: `models:/NAME@alias`, `models:/NAME/3`, a package folder or a zip.
        folder: Working folder, for the embedded registry.

    Raises:
        UsageError: The reference names nothing.
        PackageError: The package is damaged.
        ServiceError: The registry is away and the reference was never resolved here.
    """
    if not is_registered(reference):
        return resolve_path(Path(reference))
    from pipelines.registry.versions import Registry  # noqa: PLC0415 - a folder needs no MLflow

    return Registry(folder).resolve(reference)


def load_models(references: Sequence[str]) -> tuple[list[Resolved], list[ModelPackage]]:
    """Several references, resolved, and their packages, checked by hash."""
    resolved = [resolve_model(reference) for reference in references]
    return resolved, [entry.load() for entry in resolved]


def look_up(reference: str, *, folder: Path = Path()) -> tuple[Resolved, Card, tuple[Plan, ...]]:
    """A model reference, resolved, with card and plans of its package; without PyTorch.

    MLflow is asked only where the registry is not a local file, or the package was never used here.

    Raises:
        As for `resolve_model`.
    """
    resolved = _known_here(reference, folder) or resolve_model(reference, folder=folder)
    card, plans = checked_card(resolved.path)
    return resolved, card, plans


def _known_here(reference: str, folder: Path) -> Resolved | None:
    """A registered model whose registry and package are both files on this machine."""
    found = registered_versions(tracking_uri(folder))
    if not is_registered(reference) or found is None:
        return None
    name, selector = parse_reference(reference)
    version = one_version(name, selector, found.get(name, ()), list(found))
    place = cache_folder() / "packages" / version.hash
    try:
        is_sound = place.exists() and checked_card(place)[0].hash == version.hash
    except PackageError:  # `resolve_model` fetches it anew
        return None
    return Resolved(reference, place, version.hash, name, version.version) if is_sound else None


def every_version(*, folder: Path = Path()) -> list[Version]:
    """Every version of every registered model; by name, newest first."""
    found = registered_versions(tracking_uri(folder))
    if found is not None:
        return [version for versions in found.values() for version in versions]
    from pipelines.registry.versions import Registry  # noqa: PLC0415 - a file needs no MLflow

    registry = Registry(folder)
    return [version for name in registry.names() for version in registry.versions(name)]
