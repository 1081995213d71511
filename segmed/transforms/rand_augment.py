"""The random changes of training as MONAI transforms: drawn first, applied after."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.metatensor import MapTransform, MetaTensor, Randomizable, Transform
from segmed.one_line import OneLine
from segmed.plan.schema import Augmentation, Plan
from segmed.transforms.augmentation import (
    AugmentationDraw,
    apply_augmentation,
    draw_augmentation,
    source_size,
)
from segmed.transforms.intensity import with_voxels

LARGEST_SEED = 2**32
"""Seeds of the generator are drawn below this."""


class RandAugment(OneLine, Randomizable, Transform):
    """Flip, rotation, zoom, elastic deformation and changes of intensity, as training draws them.

    `randomize` draws, a call applies: the same draw may be applied to image and label, or again.

    Args:
        settings: Ranges and probabilities.
        spacing_mm: Voxel edge along each axis.
    """

    def __init__(self, settings: Augmentation, spacing_mm: Sequence[float]) -> None:
        self.settings = settings
        self.spacing_mm = tuple(float(edge) for edge in spacing_mm)
        self.draw: AugmentationDraw | None = None
        self.num_shaded: int | None = None

    @classmethod
    def of(cls, plan: Plan, draw: AugmentationDraw | None = None) -> RandAugment:
        """Return the random changes of a plan, which training draws and applies.

        Args:
            plan: Gives ranges, probabilities and spacing.
            draw: A draw to apply.
        """
        edges = enumerate(plan.preprocessing.spacing_mm)
        made = cls(
            plan.recipe.augmentation, [edge for axis, edge in edges if axis != plan.slice_axis]
        )
        made.draw = draw
        made.num_shaded = plan.in_channels if plan.refines else None
        return made

    def drawn(self, num_cases: int, generator: np.random.Generator) -> AugmentationDraw:
        """Draw the changes of a batch from a generator, and keep the draw for later calls.

        Args:
            num_cases: Number of cases.
            generator: Source of randomness.
        """
        self.draw = draw_augmentation(
            self.settings,
            batch_size=num_cases,
            spacing_mm=self.spacing_mm,
            generator=generator,
        )
        return self.draw

    def randomize(self, data: int = 1) -> None:
        """Draw the changes of a batch.

        Args:
            data: Number of cases.
        """
        seed = int(self.R.randint(LARGEST_SEED, dtype="int64"))
        self.drawn(data, np.random.default_rng(seed))

    def source_size(self, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the size to cut cases with for the present draw, so that no change looks beyond.

        Args:
            patch_size: Size of the result along each axis.

        Raises:
            UsageError: Nothing is drawn.
        """
        return source_size(patch_size, self._present())

    def applied(
        self, image: Tensor, label: Tensor, patch_size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Apply the present draw to a batch, as a training step does.

        Args:
            image: `[B, C, *source]`, as cut with `source_size`.
            label: Class indices, `[B, *source]`.
            patch_size: Size of the result along each axis.

        Returns:
            Image `[B, C, *patch]` and label `[B, *patch]`.

        Raises:
            UsageError: Nothing is drawn.
        """
        draw = self._present()
        return apply_augmentation(image, label, draw, patch_size, num_shaded=self.num_shaded)

    def __call__(
        self,
        image: Tensor,
        label: Tensor | None = None,
        *,
        patch_size: Sequence[int] | None = None,
        randomize: bool = True,
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Change one case or a batch.

        Args:
            image: `[C, *spatial]`, or a batch `[B, C, *spatial]`, on any device.
            label: Class indices with as many leading axes: `[1, *spatial]` or `[B, 1, *spatial]`.
            patch_size: Size of the result along each axis; that of the image if not given.
            randomize: Draw first; False applies the present draw.

        Returns:
            The image, and the label where it was given; MetaTensors where the image is one.

        Raises:
            UsageError: Shapes do not fit, or nothing is drawn.
        """
        axes = len(self.spacing_mm)
        if image.ndim not in (axes + 1, axes + 2):
            raise UsageError(
                f"RandAugment takes [C, *spatial] or [B, C, *spatial] of {axes} axes, got "
                f"{tuple(image.shape)}"
            )
        is_case = image.ndim == axes + 1
        voxels = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
        batch = voxels[None] if is_case else voxels
        given = batch.new_zeros((len(batch), *batch.shape[2:])) if label is None else label
        classes = given.as_tensor() if isinstance(given, MetaTensor) else given
        if label is not None:
            classes = classes if is_case else classes[:, 0]
        if randomize:
            self.randomize(len(batch))
        size = tuple(patch_size or batch.shape[2:])
        moved, picked = self.applied(batch.float(), classes, size)
        done = self._like(image, moved[0] if is_case else moved)
        if label is None:
            return done
        return done, self._like(label, picked if is_case else picked[:, None])

    def _present(self) -> AugmentationDraw:
        if self.draw is None:
            raise UsageError("RandAugment has no draw yet: call randomize first")
        return self.draw

    @staticmethod
    def _like(given: Tensor, values: Tensor) -> Tensor:
        return with_voxels(given, values) if isinstance(given, MetaTensor) else values


class RandAugmentd(OneLine, Randomizable, MapTransform):
    """`RandAugment` of an image and its label in a dictionary, by one draw.

    Args:
        image_key: Entry of the image.
        label_key: Entry of the label, taken along where there is one.
        settings: See `RandAugment`.
        spacing_mm: See `RandAugment`.
    """

    def __init__(
        self,
        image_key: Hashable,
        label_key: Hashable,
        settings: Augmentation,
        spacing_mm: Sequence[float],
    ) -> None:
        super().__init__([image_key, label_key], allow_missing_keys=True)
        self.image_key, self.label_key = image_key, label_key
        self.settings, self.spacing_mm = settings, tuple(spacing_mm)
        self.transform = RandAugment(settings, spacing_mm)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandAugmentd:
        """Set the random state; see MONAI's `Randomizable`."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with its entries changed."""
        done = dict(data)
        label = done.get(self.label_key)
        found = self.transform(done[self.image_key], label)
        if label is None:
            done[self.image_key] = found
        else:
            done[self.image_key], done[self.label_key] = found
        return done
