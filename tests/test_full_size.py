"""Sets of the sizes that once failed: 5,000 volumes, 100,000 pictures, with 256 open files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_data import CHANNELS, LABELS, tiny_plan

from segmed.manifest import Case, Manifest, write_manifest
from segmed.plan import write_plan

NUM_VOLUMES = 5_000
"""A file that stays open for each case failed at 508 cases of two."""

NUM_PICTURES = 100_000
"""Files, half of them masks."""

SIDE = 32
GROWTH_MB = 150
"""Memory that 4,900 more cases may take: 30 kB each, a fifth of one image and label."""

BUILD_MB = 800
"""Memory of building a manifest of 50,000 cases, libraries included."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def used_by(*words: str | Path) -> dict[str, Any]:
    """Return the report of a process of the full size."""
    script = Path(__file__).with_name("full_size_process.py")
    done = subprocess.run(
        [sys.executable, str(script), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_volumes(folder: Path) -> list[Case]:
    """Small volumes with two structures, no two alike; the first eight are held out by fold 0."""
    image = np.random.default_rng(0).integers(0, 200, (SIDE, SIDE, SIDE)).astype(np.uint8)
    label = np.zeros(image.shape, np.uint8)
    label[4:12, 4:12, 4:12], label[16:28, 16:28, 16:28] = 1, 2
    image = image // 4 + 90 * label
    cases = []
    for number in range(NUM_VOLUMES):
        image[0, 0, :4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
        for kind, voxels in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"c{number}_{kind}.nii")
        files = {"image": (f"c{number}_image.nii",), "label": f"c{number}_label.nii"}
        cases.append(Case(id=f"c{number}", group=f"c{number}", fold=int(number >= 8), **files))
    return cases


def test_a_training_on_5000_cases_takes_the_files_and_the_memory_of_one_on_100(
    tmp_path: Path,
) -> None:
    cases = write_volumes(tmp_path)
    write_plan(tiny_plan(steps=60), tmp_path / "plan.yaml")
    found = {}
    for count in (100, NUM_VOLUMES):
        manifest = Manifest(
            name="many",
            labels=LABELS,
            channels=CHANNELS,
            training=tuple(cases[:count]),
            root=tmp_path,
        )
        path = write_manifest(manifest, tmp_path / f"{count}.json")
        found[count] = used_by("train", path, tmp_path / "plan.yaml", tmp_path / f"out{count}")
        assert found[count]["steps"] == 60
    print(found)
    assert found[NUM_VOLUMES]["peak_mb"] < found[100]["peak_mb"] + GROWTH_MB, found


def png_of(voxels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(voxels).save(stream, "PNG")
    return stream.getvalue()


def test_a_manifest_of_100000_pictures_is_built_with_few_files_in_bounded_memory(
    tmp_path: Path,
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (24, 24)).astype(np.uint8)
    mask = np.zeros(image.shape, np.uint8)
    mask[6:18, 6:18] = 255
    kept = png_of(mask)
    for number in range(NUM_PICTURES // 2):
        image[0, :4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
        (tmp_path / f"set/images/c{number}.png").write_bytes(png_of(image))
        (tmp_path / f"set/masks/c{number}.png").write_bytes(kept)
    found = used_by("build", tmp_path / "set", tmp_path / "set.json")
    print(found)
    assert found["cases"] == NUM_PICTURES // 2
    assert found["peak_mb"] < BUILD_MB, found
