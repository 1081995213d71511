"""An exported nnU-Net model as a zip archive: only what an import reads is unpacked."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segmed.errors import PackageError
from segmed.nnunet.folder import CHECKPOINTS, MAX_JSON_BYTES
from segmed.package.card import MAX_WEIGHTS_BYTES
from segmed.package.zipped import DAMAGED_ZIP, safe_path

WANTED = {
    "plans.json": MAX_JSON_BYTES,
    "dataset.json": MAX_JSON_BYTES,
    "dataset_fingerprint.json": MAX_JSON_BYTES,
    "summary.json": MAX_JSON_BYTES,
    "postprocessing.json": MAX_JSON_BYTES,
    **dict.fromkeys(CHECKPOINTS, MAX_WEIGHTS_BYTES),
}
"""Files that are unpacked, each with the bytes it may unpack to."""

MAX_FILES = 200


@contextmanager
def as_folder(path: Path) -> Iterator[Path]:
    """The folder of an nnU-Net model: the path itself, or a temporary one of an archive's files.

    Args:
        path: A folder or a zip archive.

    Raises:
        PackageError: The archive is damaged, or names files outside of itself.
    """
    if path.is_dir():
        yield path
        return
    if not zipfile.is_zipfile(path):
        raise PackageError(f"{path} is neither a folder nor a zip archive of nnU-Net results")
    with tempfile.TemporaryDirectory(prefix="segmed-nnunet-") as scratch:
        try:
            _unpack(path, Path(scratch))
        except PackageError:
            raise
        except DAMAGED_ZIP as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise PackageError(f"the archive {path.name} is damaged: {detail}") from error
        yield Path(scratch)


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        wanted = [
            (safe_path(member), member)
            for member in archive.infolist()
            if not member.filename.endswith("/")
        ]
        wanted = [(name, member) for name, member in wanted if name.name in WANTED]
        if len(wanted) > MAX_FILES:
            raise PackageError(f"{path.name} contains {len(wanted)} plans and checkpoints")
        for name, member in wanted:
            if member.file_size > WANTED[name.name]:
                raise PackageError(f"{name} in {path.name} unpacks to {member.file_size} bytes")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
