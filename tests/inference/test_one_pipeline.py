"""One pipeline: a bad file ends with one status and one reason wherever it is met."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from mlflow.pyfunc import PythonModelContext
from monai.data import MetaTensor
from pydicom.uid import JPEGLSLossless

from pipelines.tracking.serving import SegmentationModel
from segmed.archive import NotImage, Study, segment_archive
from segmed.errors import ManifestError
from segmed.evaluation import score_cases
from segmed.inference import Predictor, foresee_files, predict_files
from segmed.io import read_image, write_label
from segmed.io.dicom.write import write_series
from segmed.manifest import Case, Manifest

AFFINE = np.diag([-1.5, 1.5, 2.0, 1.0])


@pytest.fixture(scope="module")
def package_folder(make_plan, make_package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = make_package(make_plan(spacing_mm=(2.0, 2.0, 2.0), patch=(16, 16, 16)))
    return package.save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def predictor(make_plan, make_package) -> Predictor:
    package = make_package(make_plan(spacing_mm=(2.0, 2.0, 2.0), patch=(16, 16, 16)))
    return Predictor(package, engine="torch")


def volume(path: Path, shape: tuple[int, ...] = (12, 10, 14), seed: int = 0) -> Path:
    voxels = np.random.default_rng(seed).random(shape).astype(np.float32)
    nib.Nifti1Image(voxels, AFFINE).to_filename(path)
    return path


def series(folder: Path, **attributes: str) -> Path:
    voxels = np.random.default_rng(0).integers(0, 900, (1, 12, 11, 10)).astype(np.float32)
    affine = torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]))
    write_series(folder, MetaTensor(torch.from_numpy(voxels), affine=affine))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for name, value in {"Modality": "MR", **attributes}.items():
            setattr(dataset, name, value)
        dataset.save_as(path)
    return folder


def torn(folder: Path) -> Path:
    path = volume(folder / "torn.nii.gz")
    path.write_bytes(path.read_bytes()[:700])
    return path


def empty(folder: Path) -> Path:
    (folder / "empty.nii.gz").touch()
    return folder / "empty.nii.gz"


def no_gzip(folder: Path) -> Path:
    path = volume(folder / "plain.nii")
    return path.rename(folder / "plain.nii.gz")


def endless_values(folder: Path) -> Path:
    path = folder / "nan.nii"
    nib.Nifti1Image(np.full((9, 9, 9), np.nan, np.float32), AFFINE).to_filename(path)
    return path


def several_times(folder: Path) -> Path:
    return volume(folder / "times.nii.gz", (8, 8, 8, 3))


def flat(folder: Path) -> Path:
    return volume(folder / "flat.nii.gz", (9, 9))


def a_result(folder: Path) -> Path:
    image = read_image(volume(folder / "image.nii"))
    return write_label(folder / "label.nii.gz", torch.ones(image.shape), like=image)


def of_another_modality(folder: Path) -> Path:
    return series(folder / "ct", Modality="CT")


def without_a_slice(folder: Path) -> Path:
    path = series(folder / "gap")
    sorted(path.iterdir())[4].unlink()
    return path


def of_foreign_format(folder: Path) -> Path:
    path = folder / "picture.nii"
    path.write_bytes(b"GIF89a" + bytes(900))
    return path


def damaged_stream(folder: Path) -> Path:
    path = folder / "stream.nii.gz"
    content = bytearray(gzip.compress(volume(folder / "a.nii").read_bytes()))
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


FAULTS: list[tuple[Callable[[Path], Path], str]] = [
    (torn, "truncated"),
    (empty, "empty_file"),
    (no_gzip, "not_gzip"),
    (endless_values, "non_finite"),
    (several_times, "four_dimensional"),
    (flat, "dimensions"),
    (a_result, "derived"),
    (of_another_modality, "other_modality"),
    (without_a_slice, "missing_slice"),
    (of_foreign_format, "unsupported_format"),
    (damaged_stream, "corrupt"),
]

End = tuple[str, str]
"""Status and reason code."""


class OneStudy:
    """A source of one study, which intake has found no fault in."""

    def __init__(self, path: Path) -> None:
        files = tuple(sorted(path.iterdir())) if path.is_dir() else (path,)
        self.study = Study("0" * 64, "nifti", "place", ((path, *files),))

    def studies(self) -> Iterator[Study | NotImage]:
        yield self.study

    def fetch(self, study: Study, folder: Path) -> Study:
        raise AssertionError(f"{study} has its files: {folder}")


def predicted(path: Path, predictor: Predictor, out: Path) -> End:
    (outcome,) = predict_files(predictor, [path], out)
    assert (outcome.output is None) == (outcome.status != "done")
    return outcome.status, str(outcome.reason).partition(":")[0]


def foreseen(path: Path, predictor: Predictor, out: Path) -> End:
    (forecast,) = foresee_files(predictor, [path])
    return forecast.status, str(forecast.reason).partition(":")[0]


def archived(path: Path, predictor: Predictor, out: Path) -> End:
    (outcome,) = segment_archive(OneStudy(path), predictor=predictor, out_dir=out)
    return outcome.status, outcome.reason.partition(":")[0]


def evaluated(path: Path, predictor: Predictor, out: Path) -> End:
    labels = predictor.plan.labels
    # The image is refused before its label, which does not exist, is read.
    case = Case(id="k", group="k", image=(path.name,), label="absent.nii.gz")
    manifest = Manifest(
        name="set",
        labels=labels,
        channels=predictor.plan.channels,
        training=(),
        test=(case,),
        root=path.parent,
    )
    with pytest.raises(ManifestError) as caught:
        score_cases(predictor, manifest, [case], out_dir=out)
    head, reason, _ = str(caught.value).split(": ", 2)
    assert head == "case k"
    return "refused", reason


def served(path: Path, package: Path, out: Path) -> End:
    model = SegmentationModel()
    model.load_context(PythonModelContext({"package": str(package)}, {}))
    answer = model.predict(
        PythonModelContext({}, {}),
        pd.DataFrame({"image": [str(path)]}),
        {"output_dir": str(out)},
    )
    (row,) = answer.to_dict("records")
    return row["status"], str(row["reason"]).partition(":")[0]


def ends(path: Path, predictor: Predictor, package: Path, out: Path) -> dict[str, End]:
    """Status and reason of one file by every way in."""
    ways = {"predict": predicted, "dry run": foreseen, "archive": archived, "evaluate": evaluated}
    found = {name: way(path, predictor, out / name) for name, way in ways.items()}
    return {**found, "served": served(path, package, out / "served")}


@pytest.mark.parametrize(("make", "reason"), FAULTS, ids=[make.__name__ for make, _ in FAULTS])
def test_bad_file_ends_the_same_in_every_command(
    make: Callable[[Path], Path],
    reason: str,
    predictor: Predictor,
    package_folder: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    found = ends(make(tmp_path / "in"), predictor, package_folder, tmp_path / "out")
    assert found == dict.fromkeys(found, ("refused", reason))


def test_crash_of_a_decoder_ends_the_same_in_every_command(
    predictor: Predictor, package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = series(tmp_path / "in/compressed")
    for file in path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(file)
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -SEGV $$\n", encoding="utf-8")
    deadly.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deadly))
    found = ends(path, predictor, package_folder, tmp_path / "out")
    assert found == dict.fromkeys(found, ("refused", "decoder_crashed"))
