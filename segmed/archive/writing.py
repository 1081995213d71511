"""Write a segmentation in the archive run's output format: NIfTI, DICOM-SEG or RTSTRUCT."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.archive.quality_bound import are_intervals_withdrawn
from segmed.findings.record import findings_of
from segmed.findings.reports import modality_of, write_reports
from segmed.formats import (
    ARCHIVE_OUTPUTS,
    BINARY_SEG,
    OUTPUT_SUFFIXES,
    OutputFormat,
    SegForm,
    output_named,
)
from segmed.inference import Segmentation
from segmed.inference.writing import write_result
from segmed.io.atomic import flush
from segmed.io.digest import sha256_of_file
from segmed.io.process_mark import is_running, process_mark
from segmed.io.scratch import owner_of
from segmed.metatensor import MetaTensor
from segmed.metrics.quality import ShapeRange
from segmed.quality.statements import volume_intervals
from segmed.structures import LabelClass

STAGING = ".staging"


@dataclass(frozen=True)
class Writing:
    """Writer settings of segmentations.

    Attributes:
        format: `nifti`, `seg-nrrd`, `dicom-seg` or `rtstruct`.
        labels: The structures.
        model_name: Name of the model, for DICOM objects.
        model_version: Hash of the package, for DICOM objects and their identifiers.
        ranges: What the structures looked like in training, for quality flags; may be empty.
        pictures: Folder for small pictures of the worst segmentations; None for none.
        drafts: Folder on the disk of the outputs where they are written first; `.staging` beside
            each if not given.
        seg: Form of DICOM segmentations.
        bound_dir: Folder of the bound of the archive: while a withdrawal there is in force, reports
            state no interval of a volume; None without one. A watch begins once and goes on for
            weeks, so each report looks.
    """

    format: OutputFormat
    labels: tuple[LabelClass, ...]
    model_name: str
    model_version: str
    ranges: tuple[ShapeRange, ...] = ()
    pictures: Path | None = None
    drafts: Path | None = None
    seg: SegForm = BINARY_SEG
    bound_dir: Path | None = None

    def write(
        self,
        path: Path,
        found: Segmentation,
        *,
        like: MetaTensor,
        measures: Mapping[str, Any] | None = None,
    ) -> str:
        """Write one segmentation and its reports, each whole or not at all; the reports first.

        Args:
            path: Where it shall appear.
            found: The segmentation, on the grid of `like`.
            like: The image, with its source.
            measures: What was measured of it, for the reports.

        Returns:
            Hex SHA-256 of the file.

        Raises:
            ImageError: `no_dicom_source`: a DICOM object is requested, the image is not DICOM.
        """
        drafts = self.drafts or path.parent / STAGING
        drafts.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{process_mark()}-", dir=drafts) as folder:
            draft = write_result(
                Path(folder) / path.name,
                found,
                self.format,
                like=like,
                labels=self.labels,
                model_name=self.model_name,
                model_version=self.model_version,
                seg=self.seg,
            )
            for report in self._reports(draft, like, measures):
                flush(report)
                report.replace(path.with_name(report.name))
            digest = sha256_of_file(draft)
            flush(draft)
            draft.replace(path)
        flush(path.parent)
        return digest

    def _reports(
        self, draft: Path, like: MetaTensor, measures: Mapping[str, Any] | None
    ) -> list[Path]:
        """Write the reports beside a draft."""
        if measures is None or not self.seg.reports:
            return []
        is_stated = not (
            self.bound_dir and are_intervals_withdrawn(self.bound_dir, self.model_version)
        )
        findings = findings_of(
            self.labels,
            measures["volumes_ml"],
            measures["flags"],
            model_name=self.model_name,
            model_version=self.model_version,
            intervals=volume_intervals(measures.get("quality") if is_stated else None),
            is_plane=like.ndim == 3,
        )
        return write_reports(draft, findings, self.seg.reports, modality=modality_of(like))


def suffix_of(format_name: str) -> str:
    """File suffix of an output format.

    Raises:
        UsageError: The format is unknown; the known ones are listed.
    """
    return OUTPUT_SUFFIXES[output_named(format_name, ARCHIVE_OUTPUTS)]


def remove_leftovers(outputs: Path) -> int:
    """Remove the drafts of ended processes, and of other machines; called before a run writes any.

    Only the run that has the ledger's lock writes here. A draft of a process that still runs on
    this machine may be of a worker that outlived its run: it stays.

    Args:
        outputs: The folder of the segmentations.

    Returns:
        The number of drafts removed.
    """
    left = [path for path in (outputs / STAGING).glob("*") if not _is_others(path.name)]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def _is_others(draft: str) -> bool:
    """Return whether a draft is of another process that runs on this machine."""
    mark, ours = owner_of(draft), process_mark()
    return mark not in (ours, ours.split(".")[0]) and is_running(mark)


def free_bytes(folder: Path) -> int:
    """Space left on the disk of a folder, in bytes."""
    return shutil.disk_usage(folder).free
