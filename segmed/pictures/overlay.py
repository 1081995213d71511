"""Three-plane pictures of a case: reference and prediction outlined on the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segmed.errors import GeometryError
from segmed.pictures.annotation import annotate, font_of
from segmed.pictures.legend import Colour, Legend

Array = npt.NDArray[Any]

PALENESS = 0.62
"""Share of white in the outline of the reference: wide and pale, under the prediction's."""

PANEL_HEIGHT = 340
"""Height of a panel in pixels."""

PLAIN = Legend()
"""Structures without names, distances in mm."""

EIGHT_BITS = 255

_INK = (228, 230, 235)
_FAINT = (148, 152, 160)
_GROUND = (10, 11, 14)
_WHITE = (255, 255, 255)
_SUPERSAMPLING = 2
_MARGIN_MM = 12.0
_MIN_EXTENT_MM = 40.0


@dataclass(frozen=True)
class _Panel:
    """One plane, rows down and columns to the right, with the letters at its four edges."""

    name: str
    image: Array
    reference: Array | None
    prediction: Array
    edges_mm: tuple[float, float]
    letters: tuple[str, str, str, str]  # left, right, top, bottom


def overlay_picture(
    image: Array,
    reference: Array | None,
    prediction: Array,
    spacing_mm: Sequence[float],
    caption: str,
    *,
    orientation: str = "",
    panel_height: int = PANEL_HEIGHT,
    legend: Legend = PLAIN,
) -> Image.Image:
    """A picture of one case: three planes (or one, in 2D) with both label maps outlined.

    The planes pass through the voxel where most is labelled or in dispute, are cut to the labelled
    region with a margin, keep the proportions of the body, and are shown as radiologists view
    them: the patient's right on the left, front or head up.

    Args:
        image: One channel, `[*spatial]`, or `[C, *spatial]`: three channels of a 2D image are
            shown in colour, others are averaged.
        reference: Integer map `[*spatial]`, 0 is background; None without one.
        prediction: Integer map `[*spatial]` on the same grid.
        spacing_mm: Voxel edge along each spatial axis, in mm, in array order.
        caption: Written under the planes, with the key to the colours; empty leaves both out.
        orientation: Axis codes such as `LPS`; empty shows a volume as stored, without letters.
        panel_height: Height of the planes in pixels.
        legend: Names and colours of the structures; no scale bar where its unit is pixels.

    Returns:
        The picture, RGB.

    Raises:
        GeometryError: The arrays differ in shape, or the spacing has another length.
    """
    image, reference, prediction = _checked(image, reference, prediction, spacing_mm)
    if prediction.ndim == 2:
        panels = [_flat_panel(image, reference, prediction, spacing_mm)]
    else:
        panels = _planes(image, reference, prediction, spacing_mm, orientation)
    drawn = [_draw(panel, panel_height, legend) for panel in panels]
    values = np.unique(prediction if reference is None else np.stack([prediction, reference]))
    shown = {int(value): legend.structures.get(int(value), "") for value in values if value}
    return _compose(drawn, caption, _key(shown, legend, reference is not None), panel_height)


def pale(colour: Colour) -> Colour:
    """The colour of a reference's outline, from that of its structure."""
    red, green, blue = (
        round(part + (white - part) * PALENESS) for part, white in zip(colour, _WHITE, strict=True)
    )
    return red, green, blue


def _key(shown: dict[int, str], legend: Legend, has_reference: bool) -> list[tuple[str, Colour]]:
    """Words and colours of the strip below the planes."""
    both = [("reference: wide, pale", _WHITE), ("prediction: narrow", _FAINT)]
    outlines = both if has_reference else []
    named = [(name or str(value), legend.colour(value)) for value, name in shown.items()]
    return [*outlines, *named]


