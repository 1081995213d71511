"""From a package and an image to its segmentation, on the image's own grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from torch import Tensor

from segmed.inference.engine import Engine, TorchEngine, resolve_device
from segmed.inference.ensemble import averaged, mirrored, require_one_contract, slice_by_slice
from segmed.inference.sliding import NetworkFn, WindowRecipe, sliding_slabs, zeros
from segmed.inference.way_back import Piece, restored_pieces
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.preprocessing import Prepared, class_values, prepare

EngineName = Literal["auto", "torch"]

BATCH_VOXELS = 2**18
"""Aim for the voxels of a batch of windows on the CPU; more gains nothing there."""


@dataclass(frozen=True)
class Segmentation:
    """What was found in one image.

    Attributes:
        label: `[1, *spatial]` uint8 (uint16 where a label value needs it), label values of the
            plan, on the image's grid.
        probs: `[K, *spatial]` float32 on the image's grid, where asked for.
        seconds: Wall time, all told.
        phases: Wall time of each phase, in seconds: `prepare`, `network`, `way_back`.
    """

    label: MetaTensor
    probs: Tensor | None
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)


class Predictor:
    """Loads networks once and segments many images.

    Args:
        packages: One package, or several that share one contract: their probabilities are averaged.
        device: `auto`, `cpu` or `cuda`.
        engine: What runs the networks.
        tta: Average over the mirror images that the plan allows.
    """

    def __init__(
        self,
        packages: ModelPackage | Sequence[ModelPackage],
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        tta: bool = False,
    ) -> None:
        members = [packages] if isinstance(packages, ModelPackage) else list(packages)
        self.plan: Plan = require_one_contract([member.plan for member in members])
        self.packages = tuple(members)
        self.device = resolve_device(device)
        self.engines: list[Engine] = [
            TorchEngine(member.build(), self.device) for member in members
        ]
        self.tta = tta
        self._seconds = 0.0

    def predict(self, image: MetaTensor, *, probabilities: bool = False) -> Segmentation:
        """Segment one image.

        Args:
            image: `[C, *spatial]` in storage order with its affine, as `read_image` gives it.
            probabilities: Keep the class probabilities too.

        Raises:
            ImageError: The image has other channels than the plan.
            GeometryError: It has other axes than the plan.
        """
        start = time.perf_counter()
        prepared = prepare(image, self.plan)
        spent = time.perf_counter() - start
        found = self.segment(prepared, probabilities=probabilities)
        phases = {"prepare": spent, **found.phases}
        return Segmentation(found.label, found.probs, time.perf_counter() - start, phases)

    def segment(self, prepared: Prepared, *, probabilities: bool = False) -> Segmentation:
        """Segment one prepared image; the first half of `predict` may so run elsewhere.

        Args:
            prepared: What `segmed.preprocessing.prepare` gave for this predictor's plan.
            probabilities: Keep the class probabilities too.
        """
        start = time.perf_counter()
        self._seconds = 0.0
        grid = prepared.grid_in
        values = class_values(self.plan)
        table = np.array(values, dtype=np.uint8 if max(values) <= 255 else np.uint16)
        label = np.zeros(grid.shape, dtype=table.dtype)
        probs = _certain_background(len(values), grid.shape) if probabilities else None
        for piece in self.pieces(prepared):
            label[piece.region] = table[_most_probable(piece.probs)]
            if probs is not None:
                probs[(slice(None), *piece.region)] = piece.probs
        whole = MetaTensor(torch.from_numpy(label)[None], affine=torch.from_numpy(grid.affine_ras))
        seconds = time.perf_counter() - start
        phases = {"network": self._seconds, "way_back": seconds - self._seconds}
        return Segmentation(whole, probs, seconds, phases)

    def pieces(self, prepared: Prepared) -> Iterator[Piece]:
        """Probabilities on the input's grid, piece by piece as the windows advance."""
        recipe = self.recipe(tuple(prepared.tensor.shape[1:]))
        slabs = sliding_slabs(self._timed(self._network()), prepared.tensor, recipe)
        return restored_pieces(slabs, prepared.placement, recipe.sweep)

    def recipe(self, shape: tuple[int, ...]) -> WindowRecipe:
        """How a prepared volume of this shape is walked."""
        window = self.plan.patch_size
        axis = self.plan.slice_axis
        if len(shape) == 3 and self.plan.spatial_dims == 2:
            axis = 0 if axis is None else axis
            window = (*window[:axis], 1, *window[axis:])
            sweep = axis
        else:
            sweep = shallowest_sweep(shape, window)
        rules = self.plan.inference
        return WindowRecipe(
            window=window,
            overlap=rules.overlap,
            blend=rules.blend,
            batch=max(1, BATCH_VOXELS // prod(window)),
            sweep=sweep,
            skip_empty=rules.skip_empty_windows,
        )

    def _network(self) -> NetworkFn:
        network = averaged(self.engines)
        if self.tta:
            network = mirrored(network, self.plan.inference.mirror_axes)
        return network

    def _timed(self, network: NetworkFn) -> NetworkFn:
        def apply(windows: Tensor) -> Tensor:
            start = time.perf_counter()
            axis = self.plan.slice_axis
            is_thin = self.plan.spatial_dims == 2 and windows.ndim == 5
            run = slice_by_slice(network, axis or 0) if is_thin else network
            maps = run(windows)
            self._seconds += time.perf_counter() - start
            return maps

        return apply


def shallowest_sweep(shape: Sequence[int], window: Sequence[int]) -> int:
    """The axis along which a buffer of one window's depth holds the fewest voxels."""
    sizes = [
        window[axis] * prod(size for other, size in enumerate(shape) if other != axis)
        for axis in range(len(shape))
    ]
    return sizes.index(min(sizes))


def _most_probable(probs: Tensor) -> npt.NDArray[np.int64]:
    return np.asarray(probs.argmax(dim=0).numpy())


def _certain_background(num_classes: int, shape: Sequence[int]) -> Tensor:
    probs = zeros((num_classes, *shape))
    probs[0] = 1.0
    return probs
