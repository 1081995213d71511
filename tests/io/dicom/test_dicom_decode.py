"""Voxels of DICOM files: compressed, signed, dirty, rescaled slice by slice, multi-frame."""

from __future__ import annotations

import copy
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from segmed.errors import ImageError
from segmed.io import ReadLimits, read_image
from segmed.io.dicom.codestream import stated_size
from segmed.io.dicom.read import meaningful_bits
from segmed.io.dicom.series import read_series, scan


def _save(folder: Path, series: list[FileDataset]) -> None:
    for index, dataset in enumerate(series):
        dataset.save_as(folder / f"{index}.dcm")


def _stack(series: tuple[FileDataset, ...]) -> np.ndarray:
    return np.stack([dataset.pixel_array.T for dataset in series], axis=-1)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name
)
def test_compressed_series_equal_the_uncompressed(
    real_series: tuple[FileDataset, ...], tmp_path: Path, syntax: UID
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    for dataset in series:
        dataset.compress(syntax, generate_instance_uid=False)
    _save(tmp_path, series)
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], _stack(real_series))


def test_lossless_jpeg_equals_the_uncompressed(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    _save(tmp_path, series)
    for path in tmp_path.iterdir():
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(path))
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.ReadImage(str(path)))
        written = pydicom.dcmread(path)
        assert written.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
        original = next(d for d in series if d.SOPInstanceUID == written.SOPInstanceUID)
        written.ImagePositionPatient = original.ImagePositionPatient
        written.ImageOrientationPatient = original.ImageOrientationPatient
        written.SeriesInstanceUID = original.SeriesInstanceUID
        written.StudyInstanceUID = original.StudyInstanceUID
        written.FrameOfReferenceUID = original.FrameOfReferenceUID
        written.save_as(path)
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], _stack(real_series))


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless",
     "MR_small_jpeg_ls_lossless", "MR_small_expb", "MR_small_padded"],
)  # fmt: skip
def test_foreign_encodings_of_one_image_are_equal(name: str) -> None:
    plain = read_image(Path(str(get_testdata_file("MR_small.dcm", download=False))))
    image = read_image(Path(str(get_testdata_file(f"{name}.dcm", download=False))))
    np.testing.assert_array_equal(image.numpy(), plain.numpy())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated", "truncated"),
        ("JPEG2000", "secondary_capture"),
        ("SC_rgb_rle_16bit", "colour"),
        ("examples_palette", "colour"),
        ("rtdose", "not_image"),
        ("rtplan", "not_image"),
        ("reportsi", "not_image"),
        ("liver_1frame", "not_image"),
        ("waveform_ecg", "not_image"),
        ("image_dfl", "secondary_capture"),
    ],
)
def test_foreign_objects_are_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(Path(str(get_testdata_file(f"{name}.dcm", download=False))))
    assert caught.value.reason == reason


def test_each_slice_keeps_its_own_scale(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    for index, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + index, -3 * index
    _save(tmp_path, series)
    expected = _stack(real_series) * (0.5 + np.arange(8)) - 3 * np.arange(8)
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], expected.astype(np.float32))


def test_signed_and_unsigned_slices_may_mix(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    pixels = np.full((40, 36), -7, dtype=np.int16)
    series[3].BitsStored, series[3].HighBit, series[3].PixelRepresentation = 16, 15, 1
    series[3].PixelData = pixels.tobytes()
    _save(tmp_path, series)
    expected = _stack(real_series).astype(np.float32)
    expected[:, :, 3] = -7
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], expected)


def test_monochrome1_keeps_its_stored_values(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    for dataset in series:
        dataset.PhotometricInterpretation = "MONOCHROME1"
    _save(tmp_path, series)
    audit = scan(tmp_path)[0]
    assert "MONOCHROME1" in " ".join(audit.notes)
    np.testing.assert_array_equal(read_series(audit).numpy()[0], _stack(real_series))


def test_bits_outside_the_stored_ones_are_ignored(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    for dataset in series:
        assert dataset.BitsStored == 12
        dirty = dataset.pixel_array | np.uint16(0xF000)
        dataset.PixelData = dirty.tobytes()
    _save(tmp_path, series)
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], _stack(real_series))


def test_the_sign_is_taken_from_the_highest_stored_bit() -> None:
    header = pydicom.Dataset()
    header.BitsStored, header.HighBit = 12, 11
    stored = np.array([0x0FFF, 0x0800, 0x07FF, 0x7001], dtype=np.int16)
    assert meaningful_bits(stored, header).tolist() == [-1, -2048, 2047, 1]


