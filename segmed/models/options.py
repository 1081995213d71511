"""Options of every architecture: the task, and the resolution levels of its planned form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from segmed.errors import ModelError

Axes = tuple[int, ...]
Norm = Literal["batch", "instance", "group"] | None
Activation = Literal["relu", "leaky_relu"]
Upsample = Literal["deconv", "linear", "bilinear", "trilinear"]

DEFAULT_LEVELS = 4
"""Levels without a plan: three poolings, which a volume of 35x51x35 voxels still bears."""

DEFAULT_BASE_WIDTH = 16
"""Features of the finest level without a plan; each level below has twice as many."""


@dataclass(frozen=True)
class Task:
    """Input and output of a network: dimensions, channels and classes.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        num_classes: Classes of the logits, background included; of regions their number.
        has_regions: The classes are regions, which overlap: each has a sigmoid of its own.
    """

    spatial_dims: int
    in_channels: int
    num_classes: int
    has_regions: bool = False

    @property
    def is_multilabel(self) -> bool:
        """Return whether probabilities are sigmoids of the logits; else they are their softmax."""
        return self.has_regions or self.num_classes == 1

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ModelError(f"spatial_dims must be 2 or 3, got {self.spatial_dims!r}")
        if self.in_channels < 1 or self.num_classes < 1:
            raise ModelError(
                f"in_channels and num_classes must be at least 1, "
                f"got {self.in_channels} and {self.num_classes}"
            )


@dataclass(frozen=True)
class Level:
    """One level of resolution.

    Attributes:
        width: Features.
        stride: Step from the level above, per axis.
        kernel: Kernel of its convolutions, per axis.
    """

    width: int
    stride: Axes
    kernel: Axes


@dataclass(frozen=True)
class ConvStyle:
    """Normalisation, activation and dropout of a convolution.

    Attributes:
        norm: Normalisation after it; None for none.
        activation: Non-linearity after that; None for none.
        bias: Whether it has a bias; None gives it one where no norm follows.
    """

    norm: Norm
    activation: Activation | None
    bias: bool | None = None


@dataclass(frozen=True, kw_only=True)
class LevelOptions:
    """Options common to all planned forms; sequences run from the finest level down.

    Attributes:
        widths: Features of each level.
        strides: Step from the level above, one number or one per axis; the first is 1.
        kernels: Kernel of each level's convolutions, one number or one per axis; odd.
        norm: Normalisation after each convolution.
        activation: Non-linearity after it.
        deep_supervision: In training, give the logits of several levels, finest first.
        head_grid: Grid of the coarser levels' logits in training: `own` where their stride divides
            the image (the loss brings the labels down to it), or `input`.
        dropout: Probability of zeroing a feature where the paper drops out.
        upsample: Transposed convolution, or linear interpolation (`bilinear` and `trilinear` are
            other words for it).
        conv_bias: Bias of the convolutions; None gives them one where no norm follows.
    """

    widths: Sequence[int] | None = None
    strides: Sequence[int | Sequence[int]] | None = None
    kernels: Sequence[int | Sequence[int]] | None = None
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    deep_supervision: bool = False
    head_grid: Literal["own", "input"] = "own"
    dropout: float = 0.0
    upsample: Upsample = "deconv"
    conv_bias: bool | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, ("batch", "instance", "group", None))
        check_choice("activation", self.activation, ("relu", "leaky_relu"))
        check_choice("upsample", self.upsample, ("deconv", "linear", "bilinear", "trilinear"))
        check_choice("head_grid", self.head_grid, ("own", "input"))
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"dropout must be in 0..1, got {self.dropout}")

    @property
    def style(self) -> ConvStyle:
        """Normalisation, activation and dropout of each convolution."""
        return ConvStyle(self.norm, self.activation, self.conv_bias)

    @property
    def has_own_grids(self) -> bool:
        """Return whether coarser heads keep their own grids in training."""
        return self.head_grid == "own"

    @property
    def interpolates(self) -> bool:
        """Return whether maps are enlarged by interpolation instead of a transposed convolution."""
        return self.upsample != "deconv"

    def levels(self, spatial_dims: int) -> tuple[Level, ...]:
        """The levels, finest first, with omitted options filled in.

        Args:
            spatial_dims: 2 or 3.

        Returns:
            One entry a level.

        Raises:
            ModelError: Options contradict each other.
        """
        given = [option for option in (self.widths, self.strides, self.kernels) if option]
        count = len(given[0]) if given else DEFAULT_LEVELS
        if any(len(option) != count for option in given):
            raise ModelError(
                "widths, strides and kernels need one entry a level each, got "
                + ", ".join(str(len(option)) for option in given)
            )
        widths = self.widths or [DEFAULT_BASE_WIDTH * 2**level for level in range(count)]
        strides = self.strides or [1] + [2] * (count - 1)
        kernels = self.kernels or [3] * count
        levels = tuple(
            Level(
                width, per_axis("stride", stride, spatial_dims), per_axis("kernel", k, spatial_dims)
            )
            for width, stride, k in zip(widths, strides, kernels, strict=True)
        )
        _check_levels(levels)
        return levels


def _check_levels(levels: Sequence[Level]) -> None:
    if any(step != 1 for step in levels[0].stride):
        raise ModelError(f"strides[0] must be 1 on every axis, got {levels[0].stride}")
    for level in levels:
        if level.width < 1 or min(level.stride) < 1:
            raise ModelError(f"widths and strides must be positive, got {level}")
        if any(edge % 2 == 0 for edge in level.kernel):
            raise ModelError(f"kernels must be odd to keep sizes, got {level.kernel}")


def check_choice(option: str, value: object, known: Sequence[object]) -> None:
    """Refuse an unknown value of an option.

    Args:
        option: Name of the option.
        value: What was got.
        known: What would do.

    Raises:
        ModelError: `value` is not in `known`.
    """
    if value not in known:
        raise ModelError(f"unknown {option} {value!r}: known are {', '.join(map(str, known))}")


def per_axis(option: str, value: int | Sequence[int], spatial_dims: int) -> Axes:
    """One number for each axis.

    Args:
        option: Name of the option, for the message.
        value: One number for all axes, or one for each.
        spatial_dims: 2 or 3.

    Returns:
        One number per axis.

    Raises:
        ModelError: As many numbers as there are axes were not given.
    """
    axes = (value,) * spatial_dims if isinstance(value, int) else tuple(value)
    if len(axes) != spatial_dims:
        raise ModelError(f"a {option} needs {spatial_dims} numbers, one per axis, got {list(axes)}")
    return axes


def total_stride(levels: Sequence[Level]) -> Axes:
    """Product of the strides of all levels.

    Args:
        levels: Levels, finest first.

    Returns:
        One number per axis.
    """
    total = [1] * len(levels[0].stride)
    for level in levels:
        total = [have * step for have, step in zip(total, level.stride, strict=True)]
    return tuple(total)


def level_strides(levels: Sequence[Level]) -> tuple[Axes, ...]:
    """Distance of each level's voxels on the input grid.

    Args:
        levels: Levels, finest first.

    Returns:
        One tuple a level, per axis.
    """
    return tuple(total_stride(levels[: index + 1]) for index in range(len(levels)))


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry.

    Attributes:
        name: What users choose it by.
        options: Dataclass of its options, with the defaults of the planned form.
        build: Makes the network.
        paper: Options of `preset="paper"` that differ from the defaults.
        paper_3d: What differs from those in 3D.
        reference: Authors and year.
    """

    name: str
    options: Callable[..., Any]
    build: Callable[[Task, Any], nn.Module]
    paper: Mapping[str, Any] = field(default_factory=dict)
    paper_3d: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
