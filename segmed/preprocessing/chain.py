"""The same steps as MONAI transforms, for data lists, `CacheDataset` and `Compose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose, Transform

from segmed.io.read import read_images, read_label
from segmed.manifest.reference import read_reference
from segmed.manifest.schema import Manifest
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Plan
from segmed.preprocessing.prepare import prepare, prepare_label
from segmed.structures import LabelClass


class LoadCase(Transform):  # type: ignore[misc] # MONAI is untyped
    """Reads the image files and the label of a data-list row in their storage order.

    Args:
        num_channels: Channels that are expected of a single file; see `read_image`.
        labels: Structures that the segments of DICOM segmentations are matched to.
        manifest: Where the rows come from, if it merges, drops or renames stored labels.
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

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with `image` and `label` (where it has one) as MetaTensors."""
        names = row["image"]
        paths = [Path(names)] if isinstance(names, str | Path) else [Path(name) for name in names]
        image = read_images(paths, num_channels=self.num_channels)
        loaded = {**row, "image": image}
        if row.get("label") is not None:
            loaded["label"] = self._label(Path(row["label"]), loaded["image"])
        return loaded

    def _label(self, path: Path, image: MetaTensor) -> MetaTensor:
        if self.manifest is not None:
            return read_reference(self.manifest, path, like=image)
        return read_label(path, like=image, labels=self.labels)


class PrepareCase(Transform):  # type: ignore[misc] # MONAI is untyped
    """Turns, crops, scales and resamples a loaded row according to a plan.

    Args:
        plan: The plan of the training set.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with the tensors of `prepare`; `prepared` has the grid transform."""
        prepared = prepare(row["image"], self.plan)
        done = {**row, "image": prepared.tensor, "prepared": prepared}
        if row.get("label") is not None:
            done["label"] = prepare_label(row["label"], prepared, self.plan)[None]
        return done


def preparation_chain(plan: Plan, manifest: Manifest | None = None) -> Compose:
    """From a data-list row (`image`, `label`) to tensors `[C, *target]` and `[1, *target]`.

    Args:
        plan: The plan of the training set.
        manifest: Where the rows come from, if it merges, drops or renames stored labels.
    """
    return Compose([LoadCase(plan.in_channels, plan.labels, manifest), PrepareCase(plan)])
