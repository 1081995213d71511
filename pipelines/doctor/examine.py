"""All checks of `segmed doctor`, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.doctor.files import look_at_files
from pipelines.doctor.finding import Finding
from pipelines.doctor.machine import look_at_machine
from pipelines.doctor.schedules import look_at_prefect
from pipelines.doctor.tracker import look_at_tracking
from pipelines.doctor.versions import look_at_versions


@dataclass(frozen=True)
class ExaminationTarget:
    """Target of an examination besides the machine.

    Attributes:
        folder: Working folder: the embedded databases and what runs still owe the tracker.
        out_dir: Output folder of archive runs, if there is one.
        archive: Folder that is segmented, if there is one.
        model: Model reference that it is segmented with, if any.
    """

    folder: Path = Path()
    out_dir: Path | None = None
    archive: Path | None = None
    model: str | None = None


def examine(subject: ExaminationTarget) -> Iterator[Finding]:
    """Look at one thing after the other; nothing is changed.

    Args:
        subject: What is examined.

    Yields:
        What was found, each as soon as it is known.
    """
    yield from look_at_versions()
    yield from look_at_machine()
    yield from look_at_files(subject.folder, subject.out_dir, subject.archive)
    yield from look_at_tracking(subject.folder, subject.model)
    yield from look_at_prefect(subject.folder)
