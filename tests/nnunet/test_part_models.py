"""Part models: networks for different structures, joined to one package with one label map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_folders import REGIONS, plans_of, write_folder

from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.nnunet import package_of
from segmed.package import ModelPackage
from segmed.package.part_models import PartModel, join_parts

HALVES = {"background": 0, "anterior": 1, "posterior": 2}
REST = {"background": 0, "vessel": 1, "ventricle": 2, "cortex": 3}


def part(
    folder: Path,
    labels: Mapping[str, Any],
    folds: tuple[str, ...] = ("0",),
    *,
    mean: float = 350.0,
    shift: float = 0.0,
    **changes: Any,
) -> PartModel:
    """An imported model whose training images had this mean."""
    plans = plans_of(
        schemes=("CTNormalization",), spacing=(1.3, 0.9, 1.1), **{"patch": (16, 20, 16), **changes}
    )
    plans["foreground_intensity_properties_per_channel"]["0"]["mean"] = mean
    made = package_of(write_folder(folder, plans, labels=labels, folds=folds))
    return PartModel(folder.name, with_more_background(made, shift))


def with_more_background(package: ModelPackage, shift: float) -> ModelPackage:
    """The package, its last heads preferring the background: drawn weights hardly find any."""
    state = dict(package.state)
    for name in [name for name in state if name.endswith("seg_layers.1.bias")]:
        state[name] = state[name] + torch.tensor([shift] + [0.0] * (len(state[name]) - 1))
    return replace(package, state=state)


@pytest.fixture
def parts(tmp_path: Path) -> list[PartModel]:
    return [
        part(tmp_path / "halves", HALVES, ("0", "1"), shift=0.3),
        part(tmp_path / "rest", REST, ("2",), mean=240.0, shift=0.6, residual=True),
    ]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_joined_label_map_is_that_of_each_part_where_one_claims(
    engine: str, parts: list[PartModel], images, tmp_path: Path
) -> None:
    joined = join_parts(parts, name="all")
    assert joined.members == 3
    assert joined.plan.network_channels == 2  # the image on the scale of each part
    read = ModelPackage.load(joined.save(tmp_path / "package"))
    assert read.hash == joined.hash
    found = Predictor(read, device="cpu", engine=engine).predict(images[0]).label[0].numpy()
    alone = [
        Predictor(one.package, device="cpu", engine=engine).predict(images[0]).label[0].numpy()
        for one in parts
    ]
    first = alone[0].astype(int)
    second = np.where(alone[1] > 0, alone[1].astype(int) + 2, 0)
    both = (first > 0) & (second > 0)
    assert min(both.sum(), (first > 0).sum() - both.sum(), (second > 0).sum() - both.sum()) > 100
    clear = np.maximum(first, second)
    assert (found == clear)[~both].mean() > 0.9999
    assert ((found == first) | (found == second))[both].mean() > 0.9999
    assert 0.05 < (found == first)[both].mean() < 0.95  # neither part paints over the other


def test_of_two_claims_the_larger_excess_over_the_background_wins(parts: list[PartModel]) -> None:
    windows = torch.randn(1, 2, 16, 20, 16)
    logits = join_parts(parts, name="all").build()(windows)
    halves = parts[0].package.build()(windows[:, :1])
    rest = parts[1].package.build()(windows[:, 1:])
    expected = torch.cat(
        [halves[:, :1] * 0, halves[:, 1:] - halves[:, :1], rest[:, 1:] - rest[:, :1]], dim=1
    )
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_parts_on_one_scale_share_their_channels(tmp_path: Path) -> None:
    models = [part(tmp_path / "a", HALVES), part(tmp_path / "b", REST)]
    joined = join_parts(models, name="all")
    assert joined.plan.network_channels == 1
    assert [one.view for one in joined.parts] == [0, 0]
    assert "more_intensities" not in joined.plan.preprocessing.model_dump()


def test_label_map_gives_the_values_also_to_the_cleaning(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    part(folder, HALVES)
    step = "remove_all_but_largest_component_from_segmentation"
    cleaning = {
        "postprocessing_fns": [step],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2], "background_label": 0}],
    }
    (folder / "crossval_results_folds_0").mkdir()
    place = folder / "crossval_results_folds_0" / "postprocessing.json"
    place.write_text(json.dumps(cleaning), encoding="utf-8")
    models = [PartModel("a", package_of(folder)), part(tmp_path / "b", {"background": 0, "rib": 1})]
    values = {"rib": 3, "posterior": 7, "anterior": 300}
    joined = join_parts(models, name="all", label_map=values)
    assert [(one.name, one.value) for one in joined.plan.labels] == [
        ("anterior", 300),
        ("posterior", 7),
        ("rib", 3),
    ]
    assert joined.plan.inference.keep_largest_together == ((300, 7),)
    usual = join_parts(models, name="all")
    assert [one.value for one in usual.plan.labels] == [1, 2, 3]
    for wrong, message in (
        ({"rib": 1, "posterior": 2}, "no value for anterior"),
        ({**values, "liver": 9}, "names liver, which no part has: anterior"),
        ({**values, "rib": 7}, "are different and 1 or more"),
        ({**values, "rib": 0}, "are different and 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            join_parts(models, name="all", label_map=wrong)


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (HALVES, {}, "both have a structure 'anterior'"),
        (REST, {"patch": (16, 16, 16)}, "differs from halves in patch_size"),
        (REST, {"spacing": (1.0, 1.0, 1.0)}, "differs from halves in spacing_mm"),
        (REST, {"transpose": (1, 0, 2)}, "differs from halves in axes"),
        (REGIONS, {}, "has overlapping structures"),
    ],
)
def test_models_that_do_not_fit_are_refused_by_name(
    labels: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    first = part(tmp_path / "halves", HALVES)
    other = {"spacing": (1.3, 0.9, 1.1), "patch": (16, 20, 16)} | changes
    plans = plans_of(schemes=("CTNormalization",), **other)
    second = package_of(write_folder(tmp_path / "other", plans, labels=labels))
    with pytest.raises(UsageError, match=message):
        join_parts([first, PartModel("other", second)], name="all")


def test_other_packages_are_no_parts(parts: list[PartModel]) -> None:
    joined = PartModel("all", join_parts(parts, name="all"))
    with pytest.raises(UsageError, match="all is several models already"):
        join_parts([joined, parts[0]], name="more")
    with pytest.raises(UsageError, match="two or more packages, got 1"):
        join_parts(parts[:1], name="one")
    plan = parts[0].package.plan
    rules = plan.inference.model_copy(update={"average": "probabilities"})
    own = ModelPackage(
        parts[0].package.architecture,
        parts[0].package.options,
        plan.model_copy(update={"inference": rules}),
        parts[0].package.state,
    )
    with pytest.raises(UsageError, match="own averages probabilities"):
        join_parts([PartModel("own", own), parts[1]], name="all")
