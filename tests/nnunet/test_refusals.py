"""Refusal, by name, of folders that are no model of nnU-Net or do something else; nothing runs."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunet_folders import REGIONS, plans_of, write_folder

from segmed.errors import PackageError, UsageError
from segmed.nnunet import open_folder, package_of


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_checkpoint_with_a_payload_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = write_folder(tmp_path / "model", extra={"logging": Payload(mark)})
    with pytest.raises(PackageError, match=r"could run code: it refers to posix\.mkdir"):
        package_of(folder)
    assert not mark.exists()
    torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert mark.exists()  # the payload was one


@pytest.mark.parametrize("written", ["plain pickle", "within the weights", "as the trainer's name"])
def test_payloads_elsewhere_are_refused_too(tmp_path: Path, written: str) -> None:
    mark = tmp_path / "ran"
    extra = {
        "within the weights": {"network_weights": {"encoder.weight": Payload(mark)}},
        "as the trainer's name": {"trainer_name": Payload(mark)},
    }.get(written, {})
    folder = write_folder(tmp_path / "model", extra=extra)
    if written == "plain pickle":
        (folder / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(PackageError, match=r"not opened|damaged"):
        package_of(folder)
    assert not mark.exists()


def test_pickles_beside_the_checkpoints_are_never_opened(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = write_folder(tmp_path / "model")
    for name in ("postprocessing.pkl", "plans.pkl", "fold_0/debug.pkl"):
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    package_of(folder)
    assert not mark.exists()


def changed(**changes: Any) -> dict[str, Any]:
    """Plans whose configuration has other entries; dots lead into it."""
    plans = copy.deepcopy(plans_of())
    for path, value in changes.items():
        part = plans if path.startswith("top__") else plans["configurations"]["3d_fullres"]
        *where, last = path.removeprefix("top__").split("__")
        for key in where:
            part = part[key]
        part[last] = value
    return plans


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"previous_stage": "3d_lowres"}, "second stage of a cascade, after 3d_lowres: import"),
        ({"architecture__network_class_name": "my.lab.SwinNet"}, r"network my\.lab\.SwinNet"),
        ({"preprocessor_name": "FancyPreprocessor"}, "preprocessor_name 'FancyPreprocessor'"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resampling_fn_data 'resample_torch"),
        ({"normalization_schemes": ["HistogramNormalization"]}, "'HistogramNormalization' is not"),
        ({"top__image_reader_writer": "MyIO"}, "image reader 'MyIO' of nnU-Net is not known"),
        ({"top__label_manager": "MyLabels"}, "label_manager 'MyLabels'"),
        ({"normalization_schemes": ["CTNormalization"] * 2}, "do not belong together"),
        ({"inherits_from": "3d_fullres"}, "inherit in a circle"),
        ({"inherits_from": "nowhere"}, "no configuration 'nowhere'"),
        ({"architecture__arch_kwargs__norm_op": "torch.nn.GroupNorm"}, "norm_op torch.nn.Group"),
    ],
)
def test_models_that_do_something_else_are_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model", changed(**changes))
    with pytest.raises(PackageError, match=message):
        open_folder(folder)


def test_unknown_trainers_are_refused_and_those_that_change_training_alone_are_not(tmp_path: Path):
    for number, name in enumerate(
        ("nnUNetTrainer_250epochs", "nnUNetTrainerDA5", "nnUNetTrainerNoMirroring")
    ):
        package_of(write_folder(tmp_path / str(number), trainer=name))
    folder = write_folder(tmp_path / "other", trainer="nnUNetTrainerUMambaEnc")
    with pytest.raises(PackageError, match="trainer nnUNetTrainerUMambaEnc is not known here"):
        package_of(folder)


def test_regions_that_cannot_be_painted_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", labels=REGIONS)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    for order, message in (([2, 1], "is painted as 1"), ([1], "regions_class_order")):
        (folder / "dataset.json").write_text(
            json.dumps({**content, "regions_class_order": order}), encoding="utf-8"
        )
        with pytest.raises(PackageError, match=message):
            package_of(folder)


def test_folds_that_are_not_trained_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", folds=("0", "2"))
    with pytest.raises(UsageError, match="fold 1 is not trained: 0, 2 are"):
        package_of(folder, folds=["0", "1"])


def test_folders_of_several_or_no_models_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_folder(tmp_path / "results" / name)
    with pytest.raises(UsageError, match="contains 2 models, name one: one, two"):
        package_of(tmp_path / "results")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackageError, match="no trained nnU-Net v2 model"):
        package_of(tmp_path / "empty")


@pytest.mark.parametrize("name", ["../plans.json", "/tmp/plans.json", "c:/plans.json"])
def test_archives_that_leave_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "model.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(PackageError, match="outside of its folder"):
        package_of(file)


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    weights = folder / "fold_0" / "checkpoint_final.pth"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(PackageError, match="damaged"):
        package_of(folder)
    torch.save({"state_dict": {}}, weights)
    with pytest.raises(PackageError, match="not a checkpoint of nnU-Net v2"):
        package_of(folder)
    weights.write_bytes(content)
    (folder / "plans.json").write_text("{", encoding="utf-8")
    with pytest.raises(PackageError, match="is not JSON"):
        package_of(folder)
    (tmp_path / "text.zip").write_text("no archive", encoding="utf-8")
    with pytest.raises(PackageError, match="neither a folder nor a zip"):
        package_of(tmp_path / "text.zip")
