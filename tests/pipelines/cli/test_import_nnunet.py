"""`segmed model import-nnunet`, and what an imported model is used for afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nnunet_folders import REGIONS, plans_of, write_folder
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.cli.nnunet import chosen_folds
from segmed.errors import UsageError
from segmed.inference.signal_stack import unchanged_signal_stack
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.structures import LabelClass

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "Dataset777_drawn" / "model", folds=("0", "1"))


def test_package_is_written_where_the_name_says_and_described(folder: Path) -> None:
    done = run("model", "import-nnunet", folder.parent, "--name", "hip", "--folds", "0")
    assert done.exit_code == 0, done.output
    assert "nnU-Net v2, nnUNetTrainer, nnUNetPlans, 3d_fullres" in done.stdout
    assert "not stated: give --licence" in done.stdout
    package = ModelPackage.load("hip")
    assert package.members == 1
    assert f"hash        {package.hash}" in done.stdout
    again = run("model", "import-nnunet", folder, "--name", "hip")
    assert again.exit_code == 2
    assert "hip exists already" in again.output


def test_registered_version_has_its_licence_on_the_card_and_predicts(folder: Path) -> None:
    words = ("--name", "hip", "--register", "--alias", "champion", "--licence", "CC BY 4.0")
    done = run("model", "import-nnunet", folder, *words, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["model"] == "models:/hip/1 champion"
    assert record["members"] == 2
    assert (
        "licence of the weights: CC BY 4.0" in run("model", "card", "models:/hip@champion").stdout
    )
    image = SAMPLE / "images" / "hippocampus_001.nii.gz"
    predicted = run("predict", image, "--model", "models:/hip@champion", "-o", "out")
    assert predicted.exit_code == 0, predicted.output
    (result,) = Path("out").glob("*.nii.gz")
    assert np.asarray(nib.load(result).dataobj).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--name", "x"], "nowhere does not exist"),
        (["{f}", "--name", "a/b"], "a/b"),
        (["{f}", "--name", "x", "--folds", "0;1"], "--folds '0;1' is not a list of folds"),
        (["{f}", "--name", "x", "--folds", "4"], "fold 4 is not trained: 0, 1 are"),
        (["{f}", "--name", "x", "--alias", "champion"], "give --register too"),
        (["{f}/plans.json", "--name", "x"], "neither a folder nor a zip"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folder: Path, words: list[str], message: str) -> None:
    done = run("model", "import-nnunet", *(word.replace("{f}", str(folder)) for word in words))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not Path("x").exists()


def test_list_of_folds() -> None:
    assert chosen_folds("all") == ()
    assert chosen_folds("0, 1,fold_all") == ("0", "1", "all")
    with pytest.raises(UsageError):
        chosen_folds("")


def test_dicom_studies_are_segmented_and_a_broken_one_is_refused(folder, shared_data, tmp_path):
    studies = sorted(path for path in shared_data("hippocampus_dicom").iterdir() if path.is_dir())
    for number, study in enumerate(studies[:3]):
        shutil.copytree(study, tmp_path / "archive" / str(number))
    broken = sorted((tmp_path / "archive" / "2").rglob("*.dcm"))
    broken[len(broken) // 2].unlink()  # a slice is missing
    assert run("model", "import-nnunet", folder, "--name", "hip").exit_code == 0
    words = ("--model", "hip", "-o", "out", "--format", "dicom-seg", "--json")
    done = run("archive", "segment", tmp_path / "archive", *words)
    assert done.exit_code == 1, done.output
    results = sorted(Path("out").rglob("*.dcm"))
    assert len(results) == 2
    names = {item.SegmentLabel for item in pydicom.dcmread(results[0]).SegmentSequence}
    assert names == {"anterior", "posterior"}
    assert '"refused"' in done.stdout
    assert "missing" in done.stdout


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")  # OpenVINO reads traces
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes are constants of a trace
@pytest.mark.parametrize("form", ["onnx", "openvino", "bundle", "zip"])
def test_imported_model_is_exported_and_gives_the_same_logits(folder, form, tmp_path) -> None:
    import onnxruntime  # noqa: PLC0415 - of this test alone
    import torch  # noqa: PLC0415 - heavy, or only there for this test

    model = write_folder(tmp_path / "regions", plans_of(residual=True), labels=REGIONS)
    assert run("model", "import-nnunet", model, "--name", "reg").exit_code == 0
    done = run("model", "export", "reg", "--format", form, "-o", "exported")
    assert done.exit_code == 0, done.output
    package = ModelPackage.load("reg")
    windows = torch.randn(2, 1, 16, 16, 16)
    expected = package.build()(windows)
    if form == "onnx":
        session = onnxruntime.InferenceSession("exported/model.onnx")
        found = torch.from_numpy(session.run(None, {"image": windows.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    elif form == "openvino":
        import openvino  # noqa: PLC0415 - heavy, or only there for this test

        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        with unchanged_signal_stack():
            made = openvino.compile_model("exported/model.xml", "CPU", hint)
        found = torch.from_numpy(made(windows[:1].numpy())[0])
        torch.testing.assert_close(found, expected[:1], rtol=1e-3, atol=1e-3)
    elif form == "bundle":
        assert ModelPackage.load("exported/models").hash == package.hash
        config = json.loads(Path("exported/configs/inference.json").read_text(encoding="utf-8"))
        assert config["inferer"]["_target_"] == "segmed.inference.SlabInferer.of"
    else:
        assert ModelPackage.load("exported").hash == package.hash


def own_package(folder: Path, place: Path, **changes: object) -> Path:
    """A package of segmed's own kind for the structures of an imported one."""
    from segmed.nnunet import package_of  # noqa: PLC0415 - as below
    from segmed.plan import Inference, Preprocessing  # noqa: PLC0415 - heavy, or only there for this test

    imported = package_of(folder, folds=["0"]).plan
    rules = Preprocessing(spacing_mm=(2.0, 2.0, 2.0), intensity=imported.preprocessing.intensity)
    plan = imported.model_copy(update={"preprocessing": rules, "inference": Inference(), **changes})
    options = {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict(), {}).save(place)


