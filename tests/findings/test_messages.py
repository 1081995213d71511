"""HL7 and FHIR of the same record: parsed strictly, with the numbers of the findings."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from fhir.resources.bundle import Bundle
from fhir.resources.R4B.bundle import Bundle as BundleR4B
from hl7_parser import parsed, plain
from reported import LABELS, VERSION, findings, written_segmentation

from segmed.findings.reports import write_reports


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    return written_segmentation(tmp_path, name="Müller|x^J&rg", charset="ISO_IR 100")


def test_oru_has_volumes_flags_patient_and_examination(seg: Path) -> None:
    (path,) = write_reports(seg, findings(), ("hl7",))
    message = path.read_bytes().decode("utf-8")
    head, patient, request, *observations = parsed(message)
    assert head[9] == "ORU^R01^ORU_R01"
    assert (head[12], head[18]) == ("2.5.1", "UNICODE UTF-8")
    assert len(head[10]) <= 20
    assert [plain(part) for part in patient[5].split("^")] == ["Müller|x", "J&rg"]
    assert plain(request[18]) == "A|1"
    dataset = pydicom.dcmread(seg, stop_before_pixels=True)
    assert request[3] == dataset.SOPInstanceUID
    studies = [fields[5] for fields in observations if fields[3] == "113014^DICOM Study^DCM"]
    assert studies == [dataset.StudyInstanceUID]
    assert request[25] == "P"
    volumes = [fields for fields in observations if fields[2] == "NM"]
    assert len(volumes) == len(LABELS)
    for fields, finding in zip(volumes, findings().structures, strict=True):
        code = fields[3].split("^")
        assert code[:3] == ["118565006", "Volume", "SCT"]
        if finding.code is not None:
            assert code[3:] == ["5366008", "Hip.", "SCT"]
        else:
            assert plain(code[4]) == finding.name.replace("\\", "/")
        assert float(fields[5]) == pytest.approx(finding.volume_ml, rel=1e-5)
        assert fields[6] == "mL^milliliter^UCUM"
        assert fields[11] == "P"
    flags = [(int(f[4]), f[5].split("^")[0]) for f in observations if f[2] == "CWE"]
    assert flags == [(1, "BORDER"), (1, "FRAGMENTS"), (3, "EMPTY")]
    assert any(f"unet {VERSION}" == plain(fields[5]) for fields in observations)


def test_bundle_is_valid_and_has_the_same_numbers(seg: Path) -> None:
    (path,) = write_reports(seg, findings(), ("fhir",))
    values = json.loads(path.read_text(encoding="utf-8"))
    Bundle.model_validate(values)
    bundle = BundleR4B.model_validate(values)
    assert bundle.type == "transaction"
    ids = []
    for entry, finding in zip(bundle.entry, findings().structures, strict=True):
        one = entry.resource
        ids.append(one.id)
        assert (entry.request.method, entry.request.url) == ("PUT", f"Observation/{one.id}")
        assert float(one.valueQuantity.value) == pytest.approx(finding.volume_ml, rel=1e-5)
        assert (one.valueQuantity.system, one.valueQuantity.code) == (
            "http://unitsofmeasure.org", "mL",
        )  # fmt: skip
        assert one.bodySite.text == finding.name
        assert one.status == "preliminary"
        found = [part.valueCodeableConcept.coding[0].code for part in one.component or ()]
        assert found == [flag.upper() for flag in finding.flags]
        assert VERSION in one.device.display
    assert len(set(ids)) == len(LABELS)
    assert bundle.entry[0].resource.bodySite.coding[0].system == "http://snomed.info/sct"


def test_equal_input_gives_equal_files(seg: Path) -> None:
    first = [path.read_bytes() for path in write_reports(seg, findings(), ("hl7", "fhir"))]
    again = [path.read_bytes() for path in write_reports(seg, findings(), ("hl7", "fhir"))]
    assert first == again
