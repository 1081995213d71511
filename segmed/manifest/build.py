"""Manifests from image sets as they are found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segmed.doors import checked
from segmed.errors import ManifestError, UsageError, unknown_name
from segmed.manifest.case_folders import find_case_folders
from segmed.manifest.content import with_digests
from segmed.manifest.dataset_json import is_nnunet, load_description
from segmed.manifest.draft import Draft, group_of, images_in
from segmed.manifest.folds import assign_folds, split_groups
from segmed.manifest.from_dataset_json import draft_from_msd, draft_from_nnunet, renamed
from segmed.manifest.from_dicom import draft_from_dicom, has_dicom
from segmed.manifest.from_folders import draft_from_folders, paired_folders
from segmed.manifest.from_masks import draft_from_masks
from segmed.manifest.from_patterns import Wanted, draft_from_patterns
from segmed.manifest.ignored import ignore_by_name
from segmed.manifest.made_labels import MASK_MODES, LabelMaker, MaskMode
from segmed.manifest.schema import Case, Manifest
from segmed.naming import guess_subjects
from segmed.validation import first_fault

DEFAULT_FOLDS = 5

EXAMPLES = (
    "Known are, for example: dataset.json (Decathlon, MONAI, nnU-Net); "
    "imagesTr/CASE_0000.nii.gz with labelsTr/CASE.nii.gz; images/CASE.png with masks/CASE.png; "
    "images/CASE/0001.png with labels/CASE/0001.png (slices of a volume); CASE.png with "
    "CASE_mask.png (--label-suffix _mask); DICOM series with a DICOM-SEG, an RTSTRUCT or a mask "
    "series. Any other tree is read by patterns: --image 'sub-*/{T1,FLAIR}.nii.gz' --label "
    "'sub-*/mask.nii.gz'"
)
"""The layouts in one line, for the error about an unknown one."""

FORMATS = ("auto", "msd", "nnunet", "folders", "dicom", "raster")


@dataclass(frozen=True)
class Reading:
    """Options of how the files of a source are read.

    Attributes:
        label_names: Names of the structures by growing value, for sources that do not say.
        label_suffix: What a mask's file name adds to its image's; of several graders, whose.
        images: Patterns of image files; see `patterns`.
        label: Pattern of label files.
        channels: Names of the channels, in order.
        require: Channels without which a case is dropped.
        masks_folder: Folder with several mask files for each image.
        masks: How these are put together; see `made_labels`.
        made_in: Folder for label maps that have to be put together from several files.
    """

    label_names: Sequence[str] = ()
    label_suffix: str | None = None
    images: Sequence[str] = ()
    label: str = ""
    channels: Sequence[str] = ()
    require: Sequence[str] = ()
    masks_folder: str = ""
    masks: MaskMode | None = None
    made_in: Path | None = None

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: They contradict each other.
        """
        if bool(self.images) != bool(self.label):
            given, lacking = ("--image", "--label") if self.images else ("--label", "--image")
            raise UsageError(f"{given} needs {lacking}: both are patterns of files")
        if self.images and (self.masks_folder or self.label_suffix):
            raise UsageError(
                "--image and --label already give the masks: leave out --masks-folder and "
                "--label-suffix"
            )
        if self.masks is not None and self.masks not in MASK_MODES:
            raise unknown_name("way to put masks together", self.masks, MASK_MODES)
        if len(set(self.channels)) < len(self.channels):
            raise UsageError(f"--channels {','.join(self.channels)}: a name occurs twice")


@checked()
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
        raise ManifestError(f"{source} is not a folder; give the folder of the image set")
    if format not in FORMATS:
        raise unknown_name("manifest format", format, FORMATS)
    how = Reading(**reading)
    how.check()
    try:
        draft = _draft(source, format, how)
        return _finished(
            dataclasses.replace(draft, name=name or draft.name), source, num_folds, seed, group_by
        )
    except ValidationError as error:
        fault = first_fault(error)
        raise ManifestError(
            f"{source} has a {error.title} that a manifest cannot contain: "
            f"{fault.field or error.title} is {fault.given!r}: {fault.message}"
        ) from error


def _draft(source: Path, layout: str, how: Reading) -> Draft:
    maker, names, channels = LabelMaker(how.made_in), how.label_names, tuple(how.channels)
    if how.images:
        wanted = Wanted(tuple(how.images), how.label, channels, tuple(how.require), how.masks)
        return draft_from_patterns(source, wanted, label_names=names, maker=maker)
    if how.masks_folder:
        return draft_from_masks(
            source,
            how.masks_folder,
            mode=how.masks,
            label_names=names,
            channels=channels,
            maker=maker,
        )
    chosen = detect_format(source) if layout == "auto" else layout
    if chosen == "nnunet" and not (source / "dataset.json").is_file():
        chosen = "folders"
    if chosen == "dicom":
        return draft_from_dicom(
            source, label_names=names, order=channels, require=how.require, maker=maker
        )
    if how.require:
        raise UsageError("--require chooses among the channels of --image patterns and DICOM trees")
    if chosen in {"folders", "raster"}:
        return draft_from_folders(
            source, label_suffix=how.label_suffix, label_names=names, channels=channels
        )
    if chosen == "nnunet":
        return renamed(draft_from_nnunet(source, label_names=names), channels)
    return renamed(draft_from_msd(source, label_names=names, maker=maker), channels)


def detect_format(source: Path) -> str:
    """The layout of a folder, by its content.

    Raises:
        ManifestError: It is unknown.
    """
    if (source / "dataset.json").is_file():
        return "nnunet" if is_nnunet(load_description(source)) else "msd"
    pair = paired_folders(source)
    if pair is not None and (images_in(pair[0]) or not has_dicom(pair[0])):
        return "folders"
    if has_dicom(source):
        return "dicom"
    inner = [source, *(path for path in sorted(source.iterdir()) if path.is_dir())]
    filled = [folder for folder in inner if images_in(folder)]
    if len(filled) > 1 and find_case_folders(source) is not None:
        raise unknown_layout(source)
    if filled:
        return "raster"
    raise unknown_layout(source)


def unknown_layout(source: Path) -> ManifestError:
    """The error for a tree that needs patterns; it states them if the names imply them."""
    there = find_case_folders(source)
    if there is not None:
        return ManifestError(f"{source} is read by patterns: it has {there.line}")
    return ManifestError(f"{source} is of no known layout. {EXAMPLES}")


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
    manifest = ignore_by_name(
        Manifest(
            name=draft.name,
            labels=draft.labels,
            ignore_value=draft.ignore_value,
            channels=draft.channels,
            training=tuple(training),
            test=test,
            stored_labels=draft.stored_labels,
            licence=draft.licence,
            source=draft.source,
            root=source,
            remarks=(*draft.remarks, *remarks),
        )
    )
    if fault := manifest.encoding.fault():
        raise ManifestError(f"{source}: {fault}")
    return with_digests(manifest)


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
