"""Networks of several plans: the mean of their probabilities on the grid of the image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import PythonModelContext
from monai.data import MetaTensor

from pipelines.tracking.serving import SegmentationModel
from segmed.archive import FolderSource, segment_archive
from segmed.errors import UsageError
from segmed.evaluation import score_cases
from segmed.inference import Predictor, foresee_files, predict_files
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.mean_of_plans import Course, mean_boxes, nearest_values
from segmed.inference.memory import peak_memory
from segmed.inference.observing import CaseObserver
from segmed.io import grid_of, read_image, read_label, write_label
from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages
from segmed.package.mixed_plans import mix_plans
from segmed.plan import Inference, Plan
from segmed.structures import LabelClass
from segmed.transforms.chain import prepare
from segmed.transforms.inverse import ProbsBox

REGIONS = (
    LabelClass(name="whole", value=2, region=(2, 5)),
    LabelClass(name="core", value=5),
)


@pytest.fixture(scope="module")
def solid(make_plan) -> Plan:
    """Volumes at 2.5 x 2.5 x 5 mm."""
    return make_plan(spacing_mm=(2.5, 2.5, 5.0), patch=(32, 32, 8))


@pytest.fixture(scope="module")
def flat(make_plan) -> Plan:
    """Slices at 2 x 2 mm, across the third axis."""
    return make_plan(spatial_dims=2, spacing_mm=(2.0, 2.0, 10.0), patch=(48, 32), slice_axis=2)


@pytest.fixture(scope="module")
def volume(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middle of a heart in slices of 10 mm."""
    whole = nib.load(shared_data("cardiac_mr") / "imagesTr" / "patient001_frame01.nii.gz")
    path = tmp_path_factory.mktemp("heart") / "patient001_frame01.nii.gz"
    x, y = (size // 2 for size in whole.shape[:2])
    whole.slicer[x - 44 : x + 44, y - 40 : y + 40].to_filename(path)
    return path


def probs_of(package: ModelPackage | list[ModelPackage], image, **options) -> torch.Tensor:
    found = Predictor(package, engine="torch", device="cpu", **options).predict(
        image, probabilities=True
    )
    assert found.probs is not None
    return found.probs


def turned(path: Path, axes: tuple[int, ...], flips: tuple[int, ...]) -> MetaTensor:
    """The same image with its axes in another order and direction, as another scanner writes it."""
    image = read_image(path)
    voxels = image.as_tensor()[0].permute(*axes).flip(flips)
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for new, old in enumerate(axes):
        step = -1.0 if new in flips else 1.0
        matrix[old, new] = step
        matrix[old, 3] = voxels.shape[new] - 1 if new in flips else 0.0
    affine = np.asarray(image.affine, dtype=np.float64) @ matrix
    return MetaTensor(voxels[None].clone(), affine=torch.from_numpy(affine))


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((0, 1, 2), ()), ((0, 1, 2), (0, 2)), ((2, 0, 1), (0,)), ((1, 2, 0), (1, 2))],
    ids=["as_stored", "falling_slices", "slices_first", "turned"],
)
@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_networks_of_2d_and_3d_give_the_mean_of_their_probabilities(
    solid: Plan, flat: Plan, volume: Path, make_package, axes, flips, labels
) -> None:
    plans = [plan if labels is None else plan.model_copy(update={"labels": labels})
             for plan in (solid, flat)]  # fmt: skip
    packages = [make_package(plan, seed=seed) for seed, plan in enumerate(plans)]
    image = turned(volume, axes, flips)
    apart = [probs_of(package, image) for package in packages]
    assert (apart[0] - apart[1]).abs().max() > 0.1
    expected = (apart[0] + apart[1]) / 2
    for together in (mix_plans(packages), packages, packages[::-1]):
        torch.testing.assert_close(probs_of(together, image), expected, rtol=0, atol=1e-6)


def test_every_network_of_a_package_counts_the_same(
    solid: Plan, flat: Plan, volume: Path, make_package
) -> None:
    folds = [make_package(solid, seed=seed) for seed in range(3)]
    other = make_package(flat, seed=3)
    apart = torch.stack([probs_of(one, volume) for one in (*folds, other)])
    whole = mix_plans([join_packages(folds), other])
    torch.testing.assert_close(probs_of(whole, volume), apart.mean(dim=0), rtol=0, atol=1e-5)


