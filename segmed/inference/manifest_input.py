"""The cases of a manifest as inputs of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.errors import UsageError
from segmed.io.channel_files import CaseFiles
from segmed.manifest.json_form import read_manifest


def is_manifest(path: Path) -> bool:
    """True for a file that ends in .json."""
    return path.suffix.lower() == ".json" and not path.is_dir()


def cases_of_manifest(path: Path, names: Sequence[str]) -> list[CaseFiles]:
    """All cases of a manifest, training then test, with their files in the model's channel order.

    Args:
        path: The manifest.
        names: Channel names of the model; none are not compared.

    Raises:
        ManifestError: It cannot be read.
        UsageError: It has other channels than the model.
    """
    manifest = read_manifest(path)
    own = [channel.name for channel in manifest.channels]
    order = list(range(len(own)))
    if len(names) > 1 or len(own) > 1:
        if names and sorted(own) != sorted(names):
            raise UsageError(
                f"manifest {path} has the channels {', '.join(own)}, the model takes "
                f"{', '.join(names)}: build it with --channels {','.join(names)}"
            )
        order = [own.index(name) for name in names] if names else order
    cases = []
    for case in (*manifest.training, *manifest.test):
        files = manifest.image_paths(case)
        if len(files) > 1:
            files = tuple(files[number] for number in order)
        elif order != sorted(order):
            raise UsageError(
                f"manifest {path}: case {case.id} has one file with the channels "
                f"{', '.join(own)}, the model takes {', '.join(names)} in this order"
            )
        cases.append(CaseFiles(case.id, files))
    return cases
