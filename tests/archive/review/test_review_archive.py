"""An archive under review: order, images, label maps, corrections on the image's own grid."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.archive import FolderSource, segment_archive
from segmed.archive.review.agreement import agreements, dice_by_structure, mean_dice
from segmed.archive.review.archive import ReviewArchive
from segmed.errors import GeometryError, ImageError, UsageError
from segmed.inference import Predictor
from segmed.io.digest import sha256_of_file


@pytest.fixture
def archive(out: Path) -> ReviewArchive:
    """The archive, opened."""
    return ReviewArchive(out)


def set_flags(out: Path, flags: dict[str, list[str]]) -> None:
    """Give results of the ledger other flags, by part of their output's name."""
    with sqlite3.connect(out / "ledger.sqlite") as connection:
        for name, found in flags.items():
            connection.execute(
                "UPDATE studies SET measures = json_set(measures, '$.flags', json(?)) "
                "WHERE output LIKE ?",
                (json.dumps(found), f"%{name}%"),
            )
    connection.close()


def test_each_input_is_listed_once_with_its_newest_result_and_the_worst_first(
    out: Path, archive: ReviewArchive
) -> None:
    names = [study.entry.output or "" for study in archive.studies()]
    assert len(names) == 3
    stems = sorted(Path(name).name[:15] for name in names)
    worst = ["empty:anterior", "cut:anterior"]
    set_flags(out, {stems[0]: [], stems[1]: ["cut:anterior"], stems[2]: worst})
    studies = archive.studies()
    order = [Path(study.entry.output or "").name[:15] for study in studies]
    assert order[:2] == [stems[2], stems[1]]
    assert [study.priority for study in studies][:2] == [5.0, 1.0]
    for study in studies:
        (earlier,) = study.earlier
        assert earlier.content == study.entry.content
        assert earlier.worked < study.entry.worked
        assert not np.array_equal(archive.result(study), archive.result(study, earlier))


def test_saved_correction_has_exactly_its_voxels_on_the_grid_of_the_image(
    out: Path, archive: ReviewArchive
) -> None:
    study = archive.studies()[0]
    before = sha256_of_file(out / (study.entry.output or ""))
    values = archive.result(study).copy()
    values[3:7, 4:9, 5] = 2
    values[0, 0, 0] = 1
    correction = archive.save(study, values, "Ada", origin="page")
    stored = nib.load(out / correction.file)
    image = nib.load(Path(study.inputs[0].root) / study.inputs[0].place)
    np.testing.assert_array_equal(np.asarray(stored.dataobj), values)
    np.testing.assert_array_equal(stored.affine, image.affine)
    assert stored.header["sform_code"] == image.header["sform_code"]
    assert stored.header["qform_code"] == image.header["qform_code"]
    assert correction.sha256 == sha256_of_file(out / correction.file)
    assert sha256_of_file(out / (study.entry.output or "")) == before
    again = archive.save(study, values, "Ada", origin="page")
    assert again.file != correction.file
    np.testing.assert_array_equal(archive.corrected(study, correction), values)


def test_value_that_is_no_structure_and_another_shape_are_refused_and_leave_nothing(
    out: Path, archive: ReviewArchive
) -> None:
    study = archive.studies()[0]
    values = archive.result(study).copy()
    values[0, 0, 0] = 7
    with pytest.raises(UsageError, match="value 7 is not a structure; these are 0 background, 1 "):
        archive.save(study, values, "Ada", origin="page")
    with pytest.raises(GeometryError, match="does not fit the image"):
        archive.save(study, values[1:], "Ada", origin="page")
    with pytest.raises(UsageError, match="printable"):
        archive.save(study, values * 0, "", origin="page")
    assert not (out / "corrections").exists()
    assert archive.store.corrections() == []


