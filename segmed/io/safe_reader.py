"""The bounded reading of `read_image` as a reader for MONAI's `LoadImage` and `LoadImaged`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import UsageError
from segmed.formats import has_image_suffix
from segmed.io.limits import DEFAULT_LIMITS, ReadLimits
from segmed.io.read import as_channels, read_images, read_label, source_of
from segmed.metatensor import ImageReader, MetaTensor
from segmed.one_line import OneLine
from segmed.structures import LabelClass

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class UnreadImage:
    """Paths of an image whose files `SafeReader.get_data` reads."""

    paths: tuple[Path, ...]


class SafeReader(OneLine, ImageReader):
    """Read what `read_image` reads, with its limits, its refusals and its geometry.

    `LoadImage` catches every error of `read` and then tries MONAI's own readers, one of which would
    accept the refused file. Files are therefore read in `get_data`, whose errors it passes on.

    Args:
        is_label: Read label maps (int32) by `read_label`; give `LoadImage` `dtype=None` with it.
        labels: Structures that the segments of a DICOM segmentation are matched to.
        num_channels: Channels that are expected of a single file; see `read_image`.
        trusted: Run compiled decoders in this process; see `read_image`.
        limits: Bounds on size and spacing.
    """

    def __init__(
        self,
        *,
        is_label: bool = False,
        labels: Sequence[LabelClass] = (),
        num_channels: int = 1,
        trusted: bool = False,
        limits: ReadLimits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__()
        self.is_label = is_label
        self.labels = tuple(labels)
        self.num_channels = num_channels
        self.trusted = trusted
        self.limits = limits

    def verify_suffix(self, filename: StrPath | Sequence[StrPath]) -> bool:
        """True if every path is a folder or has the suffix of a format that is read."""
        return all(path.is_dir() or has_image_suffix(path) for path in _paths(filename))

    def read(self, data: StrPath | Sequence[StrPath], **kwargs: Any) -> UnreadImage:
        """Note the paths of an image; several are its channels.

        Args:
            data: One file or DICOM folder, or one a channel.
            kwargs: None is defined.

        Raises:
            UsageError: An option was given.
        """
        if kwargs:
            raise UsageError(
                f"SafeReader.read has no option {', '.join(sorted(kwargs))}: give options to "
                "SafeReader itself"
            )
        return UnreadImage(_paths(data))

    def get_data(self, img: UnreadImage) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Read the files.

        Args:
            img: What `read` gave.

        Returns:
            The array, `[*spatial]` with one channel and `[C, *spatial]` with several, in storage
            order; and the metadata that MONAI's readers give, `affine` in RAS+ mm, with `format`,
            `modality` and `notes` as text. No identifiers are among them.

        Raises:
            ImageError: The image cannot be read correctly; `reason` says why.
            GeometryError: The channels lie on different grids.
        """
        image = self.image(img.paths)
        array = image.as_tensor().numpy()
        affine = np.asarray(image.affine, dtype=np.float64)
        is_single = array.shape[0] == 1
        source = source_of(image)
        meta = {
            "affine": affine,
            "original_affine": affine.copy(),
            "spatial_shape": np.asarray(array.shape[1:]),
            "space": "RAS",
            "original_channel_dim": float("nan") if is_single else 0,
            "format": "" if source is None else source.format,
            "modality": "" if source is None else source.modality,
            "notes": "" if source is None else "; ".join(source.notes),
        }
        return (array[0] if is_single else array), meta

    def image(self, paths: Sequence[StrPath], *, like: MetaTensor | None = None) -> MetaTensor:
        """Read the files as `read_image` gives them, channel axis first.

        Args:
            paths: One file or DICOM folder, or one a channel.
            like: Image on whose grid label maps must be.

        Raises:
            ImageError: The image cannot be read correctly; `reason` says why.
            GeometryError: The files lie on different grids.
        """
        files = _paths(paths)
        trusted, limits = self.trusted, self.limits
        if not self.is_label:
            channels = self.num_channels
            return read_images(files, trusted=trusted, limits=limits, num_channels=channels)
        read = [
            read_label(path, like=like, trusted=trusted, limits=limits, labels=self.labels)
            for path in files
        ]
        return read[0] if len(read) == 1 else as_channels(read, files)


def _paths(names: StrPath | Sequence[StrPath]) -> tuple[Path, ...]:
    listed = [names] if isinstance(names, str | os.PathLike) else names
    return tuple(Path(name) for name in listed)
