"""NIfTI in and out: orientations, refusals, damage, exact headers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.geometry import reorientation
from segmed.io import (
    ReadLimits,
    grid_of,
    read_image,
    read_images,
    read_label,
    source_of,
    write_label,
    write_probabilities,
)
from segmed.io.atomic import whole_file


def _as_ras(image: MetaTensor) -> tuple[np.ndarray, np.ndarray]:
    affine = np.asarray(image.affine)
    change = reorientation(affine, "RAS")
    values = nib.orientations.apply_orientation(image.numpy()[0], change)
    return values, affine @ nib.orientations.inv_ornt_aff(change, image.shape[1:])


@pytest.mark.parametrize("name", ["AIL", "LAS", "LPS", "PIR", "RAS", "SLA"])
def test_every_orientation_reads_as_the_same_volume(
    shared_data: Callable[[str], Path], name: str
) -> None:
    folder = shared_data("nifti_variety") / "orientations"
    image = read_image(folder / f"{name}.nii.gz")
    assert grid_of(image).orientation == name
    values, affine = _as_ras(image)
    expected, expected_affine = _as_ras(read_image(folder / "RAS.nii.gz"))
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(affine, expected_affine, atol=1e-5)


@pytest.mark.parametrize("name", ["AIL", "LAS", "LPS", "PIR", "RAS", "SLA"])
def test_labels_are_written_on_the_exact_header_geometry(
    shared_data: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path = shared_data("nifti_variety") / "orientations" / f"{name}.nii.gz"
    image = read_image(path)
    label = (image.as_tensor() > image.mean().item()).to(torch.uint8)
    written = write_label(tmp_path / "label.nii.gz", label, like=image)
    before, after = nib.load(path).header, nib.load(written).header
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b",
                  "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "pixdim",
                  "xyzt_units", "dim"):  # fmt: skip
        np.testing.assert_array_equal(after[field], before[field], err_msg=field)
    back = read_label(written)
    assert torch.equal(back.as_tensor(), label.to(torch.int32))
    assert torch.equal(back.affine, image.affine)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("corrupt_derived/empty.nii.gz", "empty_file"),
        ("corrupt_derived/not_gzip.nii.gz", "not_gzip"),
        ("corrupt_derived/truncated.nii.gz", "truncated"),
        ("nibabel/example4d.nii.gz", "four_dimensional"),
        ("nibabel/example_nifti2.nii.gz", "four_dimensional"),
        ("niivue/minimal.nii.gz", "no_geometry"),
        ("niivue/shear.nii.gz", "shear"),
    ],
)
def test_odd_and_corrupt_files_are_refused_by_name(
    shared_data: Callable[[str], Path], name: str, reason: str
) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(shared_data("nifti_variety") / name)
    assert caught.value.reason == reason
    assert Path(name).name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nibabel/anatomical.nii", "niivue/low_res.nii.gz"])
def test_values_equal_nibabels(shared_data: Callable[[str], Path], name: str) -> None:
    path = shared_data("nifti_variety") / name
    reference = nib.load(path)
    image = read_image(path)
    np.testing.assert_allclose(image.numpy()[0], reference.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(image.affine), reference.affine)


def _write(path: Path, array: np.ndarray, **fields: object) -> Path:
    """A NIfTI file with a sound header but for the given fields."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=1)
    image.header.set_qform(affine, code=1)
    for name, value in fields.items():
        image.header[name] = value
    header = image.header
    header["vox_offset"] = fields.get("vox_offset", 352)
    header["magic"] = b"n+1"
    content = header.binaryblock + bytes(4) + array.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


