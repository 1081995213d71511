"""Odd headers give an independent reader's values and place, or a named refusal, nothing else."""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its documented name
import tifffile
from header_fuzz import (
    write_metaimage_oddly,
    write_nifti_oddly,
    write_nrrd_oddly,
    write_tiff_oddly,
)

from segmed.errors import ImageError
from segmed.geometry import Affine
from segmed.io import ReadLimits, read_image, write_label
from segmed.io.arrays import load

LIMITS = ReadLimits(max_voxels=1 << 22)
MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
Found = tuple[np.ndarray, Affine]


def by_nibabel(path: Path) -> Found:
    """Voxels and affine; an offset of 0, as the standard has it, means right behind the header."""
    raw = bytearray(path.read_bytes())
    is_two = struct.pack("<i", 540) == raw[:4] or struct.pack(">i", 540) == raw[:4]
    order = "<" if raw[0] in {0x5C, 0x1C} else ">"
    kind, size = (nib.Nifti2Header, 540) if is_two else (nib.Nifti1Header, 348)
    header = kind(bytes(raw[:size]), endianness=order, check=False)
    if float(header["vox_offset"]) == 0:
        header["vox_offset"] = size + 4
        raw[:size] = header.binaryblock
        path.write_bytes(bytes(raw))
    image = nib.load(path)
    unit = MILLIMETRES.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return np.asarray(image.dataobj, np.float64), np.diag([unit] * 3 + [1.0]) @ image.affine


def by_simpleitk(path: Path) -> Found:
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).T.astype(np.float64)
    return voxels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def by_tifffile(path: Path) -> Found:
    pixels = np.atleast_3d(tifffile.imread(path)).astype(np.float64)
    return np.moveaxis(pixels, 2, 0), np.eye(4)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Readers remark on much that is odd here on purpose."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    sitk.ProcessObject.SetGlobalWarningDisplay(True)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("name", "write", "read", "rounds"),
    [
        ("a.nii", write_nifti_oddly, by_nibabel, 600),
        ("a.nrrd", write_nrrd_oddly, by_simpleitk, 300),
        ("a.mha", write_metaimage_oddly, by_simpleitk, 300),
    ],
)
def test_odd_volumes_are_read_as_others_read_them_or_refused_by_name(
    name: str,
    write: Callable[[Path, np.random.Generator], None],
    read: Callable[[Path], Found],
    rounds: int,
    tmp_path: Path,
) -> None:
    path, ends = tmp_path / name, Counter[str]()
    for seed in range(rounds):
        write(path, np.random.default_rng([11, seed]))
        try:
            got = load(path, LIMITS)
        except ImageError as error:
            ends[error.reason if str(error).isprintable() else "not one line"] += 1
            continue
        voxels, affine = read(path)
        same = np.squeeze(got.array).astype(np.float64)
        want = np.squeeze(voxels).astype(np.float32)
        np.testing.assert_allclose(same, want, rtol=1e-5, atol=1e-4, err_msg=f"seed {seed}")
        np.testing.assert_allclose(
            got.affine_ras, affine, rtol=1e-4, atol=1e-3, err_msg=f"seed {seed}"
        )
        ends["read"] += 1
    assert ends["read"] > rounds / 3
    assert not ends.keys() & {"", "not one line"}
    assert len(ends) >= 6, ends


@pytest.mark.usefixtures("quiet")
def test_odd_tiffs_are_read_as_others_read_them_or_refused_by_name(tmp_path: Path) -> None:
    path, ends = tmp_path / "a.tif", Counter[str]()
    for seed in range(400):
        drawn = write_tiff_oddly(path, np.random.default_rng([11, seed]))
        try:
            got = load(path, LIMITS)
        except ImageError as error:
            ends[error.reason] += 1
            continue
        try:
            pixels, _ = by_tifffile(path)
        except (ValueError, TypeError, IndexError):  # too strict: then the pixels as written count
            pixels = np.moveaxis(np.atleast_3d(drawn), 2, 0)
        np.testing.assert_allclose(got.array, pixels, rtol=1e-6, err_msg=f"seed {seed}")
        ends["read"] += 1
    assert ends["read"] > 130
    assert len(ends) >= 4, ends


def rotated() -> np.ndarray:
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 0.1)
    return nib.affines.from_matvec(turn @ np.diag([0.9, 1.1, 2.5]), [10, -20, 30])


def spoil_quaternion(header: nib.Nifti1Header) -> None:
    header["quatern_b"], header["quatern_c"] = 3.0, -2.0


def spoil_with_nan(header: nib.Nifti1Header) -> None:
    header["quatern_d"] = np.nan


def spoil_spacing(header: nib.Nifti1Header) -> None:
    header["pixdim"][1:4] = [0, 1, 1]


@pytest.mark.parametrize("spoil", [spoil_quaternion, spoil_with_nan, spoil_spacing])
@pytest.mark.parametrize("code", [1, 2])
def test_a_good_sform_beside_an_unusable_qform_is_read_and_written(
    tmp_path: Path, spoil: Callable[[nib.Nifti1Header], None], code: int
) -> None:
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), rotated())
    image.set_sform(rotated(), 2)
    image.set_qform(rotated(), code)
    nib.save(image, path)
    header = nib.Nifti1Header(path.read_bytes()[:348], check=False)
    spoil(header)
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    read = read_image(path)
    np.testing.assert_allclose(read.affine, rotated(), atol=1e-5)
    assert any("sform is used alone" in note for note in read.meta["source"].notes)
    out = write_label(tmp_path / "out.nii", read.as_tensor().int(), like=read)
    np.testing.assert_allclose(nib.load(out).affine, rotated(), atol=1e-5)
    header["sform_code"] = 0
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    with pytest.raises(ImageError, match="the qform is not a rotation of a grid, and no sform"):
        load(path, LIMITS)


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("a.hdr", struct.pack("<i", 348) + bytes(400), "Analyze 7.5 header states no orientation"),
        ("a.gif", b"GIF89a" + bytes(50), "a GIF picture is not read: save it as PNG"),
        ("a.npy", b"\x93NUMPY\x01\0" + bytes(90), "states no geometry is not read: save it as"),
        ("a.mgh", b"\0\0\0\x01" + bytes(300), "a FreeSurfer volume .*mri_convert"),
        ("a.zip", b"PK\x03\x04" + bytes(90), "a zip archive is not read: unpack it"),
        ("a.mnc", b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 or MINC 2 file .* to NIfTI"),
        ("a.bin", b"no image at all" + bytes(90), "no known image format"),
    ],
)
def test_the_reason_names_what_the_file_is(
    tmp_path: Path, name: str, start: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(ImageError, match=words):
        load(tmp_path / name, LIMITS)


def test_big_tiffs_are_read(tmp_path: Path) -> None:
    pixels = np.arange(20, dtype=np.uint16).reshape(4, 5) * 1000
    tifffile.imwrite(tmp_path / "a.tif", pixels, bigtiff=True)
    assert np.array_equal(load(tmp_path / "a.tif", LIMITS).array[0], pixels)
