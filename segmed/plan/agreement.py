"""Agreement of a manifest with a plan: the same structures, and the same channels in one order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from segmed.errors import UsageError
from segmed.manifest.schema import Case, Manifest
from segmed.structures import Channel, LabelClass


class HasContract(Protocol):
    """Channels and labels of a model, as every plan states them."""

    @property
    def channels(self) -> tuple[Channel, ...]: ...  # noqa: D102 - see above

    @property
    def labels(self) -> tuple[LabelClass, ...]: ...  # noqa: D102 - see above

    @property
    def ignore_value(self) -> int | None: ...  # noqa: D102 - see above


def require_known_labels(plan: HasContract, manifest: Manifest) -> None:
    """Require that every label of a manifest is one of the model's, with the same value.

    Scores compare values: a structure under another value would be scored against another one.

    Raises:
        UsageError: A label has another value, or another name, or is not one of the model's.
    """
    known = {label.contract for label in plan.labels}
    strange = [_shown(*label.contract) for label in manifest.labels if label.contract not in known]
    if strange:
        raise UsageError(
            f"manifest {manifest.name!r} has labels that the model has not under this name and "
            f"value: {', '.join(strange)}; the model has "
            + _listed(sorted(known))
            + ": name and number the labels of the manifest alike"
        )


def require_same_labels(plan: HasContract, manifest: Manifest) -> None:
    """Require that a plan was made for the labels of a manifest: names, values, regions and order.

    Raises:
        UsageError: They differ, or the value of unannotated voxels does.
    """
    theirs = [label.contract for label in plan.labels]
    ours = [label.contract for label in manifest.labels]
    if theirs != ours:
        raise UsageError(
            f"the plan has the labels {_listed(theirs)}, the manifest {_listed(ours)}; make the "
            "plan from this manifest"
        )
    if plan.ignore_value != manifest.ignore_value:
        raise UsageError(
            f"the plan has the ignored value {plan.ignore_value}, the manifest "
            f"{manifest.ignore_value}; make the plan from this manifest"
        )


def require_same_channels(plan: HasContract, manifest: Manifest) -> None:
    """Require that a plan was made for the channels of a manifest: names and order.

    One channel is taken whatever its name.

    Raises:
        UsageError: They differ.
    """
    theirs = [channel.name for channel in plan.channels]
    ours = [channel.name for channel in manifest.channels]
    if theirs != ours and (len(theirs), len(ours)) != (1, 1):
        raise UsageError(
            f"the plan has the channels {', '.join(theirs)}, the manifest {', '.join(ours)}; make "
            "the plan from this manifest"
        )


def channel_order(names: Sequence[str], manifest: Manifest) -> tuple[int, ...]:
    """Return the position in a manifest of each channel of a model.

    One channel is taken whatever its name; several are matched by name.

    Args:
        names: Channel names of the model; without any, the order of the manifest is kept.
        manifest: The image set.

    Raises:
        UsageError: The manifest has other channels.
    """
    own = [channel.name for channel in manifest.channels]
    if not names or (len(names) == 1 and len(own) == 1):
        return tuple(range(len(own)))
    if sorted(own) != sorted(names):
        raise UsageError(
            f"manifest {manifest.name!r} has the channels {', '.join(own)}, the model takes "
            f"{', '.join(names)}: build it with --channels {','.join(names)}"
        )
    return tuple(own.index(name) for name in names)


def ordered_images(manifest: Manifest, case: Case, order: Sequence[int]) -> tuple[Path, ...]:
    """Return the image files of a case, one a channel, in the order of a model's channels.

    Args:
        manifest: The image set.
        case: One of its cases.
        order: From `channel_order`.

    Raises:
        UsageError: One file has all channels, in another order than the model's.
    """
    files = tuple(manifest.image_paths(case))
    if len(files) == len(order):
        return tuple(files[number] for number in order)
    if list(order) != sorted(order):
        own = ", ".join(channel.name for channel in manifest.channels)
        wanted = ", ".join(manifest.channels[number].name for number in order)
        raise UsageError(
            f"manifest {manifest.name!r}: case {case.id} has one file with the channels {own}, the "
            f"model takes {wanted} in this order"
        )
    return files


def _listed(labels: Sequence[tuple[str, int, tuple[int, ...]]]) -> str:
    return ", ".join(_shown(*label) for label in labels)


def _shown(name: str, value: int, region: tuple[int, ...]) -> str:
    inside = f", region of {', '.join(map(str, region))}" if region else ""
    return f"{name!r} (value {value}{inside})"
