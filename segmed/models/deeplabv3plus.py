"""DeepLabv3+ (Chen et al. 2018, ECCV; arXiv 1802.02611).

Figure 2: an encoder whose last stages trade stride for dilation, so that its map has output stride
16 or 8; atrous spatial pyramid pooling (ASPP) of a 1x1 convolution, three atrous 3x3 convolutions
and image pooling, 256 features each, fused by a 1x1 convolution; a decoder that enlarges the result
to stride 4, joins it with a low-level map reduced to 48 features, refines with two 3x3 convolutions
of 256 and enlarges the logits bilinearly. Rates are 6, 12, 18 at output stride 16 and twice that at
8. With `separable=True` the 3x3 convolutions of ASPP and decoder are depthwise separable.

`preset="paper"` takes ResNet-101 at output stride 16, plain; `backbone="xception65",
separable=True` is the paper's best. One difference: the image-pooling branch has a group norm, as
one voxel a case leaves a batch norm nothing to average at batch 1; parameters are as many.

The planned form differs: a residual encoder with the plan's levels, kernels and strides per axis,
`dilated_levels` of which are dilated, and rates scaled to the feature size of the patch, since a
rate beyond the map only ever reads zeros. In 3D kernels are inflated, rates are scaled per axis by
size and spacing (the paper's preset: for patches of 128³, unless `patch_size` is given), and the
planned form is separable by default.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.aspp import ASPP, dead_rates, scale_rates
from segmed.models.blocks import ConvUnit, check_input, concat, initialise_he, pointwise
from segmed.models.encoders.resnet import STAGES, PlannedResidualEncoder, ResNetEncoder, Shortcut
from segmed.models.encoders.separable import separable_conv
from segmed.models.encoders.xception import XceptionEncoder
from segmed.models.options import (
    Architecture,
    Axes,
    LevelOptions,
    Task,
    check_choice,
    per_axis,
)
from segmed.models.resize import pad_to_multiple, place_head, resize_linear

logger = logging.getLogger(__name__)

BACKBONES = ("planned", *STAGES, "xception65")

PAPER_RATES = (6, 12, 18)
"""At output stride 16; twice that at 8."""

PLANNED_RATES = (2, 4, 6)
"""Without a patch size to scale the paper's by: for feature maps of 7 voxels and more."""


@dataclass(frozen=True, kw_only=True)
class DeepLabOptions(LevelOptions):
    """Options of DeepLabv3+.

    Attributes:
        backbone: `planned`, or a published one, which has its own levels.
        output_stride: Of a published backbone: 8, 16 or 32.
        width_factor: Factor on a published backbone's widths.
        shortcut: Of a published ResNet: `B`, or `A` as in MedicalNet's 18 and 34.
        dilated_levels: Of the planned backbone: how many of the deepest levels trade stride for
            dilation.
        blocks: Of the planned backbone: residual blocks a level.
        aspp_width: Features of ASPP and decoder; None takes the planned backbone's deepest width,
            or 256.
        low_level_width: Features of the reduced low-level map; None takes 3/16 of `aspp_width`.
        separable: Depthwise separable convolutions in ASPP and decoder; None means in 3D only.
        atrous_rates: Three rates, each one number or one per axis; None derives them.
        patch_size: Voxels per axis of the patches it will see; rates are scaled to it.
        spacing_mm: Voxel edges per axis, in mm; rates are smaller along coarser axes.
    """

    backbone: str = "planned"
    output_stride: int = 16
    width_factor: float = 1.0
    shortcut: Shortcut = "B"
    dilated_levels: int = 1
    blocks: int = 2
    aspp_width: int | None = None
    low_level_width: int | None = None
    separable: bool | None = None
    atrous_rates: Sequence[int | Sequence[int]] | None = None
    patch_size: Sequence[int] | None = None
    spacing_mm: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("backbone", self.backbone, BACKBONES)
        check_choice("shortcut", self.shortcut, ("A", "B"))
        if self.backbone != "planned" and (self.widths or self.strides or self.kernels):
            raise ModelError(
                f"the backbone {self.backbone!r} has its own widths, strides and kernels: leave "
                "those options out, or scale it by width_factor"
            )
        if self.dilated_levels < 0 or self.blocks < 1:
            raise ModelError(
                f"dilated_levels must be 0 or more and blocks 1 or more, "
                f"got {self.dilated_levels} and {self.blocks}"
            )


