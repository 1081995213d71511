"""Legend and orientation of a picture, from what the image states of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from segmed.io import grid_of, source_of
from segmed.io.colours import structure_colour
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Legend:
    """Structures of label maps and the unit of their grid.

    Attributes:
        structures: Name of each label value, in the order of the list of labels: the place in it
            decides the colour. Values that are not listed take the colour of their number.
        unit: `mm`, or `px` where the images state no spacing, as raster images do not.
    """

    structures: Mapping[int, str] = field(default_factory=dict)
    unit: Literal["mm", "px"] = "mm"

    def colour(self, value: int) -> Colour:
        """Display colour of a label value, the same in every picture and object."""
        places = {listed: place for place, listed in enumerate(self.structures)}
        return structure_colour(places.get(value, max(value - 1, 0)))


def legend_of(labels: Sequence[LabelClass], image: MetaTensor) -> Legend:
    """Names and colours of the structures; pixels where the image states no spacing."""
    source = source_of(image)
    is_in_mm = source is None or source.states_spacing
    return Legend({label.value: label.name for label in labels}, "mm" if is_in_mm else "px")


def orientation_of(image: MetaTensor) -> str:
    """Axis codes of a volume such as `LPS`; empty for planes, and where sides are unknown."""
    source, grid = source_of(image), grid_of(image)
    is_placed = source is None or source.states_spacing
    return grid.orientation if len(grid.shape) == 3 and is_placed else ""
