"""Write label maps as DICOM Segmentation objects, and read them.

One segment a structure, with coded concepts, colours and tracking identifiers. The form is BINARY
without empty frames unless another is requested, see `segmed.formats.SegForm`: of a study with 20
structures all frames are 12,000, at which browsers run out of memory. Identifiers are functions of
patient, study, series, content, model and form, so that a second delivery replaces the first; dates
and times are those of the source images, so that equal input and an equal model give equal bytes.
What was odd about the input is in ImageComments.

highdicom writes all but the pixels of masks and probabilities, which are written frame by frame:
memory does not grow with the number of structures.

Source:
    DICOM PS3.3 A.51 and C.8.20 (Segmentation IOD).
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import highdicom as hd
import numpy as np
import numpy.typing as npt
import torch
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.formats import BINARY_SEG, SegForm, SegKind, require_seg_form
from segmed.io.atomic import whole_file
from segmed.io.colours import structure_colour
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.references import (
    References,
    complete_headers,
    name_source_class,
    set_moment,
    sources_and_slices,
)
from segmed.io.dicom.seg_frames import (
    FrameSource,
    LabelFrames,
    shown_frames,
    stand_in_planes,
    write_pixels,
)
from segmed.io.dicom.segments import VALUE_TEXT
from segmed.io.dicom.uid import uid_from
from segmed.io.digest import sha256_of_text
from segmed.io.fractions import MOST, Fractions
from segmed.metatensor import MetaTensor

if TYPE_CHECKING:
    from segmed.structures import LabelClass

PRIVATE_SCHEME = "99SEGMED"
ANATOMY = hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
ARTIFICIAL_INTELLIGENCE = hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence")
SERIES_NUMBER = 9000
SYNTAXES: dict[SegKind, UID] = {
    "binary": ExplicitVRLittleEndian,
    "labelmap": RLELossless,
    "fractional": RLELossless,
}
"""Transfer syntaxes; there is none for compressed bits that viewers read."""

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
    form: SegForm = BINARY_SEG,
    fractions: Fractions | None = None,
) -> Path:
    """Write a label map as one DICOM Segmentation object; whole or not at all.

    Args:
        path: `.dcm`.
        label: `[*spatial]` or `[1, *spatial]` on the grid of `like`, a volume or a plane.
        like: The image, as it was read from its DICOM series.
        labels: The structures; segment numbers count them from 1. A structure without a code gets
            one of a private scheme made from its name.
        model_name: Name of what made the label map.
        model_version: Its version, or the hash of its package.
        form: Form of the object.
        fractions: Probabilities of the structures, for the form `fractional`.

    Returns:
        `path`.

    Raises:
        UsageError: The image is not from DICOM, `labels` is empty, or the form does not fit them.
        GeometryError: The label does not fit the image.
        ImageError: A value has no structure.
    """
    path = Path(path)
    require_seg_form(form, "dicom-seg", labels)
    references, slices = sources_and_slices(label, like, labels, path)
    identity = (references.key, model_name, model_version, *form.words)
    if references.audit.is_plane:
        form = _form_of_plane(form)
    source = _frame_source(form, slices, labels, fractions)
    planes = _planes(source, slices, labels, form)
    if len(references.datasets) == 1:  # highdicom requires the order of the file's frames
        planes = planes[np.argsort(references.frames)]
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
                segmentation_type=hd.seg.SegmentationTypeValues[form.kind.upper()],
                segment_descriptions=described,
                series_instance_uid=uid_from("seg series", *identity),
                series_number=SERIES_NUMBER,
                sop_instance_uid=uid_from("seg instance", *identity),
                instance_number=1,
                manufacturer="segmed",
                manufacturer_model_name=model_name,
                software_versions=model_version,
                device_serial_number="0",
                fractional_type=hd.seg.SegmentationFractionalTypeValues.PROBABILITY,
                max_fractional_value=MOST,
                omit_empty_frames=source is not None,
                transfer_syntax_uid=SYNTAXES[form.kind],
                series_description=f"Segmentation by {model_name}"[:64],
                content_label="SEGMENTATION",
            )
        _leave_background_out(segmentation)
        _settle(segmentation, references, identity)
        references.texts.restore(segmentation, references.datasets[0])
        with tempfile.TemporaryFile() as pixels:
            if source is not None:
                write_pixels(pixels, segmentation, source, references)
                _take_pixels(segmentation, pixels, source)
            with whole_file(path) as partial:
                segmentation.save_as(partial)
    return path


def _form_of_plane(form: SegForm) -> SegForm:
    """Form of the result of an image of one plane: a mask of each structure, found or not.

    Raises:
        ImageError: `no_volume`: probabilities are requested.
    """
    if form.kind == "fractional":
        raise ImageError(
            "fractional segmentations are written of volumes, got an image of one plane; choose "
            "--seg binary or labelmap",
            reason="no_volume",
        )
    return replace(form, all_frames=True)


def _frame_source(
    form: SegForm,
    slices: npt.NDArray[np.generic],
    labels: Sequence[LabelClass],
    fractions: Fractions | None,
) -> FrameSource | None:
    """Pixels that are written frame by frame; None where highdicom writes them."""
    if form.kind == "labelmap":
        return None
    if form.kind == "binary":
        return LabelFrames(slices, labels)
    if fractions is None:
        raise UsageError("a fractional segmentation needs probabilities, none were given")
    depth, rows, columns = slices.shape
    if (fractions.num, fractions.grid_shape) != (len(labels), (columns, rows, depth)):
        raise GeometryError(
            f"probabilities of {fractions.num} structures on {fractions.grid_shape} do not fit "
            f"{len(labels)} labels on {(columns, rows, depth)}"
        )
    return fractions


def _planes(
    source: FrameSource | None,
    slices: npt.NDArray[np.generic],
    labels: Sequence[LabelClass],
    form: SegForm,
) -> npt.NDArray[np.generic]:
    """Planes for highdicom: segment numbers, or stand-ins where frames are written here."""
    if source is not None:
        shown = shown_frames(source, all_frames=form.all_frames)
        return stand_in_planes(shown, slices.shape[1:])
    planes = np.zeros(slices.shape, dtype=np.uint8 if len(labels) <= 255 else np.uint16)
    for number, entry in enumerate(labels, start=1):
        planes[slices == entry.value] = number
    return planes


def _take_pixels(segmentation: hd.seg.Segmentation, pixels: IO[bytes], source: FrameSource) -> None:
    """Have an object's pixels written from a file."""
    pixels.seek(0)
    element = segmentation["PixelData"]
    element.value = pixels
    element.is_undefined_length = segmentation.file_meta.TransferSyntaxUID.is_encapsulated
    segmentation.SegmentsOverlap = "YES" if source.overlaps else "NO"