SMALL = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("array", "fields", "reason"),
    [
        (SMALL.astype(np.complex64), {}, "complex"),
        (SMALL, {"dim": [4, 2, 3, 2, 2, 1, 1, 1]}, "four_dimensional"),
        (SMALL, {"dim": [5, 2, 3, 2, 1, 2, 1, 1]}, "vector"),
        (SMALL, {"datatype": 128, "bitpix": 24}, "vector"),
        (SMALL, {"datatype": 77}, "unsupported_pixels"),
        (SMALL, {"bitpix": 8}, "unsupported_pixels"),
        (SMALL, {"dim": [1, 24, 1, 1, 1, 1, 1, 1]}, "one_dimensional"),
        (SMALL, {"dim": [3, 2, 0, 4, 1, 1, 1, 1]}, "empty_axis"),
        (SMALL, {"dim": [3, 2, -3, 4, 1, 1, 1, 1]}, "empty_axis"),
        (SMALL, {"dim": [9, 2, 3, 4, 1, 1, 1, 1]}, "corrupt"),
        (SMALL, {"dim": [3, 32767, 32767, 4, 1, 1, 1, 1]}, "too_large"),
        (SMALL, {"dim": [3, 2, 3, 5, 1, 1, 1, 1]}, "truncated"),
        (SMALL, {"sform_code": 0, "qform_code": 0}, "no_geometry"),
        (SMALL, {"srow_x": [np.nan, 0, 0, 0], "qform_code": 0}, "bad_affine"),
        (SMALL, {"srow_x": [1e-9, 0, 0, 0], "qform_code": 0}, "absurd_spacing"),
        (SMALL, {"srow_x": [5000, 0, 0, 0], "qform_code": 0}, "absurd_spacing"),
        (SMALL, {"srow_y": [0.5, 2, 0, 0], "qform_code": 0}, "shear"),
        (SMALL, {"srow_x": [-1, 0, 0, 0]}, "ambiguous_geometry"),
        (SMALL, {"srow_x": [2, 0, 0, 0]}, "ambiguous_geometry"),
        (SMALL, {"srow_z": [0, 0, 3, 9]}, "ambiguous_geometry"),
        (SMALL, {"dim": [3, 2, 3, 3, 1, 1, 1, 1]}, "trailing_data"),
        (SMALL, {"scl_slope": np.inf}, "bad_scaling"),
        (SMALL, {"vox_offset": -5}, "corrupt"),
        (np.full((2, 3, 4), np.nan, dtype=np.float32), {}, "non_finite"),
        (np.full((2, 3, 4), 1e300), {}, "non_finite"),
    ],
)
def test_each_unsound_header_has_its_reason(
    tmp_path: Path, array: np.ndarray, fields: dict[str, object], reason: str
) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(_write(tmp_path / "odd.nii", array, **fields))
    assert caught.value.reason == reason


def test_a_flipped_bit_of_a_zipped_file_never_passes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = _write(tmp_path / "a.nii.gz", rng.integers(0, 999, (9, 9, 9)).astype(np.int16))
    sound = path.read_bytes()
    expected = read_image(path)
    for position in rng.integers(10, len(sound) - 4, 40):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            read_image(path)
    path.write_bytes(sound)
    assert torch.equal(read_image(path).as_tensor(), expected.as_tensor())


def test_a_bomb_is_refused_without_filling_memory(tmp_path: Path) -> None:
    bomb = _write(tmp_path / "b.nii.gz", np.zeros((64, 64, 64), dtype=np.uint8))
    content = gzip.decompress(bomb.read_bytes()) + bytes(8 << 20)
    bomb.write_bytes(gzip.compress(content))
    with pytest.raises(ImageError) as caught:
        read_image(bomb)
    assert caught.value.reason == "trailing_data"
    with pytest.raises(ImageError) as caught:
        read_image(bomb, limits=ReadLimits(max_voxels=1000))
    assert caught.value.reason == "too_large"


def test_padding_of_a_block_device_is_passed_over(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii", SMALL)
    path.write_bytes(path.read_bytes() + bytes(400))
    np.testing.assert_array_equal(read_image(path).numpy()[0], SMALL)


def test_units_of_metres_and_micrometres_are_honoured(tmp_path: Path) -> None:
    fields = {"srow_x": [900, 0, 0, 0], "srow_y": [0, 900, 0, 0], "srow_z": [0, 0, 900, 0]}
    path = _write(tmp_path / "um.nii", SMALL, xyzt_units=3, qform_code=0, **fields)
    assert grid_of(read_image(path)).spacing_mm == pytest.approx((0.9, 0.9, 0.9))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_pair_is_read_from_either_file(tmp_path: Path, suffix: str) -> None:
    nib.Nifti1Pair(SMALL, np.diag([1.0, 2.0, 3.0, 1.0])).to_filename(tmp_path / f"p.hdr{suffix}")
    images = [read_image(tmp_path / f"p.{end}{suffix}") for end in ("hdr", "img")]
    for image in images:
        np.testing.assert_array_equal(image.numpy()[0], SMALL)
    (tmp_path / f"p.img{suffix}").unlink()
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / f"p.hdr{suffix}")
    assert caught.value.reason == "missing_file"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_byte_orders_and_versions_keep_their_geometry(
    tmp_path: Path, order: str, kind: type
) -> None:
    header = kind.header_class(endianness=order)
    image = kind(SMALL.astype(order + "i2"), np.diag([-1.0, 2.0, 3.0, 1.0]), header)
    image.set_sform(image.affine, code=4)
    nib.save(image, tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(read.numpy()[0], SMALL)
    written = write_label(tmp_path / "l.nii.gz", torch.zeros(2, 3, 4), like=read)
    assert isinstance(nib.load(written), kind)
    assert int(nib.load(written).header["sform_code"]) == 4


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_no_text_of_the_input_header_reaches_an_output(tmp_path: Path, kind: type) -> None:
    image = kind(SMALL, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, code=1)
    image.header["intent_code"] = 1001
    for name in image.header:
        if image.header[name].dtype.kind == "S" and name not in {"magic", "regular"}:
            image.header[name] = b"MUSTER^ANNA"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"MUSTER^ANNA 19700101"))
    nib.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes().count(b"MUSTER^") >= 4
    read = read_image(tmp_path / "a.nii")
    paths = [
        write_label(tmp_path / "l.nii", torch.zeros(2, 3, 4), like=read),
        write_probabilities(tmp_path / "p.nii", torch.zeros(2, 2, 3, 4), like=read),
    ]
    for path in paths:
        assert b"MUSTER" not in path.read_bytes()
        header = nib.load(path).header
        assert int(header["intent_code"]) == 0
        assert not header.extensions
        np.testing.assert_array_equal(header["srow_z"], image.header["srow_z"])


