"""Accepted corrections of an archive as cases of a manifest; a patient stays where they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from segmed.archive.review.archive import ReviewArchive, ReviewedStudy
from segmed.archive.review.judgement import judge_study
from segmed.archive.review.same_image import ConvertedImages
from segmed.archive.review.store import Correction
from segmed.archive.review.structures import ModelStructures
from segmed.errors import ImageError, ManifestError, UsageError
from segmed.formats import stem_of
from segmed.io.channel_files import CaseFiles
from segmed.io.dicom.scan import scan
from segmed.manifest.content import image_digest
from segmed.manifest.schema import Case, CaseCorrection, Manifest
from segmed.naming.subjects import guess_subjects
from segmed.structures import LabelClass

PREFIX = "corrected-"
"""Begin of the ids of corrected cases."""


@dataclass(frozen=True)
class AddedCorrections:
    """Manifest with the corrections of an archive.

    Attributes:
        manifest: The manifest.
        added: New cases: id, and where they went, `training fold 2` or `test`.
        updated: Ids of cases whose correction has changed.
        kept: Ids of cases that were there already, unchanged.
        left_out: Names of studies with a correction that was not added, and the reason.
    """

    manifest: Manifest
    added: dict[str, str]
    updated: tuple[str, ...]
    kept: tuple[str, ...]
    left_out: dict[str, str]


def add_corrections(manifest: Manifest, archive: ReviewArchive) -> AddedCorrections:
    """Add accepted corrections to a manifest.

    A case belongs to the patient of its image. A patient of a test case stays in the test, one of a
    fold in that fold; a new patient goes to the fold with the fewest cases.

    Args:
        manifest: The manifest.
        archive: The archive.

    Raises:
        UsageError: The manifest reads a value of its labels as another structure.
    """
    _require_same_values(manifest)
    adding = _Adding(manifest)
    for study in archive.studies():
        judgement = judge_study(archive.store.opinions(study.entry.key))
        corrections = {one.id: one for one in archive.store.corrections(study.entry.key)}
        if judgement.state == "disputed" and corrections:
            adding.left_out[study.entry.study] = f"disputed: {judgement.why}"
        if judgement.state != "accepted" or judgement.correction is None:
            continue
        try:
            adding.add(archive, study, corrections[judgement.correction])
        except (ImageError, ManifestError) as error:
            adding.left_out[study.entry.study] = " ".join(str(error).split())
    return adding.finished()


class _Adding:
    """A manifest that grows by corrections."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._cases = {case.id: case for case in (*manifest.training, *manifest.test)}
        self._tests = {case.id for case in manifest.test}
        self._group_of = {
            digest: case
            for case in self._cases.values()
            for name, digest in case.sha256.items()
            if name in case.image
        }
        self._converted = ConvertedImages(manifest)
        self._by_name = {
            stem_of(Path(case.image[0])) if case.id.startswith(PREFIX) else case.id: case.group
            for case in self._cases.values()
        }
        self.added: dict[str, str] = {}
        self.updated: list[str] = []
        self.kept: list[str] = []
        self.left_out: dict[str, str] = {}

    def add(self, archive: ReviewArchive, study: ReviewedStudy, correction: Correction) -> None:
        """Add or update the case of one correction."""
        structures = archive.structures(study.entry)
        _require_same_contract(self._manifest, structures)
        found = archive.case(study)
        images = [_manifest_image(found, number) for number in range(len(found.files))]
        digests = [image_digest(path) for path in images]
        label = archive.out_dir / correction.file
        name = f"{PREFIX}{study.entry.study}"
        other = next((self._group_of[d] for d in digests if d in self._group_of), None)
        if other is None and name not in self._cases:
            other = self._converted.case_of(archive.image(study))
        if other is not None and other.id != name:
            self.left_out[study.entry.study] = (
                f"its image is case {other.id} of the manifest already, whose label stays"
            )
            return
        case = Case(
            id=name,
            group=self._group(found, study),
            image=tuple(self._relative(path) for path in images),
            label=self._relative(label),
            sha256={
                **{self._relative(p): d for p, d in zip(images, digests, strict=True)},
                self._relative(label): image_digest(label),
            },
            correction=CaseCorrection(
                author=correction.author,
                date=datetime.fromtimestamp(correction.made, UTC).strftime("%Y-%m-%d"),
                origin=correction.origin,
                study=study.entry.study,
                model=study.entry.package,
                original=study.entry.output_sha256 or "",
            ),
        )
        self._place(case)

    def _place(self, case: Case) -> None:
        known = self._cases.get(case.id)
        if known is not None:
            case = case.model_copy(update={"group": known.group, "fold": known.fold})
            (self.kept if case == known else self.updated).append(case.id)
            self._cases[case.id] = case
            return
        same = [one for one in self._cases.values() if one.group == case.group]
        if any(one.id in self._tests for one in same):
            self._tests.add(case.id)
            self.added[case.id] = "test"
        else:
            fold = same[0].fold if same else self._smallest_fold()
            case = case.model_copy(update={"fold": fold})
            self.added[case.id] = f"training, fold {fold}"
        self._cases[case.id] = case

    def _smallest_fold(self) -> int:
        training = [one for one in self._cases.values() if one.id not in self._tests]
        sizes = Counter(dict.fromkeys(self._manifest.folds, 0))
        sizes.update(one.fold for one in training if one.fold is not None)
        if not sizes:
            raise ManifestError("the manifest has no fold that a new patient could go to")
        return min(sizes, key=lambda fold: (sizes[fold], fold))

    def _group(self, found: CaseFiles, study: ReviewedStudy) -> str:
        """Patient of an image: as DICOM states it, else by its name among those of the manifest."""
        if found.series:
            return found.series[0].patient_key
        name = stem_of(found.files[0])
        if name not in self._by_name:
            guess = guess_subjects([*self._by_name, name])
            same = next((ids for ids in guess.groups.values() if name in ids), ()) if guess else ()
            groups = [self._by_name[one] for one in same if one in self._by_name]
            self._by_name[name] = min(groups, key=self._is_outside_tests, default=study.entry.study)
        return self._by_name[name]

    def _is_outside_tests(self, group: str) -> bool:
        return all(self._cases[one].group != group for one in self._tests)

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self._manifest.root.resolve())).as_posix()

    def finished(self) -> AddedCorrections:
        """The manifest with all that was added."""
        cases = self._cases.values()
        manifest = self._manifest.model_copy(
            update={
                "training": tuple(case for case in cases if case.id not in self._tests),
                "test": tuple(case for case in cases if case.id in self._tests),
            }
        )
        return AddedCorrections(
            manifest, self.added, tuple(self.updated), tuple(self.kept), self.left_out
        )