def test_plans_may_average_logits_and_probabilities(
    solid: Plan, flat: Plan, volume: Path, make_package
) -> None:
    """Each plan averages its own windows as it says; the mean of plans is of probabilities."""
    logits = solid.model_copy(update={"inference": Inference(average="logits")})
    packages = [make_package(logits), make_package(flat, seed=1)]
    expected = torch.stack([probs_of(one, volume) for one in packages]).mean(dim=0)
    torch.testing.assert_close(probs_of(packages, volume), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": REGIONS}, "labels"),
        ({"ignore_value": 9}, "ignore_value"),
        ({"slice_axis": 1}, "slice_axis"),
    ],
)
def test_what_cannot_be_averaged_is_refused_by_name(
    flat: Plan, make_package, change: dict[str, object], named: str
) -> None:
    first = make_package(flat)
    other = make_package(Plan.model_validate({**flat.model_dump(), **change}), seed=1)
    with pytest.raises(UsageError, match=rf"package 2 differs from the first in '{named}'"):
        Predictor([first, other])


def test_a_package_of_several_plans_is_used_alone(solid: Plan, flat: Plan, make_package) -> None:
    whole = mix_plans([make_package(solid), make_package(flat)])
    with pytest.raises(UsageError, match=r"package 1 .* has several plans: use it alone"):
        Predictor([whole, make_package(solid, seed=2)])


def test_files_are_segmented_and_foreseen_as_by_any_model(
    solid: Plan, flat: Plan, volume: Path, make_package, tmp_path: Path
) -> None:
    whole = ModelPackage.load(
        mix_plans([make_package(solid), make_package(flat, seed=1)]).save(tmp_path / "package")
    )
    predictor = Predictor(whole, engine="torch", device="cpu")
    assert predictor.describe_engines() == ["torch on cpu", "torch on cpu"]
    [foreseen] = foresee_files(predictor, [volume])
    assert foreseen.status == "ready", foreseen.reason
    [outcome] = predict_files(predictor, [volume], tmp_path / "out")
    assert outcome.status == "done", outcome.reason
    found = read_label(outcome.output)
    assert torch.equal(found.as_tensor(), predictor.predict(volume).label.as_tensor())
    assert grid_of(found).shape == grid_of(read_image(volume)).shape


def test_archive_evaluation_and_served_model_give_the_same_segmentation(
    solid: Plan, flat: Plan, volume: Path, make_package, tmp_path: Path
) -> None:
    place = mix_plans([make_package(solid), make_package(flat, seed=1)]).save(tmp_path / "package")
    predictor = Predictor(ModelPackage.load(place), engine="torch", device="cpu")
    expected = predictor.predict(volume).label.as_tensor()
    shutil.copyfile(volume, tmp_path / "heart.nii.gz")
    write_label(tmp_path / "label.nii.gz", expected[0], like=read_image(volume))
    case = Case(id="heart", group="heart", image=("heart.nii.gz",), label="label.nii.gz")
    plan = predictor.plan
    fields = {"name": "set", "labels": plan.labels, "channels": plan.channels}
    manifest = Manifest(**fields, training=(), test=(case,), root=tmp_path)
    scored = score_cases(predictor, manifest, [case], out_dir=tmp_path / "scored")
    assert scored.table["dice"].min() == 1.0
    (tmp_path / "images").mkdir()
    shutil.copyfile(volume, tmp_path / "images" / "heart.nii.gz")
    source = FolderSource(tmp_path / "images")
    [outcome] = segment_archive(source, predictor=predictor, out_dir=tmp_path / "archive")
    assert outcome.status == "done", outcome.reason
    [archived] = (tmp_path / "archive").rglob("*heart*.nii.gz")
    model = SegmentationModel()
    model.load_context(PythonModelContext({"package": str(place)}, {}))
    rows = pd.DataFrame({"image": [str(volume)]})
    options = {"output_dir": str(tmp_path / "served")}
    (row,) = model.predict(PythonModelContext({}, {}), rows, options).to_dict("records")
    assert row["status"] == "done", row["reason"]
    [served] = (tmp_path / "served").rglob("*.nii.gz")
    for path in (archived, served):
        assert (read_label(path).as_tensor() != expected).float().mean() < 1e-4, path


def test_memory_is_that_of_both_walks_and_bounded(
    solid: Plan, flat: Plan, volume: Path, make_package
) -> None:
    packages = [make_package(solid), make_package(flat, seed=1)]
    grid = grid_of(read_image(volume))
    alone = [Predictor(one, engine="torch", device="cpu", memory_gb=64.0) for one in packages]
    both = Predictor(packages, engine="torch", device="cpu", memory_gb=64.0)
    apart = [one.estimate_memory(grid) for one in alone]
    together = both.estimate_memory(grid)
    assert together.tensor == sum(one.tensor for one in apart)
    for part in ("buffer", "inverse"):  # the 3D walk goes along the slices, too: no less than alone
        assert getattr(together, part) >= sum(getattr(one, part) for one in apart)
    assert together.label == apart[0].label
    with pytest.raises(UsageError, match=r"0\.01 GB are allowed"):
        Predictor(packages, engine="torch", device="cpu", memory_gb=0.01).predict(volume)


