"""`segmed accept` on DICOM series of real images with planted names, and on NIfTI files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import hippocampus_package
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.io.atomic import PRIVATE
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.write import write_series
from segmed.manifest import Case, Channel, LabelClass, Manifest, write_manifest
from segmed.manifest.schema import AcquisitionFacts

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample"
LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))
CASES = 10
IN_HEADERS, IN_FILES, IN_PATHS = "Anneliese", "Ottokar", "Seeblick"
"""Names of persons: in headers, in names of files and cases, and in names of folders."""

PLANTED = {
    "PatientName": f"Muster^{IN_HEADERS}",
    "PatientID": f"{IN_HEADERS}-4711",
    "ReferringPhysicianName": IN_HEADERS,
    "ProtocolName": f"head of {IN_HEADERS}",
    "SeriesDescription": f"{IN_HEADERS} T1",
    "StationName": IN_HEADERS,
    "InstitutionName": f"clinic {IN_HEADERS}",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hippocampus_package().save(tmp_path_factory.mktemp("model") / "package")


def plant(folder: Path, image: Path, number: int) -> Path:
    """A real image as a DICOM series whose headers, files and folder name persons."""
    loaded = nib.load(image)
    voxels = np.asarray(loaded.dataobj).astype(np.float32)[None]
    series = folder / f"{IN_PATHS} {number}"
    files = write_series(series, MetaTensor(torch.from_numpy(voxels), affine=loaded.affine))
    for path in files:
        with tolerant_pydicom():
            dataset = pydicom.dcmread(path)
            for keyword, value in PLANTED.items():
                setattr(dataset, keyword, value)
            dataset.PatientID = f"{dataset.PatientID}-{number}"
            dataset.Manufacturer = "ACME"
            dataset.ManufacturerModelName = "One" if number % 2 else "Two"
            dataset.PatientAge, dataset.PatientSex = "067Y", "F"
            dataset.save_as(path.with_name(f"{IN_FILES}_{path.name}"))
        path.unlink()
    return series


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of real cases as DICOM series; names are in headers, files and folders."""
    root = tmp_path_factory.mktemp("site") / IN_PATHS
    cases = []
    for number, image in enumerate(sorted((SAMPLE / "images").glob("*.nii.gz"))[:CASES]):
        series = plant(root, image, number)
        label = root / f"{IN_FILES}_{number}.nii.gz"
        found = nib.load(SAMPLE / "labels" / image.name)
        nib.save(nib.Nifti1Image(np.asarray(found.dataobj).astype(np.uint8), found.affine), label)
        cases.append(
            Case(
                id=f"{IN_FILES}-{number}",
                group=f"{IN_FILES}-{number}",
                image=(series.name,),
                label=label.name,
                fold=number % 2,
            )
        )
    manifest = Manifest(
        name=IN_PATHS,
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        root=root,
    )
    return write_manifest(manifest, root / f"{IN_FILES}.json")


@pytest.fixture
def run() -> Callable[..., str]:
    def call(*words: str | Path, status: int) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == status, result.output
        return result.stdout if "--json" in words else result.output

    return call


