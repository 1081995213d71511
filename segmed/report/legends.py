"""Legend of all images of a set."""

from __future__ import annotations

from pathlib import Path

from segmed.io.stack import states_spacing
from segmed.manifest.schema import Manifest
from segmed.pictures.legend import Legend


def legend_of_set(manifest: Manifest) -> Legend:
    """The legend of all images of a set; its first case decides about the unit."""
    cases = [*manifest.training, *manifest.test]
    paths = [Path(path) for path in manifest.image_paths(cases[0])] if cases else []
    is_in_mm = all(map(states_spacing, paths))
    structures = {label.value: label.name for label in manifest.labels}
    return Legend(structures, "mm" if is_in_mm else "px")
