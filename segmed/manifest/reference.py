"""Reference label maps of a manifest's cases, with the values that the manifest gives them."""

from __future__ import annotations

from pathlib import Path

import torch

from segmed.geometry import Grid
from segmed.io.read import grid_of, label_for, load_label
from segmed.io.source import Loaded
from segmed.manifest.schema import Manifest
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass


def read_reference(manifest: Manifest, path: Path, *, like: MetaTensor | None = None) -> MetaTensor:
    """A label map with merged, dropped and renamed structures as the manifest states them.

    Segments of a DICOM segmentation are matched by name and code, never by number.

    Args:
        manifest: States the labels, and how they are stored.
        path: A label file of one of its cases.
        like: The image it belongs to, on whose grid it is put; see `read_label`.

    Returns:
        `[1, *spatial]` int32; values that are stored nowhere in the manifest stay as they are.

    Raises:
        ImageError: The file cannot be read correctly, has a segment that is not a label, or is of
            another patient, study or frame of reference than `like`.
        GeometryError: It has other voxel centres than `like`.
    """
    loaded = load_reference(manifest, path, grid=None if like is None else grid_of(like))
    return reference_of(manifest, loaded, like=like)


def reference_of(
    manifest: Manifest, loaded: Loaded, *, like: MetaTensor | None = None
) -> MetaTensor:
    """The label map of `read_reference` from the stored values of its file.

    Raises:
        ImageError: As `read_reference` raises it.
        GeometryError: As `read_reference` raises it.
    """
    return as_meant(manifest, label_for(loaded, like))


def load_reference(manifest: Manifest, path: Path, *, grid: Grid | None = None) -> Loaded:
    """The stored values of a label file, its segments matched to the stored labels.

    Args:
        manifest: States how labels are stored.
        path: The file.
        grid: Grid of the image, see `load_label`.

    Raises:
        ImageError: As `read_reference` raises it.
    """
    return load_label(path, grid=grid, labels=stored_structures(manifest))


def stored_structures(manifest: Manifest) -> tuple[LabelClass, ...]:
    """The structures as the label files contain them."""
    stored = (
        LabelClass(name=label.name, value=label.value, code=label.code)
        for label in manifest.stored_labels
    )
    named = tuple(stored) or manifest.labels
    value = manifest.ignore_value
    if value is None or any(label.value == value for label in named):
        return named
    return (*named, LabelClass(name="ignore", value=value))


def as_meant(manifest: Manifest, label: MetaTensor) -> MetaTensor:
    """A label map of stored values with the values of the manifest's labels.

    Args:
        manifest: States what stored labels become.
        label: Any shape, integers.
    """
    changed = {one.value: one.becomes for one in manifest.stored_labels if one.value != one.becomes}
    if not changed:
        return label
    voxels = label.as_tensor()
    meant = voxels.clone()
    for value, becomes in changed.items():
        torch.where(voxels == value, torch.as_tensor(becomes, dtype=voxels.dtype), meant, out=meant)
    return MetaTensor(meant, affine=label.affine, meta={"source": label.meta.get("source")})
