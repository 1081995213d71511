"""Mean of the probabilities of networks of several plans, on the grid of the image.

Each plan has its own windows and spacing, so its probabilities come in boxes of other sizes. All
walks go along one axis of the image in one direction; the box of the walk that is behind is asked
for first, so that one box a walk is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.geometry import nearest_index
from segmed.inference.cascade import PreparedForStages, first_stage_of
from segmed.inference.ensemble import require_one_average, same_contract
from segmed.inference.plan_recipe import is_thin, recipe_of
from segmed.package import ModelPackage
from segmed.package.cascade import stages_of
from segmed.package.several_plans import difference_of, of_each_plan
from segmed.plan import Plan
from segmed.transforms.grid_transform import Prepared
from segmed.transforms.inverse import ProbsBox


@dataclass(frozen=True)
class PlanGroup:
    """Networks that are averaged window by window.

    Attributes:
        packages: Their packages, of one contract.
        share: Weight of their mean in the mean of all groups.
    """

    packages: tuple[ModelPackage, ...]
    share: float


@dataclass(frozen=True)
class PreparedForPlans(Prepared):
    """One image prepared by several plans; tensor and transform are those of the first.

    Attributes:
        others: The image as prepared by each further plan.
    """

    others: tuple[Prepared, ...] = ()


def views_of(prepared: Prepared) -> tuple[Prepared, ...]:
    """The image as each plan has prepared it, that of a first stage included."""
    if isinstance(prepared, PreparedForStages):
        return (prepared, *views_of(prepared.first))
    return (prepared, *prepared.others) if isinstance(prepared, PreparedForPlans) else (prepared,)


def groups_of(packages: Sequence[ModelPackage]) -> list[PlanGroup]:
    """Packages in groups of one contract, in order of their first one.

    Every network of a package of several plans counts the same, and every one of several packages.
    Of a cascade only the second stage is averaged.

    Args:
        packages: One package, or several of one plan each.

    Raises:
        UsageError: There is none, or two cannot be averaged.
    """
    if not packages:
        raise UsageError("an ensemble needs at least one package, none was given")
    if first_stage_of(packages) is not None:
        return [PlanGroup((stages_of(packages[0])[0],), 1.0)]
    for number, package in enumerate(packages, start=1):
        if package.plans and len(packages) > 1:
            raise UsageError(
                f"package {number} ({package.architecture}) has several plans: use it alone, or "
                "give the models that it was made of"
            )
    pieces = of_each_plan(packages[0]) if len(packages) == 1 else list(packages)
    first = pieces[0].plan
    for number, piece in enumerate(pieces[1:], start=2):
        if difference := difference_of(first, piece.plan):
            raise UsageError(
                f"package {number} differs from the first in {difference!r}: members of an "
                "ensemble share channels, labels, orientation and cropping"
            )
    gathered: list[list[ModelPackage]] = []
    for piece in pieces:
        own = next((some for some in gathered if same_contract(some[0].plan, piece.plan)), None)
        if own is None:
            gathered.append([piece])
        else:
            own.append(piece)
    for some in gathered:
        require_one_average([piece.plan for piece in some])
    is_one = len(packages) == 1
    counts = [sum(p.members for p in some) if is_one else len(some) for some in gathered]
    return [
        PlanGroup(tuple(some), count / sum(counts))
        for some, count in zip(gathered, counts, strict=True)
    ]


def shared_dim(plans: Sequence[Plan], shape: tuple[int, ...]) -> int:
    """Axis of a prepared image along which the walks of several plans go together.

    Args:
        plans: The plans; a 2D network in a volume goes along its slices, and decides.
        shape: Voxels of the image as prepared by the first.
    """
    thin = (plan for plan in plans if is_thin(plan, len(shape)))
    return recipe_of(next(thin, plans[0]), shape, batch=1).buffer_dim


@dataclass(frozen=True)
class Course:
    """Common course of the walks of several plans over one image.

    Attributes:
        dim: Axis of the prepared images.
        axis: The same axis of the image as stored.
        falls: They go from its last row to its first.
    """

    dim: int
    axis: int
    falls: bool


def course_of(plans: Sequence[Plan], prepared: Prepared) -> Course:
    """The common course of the walks of several plans.

    Args:
        plans: The plans.
        prepared: The image as prepared by the first.
    """
    dim = shared_dim(plans, tuple(prepared.tensor.shape[1:]))
    return Course(dim, prepared.transform.axes[dim], prepared.transform.flips[dim])


def mean_boxes(
    walks: Sequence[Iterator[ProbsBox]], shares: Sequence[float], course: Course
) -> Iterator[ProbsBox]:
    """The mean of several walks over one image.

    Args:
        walks: Boxes of probabilities; those of each walk tile the same region.
        shares: Weight of each walk; together 1.
        course: Their common course.

    Yields:
        Boxes that tile the region, in the same direction.

    Raises:
        ValueError: A walk ends before another.
    """
    axis = course.axis
    boxes = [next(walk, None) for walk in walks]
    while all(boxes):
        spans = [box.region[axis] for box in boxes if box is not None]
        span = slice(max(one.start for one in spans), min(one.stop for one in spans))
        total: Tensor | None = None
        for box, share in zip(boxes, shares, strict=True):
            assert box is not None  # of all, see above
            low = span.start - box.region[axis].start
            part = box.probs.narrow(1 + axis, low, span.stop - span.start)
            total = part * share if total is None else total.add_(part.to(total.device) * share)
        assert boxes[0] is not None
        assert total is not None  # there is a walk
        region = boxes[0].region
        yield ProbsBox((*region[:axis], span, *region[axis + 1 :]), total)
        for number, one in enumerate(spans):
            if one.start == span.start if course.falls else one.stop == span.stop:
                boxes[number] = next(walks[number], None)
    if any(boxes):
        raise ValueError("walks of several plans cover other rows of one image")


def nearest_values(prepared: Prepared, region: Sequence[slice]) -> Tensor:
    """The prepared image at the nearest point of each voxel of a box of the image.

    Args:
        prepared: The image on the grid of a network.
        region: The box, one slice an axis of the image as stored.

    Returns:
        `[C, *box]`.
    """
    transform, values = prepared.transform, torch.as_tensor(prepared.tensor)
    turned_of = [transform.axes.index(axis) for axis in range(len(transform.axes))]
    for span, turned in zip(region, turned_of, strict=True):
        size = transform.grid_in.shape[transform.axes[turned]]
        first, last = transform.box[turned]
        at = range(span.start, span.stop)
        rows = [(size - 1 - row if transform.flips[turned] else row) - first for row in at]
        nearest = nearest_index(transform.shape[turned], last - first)[rows]
        values = values.index_select(1 + turned, torch.from_numpy(nearest.copy()).to(values.device))
    return values.permute(0, *(1 + turned for turned in turned_of))
