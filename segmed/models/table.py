"""The table of all models, as Markdown for `docs/networks.md`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from segmed.models.describe import ModelCard, describe_model
from segmed.models.names import NAMES

TITLES = {
    "fcn32s": "FCN-32s",
    "fcn16s": "FCN-16s",
    "fcn8s": "FCN-8s",
    "unet": "U-Net",
    "unetpp": "U-Net++",
    "unet3plus": "UNet 3+",
    "deeplabv3plus": "DeepLabv3+",
}
"""What the papers call them."""


@cache
def all_cards() -> tuple[ModelCard, ...]:
    """Every built-in model in its paper's form and in its planned form, in 2D and 3D.

    Returns:
        Cards for one channel and two classes.
    """
    return tuple(
        describe_model(name, spatial_dims=spatial_dims, in_channels=1, num_classes=2, preset=preset)
        for name in NAMES
        for preset in ("paper", None)
        for spatial_dims in (2, 3)
    )


def as_markdown(cards: Sequence[ModelCard]) -> str:
    """A table of models.

    Args:
        cards: One a row.

    Returns:
        Markdown; operations are for one image of the size that the row names.
    """
    rows = [
        "| model | `build_model` | form | parameters | GMAC at input | receptive field "
        "| reference |",
        "|---|---|---|---:|---:|---|---|",
        *(_row(card) for card in cards),
    ]
    return "\n".join(rows) + "\n"


def _row(card: ModelCard) -> str:
    form = "paper" if card.preset == "paper" else f"planned, {card.num_levels} levels"
    if card.name == "deeplabv3plus" and card.preset == "paper":
        form = "paper, ResNet-101"
    size = f"{card.input_size[0]}{'²' if card.spatial_dims == 2 else '³'}"
    field = card.receptive_field[0]
    cells = (
        TITLES[card.name],
        f"`{card.name}`",
        f"{form}, {card.spatial_dims}D",
        f"{card.parameters:,}",
        f"{card.macs / 1e9:,.1f} at {size}",
        "the whole image" if field is None else f"{field} voxels",
        card.reference,
    )
    return f"| {' | '.join(cells)} |"
