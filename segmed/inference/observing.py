"""Features and predicted quality of a segmentation, gathered while its windows and slabs pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from torch import Tensor

from segmed.geometry import spacing_of
from segmed.inference.segmentation import Segmentation
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.quality.agreement import MemberAgreement
from segmed.quality.features import CaseFeatures, FeatureSums
from segmed.quality.package_form import quality_model_in
from segmed.transforms.grid_transform import Prepared
from segmed.transforms.inverse import Slab


class QualityObserver:
    """Watches the segmentation of one image at a time.

    Args:
        packages: The packages of a predictor; the quality model of a single one applies.
        plan: Their plan.

    Attributes:
        is_on: Features are gathered; without need they are not.
        model: The quality model, if there is one.
        agreement: MemberAgreement of the members on the image in hand; None of a single network.
    """

    def __init__(self, packages: Sequence[ModelPackage], plan: Plan) -> None:
        single = packages[0] if len(packages) == 1 else None
        self.model = None if single is None else quality_model_in(single.provenance)
        self.is_on = self.model is not None
        self.agreement: MemberAgreement | None = None
        self._networks = sum(package.members for package in packages)
        self._plan = plan
        self._sums: FeatureSums | None = None

    def begin(self, prepared: Prepared, engines: int) -> None:
        """Forget the image before, and watch the next one.

        Args:
            prepared: The image.
            engines: Engines that are averaged for it.
        """
        self._sums = self.agreement = None
        if not self.is_on:
            return
        encoding, is_logits = self._plan.encoding, self._plan.inference.average == "logits"
        transform, spacing = prepared.transform, prepared.grid_in.spacing_mm
        growth = prod(transform.cropped_shape) / prod(transform.shape)
        voxel_ml = prod(spacing) * growth / 1000.0
        self._sums = FeatureSums(encoding, voxel_ml, averages_logits=is_logits)
        if engines > 1:
            self.agreement = MemberAgreement(encoding, averages_logits=is_logits)

    def watch(self, slabs: Iterable[Slab], image: Tensor, dim: int) -> Iterator[Slab]:
        """Hand slabs on; their features are gathered if the observer is on."""
        return iter(slabs) if self._sums is None else self._sums.watch(slabs, image, dim)

    def features(self) -> CaseFeatures | None:
        """Features of the image that was watched; None if it was not."""
        if self._sums is None:
            return None
        agreement = None if self.agreement is None else self.agreement.by_structure()
        return self._sums.features(agreement)

    def described(self, found: Segmentation, features: CaseFeatures | None) -> Segmentation:
        """A segmentation with its features, and its predicted quality if a model applies.

        Args:
            found: The segmentation, post-processed.
            features: Its features, if they were gathered.
        """
        model = self.model
        if features is None:
            return found
        if model is None or model.missing_features(features):
            return replace(found, features=features)
        values, affine = np.asarray(found.label)[0], np.asarray(found.label.affine, np.float64)
        voxel_ml = prod(spacing_of(affine)[: values.ndim]) / 1000.0
        counts = np.bincount(values.reshape(-1), minlength=1)
        volumes = {
            label.name: voxel_ml * float(sum(counts[v] for v in label.values if v < len(counts)))
            for label in self._plan.labels
        }
        return replace(found, features=features, quality=model.predict(features, volumes))
