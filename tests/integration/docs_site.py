"""Files that the documentation assumes in the working folder: small real sets.

All images are those of the bundled sample, laid out under the names that the pages use.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from documentation import REPOSITORY, shown_on
from tiny_data import hippocampus_package
from tiny_model import tiny_package

from segmed.io import read_image, read_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.series import read_series, scan
from segmed.io.dicom.write import Identity, write_series
from segmed.manifest import Case, read_manifest
from segmed.package import ModelPackage
from segmed.structures import Channel

SAMPLE = read_manifest(REPOSITORY / "data_manifests" / "hippocampus_sample.json")
TRAINING = SAMPLE.training[:6]
KEPT_OUT = SAMPLE.test[:5]
STUDY_DATE = "20260115"
"""Of all DICOM series: inside the days that the pages ask for."""

LENIENT_GATE = """
rules: [{metric: dice, margin: 1.0}]
max_more_missed: 1000
max_more_false_positives: 1000
max_slowdown: 1000
"""
"""Lets every challenger pass."""

NAMES = {label.name: label.value for label in SAMPLE.labels}


def copy_cases(
    cases: Sequence[Case], images: Path, labels: Path | None = None, *, ending: str = ""
) -> None:
    """Copy the images of cases as `ID<ending>.nii.gz`, and their labels as `ID.nii.gz`."""
    for case in cases:
        images.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE.image_paths(case)[0], images / f"{case.id}{ending}.nii.gz")
        if labels is not None:
            copy_labels([case], labels)


def copy_labels(cases: Sequence[Case], folder: Path) -> None:
    """Copy the labels of cases as `ID.nii.gz`."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        shutil.copy(str(SAMPLE.label_path(case)), folder / f"{case.id}.nii.gz")


def msd(folder: Path) -> None:
    """The Decathlon's layout; the cases kept out have labels, too."""
    copy_cases(TRAINING, folder / "imagesTr", folder / "labelsTr")
    copy_cases(KEPT_OUT, folder / "imagesTs", folder / "labelsTs")

    def rows(cases: Sequence[Case], part: str) -> list[dict[str, str]]:
        kinds = {"image": f"images{part}", "label": f"labels{part}"}
        return [{kind: f"./{at}/{one.id}.nii.gz" for kind, at in kinds.items()} for one in cases]

    description = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background"} | {str(value): name for name, value in NAMES.items()},
        "training": rows(TRAINING, "Tr"),
        "test": rows(KEPT_OUT, "Ts"),
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def nnunet(folder: Path) -> None:
    """nnU-Net's raw layout."""
    copy_cases(TRAINING, folder / "imagesTr", folder / "labelsTr", ending="_0000")
    copy_cases(KEPT_OUT, folder / "imagesTs", folder / "labelsTs", ending="_0000")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0} | NAMES,
        "numTraining": len(TRAINING),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def pairs(folder: Path) -> None:
    """Images and labels in two folders, under equal names."""
    copy_cases(TRAINING, folder / "images", folder / "labels")


def series(folder: Path, number: int = 0) -> None:
    """One DICOM series."""
    case = SAMPLE.test[number]
    identity = Identity(patient_id=f"SAMPLE-{number:04d}", description="T1 mprage", date=STUDY_DATE)
    write_series(folder, read_image(SAMPLE.image_paths(case)[0]), identity=identity)


def studies(folder: Path, count: int = 2) -> None:
    """An archive of DICOM series, one a study."""
    for number in range(count):
        series(folder / f"study{number}", number)


def labelled_studies(folder: Path) -> None:
    """DICOM studies, each with a segmentation object."""
    for number, case in enumerate(SAMPLE.test[:4]):
        home = folder / f"case{number}"
        series(home / "image", number)
        (audit,) = scan(home / "image")
        write_dicom_seg(
            home / "label" / "seg.dcm",
            read_label(str(SAMPLE.label_path(case))).as_tensor(),
            like=read_series(audit),
            labels=SAMPLE.labels,
            model_name="experts",
            model_version="1",
        )


