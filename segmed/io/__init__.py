"""Images and labels in and out: by content, with exact geometry, refused by name when unsound.

Below it: `dicom` (scan a tree, read a series, write segmentations and structure sets).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.io.limits import ReadLimits
    from segmed.io.read import grid_of, read_image, read_images, read_label, source_of
    from segmed.io.safe_reader import SafeReader
    from segmed.io.source import Source
    from segmed.io.write import write_label, write_probabilities
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.io.limits": "ReadLimits",
            "segmed.io.read": "grid_of read_image read_images read_label source_of",
            "segmed.io.safe_reader": "SafeReader",
            "segmed.io.source": "Source",
            "segmed.io.write": "write_label write_probabilities",
        },
    )

__all__ = [
    "ReadLimits",
    "SafeReader",
    "Source",
    "grid_of",
    "read_image",
    "read_images",
    "read_label",
    "source_of",
    "write_label",
    "write_probabilities",
]
