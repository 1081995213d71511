"""Patch, batch and widths within the memory of a training step.

Patches of `small` networks are bounded so that every architecture fits. The patch and the batch of
larger ones are those that the U-Net trains within the memory. Of an architecture that needs more
for them the decoder's maps are computed again in the backward pass; where that is not enough, or
it has no such decoder, it becomes narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf, prod, sqrt
from typing import Any

from segmed.errors import UsageError
from segmed.plan.cost import memory_voxels
from segmed.plan.networks import BASE_WIDTH, Size, plan_networks
from segmed.plan.resources import DeviceKind, Resources
from segmed.plan.scale import (
    BATCH_SIZE,
    PATCH_STEP,
    SMALLEST_PATCH_EDGE,
    DatasetScale,
    Scale,
    choose_scale,
)
from segmed.plan.schema import NetworkPlan
from segmed.plan.topology import plan_topology

WEIGHTS_GB: dict[Size, float] = {"small": 0.2, "full": 1.5, "residual": 3.0}
"""Bound on the memory of weights and moments, in GB, for the quick bound on a step's memory."""

MEASUREMENTS = 10
"""Patches measured at most in search of the largest that fits."""

MANY_CLASSES = 100
"""More classes than this are named in the message about too little memory, which they take."""

FILLED = 0.93
"""A patch that fills this share of the memory is not enlarged further."""

ALIKE = 1.04
"""Two volumes of patches this close are not told apart."""

NARROWER = (0.75, 0.5, 0.4, 0.25)
"""Shares of the widths tried for an architecture that needs more memory than there is."""

WIDTH_STEP = 8
"""Widths of the levels are multiples of this, as GPUs compute best."""

WIDTH_OPTIONS = {"cat_channels": 4, "head_width": 8, "aspp_width": 8}
"""Widths of an architecture beside those of its levels, and their steps; UNet 3+ joins as many
sources as there are levels."""


RECOMPUTED = ("unetpp", "unet3plus")
"""Architectures that may compute the maps of their decoders again."""


@dataclass(frozen=True)
class StepMemory:
    """Memory for one training step, and what planned networks need of it.

    Attributes:
        memory_gb: Memory of a training step, in GB.
        size: Size of the networks.
        device: Kind of the device; on a GPU the forward pass runs in 16 bits.
        in_channels: Channels of the image.
        num_classes: Classes of the logits.
    """

    memory_gb: float
    size: Size
    device: DeviceKind
    in_channels: int
    num_classes: int

    @property
    def certain_voxels(self) -> float:
        """Voxels of a batch that every architecture of the size trains for certain."""
        return memory_voxels(
            self.memory_gb - WEIGHTS_GB[self.size],
            width=BASE_WIDTH[self.size],
            num_classes=self.num_classes,
        )

    def need_gb(
        self, name: str, network: NetworkPlan, patch_size: tuple[int, ...], batch_size: int
    ) -> float:
        """Memory of a training step of one network, in GB."""
        from segmed.plan.step_memory import (  # noqa: PLC0415 - loads torch
            TrainedNetwork,
            step_bytes,
        )

        trained = TrainedNetwork(
            name, network.options, network.loss, self.in_channels, self.num_classes, patch_size
        )
        need = step_bytes(
            trained,
            batch_size=batch_size,
            device=self.device,
            is_half=self.device == "cuda",
            is_averaged=self.size == "small",
        )
        return need / 1e9

    def unet_need_gb(self, scale: Scale, batch_size: int) -> float:
        """The same of the U-Net for a spacing and a patch, in GB."""
        topology = plan_topology(scale.patch_size, scale.spacing_mm)
        networks = plan_networks(
            topology,
            patch_size=scale.patch_size,
            spacing_mm=scale.spacing_mm,
            size=self.size,
            num_labels=self.num_classes - 1,
        )
        return self.need_gb("unet", networks["unet"], scale.patch_size, batch_size)

    def batch_held(self, scale: Scale, least: int) -> int:
        """Patches that the memory holds; `least` where it holds fewer."""
        certain = int(self.certain_voxels / prod(scale.patch_size))
        need, twice = (self.unet_need_gb(scale, count) for count in (least, 2 * least))
        by_unet = least + int((self.memory_gb - need) / max((twice - need) / least, 1e-9))
        return max(least, certain, by_unet)


def scale_within(
    subject: DatasetScale, memory: StepMemory, resources: Resources
) -> tuple[Scale, Scale]:
    """The spacing and the patch that promise the best Dice within time and memory.

    Args:
        subject: Images and structures.
        memory: Memory of a training step.
        resources: Time and device of one training.

    Returns:
        The choice, and the best one at the images' own spacing.

    Raises:
        UsageError: The memory is too little for a useful patch.
    """
    least = BATCH_SIZE[len(subject.shape)]
    choose = partial(choose_scale, subject, size=memory.size, resources=resources)
    most = memory.certain_voxels / least
    if most > 1:
        chosen = choose(most_voxels=most)
        is_bound_by_time = prod(chosen[0].patch_size) * PATCH_STEP**2 < most
        if is_bound_by_time or (memory.size == "small" and not _is_useless(chosen[1])):
            return chosen
    most = max(
        most, memory_voxels(memory.memory_gb, width=64, num_classes=memory.num_classes), 64.0
    )
    chosen_or_none = _largest(choose, memory, most, least)
    if chosen_or_none is None or any(_is_useless(scale) for scale in chosen_or_none):
        classes = f" of {memory.num_classes} classes" if memory.num_classes > MANY_CLASSES else ""
        repair = ", or join or drop labels (--merge, --drop-values)" if classes else ""
        raise UsageError(
            f"{memory.memory_gb:g} GB is too little for a useful patch{classes}; give more "
            f"memory{repair}"
        )
    return chosen_or_none


