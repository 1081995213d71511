"""U-Net (Ronneberger, Fischer, Brox 2015, MICCAI; arXiv 1505.04597).

Figure 1: a contracting path of double 3x3 convolutions with ReLU and 2x2 max-pooling, doubling the
features at each step (64 to 1024), and an expanding path of 2x2 up-convolutions that halve them,
each joined with the cropped map of the contracting path and followed by two 3x3 convolutions; a 1x1
convolution gives the logits. 23 convolutions in all. Dropout is at the end of the contracting
path (section 3.1), weights are drawn from N(0, sqrt(2/N)) (section 3).

`preset="paper"` is that: convolutions without padding, so 572 pixels give 388, and sizes other than
188 + 16 m are refused. The planned form differs: it pads its convolutions, normalises after them,
takes levels, widths, strides and kernels per axis from the plan, and gives logits on the input grid
for any size. In 3D the same applies with every kernel inflated (compare Cicek et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

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
    Level,
    Task,
    check_choice,
    level_strides,
    total_stride,
)
from segmed.models.residual import FamilyOptions, encoder_level, encoder_pools
from segmed.models.resize import crop_to, pad_to_multiple, place_head, resize_linear


@dataclass(frozen=True, kw_only=True)
class UNetOptions(FamilyOptions):
    """Options of the U-Net.

    Attributes:
        padding: `same` keeps sizes; `valid` is the paper's.
        decoder_convs: Convolutions of each level of the decoder; nnU-Net has one beside residual
            encoders.
        downsample: From level to level by max-pooling, or by the `stride` of a level's first
            convolution as in nnU-Net; levels of residual blocks stride in any case.
    """

    padding: Literal["same", "valid"] = "same"
    decoder_convs: int = 2
    downsample: Literal["max", "stride"] = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("padding", self.padding, ("same", "valid"))
        check_choice("downsample", self.downsample, ("max", "stride"))
        if self.padding == "valid" and self.deep_supervision:
            raise ModelError("deep_supervision needs padding='same': valid maps share no grid")
        if self.padding == "valid" and (
            self.residual_blocks is not None or self.decoder_convs != 2 or self.strides_plainly
        ):
            raise ModelError(
                "residual_blocks, decoder_convs and downsample='stride' need padding='same'"
            )
        if self.decoder_convs < 1:
            raise ModelError(f"decoder_convs must be 1 or more, got {self.decoder_convs}")

    @property
    def strides_plainly(self) -> bool:
        """Return whether plain convolutions stride in the place of poolings."""
        return self.downsample == "stride" and self.residual_blocks is None


class UNet(nn.Module):
    """The network.

    Args:
        task: What it maps from and to.
        options: How it is built.
    """

    def __init__(self, task: Task, options: UNetOptions) -> None:
        super().__init__()
        self.task, self.options = task, options
        self.levels = options.levels(task.spatial_dims)
        self.level_strides = level_strides(self.levels)
        widths = [level.width for level in self.levels]
        dims, depth = task.spatial_dims, len(self.levels)
        valid = (0,) * dims if options.padding == "valid" else None
        block = partial(
            double_conv, dims, style=options.style, padding=valid, convs=options.decoder_convs
        )
        self.encoder = nn.ModuleList(
            double_conv(dims, before, level, style=options.style, stride=level.stride)
            if options.strides_plainly
            else encoder_level(before, level, options, index=index, padding=valid)
            for index, (before, level) in enumerate(
                zip([task.in_channels, *widths], self.levels, strict=False)
            )
        )
        self.pools = (
            nn.ModuleList(nn.Identity() for _ in self.levels[1:])
            if options.strides_plainly
            else encoder_pools(self.levels, options)
        )
        self.drop = nn.Dropout(options.dropout)
        self.ups, self.decoder, heads = nn.ModuleList(), nn.ModuleList(), []
        for index in range(depth - 1):
            level, below = self.levels[index], self.levels[index + 1]
            if not options.interpolates:
                self.ups.append(make_deconv(dims, below.width, level.width, stride=below.stride))
            joined = level.width + (below.width if options.interpolates else level.width)
            self.decoder.append(block(joined, level))
            if index == 0 or options.deep_supervision:
                heads.append(pointwise(dims, level.width, task.num_classes))
        if depth == 1:
            heads.append(pointwise(dims, widths[0], task.num_classes))
        self.heads = nn.ModuleList(heads)
        initialise_he(self)

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """Layers whose bias is a bias of the logits, one a head."""
        return tuple(self.heads)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of an image.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            `[B, num_classes, *spatial]`, smaller with `padding="valid"`; in training with deep
            supervision a list of them, finest first, see `head_grid`.

        Raises:
            ModelError: The shape does not fit, or `padding="valid"` cannot take the size.
        """
        check_input(image, spatial_dims=self.task.spatial_dims, in_channels=self.task.in_channels)
        size = image.shape[2:]
        if self.options.padding == "valid":
            for axis, n in enumerate(size):
                if output_size(self.levels, n, axis) is None:
                    raise ModelError(
                        f"the valid U-Net cannot take {n} along axis {axis}: "
                        f"the next sizes that fit are {_nearest_sizes(self.levels, n, axis)}"
                    )
            return self._decode(self._encode(image))[0]
        logits = self._decode(self._encode(pad_to_multiple(image, total_stride(self.levels))))
        if self.training and self.options.deep_supervision:
            place = partial(
                place_head,
                padded=logits[0].shape[2:],
                size=size,
                on_own_grid=self.options.has_own_grids,
            )
            return [place(level) for level in logits]
        return crop_to(logits[0], size)

    def _encode(self, x: Tensor) -> list[Tensor]:
        skips = []
        for index, block in enumerate(self.encoder):
            x = block(x if index == 0 else self.pools[index - 1](x))
            if index >= len(self.encoder) - 2 and self.options.dropout > 0:
                x = self.drop(x)
            skips.append(x)
        return skips

    def _decode(self, skips: list[Tensor]) -> list[Tensor]:
        x = skips[-1]
        wanted = len(self.heads) if self.training else 1
        logits = [] if len(skips) > 1 else [self.heads[0](x)]
        for index in range(len(skips) - 2, -1, -1):
            skip = skips[index]
            if not self.options.interpolates:
                x = self.ups[index](x)
            else:
                x = resize_linear(x, skip.shape[2:])
            x = self.decoder[index](concat([crop_to(skip, x.shape[2:], None), x]))
            if index < wanted:
                logits.insert(0, self.heads[index](x))
        return logits


