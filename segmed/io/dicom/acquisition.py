"""Scanner, protocol, age and sex that the header of an image states, for groups of scores."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from segmed.io.dicom.elements import number, words
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.patient import PATIENT_TAGS
from segmed.io.dicom.scan import files_below
from segmed.io.head import looks_like_dicom

PERSON_TAGS = (
    *PATIENT_TAGS, "OtherPatientIDs", "OtherPatientNames", "AccessionNumber",
    "PatientMotherBirthName", "PatientBirthName", "ReferringPhysicianName", "OperatorsName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
)  # fmt: skip
"""Elements that name a person; their words are taken out of the other texts."""

INSTITUTION_TAGS = ("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName")
"""Elements that name the site; their words are taken out likewise."""

TAGS = [
    *PERSON_TAGS, *INSTITUTION_TAGS, "Manufacturer", "ManufacturerModelName",
    "MagneticFieldStrength", "ProtocolName",
    "ScanningSequence", "MRAcquisitionType", "KVP", "ConvolutionKernel", "PatientAge", "PatientSex",
    "StudyDate", "AcquisitionDate",
]  # fmt: skip

OLDEST = 130
YEARS_OF = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
SHORTEST_NAME = 3
"""Characters of the shortest word of a name that is taken out of other texts."""

REMOVED = "[removed]"


@dataclass(frozen=True)
class Acquisition:
    """Facts of an acquisition; each is empty or None where the header does not state it.

    Attributes:
        scanner: Manufacturer, model and field strength.
        protocol: Sequence of an MR image; tube voltage and kernel of a CT image.
        protocol_name: Name of the protocol: free text, which may name a person.
        age: Age of the patient at the time of the study, in years.
        sex: `F`, `M` or `O`.
    """

    scanner: str = ""
    protocol: str = ""
    protocol_name: str = field(default="", repr=False)
    age: float | None = None
    sex: str = ""


def acquisition_at(path: Path) -> Acquisition | None:
    """Facts of the first DICOM file of a folder, or of a file; None where there is none.

    Scanner and protocol come from elements that de-identification keeps, and words of names and
    numbers of persons and of the institution that the header contains are removed from them.

    Args:
        path: A DICOM file, or the folder of a series.

    Source:
        DICOM PS3.15 annex E, table E.1-1: manufacturer and model stay, ProtocolName does not.
    """
    if not path.exists():
        return None
    for file in files_below(path):
        with file.open("rb") as stream:
            if not looks_like_dicom(stream.read(132)):
                continue
        try:
            with tolerant_pydicom():
                dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
                return acquisition_in(dataset)
        except Exception:  # noqa: BLE001 - isolation boundary: the reader of the image refuses it
            return None
    return None


def acquisition_in(dataset: Dataset) -> Acquisition:
    """Facts that a header states; see `acquisition_at`."""
    names = _names_in(dataset)
    field = number(dataset, "MagneticFieldStrength")
    scanner = [*words(dataset, "Manufacturer"), *words(dataset, "ManufacturerModelName")]
    if field is not None and any(scanner):
        scanner.append(f"{field:.2g} T")
    sex = " ".join(words(dataset, "PatientSex")).upper()
    return Acquisition(
        scanner=_without(names, " ".join(filter(None, scanner))),
        protocol=_without(names, _protocol(dataset)),
        protocol_name=" ".join(words(dataset, "ProtocolName")).strip(),
        age=_age(dataset),
        sex=sex if sex in {"F", "M", "O"} else "",
    )


def _protocol(dataset: Dataset) -> str:
    voltage = number(dataset, "KVP")
    parts = [*words(dataset, "MRAcquisitionType"), *words(dataset, "ScanningSequence")]
    parts += [f"{voltage:g} kV"] if voltage else []
    return " ".join(filter(None, [*parts, *words(dataset, "ConvolutionKernel")]))


def _age(dataset: Dataset) -> float | None:
    stated = re.fullmatch(r"(\d{1,3})([YMWD])", "".join(words(dataset, "PatientAge")).upper())
    if stated is not None:
        years = int(stated[1]) * YEARS_OF[stated[2]]
        return years if years <= OLDEST else None
    born = _day(dataset.get("PatientBirthDate"))
    made = _day(dataset.get("StudyDate")) or _day(dataset.get("AcquisitionDate"))
    if born is None or made is None:
        return None
    years = (made - born).days / 365.25
    return years if 0 <= years <= OLDEST and math.isfinite(years) else None


def _day(value: Any) -> date | None:
    digits = re.sub(r"\D", "", str(value or ""))[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def _names_in(dataset: Dataset) -> set[str]:
    tags = (*PERSON_TAGS, *INSTITUTION_TAGS)
    texts = (str(dataset.get(keyword) or "") for keyword in tags)
    found = {word for text in texts for word in re.findall(r"[^\W_]+", text.casefold())}
    return {word for word in found if len(word) >= SHORTEST_NAME}


def _without(names: set[str], text: str) -> str:
    """A text in which each word that names a person or the institution is replaced."""

    def kept(match: re.Match[str]) -> str:
        return REMOVED if match[0].casefold() in names else match[0]

    return re.sub(r"[^\W_]+", kept, " ".join(text.split()))
