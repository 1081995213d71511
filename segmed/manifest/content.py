"""Content digests of a file, a folder, an image and a set of cases."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segmed.cores import usable_cores
from segmed.encoding import LabelEncoding
from segmed.errors import ManifestError
from segmed.io.digest import sha256_of_file, sha256_of_json, sha256_of_text
from segmed.manifest.schema import Case, Manifest


def is_hidden(path: Path) -> bool:
    """Return whether a file is hidden, such as the `._*` doubles that macOS leaves in archives."""
    return path.name.startswith(".")


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted file digests, as lower-case hex.

    Args:
        path: A file, or a folder (a DICOM series) whose hidden files do not count.

    Raises:
        FileNotFoundError: There is nothing at `path`, or something without an end (a pipe, a
            device).
    """
    if path.is_dir():
        inside = (file for file in path.iterdir() if not is_hidden(file))
        return _joined(sorted(digest(file) for file in inside if file.is_file() or file.is_dir()))
    if path.exists() and not path.is_file():
        raise FileNotFoundError(f"{path.name} is a pipe or a device, not a file")
    return sha256_of_file(path)


def image_digest(path: Path) -> str:
    """SHA-256 of all that is an image, as lower-case hex: changed voxels change it.

    Of a single file it is the file's own. An image in two files, header and voxels, has a digest of
    both, the same for either of their names. Of a folder with one DICOM series the files of the
    series count, whatever else is beside them; of another folder all files.

    Args:
        path: What the image is read from.

    Raises:
        FileNotFoundError: There is nothing at `path`, or something without an end.
    """
    from segmed.io.parts import files_of  # noqa: PLC0415 - readers of images, for images alone
    from segmed.io.stack import is_stack  # noqa: PLC0415 - as below

    files = files_of(path)
    if files and is_stack(path):
        return _joined(["stack of slices, in order", *map(digest, files)])
    if path.is_dir():
        return _joined(sorted(map(digest, files))) if files else digest(path)
    if len(files) == 1:
        return digest(path)
    return _joined([f"image in {len(files)} files", *map(digest, files)])


def is_as_listed(path: Path, listed: str, found: str) -> bool:
    """Return whether an image has the digest that a manifest lists.

    Args:
        path: What the image is read from.
        listed: Digest in the manifest; manifests of segmed 0.1 list that of all files of a folder.
        found: What `image_digest` gave.
    """
    return found == listed or (path.is_dir() and digest(path) == listed)


def repair_of(path: Path, listed: str) -> str:
    """The repair for an image whose digest is not the listed one, for messages."""
    if path.is_file() and digest(path) == listed:
        return "the manifest lists its header alone, as segmed 0.1 did: build the manifest again"
    return "restore it or build the manifest again"


def _joined(parts: Iterable[str]) -> str:
    return sha256_of_text("\n".join(parts))


def with_digests(manifest: Manifest) -> Manifest:
    """The manifest with the digest of every image and label of every case filled in.

    Raises:
        ManifestError: A file has vanished, or cannot be read.
    """

    def filled(case: Case) -> Case:
        files = [*case.image, *([case.label] if case.label else [])]
        try:
            found = {name: image_digest(manifest.root / name) for name in files}
        except OSError as error:
            detail = error.strerror or str(error)
            raise ManifestError(
                f"case {case.id!r} cannot be read ({detail}); restore its files, or take the case "
                "out of the set"
            ) from error
        return case.model_copy(update={"sha256": found})

    with ThreadPoolExecutor(usable_cores()) as pool:
        training = tuple(pool.map(filled, manifest.training))
        test = tuple(pool.map(filled, manifest.test))
    return manifest.model_copy(update={"training": training, "test": test})


def case_hash(manifest: Manifest, case: Case) -> str:
    """SHA-256 of the content of a case's images, independent of their names and locations.

    Stored digests are trusted; images without one are read.
    """
    known = case.sha256
    names = [*case.image, *([case.label] if case.label else [])]
    digests = [known.get(name) or image_digest(manifest.root / name) for name in names]
    parts = {"image": digests[: len(case.image)], "label": digests[len(case.image) :]}
    return sha256_of_json(parts)


def data_hash(manifest: Manifest, cases: Iterable[Case]) -> str:
    """SHA-256 over labels, channels and the content of some cases, in whatever order they come.

    Args:
        manifest: Where the cases come from.
        cases: The cases that count, such as the training cases of one fold.

    Returns:
        64 hex digits; equal when the same files, ids and meanings were used.
    """
    parts = {
        "labels": [[label.name, label.value] for label in manifest.labels],
        **encoding_parts(manifest.encoding),
        **stored_parts(manifest),
        "channels": [[channel.name, channel.modality] for channel in manifest.channels],
        "cases": sorted([case.id, case_hash(manifest, case)] for case in cases),
    }
    return sha256_of_json(parts)


def encoding_parts(encoding: LabelEncoding) -> dict[str, Any]:
    """Regions and the ignored value as a part of a digest; nothing where there are none."""
    parts: dict[str, Any] = {}
    if encoding.has_regions:
        parts["regions"] = [sorted(label.values) for label in encoding.labels]
    if encoding.ignore_value is not None:
        parts["ignore_value"] = encoding.ignore_value
    return parts


def stored_parts(manifest: Manifest) -> dict[str, Any]:
    """Stored labels as a part of a digest; nothing where the files have the labels' own values."""
    if not manifest.stored_labels:
        return {}
    return {"stored": [label.model_dump(mode="json") for label in manifest.stored_labels]}
