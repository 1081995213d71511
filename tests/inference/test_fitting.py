"""A DICOM series of another modality or body part than the model's is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from segmed.archive import FolderSource, segment_archive
from segmed.inference import Predictor, predict_files
from segmed.inference.fitting import misfit, regions_of
from segmed.io.dicom.write import write_series
from segmed.manifest import Channel
from segmed.metatensor import MetaTensor


def series(folder: Path, seed: int = 0, **tags: str) -> Path:
    voxels = np.random.default_rng(seed).integers(0, 900, (1, 12, 11, 10)).astype(np.float32)
    affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    write_series(folder, MetaTensor(torch.from_numpy(voxels), affine=affine))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(path)
    return folder


@pytest.fixture
def predictor(make_plan, make_package) -> Predictor:
    channel = Channel(name="T1", modality="MR", body_part="BRAIN")
    plan = make_plan(spacing_mm=(1.0, 1.0, 1.0)).model_copy(update={"channels": (channel,)})
    return Predictor(make_package(plan), engine="torch")


def test_a_ct_is_refused_by_a_model_of_mr(predictor: Predictor, tmp_path: Path) -> None:
    ct = series(tmp_path / "in/ct", Modality="CT")
    mr = series(tmp_path / "in/mr", 1, Modality="MR")
    found = {outcome.input: outcome for outcome in predict_files(predictor, [ct, mr], tmp_path)}
    assert found[mr].status == "done"
    assert found[ct].status == "refused"
    reason = str(found[ct].reason)
    assert reason.startswith("other_modality: the series is CT, channel 'T1' of the model takes MR")
    assert "--any-modality" in reason
    predictor.any_modality = True
    (outcome,) = predict_files(predictor, [ct], tmp_path / "out")
    assert outcome.status == "done"


def test_an_archive_refuses_it_as_well(predictor: Predictor, tmp_path: Path) -> None:
    series(tmp_path / "in/ct", Modality="CT")
    series(tmp_path / "in/knee", 1, Modality="MR", BodyPartExamined="KNEE")
    series(tmp_path / "in/head", 2, Modality="MR", BodyPartExamined="HEAD")
    series(tmp_path / "in/mask", 3, Modality="MR", SeriesDescription="Tumor mask")
    outcomes = segment_archive(
        FolderSource(tmp_path / "in"), predictor=predictor, out_dir=tmp_path / "out"
    )
    reasons = sorted(outcome.reason.partition(":")[0] for outcome in outcomes)
    assert reasons == ["", "mask", "other_body_part", "other_modality"]


def test_a_series_described_as_mask_is_no_input(predictor: Predictor, tmp_path: Path) -> None:
    mask = series(tmp_path / "in/a", Modality="MR", SeriesDescription="lesion_SEG")
    (outcome,) = predict_files(predictor, [mask], tmp_path / "out")
    assert outcome.status == "refused"
    assert "described as a mask" in str(outcome.reason)
    image = series(tmp_path / "in/b", 1, Modality="MR", SeriesDescription="T1 unmasked segmental")
    (outcome,) = predict_files(predictor, [image], tmp_path / "out")
    assert outcome.status == "done"


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [("MR", "MR", True), ("CT", "MR", False), ("PT", "CT", False), ("OT", "CT", True),
     ("MR", "", True), ("MR", "OT", True), ("DX", "CR", True), ("US", "MG", False)],
)  # fmt: skip
def test_modalities(ours: str, theirs: str, *, fits: bool) -> None:
    assert (misfit(Channel(name="c", modality=ours), theirs)[0] == "") == fits


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [("BRAIN", "HEAD", True), ("BRAIN", "KNEE", False), ("CHEST", "CHESTABDPELVIS", True),
     ("LIVER", "ABDOMEN", True), ("HEART", "HEAD", False), ("", "KNEE", True),
     ("BRAIN", "", True), ("BRAIN", "WHOLEBODY", True), ("LIVER", "chest", False)],
)  # fmt: skip
def test_body_parts(ours: str, theirs: str, *, fits: bool) -> None:
    channel = Channel(name="c", modality="MR", body_part=ours)
    assert (misfit(channel, "MR", theirs)[0] == "") == fits


def test_regions_are_told_by_parts_of_words() -> None:
    assert regions_of("HEADNECK") == {"head", "neck"}
    assert regions_of("SPINE") == frozenset()


def test_an_empty_body_part_is_not_stored() -> None:
    assert Channel(name="c").model_dump() == {"name": "c", "modality": "OT"}
    kept = Channel(name="c", body_part="HEAD")
    assert Channel.model_validate(kept.model_dump()) == kept
