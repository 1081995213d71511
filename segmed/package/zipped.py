"""Unpack a zipped package of unknown origin: known names and bounded sizes only."""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from segmed.errors import PackageError

DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # encrypted
    NotImplementedError,  # an unknown compression
    ValueError,  # names that are not text
    OverflowError,
)
"""What Python's zip reader raises for a damaged archive."""

MEBI = 1 << 20
LARGEST_RATIO = 100
"""A file of more than 1 MiB may unpack to so many times its packed bytes; weights hardly shrink."""


def unpack(path: Path, folder: Path, limits: Mapping[str, int]) -> None:
    """Unpack the files of an archive into a folder.

    Args:
        path: The archive.
        folder: An empty folder.
        limits: Names of the files that it may contain, each with the bytes it may unpack to.

    Raises:
        PackageError: It is not a zip archive, is damaged, contains anything else, or unpacks to
            far more than its size.
    """
    if not zipfile.is_zipfile(path):
        raise PackageError(f"{path.name} is neither a package folder nor a zip archive of one")
    try:
        _unpack(path, folder, limits)
    except PackageError:
        raise
    except DAMAGED_ZIP as error:
        raise _damaged_zip(path, error) from error
    except OSError as error:
        if error.errno not in {None, errno.EINVAL}:  # not bzip2's, nor an impossible offset
            raise
        raise _damaged_zip(path, error) from error


def _damaged_zip(path: Path, error: Exception) -> PackageError:
    detail = " ".join(str(error).split()) or type(error).__name__
    return PackageError(f"the archive {path.name} is damaged: {detail}; fetch it anew")


def _unpack(path: Path, folder: Path, limits: Mapping[str, int]) -> None:
    with zipfile.ZipFile(path) as archive:
        for name, member in _members(archive, tuple(limits)).items():
            if member.file_size > limits[name]:
                raise PackageError(f"{name} in {path.name} unpacks to {member.file_size} bytes")
            if member.file_size > max(MEBI, LARGEST_RATIO * member.compress_size):
                raise PackageError(
                    f"{name} in {path.name} unpacks from {member.compress_size} to "
                    f"{member.file_size} bytes, as no weights do; unpack it yourself if it is "
                    "trusted, and name the folder"
                )
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def safe_path(member: zipfile.ZipInfo) -> PurePosixPath:
    """Path of a member below the folder that its archive is unpacked into.

    Raises:
        PackageError: It would lie outside of that folder, or is a link.
    """
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in member.filename:
        raise PackageError(f"the archive's {member.filename!r} would be outside of its folder")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise PackageError(f"the archive's {member.filename!r} is a link; a package has none")
    return name


def _members(archive: zipfile.ZipFile, known: tuple[str, ...]) -> dict[str, zipfile.ZipInfo]:
    """The package's files in an archive, at its root or in one folder; anything odd is refused."""
    found: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for member in archive.infolist():
        name = safe_path(member)
        if member.filename.endswith("/"):  # a folder
            continue
        if name.name not in known or name.name in found:
            raise PackageError(
                f"unexpected member {member.filename!r}; a package contains only {', '.join(known)}"
            )
        found[name.name] = member
        folders.add(name.parent)
    if len(folders) > 1:
        raise PackageError("the archive's files are in several folders; zip one package folder")
    return found
