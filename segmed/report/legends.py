"""Legend and orientation of an image's pictures, from what the image states of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.io import grid_of, source_of
from segmed.io.stack import states_spacing
from segmed.manifest.schema import Manifest
from segmed.metatensor import MetaTensor
from segmed.report.content import Legend
from segmed.structures import LabelClass


def legend_of(labels: Sequence[LabelClass], image: MetaTensor) -> Legend:
    """Names and colours of the structures; pixels where the image states no spacing."""
    source = source_of(image)
    is_in_mm = source is None or source.states_spacing
    return Legend({label.value: label.name for label in labels}, "mm" if is_in_mm else "px")


def legend_of_set(manifest: Manifest) -> Legend:
    """The legend of all images of a set; its first case decides about the unit."""
    cases = [*manifest.training, *manifest.test]
    paths = [Path(path) for path in manifest.image_paths(cases[0])] if cases else []
    is_in_mm = all(map(states_spacing, paths))
    structures = {label.value: label.name for label in manifest.labels}
    return Legend(structures, "mm" if is_in_mm else "px")


def orientation_of(image: MetaTensor) -> str:
    """Axis codes of a volume such as `LPS`; empty for planes, and where sides are unknown."""
    source, grid = source_of(image), grid_of(image)
    is_placed = source is None or source.states_spacing
    return grid.orientation if len(grid.shape) == 3 and is_placed else ""
