"""Each refusal says what is so: no colour, truncation or lack of geometry where there is none."""

from __future__ import annotations

import copy
import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from broken_series import only, save
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEGLSLossless

from segmed.errors import ImageError
from segmed.io import read_image
from segmed.io.bytestream import stream_errors

FOREIGN = Path(str(get_testdata_file("MR_small.dcm", download=False))).parent
Real = tuple[FileDataset, ...]


def refusal(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    return caught.value


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"])
def test_subsampled_colour_is_colour_and_whole(tmp_path: Path, photometric: str) -> None:
    dataset = pydicom.dcmread(FOREIGN / "SC_ybr_full_422_uncompressed.dcm")
    dataset.PhotometricInterpretation = photometric
    if photometric.endswith("420"):
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) * 3 // 4]
    dataset.save_as(tmp_path / "a.dcm")
    assert refusal(tmp_path).reason == "colour"
    dataset.PixelData = dataset.PixelData[:-100]
    dataset.save_as(tmp_path / "a.dcm")
    assert refusal(tmp_path).reason == "truncated"


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "XA"])
def test_projections_are_called_so(real_series: Real, tmp_path: Path, modality: str) -> None:
    dataset = copy.deepcopy(real_series[0])
    dataset.Modality = modality
    dataset.ImagerPixelSpacing = dataset.PixelSpacing
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing
    save(tmp_path, [dataset])
    error = refusal(tmp_path)
    assert (error.reason, modality in str(error)) == ("projection", True)


def test_projections_are_known_by_their_class_too(real_series: Real, tmp_path: Path) -> None:
    dataset = copy.deepcopy(real_series[0])
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1.1"  # digital X-ray for processing
    del dataset.ImagePositionPatient, dataset.Modality
    save(tmp_path, [dataset])
    assert refusal(tmp_path).reason == "projection"


def test_a_missing_photometric_interpretation_is_no_colour(
    real_series: Real, tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    for dataset in series:
        del dataset.PhotometricInterpretation
    save(tmp_path, series)
    assert only(tmp_path).reason == "unknown_photometric"


@pytest.mark.parametrize("tail", [
    b"\xfc\xff\xfc\xffOB\0\0\x0a\0\0\0" + bytes(10),  # trailing padding, as the standard has it
    struct.pack("<HH2sH", 0x7FE1, 0x0010, b"LO", 8) + b"CREATOR ",
    struct.pack("<HH2sH", 0x7FE1, 0x1010, b"LO", 60_000) + b"cut short",
    struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"CT",
    b"\0" * 512,
    b"\xff" * 7,
])  # fmt: skip
def test_what_follows_the_pixels_is_no_part_of_the_image(
    real_series: Real, tmp_path: Path, tail: bytes
) -> None:
    for path in save(tmp_path, real_series):
        path.write_bytes(path.read_bytes() + tail)
    expected = np.stack([dataset.pixel_array.T for dataset in real_series], axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], expected)


def test_padding_behind_a_compressed_frame_is_no_truncation(
    real_series: Real, tmp_path: Path
) -> None:
    dataset = copy.deepcopy(real_series[0])
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([stream + bytes(300)])
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(
        read_image(tmp_path).numpy()[0, ..., 0], real_series[0].pixel_array.T
    )
    dataset.PixelData = encapsulate([stream[:-40]])
    dataset.save_as(tmp_path / "a.dcm")
    assert refusal(tmp_path).reason == "truncated"


def test_twelve_bit_jpeg_is_read_in_dicom_and_named_as_a_picture(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(FOREIGN / "JPGExtended.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.ImagePositionPatient, dataset.PixelSpacing = [0, 0, 0], [1, 1]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.dcm").numpy()[0, ..., 0], dataset.pixel_array.T
    )
    (tmp_path / "a.jpg").write_bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))
    error = refusal(tmp_path / "a.jpg")
    assert error.reason == "unsupported_pixels"
    assert "12 bits" in str(error)


def analyze_header(order: str) -> bytes:
    header = bytearray(348)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "8h", header, 40, 3, 8, 8, 8, 1, 1, 1, 1)
    struct.pack_into(order + "2h", header, 70, 4, 16)
    return bytes(header)


@pytest.mark.parametrize("order", ["<", ">"])
def test_analyze_is_called_so_from_either_file(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.hdr").write_bytes(analyze_header(order))
    (tmp_path / "a.img").write_bytes(bytes(1024))
    for name in ("a.hdr", "a.img"):
        assert "Analyze 7.5" in str(refusal(tmp_path / name)), name


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "JPEG 2000"),
        ("a.mgz", gzip.compress(b"\0\0\0\x01" + bytes(300), mtime=0), "FreeSurfer"),
        ("a.dcm.gz", gzip.compress(bytes(128) + b"DICM" + bytes(60), mtime=0), "gzipped DICOM"),
        ("a.mnc", b"\x89HDF\r\n\x1a\n" + bytes(60), "MINC"),
        ("a.bmp", b"BM" + bytes(60), "BMP"),
    ],
)
def test_formats_that_are_not_read_are_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert (error.reason, expected in str(error)) == ("unsupported_format", True), str(error)
    (tmp_path / "a.bin").write_bytes(b"something else entirely" * 20)
    assert refusal(tmp_path / "a.bin").reason == "unknown_format"


def test_a_lost_number_of_frames_leaves_no_frame_behind(real_series: Real, tmp_path: Path) -> None:
    dataset = copy.deepcopy(real_series[0])
    dataset.PixelData = dataset.PixelData + real_series[1].PixelData
    dataset.save_as(tmp_path / "a.dcm")
    assert only(tmp_path).reason == "excess_pixels"
    dataset.PixelData = real_series[0].PixelData + bytes(4096)
    dataset.save_as(tmp_path / "a.dcm")
    assert only(tmp_path).usable


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("HighBit", 13), ("BitsStored", 0), ("BitsStored", 17), ("BitsAllocated", 12),
     ("PixelRepresentation", 7)],
)  # fmt: skip
def test_a_pixel_format_that_is_none_is_refused_before_decoding(
    real_series: Real, tmp_path: Path, keyword: str, value: int
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    setattr(series[2], keyword, value)
    save(tmp_path, series)
    audit = only(tmp_path)
    assert audit.reason == "bad_pixel_format"
    assert keyword in audit.message


def test_objects_without_series_are_not_called_truncated(real_series: Real, tmp_path: Path) -> None:
    report = copy.deepcopy(real_series[0])
    del report.PixelData, report.SeriesInstanceUID
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
    report.save_as(tmp_path / "a.dcm")
    assert only(tmp_path).reason == "not_image"


def test_memory_that_a_decompressor_does_not_find_is_no_damage_of_the_file() -> None:
    with pytest.raises(MemoryError), stream_errors(Path("a.nii.gz")):
        raise zlib.error("Error -4 while decompressing data")
    with pytest.raises(ImageError) as caught, stream_errors(Path("a.nii.gz")):
        raise zlib.error("Error -3 while decompressing data: invalid block type")
    assert caught.value.reason == "corrupt"
