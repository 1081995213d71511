"""Read DICOM RT structure sets: regions of interest drawn as closed contours on the slices.

A voxel belongs to a region if its centre is inside an odd number of the region's contours on its
slice, so that holes may be contours of their own, or be joined to the outer one by a keyhole.
Reasons: `not_rtstruct`, `no_contours` (a requested region is absent or empty), `other_grid` (a
contour on no slice of the grid, or outside of it), `other_frame` (drawn in another frame of
reference), `overlapping_segments`, and `unknown_segment` and `same_segments` where regions do not
fit the requested labels.

Source:
    DICOM PS3.3 C.8.8.5 (structure set), C.8.8.6 (contours CLOSED_PLANAR and CLOSEDPLANAR_XOR).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom

from segmed.errors import GeometryError, ImageError
from segmed.geometry import Grid
from segmed.io.bytestream import refusal
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.patient import patient_key
from segmed.io.dicom.read import decoding
from segmed.io.dicom.segments import Segment, values_of
from segmed.io.dicom.stack import LPS_TO_RAS
from segmed.io.source import Loaded, Source
from segmed.structures import LabelClass

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DRAWN = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
PLANE_TOLERANCE = 0.25
"""Largest distance of a contour from the plane of its slice, in slices."""


@dataclass(frozen=True)
class Region:
    """One region of interest.

    Attributes:
        name: ROIName.
        contours: `[points, 3]` each, in RAS+ mm.
        frame_of_reference: UID of the space that they are drawn in; may be empty.
    """

    name: str
    contours: tuple[npt.NDArray[np.float64], ...]
    frame_of_reference: str = ""


def read_regions(path: Path) -> list[Region]:
    """The regions of a structure set that have closed contours, in its order.

    Raises:
        ImageError: `not_rtstruct` or `undecodable`.
    """
    with tolerant_pydicom(), decoding(path):
        dataset = pydicom.dcmread(path, force=True)
        known = str(dataset.get("SOPClassUID", "")) == RT_STRUCTURE_SET
        regions = []
        if known:
            drawings = dataset.get("ROIContourSequence", [])
            drawn = {int(item.ReferencedROINumber): item for item in drawings}
            for item in dataset.get("StructureSetROISequence", []):
                contours = _contours(drawn.get(int(item.ROINumber)))
                frame = str(item.get("ReferencedFrameOfReferenceUID", ""))
                regions.append(Region(str(item.get("ROIName", "")).strip(), contours, frame))
    if not known:
        raise refusal(path, "not_rtstruct", "no RT structure set")
    return [region for region in regions if region.contours]


def _contours(item: pydicom.Dataset | None) -> tuple[npt.NDArray[np.float64], ...]:
    found = []
    for contour in [] if item is None else item.get("ContourSequence", []):
        if str(contour.get("ContourGeometricType", "")) in DRAWN:
            points = np.asarray(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            found.append(points @ LPS_TO_RAS[:3, :3].T)
    return tuple(found)


def label_of_regions(
    regions: Sequence[Region], values: Sequence[int], grid: Grid, path: Path
) -> npt.NDArray[np.int32]:
    """A label map of regions on the grid of the image that they are drawn on.

    Args:
        regions: The regions.
        values: Label value of each.
        grid: `[columns, rows, slices]`.
        path: The structure set, for messages.

    Raises:
        GeometryError: `other_grid`.
        ImageError: `overlapping_segments`.
    """
    label = np.zeros(grid.shape, dtype=np.int32)
    for region, value in zip(regions, values, strict=True):
        inside = _filled(region, grid, path)
        if bool((label[inside] != 0).any()):
            names = ",".join(one.name for one in regions)
            raise refusal(
                path,
                "overlapping_segments",
                f"region {region.name!r} shares voxels with another one; choose among {names} "
                "with --label-names",
            )
        label[inside] = value
    return label


def load_rtstruct(path: Path, grid: Grid, labels: Sequence[LabelClass]) -> Loaded:
    """Read a structure set as a label map.

    Args:
        path: The file.
        grid: Grid `[columns, rows, slices]` of the image that it is drawn on.
        labels: Structures that its regions are matched to by name; a structure without contours is
            absent. What lies in a region of labels is painted over it, as in a manifest.

    Returns:
        `[1, columns, rows, slices]` int32.

    Raises:
        ImageError: See the module.
        GeometryError: `other_grid`.
    """
    regions = read_regions(path)
    found = [Segment(number, region.name) for number, region in enumerate(regions)]
    value_of = values_of(found, labels, path)
    by_value = {value_of[number]: region for number, region in enumerate(regions)}
    label = np.zeros(grid.shape, dtype=np.int32)
    for structure in labels:
        if structure.value not in by_value:
            continue
        region = by_value[structure.value]
        inside = _filled(region, grid, path)
        around = [other.value for other in labels if structure.value in other.region]
        if (~np.isin(label[inside], [0, *around])).any():
            raise ImageError(
                f"{path.name}: region {region.name!r} shares voxels with another one, a label map "
                "has one value a voxel",
                reason="overlapping_segments",
                paths=[path],
            )
        label[inside] = structure.value
    return Loaded(label[None], grid.affine_ras, _source(path, regions))


def _source(path: Path, regions: Sequence[Region]) -> Source:
    with tolerant_pydicom(), decoding(path):
        dataset = pydicom.dcmread(path, force=True)
        source = Source(
            format="rtstruct",
            paths=(path,),
            series_uid=str(dataset.get("SeriesInstanceUID", "")),
            study_uid=str(dataset.get("StudyInstanceUID", "")),
            modality="RTSTRUCT",
            patient_key=patient_key(dataset),
        )
    frames = {region.frame_of_reference for region in regions} - {""}
    if len(frames) > 1:
        raise refusal(path, "other_frame", f"its regions are drawn in {len(frames)} spaces")
    return replace(source, frame_of_reference=next(iter(frames), ""))


def _filled(region: Region, grid: Grid, path: Path) -> npt.NDArray[np.bool_]:
    columns, rows, slices = grid.shape
    to_index = np.linalg.inv(grid.affine_ras)
    crossings = np.zeros((slices, rows, columns + 1), dtype=np.bool_)
    for contour in region.contours:
        points = contour @ to_index[:3, :3].T + to_index[:3, 3]
        k = round(float(np.median(points[:, 2])))
        apart = float(np.abs(points[:, 2] - k).max())
        if apart > PLANE_TOLERANCE or not 0 <= k < slices:
            raise GeometryError(
                f"{path.name}: a contour of {region.name!r} is on no slice of the image "
                f"(slice {float(points[0, 2]):.2f} of {slices})",
                paths=[path],
            )
        _cross(crossings[k], points[:, :2])
    inside = np.logical_xor.accumulate(crossings, axis=2)[:, :, :columns]
    return np.asarray(inside.transpose(2, 1, 0))


def _cross(plane: npt.NDArray[np.bool_], points: npt.NDArray[np.float64]) -> None:
    """Mark where each row of voxel centres crosses a closed polygon of (column, row) points."""
    rows, columns = plane.shape[0], plane.shape[1] - 1
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = min(y0, y1), max(y0, y1)
        first, last = max(int(np.ceil(low)), 0), min(int(np.ceil(high)), rows)
        at = np.arange(first, last)  # rows with low <= row < high
        if not at.size:
            continue
        x = x0 + (at - y0) * (x1 - x0) / (y1 - y0)
        np.logical_xor.at(plane, (at, np.clip(np.ceil(x), 0, columns).astype(int)), True)