def _manifest_image(found: CaseFiles, number: int) -> Path:
    """Path by which a manifest names a channel: the file, or the folder of its series alone."""
    if not found.series:
        return found.files[number]
    folder = found.files[number].parent
    if len(scan(folder)) != 1:
        raise ManifestError(
            f"the folder {folder.name} has several series; sort them by `segmed manifest scan "
            "--sort-into`, and segment those"
        )
    return folder


def _require_same_values(manifest: Manifest) -> None:
    """Require that the manifest reads each value of its labels as itself.

    A correction has the values of the labels, and is read as the label files are: a manifest that
    merges or drops other values of its files takes it, one that renumbers its own does not.

    Raises:
        UsageError: A value is read as another one, or is not one of the files' values.
    """
    if not manifest.stored_labels:
        return
    read_as = {one.value: one for one in manifest.stored_labels}
    names = {label.value: label.name for label in manifest.labels}
    for value in sorted({value for label in manifest.labels for value in label.values}):
        stored = read_as.get(value)
        if stored is not None and stored.becomes == value:
            continue
        becomes = "no structure" if stored is None else names.get(stored.becomes, "background")
        found = "" if stored is None else f" ({stored.name!r} in its files)"
        raise UsageError(
            f"value {value} of a correction is {names.get(value, 'a region')!r}, but "
            f"{manifest.name} reads {value}{found} as {becomes}, since it renumbers the values of "
            "its label files; build a manifest of label files with the labels' own values"
        )


def _require_same_contract(manifest: Manifest, structures: ModelStructures) -> None:
    ours, theirs = (_contract(labels) for labels in (manifest.labels, structures.labels))
    if ours != theirs:
        raise ManifestError(
            f"its model segments {', '.join(theirs)}, the manifest has {', '.join(ours)}"
        )
    if manifest.num_channels != structures.num_channels:
        raise ManifestError(
            f"its model has {structures.num_channels} channels, the manifest "
            f"{manifest.num_channels}"
        )


def _contract(labels: Sequence[LabelClass]) -> list[str]:
    return [f"{label.name} {sorted(label.values)}" for label in labels]
