"""The image of a result, read again: the same bytes that were segmented, or an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom

from segmed.archive.ledger.inputs import InputOf
from segmed.archive.pacs.remote import content_of_series
from segmed.archive.study import content_hash
from segmed.errors import ImageError
from segmed.formats import has_image_suffix
from segmed.io.channel_files import CaseFiles, group_channels
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.scan import scan
from segmed.io.digest import sha256_of_file
from segmed.io.parts import files_of

MORE_FILES = re.compile(r" and \d+ more$")
"""End of the place of a series that has several files."""


def case_of(found: Sequence[InputOf], num_channels: int) -> CaseFiles:
    """Files of the input of an entry, with the bytes that were segmented.

    Args:
        found: Inputs of the entry, which are copies of each other.
        num_channels: Input channels of the model.

    Raises:
        ImageError: `not_here`: the image is in a PACS; `missing_file`: it is gone; `changed`: it
            has other content now.
    """
    places = [item for item in found if item.root and item.place]
    if not places:
        raise ImageError(
            "its image is in a PACS: fetch the series into a folder and segment that folder",
            reason="not_here",
        )
    last: ImageError | None = None
    for item in places:
        try:
            return _case_at(item, num_channels)
        except ImageError as error:
            last = error
    assert last is not None
    raise last


def fetched_case(item: InputOf, folder: Path) -> CaseFiles:
    """Files of an input of a PACS that were fetched again: the same objects, all of them.

    Args:
        item: The input.
        folder: Where they were put.

    Raises:
        ImageError: `changed`: they are others than those that were segmented.
    """
    wanted = item.uids[1:]
    audits = {audit.series_uid: audit for audit in scan(folder)}
    chosen = tuple(audits[uid] for uid in wanted if uid in audits)
    heads = [
        pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "PatientID"]
        )
        for audit in chosen
        for path in audit.files
    ]
    patient = str(heads[0].get("PatientID", "")) if heads else ""
    uids = [str(head.SOPInstanceUID) for head in heads]
    if content_of_series(patient, item.uids[0], wanted, uids) != item.entry.content:
        raise ImageError(
            "its series in the PACS has changed since it was segmented; segment the archive again",
            reason="changed",
            paths=[folder],
        )
    firsts = tuple(audit.files[0] for audit in chosen)
    return CaseFiles(item.entry.study, firsts, series=chosen)


def _case_at(item: InputOf, num_channels: int) -> CaseFiles:
    path = Path(item.root) / MORE_FILES.sub("", item.place)
    if not path.exists():
        raise ImageError(
            f"its image {path.name} is gone; restore it", reason="missing_file", paths=[path]
        )
    candidates = _series_near(path, item) if item.uids else _volumes_near(path, num_channels)
    for case, files in candidates:
        digests = [[sha256_of_file(part) for part in channel] for channel in files]
        if content_hash(digests) == item.entry.content:
            return case
    raise ImageError(
        f"its image {path.name} has changed since it was segmented; segment the archive again",
        reason="changed",
        paths=[path],
    )


def _volumes_near(
    path: Path, num_channels: int
) -> Iterable[tuple[CaseFiles, list[Sequence[Path]]]]:
    """The case that begins with a file: the file alone, or with the channels beside it."""
    beside = [path]
    if num_channels > 1:
        beside = sorted(other for other in path.parent.iterdir() if has_image_suffix(other))
    for case in group_channels(beside, num_channels):
        if path in case.files:
            yield case, [files_of(file) for file in case.files]


def _series_near(path: Path, item: InputOf) -> Iterable[tuple[CaseFiles, list[Sequence[Path]]]]:
    """The series of an entry in the folder of its first file, else anywhere below the root."""
    wanted = item.uids[1:]
    for folder in dict.fromkeys([path.parent, Path(item.root)]):
        audits: dict[str, SeriesAudit] = {}
        for audit in scan(folder):
            audits.setdefault(audit.series_uid, audit)
        if all(uid in audits for uid in wanted):
            chosen = tuple(audits[uid] for uid in wanted)
            firsts = tuple(audit.files[0] for audit in chosen)
            files: list[Sequence[Path]] = [audit.files for audit in chosen]
            yield CaseFiles(item.entry.study, firsts, series=chosen), files
