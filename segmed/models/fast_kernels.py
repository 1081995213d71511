"""Memory formats and batch sizes for which PyTorch picks its fast convolution kernels."""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY_FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Features innermost, for training on a CPU, which is a third faster so.

Not on a GPU: group norm needs PyTorch's own order, and the transposes around it cost more than
convolutions gain (forward and backward of a U-Net, two patches of 128 cubed, bf16, H200: 92 ms with
features innermost, 67 ms without; compiled 41 ms either way).

Not for inference: oneDNN's kernels for it lose digits (probabilities of small planned networks move
by up to 7e-4 from float64's, against 7e-6 in PyTorch's own order), enough to change labels.
"""


def training_format(spatial_dims: int, device: torch.device) -> torch.memory_format:
    """Memory layout of weights and batches in training."""
    return torch.contiguous_format if device.type == "cuda" else MEMORY_FORMAT[spatial_dims]


NARROW_FEATURES = 8
"""Features of the finest level that decide whether one volume is convolved slowly."""


def is_slow_alone(batch: Tensor) -> bool:
    """Return whether PyTorch convolves one such volume by its slow CPU kernel, two by oneDNN's.

    Source:
        `ConvParams::use_mkldnn` in PyTorch 2.13: one item goes to oneDNN only if the product of
        its first four sizes exceeds 20,480; the last axis of a volume is not looked at.
    """
    slab = batch.shape[2] * batch.shape[3] if batch.ndim == 5 else 0
    return len(batch) == 1 and not batch.is_cuda and 0 < NARROW_FEATURES * slab <= 20_480
