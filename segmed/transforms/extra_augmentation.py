"""Random transforms of MONAI that a plan adds to the augmentation, applied to whole batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.plan.extra_augmentation import SPATIAL, ExtraTransform
from segmed.plan.schema import Plan

IMAGE, LABEL = "image", "label"

INTERPOLATING = frozenset(SPATIAL) - {"RandFlip", "RandRotate90"}
"""Spatial transforms with a mode of interpolation for each of image and label."""

SEED_OFFSET = 0x5E6D
"""Added to the seeds of noise, so that a patch's extra transforms do not repeat its draws."""


class ExtraAugmentation:
    """Random transforms of MONAI on each patch of a batch, drawn from the patch's own seed.

    A step can so be drawn again: its patches are a function of seed and step.

    Args:
        transforms: Names and arguments.
        patch_size: Voxels of a patch along each axis.

    Raises:
        UsageError: MONAI refuses the arguments.
    """

    def __init__(self, transforms: Sequence[ExtraTransform], patch_size: Sequence[int]) -> None:
        from monai.transforms import Compose  # noqa: PLC0415 - few plans need all of MONAI

        self.patch_size = tuple(patch_size)
        self.chain = Compose([_made(extra) for extra in transforms])

    def __call__(self, image: Tensor, label: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            image: `[B, C, *patch]`.
            label: Class indices, `[B, *patch]`.
            seeds: One a patch.

        Returns:
            Image and label of the same shapes, types and device.

        Raises:
            UsageError: A transform fails on the patch, or changes its shape.
        """
        pairs = [
            self._one(one, classes, int(seed))
            for one, classes, seed in zip(image, label, seeds, strict=True)
        ]
        images, labels = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _one(self, image: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        self.chain.set_random_state(seed=(seed + SEED_OFFSET) % 2**31)
        try:
            # Cloned, as some change their input; labels as numbers that all of them can sample.
            done = self.chain({IMAGE: image.clone(), LABEL: label[None].float()})
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UsageError(f"recipe.extra_augmentation fails on a patch: {reason}") from error
        moved, classes = (torch.as_tensor(done[key]).as_subclass(Tensor) for key in (IMAGE, LABEL))
        if tuple(moved.shape[1:]) != self.patch_size or tuple(classes.shape[1:]) != self.patch_size:
            raise UsageError(
                f"recipe.extra_augmentation changes a patch of {self.patch_size} voxels to "
                f"{tuple(moved.shape[1:])}: RandRotate90 needs spatial_axes of equal length"
            )
        return moved.to(image), classes[0].round().to(label)


def extra_augmentation(plan: Plan) -> ExtraAugmentation | None:
    """Return the extra augmentation of a plan; None if it has none.

    Raises:
        UsageError: MONAI refuses the arguments of a transform.
    """
    listed = plan.recipe.extra_augmentation
    if not listed:
        return None
    key = json.dumps([one.model_dump(mode="json") for one in listed])
    return _made_once(key, plan.patch_size)


@lru_cache(maxsize=4)
def _made_once(transforms: str, patch_size: tuple[int, ...]) -> ExtraAugmentation:
    listed = [ExtraTransform.model_validate(one) for one in json.loads(transforms)]
    return ExtraAugmentation(listed, patch_size)


def _made(extra: ExtraTransform) -> Any:
    """Return the dictionary transform of MONAI.

    Raises:
        UsageError: MONAI refuses the arguments.
    """
    import monai.transforms as of_monai  # noqa: PLC0415 - few plans need all of MONAI

    is_spatial = extra.name in SPATIAL
    modes = {"mode": ["bilinear", "nearest"]} if extra.name in INTERPOLATING else {}
    try:
        return getattr(of_monai, f"{extra.name}d")(
            keys=[IMAGE, LABEL] if is_spatial else [IMAGE], **modes, **extra.arguments
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"recipe.extra_augmentation: {extra.name}: {error}") from error
