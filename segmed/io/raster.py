"""Read and write PNG, TIFF and JPEG: two-dimensional images without a place in a patient.

Rules. Grey gives one channel, colour three. An alpha channel must be opaque and is dropped, else
`transparency`; so too where an image names a see-through grey or colour that occurs in it. A
palette is expanded to its colours for an image; a label keeps its indices. One bit gives 0 and 1.
A label keeps the stored numbers: those of 2 or 4 bits are not spread over 0..255, and those of a
TIFF whose zero is white are not inverted. Refused where this leaves open what was drawn: a mask of
the two extreme values in such a TIFF, and an image of 16 or 32 bits (`inverted`); a JPEG with more
than two values as a label, for its compression made some of them up (`lossy_label`); a compressed
TIFF of signed or of 32-bit values with the high byte first (`byte_order`).
Refused: several pages (`several_pages`), 16-bit colour and CMYK (`unsupported_pixels`), and pixels
that are to be turned before they are shown (`turned`), for a mask drawn on what is shown would not
fit. The affine is the identity: 1 mm pixels, rows then columns.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from segmed.errors import ImageError
from segmed.io.atomic import whole_file
from segmed.io.bytestream import refusal
from segmed.io.dicom.codestream import stated_precision
from segmed.io.limits import ReadLimits, check_size, out_of_memory
from segmed.io.results import LABEL_MARK
from segmed.io.source import Loaded, Source
from segmed.io.tiff_strips import check_strips, stated_pixels

CHANNELS = {"1": 1, "L": 1, "P": 1, "I": 1, "F": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "LA": 2,
            "RGB": 3, "RGBA": 4}  # fmt: skip
ORIENTATION_TAG, PHOTOMETRIC_TAG, SAMPLE_FORMAT_TAG = 0x0112, 0x0106, 0x0153
COMPRESSION_TAG = 0x0103
WHITE_IS_ZERO = 0
SPREAD = {2: 85, 4: 17}
"""Factor by which Pillow spreads grey of so many bits over 0..255."""

HEAD_BYTES = 1 << 20
"""Bytes within which a JPEG file states its size and depth."""

_BROKEN_OFF = "Corrupt EXIF data|Truncated File Read"
"""Pillow's remarks on a directory of a TIFF of which it read a part."""

_DAMAGE = (UserWarning, OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
           OverflowError, AttributeError, struct.error)  # fmt: skip


def read_raster(path: Path, kind: str, limits: ReadLimits, *, exact: bool = False) -> Loaded:
    """Read one raster image.

    Args:
        path: The file.
        kind: `png`, `tiff` or `jpeg`.
        limits: Bounds on its size.
        exact: A label: keep the stored type, palettes as indices; colour is refused.

    Returns:
        `[C, rows, columns]` with C = 1 or 3.

    Raises:
        ImageError: The file is refused; see the module for the reasons.
    """
    array = _pixels(path, kind, limits, as_label=exact)
    if exact and array.shape[2] != 1:
        raise refusal(path, "channels", f"a label has one channel, this has {array.shape[2]}")
    moved = np.ascontiguousarray(np.moveaxis(array, 2, 0))
    values = moved if exact else moved.astype(np.float32)
    return Loaded(values, np.eye(4), Source(format=kind, paths=(path,)))


def _pixels(path: Path, kind: str, limits: ReadLimits, *, as_label: bool) -> npt.NDArray[Any]:
    """`[rows, columns, channels]` after all rules."""
    with warnings.catch_warnings():
        # Our own limit is checked before pixels are decoded; Pillow's remark is about its own.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Odd private tags of TIFF files are no concern of the pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
        # A directory that breaks off may lack the very tags that say what the pixels are.
        warnings.filterwarnings("error", message=_BROKEN_OFF, category=UserWarning)
        try:
            _verify(path, kind)
            with Image.open(path, formats=[kind.upper()]) as image:
                _check_header(image, path, kind, limits)
                image.load()
                if not as_label:
                    _check_key(image, path)
                array = np.asarray(image if as_label else _without_palette(image))
                array = _as_stored(array, image, path, kind, as_label=as_label)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise refusal(path, "too_large", "the header states too many pixels") from error
        except MemoryError as error:
            raise out_of_memory(path) from error
        except UnidentifiedImageError as error:
            if kind == "tiff" and (pixels := stated_pixels(path)):
                message = f"{pixels} are not read; save it as 8 or 16-bit integers or 32-bit float"
                raise refusal(path, "unsupported_pixels", message) from error
            raise refusal(path, "corrupt", f"begins like {kind} but is not valid") from error
        except _DAMAGE as error:
            reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
            raise refusal(
                path,
                reason,
                f"its pixels cannot be decoded ({type(error).__name__}); fetch it again",
            ) from error
    array = array.astype(np.uint8) if array.dtype == bool else array
    return _opaque(array if array.ndim == 3 else array[:, :, None], path)


def _as_stored(
    array: npt.NDArray[Any], image: Image.Image, path: Path, kind: str, *, as_label: bool
) -> npt.NDArray[Any]:
    """The values as the file stores them, where Pillow gives others."""
    if kind == "tiff":
        array = _with_sign(array, image, path)
        if _tag(image, PHOTOMETRIC_TAG, 1) == WHITE_IS_ZERO:
            return _not_inverted(array, _bits(image, path, kind), path, as_label=as_label)
    if as_label and kind == "jpeg" and len(np.unique(array)) > 2:
        raise refusal(path, "lossy_label", "a JPEG keeps no label values; save masks as PNG")
    if as_label and image.mode == "L" and (spread := SPREAD.get(_bits(image, path, kind))):
        return array // spread
    return array


