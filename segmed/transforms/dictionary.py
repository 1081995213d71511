"""The transforms of this package for the entries of a dictionary, by MONAI's conventions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from segmed.errors import UsageError
from segmed.io.read import grid_of, label_on_grid
from segmed.metatensor import InvertibleTransform, MapTransform, Transform
from segmed.plan.schema import Intensity
from segmed.transforms.bias import CorrectBias
from segmed.transforms.crop import Box, CropBox, CropNonzero, nonzero_box
from segmed.transforms.intensity import ClipChannels, ScaleChannels
from segmed.transforms.labels import ClassIndices, KnownLabels
from segmed.transforms.reorient import Reorient
from segmed.transforms.spline_spacing import SplineSpacing

Keys = Hashable | Iterable[Hashable]
Row = Mapping[Hashable, Any]


class EachEntry(MapTransform):
    """An array transform on some entries of a dictionary.

    Args:
        keys: The entries.
        steps: One array transform for all entries, or one each.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self, keys: Keys, steps: Transform | Sequence[Transform], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        given = list(steps) if isinstance(steps, Sequence) else [steps] * len(self.keys)
        if len(given) != len(self.keys):
            raise UsageError(
                f"there are {len(given)} steps for {len(self.keys)} keys; give one each"
            )
        self.steps = tuple(given)

    def __repr__(self) -> str:
        """Entries and steps in one line."""
        steps = [repr(step) for step in self.steps]
        shown = ", ".join(steps if len(set(steps)) > 1 else steps[:1])
        return f"{type(self).__name__}({list(self.keys)}, {shown})"

    def __call__(self, data: Row) -> dict[Hashable, Any]:
        """Return the dictionary with its entries transformed."""
        done = dict(data)
        for key, step in self.key_iterator(done, self.steps):
            done[key] = step(done[key])
        return done


class EachInvertibleEntry(EachEntry, InvertibleTransform):
    """An invertible array transform on some entries of a dictionary."""

    def inverse(self, data: Row) -> dict[Hashable, Any]:
        """Return the dictionary with its entries on the grid, or of the values, of before."""
        done = dict(data)
        for key, step in self.key_iterator(done, self.steps):
            done[key] = step.inverse(done[key])
        return done


class CorrectBiasd(EachEntry):
    """`CorrectBias` of some entries.

    Args:
        keys: The entries.
        channels: See `CorrectBias`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self,
        keys: Keys,
        channels: Sequence[bool] | None = None,
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, CorrectBias(channels), allow_missing_keys)


class Reorientd(EachInvertibleEntry):
    """`Reorient` of some entries.

    Args:
        keys: The entries.
        orientation: See `Reorient`.
        mirror: See `Reorient`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
        lazy: Refused; see `GridStep`.
    """

    def __init__(
        self,
        keys: Keys,
        orientation: str,
        *,
        mirror: bool = True,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        step = Reorient(orientation, mirror=mirror, lazy=lazy)
        super().__init__(keys, step, allow_missing_keys)


class CropBoxd(EachInvertibleEntry):
    """`CropBox` of some entries.

    Args:
        keys: The entries, all on one grid.
        box: See `CropBox`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
        lazy: Refused; see `GridStep`.
    """

    def __init__(
        self, keys: Keys, box: Box, *, allow_missing_keys: bool = False, lazy: bool = False
    ) -> None:
        super().__init__(keys, CropBox(box, lazy=lazy), allow_missing_keys)


class CropNonzerod(EachInvertibleEntry):
    """Crop entries to the bounding box of the non-zero voxels of one of them.

    Args:
        keys: The entries, all on one grid.
        source_key: The entry whose voxels are looked at.
        allow_missing_keys: Leave out entries that the dictionary lacks.
        lazy: Refused; see `GridStep`.
    """

    def __init__(
        self,
        keys: Keys,
        source_key: Hashable,
        *,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, CropNonzero(lazy=lazy), allow_missing_keys)
        self.source_key = source_key

    def __call__(self, data: Row) -> dict[Hashable, Any]:
        """Return the dictionary with its entries cropped."""
        box = nonzero_box(data[self.source_key])
        done = dict(data)
        for key, step in self.key_iterator(done, self.steps):
            assert isinstance(step, CropBox)
            done[key] = step.cropped(done[key], box)
        return done


class SplineSpacingd(EachInvertibleEntry):
    """`SplineSpacing` of some entries.

    Args:
        keys: The entries.
        spacing_mm: See `SplineSpacing`.
        order: For each entry: 0, 1 or 3, or one an axis; or one order for all entries.
        allow_missing_keys: Leave out entries that the dictionary lacks.
        lazy: Refused; see `GridStep`.
    """

    def __init__(
        self,
        keys: Keys,
        spacing_mm: Sequence[float],
        *,
        order: int | Sequence[int | Sequence[int]] = 3,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        if isinstance(order, int):
            steps: Transform | list[Transform] = SplineSpacing(spacing_mm, order=order, lazy=lazy)
        else:
            steps = [SplineSpacing(spacing_mm, order=one, lazy=lazy) for one in order]
        super().__init__(keys, steps, allow_missing_keys)


class ClipChannelsd(EachEntry):
    """`ClipChannels` of some entries.

    Args:
        keys: The entries.
        rules: See `ClipChannels`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self, keys: Keys, rules: Sequence[Intensity], *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, ClipChannels(rules), allow_missing_keys)


class ScaleChannelsd(EachEntry):
    """`ScaleChannels` of some entries.

    Args:
        keys: The entries.
        rules: See `ScaleChannels`.
        in_place: See `ScaleChannels`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self,
        keys: Keys,
        rules: Sequence[Intensity],
        *,
        in_place: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ScaleChannels(rules, in_place=in_place), allow_missing_keys)


class KnownLabelsd(EachEntry):
    """`KnownLabels` of some entries, each on the grid of its image.

    Args:
        keys: The entries.
        values: See `KnownLabels`.
        image_key: Entry of the image onto whose grid they are turned; None compares none.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self,
        keys: Keys,
        values: Sequence[int],
        *,
        image_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, KnownLabels(values), allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Row) -> dict[Hashable, Any]:
        """Return the dictionary with its label maps checked, and turned onto the image's grid.

        Raises:
            GeometryError: A label map has other voxel centres than the image.
            ImageError: It has a value that is not among the known ones (`unknown_label`).
        """
        done = dict(data)
        if self.image_key is not None:
            grid = grid_of(done[self.image_key])
            for key in self.key_iterator(done):
                done[key] = label_on_grid(done[key], grid)
        return super().__call__(done)


class ClassIndicesd(EachInvertibleEntry):
    """`ClassIndices` of some entries.

    Args:
        keys: The entries.
        values: See `ClassIndices`.
        are_known: See `ClassIndices`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self,
        keys: Keys,
        values: Sequence[int],
        *,
        are_known: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        step = ClassIndices(values, are_known=are_known)
        super().__init__(keys, step, allow_missing_keys)


__all__ = [
    "ClassIndicesd",
    "ClipChannelsd",
    "CorrectBiasd",
    "CropBoxd",
    "CropNonzerod",
    "KnownLabelsd",
    "Reorientd",
    "ScaleChannelsd",
    "SplineSpacingd",
]
