"""A predictor's labels lie on the input's grid, and its means are means."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from inverse_oracle import inverse_probs
from monai.data import MetaTensor
from tiny_data import affine_from

from segmed.errors import ImageError, UsageError
from segmed.geometry import same_grid
from segmed.inference import Predictor, sliding_window
from segmed.io import grid_of, read_image
from segmed.plan import Inference
from segmed.preprocessing import prepare


def volume(shape: tuple[int, ...] = (20, 26, 18), seed: int = 0) -> MetaTensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 5, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0]
    return MetaTensor(smooth, affine=torch.from_numpy(affine_from((1.0, 1.0, 1.0), (3, -7, 11))))


def probs_of(predictor: Predictor, image: MetaTensor) -> torch.Tensor:
    found = predictor.predict(image, probabilities=True).probs
    assert found is not None
    return found


def test_labels_are_values_of_the_plan_on_the_grid_of_the_image(make_plan, make_package) -> None:
    image = volume()
    found = Predictor(make_package(make_plan(spacing_mm=(1.3, 0.9, 1.1))), engine="torch").predict(
        image
    )
    assert same_grid(grid_of(found.label), grid_of(image))
    assert found.label.dtype == torch.uint8
    assert set(np.unique(found.label.numpy())) <= {0, 2, 5}
    assert len(np.unique(found.label.numpy())) > 1
    assert set(found.phases) == {"prepare", "network", "inverse"}
    assert 0 < sum(found.phases.values()) <= found.seconds + 1e-3


def test_result_equals_window_loop_and_restoration_by_hand(make_plan, make_package) -> None:
    plan = make_plan(spacing_mm=(1.3, 0.9, 1.1), patch=(8, 16, 12))
    package, image = make_package(plan), volume()
    predictor = Predictor(package, engine="torch")
    found = predictor.predict(image, probabilities=True)
    prepared = prepare(image, plan)
    network = package.build()
    blended = sliding_window(
        lambda w: torch.softmax(network(w), 1), prepared.tensor, window=plan.patch_size
    )
    expected = inverse_probs(blended, prepared)
    assert found.probs is not None
    torch.testing.assert_close(found.probs, expected, rtol=0, atol=2e-5)
    table = np.array([0, 2, 5])
    np.testing.assert_array_equal(found.label[0].numpy(), table[found.probs.argmax(0).numpy()])


def test_stored_axes_and_flips_do_not_change_what_is_found(make_plan, make_package) -> None:
    predictor = Predictor(
        make_package(make_plan(spacing_mm=(1.2, 1.0, 1.1), patch=(12, 16, 12))), engine="torch"
    )
    image = volume((12, 15, 11))
    expected = predictor.predict(image).label[0].numpy()
    assert len(np.unique(expected)) > 1
    for axes in itertools.permutations(range(3)):
        for flips in [(), (0,), (1, 2), (0, 1, 2)]:
            turned, affine = stored_as(image, axes, flips)
            found = predictor.predict(MetaTensor(turned, affine=affine)).label[0].numpy()
            np.testing.assert_array_equal(found, np.flip(expected.transpose(axes), flips))


def stored_as(
    image: MetaTensor, axes: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same anatomy with its axes in another order and some of them running backwards."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    shape = [image.shape[1 + axis] for axis in axes]
    for new, old in enumerate(axes):
        matrix[old, new] = -1 if new in flips else 1
        matrix[old, 3] = shape[new] - 1 if new in flips else 0
    voxels = image.as_tensor().permute(0, *(axis + 1 for axis in axes))
    voxels = torch.flip(voxels, [flip + 1 for flip in flips]).contiguous()
    return voxels, torch.from_numpy(np.asarray(image.affine) @ matrix)


def test_ensemble_of_architectures_equals_the_mean_by_hand(make_plan, make_package) -> None:
    plan = make_plan()
    members = [
        make_package(plan, seed=1),
        make_package(plan, seed=2),
        make_package(plan, seed=3, architecture="unet3plus"),
    ]
    image = volume()
    by_hand = torch.stack(
        [probs_of(Predictor(member, engine="torch"), image) for member in members]
    ).mean(0)
    torch.testing.assert_close(
        probs_of(Predictor(members, engine="torch"), image), by_hand, rtol=0, atol=1e-5
    )


def test_mirror_images_equal_the_mean_by_hand(make_plan, make_package) -> None:
    plan = make_plan(inference=Inference(mirror_axes=(0, 2)))
    package, image = make_package(plan), volume((32, 32, 32))
    plain = Predictor(package, engine="torch")
    views = []
    for flips in [(), (1,), (3,), (1, 3)]:
        mirrored = MetaTensor(torch.flip(image.as_tensor(), flips), affine=image.affine)
        views.append(torch.flip(probs_of(plain, mirrored), flips))
    by_hand = torch.stack(views).mean(0)
    found = probs_of(Predictor(package, tta=True, engine="torch"), image)
    assert (found - views[0]).abs().max() > 1e-3
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flat_network_walks_a_volume_slice_by_slice(make_plan, make_package, axis: int) -> None:
    plan = make_plan(spatial_dims=2, patch=(16, 16), slice_axis=axis)
    package, image = make_package(plan), volume()
    network = package.build()
    prepared = prepare(image, plan)
    found = probs_of(Predictor(package, engine="torch"), image)
    for index in (0, 7, image.shape[1 + axis] - 1):
        expected = sliding_window(
            lambda w: torch.softmax(network(w), 1),
            prepared.tensor.select(1 + axis, index),
            window=(16, 16),
        )
        torch.testing.assert_close(found.select(1 + axis, index), expected, rtol=0, atol=1e-5)


def test_raster_image_is_segmented_in_its_own_plane(make_plan, make_package) -> None:
    plan = make_plan(spatial_dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0))
    image = MetaTensor(torch.rand(1, 37, 21), affine=torch.eye(4, dtype=torch.float64))
    found = Predictor(make_package(plan), engine="torch").predict(image)
    assert found.label.shape == (1, 37, 21)


def test_large_label_values_survive_in_sixteen_bits(make_plan, make_package) -> None:
    plan = make_plan()
    labels = tuple(label.model_copy(update={"value": label.value + 1000}) for label in plan.labels)
    found = Predictor(
        make_package(plan.model_copy(update={"labels": labels})), engine="torch"
    ).predict(volume())
    assert set(np.unique(found.label.numpy())) <= {0, 1002, 1005}


def test_members_that_see_different_things_are_refused(make_plan, make_package) -> None:
    turned = make_package(make_plan(preprocessing={"orientation": "LPS"}))
    with pytest.raises(UsageError, match="package 2 differs from the first in 'orientation'"):
        Predictor([make_package(make_plan()), turned], engine="torch")


def test_image_with_another_number_of_channels_is_refused(make_plan, make_package) -> None:
    image = MetaTensor(torch.rand(2, 8, 8, 8), affine=torch.eye(4, dtype=torch.float64))
    with pytest.raises(ImageError, match=r"takes 1 channel \(T1\), got 2"):
        Predictor(make_package(make_plan()), engine="torch").predict(image)


def test_unknown_devices_and_engines_are_refused(make_plan, make_package) -> None:
    package = make_package(make_plan())
    with pytest.raises(UsageError, match="device"):
        Predictor(package, device="abacus", engine="torch")
    with pytest.raises(UsageError, match="engine"):
        Predictor(package, engine="abacus")


def test_every_orientation_of_real_files_lies_on_the_input_grid(
    make_plan, make_package, shared_data
) -> None:
    predictor = Predictor(make_package(make_plan(spacing_mm=(6.0, 6.0, 6.0))), engine="torch")
    files = sorted((shared_data("nifti_variety") / "orientations").glob("*.nii.gz"))
    assert files
    for path in files:
        image = read_image(path)
        assert same_grid(grid_of(predictor.predict(image).label), grid_of(image))


def test_spine_images_of_all_contrasts_lie_on_the_input_grid(
    make_plan, make_package, shared_data
) -> None:
    predictor = Predictor(make_package(make_plan(spacing_mm=(6.0, 6.0, 6.0))), engine="torch")
    folder = shared_data("sct_spine")
    files = [path for path in images_in(folder) if "seg" not in path.name]
    for contrast in ("mt", "t1", "t2", "t2s"):
        path = next(path for path in files if path.parts[-2] == contrast)
        image = read_image(path)
        assert same_grid(grid_of(predictor.predict(image).label), grid_of(image))


def test_oblique_series_and_its_negated_axes_lie_on_the_input_grid(
    make_plan, make_package, shared_data
) -> None:
    predictor = Predictor(make_package(make_plan(spacing_mm=(6.0, 6.0, 6.0))), engine="torch")
    for study in ("study1", "study2", "study3"):
        image = read_image(shared_data("hippocampus_dicom") / study)
        found = predictor.predict(image).label
        assert same_grid(grid_of(found), grid_of(image))
        tilt = affine_from((1.0, 1.0, 1.0))
        tilt[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
        for flips in [(0,), (2,), (0, 1, 2)]:
            voxels, affine = stored_as(image, (0, 1, 2), flips)
            oblique = MetaTensor(voxels, affine=torch.from_numpy(tilt) @ affine)
            turned = predictor.predict(oblique).label
            assert same_grid(grid_of(turned), grid_of(oblique))
            expected = np.flip(found[0].numpy(), flips)
            assert np.mean(turned[0].numpy() != expected) < 0.01


def images_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nii.gz"))
