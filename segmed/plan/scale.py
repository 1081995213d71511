"""Spacing and patch, chosen together: field of view of a network against training time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from segmed.plan.cost import step_gmac, unet_macs
from segmed.plan.fingerprint import Fingerprint
from segmed.plan.networks import Size, planned_widths, residual_blocks
from segmed.plan.resources import Resources
from segmed.plan.stages import Stage, cascade_hint, scale_of_stage
from segmed.plan.topology import plan_patch, plan_topology

Floats = npt.NDArray[np.float64]

MARGIN = 1.25
"""A patch should reach this far around a structure, as a multiple of its extent."""

FRAME_MARGIN = 2.0
"""Patches have the proportions of the field of view up to this multiple of the largest structure
with its margin."""

CONTEXT_RUNS = 6.0
"""Thin, long structures are recognised from a neighbourhood of this many of their thicknesses."""

FRAME_SHARE = 0.5
"""Structures that are distinguished by their position need this share of the field of view."""

AROUND_LABELS = 1.05
"""A patch that shows all of many labels is this much larger than the box around them."""

MOST_COVERED = 0.6
"""A patch that covers this share of the box around all labels shows their place in it."""

PLACE_POWER = 2.0
"""Of many labels a voxel's is known from its place in the whole: patches that show a share of the
whole count as this power of it as many steps (brain_many_labels at 3 mm, 300 steps: Dice 0.56 with
all labels in every patch, 0.15 with patches of the same size around voxels drawn at random)."""

RESOLUTION_LOSS = 0.6
"""Dice lost at a voxel edge of one thickness; it falls with the power of 1.5. Measured by bringing
the labels of five real sets to coarser grids and back, as probabilities."""

CONTEXT_LOSS: dict[Size, float] = {"small": 0.02, "full": 0.001, "residual": 0.001}
"""Dice lost per unit of (1 / covered share - 1) of the volume that a patch should cover. Measured
for small networks. For those of a GPU it is set, not measured: so that plans keep the images' own
spacing where nnU-Net's published ones do, whose patches cover a twentieth of a liver."""

TRAINING_LOSS = 1.1
"""Dice lost after n steps is this times n to the power of -0.6; measured on two real sets."""

LABELS_LEARNED_TOGETHER = 3
"""So many labels take the steps of one; more share the steps, as measured with 148."""

FINER_GAIN = 0.005
"""Coarser grids must be better by this expected Dice; in doubt the images' own spacing stays."""

PATCH_SLACK: dict[Size, float] = {"small": 0.0, "full": 0.005, "residual": 0.005}
"""The largest patch within this expected Dice of the best is taken: on a GPU, where time is no
limit, more context and fewer borders."""

EDGE_STEP = 1.1
"""Ratio of two spacings tried in turn."""

COARSEST = 8.0
"""Coarsest spacing tried, as a multiple of the images' own finest."""

PATCH_STEP = 1.3
"""Ratio of two patch volumes tried in turn."""

BATCH_SIZE = {2: 8, 3: 2}
"""Patches a step, by spatial dimensions; `full` networks take more where memory allows."""

SMALL_PATCH_VOXELS = {2: 160 * 160, 3: 40_000}
"""Voxels of the smallest useful patch, by spatial dimensions, if the image has as many."""

SMALLEST_PATCH_EDGE = 4
"""A memory that bounds a patch to fewer voxels along an axis is too little."""


