"""Letters, plane name and scale bar on a picture, placed so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]

SCALE_BARS_MM = (100, 50, 20, 10, 5, 2, 1)
"""Lengths of scale bars, in mm; the longest that takes a third of the width at most is drawn."""

FONT_SIZES = (15, 12, 10)
"""Sizes that are tried for the name and the scale bar, in pixels."""

_INK = (228, 230, 235)
_GROUND = (10, 11, 14)
_EDGE = 8
_GAP = 2


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font in a size in pixels; it is decoded once."""
    return ImageFont.load_default(size)


def annotate(
    panel: Image.Image, letters: Sequence[str], name: str, *, pixels_per_mm: float
) -> list[Box]:
    """Write orientation letters, the plane's name and a scale bar onto a picture.

    Args:
        panel: The picture, changed in place.
        letters: Orientation at the left, right, upper and lower edge; empty ones are left out.
        name: Name of the plane; left out where there is no room for it.
        pixels_per_mm: Scale of the picture; 0 if it is unknown, then there is no scale bar.

    Returns:
        Boxes of all that was drawn: left, top, right and bottom, in pixels.
    """
    pen = ImageDraw.Draw(panel)
    width, height = panel.size
    size = 18 if min(width, height) >= 160 else 13
    middle_x, middle_y, inset = width / 2, height / 2, size * 0.7
    spots = (
        (inset, middle_y),
        (width - inset, middle_y),
        (middle_x, inset),
        (middle_x, height - inset),
    )
    taken = [
        _write(pen, spot, letter, size, "mm")
        for letter, spot in zip(letters, spots, strict=True)
        if letter
    ]
    _name(pen, name, panel.size, taken)
    if pixels_per_mm > 0:
        _scale_bar(pen, pixels_per_mm, panel.size, taken)
    return taken


def _name(pen: ImageDraw.ImageDraw, name: str, size: tuple[int, int], taken: list[Box]) -> None:
    for font_size in FONT_SIZES:
        box = _extent(pen, (_EDGE, _EDGE - 2), name, font_size, "la")
        if name and _is_free(box, size, taken):
            taken.append(_write(pen, (_EDGE, _EDGE - 2), name, font_size, "la"))
            return


def _scale_bar(
    pen: ImageDraw.ImageDraw, pixels_per_mm: float, size: tuple[int, int], taken: list[Box]
) -> None:
    width, height = size
    level = height - _EDGE
    for bar_mm in (mm for mm in SCALE_BARS_MM if mm * pixels_per_mm <= width / 3):
        for font_size in FONT_SIZES:
            text, length = f"{bar_mm} mm", bar_mm * pixels_per_mm
            words = _extent(pen, (_EDGE, level - 5), text, font_size, "ls")
            box = (_EDGE, words[1], max(words[2], _EDGE + length), level + 1)
            if _is_free(box, size, taken):
                pen.line((_EDGE, level, _EDGE + length, level), _INK, 2)
                _write(pen, (_EDGE, level - 5), text, font_size, "ls")
                taken.append(box)
                return


def _extent(
    pen: ImageDraw.ImageDraw, spot: tuple[float, float], text: str, size: int, anchor: str
) -> Box:
    font = font_of(size)
    return pen.textbbox(spot, text, font, anchor=anchor, stroke_width=2)


def _write(
    pen: ImageDraw.ImageDraw, spot: tuple[float, float], text: str, size: int, anchor: str
) -> Box:
    font = font_of(size)
    pen.text(spot, text, _INK, font, anchor=anchor, stroke_width=2, stroke_fill=_GROUND)
    return _extent(pen, spot, text, size, anchor)


def _is_free(box: Box, size: tuple[int, int], taken: Sequence[Box]) -> bool:
    """True if a box is inside the picture and overlaps no other."""
    if box[0] < 0 or box[1] < 0 or box[2] > size[0] or box[3] > size[1]:
        return False
    return all(
        box[2] + _GAP <= other[0]
        or other[2] + _GAP <= box[0]
        or box[3] + _GAP <= other[1]
        or other[3] + _GAP <= box[1]
        for other in taken
    )
