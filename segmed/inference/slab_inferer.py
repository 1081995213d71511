"""The window loop behind MONAI's `Inferer` interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from monai.inferers import Inferer
from torch import Tensor

from segmed.doors import checked
from segmed.errors import ModelError, UsageError, unknown_name
from segmed.inference.engine import Activation
from segmed.inference.engine import softmax as softmax_classes
from segmed.inference.ensemble import slice_by_slice
from segmed.inference.sliding import WindowRecipe, sliding_slabs
from segmed.inference.windows import Blend, Placement
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Plan


class SlabInferer(Inferer):
    """Sliding-window inference slab by slab: the window loop of `Predictor` for any network.

    Sums are kept in a buffer of one window's depth and divided beforehand, so a volume costs its
    map and no second one of weights. The Gaussian blend has a standard deviation of an eighth of
    the window. With `mode="monai"` (or `constant`) and `placement="fixed"` the result is that of
    MONAI's `SlidingWindowInferer` with `mode="gaussian"` (or `constant`).

    Args:
        roi_size: Voxels of a window along each axis.
        sw_batch_size: Windows that go through the network at once.
        overlap: Smallest share of a window that overlaps the next one, 0 to below 1.
        mode: Blend: `gaussian`, `constant`, or `monai` for MONAI's Gaussian, which is nowhere below
            a thousandth.
        buffer_dim: Spatial axis along which slabs are finished.
        softmax: Blend probabilities instead of the network's own values, as `Predictor` does.
        placement: `even` spreads windows evenly, as at prediction; `fixed` steps as MONAI does.
        slice_axis: Spatial axis that a 2D network goes along slice by slice, where `roi_size` is 1.

    Raises:
        UsageError: An option is out of its range.
    """

    @checked()
    def __init__(
        self,
        roi_size: Sequence[int],
        *,
        sw_batch_size: int = 1,
        overlap: float = 0.5,
        mode: Blend = "gaussian",
        buffer_dim: int = 0,
        softmax: bool = False,
        placement: Placement = "even",
        slice_axis: int | None = None,
    ) -> None:
        super().__init__()
        window = tuple(int(edge) for edge in roi_size)
        _require_recipe(window, sw_batch_size, overlap, mode)
        dims = len(window)
        if not -dims <= buffer_dim < dims:
            raise UsageError(f"buffer_dim must be -{dims} to {dims - 1}, got {buffer_dim}")
        if slice_axis is not None and not (0 <= slice_axis < dims and window[slice_axis] == 1):
            raise UsageError(
                f"roi_size must be 1 along slice_axis, got {window} and slice_axis {slice_axis}"
            )
        if placement not in get_args(Placement):
            raise unknown_name("placement", str(placement), get_args(Placement))
        recipe = WindowRecipe(window, overlap, mode, sw_batch_size, buffer_dim % dims)
        self.recipe = replace(recipe, placement=placement)
        self.activation: Activation | None = softmax_classes if softmax else None
        self.slice_axis = slice_axis
        self.averages_logits = False

    def __repr__(self) -> str:
        """Window, overlap and blend in one line."""
        recipe = self.recipe
        values = "network's values" if self.activation is None else "probabilities"
        return (
            f"SlabInferer({'x'.join(map(str, recipe.window))} voxels, overlap {recipe.overlap:g}, "
            f"{recipe.blend} blend of {values}, {recipe.placement} placement)"
        )

    @classmethod
    def of(cls, plan: Plan, *, sw_batch_size: int = 1, softmax: bool = True) -> SlabInferer:
        """The inferer of a plan: its patch, overlap and blend; a 2D plan goes slice by slice.

        Args:
            plan: The plan of the training set.
            sw_batch_size: Windows that go through the network at once.
            softmax: Give probabilities, of regions by a sigmoid each: blended, as `Predictor`
                does, or of blended logits if the plan averages logits.
        """
        window = list(plan.patch_size)
        if plan.slice_axis is not None:
            window.insert(plan.slice_axis, 1)
        inferer = cls(
            window,
            sw_batch_size=sw_batch_size,
            overlap=plan.inference.overlap,
            mode=plan.inference.blend,
            placement=plan.inference.placement,
            softmax=softmax,
            slice_axis=plan.slice_axis,
        )
        inferer.activation = plan.encoding.probabilities if softmax else None
        inferer.averages_logits = plan.inference.average == "logits"
        return inferer

    @checked()
    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The blended map of each volume of a batch.

        Args:
            inputs: `[B, C, *spatial]`; smaller volumes than the window are padded by zeros.
            network: From windows `[N, C, *window]` to maps `[N, K, *window]`.
            args: Further arguments of the network.
            kwargs: Further arguments of the network by name.

        Returns:
            Float32 `[B, K, *spatial]` on the inputs' device; a MetaTensor with the inputs' metadata
            where they are one.

        Raises:
            UsageError: The batch is empty or no tensor, or the window has another number of axes.
            ModelError: The network gives no single tensor, or another grid than the windows'.
        """
        volumes = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        if volumes.ndim != len(self.recipe.window) + 2 or not volumes.shape[0]:
            raise UsageError(
                f"inputs must be [B, C, {len(self.recipe.window)} spatial axes] with at least one "
                f"volume, got {tuple(volumes.shape)}"
            )

        def maps(windows: Tensor) -> Tensor:
            return self._maps(network(windows, *args, **kwargs))

        walked = maps if self.slice_axis is None else slice_by_slice(maps, self.slice_axis)
        result: Tensor | None = None
        for number, volume in enumerate(volumes):
            for slab in sliding_slabs(walked, volume, self.recipe):
                if result is None:
                    shape = (len(volumes), slab.values.shape[0], *volumes.shape[2:])
                    result = torch.zeros(shape, device=volumes.device)
                rows = slab.values.shape[1 + self.recipe.buffer_dim]
                target = result[number].narrow(1 + self.recipe.buffer_dim, slab.start, rows)
                target.copy_(slab.values)
        assert result is not None  # a batch has a volume, a volume a slab
        if self.averages_logits and self.activation is not None:
            result = self.activation(result)
        if isinstance(inputs, MetaTensor):
            return MetaTensor(result).copy_meta_from(inputs)  # type: ignore[no-any-return]  # MONAI is untyped
        return result

    def _maps(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ModelError(
                f"the network gave a {type(output).__name__} for a batch of windows; a map is one "
                "tensor: call network.eval(), or give a function that picks it"
            )
        values = output.as_tensor() if isinstance(output, MetaTensor) else output
        if self.activation is None or self.averages_logits:
            return values
        return self.activation(values.float())


def _require_recipe(window: tuple[int, ...], batch: int, overlap: float, mode: str) -> None:
    if len(window) not in (2, 3) or min(window) < 1:
        raise UsageError(f"roi_size must be 2 or 3 positive numbers of voxels, got {window}")
    if batch < 1:
        raise UsageError(f"sw_batch_size must be at least 1, got {batch}")
    if not 0.0 <= overlap < 1.0:
        raise UsageError(f"overlap must be at least 0 and below 1, got {overlap}")
    if mode not in get_args(Blend):
        raise UsageError(f"mode must be one of {', '.join(get_args(Blend))}, got {mode!r}")
