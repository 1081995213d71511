"""The table of file formats: names, kinds, readers, writers, and what is never an image.

Every search of a folder, every choice of a reader or writer by name and every list of known
suffixes derives from `FORMATS`; a format is added by adding its row. The content of a file decides
before its name does, see `segmed.io.head`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from segmed.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from segmed.structures import LabelClass

Kind = Literal["volume", "raster", "dicom"]


@dataclass(frozen=True)
class FileFormat:
    """One row of the table.

    Attributes:
        name: As in `Source.format`.
        title: Name in messages.
        kind: `volume`: a grid in space; `raster`: a picture in pixels; `dicom`: objects that are
            grouped by their identifiers, not by their names.
        suffixes: Suffixes by which its files are found, in lower case.
        reader: Function that reads it, `module:function`.
        written: Suffixes by which label maps of this format are written.
        writer: Function that writes them, `module:function`; empty if none are written by suffix.
        is_lossy: Its compression changes values, so that files in a folder of label maps are none.
        segmentations: Longer suffixes that mark a label map among files of this format.
    """

    name: str
    title: str
    kind: Kind
    suffixes: tuple[str, ...]
    reader: str
    written: tuple[str, ...] = ()
    writer: str = ""
    is_lossy: bool = False
    segmentations: tuple[str, ...] = ()


FORMATS = (
    FileFormat(
        "nifti",
        "NIfTI",
        "volume",
        (".nii.gz", ".nii", ".hdr", ".hdr.gz"),
        "segmed.io.nifti:read_nifti",
        (".nii", ".nii.gz"),
        "segmed.io.nifti_write:write_nifti",
    ),
    FileFormat(
        "nrrd",
        "NRRD",
        "volume",
        (".nrrd", ".nhdr"),
        "segmed.io.nrrd:read_nrrd",
        (".nrrd",),
        "segmed.io.nrrd:write_nrrd",
        segmentations=(".seg.nrrd",),
    ),
    FileFormat(
        "metaimage",
        "MetaImage",
        "volume",
        (".mha", ".mhd"),
        "segmed.io.metaimage:read_metaimage",
        (".mha",),
        "segmed.io.metaimage:write_metaimage",
    ),
    FileFormat(
        "dicom",
        "DICOM",
        "dicom",
        (".dcm", ".dicom", ".ima", ".dic"),
        "segmed.io.dicom.read:load_series",
    ),
    FileFormat(
        "png",
        "PNG",
        "raster",
        (".png",),
        "segmed.io.raster:read_raster",
        (".png",),
        "segmed.io.raster:write_png",
    ),
    FileFormat("tiff", "TIFF", "raster", (".tif", ".tiff"), "segmed.io.raster:read_raster"),
    FileFormat(
        "jpeg", "JPEG", "raster", (".jpg", ".jpeg"), "segmed.io.raster:read_raster", is_lossy=True
    ),
)
"""All formats that are read."""


def _suffixes(*kinds: Kind) -> tuple[str, ...]:
    return tuple(end for row in FORMATS if row.kind in kinds for end in row.suffixes)


VOLUME_SUFFIXES = _suffixes("volume")
RASTER_SUFFIXES = _suffixes("raster")
DICOM_SUFFIXES = _suffixes("dicom")
IMAGE_SUFFIXES = (*VOLUME_SUFFIXES, *RASTER_SUFFIXES)
"""Suffixes by which folders are searched for image files; DICOM files are found by content."""

LABEL_SUFFIXES = tuple(
    end for row in FORMATS if not row.is_lossy for end in (*row.suffixes, *row.segmentations)
)
"""Suffixes of files that are taken for label maps."""

WRITTEN_SUFFIXES = tuple(end for row in FORMATS for end in row.written)
"""Suffixes by which label maps are written."""

TITLES = [row.title for row in FORMATS]
KNOWN_FORMATS = f"{', '.join(TITLES[:-1])} and {TITLES[-1]}"
"""The formats that are read, for messages."""

PLANE_FORMAT = "dicom-plane"
"""Format of single-frame DICOM images that models of planes read as pictures."""

RASTER_FORMATS = (*(row.name for row in FORMATS if row.kind == "raster"), PLANE_FORMAT)
"""Formats of one plane that state neither spacing nor sides."""

OutputFormat = Literal["nifti", "seg-nrrd", "dicom-seg", "rtstruct", "probabilities"]

OUTPUT_SUFFIXES: dict[str, str] = {
    "nifti": ".nii.gz",
    "seg-nrrd": ".seg.nrrd",
    "dicom-seg": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
    "probabilities": ".probs.nii.gz",
}
"""Suffix of each `OutputFormat`."""

RASTER_OUTPUT_SUFFIX = ".png"
"""Suffix of a label map of a raster image, where NIfTI is requested."""

DICOM_OUTPUTS = ("dicom-seg", "rtstruct")
"""Output formats that need a DICOM series as input."""

ARCHIVE_OUTPUTS = ("nifti", "seg-nrrd", *DICOM_OUTPUTS)
"""Output formats of an archive run."""

OUTPUT_HELP = (
    "nifti, seg-nrrd (3D Slicer, with names and colours), dicom-seg or rtstruct (of DICOM series)"
)
"""Output formats of an archive run in the words of a command's help."""


