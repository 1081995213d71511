"""The cases of a manifest as inputs of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.io.channel_files import CaseFiles
from segmed.manifest.json_form import read_manifest
from segmed.plan.agreement import channel_order, ordered_images


def is_manifest(path: Path) -> bool:
    """True for a file that ends in .json."""
    return path.suffix.lower() == ".json" and not path.is_dir()


def cases_of_manifest(path: Path, names: Sequence[str]) -> list[CaseFiles]:
    """All cases of a manifest, training then test, with their files in the model's channel order.

    Args:
        path: The manifest.
        names: Channel names of the model; none are not compared.

    Raises:
        ManifestError: It cannot be read.
        UsageError: It has other channels than the model.
    """
    manifest = read_manifest(path)
    order = channel_order(names, manifest)
    return [
        CaseFiles(case.id, ordered_images(manifest, case, order))
        for case in (*manifest.training, *manifest.test)
    ]
