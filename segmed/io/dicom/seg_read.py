"""Read DICOM Segmentation objects by our own rules, on pydicom alone.

Reasons: `not_seg`, `unknown_kind`, `corrupt`, `overlapping_segments`, `no_frame_positions`,
`mixed_orientation`, `uneven_slices`, `shifted_slices`, `truncated`, `undecodable`, `too_large`,
`other_grid` where a frame is on no slice of the requested grid, and `unknown_segment` and
`same_segments` where segments do not fit the requested labels.

Source:
    DICOM PS3.3 C.8.20.2 (Segmentation image), PS3.5 8.1.1 (1-bit pixels run over frame borders).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import ImplicitVRLittleEndian

from segmed.errors import GeometryError, ImageError
from segmed.geometry import Grid
from segmed.io.bytestream import refusal
from segmed.io.dicom.checks import ORIENTATION_TOLERANCE
from segmed.io.dicom.frames import Slice, slices_of
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.patient import patient_key
from segmed.io.dicom.read import decoding
from segmed.io.dicom.segments import segments_in, values_of
from segmed.io.dicom.stack import LPS_TO_RAS
from segmed.io.limits import DEFAULT_LIMITS, ReadLimits, check_affine, check_size
from segmed.io.source import Loaded, Source
from segmed.structures import LabelClass

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
POSITION_TOLERANCE_MM = 1e-2


@dataclass(frozen=True)
class SegFrames:
    """The frames of an object.

    Attributes:
        pixels: `[frames, rows, columns]`.
        parts: Place of each frame.
        values: Label value of each frame; 0 where the pixels themselves are values.
    """

    pixels: npt.NDArray[Any]
    parts: tuple[Slice, ...]
    values: tuple[int, ...]


def load_seg(
    path: Path,
    *,
    grid: Grid | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
    labels: Sequence[LabelClass] = (),
) -> Loaded:
    """Read a segmentation object as a label map.

    Of fractional objects whose segments exclude each other (SegmentsOverlap `NO`), a voxel belongs
    to the segment with the largest share, or to none if what is left of the whole is larger; of
    others to each segment that has at least half.

    Args:
        path: The file.
        labels: Structures that its segments are matched to by name and code; without any, values
            are those that `write_dicom_seg` noted, else segment numbers.
        grid: The grid `[columns, rows, slices]` to map it to; without it the
            grid spans the object's own frames, with empty slices where it has none.
        limits: Bounds on its size.

    Returns:
        `[1, columns, rows, slices]` int32.

    Raises:
        ImageError: See the module.
    """
    with tolerant_pydicom():
        with decoding(path):
            dataset = pydicom.dcmread(path, force=True)
            known = str(dataset.get("SOPClassUID", "")) in SEG_CLASSES
            parts = slices_of(dataset) if known else ()
            placed = bool(parts) and all(p.position and p.orientation for p in parts)
        if not known:
            raise refusal(path, "not_seg", "no DICOM segmentation object")
        if not placed:
            raise refusal(path, "no_frame_positions", "its frames do not state their positions")
        require_kind(dataset, path)
        frames = _frames(dataset, parts, path, limits, labels)
        source = Source(
            format="dicom-seg",
            paths=(path,),
            series_uid=str(dataset.get("SeriesInstanceUID", "")),
            study_uid=str(dataset.get("StudyInstanceUID", "")),
            modality="SEG",
            patient_key=patient_key(dataset),
            frame_of_reference=str(dataset.get("FrameOfReferenceUID", "")),
        )
    target = grid or _own_grid(frames, path)
    check_size(target.shape, limits, path)
    check_affine(target.affine_ras, limits, path)
    label = _placed(frames, target, path, _regions(labels))
    return Loaded(label[None], target.affine_ras, source)


def require_kind(dataset: Dataset, path: Path) -> None:
    """Refuse a kind of segmentation that gives no label map.

    Raises:
        ImageError: `unknown_kind`, or `corrupt`: fractions of a whole that is not stated.
    """
    kind = str(dataset.get("SegmentationType", ""))
    if kind not in ("BINARY", "LABELMAP", "FRACTIONAL"):
        raise refusal(path, "unknown_kind", f"a segmentation of type {kind!r} is not known")
    if kind == "FRACTIONAL" and int(dataset.get("MaximumFractionalValue") or 0) < 1:
        raise refusal(path, "corrupt", "it does not state its largest fractional value")


def _frames(
    dataset: Dataset,
    parts: tuple[Slice, ...],
    path: Path,
    limits: ReadLimits,
    labels: Sequence[LabelClass],
) -> SegFrames:
    """Decode all frames."""
    kind = str(dataset.get("SegmentationType", ""))
    check_size((len(parts), int(dataset.Rows), int(dataset.Columns)), limits, path)
    with decoding(path):
        count = int(dataset.get("NumberOfFrames", 1))
        syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
        pixels, _ = get_decoder(syntax).as_array(dataset, raw=True)
        value_of = values_of(segments_in(dataset), labels, path)
        values = _values(dataset, kind, value_of, path)
        pixels = pixels.reshape(count, int(dataset.Rows), int(dataset.Columns))
        if kind == "LABELMAP":
            pixels = _translated(pixels, value_of, path)
        elif kind == "FRACTIONAL":
            pixels = _decided(pixels, dataset, parts)
    if not count == len(parts) == len(values):
        raise refusal(path, "corrupt", f"{count} frames and {len(parts)} places")
    return SegFrames(pixels, parts, values)


def _decided(
    pixels: npt.NDArray[Any], dataset: Dataset, parts: tuple[Slice, ...]
) -> npt.NDArray[Any]:
    """Masks from fractions: the largest of segments that exclude each other, else halves."""
    most = int(dataset.MaximumFractionalValue)
    if str(dataset.get("SegmentsOverlap", "")) != "NO":
        return np.asarray(pixels.astype(np.int32) * 2 >= most)
    by_place: dict[tuple[float, ...], list[int]] = {}
    for index, part in enumerate(parts[: len(pixels)]):
        by_place.setdefault(tuple(part.position or ()), []).append(index)
    masks = np.zeros(pixels.shape, dtype=bool)
    for frames in by_place.values():
        shares = pixels[frames].astype(np.int32)
        rest = most - shares.sum(axis=0, keepdims=True)
        largest = np.concatenate([rest, shares]).argmax(axis=0)
        for number, index in enumerate(frames, start=1):
            masks[index] = largest == number
    return masks


def _values(
    dataset: Dataset, kind: str, value_of: Mapping[int, int], path: Path
) -> tuple[int, ...]:
    """Label value of each frame; 0 for all of a label map."""
    groups = dataset.PerFrameFunctionalGroupsSequence
    if kind == "LABELMAP":
        return (0,) * len(groups)
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    numbers = []
    for group in groups:
        place = group if "SegmentIdentificationSequence" in group else shared[0]
        numbers.append(int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber))
    _require_described(numbers, value_of, path)
    return tuple(value_of[number] for number in numbers)


def _translated(
    pixels: npt.NDArray[Any], value_of: Mapping[int, int], path: Path
) -> npt.NDArray[np.int32]:
    """The pixels of a label map, which are segment numbers, as label values."""
    numbers, places = np.unique(pixels, return_inverse=True)
    _require_described([int(number) for number in numbers if number], value_of, path)
    table = np.array([value_of.get(int(number), 0) for number in numbers], dtype=np.int32)
    return np.asarray(table[places.reshape(pixels.shape)])


def _require_described(numbers: Iterable[int], value_of: Mapping[int, int], path: Path) -> None:
    unknown = sorted(set(numbers) - set(value_of))
    if unknown:
        raise refusal(
            path, "corrupt", f"segment numbers {unknown[:5]} occur that it does not describe"
        )


def _own_grid(frames: SegFrames, path: Path) -> Grid:
    """The grid that spans the frames."""
    first = frames.parts[0]
    cosines = np.asarray([part.orientation for part in frames.parts], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > ORIENTATION_TOLERANCE:
        raise GeometryError(
            f"{path.name}: frames of several orientations",
            reason="mixed_orientation",
            paths=[path],
        )
    row, column = cosines[0, :3], cosines[0, 3:]
    normal = np.cross(row, column)
    positions = np.asarray([part.position for part in frames.parts])
    heights = positions @ normal
    distinct = np.sort(heights)[np.r_[True, np.diff(np.sort(heights)) > POSITION_TOLERANCE_MM]]
    step = _step(distinct, first, path)
    rows, columns = frames.pixels.shape[1:]
    spacing = first.spacing or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * spacing[1], column * spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = positions[int(np.argmin(heights))]
    count = int(np.rint((distinct[-1] - distinct[0]) / step)) + 1
    return Grid((columns, rows, count), LPS_TO_RAS @ affine)


def _step(distinct: npt.NDArray[np.float64], first: Slice, path: Path) -> float:
    """Slice distance: what the frames show, checked to divide all their gaps."""
    stated = first.step or first.thickness or 1.0
    if len(distinct) == 1:
        return float(stated)
    gaps = np.diff(distinct)
    for step in (float(gaps.min()), float(stated)):
        times = np.rint(gaps / step)
        if (times >= 1).all() and (np.abs(gaps - times * step) < 0.03 * step).all():
            return float((distinct[-1] - distinct[0]) / times.sum())
    raise GeometryError(
        f"{path.name}: frames are at uneven distances ({gaps.min():.2f} to {gaps.max():.2f} mm)",
        reason="uneven_slices",
        paths=[path],
    )


Regions = Mapping[int, frozenset[int]]
"""Values of the regions within each region, by its own value."""


def _regions(labels: Sequence[LabelClass]) -> Regions:
    return {one.value: frozenset(one.region) - {one.value} for one in labels if one.region}


def _placed(frames: SegFrames, target: Grid, path: Path, regions: Regions) -> npt.NDArray[np.int32]:
    """The label map, each frame on its slice of the grid."""
    shape, affine = target.shape, target.affine_ras
    label = np.zeros(shape, dtype=np.int32)
    rows, columns = frames.pixels.shape[1:]
    corners = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [1, 1, 1]], dtype=np.float64)
    to_index = np.linalg.inv(affine)
    for pixels, part, value in zip(frames.pixels, frames.parts, frames.values, strict=True):
        world = LPS_TO_RAS[:3, :3] @ _plane(part) @ corners  # [3, 3], one corner a column
        index = to_index[:3, :3] @ world + to_index[:3, 3:]
        k = int(np.rint(index[2, 0]))
        ideal = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [k, k, k]], dtype=np.float64)
        off = np.abs(affine[:3, :3] @ (index - ideal)).max()
        if (columns, rows) != tuple(shape[:2]) or not 0 <= k < shape[2] or off > 0.1:
            if not pixels.any():
                continue
            raise GeometryError(
                f"{path.name}: a frame is on no slice of the grid ({off:.2f} mm beside it)",
                paths=[path],
            )
        _add(label[:, :, k], pixels.T, value, path, regions)
    return label


def _plane(part: Slice) -> npt.NDArray[np.float64]:
    """Column index, row index, 1 to LPS mm, `[3, 3]`."""
    cosines = np.asarray(part.orientation)
    spacing = part.spacing or (0.0, 0.0)
    return np.stack(
        [cosines[:3] * spacing[1], cosines[3:] * spacing[0], np.asarray(part.position)], axis=1
    )


def _add(
    plane: npt.NDArray[np.int32],
    pixels: npt.NDArray[Any],
    value: int,
    path: Path,
    regions: Regions,
) -> None:
    where = pixels != 0
    around = [other for other, inside in regions.items() if value in inside]
    within = list(regions.get(value, ()))
    if within:  # what lies in a region is painted over it, whichever comes first
        where &= ~np.isin(plane, within)
    if (~np.isin(plane[where], [0, *around])).any():
        raise ImageError(
            f"{path.name}: segments overlap, a label map has one value a voxel",
            reason="overlapping_segments",
            paths=[path],
        )
    plane[where] = value if value else pixels[where]
