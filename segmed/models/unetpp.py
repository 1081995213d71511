"""U-Net++ (Zhou et al. 2018, DLMIA; 2019, IEEE TMI 39(6); arXiv 1807.10165, 1912.05074).

Figure 1 and equation 1: a triangle of nodes X(i, j), i the level and j the step along its skip
pathway. X(i, 0) is a double convolution of the pooled X(i-1, 0); X(i, j) is one of the
concatenation of *all* earlier nodes of its level, X(i, 0..j-1), and of the enlarged X(i+1, j-1).
A 1x1 head on each X(0, j), j >= 1, gives deep supervision. *Accurate* inference averages the heads'
probabilities, *fast* inference takes one head, and every node that it does not need may be pruned
(section 3.2).

`preset="paper"` is the authors' form: 32 to 512 features, 2x2 transposed convolutions, dropout 0.5
after every convolution, no norm. The planned form differs: levels, widths, strides and kernels per
axis from the plan, a norm after each convolution. In 3D every kernel is inflated.

Heads are listed deepest first: X(0, L), ..., X(0, 1), where the references list them the other way.
All of them are on the finest grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import (
    check_input,
    concat,
    double_conv,
    initialise_he,
    make_deconv,
    pointwise,
)
from segmed.models.options import (
    Architecture,
    Task,
    check_choice,
    level_strides,
    total_stride,
)
from segmed.models.recompute import recomputed
from segmed.models.residual import DenseOptions, encoder_level, encoder_pools
from segmed.models.resize import crop_to, pad_to_multiple, resize_linear


@dataclass(frozen=True, kw_only=True)
class UNetPPOptions(DenseOptions):
    """Options of the U-Net++.

    Attributes:
        mode: What eval mode answers with deep supervision: `accurate` averages the heads'
            probabilities, `fast` takes the deepest head.
        decoder_convs: Convolutions of each node but those of the encoder.
    """

    mode: Literal["accurate", "fast"] = "accurate"
    decoder_convs: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mode", self.mode, ("accurate", "fast"))
        if self.decoder_convs < 1:
            raise ModelError(f"decoder_convs must be 1 or more, got {self.decoder_convs}")


class UNetPP(nn.Module):
    """The network.

    Args:
        task: What it maps from and to.
        options: How it is built.

    Raises:
        ModelError: There is only one level.
    """

    def __init__(self, task: Task, options: UNetPPOptions) -> None:
        super().__init__()
        self.task, self.options = task, options
        self.levels = options.levels(task.spatial_dims)
        self.level_strides = level_strides(self.levels)
        self.pad_multiple = total_stride(self.levels)  # a pruned net keeps that of its origin
        depth, dims = len(self.levels), task.spatial_dims
        if depth < 2:
            raise ModelError("the U-Net++ needs at least 2 levels, got 1")
        block = partial(
            double_conv,
            dims,
            style=options.style,
            dropout=options.dropout,
            convs=options.decoder_convs,
        )
        self.pools = encoder_pools(self.levels, options)
        self.nodes, self.ups = nn.ModuleDict(), nn.ModuleDict()
        for i, level in enumerate(self.levels):
            above = task.in_channels if i == 0 else self.levels[i - 1].width
            self.nodes[f"{i}_0"] = encoder_level(
                above, level, options, index=i, dropout=options.dropout
            )
            for j in range(1, depth - i):
                below = self.levels[i + 1]
                enlarged = below.width if options.interpolates else level.width
                if not options.interpolates:
                    self.ups[f"{i}_{j}"] = make_deconv(
                        dims, below.width, level.width, stride=below.stride
                    )
                self.nodes[f"{i}_{j}"] = block(j * level.width + enlarged, level)
        first = 1 if options.deep_supervision else depth - 1
        self.heads = nn.ModuleDict(
            {
                str(j): pointwise(dims, self.levels[0].width, task.num_classes)
                for j in range(first, depth)
            }
        )
        initialise_he(self)

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """Layers whose bias is a bias of the logits, one a head."""
        return tuple(self.heads.values())

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of an image.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            `[B, num_classes, *spatial]`; in training with deep supervision a list of them, the
            deepest head first.

        Raises:
            ModelError: The shape does not fit.
        """
        logits = self.head_logits(image)
        if self.training and self.options.deep_supervision:
            return logits
        if len(logits) > 1 and self.options.mode == "accurate":
            return average_probabilities(logits, is_multilabel=self.task.is_multilabel)
        return logits[0]

    def head_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of every head.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            One `[B, num_classes, *spatial]` a head, the deepest first.

        Raises:
            ModelError: The shape does not fit.
        """
        check_input(image, spatial_dims=self.task.spatial_dims, in_channels=self.task.in_channels)
        size = image.shape[2:]
        finest = self._finest_nodes(pad_to_multiple(image, self.pad_multiple))
        return [
            crop_to(head(finest[int(j)]), size) for j, head in reversed(list(self.heads.items()))
        ]

    def _finest_nodes(self, image: Tensor) -> list[Tensor]:
        """X(0, 0..L), column by column down each diagonal."""
        rows: list[list[Tensor]] = []
        for deepest in range(len(self.levels)):
            above = image if deepest == 0 else self.pools[deepest - 1](rows[-1][0])
            rows.append([self.nodes[f"{deepest}_0"](above)])
            for i in range(deepest - 1, -1, -1):
                j = deepest - i
                node = partial(self._node, f"{i}_{j}")
                sources = (rows[i + 1][j - 1], *rows[i])
                is_kept = not (self.options.recompute and self.training)
                rows[i].append(node(*sources) if is_kept else recomputed(node, *sources))
        return rows[0]

    def _node(self, name: str, below: Tensor, *before: Tensor) -> Tensor:
        """X(i, j) of X(i+1, j-1) and X(i, 0..j-1)."""
        enlarged = self._enlarge(below, name, before[0])
        node: Tensor = self.nodes[name](concat([*before, enlarged]))
        return node

    def _enlarge(self, below: Tensor, node: str, like: Tensor) -> Tensor:
        if self.options.interpolates:
            return resize_linear(below, like.shape[2:])
        enlarged: Tensor = self.ups[node](below)
        return enlarged

    def prune(self, depth: int) -> UNetPP:
        """The network up to one head, without the nodes that this head does not need.

        Args:
            depth: 1 keeps X(0, 1) and its sources; the number of poolings keeps everything.

        Returns:
            A network of its own with one head, whose weights are copies of a subset of this one's.

        Raises:
            ModelError: This network has no such head.
        """
        if str(depth) not in self.heads:
            raise ModelError(
                f"cannot prune to head {depth}: this U-Net++ has heads {', '.join(self.heads)}"
                " (train with deep_supervision=True for all of them)"
            )
        kept = self.levels[: depth + 1]
        options = replace(
            self.options,
            widths=[level.width for level in kept],
            strides=[level.stride for level in kept],
            kernels=[level.kernel for level in kept],
            residual_blocks=self.options.residual_blocks
            and list(self.options.residual_blocks)[: depth + 1],
            deep_supervision=False,
        )
        pruned = UNetPP(self.task, options)
        pruned.pad_multiple = self.pad_multiple
        own = self.state_dict()
        pruned.load_state_dict({key: own[key] for key in pruned.state_dict()})
        return pruned.train(self.training)


def average_probabilities(logits: list[Tensor], *, is_multilabel: bool) -> Tensor:
    """Logits of the mean of the heads' probabilities.

    Args:
        logits: `[B, K, *spatial]` each.
        is_multilabel: Probabilities are sigmoids; else they are the softmax over K.

    Returns:
        `[B, K, *spatial]`, whose softmax (sigmoid) is the mean probability.
    """
    stacked = torch.stack(logits)
    if not is_multilabel:
        return torch.logsumexp(F.log_softmax(stacked, dim=2), dim=0) - math.log(len(logits))
    present = torch.logsumexp(F.logsigmoid(stacked), dim=0)
    absent = torch.logsumexp(F.logsigmoid(-stacked), dim=0)
    return present - absent


ARCHITECTURE = Architecture(
    name="unetpp",
    options=UNetPPOptions,
    build=UNetPP,
    paper={
        "widths": (32, 64, 128, 256, 512),
        "norm": None,
        "activation": "relu",
        "dropout": 0.5,
        "conv_bias": True,
    },
    reference="Zhou et al. 2018, 2019",
)
