"""Pictures of the cases with the lowest Dice, for the report of `segmed evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from segmed.errors import ImageError, UsageError
from segmed.formats import suffix_of
from segmed.io import read_image, read_label
from segmed.manifest import LabelClass, Manifest, read_reference
from segmed.metrics.label_pairs import label_files, prediction_files
from segmed.report import OverlayItem
from segmed.report.case_overlay import overlay_of_images

SHOWN_CASES = 5
"""Cases that are shown."""

CHANNEL_ENDING = "_0000"
"""What the first channel's name adds to its case's in a common naming of channels."""


def images_of(folder: Path, cases: list[str]) -> dict[str, Path]:
    """The image of each case: a file of its name, with or without `_0000`, or a series folder.

    Args:
        folder: Folder of images.
        cases: Case ids.

    Raises:
        UsageError: The folder is missing, or a case has no image in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder of the images")
    by_name: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path)
        if path.is_dir() or suffix:
            by_name.setdefault(path.name[: len(path.name) - len(suffix)], path)
    found = {case: by_name.get(case, by_name.get(case + CHANNEL_ENDING)) for case in cases}
    missing = [case for case, path in found.items() if path is None]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(cases)} cases have no image in {folder}, such as "
            f"{missing[0]}: name images like their references, or leave out --images"
        )
    return {case: path for case, path in found.items() if path is not None}


def lowest_overlays(
    scores: pd.DataFrame,
    *,
    images: dict[str, Path],
    predictions: Path,
    references: Path,
    labels: Sequence[LabelClass] = (),
    manifest: Manifest | None = None,
    most: int = SHOWN_CASES,
) -> Iterator[OverlayItem]:
    """The cases with the lowest mean Dice, in rising order, read one at a time.

    Args:
        scores: Table of the evaluation.
        images: The image of each case.
        predictions: Folder of the label maps that were scored.
        references: Folder of their references.
        labels: Structures that segments of DICOM segmentations are matched to.
        manifest: The set of the references, if it merges, drops or renames what they contain.
        most: How many to show; cases without any Dice (nothing there, nothing found) are not.

    Raises:
        ImageError: An image cannot be read, or is on another grid than its reference.
    """
    wanted = label_files(references)
    found = prediction_files(predictions, wanted)
    means = scores.groupby("case")["dice"].mean().dropna().sort_values(kind="stable")
    for case, dice in means.head(most).items():
        case_id = str(case)
        image = read_image(images[case_id])
        try:
            prediction = read_label(found[case_id], like=image, labels=labels)
            if manifest is None:
                reference = read_label(wanted[case_id], like=image, labels=labels)
            else:
                reference = read_reference(manifest, wanted[case_id], like=image)
        except ImageError as error:
            message = f"the image of {case_id}: {error}"
            raise ImageError(message, reason=error.reason, paths=error.paths) from error
        yield overlay_of_images(
            image,
            reference,
            prediction,
            labels=labels if manifest is None else manifest.labels,
            caption=f"{case_id}: mean Dice {dice:.3f}",
            case=case_id,
            model=predictions.name,
        )
