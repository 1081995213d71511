"""Pictures of MetaTensors in notebooks, which MONAI's class does not provide."""

from __future__ import annotations

import sys
from typing import Any

IMAGE_CLASS = ("monai.data.meta_tensor", "MetaTensor")
"""Module and name of the class of images; neither is imported for this."""


def picture_images() -> None:
    """Let IPython, if this is its process, draw images and label maps that a cell returns."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        formatter = shell.display_formatter.formatters["image/png"]
        formatter.for_type_by_name(*IMAGE_CLASS, png_of)


def png_of(image: Any) -> bytes | None:
    """The picture of an image `[C, *spatial]` or label map; None for tensors of other shapes."""
    # Only cells that return an image load what draws it.
    from segmed.pictures.shown import as_png, picture_of  # noqa: PLC0415 - see above

    if image.ndim not in (3, 4) or 0 in image.shape:
        return None
    values = image.dtype
    if image.shape[0] == 1 and not values.is_floating_point and not values.is_complex:
        return as_png(picture_of(None, image))
    return as_png(picture_of(image))
