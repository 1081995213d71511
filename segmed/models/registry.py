"""The list of architectures, and the one builder of them all."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import nn

from segmed.architectures import registered_architecture, require_architecture
from segmed.doors import checked
from segmed.errors import ModelError, UsageError, unknown_name
from segmed.models import deeplabv3plus, fcn, nnunet, unet, unet3plus, unetpp
from segmed.models.options import Architecture, Task
from segmed.models.registered import build_registered

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry
    for entry in (
        *fcn.ARCHITECTURES,
        unet.ARCHITECTURE,
        unetpp.ARCHITECTURE,
        unet3plus.ARCHITECTURE,
        deeplabv3plus.ARCHITECTURE,
    )
}

IMPORTED_NETWORKS = {nnunet.NAME: nnunet.ARCHITECTURE}
"""Networks of packages that were trained elsewhere; no plan offers them."""


def architecture(name: str) -> Architecture:
    """The entry of one built-in architecture.

    Args:
        name: One of `segmed.architectures.BUILT_IN`.

    Returns:
        Its entry.

    Raises:
        UsageError: The name is unknown, or that of a registered architecture.
    """
    require_architecture(name)
    if name not in ARCHITECTURES:
        raise UsageError(
            f"{name!r} is a registered architecture; this is for the built-in ones: "
            f"{', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def resolve_options(name: str, *, preset: str | None, spatial_dims: int) -> dict[str, Any]:
    """Options that a preset sets.

    Args:
        name: One of `list_models()`.
        preset: `paper`, or None for no options.
        spatial_dims: 2 or 3.

    Returns:
        Options by name.

    Raises:
        UsageError: The name is unknown.
        ModelError: The preset is unknown.
    """
    entry = architecture(name)
    if preset not in (None, "paper"):
        raise ModelError(f"unknown preset {preset!r}: known are 'paper' and None")
    if preset is None:
        return {}
    return {**entry.paper, **(entry.paper_3d if spatial_dims == 3 else {})}


@checked()
def build_model(
    name: str,
    *,
    spatial_dims: int,
    in_channels: int,
    num_classes: int,
    has_regions: bool = False,
    preset: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network.

    Args:
        name: One of `list_models()`.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        num_classes: Classes of the logits, background included; of regions their number.
        has_regions: The classes are regions, which overlap; networks that combine probabilities
            (averaged heads, gates) then take the sigmoid of each.
        preset: `paper` for the paper's topology and widths; None for the planned form.
        options: Fields of the architecture's options, over the preset's; of a registered
            architecture, keyword arguments of its builder.

    Returns:
        A network from `[B, in_channels, *spatial]` to logits `[B, num_classes, *spatial]`.

    Raises:
        UsageError: The name or an option is unknown.
        ModelError: The options contradict each other.
    """
    task = Task(spatial_dims, in_channels, num_classes, has_regions)
    if (custom := registered_architecture(name)) is not None:
        if preset is not None:
            raise ModelError(f"{name} is a registered architecture and has no preset {preset!r}")
        return build_registered(custom, task, options)
    entry = IMPORTED_NETWORKS.get(name) or architecture(name)
    known = {field.name for field in fields(entry.options)}  # type: ignore[arg-type]  # every options class is a dataclass
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    if preset is not None:
        options = {**resolve_options(name, preset=preset, spatial_dims=spatial_dims), **options}
    return entry.build(task, entry.options(**options))