def test_two_dimensional_files_stay_two_dimensional(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(SMALL[:, :, 0], np.eye(4)), tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert image.shape == (1, 2, 3)
    label = torch.ones(2, 3, dtype=torch.uint8)
    assert read_label(write_label(tmp_path / "l.nii", label, like=image)).shape == (1, 2, 3)


def test_float_and_scaled_labels_are_rounded_and_fractions_refused(tmp_path: Path) -> None:
    values = np.array([[[0.0, 0.99999997], [2.0, 1.0005]]], dtype=np.float32)
    label = read_label(_write(tmp_path / "a.nii", values))
    assert label.dtype == torch.int32
    assert label.flatten().tolist() == [0, 1, 2, 1]
    scaled = read_label(_write(tmp_path / "b.nii", 3 * SMALL, scl_slope=1 / 3, scl_inter=0))
    np.testing.assert_array_equal(scaled.numpy()[0], SMALL)
    with pytest.raises(ImageError) as caught:
        read_label(_write(tmp_path / "c.nii", values * 0.7))
    assert caught.value.reason == "not_integer"


def test_large_label_values_survive_exactly(tmp_path: Path) -> None:
    values = np.array([[[16777217, 16777219]]], dtype=np.int32)  # no float32 holds these
    assert read_label(_write(tmp_path / "a.nii", values)).flatten().tolist() == [16777217, 16777219]


def test_channels_are_stacked_only_on_one_grid(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.nii", SMALL)
    second = _write(tmp_path / "b.nii", SMALL + 1)
    image = read_images([first, second])
    assert image.shape == (2, 2, 3, 4)
    assert torch.equal(image[1].as_tensor(), image[0].as_tensor() + 1)
    moved = _write(tmp_path / "c.nii", SMALL, qform_code=0, srow_x=[1, 0, 0, 5])
    with pytest.raises(GeometryError, match=r"a\.nii and c\.nii"):
        read_images([first, moved])
    with pytest.raises(UsageError):
        read_images([])


def test_a_label_of_another_shape_is_not_written(tmp_path: Path) -> None:
    image = read_image(_write(tmp_path / "a.nii", SMALL))
    with pytest.raises(GeometryError):
        write_label(tmp_path / "l.nii", torch.zeros(2, 3, 5), like=image)
    with pytest.raises(ImageError):
        write_label(tmp_path / "l.nii", torch.full((2, 3, 4), -1), like=image)
    with pytest.raises(UsageError, match=r"\.nii\.gz"):
        write_label(tmp_path / "l.jpg", torch.zeros(2, 3, 4), like=image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii"]


def test_writing_twice_gives_equal_bytes(tmp_path: Path) -> None:
    image = read_image(_write(tmp_path / "a.nii", SMALL))
    label = torch.ones(1, 2, 3, 4)
    first = write_label(tmp_path / "one.nii.gz", label, like=image).read_bytes()
    assert write_label(tmp_path / "two.nii.gz", label, like=image).read_bytes() == first


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "label.nii.gz"
    path.write_bytes(b"old")

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["label.nii.gz"]


def test_probabilities_keep_their_values_and_grid(tmp_path: Path) -> None:
    image = read_image(_write(tmp_path / "a.nii", SMALL))
    probs = torch.rand(3, 2, 3, 4)
    written = nib.load(write_probabilities(tmp_path / "p.nii.gz", probs, like=image))
    np.testing.assert_array_equal(np.moveaxis(written.get_fdata(dtype=np.float32), -1, 0), probs)
    np.testing.assert_array_equal(written.affine, np.asarray(image.affine))


def test_the_source_says_where_an_image_came_from(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii", SMALL)
    source = source_of(read_image(path))
    assert source is not None
    assert (source.format, source.paths, len(source.header)) == ("nifti", (path,), 348)
