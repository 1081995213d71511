"""Studies of a folder tree of image files, DICOM series and other files, in any order.

Every file ends up in a study, or in the list of files without an image: none is passed over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from segmed.archive.identifying import Answer, Files, Unidentified, identified_here
from segmed.archive.identity import identity_of_place, identity_of_series
from segmed.archive.query import SeriesQuery
from segmed.archive.sniff import form_of_image, has_pages
from segmed.archive.study import NotImage, Study, content_hash
from segmed.errors import UsageError
from segmed.formats import PLANE_FORMAT
from segmed.inference.fault import InputFault
from segmed.inference.selection import Choice, choose_series
from segmed.io.channel_files import CaseFiles, group_channels
from segmed.io.dicom.grouping import SeriesIndex, may_be_image
from segmed.io.dicom.plane import planes_of
from segmed.io.dicom.series import SeriesAudit
from segmed.io.digest import sha256_of_text
from segmed.io.head import FileHead, sniff
from segmed.io.output_names import absolute, mirrored, shown
from segmed.io.parts import files_of
from segmed.io.results import is_archive_outputs, masks_by_name, results_among
from segmed.io.scratch import scratch_folder
from segmed.package.series_rules import Rules

NOT_ASKED_FOR = "series not requested: other modality, description or body part, or segmented"
OTHER_DAY = "files of another day than requested"
PICTURE = "a picture of one plane; the model takes volumes"


@dataclass(frozen=True)
class FolderSource:
    """A folder tree as a source of studies.

    A DICOM series is one study for a model of one channel; `rules` choose among the series of a
    DICOM study instead, and are needed where a model has several channels. Series are put
    together by the identifiers inside their files, whatever their folders and names.

    Attributes:
        root: The folder. Hidden files and folders (a leading dot) are listed as no images.
        num_channels: Input channels of the model.
        rules: Which series of a DICOM study fit the model.
        since: Only studies with a file changed at or after this time.
        until: Only studies without a file changed at or after this time.
        query: Which series are wanted. Volume files say neither modality nor description nor body
            part: where one of these is requested, they are left out.
        skip: Folders to leave out, such as an output folder below `root`.
        spatial_dims: Of the model: one of planes (2) also takes pictures. Set by
            `segment_archive`.
        names: Names of the model's channels, for volumes whose file names have them.
        explains: Also give the files that `query`, `since` and `until` leave out, with the reason;
            for a dry run.
        within: Go through these folders below `root` alone; empty for the whole tree.
    """

    root: Path
    num_channels: int = 1
    rules: Rules | None = None
    since: datetime | None = None
    until: datetime | None = None
    query: SeriesQuery = field(default_factory=SeriesQuery)
    skip: tuple[Path, ...] = ()
    spatial_dims: int = 3
    explains: bool = False
    names: tuple[str, ...] = ()
    within: tuple[Path, ...] = ()

    def fetch(self, study: Study, folder: Path) -> Study:
        """The study itself: its files are here already."""
        return study

    def studies(self) -> Iterator[Study | NotImage]:
        """Image files in the order of the walk, then the DICOM studies, then other files.

        Raises:
            UsageError: `root` is not a folder.
        """
        yield from identified_here(self)

    def unidentified(self) -> Iterator[Study | NotImage | Unidentified]:
        """The same before files are hashed.

        Raises:
            UsageError: `root` is not a folder.
        """
        for item in self._units():
            if isinstance(item, CaseFiles):
                yield _to_hash(self._volume_study(item))
            elif isinstance(item, Choice):
                yield _to_hash(self._dicom_study(item))
            else:
                yield item

    def identified(self, item: Unidentified, answer: Answer | Exception) -> Iterable[Study]:
        """The study with its content, or as one that cannot be opened."""
        assert item.study is not None  # by `unidentified`
        if isinstance(answer, OSError):
            return (self._no_access(item.study.channels[0][0], answer),)
        if isinstance(answer, Exception):
            raise answer
        return (replace(item.study, content=content_hash(answer)),)  # type: ignore[arg-type]  # of files

    def count(self) -> int:
        """Number of studies that `studies` gives, found without reading any image.

        Raises:
            UsageError: `root` is not a folder.
        """
        return sum(not isinstance(item, NotImage) for item in self._units())

    def _units(self) -> Iterator[CaseFiles | Choice | Study | NotImage]:
        """Units of work before their content is hashed; a study where a place cannot be opened."""
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is not a folder; give the folder of the archive")
        scratch = scratch_folder()
        index = SeriesIndex(scratch / "index.sqlite")
        try:
            for folder in self.within or (self.root,):
                yield from self._walk(folder, index)
            for audits in index.studies():
                yield from self._choices(planes_of(audits) if self.spatial_dims == 2 else audits)
            yield from self._others(index.passed_over)
        finally:
            index.close()
            shutil.rmtree(scratch, ignore_errors=True)

    def _walk(
        self, folder: Path, index: SeriesIndex, linked: set[Path] | None = None
    ) -> Iterator[CaseFiles | Study | NotImage]:
        """The volumes of a tree; DICOM files go into the index.

        Args:
            folder: The folder that is gone through.
            index: Takes the DICOM files.
            linked: Folders that links have led to so far; each is entered once.
        """
        linked = set() if linked is None else linked
        volumes: dict[Path, FileHead] = {}
        others: list[Path] = []
        folders: list[Path] = []
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            yield self._no_access(folder, error)
            return
        for path in entries:
            if _leads_back(path, folder):
                yield NotImage(self._place(path), "a link to one of its own parent folders")
                continue
            if path.is_dir():
                folders.append(path)
                continue
            try:
                head = self._sniffed(path)
            except OSError as error:
                yield self._no_access(path, error)
                continue
            kind = head.kind if isinstance(head, FileHead) else head
            if kind == "raster" and self._is_flat(path):
                yield NotImage(self._place(path), PICTURE)
            elif isinstance(head, FileHead) and kind in {"volume", "raster"}:
                volumes[path] = head
            elif self._is_passed_over(path) or not index.add(path):
                others.append(path)
        beside = _voxel_files(volumes.values())
        yield from self._others(path for path in others if path not in beside)
        yield from self._images(
            folder, {path: head for path, head in volumes.items() if path not in beside}
        )
        for path in folders:
            yield from self._enter(path, index, linked)

    def _images(
        self, folder: Path, images: Mapping[Path, FileHead]
    ) -> Iterator[CaseFiles | NotImage]:
        """Cases among the image files of one folder; results and masks are left out."""
        results = results_among(images.values())
        inside = folder.relative_to(self.root).parts
        results |= masks_by_name([path for path in images if path not in results], inside)
        for path, why in results.items():
            yield NotImage(self._place(path), why)
        yield from self._cases({p: head for p, head in images.items() if p not in results})

    def _sniffed(self, path: Path) -> FileHead | Literal["other", "dicom"]:
        """Head of a file; one without access that may be an image of a series is DICOM.

        Its series must not be taken for whole without it.

        Raises:
            OSError: Another file cannot be opened.
        """
        if self._is_passed_over(path):
            return "other"
        try:
            return sniff(path)
        except OSError:
            if may_be_image(path.name, ()):
                return "dicom"
            raise

    def _is_flat(self, path: Path) -> bool:
        """Return whether a raster image has one plane and the model takes volumes."""
        return self.spatial_dims == 3 and not has_pages(path)

    def _others(self, paths: Iterable[Path]) -> Iterator[NotImage]:
        for path in paths:
            yield NotImage(self._place(path), "neither an image nor a DICOM object")

    def _enter(
        self, path: Path, index: SeriesIndex, linked: set[Path]
    ) -> Iterator[CaseFiles | Study | NotImage]:
        """Go through a folder inside, unless it is skipped or a second link leads there."""
        place = _real(path)
        if path.is_symlink():
            if place in linked:
                yield NotImage(self._place(path), "a link to where another link has led")
                return
            linked.add(place)
        if place in {_real(skipped) for skipped in self.skip}:
            return
        if is_archive_outputs(path):
            yield NotImage(self._place(path), "the results of an archive run")
            return
        yield from self._walk(path, index, linked)

    def _cases(self, volumes: Mapping[Path, FileHead]) -> Iterator[CaseFiles | NotImage]:
        if self.query.asks_of_headers:
            return
        for case in group_channels(list(volumes), self.num_channels, volumes, names=self.names):
            for path, why in case.others.items():
                yield NotImage(self._place(path), why)
            if self._is_recent(case.files):
                yield case

    def _volume_study(self, case: CaseFiles) -> Study:
        paths = case.files
        fault = InputFault("other_channels", case.fault, case.files) if case.fault else None
        return Study(
            content="",
            form=form_of_image(paths[0]),
            place=self._place(paths[0]),
            channels=tuple(files_of(file) for file in case.sniffed),
            fault=fault,
            identity=identity_of_place(paths[0]),
            root=self._root,
            source_name=mirrored(paths[0].parent.relative_to(self.root), case.case),
        )

    def _choices(self, audits: Sequence[SeriesAudit]) -> Iterator[Choice | NotImage]:
        wanted = self.query.select(audits)
        images = []
        for audit in audits:
            for path in audit.copies:
                yield NotImage(self._place(path), "a copy of another DICOM file")
            if audit.reason == "not_image" and set(audit.offending) == set(audit.files):
                for path in audit.files:
                    yield NotImage(self._place(path), f"DICOM without an image ({audit.modality})")
            elif not _is_wanted(audit, wanted):
                yield from self._unasked(audit, NOT_ASKED_FOR)
            elif not self._is_recent(audit.files):
                yield from self._unasked(audit, OTHER_DAY)
            else:
                images.append(audit)
        for choice in choose_series(images, self.rules, num_channels=self.num_channels):
            for path, why in choice.left_out:
                yield NotImage(self._place(path), why)
            yield choice

    def _unasked(self, audit: SeriesAudit, why: str) -> Iterator[NotImage]:
        """The files of a series that a query leaves out, where all is to be explained."""
        if self.explains:
            for path in audit.files:
                yield NotImage(self._place(path), why)

    def _dicom_study(self, choice: Choice) -> Study:
        audits, fault = choice.audits, choice.fault
        files = tuple(tuple(audit.files) for audit in audits)
        try:
            name = self._name_of_series(audits)
        except OSError as error:  # the folder went away
            return self._no_access(files[0][0], error)
        return Study(
            content="",
            form=PLANE_FORMAT if audits[0].is_plane else "dicom",
            place=f"{self._place(files[0][0])} and {sum(map(len, files)) - 1} more",
            channels=files,
            audits=audits,
            fault=fault,
            identity=self._identity(audits),
            root=self._root,
            uids=(audits[0].study_uid, *(audit.series_uid for audit in audits)),
            source_name=name,
            because=choice.because,
        )

    def _name_of_series(self, audits: Sequence[SeriesAudit]) -> str:
        """Path of the folder of a series, with a hash of its UID where it shares that folder."""
        files = {path for audit in audits for path in (*audit.files, *audit.copies)}
        folder = Path(os.path.commonpath([path.parent for path in files]))
        with os.scandir(folder) as entries:
            is_shared = any(e.is_dir() or Path(e.path) not in files for e in entries)
        name = folder.name if folder != self.root else Path(self._root).name
        if is_shared:
            uids = " ".join(audit.series_uid for audit in audits)
            name += f"-{sha256_of_text(uids)[:8]}"
        inside = folder.relative_to(self.root).parent
        return mirrored(inside, name)

    @property
    def _root(self) -> str:
        return shown(absolute(self.root))

    def _identity(self, audits: Sequence[SeriesAudit]) -> str:
        """Return the identity of a unit of work, which survives changes of its files."""
        first = audits[0]
        if not first.series_uid:  # too damaged to say
            return identity_of_place(first.files[0])
        is_chosen = self.rules is not None or self.num_channels > 1
        series = () if is_chosen else (first.series_uid,)
        planes = tuple(audit.files[0].name for audit in audits if audit.is_plane)
        return identity_of_series(first.patient_key, first.study_uid, (*series, *planes))

    def _no_access(self, path: Path, error: OSError) -> Study:
        place = self._place(path)
        content = sha256_of_text(f"no access\n{place}")
        what = error.strerror or type(error).__name__
        fault = InputFault("no_access", f"cannot be opened: {what}", (path,))
        return Study(
            content,
            "unknown",
            place,
            ((path,),),
            fault=fault,
            environment=True,
            identity=identity_of_place(path),
            root=self._root,
            source_name=mirrored(path.parent.relative_to(self.root), path.name),
        )

    def _is_recent(self, paths: Sequence[Path]) -> bool:
        if self.since is None and self.until is None:
            return True
        changed = max(path.stat().st_mtime for path in paths)
        is_late = self.since is None or changed >= self.since.timestamp()
        return is_late and (self.until is None or changed < self.until.timestamp())

    def _is_passed_over(self, path: Path) -> bool:
        """True for a hidden entry, and for one that is no plain file: a pipe has no end."""
        is_hidden = any(part.startswith(".") for part in path.relative_to(self.root).parts)
        return is_hidden or (path.exists() and not path.is_file())

    def _place(self, path: Path) -> str:
        return shown(path.relative_to(self.root))


def _to_hash(study: Study) -> Study | Unidentified:
    """A study whose files are still to be hashed, as a question."""
    return study if study.content else Unidentified(Files(study.channels), study)


def _voxel_files(volumes: Iterable[FileHead]) -> set[Path]:
    """The voxel files of headers among some volumes; by themselves they are not images."""
    return {part for head in volumes for part in files_of(head) if part != head.path}


def _is_wanted(audit: SeriesAudit, wanted: Sequence[SeriesAudit]) -> bool:
    """Return whether a query selected a series; a damaged one is refused by name instead."""
    is_unknown = not audit.usable and not audit.series_uid
    return is_unknown or any(audit is one for one in wanted)


def _real(path: Path) -> Path:
    """Resolve a path; `Path.resolve` raises for a link to itself."""
    return Path(os.path.realpath(path))


def _leads_back(path: Path, folder: Path) -> bool:
    """Return whether an entry of a folder is a link to this folder or to one above."""
    return path.is_symlink() and _real(folder).is_relative_to(_real(path))
