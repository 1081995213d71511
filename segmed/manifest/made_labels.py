"""Label maps made of several files of one case: masks of instances or of structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segmed.errors import GeometryError, ImageError, ManifestError
from segmed.formats import OUTPUT_SUFFIXES, RASTER_FORMATS, RASTER_OUTPUT_SUFFIX, stem_of
from segmed.io import grid_of, read_label, source_of, write_label
from segmed.io.read import label_on_grid
from segmed.metatensor import MetaTensor

MaskMode = Literal["union", "instances", "structures"]
MASK_MODES: tuple[MaskMode, ...] = ("union", "instances", "structures")
"""`union`: 1 in every mask; `instances`: 1, 2, ... by mask; `structures`: a value a file name."""


class LabelMaker:
    """Writes label maps that a source has in parts only.

    Args:
        folder: Where they go; None if none may be written.

    Attributes:
        written: Files written, in order.
        counts: Number of masks of each case.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self.counts: dict[str, int] = {}

    def combined(
        self,
        case_id: str,
        files: Sequence[Path],
        mode: MaskMode = "union",
        names: Sequence[str] = (),
    ) -> Path:
        """The label map of a case from its masks, with the values of a mode.

        Args:
            case_id: Name of the case and of the file.
            files: The masks, as for `with_values`.
            mode: How values are given.
            names: For `structures`: all file stems in the order of their values, from 1.
        """
        return self.with_values(case_id, files, _values(files, mode, names))

    def with_values(self, case_id: str, files: Sequence[Path], values: Sequence[int]) -> Path:
        """The label map of a case from its masks; a voxel that is not 0 belongs to a mask.

        Args:
            case_id: Name of the case and of the file.
            files: The masks, on one grid up to the order of their axes, at least one.
            values: Value of each mask; masks of one value may overlap.

        Returns:
            The file written.

        Raises:
            ManifestError: Masks cannot be read, are on several grids, or two structures or
                instances share a voxel.
        """
        try:
            first, *others = [read_label(path) for path in files]
            masks = [first] + [
                label_on_grid(mask, grid_of(first), names=(files[0].name, path.name))
                for path, mask in zip(files[1:], others, strict=True)
            ]
        except (ImageError, GeometryError) as error:
            raise ManifestError(f"masks of case {case_id!r}: {error}") from error
        label = torch.zeros(masks[0].shape, dtype=torch.int32)
        for path, mask, value in zip(files, masks, values, strict=True):
            inside = mask.as_tensor() != 0
            taken = label[inside]
            if bool(((taken != 0) & (taken != value)).any()):
                raise ManifestError(
                    f"masks of case {case_id!r}: {path.name} shares voxels with another mask; "
                    "only a union (--masks union) may overlap"
                )
            label[inside] = value
        self.counts[case_id] = len(files)
        return self.write(case_id, label, masks[0])

    def remarks(self, mode: MaskMode) -> list[str]:
        """Describe in one line the masks that were merged; an empty list if none was."""
        counts = self.counts.values()
        if not counts:
            return []
        return [
            f"{sum(counts)} masks of {len(counts)} cases ({min(counts)} to {max(counts)} a case) "
            f"put together ({mode}) in {self.folder}"
        ]

    def write(self, case_id: str, label: Tensor, like: MetaTensor) -> Path:
        """Write one label map on the grid of an image.

        Raises:
            ManifestError: There is no folder for it.
        """
        if self.folder is None:
            raise ManifestError(
                "the label maps have to be put together from several files: give a folder for them"
            )
        source = source_of(like)
        is_raster = source is not None and source.format in RASTER_FORMATS
        suffix = RASTER_OUTPUT_SUFFIX if is_raster else OUTPUT_SUFFIXES["nifti"]
        path = self.folder / (case_id + suffix)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_label(path, label, like=like)
        if not bool((read_label(path).as_tensor() == label).all()):
            raise ManifestError(f"label of case {case_id!r} was not written as it is")
        self.written.append(path)
        return path


def _values(files: Sequence[Path], mode: MaskMode, names: Sequence[str]) -> list[int]:
    if mode == "union":
        return [1] * len(files)
    if mode == "instances":
        return list(range(1, len(files) + 1))
    return [names.index(stem_of(path)) + 1 for path in files]
