"""Corrections stored in a real PACS: segment, store, correct, and back into the training set."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).parents[1] / name) for name in ("archive", "archive/review")]

from corrected_segs import write_dcmqi_seg, write_seg
from orthanc_server import PASSWORD, USER, Orthanc
from tiny_model import tiny_package

from segmed.archive import FolderSource, segment_archive
from segmed.archive.pacs.address import PASSWORD_VARIABLE, source_at
from segmed.archive.pacs.remote import Query
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.cases import add_corrections
from segmed.archive.review.from_pacs import take_corrections
from segmed.inference import Predictor
from segmed.io import read_image
from segmed.io.dicom.write import Identity, write_series
from segmed.manifest import read_manifest
from segmed.structures import LabelClass

pytestmark = pytest.mark.integration

KINDS = ("BINARY", "FRACTIONAL", "LABELMAP", "binary", "labelmap")
"""Forms by highdicom, in capitals, and by dcmqi."""


@pytest.fixture
def series(tmp_path: Path, sample_manifest_path: Path) -> Path:
    """Five real images as the series of five patients."""
    manifest = read_manifest(sample_manifest_path)
    folder = tmp_path / "series"
    for number, case in enumerate(manifest.test[: len(KINDS)]):
        image = read_image(manifest.image_paths(case)[0])
        identity = Identity(patient_id=f"P{number}", description="T1")
        write_series(folder / str(number), image, identity=identity)
    return folder


def write_corrected(
    path: Path, folder: Path, values: np.ndarray, labels: Sequence[LabelClass], kind: str
) -> None:
    """Write a corrected segmentation of a series in one form."""
    if kind.isupper():
        write_seg(path, sorted(folder.rglob("*.dcm")), values, labels, kind)
    else:
        write_dcmqi_seg(path, folder, values, labels, kind)


@pytest.mark.parametrize("protocol", ["dicomweb", "C-MOVE", "C-GET"])
def test_corrected_objects_of_a_pacs_are_all_linked_and_become_cases(
    orthanc: Orthanc,
    series: Path,
    tmp_path: Path,
    sample_manifest_path: Path,
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    addresses = {
        "dicomweb": f"dicomweb://{USER}@127.0.0.1:{orthanc.http_port}/dicom-web",
        "C-GET": f"dimse://SEGMEDPACS@127.0.0.1:{orthanc.dicom_port}",
        "C-MOVE": f"dimse://SEGMEDPACS@127.0.0.1:{orthanc.dicom_port}?move={orthanc.scp_port}",
    }
    orthanc.upload(series)
    source = source_at(addresses[protocol], query=Query(modalities=("MR",)))
    predictor = Predictor(tiny_package(patch=32, edge_mm=4.0), device="cpu", engine="torch")
    out = tmp_path / "out"
    run = segment_archive(source, predictor=predictor, out_dir=out, format="dicom-seg")
    assert [outcome.status for outcome in run] == ["done"] * len(KINDS)
    orthanc.upload(out / "segmentations")
    archive, stored = ReviewArchive(out), tmp_path / "stored"
    stored.mkdir()
    labels = archive.structures(archive.studies()[0].entry).labels
    expected = {}
    for number, folder in enumerate(sorted(series.iterdir())):
        local = tmp_path / f"local{number}"
        (outcome,) = segment_archive(FolderSource(folder), predictor=predictor, out_dir=local)
        shape = ReviewArchive(local).result(ReviewArchive(local).study(outcome.key)).shape
        values = np.random.default_rng(number).integers(0, 3, size=shape).astype(np.int32)
        kind = KINDS[number]
        write_corrected(stored / f"{number}.dcm", folder, values, labels, kind)
        uid = read_image(folder).meta["source"].series_uid
        expected[uid] = values
    orthanc.upload(stored)
    shutil.rmtree(series)
    found = take_corrections(archive, source)
    # Orthanc sends no label maps (PS3.3, A.51.2) by C-GET: it does not know their class.
    unsent = list(found.refused.values())
    assert len(unsent) == (2 if protocol == "C-GET" else 0)
    assert all("?move=PORT" in why for why in unsent)
    assert sum(map(len, found.linked.values())) == len(KINDS) - len(unsent)
    assert found.own == len(KINDS)
    taken = [study for study in archive.studies() if study.entry.study in found.linked]
    for study in taken:
        (correction,) = archive.store.corrections(study.entry.key)
        saved = archive.corrected(study, correction)
        np.testing.assert_array_equal(saved, expected[study.inputs[0].uids[1]])
    # The series were made from test cases, which would be recognised.
    manifest = read_manifest(sample_manifest_path).model_copy(update={"labels": labels, "test": ()})
    added = add_corrections(manifest, archive)
    assert len(added.added) == len(taken)
    assert added.left_out == {}
