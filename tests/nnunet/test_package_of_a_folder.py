"""Package of an nnU-Net folder: folds as members, facts on the card, postprocessing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from nnunet_folders import REGIONS, plans_of, write_folder

from pipelines.registry.card import card_of
from segmed.inference.postprocessing import cleaned
from segmed.nnunet import package_of
from segmed.package import ModelPackage
from segmed.plan import Inference


def test_folds_become_members_and_survive_the_package_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", folds=("0", "1", "2"))
    summary = {"foreground_mean": {"Dice": 0.8125}}
    (folder / "fold_1" / "validation").mkdir()
    (folder / "fold_1" / "validation" / "summary.json").write_text(
        json.dumps(summary), encoding="utf-8"
    )
    package = package_of(folder, licence="CC BY 4.0")
    assert package.members == 3
    made = package.provenance
    assert made["folds"] == ["0", "1", "2"]
    assert made["fold_scores"] == {"1": 0.8125}
    assert {member["fold"] for member in made["members"]} == {"0", "1", "2"}
    read = ModelPackage.load(package.save(tmp_path / "package"))
    windows = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(read.build()(windows), package.build()(windows))
    parts = [package_of(folder, folds=[fold]).build()(windows) for fold in "012"]
    torch.testing.assert_close(package.build()(windows), torch.stack(parts).mean(0))
    card = card_of(read)
    for text in ("nnUNetTrainer", "nnUNetPlans", "3d_fullres", "CC BY 4.0", "fold 1 0.812"):
        assert text in card
    assert made["dataset_fingerprint"] in card


def test_zip_of_results_gives_the_same_package(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Dataset777_drawn" / "model")
    file = tmp_path / "exported.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for one in sorted(tmp_path.glob("Dataset777_drawn/**/*")):
            archive.write(one, one.relative_to(tmp_path))
    assert package_of(file).hash == package_of(folder).hash


def test_fold_all_is_taken_where_there_is_no_other_or_by_name(tmp_path: Path) -> None:
    alone = write_folder(tmp_path / "alone", folds=("all",))
    assert package_of(alone).provenance["fold"] == "all"
    both = write_folder(tmp_path / "both", folds=("0", "all"))
    assert package_of(both).provenance["fold"] == "0"
    assert package_of(both, folds=["all"]).provenance["fold"] == "all"


def test_plan_has_the_rules_of_the_folder(tmp_path: Path) -> None:
    plans = plans_of(spacing=(3.0, 1.0, 1.0), transpose=(1, 0, 2))
    plan = package_of(write_folder(tmp_path / "model", plans, labels=REGIONS)).plan
    assert plan.preprocessing.scheme == "nnunet"
    assert plan.preprocessing.axes == (1, 2, 0)
    assert plan.inference.average == "logits"
    assert plan.inference.blend == "nnunet"
    assert plan.inference.tta
    assert [label.contract for label in plan.labels] == [
        ("whole", 1, (1, 2)),
        ("posterior", 2, ()),
    ]
    unmirrored = write_folder(tmp_path / "unmirrored", mirror_axes=None)
    assert not package_of(unmirrored).plan.inference.tta


def test_old_plans_name_only_what_varied(tmp_path: Path) -> None:
    plans = plans_of()
    rules = plans["configurations"]["3d_fullres"]
    del rules["architecture"]
    rules |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 12,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_kernel_sizes": [[3, 3, 3]] * 3,
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    }
    package = package_of(write_folder(tmp_path / "model", plans))
    assert package.options["widths"] == (4, 8, 12)


def test_configurations_inherit_what_they_do_not_state(tmp_path: Path) -> None:
    plans = plans_of()
    rules = plans["configurations"]["3d_fullres"]
    folder = write_folder(tmp_path / "model", plans)
    expected = package_of(folder).plan
    spacing = rules.pop("spacing")
    plans["configurations"] = {
        "parent": {"spacing": spacing, "patch_size": [8, 8, 8]},
        "3d_fullres": {**rules, "inherits_from": "parent"},
    }
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    assert package_of(folder).plan == expected


def test_postprocessing_of_exactly_these_folds_is_applied(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", folds=("0", "1"))
    step = "remove_all_but_largest_component_from_segmentation"
    content = {
        "postprocessing_fns": [step, step],
        "postprocessing_kwargs": [
            {"labels_or_regions": [1, 2], "background_label": 0},
            {"labels_or_regions": 2, "background_label": 0},
        ],
    }
    place = folder / "crossval_results_folds_0_1"
    place.mkdir()
    (place / "postprocessing.json").write_text(json.dumps(content), encoding="utf-8")
    assert package_of(folder).plan.inference.keep_largest_together == ((1, 2), (2,))
    assert package_of(folder, folds=["0"]).plan.inference.keep_largest_together == ()
    left = package_of(folder, postprocessing=False)
    assert left.plan.inference.keep_largest_together == ()


def test_largest_component_of_a_group_is_joined_across_edges_and_corners() -> None:
    label = np.zeros((5, 5, 5), dtype=np.uint8)
    label[0, 0, 0] = 1
    label[1, 1, 1] = 2  # joined with the one before by a corner alone
    label[4, 4, 4] = 1
    rules = Inference(keep_largest_together=((1, 2),))
    found = cleaned(label, rules)
    assert found[0, 0, 0] == 1
    assert found[1, 1, 1] == 2
    assert found[4, 4, 4] == 0
    label[4, 4, 3] = 2  # of equal components both stay
    assert np.array_equal(cleaned(label, rules), label)
