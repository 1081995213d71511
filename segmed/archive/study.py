"""Records of an archive run: studies, other files, and outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from segmed.inference.fault import InputFault
from segmed.io.digest import sha256_of_text
from segmed.outcomes import Status

if TYPE_CHECKING:
    from segmed.io.channel_files import CaseFiles  # imports nibabel, which look-ups do without

STUDY_NAME_LENGTH = 16
"""Hex digits of the content hash that name a study in files and tables."""

StudyStatus = Status | Literal["pending"]


@dataclass(frozen=True)
class Study:
    """One unit of work: the input of one segmentation.

    Attributes:
        content: Hex SHA-256 of the input's content (of its files' sorted digests).
        form: `nifti`, `dicom` or another source form.
        place: Its location in the archive; may name patients, so it is kept in the ledger only.
        channels: Files of each input channel, in the model's channel order; empty until fetched.
        audits: For DICOM, the audit of each channel's series.
        fault: Why it is refused before anything is read.
        environment: Whether the cause is the environment (permission, network), not the data.
        remote: What a network source needs to fetch it.
        identity: Hash of what stays equal while the content changes, see `segmed.archive.identity`;
            empty where nothing does.
        older_content: The content hash by which earlier versions of segmed knew it, if another.
        root: The folder that was searched, absolute; empty for a PACS.
        uids: StudyInstanceUID, then SeriesInstanceUIDs; empty for a volume file.
        source_name: Relative path and name of the input, from which outputs may be named; may name
            patients.
        because: Why each channel's series was chosen, for a dry run.
    """

    content: str
    form: str
    place: str
    channels: tuple[tuple[Path, ...], ...] = ()
    audits: tuple[Any, ...] = ()
    fault: InputFault | None = None
    environment: bool = False
    remote: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    older_content: str = ""
    root: str = ""
    uids: tuple[str, ...] = ()
    source_name: str = ""
    because: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The study's name in files and tables: a piece of its content hash."""
        return self.content[:STUDY_NAME_LENGTH]

    @property
    def case(self) -> CaseFiles:
        """The study as an input of the pipeline; each channel is given by its first file."""
        firsts = tuple(channel[0] for channel in self.channels)
        from segmed.io.channel_files import CaseFiles  # noqa: PLC0415 - nibabel, see above

        return CaseFiles(self.name, firsts, series=self.audits)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, channel by channel."""
        return tuple(path for channel in self.channels for path in channel)


@dataclass(frozen=True)
class NotImage:
    """A file without an image to segment.

    Attributes:
        place: Its location.
        why: What it is instead.
    """

    place: str
    why: str


@dataclass(frozen=True)
class StudyOutcome:
    """Outcome of one study.

    Attributes:
        key: Hash of input content and model; the ledger's key.
        study: Name of the study: a piece of its content hash, never a patient identifier.
        status: `done`, `refused` (bad data), `failed` (surroundings), `pending` (dry run).
        reason: Empty when done, else a code and one line.
        output: The segmentation, relative to the output folder; None unless done.
        form: Form of the source.
        seconds: Time it took when it was segmented, in s.
        package: Hash of the model package that made the output.
        fresh: Whether this run worked on it, rather than finding it settled.
        notes: Remarks on the input and the result, in plain words, without identifiers.
    """

    key: str
    study: str
    status: StudyStatus
    reason: str
    output: str | None
    form: str
    seconds: float
    package: str
    fresh: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeseenOutcome(StudyOutcome):
    """Foreseen outcome of a study in a run, shown on the terminal and not stored.

    Attributes:
        place: Location of the study in the archive; may identify a patient.
        because: Why each channel's series would be taken.
    """

    place: str = ""
    because: tuple[str, ...] = ()


class StudySource(Protocol):
    """Source of studies."""

    def studies(self) -> Iterator[Study | NotImage]:
        """All studies, and the files without one, one at a time."""
        ...

    def fetch(self, study: Study, folder: Path) -> Study:
        """The study with its files on this machine, below `folder` if they had to be fetched.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        ...


def content_hash(digests: Iterable[Iterable[str]]) -> str:
    """Hash of an input from the digests of its files.

    Args:
        digests: For each channel, the digest of each of its files, in any order.

    Returns:
        Hex SHA-256, independent of the files' folders and names.
    """
    lines = "\n\n".join("\n".join(sorted(channel)) for channel in digests)
    return sha256_of_text(lines)


def key_of(content: str, package: str, settings: str = "") -> str:
    """The ledger's key of an input, a model and what changes its output besides."""
    return sha256_of_text(f"{content}\n{package}\n{settings}")
