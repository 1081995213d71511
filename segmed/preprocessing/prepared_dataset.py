"""Prepared cases as a MONAI dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset

from segmed.doors import checked
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Plan
from segmed.preprocessing.prepared_cases import PreparedCases


class PreparedDataset(PreparedCases, Dataset):
    """Map-style dataset of the cases that training reads, prepared once and mapped from disk.

    An item has `image` (float32 MetaTensor `[C, *target]`), `label` (MetaTensor of class indices
    `[1, *target]`; absent for a case without a reference) and `case` (the id). The affine of both
    is that of the prepared grid, in RAS+ mm. Training takes patches of the same cache instead of
    whole items.

    Args:
        manifest: The image set.
        plan: How its cases are prepared.
        cache: Folder of prepared cases; made where it is missing.
        cases: Cases, or their ids, in order; `manifest.training` where not given.
        transform: MONAI transforms of an item, such as random crops.

    Raises:
        UsageError: No case has an id, or there is no case.
    """

    @checked()
    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        cache: Path | str,
        *,
        cases: Sequence[Case | str] | None = None,
        transform: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
    ) -> None:
        PreparedCases.__init__(self, manifest, plan, cache, cases=cases)
        Dataset.__init__(self, self.data, transform)

    def _transform(self, index: int) -> Any:
        """Return one item, read from the cache and transformed.

        Raises:
            ManifestError: A file is missing, or differs from the manifest's digest.
            ImageError: A file cannot be read correctly, or does not fit the plan.
        """
        case: Case = self.data[index]
        image, label, grid = self.case(index).read(
            lambda entry: (entry.image(), entry.label(), entry.transform.grid)
        )
        affine = torch.from_numpy(grid.affine_ras)
        item: dict[str, Any] = {"image": MetaTensor(image, affine=affine), "case": case.id}
        if label is not None:
            item["label"] = MetaTensor(label[None], affine=affine)
        return self.transform(item)
