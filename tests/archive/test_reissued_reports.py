"""HL7 and FHIR of a replaced result: corrected at the receivers, or voided."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree

import pydicom
import pytest
from tiny_model import tiny_package

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.reporting import ReportedDelivery
from segmed.archive.reissued_reports import VOIDED
from segmed.errors import ServiceError
from segmed.formats import ReportKind, SegForm
from segmed.inference import Predictor

WriteDicom = Callable[..., list[Path]]


@dataclass
class Receiver:
    """Keeps what it is sent, in order; away as long as requested."""

    kind: ReportKind
    sent: list[bytes] = field(default_factory=list)
    is_away: bool = False

    def send(self, path: Path) -> None:
        if self.is_away:
            raise ServiceError("away")
        self.sent.append(path.read_bytes())


@dataclass
class Hospital:
    """A receiver of each kind, and their records as they would keep them."""

    hl7: Receiver = field(default_factory=lambda: Receiver("hl7"))
    fhir: Receiver = field(default_factory=lambda: Receiver("fhir"))

    @property
    def delivery(self) -> ReportedDelivery:
        return ReportedDelivery(None, senders=(self.hl7, self.fhir))

    @property
    def observations(self) -> dict[str, dict]:
        """Observations of the FHIR server: the last of each identifier."""
        return {
            entry["resource"]["id"]: entry["resource"]
            for content in self.fhir.sent
            for entry in json.loads(content)["entry"]
        }

    @property
    def results(self) -> dict[str, dict[tuple[str, str], tuple[str, str]]]:
        """Value and state of each HL7 observation, by filler number; messages known are dropped."""
        found: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
        known = set()
        for content in self.hl7.sent:
            lines = [line.split("|") for line in content.decode("utf-8").split("\r")]
            if lines[0][9] in known:
                continue
            known.add(lines[0][9])
            (request,) = [fields for fields in lines if fields[0] == "OBR"]
            for fields in lines:
                if fields[0] == "OBX":
                    of_filler = found.setdefault(request[3], {})
                    of_filler[fields[3], fields[4]] = (fields[5], fields[11])
        return found

    @property
    def states(self) -> tuple[set[str], set[str]]:
        """States of all HL7 observations and FHIR observations."""
        ours = {state for one in self.results.values() for _, state in one.values()}
        return ours, {one["status"] for one in self.observations.values()}


def run(
    folder: Path, out: Path, predictor: Predictor, hospital: Hospital | None = None, **options: bool
) -> list:
    found = segment_archive(
        FolderSource(folder), predictor=predictor, out_dir=out, format="dicom-seg",
        delivery=None if hospital is None else hospital.delivery,
        options=RunOptions(
            seg=SegForm(reports=("hl7", "fhir")), retry=RetryPolicy(attempts=1), **options
        ),
    )  # fmt: skip
    return list(found)


def change(files: list[Path], value: int) -> None:
    """Give the first slice other pixels."""
    dataset = pydicom.dcmread(files[0])
    size = len(dataset.PixelData)
    dataset.PixelData = value.to_bytes(2, "little") * (size // 2)
    dataset.save_as(files[0])


def values(out: Path) -> set[float]:
    """Volumes in the bundles of an output folder."""
    return {
        entry["resource"]["valueQuantity"]["value"]
        for path in (out / "segmentations").glob("*.fhir.json")
        for entry in json.loads(path.read_text(encoding="utf-8"))["entry"]
    }


def test_grown_study_corrects_its_first_report_each_time(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    hospital, out = Hospital(), tmp_path / "out"
    for number in range(3):
        if number:
            change(files, 300 * number)
        (outcome,) = run(tmp_path / "series", out, predictor, hospital)
        assert outcome.status == "done"
        assert len(hospital.observations) == 2  # one for each structure, whatever happened
        assert len(hospital.results) == 1
        assert hospital.states == (({"C"}, {"corrected"}) if number else ({"P"}, {"preliminary"}))
        shown = {one["valueQuantity"]["value"] for one in hospital.observations.values()}
        assert shown == values(out)
    controls = {content.split(b"|")[9] for content in hospital.hl7.sent}
    assert len(controls) == 3
    assert not list((out / VOIDED).glob("*"))


def test_study_that_is_back_as_it_was_is_a_correction_that_receivers_do_not_know(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    first = files[0].read_bytes()
    hospital, out = Hospital(), tmp_path / "out"
    for content in (None, 300, first, 300, first):
        if isinstance(content, bytes):
            files[0].write_bytes(content)
        elif content is not None:
            change(files, content)
        run(tmp_path / "series", out, predictor, hospital)
        shown = {one["valueQuantity"]["value"] for one in hospital.observations.values()}
        assert shown == values(out)
        (result,) = hospital.results.values()
        volumes = {float(value) for (name, _), (value, _) in result.items() if "Volume" in name}
        assert volumes == values(out)
    assert len({content.split(b"|")[9] for content in hospital.hl7.sent}) == 5


def test_killed_run_and_lost_output_give_the_same_correction_again(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    hospital, out = Hospital(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, hospital)
    early = tmp_path / "early"
    copytree(out, early)
    change(files, 300)
    run(tmp_path / "series", out, predictor, hospital)
    known = len(hospital.hl7.sent)
    for path in (out / "segmentations").glob("*.dcm"):
        path.unlink()  # lost: made again, and sent again
    run(tmp_path / "series", out, predictor, hospital)
    run(tmp_path / "series", early, predictor, hospital)  # killed before anything was booked
    assert len(hospital.hl7.sent) == known + 2
    assert len(set(hospital.hl7.sent)) == known
    assert len(set(hospital.fhir.sent)) == known
    assert len(hospital.observations) == 2


@pytest.mark.parametrize(
    "left_behind",
    [
        pytest.param("state = 'running', delivered = NULL", id="killed before it was booked"),
        pytest.param("measures = json_remove(measures, '$.reported')", id="of an earlier version"),
    ],
)
def test_earlier_result_is_corrected_under_its_identifiers(
    left_behind: str, tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    hospital, out = Hospital(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, hospital)
    with sqlite3.connect(out / "ledger.sqlite") as ledger:
        ledger.execute(f"UPDATE studies SET {left_behind}")
    change(files, 300)
    run(tmp_path / "series", out, predictor, hospital)
    assert len(hospital.observations) == 2
    assert hospital.states == ({"C"}, {"corrected"})


def test_results_of_two_series_of_a_study_do_not_overwrite_each_other(
    tmp_path: Path, predictor: Predictor, write_dicom: WriteDicom
) -> None:
    write_dicom(tmp_path / "in/a", 1)
    for path in write_dicom(tmp_path / "in/b", 1):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID += ".1"
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path)
    hospital, out = Hospital(), tmp_path / "out"
    run(tmp_path / "in", out, predictor, hospital)
    assert len(hospital.observations) == 4
    assert len(hospital.results) == 2
    change(sorted((tmp_path / "in/b").glob("*")), 300)
    run(tmp_path / "in", out, predictor, hospital)
    assert len(hospital.observations) == 4
    states = [{state for _, state in one.values()} for one in hospital.results.values()]
    assert sorted(states, key=str) == [{"C"}, {"P"}]


@pytest.fixture(scope="module")
def other_model() -> Predictor:
    return Predictor(tiny_package(seed=5), device="cpu", engine="torch")


def test_result_of_another_model_voids_what_it_replaces(
    tmp_path: Path, predictor: Predictor, other_model: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    hospital, out = Hospital(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, hospital)
    before = set(hospital.observations)
    change(files, 300)
    run(tmp_path / "series", out, other_model, hospital)
    states = {name: one["status"] for name, one in hospital.observations.items()}
    assert {states[name] for name in before} == {"entered-in-error"}
    assert {states[name] for name in states.keys() - before} == {"preliminary"}
    first, second = hospital.results.values()
    assert {state for _, state in first.values()} == {"W"}
    assert {state for _, state in second.values()} == {"P"}
    assert not list((out / VOIDED).glob("*"))  # acknowledged


def test_void_that_cannot_be_sent_is_sent_at_the_next_start(
    tmp_path: Path, predictor: Predictor, other_model: Predictor, write_dicom: WriteDicom
) -> None:
    files = write_dicom(tmp_path / "series", 1)
    hospital, out = Hospital(), tmp_path / "out"
    run(tmp_path / "series", out, predictor, hospital)
    before = set(hospital.observations)
    change(files, 300)
    run(tmp_path / "series", out, other_model)  # without receivers: left for the site to send
    assert {path.name.split(".", 1)[1] for path in (out / VOIDED).glob("*")} == {
        "oru.hl7", "fhir.json",
    }  # fmt: skip
    hospital.fhir.is_away = True
    run(tmp_path / "series", out, other_model, hospital)
    assert [path.name.split(".", 1)[1] for path in (out / VOIDED).glob("*")] == ["fhir.json"]
    hospital.fhir.is_away = False
    run(tmp_path / "series", out, other_model, hospital)
    assert not list((out / VOIDED).glob("*"))
    assert {hospital.observations[name]["status"] for name in before} == {"entered-in-error"}
