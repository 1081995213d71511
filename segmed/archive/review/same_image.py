"""The same image in another form, such as a case that was converted from a series of the archive.

Digests of files do not recognise it. Axes may be flipped or in another order; so the sorted voxels
are compared, of cases with the same extents.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmed.errors import ImageError
from segmed.formats import is_named
from segmed.io import read_image
from segmed.io.bytestream import unzipped
from segmed.io.nifti import parse_header, stored_shape
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor

TOLERANCE = 1e-5
"""Largest difference of a voxel, over the range of the image: rescaling rounds differently."""

LONGEST_HEADER = 540


class ConvertedImages:
    """The NIfTI images of a manifest, which may be converted from images of other formats.

    Args:
        manifest: The manifest.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._by_extents: dict[tuple[int, ...], list[Case]] | None = None

    def case_of(self, image: MetaTensor) -> Case | None:
        """The case whose first channel has the voxels of an image's first channel, if one has.

        Args:
            image: `[C, *spatial]`.
        """
        if self._by_extents is None:
            self._by_extents = self._listed()
        candidates = self._by_extents.get(tuple(sorted(image.shape[1:])), [])
        if not candidates:
            return None
        values = _sorted(image)
        return next((case for case in candidates if self._has(case, values)), None)

    def _has(self, case: Case, values: npt.NDArray[np.float32]) -> bool:
        try:
            image = read_image(self._manifest.image_paths(case)[0])
        except ImageError:
            return False  # `manifest check` names it
        other = _sorted(image)
        spread = float(values[-1] - values[0])
        return other.size == values.size and bool(
            np.abs(other - values).max() <= TOLERANCE * spread
        )

    def _listed(self) -> dict[tuple[int, ...], list[Case]]:
        found: dict[tuple[int, ...], list[Case]] = {}
        for case in (*self._manifest.training, *self._manifest.test):
            extents = _extents(self._manifest.image_paths(case)[0])
            if extents:
                found.setdefault(extents, []).append(case)
        return found


def _extents(path: Path) -> tuple[int, ...]:
    """Sorted extents that a NIfTI header states; none for other files."""
    if not is_named(path, "nifti"):
        return ()
    try:
        with unzipped(path) as stream:
            header = parse_header(stream.read(LONGEST_HEADER), path)
        return tuple(sorted(stored_shape(header, path)))
    except (ImageError, OSError):
        return ()  # `manifest check` names it


def _sorted(image: MetaTensor) -> npt.NDArray[np.float32]:
    return np.sort(np.asarray(image, dtype=np.float32)[0], axis=None)