def output_named(name: str, known: Iterable[str] = OUTPUT_SUFFIXES) -> OutputFormat:
    """Return an output format that is known.

    Args:
        name: Its name.
        known: Names to choose from.

    Raises:
        UsageError: The name is none of them; they are listed.
    """
    if name not in known:
        raise unknown_name("output format", name, known)
    return cast("OutputFormat", name)


SegKind = Literal["binary", "labelmap", "fractional"]

SEG_KINDS: tuple[SegKind, ...] = ("binary", "labelmap", "fractional")
"""Forms of DICOM segmentations."""

ReportKind = Literal["sr", "hl7", "fhir"]

REPORT_SUFFIXES: dict[ReportKind, str] = {
    "sr": ".sr.dcm",
    "hl7": ".oru.hl7",
    "fhir": ".fhir.json",
}
"""Suffix of each report of a DICOM segmentation, which has the name of that."""

REPORT_HELP = (
    "Report of volumes and quality flags beside each DICOM segmentation: sr (DICOM SR, TID 1500), "
    "hl7 (ORU^R01) or fhir (Observations); repeatable."
)

SEG_HELP = (
    "Form of DICOM segmentations: binary (a bit a voxel and structure), labelmap (one map of all "
    "structures, smallest; few viewers read it yet) or fractional (probabilities)."
)
ALL_FRAMES_HELP = "Also write the empty frames of DICOM segmentations, which are left out."