def _checked(
    image: Array, reference: Array | None, prediction: Array, spacing_mm: Sequence[float]
) -> tuple[Array, Array | None, Array]:
    """The arrays with one shape, the image as shades from 0 to 1 (in colour: `[*spatial, 3]`)."""
    prediction = np.asarray(prediction)
    image = np.asarray(image, dtype=np.float32)
    is_coloured = image.ndim == 3 and prediction.ndim == 2 and len(image) == len("RGB")
    if image.ndim == prediction.ndim + 1 and not is_coloured:
        image = image.mean(axis=0)
    image = _shades(np.moveaxis(image, 0, -1) if is_coloured else image, is_coloured)
    shapes = {"image": image.shape[: prediction.ndim + (not is_coloured)]}
    shapes["prediction"] = prediction.shape
    if reference is not None:
        reference = np.asarray(reference)
        shapes["reference"] = reference.shape
    if len(set(shapes.values())) > 1 or prediction.ndim not in (2, 3):
        raise GeometryError(
            f"an overlay needs 2D or 3D arrays of one shape, got {shapes}; give all on one grid"
        )
    if len(spacing_mm) != prediction.ndim or min(spacing_mm) <= 0:
        raise GeometryError(
            f"spacing {tuple(spacing_mm)} does not fit {prediction.ndim} axes; "
            "give one positive voxel edge in mm for each"
        )
    return image, reference, prediction


