"""Label maps from class probabilities, and the probabilities that are kept beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.inference.sliding import zeros
from segmed.io.fractions import Fractions, bytes_of
from segmed.transforms.inverse import ProbsBox

Keeps = bool | Literal["bytes"]
"""Probabilities that a segmentation keeps: none, all as float32, or as bytes on disk."""


def narrow(table: npt.NDArray[Any]) -> torch.dtype:
    """The type in which label values are gathered; PyTorch computes little with uint16."""
    return torch.uint8 if table.dtype == np.uint8 else torch.int32


def value_table(encoding: LabelEncoding) -> npt.NDArray[Any]:
    """Label value of each class index, uint8 or uint16."""
    values = encoding.values
    return np.array(values, dtype=np.uint8 if max(values) <= 255 else np.uint16)


def all_background(shape: Sequence[int], device: torch.device, encoding: LabelEncoding) -> Tensor:
    """A label map of zeros, of the type that `narrow` gives."""
    return zeros(shape, device, dtype=narrow(value_table(encoding)))


def stored(label: Tensor, encoding: LabelEncoding) -> npt.NDArray[Any]:
    """A gathered label map in the type of its values."""
    return np.asarray(label.cpu().numpy()).astype(value_table(encoding).dtype, copy=False)


def label_values(probs: Tensor, encoding: LabelEncoding) -> Tensor:
    """Label value of each voxel by its probabilities.

    Args:
        probs: `[K, *box]`, on any device.
        encoding: Meaning of the channels.

    Returns:
        `[*box]`, on the same device, of the type that `narrow` gives.
    """
    table = value_table(encoding)
    indices = encoding.class_indices(probs)
    if probs.is_cpu:  # numpy looks values up faster here
        return torch.from_numpy(table[indices.numpy()]).to(narrow(table))
    return torch.from_numpy(table.astype(np.int32)).to(probs.device, narrow(table))[indices]


def certain_background(encoding: LabelEncoding, shape: Sequence[int]) -> Tensor:
    """Probabilities of a map that is background everywhere."""
    probs = zeros((encoding.num_channels, *shape), torch.device("cpu"))
    if not encoding.has_regions:
        probs[0] = 1.0
    return probs


def gathered(
    pieces: Iterable[ProbsBox],
    shape: Sequence[int],
    encoding: LabelEncoding,
    kept: KeptProbabilities,
) -> npt.NDArray[Any]:
    """The label map of an image whose probabilities come piece by piece.

    Args:
        pieces: Boxes that tile the image; at least one.
        shape: Shape of the image.
        encoding: Meaning of the channels.
        kept: Takes the probabilities that are kept.

    Returns:
        Label values `[*shape]`, uint8 or uint16.
    """
    label: Tensor | None = None
    for piece in pieces:
        if label is None:  # where the pieces are: one copy leaves a GPU, a byte a voxel
            label = all_background(shape, piece.probs.device, encoding)
        label[piece.region] = label_values(piece.probs, encoding)
        kept.put(piece)
    assert label is not None  # a prepared image has at least one voxel
    return stored(label, encoding)


class KeptProbabilities:
    """The probabilities of an image that are kept while its pieces pass.

    Args:
        keeps: Kind of what is kept.
        encoding: Meaning of the channels.
        shape: Shape of the image.

    Attributes:
        whole: `[K, *shape]` float32, if all are kept.
        fractions: Those of the structures as bytes on disk, if these are kept.
    """

    def __init__(self, keeps: Keeps, encoding: LabelEncoding, shape: Sequence[int]) -> None:
        self._exclusive = not encoding.has_regions
        self.whole = certain_background(encoding, shape) if keeps is True else None
        self.fractions: Fractions | None = None
        if keeps == "bytes":
            self.fractions = Fractions(len(encoding.labels), shape, exclusive=self._exclusive)

    def put(self, piece: ProbsBox) -> None:
        """Keep the probabilities of a piece."""
        if self.whole is not None:
            self.whole[(slice(None), *piece.region)] = piece.probs.cpu()
        if self.fractions is not None:
            probs = piece.probs.float().cpu().numpy()
            self.fractions.put(piece.region, bytes_of(probs, exclusive=self._exclusive))
