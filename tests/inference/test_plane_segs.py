"""DICOM segmentations and reports of images of one plane: pixel by pixel, without millimetres."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_peers import dciodvfy_errors, validator_errors
from dicom_planes import write_plane
from PIL import Image

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.formats import SegForm, SegKind
from segmed.inference import Predictor, predict_files
from segmed.structures import Channel

GREY = np.random.default_rng(0).integers(0, 255, (20, 16)).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY], axis=-1)
PIXELS = {"CR": GREY, "DX": GREY, "MG": GREY, "US": GREY, "OT": GREY, "OP": COLOUR}
PLACED = {
    "FrameOfReferenceUID": "2.25.77",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}


@pytest.fixture(scope="module")
def models(make_plan, make_package) -> dict[int, Predictor]:
    """Models of planes of one and of three channels."""
    found = {}
    for channels in (1, 3):
        plan = make_plan(spatial_dims=2, spacing_mm=(1.0, 1.0), patch=(16, 16))
        named = tuple(Channel(name=f"c{n}", modality="OT") for n in range(channels))
        intensity = plan.preprocessing.intensity * channels
        preprocessing = plan.preprocessing.model_copy(update={"intensity": intensity})
        plan = plan.model_copy(update={"channels": named, "preprocessing": preprocessing})
        found[channels] = Predictor(
            make_package(plan), device="cpu", engine="torch", any_modality=True
        )
    return found


def model_for(models: dict[int, Predictor], modality: str) -> Predictor:
    return models[3 if modality == "OP" else 1]


def segmented(
    folder: Path, model: Predictor, modality: str, form: SegForm, elements: dict | None = None
) -> tuple[pydicom.Dataset, Path, np.ndarray]:
    """Source image, its DICOM segmentation, and the label map that `nifti` gives."""
    path = write_plane(folder / "in/a.dcm", PIXELS[modality], modality=modality, elements=elements)
    (picture,) = predict_files(model, [folder / "in"], folder / "png")
    (found,) = predict_files(model, [folder / "in"], folder / "seg", form)
    assert (found.status, found.reason) == ("done", None)
    return pydicom.dcmread(path), found.output, np.asarray(Image.open(picture.output))


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("modality", sorted(PIXELS))
def test_each_structure_has_its_pixels_on_the_source_image(
    tmp_path: Path, models: dict[int, Predictor], modality: str, kind: SegKind
) -> None:
    model = model_for(models, modality)
    elements = {"PatientOrientation": ["L", "F"]} | (PLACED if modality == "DX" else {})
    source, path, label = segmented(tmp_path, model, modality, SegForm(kind), elements)
    seg = pydicom.dcmread(path)
    assert (seg.Rows, seg.Columns) == label.shape == (20, 16)
    frames = np.asarray(seg.pixel_array).reshape(-1, 20, 16)
    values = {item.value: number for number, item in enumerate(model.plan.labels, 1)}
    if kind == "labelmap":
        expected = np.zeros(label.shape, np.uint8)
        for value, number in values.items():
            expected[label == value] = number
        np.testing.assert_array_equal(frames[0], expected)
    else:
        assert len(frames) == len(values)
        for value, number in values.items():
            np.testing.assert_array_equal(frames[number - 1], label == value)
    assert len(np.unique(label)) > 1
    assert "FrameOfReferenceUID" not in seg
    assert seg.PatientOrientation == ["L", "F"]
    derived = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    referenced = derived.SourceImageSequence[0]
    assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert referenced.ReferencedSOPClassUID == source.SOPClassUID
    [series] = seg.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPClassUID == source.SOPClassUID


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("modality", sorted(PIXELS))
def test_validators_find_no_error(
    tmp_path: Path, models: dict[int, Predictor], modality: str, kind: SegKind
) -> None:
    form = SegForm(kind, reports=("sr",))
    _, path, _ = segmented(tmp_path, model_for(models, modality), modality, form)
    report = path.with_name(path.name.replace(".seg.dcm", ".sr.dcm"))
    for written in (path, report):
        assert validator_errors(written) == []
        if kind == "binary":  # the class of label maps is younger than dciodvfy of 2022
            assert dciodvfy_errors(written) == []


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_reports_state_areas_in_pixels(
    tmp_path: Path, models: dict[int, Predictor], kind: SegKind
) -> None:
    form = SegForm(kind, reports=("sr", "hl7", "fhir"))
    _, path, label = segmented(tmp_path, models[1], "DX", form)
    areas = [int((label == item.value).sum()) for item in models[1].plan.labels]
    stem = path.name.removesuffix(".seg.dcm")
    report = pydicom.dcmread(path.with_name(f"{stem}.sr.dcm"))
    assert numbers_in(report) == [("Area", area, "{pixels}") for area in areas]
    message = path.with_name(f"{stem}.oru.hl7").read_bytes().decode()
    rows = [line.split("|") for line in message.split("\r") if line.startswith("OBX|")]
    assert [(int(row[5]), row[6]) for row in rows if row[2] == "NM"] == [
        (area, "{pixels}^pixels^UCUM") for area in areas
    ]
    bundle = json.loads(path.with_name(f"{stem}.fhir.json").read_text(encoding="utf-8"))
    values = [entry["resource"]["valueQuantity"] for entry in bundle["entry"]]
    assert [(one["value"], one["code"]) for one in values] == [(a, "{pixels}") for a in areas]
    assert "mL" not in message + json.dumps(bundle)


def numbers_in(item: pydicom.Dataset) -> list[tuple[str, float, str]]:
    """Name, value and unit of each number of a report."""
    found = []
    for child in item.get("ContentSequence") or ():
        if child.ValueType == "NUM":
            value = child.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            name = child.ConceptNameCodeSequence[0].CodeMeaning
            found.append((name, float(value.NumericValue), unit))
        found += numbers_in(child)
    return found


@pytest.mark.parametrize(
    ("form", "repair"),
    [("rtstruct", "choose dicom-seg or nifti"), (SegForm("fractional"), "choose --seg binary")],
)
def test_form_that_a_plane_cannot_have_is_refused_with_a_repair(
    tmp_path: Path, models: dict[int, Predictor], form: object, repair: str
) -> None:
    write_plane(tmp_path / "in/a.dcm", GREY)
    (found,) = predict_files(models[1], [tmp_path / "in"], tmp_path / "out", form)
    assert found.status == "refused"
    assert found.reason.startswith("no_volume")
    assert repair in found.reason


def test_table_of_an_archive_has_areas_in_pixels_and_no_millilitres(
    tmp_path: Path, models: dict[int, Predictor]
) -> None:
    write_plane(tmp_path / "in/a.dcm", GREY, modality="MG", elements={"PixelSpacing": [0.1, 0.1]})
    out = tmp_path / "out"
    (outcome,) = segment_archive(FolderSource(tmp_path / "in"), predictor=models[1], out_dir=out)
    label = np.asarray(Image.open(out / str(outcome.output)))
    with (out / "volumes.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    for item in models[1].plan.labels:
        assert float(row[f"{item.name}_pixels"]) == (label == item.value).sum()
        assert row[f"{item.name}_mm2"] == ""  # the size of a pixel in the patient is not known
    assert not [name for name in row if "_ml" in name]
    assert (row["spacing_mm_0"], row["spacing_mm_1"]) == ("", "")


def test_archive_writes_the_same_bytes_again(tmp_path: Path, models: dict[int, Predictor]) -> None:
    for number in (1, 2):
        write_plane(tmp_path / f"in/{number}.dcm", np.roll(GREY, number, axis=0), number=number)
    written = []
    for out in (tmp_path / "one", tmp_path / "two"):
        ended = segment_archive(
            FolderSource(tmp_path / "in"),
            predictor=models[1],
            out_dir=out,
            format="dicom-seg",
            options=RunOptions(seg=SegForm(reports=("sr",))),
        )
        assert [outcome.status for outcome in ended] == ["done", "done"]
        written.append({p.name: p.read_bytes() for p in (out / "segmentations").glob("*.dcm")})
    assert written[0] == written[1]
    assert len(written[0]) == 4
