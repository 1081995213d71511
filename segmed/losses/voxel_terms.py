"""Terms of the losses for regions and for maps in which some voxels are not annotated.

An unannotated voxel counts as if it were cut out: it enters no sum and no mean, and its
logits have a gradient of exactly zero. Shapes do not depend on the values, so that a training step
can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.encoding import LabelEncoding
from segmed.losses.shared_batch import whole_batch_sum


class VoxelReader(nn.Module):
    """Reading of logits and class indices by an encoding.

    Args:
        encoding: Meaning of the channels and of the class indices.
    """

    membership: Tensor

    def __init__(self, encoding: LabelEncoding) -> None:
        super().__init__()
        self.encoding = encoding
        table = torch.zeros(len(encoding.labels), len(encoding.stored_values))
        for row, members in enumerate(encoding.members):
            table[row, list(members)] = 1.0
        self.register_buffer("membership", table, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> VoxelTerms:
        """The terms of a batch.

        Args:
            logits: `[B, K, *spatial]`.
            target: `[B, *spatial]` int64, class indices.
        """
        logits = logits.float()
        index = self.encoding.ignore_index
        known = None if index is None else (target != index).unsqueeze(1)  # [B, 1, *spatial]
        if self.encoding.has_regions:
            probs = logits.sigmoid()
            truths = [table[target] for table in self.membership]
            truth = torch.stack(truths, 1)
            entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        else:
            log_probs = F.log_softmax(logits, dim=1)
            probs = log_probs.exp()[:, 1:]
            place = target if known is None else torch.where(known[:, 0], target, 0)
            entropy = -log_probs.gather(1, place.unsqueeze(1))
        return VoxelTerms(self, target, probs, entropy, known)

    def masks(self, target: Tensor) -> Iterator[Tensor]:
        """Voxels of each structure, one `[B, *spatial]` float32 after the other."""
        for row, table in enumerate(self.membership, start=1):
            yield table[target] if self.encoding.has_regions else (target == row).float()

    def occurring(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Classes that occur in each case, and those that are known to occur or not.

        Args:
            target: `[B, *spatial]` int64, class indices.

        Returns:
            Both `[B, K]` float32. An unseen class of a case with unannotated voxels is
            not known.
        """
        flat = target.flatten(1)
        seen = torch.stack([(mask.flatten(1) > 0).any(1) for mask in self.masks(target)], 1)
        if not self.encoding.has_regions:
            seen = torch.cat([(flat == 0).any(1, keepdim=True), seen], 1)
        index = self.encoding.ignore_index
        if index is None:
            return seen.float(), torch.ones_like(seen, dtype=torch.float32)
        is_whole = (flat != index).all(1, keepdim=True)
        return seen.float(), (seen | is_whole).float()


class VoxelTerms:
    """Sums and means of one batch, over annotated voxels alone.

    Args:
        reader: Meaning of the class indices.
        target: `[B, *spatial]`, class indices.
        probs: `[B, F, *spatial]`, probabilities of the structures without the background.
        entropy: `[B, C, *spatial]`, minus the log-probability of the truth; a channel a region, or
            one for all classes.
        known: `[B, 1, *spatial]`, annotated voxels; None where all are.
    """

    def __init__(
        self,
        reader: VoxelReader,
        target: Tensor,
        probs: Tensor,
        entropy: Tensor,
        known: Tensor | None,
    ) -> None:
        self._reader = reader
        self.target = target
        self._known = known
        self.probs = probs if known is None else probs * known
        self.entropy = entropy if known is None else entropy * known

    @property
    def num_indices(self) -> int:
        """Class indices of annotated voxels, background included."""
        return len(self._reader.encoding.values)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over annotated voxels and channels; 0 where there is none.

        Args:
            values: `[B, C, *spatial]`, 0 for unannotated voxels.
        """
        if self._known is None:
            return values.mean()
        sums = torch.stack([values.sum(), self._known.sum() * float(values.shape[1])])
        total, count = whole_batch_sum(sums).unbind()
        return total / count.clamp(min=1.0)

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Probability in each structure, probability everywhere, and its voxels, each `[B, F]`."""
        flat = self.probs.flatten(2)
        overlaps, sizes = [], []
        # A structure at a time, from one `unbind`, as in `foreground_sums`.
        masks = self._reader.masks(self.target)
        for probs, mask in zip(flat.unbind(1), masks, strict=True):
            is_inside = mask.flatten(1)
            overlaps.append((probs * is_inside).sum(1))
            sizes.append(is_inside.sum(1))
        return torch.stack(overlaps, 1), flat.sum(2), torch.stack(sizes, 1)

    def truth(self) -> Tensor:
        """Voxels of each structure, `[B, F, *spatial]` float32; 0 for unannotated voxels."""
        return torch.stack(list(self._reader.masks(self.target)), 1)
