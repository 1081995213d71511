"""Corrections from a PACS: every form is linked to its study, what does not fit is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from corrected_segs import FilePacs, write_dcmqi_seg, write_seg

from segmed.archive import FolderSource, segment_archive
from segmed.archive.pacs.remote import content_of_series
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.cases import add_corrections
from segmed.archive.review.from_pacs import take_corrections
from segmed.archive.review.judgement import judge_study
from segmed.inference import Predictor

KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")


@pytest.fixture
def pacs(tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> FilePacs:
    """A PACS with a series of each of three patients."""
    for seed, patient in enumerate(("ANNA", "BERTA", "CLARA"), start=1):
        write_dicom(tmp_path / "pacs" / patient, seed, patient=patient)
    return FilePacs(tmp_path / "pacs")


@pytest.fixture
def archive(tmp_path: Path, pacs: FilePacs, predictor: Predictor) -> ReviewArchive:
    """Its images, segmented as DICOM objects that were stored in it."""
    out = tmp_path / "out"
    source = FolderSource(pacs.service)
    list(segment_archive(source, predictor=predictor, out_dir=out, format="dicom-seg"))
    for number, path in enumerate(sorted((out / "segmentations").glob("*.dcm"))):
        shutil.copy(path, pacs.service / f"ours{number}.dcm")
    return ReviewArchive(out)


def series_of(pacs: FilePacs, uid: str) -> list[Path]:
    """Files of a series."""
    heads = ((path, pydicom.dcmread(path)) for path in sorted(pacs.service.rglob("*.dcm")))
    return [path for path, head in heads if uid == head.SeriesInstanceUID]


def corrected(archive: ReviewArchive, seed: int) -> np.ndarray:
    """Any label map of two structures."""
    shape = archive.result(archive.studies()[0]).shape
    return np.random.default_rng(seed).integers(0, 3, size=shape).astype(np.int32)


@pytest.mark.parametrize("from_folder", [True, False])
def test_every_form_is_linked_to_its_study_and_accepted_in_the_name_of_its_reader(
    archive: ReviewArchive, pacs: FilePacs, from_folder: bool
) -> None:
    labels = archive.structures(archive.studies()[0].entry).labels
    expected = {}
    for seed, (study, kind) in enumerate(zip(archive.studies(), KINDS, strict=True)):
        values = corrected(archive, seed)
        files = series_of(pacs, study.inputs[0].uids[1])
        write_seg(pacs.service / f"{kind}.dcm", files, values, labels, kind)
        expected[study.entry.study] = values
    if not from_folder:
        as_from_pacs(archive, pacs)
        archive = ReviewArchive(archive.out_dir)
    found = take_corrections(archive, pacs)
    assert {study: len(ids) for study, ids in found.linked.items()} == dict.fromkeys(expected, 1)
    assert (found.refused, found.own, found.others, found.known) == ({}, 3, 0, 0)
    for study in archive.studies():
        (correction,) = archive.store.corrections(study.entry.key)
        assert (correction.author, correction.origin) == ("Lovelace Ada", "pacs")
        saved = archive.corrected(study, correction)
        np.testing.assert_array_equal(saved, expected[study.entry.study])
        judged = judge_study(archive.store.opinions(study.entry.key))
        assert (judged.state, judged.correction) == ("accepted", correction.id)
    again = take_corrections(archive, pacs)
    assert (again.linked, again.known) == ({}, 3)
    assert len(archive.store.corrections()) == 3


@pytest.mark.parametrize("kinds", [("binary", "labelmap", "binary")])
def test_objects_that_dcmqi_wrote_are_linked_voxel_for_voxel(
    archive: ReviewArchive, pacs: FilePacs, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    labels = archive.structures(archive.studies()[0].entry).labels
    expected = {}
    for seed, (study, kind) in enumerate(zip(archive.studies(), kinds, strict=True)):
        values = corrected(archive, seed)
        if seed == 2:
            values[values == 2] = 0  # a reader who deleted a structure
            values[:, :, 3:] = 0
        series = tmp_path / f"series{seed}"
        series.mkdir()
        for path in series_of(pacs, study.inputs[0].uids[1]):
            shutil.copy(path, series / path.name)
        write_dcmqi_seg(pacs.service / f"dcmqi{seed}.dcm", series, values, labels, kind)
        expected[study.entry.study] = values
    found = take_corrections(archive, pacs)
    assert (found.refused, found.others) == ({}, 0)
    assert {study: len(ids) for study, ids in found.linked.items()} == dict.fromkeys(expected, 1)
    for study in archive.studies():
        (correction,) = archive.store.corrections(study.entry.key)
        assert correction.author == "Lovelace Ada"
        saved = archive.corrected(study, correction)
        np.testing.assert_array_equal(saved, expected[study.entry.study])


def as_from_pacs(archive: ReviewArchive, pacs: FilePacs) -> None:
    """Turn the ledger into that of a run over the PACS: no paths, contents by identifiers."""
    with sqlite3.connect(archive.out_dir / "ledger.sqlite") as connection:
        for study in archive.studies():
            uids = study.inputs[0].uids
            heads = [pydicom.dcmread(path) for path in series_of(pacs, uids[1])]
            content = content_of_series(
                heads[0].PatientID, uids[0], uids[1:], [str(h.SOPInstanceUID) for h in heads]
            )
            connection.execute(
                "UPDATE studies SET content = ? WHERE key = ?", (content, study.entry.key)
            )
            connection.execute(
                "UPDATE inputs SET root = '', place = ? WHERE key = ?",
                (f"series {uids[1]} of patient x", study.entry.key),
            )
    connection.close()


def test_images_of_another_state_in_the_pacs_are_refused(
    archive: ReviewArchive, pacs: FilePacs
) -> None:
    study = archive.studies()[0]
    labels = archive.structures(study.entry).labels
    files = series_of(pacs, study.inputs[0].uids[1])
    write_seg(pacs.service / "seg.dcm", files, corrected(archive, 1), labels, "BINARY")
    as_from_pacs(archive, pacs)
    files[-1].unlink()
    found = take_corrections(ReviewArchive(archive.out_dir), pacs)
    ((_, why),) = found.refused.items()
    assert "has changed since it was segmented" in why
    assert found.linked == {}


def test_what_does_not_fit_is_refused_by_name_and_the_rest_is_taken(
    archive: ReviewArchive, pacs: FilePacs, write_dicom: Callable[..., list[Path]]
) -> None:
    first, second, third = archive.studies()
    labels = archive.structures(first.entry).labels
    values = corrected(archive, 1)
    files = series_of(pacs, first.inputs[0].uids[1])
    write_seg(pacs.service / "x.dcm", files, values, labels, "BINARY", names=["tumour", "cyst"])
    other = series_of(pacs, second.inputs[0].uids[1])
    good = write_seg(pacs.service / "y.dcm", other, values, labels, "LABELMAP", reader="")
    strange = pydicom.dcmread(good)
    strange.SOPInstanceUID = strange.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    strange.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4"
    strange.save_as(pacs.service / "z.dcm")
    found = take_corrections(archive, pacs)
    ((_, why),) = found.refused.items()
    assert f"study {first.entry.study}" in why
    assert "tumour" in why or "cyst" in why
    assert list(found.linked) == [second.entry.study]
    assert found.others == 1
    assert archive.store.corrections(second.entry.key)[0].author == "PACS"
    assert archive.store.corrections(third.entry.key) == []


def test_two_readers_who_differ_leave_a_dispute(archive: ReviewArchive, pacs: FilePacs) -> None:
    study = archive.studies()[0]
    labels = archive.structures(study.entry).labels
    files = series_of(pacs, study.inputs[0].uids[1])
    for seed, reader in enumerate(("Ada^A", "Bob^B")):
        values = corrected(archive, seed)
        write_seg(pacs.service / f"{reader}.dcm", files, values, labels, "BINARY", reader=reader)
    take_corrections(archive, pacs)
    assert judge_study(archive.store.opinions(study.entry.key)).state == "disputed"


def test_corrections_of_a_pacs_become_cases_of_their_patients(
    archive: ReviewArchive, pacs: FilePacs, tmp_path: Path, sample_manifest_path: Path
) -> None:
    from segmed.manifest import read_manifest  # noqa: PLC0415 - this test alone

    labels = archive.structures(archive.studies()[0].entry).labels
    for seed, study in enumerate(archive.studies()):
        files = series_of(pacs, study.inputs[0].uids[1])
        write_seg(pacs.service / f"{seed}.dcm", files, corrected(archive, seed), labels, "BINARY")
    as_from_pacs(archive, pacs)
    archive = ReviewArchive(archive.out_dir)
    take_corrections(archive, pacs)
    manifest = read_manifest(sample_manifest_path).model_copy(update={"labels": labels})
    found = add_corrections(manifest, archive)
    assert len(found.added) == 3
    assert found.left_out == {}
    cases = [found.manifest.case(name) for name in found.added]
    assert len({case.group for case in cases}) == 3
    for case in cases:
        image, label = found.manifest.read(case)
        assert label is not None
        assert image.shape == label.shape


def test_series_that_the_pacs_does_not_send_is_named_and_the_rest_is_taken(
    archive: ReviewArchive, pacs: FilePacs
) -> None:
    first, second, _ = archive.studies()
    labels = archive.structures(first.entry).labels
    for number, study in enumerate((first, second)):
        files = series_of(pacs, study.inputs[0].uids[1])
        values = corrected(archive, number)
        write_seg(pacs.service / f"{number}.dcm", files, values, labels, "BINARY")
    lost = str(pydicom.dcmread(pacs.service / "0.dcm").SeriesInstanceUID)
    pacs.lost.add(lost)
    found = take_corrections(archive, pacs)
    assert found.refused == {lost: "cannot be fetched: the DICOM node did not send a series"}
    assert list(found.linked) == [second.entry.study]
