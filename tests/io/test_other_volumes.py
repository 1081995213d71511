"""NRRD and MetaImage against SimpleITK, in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name
import torch
from monai.data import MetaTensor

from segmed.errors import ImageError, UsageError
from segmed.io import ReadLimits, read_image, read_label, source_of, write_label

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _sitk_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = directions * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


def _write_with_sitk(path: Path, volume: MetaTensor, dtype: str, *, zipped: bool) -> sitk.Image:
    values = volume.numpy()[0].transpose(2, 1, 0).astype(dtype)
    image = sitk.GetImageFromArray(values)
    lps = LPS @ np.asarray(volume.affine)
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(edges.tolist())
    image.SetDirection((lps[:3, :3] / edges).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), zipped)
    return image


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nhdr", "a.mhd"])
def test_files_of_simpleitk_are_read_with_its_values_and_geometry(
    tmp_path: Path, placed_volume: MetaTensor, name: str, zipped: bool
) -> None:
    path = tmp_path / name
    written = _write_with_sitk(path, placed_volume, "int16", zipped=zipped)
    image = read_image(path)
    assert torch.equal(image.as_tensor(), placed_volume.as_tensor())
    np.testing.assert_allclose(np.asarray(image.affine), _sitk_affine(written), atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_every_voxel_type_is_read(
    tmp_path: Path, oblique_volume: MetaTensor, name: str, dtype: str
) -> None:
    _write_with_sitk(tmp_path / name, oblique_volume, dtype, zipped=True)
    expected = oblique_volume.numpy().astype(dtype)
    np.testing.assert_array_equal(read_image(tmp_path / name).numpy(), expected)


@pytest.mark.parametrize("name", ["label.nrrd", "label.mha"])
def test_simpleitk_reads_our_labels_with_their_geometry(
    tmp_path: Path, placed_volume: MetaTensor, name: str
) -> None:
    label = (placed_volume.as_tensor() > 2000).to(torch.int32) * 300
    path = write_label(tmp_path / name, label, like=placed_volume)
    theirs = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(theirs).transpose(2, 1, 0)
    np.testing.assert_array_equal(values, label.numpy()[0])
    np.testing.assert_allclose(_sitk_affine(theirs), np.asarray(placed_volume.affine), atol=1e-6)
    ours = read_label(path)
    assert torch.equal(ours.as_tensor(), label)
    np.testing.assert_allclose(np.asarray(ours.affine), np.asarray(placed_volume.affine))


NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "2 2 2",
    "space directions": "(1,0,0) (0,1,0) (0,0,1)", "endian": "little", "encoding": "raw",
    "space origin": "(0,0,0)",
}  # fmt: skip


def _nrrd(path: Path, **fields: str) -> Path:
    merged = {**NRRD, **{name.replace("_", " "): value for name, value in fields.items()}}
    lines = [f"{name}: {value}" for name, value in merged.items() if value]
    path.write_bytes(("NRRD0004\n" + "\n".join(lines) + "\n\n").encode() + bytes(16))
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sizes": "2 2 3"}, "truncated"),
        ({"sizes": "99999 99999 99999"}, "too_large"),
        ({"sizes": "2 0 2"}, "empty_axis"),
        ({"sizes": "two"}, "corrupt"),
        ({"dimension": "4"}, "corrupt"),
        ({"space": ""}, "no_geometry"),
        ({"space_origin": ""}, "no_geometry"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,x)"}, "no_geometry"),
        ({"space_directions": "(1,0,0) (0,1,0) (0.4,0,1)"}, "shear"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "bad_affine"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,1e9)"}, "absurd_spacing"),
        ({"space_units": '"um" "um" "um"'}, "unit"),
        ({"type": "block"}, "unsupported_pixels"),
        ({"endian": ""}, "corrupt"),
        ({"encoding": "hex"}, "unsupported_encoding"),
        ({"encoding": "gzip"}, "corrupt"),
        ({"kinds": "list domain domain"}, "four_dimensional"),
        ({"kinds": "vector domain domain"}, "vector"),
        ({"data_file": "../../etc/passwd"}, "outside_file"),
        ({"data_file": "LIST"}, "outside_file"),
        ({"data_file": "slice%03d.raw 0 5 1"}, "outside_file"),
        ({"data_file": "absent.raw"}, "missing_file"),
    ],
)
def test_each_unsound_nrrd_has_its_reason(
    tmp_path: Path, fields: dict[str, str], reason: str
) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(_nrrd(tmp_path / "a.nrrd", **fields))
    assert caught.value.reason == reason


META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "1 1 1",
    "DimSize": "2 2 2", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"DimSize": "2 2 3"}, "truncated"),
        ({"DimSize": "99999 99999 99999"}, "too_large"),
        ({"DimSize": "2 2"}, "corrupt"),
        ({"NDims": "x"}, "corrupt"),
        ({"NDims": "4", "DimSize": "2 2 1 2"}, "four_dimensional"),
        ({"ElementNumberOfChannels": "3"}, "vector"),
        ({"TransformMatrix": None}, "no_geometry"),
        ({"TransformMatrix": "1 0 0"}, "corrupt"),
        ({"TransformMatrix": "1 0.5 0 0 1 0 0 0 1"}, "shear"),
        ({"ElementSpacing": "1 1 0"}, "absurd_spacing"),
        ({"ElementType": "MET_STRING"}, "unsupported_pixels"),
        ({"BinaryData": "False"}, "unsupported_encoding"),
        ({"CompressedData": "True"}, "corrupt"),
        ({"ElementDataFile": "/etc/passwd"}, "outside_file"),
        ({"ElementDataFile": None}, "truncated"),
    ],
)
def test_each_unsound_metaimage_has_its_reason(
    tmp_path: Path, fields: dict[str, str | None], reason: str
) -> None:
    merged = {**META, **fields}
    last = merged.pop("ElementDataFile")  # the field that ends a header
    lines = [f"{k} = {v}\n" for k, v in merged.items() if v is not None]
    lines += [f"ElementDataFile = {last}\n"] if last else []
    path = tmp_path / "a.mha"
    path.write_bytes("".join(lines).encode() + b"\xff" * 16)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_damaged_zipped_body_never_passes(
    tmp_path: Path, oblique_volume: MetaTensor, name: str
) -> None:
    path = tmp_path / name
    _write_with_sitk(path, oblique_volume, "int16", zipped=True)
    sound = path.read_bytes()
    for cut in (1, 9, 100):
        path.write_bytes(sound[:-cut])
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert caught.value.reason in {"truncated", "corrupt"}
    path.write_bytes(sound[:-40] + bytes([sound[-40] ^ 16]) + sound[-39:])
    with pytest.raises(ImageError):
        read_image(path)


def test_a_format_is_known_by_its_content(tmp_path: Path, oblique_volume: MetaTensor) -> None:
    _write_with_sitk(tmp_path / "a.nrrd", oblique_volume, "int16", zipped=True)
    disguised = (tmp_path / "a.nrrd").rename(tmp_path / "a.nii")
    source = source_of(read_image(disguised))
    assert source is not None
    assert source.format == "nrrd"
    (tmp_path / "b.nii").write_bytes(b"hello, world" * 99)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "b.nii")
    assert caught.value.reason == "unknown_format"


def test_limits_hold_for_headers_and_missing_files(tmp_path: Path) -> None:
    path = _nrrd(tmp_path / "a.nrrd", content="x" * 5000)
    with pytest.raises(ImageError) as caught:
        read_image(path, limits=ReadLimits(max_header_bytes=1000))
    assert caught.value.reason == "too_large"
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "absent.mha")
    assert caught.value.reason == "missing_file"


def test_flat_labels_do_not_go_into_volume_formats(tmp_path: Path) -> None:
    flat = MetaTensor(torch.zeros(1, 4, 5))
    with pytest.raises(UsageError):
        write_label(tmp_path / "a.nrrd", torch.zeros(4, 5), like=flat)
