"""A cascade on real hearts: the label map of the first stage enters the second, and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import pytest
import torch

from segmed.archive import FolderSource, segment_archive
from segmed.inference import Predictor, SlabInferer, foresee_files, predict_files
from segmed.io import grid_of, read_image, read_label
from segmed.package import ModelPackage
from segmed.package.cascade import stages_of, with_first_stage
from segmed.plan import Inference
from segmed.plan.built import planned_network
from segmed.structures import LabelClass
from segmed.transforms.chain import prepare
from segmed.transforms.first_stage import fill_structures, with_label_map

REGIONS = (
    LabelClass(name="whole", value=2, region=(2, 5)),
    LabelClass(name="core", value=5),
)
OPTIONS = {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}


@pytest.fixture(scope="module")
def volume(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middle of a heart, as stored."""
    whole = nib.load(shared_data("left_atrium") / "imagesTr" / "la_06sr5rbr.nii.gz")
    path = tmp_path_factory.mktemp("heart") / "heart.nii.gz"
    x, y, z = (size // 2 for size in whole.shape)
    whole.slicer[x - 40 : x + 40, y - 36 : y + 36, z - 16 : z + 16].to_filename(path)
    return path


def cascade(make_plan, make_package, labels=None, **rest) -> ModelPackage:
    """Untrained networks: at 2.5 mm, then at the spacing of the image."""
    first = make_plan(spacing_mm=(2.5, 2.5, 2.5), patch=(16, 16, 16), **rest)
    second = make_plan(spacing_mm=(0.625, 0.625, 0.625), patch=(32, 32, 16), refines=True, **rest)
    if labels is not None:
        first, second = (one.model_copy(update={"labels": labels}) for one in (first, second))
    torch.manual_seed(3)
    network = planned_network(second, "unet", OPTIONS)
    refining = ModelPackage("unet", OPTIONS, second, network.state_dict())
    return with_first_stage(refining, make_package(first, seed=1))


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_a_cascade_equals_its_stages_by_hand(volume: Path, make_plan, make_package, labels) -> None:
    package = cascade(make_plan, make_package, labels)
    second, first = stages_of(package)
    image = read_image(volume)
    found = Predictor(package, device="cpu", engine="torch").predict(image, probabilities=True)
    of_first = Predictor(first, device="cpu", engine="torch").predict(image).label
    plan = second.plan
    prepared = with_label_map(prepare(image, plan), of_first, plan)
    assert prepared.tensor.shape[0] == plan.network_channels == 3
    maps = SlabInferer.of(plan)(prepared.tensor[None], second.build())[0]
    indices = plan.encoding.class_indices(maps)
    assert len(torch.unique(indices)) == 3
    values = torch.tensor(plan.encoding.values)[indices]
    assert torch.equal(values.int(), found.label.as_tensor()[0].int()), "no resampling between"
    assert found.probs is not None
    assert torch.equal(plan.encoding.class_indices(found.probs), indices)


def test_weights_of_zero_leave_the_map_of_the_first_stage(
    volume: Path, make_plan, make_package
) -> None:
    package = cascade(make_plan, make_package)
    state = {
        name: torch.zeros_like(value) if name.startswith("members.0.network.") else value
        for name, value in package.state.items()
    }
    silent, image = replace(package, state=state), read_image(volume)
    whole = Predictor(silent, device="cpu", engine="torch").predict(image).label
    first = Predictor(stages_of(package)[1], device="cpu", engine="torch").predict(image).label
    assert len(torch.unique(first.as_tensor())) > 1
    assert torch.equal(whole.as_tensor().int(), first.as_tensor().int())


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_channels_are_the_structures(make_plan, labels) -> None:
    plan = make_plan(refines=True)
    plan = plan if labels is None else plan.model_copy(update={"labels": labels})
    channels = torch.zeros(2, 1, 3)
    fill_structures(channels, torch.tensor([[0, 1, 2]]), plan.encoding)
    inner = [[0.0, 0.0, 1.0]]
    assert channels.tolist() == [[[0.0, 1.0, 0.0 if labels is None else 1.0]], inner]


def test_a_cropped_image_gets_its_map_on_the_cropped_grid(volume: Path, make_plan) -> None:
    plan = make_plan(refines=True, spacing_mm=(0.625,) * 3, preprocessing={"crop_nonzero": True})
    image = read_image(volume)
    image.as_tensor()[:, :20] = 0
    label = image.clone()
    label.copy_(torch.where(image.as_tensor() > 40, 5, 0))
    prepared = prepare(image, plan)
    whole = with_label_map(prepared, label, plan)
    assert whole.tensor.shape == (3, *prepared.tensor.shape[1:])
    assert 0 < whole.tensor[2].mean().item() < 1
    assert whole.tensor[1].sum().item() == 0


def test_files_archive_and_forecast_take_a_cascade(
    volume: Path, make_plan, make_package, tmp_path: Path
) -> None:
    package = cascade(make_plan, make_package, inference=Inference(keep_largest=(2, 5)))
    predictor = Predictor(package, device="cpu", engine="torch")
    assert predictor.describe_engines() == ["torch on cpu"] * 2
    (outcome,) = predict_files(predictor, [volume], tmp_path / "out")
    expected = predictor.predict(volume).label
    assert outcome.output is not None
    written = read_label(outcome.output)
    assert torch.equal(written.as_tensor().int(), expected.as_tensor().int())
    (forecast,) = foresee_files(predictor, [volume])
    assert forecast.status == "ready"
    assert forecast.memory_gb is not None
    read = read_image(volume)
    grid = grid_of(read)
    assert predictor.first_stage is not None
    first, second = (
        one.prepare(read).tensor[0].numel() for one in (predictor.first_stage, predictor)
    )
    # The image for both stages, and for the second once more with its two structures.
    held = 4 * (first + second + 3 * second)
    assert predictor.estimate_memory(grid).tensor == held
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / volume.name).write_bytes(volume.read_bytes())
    source = FolderSource(tmp_path / "archive")
    [archived] = segment_archive(source, predictor=predictor, out_dir=tmp_path / "done")
    assert archived.status == "done", archived.reason
    (made,) = (tmp_path / "done").rglob("*heart*.nii.gz")
    assert torch.equal(read_label(made).as_tensor(), written.as_tensor())
