"""An image is all files that its reader reads: known beforehand, and all of them in its digest."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from segmed.io import read_image, source_of
from segmed.io.dicom.write import write_series
from segmed.io.parts import files_of
from segmed.manifest import digest, image_digest
from segmed.metatensor import MetaTensor

SHAPE = (9, 8, 7)
NRRD_HEADER = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 9 8 7
space directions: (1,0,0) (0,1,0) (0,0,1)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (0,0,0)
data file: {}
"""
META_HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 1
DimSize = 9 8 7
ElementType = MET_SHORT
ElementDataFile = {}
"""


def voxels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 900, SHAPE).astype(np.int16)


def nifti_pair(folder: Path, seed: int) -> tuple[Path, Path]:
    nib.save(nib.Nifti1Pair(voxels(seed), np.eye(4)), folder / "image.img")
    return folder / "image.hdr", folder / "image.img"


def zipped_nifti_pair(folder: Path, seed: int) -> tuple[Path, Path]:
    zipped = []
    for path in nifti_pair(folder, seed):
        zipped.append(path.with_name(path.name + ".gz"))
        zipped[-1].write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
    return zipped[0], zipped[1]


def nifti2_pair(folder: Path, seed: int) -> tuple[Path, Path]:
    nib.save(nib.Nifti2Pair(voxels(seed), np.eye(4)), folder / "image.img")
    return folder / "image.hdr", folder / "image.img"


def nrrd_pair(folder: Path, seed: int) -> tuple[Path, Path]:
    (folder / "image.raw").write_bytes(voxels(seed).tobytes(order="F"))
    (folder / "image.nhdr").write_text(NRRD_HEADER.format("image.raw"), encoding="utf-8")
    return folder / "image.nhdr", folder / "image.raw"


def meta_pair(folder: Path, seed: int) -> tuple[Path, Path]:
    (folder / "image.zraw").write_bytes(voxels(seed).tobytes(order="F"))
    (folder / "image.mhd").write_text(META_HEADER.format("image.zraw"), encoding="utf-8")
    return folder / "image.mhd", folder / "image.zraw"


PAIRS = (nifti_pair, zipped_nifti_pair, nifti2_pair, nrrd_pair, meta_pair)


@pytest.fixture(params=PAIRS, ids=lambda write: write.__name__)
def write_pair(request: pytest.FixtureRequest) -> Callable[..., tuple[Path, Path]]:
    """Writes an image in two files, header and voxels."""
    write: Callable[..., tuple[Path, Path]] = request.param
    return write


def test_pair_is_the_two_files_that_its_reader_reads(
    tmp_path: Path, write_pair: Callable[..., tuple[Path, Path]]
) -> None:
    header, body = write_pair(tmp_path, 1)
    assert files_of(header) == (header, body)
    source = source_of(read_image(header))
    assert source is not None
    assert source.paths == files_of(header)


def test_digest_of_a_pair_changes_with_its_voxels_and_with_its_header(
    tmp_path: Path, write_pair: Callable[..., tuple[Path, Path]]
) -> None:
    header, body = write_pair(tmp_path, 1)
    before, listed = image_digest(header), digest(header)
    assert before != listed
    write_pair(tmp_path, 2)
    assert digest(header) == listed
    assert image_digest(header) != before
    write_pair(tmp_path, 1)
    assert image_digest(header) == before
    body.unlink()
    assert image_digest(header) != before  # half of an image is another one


def test_both_names_of_a_nifti_pair_have_one_digest(tmp_path: Path) -> None:
    header, body = nifti_pair(tmp_path, 1)
    assert image_digest(header) == image_digest(body)


def test_single_files_keep_the_digest_of_the_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(voxels(1), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "weights.bin").write_bytes(b"no image")
    for name in ("a.nii.gz", "weights.bin"):
        assert files_of(tmp_path / name) == (tmp_path / name,)
        assert image_digest(tmp_path / name) == digest(tmp_path / name)


def test_folder_is_the_series_that_is_read_whatever_lies_beside_it(tmp_path: Path) -> None:
    image = MetaTensor(torch.from_numpy(voxels(1).astype(np.float32))[None])
    files = write_series(tmp_path / "s", image)
    before = image_digest(tmp_path / "s")
    assert before == digest(tmp_path / "s")  # as earlier versions listed it
    (tmp_path / "s/.lock").write_text("", encoding="utf-8")
    (tmp_path / "s/report.txt").write_text("nothing of the image", encoding="utf-8")
    source = source_of(read_image(tmp_path / "s"))
    assert source is not None
    assert source.paths == files_of(tmp_path / "s") == tuple(files)
    assert image_digest(tmp_path / "s") == before
    files[3].unlink()
    assert image_digest(tmp_path / "s") != before


def test_folder_without_one_series_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a", encoding="utf-8")
    assert files_of(tmp_path) == ()
    assert image_digest(tmp_path) == digest(tmp_path)
    shutil.copy(tmp_path / "a", tmp_path / "b")
    assert image_digest(tmp_path) == digest(tmp_path)
