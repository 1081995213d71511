"""PNG, TIFF and JPEG: the stated rules, and damage."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segmed.errors import ImageError, UsageError
from segmed.io import ReadLimits, grid_of, read_image, read_label, write_label

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 255, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 255, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_gives_rows_and_columns_of_one_channel(tmp_path: Path, name: str, dtype: str) -> None:
    values = GREY.astype(dtype) * (257 if dtype == "uint16" else 1)
    Image.fromarray(values).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (1, 5, 7)
    np.testing.assert_array_equal(image.numpy()[0], values)
    assert grid_of(image).spacing_mm == (1.0, 1.0)


def test_float_tiff_keeps_its_values(tmp_path: Path) -> None:
    values = GREY.astype(np.float32) / 7
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").numpy()[0], values)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colour_gives_three_channels_and_opaque_alpha_is_dropped(tmp_path: Path, name: str) -> None:
    opaque = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
    for values in (COLOUR, opaque):
        Image.fromarray(values).save(tmp_path / name)
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.numpy(), np.moveaxis(COLOUR, 2, 0))


def test_transparency_is_refused(tmp_path: Path) -> None:
    seen_through = np.dstack([COLOUR, GREY])
    Image.fromarray(seen_through).save(tmp_path / "a.png")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png")
    assert caught.value.reason == "transparency"


def test_a_see_through_grey_or_colour_is_refused_where_it_occurs(tmp_path: Path) -> None:
    present = (int(GREY[0, 0]), tuple(map(int, COLOUR[0, 0])))
    for values, key, other in zip((GREY, COLOUR), present, (255, (255, 255, 255)), strict=True):
        Image.fromarray(values).save(tmp_path / "a.png", transparency=key)
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / "a.png")
        assert caught.value.reason == "transparency"
        Image.fromarray(values).save(tmp_path / "a.png", transparency=other)
        assert read_image(tmp_path / "a.png").shape[1:] == (5, 7)
    Image.fromarray(GREY).save(tmp_path / "a.png", transparency=present[0])
    np.testing.assert_array_equal(read_label(tmp_path / "a.png").numpy()[0], GREY)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_an_image_to_be_turned_before_it_is_shown_is_refused(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    for orientation in (1, 6):
        exif[0x0112] = orientation
        Image.fromarray(GREY).save(tmp_path / name, exif=exif)
        if orientation == 1:
            assert read_image(tmp_path / name).shape == (1, 5, 7)
            continue
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert caught.value.reason == "turned"


def test_a_palette_is_colours_for_an_image_and_indices_for_a_label(tmp_path: Path) -> None:
    indices = (GREY % 3).astype(np.uint8)
    image = Image.new("P", (7, 5))
    image.putdata(indices.ravel().tolist())
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])[indices]
    expected = np.moveaxis(colours, 2, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").numpy(), expected)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png").numpy()[0], indices)


def test_real_one_bit_masks_hold_zero_and_one(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("chase_db1") / "images_and_labels"
    label = read_label(folder / "Image_01L_1stHO.png")
    assert label.shape == (1, 960, 999)
    assert sorted(np.unique(label.numpy())) == [0, 1]
    image = read_image(folder / "Image_01L.jpg")
    assert image.shape == (3, 960, 999)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for keep in (12, len(content) // 2, len(content) - 20):
        (tmp_path / name).write_bytes(content[:keep])
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert caught.value.reason in {"truncated", "corrupt"}


def test_a_flipped_bit_of_a_png_never_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
    sound = path.read_bytes()
    for position in range(16, len(sound) - 12, 31):
        damaged = bytearray(sound)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            read_image(path)


def test_limits_pages_and_deep_colour_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png", limits=ReadLimits(max_voxels=10))
    assert caught.value.reason == "too_large"
    pages = [Image.fromarray(GREY) for _ in range(2)]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "b.tif")
    assert caught.value.reason == "several_pages"
    Image.new("CMYK", (3, 3)).save(tmp_path / "c.jpg")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "c.jpg")
    assert caught.value.reason == "unsupported_pixels"


@pytest.mark.parametrize("form", ["png", "tiff", "opaque png"])
def test_colour_of_sixteen_bits_is_refused_instead_of_reduced(tmp_path: Path, form: str) -> None:
    rows, columns, samples = 4, 6, 4 if "opaque" in form else 3
    values = np.random.default_rng(5).integers(0, 65536, (rows, columns, samples), dtype=np.uint16)
    values[..., 3:] = 65535
    path = tmp_path / f"deep.{form.rsplit(maxsplit=1)[-1]}"
    if form == "tiff":
        tifffile.imwrite(path, values, photometric="rgb")
    else:
        lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        path.write_bytes(png_of(columns, rows, {3: 2, 4: 6}[samples], lines))
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == "unsupported_pixels"


def png_of(columns: int, rows: int, colour: int, lines: bytes) -> bytes:
    """A PNG of 16 bits a sample, which Pillow cannot write in colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", columns, rows, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_colour_is_no_label(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(ImageError) as caught:
        read_label(tmp_path / "a.png")
    assert caught.value.reason == "channels"


