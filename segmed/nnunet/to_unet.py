"""Start of a U-Net of segmed from the encoder and decoder of a model that nnU-Net trained.

Both networks have the same parts in another order: nnU-Net counts its decoder from the coarsest
stage, joins (up, skip) where segmed joins (skip, up), and has the axes of its windows in the order
slice, row, column. Tensors are brought to segmed's order and are taken where their shapes agree; of
the first convolution alone the channels may differ. A bias before a norm has no effect and has no
place in segmed's networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segmed.errors import WeightsError
from segmed.io.digest import sha256_of_file
from segmed.models.inflate import adapt_channels
from segmed.models.unet import UNet
from segmed.models.weights import LITTLE, WeightsReport
from segmed.nnunet.folder import (
    CHECKPOINTS,
    NnUNetFolder,
    checkpoint_file,
    chosen_folds,
    find_model,
    open_folder,
)
from segmed.nnunet.to_plan import stored_axes
from segmed.nnunet.zipped import as_folder
from segmed.plan import Plan

FOLD = "fold_"
STORED_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
"""Axis of a scan stored in the usual order that runs along each direction."""

LAYER = {"conv": 0, "norm": 1}
"""Place of a layer in segmed's convolution units, by nnU-Net's name."""


@dataclass(frozen=True)
class UNetStart:
    """Report on a U-Net that begins with nnU-Net's weights.

    Attributes:
        weights: Tensors matched, missing and unused, by nnU-Net's names.
        fold: Fold of the weights.
        remarks: Differences between the two networks that change what the tensors compute.
    """

    weights: WeightsReport
    fold: str
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join([f"nnU-Net's fold {self.fold}: {self.weights}", *self.remarks])


def is_nnunet_source(path: Path) -> bool:
    """Return whether weights at this path are read as nnU-Net's: a folder, zip or checkpoint."""
    return path.is_dir() or path.suffix.lower() == ".zip" or path.name in CHECKPOINTS


def open_fold(path: Path) -> NnUNetFolder:
    """The folder with one fold: that of the path, else the first that is trained.

    Args:
        path: Results folder or zip of one configuration; a `fold_X` in it, or its checkpoint.

    Raises:
        PackageError: It is no such folder, is damaged, or has a network that is not known here.
        UsageError: The folder contains several models.
    """
    place, wanted = _fold_of(path)
    with as_folder(place) as folder:
        return open_folder(folder, wanted, postprocessing=False, limit=1)


def digest_of_fold(path: Path) -> str:
    """sha256 of the checkpoint that `open_fold` reads, or of the zip that contains it."""
    place, wanted = _fold_of(path)
    if not place.is_dir():
        return sha256_of_file(place)
    folder = find_model(place)
    return sha256_of_file(checkpoint_file(folder, chosen_folds(folder, wanted)[0]))


def _fold_of(path: Path) -> tuple[Path, list[str]]:
    """Results folder or zip, and the fold that the path names, if it names one."""
    path = path.parent if path.name in CHECKPOINTS else path
    if path.name.startswith(FOLD) and path.is_dir():
        return path.resolve().parent, [path.resolve().name.removeprefix(FOLD)]
    return path, []


def start_unet(network: nn.Module, found: NnUNetFolder, plan: Plan) -> UNetStart:
    """Put nnU-Net's weights into a U-Net, as far as shapes agree.

    Args:
        network: Made by `build_model`; its weights are overwritten.
        found: From `open_fold`.
        plan: Plan of the network: its axes and labels. Heads are taken where the structures are
            nnU-Net's by name and value.

    Raises:
        WeightsError: The network is no U-Net, has other dimensions, or little fits; it is
            unchanged then.
    """
    if not isinstance(network, UNet):
        raise WeightsError(
            f"weights of nnU-Net start a U-Net, not {type(network).__name__}: give --model unet"
        )
    theirs, dims = found.configuration, network.task.spatial_dims
    if theirs.spatial_dims != dims:
        raise WeightsError(
            f"configuration {theirs.name} of nnU-Net is {theirs.spatial_dims}D and the plan's "
            f"U-Net {dims}D: give weights of a {dims}D configuration or a plan of "
            f"{theirs.spatial_dims} dimensions"
        )
    if theirs.network.activation_first:
        raise WeightsError("this nnU-Net has activations before its norms, segmed's U-Net none")
    own = network.state_dict()
    axes = _axes(found, plan)
    loaded: dict[str, Tensor] = {}
    matched, misshapen, adapted = [], [], []
    state = found.checkpoints[0].state
    for name, ours in _names(network, state, has_same_labels=_has_labels_of(found, plan)):
        tensor = _in_our_order(name, state[name], axes)
        if ours == FIRST and tensor.shape[1] != own[ours].shape[1]:
            tensor = adapt_channels(tensor, own[ours].shape[1])
            adapted.append(name)
        if tensor.shape == own[ours].shape:
            loaded[ours] = tensor
            matched.append(name)
        else:
            misshapen.append(name)
    expected = [name for name in own if not name.startswith("heads.")]
    filled = [name for name in expected if name in loaded]
    if len(filled) < LITTLE * len(expected):
        raise WeightsError(
            f"only {len(filled)} of the {len(expected)} tensors of the U-Net's encoder and decoder "
            f"have a counterpart of their shape in this nnU-Net: {_differences(found, network)}"
        )
    network.load_state_dict({**own, **loaded})
    report = WeightsReport(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in loaded),
        unexpected=tuple(name for name in state if name not in matched),
        misshapen=tuple(misshapen),
        adapted=tuple(name for name in adapted if name in matched),
        num_in_file=len(state),
    )
    return UNetStart(report, found.folds[0], tuple(_remarks(found, network)))


