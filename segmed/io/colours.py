"""Display colours of structures: one for each, the same in DICOM objects, overlays and viewers."""

from __future__ import annotations

import colorsys

BASE = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
    (138, 127, 209), (240, 228, 66),
)  # fmt: skip
"""Okabe and Ito's palette (2008) with a violet for black: apart for colour-blind readers too."""

GOLDEN_TURN = 0.618033988749895
"""Step of the hue beyond the base colours: later hues fall into the largest gaps."""


def structure_colour(number: int) -> tuple[int, int, int]:
    """The colour of a structure as red, green and blue, 0 to 255.

    Args:
        number: Place of the structure in the list of labels, from 0.

    Returns:
        The base colours first, then hues by the golden section in three shades.
    """
    if number < len(BASE):
        return BASE[number]
    step = number - len(BASE)
    hue = (0.07 + step * GOLDEN_TURN) % 1.0
    value = (0.95, 0.7, 0.5)[step % 3]
    saturation = (0.65, 0.9, 0.45)[(step // 3) % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