@dataclass(frozen=True)
class SegForm:
    """Form in which a DICOM segmentation is written.

    Attributes:
        kind: `binary`: a mask for each structure; `labelmap`: one map of segment numbers;
            `fractional`: a probability for each structure.
        all_frames: Also the frames without a pixel of their structure, of which viewers allocate
            as many as structures times slices. A label map always has one frame a slice.
        reports: Reports that are written beside it.
    """

    kind: SegKind = "binary"
    all_frames: bool = False
    reports: tuple[ReportKind, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The choices other than the default, of which identifiers are functions."""
        kind = () if self.kind == "binary" else (self.kind,)
        return (*kind, "all-frames") if self.all_frames and self.kind != "labelmap" else kind

    @property
    def settings(self) -> tuple[str, ...]:
        """The choices other than the default, of which outputs are functions."""
        return (*self.words, *sorted(set(self.reports)))


BINARY_SEG = SegForm()


def require_seg_form(seg: SegForm, output_format: str, labels: Sequence[LabelClass] = ()) -> None:
    """Refuse a form of DICOM segmentations that does not fit the format or the structures.

    Args:
        seg: The form.
        output_format: An output format.
        labels: The structures, once they are known.

    Raises:
        UsageError: It is unknown, another format is written, or structures overlap in a label map.
    """
    if seg.kind not in SEG_KINDS:
        raise unknown_name("form of DICOM segmentations", seg.kind, SEG_KINDS)
    for report in seg.reports:
        if report not in REPORT_SUFFIXES:
            raise unknown_name("report", report, REPORT_SUFFIXES)
    if output_format != "dicom-seg" and (seg.settings or seg.all_frames):
        chosen = f"--seg {seg.kind}" if seg.kind != "binary" else "--all-frames"
        if seg.reports:
            raise UsageError(
                f"--report {seg.reports[0]} refers to a DICOM segmentation: it needs --format "
                f"dicom-seg, got --format {output_format}"
            )
        raise UsageError(f"{chosen} is a form of --format dicom-seg, got --format {output_format}")
    overlapping = [entry.name for entry in labels if entry.region]
    if seg.kind == "labelmap" and overlapping:
        raise UsageError(
            f"a labelmap has one structure a voxel, {overlapping[0]!r} contains others: choose "
            "binary or fractional"
        )


SEGMENTATION_MODALITIES = frozenset({"SEG", "RTSTRUCT"})
"""Modalities of DICOM objects that contain a segmentation."""

NEVER_IMAGES = SEGMENTATION_MODALITIES | {
    "SR", "PR", "KO", "DOC", "REG", "RTPLAN", "RTDOSE", "RTRECORD", "RTIMAGE", "ECG", "AU",
}  # fmt: skip
"""Modalities that are never images to segment, whatever pixels they have."""

FOREIGN_FORMATS = (
    (b"GIF8", "a GIF picture", "save it as PNG"),
    (b"BM", "a BMP picture", "save it as PNG"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 picture", "save it as PNG or TIFF"),
    (b"\xffO\xffQ", "a JPEG 2000 picture", "save it as PNG or TIFF"),
    (b"\0\0\0\x0cJXL", "a JPEG XL picture", "save it as PNG or TIFF"),
    (b"MATRIX7", "an ECAT 7 file", "convert it to NIfTI"),
    (b"# === DATA DESCRIPTION FILE", "a Philips PAR/REC header", "convert it to NIfTI"),
    (b"\x89HDF", "an HDF5 or MINC 2 file", "convert it to NIfTI"),
    (b"CDF\x01", "a MINC 1 file", "convert it to NIfTI"),
    (b"CDF\x02", "a MINC 1 file", "convert it to NIfTI"),
    (b"\x93NUMPY", "a numpy array, which states no geometry", "save it as NIfTI"),
    (b"MATLAB 5", "a MATLAB file, which states no geometry", "save its volume as NIfTI"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"%PDF", "a PDF document", "export its pictures"),
    (b"# vtk", "a VTK file", "convert it to NIfTI"),
    (b"<VTKFile", "a VTK file", "convert it to NIfTI"),
    (b"<?xml", "an XML document", "it contains no image"),
)  # fmt: skip
"""Formats that are known and not read: first bytes, name and repair."""


def suffix_of(path: Path | str, among: tuple[str, ...] = IMAGE_SUFFIXES) -> str:
    """Suffix of a file name as it is spelled there; empty if it has none of the known ones.

    Args:
        path: A path or file name; upper and lower case are equal.
        among: The known suffixes; the longest that fits is taken.
    """
    name = Path(path).name
    fitting = [end for end in among if name.lower().endswith(end)]
    return name[len(name) - len(max(fitting, key=len)) :] if fitting else ""


def has_image_suffix(path: Path) -> bool:
    """True if the file name ends in one of `IMAGE_SUFFIXES`, in upper or lower case."""
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def stem_of(path: Path) -> str:
    """File name without its image suffix; the whole name if it has none."""
    return path.name.removesuffix(suffix_of(path))


def format_named(path: Path | str) -> FileFormat | None:
    """Row of the table that a file name belongs to by its suffix; None for any other name."""
    lower = Path(path).name.lower()
    return next((row for row in FORMATS if lower.endswith(row.suffixes)), None)


def is_named(path: Path | str, format_name: str) -> bool:
    """True if a file name has a suffix of one format."""
    row = format_named(path)
    return row is not None and row.name == format_name


def written_as(path: Path | str) -> FileFormat | None:
    """Row of the table by which a label map of this name is written; None if there is none."""
    lower = Path(path).name.lower()
    return next((row for row in FORMATS if row.written and lower.endswith(row.written)), None)
