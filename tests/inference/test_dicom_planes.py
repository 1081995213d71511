"""Single-frame DICOM images through a model of planes; one of volumes refuses them by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_planes import write_plane
from PIL import Image

from segmed.archive import FolderSource, segment_archive
from segmed.inference import Predictor, find_cases, predict_files
from segmed.inference.inputs import Expected

GREY = np.random.default_rng(0).integers(0, 255, (20, 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def flat(make_plan, make_package) -> Predictor:
    plan = make_plan(spatial_dims=2, spacing_mm=(1.0, 1.0), patch=(16, 16))
    return Predictor(make_package(plan), device="cpu", engine="torch", any_modality=True)


def test_radiograph_gives_the_label_map_of_the_same_picture(tmp_path: Path, flat) -> None:
    write_plane(tmp_path / "dx" / "a.dcm", GREY)
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (dicom,) = predict_files(flat, [tmp_path / "dx"], tmp_path / "one")
    (picture,) = predict_files(flat, [tmp_path / "a.png"], tmp_path / "two")
    assert (dicom.status, dicom.reason) == ("done", None)
    assert dicom.output.suffix == ".png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(dicom.output)), np.asarray(Image.open(picture.output))
    )
    assert "no pixel spacing stated: distances and areas are in pixels" in dicom.notes


def test_images_of_one_series_have_a_result_each(tmp_path: Path, flat) -> None:
    for number in (1, 2):
        pixels = np.roll(GREY, number, axis=0)
        write_plane(tmp_path / "dx" / f"{number}.dcm", pixels, number=number)
    outcomes = list(predict_files(flat, [tmp_path / "dx"], tmp_path / "out"))
    assert [one.status for one in outcomes] == ["done", "done"]
    assert len({one.output for one in outcomes}) == 2


def test_model_of_volumes_refuses_a_projection_by_name(
    tmp_path: Path, make_plan, make_package
) -> None:
    write_plane(tmp_path / "dx" / "a.dcm", GREY)
    predictor = Predictor(make_package(make_plan()), device="cpu", engine="torch")
    (outcome,) = predict_files(predictor, [tmp_path / "dx"], tmp_path / "out")
    assert outcome.status == "refused"
    assert outcome.reason.startswith("projection")
    (case,) = find_cases([tmp_path / "dx"], Expected(spatial_dims=3))
    assert not case.series[0].is_plane


def test_archive_segments_each_image_once(tmp_path: Path, flat) -> None:
    for number in (1, 2):
        pixels = np.roll(GREY, number, axis=0)
        write_plane(tmp_path / "in" / f"{number}.dcm", pixels, number=number)
    source, out = FolderSource(tmp_path / "in"), tmp_path / "out"
    first = list(segment_archive(source, predictor=flat, out_dir=out))
    assert [one.status for one in first] == ["done", "done"]
    assert len({one.output for one in first}) == 2
    again = list(segment_archive(source, predictor=flat, out_dir=out))
    assert not any(one.fresh for one in again)


def test_archive_of_colour_images_needs_no_rules(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY[::-1], GREY], axis=-1)
    write_plane(tmp_path / "in" / "1.dcm", colour, modality="OP")
    source = FolderSource(tmp_path / "in", num_channels=3, spatial_dims=2)
    (study,) = source.studies()
    assert study.fault is None
    assert study.form == "dicom-plane"
