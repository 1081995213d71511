"""UNet 3+ (Huang et al. 2020, ICASSP; arXiv 2004.08790).

Figure 1 and equation 1: five double convolutions of 64 to 1024 features; decoder stage i takes
*every* scale, each brought to 64 features by a 3x3 convolution with batch norm and ReLU: finer
encoder maps by max-pooling (without overlap), its own encoder map as it is, coarser decoder maps
and the deepest encoder map by bilinear upsampling before the convolution. Their concatenation goes
through one more 3x3 convolution over 320 features. Section 2.2: deep supervision by a 3x3 head on
each decoder stage and on the deepest encoder map, and a classification-guided module (CGM) that
predicts whether the organ is present.

The planned form takes levels, widths, strides and kernels per axis and the width of a source from
the plan. In 3D every kernel is inflated; the full-scale skips make it 3.6 times as costly as a
U-Net, so widths start at 16 to 32 there.

CGM differs from the authors' repository, where no gradient reached it: its class scores are part of
the training output and of the loss, and gating multiplies probabilities, for a whole case and not
for each window (`segmed.models.gating`). With several classes there is one score per class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import (
    CONV,
    MAX_POOL,
    ConvUnit,
    check_input,
    concat,
    initialise_he,
    same_padding,
)
from segmed.models.gating import ClassHead, ScoredLogits, gate_logits
from segmed.models.options import (
    Architecture,
    Level,
    Task,
    check_choice,
    level_strides,
    total_stride,
)
from segmed.models.recompute import recomputed
from segmed.models.residual import DenseOptions, encoder_level, encoder_pools
from segmed.models.resize import pad_to_multiple, place_head, resize_linear


@dataclass(frozen=True, kw_only=True)
class UNet3PlusOptions(DenseOptions):
    """Options of the UNet 3+.

    Attributes:
        cat_channels: Features that each source is brought to; None takes the finest width.
        cgm: Add the classification-guided module.
        gating: What the module does in eval mode: `case` gates each input as a whole case; `none`
            leaves it to the caller, who may be looking through windows.
    """

    cat_channels: int | None = None
    cgm: bool = False
    gating: Literal["none", "case"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("gating", self.gating, ("none", "case"))
        if self.gating == "case" and not self.cgm:
            raise ModelError("gating='case' needs cgm=True")
        if self.cat_channels is not None and self.cat_channels < 1:
            raise ModelError(f"cat_channels must be positive, got {self.cat_channels}")


class FullScaleStage(nn.Module):
    """One decoder stage: all scales to one size and width, then one convolution.

    Args:
        index: Level of the stage, 0 the finest.
        levels: Levels, finest first.
        cat_channels: Features that each source is brought to.
        options: Gives norm, activation, bias, and what is computed again.
    """

    def __init__(
        self, index: int, levels: Sequence[Level], cat_channels: int, options: DenseOptions
    ) -> None:
        super().__init__()
        self.recompute = options.recompute
        depth, dims = len(levels), len(levels[0].stride)
        unit = partial(ConvUnit, dims, kernel=levels[index].kernel, style=options.style)
        self.pools = nn.ModuleList()
        for source in range(index):
            step = total_stride(levels[source + 1 : index + 1])
            self.pools.append(MAX_POOL[dims](step, stride=step, ceil_mode=True))
        widths = [level.width for level in levels[: index + 1]]
        widths += [depth * cat_channels] * (depth - index - 2) + [levels[-1].width]
        self.sources = nn.ModuleList(unit(width, cat_channels) for width in widths)
        self.fuse = unit(depth * cat_channels, depth * cat_channels)

    def forward(self, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """The map of this stage.

        Args:
            encoded: Encoder maps, finest first, up to the stage's own level.
            decoded: Maps of the coarser stages, finest first, the deepest encoder map last.

        Returns:
            `[B, depth * cat_channels, *spatial]` on the grid of the last of `encoded`.
        """
        size = encoded[-1].shape[2:]
        steps: list[Callable[[Tensor], Tensor]] = [
            *self.pools,
            nn.Identity(),
            *[partial(resize_linear, size=size)] * len(decoded),
        ]
        maps = [
            self._made(partial(_source, conv, step), source)
            for conv, step, source in zip(self.sources, steps, [*encoded, *decoded], strict=True)
        ]
        return self._made(self._fused, *maps)

    def _fused(self, *maps: Tensor) -> Tensor:
        fused: Tensor = self.fuse(concat(maps))
        return fused

    def _made(self, function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        """A map, kept or computed again in the backward pass."""
        return recomputed(function, *maps) if self.recompute and self.training else function(*maps)


def _source(conv: nn.Module, step: Callable[[Tensor], Tensor], source: Tensor) -> Tensor:
    """A source on the grid of its stage, brought to the width of all sources."""
    brought: Tensor = conv(step(source))
    return brought


class UNet3Plus(nn.Module):
    """The network.

    Args:
        task: What it maps from and to.
        options: How it is built.

    Raises:
        ModelError: There is only one level.
    """

    def __init__(self, task: Task, options: UNet3PlusOptions) -> None:
        super().__init__()
        self.task, self.options = task, options
        self.levels = options.levels(task.spatial_dims)
        self.level_strides = level_strides(self.levels)
        dims, depth = task.spatial_dims, len(self.levels)
        if depth < 2:
            raise ModelError("the UNet 3+ needs at least 2 levels, got 1")
        cat_channels = options.cat_channels or self.levels[0].width
        widths = [level.width for level in self.levels]
        self.encoder = nn.ModuleList(
            encoder_level(before, level, options, index=index)
            for index, (before, level) in enumerate(
                zip([task.in_channels, *widths], self.levels, strict=False)
            )
        )
        self.pools = encoder_pools(self.levels, options)
        self.drop = nn.Dropout(options.dropout)
        self.decoder = nn.ModuleList(
            FullScaleStage(index, self.levels, cat_channels, options) for index in range(depth - 1)
        )
        head_widths = [depth * cat_channels] * (depth - 1) + [widths[-1]]
        self.heads = nn.ModuleList(
            CONV[dims](width, task.num_classes, kernel, padding=same_padding(kernel, (1,) * dims))
            for width, kernel in zip(
                head_widths if options.deep_supervision else head_widths[:1],
                [level.kernel for level in self.levels],
                strict=False,
            )
        )
        self.class_head = ClassHead(dims, widths[-1], task.num_classes) if options.cgm else None
        initialise_he(self)

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """Layers whose bias is a bias of the logits, one a head."""
        return tuple(self.heads)

    def forward(self, image: Tensor) -> Tensor | list[Tensor] | ScoredLogits:
        """Logits of an image.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            `[B, num_classes, *spatial]`; in training with deep supervision a list of them, finest
            first, see `head_grid`; in training with `cgm` those and the class scores. With
            `gating="case"` the logits of eval mode are those of gated probabilities.

        Raises:
            ModelError: The shape does not fit.
        """
        logits, scores = self.logits_and_scores(image)
        if not self.training:
            if scores is None or self.options.gating == "none":
                return logits[0]
            return gate_logits(logits[0], scores, is_multilabel=self.task.is_multilabel)
        if scores is not None:
            return ScoredLogits(logits, scores)
        return logits if self.options.deep_supervision else logits[0]

    def logits_and_scores(self, image: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Logits of every head that is in use, and the class scores of the CGM.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            Logits, finest first (in eval mode the finest alone, on the input grid), and
            `[B, num_classes]` scores before the sigmoid, or None without `cgm`.

        Raises:
            ModelError: The shape does not fit.
        """
        check_input(image, spatial_dims=self.task.spatial_dims, in_channels=self.task.in_channels)
        padded = pad_to_multiple(image, total_stride(self.levels))
        encoded = self.encode(padded)
        maps = self.decode(encoded)
        heads = list(self.heads) if self.training else list(self.heads)[:1]
        logits = [
            place_head(
                head(stage),
                padded=padded.shape[2:],
                size=image.shape[2:],
                on_own_grid=self.options.has_own_grids,
            )
            for head, stage in zip(heads, maps, strict=False)
        ]
        return logits, None if self.class_head is None else self.class_head(encoded[-1])

    def encode(self, image: Tensor) -> list[Tensor]:
        """Encoder maps E1, E2, ...

        Args:
            image: `[B, in_channels, *spatial]`, every axis a multiple of the total stride.

        Returns:
            One map a level, finest first.
        """
        encoded: list[Tensor] = []
        for index, block in enumerate(self.encoder):
            encoded.append(block(image if index == 0 else self.pools[index - 1](encoded[-1])))
        encoded[-1] = self.drop(encoded[-1])
        return encoded

    def decode(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Decoder maps D1, D2, ... and the deepest encoder map.

        Args:
            encoded: Encoder maps, finest first.

        Returns:
            One map a level, finest first.
        """
        maps = [encoded[-1]]
        for index in range(len(encoded) - 2, -1, -1):
            maps.insert(0, self.decoder[index](encoded[: index + 1], maps))
        return maps


ARCHITECTURE = Architecture(
    name="unet3plus",
    options=UNet3PlusOptions,
    build=UNet3Plus,
    paper={
        "widths": (64, 128, 256, 512, 1024),
        "norm": "batch",
        "activation": "relu",
        "upsample": "linear",
        "conv_bias": True,
        "head_grid": "input",
    },
    reference="Huang et al. 2020",
)