def test_gate_compares_a_challenger_of_our_own_with_an_imported_champion(folder: Path) -> None:
    dataset = folder / "dataset.json"
    dataset.write_text(
        dataset.read_text(encoding="utf-8").replace('"MR0"', '"T1"'), encoding="utf-8"
    )
    champion = ("--name", "hip", "--register", "--alias", "champion", "--folds", "0")
    assert run("model", "import-nnunet", folder, *champion).exit_code == 0
    package = own_package(folder, Path("own"))
    done = run("model", "register", package, "--name", "hip", "--alias", "challenger")
    assert done.exit_code == 0, done.output
    manifest = SAMPLE.with_suffix(".json")
    gate = run("model", "promote", "hip@challenger", "--manifest", manifest, "--json")
    assert gate.exit_code in {0, 1}, gate.output
    decision = json.loads(gate.stdout)
    assert (decision["champion"], decision["version"]) == ("1", "2")
    assert decision["cases"] == len(json.loads(manifest.read_text(encoding="utf-8"))["test"])
    other = own_package(folder, Path("other"), labels=package_labels("head", "tail"))
    refused = run("model", "register", other, "--name", "hip")
    assert refused.exit_code == 2
    assert "its labels differ from version 2" in " ".join(refused.output.split())
    imported = package_of_spacing(folder)
    assert run("model", "import-nnunet", imported, "--name", "hip", "--register").exit_code == 0


def package_labels(*names: str) -> tuple[LabelClass, ...]:
    """Structures of these names, with the values 1, 2, ..."""
    return tuple(LabelClass(name=name, value=value) for value, name in enumerate(names, 1))


def package_of_spacing(folder: Path) -> Path:
    """The same folder, trained at another spacing."""
    plans = folder / "plans.json"
    plans.write_text(
        plans.read_text(encoding="utf-8").replace(
            '"spacing": [1.0, 1.0, 1.0]', '"spacing": [2.0, 1.0, 1.0]'
        ),
        encoding="utf-8",
    )
    return folder