def output_size(levels: Sequence[Level], size: int, axis: int) -> int | None:
    """Size that the valid U-Net gives back along one axis.

    Args:
        levels: Levels, finest first.
        size: Input size.
        axis: Which axis.

    Returns:
        The size of the logits, or None where a pooling would not come out even.
    """
    trim = [2 * (level.kernel[axis] - 1) for level in levels]
    for index, level in enumerate(levels):
        if size % level.stride[axis]:
            return None
        size = size // level.stride[axis] - trim[index]
        if size < 1:
            return None
    for index in range(len(levels) - 2, -1, -1):
        size = size * levels[index + 1].stride[axis] - trim[index]
        if size < 1:
            return None
    return size


def _nearest_sizes(levels: Sequence[Level], size: int, axis: int) -> str:
    below = [n for n in range(size - 1, 0, -1) if output_size(levels, n, axis)][:1]
    above = size + 1
    while output_size(levels, above, axis) is None:
        above += 1
    return " and ".join(str(n) for n in [*below, above])


ARCHITECTURE = Architecture(
    name="unet",
    options=UNetOptions,
    build=UNet,
    paper={
        "widths": (64, 128, 256, 512, 1024),
        "padding": "valid",
        "norm": None,
        "activation": "relu",
        "dropout": 0.5,
    },
    reference="Ronneberger, Fischer, Brox 2015",
)
