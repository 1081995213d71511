"""Overlay of one scored case: the same channels in reports and in the tracker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from segmed.io import grid_of, read_images, read_label
from segmed.manifest import Case, LabelClass, Manifest, read_reference
from segmed.pictures.legend import legend_of, orientation_of
from segmed.pictures.overlay import PANEL_HEIGHT, overlay_picture
from segmed.report.content import OverlayItem

NUM_COLOURS = 3
"""Channels of a colour picture."""


def overlay_of_case(
    manifest: Manifest, case: Case, prediction: Path, *, caption: str, model: str = ""
) -> OverlayItem:
    """Overlay of a case of an image set, read from its files.

    Args:
        manifest: The image set.
        case: The case.
        prediction: File of its predicted label map.
        caption: Text under the picture.
        model: Name of the model that predicted.

    Raises:
        ImageError: A file cannot be read.
    """
    image = read_images(manifest.image_paths(case)[:1], num_channels=manifest.num_channels)
    label_path = manifest.label_path(case)
    return overlay_of_images(
        image,
        None if label_path is None else read_reference(manifest, label_path, like=image),
        read_label(prediction),
        labels=manifest.labels,
        caption=caption,
        case=case.id,
        model=model,
    )


def overlay_of_images(
    image: MetaTensor,
    reference: MetaTensor | None,
    prediction: MetaTensor,
    *,
    labels: Sequence[LabelClass],
    caption: str,
    case: str,
    model: str = "",
) -> OverlayItem:
    """Overlay of a case that has been read.

    Args:
        image: Image `[C, *spatial]`; `shown_channels` of it are shown.
        reference: Label map `[1, *spatial]`, or None.
        prediction: Label map `[1, *spatial]`.
        labels: Structures of both label maps.
        caption: Text under the picture.
        case: Case id.
        model: Name of the model that predicted.
    """
    return OverlayItem(
        image=shown_channels(np.asarray(image)),
        reference=None if reference is None else np.asarray(reference)[0],
        prediction=np.asarray(prediction)[0],
        spacing_mm=grid_of(image).spacing_mm,
        caption=caption,
        orientation=orientation_of(image),
        case=case,
        model=model,
        viewer=True,
        legend=legend_of(labels, image),
    )


def shown_channels(image: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Channels of an image that a picture shows: a 2D colour image whole, else the first channel.

    The mean of several channels, such as T1 and FLAIR, is not an image that a reader could judge.

    Args:
        image: Array `[C, *spatial]`.
    """
    is_colour = image.ndim == 3 and image.shape[0] == NUM_COLOURS
    return image if is_colour else image[:1]


def draw_overlay(
    item: OverlayItem, caption: str = "", *, panel_height: int = PANEL_HEIGHT
) -> Image.Image:
    """Three-plane picture of an overlay.

    Args:
        item: The overlay; its own caption is not drawn.
        caption: Text under the planes.
        panel_height: Height of the planes in pixels.

    Raises:
        GeometryError: The arrays of the overlay differ in shape.
    """
    return overlay_picture(
        item.image,
        item.reference,
        item.prediction,
        item.spacing_mm,
        caption,
        orientation=item.orientation,
        panel_height=panel_height,
        legend=item.legend,
    )
