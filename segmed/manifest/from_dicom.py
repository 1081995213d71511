"""Drafts from a tree of DICOM files: series as channels, mask series or DICOM-SEG as labels."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmed.errors import ManifestError
from segmed.formats import SEGMENTATION_MODALITIES, VOLUME_SUFFIXES
from segmed.geometry import Grid
from segmed.io.dicom.uid import short_hash
from segmed.manifest.content import is_hidden
from segmed.manifest.dicom_labels import (
    region_labels,
    volume_label,
    volumes_below,
    volumes_by_study,
)
from segmed.manifest.draft import Draft, case_id, relative
from segmed.manifest.found_structures import found_structures
from segmed.manifest.made_labels import LabelMaker
from segmed.manifest.schema import Case
from segmed.manifest.shared_channels import agree_on_channels
from segmed.naming import has_mask_words
from segmed.structures import Channel

if TYPE_CHECKING:  # pydicom is needed only once a tree is scanned
    from segmed.io.dicom.series import SeriesAudit

PROBED_FILES = 64
"""Files looked into before a tree counts as free of DICOM."""


@dataclass(frozen=True)
class DicomStudy:
    """The series of one study that can be used.

    Attributes:
        id: Case id: hashes of patient and study, no identifiers.
        patient: Short hash of the patient.
        images: Image series by channel name.
        masks: Paths of mask series and DICOM-SEG objects.
        regions: RT structure sets.
        files: All its DICOM files.
        left_out: What of it cannot be used, one line each.
    """

    id: str
    patient: str
    images: dict[str, SeriesAudit]
    masks: tuple[Path, ...]
    regions: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()


def has_dicom(folder: Path) -> bool:
    """Return whether one of the first files below a folder is a DICOM file."""
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
    maker: LabelMaker | None = None,
) -> Draft:
    """A draft from any tree of DICOM files.

    A study is a case, its patient the group. Its channels are the series whose descriptions occur
    in every study that has a mask. The mask is a DICOM-SEG object, or the series whose description
    says so; without these an RT structure set, or a NIfTI, NRRD or MetaImage file in the folder of
    the study. What is left out is among the remarks.

    Args:
        folder: The tree. Each series is in a folder of its own.
        label_names: Names of the structures by growing value; else those of the segments,
            `foreground` or `label_N`. Of structure sets the regions to take; else all.
        order: Names of the channels in order; all that the studies share if empty.
        require: Channels without which a study is dropped.
        maker: Writes label maps of structure sets, and of volumes stored in another order.

    Raises:
        ManifestError: No study has a mask and a channel in common with the others, a study has
            several masks or several series of one description, or series share a folder.
    """
    from segmed.io.dicom.series import scan  # noqa: PLC0415 - pydicom is needed for such trees alone

    by_study: dict[tuple[str, str], list[SeriesAudit]] = defaultdict(list)
    for audit in scan(folder):
        by_study[audit.study_uid, audit.patient_key].append(audit)
    shared_folders = _shared_folders([one for audits in by_study.values() for one in audits])
    studies = [_study(audits, shared_folders, order) for _, audits in sorted(by_study.items())]
    remarks = [remark for study in studies for remark in study.left_out]
    found, unlabelled = _labelled(folder, studies, remarks)
    if not found:
        raise ManifestError(
            f"no study in {folder} has a mask: a DICOM-SEG object, a series described as mask, an "
            "RT structure set, or a NIfTI file in the study's folder"
        )
    if unlabelled:
        number = f"{len(unlabelled)} of {len(unlabelled) + len(found)} sessions dropped"
        remarks.append(f"{number}: no mask ({', '.join(unlabelled[:3])})")
    channels = {study.id: sorted(study.images) for study in found}
    agreed = agree_on_channels(channels, order=order, require=require, unit="session")
    kept = sorted((study for study in found if study.id in agreed.cases), key=lambda one: one.id)
    paths, regions = _label_paths(kept, agreed.channels[0], label_names, maker or LabelMaker(None))
    cases = [
        Case(
            id=study.id,
            group=study.patient,
            image=tuple(
                relative(_own_path(study.images[name], shared_folders), folder)
                for name in agreed.channels
            ),
            label=Path(os.path.relpath(paths[study.id], folder)).as_posix(),
        )
        for study in kept
    ]
    first = kept[0].images
    files = [case.label for case in cases if case.label]
    labels, stored = found_structures(folder, files, regions or label_names)
    return Draft(
        name=case_id(folder.resolve().name),
        labels=labels,
        stored_labels=stored,
        channels=tuple(
            Channel(
                name=name,
                modality=first[name].modality or "OT",
                body_part=_body_part(study.images[name] for study in kept),
            )
            for name in agreed.channels
        ),
        training=tuple(cases),
        groups={study.id: study.patient for study in kept},
        remarks=(*remarks, *agreed.remarks),
    )


def _labelled(
    folder: Path, studies: Sequence[DicomStudy], remarks: list[str]
) -> tuple[list[DicomStudy], list[str]]:
    """The studies with a label, one each, and the ids of those without."""
    files = {study.id: study.files for study in studies}
    volumes = volumes_by_study(volumes_below(folder), files)
    found, bare = [], []
    for study in studies:
        kinds = {
            "mask series or DICOM-SEG": study.masks,
            "RT structure sets": study.regions,
            "volume files": tuple(volumes.get(study.id, ())),
        }
        present = [(kind, paths) for kind, paths in kinds.items() if paths]
        if not present:
            if study.images:
                bare.append(study.id)
            continue
        kind, paths = present[0]
        if len(paths) != 1:
            raise ManifestError(f"study {study.id} has {len(paths)} masks ({kind}): keep one")
        remarks += [f"{other} of study {study.id} not taken: {kind} is" for other, _ in present[1:]]
        found.append(dataclasses.replace(study, masks=paths))
    return found, bare


def _label_paths(
    studies: Sequence[DicomStudy], channel: str, names: Sequence[str], maker: LabelMaker
) -> tuple[dict[str, Path], Sequence[str]]:
    """The label map of each study, and the names of its values if structure sets name them."""
    paths, sets = {}, {}
    for study in studies:
        image, path = study.images[channel], study.masks[0]
        grid = Grid(tuple(image.shape), np.asarray(image.affine_ras, dtype=np.float64))
        if path in study.regions:
            sets[study.id] = (path, grid, image.frame_of_reference)
        elif path.name.lower().endswith(VOLUME_SUFFIXES):
            paths[study.id] = volume_label(study.id, path, grid, maker)
        else:
            paths[study.id] = path
    if not sets:
        return paths, ()
    if paths:
        raise ManifestError(
            f"{len(sets)} studies have structure sets, {len(paths)} have other masks: their "
            "structures cannot be matched; convert one of them"
        )
    return region_labels(sets, names, maker)


def _body_part(audits: Iterable[SeriesAudit]) -> str:
    """BodyPartExamined of some series, where all of them agree."""
    found = {audit.body_part.strip().upper() for audit in audits}
    return found.pop() if len(found) == 1 else ""


def _study(
    audits: Sequence[SeriesAudit], shared_folders: set[Path], order: Sequence[str]
) -> DicomStudy:
    patient = audits[0].patient_key or "unknown"
    name = f"{patient}-{short_hash(audits[0].study_uid)}"
    images: dict[str, SeriesAudit] = {}
    masks: list[Path] = []
    regions: list[Path] = []
    left_out = []
    for audit in audits:
        if audit.modality in SEGMENTATION_MODALITIES:
            (masks if audit.modality == "SEG" else regions).extend(audit.files)
        elif not audit.usable:
            left_out.append(f"{audit.name} of study {name} left out: {audit.reason}")
        elif has_mask_words(audit.description):
            masks.append(_own_path(audit, shared_folders))
        else:
            channel = case_id(audit.description or audit.modality)
            if channel in images and (not order or channel in order):
                raise ManifestError(
                    f"study {name} has several series described as {channel!r}: keep one, or leave "
                    "it out of --channels"
                )
            images[channel] = audit
    files = tuple(path for audit in audits for path in audit.files)
    return DicomStudy(name, patient, images, tuple(masks), tuple(regions), files, tuple(left_out))


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
