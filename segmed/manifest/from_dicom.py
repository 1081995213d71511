"""Drafts from a tree of DICOM files: series as channels, mask series or DICOM-SEG as labels."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.errors import ManifestError
from segmed.io.dicom.uid import short_hash
from segmed.manifest.content import is_hidden
from segmed.manifest.draft import Draft, case_id, relative
from segmed.manifest.label_values import label_values, named_labels
from segmed.manifest.schema import Case
from segmed.structures import Channel, Code, LabelClass

if TYPE_CHECKING:  # pydicom is needed only once a tree is scanned
    from segmed.io.dicom.series import SeriesAudit

log = logging.getLogger(__name__)

MASK_WORDS = re.compile(r"mask|label|segm|\bseg\b|\broi\b", re.IGNORECASE)
"""A series whose description holds one of these is a mask."""

VALUE_NOTE = re.compile(r"\blabel value (\d+)")
"""How our own DICOM-SEG objects note a segment's label value; others have segment numbers."""

PROBED_FILES = 64
"""Files looked into before a tree counts as free of DICOM."""


@dataclass(frozen=True)
class Study:
    """The series of one study that can be used.

    Attributes:
        id: Case id: hashes of patient and study, no identifiers.
        patient: Short hash of the patient.
        images: Image series by channel name.
        masks: Paths of masks.
    """

    id: str
    patient: str
    images: dict[str, SeriesAudit]
    masks: tuple[Path, ...]


def has_dicom(folder: Path) -> bool:
    """Whether one of the first files below a folder is a DICOM file."""
    files = (path for path in folder.rglob("*") if path.is_file() and not is_hidden(path))
    for _, path in zip(range(PROBED_FILES), files, strict=False):
        with path.open("rb") as stream:
            if stream.read(132)[128:] == b"DICM":
                return True
    return False


def draft_from_dicom(
    folder: Path,
    *,
    label_names: Sequence[str] = (),
    order: Sequence[str] = (),
    require: Sequence[str] = (),
) -> Draft:
    """A draft from any tree of DICOM files.

    A study is a case, its patient the group. Its channels are the series whose descriptions occur
    in every study that has a mask; the mask is a DICOM-SEG object, or the series whose description
    says so. Studies without a mask, and refused series, are logged and left out.

    Args:
        folder: The tree. Each series lies in a folder of its own.
        label_names: Names of the structures by growing value; else `foreground` or `label_N`.

        order: Names of the channels in order; all that the studies share if empty.
        require: Channels without which a study is dropped.

    Raises:
        ManifestError: No study has a mask and a channel in common with the others, a study has
            several masks or several series of one description, or series share a folder.
    """
    from segmed.io.dicom.series import scan  # noqa: PLC0415 - pydicom is needed for such trees alone

    by_study: dict[tuple[str, str], list[SeriesAudit]] = defaultdict(list)
    for audit in scan(folder):
        by_study[audit.study_uid, audit.patient_key].append(audit)
    shared_folders = _shared_folders([one for audits in by_study.values() for one in audits])
    studies = [_study(audits, shared_folders) for _, audits in sorted(by_study.items())]
    labelled = [study for study in studies if study.masks]
    for study in studies:
        if not study.masks:
            log.warning("study %s has no mask series and is left out", study.id)
    if not labelled:
        raise ManifestError(
            f"no study in {folder} has a mask: a DICOM-SEG object, or a series described as mask"
        )
    shared = set.intersection(*(set(study.images) for study in labelled))
    if not shared:
        raise ManifestError(
            f"the {len(labelled)} studies in {folder} have no series description in common"
        )
    names = sorted(shared)
    cases = sorted(
        (_case(folder, study, names, shared_folders) for study in labelled),
        key=lambda case: case.id,
    )
    first = labelled[0].images
    return Draft(
        name=case_id(folder.resolve().name),
        labels=_labels(folder, cases, label_names),
        channels=tuple(Channel(name=name, modality=first[name].modality or "OT") for name in names),
        training=tuple(cases),
        groups={study.id: study.patient for study in labelled},
    )


