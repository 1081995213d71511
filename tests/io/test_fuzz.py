"""Seeded, bounded fuzz: a damaged file is refused by our error or read right, nothing else.

Where a damaged file is read, its voxels must be those of the sound file unless the damage lies in
bytes that no checksum protects, and its grid must be believable; no other exception may come out.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import JPEG2000Lossless, RLELossless

from segmed.errors import ImageError
from segmed.io import ReadLimits, read_image, write_label
from segmed.io.arrays import load
from segmed.io.limits import check_affine
from segmed.io.source import Loaded

LIMITS = ReadLimits(max_voxels=1 << 22)
ROUNDS = 50


def damaged(sound: bytes, seed: int, *, within: int) -> Iterator[bytes]:
    """Variants of a file: flipped bits, random bytes, extreme words, cuts, inserted bytes."""
    rng = np.random.default_rng(seed)
    extremes = [b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff", b"\0\0\xc0\x7f", bytes(4)]
    for _ in range(ROUNDS):
        data = bytearray(sound)
        for _ in range(int(rng.integers(1, 4))):
            where = int(rng.integers(0, max(min(within, len(data)) - 4, 1)))
            match int(rng.integers(5)):
                case 0:
                    data[where] ^= 1 << int(rng.integers(8))
                case 1:
                    data[where] = int(rng.integers(256))
                case 2:
                    data[where : where + 4] = extremes[int(rng.integers(len(extremes)))]
                case 3:
                    del data[int(rng.integers(len(data))) :]
                    data += b"\0"
                case _:
                    data[where:where] = rng.bytes(int(rng.integers(1, 9)))
        yield bytes(data)


def survivors(path: Path, sound: bytes, seed: int, *, within: int) -> list[tuple[bytes, Loaded]]:
    """The damaged variants that are read without an error; the rest must raise ours."""
    found = []
    refusals = []
    for data in damaged(sound, seed, within=within):
        path.write_bytes(data)
        try:
            loaded = load(path, LIMITS)
        except ImageError as error:
            refusals.append(error)
        else:
            check_affine(loaded.affine_ras, LIMITS, path)
            assert loaded.array.size <= LIMITS.max_voxels
            found.append((data, loaded))
    assert refusals
    assert all(error.reason and "\n" not in str(error) for error in refusals)
    return found


@pytest.fixture
def nifti(tmp_path: Path, oblique_volume: MetaTensor) -> Path:
    return write_label(tmp_path / "a.nii", oblique_volume.as_tensor().int(), like=oblique_volume)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_nifti_headers_are_refused_or_read_as_they_say(nifti: Path, seed: int) -> None:
    sound = nifti.read_bytes()
    for data, loaded in survivors(nifti, sound, seed, within=352):
        dims = np.frombuffer(data[40:56], "<i2")
        count = (
            int(np.prod(dims[1 : dims[0] + 1], dtype=np.int64)) if data[0:2] == b"\x5c\x01" else 0
        )
        assert loaded.array.size == count or data[0:2] != b"\x5c\x01"


@pytest.mark.parametrize("seed", range(3))
def test_damaged_zipped_nifti_is_refused_or_equal(nifti: Path, seed: int) -> None:
    expected = read_image(nifti).numpy()
    zipped = nifti.with_name("a.nii.gz")
    sound = gzip.compress(nifti.read_bytes(), mtime=0)
    for _, loaded in survivors(zipped, sound, seed, within=len(sound)):
        np.testing.assert_array_equal(loaded.array, expected)  # only gzip's own header was hit


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_damaged_text_headers_are_refused_or_believable(
    tmp_path: Path, oblique_volume: MetaTensor, name: str
) -> None:
    path = write_label(tmp_path / name, oblique_volume.as_tensor().int(), like=oblique_volume)
    survivors(path, path.read_bytes(), 1, within=400)


@pytest.mark.parametrize(
    "name", ["MR_small", "MR_small_implicit", "MR_small_bigendian", "image_dfl"]
)
def test_damaged_dicom_is_refused_or_believable(tmp_path: Path, name: str) -> None:
    sound = Path(str(get_testdata_file(f"{name}.dcm", download=False))).read_bytes()
    survivors(tmp_path / "a.dcm", sound, 2, within=2500)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["rle", "j2k"])
def test_damaged_compressed_dicom_is_refused_or_believable(
    real_series: tuple[FileDataset, ...], tmp_path: Path, syntax: str
) -> None:
    path = tmp_path / "a.dcm"
    real_series[0].save_as(path)
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    sound = path.read_bytes()
    survivors(path, sound, 3, within=len(sound))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_damaged_rasters_are_refused_or_believable(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (24, 24), dtype=np.uint8)).save(tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    survivors(tmp_path / name, sound, 4, within=len(sound))
