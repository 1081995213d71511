"""Prepared cases, and batches made from them a step ahead."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from segmed.errors import ManifestError
from segmed.manifest.schema import Case, Manifest
from segmed.metrics.training_norms import training_norms
from segmed.plan.schema import Plan
from segmed.preprocessing import PreparedCases
from segmed.training.device import Device
from segmed.training.distributed import ProcessGroup
from segmed.training.sampling import (
    TrainingCase,
    draw_patches,
    step_generator,
)
from segmed.training.stored import stored_case
from segmed.transforms.augmentation import AugmentationDraw, source_size
from segmed.transforms.extra_augmentation import extra_augmentation
from segmed.transforms.rand_augment import RandAugment

LabelMaps: TypeAlias = Mapping[str, Path] | None
"""File of each case's label map by a first stage, by case id."""

log = logging.getLogger(__name__)

LOST_STRUCTURES = "lost_structures"
"""Key of a package's provenance: training cases in which resampling loses a structure, by name."""

RESIDENT_SHARE = 0.25
"""Prepared cases stay on the GPU if they take at most this share of its free memory."""


@dataclass(frozen=True)
class Batch:
    """One step's patches.

    Attributes:
        image: `[B, C, *source]`, cut large enough for the draw.
        label: Class indices, `[B, *source]`.
        draw: The changes that are still to be applied.
        case_ids: Case of each patch.
    """

    image: Tensor
    label: Tensor
    draw: AugmentationDraw
    case_ids: tuple[str, ...]

    def pinned(self) -> Batch:
        """The batch in pinned memory, from which it travels to a GPU beside a step."""
        image, label = (
            values if values.is_cuda else values.pin_memory() for values in (self.image, self.label)
        )
        return replace(self, image=image, label=label)


def load_cases(
    manifest: Manifest,
    cases: Sequence[Case],
    plan: Plan,
    cache_dir: Path,
    *,
    label_maps: LabelMaps = None,
    on_case: Callable[[], None] | None = None,
) -> list[TrainingCase]:
    """Prepare the cases that the cache does not have yet; voxels are read when they are used.

    Args:
        manifest: The image set.
        cases: Which of its cases.
        plan: How they are prepared.
        cache_dir: Where prepared cases are kept.
        label_maps: Those of a first stage, for a plan that refines it.
        on_case: Called after each case.

    Returns:
        The cases in order.

    Raises:
        ManifestError: A case has no label or cannot be read; the message names it.
    """
    for case in cases:
        if case.label is None:
            raise ManifestError(f"case {case.id} has no label: it cannot be trained on")
    prepared = PreparedCases(manifest, plan, cache_dir, cases=cases, label_maps=label_maps)
    return [stored_case(case) for case in prepared.prepare(on_case=on_case)]


def load_shared(
    manifest: Manifest,
    cases: Sequence[Case],
    plan: Plan,
    cache_dir: Path,
    *,
    process_group: ProcessGroup,
    label_maps: LabelMaps = None,
    on_case: Callable[[], None] | None = None,
) -> list[TrainingCase]:
    """`load_cases`, the preparation shared out over the processes of a training.

    Each process fills the cache with its part of the cases, and then takes all of them from it.
    Where the processes have caches of their own, each prepares all cases.

    Args:
        manifest: The image set.
        cases: Which of its cases.
        plan: How they are prepared.
        cache_dir: Where prepared cases are kept.
        process_group: The processes.
        label_maps: Those of a first stage, for a plan that refines it.
        on_case: Called after each case that this process prepares.
    """
    load = partial(load_cases, label_maps=label_maps)
    if process_group.is_joined:
        if part := process_group.part_of(cases):  # there may be more processes than cases
            load(manifest, part, plan, cache_dir, on_case=on_case)
        process_group.wait()
        on_case = None
    return load(manifest, cases, plan, cache_dir, on_case=on_case)


def norms_of(
    manifest: Manifest,
    cases: Sequence[Case],
    plan: Plan,
    cache_dir: Path,
    label_maps: LabelMaps = None,
) -> dict[str, Any]:
    """Return the reference statistics of the cases; see `segmed.metrics.training_norms`.

    It was measured when the cases were prepared: here a small file a case is read.
    """
    kept = PreparedCases(manifest, plan, cache_dir, cases=cases, label_maps=label_maps)
    prepared = [kept.case(index) for index in range(len(kept))]
    found = (case.read(lambda entry: entry.measures) for case in prepared)
    measured = [measures for measures in found if measures is not None]
    lost = Counter(name for case in prepared for name in case.facts.lost)
    return {**training_norms(measured), **({LOST_STRUCTURES: dict(lost)} if lost else {})}


