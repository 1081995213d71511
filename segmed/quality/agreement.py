"""Agreement of the members of an ensemble: their pairwise Dice, counted window by window.

Members are averaged in the window loop, so their maps never exist as a whole; counts of pairs of
labels do not need them. Voxels in several windows count several times.

Source:
    Roy et al. 2019, NeuroImage 195, section 2.3 (Dice between samples); Zenk et al. 2025, Medical
    Image Analysis 101, 103392 (pairwise Dice of an ensemble as the strongest single score).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding


class MemberAgreement:
    """Counts of pairs of labels, over pairs of members.

    Args:
        encoding: Meaning of the channels.
        averages_logits: The maps are logits.
        pairs: Members to compare, by number; all pairs if not given.

    Attributes:
        is_counted: Whether members were compared, as engines in int8 do not allow.
    """

    def __init__(
        self,
        encoding: LabelEncoding,
        *,
        averages_logits: bool = False,
        pairs: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.is_counted = False
        self._encoding = encoding
        self._pairs = pairs
        self._is_logits = averages_logits and encoding.has_regions
        size = len(encoding.values)
        self._counts: npt.NDArray[np.int64] = np.zeros((size, size), np.int64)

    def labels_of(self, maps: Tensor) -> Tensor:
        """Class indices of one member's maps `[B, K, *window]`, in a copy of its own."""
        probs = self._encoding.probabilities(maps) if self._is_logits else maps
        return self._encoding.class_indices(probs.transpose(0, 1)).to(torch.int16)

    def count(self, members: Sequence[Tensor]) -> None:
        """Add the class indices of all members for one batch of windows."""
        self.is_counted = True
        shown = torch.stack([member.flatten() for member in members])
        shown = shown[:, shown.amax(dim=0) > 0].long()
        size = len(self._counts)
        found = torch.zeros(size * size, dtype=torch.int64, device=shown.device)
        for one, other in self._pairs_of(len(shown)):
            found += torch.bincount(shown[one] * size + shown[other], minlength=size * size)
        self._counts += found.view(size, size).cpu().numpy()

    def _pairs_of(self, members: int) -> Iterable[tuple[int, int]]:
        return combinations(range(members), 2) if self._pairs is None else self._pairs

    def split(self, maps: Tensor) -> Tensor:
        """Count the labels of the members behind some maps, and return the maps without them.

        Args:
            maps: `[B, K, *window]`, or with one more channel for each member, its class indices.
        """
        own = self._encoding.num_channels
        if maps.shape[1] > own:
            self.count(list(maps[:, own:].transpose(0, 1).to(torch.int16)))
        return maps[:, :own]

    def by_structure(self) -> dict[str, float]:
        """Mean pairwise Dice of each structure, weighted by the sizes; 1 where none found it."""
        found = {}
        for label, members in zip(self._encoding.labels, self._encoding.members, strict=True):
            own = list(members)
            both = self._counts[np.ix_(own, own)].sum()
            sizes = self._counts[own].sum() + self._counts[:, own].sum()
            found[label.name] = float(2 * both / sizes) if sizes else 1.0
        return found
