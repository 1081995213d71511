"""Results among files: objects derived from an image are not images to segment.

Known by content: the mark that segmed writes into its own label maps and probabilities, NIfTI's
label intent, and the segments in the header of a 3D Slicer segmentation. Results of versions that
wrote no mark are known by the record of the run beside them, those of nnU-Net by its record. Where
a folder is searched, masks are also known by their names.

Source:
    NIfTI-1.1 standard, nifti1.h: NIFTI_INTENT_LABEL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from segmed.errors import ImageError
from segmed.formats import DICOM_OUTPUTS, OUTPUT_SUFFIXES, REPORT_SUFFIXES, stem_of
from segmed.io.head import FileHead, is_nifti, sniff
from segmed.naming import has_mask_words, is_mask_folder
from segmed.naming.words import chunks_of

ResultMark = Literal["segmed label map", "segmed probabilities"]
LABEL_MARK: ResultMark = "segmed label map"
PROBS_MARK: ResultMark = "segmed probabilities"
LABEL_INTENT = 1002
"""NIFTI_INTENT_LABEL: the value at each voxel is an index into some set of labels."""

RUN_RECORD = "predictions.json"
"""What `segmed predict` writes beside its results."""

LEDGER, ARCHIVE_OUTPUTS = "ledger.sqlite", "segmentations"
"""Ledger and results in the output folder of an archive run."""

INDEX = "index.csv"
"""Index of the outputs of an archive, beside its ledger."""

DICOM_RESULTS = (*(OUTPUT_SUFFIXES[name] for name in DICOM_OUTPUTS), REPORT_SUFFIXES["sr"])
"""Endings that segmed gives to DICOM results."""

CHANNEL_NUMBER = re.compile(r"_\d{4}$")
"""End of the names of nnU-Net's images."""

IF_IMAGE = "; rename it if it is an image"

NNUNET_RECORD = "predict_from_raw_data_args.json"
"""Record that nnU-Net writes beside its predictions, `CASE` without a channel number."""


def why_result(file: Path | FileHead) -> str:
    """Return why a file is recognised as a result; empty if it may be an image.

    Args:
        file: Any file, also as it was sniffed. One that cannot be opened may be an image: its
            reader says what is wrong.
    """
    path = file.path if isinstance(file, FileHead) else file
    if path.name.endswith(DICOM_RESULTS):
        return "a segmentation object or report of segmed"
    try:
        start = sniff(file).start
        return _why_nifti(start, path) if is_nifti(start) else _why_other(start)
    except (ImageError, OSError):
        return ""


def _why_nifti(head: bytes, path: Path) -> str:
    from segmed.io.nifti import parse_header  # noqa: PLC0415 - as above

    header = parse_header(head[:540], path)
    description = bytes(header["descrip"]).rstrip(b"\0").decode("latin-1")
    if description in (LABEL_MARK, PROBS_MARK):
        return f"a result: {description}"
    return "a label map (NIfTI intent LABEL)" if int(header["intent_code"]) == LABEL_INTENT else ""


def _why_other(head: bytes) -> str:
    if head.startswith(b"\x89PNG") and LABEL_MARK.encode() in head[:512]:
        return f"a result: {LABEL_MARK}"
    if head.startswith(b"NRRD") and b"Segment0_ID:=" in head:
        return "a segmentation of 3D Slicer"
    return ""


def results_among(files: Iterable[Path | FileHead]) -> dict[Path, str]:
    """The results among files, and how each is known.

    Args:
        files: Files of any folders, also as they were sniffed; records of runs beside them are
            read.
    """
    known: dict[Path, frozenset[str]] = {}
    found = {}
    for file in files:
        path = file.path if isinstance(file, FileHead) else file
        if path.parent not in known:
            known[path.parent] = _recorded(path.parent)
        if path.name in known[path.parent]:
            found[path] = f"a result of the run that {RUN_RECORD} describes"
        elif not CHANNEL_NUMBER.search(stem_of(path)) and _is_by_nnunet(path.parent):
            found[path] = f"a result of nnU-Net by the {NNUNET_RECORD} beside it"
        elif why := why_result(file):
            found[path] = why
    return found


def masks_by_name(images: Sequence[Path], inside: Sequence[str] = ()) -> dict[Path, str]:
    """The masks among the image files of one folder by their names, and the reason.

    A name counts where it distinguishes files: `x_seg` beside `x`, `mask` beside `t1`, or any file
    in `labelsTr` or `segmentations`. `scan.seg` without a `scan` beside it is an image, and so
    are all files of a folder in which every name is that of a mask. `CASE_0000` is an image.

    Args:
        images: Image files of one folder.
        inside: Names of the folders from the one that is searched to this one.
    """
    if inside and is_mask_folder(inside[-1]):
        return dict.fromkeys(images, f"in a folder of masks by its name{IF_IMAGE}")
    named = [
        path
        for path in images
        if has_mask_words(stem_of(path)) and not CHANNEL_NUMBER.search(stem_of(path))
    ]
    others = [_name_parts(path) for path in images if path not in named]
    return {
        path: f"named like a mask{IF_IMAGE}"
        for path in named
        if any(_name_parts(path) <= other for other in others)
    }


def _name_parts(path: Path) -> frozenset[str]:
    """The parts of a name that distinguish images: `x` and `t1` of `x_t1`, `x_t1_seg`."""
    parts = chunks_of(stem_of(path))
    return frozenset(part.casefold() for part in parts if not has_mask_words(part))


def _is_by_nnunet(folder: Path) -> bool:
    return (folder / NNUNET_RECORD).is_file()


def _recorded(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that its record calls results."""
    try:
        record = json.loads((folder / RUN_RECORD).read_bytes())
        outputs = [Path(entry["output"]) for entry in record["outcomes"] if entry["output"]]
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
    beside = {folder.name, ""}
    return frozenset(path.name for path in outputs if path.parent.name in beside)


def is_archive_outputs(folder: Path) -> bool:
    """True for the folder of the results of an archive run."""
    return folder.name == ARCHIVE_OUTPUTS and (folder.parent / LEDGER).is_file()
