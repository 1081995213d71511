"""Reports beside the outputs of a run: written with them, sent with them, withdrawn with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.archive import FolderSource, RunOptions, retry_archive, segment_archive
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.reporting import ReportedDelivery, address_of_sr
from segmed.errors import ServiceError, UsageError
from segmed.findings.reports import sr_uids
from segmed.formats import ReportKind, SegForm
from segmed.inference import Predictor, predict_files

ALL = SegForm(reports=("sr", "hl7", "fhir"))
WriteDicom = Callable[..., list[Path]]


@dataclass
class Pacs:
    """A place that keeps what it is sent, and fails the first times."""

    failures: int = 0
    sent: list[str] = field(default_factory=list)

    def deliver(self, path: Path) -> str:
        if self.failures:
            self.failures -= 1
            raise ServiceError("busy")
        self.sent.append(pydicom.dcmread(path).Modality)
        return str(pydicom.dcmread(path).SOPInstanceUID)

    def has(self, address: str) -> bool:
        return bool(address)


@dataclass
class Receiver:
    """A receiver of messages that fails the first times."""

    kind: ReportKind
    failures: int = 0
    sent: list[str] = field(default_factory=list)

    def send(self, path: Path) -> None:
        if self.failures:
            self.failures -= 1
            raise ServiceError("busy")
        self.sent.append(path.name)


def run(folder: Path, out: Path, predictor: Predictor, delivery: object = None) -> list:
    options = RunOptions(seg=ALL, retry=RetryPolicy(attempts=2, first_wait_s=0.0))
    found = segment_archive(
        FolderSource(folder), predictor=predictor, out_dir=out, format="dicom-seg",
        delivery=delivery, options=options,
    )  # fmt: skip
    return list(found)


def test_reports_have_the_volumes_of_the_run(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    write_dicom(tmp_path / "series", 1)
    (outcome,) = run(tmp_path / "series", tmp_path / "out", predictor)
    assert outcome.status == "done"
    seg = tmp_path / "out" / str(outcome.output)
    stem = seg.name.removesuffix(".seg.dcm")
    beside = {path.name for path in seg.parent.iterdir() if path.is_file()}
    assert beside == {seg.name, f"{stem}.sr.dcm", f"{stem}.oru.hl7", f"{stem}.fhir.json"}
    message = (seg.parent / f"{stem}.oru.hl7").read_bytes().decode("utf-8")
    told = [line.split("|")[5] for line in message.split("\r") if line.startswith("OBX|")]
    table = (tmp_path / "out" / "volumes.csv").read_text(encoding="utf-8")
    assert float(told[0]) == pytest.approx(
        float(outcome_volume(table, predictor.plan.labels[0].name)), rel=1e-3
    )


def outcome_volume(table: str, name: str) -> str:
    """Volume of a structure in the table of a run of one study."""
    head, row = (line.split(",") for line in table.splitlines()[:2])
    return next(value for title, value in zip(head, row, strict=True) if name in title)


def test_pacs_gets_segmentation_and_report_and_each_receiver_its_message(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    write_dicom(tmp_path / "series", 1)
    pacs, hl7, fhir = Pacs(), Receiver("hl7", failures=1), Receiver("fhir")
    delivery = ReportedDelivery(pacs, senders=(hl7, fhir))
    (outcome,) = run(tmp_path / "series", tmp_path / "out", predictor, delivery)
    assert outcome.status == "done"
    # The first receiver failed once: all was sent again, and each place replaces what it has.
    assert pacs.sent == ["SEG", "SR", "SEG", "SR"]
    assert len(hl7.sent) == len(fhir.sent) == 1


def test_message_that_does_not_arrive_fails_the_study_and_the_next_run_sends_it(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    write_dicom(tmp_path / "series", 1)
    receiver = Receiver("hl7", failures=2)
    delivery = ReportedDelivery(None, senders=(receiver,))
    (outcome,) = run(tmp_path / "series", tmp_path / "out", predictor, delivery)
    assert outcome.status == "failed"
    retry_archive(tmp_path / "out")
    (again,) = run(tmp_path / "series", tmp_path / "out", predictor, delivery)
    assert again.status == "done"
    assert len(receiver.sent) == 1


def test_reports_leave_with_the_output_that_is_replaced(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    out = tmp_path / "out"
    (first,) = run(tmp_path / "series", out, predictor)
    dataset = pydicom.dcmread(files[0])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(files[0])
    (second,) = run(tmp_path / "series", out, predictor)
    assert (first.status, second.status, second.fresh) == ("done", "done", True)
    assert first.output != second.output
    left = {path.name.split(".")[0] for path in (out / "segmentations").iterdir() if path.is_file()}
    assert left == {Path(str(second.output)).name.split(".")[0]}


@dataclass
class ErasingPacs(Pacs):
    """A place that removes what it was sent."""

    erased: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    is_away: bool = False

    def deliver(self, path: Path) -> str:
        uid = super().deliver(path)
        self.kept[uid] = self.sent[-1]
        return uid

    def has(self, address: str) -> bool:
        return address in self.kept

    def withdraw(self, address: str) -> None:
        if self.is_away:
            raise ServiceError("away")
        self.erased.append(self.kept.pop(address, "nothing"))


def change(files: list[Path]) -> None:
    """Give the first slice other pixels."""
    dataset = pydicom.dcmread(files[0])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(files[0])


@pytest.mark.parametrize("sends_messages", [False, True])
def test_replaced_result_leaves_the_pacs_with_its_report(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom, sends_messages: bool
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    pacs, out = ErasingPacs(), tmp_path / "out"
    delivery = ReportedDelivery(pacs, senders=(Receiver("hl7"),)) if sends_messages else pacs
    run(tmp_path / "series", out, predictor, delivery)
    early = set(pacs.kept)
    change(files)
    (second,) = run(tmp_path / "series", out, predictor, delivery)
    assert pacs.erased == ["SR", "SEG"]
    assert sorted(pacs.kept.values()) == ["SEG", "SR"]
    assert not early & set(pacs.kept)
    assert any("is removed there" in note for note in second.notes)


def test_place_that_erases_nothing_keeps_both_and_the_note_says_so(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    out = tmp_path / "out"
    run(tmp_path / "series", out, predictor, Pacs())
    change(files)
    (second,) = run(tmp_path / "series", out, predictor, Pacs())
    assert any("remove it there" in note for note in second.notes)


def test_result_that_could_not_be_removed_is_removed_at_the_next_start(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    pacs, out = ErasingPacs(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, pacs)
    change(files)
    pacs.is_away = True
    (second,) = run(tmp_path / "series", out, predictor, pacs)
    assert any("remove it there" in note for note in second.notes)
    assert sorted(pacs.kept.values()) == ["SEG", "SEG", "SR", "SR"]
    pacs.is_away = False
    (second,) = run(tmp_path / "series", out, predictor, pacs)
    assert not second.fresh
    assert any("is removed there" in note for note in second.notes)
    assert sorted(pacs.kept.values()) == ["SEG", "SR"]


def test_result_that_was_sent_by_a_killed_process_and_not_booked_is_removed(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    pacs, out = ErasingPacs(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, pacs)
    with sqlite3.connect(out / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE studies SET state = 'running', delivered = NULL")
    change(files)
    run(tmp_path / "series", out, predictor, pacs)
    assert pacs.erased == ["SR", "SEG"]
    assert sorted(pacs.kept.values()) == ["SEG", "SR"]


def test_report_that_the_pacs_lost_is_sent_again(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    write_dicom(tmp_path / "series", 1)
    pacs, out = ErasingPacs(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, pacs)
    (lost,) = [uid for uid, modality in pacs.kept.items() if modality == "SR"]
    del pacs.kept[lost]
    (again,) = run(tmp_path / "series", out, predictor, pacs)
    assert again.status == "done"
    assert pacs.kept[lost] == "SR"


@pytest.mark.parametrize(("address", "is_of_three"), [("1.2.3", False), ("1.2/1.2.5/1.2.3", True)])
def test_report_has_the_form_of_address_of_its_segmentation(
    address: str, is_of_three: bool
) -> None:
    series, instance = sr_uids("1.2.3")
    assert address_of_sr(address) == (f"1.2/{series}/{instance}" if is_of_three else instance)


def test_prediction_of_files_writes_the_same_reports(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    write_dicom(tmp_path / "series", 1)
    (outcome,) = predict_files(predictor, [tmp_path / "series"], tmp_path / "out", ALL)
    assert outcome.output is not None
    ends = {path.name.partition(".")[2] for path in (tmp_path / "out").iterdir()}
    assert ends >= {"fhir.json", "oru.hl7", "seg.dcm", "sr.dcm"}
    again = list(predict_files(predictor, [tmp_path / "out"], tmp_path / "twice"))
    assert all(one.status == "refused" for one in again)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--report", "sr"), "--report sr refers to a DICOM segmentation: it needs --format"),
        (("--format", "dicom-seg", "--report", "pdf"), "known are fhir, hl7, sr"),
        (("--format", "dicom-seg", "--send-report", "ftp://x"), "known are fhir, fhirs, mllp"),
        (("--send-report", "mllp://x"), "--report hl7 refers to a DICOM segmentation"),
    ],
)
def test_reports_that_cannot_be_written_are_refused_at_once(
    tmp_path: Path, package_folder: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "scans").mkdir()
    start = ["archive", "segment", str(tmp_path / "scans"), "--model", str(package_folder)]
    ended = CliRunner().invoke(app, [*start, "-o", str(tmp_path / "out"), *words])
    assert ended.exit_code != 0
    assert said in f"{ended.output} {ended.exception}"
    assert isinstance(ended.exception, SystemExit | UsageError)
