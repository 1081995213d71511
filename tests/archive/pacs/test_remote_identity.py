"""Studies of a PACS are known by patient, study, series and instances, never by UIDs alone."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segmed.archive import FolderSource, Study
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource
from segmed.archive.pacs.remote import RemoteSeries, local_study, remote_studies
from segmed.errors import ServiceError
from segmed.io.dicom.write import Identity, write_series
from segmed.metatensor import MetaTensor
from segmed.package.series_rules import ChannelRule, Rules

BRAIN = RemoteSeries("1", "1.1", "MR", instances=("1.1.1", "1.1.2"), patient_id="P1")
RULES = Rules(channels=(ChannelRule(name="t1"),))


def study_of(*series: RemoteSeries, rules: Rules | None = None) -> Study:
    [study] = remote_studies(series, rules, 1)
    return study


@pytest.mark.parametrize(
    "other",
    [
        replace(BRAIN, patient_id="P2"),
        replace(BRAIN, study_uid="2"),
        replace(BRAIN, series_uid="1.2"),
        replace(BRAIN, instances=("1.1.1", "1.1.3")),
        replace(BRAIN, instances=("1.1.1", "1.1.2", "1.1.3")),
    ],
    ids=["patient", "study", "series", "instance", "more"],
)
def test_each_part_of_the_identity_changes_the_content(other: RemoteSeries) -> None:
    assert study_of(other).content != study_of(BRAIN).content


def test_order_of_the_answers_changes_nothing() -> None:
    turned = replace(BRAIN, instances=BRAIN.instances[::-1])
    assert study_of(turned).content == study_of(BRAIN).content


def test_identity_stays_while_a_series_grows_and_not_beyond() -> None:
    grown = replace(BRAIN, instances=(*BRAIN.instances, "1.1.3"))
    assert study_of(grown).identity == study_of(BRAIN).identity
    second = replace(BRAIN, series_uid="1.2")
    assert study_of(second).identity != study_of(BRAIN).identity
    both = study_of(BRAIN, second, rules=RULES)
    assert both.identity == study_of(BRAIN, rules=RULES).identity


def test_series_of_two_patients_are_never_one_unit_for_the_rules() -> None:
    other = replace(BRAIN, series_uid="1.2", patient_id="P2")
    units = list(remote_studies([BRAIN, other], RULES, 1))
    assert [unit.remote["series"] for unit in units] == [["1.1"], ["1.2"]]
    assert len({unit.identity for unit in units}) == 2


def test_study_in_a_folder_and_in_a_pacs_has_one_identity(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(tmp_path / "archive/s", 1, patient="P1")
    [local] = FolderSource(tmp_path / "archive").studies()
    assert isinstance(local, Study)
    audit = local.audits[0]
    remote = replace(BRAIN, study_uid=audit.study_uid, series_uid=audit.series_uid)
    assert study_of(remote).identity == local.identity


def fetched(folder: Path, series: list[str], rules: Rules | None = None) -> Study:
    count = sum(1 for path in folder.rglob("*.dcm"))
    listed = Study("c" * 64, "dicom", "series", remote={"series": series, "instances": count})
    return local_study(listed, folder, rules, 1)


def test_what_was_not_asked_for_is_not_taken(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(tmp_path / "spool/0", 1)
    with pytest.raises(ServiceError, match="not requested"):
        fetched(tmp_path / "spool", ["1.2.3"])


def test_two_patients_in_one_study_are_refused_by_name(
    tmp_path: Path, make_volume: Callable[..., MetaTensor]
) -> None:
    for number, patient in enumerate(("P1", "P2")):
        volume = make_volume(number)
        write_series(tmp_path / f"spool/{number}", volume, identity=Identity(patient_id=patient))
    [first, second] = [
        study.audits[0].series_uid
        for study in FolderSource(tmp_path / "spool").studies()
        if isinstance(study, Study)
    ]
    study = fetched(tmp_path / "spool", [first, second], RULES)
    assert study.fault is not None
    assert study.fault.reason == "mixed_patient"


def attribute(vr: str, value: str) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


class Qido(http.server.BaseHTTPRequestHandler):
    """Two patients with equal study, series and instance UIDs; series name no patient."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        study = {"0020000D": attribute("UI", "1.2")}
        answers: list[dict[str, object]] = [
            {**study, "00100020": attribute("LO", patient)} for patient in ("P1", "P2")
        ]
        if path[-1] == "series":
            answers = [
                {**study, "0020000E": attribute("UI", "1.2.3"), "00080060": attribute("CS", "MR")}
            ]
        elif path[-1] == "instances":
            answers = [{"00080018": attribute("UI", f"1.2.3.{number}")} for number in range(3)]
        body = json.dumps(answers).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Silence."""


@pytest.fixture
def address() -> Iterator[str]:
    """A DICOMweb service that answers queries."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Qido)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_patients_of_equal_uids_are_two_studies(address: str) -> None:
    studies = [
        study for study in DicomWebSource(DicomWeb(address)).studies() if isinstance(study, Study)
    ]
    assert len({study.content for study in studies}) == 2
    assert len({study.identity for study in studies}) == 2
    assert len({study.place for study in studies}) == 2
    assert len({study.older_content for study in studies}) == 1
