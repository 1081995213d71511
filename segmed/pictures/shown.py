"""Pictures of images and label maps as notebooks show them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from segmed.errors import UsageError
from segmed.io import grid_of
from segmed.metatensor import MetaTensor
from segmed.pictures.legend import legend_of, orientation_of
from segmed.pictures.overlay import overlay_picture
from segmed.structures import LabelClass


def picture_of(
    image: MetaTensor | None,
    label: MetaTensor | None = None,
    *,
    reference: MetaTensor | None = None,
    labels: Sequence[LabelClass] = (),
    caption: str = "",
) -> Image.Image:
    """Draw three planes of a volume, or the whole of a 2D image.

    Args:
        image: `[C, *spatial]`; None draws the structures on black.
        label: `[1, *spatial]`, outlined on the image.
        reference: `[1, *spatial]`, outlined pale under the label.
        labels: Names of the values.
        caption: Written under the planes with the names; without it neither is.

    Returns:
        A PIL image.

    Raises:
        UsageError: There is neither image nor label, or one is no `[C, *spatial]` in 2D or 3D.
        GeometryError: They differ in shape.
    """
    shown = image if image is not None else label
    if shown is None:
        raise UsageError("nothing to draw: give an image or a label map")
    if shown.ndim not in (3, 4):
        raise UsageError(
            f"a picture needs [C, *spatial] with 2 or 3 spatial axes, got shape "
            f"{tuple(shown.shape)}; of a batch give one item"
        )
    size = tuple(shown.shape[1:])
    ground = np.zeros((1, *size), np.float32) if image is None else np.asarray(image, np.float32)
    outlined = np.zeros(size, np.uint8) if label is None else np.asarray(label)[0]
    return overlay_picture(
        ground,
        None if reference is None else np.asarray(reference)[0],
        outlined,
        grid_of(shown).spacing_mm,
        caption,
        orientation=orientation_of(shown),
        legend=legend_of(labels, shown),
    )


def as_png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
