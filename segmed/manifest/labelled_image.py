"""Image and label of one case, read together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.errors import ManifestError, SegmedError
from segmed.io import grid_of, read_images
from segmed.manifest.reference import read_reference
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor
from segmed.pictures.shown import as_png, picture_of
from segmed.structures import LabelClass

if TYPE_CHECKING:
    from PIL.Image import Image


class LabelledImage(tuple[MetaTensor, MetaTensor | None]):
    """Image and label map of a case on one grid: `image, label = manifest.read(case)`.

    Args:
        image: `[C, *spatial]` float32.
        label: `[1, *spatial]` int32 with the values of the manifest's labels; None for a case
            without a reference.
        case: Id of the case.
        labels: Structures of the label map.
    """

    case: str
    labels: tuple[LabelClass, ...]

    def __new__(
        cls,
        image: MetaTensor,
        label: MetaTensor | None,
        *,
        case: str,
        labels: tuple[LabelClass, ...] = (),
    ) -> LabelledImage:
        """Pair an image with its label."""
        pair = super().__new__(cls, (image, label))
        pair.case, pair.labels = case, labels
        return pair

    @property
    def image(self) -> MetaTensor:
        """`[C, *spatial]` float32."""
        return self[0]

    @property
    def label(self) -> MetaTensor | None:
        """`[1, *spatial]` int32, or None."""
        return self[1]

    def __repr__(self) -> str:
        """Case, size, spacing and structures in one line."""
        grid = grid_of(self.image)
        size = "x".join(map(str, grid.shape))
        edges = "x".join(f"{edge:.3g}" for edge in grid.spacing_mm)
        names = ", ".join(item.name for item in self.labels)
        found = "no label" if self.label is None else f"label: {names}"
        channels = "1 channel" if len(self.image) == 1 else f"{len(self.image)} channels"
        return f"LabelledImage({self.case!r}: {channels} of {size} voxels of {edges} mm; {found})"

    def plot(self) -> Image:
        """Picture of three planes (or one, in 2D) with the label outlined on the image."""
        return picture_of(self.image, self.label, labels=self.labels, caption=self.case)

    def _repr_png_(self) -> bytes:
        """The same picture as PNG, for notebooks."""
        return as_png(self.plot())


def read_labelled(manifest: Manifest, case: Case) -> LabelledImage:
    """Read image and label of a case.

    Args:
        manifest: The image set of the case.
        case: One of its cases.

    Raises:
        ManifestError: A file cannot be read correctly, or label and image differ in their grids;
            the message names the case.
    """
    path = manifest.label_path(case)
    try:
        image = read_images(manifest.image_paths(case), num_channels=manifest.num_channels)
        label = None if path is None else read_reference(manifest, path, like=image)
    except SegmedError as error:
        raise ManifestError(f"case {case.id}: {error}") from error
    return LabelledImage(image, label, case=case.id, labels=manifest.labels)