def test_dossier_of_dicom_series_groups_by_header_and_names_nobody(
    planted: Path, package: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    out = tmp_path / "dossier"
    told = run("accept", package, "--cases", planted, "-o", out, "--device", "cpu", status=1)
    record = json.loads((out / "dossier.json").read_text(encoding="utf-8"))
    assert record["verdict"]["accepted"] is False
    assert record["cases"] == CASES
    values = {(row["kind"], row["value"]) for row in record["groups"]}
    assert {("scanner", "ACME One"), ("scanner", "ACME Two"), ("sex", "female")} <= values
    assert ("age decade", "60 to 69") in values
    for name in (IN_HEADERS, IN_FILES, IN_PATHS):
        assert name not in (out / "dossier.json").read_text(encoding="utf-8")
        assert name not in (out / "dossier.html").read_text(encoding="utf-8")
        assert name not in told.replace(str(out), "")
    assert IN_FILES in (out / "private" / "cases.csv").read_text(encoding="utf-8")
    assert (out / "private" / "cases.csv").stat().st_mode & 0o777 == PRIVATE


def test_evidence_of_dicom_series_names_nobody_and_pools(
    planted: Path, package: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    other = hippocampus_package(1).save(tmp_path / "other")
    keys = ("--study-key", tmp_path / "study.key", "--site-key", tmp_path / "site.key")
    records = []
    for fold in (0, 1):
        records.append(tmp_path / f"fold{fold}.json")
        words = ("accept", package, "--cases", planted, "--fold", str(fold), "--device", "cpu")
        out = ("-o", tmp_path / f"out{fold}", "--against", other, "--export", records[-1], *keys)
        told = run(*words, *out, status=1)
        assert "evidence of site" in told
        assert ("a new study key was drawn" in told) == (fold == 0)
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert not [name for name in (IN_HEADERS, IN_FILES, IN_PATHS, "ACME") if name in text]
    result = json.loads(run("accept", "--pool", *records, "--json", status=1))
    assert result["cases"] == CASES
    assert result["signers_checked"] is False
    assert {line["rule"] for line in result["gate"]} > {"cases", "dice of mean"}
    told = run("accept", "--pool", records[0], records[0], status=2)
    assert "given twice" in told
    told = run("accept", "--pool", *records, "--model", other, status=2)
    assert "another model" in told


def copied(folder: Path, number: int, **facts: object) -> Manifest:
    """So many cases of the sample, copied, with facts in the manifest."""
    folder.mkdir()
    cases = []
    for place, image in enumerate(sorted((SAMPLE / "images").glob("*.nii.gz"))[:number]):
        shutil.copy(image, folder / f"i{place}.nii.gz")
        shutil.copy(SAMPLE / "labels" / image.name, folder / f"l{place}.nii.gz")
        cases.append(
            Case(
                id=f"c{place}",
                group=f"c{place}",
                image=(f"i{place}.nii.gz",),
                label=f"l{place}.nii.gz",
                fold=0,
                facts=AcquisitionFacts(**facts) if facts else None,
            )
        )
    channels = (Channel(name="T1", modality="MR"),)
    return Manifest(name="x", labels=LABELS, channels=channels, training=tuple(cases), root=folder)


def test_refused_case_is_counted_and_the_rest_goes_on(
    package: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    manifest = copied(tmp_path / "set", 6, scanner="ACME", age=44, sex="M")
    broken = tmp_path / "set" / "i2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:900])
    path = write_manifest(manifest, tmp_path / "set" / "M.json")
    criteria = tmp_path / "lenient.yaml"
    criteria.write_text(
        "accept: [{measure: cases, at_least: 5}, {measure: refused, at_most: 0.2}]",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    words = ("accept", package, "--cases", path, "-o", out, "--criteria", criteria, "--json")
    record = json.loads(run(*words, status=1))
    assert all(line["is_fulfilled"] for line in record["verdict"]["criteria"])
    (reason,) = record["verdict"]["reasons"]  # whatever the criteria, an untrained network fails
    assert reason.startswith("nothing was learned: ")
    assert record["cases"] == 5
    assert sum(record["refused"].values()) == 1
    assert {row["value"] for row in record["groups"]} == {"ACME", "40 to 49", "male"}
    assert (out / "dossier.html").stat().st_size > 10_000


def test_copies_of_a_case_are_named(package: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    manifest = copied(tmp_path / "set", 2)
    shutil.copy(tmp_path / "set" / "i0.nii.gz", tmp_path / "set" / "i1.nii.gz")
    shutil.copy(tmp_path / "set" / "l0.nii.gz", tmp_path / "set" / "l1.nii.gz")
    path = write_manifest(manifest, tmp_path / "set" / "M.json")
    record = json.loads(
        run("accept", package, "--cases", path, "-o", tmp_path / "out", "--json", status=1)
    )
    assert record["copies"] == 1
    assert "copies of others" in (tmp_path / "out" / "dossier.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "--cases LOCAL.json"),
        (("second",), "one model is judged at a time"),
        (("--cases", "{manifest}", "--against", "x"), "give --export FILE"),
        (("--cases", "{manifest}", "--export", "."), "--export . is a folder"),
        (("--cases", "{manifest}", "--rules", "x"), "--rules has no meaning for a dossier"),
        (("--pool", "--cases", "{manifest}"), "--cases has no meaning for --pool"),
        (("--pool",), "there is no such record"),
        (("--cases", "absent.json"), "absent.json does not exist"),
        (("--cases", "{manifest}", "--criteria", "absent.yaml"), "--criteria absent.yaml"),
        (("--cases", "{manifest}", "--archive", "absent"), "no ledger"),
        (("--cases", "{manifest}", "--fold", "9"), "fold 9 is not in manifest"),
        (("--cases", "{manifest}", "--criteria", "{liver}"), "liver"),
        (("--cases", "{unlabelled}"), "no labelled case"),
        (("--cases", "{empty}"), "no labelled case"),
        (("--cases", "{renamed}"), "has labels that the model has not"),
        (("--cases", "{manifest}", "--criteria", "{typo}"), "at_leest"),
        (("--cases", "{manifest}", "--against", "{package}", "--export", "x.json"), "itself"),
    ],
)
def test_wrong_calls_end_with_status_2_and_one_line(
    package: Path,
    tmp_path: Path,
    run: Callable[..., str],
    words: tuple[str, ...],
    named: str,
) -> None:
    manifest = copied(tmp_path / "set", 2)
    places = {
        "{manifest}": write_manifest(manifest, tmp_path / "set" / "M.json"),
        "{unlabelled}": tmp_path / "set" / "U.json",
        "{liver}": tmp_path / "liver.yaml",
        "{typo}": tmp_path / "typo.yaml",
        "{empty}": tmp_path / "set" / "E.json",
        "{renamed}": tmp_path / "set" / "R.json",
        "{package}": package,
    }
    tail = (LABELS[0], LabelClass(name="tail", value=2))
    write_manifest(manifest.model_copy(update={"training": ()}), places["{empty}"])
    write_manifest(manifest.model_copy(update={"labels": tail}), places["{renamed}"])
    places["{typo}"].write_text("accept: [{measure: cases, at_leest: 20}]", encoding="utf-8")
    bare = tuple(case.model_copy(update={"label": None}) for case in manifest.training)
    write_manifest(manifest.model_copy(update={"training": bare}), places["{unlabelled}"])
    places["{liver}"].write_text(
        "accept: [{measure: dice, of: liver, at_least: 0.8}]", encoding="utf-8"
    )
    asked = [places.get(word, word) for word in words]
    told = run("accept", package, *asked, "-o", tmp_path / "out", status=2)
    assert named in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
