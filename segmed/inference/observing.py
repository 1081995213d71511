"""Features and predicted quality of a segmentation, gathered while its windows and slabs pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.geometry import spacing_of
from segmed.inference.mean_of_plans import Course, PreparedForPlans, nearest_values
from segmed.inference.segmentation import Segmentation
from segmed.inference.shown_members import member_pairs
from segmed.inference.sliding import NetworkFn
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.quality.agreement import MemberAgreement
from segmed.quality.case_features import AGREEMENT, CaseFeatures
from segmed.quality.features import FeatureSums
from segmed.quality.package_form import quality_model_in
from segmed.transforms.grid_transform import Prepared
from segmed.transforms.inverse import ProbsBox, Slab

logger = logging.getLogger(__name__)


class CaseObserver:
    """Watches the segmentation of one image.

    Args:
        encoding: Meaning of the channels.
        sums: Gathers the features; None: they are not requested.
        agreement: Counts where members agree, if there are some to compare.

    Attributes:
        agreement: As given.
        network_s: Seconds in the network so far.
    """

    def __init__(
        self,
        encoding: LabelEncoding,
        sums: FeatureSums | None = None,
        agreement: MemberAgreement | None = None,
    ) -> None:
        self.agreement = agreement
        self.network_s = 0.0
        self._encoding = encoding
        self._sums = sums

    def timed(self, network: NetworkFn) -> NetworkFn:
        """A network whose seconds are added to `network_s`."""

        def apply(windows: Tensor) -> Tensor:
            start = time.perf_counter()
            maps = network(windows)
            self.network_s += time.perf_counter() - start
            return maps

        return apply

    def parted(self, network: NetworkFn) -> NetworkFn:
        """A network whose maps come without the labels of its members, which are counted."""
        agreement = self.agreement or MemberAgreement(self._encoding)
        return lambda windows: agreement.split(network(windows))

    def watch(self, slabs: Iterable[Slab], image: Tensor, dim: int) -> Iterator[Slab]:
        """Hand slabs on; their features are gathered if they are requested."""
        return iter(slabs) if self._sums is None else self._sums.watch(slabs, image, dim)

    def watch_boxes(
        self, boxes: Iterable[ProbsBox], prepared: Prepared, course: Course
    ) -> Iterator[ProbsBox]:
        """Hand boxes of the mean of several plans on; features are gathered on the image's grid.

        Args:
            boxes: Probabilities on the grid of the image as stored.
            prepared: The image; its intensities are taken at the nearest point.
            course: Axis and direction in which boxes come.
        """
        for box in boxes:
            if self._sums is not None:
                values, image = box.probs, nearest_values(prepared, box.region)
                if course.falls:
                    values, image = (one.flip(1 + course.axis) for one in (values, image))
                self._sums.take(values, image, course.axis)
            yield box

    def features(self) -> CaseFeatures | None:
        """Features of the image that was watched; None if they were not requested."""
        if self._sums is None:
            return None
        counted = self.agreement
        if counted is None or not counted.is_counted:
            return self._sums.features()
        return self._sums.features(counted.by_structure())


class QualityObserver:
    """Gives each image an observer of its own, and predicts the quality of what was found.

    Args:
        packages: The packages of a predictor; the quality model of a single one applies.
        plan: Their plan.

    Attributes:
        is_on: Features are gathered; without need they are not.
        model: The quality model, if there is one.
        has_members: A single package has several networks that can be compared.
        needs_members: The quality model uses their agreement.
    """

    def __init__(self, packages: Sequence[ModelPackage], plan: Plan) -> None:
        single = packages[0] if len(packages) == 1 else None
        self.model = None if single is None else quality_model_in(single.provenance)
        self.is_on = self.model is not None
        self._pairs = None if single is None else member_pairs(single)
        self.has_members = bool(self._pairs)
        self.needs_members = (
            self.has_members and self.model is not None and AGREEMENT in self.model.features
        )
        self._is_said = False
        self._plan = plan

    def of_case(self, prepared: Prepared, engines: int) -> CaseObserver:
        """The observer of an image.

        Args:
            prepared: The image.
            engines: Engines that are averaged for it; of several plans none is compared.
        """
        encoding, is_logits = self._plan.encoding, self._plan.inference.average == "logits"
        if not self.is_on:
            return CaseObserver(encoding)
        transform, spacing = prepared.transform, prepared.grid_in.spacing_mm
        if isinstance(prepared, PreparedForPlans):  # on the image's own grid, by `watch_boxes`
            return CaseObserver(encoding, FeatureSums(encoding, prod(spacing) / 1000.0))
        growth = prod(transform.cropped_shape) / prod(transform.shape)
        voxel_ml = prod(spacing) * growth / 1000.0
        sums = FeatureSums(encoding, voxel_ml, averages_logits=is_logits)
        if engines == 1 and not self.has_members:
            return CaseObserver(encoding, sums)
        agreement = MemberAgreement(encoding, averages_logits=is_logits, pairs=self._pairs)
        return CaseObserver(encoding, sums, agreement)

    def described(self, found: Segmentation, features: CaseFeatures | None) -> Segmentation:
        """A segmentation with its features, and its predicted quality if a model applies.

        Args:
            found: The segmentation, post-processed.
            features: Its features, if they were gathered.
        """
        model = self.model
        if features is None:
            return found
        missing = [] if model is None else model.missing_features(features)
        if missing and not self._is_said:
            self._is_said = True
            logger.warning(
                "predicted quality needs %s, which this engine does not give: results come without "
                "it; use engine auto or torch, and not int8",
                ", ".join(missing),
            )
        if model is None or missing:
            return replace(found, features=features)
        values, affine = np.asarray(found.label)[0], np.asarray(found.label.affine, np.float64)
        voxel_ml = prod(spacing_of(affine)[: values.ndim]) / 1000.0
        counts = np.bincount(values.reshape(-1), minlength=1)
        volumes = {
            label.name: voxel_ml * float(sum(counts[v] for v in label.values if v < len(counts)))
            for label in self._plan.labels
        }
        return replace(found, features=features, quality=model.predict(features, volumes))
