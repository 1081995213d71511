"""Segmentation of one image: label map, probabilities, picture, file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from segmed.errors import UsageError
from segmed.io import grid_of
from segmed.io.fractions import Fractions
from segmed.metatensor import MetaTensor
from segmed.quality.case_features import CaseFeatures
from segmed.quality.model import CaseQuality
from segmed.structures import LabelClass

if TYPE_CHECKING:
    from PIL import Image

STRUCTURES_SHOWN = 3
"""Structures that the one-line form names."""


@dataclass(frozen=True, repr=False)
class Segmentation:
    """Segmentation of one image.

    Attributes:
        label: `[1, *spatial]` uint8 (uint16 where a label value needs it), label values of the
            plan, on the image's grid.
        probs: `[K, *spatial]` float32 on the image's grid, where requested.
        seconds: Total wall time.
        phases: Wall time of each phase, in seconds: `prepare`, `network`, `inverse`.
        labels: Structures of the label map.
        image: The image, where `predict` read or was given it.
        fractions: Probabilities of the structures as bytes on disk, where requested.
        quality: Predicted quality, where the model has it.
        features: The features that it was predicted from, where they were gathered.
        overpainted: Share of each structure that a model of higher priority painted over, of a
            joined label map; without structures of which nothing was.
    """

    label: MetaTensor
    probs: Tensor | None
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)
    labels: tuple[LabelClass, ...] = ()
    image: MetaTensor | None = None
    fractions: Fractions | None = None
    quality: CaseQuality | None = None
    features: CaseFeatures | None = None
    overpainted: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Size, volume of each structure and time in one line."""
        size = "x".join(map(str, self.label.shape[1:]))
        found = [f"{name} {amount}" for name, amount in self._amounts().items()]
        shown = found[:STRUCTURES_SHOWN] + ["..."] * (len(found) > STRUCTURES_SHOWN)
        return f"Segmentation({size}: {', '.join(shown) or 'empty'}; {self.seconds:.1f} s)"

    def _amounts(self) -> dict[str, str]:
        """Volume of each structure in ml; of a plane its area in pixels."""
        values = np.asarray(self.label)
        counts = np.bincount(values.reshape(-1), minlength=1)
        grid = grid_of(self.label)
        present = {item.name: item.values for item in self.labels} or {
            f"label {value}": (int(value),) for value in np.flatnonzero(counts) if value
        }
        counted = {
            name: sum(int(counts[value]) for value in inside if value < len(counts))
            for name, inside in present.items()
        }
        if len(grid.shape) == 2:
            return {name: f"{count:,} px" for name, count in counted.items()}
        voxel_ml = float(np.prod(grid.spacing_mm)) / 1000.0
        return {name: f"{count * voxel_ml:.3g} ml" for name, count in counted.items()}

    def plot(self) -> Image.Image:
        """Picture of three planes (or one, in 2D) with the structures outlined on the image.

        Returns:
            A PIL image; without the image itself the outlines are on black.
        """
        # Drawing loads PIL's fonts, which a segmentation does without.
        from segmed.pictures.shown import picture_of  # noqa: PLC0415 - see above

        return picture_of(self.image, self.label, labels=self.labels, caption="segmentation")

    def _repr_png_(self) -> bytes:
        """The same picture as PNG, for notebooks."""
        from segmed.pictures.shown import as_png  # noqa: PLC0415 - as above

        return as_png(self.plot())

    def save(self, path: Path | str) -> Path:
        """Write the label map on the image's grid; the file appears whole or not at all.

        Args:
            path: `.nii`, `.nii.gz`, `.nrrd`, `.mha`, or for 2D `.png`.

        Returns:
            The path.

        Raises:
            UsageError: The suffix is unknown, or the image is not part of this segmentation.
        """
        from segmed.io import write_label  # noqa: PLC0415 - writers load what readers do without

        if self.image is None:
            raise UsageError(
                "this segmentation does not contain its image, whose header the file needs: use "
                "segmed.io.write_label(path, label, like=image)"
            )
        return write_label(path, self.label, like=self.image, labels=self.labels)
