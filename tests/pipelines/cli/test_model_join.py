"""`segmed model join`, and what a joined model is used for afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pydicom
import pytest
import torch
from monai import bundle
from nnunet_folders import plans_of, write_folder
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from segmed.package import ModelPackage

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample"
IMAGE = SAMPLE / "images" / "hippocampus_001.nii.gz"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two imported models of different structures, on scales of their own."""
    monkeypatch.chdir(tmp_path)
    for name, labels, mean in (
        ("halves", {"background": 0, "anterior": 1, "posterior": 2}, 350.0),
        ("rest", {"background": 0, "vessel": 1}, 240.0),
    ):
        plans = plans_of(schemes=("CTNormalization",))
        plans["foreground_intensity_properties_per_channel"]["0"]["mean"] = mean
        write_folder(tmp_path / f"{name}_results", plans, labels=labels)
        words = ("--name", name, "--licence", f"terms of {name}")
        assert run("model", "import-nnunet", f"{name}_results", *words).exit_code == 0
    return tmp_path


def test_registered_models_are_joined_registered_and_predict(here: Path) -> None:
    for name in ("halves", "rest"):
        assert run("model", "register", name, "--name", name).exit_code == 0
    Path("map.json").write_text(
        json.dumps({"7": "vessel", "2": "anterior", "3": "posterior"}), encoding="utf-8"
    )
    done = run("model", "join", "models:/halves/1", "models:/rest/1", "--name", "all",
               "--label-map", "map.json", "--register", "--alias", "champion")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "labels      2 anterior, 3 posterior, 7 vessel" in done.stdout
    assert "overlaps    a voxel that several parts claim" in done.stdout
    assert "licence     terms of halves; terms of rest" in done.stdout
    card = run("model", "card", "models:/all@champion").stdout
    assert "7 = vessel" in card
    assert "several parts claim" in card
    predicted = run("predict", IMAGE, "--model", "models:/all@champion", "-o", "out")
    assert predicted.exit_code == 0, predicted.output
    (result,) = Path("out").glob("*.nii.gz")
    assert set(np.unique(np.asarray(nib.load(result).dataobj))) <= {0, 2, 3, 7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["halves", "--name", "x"], "two or more packages, got 1"),
        (["halves", "halves", "--name", "x"], "both have a structure 'anterior'"),
        (["halves", "nowhere", "--name", "x"], "nowhere"),
        (["halves", "rest", "--name", "a/b"], "a/b"),
        (["halves", "rest", "--name", "halves"], "halves exists already"),
        (["halves", "rest", "--name", "x", "--alias", "champion"], "give --register too"),
        (["halves", "rest", "--name", "x", "--label-map", "no.json"], "no.json"),
        (["halves", "rest", "--name", "x", "--label-map", "list.json"], "must be an object such"),
        (["halves", "rest", "--name", "x", "--label-map", "few.json"], "no value for posterior"),
    ],
)
def test_bad_input_is_one_line_and_status_2(here: Path, words: list[str], message: str) -> None:
    Path("list.json").write_text("[1, 2]", encoding="utf-8")
    Path("few.json").write_text('{"anterior": 1}', encoding="utf-8")
    done = run("model", "join", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not Path("x").exists()


def test_dicom_study_gets_the_structures_of_all_parts(here: Path, shared_data) -> None:
    study = min(path for path in shared_data("hippocampus_dicom").iterdir() if path.is_dir())
    shutil.copytree(study, "archive/1")
    assert run("model", "join", "halves", "rest", "--name", "all").exit_code == 0
    done = run("archive", "segment", "archive", "--model", "all", "-o", "out",
               "--format", "dicom-seg")  # fmt: skip
    assert done.exit_code == 0, done.output
    (result,) = Path("out").rglob("*.dcm")
    names = {item.SegmentLabel for item in pydicom.dcmread(result).SegmentSequence}
    assert names == {"anterior", "posterior", "vessel"}


def test_onnx_takes_the_image_on_every_scale(here: Path) -> None:
    assert run("model", "join", "halves", "rest", "--name", "all").exit_code == 0
    done = run("model", "export", "all", "--format", "onnx", "-o", "exported")
    assert done.exit_code == 0, done.output
    windows = torch.randn(1, 2, 16, 16, 16)
    session = onnxruntime.InferenceSession("exported/model.onnx")
    found = torch.from_numpy(session.run(None, {"image": windows.numpy()})[0])
    expected = ModelPackage.load("all").build()(windows)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


# MONAI says that its configs are code; ours is, and `import_model` never reads it.
@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("name", ["halves", "all"])
def test_bundles_of_imported_and_joined_models_run_in_monai(name: str, here: Path) -> None:
    assert run("model", "join", "halves", "rest", "--name", "all").exit_code == 0
    assert run("model", "export", name, "--format", "bundle", "-o", "bundle").exit_code == 0
    configs = Path("bundle/configs")
    bundle.verify_net_in_out(
        net_id="network",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        bundle_root="bundle",
    )
    Path("images").mkdir()
    shutil.copy(IMAGE, "images")
    bundle.run(
        config_file=str(configs / "inference.json"),
        meta_file=str(configs / "metadata.json"),
        bundle_root="bundle",
        dataset_dir="images",
        output_dir="theirs",
    )
    (theirs,) = Path("theirs").glob("*.nii.gz")
    assert run("predict", IMAGE, "--model", name, "-o", "ours").exit_code == 0
    (ours,) = Path("ours").glob("*.nii.gz")
    assert np.array_equal(nib.load(theirs).dataobj, nib.load(ours).dataobj)
