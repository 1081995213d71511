"""Voxels that change while their header stays are noticed by `manifest check` and by the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import ManifestError
from segmed.manifest import Case, Channel, LabelClass, Manifest, check_manifest, digest
from segmed.manifest.content import with_digests
from segmed.plan.schema import Plan
from segmed.preprocessing import cache_key, cached_case

HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = -1 0 0 0 -1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 1
DimSize = 12 12 12
ElementType = MET_SHORT
ElementDataFile = image.raw
"""


def nifti_pair(folder: Path, seed: int) -> str:
    voxels = np.random.default_rng(seed).integers(1, 900, (12, 12, 12)).astype(np.int16)
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), folder / "image.img")
    return "image.hdr"


def meta_pair(folder: Path, seed: int) -> str:
    voxels = np.random.default_rng(seed).integers(1, 900, (12, 12, 12)).astype(np.int16)
    (folder / "image.raw").write_bytes(voxels.tobytes(order="F"))
    (folder / "image.mhd").write_text(HEADER, encoding="utf-8")
    return "image.mhd"


def label_pair(folder: Path, seed: int) -> str:
    """The label is the pair, the image a single file."""
    label = (np.random.default_rng(seed).random((12, 12, 12)) > 0.5).astype(np.uint8)
    nib.save(nib.Nifti1Pair(label, np.eye(4)), folder / "label.img")
    image = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "image.nii")
    return "image.nii"


@pytest.mark.parametrize("write", [nifti_pair, meta_pair, label_pair])
def test_changed_voxels_of_a_pair_are_noticed(
    tmp_path: Path, make_plan_for: Callable[..., Plan], write: Callable[[Path, int], str]
) -> None:
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:8, 4:8, 4:8] = 1
    nib.save(nib.Nifti1Pair(label, np.eye(4)), tmp_path / "label.img")
    case = Case(id="a", group="a", image=(write(tmp_path, 1),), label="label.hdr")
    bare = Manifest(
        name="pairs",
        labels=(LabelClass(name="spot", value=1),),
        channels=(Channel(name="c0", modality="MR"),),
        training=(case,),
        root=tmp_path,
    )
    manifest, plan = with_digests(bare), make_plan_for(values=(1,))
    faults = [fault.code for fault in check_manifest(manifest) if fault.code == "wrong_hash"]
    assert faults == []
    before = cached_case(manifest, manifest.training[0], plan, tmp_path / "cache")
    key = cache_key(bare, case, plan)

    write(tmp_path, 2)
    faults = [fault.code for fault in check_manifest(manifest) if fault.code == "wrong_hash"]
    assert faults == ["wrong_hash"]
    with pytest.raises(ManifestError, match="does not have the content that the manifest states"):
        cached_case(manifest, manifest.training[0], plan, tmp_path / "cache")
    assert cache_key(bare, case, plan) != key
    listed = {name: digest(tmp_path / name) for name in (*case.image, "label.hdr")}
    older = manifest.model_copy(update={"training": (case.model_copy(update={"sha256": listed}),)})
    assert any("lists its header alone" in fault.message for fault in check_manifest(older))
    after = cached_case(bare, case, plan, tmp_path / "cache")
    assert not all(bool((old == new).all()) for old, new in zip(before[:2], after[:2], strict=True))
