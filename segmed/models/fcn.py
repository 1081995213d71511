"""Fully convolutional networks: FCN-32s, 16s, 8s (Long, Shelhamer, Darrell 2015; arXiv 1411.4038).

Figure 3 and section 4.2 of the paper; section 4 of its TPAMI version (1605.06211) for training at
once: VGG16 whose classifier became convolutions (fc6 7x7, fc7 1x1, 4096 features, dropout 0.5), a
1x1 convolution to class scores, enlarged by transposed convolutions that start as bilinear
interpolation. 16s adds the scores of pool4 to the twice enlarged ones, 8s those of pool3 again.
Scores start at zero, so that each stage of training starts as the one before.

`preset="paper"` is the reference net: padding of 100 around the image, poolings that round up, crop
offsets 19 (32s), 5 and 27 (16s), 5, 9 and 31 (8s). `at_once=True` scales pool4 by 0.01 and pool3 by
0.0001 before their scores; `freeze_upsampling=True` keeps the interpolation fixed.

The planned form differs: stages, widths, strides and kernels per axis from the plan, a norm after
each convolution, padding that keeps sizes, fc6 with the plan's kernel and `head_width` features,
He-drawn scores. Taps follow the levels: with a total stride of 8, FCN-8s taps strides 4 and 2. In
3D the paper's preset is of this kind too, with VGG16's stages and fc6 of 3x3x3 and 1024 features:
the plain inflation of fc6 to 7x7x7 and 4096 would have 780 million parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import DECONV, ConvUnit, check_input, initialise_he, pointwise
from segmed.models.encoders.vgg import VGGEncoder
from segmed.models.options import Architecture, Axes, LevelOptions, Task, check_choice, per_axis
from segmed.models.resize import crop_to, pad_to_multiple, place_head, resize_linear

HUNDRED = 100
"""Padding of the reference net's first convolution: keeps fc6 within the map for any input."""

CROPS: dict[int, tuple[tuple[int, ...], int]] = {0: ((), 19), 1: ((5,), 27), 2: ((5, 9), 31)}
"""Offsets of the reference nets: of each tapped score, and of the logits."""

AT_ONCE_SCALES = (1e-2, 1e-4)
"""Factors on pool4 and pool3 when all stages are trained at once."""


@dataclass(frozen=True, kw_only=True)
class FCNOptions(LevelOptions):
    """Options of the FCNs; the last level's width is that of fc6 and fc7.

    Attributes:
        padding: `same` keeps sizes; `hundred` is the paper's padding with crops.
        head_width: Features of fc6 and fc7; None takes the last of `widths`.
        head_kernel: Kernel of fc6, one number or one per axis; None takes the last level's.
        at_once: Scale the tapped maps for training all stages together.
        freeze_upsampling: Keep the transposed convolutions bilinear.
        zero_scores: Start the scores at zero.
    """

    padding: Literal["same", "hundred"] = "same"
    head_width: int | None = None
    head_kernel: int | Sequence[int] | None = None
    at_once: bool = False
    freeze_upsampling: bool = False
    zero_scores: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("padding", self.padding, ("same", "hundred"))
        if self.padding == "hundred" and self.deep_supervision:
            raise ModelError(
                "deep_supervision needs padding='same': the crops are the last score's"
            )
        if self.freeze_upsampling and self.interpolates:
            raise ModelError("freeze_upsampling needs upsample='deconv'")


