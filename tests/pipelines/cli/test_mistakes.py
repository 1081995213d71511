"""Mistakes of a first day: each gets one line that names the object, the value and the repair."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_data import tiny_plan
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.flows.runner import without_expected_tracebacks
from segmed.errors import ManifestError
from segmed.full_disk import is_full_disk
from segmed.models import build_model
from segmed.package import ModelPackage

SAMPLE = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample"


def segmed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def one_line(result: Result) -> str:
    """The only line of an error that ends with status 2."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("segmed: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three cases of the sample as images/ and labels/."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for path in sorted((SAMPLE / "labels").glob("*.nii.gz"))[:3]:
        shutil.copy(path, tmp_path / "set" / "labels")
        shutil.copy(SAMPLE / "images" / path.name, tmp_path / "set" / "images")
    return tmp_path / "set"


@pytest.fixture
def archive_package(tmp_path: Path) -> Path:
    """An untrained model of one channel."""
    plan = tiny_plan()
    options = plan.networks["unet"].options
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict()).save(tmp_path / "package")


def first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def test_missing_mask_says_where_it_was_looked_for_and_with_which_endings(tree: Path) -> None:
    gone = first(tree / "labels")
    gone.unlink()
    line = one_line(segmed("manifest", "build", tree, "-o", tree / "set.json"))
    assert gone.name in line
    assert str(tree / "labels") in line
    assert ".nii.gz" in line


@pytest.mark.parametrize("suffix", ["_seg", "-label", ".mask"])
def test_masks_beside_images_name_the_option_and_the_ending_found(tree: Path, suffix: str) -> None:
    for label in (tree / "labels").iterdir():
        stem = label.name.removesuffix(".nii.gz")
        label.rename(tree / "images" / f"{stem}{suffix}.nii.gz")
    (tree / "labels").rmdir()
    line = one_line(segmed("manifest", "build", tree, "-o", tree / "set.json"))
    assert f"--label-suffix {suffix}" in line
    words = ("--label-suffix", suffix, "-o", tree / "set.json", "--folds", "2")
    assert segmed("manifest", "build", tree, *words).exit_code == 0


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
def test_label_of_several_components_is_advised_to_be_one_map(
    tree: Path, shape: tuple[int, ...]
) -> None:
    path = first(tree / "labels")
    label = nib.load(path)
    values = np.asarray(label.dataobj).astype(np.uint8)
    many = np.broadcast_to(values.reshape(*values.shape, *(1 for _ in shape)), values.shape + shape)
    nib.save(nib.Nifti1Image(many, label.affine), path)
    line = one_line(segmed("manifest", "build", tree, "-o", tree / "set.json", "--folds", "2"))
    assert path.name in line
    assert "a value of its own" in line


@pytest.mark.parametrize("step", [(2, 1, 1), (1, 1, 3)])
def test_label_on_another_grid_is_reported_with_both_spacings(
    tree: Path, step: tuple[int, int, int]
) -> None:
    path = first(tree / "labels")
    label = nib.load(path)
    coarse = np.asarray(label.dataobj)[:: step[0], :: step[1], :: step[2]].astype(np.uint8)
    nib.save(nib.Nifti1Image(coarse, label.affine @ np.diag([*step, 1.0])), path)
    built = segmed("manifest", "build", tree, "-o", tree / "set.json", "--folds", "2")
    assert built.exit_code == 0, built.output
    result = segmed("manifest", "check", tree / "set.json")
    assert result.exit_code == 1
    assert "1 x 1 x 1 mm" in result.stdout
    assert " x ".join(map(str, step)) + " mm" in result.stdout


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["a/readme.md", "b/table.csv"]])
def test_archive_without_an_image_is_an_error(
    tmp_path: Path, content: list[str], archive_package: Path
) -> None:
    for name in content:
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("nothing to segment", encoding="utf-8")
    (tmp_path / "scans").mkdir(exist_ok=True)
    words = ("--model", archive_package, "-o", tmp_path / "out")
    line = one_line(segmed("archive", "segment", tmp_path / "scans", *words))
    assert str(tmp_path / "scans") in line
    assert "contains no" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [("--format", "jpeg"), ("--table", "xlsx"), ("--names", "mine"), ("--engine", "abacus")],
)
def test_unknown_choice_of_an_archive_run_is_refused_before_anything_is_written(
    tmp_path: Path, archive_package: Path, option: str, value: str
) -> None:
    (tmp_path / "scans").mkdir()
    words = ("--model", archive_package, "-o", tmp_path / "out", option, value)
    assert f"{value!r}: known are" in one_line(
        segmed("archive", "segment", tmp_path / "scans", *words)
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [("manifest", "build", "{set}", "-o"), ("plan", "{set}/set.json", "-o")],
)
def test_output_that_is_a_folder_but_should_be_a_file(tree: Path, words: tuple[str, ...]) -> None:
    segmed("manifest", "build", tree, "-o", tree / "set.json", "--folds", "2")
    line = one_line(segmed(*(word.format(set=tree) for word in words), tree / "images"))
    assert f"--out {tree / 'images'} is a folder" in line


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("56595 requested and 55264 written"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        ValueError("database or disk is full"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 790656 vs 790548"),
    ],
)
def test_full_disk_is_one_line_in_flows_and_commands(
    error: Exception,
) -> None:
    assert is_full_disk(error)
    caused = ManifestError("case a")
    caused.__cause__ = error
    assert is_full_disk(caused)
    record = logging.LogRecord("x", 40, "", 0, "failed", None, (type(error), error, None))
    without_expected_tracebacks(record)
    assert record.exc_info is None


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), RuntimeError("shape")])
def test_other_errors_are_no_full_disk(error: Exception) -> None:
    assert not is_full_disk(error)


def test_torchrun_starts_trainings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes would each do the whole of another command, and write the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    for words in (("compare", "m.json"), ("archive", "status", tmp_path), ("doctor",)):
        line = one_line(segmed(*words))
        assert f"torchrun starts `segmed train` alone, got '{words[0]}'" in line
        assert "--side-by-side" in line
    assert "torchrun" not in one_line(segmed("train", "m.json", "--model", "unet"))