@dataclass(frozen=True)
class DatasetScale:
    """Images and structures on the axes of the network's input.

    Attributes:
        shape: Typical image size along each axis, in voxels as stored.
        spacing_mm: Median voxel edge along each axis, in mm.
        extent_mm: Extent of each structure along each axis, `[labels, axes]`, in mm.
        thickness_mm: Thickness of each structure along each axis, `[labels, axes]`, in mm; rows
            beyond those of `extent_mm` are thin gaps between structures.
        needs_place: Whether structures are distinguished by their position in the field of view.
        labels_mm: Box around all labels together along each axis, in mm, where there are many.
        in_channels: Channels of the images.
        num_classes: Classes, background included.
        stage: Stage of a cascade that the plan is for, see `segmed.plan.stages`.
    """

    shape: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    extent_mm: Floats
    thickness_mm: Floats
    needs_place: bool
    in_channels: int
    num_classes: int
    labels_mm: tuple[float, ...] = ()
    stage: Stage | None = None

    @property
    def fov_mm(self) -> Floats:
        """Typical field of view along each axis."""
        return np.asarray(np.multiply(self.shape, self.spacing_mm), dtype=np.float64)

    @property
    def context_mm(self) -> Floats:
        """Box that a patch should cover for each structure, `[labels, axes]`."""
        if self.labels_mm:
            return np.tile(self.frame_mm, (len(self.extent_mm), 1))
        labels = len(self.extent_mm)
        thickness = self.thickness_mm[:labels]
        if len(self.thickness_mm) > labels:  # dense: gaps separate one structure from the next
            thickness = np.minimum(thickness, self.thickness_mm[labels:].min(axis=0))
        wanted = np.minimum(MARGIN * self.extent_mm, CONTEXT_RUNS * thickness)
        if self.needs_place:
            wanted = np.maximum(wanted, FRAME_SHARE * self.fov_mm)
        return np.asarray(np.minimum(wanted, self.fov_mm))

    @property
    def frame_mm(self) -> Floats:
        """Box whose proportions a patch takes: the field of view, or well around the structures."""
        if self.labels_mm:
            return np.minimum(self.fov_mm, AROUND_LABELS * np.asarray(self.labels_mm))
        around = FRAME_MARGIN * MARGIN * self.extent_mm.max(axis=0)
        return np.asarray(np.minimum(self.fov_mm, around))


@dataclass(frozen=True)
class Scale:
    """A spacing and a patch, and what they are expected to cost.

    Attributes:
        spacing_mm: Voxel edge along each of the network's axes, in mm.
        patch_size: Voxels along each axis.
        shape: Typical image size at this spacing, in voxels.
        steps: Steps of training that the time allows.
        resolution: Dice lost by the grid, averaged over structures.
        context: Dice lost by what a patch does not cover.
        training: Dice lost by the end of the time.
        covered: Share of the wanted box that a patch covers, averaged over structures.
    """

    spacing_mm: tuple[float, ...]
    patch_size: tuple[int, ...]
    shape: tuple[float, ...]
    steps: int
    resolution: float
    context: float
    training: float
    covered: float

    @property
    def loss(self) -> float:
        """Expected Dice lost in all."""
        return self.resolution + self.context + self.training

    @property
    def extent_mm(self) -> tuple[float, ...]:
        """Extent of a patch in mm."""
        return tuple(n * edge for n, edge in zip(self.patch_size, self.spacing_mm, strict=True))


def shows_all_labels(scale: Scale, subject: DatasetScale) -> bool:
    """Return whether a patch shows all of many labels together."""
    return bool(subject.labels_mm) and scale.covered >= MOST_COVERED


def choose_scale(
    subject: DatasetScale, *, size: Size, most_voxels: float, resources: Resources
) -> tuple[Scale, Scale]:
    """The spacing and the patch that promise the best Dice within time and voxels.

    Three losses are weighed: structures thinner than some voxels blur on a coarse grid, a patch
    that covers a part of a structure does not show which part, and each voxel of a patch costs
    steps. Fine axes become coarser first, until all are alike.

    Args:
        subject: Images and structures.
        size: Size of the networks.
        most_voxels: Voxels of a patch that the memory holds.
        resources: Time and device of one training.

    Returns:
        The choice, and the best one at the images' own spacing.
    """
    at_own = list(_at_edge(subject, min(subject.spacing_mm), most_voxels, size, resources))
    own = _best(at_own, size)
    coarser = [
        _best(_at_edge(subject, edge, most_voxels, size, resources), size)
        for edge in _edges(subject.spacing_mm)
    ]
    best = min(coarser, key=lambda scale: scale.loss)
    chosen = best if best.loss < own.loss - FINER_GAIN else own
    if subject.stage is not None:
        chosen = scale_of_stage(subject.stage, chosen, own, coarser=coarser, at_own=at_own)
    return chosen, own


def _best(scales: Iterable[Scale], size: Size) -> Scale:
    """The best patch of one spacing; of those that are nearly as good, the largest."""
    tried = list(scales)
    least = min(scale.loss for scale in tried)
    good = [scale for scale in tried if scale.loss <= least + PATCH_SLACK[size]]
    return max(good, key=lambda scale: prod(scale.patch_size))


def _edges(spacing_mm: Sequence[float]) -> Iterator[float]:
    """Voxel edges coarser than the finest, in mm, to three digits."""
    finest = min(spacing_mm)
    edge = finest * EDGE_STEP
    while edge <= finest * COARSEST:
        yield float(f"{edge:.3g}")
        edge *= EDGE_STEP