def _segment(
    number: int, entry: LabelClass, model_name: str, model_version: str, references: References
) -> hd.seg.SegmentDescription:
    name = references.texts.fitted(entry.name, f"label {entry.value}")
    if entry.code is None:
        kind = hd.sr.CodedConcept(private_code(entry.name), PRIVATE_SCHEME, name[:64])
    else:
        meaning = references.texts.fitted(entry.code.meaning, name)
        kind = hd.sr.CodedConcept(entry.code.value, entry.code.scheme, meaning[:64])
    if entry.made_by is not None:
        model_name, model_version = entry.made_by.name, entry.made_by.version
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=ANATOMY,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model_name[:64], version=model_version[:64], family=ARTIFICIAL_INTELLIGENCE
        ),
        tracking_id=name,
        tracking_uid=uid_from("tracking", references.key, str(entry.value), entry.name),
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


def _leave_background_out(segmentation: hd.seg.Segmentation) -> None:
    """Keep the background of a label map out of its segments.

    Pixel Padding Value says that 0 is background. Viewers that number segments by their places
    (seen in OHIF 3.12) show each in the colour of the one before.
    """
    if "PixelPaddingValue" in segmentation:
        kept = [item for item in segmentation.SegmentSequence if item.SegmentNumber != 0]
        segmentation.SegmentSequence = kept


def _settle(
    segmentation: hd.seg.Segmentation, references: References, identity: tuple[str, ...]
) -> None:
    """Replace what highdicom draws at random or from the clock, and add remarks on the input.

    Equal input gives equal bytes.
    """
    set_moment(segmentation, *references.moment)
    if references.audit.is_plane:  # required where no coordinates are stated
        name_source_class(segmentation, references)
        segmentation.PatientOrientation = references.datasets[0].get("PatientOrientation", "")
    if references.notes:
        segmentation.ImageComments = references.remarks[:MAX_COMMENT]
    organisation = uid_from("seg dimensions", *identity)
    for item in segmentation.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = organisation
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = organisation
