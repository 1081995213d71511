"""A study as a folder for 3D Slicer, and what comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name

from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.slicer_folder import read_from_slicer, write_slicer_folder
from segmed.errors import ImageError
from segmed.io import grid_of, read_image


@pytest.fixture
def archive(out: Path) -> ReviewArchive:
    """The archive, opened."""
    return ReviewArchive(out)


def test_folder_has_image_segmentation_and_a_script_that_loads_both(archive: ReviewArchive) -> None:
    study = archive.studies()[0]
    folder = write_slicer_folder(archive, study)
    script = folder.script.read_text(encoding="utf-8")
    compile(script, str(folder.script), "exec")
    found = re.search(r"json.loads\((.*)\)\n", script)
    assert found is not None
    places = json.loads(eval(found[1]))
    assert places["segmentation"] == str(folder.segmentation)
    image, shown = archive.image(study), read_image(places["images"][0])
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(image))
    np.testing.assert_allclose(grid_of(shown).affine_ras, grid_of(image).affine_ras)
    assert not folder.is_changed


def test_file_that_3d_slicer_saved_is_a_correction_of_its_study(archive: ReviewArchive) -> None:
    study = archive.studies()[0]
    folder = write_slicer_folder(archive, study)
    edited = sitk.ReadImage(str(folder.segmentation))
    keys = {key: edited.GetMetaData(key) for key in edited.GetMetaDataKeys()}
    values = sitk.GetArrayFromImage(edited)
    values[4:8, 5:9, 6:10] = 2
    changed = sitk.GetImageFromArray(values)
    changed.CopyInformation(edited)
    for key, value in keys.items():
        changed.SetMetaData(key, value)
    sitk.WriteImage(changed, str(folder.segmentation), True)
    assert folder.is_changed
    correction = read_from_slicer(archive, study, folder.segmentation, "Ada")
    assert (correction.author, correction.origin) == ("Ada", "slicer")
    np.testing.assert_array_equal(
        archive.corrected(study, correction), values.transpose(2, 1, 0).astype(np.int32)
    )
    again = write_slicer_folder(archive, study)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(again.segmentation)))
    np.testing.assert_array_equal(stored, values)  # the next edit begins with the correction


def test_segmentation_of_another_study_is_refused_by_name(archive: ReviewArchive) -> None:
    first, second = archive.studies()[:2]
    folder = write_slicer_folder(archive, first)
    with pytest.raises(ImageError, match=r"not on the grid of the image|outside the image"):
        read_from_slicer(archive, second, folder.segmentation, "Ada")
    assert archive.store.corrections() == []
