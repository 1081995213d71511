"""Choose the reader by a file's content. Imports neither torch nor MONAI, so it starts quickly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segmed.errors import ImageError
from segmed.formats import KNOWN_FORMATS, RASTER_FORMATS, is_named
from segmed.geometry import Grid
from segmed.io.bytestream import truncated
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.read import load_series, only_series
from segmed.io.dicom.rtstruct_read import load_rtstruct
from segmed.io.dicom.seg_read import load_seg
from segmed.io.foreign import foreign_format
from segmed.io.head import FileHead, sniff
from segmed.io.isolated import load_isolated, load_series_isolated
from segmed.io.limits import ReadLimits, out_of_memory
from segmed.io.metaimage import read_metaimage
from segmed.io.nifti import read_nifti
from segmed.io.nrrd import read_nrrd
from segmed.io.raster import read_raster
from segmed.io.source import Loaded
from segmed.io.stack import is_stack, read_stack
from segmed.structures import LabelClass


def load(
    path: Path | str | FileHead | SeriesAudit,
    limits: ReadLimits,
    *,
    trusted: bool = True,
    exact: bool = False,
    grid: Grid | None = None,
    labels: Sequence[LabelClass] = (),
    num_channels: int = 1,
) -> Loaded:
    """Read one image as an array.

    Args:
        path: A file of any known format, also as it was sniffed, or a folder with one DICOM
            series, or a series that has been scanned.
        limits: Bounds on its size and spacing.
        trusted: False runs compiled decoders in a process of their own; see `segmed.io.isolated`.
        exact: Keep stored integers (or float64) instead of float32, as labels need it.
        grid: Where to put a DICOM segmentation, or the contours of a structure set.
        labels: Structures to match the segments of a DICOM segmentation to, see `load_seg`, or the
            regions of a structure set, which is read with both alone.
        num_channels: Volumes of a 4D NIfTI file that are taken for channels.

    Returns:
        The image.

    Raises:
        ImageError: The file is refused; `reason` gives the cause.
    """
    place = _path_of(path)
    with _system_errors(place):
        content = _content_of(path, place)
    if not trusted and content.needs_decoder:
        if content.series is not None and not exact:
            return load_series_isolated(content.series, limits=limits)
        return load_isolated(place, exact=exact, grid=grid, labels=labels, limits=limits)
    with _system_errors(place):
        if content.series is not None:
            if exact and (seg := _object_of(content.series, "SEG")):
                return load_seg(seg, grid=grid, limits=limits, labels=labels)
            if exact and grid and labels and (drawn := _object_of(content.series, "RTSTRUCT")):
                return load_rtstruct(drawn, grid, labels)
            return load_series(content.series, limits, exact=exact)
        if content.is_stack:
            return read_stack(place, limits, exact=exact)
        return _load_file(place, content.head, limits, exact=exact, num_channels=num_channels)


@dataclass(frozen=True)
class _Content:
    """Content of a place: a DICOM series, a stack of rasters, or a file of another format."""

    series: SeriesAudit | None = None
    is_stack: bool = False
    head: FileHead | None = None

    @property
    def needs_decoder(self) -> bool:
        """True where a compiled decoder must run, which a damaged file can crash or hang."""
        if self.series is not None:
            return self.series.is_encapsulated
        return self.is_stack or (self.head is not None and self.head.format in RASTER_FORMATS)


def _path_of(path: Path | str | FileHead | SeriesAudit) -> Path:
    if isinstance(path, SeriesAudit):
        return path.files[0]
    return path.path if isinstance(path, FileHead) else Path(path)


def _content_of(path: Path | str | FileHead | SeriesAudit, place: Path) -> _Content:
    if isinstance(path, SeriesAudit):
        return _Content(path)
    if place.is_file():
        head = sniff(path if isinstance(path, FileHead) else place)
        if head.format == "dicom" and not is_half_pair(place):
            head.require_sound()
            return _Content(only_series(place))
        return _Content(head=head)
    if is_stack(place):
        return _Content(is_stack=True)
    return _Content(only_series(place)) if place.is_dir() else _Content()


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system while a file is read into its refusal.

    Raises:
        ImageError: `unreadable` or `out_of_memory`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(
            f"{path.name}: the system cannot read it ({reason}); see to the disk or its rights",
            reason="unreadable",
            paths=[path],
        ) from error
    except MemoryError as error:
        raise out_of_memory(path) from error


def _load_file(
    path: Path, head: FileHead | None, limits: ReadLimits, *, exact: bool, num_channels: int
) -> Loaded:
    """Read a file that is not DICOM."""
    if head is None:
        message = f"{path.name}: no such file or folder"
        raise ImageError(message, reason="missing_file", paths=[path])
    head.require_sound()
    if head.format == "nifti" or is_half_pair(path):
        return read_nifti(path, limits, exact=exact, num_channels=num_channels, head=head)
    if head.format == "nrrd":
        return read_nrrd(path, limits, exact=exact)
    if head.format == "metaimage":
        return read_metaimage(path, limits, exact=exact)
    if head.format is not None:
        return read_raster(path, head.format, limits, exact=exact)
    raise unknown_format(path, head.start)


def _object_of(audit: SeriesAudit, modality: str) -> Path | None:
    """The file of a DICOM object of a modality that has no images; None for anything else."""
    is_one = audit.reason == "not_image" and audit.modality == modality and len(audit.files) == 1
    return audit.files[0] if is_one else None


def is_half_pair(path: Path) -> bool:
    """Return whether a file without a magic may be the voxels of a NIfTI pair."""
    stem = path.with_suffix("") if path.suffix == ".gz" else path
    zipped = ".gz" if path.suffix == ".gz" else ""
    return stem.suffix == ".img" and stem.with_suffix(".hdr" + zipped).is_file()


def unknown_format(path: Path, start: bytes) -> ImageError:
    """The error for content that is not a known image."""
    if is_named(path, "nifti") and len(start) < 348:
        return truncated(path, f"the file ends inside its header ({len(start)} of 348 bytes)")
    if foreign := foreign_format(path.name, start):
        return ImageError(
            f"{path.name}: {foreign[0]} is not read: {foreign[1]}",
            reason="unsupported_format",
            paths=[path],
        )
    return ImageError(
        f"{path.name}: no known image format; known are {KNOWN_FORMATS}",
        reason="unknown_format",
        paths=[path],
    )