def _at_edge(
    subject: DatasetScale, edge_mm: float, most_voxels: float, size: Size, resources: Resources
) -> Iterator[Scale]:
    """Patches of growing size on a grid whose finest edge is given."""
    spacing_mm = tuple(max(edge_mm, own) for own in subject.spacing_mm)
    shape = tuple(float(n) for n in subject.fov_mm / np.asarray(spacing_mm))
    frame_mm = subject.frame_mm if size == "small" else subject.fov_mm
    frame = tuple(float(n) for n in frame_mm / np.asarray(spacing_mm))
    voxels = min(float(SMALL_PATCH_VOXELS[len(shape)]), most_voxels)
    previous: tuple[int, ...] = ()
    while True:
        patch = plan_patch(frame, spacing_mm, max_voxels=voxels)
        if patch != previous:
            yield _weighed(subject, spacing_mm, shape, patch, size, resources)
        if voxels >= min(most_voxels, prod(frame)):
            return
        previous = patch
        voxels = min(voxels * PATCH_STEP, most_voxels)


def _weighed(
    subject: DatasetScale,
    spacing_mm: tuple[float, ...],
    shape: tuple[float, ...],
    patch: tuple[int, ...],
    size: Size,
    resources: Resources,
) -> Scale:
    """A spacing and a patch with what they are expected to cost."""
    dims = len(patch)
    topology = plan_topology(patch, spacing_mm)
    macs = unet_macs(
        patch,
        topology,
        planned_widths("unet", size, topology, dims, len(subject.extent_mm)),
        in_channels=subject.in_channels,
        num_classes=subject.num_classes,
        residual_blocks=residual_blocks(size, topology),
    )
    work = step_gmac(macs, prod(patch), num_classes=subject.num_classes) * BATCH_SIZE[dims]
    steps = max(1, int(resources.gmac / work))
    shared = max(1.0, len(subject.extent_mm) / LABELS_LEARNED_TOGETHER)
    edges = np.asarray(spacing_mm)
    blur = RESOLUTION_LOSS * np.mean((edges / subject.thickness_mm) ** 1.5, axis=1)
    reach = np.asarray(patch) * edges
    covered = np.prod(np.minimum(1.0, reach / subject.context_mm), axis=1)
    missed = np.minimum(1.0, CONTEXT_LOSS[size] * (1.0 / covered - 1.0))
    if subject.labels_mm:
        shared /= float(covered.mean()) ** PLACE_POWER
    return Scale(
        spacing_mm=spacing_mm,
        patch_size=patch,
        shape=shape,
        steps=steps,
        resolution=float(np.minimum(1.0, blur).mean()),
        context=float(missed.mean()),
        training=min(1.0, TRAINING_LOSS * (steps / shared) ** -0.6),
        covered=float(covered.mean()),
    )


def explain_spacing(scale: Scale, own: Scale, facts: Fingerprint, resources: Resources) -> str:
    """The reason of a spacing, for the plan file."""
    median = (
        f"the median of {facts.num_cases} training cases, whose median size is "
        f"{_joined(facts.median_shape)} voxels"
    )
    if scale is own:
        return f"{median}; no coarser one promises a better result in {resources.described}"
    return (
        f"coarser than {_joined(own.spacing_mm)} mm, {median}: in {resources.described} about "
        f"{scale.steps:,} steps are possible with patches that cover {scale.covered:.0%} of "
        f"what structures need, {own.steps:,} steps with {own.covered:.0%} at the median; "
        f"the grid blurs {scale.resolution:.1%} of Dice. A longer --budget gives a finer spacing"
    )


def explain_patch(
    scale: Scale, subject: DatasetScale, resources: Resources, memory_gb: float
) -> str:
    """The reason of a patch, for the plan file."""
    largest = subject.extent_mm.max(axis=0)
    return (
        f"{_joined(scale.extent_mm)} mm: the largest structure extends over {_joined(largest)} mm "
        f"in most cases, the median image over {_joined(subject.fov_mm)} mm; a patch covers "
        f"{scale.covered:.0%} of what structures need around them. {resources.described} allow "
        f"about {scale.steps:,} steps of such patches, they fit into {memory_gb:g} GB"
        f"{cascade_hint(scale, subject)}"
    )


def _joined(sizes: Iterable[float]) -> str:
    return "x".join(f"{size:.3g}" for size in sizes)
