"""Windows by which the networks of a plan walk a prepared image."""

from __future__ import annotations

from segmed.inference.sliding import WindowRecipe, shallowest_dim
from segmed.plan import Plan


def is_thin(plan: Plan, axes: int) -> bool:
    """Return whether a 2D network walks a volume, slice by slice.

    Args:
        plan: Plan of the network.
        axes: Axes of the image.
    """
    return plan.spatial_dims == 2 and axes == 3


def recipe_of(
    plan: Plan, shape: tuple[int, ...], *, batch: int, buffer_dim: int | None = None
) -> WindowRecipe:
    """The window recipe of a prepared image.

    Args:
        plan: Plan of the networks.
        shape: Voxels of the prepared image along each axis.
        batch: Windows that go through a network at once.
        buffer_dim: Axis along which slabs come out; the one with the fewest voxels beside a window
            if not given. A 2D network in a volume goes along its slices.
    """
    window = plan.patch_size
    if is_thin(plan, len(shape)):
        buffer_dim = plan.slice_axis or 0
        window = (*window[:buffer_dim], 1, *window[buffer_dim:])
    elif buffer_dim is None:
        buffer_dim = shallowest_dim(shape, window)
    rules = plan.inference
    return WindowRecipe(
        window=window,
        overlap=rules.overlap,
        blend=rules.blend,
        batch=batch,
        buffer_dim=buffer_dim,
        skip_empty=rules.skip_empty_windows,
        has_background=not plan.encoding.has_regions,
        placement=rules.placement,
    )
