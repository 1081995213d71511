"""Names of the outputs of an archive, and the index of outputs and inputs."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from tiny_model import tiny_package

from segmed.archive import FolderSource, RunOptions, StudyOutcome, segment_archive
from segmed.archive.index import IndexRow, find_inputs_of, list_index
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.package import ModelPackage

Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scans"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(root: Path, predictor: Predictor, out: Path, **given) -> list[StudyOutcome]:
    options = RunOptions(min_free_bytes=0, **given)
    source = FolderSource(root)
    return list(segment_archive(source, predictor=predictor, out_dir=out, options=options))


def outputs_in(out: Path) -> list[str]:
    folder = out / "segmentations"
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(folder)) for path in found)


def found(out: Path, *texts: object) -> list[IndexRow]:
    return list(find_inputs_of(out, [str(text) for text in texts]))


def test_outputs_keep_folders_and_names(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write
) -> None:
    for seed, name in enumerate(["sub-07/T1.nii.gz", "sub-08/T1.nii", "sub-08/T2.v1.nii.gz"]):
        write_nifti(root / name, seed)
    run(root, predictor, out)
    assert outputs_in(out) == ["sub-07/T1.nii.gz", "sub-08/T1.nii.gz", "sub-08/T2.v1.nii.gz"]


def test_dicom_outputs_are_named_by_hash_or_by_folder_if_asked(
    root: Path, tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    write_dicom(root / "ANNA/T1", 1)
    for number, path in enumerate([*write_dicom(root / "x", 2), *write_dicom(root / "y", 3)]):
        (root / "flat").mkdir(exist_ok=True)
        path.rename(root / f"flat/{number}.dcm")
    run(root, predictor, tmp_path / "plain")
    assert len(outputs_in(tmp_path / "plain")) == 3
    assert all(len(Path(name).name) == 16 + 1 + 8 + 7 for name in outputs_in(tmp_path / "plain"))
    run(root, predictor, tmp_path / "named", names="source")
    first, second, third = outputs_in(tmp_path / "named")
    assert first == "ANNA/T1.nii.gz"
    assert second.startswith("flat-")
    assert third.startswith("flat-")
    page = (tmp_path / "plain/report.html").read_text(encoding="utf-8")
    assert f'href="segmentations/{outputs_in(tmp_path / "plain")[0]}"' in page
    assert "ANNA" not in (tmp_path / "named/report.html").read_text(encoding="utf-8")


def test_volume_files_are_named_by_hash_if_asked(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write
) -> None:
    write_nifti(root / "ANNA/T1.nii.gz", 1)
    [outcome] = run(root, predictor, out, names="hash")
    assert outputs_in(out) == [f"{outcome.study}-{outcome.package[:8]}.nii.gz"]
    with pytest.raises(UsageError, match="known are"):
        run(root, predictor, out, names="folder")


@pytest.mark.parametrize(
    "names", [("a.nii", "a.nii.gz"), ("Scan.nii", "scan.nii"), ("é.nii", "e\u0301.nii")]
)
def test_inputs_of_one_output_name_have_an_output_each(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write, names: tuple[str, str]
) -> None:
    for seed, name in enumerate(names):
        write_nifti(root / name, seed)
    outcomes = run(root, predictor, out)
    assert len({str(outcome.output).casefold() for outcome in outcomes}) == 2
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    for name in names:
        [row] = [row for row in list_index(out) if row.input == str(root / name)]
        label, image = nib.load(out / row.output), nib.load(root / name)
        np.testing.assert_array_equal(
            np.asarray(label.dataobj), predictor_label(predictor, root / name)
        )
        assert label.shape == image.shape


def predictor_label(predictor: Predictor, path: Path) -> np.ndarray:
    from segmed.io import read_image  # noqa: PLC0415 - of this check alone

    return np.asarray(predictor.predict(read_image(path)).label)[0]


@pytest.mark.parametrize("kind", ["file", "link", "hard link", "folder"])
def test_what_is_not_ours_is_not_replaced(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write, kind: str
) -> None:
    image = write_nifti(root / "T1.nii.gz", 1)
    target = out / "segmentations/T1.nii.gz"
    target.parent.mkdir(parents=True)
    if kind == "folder":
        target.mkdir()
    elif kind == "link":
        target.symlink_to(image)
    elif kind == "hard link":
        os.link(image, target)
    else:
        target.write_bytes(b"of somebody else")
    before = None if kind == "folder" else target.read_bytes()
    [outcome] = run(root, predictor, out)
    assert outcome.status == "done"
    assert outcome.output != "segmentations/T1.nii.gz"
    assert before is None or target.read_bytes() == before
    [again] = run(root, predictor, out)
    assert (again.output, again.fresh) == (outcome.output, False)


def test_name_below_a_name_finds_another_place(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write
) -> None:
    write_nifti(root / "T1.nii", 1)
    write_nifti(root / "T1.nii.gz/deep.nii", 2)
    outcomes = run(root, predictor, out)
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert len(outputs_in(out)) == 2


def test_archive_that_is_its_own_output_folder(
    root: Path, predictor: Predictor, write_nifti: Write
) -> None:
    image = write_nifti(root / "segmentations/T1.nii.gz", 1)
    other = write_nifti(root / "T2.nii.gz", 2)
    before = image.read_bytes(), other.read_bytes()
    for _ in range(2):
        assert [outcome.status for outcome in run(root, predictor, root)] == ["done"]
    assert (image.read_bytes(), other.read_bytes()) == before
    [outcome] = run(root / "segmentations", predictor, root)
    assert (image.read_bytes(), other.read_bytes()) == before
    assert outcome.status == "done"


def test_outputs_of_other_runs_are_no_inputs(
    root: Path, tmp_path: Path, predictor: Predictor, write_nifti: Write
) -> None:
    write_nifti(root / "T1.nii.gz", 1)
    run(root, predictor, root / "results")
    assert len(run(root, predictor, tmp_path / "out")) == 1
    shutil.copytree(root / "results/segmentations", root / "copied")
    assert len(run(root, predictor, tmp_path / "out")) == 1


def test_renamed_input_keeps_its_output_and_a_new_image_gets_its_own(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write
) -> None:
    write_nifti(root / "a.nii.gz", 1)
    [first] = run(root, predictor, out)
    content = (out / str(first.output)).read_bytes()
    (root / "a.nii.gz").rename(root / "b.nii.gz")
    run(root, predictor, out)
    write_nifti(root / "a.nii.gz", 2)
    outcomes = run(root, predictor, out)
    assert len({outcome.output for outcome in outcomes}) == 2
    assert (out / str(first.output)).read_bytes() == content
    assert {row.output for row in found(out, "b.nii.gz")} == {first.output}


def test_changed_input_has_its_output_under_the_same_name(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write
) -> None:
    write_nifti(root / "a.nii.gz", 1)
    [first] = run(root, predictor, out)
    write_nifti(root / "a.nii.gz", 2)
    [second] = run(root, predictor, out)
    assert first.output == second.output == "segmentations/a.nii.gz"
    assert outputs_in(out) == ["a.nii.gz"]
    [third] = run(root, predictor, out)
    assert not third.fresh


def test_other_model_does_not_replace_the_result_of_the_first(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write
) -> None:
    write_nifti(root / "a.nii.gz", 1)
    [first] = run(root, predictor, out)
    other = Predictor(tiny_package(seed=1), device="cpu", engine="torch")
    [second] = run(root, other, out, resegment=True)
    assert outputs_in(out) == sorted(["a.nii.gz", f"a-{second.package[:8]}.nii.gz"])
    rows = found(out, root / "a.nii.gz")
    assert {(row.output, row.package) for row in rows} == {
        (first.output, first.package),
        (second.output, second.package),
    }


def test_names_that_are_no_text_and_long_ones_end_nothing(
    root: Path, out: Path, predictor: Predictor, write_nifti: Write, write_dicom
) -> None:
    for seed, name in enumerate([b"M\xfcller.nii.gz", b"x" * 248 + b".nii.gz", b"plain.nii.gz"]):
        path = write_nifti(root / "new.nii.gz", seed)
        os.rename(path, os.fsencode(root) + b"/" + name)  # noqa: PTH104 - bytes
    write_dicom(root / "new", 7)
    os.rename(root / "new", os.fsencode(root) + b"/\xe4lter")  # noqa: PTH104 - bytes
    (Path(os.fsdecode(os.fsencode(root) + b"/\xe9.txt"))).write_text("x", encoding="utf-8")
    outcomes = run(root, predictor, out)
    assert [outcome.status for outcome in outcomes] == ["done"] * 4
    assert "M%FCller.nii.gz" in outputs_in(out)
    [row] = found(out, "ller")
    assert row.input.endswith("M\\xfcller.nii.gz")
    assert len({outcome.output for outcome in run(root, predictor, out)}) == 4


def test_pictures_are_segmented_by_a_model_of_planes_only(
    root: Path, tmp_path: Path, predictor: Predictor, write_nifti: Write, flat_package: ModelPackage
) -> None:
    root.mkdir()
    for number, suffix in enumerate(["png", "tif", "jpg"]):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.{suffix}")
    flat = Predictor(flat_package, device="cpu", engine="torch")
    outcomes = run(root, flat, tmp_path / "flat")
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert outputs_in(tmp_path / "flat") == ["0.png", "1.png", "2.png"]
    assert {outcome.form for outcome in outcomes} == {"png", "tiff", "jpeg"}
    write_nifti(root / "a.nii.gz", 1)
    [volume] = run(root, predictor, tmp_path / "deep")
    assert volume.form == "nifti"


@pytest.fixture(scope="session")
def flat_package() -> ModelPackage:
    return tiny_package(dims=2)


def test_index_answers_both_ways(
    root: Path, out: Path, tmp_path: Path, predictor: Predictor, write_nifti: Write, write_dicom
) -> None:
    write_nifti(root / "sub-07/T1.nii.gz", 1)
    write_nifti(root / "sub-08/T1.nii.gz", 2)
    slices = write_dicom(root / "series", 3)
    cut = write_nifti(root / "cut.nii.gz", 4)
    cut.write_bytes(cut.read_bytes()[:-40])
    outcomes = {outcome.study: outcome for outcome in run(root, predictor, out)}
    [volume] = found(out, "SUB-07")
    assert volume.output == "segmentations/sub-07/T1.nii.gz"
    assert volume.input == str(root / "sub-07/T1.nii.gz")
    assert volume.package == outcomes[volume.study].package
    assert set(volume.volumes_ml) == {"anterior", "posterior"}
    header = pydicom.dcmread(slices[3])
    [series] = found(out, header.SeriesInstanceUID)
    assert header.StudyInstanceUID in series.uids
    moved = tmp_path / "elsewhere.nii.gz"
    shutil.copy(out / volume.output, moved)
    for text in (root / "sub-07/T1.nii.gz", out / volume.output, moved, volume.study, volume.key):
        assert found(out, text) == [volume]
    assert found(out, slices[5]) == [series]
    assert found(out, "sub", "T1", "08")[0].output == "segmentations/sub-08/T1.nii.gz"
    [refused] = found(out, "truncated")
    assert refused.fetch_again == (str(cut),)
    assert not found(out, "sub-09")
    with (out / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["input"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 4
    assert rows[str(cut)]["fetch_again"] == str(cut)
    assert json.loads(rows[volume.input]["volumes_ml"]) == volume.volumes_ml
    assert (out / "index.csv").stat().st_mode & 0o777 == 0o600


def test_files_at_fault_of_a_series_are_named_in_the_index_alone(
    root: Path, out: Path, predictor: Predictor, write_dicom
) -> None:
    slices = write_dicom(root / "MUSTER", 3)
    slices[4].write_bytes(slices[4].read_bytes()[:-100])
    [outcome] = run(root, predictor, out)
    assert outcome.status == "refused"
    [row] = found(out, outcome.study)
    assert row.fetch_again == (str(slices[4]),)
    assert "MUSTER" not in (out / "report.html").read_text(encoding="utf-8")
