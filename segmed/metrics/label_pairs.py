"""Predictions and references of one name: found, read on one grid, their odd values counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.errors import UsageError
from segmed.formats import LABEL_SUFFIXES, suffix_of
from segmed.geometry import same_grid
from segmed.io import grid_of, read_label, source_of
from segmed.io.batches import ReadAhead
from segmed.io.head import looks_like_dicom
from segmed.io.joining import require_joinable
from segmed.io.output_names import writable
from segmed.io.read import as_label, label_on_grid, load_label
from segmed.manifest.label_values import counts_in
from segmed.manifest.reference import as_meant, stored_structures
from segmed.manifest.schema import Manifest
from segmed.metatensor import MetaTensor
from segmed.metrics.archive_pairs import archive_files, archive_of
from segmed.structures import LabelClass


@dataclass(frozen=True)
class StrayValue:
    """A value in a label map that is not a label: it enters no score.

    Attributes:
        case: Case id.
        side: `prediction` or `reference`.
        value: The value.
        voxels: Voxels that have it.
    """

    case: str
    side: str
    value: int
    voxels: int


@dataclass(frozen=True)
class LabelPair:
    """A prediction and its reference on one grid.

    Attributes:
        prediction: `[1, *spatial]` integers.
        reference: The same of the reference.
        strays: Values of both that are not labels.
    """

    prediction: MetaTensor
    reference: MetaTensor
    strays: tuple[StrayValue, ...]


def label_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by case id; hidden files and files that are not images are left out.

    Args:
        folder: The folder. If it has no label map but subfolders have, ids contain their names:
            `sub-07/T1`.

    Raises:
        UsageError: There is no such folder, or no label map in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder of the label maps")
    files = _label_maps(folder, sorted(folder.iterdir()))
    if not files:
        files = _label_maps(folder, sorted(folder.rglob("*")))
    if not files:
        raise UsageError(f"{folder} contains no label map ({', '.join(LABEL_SUFFIXES)})")
    return files


def prediction_files(folder: Path, cases: Iterable[str]) -> dict[str, Path]:
    """Label maps that were predicted for cases, by case id.

    Args:
        folder: Folder of label maps, or output folder of an archive run, whose index says which
            output is of which input.
        cases: Case ids of the references.

    Raises:
        UsageError: There is no such folder, or no label map in it.
    """
    archive = archive_of(folder)
    return label_files(folder) if archive is None else archive_files(archive, cases)


def passed_over(folder: Path) -> list[Path]:
    """Files beside the label maps of a folder whose names show that they are not label maps."""
    maps = set(label_files(folder).values())
    beside = {path.parent for path in maps}
    found = sorted(path for inside in beside for path in inside.iterdir() if path.is_file())
    return [path for path in found if path not in maps and not path.name.startswith(".")]


def _label_maps(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    files = {}
    for path in paths:
        inside = path.relative_to(folder)
        suffix = suffix_of(path, LABEL_SUFFIXES)
        is_hidden = any(part.startswith(".") for part in inside.parts)
        if suffix and not is_hidden and path.is_file():
            case = "/".join(map(writable, inside.parts)).removesuffix(suffix)
            files[case] = path
    return files


class PairsAhead:
    """Reads the label maps of pairs, one pair after the other. For one thread.

    Small raster files of predictions share a process with each other, those of references too, but
    never predictions with references: whoever made the predictions has no influence on what they
    are scored against.

    Args:
        pairs: Prediction and reference of each case in the order in which they are read.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]] = ()) -> None:
        self._predictions = ReadAhead((prediction, True) for prediction, _ in pairs)
        self._references = ReadAhead((reference, True) for _, reference in pairs)

    def prediction(self, path: Path, labels: Sequence[LabelClass]) -> MetaTensor:
        """A prediction as `read_label` gives it."""
        return _label(self._predictions, path, labels)

    def reference(self, path: Path, labels: Sequence[LabelClass]) -> MetaTensor:
        """A reference as `read_label` gives it."""
        return _label(self._references, path, labels)


def _label(ahead: ReadAhead, path: Path, labels: Sequence[LabelClass]) -> MetaTensor:
    loaded = ahead.take(path, is_label=True)
    return read_label(path, labels=labels) if loaded is None else as_label(loaded)


def read_pair(
    case: str,
    prediction: Path,
    reference: Path,
    labels: Sequence[LabelClass],
    *,
    manifest: Manifest | None = None,
    ahead: PairsAhead | None = None,
) -> LabelPair:
    """Read a prediction and its reference; segments of DICOM objects by name and code.

    A DICOM segmentation, which may leave out empty slices, is put on the grid of the other, and a
    reference with its axes in another order or direction is turned onto that of the prediction.

    Args:
        case: Case id, for messages.
        prediction: A label map.
        reference: The label map that is right.
        labels: Structures that are scored.
        manifest: The set of the references, if it states how they are stored.
        ahead: Reads this pair among others; without it, each file is read alone.

    Raises:
        ImageError: A file cannot be read correctly, has a segment that is not a label, or they
            are of two patients, studies or frames of reference.
        GeometryError: They have different voxel centres; the case is named.
    """
    stored = labels if manifest is None else stored_structures(manifest)
    ahead = ahead or PairsAhead()
    found = ahead.prediction(prediction, labels)
    right = ahead.reference(reference, stored)
    if not same_grid(grid_of(found), grid_of(right)):
        if _is_dicom(reference) and (not _is_dicom(prediction) or right.numel() < found.numel()):
            right = as_label(load_label(reference, grid=grid_of(found), labels=stored))
        elif _is_dicom(prediction):
            found = as_label(load_label(prediction, grid=grid_of(right), labels=labels))
    names = (f"the prediction of {case}", "its reference")
    require_joinable([source_of(found), source_of(right)], names)
    right = label_on_grid(right, grid_of(found), names=names)
    if manifest is not None:
        right = as_meant(manifest, right)
    known = {value for label in labels for value in label.values}
    ignored = None if manifest is None else manifest.ignore_value
    strays = [
        StrayValue(case, side, value, voxels)
        for side, label in (("prediction", found), ("reference", right))
        for value, voxels in counts_in(label.as_tensor()).items()
        if value != 0 and value not in known and (side, value) != ("reference", ignored)
    ]
    return LabelPair(found, right, tuple(strays))


def stray_lines(strays: Sequence[StrayValue], most: int = 20) -> list[str]:
    """One line for each case and side with values that are not labels."""
    by_place: dict[tuple[str, str], list[StrayValue]] = {}
    for stray in strays:
        by_place.setdefault((stray.side, stray.case), []).append(stray)
    lines = []
    for (side, case), found in by_place.items():
        values = ", ".join(f"{one.value} ({one.voxels:,} voxels)" for one in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        lines.append(
            f"unknown: the {side} of {case} has values {values}{more} that are not labels: they "
            "enter no score; name them in --labels, or correct the file"
        )
    left = len(lines) - most
    return lines[:most] + ([f"unknown: {left} more files have such values"] if left > 0 else [])


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return looks_like_dicom(stream.read(132))