class FCN(nn.Module):
    """The network.

    Args:
        task: What it maps from and to.
        options: How it is built.
        num_taps: Finer scores that are added: 0 for 32s, 1 for 16s, 2 for 8s. Fewer where there are
            too few levels.

    Raises:
        ModelError: There is one level alone, or the padding of 100 does not go with these levels.
    """

    def __init__(self, task: Task, options: FCNOptions, *, num_taps: int) -> None:
        super().__init__()
        self.task, self.options = task, options
        dims, classes = task.spatial_dims, task.num_classes
        self.levels = options.levels(dims)
        if len(self.levels) < 2:
            raise ModelError("the FCN needs at least 2 levels, got 1")
        self.is_cropped = options.padding == "hundred"
        if self.is_cropped and (
            dims != 2 or [level.stride for level in self.levels[1:]] != [(2, 2)] * 5
        ):
            raise ModelError("padding='hundred' needs two axes and five poolings by 2")
        self.encoder = VGGEncoder(
            task.in_channels,
            self.levels,
            style=options.style,
            first_padding=(HUNDRED,) * dims if self.is_cropped else None,
        )
        self.level_strides = self.encoder.strides
        width = options.head_width or self.levels[-1].width
        self.head = self._make_head(self.encoder.channels[-1], width)
        self.score = pointwise(dims, width, classes)
        last = len(self.levels) - 1
        self.taps = list(range(last - 1, max(-1, last - 1 - num_taps), -1))
        self.score_taps = nn.ModuleList(
            pointwise(dims, self.encoder.channels[level], classes) for level in self.taps
        )
        self.enlarge_taps, self.enlarge_last = nn.ModuleList(), nn.ModuleList()
        if not options.interpolates:
            steps = [self.levels[level + 1].stride for level in self.taps]
            self.enlarge_taps.extend(self._make_deconv(step) for step in steps)
            finest = self.taps[-1] if self.taps else last
            self.enlarge_last.append(self._make_deconv(self.encoder.strides[finest]))
        initialise_he(self)
        self._initialise_scores()

    def _make_head(self, in_channels: int, width: int) -> nn.Sequential:
        dims, options = self.task.spatial_dims, self.options
        kernel = per_axis("head_kernel", options.head_kernel or self.levels[-1].kernel, dims)
        unit = partial(ConvUnit, dims, style=options.style)
        return nn.Sequential(
            unit(
                in_channels,
                width,
                kernel=kernel,
                padding=(0,) * dims if self.is_cropped else None,
            ),
            nn.Dropout(options.dropout),
            unit(width, width, kernel=(1,) * dims),
            nn.Dropout(options.dropout),
        )

    def _make_deconv(self, factor: Axes) -> nn.Module:
        """A transposed convolution by a factor, of Caffe's bilinear kernel size."""
        classes = self.task.num_classes
        return DECONV[self.task.spatial_dims](
            classes,
            classes,
            tuple(2 * f - f % 2 for f in factor),
            stride=factor,
            padding=0 if self.is_cropped else tuple(f // 2 for f in factor),
            bias=False,
        )

    def _initialise_scores(self) -> None:
        for deconv in [*self.enlarge_taps, *self.enlarge_last]:
            with torch.no_grad():
                deconv.weight.copy_(bilinear_kernel(deconv.stride, self.task.num_classes))
            deconv.weight.requires_grad_(not self.options.freeze_upsampling)
        if self.options.zero_scores:
            for score in [self.score, *self.score_taps]:
                nn.init.zeros_(score.weight)

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """The layer whose bias is a bias of all logits: enlarged and fused, it keeps its value."""
        return (self.score,)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of an image.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            `[B, num_classes, *spatial]`; in training with deep supervision a list of them, after
            each fusion, the finest first, see `head_grid`.

        Raises:
            ModelError: The shape does not fit.
        """
        check_input(image, spatial_dims=self.task.spatial_dims, in_channels=self.task.in_channels)
        size = image.shape[2:]
        if self.is_cropped:
            fused = self._fuse(self.encoder(image), CROPS[len(self.taps)][0])
            return crop_to(self._enlarge_last(fused[-1]), size, CROPS[len(self.taps)][1])
        padded = pad_to_multiple(image, self.encoder.strides[-1])
        fused = self._fuse(self.encoder(padded), (0,) * len(self.taps))
        logits = crop_to(self._enlarge_last(fused[-1]), size)
        if self.training and self.options.deep_supervision:
            place = partial(
                place_head,
                padded=padded.shape[2:],
                size=size,
                on_own_grid=self.options.has_own_grids,
            )
            return [logits, *(place(score) for score in fused[-2::-1])]
        return logits

    def _fuse(self, maps: Sequence[Tensor], offsets: Sequence[int]) -> list[Tensor]:
        """Scores after each fusion, coarsest first."""
        scores = [self.score(self.head(maps[-1]))]
        for index, (level, offset) in enumerate(zip(self.taps, offsets, strict=True)):
            tapped = maps[level]
            if self.options.at_once:
                tapped = tapped * AT_ONCE_SCALES[index]
            score = self.score_taps[index](tapped)
            if self.options.interpolates:
                scores.append(score + resize_linear(scores[-1], score.shape[2:]))
            else:
                enlarged = self.enlarge_taps[index](scores[-1])
                scores.append(enlarged + crop_to(score, enlarged.shape[2:], offset))
        return scores

    def _enlarge_last(self, score: Tensor) -> Tensor:
        if self.options.interpolates:
            finest = self.taps[-1] if self.taps else -1
            factor = self.encoder.strides[finest]
            return resize_linear(
                score, [n * step for n, step in zip(score.shape[2:], factor, strict=True)]
            )
        logits: Tensor = self.enlarge_last[0](score)
        return logits


def bilinear_kernel(factor: Sequence[int], num_classes: int) -> Tensor:
    """Weights of a transposed convolution that interpolates each class by itself.

    Args:
        factor: Enlargement per axis; the kernel is `2 f - f % 2` long.
        num_classes: Channels.

    Returns:
        `[num_classes, num_classes, *kernel]`, zero across classes.

    Source:
        Long et al. 2015, section 3.3; the profile is that of Caffe's bilinear filler.
    """
    kernel = torch.ones(())
    for step in factor:
        length = 2 * step - step % 2
        centre = (length - 1) / 2
        profile = 1 - (torch.arange(length) - centre).abs() / step
        kernel = kernel[..., None] * profile
    eye = torch.eye(num_classes).view(num_classes, num_classes, *[1] * len(factor))
    return eye * kernel


def _architecture(name: str, num_taps: int) -> Architecture:
    return Architecture(
        name=name,
        options=FCNOptions,
        build=partial(FCN, num_taps=num_taps),
        paper={
            "widths": (64, 128, 256, 512, 512, 4096),
            "padding": "hundred",
            "head_kernel": 7,
            "norm": None,
            "activation": "relu",
            "dropout": 0.5,
            "zero_scores": True,
        },
        paper_3d={
            "widths": (64, 128, 256, 512, 512, 1024),
            "padding": "same",
            "head_kernel": 3,
        },
        reference="Long, Shelhamer, Darrell 2015",
    )


ARCHITECTURES = (
    _architecture("fcn32s", 0),
    _architecture("fcn16s", 1),
    _architecture("fcn8s", 2),
)
