"""Drift withdraws intervals of SR that a real PACS has already: the reports there are replaced."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import torch
from monai.data import MetaTensor

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for rated_model.py

from orthanc_server import PASSWORD, USER, Orthanc
from rated_model import DRIFTED, KNOWN, SOUND, rated_package, write_study

from segmed.archive import FolderSource, RetryPolicy, RunOptions, segment_archive
from segmed.archive.pacs.address import delivery_at
from segmed.archive.quality_bound import read_bound
from segmed.findings.withdrawal import MARK
from segmed.formats import SegForm
from segmed.inference import Predictor
from segmed.io import read_image

pytestmark = pytest.mark.integration

STUDIES = 8


@pytest.fixture(scope="module")
def volume_of(shared_data: Callable[[str], Path]) -> Callable[[int], MetaTensor]:
    paths = sorted((shared_data("hippocampus") / "imagesTr").glob("*.nii.gz"))
    return lambda seed: read_image(paths[seed])


@pytest.fixture(scope="module")
def predictor(volume_of: Callable[[int], MetaTensor]) -> Predictor:
    torch.set_num_threads(1)
    return Predictor(rated_package(volume_of), device="cpu", engine="torch")


def reports_in(orthanc: Orthanc) -> dict[str, bytes]:
    """The SR in the PACS by their identifiers, as it sends them."""
    query = {"Level": "Instance", "Query": {"Modality": "SR"}}
    names = orthanc.rest("POST", "/tools/find", json=query).json()
    files = [orthanc.rest("GET", f"/instances/{name}/file").content for name in names]
    return {str(pydicom.dcmread(io.BytesIO(one)).SOPInstanceUID): one for one in files}


def predecessors_of(reports: dict[str, bytes]) -> set[str]:
    """Identifiers of the SR that others name as their predecessor."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for content in reports.values()
        for study in pydicom.dcmread(io.BytesIO(content)).get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


@pytest.mark.parametrize("kind", ["orthanc", "dicomweb", "dimse"])
def test_reports_whose_intervals_drift_withdraws_are_replaced_in_the_pacs(
    orthanc: Orthanc,
    predictor: Predictor,
    volume_of: Callable[[int], MetaTensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("SEGMED_DICOMWEB_PASSWORD", PASSWORD)
    address = {
        "orthanc": f"orthanc://{USER}@127.0.0.1:{orthanc.http_port}",
        "dicomweb": f"dicomweb://{USER}@127.0.0.1:{orthanc.http_port}/dicom-web",
        "dimse": f"dimse://SEGMEDPACS@127.0.0.1:{orthanc.dicom_port}?calling=SEGMED",
    }[kind]
    studies, out = tmp_path / "in", tmp_path / "out"

    def run() -> None:
        outcomes = segment_archive(
            FolderSource(studies),
            predictor=predictor,
            out_dir=out,
            format="dicom-seg",
            delivery=delivery_at(address),
            options=RunOptions(
                seg=SegForm(reports=("sr",)), retry=RetryPolicy(attempts=4, first_wait_s=0.2)
            ),
        )
        assert {(one.status, one.reason) for one in outcomes} == {("done", "")}

    for seed in range(KNOWN, KNOWN + STUDIES):
        write_study(studies / str(seed), volume_of, seed, SOUND)
    run()
    assert read_bound(out).withdrawn == ()
    sound = reports_in(orthanc)
    assert len(sound) == STUDIES
    assert all(MARK in content for content in sound.values())

    for seed in range(KNOWN + STUDIES, KNOWN + 2 * STUDIES):
        write_study(studies / str(seed), volume_of, seed, DRIFTED)
    run()
    assert "intensity:0:median" in read_bound(out).withdrawn
    found = reports_in(orthanc)
    replaced = predecessors_of(found)
    valid = {uid: content for uid, content in found.items() if uid not in replaced}
    assert len(valid) == 2 * STUDIES, "one report in force for each study"
    stating = {uid for uid, content in valid.items() if MARK in content}
    assert stating == set(sound), "those of the sound run state intervals as before, no other does"
    assert len(replaced) == (0 if kind == "orthanc" else STUDIES)
    for path in (out / "segmentations").glob("*.sr.dcm"):
        uid = str(pydicom.dcmread(path).SOPInstanceUID)
        assert valid[uid].count(MARK) == path.read_bytes().count(MARK)