def _shades(image: Array, is_coloured: bool) -> Array:
    """Grey levels or colours between 0 and 1; those of 8-bit colours as they are."""
    if is_coloured and image.size and image.min() >= 0 and 1 < image.max() <= EIGHT_BITS:
        low, high = 0.0, float(EIGHT_BITS)
    else:
        low, high = _window(image)
    shades = np.nan_to_num((image - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.clip(shades, 0, 1))


def _window(image: Array) -> tuple[float, float]:
    """Grey levels that become black and white: the 0.5 and 99.5 percentiles."""
    sample = image[np.isfinite(image)].ravel()[:: max(1, image.size // 200_000)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)


def _planes(
    image: Array,
    reference: Array | None,
    prediction: Array,
    spacing_mm: Sequence[float],
    orientation: str,
) -> list[_Panel]:
    """Axial, coronal and sagittal planes of a volume, brought to RAS where that is known."""
    spacing = tuple(float(edge) for edge in spacing_mm)
    if orientation:
        turn = nib.orientations.axcodes2ornt(tuple(orientation))
        image = nib.orientations.apply_orientation(image, turn)
        prediction = nib.orientations.apply_orientation(prediction, turn)
        if reference is not None:
            reference = nib.orientations.apply_orientation(reference, turn)
        order = np.argsort(turn[:, 0])
        spacing = tuple(spacing[int(axis)] for axis in order)
    box, centre = _focus(reference, prediction, spacing)
    layout = (
        ("axial", 2, 0, 1, ("R", "L", "A", "P")),
        ("coronal", 1, 0, 2, ("R", "L", "S", "I")),
        ("sagittal", 0, 1, 2, ("A", "P", "S", "I")),
    )
    panels = []
    for name, through, across, up, letters in layout:
        index: list[Any] = list(box)
        index[through] = centre[through]
        # [across, up] becomes rows downwards; RAS grows to the right, front and head: flip both
        shown = [
            None if array is None else np.asarray(array[tuple(index)]).T[::-1, ::-1]
            for array in (image, reference, prediction)
        ]
        panels.append(
            _Panel(
                name=name if orientation else f"across axis {through}",
                image=shown[0],  # type: ignore[arg-type]  # None only where None was given
                reference=shown[1],
                prediction=shown[2],  # type: ignore[arg-type]  # as above
                edges_mm=(spacing[up], spacing[across]),
                letters=letters if orientation else ("", "", "", ""),
            )
        )
    return panels


def _flat_panel(
    image: Array, reference: Array | None, prediction: Array, spacing_mm: Sequence[float]
) -> _Panel:
    """The one panel of a 2D image, rows and columns as stored."""
    return _Panel(
        name="",
        image=image,
        reference=reference,
        prediction=prediction,
        edges_mm=(float(spacing_mm[0]), float(spacing_mm[1])),
        letters=("", "", "", ""),
    )


def _focus(
    reference: Array | None, prediction: Array, spacing: Sequence[float]
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """The box worth showing, and the plane along each axis where most is labelled or disputed."""
    labelled = prediction != 0
    weight = labelled.astype(np.int64)
    if reference is not None:
        labelled = labelled | (reference != 0)
        weight = labelled.astype(np.int64) + (reference != prediction)
    slices, centre = [], []
    for axis, length in enumerate(prediction.shape):
        others = tuple(other for other in range(prediction.ndim) if other != axis)
        profile = weight.sum(axis=others)
        used = np.flatnonzero(profile)
        if used.size == 0:
            slices.append(slice(0, length))
            centre.append(length // 2)
            continue
        centre.append(int(profile.argmax()))
        middle = (used[0] + used[-1] + 1) / 2
        half = (used[-1] + 1 - used[0]) / 2 + _MARGIN_MM / spacing[axis]
        half = max(half, _MIN_EXTENT_MM / 2 / spacing[axis])
        slices.append(
            slice(max(0, math.floor(middle - half)), min(length, math.ceil(middle + half)))
        )
    return tuple(slices), tuple(centre)


def _draw(panel: _Panel, height: int, legend: Legend) -> Image.Image:
    """A panel at its final size, outlines, letters and scale bar on it."""
    rows, columns = panel.prediction.shape
    full = height * _SUPERSAMPLING
    per_mm = full / (rows * panel.edges_mm[0])
    per_mm = min(per_mm, 2.2 * full / (columns * panel.edges_mm[1]))
    scale = (panel.edges_mm[0] * per_mm, panel.edges_mm[1] * per_mm)
    size = (max(8, round(columns * scale[1])), max(8, round(rows * scale[0])))
    shown = Image.fromarray((panel.image * EIGHT_BITS).astype(np.uint8))
    shown = shown.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(shown)
    if panel.reference is not None:
        pales = _Pen(pen, scale, 5 * _SUPERSAMPLING, lambda value: pale(legend.colour(value)))
        _outline(pales, panel.reference)
    _outline(_Pen(pen, scale, 2 * _SUPERSAMPLING, legend.colour), panel.prediction)
    small = shown.resize(
        (max(4, size[0] // _SUPERSAMPLING), max(4, size[1] // _SUPERSAMPLING)),
        Image.Resampling.LANCZOS,
    )
    bar = per_mm / _SUPERSAMPLING if legend.unit == "mm" else 0.0
    annotate(small, panel.letters, panel.name, pixels_per_mm=bar)
    return small


@dataclass(frozen=True)
class _Pen:
    """Drawing of voxel edges: pixels a voxel, width, and the colour of each label value."""

    draw: ImageDraw.ImageDraw
    scale: tuple[float, float]
    width: int
    colour: Callable[[int], Colour]


def _outline(pen: _Pen, label: Array) -> None:
    """Draws the voxel edges between different labels: exact to the voxel, nothing smoothed."""
    padded = np.pad(label, 1)
    scale, half = pen.scale, pen.width / 2 - 0.5
    colours = {int(value): pen.colour(int(value)) for value in np.unique(label)}
    higher = np.maximum(padded[1:], padded[:-1])
    down, right = np.nonzero(padded[1:] != padded[:-1])  # edge above row `down`, over one column
    for row, column in zip(down, right, strict=True):
        fill = colours[int(higher[row, column])]
        top, left = row * scale[0], (column - 1) * scale[1]
        box = (left - half, top - half, left + scale[1] + half, top + half)
        pen.draw.rectangle(box, fill=fill)
    higher = np.maximum(padded[:, 1:], padded[:, :-1])
    down, right = np.nonzero(padded[:, 1:] != padded[:, :-1])
    for row, column in zip(down, right, strict=True):
        fill = colours[int(higher[row, column])]
        top, left = (row - 1) * scale[0], column * scale[1]
        box = (left - half, top - half, left + half, top + scale[0] + half)
        pen.draw.rectangle(box, fill=fill)


def _compose(
    panels: Sequence[Image.Image], caption: str, key: Sequence[tuple[str, Colour]], height: int
) -> Image.Image:
    """Panels side by side, over a strip with the caption and the key to the colours if any."""
    gap, strip = 6, 46 if caption else 0
    width = sum(panel.width for panel in panels) + gap * (len(panels) - 1)
    width = max(width, 460) if caption else width
    sheet = Image.new("RGB", (width, height + strip), _GROUND)
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, (height - panel.height) // 2))
        left += panel.width + gap
    if not caption:
        return sheet
    pen = ImageDraw.Draw(sheet)
    font = font_of(13)
    pen.text((10, height + 14), _shortened(caption, font, width - 20), _INK, font, anchor="lm")
    left = 10
    for word, colour in key:
        pen.rectangle((left, height + 32, left + 16, height + 35), fill=colour)
        pen.text((left + 22, height + 33), word, _FAINT, font, anchor="lm")
        left += 34 + int(font.getlength(word)) + 10
    return sheet


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text, its end replaced by an ellipsis where it would not fit."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
