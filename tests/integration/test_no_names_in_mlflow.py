"""After a run on images whose headers hold a name, MLflow knows none of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from tiny_data import tiny_plan

from pipelines.comparing import steps
from pipelines.comparing.jobs import TrainJob
from pipelines.registry.promotion import promote
from pipelines.registry.versions import Registry
from pipelines.runs.archiving import ArchiveJob, run_archive
from segmed.manifest import Case, Channel, LabelClass, Manifest, write_manifest
from segmed.package import ModelPackage
from segmed.plan import write_plan
from segmed.training import Budget

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    # Prefect's handler, once another test has set it up, wants a flow around every log line.
    pytest.mark.filterwarnings("ignore:Logger 'segmed.*without a flow run id:UserWarning"),
]


def personal_words(folder: Path) -> set[bytes]:
    """Names, ids and dates of birth in the headers, and the parts of names."""
    words: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {".dcm", ""}:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            for tag in ("PatientName", "PatientID", "PatientBirthDate"):
                value = str(header.get(tag, ""))
                words |= {value, *value.split("^")}
    return {word.encode() for word in words if len(word) > 3}


def test_no_patient_name_or_id_reaches_mlflow(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_data("dicom_nifti_pairs/dcm_qa_12bit")
    words = personal_words(source)
    assert words, "the images are expected to hold a name"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    named = next(iter(sorted(words))).decode()
    cases = []
    for index, volume in enumerate(sorted((source / "Ref").glob("*.nii"))[:2]):
        folder = tmp_path / named / f"series{index}"
        folder.mkdir(parents=True)
        shutil.copy(volume, folder / "image.nii")
        image = nib.load(volume)
        label = np.zeros(image.shape, np.uint8)
        label[tuple(slice(n // 3, 2 * n // 3 + 1) for n in label.shape)] = 1
        nib.save(nib.Nifti1Image(label, image.affine), folder / "label.nii")
        other = np.asarray(image.dataobj) + 1  # the gate leaves out what was trained on
        nib.save(nib.Nifti1Image(other, image.affine), folder / "test.nii")
        cases.append(
            Case(
                id=f"{named}_{index}",
                group=f"{named}_{index}",
                image=(str((folder / "image.nii").relative_to(tmp_path)),),
                label=str((folder / "label.nii").relative_to(tmp_path)),
                fold=index,
            )
        )
    manifest = Manifest(
        name="named",
        labels=(LabelClass(name="block", value=1),),
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        test=tuple(
            case.model_copy(
                update={
                    "id": f"{case.id}_test",
                    "group": f"{case.group}_test",
                    "fold": None,
                    "image": (case.image[0].replace("image.nii", "test.nii"),),
                }
            )
            for case in cases
        ),
        root=tmp_path,
    )
    write_manifest(manifest, tmp_path / "named.json")
    plan = tiny_plan()
    options = {**plan.networks["unet"].options}
    networks = {"unet": plan.networks["unet"].model_copy(update={"options": options})}
    changes = {"labels": manifest.labels, "networks": networks, "name": "named"}
    coarse = plan.preprocessing.model_copy(update={"spacing_mm": (6.0, 6.0, 6.0)})
    write_plan(plan.model_copy(update={**changes, "preprocessing": coarse}), tmp_path / "plan.yaml")
    job = TrainJob(
        tmp_path / "named.json", tmp_path / "plan.yaml", "unet", 0, Budget(epochs=1), tmp_path / "o"
    )
    fold_result = steps.train_alone(job)
    Registry(tmp_path).register(fold_result.package_dir, "named", alias="champion")
    job_of_archive = ArchiveJob(str(source), ("models:/named@champion",), tmp_path / "archive")
    outcomes = run_archive(job_of_archive)["outcomes"]
    assert {entry["status"] for entry in outcomes} == {"done", "refused"}
    other = ModelPackage.load(fold_result.package_dir)
    state = {name: value + 0.0 for name, value in other.state.items()}
    first = sorted(state)[0]
    state[first] = state[first] + 1e-3
    again = replace(other, state=state).save(tmp_path / "again")
    Registry(tmp_path).register(again, "named", alias="challenger")
    rules = tmp_path / "gate.yaml"
    rules.write_text(
        "rules: [{metric: dice, margin: 0.5}]\nmin_cases: 2\nmax_slowdown: 10\n", encoding="utf-8"
    )
    promote("named@challenger", manifest=tmp_path / "named.json", rules=rules, folder=tmp_path)
    assert list((tmp_path / "mlartifacts").rglob("report.html"))
    kept = [tmp_path / "mlflow.db", *(tmp_path / "mlartifacts").rglob("*")]
    for path in kept:
        content = path.read_bytes() if path.is_file() else b""
        for word in words:
            assert word not in content, f"{word!r} in {path.name}"
            assert word.decode() not in str(path.relative_to(tmp_path))