FIRST = "encoder.0.0.0.weight"
"""The first convolution of segmed's U-Net, plain or residual."""


def _names(
    network: UNet, state: Mapping[str, Tensor], *, has_same_labels: bool
) -> Iterator[tuple[str, str]]:
    """Each tensor of nnU-Net's that has a place in the network, with the name there."""
    depth = sum(bool(re.fullmatch(r"decoder\.transpconvs\.\d+\.weight", name)) for name in state)
    own = network.state_dict()
    for name in state:
        ours = _our_name(name, depth)
        if ours in own and (has_same_labels or not ours.startswith("heads.")):
            yield name, ours


UNIT = r"(conv|norm)\.(\w+)"
RULES: tuple[tuple[str, Callable[[tuple[str, ...], int], str]], ...] = (
    (rf"encoder\.stem\.convs\.0\.{UNIT}", lambda g, _: f"encoder.0.0.{LAYER[g[0]]}.{g[1]}"),
    (
        rf"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.{UNIT}",
        lambda g, _: f"encoder.{g[0]}.{g[1]}.{LAYER[g[2]]}.{g[3]}",
    ),
    (  # the first residual level begins with the stem
        rf"encoder\.stages\.(\d+)\.blocks\.(\d+)\.(conv\d|skip\.\d+)\.{UNIT}",
        lambda g, _: f"encoder.{g[0]}.{int(g[1]) + (g[0] == '0')}.{g[2]}.{LAYER[g[3]]}.{g[4]}",
    ),
    (r"decoder\.transpconvs\.(\d+)\.(\w+)", lambda g, depth: f"ups.{_level(g, depth)}.{g[1]}"),
    (
        rf"decoder\.stages\.(\d+)\.convs\.(\d+)\.{UNIT}",
        lambda g, depth: f"decoder.{_level(g, depth)}.{g[1]}.{LAYER[g[2]]}.{g[3]}",
    ),
    (r"decoder\.seg_layers\.(\d+)\.(\w+)", lambda g, depth: f"heads.{_level(g, depth)}.{g[1]}"),
)
"""nnU-Net's names as patterns, and segmed's, given the groups and the number of decoder stages."""


def _our_name(name: str, depth: int) -> str:
    for pattern, rename in RULES:
        if match := re.fullmatch(pattern, name):
            return rename(match.groups(), depth)
    return ""


def _level(groups: Sequence[str], depth: int) -> int:
    """Level of a decoder stage; nnU-Net counts from the coarsest one."""
    return depth - 1 - int(groups[0])


def _in_our_order(name: str, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """A tensor with segmed's order of axes, and of joined maps."""
    if tensor.ndim < 3:
        return tensor
    if re.fullmatch(r"decoder\.stages\.\d+\.convs\.0\.conv\.weight", name):
        half = tensor.shape[1] // 2
        tensor = torch.cat([tensor[:, half:], tensor[:, :half]], dim=1)
    return tensor.permute(0, 1, *(2 + axis for axis in axes)).contiguous()


def _axes(found: NnUNetFolder, plan: Plan) -> tuple[int, ...]:
    """nnU-Net's axis that each axis of the plan's windows is.

    nnU-Net's axes are those of files; they are taken for left-right, front-back and bottom-top, in
    which scans are usually stored.
    """
    configuration = found.configuration
    if not plan.preprocessing.orientation or configuration.reader == "raster":
        return tuple(range(configuration.spatial_dims))
    theirs = list(stored_axes(configuration))
    ours = [STORED_AXIS[letter] for letter in plan.preprocessing.orientation]
    if configuration.spatial_dims == 2:
        theirs = theirs[1:]
        del ours[plan.slice_axis or 0]
        if sorted(theirs) != sorted(ours):  # slices of another plane
            return (1, 0)
    return tuple(theirs.index(axis) for axis in ours)


def _has_labels_of(found: NnUNetFolder, plan: Plan) -> bool:
    theirs = found.configuration.labels
    ours = {label.name: label.region or (label.value,) for label in plan.labels}
    return theirs.has_regions == plan.encoding.has_regions and dict(theirs.values) == ours


def _differences(found: NnUNetFolder, network: UNet) -> str:
    """Widths, kernels and blocks of both, as far as they differ, and the repair."""
    theirs, levels = found.configuration.network, network.levels
    blocks = network.options.residual_blocks
    facts = (
        ("encoder", theirs.encoder, "plain" if blocks is None else "residual"),
        ("widths", list(theirs.widths), [level.width for level in levels]),
        (
            "blocks",
            list(theirs.blocks),
            [2] * len(levels) if blocks is None else list(blocks),
        ),
    )
    differing = [f"{name} {other} against {own}" for name, other, own in facts if other != own]
    size = "residual" if theirs.encoder == "residual" else "full"
    return f"{', '.join(differing) or 'kernels or strides differ'}; --size {size} is nearest to it"


def _remarks(found: NnUNetFolder, network: UNet) -> Iterator[str]:
    theirs, options = found.configuration.network, network.options
    if (
        theirs.encoder == "plain"
        and options.residual_blocks is None
        and not options.strides_plainly
    ):
        yield (
            "this U-Net pools by maxima where nnU-Net's convolutions stride; the option "
            "`downsample: stride` of networks.unet in plan.yaml makes it stride too"
        )
    for name, other, own in (
        ("norm", theirs.norm, options.norm),
        ("activation", theirs.activation, options.activation),
    ):
        if other != own:
            yield f"its {name} was {other or 'none'} and is {own or 'none'} here"