def _labels(folder: Path, cases: Sequence[Case], names: Sequence[str]) -> tuple[LabelClass, ...]:
    """The structures: as DICOM-SEG objects call them, or as given, or by their values."""
    files = [case.label for case in cases if case.label]
    if names or not all((folder / name).is_file() for name in files):
        return named_labels(label_values(folder, files), names)
    found: dict[int, LabelClass] = {}
    for name in files:
        for label in segments_of(folder / name):
            known = found.setdefault(label.value, label)
            if known.name != label.name:
                raise ManifestError(
                    f"segment {label.value} is {known.name!r} in one DICOM-SEG and "
                    f"{label.name!r} in another: give label names"
                )
    if not found:
        return named_labels(label_values(folder, files), names)
    return tuple(found[value] for value in sorted(found))


def segments_of(path: Path) -> list[LabelClass]:
    """The segments that a DICOM-SEG object describes; none for other files."""
    import pydicom  # noqa: PLC0415 - as above

    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    segments = []
    for item in dataset.get("SegmentSequence", []):
        noted = VALUE_NOTE.search(str(item.get("SegmentDescription", "")))
        kind = next(iter(item.get("SegmentedPropertyTypeCodeSequence", [])), None)
        code = None
        if kind is not None and "CodeValue" in kind:
            code = Code(
                scheme=str(kind.CodingSchemeDesignator),
                value=str(kind.CodeValue),
                meaning=str(kind.CodeMeaning),
            )
        value = int(noted[1]) if noted else int(item.SegmentNumber)
        segments.append(LabelClass(name=str(item.SegmentLabel), value=value, code=code))
    return segments


def _study(audits: Sequence[SeriesAudit], shared_folders: set[Path]) -> Study:
    patient = audits[0].patient_key or "unknown"
    study = Study(f"{patient}-{short_hash(audits[0].study_uid)}", patient, {}, ())
    masks: list[Path] = []
    for audit in audits:
        if audit.modality == "SEG":
            masks.extend(audit.files)
        elif not audit.usable:
            log.warning("%s of study %s is left out: %s", audit.name, study.id, audit.reason)
        elif MASK_WORDS.search(audit.description.replace("_", " ")):
            masks.append(_own_path(audit, shared_folders))
        else:
            channel = case_id(audit.description or audit.modality)
            if channel in study.images:
                raise ManifestError(
                    f"study {study.id} has several series described as {channel!r}: keep one"
                )
            study.images[channel] = audit
    return Study(study.id, patient, study.images, tuple(masks))


def _case(folder: Path, study: Study, channels: Sequence[str], shared_folders: set[Path]) -> Case:
    if len(study.masks) != 1:
        raise ManifestError(f"study {study.id} has {len(study.masks)} masks: keep one")
    images = tuple(
        relative(_own_path(study.images[name], shared_folders), folder) for name in channels
    )
    label = relative(study.masks[0], folder)
    return Case(id=study.id, group=study.patient, image=images, label=label)


def _shared_folders(audits: Sequence[SeriesAudit]) -> set[Path]:
    """Folders with files of more than one image series, or with folders of others inside."""
    owners: dict[Path, set[int]] = defaultdict(set)
    for number, audit in enumerate(audits):
        if audit.reason != "not_image":
            for path in (*audit.files, *audit.copies):
                for folder in path.parents:
                    owners[folder].add(number)
    return {folder for folder, numbers in owners.items() if len(numbers) > 1}


def _own_path(audit: SeriesAudit, shared_folders: set[Path]) -> Path:
    """The file of a series, or the folder that has no images of any other series."""
    if len(audit.files) == 1:
        return audit.files[0]
    folder = Path(os.path.commonpath([path.parent for path in audit.files]))
    if folder in shared_folders:
        raise ManifestError(
            f"{audit.name} does not have a folder of its own: "
            "`segmed manifest scan SRC --sort-into FOLDER` makes one a series"
        )
    return folder
