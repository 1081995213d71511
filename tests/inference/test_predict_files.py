"""Many files: in order, each on its grid, bad ones listed."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from segmed.errors import UsageError
from segmed.formats import SegForm, SegKind
from segmed.geometry import same_grid
from segmed.inference import Predictor, find_cases, predict_files
from segmed.inference.pipeline import without_voxels
from segmed.io import grid_of, read_image, read_label
from segmed.structures import LabelClass


@pytest.fixture(scope="module")
def predictor(make_plan, make_package) -> Predictor:
    return Predictor(make_package(make_plan(spacing_mm=(2.0, 2.0, 2.0))), engine="torch")


def write_volume(path: Path, *, seed: int = 0, shape: tuple[int, ...] = (12, 10, 14)) -> Path:
    voxels = np.random.default_rng(seed).random(shape).astype(np.float32)
    nib.Nifti1Image(voxels, np.diag([-1.5, 1.5, 2.0, 1.0])).to_filename(path)
    return path


def test_bad_files_are_listed_and_the_rest_is_segmented_in_order(
    tmp_path: Path, predictor: Predictor
) -> None:
    good = [write_volume(tmp_path / f"case{n}.nii.gz", seed=n) for n in range(5)]
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(good[0].read_bytes()[:200])
    absent = tmp_path / "absent.nii.gz"
    flat = tmp_path / "flat.nii.gz"
    write_volume(flat, shape=(9, 9))
    inputs = [good[0], torn, good[1], good[2], absent, good[3], flat, good[4]]
    outcomes = list(predict_files(predictor, inputs, tmp_path / "out"))
    assert [outcome.input for outcome in outcomes] == inputs
    assert [outcome.status for outcome in outcomes] == [
        "done", "refused", "done", "done", "refused", "done", "refused", "done",
    ]  # fmt: skip
    for outcome in outcomes:
        if outcome.status == "done":
            assert outcome.output is not None
            image, label = read_image(outcome.input), read_label(outcome.output)
            assert same_grid(grid_of(image), grid_of(label))
            np.testing.assert_array_equal(label.numpy(), predictor.predict(image).label.numpy())
        else:
            assert outcome.output is None
            assert outcome.reason
    assert not [path for path in (tmp_path / "out").iterdir() if "torn" in path.name]


def test_reader_that_breaks_fails_only_its_case(tmp_path: Path, predictor: Predictor) -> None:
    paths = [write_volume(tmp_path / f"case{n}.nii.gz") for n in range(3)]

    def read(path: Path) -> MetaTensor:
        if path == paths[1]:
            raise RuntimeError("decoder gave up")
        return read_image(path)

    outcomes = list(predict_files(predictor, paths, tmp_path / "out", read=read))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].reason == "unexpected: RuntimeError: decoder gave up"


def test_result_never_replaces_its_input(tmp_path: Path, predictor: Predictor) -> None:
    path = write_volume(tmp_path / "case.nii.gz")
    before = path.read_bytes()
    (outcome,) = predict_files(predictor, [path], tmp_path)
    assert outcome.status == "refused"
    assert path.read_bytes() == before


def test_dicom_series_is_segmented_on_its_grid_and_named_without_its_folder(
    tmp_path: Path, predictor: Predictor, shared_data
) -> None:
    series = shared_data("hippocampus_dicom") / "study1"
    (outcome,) = predict_files(predictor, [series], tmp_path)
    assert outcome.status == "done"
    assert outcome.output is not None
    assert "study1" not in outcome.output.name
    assert same_grid(grid_of(read_label(outcome.output)), grid_of(read_image(series)))


def test_dicom_series_becomes_a_segmentation_object(
    tmp_path: Path, predictor: Predictor, shared_data
) -> None:
    series = shared_data("hippocampus_dicom") / "study2"
    (outcome,) = predict_files(predictor, [series], tmp_path, format="dicom-seg")
    assert outcome.output is not None
    image = read_image(series)
    found = read_label(outcome.output, like=image)
    np.testing.assert_array_equal(found.numpy(), predictor.predict(image).label.numpy())


@pytest.mark.parametrize("kind", ["labelmap", "fractional"])
def test_every_form_of_a_segmentation_object_has_the_predicted_voxels(
    tmp_path: Path, predictor: Predictor, shared_data, kind: SegKind
) -> None:
    series = shared_data("hippocampus_dicom") / "study2"
    (outcome,) = predict_files(predictor, [series], tmp_path, SegForm(kind))
    assert outcome.output is not None
    image = read_image(series)
    expected = predictor.predict(image, probabilities=True)
    found = read_label(outcome.output, like=image)
    np.testing.assert_array_equal(found.numpy(), expected.label.numpy())
    if kind == "fractional":
        stored = pydicom.dcmread(outcome.output)
        assert stored.SegmentationFractionalType == "PROBABILITY"
        sums = [frame.sum() / 255 for frame in stored.pixel_array]
        assert sum(sums) == pytest.approx(float(expected.probs[1:].sum()), rel=1e-2)


def test_label_map_object_of_structures_that_overlap_is_refused_before_any_image(
    tmp_path: Path, make_plan, make_package
) -> None:
    labels = (
        LabelClass(name="whole", value=1, region=(1, 2)),
        LabelClass(name="core", value=2, region=(2,)),
    )
    plan = make_plan().model_copy(update={"labels": labels})
    predictor = Predictor(make_package(plan), device="cpu", engine="torch")
    with pytest.raises(UsageError, match="'whole' contains others: choose binary"):
        predict_files(predictor, [tmp_path], tmp_path / "out", SegForm("labelmap"))


def test_dicom_object_of_a_file_without_a_series_is_refused(
    tmp_path: Path, predictor: Predictor
) -> None:
    path = write_volume(tmp_path / "case.nii.gz")
    (outcome,) = predict_files(predictor, [path], tmp_path / "out", format="dicom-seg")
    assert outcome.status == "refused"
    assert outcome.reason is not None
    assert outcome.reason.startswith("no_dicom_source")


def test_probabilities_sum_to_one_on_the_grid_of_the_image(
    tmp_path: Path, predictor: Predictor
) -> None:
    path = write_volume(tmp_path / "case.nii.gz")
    (outcome,) = predict_files(predictor, [path], tmp_path / "out", format="probabilities")
    written = nib.load(outcome.output)
    assert written.shape == (12, 10, 14, 3)
    np.testing.assert_allclose(written.get_fdata().sum(-1), 1.0, atol=1e-4)
    np.testing.assert_allclose(written.affine, nib.load(path).affine, atol=1e-6)


def test_raster_images_become_raster_label_maps(tmp_path: Path, make_plan, make_package) -> None:
    flat = make_plan(spatial_dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0))
    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    outcomes = list(
        predict_files(
            Predictor(make_package(flat), engine="torch"), [tmp_path / "in"], tmp_path / "out"
        )
    )
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert outcomes[0].output is not None
    assert read_label(outcomes[0].output).shape == (1, 24, 30)


def test_folders_give_their_images_and_their_series(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "series" / "one").mkdir(parents=True)
    for name in ("images/b.nii.gz", "images/a.nii", "images/notes.txt", "series/one/IM1"):
        (tmp_path / name).write_bytes(b"")
    cases = find_cases([tmp_path / "images", tmp_path / "series"], 1)
    assert [case.files[0].name for case in cases] == ["a.nii", "b.nii.gz", "one"]


def test_text_beside_series_folders_is_no_series(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "IM1").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "README.md").write_text("where these are from", encoding="utf-8")
    assert [case.files[0].name for case in find_cases([tmp_path], 1)] == ["one", "two"]
    (tmp_path / "IM2").write_bytes(b"\0" * 128 + b"DICM")
    assert find_cases([tmp_path], 1)[0].files == (tmp_path / "IM2",)


def test_unknown_format_and_no_input_are_refused(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="known are"):
        predict_files(predictor, [tmp_path], tmp_path / "out", format="jpeg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nothing to segment"):
        predict_files(predictor, [tmp_path / "empty"], tmp_path / "out")


def test_hollow_image_keeps_nothing_but_geometry(tmp_path: Path) -> None:
    image = read_image(write_volume(tmp_path / "case.nii.gz"))
    hollow = without_voxels(image)
    assert same_grid(grid_of(hollow), grid_of(image))
    assert hollow.meta["source"] == image.meta["source"]
    assert hollow.untyped_storage().nbytes() <= 8
    assert torch.count_nonzero(hollow) == 0
