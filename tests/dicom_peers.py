"""Independent programs that check and read DICOM objects: dciodvfy, dicom-validator, dcmqi."""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_validator.spec_reader.edition_reader import EditionReader
from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.error_handler import NullValidationResultHandler
from dicom_validator.validator.iod_validator import IODValidator
from dicom_validator.validator.validation_result import Status
from pydicom.datadict import dictionary_description, tag_for_keyword

EDITION = "SEGMED_DICOM_EDITION"
"""Variable that names the folder of an edition, such as `.../2026b`, made by `validate_iods`."""

FUNCTIONAL_GROUPS = ["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"]

CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.88.33",
}  # fmt: skip
"""Segmentation, Label Map Segmentation and Comprehensive SR."""

REFERENCE = ["IMAGE", "COMPOSITE", "WAVEFORM"]
CONTENT = {
    "ReferencedSOPSequence": REFERENCE, "ConceptCodeSequence": ["CODE"],
    "MeasuredValueSequence": ["NUM"], "TextValue": ["TEXT"], "UID": ["UIDREF"],
    "PersonName": ["PNAME"], "DateTime": ["DATETIME"], "Date": ["DATE"], "Time": ["TIME"],
    "GraphicData": ["SCOORD", "SCOORD3D"], "GraphicType": ["SCOORD", "SCOORD3D"],
    "ReferencedFrameOfReferenceUID": ["SCOORD3D"], "TemporalRangeType": ["TCOORD"],
    "ContinuityOfContent": ["CONTAINER"], "TabulatedValuesSequence": ["TABLE"],
}  # fmt: skip
"""Value types of the content items that have an attribute (PS3.3, table C.17-5)."""


def peer(name: str, package: str) -> str:
    """A program of the developers' tools, beside Python or on the path; skips the test without."""
    beside_python = Path(sys.executable).with_name(name)
    found = str(beside_python) if beside_python.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (of {package}) is not installed")
    return found


def dciodvfy_errors(path: Path) -> list[str]:
    """Errors that dciodvfy reports of an object."""
    program = peer("dciodvfy", "the Debian package dicom3tools")
    said = subprocess.run(
        [program, "-new", str(path)], capture_output=True, check=False, encoding="utf-8"
    )
    lines = (said.stdout + said.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


def validator_errors(path: Path) -> list[str]:
    """Errors that dicom-validator reports of an object, by module and attribute."""
    dataset = pydicom.dcmread(path)
    handler = NullValidationResultHandler()
    result = IODValidator(dataset, standard(), error_handler=handler).validate()
    assert result.status in (Status.Passed, Status.Failed), result.status
    return sorted(
        f"{module}: {tag} {error.code.name} {error.context or ''}"
        for module, errors in result.module_errors.items()
        for tag, error in errors.items()
    )


@cache
def standard() -> DicomInfo:
    """The edition that the environment names, else the attributes that highdicom has of one."""
    folder = os.environ.get(EDITION)
    if folder is None:
        return attributes_of_highdicom()
    place = Path(folder)
    return EditionReader(place.parent).load_dicom_info(place.name)


def attributes_of_highdicom() -> DicomInfo:
    """Modules, attributes, types and nesting, without conditions and enumerated values.

    A functional group may be in the shared item or in those of the frames.
    """
    tables = {name: _table(name) for name in ("sop_class_iod_map", "iod_module_map")}
    attributes = _table("module_attribute_map")
    iods, modules = {}, {}
    for uid in CLASSES:
        title = tables["sop_class_iod_map"][uid]
        rows = tables["iod_module_map"][title]
        named = {row["key"]: {"ref": row["key"], "use": row["usage"]} for row in rows}
        iods[uid] = {"title": title, "modules": named, "group_macros": {}}
        modules |= {name: _nested(attributes.get(name, [])) for name in named}
    modules["sr-document-content"] = _of_content(modules["sr-document-content"])
    return DicomInfo({}, iods, modules)


def _nested(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        level = found
        for keyword in row["path"]:
            level = level.setdefault(_tag(keyword), {}).setdefault("items", {})
        attribute = level.setdefault(_tag(row["keyword"]), {})
        tag = tag_for_keyword(row["keyword"]) or 0
        kind = "3" if row["path"] in FUNCTIONAL_GROUPS else row["type"]
        attribute |= {"name": dictionary_description(tag), "type": kind}
        if kind.endswith("C"):
            attribute["cond"] = {"type": "U"}
    return found


def _of_content(root: dict[str, Any]) -> dict[str, Any]:
    """Attributes of content items by their value type; items may be in items, to any depth."""
    children = root[_tag("ContentSequence")]
    children["items"][_tag("ContentSequence")] = children
    for level in (root, children["items"]):
        for keyword, names in CONTENT.items():
            if _tag(keyword) in level:
                level[_tag(keyword)] |= {"type": "1C", "cond": _if_value_type(names)}
    return root


def _if_value_type(names: list[str]) -> dict[str, Any]:
    """Condition of an attribute that content items of some value types must have."""
    return {"type": "MN", "index": 0, "op": "=", "tag": _tag("ValueType"), "values": names}


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _table(name: str) -> dict[str, Any]:
    content = pkgutil.get_data("highdicom", f"_standard/{name}.json")
    assert content is not None
    found: dict[str, Any] = json.loads(content)
    return found