def scans(folder: Path) -> None:
    """An archive of three NIfTI files."""
    copy_cases(KEPT_OUT[:3], folder)


def package(folder: Path, seed: int = 0) -> None:
    """An untrained model for one MR channel."""
    hippocampus_package(seed).save(folder)


def two_channels(folder: Path) -> None:
    """An untrained model for T1 after contrast and FLAIR."""
    found = tiny_package(channels=2)
    channels = (Channel(name="T1post", modality="MR"), Channel(name="FLAIR", modality="MR"))
    plan = found.plan.model_copy(update={"channels": channels})
    ModelPackage(found.architecture, found.options, plan, found.state).save(folder)


def images(*names: str) -> Callable[[Path], None]:
    """Single NIfTI files of these names."""

    def write(folder: Path) -> None:
        for name, case in zip(names, itertools.cycle(KEPT_OUT), strict=False):
            shutil.copy(SAMPLE.image_paths(case)[0], folder / f"{name}.nii.gz")

    return write


def gate_of_the_registry_page(folder: Path) -> None:
    """`gate.yaml` as docs/registry.md shows it."""
    (rules,) = [
        shown.text
        for shown in shown_on(REPOSITORY / "docs" / "registry.md")
        if shown.language == "yaml"
    ]
    (folder / "gate.yaml").write_text(rules, encoding="utf-8")


def folders_to_score(folder: Path) -> None:
    """Images, references, label maps of other tools, and the names of their labels."""
    copy_cases(KEPT_OUT, folder / "imagesTs", folder / "labelsTs")
    for name in ("nnunet_output", "totalseg", "labels"):
        copy_labels(KEPT_OUT, folder / name)
    (folder / "labels.json").write_text(json.dumps(NAMES), encoding="utf-8")


def mixed_studies(folder: Path) -> None:
    """Labelled DICOM studies, all files in one folder under names that say nothing."""
    labelled_studies(folder)
    for place, path in enumerate(sorted(folder.rglob("*.dcm"))):
        path.rename(folder / f"IM{place:04d}")
    for home in [path for path in folder.iterdir() if path.is_dir()]:
        shutil.rmtree(home)


def knees(folder: Path) -> None:
    """Two scans of each of three people, named `sub-PERSON_SCAN`, and their labels."""
    for number, case in enumerate(TRAINING):
        name = f"sub-{number // 2:02d}_{number % 2}.nii.gz"
        found = {"images": SAMPLE.image_paths(case)[0], "labels": SAMPLE.label_path(case)}
        for kind, path in found.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(str(path), folder / kind / name)


def docker(folder: Path) -> None:
    """The repository's folder of this name."""
    folder.symlink_to(REPOSITORY / "docker")


def single_files(folder: Path) -> None:
    """Images, rules of gates, label maps to score, and the table that MLflow's scoring takes."""
    images("scan", "a", "b", "new_scan", "scan1", "scan2")(folder)
    gate_of_the_registry_page(folder)
    folders_to_score(folder)
    (folder / "lenient.yaml").write_text(LENIENT_GATE, encoding="utf-8")
    (scan, *_) = sorted((folder / "scans").iterdir())
    table = {"dataframe_split": {"columns": ["image"], "data": [[f"scans/{scan.name}"]]}}
    (folder / "input.json").write_text(json.dumps(table), encoding="utf-8")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "Dataset004": nnunet,
    "Task04_Hippocampus": msd,
    "archive": scans,
    "channels": two_channels,
    "data/archive": scans,
    "data/set": msd,
    "dicom_cases": labelled_studies,
    "dicom_folder": series,
    "dicom_series": series,
    "docker": docker,
    "images": pairs,
    "imagesFolder": pairs,
    "incoming": mixed_studies,
    "knees": knees,
    "package": package,
    "scans": scans,
    "set": msd,
    ".": single_files,
}
"""Content of the working folder of every page before its first command, by name."""
