"""`segmed evaluate` with images: the report shows the worst cases."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_data import write_case
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.comparing.case_pictures import images_of, lowest_overlays
from segmed.errors import UsageError
from segmed.evaluation import compare_folders
from segmed.manifest import LabelClass

LABELS = [LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2)]
CASES = ("a", "b", "c")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """References of three cases, their images, and predictions of which `b` is shifted most."""
    for name in ("images", "references", "predictions"):
        (tmp_path / name).mkdir()
    for seed, case in enumerate(CASES):
        write_case(tmp_path, case, seed)
        (tmp_path / f"{case}_image.nii").rename(tmp_path / f"images/{case}_0000.nii")
        label = nib.load(tmp_path / f"{case}_label.nii")
        moved = np.roll(np.asarray(label.dataobj), {"a": 0, "b": 2, "c": 1}[case], axis=0)
        nib.save(nib.Nifti1Image(moved, label.affine), tmp_path / f"predictions/{case}.nii")
        (tmp_path / f"{case}_label.nii").rename(tmp_path / f"references/{case}.nii")
    return tmp_path


def evaluate(folder: Path, *words: str) -> Result:
    fixed = ["--predictions", str(folder / "predictions"), "--references"]
    fixed += [str(folder / "references"), "-o", str(folder / "out")]
    return CliRunner().invoke(app, ["evaluate", *fixed, *words])


def test_worst_cases_come_first_with_their_image(folders: Path) -> None:
    scores = compare_folders(folders / "predictions", folders / "references", labels=LABELS).table
    images = images_of(folders / "images", list(CASES))
    found = list(
        lowest_overlays(
            scores,
            images=images,
            predictions=folders / "predictions",
            references=folders / "references",
            most=2,
        )
    )
    assert [item.case for item in found] == ["b", "c"]
    assert found[0].caption == "b: mean Dice 0.500"
    stored = nib.load(folders / "images/b_0000.nii").get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(found[0].image[0], stored)
    assert found[0].prediction.shape == stored.shape
    assert (found[0].prediction != found[0].reference).any()


def test_report_shows_pictures_of_the_images(folders: Path) -> None:
    result = evaluate(folders, "--images", str(folders / "images"))
    assert result.exit_code == 0, result.output
    page = (folders / "out/report.html").read_text(encoding="utf-8")
    assert "b: mean Dice 0.500" in page


def test_case_without_image_is_named_before_anything_is_scored(folders: Path) -> None:
    (folders / "images/c_0000.nii").unlink()
    result = evaluate(folders, "--images", str(folders / "images"))
    assert result.exit_code == 2
    assert "1 of 3 cases have no image" in result.stderr
    assert not (folders / "out").exists()
    with pytest.raises(UsageError, match="is not a folder; give the folder of the images"):
        images_of(folders / "nowhere", ["a"])


def test_image_on_another_grid_is_refused(folders: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), folders / "images/b.nii")
    result = evaluate(folders, "--images", str(folders / "images"))
    assert result.exit_code == 2
    assert "the image of b" in result.stderr
