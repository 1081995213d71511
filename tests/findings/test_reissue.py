"""Corrected and withdrawn results in HL7 and FHIR: parsed strictly, under the first identifiers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fhir.resources.bundle import Bundle
from fhir.resources.R4B.bundle import Bundle as BundleR4B
from hl7_parser import parsed
from reported import findings, written_segmentation

from segmed.findings.reissue import MESSAGES, Reported, corrected, voided
from segmed.findings.reports import reports_beside, write_reports

FIRST = "2.25.4711"


@pytest.fixture
def messages(tmp_path: Path) -> dict[str, Path]:
    seg = written_segmentation(tmp_path, name="Müller|x^J&rg", charset="ISO_IR 100")
    write_reports(seg, findings(), MESSAGES)
    return dict(zip(MESSAGES, reports_beside(seg, MESSAGES), strict=True))


def observations(content: bytes) -> list[dict]:
    """Observations of a bundle that both versions of FHIR accept."""
    values = json.loads(content)
    Bundle.model_validate(values)
    BundleR4B.model_validate(values)
    for entry in values["entry"]:
        assert entry["request"] == {
            "method": "PUT", "url": f"Observation/{entry['resource']['id']}",
        }  # fmt: skip
        assert entry["fullUrl"].endswith(entry["resource"]["id"])
    return [entry["resource"] for entry in values["entry"]]


def test_correction_in_hl7_has_the_first_filler_number_and_the_new_values(
    messages: dict[str, Path],
) -> None:
    plain = parsed(messages["hl7"].read_bytes().decode("utf-8"))
    content = corrected(messages["hl7"], Reported(FIRST, 1)).decode("utf-8")
    head, patient, request, note, *found = parsed(content)
    assert patient == plain[1]
    assert (request[3], request[25]) == (FIRST, "C")
    assert request[4:25] == plain[2][4:25]
    assert "Correction 1" in note[3]
    assert "Not reviewed by a person" in note[3]
    assert {fields[11] for fields in found} == {"C"}
    assert [fields[:11] for fields in found] == [fields[:11] for fields in plain[3:]]
    assert head[10] != plain[0][10]
    again = parsed(corrected(messages["hl7"], Reported(FIRST, 2)).decode("utf-8"))
    assert again[0][10] not in {head[10], plain[0][10]}  # receivers know messages by this


def test_correction_in_fhir_replaces_the_observations_of_the_first_report(
    messages: dict[str, Path],
) -> None:
    plain = observations(messages["fhir"].read_bytes())
    first = observations(corrected(messages["fhir"], Reported(FIRST, 1)))
    later = observations(corrected(messages["fhir"], Reported(FIRST, 2)))
    assert [one["id"] for one in first] == [one["id"] for one in later]
    assert not {one["id"] for one in first} & {one["id"] for one in plain}
    for before, now in zip(plain, first, strict=True):
        assert (before["status"], now["status"]) == ("preliminary", "corrected")
        assert now["identifier"] != before["identifier"]
        assert "Not reviewed by a person" in now["note"][0]["text"]
        same = before.keys() - {"id", "identifier", "status"}
        assert {name: before[name] for name in same} == {name: now[name] for name in same}


def test_correction_under_its_own_identifiers_keeps_them(messages: dict[str, Path]) -> None:
    plain = observations(messages["fhir"].read_bytes())
    own = parsed(messages["hl7"].read_bytes().decode("utf-8"))[2][3]
    found = observations(corrected(messages["fhir"], Reported(own, 1)))
    assert [one["identifier"] for one in found] == [one["identifier"] for one in plain]


@pytest.mark.parametrize("kind", MESSAGES)
def test_corrections_and_voids_are_functions_of_the_report(
    messages: dict[str, Path], kind: str
) -> None:
    path = messages[kind]
    path.write_bytes(first := corrected(path, Reported(FIRST, 1)))
    assert corrected(path, Reported(FIRST, 1)) == first
    void = voided(path)
    path.write_bytes(void)
    assert voided(path) == void != first


def test_withdrawn_result_is_reported_as_wrong_under_its_identifiers(
    messages: dict[str, Path],
) -> None:
    for kind in MESSAGES:
        messages[kind].write_bytes(corrected(messages[kind], Reported(FIRST, 3)))
    before = parsed(messages["hl7"].read_bytes().decode("utf-8"))
    head, _, request, note, *found = parsed(voided(messages["hl7"]).decode("utf-8"))
    assert (request[3], request[25]) == (FIRST, "C")
    assert {fields[11] for fields in found} == {"W"}
    assert "Withdrawn" in note[3]
    assert head[10] != before[0][10]
    reported = observations(messages["fhir"].read_bytes())
    for was, now in zip(reported, observations(voided(messages["fhir"])), strict=True):
        assert (was["id"], now["status"]) == (now["id"], "entered-in-error")
        assert [one["text"][:9] for one in now["note"]] == ["Withdrawn"]
