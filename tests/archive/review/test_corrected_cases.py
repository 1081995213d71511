"""Accepted corrections as cases: patients stay where they are, models are scored in the field."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_data import hippocampus_package

from segmed.archive import FolderSource, segment_archive
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.cases import PREFIX, add_corrections
from segmed.archive.review.field import field_scores, read_field_score, write_field_scores
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.manifest import Case, Manifest, StoredLabel, read_manifest, write_manifest
from segmed.manifest.content import with_digests
from segmed.structures import Channel

SAMPLE = Path(__file__).parents[3] / "data_manifests" / "hippocampus_sample.json"
LABELS = hippocampus_package().plan.labels


@pytest.fixture
def archive(out: Path) -> ReviewArchive:
    """The archive of three images, each with an accepted correction by Ada."""
    found = ReviewArchive(out)
    for study in found.studies():
        correct(found, study.entry.key, 1)
    return found


def correct(archive: ReviewArchive, key: str, value: int, author: str = "Ada") -> np.ndarray:
    """Save and accept a correction; returns its label map."""
    study = archive.study(key)
    values = archive.result(study).copy()
    values[2:6, 2:6, 2:6] = value
    saved = archive.save(study, values, author, origin="page")
    archive.store.add_opinion(key, author, "accepted", correction=saved.id)
    return values


def manifest_of(folder: Path, places: dict[str, tuple[str, int | None]]) -> Manifest:
    """A manifest of other images with cases of the given ids, groups and folds (None: test)."""
    sample = read_manifest(SAMPLE)
    donors = [*sample.training][-len(places) :]
    folder.mkdir()
    cases = []
    for donor, (name, (group, fold)) in zip(donors, places.items(), strict=True):
        image, label = folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz"
        shutil.copy(sample.image_paths(donor)[0], image)
        shutil.copy(sample.label_path(donor) or "", label)
        cases.append(Case(id=name, group=group, image=(image.name,), label=label.name, fold=fold))
    manifest = Manifest(
        name="set",
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(case for case in cases if case.fold is not None),
        test=tuple(case for case in cases if case.fold is None),
        root=folder,
    )
    return with_digests(manifest)


def test_new_patients_go_to_training_with_the_label_that_was_drawn(
    archive: ReviewArchive, tmp_path: Path
) -> None:
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 0), "c": ("c", 1)})
    found = add_corrections(manifest, archive)
    assert sorted(found.added.values()) == [
        "training, fold 0",
        "training, fold 1",
        "training, fold 1",
    ]
    path = write_manifest(found.manifest, tmp_path / "set" / "M.json")
    again = read_manifest(path)
    for study in archive.studies():
        case = again.case(f"{PREFIX}{study.entry.study}")
        image, label = again.read(case)
        (correction,) = archive.store.corrections(study.entry.key)
        np.testing.assert_array_equal(np.asarray(label)[0], archive.corrected(study, correction))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(archive.image(study)))
        assert case.correction is not None
        assert (case.correction.author, case.correction.origin) == ("Ada", "page")
        assert case.correction.model == study.entry.package
    repeated = add_corrections(again, archive)
    assert (repeated.added, repeated.updated, len(repeated.kept)) == ({}, (), 3)
    assert repeated.manifest == again


def test_later_correction_replaces_the_earlier_one_and_stays_in_its_fold(
    archive: ReviewArchive, tmp_path: Path
) -> None:
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 1)})
    first = add_corrections(manifest, archive).manifest
    key = archive.studies()[0].entry.key
    values = correct(archive, key, 2)
    found = add_corrections(first, archive)
    name = f"{PREFIX}{archive.study(key).entry.study}"
    assert (found.added, found.updated) == ({}, (name,))
    assert found.manifest.case(name).fold == first.case(name).fold
    np.testing.assert_array_equal(np.asarray(found.manifest.read(name)[1])[0], values)


def test_patient_of_a_test_or_a_fold_stays_there(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    sample = sorted(
        (Path(__file__).parents[3] / "data_manifests/hippocampus_sample/images").iterdir()
    )
    source.mkdir()
    for number, name in enumerate(("sub-01_ses-2", "sub-02_ses-2", "sub-09_ses-1", "sub-09_ses-2")):
        shutil.copy(sample[number], source / f"{name}.nii.gz")
    predictor = Predictor(hippocampus_package(), device="cpu", engine="torch")
    list(segment_archive(FolderSource(source), predictor=predictor, out_dir=out))
    archive = ReviewArchive(out)
    for study in archive.studies():
        correct(archive, study.entry.key, 1)
    places = {
        "sub-01_ses-1": ("sub-01", None),
        "sub-02_ses-1": ("sub-02", 1),
        "sub-03_ses-1": ("sub-03", 0),
    }
    found = add_corrections(manifest_of(tmp_path / "set", places), archive)
    by_name = {
        Path(study.inputs[0].place).name: found.manifest.case(f"{PREFIX}{study.entry.study}")
        for study in archive.studies()
    }
    test = {case.id for case in found.manifest.test}
    first, second = by_name["sub-01_ses-2.nii.gz"], by_name["sub-02_ses-2.nii.gz"]
    assert (first.group, first.fold, first.id in test) == ("sub-01", None, True)
    assert (second.group, second.fold, second.id in test) == ("sub-02", 1, False)
    one, other = by_name["sub-09_ses-1.nii.gz"], by_name["sub-09_ses-2.nii.gz"]
    assert one.group == other.group
    assert one.fold == other.fold
    read_manifest(write_manifest(found.manifest, tmp_path / "M.json"))  # refuses split groups


def test_dicom_patient_is_the_one_that_the_series_states(
    tmp_path: Path, write_dicom: Callable[..., list[Path]], predictor: Predictor
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_dicom(source / "one", 1, patient="ANNA")
    write_dicom(source / "two", 2, patient="ANNA")
    write_dicom(source / "three", 3, patient="BERTA")
    list(segment_archive(FolderSource(source), predictor=predictor, out_dir=out))
    archive = ReviewArchive(out)
    for study in archive.studies():
        correct(archive, study.entry.key, 1)
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 1)})
    manifest = manifest.model_copy(update={"labels": predictor.plan.labels})
    found = add_corrections(manifest, archive)
    corrected = [case for case in found.manifest.training if case.id.startswith(PREFIX)]
    groups = [case.group for case in corrected]
    assert sorted(groups.count(group) for group in set(groups)) == [1, 2]
    assert "ANNA" not in str(found.manifest)
    for case in corrected:
        assert found.manifest.read(case)[1] is not None


def test_what_does_not_fit_is_left_out_by_name(archive: ReviewArchive, tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 1)})
    studies = archive.studies()
    correct(archive, studies[0].entry.key, 2, "Bob")
    image = Path(studies[1].inputs[0].root) / studies[1].inputs[0].place
    shutil.copy(image, tmp_path / "set" / "a.nii.gz")
    found = add_corrections(with_digests(manifest), archive)
    assert len(found.added) == 1
    assert "disputed: Ada accepted correction" in found.left_out[studies[0].entry.study]
    assert "is case a of the manifest already" in found.left_out[studies[1].entry.study]
    labels = (LABELS[0].model_copy(update={"name": "head"}), *LABELS[1:])
    other = add_corrections(manifest.model_copy(update={"labels": labels}), archive)
    assert other.added == {}
    assert all(
        "the manifest has head" in why or "disputed" in why for why in other.left_out.values()
    )


@pytest.mark.parametrize("place", ["training", "test"])
@pytest.mark.parametrize("change", ["as it is", "turned", "scaled", "zipped otherwise"])
def test_series_that_was_converted_into_a_case_is_that_case(
    tmp_path: Path, write_dicom: Callable[..., list[Path]], predictor: Predictor,
    change: str, place: str
) -> None:  # fmt: skip
    write_dicom(tmp_path / "in" / "a", 1, patient="ANNA")
    write_dicom(tmp_path / "in" / "b", 2, patient="BERTA")
    out = tmp_path / "out"
    list(segment_archive(FolderSource(tmp_path / "in"), predictor=predictor, out_dir=out))
    archive = ReviewArchive(out)
    for study in archive.studies():
        correct(archive, study.entry.key, 1)
    study = archive.studies()[0]
    image = archive.image(study)
    voxels, affine = np.asarray(image)[0], np.asarray(image.affine)
    if change == "turned":
        voxels = np.flip(voxels.transpose(2, 0, 1), 1)
    elif change == "scaled":
        voxels = voxels.astype(np.float64) + 1e-4
    name = "z.nii" if change == "zipped otherwise" else "z.nii.gz"
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 1), "c": ("c", None)})
    nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels), affine), tmp_path / "set" / name)
    case = getattr(manifest, place)[0].model_copy(update={"image": (name,), "sha256": {}})
    manifest = manifest.model_copy(
        update={place: (case, *getattr(manifest, place)[1:]), "labels": predictor.plan.labels}
    )
    found = add_corrections(with_digests(manifest), archive)
    assert found.left_out == {
        study.entry.study: f"its image is case {case.id} of the manifest already, whose label stays"
    }
    assert len(found.added) == 1


FIRST, SECOND = (StoredLabel(name=one.name, value=one.value, becomes=one.value) for one in LABELS)


@pytest.mark.parametrize(
    "others",
    [
        (StoredLabel(name="cyst", value=3, becomes=1),),
        (StoredLabel(name="bone", value=7, becomes=0),),
        (StoredLabel(name="cyst", value=3, becomes=2), StoredLabel(name="x", value=4, becomes=0)),
    ],
    ids=["merges", "drops", "merges and drops"],
)
def test_manifest_that_merges_or_drops_other_values_takes_corrections(
    archive: ReviewArchive, tmp_path: Path, others: tuple[StoredLabel, ...]
) -> None:
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 1)})
    manifest = manifest.model_copy(update={"stored_labels": (FIRST, SECOND, *others)})
    found = add_corrections(with_digests(manifest), archive)
    assert len(found.added) == 3
    for study in archive.studies():
        case = found.manifest.case(f"{PREFIX}{study.entry.study}")
        (correction,) = archive.store.corrections(study.entry.key)
        label = found.manifest.read(case).label
        np.testing.assert_array_equal(np.asarray(label)[0], archive.corrected(study, correction))


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ((FIRST, StoredLabel(name="cyst", value=2, becomes=1)), "reads 2 .'cyst' in its files. as"),
        ((StoredLabel(name="bone", value=1, becomes=0), SECOND), "reads 1 .* as background"),
        ((StoredLabel(name="a", value=5, becomes=1), SECOND), "reads 1 as no structure"),
    ],
    ids=["merged", "dropped", "renumbered"],
)
def test_manifest_that_would_misread_a_correction_is_refused_with_the_value(
    archive: ReviewArchive, tmp_path: Path, stored: tuple[StoredLabel, ...], said: str
) -> None:
    manifest = manifest_of(tmp_path / "set", {"a": ("a", 0), "b": ("b", 1)})
    with pytest.raises(UsageError, match=said):
        add_corrections(manifest.model_copy(update={"stored_labels": stored}), archive)


def test_model_is_scored_by_the_corrections_of_its_results(
    archive: ReviewArchive, out: Path
) -> None:
    studies = archive.studies()
    archive.store.add_opinion(studies[0].entry.key, "Ada", "rejected")
    archive.store.add_opinion(studies[1].entry.key, "Ada", "accepted")
    (score,) = field_scores(archive)
    assert score.package == studies[0].entry.package
    assert (score.accepted, score.corrected, score.rejected) == (1, 1, 1)
    study = studies[2]
    (correction,) = archive.store.corrections(study.entry.key)
    result, right = archive.result(study), archive.corrected(study, correction)
    expected = [
        2 * ((result == label.value) & (right == label.value)).sum()
        / ((result == label.value).sum() + (right == label.value).sum())
        for label in LABELS
        if ((result == label.value) | (right == label.value)).any()
    ]  # fmt: skip
    assert score.dice == pytest.approx(np.mean(expected))
    write_field_scores(out, [score])
    assert read_field_score(out, score.package) == score
    assert read_field_score(out, "other") is None
