"""Read images and labels of any known format, with their grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from segmed.doors import checked
from segmed.errors import ImageError, UsageError
from segmed.geometry import Grid, Turn, require_same_grid, same_grid, turn_onto
from segmed.io.arrays import load
from segmed.io.channel_files import CaseFiles
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.head import FileHead
from segmed.io.joining import joined_source, require_joinable
from segmed.io.label import as_integers
from segmed.io.limits import DEFAULT_LIMITS, ReadLimits, check_finite
from segmed.io.output_names import shown
from segmed.io.results import results_among
from segmed.io.source import Loaded, Source
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

Read = Callable[[Path | SeriesAudit], MetaTensor]
"""Reads one file or folder, or one DICOM series that has been scanned."""


@checked()
def read_image(
    path: Path | str | SeriesAudit | FileHead,
    *,
    trusted: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
    num_channels: int = 1,
) -> MetaTensor:
    """Read one image.

    Compressed DICOM pixels and raster images go through compiled decoders, which a damaged or
    hostile file can crash or hang: they run in a process of their own unless the file is trusted.
    NIfTI, NRRD, MetaImage and uncompressed DICOM are read by bounded Python in this process.

    Args:
        path: A NIfTI, NRRD, MetaImage, DICOM, PNG, TIFF or JPEG file, known by its content, or a
            folder with one DICOM series; or what `sniff` said of a file, or a scan of a
            series.
        trusted: Run compiled decoders in this process: faster, but a bad file can end it.
        limits: Bounds on its size and spacing, checked before voxels are read.
        num_channels: Channels that are expected: a 4D NIfTI file with that many volumes gives one
            channel a volume. With another number of volumes it is refused, since they may be times.

    Returns:
        `[C, *spatial]` float32 in the file's storage order. `.affine` is 4x4 float64 from voxel
        indices to RAS+ mm; `.meta["source"]` is a `Source`.

    Raises:
        ImageError: The image cannot be read correctly; `reason` is a code such as `truncated`,
            `decoder_hung` or `decoder_crashed`.
    """
    return as_image(load(path, limits, trusted=trusted, num_channels=num_channels))


@checked()
def read_images(
    paths: Sequence[Path | str],
    *,
    trusted: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
    num_channels: int = 1,
) -> MetaTensor:
    """Read several files on one grid as the channels of one image.

    Args:
        paths: One file (or DICOM folder) a channel, at least one.
        trusted: As for `read_image`.
        limits: Bounds on each.
        num_channels: Channels that are expected of a single file; see `read_image`.

    Returns:
        `[C, *spatial]` float32; geometry and source are those of the first.

    Raises:
        ImageError: One of them cannot be read correctly.
        GeometryError: They are on different grids.
        UsageError: No path was given.
    """
    expected = num_channels if len(paths) == 1 else 1
    images = [
        read_image(path, trusted=trusted, limits=limits, num_channels=expected) for path in paths
    ]
    return as_channels(images, paths)


def read_case(
    case: CaseFiles, *, num_channels: int = 1, trusted: bool = False, read: Read | None = None
) -> MetaTensor:
    """Read the image of a case, its channels stacked.

    Args:
        case: The case.
        num_channels: Input channels of the model; a case of one file must contain as many.
        trusted: Decode everything in this process, also what may crash it; see `read_image`.
        read: Reader of one file or series instead of `read_image`.

    Raises:
        ImageError: It cannot be read correctly, its files are not those of one case, or `derived`:
            one of them is a result.
    """
    case.require_sound()
    for path, why in results_among(case.sniffed).items():
        message = f"{shown(path.name)} is {why}, no image to segment"
        raise ImageError(message, reason="derived", paths=[path])
    expected = num_channels if len(case.files) == 1 else 1
    builtin = partial(read_image, trusted=trusted, num_channels=expected)
    if case.series:
        names = [f"channel {number}" for number in range(1, len(case.series) + 1)]
        return as_channels([(read or builtin)(audit) for audit in case.series], names)
    if read is not None:
        return as_channels([read(path) for path in case.files], case.files)
    return as_channels([builtin(file) for file in case.sniffed], case.files)


def as_channels(images: Sequence[MetaTensor], paths: Sequence[Path | str]) -> MetaTensor:
    """Images on one grid as the channels of one image.

    Args:
        images: `[C, *spatial]` each, at least one.
        paths: Where each is from, for messages.

    Returns:
        `[C, *spatial]`; geometry and source are those of the first, whose source lists the others.

    Raises:
        GeometryError: They are on different grids.
        ImageError: They are of several patients, studies or frames of reference.
        UsageError: There is none.
    """
    if not images:
        raise UsageError("an image needs at least one file, none was given")
    names = [Path(path).name for path in paths]
    sources = [source_of(image) for image in images]
    require_joinable(sources, names)
    for name, image in zip(names[1:], images[1:], strict=True):
        require_same_grid(grid_of(images[0]), grid_of(image), names=(names[0], name))
    if len(images) == 1:
        return images[0]
    values = torch.cat([image.as_tensor() for image in images])
    return MetaTensor(values, affine=images[0].affine, meta={"source": joined_source(sources)})


def read_label(
    path: Path | str,
    *,
    trusted: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
    like: MetaTensor | None = None,
    labels: Sequence[LabelClass] = (),
) -> MetaTensor:
    """Read a label map.

    Args:
        path: As for `read_image`, or a DICOM segmentation, or with `like` and `labels` a structure
            set. A palette image gives its indices, not its colours.
        trusted: As for `read_image`.
        limits: Bounds on its size and spacing.
        like: The image it belongs to, on whose grid the label is put: a label with its axes in
            another order or direction is turned, which changes no voxel; a DICOM segmentation gets
            the empty slices that it left out; a structure set is drawn.
        labels: Structures that the segments of a DICOM segmentation are matched to, by name and
            code; without any, its values are those that `write_dicom_seg` noted, else segment
            numbers. Regions of a structure set are matched by name. For other formats they play no
            part.

    Returns:
        `[1, *spatial]` int32. Values within 1e-3 of an integer are rounded to it.

    Raises:
        ImageError: The file cannot be read correctly, has other values (`not_integer`) or
            segments that are not labels (`unknown_segment`), or is of another patient,
            study or frame of reference than `like`.
        GeometryError: The label has other voxel centres than `like`, or a frame of a DICOM
            segmentation is on no slice of it.
    """
    grid = None if like is None else grid_of(like)
    loaded = load_label(path, trusted=trusted, limits=limits, grid=grid, labels=labels)
    return label_for(loaded, like)


def load_label(
    path: Path | str,
    *,
    trusted: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
    grid: Grid | None = None,
    labels: Sequence[LabelClass] = (),
) -> Loaded:
    """Read the stored values of a label map, not yet rounded.

    Args:
        path: As for `read_label`.
        trusted: As for `read_image`.
        limits: Bounds on its size and spacing.
        grid: Grid of the image, as for `read_label`; a label that cannot be put on it keeps its
            own, which the caller compares.
        labels: As for `read_label`.

    Raises:
        ImageError: As for `read_label`.
    """
    loaded = load(path, limits, trusted=trusted, exact=True, grid=grid, labels=labels)
    return loaded if grid is None else turned_onto(loaded, grid)


def turned_onto(label: Loaded, grid: Grid) -> Loaded:
    """A label with its axes permuted and flipped onto the grid of its image.

    The turn follows from the affines. A raster has none of its own and is not turned.

    Args:
        label: `[C, *spatial]` on any grid.
        grid: Grid of the image.

    Returns:
        The label itself where its grid is that of the image or cannot be turned onto it; else a
        view of its voxels, with the orientation of the file in `source.stored_as`.
    """
    stored = Grid(tuple(label.array.shape[1:]), np.asarray(label.affine_ras, dtype=np.float64))
    turn = _turn_of(stored, label.source, grid)
    if turn is None:
        return label
    source = _turned_source(label.source, stored)
    return Loaded(turn.turned(label.array), turn.grid(stored).affine_ras, source)


def label_on_grid(
    label: MetaTensor, grid: Grid, *, names: tuple[str, str] = ("the image", "its label")
) -> MetaTensor:
    """A label map that has been read, turned onto a grid as `read_label` turns it.

    Args:
        label: `[1, *spatial]`.
        grid: Grid of its image.
        names: What has the grid, and what the label map is, for the message.

    Returns:
        The label map itself where it is on that grid; else a turned copy.

    Raises:
        GeometryError: It has other voxel centres than the grid.
    """
    stored, source = grid_of(label), source_of(label)
    turn = _turn_of(stored, source, grid)
    if turn is None:
        require_same_grid(grid, stored, names=names)
        return label
    moved = label.as_tensor().permute(0, *(axis + 1 for axis in turn.order))
    meta = {key: value for key, value in label.meta.items() if key != "affine"}
    if source is not None:
        meta["source"] = _turned_source(source, stored)
    return MetaTensor(
        moved.flip([axis + 1 for axis in turn.flips]),
        affine=torch.from_numpy(turn.grid(stored).affine_ras),
        meta=meta,
        applied_operations=list(label.applied_operations),
    )


def _turn_of(stored: Grid, source: Source | None, grid: Grid) -> Turn | None:
    """The turn of a label onto a grid; None if it needs none, or none would do."""
    is_stated = source is None or source.states_spacing
    return turn_onto(stored, grid) if is_stated and not same_grid(stored, grid) else None


def _turned_source(source: Source, stored: Grid) -> Source:
    """The source of a turned label, without the header that describes the grid in the file."""
    return replace(source, header=b"", stored_as=stored.orientation[: len(stored.shape)])


def label_for(label: Loaded, image: MetaTensor | None) -> MetaTensor:
    """The label map of an image from its stored values, on the grid of the image.

    Args:
        label: Stored values, as `load_label` gives them.
        image: The image; None compares nothing.

    Raises:
        ImageError: `mixed_patient`, `mixed_study`, `mixed_frame_of_reference`, or as `as_label`.
        GeometryError: The label has other voxel centres than the image.
    """
    if image is None:
        return as_label(label)
    require_joinable([source_of(image), label.source], ["the image", "its label"])
    return label_on_grid(as_label(label), grid_of(image))


def grid_of(image: MetaTensor) -> Grid:
    """Shape and placement of an image or label map with its channel axis first."""
    return Grid(tuple(int(n) for n in image.shape[1:]), np.asarray(image.affine, dtype=np.float64))


def notes_of(image: MetaTensor) -> tuple[str, ...]:
    """Remarks on what an image was read from: odd, though not wrong; without identifiers."""
    source = source_of(image)
    return () if source is None else source.notes


def source_of(image: MetaTensor) -> Source | None:
    """Return the source of an image; None if it was made in memory."""
    source = image.meta.get("source")
    return source if isinstance(source, Source) else None


def as_image(loaded: Loaded) -> MetaTensor:
    """An image: `[C, *spatial]` float32, `.affine` 4x4 float64 to RAS+ mm, `meta["source"]`.

    Raises:
        ImageError: `non_finite`.
    """
    with np.errstate(over="ignore"):
        array = np.asarray(loaded.array, dtype=np.float32)  # in the layout of the file: no copy
    if min(array.strides, default=0) < 0:
        array = np.ascontiguousarray(array)  # torch has no negative strides
    check_finite(array, loaded.source.paths[0])
    return _tensor(torch.from_numpy(array), loaded)


def as_label(loaded: Loaded) -> MetaTensor:
    """A label map: `[1, *spatial]` int32; near-integers are rounded.

    Raises:
        ImageError: `not_integer`, or `channels` where there is more than one.
    """
    return _tensor(torch.from_numpy(as_integers(loaded.array, loaded.source.paths[0])), loaded)


def _tensor(tensor: torch.Tensor, loaded: Loaded) -> MetaTensor:
    affine = torch.from_numpy(np.asarray(loaded.affine_ras, dtype=np.float64))
    return MetaTensor(tensor, affine=affine, meta={"source": loaded.source})
