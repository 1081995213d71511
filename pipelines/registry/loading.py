"""From what a user calls a model to loaded packages; MLflow is touched only for `models:/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.registry.reference import Resolved, resolve_path
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
    if not reference.startswith("models:"):
        return resolve_path(Path(reference))
    from pipelines.registry.versions import Registry  # noqa: PLC0415 - a folder needs no MLflow

    return Registry(folder).resolve(reference)


def load_models(references: Sequence[str]) -> tuple[list[Resolved], list[ModelPackage]]:
    """Several references, resolved, and their packages, checked by hash."""
    resolved = [resolve_model(reference) for reference in references]
    return resolved, [entry.load() for entry in resolved]
