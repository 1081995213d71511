"""The audit of a manifest: every fault of every case, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segmed.errors import ImageError, is_out_of_memory
from segmed.geometry import Grid, grid_difference, same_grid
from segmed.io import grid_of, source_of
from segmed.io.joining import require_joinable
from segmed.io.nifti import VOLUMES_NOTE
from segmed.io.read import as_label
from segmed.manifest.case_reader import CaseReader, over_cases
from segmed.manifest.census import count_values, rare_note
from segmed.manifest.content import image_digest, is_as_listed, repair_of
from segmed.manifest.faults import CaseRecord, ManifestFault, note, order_of
from segmed.manifest.label_values import counts_in
from segmed.manifest.outliers import duplicates, outliers
from segmed.manifest.reference import as_meant
from segmed.manifest.resampled import extents_of
from segmed.manifest.resampling_faults import resampling_faults
from segmed.manifest.schema import Case, Manifest


def check_manifest(
    manifest: Manifest,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[ManifestFault]:
    """Every fault of a manifest's cases.

    Errors make a case unfit: a missing or unreadable file, a digest that differs, another grid,
    label values that are not labels, no label in training, a wrong number of channels, a constant
    image, a second copy of another case, channels or a label of another patient, an image whose
    size is out of all bounds at the median spacing. Notes are for a look: labels stored as floats,
    empty labels, labels whose axes are turned onto those of the image, outliers of intensity or
    spacing, structures that occur never or hardly, or are lost at the median spacing, remarks of
    the reader (lossy compression, missing images).

    Args:
        manifest: What to check.
        workers: Cases checked at once.
        progress: Called with the number of cases done and of all, after each.

    Returns:
        Faults in the manifest's order of cases, errors before notes; empty where all is well.
    """
    cases = [*manifest.training, *manifest.test]
    training = frozenset(case.id for case in manifest.training)
    records: dict[str, CaseRecord] = {}

    def checked(reader: CaseReader, case: Case) -> CaseRecord:
        return check_case(reader, case, training)

    for record in over_cases(checked, manifest, cases, workers=max(workers, 1)):
        records[record.case_id] = record
        if progress is not None:
            progress(len(records), len(cases))
    ordered = [records[case.id] for case in cases]
    faults = [fault for record in ordered for fault in record.faults]
    faults += duplicates(ordered) + outliers(manifest, ordered)
    faults += _absent(manifest, ordered) + _rare(manifest, ordered)
    faults += resampling_faults(manifest, ordered, workers=workers)
    return sorted(faults, key=order_of([case.id for case in cases]))


def check_case(reader: CaseReader, case: Case, training: frozenset[str]) -> CaseRecord:
    """The faults of one case by itself, and the facts that are compared between cases.

    Args:
        reader: Reads the cases of the manifest.
        case: The case.
        training: Ids of the training cases.
    """
    record = CaseRecord(case.id)
    try:
        _examine(reader, case, record, is_training=case.id in training)
    except Exception as error:  # noqa: BLE001 - one case must not hide the faults of the others
        record.error(*_reason_of(error))
    return record


def _reason_of(error: Exception) -> tuple[str, str]:
    """Code and message of an exception that ended the check of one case."""
    if is_out_of_memory(error):
        return "out_of_memory", "reading it needs more memory than there is; check fewer at once"
    if isinstance(error, OSError):
        detail = error.strerror or type(error).__name__
        return "unreadable", f"its files cannot be read ({detail}); see to the disk or their rights"
    return "unexpected", f"its check ended by {type(error).__name__}: {error}"


def _examine(reader: CaseReader, case: Case, record: CaseRecord, *, is_training: bool) -> None:
    manifest = reader.manifest
    names = [*case.image, *([case.label] if case.label else [])]
    missing = [name for name in names if not (manifest.root / name).exists()]
    for name in missing:
        record.error("missing_file", f"{name} does not exist; restore it or drop the case")
    if case.label is None and is_training:
        record.error("missing_label", "a training case without a label; add one or move it to test")
    if missing:
        return
    for name in names:
        _check_digest(manifest, case, name, record)
    grid = _check_image(reader, case, record)
    label = manifest.label_path(case)
    if label is not None:
        _check_label(reader, label, grid, record)


def _check_digest(manifest: Manifest, case: Case, name: str, record: CaseRecord) -> None:
    expected = case.sha256.get(name)
    if expected is None:
        return
    try:
        found = image_digest(manifest.root / name)
        is_same = is_as_listed(manifest.root / name, expected, found)
    except OSError as error:
        record.error("unreadable", f"{name} cannot be read ({error.strerror})")
        return
    if not is_same:
        record.error(
            "wrong_hash",
            f"{name} is not the image that was listed (sha256 {found[:12]}, expected "
            f"{expected[:12]}); {repair_of(manifest.root / name, expected)}",
        )


def _check_image(reader: CaseReader, case: Case, record: CaseRecord) -> Grid | None:
    manifest = reader.manifest
    try:
        image = reader.image(case)
    except ImageError as error:
        record.error(error.reason, str(error))
        return None
    if image.shape[0] != len(manifest.channels):
        record.error(
            "channel_count",
            f"{image.shape[0]} channels, the manifest has {len(manifest.channels)}",
        )
    voxels = image.as_tensor()
    grid = grid_of(image)
    record.grid = grid
    record.source = source_of(image)
    declared = VOLUMES_NOTE.format(manifest.num_channels)  # the manifest says so itself
    for remark in record.source.notes if record.source else ():
        if remark != declared:
            record.note("remark", remark)
    record.content = _fingerprint(voxels.numpy(), grid)
    spread = torch.aminmax(voxels.flatten(1), dim=1)
    if bool((spread.min == spread.max).any()):
        record.error("constant_image", "a channel has one value only and shows nothing")
    record.levels = tuple(float(channel.mean()) for channel in voxels)
    return grid


def _check_label(reader: CaseReader, path: Path, grid: Grid | None, record: CaseRecord) -> None:
    manifest = reader.manifest
    try:
        loaded = reader.stored_label(path, grid=grid)
        require_joinable([record.source, loaded.source], ["the image", "its label"])
        label = as_meant(manifest, as_label(loaded))
    except ImageError as error:
        record.error(error.reason, str(error))
        return
    if loaded.array.dtype.kind == "f":
        off = float(np.abs(loaded.array - np.rint(loaded.array)).max())
        rounding = f"rounded by up to {off:.1e}" if off > 0 else "all of them whole numbers"
        record.note("float_label", f"{path.name} stores label values as floats, {rounding}")
    place = grid_of(label)
    if loaded.source.stored_as and grid is not None:
        record.note(
            "turned_label",
            f"{path.name} is stored as {loaded.source.stored_as}, the image as "
            f"{grid.orientation}, by their headers: the label is turned when it is read",
        )
    if grid is not None and not same_grid(grid, place):
        record.error("other_grid", grid_difference(grid, place, names=("the image", path.name)))
    voxels = counts_in(label.as_tensor())
    voxels.pop(0, None)
    known = {one.value for one in manifest.labels}
    ignored = voxels.pop(manifest.ignore_value, 0) if manifest.ignore_value else 0
    strays = sorted(voxels.keys() - known)
    if strays:
        shown = ", ".join(f"{value} ({voxels[value]} voxels)" for value in strays[:5])
        record.error(
            "stray_value",
            f"{path.name} contains {shown}{' and more' if len(strays) > 5 else ''}; labels are 0, "
            f"{', '.join(map(str, sorted(known)))}",
        )
    if ignored:
        share = ignored / label.numel()
        record.note("ignored", f"{share:.0%} of the voxels of {path.name} are not annotated")
    if not voxels:
        record.note("empty_label", f"{path.name} is background only")
    record.voxels = {value: count for value, count in voxels.items() if value in known}
    record.has_label = True
    record.extents = extents_of(np.asarray(label)[0], known)


def _fingerprint(voxels: npt.NDArray[np.float32], grid: Grid) -> str:
    """A digest of the voxels however they are stored, zipped or named."""
    running = hashlib.blake2b(repr(grid.shape).encode(), digest_size=16)
    running.update(np.ascontiguousarray(voxels).data)
    return running.hexdigest()


def _absent(manifest: Manifest, records: list[CaseRecord]) -> list[ManifestFault]:
    seen = frozenset().union(*(record.voxels for record in records))
    return [
        note("", "absent_label", f"label {label.name!r} (value {label.value}) occurs in no case")
        for label in manifest.labels
        if not seen.intersection(label.values)
    ]


def _rare(manifest: Manifest, records: list[CaseRecord]) -> list[ManifestFault]:
    labelled = [record for record in records if record.has_label]
    names = {label.value: label.name for label in manifest.labels}
    counts = count_values(names, [record.voxels for record in labelled])
    line = rare_note(counts, len(labelled))
    return [note("", "rare_label", line)] if line else []
