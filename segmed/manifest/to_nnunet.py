"""Write a manifest's set as an nnU-Net raw folder: numbered channels, consecutive label values.

Files that nnU-Net can read as they are become hard links, or copies; others are converted to
`.nii.gz`. The folds of the manifest are written as `splits_final.json`.

Source:
    nnU-Net 2, documentation/dataset_format.md, ignore_label.md, region_based_training.md: labels
    are 0, 1, 2, ... without gaps; `ignore` is the highest; `regions_class_order` has the value that
    is painted for each region.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmed.errors import ManifestError, SegmedError, UsageError
from segmed.formats import is_named
from segmed.io import grid_of, read_image, write_label
from segmed.io.atomic import whole_folder
from segmed.io.links import link_or_copy
from segmed.io.nifti_write import write_nifti
from segmed.io.read import source_of
from segmed.manifest.dataset_json import NAME
from segmed.manifest.label_table import PAINT_KEY
from segmed.manifest.label_values import values_in
from segmed.manifest.reference import read_reference
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor

SPLITS = "splits_final.json"
"""nnU-Net's file of folds; it is read from the folder of the preprocessed set."""

NIFTI = ".nii.gz"


@dataclass(frozen=True)
class NnUNetLabels:
    """Values of a set as nnU-Net numbers them.

    Attributes:
        value_of: nnU-Net's value by label value of the manifest, background and ignored among them.
        table: The table `labels` of `dataset.json`.
        paint: Its `regions_class_order`; empty where no label is a region.
    """

    value_of: dict[int, int]
    table: dict[str, Any]
    paint: tuple[int, ...] = ()

    @property
    def is_identity(self) -> bool:
        """Return whether the label files have nnU-Net's values already."""
        return all(value == number for value, number in self.value_of.items())


def nnunet_labels(manifest: Manifest) -> NnUNetLabels:
    """Number the labels 1, 2, ... in their order, and the ignored value after them."""
    value_of = {0: 0, **{one.value: n for n, one in enumerate(manifest.labels, 1)}}
    table: dict[str, Any] = {"background": 0}
    for label in manifest.labels:
        members = sorted(value_of[value] for value in label.values)
        table[label.name] = members[0] if len(members) == 1 else members
    if manifest.ignore_value is not None:
        value_of[manifest.ignore_value] = table["ignore"] = len(value_of)
    paint = tuple(range(1, len(manifest.labels) + 1)) if manifest.encoding.has_regions else ()
    return NnUNetLabels(value_of, table, paint)


