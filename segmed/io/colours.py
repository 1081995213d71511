"""Display colours of structures: one for each, the same in DICOM objects, overlays and viewers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BASE = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
    (138, 127, 209), (240, 228, 66),
)  # fmt: skip
"""Okabe and Ito's palette (2008) with a violet for black: apart for colour-blind readers too."""

NUM_APART = 512
"""Colours that are chosen far from each other; more structures begin again."""

GRID_STEP = 12
"""Step of the red, green and blue values that are chosen from."""

LIGHTNESS, LEAST_CHROMA = (32.0, 92.0), 22.0
"""Bounds in CIELAB: grey, black and white are those of the images below."""

Colour = tuple[int, int, int]


def structure_colour(number: int) -> Colour:
    """The colour of a structure as red, green and blue, 0 to 255.

    Args:
        number: Place of the structure in the list of labels, from 0.

    Returns:
        The base colours first, then each time the colour that is farthest in CIELAB from all
        before it.
    """
    if number < len(BASE):
        return BASE[number]
    return _far_apart()[number % NUM_APART]


@lru_cache(maxsize=1)
def _far_apart() -> tuple[Colour, ...]:
    """The base colours, and those that a search for the farthest one adds to them.

    Source:
        Gonzalez 1985, Theoretical Computer Science 38: farthest-point selection.
    """
    import numpy as np  # noqa: PLC0415 - few callers have more structures than base colours

    levels = np.arange(0, 256, GRID_STEP)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    colours = np.concatenate([np.array(BASE), grid])
    lab = _cielab(colours / 255.0)
    is_vivid = np.hypot(lab[:, 1], lab[:, 2]) >= LEAST_CHROMA
    is_vivid &= (lab[:, 0] >= LIGHTNESS[0]) & (lab[:, 0] <= LIGHTNESS[1])
    distance = np.where(is_vivid, np.inf, -1.0)
    chosen: list[int] = []
    while len(chosen) < NUM_APART:
        nearest = len(chosen) if len(chosen) < len(BASE) else int(distance.argmax())
        chosen.append(nearest)
        np.minimum(distance, np.linalg.norm(lab - lab[nearest], axis=1), out=distance)
    return tuple((int(r), int(g), int(b)) for r, g, b in colours[chosen])


def _cielab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIELAB of sRGB colours `[n, 3]` from 0 to 1 under D65.

    Source:
        IEC 61966-2-1; CIE 15.
    """
    import numpy as np  # noqa: PLC0415 - as above

    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    relative = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )
