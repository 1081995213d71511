"""Twenty studies through the archive with an imported model, whose outcomes are as our own's."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from nnunet_folders import plans_of, write_folder
from pydicom.uid import generate_uid
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from segmed.models import build_model
from segmed.nnunet import package_of
from segmed.package import ModelPackage
from segmed.plan import Inference, Preprocessing

pytestmark = [pytest.mark.slow, pytest.mark.integration]

STUDIES = 20
BROKEN = 7


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def copy_study(study: Path, target: Path, number: int) -> None:
    """A study with identifiers of its own and a little other voxels."""
    uids: dict[str, str] = {}
    for file in sorted(study.rglob("*.dcm")):
        image = pydicom.dcmread(file)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            if name in image:
                old = str(image[name].value)
                setattr(image, name, uids.setdefault(old, generate_uid()))
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.PatientID = f"P{number}"
        pixels = image.pixel_array.copy()
        pixels[0, 0] = number
        image.PixelData = pixels.tobytes()
        place = target / file.relative_to(study)
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save_as(place)


def own_package(folder: Path, place: Path) -> Path:
    """A package of segmed's own kind for the same structures and channels."""
    imported = package_of(folder).plan
    rules = Preprocessing(spacing_mm=(2.0, 2.0, 2.0), intensity=imported.preprocessing.intensity)
    plan = imported.model_copy(update={"preprocessing": rules, "inference": Inference()})
    options = {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict(), {}).save(place)


@pytest.mark.timeout(3600)
def test_outcomes_are_those_of_our_own_model(
    shared_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    studies = sorted(path for path in shared_data("hippocampus_dicom").iterdir() if path.is_dir())
    for number in range(STUDIES):
        copy_study(studies[number % len(studies)], tmp_path / "archive" / str(number), number)
    files = sorted((tmp_path / "archive" / str(BROKEN)).rglob("*.dcm"))
    files[len(files) // 2].unlink()  # a slice is missing
    folder = write_folder(tmp_path / "results", plans_of(), folds=("0", "1"))
    assert run("model", "import-nnunet", folder, "--name", "imported").exit_code == 0
    own_package(folder, tmp_path / "own")
    outcomes = {}
    for name in ("imported", "own"):
        words = ("--model", name, "-o", f"out-{name}", "--format", "dicom-seg")
        done = run("archive", "segment", "archive", *words)
        assert done.exit_code == 1, done.output
        results = sorted(Path(f"out-{name}").rglob("*.dcm"))
        assert len(results) == STUDIES - 1
        segmented = [pydicom.dcmread(file) for file in results]
        assert len({item.SOPInstanceUID for item in segmented}) == STUDIES - 1
        assert all(item.Modality == "SEG" for item in segmented)
        status = json.loads(run("archive", "status", f"out-{name}", "--json").stdout)
        outcomes[name] = {key: status[key] for key in ("counts", "refused_and_failed")}
        again = run("archive", "segment", "archive", *words)
        assert again.exit_code in {0, 1}
        assert sorted(Path(f"out-{name}").rglob("*.dcm")) == results
    ours, theirs = outcomes["own"], outcomes["imported"]
    assert theirs["counts"] == ours["counts"]
    reasons = [[entry["reason"] for entry in one["refused_and_failed"]] for one in (ours, theirs)]
    assert reasons[0] == reasons[1]
    assert len(reasons[0]) == 1