class DeepLabV3Plus(nn.Module):
    """The network.

    Args:
        task: What it maps from and to.
        options: How it is built.

    Raises:
        ModelError: The given rates reach beyond the feature map of the given patch.

    Attributes:
        pools_whole_image: Every logit depends on every voxel, by image pooling.
    """

    pools_whole_image = True

    def __init__(self, task: Task, options: DeepLabOptions) -> None:
        super().__init__()
        self.task, self.options = task, options
        dims = task.spatial_dims
        is_separable = dims == 3 if options.separable is None else options.separable
        self.encoder = _make_encoder(task, options)
        self.level_strides = self.encoder.strides
        is_planned = options.backbone == "planned"
        width = options.aspp_width or (self.encoder.channels[-1] if is_planned else 256)
        reduced = options.low_level_width or max(1, width * 3 // 16)
        kernel = options.levels(dims)[-1].kernel if is_planned else (3,) * dims
        self.rates = choose_rates(task, options, self.encoder.strides[-1])
        self.aspp = ASPP(
            self.encoder.channels[-1],
            width,
            kernel=kernel,
            rates=self.rates,
            style=options.style,
            is_separable=is_separable,
            dropout=options.dropout,
        )
        low_level = self.encoder.low_level
        one = (1,) * dims
        low_kernel = options.levels(dims)[low_level].kernel if is_planned else kernel
        unit = partial(ConvUnit, dims, style=options.style)
        refine: Callable[..., nn.Module] = partial(unit, kernel=low_kernel)
        if is_separable:
            refine = partial(separable_conv, kernel=low_kernel, dilation=one, style=options.style)
        self.reduce = unit(self.encoder.channels[low_level], reduced, kernel=one)
        self.refine = nn.Sequential(refine(width + reduced, width), refine(width, width))
        self.head = pointwise(dims, width, task.num_classes)
        self.aux_head = (
            pointwise(dims, width, task.num_classes) if options.deep_supervision else None
        )
        self._has_warned = False
        initialise_he(self)

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """Layers whose bias is a bias of the logits, one a head."""
        return (self.head,) if self.aux_head is None else (self.head, self.aux_head)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of an image.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            `[B, num_classes, *spatial]`; in training with deep supervision those and the logits
            that a further head gives on ASPP, which the paper does not have.

        Raises:
            ModelError: The shape does not fit.
        """
        check_input(image, spatial_dims=self.task.spatial_dims, in_channels=self.task.in_channels)
        padded = pad_to_multiple(image, self.encoder.strides[-1])
        maps = self.encoder(padded)
        low = maps[self.encoder.low_level]
        self._warn_of_dead_rates(maps[-1].shape[2:])
        pyramid = self.aspp(maps[-1])
        joined = concat([resize_linear(pyramid, low.shape[2:]), self.reduce(low)])
        place = partial(place_head, padded=padded.shape[2:], size=image.shape[2:])
        logits = place(self.head(self.refine(joined)), on_own_grid=False)
        if self.training and self.aux_head is not None:
            coarse = place(self.aux_head(pyramid), on_own_grid=self.options.has_own_grids)
            return [logits, coarse]
        return logits

    def _warn_of_dead_rates(self, feature_size: Sequence[int]) -> None:
        dead = dead_rates(self.rates, feature_size)
        if self.training and dead and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "atrous rates %s reach beyond the feature map of %s: their outer taps learn "
                "nothing; give patch_size or atrous_rates when building",
                dead,
                tuple(feature_size),
            )


def _make_encoder(
    task: Task, options: DeepLabOptions
) -> ResNetEncoder | XceptionEncoder | PlannedResidualEncoder:
    if options.backbone == "planned":
        levels = options.levels(task.spatial_dims)
        return PlannedResidualEncoder(
            task.in_channels,
            levels,
            dilated_levels=min(options.dilated_levels, max(0, len(levels) - 2)),
            blocks=options.blocks,
            style=options.style,
        )
    published = partial(
        XceptionEncoder
        if options.backbone == "xception65"
        else partial(ResNetEncoder, options.backbone, shortcut=options.shortcut),
        spatial_dims=task.spatial_dims,
        in_channels=task.in_channels,
        output_stride=options.output_stride,
        style=options.style,
        width_factor=options.width_factor,
    )
    return published()


def choose_rates(task: Task, options: DeepLabOptions, output_stride: Axes) -> tuple[Axes, ...]:
    """The rates of the three atrous branches, per axis.

    Args:
        task: Gives the number of axes.
        options: Gives rates, patch size and spacing.
        output_stride: Of the encoder, per axis.

    Returns:
        One tuple a branch.

    Raises:
        ModelError: The given rates reach beyond the feature map of the given patch.
    """
    dims = task.spatial_dims
    rates: tuple[int, ...] = PLANNED_RATES
    if options.backbone != "planned":
        rates = tuple(rate * max(1, 16 // max(output_stride)) for rate in PAPER_RATES)
    chosen = tuple(per_axis("rate", rate, dims) for rate in (options.atrous_rates or rates))
    if options.patch_size is None:
        return chosen
    patch = per_axis("patch_size", options.patch_size, dims)
    feature_size = tuple(max(2, -(-n // s)) for n, s in zip(patch, output_stride, strict=True))
    spacing_mm = options.spacing_mm or (1.0,) * dims
    feature_mm = [edge * step for edge, step in zip(spacing_mm, output_stride, strict=True)]
    scaled = scale_rates(PAPER_RATES, feature_size, feature_mm)
    dead = dead_rates(chosen, feature_size)
    if options.atrous_rates is not None:
        if dead:
            raise ModelError(
                f"rates {dead} reach beyond the feature map of {feature_size}: "
                f"rates such as {scaled} would do"
            )
        return chosen
    return scaled if dead or options.backbone == "planned" else chosen


ARCHITECTURE = Architecture(
    name="deeplabv3plus",
    options=DeepLabOptions,
    build=DeepLabV3Plus,
    paper={
        "backbone": "resnet101",
        "norm": "batch",
        "activation": "relu",
        "dropout": 0.1,
        "upsample": "linear",
        "aspp_width": 256,
        "low_level_width": 48,
        "separable": False,
    },
    paper_3d={"patch_size": (128, 128, 128)},
    reference="Chen et al. 2018",
)
