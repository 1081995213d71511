"""A real PACS by C-FIND, C-GET and C-STORE."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from orthanc_server import Orthanc
from tiny_model import tiny_package

from segmed.archive import Choices, Patience, StudyOutcome, segment_archive
from segmed.archive.dimse import Dimse, DimseSource, StoreDelivery, find
from segmed.archive.remote import Query
from segmed.errors import ServiceError
from segmed.inference import Predictor

pytestmark = pytest.mark.integration

ONCE = Patience(attempts=1)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path / "orthanc")
    server.start()
    yield server
    server.stop()


def node_of(orthanc: Orthanc, *, called: str = "SEGMEDPACS", calling: str = "SEGMED") -> Dimse:
    return Dimse("127.0.0.1", orthanc.dicom_port, called, calling, ONCE)


def test_studies_come_by_c_get_and_results_return_by_c_store(
    tmp_path: Path, orthanc: Orthanc, shared_data: Callable[[str], Path]
) -> None:
    orthanc.upload(shared_data("hippocampus_dicom"))
    torch.set_num_threads(1)
    predictor = Predictor(tiny_package(patch=32, edge_mm=4.0), device="cpu", engine="torch")
    node = node_of(orthanc)

    def run() -> list[StudyOutcome]:
        return list(
            segment_archive(
                DimseSource(node, Query(modalities=("MR",))),
                predictor=predictor,
                out_dir=tmp_path / "out",
                format="dicom-seg",
                delivery=StoreDelivery(node),
                choices=Choices(patience=ONCE),
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
