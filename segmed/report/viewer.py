"""Cases for the 3D and slice viewer: small NIfTI files inside the page, and NiiVue beside them."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from segmed.pictures.legend import Colour
from segmed.report.content import OverlayItem

NIIVUE = Path(__file__).parent / "assets" / "niivue.umd.js.gz"
"""The vendored viewer, gzip; its licence is beside it."""

MAX_BYTES = 6_000_000
"""Largest sum of compressed volumes of one case; larger ones are not offered in the viewer."""

MARGIN_MM = 20.0
"""Image kept around the labelled box, in mm."""


@dataclass(frozen=True)
class ViewerCase:
    """One case as the viewer loads it.

    Attributes:
        caption: Case, model and scores, in words.
        image: The image's `.nii.gz` in base64, cut to the labelled region with a margin.
        reference: The same of the reference; empty without one.
        prediction: The same of the prediction.
        is_oriented: True if left and right are known.
        colours: Red, green and blue of label 1, 2, ... of both label maps, which are numbered
            anew in the order of the structures.
    """

    caption: str
    image: str
    reference: str
    prediction: str
    is_oriented: bool
    colours: tuple[Colour, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Length of all volumes in the page."""
        return len(self.image) + len(self.reference) + len(self.prediction)


def viewer_case(item: OverlayItem) -> ViewerCase | None:
    """A volume for the viewer.

    Args:
        item: A case of a volume, its arrays on one grid.

    Returns:
        The case; None for a 2D image and for a volume over `MAX_BYTES`.
    """
    if np.ndim(item.prediction) != 3:
        return None
    image = np.asarray(item.image, dtype=np.float32)
    image = image.mean(axis=0) if image.ndim == 4 else image
    box = _box(item)
    affine = _affine(item)
    values = _values(item)
    maps = [item.prediction] if item.reference is None else [item.prediction, item.reference]
    volumes = [
        _encoded(_as_int16(image[box]), affine),
        *(_encoded(_numbered(np.asarray(label)[box], values), affine) for label in maps),
    ]
    if sum(len(volume) for volume in volumes) > MAX_BYTES:
        return None
    texts = [base64.b64encode(volume).decode("ascii") for volume in volumes]
    return ViewerCase(
        caption=item.caption,
        image=texts[0],
        prediction=texts[1],
        reference=texts[2] if len(texts) > 2 else "",
        is_oriented=bool(item.orientation),
        colours=tuple(item.legend.colour(value) for value in values),
    )


def niivue_base64() -> str:
    """The viewer's gzip-compressed source in base64."""
    return base64.b64encode(NIIVUE.read_bytes()).decode("ascii")


def _box(item: OverlayItem) -> tuple[slice, ...]:
    """The labelled box with a margin, or the whole volume where nothing is labelled."""
    labelled = np.asarray(item.prediction) != 0
    if item.reference is not None:
        labelled = labelled | (np.asarray(item.reference) != 0)
    found = []
    for axis, length in enumerate(labelled.shape):
        used = np.flatnonzero(labelled.any(axis=tuple(o for o in range(3) if o != axis)))
        if used.size == 0:
            return (slice(None),) * 3
        margin = int(np.ceil(MARGIN_MM / item.spacing_mm[axis]))
        found.append(slice(max(0, int(used[0]) - margin), min(length, int(used[-1]) + 1 + margin)))
    return tuple(found)


def _affine(item: OverlayItem) -> npt.NDArray[np.float64]:
    """Spacing along the axes that the orientation names; the origin does not matter here."""
    codes = item.orientation or "RAS"
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, code in enumerate(codes):
        world, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1)}.get(
            code, (2, 1 if code == "S" else -1)
        )
        affine[world, axis] = sign * float(item.spacing_mm[axis])
    return affine


def _as_int16(image: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """Grey levels between the 0.1 and 99.9 percentiles, spread over 0..1000."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (0.1, 99.9)) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(image, nan=low) - low) / max(float(high - low), 1e-12)
    return np.asarray(np.clip(scaled, 0, 1) * 1000).astype(np.int16)


def _values(item: OverlayItem) -> list[int]:
    """Label values of both maps, in the order of the structures, then unlisted ones."""
    present = set(np.unique(np.asarray(item.prediction)).tolist())
    if item.reference is not None:
        present |= set(np.unique(np.asarray(item.reference)).tolist())
    listed = [int(value) for value in item.legend.structures]
    return [*listed, *sorted(int(v) for v in present if v and v not in item.legend.structures)]


def _numbered(label: npt.NDArray[Any], values: list[int]) -> npt.NDArray[np.generic]:
    """A label map whose values are places in `values`, from 1: small numbers, short palettes."""
    order = np.argsort(values)
    ordered = np.asarray([0, *np.asarray(values)[order]]) if values else np.zeros(1, np.int64)
    places = np.concatenate([[0], order + 1]).astype(np.uint8 if len(values) < 256 else np.uint16)
    return np.asarray(places[np.searchsorted(ordered, label)])


def _encoded(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), 6, mtime=0)
