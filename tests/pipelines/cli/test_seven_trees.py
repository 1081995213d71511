"""Seven common trees, made of real images, are built, checked and planned by one command each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.io import read_image, read_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.manifest import read_manifest
from segmed.structures import LabelClass

Shared = Callable[[str], Path]
NAMES = ("hippocampus_001", "hippocampus_003", "hippocampus_004", "hippocampus_006")


def hippocampus(data: Shared, case: str) -> tuple[Path, Path]:
    folder = data("hippocampus")
    return folder / f"imagesTr/{case}.nii.gz", folder / f"labelsTr/{case}.nii.gz"


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def second_channel(source: Path, target: Path) -> None:
    """The image with inverted grey values, as a channel of another contrast."""
    image = nib.load(source)
    voxels = np.asarray(image.dataobj)
    target.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((voxels.max() - voxels).astype(np.float32), image.affine), target)


def decathlon(root: Path, data: Shared) -> None:
    rows = []
    for case in NAMES:
        image, label = hippocampus(data, case)
        place(image, root / f"imagesTr/{case}.nii.gz")
        place(label, root / f"labelsTr/{case}.nii.gz")
        rows.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
    table = {"0": "background", "1": "Anterior", "2": "Posterior"}
    description = {"name": "H", "modality": {"0": "MRI"}, "labels": table, "training": rows}
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def nnunet(root: Path, data: Shared, *, described: bool = True) -> None:
    for case in NAMES:
        image, label = hippocampus(data, case)
        place(image, root / f"imagesTr/{case}_0000.nii.gz")
        second_channel(image, root / f"imagesTr/{case}_0001.nii.gz")
        place(label, root / f"labelsTr/{case}.nii.gz")
    if described:
        description = {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "anterior": 1, "posterior": 2},
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def bids(root: Path, data: Shared) -> None:
    for number, case in enumerate(NAMES, start=1):
        image, label = hippocampus(data, case)
        stem = f"sub-{number:02d}/anat/sub-{number:02d}"
        place(image, root / f"{stem}_T1w.nii.gz")
        second_channel(image, root / f"{stem}_T2w.nii.gz")
        place(label, root / f"derivatives/labels/{stem}_dseg.nii.gz")


def pictures(root: Path, data: Shared) -> None:
    source = data("isbi2012")
    for number in range(4):
        place(source / f"images/{number}.png", root / f"images/em{number}.png")
        place(source / f"labels/{number}.png", root / f"masks/em{number}.png")


def dicom(root: Path, data: Shared) -> None:
    """Two sessions of brain tumour MR, each with a DICOM-SEG of its tumour."""
    for study in sorted(data("pgbm").glob("PGBM-*/*")):
        home = root / study.parent.name
        shutil.copytree(study, home, ignore=shutil.ignore_patterns("*Mask*"))
        like = read_image(next(home.glob("*T1post*")))
        tumour = read_label(next(study.glob("*Mask*")), like=like).as_tensor() != 0
        label = LabelClass(name="tumour", value=1)
        write_dicom_seg(
            home / "seg/tumour.dcm", tumour[0].to(torch.uint8), like=like, labels=(label,),
            model_name="hand", model_version="1",
        )  # fmt: skip


def several_masks(root: Path, data: Shared) -> None:
    """Cells of an EM picture, one mask file each."""
    source = data("isbi2012")
    for number in range(4):
        place(source / f"images/{number}.png", root / f"pictures/em{number}.png")
        cells, _ = ndimage.label(np.asarray(Image.open(source / f"labels/{number}.png")) > 0)
        (root / f"masks/em{number}").mkdir(parents=True)
        for cell in np.unique(cells)[1:6]:
            pixels = Image.fromarray(((cells == cell) * 255).astype(np.uint8))
            pixels.save(root / f"masks/em{number}/{cell}.png")


def stacks(root: Path, data: Shared) -> None:
    for case in NAMES:
        for path, kind in zip(hippocampus(data, case), ("images", "labels"), strict=True):
            voxels = np.asarray(nib.load(path).dataobj)
            voxels = voxels * (255 / voxels.max()) if kind == "images" else voxels
            (root / kind / case).mkdir(parents=True)
            for number in range(voxels.shape[2]):
                pixels = Image.fromarray(voxels[:, :, number].astype(np.uint8))
                pixels.save(root / kind / case / f"{number:03d}.png")


TREES: list[tuple[str, Callable[[Path, Shared], None], Sequence[str], dict[str, Any]]] = [
    ("decathlon", decathlon, (), {"channels": ["MRI"], "values": [1, 2]}),
    ("nnunet", nnunet, (), {"channels": ["T1", "T2"], "values": [1, 2]}),
    (
        "nnunet_bare",
        lambda root, data: nnunet(root, data, described=False),
        ("--channels", "T1,T2", "--label-names", "anterior,posterior"),
        {"channels": ["T1", "T2"], "values": [1, 2]},
    ),
    (
        "bids",
        bids,
        (
            "--image", "sub-*/anat/*_{T1w,T2w}.nii.gz",
            "--label", "derivatives/labels/sub-*/anat/*_dseg.nii.gz",
        ),
        {"channels": ["T1w", "T2w"], "values": [1, 2]},
    ),
    ("pictures", pictures, ("--label-names", "cell"), {"channels": ["grey"], "values": [255]}),
    ("dicom", dicom, (), {"channels": ["FLAIR_reg", "T1post", "T2_reg"], "values": [1]}),
    (
        "several_masks", several_masks, ("--masks-folder", "masks"),
        {"channels": ["grey"], "values": [1]},
    ),
    ("stacks", stacks, (), {"channels": ["grey"], "values": [1, 2]}),
]  # fmt: skip


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("name", "make", "options", "expected"), TREES, ids=lambda v: str(v)[:16])
def test_a_tree_is_built_checked_and_planned_by_one_command_each(
    tmp_path: Path,
    shared_data: Shared,
    name: str,
    make: Callable[[Path, Shared], None],
    options: Sequence[str],
    expected: dict[str, Any],
) -> None:
    (tmp_path / name).mkdir()
    make(tmp_path / name, shared_data)
    path = tmp_path / "m.json"
    run("manifest", "build", tmp_path / name, "-o", path, *options)
    manifest = read_manifest(path)
    assert [channel.name for channel in manifest.channels] == expected["channels"]
    assert [label.value for label in manifest.labels] == expected["values"]
    assert len(manifest.training) == (2 if name == "dicom" else 4)
    run("manifest", "check", path)
    run("plan", path, "-o", tmp_path / "plan.yaml")
    assert (tmp_path / "plan.yaml").is_file()
