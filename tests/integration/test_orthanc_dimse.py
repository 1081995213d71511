"""A real PACS by C-FIND, C-GET and C-STORE."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from orthanc_server import Orthanc
from tiny_model import tiny_package

from segmed.archive import RetryPolicy, RunOptions, StudyOutcome, segment_archive
from segmed.archive.pacs.dimse import Dimse, DimseSource, StoreDelivery, find
from segmed.archive.pacs.remote import Query
from segmed.errors import ServiceError
from segmed.inference import Predictor

pytestmark = pytest.mark.integration

ONCE = RetryPolicy(attempts=1)


def node_of(
    orthanc: Orthanc, *, called: str = "SEGMEDPACS", calling: str = "SEGMED", is_moved: bool = False
) -> Dimse:
    listen = ("127.0.0.1", orthanc.scp_port) if is_moved else None
    return Dimse("127.0.0.1", orthanc.dicom_port, called, calling, ONCE, listen)


@pytest.mark.parametrize("is_moved", [False, True], ids=["C-GET", "C-MOVE"])
def test_studies_are_fetched_and_results_return_by_c_store(
    tmp_path: Path, orthanc: Orthanc, shared_data: Callable[[str], Path], is_moved: bool
) -> None:
    orthanc.upload(shared_data("hippocampus_dicom"))
    torch.set_num_threads(1)
    predictor = Predictor(tiny_package(patch=32, edge_mm=4.0), device="cpu", engine="torch")
    node = node_of(orthanc, is_moved=is_moved)

    def run() -> list[StudyOutcome]:
        return list(
            segment_archive(
                DimseSource(node, Query(modalities=("MR",))),
                predictor=predictor,
                out_dir=tmp_path / "out",
                format="dicom-seg",
                delivery=StoreDelivery(node),
                options=RunOptions(retry=ONCE),
            )
        )

    assert [(o.status, o.fresh) for o in run()] == [("done", True)] * 3
    studies = find(node, "STUDY", StudyInstanceUID="", ModalitiesInStudy="")
    assert len(studies) == 3
    for study in studies:
        assert sorted(study.ModalitiesInStudy) == ["MR", "SEG"]
    assert not any(outcome.fresh for outcome in run())
    [victim] = find(
        node, "SERIES", StudyInstanceUID=studies[0].StudyInstanceUID, SeriesInstanceUID="",
        Modality="SEG",
    )  # fmt: skip
    [found] = orthanc.rest("POST", "/tools/lookup", data=victim.SeriesInstanceUID).json()
    orthanc.rest("DELETE", f"/series/{found['ID']}")
    assert [outcome.fresh for outcome in run()].count(True) == 1


def test_c_get_and_c_move_bring_the_same_bytes(
    tmp_path: Path, orthanc: Orthanc, shared_data: Callable[[str], Path]
) -> None:
    orthanc.upload(shared_data("hippocampus_dicom") / "study1")
    found = []
    for is_moved in (False, True):
        source = DimseSource(node_of(orthanc, is_moved=is_moved))
        [study] = source.studies()
        folder = tmp_path / str(is_moved)
        here = source.fetch(study, folder)
        again = source.fetch(study, folder)  # what is there already does not count twice
        assert here == again
        found.append({path.name: path.read_bytes() for path in here.files})
    assert len(found[0]) == 32
    assert found[0] == found[1]


def test_c_move_to_a_port_that_is_taken_says_so(
    tmp_path: Path, orthanc: Orthanc, shared_data: Callable[[str], Path]
) -> None:
    orthanc.upload(shared_data("hippocampus_dicom") / "study1")
    source = DimseSource(node_of(orthanc, is_moved=True))
    [study] = source.studies()
    with socket.socket() as other:
        other.bind(("127.0.0.1", orthanc.scp_port))
        other.listen()
        with pytest.raises(ServiceError, match=f"port {orthanc.scp_port} cannot be listened at"):
            source.fetch(study, tmp_path)


@pytest.mark.parametrize(
    ("names", "told"),
    [({"calling": "STRANGER"}, "AE title is not known"), ({"called": "OTHER"}, "refuses our AE")],
)
def test_unknown_titles_are_errors_and_not_empty_archives(
    orthanc: Orthanc, names: dict[str, str], told: str
) -> None:
    source = DimseSource(node_of(orthanc, **names))
    with pytest.raises(ServiceError, match=told):
        list(source.studies())
