"""A U-Net of segmed that starts from nnU-Net's weights: equal maps where the networks are equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunet_folders import LABELS, REGIONS, plans_of, write_folder
from torch import nn

from segmed.errors import PackageError, WeightsError
from segmed.models import build_model
from segmed.nnunet import package_of
from segmed.nnunet.to_unet import open_fold, start_unet
from segmed.plan import Plan
from segmed.structures import LabelClass

WIDTHS = (4, 8, 12)
STRUCTURES = {"anterior": 1, "posterior": 2}


def anisotropic(*, dims: int = 3, residual: bool) -> dict[str, Any]:
    """Plans whose first axis is coarse: not convolved along at first, nor pooled."""
    plans = plans_of(dims=dims, residual=residual, patch=(8, 16, 24)[-dims:])
    (rules,) = plans["configurations"].values()
    options = rules["architecture"]["arch_kwargs"]
    options["kernel_sizes"] = [[1, 3, 3][-dims:], [3, 5, 3][-dims:], [3] * dims]
    options["strides"] = [[1] * dims, [1, 2, 2][-dims:], [2, 2, 1][-dims:]]
    return plans


def plan_like(folder: Path, **changes: Any) -> Plan:
    """A plan of segmed's own for the images of a folder."""
    plan = package_of(folder).plan
    rules = plan.preprocessing.model_copy(
        update={"scheme": "segmed", "axes": (), "kept_axis": None, "orientation": "RAS"}
    )
    return plan.model_copy(update={"preprocessing": rules, **changes})


def unet(plan: Plan, **options: Any) -> nn.Module:
    """A U-Net of the topology of `anisotropic`, in segmed's order of axes."""
    dims = plan.spatial_dims
    fitting = {
        "widths": WIDTHS,
        "kernels": [[3, 3, 1][:dims], [3, 5, 3][:dims], [3] * dims],
        "strides": [[1] * dims, [2, 2, 1][:dims], [1, 2, 2][:dims]],
        "decoder_convs": 1,
        **options,
    }
    torch.manual_seed(1)
    return build_model(
        "unet",
        spatial_dims=dims,
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        **fitting,
    ).eval()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("dims", [3, 2])
def test_equal_topology_gives_equal_maps(dims: int, residual: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", anisotropic(dims=dims, residual=residual))
    plan = plan_like(folder, slice_axis=2 if dims == 2 else None)
    options: dict[str, Any] = {"residual_blocks": (1, 2, 2)} if residual else {}
    network = unet(plan, deep_supervision=True, downsample="stride", **options)
    begun = start_unet(network, open_fold(folder), plan)
    assert not begun.weights.missing
    assert not begun.weights.misshapen
    assert not begun.remarks
    window = torch.randn(1, 1, *(24, 16, 8)[:dims])  # x, y, z; nnU-Net's axes are z, y, x
    back = (0, 1, *range(dims + 1, 1, -1))
    expected = package_of(folder).build()(window.permute(back)).permute(back)
    torch.testing.assert_close(network(window), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
    unused = {name for name in begun.weights.unexpected if not name.endswith("conv.bias")}
    assert not unused  # a bias before a norm has no effect


def test_axes_follow_the_transposition_of_the_folder(tmp_path: Path) -> None:
    plans = anisotropic(residual=True)
    plans["transpose_forward"] = [2, 0, 1]  # x is the coarse axis
    folder = write_folder(tmp_path / "model", plans)
    plan = plan_like(folder)
    network = unet(
        plan,
        residual_blocks=(1, 2, 2),
        kernels=[[1, 3, 3], [3, 3, 5], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 1, 2]],
    )
    start_unet(network, open_fold(folder), plan)
    window = torch.randn(1, 1, 8, 24, 16)  # x, y, z
    turned = window.permute(0, 1, 2, 4, 3)  # nnU-Net's axes: x, z, y
    expected = package_of(folder).build()(turned).permute(0, 1, 2, 4, 3)
    torch.testing.assert_close(network(window), expected, rtol=1e-4, atol=1e-4)


def test_pooled_levels_take_the_weights_and_the_report_says_what_differs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", anisotropic(residual=False))
    plan = plan_like(folder)
    begun = start_unet(unet(plan), open_fold(folder), plan)
    assert not begun.weights.missing
    assert "downsample: stride" in str(begun)
    assert "tensors loaded" in str(begun)


def test_other_structures_keep_their_own_heads(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", anisotropic(residual=True))
    other = (LabelClass(name="posterior", value=1), LabelClass(name="anterior", value=2))
    plan = plan_like(folder, labels=other)
    network = unet(plan, residual_blocks=(1, 2, 2))
    before = network.heads[0].weight.clone()
    begun = start_unet(network, open_fold(folder), plan)
    assert torch.equal(network.heads[0].weight, before)
    assert begun.weights.missing == ("heads.0.weight", "heads.0.bias")
    assert "decoder.seg_layers.1.weight" in begun.weights.unexpected


def test_first_convolution_alone_is_adapted_to_other_channels(tmp_path: Path) -> None:
    two = plans_of(residual=True, schemes=("ZScoreNormalization",) * 2)
    folder = write_folder(tmp_path / "model", two)
    plan = plan_like(write_folder(tmp_path / "one", plans_of(residual=True)))
    network = unet(plan, residual_blocks=(1, 2, 2), kernels=[3] * 3, strides=[1, 2, 2])
    begun = start_unet(network, open_fold(folder), plan)
    assert begun.weights.adapted == ("encoder.stem.convs.0.conv.weight",)
    wider = unet(plan, residual_blocks=(1, 2, 2), widths=(4, 8, 16), kernels=[3] * 3,
                 strides=[1, 2, 2])  # fmt: skip
    begun = start_unet(wider, open_fold(folder), plan)
    assert begun.weights.adapted == ("encoder.stem.convs.0.conv.weight",)
    assert "encoder.stages.2.blocks.0.conv1.conv.weight" in begun.weights.misshapen


def test_networks_that_do_not_fit_are_refused_and_unchanged(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", anisotropic(residual=True))
    plan, found = plan_like(folder), open_fold(folder)
    network = unet(plan)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"encoder residual against plain.*--size residual"):
        start_unet(network, found, plan)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    other = build_model("unetpp", spatial_dims=3, in_channels=1, num_classes=3)
    with pytest.raises(WeightsError, match="start a U-Net, not UNetPP: give --model unet"):
        start_unet(other, found, plan)
    flat = build_model("unet", spatial_dims=2, in_channels=1, num_classes=3)
    with pytest.raises(WeightsError, match="3d_fullres of nnU-Net is 3D and the plan's U-Net 2D"):
        start_unet(flat, found, plan)


@pytest.mark.parametrize("named", [".", "fold_1", "fold_1/checkpoint_final.pth"])
def test_fold_is_that_of_the_path_or_the_first(named: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", labels=REGIONS, folds=("0", "1"))
    found = open_fold(folder / named)
    assert found.folds == (("0",) if named == "." else ("1",))
    assert len(found.checkpoints) == 1


def test_other_folders_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps(LABELS), encoding="utf-8")
    with pytest.raises(PackageError, match="contains no trained nnU-Net v2 model"):
        open_fold(tmp_path)
