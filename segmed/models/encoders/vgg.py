"""VGG (Simonyan, Zisserman 2015, ICLR; arXiv 1409.1556), the convolutions only.

Table 1, column D (VGG16): stages of 2, 2, 3, 3 and 3 convolutions of 3x3, each followed by a 2x2
max-pooling. Poolings round sizes up, as Caffe's do.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segmed.models.blocks import ConvUnit, make_pools
from segmed.models.options import Axes, ConvStyle, Level, level_strides

CONVS_PER_STAGE = (2, 2, 3, 3, 3)
"""VGG16."""


class VGGEncoder(nn.Module):
    """Stages of convolutions with a pooling after each.

    Args:
        in_channels: Channels of the image.
        levels: Levels of the stages, finest first, and the one that the last pooling leads to.
        style: What goes with each convolution.
        first_padding: Zeros around the image in the first convolution; None keeps the size.

    Attributes:
        channels: Features of each map that `forward` gives.
        strides: Distance of its voxels on the input grid, per axis.
    """

    def __init__(
        self,
        in_channels: int,
        levels: Sequence[Level],
        *,
        style: ConvStyle,
        first_padding: Axes | None = None,
    ) -> None:
        super().__init__()
        dims = len(levels[0].stride)
        stages, before = [], in_channels
        for index, level in enumerate(levels[:-1]):
            units = []
            for step in range(CONVS_PER_STAGE[min(index, len(CONVS_PER_STAGE) - 1)]):
                units.append(
                    ConvUnit(
                        dims,
                        before,
                        level.width,
                        kernel=level.kernel,
                        style=style,
                        padding=first_padding if index == step == 0 else None,
                    )
                )
                before = level.width
            stages.append(nn.Sequential(*units))
        self.stages = nn.ModuleList(stages)
        self.pools = make_pools(levels)
        widths = [level.width for level in levels[:-1]]
        self.channels: tuple[int, ...] = (*widths[:1], *widths)
        self.strides = level_strides(levels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The first stage's map, then the output of each pooling.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            One map a level, finest first.
        """
        maps = [image] if not self.stages else [self.stages[0](image)]
        for index, pool in enumerate(self.pools):
            x = maps[-1] if index == 0 else self.stages[index](maps[-1])
            maps.append(pool(x))
        return maps
