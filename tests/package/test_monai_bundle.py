"""Bundles whose network is one of MONAI's become packages; nothing of them is executed."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import SegResNet, UNet
from monai_bundles import INFERENCE, METADATA, UNET, write_bundle
from safetensors.torch import save_file

from segmed.errors import PackageError
from segmed.inference import Predictor
from segmed.io import read_image
from segmed.package import ModelPackage
from segmed.package.monai_bundle import package_of_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = REPOSITORY / "data_manifests/hippocampus_sample/images/hippocampus_001.nii.gz"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    options = {key: value for key, value in UNET.items() if key != "_target_"}
    return UNet(**{**options, "out_channels": 3}).state_dict()


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
def test_imported_bundle_segments_as_monai_runs_it(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "bundle", INFERENCE, {"model": state})
    package = package_of_bundle(bundle)
    assert package.architecture == "monai-UNet"
    assert package.plan.preprocessing.orientation == "RAS"
    assert [label.name for label in package.plan.labels] == ["anterior", "posterior"]
    assert package.plan.channels[0].modality == "MR"
    again = ModelPackage.load(package.save(tmp_path / "package"))
    assert again.hash == package.hash
    parser = ConfigParser(
        json.loads((bundle / "configs/inference.json").read_text(encoding="utf-8"))
    )
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(state)
    row = parser.get_parsed_content("preprocessing")({"image": str(IMAGE)})
    predictor = Predictor(again, device="cpu", engine="torch")
    prepared = predictor.prepare(read_image(IMAGE))
    torch.testing.assert_close(prepared.tensor, row["image"].as_tensor(), atol=1e-5, rtol=0)
    window = torch.randn(1, 1, 32, 32, 32)
    inferer = parser.get_parsed_content("inferer")
    with torch.inference_mode():
        torch.testing.assert_close(again.build()(window), network.eval()(window))
        expected = inferer(row["image"][None].as_tensor(), network).argmax(dim=1)[0].numpy()
    found = np.asarray(predictor.predict(read_image(IMAGE)).label)[0]
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 1
    assert float((found == expected).mean()) > 0.9999  # untrained: some logits are nearly equal


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True}, ("zscore", True)),
        ({"_target_": "NormalizeIntensityd", "subtrahend": 5, "divisor": [2.0]}, ("ct", False)),
        ({"_target_": "monai.transforms.ScaleIntensityd", "keys": "image"}, ("unit", False)),
    ],
)
def test_other_intensity_steps_become_rules_of_the_plan(
    step: dict[str, Any],
    expected: tuple[str, bool],
    state: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    content = copy.deepcopy(INFERENCE)
    content["preprocessing"]["transforms"][4] = step
    content["preprocessing"]["transforms"].append({"_target_": "CropForegroundd", "keys": "image"})
    content["postprocessing"]["transforms"].append(
        {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [2]}
    )
    plan = package_of_bundle(write_bundle(tmp_path / "bundle", content, state)).plan
    (rule,) = plan.preprocessing.intensity
    assert (rule.scheme, rule.nonzero) == expected
    assert plan.preprocessing.crop_nonzero
    assert plan.inference.keep_largest == (2,)
    assert (plan.inference.overlap, plan.inference.blend) == (0.5, "constant")


def test_yaml_and_safetensors_are_read_too(tmp_path: Path) -> None:
    content = copy.deepcopy(INFERENCE)
    options = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "init_filters": 8}
    content["network_def"] = {"_target_": "monai.networks.nets.SegResNet", **options}
    bundle = write_bundle(tmp_path / "bundle", content, {})
    (bundle / "configs/inference.json").rename(bundle / "configs/inference.yaml")
    (bundle / "models/model.pt").unlink()
    network = SegResNet(**options)
    save_file(network.state_dict(), bundle / "models/model.safetensors")
    built = package_of_bundle(bundle).build()
    window = torch.randn(1, 1, 32, 32, 32)
    torch.testing.assert_close(built(window), network.eval()(window))


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.mkdir, (os.environ["TRAP_OF_A_TEST"],))


def dump(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def test_pickle_in_the_weights_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAP_OF_A_TEST", str(tmp_path / "sprung"))
    bundle = write_bundle(tmp_path / "bundle", INFERENCE, {})
    for save in (torch.save, dump):
        save({"model": Trap()}, bundle / "models/model.pt")
        with pytest.raises(PackageError, match="weights_only"):
            package_of_bundle(bundle)
    assert not (tmp_path / "sprung").exists()


def changed(path: str, value: Any) -> dict[str, Any]:
    content: Any = {"inference": copy.deepcopy(INFERENCE), "metadata": copy.deepcopy(METADATA)}
    place = content
    *parents, last = path.split("/")
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return content


PRE, POST = "inference/preprocessing/transforms", "inference/postprocessing/transforms"
OUT = "metadata/network_data_format/outputs/pred/channel_def"
REFUSED: list[tuple[str, Any, str]] = [
    ("inference/network_def/_target_", "os.system", "network is 'os.system'; imported are MONAI's"),
    ("inference/network_def/_target_", "my.nets.UNet", "network is 'my.nets.UNet'"),
    ("inference/network_def/_target_", "VoxelMorphUNet", "network is 'VoxelMorphUNet'"),
    ("inference/network_def/channels", "$[4, 8, 8]", "network_def.channels .* is an expression"),
    ("inference/network_def/channels", "@missing::0", "refers to '@missing::0'"),
    ("inference/classes", "@classes", "refers to itself"),
    ("inference/network_def/channels", [4, 8, 16], "model.pt does not fit UNet"),
    ("inference/network_def/act", {"_target_": "x"}, "cannot be built"),
    (f"{PRE}/2", {"_target_": "RandFlipd"}, "the step 'RandFlipd', which a plan cannot express"),
    (f"{PRE}/2", {"_target_": "Lambdad", "func": "$print"}, "is an expression"),
    (f"{PRE}/2/labels", [["R", "L"], ["P", "A"], ["I", "S"]], "labels of its own"),
    (f"{PRE}/3", {"_target_": "EnsureTyped"}, "no Spacingd"),
    (f"{PRE}/3/pixdim", [1.0, -1.0, 1.0], "positive pixdim"),
    (f"{PRE}/4/a_max", 1, "a_min < a_max"),
    (f"{PRE}/2", {"_target_": "ScaleIntensityd"}, "sets intensity twice"),
    ("inference/inferer", {"_target_": "SimpleInferer"}, "inferer is 'SimpleInferer'"),
    ("inference/window", [-1, 32, 32], "roi_size"),
    (f"{POST}/0", {"_target_": "Activationsd", "sigmoid": True}, "the step 'Activationsd'"),
    (f"{POST}/2", {"_target_": "AsDiscreted", "threshold": 0.5}, "the step 'AsDiscreted'"),
    (OUT, {"0": "liver", "1": "tumour", "2": "vessel"}, "must begin with background"),
    (OUT, {"0": "background", "1": "liver"}, "lists 2 channels, its network has 3"),
    (OUT, {"0": "background", "5": "liver"}, "must name the channels 0, 1"),
    ("inference", [], "must be a mapping"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_bundle_without_equivalent_is_refused_by_name(
    path: str, value: Any, message: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    content = changed(path, value)
    bundle = write_bundle(tmp_path / "b", content["inference"], state, content["metadata"])
    with pytest.raises(PackageError, match=message):
        package_of_bundle(bundle)


FILES = ["configs/inference.json", "configs/metadata.json", "models/model.pt"]


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(name: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", INFERENCE, state)
    (bundle / name).unlink()
    with pytest.raises(PackageError, match=r"the bundle has no (configuration|metadata|weights)"):
        package_of_bundle(bundle)