@pytest.mark.parametrize("top", [7, 700])
def test_png_labels_come_back(tmp_path: Path, top: int) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    label = torch.randint(0, top, (5, 7))
    label[0, 0] = top
    back = read_label(write_label(tmp_path / "l.png", label, like=image))
    assert torch.equal(back.as_tensor()[0], label.to(torch.int32))
    with pytest.raises(UsageError):
        write_label(tmp_path / "l.mha", label, like=image)


def _tiff(path: Path, values: np.ndarray, **tags: object) -> Path:
    tifffile.imwrite(path, values, **tags)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_label_values_of_an_inverted_tiff_are_those_stored(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 1, 2], [0, 7, 0]], dtype)
    path = _tiff(tmp_path / "a.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(read_label(path).numpy()[0], values)


@pytest.mark.parametrize(
    "values",
    [np.eye(4, 8, dtype=bool), 255 * np.eye(4, dtype=np.uint8), 65535 * np.eye(4, dtype=np.uint16)],
)
def test_two_extreme_values_of_an_inverted_tiff_are_refused(
    tmp_path: Path, values: np.ndarray
) -> None:
    path = _tiff(tmp_path / "a.tif", values, photometric="miniswhite")
    with pytest.raises(ImageError) as caught:
        read_label(path)
    assert caught.value.reason == "inverted"


def test_inverted_tiff_of_sixteen_bits_is_no_image(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "a.tif", GREY.astype(np.uint16), photometric="miniswhite")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == "inverted"


def test_unsigned_32_bits_do_not_wrap_in_a_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 3, 2**31 + 5]], np.uint32)
    path = _tiff(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_image(path).numpy()[0], values.astype(np.float32))
    with pytest.raises(ImageError, match="2147483653 do not fit"):
        read_label(path)
    small = _tiff(tmp_path / "b.tif", values % 2**31)
    assert read_label(small).flatten().tolist() == [0, 3, 5]


def test_signed_8_bits_keep_their_sign_in_a_tiff(tmp_path: Path) -> None:
    values = np.array([[-2, 0, 3]], np.int8)
    assert read_image(_tiff(tmp_path / "a.tif", values)).flatten().tolist() == [-2.0, 0.0, 3.0]


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_are_not_spread(tmp_path: Path, bits: int) -> None:
    values = np.array([[0, 1, 2, 3]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    header = bytes([0, *np.packbits(np.unpackbits(values.T, axis=1)[:, -bits:].ravel())])
    (tmp_path / "a.png").write_bytes(_grey_png(4, 1, bits, header))
    assert read_label(tmp_path / "a.png").flatten().tolist() == [0, 1, 2, 3]


def _grey_png(columns: int, rows: int, bits: int, lines: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    size = columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0])
    parts = [chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_mask_that_jpeg_smeared_is_refused(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[5:20, 7:19] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=70)
    with pytest.raises(ImageError) as caught:
        read_label(tmp_path / "a.jpg")
    assert caught.value.reason == "lossy_label"
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(tmp_path / "b.jpg", quality=100)
    assert read_label(tmp_path / "b.jpg").unique().tolist() == [255]


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("f8", "64-bit float"), ("f2", "16-bit float"), ("u8", "64-bit unsigned"), ("c8", "complex")],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_sound_tiffs_of_other_numbers_are_called_unsupported(
    tmp_path: Path, dtype: str, words: str, order: Literal["<", ">"]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(12).reshape(3, 4).astype(dtype), byteorder=order)
    for read in (read_image, read_label):
        with pytest.raises(ImageError, match=f"{words} pixels are not read") as caught:
            read(path)
        assert caught.value.reason == "unsupported_pixels"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason in {"corrupt", "truncated"}