def test_multi_frame_files_are_sorted_by_position(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    order = [3, 0, 7, 1, 6, 2, 5, 4]
    for dataset in real_series:
        dataset.PatientName = "A^B"
    legacy = hd.legacy.LegacyConvertedEnhancedMRImage(
        [copy.deepcopy(real_series[index]) for index in order],
        series_instance_uid=hd.UID(), series_number=1, sop_instance_uid=hd.UID(), instance_number=1,
    )  # fmt: skip
    legacy.save_as(tmp_path / "multi.dcm")
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.numpy()[0], _stack(real_series))
    first = np.asarray(real_series[0].ImagePositionPatient, dtype=float) * (-1, -1, 1)
    np.testing.assert_allclose(np.asarray(image.affine)[:3, 3], first, atol=1e-3)


def test_undecodable_fragments_are_named(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    for dataset in series:
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    data = bytearray(series[4].PixelData)
    data[40:90] = bytes(50)
    series[4].PixelData = bytes(data)
    _save(tmp_path, series)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason == "undecodable"
    assert caught.value.paths == (tmp_path / "4.dcm",)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name
)
@pytest.mark.parametrize("kept", [0.97, 0.6])
def test_a_code_stream_that_ends_early_never_passes(
    real_series: tuple[FileDataset, ...], tmp_path: Path, syntax: UID, kept: float
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series[:3]]
    for dataset in series:
        dataset.compress(syntax, generate_instance_uid=False)
    stream = get_frame(series[1].PixelData, 0, number_of_frames=1)
    series[1].PixelData = encapsulate([stream[: int(len(stream) * kept)]])
    _save(tmp_path, series)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason in {"truncated", "undecodable"}
    assert caught.value.paths == (tmp_path / "1.dcm",)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_a_code_stream_of_another_size_is_refused_before_it_is_decoded(
    real_series: tuple[FileDataset, ...], tmp_path: Path, syntax: UID
) -> None:
    dataset = copy.deepcopy(real_series[0])
    dataset.compress(syntax, generate_instance_uid=False)
    assert stated_size(get_frame(dataset.PixelData, 0, number_of_frames=1)) == (40, 36)
    dataset.Rows += 1
    _save(tmp_path, [dataset])
    with pytest.raises(ImageError, match=r"\(40, 36\).*\(41, 36\)"):
        read_image(tmp_path)


def test_limits_hold_before_pixels_are_read(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    _save(tmp_path, list(real_series))
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path, limits=ReadLimits(max_voxels=100))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(("rows", "columns"), [(-1, 0), (-7, 0), (0, -1), (-3, 1)])
def test_run_lengths_of_more_pixels_than_stated_are_refused(
    real_series: tuple[FileDataset, ...], tmp_path: Path, rows: int, columns: int
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series[:3]]
    for dataset in series:
        dataset.compress(RLELossless, generate_instance_uid=False)
    for dataset in series:
        dataset.Rows += rows
        dataset.Columns += columns
    _save(tmp_path, series)
    with pytest.raises(ImageError, match="the header accounts for") as caught:
        read_image(tmp_path)
    assert caught.value.reason == "undecodable"


def test_padding_behind_run_lengths_is_no_fault(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    dataset = copy.deepcopy(real_series[0])
    dataset.compress(RLELossless, generate_instance_uid=False)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([stream + b"\x02\x00\x00\x00"])
    _save(tmp_path, [dataset])
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], _stack(real_series[:1]))


@pytest.mark.parametrize("least", [0, -5])
@pytest.mark.parametrize("is_signed_by_header", [True, False])
def test_sign_of_jpeg_2000_that_header_and_stream_contradict(
    real_series: tuple[FileDataset, ...],
    tmp_path: Path,
    least: int,
    *,
    is_signed_by_header: bool,
) -> None:
    dataset = copy.deepcopy(real_series[0])
    values = np.arange(40 * 36, dtype=np.int16).reshape(40, 36) + least
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PixelRepresentation = 0 if is_signed_by_header else 1
    dataset.PixelData = (values & 0xFFF if is_signed_by_header else values).tobytes()
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.PixelRepresentation = 1 if is_signed_by_header else 0
    _save(tmp_path, [dataset])
    if least == 0:  # both signs give the same values
        np.testing.assert_array_equal(read_image(tmp_path).numpy()[0, :, :, 0].T, values)
        return
    with pytest.raises(ImageError, match="signed by the header") as caught:
        read_image(tmp_path)
    assert caught.value.reason == "undecodable"
