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

from segmed.report.content import OverlayItem

NIIVUE = Path(__file__).parent / "assets" / "niivue.umd.js.gz"
"""The vendored viewer, gzip; its licence lies beside it."""

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
        is_oriented: Whether left and right are known.
    """

    caption: str
    image: str
    reference: str
    prediction: str
    is_oriented: bool


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
    volumes = [
        _encoded(_as_int16(image[box]), affine),
        _encoded(_as_values(np.asarray(item.prediction)[box]), affine),
    ]
    if item.reference is not None:
        volumes.append(_encoded(_as_values(np.asarray(item.reference)[box]), affine))
    if sum(len(volume) for volume in volumes) > MAX_BYTES:
        return None
    texts = [base64.b64encode(volume).decode("ascii") for volume in volumes]
    return ViewerCase(
        caption=item.caption,
        image=texts[0],
        prediction=texts[1],
        reference=texts[2] if len(texts) > 2 else "",
        is_oriented=bool(item.orientation),
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


def _as_values(label: npt.NDArray[Any]) -> npt.NDArray[np.generic]:
    """Label values in the smallest type that holds them all."""
    values = np.asarray(label)
    highest = int(values.max(initial=0))
    return values.astype(
        np.uint8 if highest <= 255 else np.uint16 if highest <= 65535 else np.int32
    )


def _encoded(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), 6, mtime=0)