def warn_of_losses(norms: Mapping[str, Any], spacing_mm: Sequence[float]) -> None:
    """Log how many structures resampling leaves no voxel of, if there are such."""
    if lost := norms.get(LOST_STRUCTURES):
        log.warning(
            "%d structures of training cases have no voxel left at %s mm and are not trained on: "
            "%s; make a plan of a finer spacing if they matter",
            sum(lost.values()),
            " x ".join(f"{edge:.3g}" for edge in spacing_mm),
            ", ".join(f"{name} in {count} cases" for name, count in sorted(lost.items())),
        )


def place_cases(
    cases: Sequence[TrainingCase], device: Device, *, room: float = inf
) -> list[TrainingCase]:
    """Move the cases to the GPU where they fit easily; otherwise leave them.

    Args:
        cases: Prepared cases.
        device: Device of the training.
        room: Bytes of its memory that a step leaves free.
    """
    if not device.is_cuda:
        return list(cases)
    free, _ = torch.cuda.mem_get_info(device.torch_device)
    need = sum(case.voxels.num_bytes for case in cases)
    if need > min(RESIDENT_SHARE * free, room):
        return list(cases)
    return [case.on(device.torch_device) for case in cases]


def make_batch(
    cases: Sequence[TrainingCase],
    plan: Plan,
    *,
    seed: int,
    step: int,
    share: slice,
    batch_size: int | None = None,
) -> Batch:
    """The batch of one step: a function of seed and step, whatever happened before.

    Args:
        cases: Prepared cases.
        plan: Batch, patch and augmentation.
        seed: The run's seed.
        step: Number of the step.
        share: Which patches of the batch this process takes.
        batch_size: Patches of the whole batch; the plan's if not given.

    Returns:
        The batch, not yet augmented.
    """
    generator = step_generator(seed, step)
    draws = draw_patches(cases, plan, generator, batch_size=batch_size)
    draw = RandAugment.of(plan).drawn(len(draws), generator).part(share)
    size = list(source_size(plan.patch_size, draw))
    axes = len(cases[0].shape)
    if plan.slice_axis is not None and axes == len(plan.patch_size) + 1:
        size.insert(plan.slice_axis, 1)
    taken = draws[share]
    patches = [cases[d.case].patch(d.centre, size) for d in taken]
    images = torch.stack([image for image, _ in patches])
    labels = torch.stack([label for _, label in patches])
    if len(size) > len(plan.patch_size) and plan.slice_axis is not None:
        images = images.squeeze(plan.slice_axis + 2)
        labels = labels.squeeze(plan.slice_axis + 1)
    if plan.refines:  # no structure of the first stage beyond the border
        images[:, plan.in_channels :].clamp_(min=0.0)
    return Batch(images, labels.long(), draw, tuple(cases[d.case].id for d in taken))


def augment(batch: Batch, plan: Plan, device: Device) -> tuple[Tensor, Tensor]:
    """Move a batch to the device and apply its changes there."""
    where = device.torch_device
    image = batch.image.to(where, non_blocking=True)
    label = batch.label.to(where, non_blocking=True)
    image, label = RandAugment.of(plan, batch.draw).applied(image, label, plan.patch_size)
    extra = extra_augmentation(plan)
    return (image, label) if extra is None else extra(image, label, batch.draw.noise_seed.tolist())


Work = TypeVar("Work")


def one_ahead(make: Callable[[int], Work], first: int, *, ahead: int = 1) -> Iterator[Work]:
    """Host work of the steps from `first` on, some of it made while earlier work is used.

    Args:
        make: Makes the work of a step; called in threads where more than one step is ahead.
        first: Number of the first step.
        ahead: Steps that are made ahead, each by a thread.
    """
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        coming = deque(pool.submit(make, step) for step in range(first, first + ahead))
        try:
            for step in range(first + ahead, 2**62):
                work = coming.popleft().result()
                coming.append(pool.submit(make, step))
                yield work
        finally:
            for one in coming:
                one.cancel()
