"""Models carried away and back."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai import bundle
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from monai_bundles import INFERENCE, UNET, write_bundle
from tiny_data import tiny_plan

from pipelines.registry.exports import digest_of, export_model, import_model
from segmed.errors import PackageError, UsageError
from segmed.inference import Predictor
from segmed.inference.signal_stack import unchanged_signal_stack
from segmed.io import read_image, read_label
from segmed.models import build_model
from segmed.package import ModelPackage

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE = REPOSITORY / "data_manifests/hippocampus_sample/images/hippocampus_001.nii.gz"


@pytest.fixture
def package_dir(tmp_path: Path) -> Path:
    plan = tiny_plan()
    options = plan.networks["unet"].options
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    package = ModelPackage("unet", options, plan, network.state_dict(), {"data": "cubes"})
    return package.save(tmp_path / "package")


def test_zip_is_the_same_byte_for_byte_and_loads(package_dir: Path, tmp_path: Path) -> None:
    records = [export_model(str(package_dir), tmp_path / f"{i}.zip", "zip") for i in (1, 2)]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert ModelPackage.load(tmp_path / "1.zip").hash == records[0]["hash"]


def test_bundle_gives_the_same_network_in_monai(package_dir: Path, tmp_path: Path) -> None:
    export_model(str(package_dir), tmp_path / "bundle", "bundle")
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "bundle/configs/inference.json"))
    parser["bundle_root"] = str(tmp_path / "bundle")
    network = parser.get_parsed_content("network")
    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(network(image), ModelPackage.load(package_dir).build()(image))
    assert not [p for p in (tmp_path / "bundle").rglob("*") if p.suffix in {".pt", ".pkl"}]


def test_parts_of_the_bundle_put_together_are_the_predictor(
    package_dir: Path, tmp_path: Path
) -> None:
    export_model(str(package_dir), tmp_path / "bundle", "bundle")
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "bundle/configs/inference.json"))
    parser["bundle_root"] = str(tmp_path / "bundle")
    chain, inferer, network = (
        parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "network")
    )
    row = chain({"image": str(IMAGE)})
    with torch.inference_mode():
        row["image"] = inferer(row["image"][None], network)[0]
    back = chain.inverse(row)["image"].as_tensor()
    predictor = Predictor(ModelPackage.load(package_dir), device="cpu", engine="torch")
    expected = predictor.predict(IMAGE, probabilities=True).probs
    torch.testing.assert_close(back, expected, atol=1e-5, rtol=0)


# MONAI says that its configs are code; ours is, and `import_model` never reads it.
@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
def test_tools_of_monai_verify_and_run_the_bundle(package_dir: Path, tmp_path: Path) -> None:
    export_model(str(package_dir), tmp_path / "bundle", "bundle")
    configs = tmp_path / "bundle/configs"
    bundle.verify_net_in_out(
        net_id="network",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        bundle_root=str(tmp_path / "bundle"),
    )
    (tmp_path / "images").mkdir()
    shutil.copy(IMAGE, tmp_path / "images")
    bundle.run(
        config_file=str(configs / "inference.json"),
        meta_file=str(configs / "metadata.json"),
        bundle_root=str(tmp_path / "bundle"),
        dataset_dir=str(tmp_path / "images"),
        output_dir=str(tmp_path / "theirs"),
    )
    (theirs,) = (tmp_path / "theirs").glob("*.nii.gz")
    expected = Predictor(ModelPackage.load(package_dir)).predict(read_image(IMAGE)).label
    assert np.array_equal(np.asarray(read_label(theirs)), np.asarray(expected))


def test_what_stands_there_is_not_overwritten(package_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "there.zip").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        export_model(str(package_dir), tmp_path / "there.zip", "zip")
    assert (tmp_path / "there.zip").read_text(encoding="utf-8") == "mine"


def test_file_changed_on_its_way_is_refused(package_dir: Path, tmp_path: Path) -> None:
    record = export_model(str(package_dir), tmp_path / "a.zip", "zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.comment = b"changed"
    with pytest.raises(PackageError, match="copy it again"):
        import_model(tmp_path / "a.zip", "cubes", sha256=record["sha256"])


def test_pickle_in_place_of_the_weights_is_never_loaded(package_dir: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, package_dir / "model.safetensors")
    with pytest.raises(PackageError, match="sha256 differs"):
        import_model(package_dir, "cubes")


def test_digest_of_a_folder_sees_names_and_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x", encoding="utf-8")
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    (tmp_path / "b" / "file").rename(tmp_path / "b" / "other")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.+ is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_other_engines_give_the_same_logits(form: str, package_dir: Path, tmp_path: Path) -> None:
    export_model(str(package_dir), tmp_path / form, form)
    image = torch.randn(1, 1, 16, 16, 16)
    if form == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(str(tmp_path / form / "model.onnx"))
        logits = session.run(None, {"image": image.numpy()})[0]
    else:
        openvino = pytest.importorskip("openvino")
        # some processors would compute in bfloat16
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        with unchanged_signal_stack():
            model = openvino.compile_model(str(tmp_path / form / "model.xml"), "CPU", exact)
        logits = model(image.numpy())[0]
        assert "INFERENCE_PRECISION_HINT" in (tmp_path / form / "README.md").read_text(
            encoding="utf-8"
        )
    expected = ModelPackage.load(package_dir).build()(image)
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


def test_bundle_and_zip_are_registered_again_with_the_same_hash(
    package_dir: Path, tmp_path: Path, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    for form in ("zip", "bundle"):
        record = export_model(str(package_dir), tmp_path / f"carried.{form}", form)
        again = import_model(
            tmp_path / f"carried.{form}", f"from-{form}", sha256=record["sha256"], alias="champion"
        )
        assert again.hash == record["hash"]
        back = export_model(f"models:/from-{form}@champion", tmp_path / f"back.{form}", form)
        assert back["sha256"] == record["sha256"]


def test_bundle_of_others_is_registered_when_its_format_is_given(
    tmp_path: Path, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    options = {key: value for key, value in UNET.items() if key != "_target_"}
    state = UNet(**{**options, "out_channels": 3}).state_dict()
    bundle_dir = write_bundle(tmp_path / "bundle", INFERENCE, state)
    with pytest.raises(PackageError, match="give --format monai-bundle"):
        import_model(bundle_dir, "theirs")
    version = import_model(bundle_dir, "theirs", form="monai-bundle", alias="champion")
    record = export_model("models:/theirs@champion", tmp_path / "theirs.zip", "zip")
    assert record["hash"] == version.hash
    assert ModelPackage.load(tmp_path / "theirs.zip").architecture == "monai-UNet"
