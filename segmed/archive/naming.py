"""Names of the outputs of an archive: those of the inputs, or hashes; never one for two inputs.

A name is reserved in the ledger before anything is written under it. A file that exists is replaced
only if the ledger has its name for the same entry, or for an earlier state of the same input.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segmed.archive.ledger import Entry, Ledger
from segmed.archive.study import Study
from segmed.archive.writing import suffix_of
from segmed.formats import RASTER_FORMATS, RASTER_OUTPUT_SUFFIX
from segmed.io.output_names import NameKind, is_same_file, with_suffix

OUTPUTS = "segmentations"
PACKAGE_NAME_LENGTH = 8
SHORT_HASH = 8


def hash_name(study: str, package: str, suffix: str) -> str:
    """The output of a study by hash, relative to the output folder."""
    return f"{OUTPUTS}/{study}-{package[:PACKAGE_NAME_LENGTH]}{suffix}"


def is_hash_name(entry: Entry) -> bool:
    """True if the output of an entry is named by hash, so that its name is not personal data."""
    start = hash_name(entry.study, entry.package, "")
    return entry.output is not None and entry.output.startswith(f"{start}.")


@dataclass(frozen=True)
class OutputNames:
    """The names of the outputs of one run.

    Attributes:
        ledger: The ledger.
        out_dir: Folder that names are relative to.
        format: Format of the outputs, one of `segmed.formats.ARCHIVE_OUTPUTS`.
        package: Hash of the model package.
        names: Kind of names; None: of image files `source`, of DICOM series `hash`.
    """

    ledger: Ledger
    out_dir: Path
    format: str
    package: str
    names: NameKind | None = None

    def reserve(self, study: Study, entry: Entry) -> str | None:
        """Reserve a name for the output of a study; one that it had before stays.

        Args:
            study: The study.
            entry: Its entry.

        Returns:
            The output, relative to the output folder; None if every name is taken by a file of
            unknown origin.
        """
        for output in self._candidates(study, entry):
            try:
                is_free = self._is_free(output, study, entry.key)
            except OSError:  # the path is too long, or a folder on it cannot be entered
                continue
            if is_free:
                self.ledger.reserve_output(output, entry.key)
                return output
        return None

    def _candidates(self, study: Study, entry: Entry) -> Iterator[str]:
        if entry.output is not None:
            yield entry.output
        suffix = self._suffix(study)
        kind = self.names or ("hash" if study.form == "dicom" else "source")
        if kind == "source" and study.source_name:
            place = f"{OUTPUTS}/{study.source_name}"
            plain = with_suffix(place, suffix)
            yield plain
            owner = self.ledger.owner_of(plain)
            if owner is not None and self.ledger.content_of(owner) == study.content:
                yield with_suffix(f"{place}-{self.package[:SHORT_HASH]}", suffix)
            yield with_suffix(f"{place}-{study.name[:SHORT_HASH]}", suffix)
            yield with_suffix(f"{place}-{entry.key[: 2 * SHORT_HASH]}", suffix)
        yield hash_name(study.name, self.package, suffix)
        # Other settings of the same model, such as another form of DICOM segmentations.
        yield hash_name(study.name, self.package, f".{entry.key[:SHORT_HASH]}{suffix}")

    def _suffix(self, study: Study) -> str:
        is_flat = self.format == "nifti" and study.form in RASTER_FORMATS
        return RASTER_OUTPUT_SUFFIX if is_flat else suffix_of(self.format)

    def _is_free(self, output: str, study: Study, key: str) -> bool:
        path = self.out_dir / output
        if path.is_dir() or is_same_file(path, study.files) or self._is_below_a_file(output):
            return False
        owner = self.ledger.owner_of(output)
        if owner is None:
            is_by_hash = output == hash_name(study.name, self.package, self._suffix(study))
            return is_by_hash or not os.path.lexists(path)
        return owner == key or self.ledger.is_outlived(owner, study, key)

    def _is_below_a_file(self, output: str) -> bool:
        for folder in PurePosixPath(output).parents:
            path = self.out_dir / folder
            if self.ledger.owner_of(str(folder)) or (os.path.lexists(path) and not path.is_dir()):
                return True
        return False
