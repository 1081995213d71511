"""Manifests from image sets as they are found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.errors import ManifestError, unknown_name
from segmed.manifest.content import with_digests
from segmed.manifest.dataset_json import is_nnunet, load_description
from segmed.manifest.draft import Draft, group_of, image_files
from segmed.manifest.folds import assign_folds, split_groups
from segmed.manifest.from_dataset_json import draft_from_msd, draft_from_nnunet
from segmed.manifest.from_dicom import draft_from_dicom, has_dicom
from segmed.manifest.from_folders import draft_from_folders, paired_folders
from segmed.manifest.made_labels import LabelMaker
from segmed.manifest.schema import Case, Manifest
from segmed.naming import guess_subjects

DEFAULT_FOLDS = 5
FORMATS = ("auto", "msd", "nnunet", "folders", "dicom", "raster")


@dataclass(frozen=True)
class Reading:
    """Options of how the files of a source are read.

    Attributes:
        label_names: Names of the structures by growing value, for sources that do not say.
        label_suffix: What a mask's file name adds to its image's; of several graders, whose.
        made_in: Folder for label maps that have to be put together from several files.
    """

    label_names: Sequence[str] = ()
    label_suffix: str | None = None
    made_in: Path | None = None


def build_manifest(
    source: Path | str,
    *,
    format: str = "auto",
    name: str | None = None,
    num_folds: int | None = None,
    seed: int = 0,
    group_by: str | None = None,
    **reading: Any,
) -> Manifest:
    """A manifest of an image set, with groups, seeded folds and the digest of every file.

    Args:
        source: The set's folder.
        format: `msd` (dataset.json of the Decathlon), `nnunet` (raw folder), `folders`
            (`images/` and `labels/`), `raster` (images and masks together), `dicom` (a tree of
            series, masks as series or DICOM-SEG), or `auto` to look.
        name: Name of the set; else what the source says, or its folder's name.
        num_folds: Folds; fewer where there are fewer groups, and at least 2. Without a number, the
            folds that the source states for every case, else 5.
        seed: Of the folds.
        group_by: Regular expression that finds the patient in a case id; see `draft.group_of`.
            Without it, the source's own knowledge counts, then words such as `sub-01` in case ids
            (see `segmed.naming.guess_subjects`); else each case is a group.
        reading: Fields of `Reading`, such as `label_names`.

    Returns:
        The manifest, its paths relative to `source`; `remarks` say what was kept and dropped.

    Raises:
        ManifestError: The source is missing, of no known layout, incomplete, or of one group.
        UsageError: The format is unknown.
    """
    source = Path(source)
    if not source.is_dir():
        raise ManifestError(f"{source} is no folder: give the folder that holds the image set")
    if format not in FORMATS:
        raise unknown_name("manifest format", format, FORMATS)
    chosen = detect_format(source) if format == "auto" else format
    draft = _draft(source, chosen, Reading(**reading))
    return _finished(
        dataclasses.replace(draft, name=name or draft.name), source, num_folds, seed, group_by
    )


def _draft(source: Path, layout: str, how: Reading) -> Draft:
    maker = LabelMaker(how.made_in)
    names = how.label_names

    def by_files() -> Draft:
        return draft_from_folders(source, label_suffix=how.label_suffix, label_names=names)

    drafts: dict[str, Callable[[], Draft]] = {
        "msd": lambda: draft_from_msd(source, label_names=names, maker=maker),
        "nnunet": lambda: draft_from_nnunet(source, label_names=names),
        "dicom": lambda: draft_from_dicom(source, label_names=names),
        "folders": by_files,
        "raster": by_files,
    }
    return drafts[layout]()


def detect_format(source: Path) -> str:
    """The layout of a folder, by what lies in it.

    Raises:
        ManifestError: It is none that is known.
    """
    if (source / "dataset.json").is_file():
        return "nnunet" if is_nnunet(load_description(source)) else "msd"
    if paired_folders(source) is not None:
        return "folders"
    if has_dicom(source):
        return "dicom"
    inner = [source, *(path for path in sorted(source.iterdir()) if path.is_dir())]
    if any(image_files(folder) for folder in inner):
        return "raster"
    raise ManifestError(
        f"{source} is of no known layout: expected dataset.json, images/ and labels/, a tree of "
        "DICOM series, or images with masks beside them"
    )


def _finished(
    draft: Draft, source: Path, num_folds: int | None, seed: int, group_by: str | None
) -> Manifest:
    groups = draft.groups or _groups_by_name([*draft.training, *draft.test])

    def grouped(case: Case) -> Case:
        return case.model_copy(update={"group": group_of(case.id, group_by, groups)})

    training = [grouped(case) for case in draft.training]
    test = tuple(grouped(case) for case in draft.test)
    counts = Counter(case.id for case in (*training, *test))
    repeated = [one for one, count in counts.items() if count > 1]
    if repeated:
        raise ManifestError(f"case id {min(repeated)!r} would occur twice: rename its files")
    leaking = {case.group for case in training} & {case.group for case in test}
    if leaking:
        raise ManifestError(
            f"group {min(leaking)!r} has cases in training and in test: a patient belongs to one; "
            "take its cases out of one of them, or state the groups with --group-by"
        )
    training, remarks = _with_folds(training, num_folds, seed)
    return with_digests(
        Manifest(
            name=draft.name,
            labels=draft.labels,
            channels=draft.channels,
            training=tuple(training),
            test=test,
            licence=draft.licence,
            source=draft.source,
            root=source,
            remarks=(*draft.remarks, *remarks),
        )
    )


def _with_folds(
    cases: list[Case], num_folds: int | None, seed: int
) -> tuple[list[Case], list[str]]:
    """The cases with folds: those that the source states, or new ones; and a remark on it."""
    stated = {case.fold for case in cases}
    remarks = []
    if num_folds is None and None not in stated and len(stated) > 1:
        split = split_groups(cases)
        if not split:
            return cases, [f"folds: the {len(stated)} that the source states"]
        remarks = [f"folds of the source are not taken: they split group {min(split)!r}"]
    folds = max(2, min(num_folds or DEFAULT_FOLDS, len({case.group for case in cases})))
    return list(assign_folds(cases, num_folds=folds, seed=seed)), remarks


def _groups_by_name(cases: Sequence[Case]) -> dict[str, str]:
    """The patient of each case where a word in the case ids surely names it; else nothing."""
    guess = guess_subjects([case.id for case in cases])
    if guess is None or not guess.is_sure:
        return {}
    return {case_id: name for name, ids in guess.groups.items() for case_id in ids}