def _is_useless(scale: Scale) -> bool:
    """Return whether memory makes a patch so small that it has no thickness, or is never pooled."""
    pooled = 2 * SMALLEST_PATCH_EDGE
    is_thin = min(scale.patch_size) < SMALLEST_PATCH_EDGE and min(scale.shape) >= pooled
    return is_thin or (max(scale.patch_size) < pooled and max(scale.shape) >= pooled)


def _largest(
    choose: partial[tuple[Scale, Scale]], memory: StepMemory, most: float, batch_size: int
) -> tuple[Scale, Scale] | None:
    """The choice within the most voxels with which the U-Net's step fits; None if none does."""
    found: tuple[Scale, Scale] | None = None
    fits, fails = 0.0, inf
    for _ in range(MEASUREMENTS):
        chosen = choose(most_voxels=most)
        need = memory.unet_need_gb(chosen[0], batch_size)
        share = memory.memory_gb / need
        if share >= 1:
            is_unchanged = found is not None and found[0].patch_size == chosen[0].patch_size
            found, fits = chosen, most
            if need >= FILLED * memory.memory_gb or (is_unchanged and fails == inf):
                break
        else:
            fails = most
        if fails <= ALIKE * fits or fails < 1:
            break
        if fails == inf:
            most *= min(max(share, PATCH_STEP), 4.0)
        else:
            most = sqrt(fits * fails) if fits else 0.95 * share * most
    return found


def narrowed(
    networks: dict[str, NetworkPlan],
    memory: StepMemory,
    *,
    patch_size: tuple[int, ...],
    batch_size: int,
    reasons: dict[str, str],
) -> dict[str, NetworkPlan]:
    """The networks, narrower where a step would need more memory than there is.

    Args:
        networks: Networks of the full width, by model name.
        memory: Memory of a training step.
        patch_size: Voxels of a patch along each axis.
        batch_size: Patches a step.
        reasons: The plan's reasons; those of narrower networks are added.
    """
    if prod(patch_size) * batch_size <= memory.certain_voxels:
        return networks
    return {
        name: _narrowed(name, network, memory, patch_size, batch_size, reasons)
        for name, network in networks.items()
    }


def _narrowed(
    name: str,
    network: NetworkPlan,
    memory: StepMemory,
    patch_size: tuple[int, ...],
    batch_size: int,
    reasons: dict[str, str],
) -> NetworkPlan:
    """The largest form of a network that fits, with the reason; the smallest where none does."""
    need_of = partial(memory.need_gb, name, patch_size=patch_size, batch_size=batch_size)
    need = need_of(network)
    if need <= memory.memory_gb:
        return network
    for tried in _smaller_forms(name, network):
        takes = need_of(tried)
        if takes <= memory.memory_gb:
            break
    reasons[f"networks.{name}"] = (
        f"{_changes(network.options, tried.options)}: a step would take {need:.3g} of "
        f"{memory.memory_gb:g} GB, and takes {takes:.3g}"
        + ("" if takes <= memory.memory_gb else ", which is too much: plan it for a smaller patch")
    )
    return tried


def _changes(whole: dict[str, Any], kept: dict[str, Any]) -> str:
    """Differences of a smaller form, in words."""
    words = []
    if kept.get("recompute") and not whole.get("recompute"):
        words.append("maps of the decoder are computed again in the backward pass")
    if whole["widths"] != kept["widths"]:
        words.append(
            f"{kept['widths'][0]} features at the finest level instead of {whole['widths'][0]}"
        )
    if whole.get("upsample") != kept.get("upsample"):
        words.append("scores enlarged by interpolation")
    if whole.get("deep_supervision") != kept.get("deep_supervision"):
        words.append("no deep supervision")
    return ", ".join(words)


def _smaller_forms(name: str, network: NetworkPlan) -> list[NetworkPlan]:
    """Smaller forms of a network, the largest first.

    Those of U-Net++ and UNet 3+ compute maps of the decoder again. Those of an FCN enlarge their
    scores by interpolation: the weights of its transposed convolution grow with the square of the
    classes.
    """
    options = dict(network.options)
    forms: list[dict[str, Any]] = []
    if "head_width" in options:
        options["upsample"] = "linear"
        forms.append(options)
    if name in RECOMPUTED:
        options["recompute"] = True
        forms.append(options)
    for share in NARROWER:
        widths = [_narrow(width, share, WIDTH_STEP) for width in options["widths"]]
        others = {
            o: _narrow(options[o], share, step) for o, step in WIDTH_OPTIONS.items() if o in options
        }
        forms.append({**options, "widths": widths, **others})
    if options.get("deep_supervision"):
        forms.append({**forms[-1], "deep_supervision": False})
    return [network.model_copy(update={"options": form}) for form in forms]


def _narrow(width: int, share: float, step: int) -> int:
    return max(min(width, step), round(width * share / step) * step)
