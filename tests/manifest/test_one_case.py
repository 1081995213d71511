"""A case that cannot be examined at all is one fault; the others are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.archive.job import failure_result
from segmed.errors import ImageError, ManifestError, is_out_of_memory
from segmed.inference.files import bad_outcome
from segmed.manifest import build_manifest, check_manifest, write_manifest
from segmed.manifest.content import with_digests


def test_a_file_that_vanishes_before_its_digest_is_named(paired_set: Path) -> None:
    manifest = build_manifest(paired_set)
    (manifest.root / manifest.training[2].image[0]).unlink()
    with pytest.raises(ManifestError, match=f"case {manifest.training[2].id!r} cannot be read"):
        with_digests(manifest)


def test_files_that_the_system_does_not_open_are_faults_of_their_cases(paired_set: Path) -> None:
    manifest = build_manifest(paired_set)
    loop = manifest.root / manifest.training[0].image[0]
    loop.unlink()
    loop.symlink_to(loop.name)  # a link to itself, which no one can open
    endless = manifest.training[1].model_copy(update={"image": ("images/" + "x" * 300,)})
    spoiled = manifest.model_copy(
        update={"training": (manifest.training[0], endless, *manifest.training[2:])}
    )
    faults = [fault for fault in check_manifest(spoiled) if fault.severity == "error"]
    assert {fault.case_id for fault in faults} >= {manifest.training[0].id, manifest.training[1].id}
    assert not {fault.case_id for fault in faults} & {case.id for case in manifest.training[2:]}


@pytest.mark.parametrize("odd", [b"p\xff0_s0", b"\xe9t\xe9", b"\x80"])
def test_a_name_that_is_no_utf8_is_refused_in_one_line(paired_set: Path, odd: bytes) -> None:
    for folder in ("images", "labels"):
        name = os.fsdecode(odd) + ".nii.gz"
        (paired_set / folder / "p0_s0.nii.gz").rename(paired_set / folder / name)
    with pytest.raises(ManifestError, match=r"are not UTF-8.*: rename the file") as caught:
        build_manifest(paired_set)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    "labels", [{"0": "background", "70000": "organ"}, {"0": "background", "-3": "a"}]
)
def test_what_no_manifest_can_hold_is_refused_in_one_line(
    paired_set: Path, labels: dict[str, str]
) -> None:
    rows = [
        {"image": f"images/{path.name}", "label": f"labels/{path.name}"}
        for path in sorted((paired_set / "images").iterdir())
    ]
    content = {"labels": labels, "modality": {"0": "MR"}, "training": rows}
    (paired_set / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        build_manifest(paired_set, format="msd")
    assert str(caught.value).isprintable()


BOUNDED = """
import resource, sys
from pathlib import Path
import torch
from segmed.manifest import check_manifest, read_manifest
manifest = read_manifest(Path(sys.argv[1]))
check_manifest(manifest.model_copy(update={"training": manifest.training[1:]}), workers=1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
for fault in check_manifest(manifest, workers=1):
    if fault.severity == "error":
        print(fault.case_id, fault.code)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux")
def test_a_case_too_large_for_memory_is_a_fault_of_its_own(paired_set: Path) -> None:
    large = np.zeros((400, 400, 400), np.uint8)  # 256 MB as float32
    large[0] = 1
    for folder in ("images", "labels"):
        nib.save(nib.Nifti1Image(large, np.eye(4)), paired_set / folder / "p0_s0.nii.gz")
    path = write_manifest(build_manifest(paired_set), paired_set / "m.json")
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(path)],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "p0_s0 out_of_memory" in done.stdout
    assert "p1_s0" not in done.stdout


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        ImageError("a.nii: reading it needs more memory", reason="out_of_memory"),
    ],
)
def test_memory_that_ran_out_has_one_reason_everywhere(error: Exception) -> None:
    assert isinstance(error, ImageError) or is_out_of_memory(error)
    assert str(bad_outcome(Path("a.nii"), error).reason).startswith("out_of_memory: ")
    result = failure_result("key", error, [Path("a.nii")])
    assert (result.reason, result.refused) == ("out_of_memory", False)