def test_no_whole_map_of_a_long_volume_is_kept(
    solid: Plan, flat: Plan, make_package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces of both walks stay as small as those of one."""
    monkeypatch.setattr("segmed.transforms.inverse.PIECE_BYTES", 2**17)
    affine = torch.diag(torch.tensor([2.5, 2.5, 10.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 40, 36, 120), affine=affine)
    packages = [make_package(solid), make_package(flat, seed=1)]
    predictor = Predictor(packages, engine="torch", device="cpu")
    boxes = predictor._pieces(predictor.prepare(image), CaseObserver(solid.encoding))
    sizes = [box.probs.numel() for box in boxes]
    assert sum(sizes) == 3 * image.numel()
    assert max(sizes) * 4 <= 2**17


def test_boxes_of_other_sizes_meet_in_either_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 3, 11, 4, generator=generator) for _ in range(2)]
    for falls in (False, True):
        walks = []
        for values, step in zip(maps, (3, 4), strict=True):
            spans = [slice(low, min(low + step, 11)) for low in range(0, 11, step)]
            whole = (slice(0, 3), slice(0, 4))
            boxes = [ProbsBox((whole[0], one, whole[1]), values[:, :, one]) for one in spans]
            walks.append(iter(boxes[::-1] if falls else boxes))
        mean = torch.full((2, 3, 11, 4), torch.nan)
        for box in mean_boxes(walks, [0.25, 0.75], Course(1, 1, falls)):
            assert mean[(slice(None), *box.region)].isnan().all(), "no voxel twice"
            mean[(slice(None), *box.region)] = box.probs
        torch.testing.assert_close(mean, 0.25 * maps[0] + 0.75 * maps[1])


def test_prepared_intensities_are_found_at_the_voxels_of_the_image(make_plan, volume: Path) -> None:
    image = turned(volume, (2, 0, 1), (0,))
    spacing_mm = grid_of(read_image(volume)).spacing_mm
    prepared = prepare(image, make_plan(spacing_mm=spacing_mm))
    region = (slice(1, 3), slice(5, 60), slice(0, 40))  # axes as in `turned`
    found = nearest_values(prepared, region)
    values = image.as_tensor()
    expected = ((values - values.mean()) / values.std())[(slice(None), *region)]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_features_are_gathered_once_on_the_grid_of_the_image(
    solid: Plan, flat: Plan, volume: Path, make_package
) -> None:
    packages = [make_package(solid), make_package(flat, seed=1)]
    predictor = Predictor(packages, engine="torch", device="cpu")
    predictor.gather_features()
    for image in (read_image(volume), turned(volume, (0, 1, 2), (2,))):
        found = predictor.predict(image)
        assert found.features is not None
        counts = np.bincount(np.asarray(found.label).ravel(), minlength=6)
        voxel_ml = float(np.prod(grid_of(image).spacing_mm)) / 1000.0
        present = 0
        for label in packages[0].plan.labels:
            row = found.features[label.name]
            if counts[label.value]:
                present += 1
                assert np.isclose(np.exp(row["log_volume"]), counts[label.value] * voxel_ml)
                assert "agreement" not in row
                assert np.isfinite(list(row.values())).all()
        assert present


def test_peak_of_a_prediction_stays_within_the_estimate(
    solid: Plan, flat: Plan, volume: Path, make_package
) -> None:
    packages = [make_package(solid), make_package(flat, seed=1)]
    predictor = Predictor(packages, engine="torch", device="cpu", memory_gb=64.0)
    estimate = predictor.estimate_memory(grid_of(read_image(volume)))
    with peak_memory() as peak:
        predictor.predict(volume)
        assert peak() <= estimate.total + (256 << 20)


def test_graphs_of_a_gpu_walk_each_plan_in_their_own_path(
    solid: Plan, flat: Plan, volume: Path, make_package
) -> None:
    packages = [make_package(solid), make_package(flat, seed=1)]
    predictor = Predictor(packages, engine="torch", device="cpu")
    expected = predictor.predict(volume, probabilities=True).probs
    for walk, package in zip(predictor._walks, packages, strict=True):
        walk._use([CudaEngine(package.build(), torch.device("cpu"), mirror_axes=())])
    found = predictor.predict(volume, probabilities=True).probs
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)  # half precision
    foreseen = predictor.forecast_device(grid_of(read_image(volume)))
    assert foreseen is not None
    alone = Predictor(packages[0], engine="torch", device="cpu")
    alone._use([CudaEngine(packages[0].build(), torch.device("cpu"), mirror_axes=())])
    own = alone.forecast_device(grid_of(read_image(volume)))
    assert own is not None
    assert foreseen.volume > own.volume
    assert foreseen.label == own.label
