"""The way of an image through a GPU: what is placed there, and what happens if memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.device_memory import (
    DeviceMemory,
    fitting_batch,
    forecast_device_memory,
    usable_bytes,
)
from segmed.inference.sliding import WindowRecipe
from segmed.plan import Plan

logger = logging.getLogger(__name__)


class DevicePath:
    """Batch and place of the blending of one predictor on a GPU.

    Args:
        engines: Engines on one device.
        plan: Gives channels, classes and window.
        batch: Windows of a full batch.
        share: Part of the GPU's free memory that may be taken, where several share it.

    Attributes:
        device: The device of the engines.
        batch: Windows that go through the network at once.
        blends_on_cpu: The GPU's memory ran out beside a single window.
    """

    def __init__(
        self, engines: Sequence[CudaEngine], plan: Plan, *, batch: int, share: float
    ) -> None:
        self.device = engines[0].device
        self.batch = batch
        self.blends_on_cpu = False
        self._engines = tuple(engines)
        self._plan = plan
        self._share = share

    def forecast(
        self, recipe: WindowRecipe, shape: tuple[int, ...], image_shape: tuple[int, ...]
    ) -> DeviceMemory:
        """Memory that a segmentation takes on the GPU beside the weights.

        Args:
            recipe: Windows of the prepared image.
            shape: Voxels of the prepared image along each axis.
            image_shape: Voxels of the image as stored.
        """
        window = (self._plan.network_channels, *self._plan.patch_size)
        return forecast_device_memory(
            shape,
            image_shape,
            recipe,
            channels=self._plan.network_channels,
            num_classes=self._plan.num_classes,
            window_bytes=sum(engine.window_bytes(window) for engine in self._engines),
        )

    def takes(
        self, recipe: WindowRecipe, shape: tuple[int, ...], image_shape: tuple[int, ...]
    ) -> bool:
        """Return whether volume, sums and label map fit on the GPU; settle the batch before.

        The batch is settled once, by the memory that is free before the first image; the graphs
        then hold its memory. Args are those of `forecast`.
        """
        need = self.forecast(recipe, shape, image_shape)
        usable = usable_bytes(self.device, share=self._share)
        if not any(engine.has_graphs for engine in self._engines):
            one = need.window // recipe.batch
            self.batch = fitting_batch(self.batch, free=usable, window_bytes=one, blend=need.blend)
            usable -= self.batch * one
        return not self.blends_on_cpu and need.blend <= usable

    def take_less(self) -> bool:
        """Take less memory from now on: half the batch, at last blending on the CPU.

        Returns:
            False if less is impossible.
        """
        if self.blends_on_cpu:
            return False
        if self.batch > 1:
            self.batch //= 2
            logger.warning("out of GPU memory: again with %d windows at once", self.batch)
        else:
            self.blends_on_cpu = True
            logger.warning("out of GPU memory: windows are blended on the CPU from now on")
        for engine in self._engines:
            engine.shrink(self.batch)
        return True

    def fell_back(self) -> bool:
        """Return whether an engine lost values to a narrow type and now runs in a wider one."""
        changed = [engine.fall_back() for engine in self._engines]
        return any(changed)
