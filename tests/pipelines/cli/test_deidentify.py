"""`segmed deidentify`: nothing of the patient is left, and what belongs together stays together."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from test_privacy import PLANTED, SERIES_ROOT, WORDS, plant_series
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.io import read_image, read_label


def run(*words: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result.output


def add_traces(files: list[Path]) -> None:
    """Names in nested items, in private elements, in overlays' comments and in file meta."""
    for path in files:
        dataset = pydicom.dcmread(path)
        item, inner = Dataset(), Dataset()
        inner.PatientName, inner.ReferencedSOPInstanceUID = "Muster^Anneliese", f"{SERIES_ROOT}.9"
        inner.ReferencedSOPClassUID = dataset.SOPClassUID
        item.ReferencedImageSequence = [inner]
        item.RequestedProcedureDescription = "Verlaufskontrolle Muster"
        dataset.RequestAttributesSequence = [item]
        dataset.SourceImageSequence = [inner]
        dataset.ImageComments = "Muster Anneliese"
        dataset.private_block(0x0019, "KLINIK", create=True).add_new(1, "LO", "PID778812")
        dataset.file_meta.SourceApplicationEntityTitle = "ACC5566123"
        dataset.preamble = b"Muster".ljust(128, b"\0")
        dataset.save_as(path)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    add_traces(plant_series(tmp_path / "series", 1))
    return tmp_path / "series"


@pytest.fixture(autouse=True)
def salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGMED_SALT_FILE", str(tmp_path / "secrets" / "salt"))
    return tmp_path / "secrets" / "salt"


def test_no_planted_word_is_left_in_images_and_segmentations(
    series: Path, package_folder: Path, tmp_path: Path
) -> None:
    run("archive", "segment", series, "--model", package_folder, "-o", tmp_path / "seg",
        "--format", "dicom-seg")  # fmt: skip
    run("archive", "segment", series, "--model", package_folder, "-o", tmp_path / "rt",
        "--format", "rtstruct")  # fmt: skip
    made = [tmp_path / kind / "segmentations" for kind in ("seg", "rt")]
    told = run("deidentify", series, *made, "-o", tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(files) == len(list(series.glob("*.dcm"))) + 2
    for path in files:
        content = str(path.relative_to(tmp_path / "out")).encode() + path.read_bytes()
        assert [word for word in WORDS if word in content] == []
        assert pydicom.dcmread(path).PatientIdentityRemoved == "YES"
    assert not any(word.decode() in told for word in WORDS)
    before = b"".join(path.read_bytes() for path in series.glob("*.dcm"))
    assert all(value.split("^")[0].encode() in before for value in PLANTED.values())


def test_a_segmentation_treated_on_another_day_still_lies_on_its_images(
    series: Path, package_folder: Path, tmp_path: Path
) -> None:
    run("archive", "segment", series, "--model", package_folder, "-o", tmp_path / "made",
        "--format", "dicom-seg")  # fmt: skip
    run("deidentify", series, "-o", tmp_path / "images")
    run("deidentify", tmp_path / "made" / "segmentations", "-o", tmp_path / "seg")
    (segmentation,) = (tmp_path / "seg").rglob("*.dcm")
    images = {str(pydicom.dcmread(p).SOPInstanceUID) for p in (tmp_path / "images").rglob("*.dcm")}
    dataset = pydicom.dcmread(segmentation)
    (reference,) = dataset.ReferencedSeriesSequence
    referred = {str(i.ReferencedSOPInstanceUID) for i in reference.ReferencedInstanceSequence}
    assert referred == images
    (folder,) = (tmp_path / "images").iterdir()
    image, original = read_image(folder), read_image(series)
    np.testing.assert_array_equal(image.numpy(), original.numpy())
    (source,) = (tmp_path / "made" / "segmentations").glob("*.dcm")
    np.testing.assert_array_equal(
        read_label(segmentation, like=image).numpy(), read_label(source, like=original).numpy()
    )
    patients = {str(pydicom.dcmread(p).PatientID) for p in tmp_path.glob("[is]*/*/*.dcm")}
    assert len(patients - {"PID778812"}) == 1


def test_another_salt_gives_other_pseudonyms_and_the_same_salt_the_same(
    series: Path, tmp_path: Path, salt: Path
) -> None:
    for name in ("first", "again"):
        run("deidentify", series, "-o", tmp_path / name)
    run("deidentify", series, "-o", tmp_path / "other", "--salt", tmp_path / "other_salt")
    names = {
        name: {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*.dcm")}
        for name in ("first", "again", "other")
    }
    assert names["first"] == names["again"]
    assert not names["first"] & names["other"]
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600


def test_salt_that_others_may_read_is_refused(series: Path, tmp_path: Path, salt: Path) -> None:
    run("deidentify", series, "-o", tmp_path / "out")
    salt.chmod(0o644)
    assert "chmod 600" in run("deidentify", series, "-o", tmp_path / "out", status=2)


def test_pictures_with_text_and_files_that_are_no_dicom_are_refused_by_number(
    series: Path, tmp_path: Path
) -> None:
    first, *rest = sorted(series.glob("*.dcm"))
    dataset = pydicom.dcmread(first)
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(first)
    (series / "Muster.txt").write_text("Anneliese", encoding="utf-8")
    told = run("deidentify", series, "-o", tmp_path / "out", "--json", status=1)
    record = json.loads(told)
    assert sorted(entry["reason"] for entry in record["refused"]) == ["burned_in", "not_dicom"]
    assert len(record["written"]) == len(rest)
    assert "Muster" not in told