def test_image_that_changed_or_vanished_since_is_not_shown(
    out: Path, tmp_path: Path, archive: ReviewArchive
) -> None:
    study = archive.studies()[0]
    moved = tmp_path / "moved"
    shutil.copytree(study.inputs[0].root, moved)
    with sqlite3.connect(out / "ledger.sqlite") as connection:
        connection.execute("UPDATE inputs SET root = ?", (str(moved),))
    connection.close()
    path = moved / study.inputs[0].place
    assert archive.image(archive.studies()[0]) is not None
    other = next(one for one in sorted(moved.iterdir()) if one != path)
    shutil.copy(other, path)
    fresh = ReviewArchive(out)
    with pytest.raises(ImageError, match="has changed since it was segmented"):
        fresh.image(fresh.study(study.entry.key))
    path.unlink()
    with pytest.raises(ImageError, match="is gone"):
        fresh.image(fresh.study(study.entry.key))
    with sqlite3.connect(out / "ledger.sqlite") as connection:
        connection.execute("UPDATE inputs SET root = '', place = 'series 1.2'")
    connection.close()
    fresh = ReviewArchive(out)
    with pytest.raises(ImageError, match="in a PACS"):
        fresh.image(fresh.study(study.entry.key))


@pytest.mark.parametrize("form", ["nifti", "seg-nrrd", "dicom-seg", "rtstruct"])
def test_dicom_series_is_read_again_and_its_result_in_any_format(
    tmp_path: Path, write_dicom: Callable[..., list[Path]], predictor: Predictor, form: str
) -> None:
    folder = tmp_path / "in" / "mixed"
    write_dicom(folder / "a", 1)
    write_dicom(folder / "b", 2)
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        path.rename(folder / f"{number:03d}")
    out = tmp_path / "out"
    list(segment_archive(FolderSource(folder), predictor=predictor, out_dir=out, format=form))
    archive = ReviewArchive(out)
    for study in archive.studies():
        image, label = archive.image(study), archive.result(study)
        assert label.shape == tuple(image.shape[1:]) == (12, 10, 8)
        np.testing.assert_array_equal(label, np.asarray(predictor.predict(image).label)[0])
        corrected = np.where(label == 1, 2, label)
        saved = archive.save(study, corrected, "Ada", origin="page")
        np.testing.assert_array_equal(archive.corrected(study, saved), corrected)


def test_study_is_found_by_a_text_that_means_it_alone(archive: ReviewArchive) -> None:
    study = archive.studies()[1]
    name = Path(study.entry.output or "").name[:15]
    assert archive.study(name).entry.key == study.entry.key
    assert archive.study(study.entry.study).entry.key == study.entry.key
    with pytest.raises(UsageError, match="belongs to 3 studies"):
        archive.study("hippocampus")
    with pytest.raises(UsageError, match="no segmented study"):
        archive.study("nothing like it")


def test_folder_that_is_no_archive_is_refused_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ledger"):
        ReviewArchive(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_archive_without_structures_says_how_to_get_them(out: Path) -> None:
    (out / "structures.json").unlink()
    archive = ReviewArchive(out)
    with pytest.raises(UsageError, match="run `segmed archive segment` with that model"):
        archive.image(archive.studies()[0])


def test_two_opinions_are_kept_with_their_dice(archive: ReviewArchive) -> None:
    study = archive.studies()[0]
    base = np.zeros_like(archive.result(study))
    base[2:6, 2:6, 2:6] = 1
    shifted = np.roll(base, 2, axis=0)
    for author, values in (("Ada", base), ("Bob", shifted)):
        saved = archive.save(study, values, author, origin="page")
        archive.store.add_opinion(study.entry.key, author, "accepted", correction=saved.id)
    found = {(one.first, one.second): one.dice for one in agreements(archive, study)}
    between = found["Ada (correction 1)", "Bob (correction 2)"]
    assert between[archive.structures(study.entry).labels[0].name] == 0.5
    assert between[archive.structures(study.entry).labels[1].name] is None
    assert len(found) == 3


def test_dice_of_absent_structures_is_no_number(archive: ReviewArchive) -> None:
    labels = archive.structures(archive.studies()[0].entry).labels
    one, none = np.ones((2, 2, 2), int), np.zeros((2, 2, 2), int)
    dice = dice_by_structure(one, none, labels)
    assert list(dice.values()) == [0.0, None]
    assert mean_dice(dice) == 0.0
    assert mean_dice(dice_by_structure(none, none, labels)) is None
