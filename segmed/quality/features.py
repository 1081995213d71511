"""Features of a segmentation without a reference, gathered while its slabs pass.

They are taken on the grid of the network, from the probabilities, the label of the largest one and
the prepared image, in chunks of bounded size. Voxels of certain background (`CERTAIN`) enter
nothing, so the cost is one pass over the volume and a few over its structures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.quality.case_features import AGREEMENT, ENTROPY, EXPECTED_DICE, CaseFeatures

CERTAIN = 0.999
"""Probability of background above which a voxel enters no feature."""

CHUNK_BYTES = 8 * 2**20
"""Aim for the probabilities looked at at once; a chunk has at least one row."""

CUDA_CHUNK_BYTES = 256 * 2**20
"""The same on a GPU, where every chunk costs a few dozen launches."""


class FeatureSums:
    """Running sums of the features of one image.

    Features of a structure with probabilities p, n voxels labelled as it:

    - `expected_dice`: twice the sum of p over these voxels by n and the sum of p everywhere;
    - `entropy`: mean entropy of these voxels, as part of its maximum;
    - `spread`: sum of p (1 - p) by that of p;
    - `excess`: logarithm of the sum of p by n;
    - `log_volume`: logarithm of the volume in ml;
    - `log_surface`: logarithm of the number of faces to other labels by n^((d - 1) / d);
    - `mean:C`, `std:C`: intensities of channel C in these voxels, as prepared.

    Args:
        encoding: Meaning of the channels.
        voxel_ml: Volume of a voxel of the network's grid, in ml.
        averages_logits: The slabs have logits.

    Source:
        Expected Dice: Borges et al. 2024, arXiv 2402.10665, eq. 8 (soft Dice confidence).
    """

    def __init__(
        self, encoding: LabelEncoding, voxel_ml: float, *, averages_logits: bool = False
    ) -> None:
        self._encoding = encoding
        self._voxel_ml = voxel_ml
        self._averages_logits = averages_logits
        self._num_indices = len(encoding.values)
        self._by_class: npt.NDArray[np.float64] | None = None
        self._by_structure = np.zeros((3, len(encoding.labels)))
        self._last: Tensor | None = None
        self._axes = 0

    def watch(self, slabs: Iterable[Any], image: Tensor, dim: int) -> Iterator[Any]:
        """Take each slab in and hand it on.

        Args:
            slabs: Slabs of the network's grid in rising order, with `start` and `values`.
            image: The prepared image, `[C, *spatial]`.
            dim: Spatial axis along which slabs run.
        """
        for slab in slabs:
            rows = slab.values.shape[1 + dim]
            self.take(slab.values, image.narrow(1 + dim, slab.start, rows), dim)
            yield slab

    def take(self, values: Tensor, image: Tensor, dim: int) -> None:
        """Add a slab.

        Args:
            values: Probabilities (or logits), `[K, *slab]`.
            image: The same voxels of the prepared image, `[C, *slab]`.
            dim: Spatial axis along which slabs run.
        """
        limit = CUDA_CHUNK_BYTES if values.is_cuda else CHUNK_BYTES
        rows = values.shape[1 + dim]
        step = max(1, limit * rows // max(1, values.numel() * values.element_size()))
        for low in range(0, rows, step):
            size = min(step, rows - low)
            self._take(values.narrow(1 + dim, low, size), image.narrow(1 + dim, low, size), dim)

    def _take(self, values: Tensor, image: Tensor, dim: int) -> None:
        encoding = self._encoding
        probs = encoding.probabilities(values[None])[0] if self._averages_logits else values
        indices = encoding.class_indices(probs)
        active = self._active(probs, indices)
        chosen = active.nonzero().squeeze(1)
        inside = probs.flatten(1).index_select(1, chosen)
        of = indices.flatten().index_select(0, chosen)
        pixels = image.to(inside.device).flatten(1).index_select(1, chosen).double()
        inside = inside.double()
        rows = [torch.ones_like(pixels[0]), self._entropy(inside)]
        for channel in pixels:
            rows += [channel, channel.square()]
        found = [torch.bincount(of, weights=row, minlength=self._num_indices) for row in rows]
        sums = torch.stack([*found, self._faces(indices, dim).to(found[0])]).cpu().numpy()
        self._by_class = sums if self._by_class is None else self._by_class + sums
        self._by_structure += self._soft(inside, of).cpu().numpy()

    def _active(self, probs: Tensor, indices: Tensor) -> Tensor:
        """Voxels with a structure, or with some probability of one."""
        if self._encoding.has_regions:
            return (probs.amax(dim=0) > 1.0 - CERTAIN).flatten()
        return ((indices > 0) | (probs[0] < CERTAIN)).flatten()

    def _entropy(self, inside: Tensor) -> Tensor:
        """Entropy of each voxel as part of its maximum; of regions the mean over them."""
        if self._encoding.has_regions:
            both = torch.stack([inside, 1.0 - inside])
            return -torch.xlogy(both, both).sum(dim=0).mean(dim=0) / math.log(2.0)
        return -torch.xlogy(inside, inside).sum(dim=0) / math.log(max(2, len(inside)))

    def _soft(self, inside: Tensor, of: Tensor) -> Tensor:
        """Sums of p over the voxels of each structure, of p, and of p (1 - p): `[3, S]`."""
        encoding = self._encoding
        first = 0 if encoding.has_regions else 1
        mass = inside[first:]
        if encoding.has_regions:
            own = torch.stack(
                [
                    (channel * torch.isin(of, torch.tensor(members, device=of.device))).sum()
                    for channel, members in zip(mass, encoding.members, strict=True)
                ]
            )
        else:
            largest = inside.gather(0, of[None])[0]
            own = torch.bincount(of, weights=largest, minlength=self._num_indices)[1:]
        return torch.stack([own, mass.sum(dim=1), (mass * (1.0 - mass)).sum(dim=1)])

    def _faces(self, indices: Tensor, dim: int) -> Tensor:
        """Faces between voxels of different labels, counted for both."""
        small = indices.to(torch.int16)
        self._axes = small.ndim
        faces = torch.zeros(self._num_indices, dtype=torch.int64, device=small.device)
        first = small.narrow(dim, 0, 1)
        pairs = [(self._last, first)] if self._last is not None else []
        for axis in range(small.ndim):
            size = small.shape[axis] - 1
            pairs.append((small.narrow(axis, 0, size), small.narrow(axis, 1, size)))
        for one, other in pairs:
            differ = one != other
            for side in (one, other):
                faces += torch.bincount(side[differ].long(), minlength=self._num_indices)
        self._last = small.narrow(dim, small.shape[dim] - 1, 1).clone()
        return faces

    def features(self, agreement: dict[str, float] | None = None) -> CaseFeatures:
        """The features of each structure.

        Args:
            agreement: Agreement of the members on each structure, where there are several.
        """
        if self._by_class is None:
            return {}
        found: CaseFeatures = {}
        for number, label in enumerate(self._encoding.labels):
            sums = self._by_class[:, list(self._encoding.members[number])].sum(axis=1)
            own, mass, variance = self._by_structure[:, number]
            if sums[0] == 0:
                found[label.name] = {}
                continue
            found[label.name] = {
                **self._shape_of(sums),
                EXPECTED_DICE: float(2.0 * own / (sums[0] + mass)),
                "spread": float(variance / mass),
                "excess": math.log(mass / sums[0]),
                **({} if agreement is None else {AGREEMENT: agreement[label.name]}),
            }
        return found

    def _shape_of(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Features of the voxels of a structure: entropy, size, surface and intensities."""
        count = sums[0]
        means = sums / count
        power = (self._axes - 1) / self._axes
        found = {
            ENTROPY: float(means[1]),
            "log_volume": math.log(count * self._voxel_ml),
            "log_surface": math.log((sums[-1] + 1.0) / count**power),
        }
        for channel in range((len(sums) - 3) // 2):
            mean, square = means[2 + 2 * channel], means[3 + 2 * channel]
            found[f"mean:{channel}"] = float(mean)
            found[f"std:{channel}"] = math.sqrt(max(0.0, float(square - mean**2)))
        return found
