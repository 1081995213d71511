"""Write label maps as DICOM Segmentation objects, and read them.

Written as BINARY with all frames, because foreign readers mistake objects whose empty frames were
left out. One segment a label, with coded concepts. Identifiers are functions of patient, study,
series, content and model, so that a second delivery replaces the first; dates and times are those
of the source images, so that equal input and an equal model give equal bytes. What was odd about
the input is in ImageComments.

Source:
    DICOM PS3.3 A.51 and C.8.20 (Segmentation IOD).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
import numpy.typing as npt
import torch
from pydicom.uid import ExplicitVRLittleEndian

from segmed.io.atomic import whole_file
from segmed.io.colours import structure_colour
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.references import (
    References,
    complete_headers,
    sources_and_slices,
)
from segmed.io.dicom.seg_read import load_seg
from segmed.io.dicom.segments import VALUE_TEXT
from segmed.io.dicom.uid import uid_from
from segmed.io.digest import sha256_of_text
from segmed.io.read import as_label, grid_of
from segmed.metatensor import MetaTensor

if TYPE_CHECKING:
    from segmed.structures import LabelClass

PRIVATE_SCHEME = "99SEGMED"
ANATOMY = hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
ARTIFICIAL_INTELLIGENCE = hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence")
SERIES_NUMBER = 9000
MAX_CODE = 16
"""Characters that CodeValue (0008,0100), a short string, may have."""

MAX_COMMENT = 10240
"""Characters that ImageComments (0020,4000), a long text, may have."""


logging.getLogger("highdicom").setLevel(logging.WARNING)  # below, it quotes instance UIDs


def write_dicom_seg(
    path: Path | str,
    label: torch.Tensor,
    *,
    like: MetaTensor,
    labels: Sequence[LabelClass],
    model_name: str,
    model_version: str,
) -> Path:
    """Write a label map as one DICOM Segmentation object; whole or not at all.

    Args:
        path: `.dcm`.
        label: `[i, j, k]` or `[1, i, j, k]` on the grid of `like`.
        like: The image, as it was read from its DICOM series.
        labels: The structures; segment numbers count them from 1. A structure without a code gets
            one of a private scheme made from its name.
        model_name: Name of what made the label map.
        model_version: Its version, or the hash of its package.

    Returns:
        `path`.

    Raises:
        UsageError: The image is not from DICOM, or `labels` is empty.
        GeometryError: The label does not fit the image.
        ImageError: A value has no structure.
    """
    path = Path(path)
    references, slices = sources_and_slices(label, like, labels, path)
    planes = _planes(slices, labels)
    if len(references.datasets) == 1:  # highdicom requires the order of the file's frames
        planes = planes[np.argsort(references.frames)]
    identity = (references.key, model_name, model_version)
    described = [
        _segment(number, entry, model_name, model_version, references)
        for number, entry in enumerate(labels, start=1)
    ]
    with tolerant_pydicom():
        # Names of real patients break the recommended form; they are copied as they are.
        warnings.filterwarnings("ignore", category=UserWarning, module="highdicom")
        with complete_headers(path):
            segmentation = hd.seg.Segmentation(
                source_images=list(references.datasets),
                pixel_array=planes,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=described,
                series_instance_uid=uid_from("seg series", *identity),
                series_number=SERIES_NUMBER,
                sop_instance_uid=uid_from("seg instance", *identity),
                instance_number=1,
                manufacturer="segmed",
                manufacturer_model_name=model_name,
                software_versions=model_version,
                device_serial_number="0",
                omit_empty_frames=False,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                series_description=f"Segmentation by {model_name}"[:64],
                content_label="SEGMENTATION",
            )
        _settle(segmentation, references, identity)
        references.texts.restore(segmentation, references.datasets[0])
        with whole_file(path) as partial:
            segmentation.save_as(partial)
    return path


def _planes(
    slices: npt.NDArray[np.generic], labels: Sequence[LabelClass]
) -> npt.NDArray[np.generic]:
    """Segment numbers `[slices, rows, columns]`; of regions, which overlap, a mask each behind."""
    if any(entry.region for entry in labels):
        return np.stack([entry.mask(slices) for entry in labels], axis=-1).astype(np.uint8)
    planes = np.zeros(slices.shape, dtype=np.uint8 if len(labels) <= 255 else np.uint16)
    for number, entry in enumerate(labels, start=1):
        planes[slices == entry.value] = number
    return planes


def _segment(
    number: int, entry: LabelClass, model_name: str, model_version: str, references: References
) -> hd.seg.SegmentDescription:
    name = references.texts.fitted(entry.name, f"label {entry.value}")
    if entry.code is None:
        kind = hd.sr.CodedConcept(private_code(entry.name), PRIVATE_SCHEME, name[:64])
    else:
        meaning = references.texts.fitted(entry.code.meaning, name)
        kind = hd.sr.CodedConcept(entry.code.value, entry.code.scheme, meaning[:64])
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=ANATOMY,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model_name[:64], version=model_version[:64], family=ARTIFICIAL_INTELLIGENCE
        ),
        display_color=hd.color.CIELabColor.from_rgb(*structure_colour(number - 1)),
    )
    description.SegmentDescription = VALUE_TEXT.format(entry.value)
    return description


def private_code(name: str) -> str:
    """A code of at most 16 characters for a structure without one.

    Its letters and digits where they are all of the name and fit; else as many as fit with a hash
    of the name, so that names in any script, and long ones, have codes of their own.
    """
    slug = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    if name.isascii() and 0 < len(slug) <= MAX_CODE:
        return slug
    digest = sha256_of_text(name, "surrogatepass")[:8].upper()
    return f"{slug[: MAX_CODE - 9]}_{digest}".lstrip("_")


def _settle(
    segmentation: hd.seg.Segmentation, references: References, identity: tuple[str, ...]
) -> None:
    """Replace what highdicom draws at random or from the clock, and add remarks on the input.

    Equal input gives equal bytes.
    """
    day, time = references.moment
    segmentation.InstanceCreationDate = segmentation.ContentDate = day
    segmentation.InstanceCreationTime = segmentation.ContentTime = time
    for item in segmentation.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = day + time
    if references.notes:
        segmentation.ImageComments = references.remarks[:MAX_COMMENT]
    organisation = uid_from("seg dimensions", *identity)
    for item in segmentation.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = organisation
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = organisation


def read_dicom_seg(path: Path | str, *, like: MetaTensor | None = None) -> MetaTensor:
    """Read a DICOM Segmentation object as a label map.

    Args:
        path: The file.
        like: An image to whose grid the frames are mapped by their positions; without it the grid
            spans the frames of the object.

    Returns:
        `[1, columns, rows, slices]` int32. Values are segment numbers, or the label values that
        `write_dicom_seg` noted.

    Raises:
        ImageError: The object is refused; see `segmed.io.dicom.seg_read`.
        GeometryError: A frame is on no slice of `like`.
    """
    grid = None if like is None else grid_of(like)
    return as_label(load_seg(Path(path), grid=grid))
