"""Hostile PNG, TIFF and JPEG files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image
from table import Hostile, written
from volumes import packed

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    stated = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", stated)


def png(
    width: int, height: int, pixels: bytes, *before: bytes, checksum: int | None = None
) -> bytes:
    """A grey PNG that states a size, whatever its pixels are."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pieces = [chunk(b"IHDR", head), *before, chunk(b"IDAT", pixels, checksum), chunk(b"IEND", b"")]
    return PNG + b"".join(pieces)


def picture(form: str) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    Image.fromarray(values).save(stream, form)
    return stream.getvalue()


def tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A TIFF directory of these tags (number, type, count, value) and few pixels."""
    stated = {
        256: (256, 3, 1, 8), 257: (257, 3, 1, 8), 258: (258, 3, 1, 8), 259: (259, 3, 1, 1),
        262: (262, 3, 1, 1), 273: (273, 4, 1, 8), 277: (277, 3, 1, 1), 278: (278, 3, 1, 8),
        279: (279, 4, 1, 64),
    }  # fmt: skip
    stated |= {tag[0]: tag for tag in tags}
    entries = b"".join(struct.pack("<HHII", *stated[number]) for number in sorted(stated))
    directory = struct.pack("<H", len(stated)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + directory


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(picture("JPEG"))
    where = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, where + 5, height, width)
    return bytes(data)


ROW = zlib.compress(bytes(9) * 8)

PICTURES = [
    Hostile("png: 2^31 - 1 pixels each way", "image", "too_large",
            written("a.png", lambda: png(2**31 - 1, 2**31 - 1, ROW))),
    Hostile("png: 40000 pixels each way of packed zeros", "image", "too_large",
            written("a.png", lambda: png(40000, 40000, packed(1 << 28)))),
    Hostile("png: a size of nothing", "image", "corrupt",
            written("a.png", lambda: png(0, 8, ROW))),
    Hostile("png: a comment that unpacks to a quarter of a gigabyte", "image", "corrupt",
            written("a.png", lambda: png(8, 8, ROW, chunk(b"zTXt", b"a\0\0" + packed(1 << 28))))),
    Hostile("png: a checksum that fails", "image", "corrupt",
            written("a.png", lambda: png(8, 8, ROW, checksum=1))),
    Hostile("png: nothing behind its signature", "image", "corrupt",
            written("a.png", PNG + b"\0" * 40)),
    Hostile("png: ends inside its pixels", "image", "truncated",
            written("a.png", lambda: picture("PNG")[:-400])),
    Hostile("tiff: pixels far behind the end", "image", "truncated",
            written("a.tif", lambda: tiff((273, 4, 1, 2**31)))),
    Hostile("tiff: 2^32 - 1 pixels each way", "image", "too_large",
            written("a.tif", lambda: tiff((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1)))),
    Hostile("tiff: a compression nobody knows", "image", "unsupported_pixels",
            written("a.tif", lambda: tiff((259, 3, 1, 31337)))),
    Hostile("tiff: a directory of 65535 tags", "image", "corrupt",
            written("a.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(600))),
    Hostile("jpeg: 65500 pixels each way", "image", "too_large",
            written("a.jpg", lambda: jpeg_of(65500, 65500))),
    Hostile("jpeg: ends inside its pixels", "image", "truncated",
            written("a.jpg", lambda: picture("JPEG")[:-300])),
    Hostile("jpeg: nothing behind its start", "image", "corrupt",
            written("a.jpg", b"\xff\xd8\xff\xe0" + bytes(60))),
]  # fmt: skip

HARMLESS_PICTURES = [
    Hostile("tiff: a directory that follows itself", "image", "",
            written("a.tif", lambda: tiff(following=72))),
]  # fmt: skip