def write_nnunet(
    manifest: Manifest, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write a set as an nnU-Net raw folder; it appears whole or not at all.

    Args:
        manifest: The set.
        folder: The folder, such as `nnUNet_raw/Dataset042_Heart`; must not exist.
        progress: Called with cases written and cases in all.

    Returns:
        The folder.

    Raises:
        UsageError: The folder exists.
        ManifestError: A case cannot be read, has a value that is not a label, or the images are
            rasters.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: name a new folder")
    labels = nnunet_labels(manifest)
    parts = [("Tr", case) for case in manifest.training] + [("Ts", case) for case in manifest.test]
    with whole_folder(folder) as partial:
        for number, (part, case) in enumerate(parts, 1):
            _write_case(manifest, case, part, labels, partial)
            if progress is not None:
                progress(number, len(parts))
        (partial / NAME).write_text(_as_json(_description(manifest, labels)), encoding="utf-8")
        if manifest.folds:
            (partial / SPLITS).write_text(_as_json(_splits(manifest)), encoding="utf-8")
    return folder


def _description(manifest: Manifest, labels: NnUNetLabels) -> dict[str, Any]:
    channels = {str(number): one.name for number, one in enumerate(manifest.channels)}
    stated = {"licence": manifest.licence, "reference": manifest.source}
    return {
        "name": manifest.name,
        "channel_names": {n: _scaled_as(manifest, int(n), name) for n, name in channels.items()},
        "labels": labels.table,
        **({PAINT_KEY: list(labels.paint)} if labels.paint else {}),
        "numTraining": len(manifest.training),
        "file_ending": NIFTI,
        **{key: value for key, value in stated.items() if value},
    }


def _scaled_as(manifest: Manifest, number: int, name: str) -> str:
    """Name of a channel for nnU-Net, which scales `CT` by the intensities of the whole set."""
    return "CT" if manifest.channels[number].modality == "CT" else name


def _splits(manifest: Manifest) -> list[dict[str, list[str]]]:
    found = []
    for fold in manifest.folds:
        inside, held_out = manifest.split(fold)
        found.append({"train": [one.id for one in inside], "val": [one.id for one in held_out]})
    return found


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _write_case(
    manifest: Manifest, case: Case, part: str, labels: NnUNetLabels, folder: Path
) -> None:
    try:
        image = _write_channels(manifest, case, folder / f"images{part}")
        path = manifest.label_path(case)
        if path is not None:
            _write_label(
                manifest, path, image, labels, folder / f"labels{part}" / (case.id + NIFTI)
            )
    except SegmedError as error:
        raise ManifestError(f"case {case.id!r}: {error}") from error


def _write_channels(manifest: Manifest, case: Case, folder: Path) -> MetaTensor:
    """Write the channels of a case; gives the image on whose grid its label is."""
    folder.mkdir(exist_ok=True)
    paths = manifest.image_paths(case)
    targets = [folder / f"{case.id}_{number:04d}{NIFTI}" for number in range(manifest.num_channels)]
    if len(paths) == len(targets) and all(map(_is_read_there, paths)):
        for path, target in zip(paths, targets, strict=True):
            link_or_copy(path, target)
        return read_image(paths[0])
    images = [read_image(path, num_channels=manifest.num_channels) for path in paths]
    if len(images[0].shape) == 3:
        raise ManifestError("rasters are not written for nnU-Net; copy the pictures there yourself")
    for number, target in enumerate(targets):
        image, channel = (images[number], 0) if len(images) > 1 else (images[0], number)
        grid = grid_of(image)
        voxels = _narrow(image.as_tensor()[channel].numpy())
        write_nifti(target, voxels, affine_ras=grid.affine_ras, source=source_of(image))
    return images[0]


def _is_read_there(path: Path) -> bool:
    return path.is_file() and is_named(path, "nifti") and path.name.lower().endswith(NIFTI)


def _narrow(voxels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values as int16 where all of them are whole and small enough; else as they are."""
    low, high = float(voxels.min()), float(voxels.max())
    if low < np.iinfo(np.int16).min or high > np.iinfo(np.int16).max:
        return voxels
    small = voxels.astype(np.int16)
    return small if np.array_equal(small, voxels) else voxels


def _write_label(
    manifest: Manifest, path: Path, image: MetaTensor, labels: NnUNetLabels, target: Path
) -> None:
    target.parent.mkdir(exist_ok=True)
    label = read_reference(manifest, path, like=image)
    found = values_in(label.as_tensor())
    if unknown := sorted(found - labels.value_of.keys()):
        raise ManifestError(f"{path.name} has the value {unknown[0]}, which is not a label")
    source = source_of(label)
    is_turned = source is not None and bool(source.stored_as)
    is_as_stored = labels.is_identity and not manifest.stored_labels and not is_turned
    if is_as_stored and _is_read_there(path):
        link_or_copy(path, target)
        return
    table = np.zeros(max(labels.value_of) + 1, dtype=np.int32)
    table[list(labels.value_of)] = list(labels.value_of.values())
    renumbered = MetaTensor(label.as_tensor().new_tensor(table[label.numpy()]), meta=label.meta)
    write_label(target, renumbered, like=image)


def written_lines(manifest: Manifest, folder: Path) -> Sequence[str]:
    """Lines on what was written and how nnU-Net is given the folds."""
    values = nnunet_labels(manifest)
    changed = "" if values.is_identity else ", values renumbered without gaps"
    lines = [
        f"{folder}: {len(manifest.training)} training and {len(manifest.test)} test cases, "
        f"{len(manifest.labels)} {'regions' if values.paint else 'labels'}{changed}"
    ]
    if manifest.folds:
        lines.append(
            f"folds: copy {folder / SPLITS} into the folder of the preprocessed set after "
            "nnUNetv2_plan_and_preprocess"
        )
    return lines
