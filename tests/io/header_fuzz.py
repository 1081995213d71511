"""Seeded headers of NIfTI, NRRD, MetaImage and TIFF files, each some fields drawn oddly."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tifffile

Draw = np.random.Generator

ODD_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, np.nan, np.inf, -np.inf, 0.5, 1000.0, 3e38)
ODD_SHORTS = (0, 1, 2, 3, 4, 5, 7, 8, -1, -32768, 32767, 255, 256, 1000)
NIFTI_TYPES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2304, 0, 1, 3, 9999)
NIFTI_FIELDS = ("dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter",
                "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
                "qoffset_x", "srow_x", "srow_y", "srow_z", "magic", "sizeof_hdr", "intent_code",
                "dim_info", "extension")  # fmt: skip


def volume(draw: Draw, dtype: str) -> np.ndarray:
    shape = tuple(int(n) for n in draw.integers(1, 7, 3))
    if dtype[-2] == "f":
        return draw.normal(0, 50, shape).astype(dtype)
    bounds = np.iinfo(dtype)
    low, high = max(bounds.min, -30_000), min(bounds.max, 30_000)
    return draw.integers(low, high, shape, dtype=np.int64).astype(dtype)


def write_nifti_oddly(path: Path, draw: Draw) -> None:
    """A NIfTI-1 or -2 file of either byte order, single or a pair, one to three fields odd."""
    order = str(draw.choice(["<", ">"]))
    kind = nib.Nifti2Header if draw.random() < 0.3 else nib.Nifti1Header
    array = volume(draw, order + str(draw.choice(["i2", "u1", "f4", "f8", "i4", "u2", "i8"])))
    header = kind(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    turn = nib.eulerangles.euler2mat(*draw.normal(0, 0.3, 3))
    affine = nib.affines.from_matvec(turn @ np.diag(draw.uniform(0.3, 3, 3)), draw.normal(0, 9, 3))
    if draw.random() < 0.8:
        header.set_sform(affine, int(draw.integers(1, 5)))
    if draw.random() < 0.7:
        header.set_qform(affine, int(draw.integers(1, 5)))
    header["vox_offset"] = len(header.binaryblock) + 4
    header["magic"] = b"n+2" if kind is nib.Nifti2Header else b"n+1"
    extension = bytes(4)
    for name in draw.choice(NIFTI_FIELDS, int(draw.integers(0, 4)), replace=False):
        if name == "extension":
            extension = b"\0" + draw.bytes(3)
        else:
            _odd_field(header, str(name), draw)
    content = header.binaryblock + extension + array.tobytes(order="F")
    if draw.random() < 0.1:
        content += bytes(int(draw.integers(1, 600)))
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _odd_field(header: Any, name: str, draw: Draw) -> None:
    values = header[name]
    if name == "datatype":
        header[name] = int(draw.choice(NIFTI_TYPES))
        if draw.random() < 0.7 and int(header[name]) in nib.nifti1.data_type_codes.dtype:
            header["bitpix"] = nib.nifti1.data_type_codes.dtype[int(header[name])].itemsize * 8
    elif name == "magic":
        header[name] = [b"n+1", b"n+2", b"ni1", b"ni2", b"", b"n+9"][int(draw.integers(6))]
    elif values.ndim == 1:
        changed = values.copy()
        where = int(draw.integers(len(changed)))
        changed[where] = _odd(draw, changed.dtype)
        header[name] = changed
    else:
        header[name] = _odd(draw, values.dtype)


def _odd(draw: Draw, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        if draw.random() < 0.5:
            return float(draw.normal(0, 2))
        return float(draw.choice(ODD_FLOATS))
    value = int(draw.choice(ODD_SHORTS))
    bounds = np.iinfo(dtype)
    return min(max(value, bounds.min), bounds.max)


NUMBERS = (
    "0",
    "1",
    "-1",
    "2.5",
    "nan",
    "inf",
    "1e400",
    "",
    "x",
    "0x10",
    "1,0",
    "99999999999",
    "+1",
)


def write_nrrd_oddly(path: Path, draw: Draw) -> None:
    """An attached NRRD file with some header lines odd, missing, doubled or in another order."""
    code, name = [("<i2", "short"), ("|u1", "uchar"), ("<f4", "float"), (">i2", "int16")][
        int(draw.integers(4))
    ]
    array = volume(draw, code)
    vectors = nib.eulerangles.euler2mat(*draw.normal(0, 0.3, 3)) @ np.diag(draw.uniform(0.3, 3, 3))
    shown = [f"({','.join(repr(float(x)) for x in vectors[:, axis])})" for axis in range(3)]
    space = str(draw.choice(["left-posterior-superior", "RAS", "LAS", "right-anterior-superior"]))
    fields = {
        "type": name,
        "dimension": "3",
        "space": space,
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(shown),
        "kinds": "domain domain domain",
        "endian": "big" if code[0] == ">" else "little",
        "encoding": str(draw.choice(["raw", "gzip"])),
        "space origin": f"({','.join(repr(float(x)) for x in draw.normal(0, 9, 3))})",
    }
    packed = gzip.compress if fields["encoding"] == "gzip" else bytes
    body = packed(array.tobytes(order="F"))
    lines = _odd_lines(fields, ": ", draw)
    path.write_bytes(("NRRD0004\n" + lines + "\n").encode("latin-1") + body)


def write_metaimage_oddly(path: Path, draw: Draw) -> None:
    """A MetaImage file with some header lines odd, missing or doubled."""
    code, name = [("<i2", "MET_SHORT"), ("|u1", "MET_UCHAR"), ("<f4", "MET_FLOAT")][
        int(draw.integers(3))
    ]
    array = volume(draw, code)
    turn = nib.eulerangles.euler2mat(*draw.normal(0, 0.3, 3))
    is_zipped = bool(draw.random() < 0.5)
    body = array.tobytes(order="F")
    packed = zlib.compress(body) if is_zipped else body
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(is_zipped),
        **({"CompressedDataSize": str(len(packed))} if is_zipped else {}),
        "TransformMatrix": " ".join(repr(float(x)) for x in turn.T.ravel()),
        "Offset": " ".join(repr(float(x)) for x in draw.normal(0, 9, 3)),
        "ElementSpacing": " ".join(repr(float(x)) for x in draw.uniform(0.3, 3, 3)),
        "DimSize": " ".join(map(str, array.shape)),
        "ElementType": name,
    }
    lines = _odd_lines(fields, " = ", draw)
    path.write_bytes((lines + "ElementDataFile = LOCAL\n").encode("latin-1") + packed)


def _odd_lines(fields: dict[str, str], between: str, draw: Draw) -> str:
    lines = dict(fields)
    names = [name for name in fields if name != "CompressedDataSize"]  # its readers disagree
    for name in draw.choice(names, int(draw.integers(0, 3)), replace=False):
        parts = lines.get(str(name), "").split(" ")
        match int(draw.integers(5)):
            case 0:
                lines.pop(str(name), None)
            case 1:
                lines[str(name)] = str(draw.choice(NUMBERS))
            case 2:
                parts[int(draw.integers(len(parts)))] = str(draw.choice(NUMBERS))
                lines[str(name)] = " ".join(parts)
            case 3:
                lines[str(name)] = " ".join([*parts, str(draw.choice(NUMBERS))])
            case _:
                lines[str(name)] = lines[str(name)].upper() if name in lines else ""
    return "".join(f"{name}{between}{value.strip()}\n" for name, value in lines.items())


TIFF_TYPES = ("u1", "u2", "i2", "f4", "i4", "u4", "i1")
TAGS = (256, 257, 258, 273, 274, 339)
"""Width, height, bits, place of the pixels, orientation and kind of numbers."""


def write_tiff_oddly(path: Path, draw: Draw) -> np.ndarray:
    """A small TIFF, classic or Big, some entries of its directory odd; its pixels."""
    shape = tuple(int(n) for n in draw.integers(1, 20, 2))
    if draw.random() < 0.2:
        array = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
    else:
        array = volume(draw, "<" + str(draw.choice(TIFF_TYPES)))[0]
        array = np.ascontiguousarray(np.resize(array, shape))
    tifffile.imwrite(
        path,
        array,
        byteorder=str(draw.choice(["<", ">"])),
        bigtiff=bool(draw.random() < 0.2),
        compression=[None, "zlib"][int(draw.integers(2))],
        photometric="rgb" if array.ndim == 3 else "minisblack",
    )
    content = bytearray(path.read_bytes())
    for number in draw.choice(TAGS, int(draw.integers(0, 3)), replace=False):
        _odd_entry(content, int(number), draw)
    path.write_bytes(bytes(content))
    return array


def _odd_entry(content: bytearray, number: int, draw: Draw) -> None:
    """Change type, count or value of one entry of a classic TIFF's first directory."""
    order = "<" if content[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", content, 2)[0] != 42:
        return
    (start,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, start)
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from(order + "H", content, place)[0] == number:
            match int(draw.integers(3)):
                case 0:
                    struct.pack_into(order + "H", content, place + 2, int(draw.integers(0, 14)))
                case 1:
                    struct.pack_into(order + "I", content, place + 4, int(draw.integers(0, 4)))
                case _:
                    value = int(draw.choice([0, 1, 2, 3, 5, 8, 16, 32, 64, 255, 1 << 16, 1 << 30]))
                    struct.pack_into(order + "I", content, place + 8, value)
