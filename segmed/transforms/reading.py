"""Image files and label of a case as the first step of a chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.io.safe_reader import SafeReader
from segmed.manifest.reference import read_reference
from segmed.manifest.schema import Manifest
from segmed.metatensor import MetaTensor, Transform
from segmed.one_line import OneLine
from segmed.structures import LabelClass


class ReadCase(OneLine, Transform):
    """Read the image files and the label of a data-list row in their storage order.

    Args:
        num_channels: Channels that are expected of a single file; see `read_image`.
        labels: Structures that the segments of DICOM segmentations are matched to.
        manifest: Source of the rows, if it merges, drops or renames stored labels.
    """

    def __init__(
        self,
        num_channels: int = 1,
        labels: Sequence[LabelClass] = (),
        manifest: Manifest | None = None,
    ) -> None:
        self.num_channels = num_channels
        self.labels = tuple(labels)
        self.manifest = manifest
        self._reads_image = SafeReader(num_channels=num_channels)
        self._reads_label = SafeReader(is_label=True, labels=labels)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row with `image` and `label` (where it has one) as MetaTensors.

        Args:
            row: `image`: a path, or one a channel; `label`: a path, or None.

        Raises:
            ImageError: A file cannot be read correctly; `reason` says why.
            GeometryError: The label is on another grid.
        """
        names = row["image"]
        paths = [Path(names)] if isinstance(names, str | Path) else [Path(name) for name in names]
        loaded = {**row, "image": self._reads_image.image(paths)}
        if row.get("label") is None:
            loaded.pop("label", None)
            return loaded
        loaded["label"] = self._label(Path(row["label"]), loaded["image"])
        return loaded

    def _label(self, path: Path, image: MetaTensor) -> MetaTensor:
        if self.manifest is not None:
            return read_reference(self.manifest, path, like=image)
        return self._reads_label.image([path], like=image)
