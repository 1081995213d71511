"""Drafts from image files and the masks beside them or in a folder of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segmed.errors import ImageError, ManifestError
from segmed.formats import IMAGE_SUFFIXES, stem_of
from segmed.io.read import read_image
from segmed.manifest.draft import Draft, by_stem, case_id, image_files, images_in, relative
from segmed.manifest.found_structures import found_structures
from segmed.manifest.from_dataset_json import channel_files, nnunet_cases
from segmed.manifest.label_values import COLOURS
from segmed.manifest.schema import Case
from segmed.naming import guess_modality
from segmed.structures import Channel

IMAGE_FOLDERS = ("images", "image", "imgs", "imagesTr")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "labelsTr")


def paired_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of labels, if the source has both."""
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    labels = next((folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()), None)
    return None if images is None or labels is None else (images, labels)


def draft_from_folders(
    folder: Path,
    *,
    label_suffix: str | None = None,
    label_names: Sequence[str] = (),
    channels: Sequence[str] = (),
) -> Draft:
    """A draft from `images/` and `labels/`, or from one folder with images and masks together.

    A mask belongs to the image of the same name, or of the same name plus `label_suffix`. Images
    named `ID_0000.ext`, `ID_0001.ext`, ... are the channels of one case. A folder of slices, such
    as `images/ID/0001.png`, is a volume. Images of `imagesTs` beside `imagesTr` are kept out.

    Args:
        folder: The source.
        label_suffix: What a mask's name has after its image's name; needed where both are
            together. With several graders it chooses one (`_1stHO`).
        label_names: Names of the structures, by growing value; else `foreground` or `label_N`.
        channels: Names of the channels in order; else by number, or by colour.

    Raises:
        ManifestError: Nothing is found, an image has no mask or a mask no image, or the masks
            have too many values or none.
    """
    pair = paired_folders(folder)
    if pair is None:
        images, labels = _side_by_side(folder, label_suffix)
    else:
        images = {stem: [path] for stem, path in by_stem(images_in(pair[0])).items()}
        labels = by_stem(images_in(pair[1]))
        images = _with_channels(pair[0], images, labels, label_suffix)
    if not images:
        raise ManifestError(
            f"{folder} contains no image files: known are {', '.join(IMAGE_SUFFIXES)}"
        )
    _require_masks(pair[1] if pair else folder, images, labels, label_suffix or "")
    cases = _paired(folder, images, labels, label_suffix or "")
    found = channels_of(folder, cases[0], channels)
    test = nnunet_cases(folder, "Ts", len(found), needs_label=False) if pair else ()
    files = [case.label for case in cases if case.label]
    structures, stored = found_structures(folder, files, label_names)
    return Draft(
        name=case_id(folder.resolve().name),
        labels=structures,
        stored_labels=stored,
        channels=found,
        training=tuple(cases),
        test=test,
    )


def _side_by_side(
    folder: Path, label_suffix: str | None
) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Images and masks of one folder (or of its only filled subfolder), distinguished by suffix."""
    files = image_files(folder)
    if not files:
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and image_files(path)]
        if len(inner) != 1:
            raise ManifestError(
                f"{folder} contains neither images/ and labels/ nor one folder of image files"
            )
        files = image_files(inner[0])
    if not label_suffix:
        raise ManifestError(
            f"{files[0].parent} contains images and masks together: give the ending of the masks' "
            f"names, such as --label-suffix {_likely_suffix([stem_of(path) for path in files])}"
        )
    masks = {stem_of(path): path for path in files if stem_of(path).endswith(label_suffix)}
    if not masks:
        raise ManifestError(f"no file in {files[0].parent} ends in {label_suffix!r}")
    stems = {stem.removesuffix(label_suffix) for stem in masks}
    images = {stem_of(path): [path] for path in files if stem_of(path) in stems}
    return images, masks


def _with_channels(
    folder: Path,
    images: dict[str, list[Path]],
    labels: dict[str, Path],
    label_suffix: str | None,
) -> dict[str, list[Path]]:
    """Files of one case put together where names end in channel numbers and labels' do not."""
    numbered = bool(images) and all(re.search(r"_\d{4}$", stem) for stem in images)
    if not numbered or any(stem + (label_suffix or "") in labels for stem in images):
        return images
    count = 1 + max(int(stem[-4:]) for stem in images)
    return {case: list(files) for case, files in channel_files(folder, count).items()}


def _likely_suffix(stems: Sequence[str]) -> str:
    """The ending that most names have beyond another name of the folder; `_mask` without any."""
    known = set(stems)
    endings = Counter(
        stem[cut:] for stem in stems for cut in range(1, len(stem)) if stem[:cut] in known
    )
    return endings.most_common(1)[0][0] if endings else "_mask"


def _require_masks(
    folder: Path, images: dict[str, list[Path]], labels: dict[str, Path], label_suffix: str
) -> None:
    """Raise an error that names the folder and the endings of a mask that is missing."""
    bare = sorted(stem for stem in images if stem + label_suffix not in labels)
    if bare:
        named = sorted(stem for stem in labels if stem.startswith(bare[0]) and stem != bare[0])
        hint = ""
        if named:
            ending = named[0][len(bare[0]) :]
            hint = f"give --label-suffix {ending} for {labels[named[0]].name}, or "
        raise ManifestError(
            f"{_images(len(bare))} no mask (first {images[bare[0]][0].name}): looked in "
            f"{folder} for {bare[0]}{label_suffix} with one of {', '.join(IMAGE_SUFFIXES)}; "
            f"{hint}add it, or take the image away"
        )


def _images(number: int) -> str:
    return "1 image has" if number == 1 else f"{number} images have"


def _paired(
    folder: Path, images: dict[str, list[Path]], labels: dict[str, Path], label_suffix: str
) -> list[Case]:
    lone = sorted(stem for stem in labels if stem.removesuffix(label_suffix) not in images)
    if lone:
        raise ManifestError(
            f"{len(lone)} masks have no image (first {labels[lone[0]].name}): add it, or take "
            "the mask away"
        )
    return [
        Case(
            id=case_id(stem),
            group="",
            image=tuple(relative(path, folder) for path in files),
            label=relative(labels[stem + label_suffix], folder),
        )
        for stem, files in images.items()
    ]


def channels_of(folder: Path, case: Case, names: Sequence[str]) -> tuple[Channel, ...]:
    """The channels of an image set, from one of its cases.

    Args:
        folder: Where paths start from.
        case: The case.
        names: Names of the channels in order; else by number, or by colour.

    Raises:
        ManifestError: The image cannot be read, or has another number of channels.
    """
    count = len(case.image)
    try:
        if count == 1:
            expected = max(len(names), 1)
            image = read_image(folder / case.image[0], num_channels=expected)
            count = int(image.shape[0])
    except ImageError as error:
        hint = "; --channels names the volumes" if error.reason == "four_dimensional" else ""
        raise ManifestError(f"case {case.id!r}: {error}{hint}") from error
    if names and len(names) != count:
        raise ManifestError(
            f"--channels names {len(names)} channels ({', '.join(names)}), case {case.id!r} has "
            f"{count}"
        )
    plain = COLOURS.get(count) if len(case.image) == 1 else None
    chosen = names or plain or [f"channel_{n}" for n in range(count)]
    return tuple(Channel(name=name, modality=guess_modality(name).modality) for name in chosen)
