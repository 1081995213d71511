"""Names of results: no input is replaced, and no result by another image's."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from segmed.errors import UsageError
from segmed.inference import Outcome, Predictor, predict_files
from segmed.inference.inputs import find_all
from segmed.inference.result_names import ORIGINS_FILE
from segmed.io import read_label
from segmed.io.results import why_result


@pytest.fixture(scope="module")
def predictor(make_plan, make_package) -> Predictor:
    return Predictor(make_package(make_plan(spacing_mm=(2.0, 2.0, 2.0))), engine="torch")


def write_volume(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).random((9, 8, 7)).astype(np.float32)
    nib.Nifti1Image(voxels, np.diag([-1.5, 1.5, 2.0, 1.0])).to_filename(path)
    return path


def write_flat(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(predictor: Predictor, inputs: Sequence[Path], out: Path, **options) -> list[Outcome]:
    return list(predict_files(predictor, inputs, out, **options))


def results_in(folder: Path) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ORIGINS_FILE]
    return sorted(str(path.relative_to(folder)) for path in found)


def test_results_keep_folders_and_names(tmp_path: Path, predictor: Predictor) -> None:
    names = ["sub-07/ses-1/T1.nii.gz", "sub-07/ses-2/T1.nii", "sub-08/T1.nii.gz", "top.v1.nii"]
    for seed, name in enumerate(names):
        write_volume(tmp_path / "scans" / name, seed)
    outcomes = run(predictor, [tmp_path / "scans"], tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["done"] * 4
    assert results_in(tmp_path / "out") == sorted(
        name.removesuffix(".gz").removesuffix(".nii") + ".nii.gz" for name in names
    )
    alone = run(predictor, [tmp_path / "scans/sub-08"], tmp_path / "alone")
    assert [outcome.output for outcome in alone] == [tmp_path / "alone/T1.nii.gz"]


def test_inputs_whose_results_would_have_one_name_are_refused(
    tmp_path: Path, predictor: Predictor
) -> None:
    write_volume(tmp_path / "a/t1.nii.gz", 1)
    write_volume(tmp_path / "b/t1.nii.gz", 2)
    write_volume(tmp_path / "b/t1.nii", 3)
    write_volume(tmp_path / "b/Lone.nii", 4)
    write_volume(tmp_path / "c/lone.nii", 5)
    write_volume(tmp_path / "c/other.nii", 6)
    outcomes = run(predictor, [tmp_path / name for name in "abc"], tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == [*["refused"] * 5, "done"]
    assert all("--names hash" in str(outcome.reason) for outcome in outcomes[:5])
    assert results_in(tmp_path / "out") == ["other.nii.gz"]
    whole = run(predictor, [tmp_path / "a", tmp_path / "c"], tmp_path / "hashed", names="hash")
    assert len({outcome.output for outcome in whole}) == 3


def test_rasters_of_one_name_are_refused(tmp_path: Path, make_plan, make_package) -> None:
    flat = make_plan(spatial_dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0))
    for seed, name in enumerate(["x.jpg", "x.tif", "y.png"]):
        write_flat(tmp_path / "in" / name, seed)
    outcomes = run(
        Predictor(make_package(flat), engine="torch"), [tmp_path / "in"], tmp_path / "out"
    )
    assert [outcome.status for outcome in outcomes] == ["refused", "refused", "done"]


@pytest.mark.parametrize("kind", ["other input", "foreign file", "hard link", "link", "mask"])
def test_what_exists_is_not_replaced(tmp_path: Path, predictor: Predictor, kind: str) -> None:
    image, out = write_volume(tmp_path / "new/x.nii.gz", 1), tmp_path / "out"
    other = write_volume(tmp_path / "old/x.nii.gz", 2)
    target = out / "x.nii.gz"
    out.mkdir()
    if kind == "link":
        target.symlink_to(other)
    elif kind == "hard link":
        os.link(image, target)
    elif kind == "other input":
        write_volume(target, 3)
    else:
        target.write_bytes(b"of somebody else")
    before = [path.read_bytes() for path in (image, other, target)]
    inputs = [image, target] if kind == "other input" else [image]
    outcomes = run(predictor, inputs, out)
    assert [outcome.status for outcome in outcomes] == ["refused"] * len(inputs)
    assert [path.read_bytes() for path in (image, other, target)] == before


def test_output_folder_that_is_the_input_folder_loses_nothing(
    tmp_path: Path, predictor: Predictor
) -> None:
    image = write_volume(tmp_path / "scans/x.nii.gz", 1)
    before = image.read_bytes()
    [outcome] = run(predictor, [tmp_path / "scans"], tmp_path / "scans")
    assert outcome.status == "refused"
    assert "replace its input" in str(outcome.reason)
    assert image.read_bytes() == before


def test_own_earlier_result_is_replaced_and_another_images_is_not(
    tmp_path: Path, predictor: Predictor
) -> None:
    first = write_volume(tmp_path / "a/x.nii.gz", 1)
    second = write_volume(tmp_path / "b/x.nii.gz", 2)
    out = tmp_path / "out"
    [done] = run(predictor, [first], out)
    content = Path(str(done.output)).read_bytes()
    [refused] = run(predictor, [second], out)
    assert refused.status == "refused"
    assert "not an earlier result of this input" in str(refused.reason)
    assert Path(str(done.output)).read_bytes() == content
    write_volume(first, 3)
    [again] = run(predictor, [first], out)
    assert again.status == "done"
    assert Path(str(done.output)).read_bytes() != content
    assert (out / ORIGINS_FILE).stat().st_mode & 0o777 == 0o600


def test_results_of_a_version_without_records_are_known_by_predictions_json(
    tmp_path: Path, predictor: Predictor
) -> None:
    image, out = write_volume(tmp_path / "scans/x.nii.gz", 1), tmp_path / "scans/out"
    [done] = run(predictor, [image], out)
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), str(done.output))
    (out / ORIGINS_FILE).unlink()
    entry = {"input": str(image), "output": str(done.output)}
    (out / "predictions.json").write_text(json.dumps({"outcomes": [entry]}), encoding="utf-8")
    assert [case.files for case in find_all([tmp_path / "scans"], 1).cases] == [(image,)]
    assert [o.status for o in run(predictor, [tmp_path / "scans"], out)] == ["done"]


@pytest.mark.parametrize("output_format", ["nifti", "probabilities"])
def test_results_are_not_taken_for_images(
    tmp_path: Path, predictor: Predictor, output_format
) -> None:
    image = write_volume(tmp_path / "scans/x.nii.gz", 1)
    options = {"format": output_format}
    [first] = run(predictor, [tmp_path / "scans"], tmp_path / "scans/out", **options)
    result = Path(str(first.output))
    (tmp_path / "scans/notes.txt").write_text("seen", encoding="utf-8")
    again = run(predictor, [tmp_path / "scans"], tmp_path / "scans/out", **options)
    assert [outcome.input for outcome in again] == [image]
    passed = find_all([tmp_path / "scans"], 1).passed_over
    assert set(passed) == {result, tmp_path / "scans/notes.txt"}
    [refused] = run(predictor, [result], tmp_path / "elsewhere")
    assert str(refused.reason).startswith("derived: ")


def test_label_maps_of_others_are_known(tmp_path: Path, make_plan, make_package) -> None:
    label = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
    label.header.set_intent("label")
    label.to_filename(tmp_path / "aseg.nii.gz")
    (tmp_path / "slicer.seg.nrrd").write_bytes(b"NRRD0005\nSegment0_ID:=Segment_1\n\n")
    flat = make_plan(spatial_dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0))
    [done] = run(
        Predictor(make_package(flat), engine="torch"),
        [write_flat(tmp_path / "x.png")],
        tmp_path / "out",
    )
    for path in (tmp_path / "aseg.nii.gz", tmp_path / "slicer.seg.nrrd", Path(str(done.output))):
        assert why_result(path)
    assert not why_result(tmp_path / "x.png")
    assert read_label(tmp_path / "aseg.nii.gz").max() == 1


@pytest.mark.parametrize("output_format", ["nifti", "probabilities"])
@pytest.mark.parametrize(
    "name",
    [b"M\xfcller.nii.gz", b"x" * 241 + b".nii.gz", "ä".encode() * 120 + b".nii", b"a\nb.nii"],
    ids=["latin-1", "long", "long letters", "line break"],
)
def test_odd_names_have_results(
    tmp_path: Path, predictor: Predictor, name: bytes, output_format
) -> None:
    write_volume(tmp_path / "plain.nii.gz")
    (tmp_path / "in").mkdir()
    source = tmp_path / ("plain.nii.gz" if name.endswith(b".gz") else "plain.nii")
    write_volume(source).rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name))
    [outcome] = run(predictor, [tmp_path / "in"], tmp_path / "out", format=output_format)
    assert outcome.status == "done", outcome.reason
    written = Path(str(outcome.output)).name
    assert len(written.encode("utf-8")) <= 255
    assert "\n" not in written


def test_names_by_source_and_hash_of_a_dicom_series(
    tmp_path: Path, predictor: Predictor, shared_data
) -> None:
    series = shared_data("hippocampus_dicom") / "study1"
    [plain] = run(predictor, [series], tmp_path / "plain")
    [named] = run(predictor, [series], tmp_path / "named", names="source")
    [deep] = run(predictor, [series.parent], tmp_path / "deep", names="source")[:1]
    assert Path(str(plain.output)).name.startswith("series-")
    assert named.output == tmp_path / "named/study1.nii.gz"
    assert deep.output == tmp_path / "deep/study1.nii.gz"
    with pytest.raises(UsageError, match="known are"):
        run(predictor, [series], tmp_path, names="folder")


@pytest.mark.parametrize("field", ["PatientID", "StudyInstanceUID"])
def test_equal_series_uids_of_two_owners_have_two_results(
    tmp_path: Path, predictor: Predictor, shared_data, field: str
) -> None:
    for owner in ("one", "two"):
        (tmp_path / "in" / owner).mkdir(parents=True)
        for path in sorted((shared_data("hippocampus_dicom") / "study1").glob("*.dcm")):
            dataset = pydicom.dcmread(path)
            if owner == "two":
                setattr(dataset, field, "1.2.3")
            dataset.save_as(tmp_path / "in" / owner / path.name)
    outcomes = run(predictor, [tmp_path / "in"], tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert len({outcome.output for outcome in outcomes}) == 2
    for owner, outcome in zip(("one", "two"), outcomes, strict=True):
        [alone] = run(predictor, [tmp_path / "in" / owner], tmp_path / "alone" / owner)
        assert Path(str(alone.output)).name == Path(str(outcome.output)).name


def test_advice_on_two_inputs_of_one_folder_is_one_that_helps(
    tmp_path: Path, predictor: Predictor
) -> None:
    write_volume(tmp_path / "in" / "a.nii.gz")
    write_volume(tmp_path / "in" / "A.nii.gz", 1)
    for outcome in run(predictor, [tmp_path / "in"], tmp_path / "out"):
        assert "rename one, or name results by --names hash" in str(outcome.reason)
    named = run(predictor, [tmp_path / "in"], tmp_path / "out", names="hash")
    assert [outcome.status for outcome in named] == ["done", "done"]