def _is_swapped(image: Image.Image) -> bool:
    """Return whether Pillow swaps the bytes of these compressed pixels (seen with 13.0)."""
    is_big_endian = image.tag_v2.prefix[:2] == b"MM"  # type: ignore[attr-defined]  # TIFF images only
    return is_big_endian and _tag(image, COMPRESSION_TAG, 1) != 1


def _tag(image: Image.Image, number: int, default: int) -> int:
    """A number of a TIFF's header; of several, one a channel, the first."""
    value = image.tag_v2.get(number, default)  # type: ignore[attr-defined]  # TIFF images only
    return int(value[0] if isinstance(value, tuple) else value)


def _with_sign(array: npt.NDArray[Any], image: Image.Image, path: Path) -> npt.NDArray[Any]:
    """Values of 32 unsigned or 8 signed bits, whose sign Pillow mistakes."""
    kind = (image.mode, _bits(image, path, "tiff"), _tag(image, SAMPLE_FORMAT_TAG, 1))
    other = {("I", 32, 1): np.uint32, ("L", 8, 2): np.int8}.get(kind)
    return array if other is None else array.view(other)


def _not_inverted(
    array: npt.NDArray[Any], bits: int, path: Path, *, as_label: bool
) -> npt.NDArray[Any]:
    """Stored label values of a TIFF whose zero is white; an image is inverted, as it is shown."""
    if not as_label and bits <= 8:
        return array
    if not as_label or array.dtype.kind == "f":
        raise refusal(path, "inverted", f"zero is white in {bits} bits; save it with zero as black")
    stored = array if bits > 8 else (255 - array.astype(np.uint8)) // SPREAD.get(bits, 1)
    highest = 2**bits - 1
    if array.dtype == bool or set(np.unique(stored).tolist()) <= {0, highest}:
        raise refusal(
            path,
            "inverted",
            f"zero is white, values are 0 and {highest} only: it does not say which is the mask; "
            "save it with zero as black",
        )
    return stored


def _without_palette(image: Image.Image) -> Image.Image:
    if image.mode != "P":
        return image
    return image.convert("RGBA" if "transparency" in image.info else "RGB")


def _verify(path: Path, kind: str) -> None:
    """Check the checksums of a PNG's chunks, which decoding alone passes over, and JPEG's depth."""
    if kind == "png":
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    if kind == "jpeg":
        with path.open("rb") as stream:
            bits = stated_precision(stream.read(HEAD_BYTES))
        if bits not in {None, 8}:
            message = f"JPEG of {bits} bits a sample is not read; save it as PNG or TIFF of 16 bits"
            raise refusal(path, "unsupported_pixels", message)


def _check_header(image: Image.Image, path: Path, kind: str, limits: ReadLimits) -> None:
    channels = CHANNELS.get(image.mode)
    if channels is None:
        raise refusal(path, "unsupported_pixels", f"pixels of mode {image.mode}; use grey or RGB")
    check_size((image.height, image.width, channels), limits, path)
    if (turn := image.getexif().get(ORIENTATION_TAG, 1)) != 1:
        raise refusal(
            path, "turned", f"to be turned before it is shown (orientation {turn}); save it turned"
        )
    if kind == "tiff":
        tags = image.tag_v2  # type: ignore[attr-defined]  # TIFF images only
        bits = 1 if image.mode == "1" else _bits(image, path, kind)
        check_strips(tags, (image.height, image.width), bits, path)
    if kind == "tiff" and image.mode in {"I", "F"} and _is_swapped(image):
        raise refusal(
            path,
            "byte_order",
            "compressed pixels of more than 8 bits, the high byte first, would be read wrongly; "
            "save it uncompressed, or with the low byte first",
        )
    pages = int(getattr(image, "n_frames", 1))
    if pages > 1:
        raise refusal(path, "several_pages", f"{pages} pages; split them into files")
    if channels > 1 and _bits(image, path, kind) > 8:
        raise refusal(path, "unsupported_pixels", "colour of more than 8 bits; use grey or 8 bits")


def _check_key(image: Image.Image, path: Path) -> None:
    """Refuse pixels of the one grey or colour that the file names as see-through."""
    key = image.info.get("transparency")
    if key is None or image.mode == "P":
        return
    seen = np.atleast_3d(np.asarray(image)) == np.asarray(key)
    if bool(seen.all(axis=2).any()):
        raise _transparent(path)


def _transparent(path: Path) -> ImageError:
    return refusal(path, "transparency", "some pixels are transparent; flatten the image first")


def _bits(image: Image.Image, path: Path, kind: str) -> int:
    """Bits of one value as the file stores them: Pillow quietly reduces deep colour to 8."""
    if kind == "png":
        with path.open("rb") as stream:
            return stream.read(25)[24]
    if kind == "tiff":
        stated = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]  # TIFF images only, as asked above
        return max(int(bits) for bits in (stated if isinstance(stated, tuple) else (stated,)))
    return 8


def _opaque(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Drop an alpha channel that hides nothing."""
    if array.shape[2] not in {2, 4}:
        return array
    if int(array[:, :, -1].min()) != np.iinfo(array.dtype).max:
        raise _transparent(path)
    return array[:, :, :-1]


def write_png(path: Path, array: npt.NDArray[Any]) -> Path:
    """Write a 2D label map as a grey PNG of 8 or 16 bits.

    Args:
        path: `.png`.
        array: `[rows, columns]`, uint8 or uint16.

    Returns:
        `path`.
    """
    mark = PngInfo()
    mark.add_text("Software", LABEL_MARK)
    with whole_file(path) as partial:
        Image.fromarray(array).save(partial, format="PNG", pnginfo=mark)
    return path
