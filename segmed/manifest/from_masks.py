"""Drafts from pictures with several mask files each, in a folder of masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segmed.errors import ManifestError
from segmed.formats import stem_of
from segmed.manifest.draft import Draft, by_stem, case_id, images_in, relative
from segmed.manifest.from_folders import IMAGE_FOLDERS, channels_of
from segmed.manifest.label_values import label_values, named_labels
from segmed.manifest.made_labels import LabelMaker, MaskMode
from segmed.manifest.patterns import SEPARATORS
from segmed.manifest.schema import Case

MOST_STRUCTURES = 64
"""Most different mask names that are taken for names of structures."""


def draft_from_masks(
    folder: Path,
    masks_folder: str,
    *,
    mode: MaskMode | None = None,
    label_names: Sequence[str] = (),
    channels: Sequence[str] = (),
    maker: LabelMaker,
) -> Draft:
    """A draft from images and a folder with `CASE/*.png` or `CASE_*.png` for each of them.

    Args:
        folder: The source.
        masks_folder: The folder of masks below it.
        mode: How the masks of an image are put together. Without one, `structures` if the images
            share the names of their masks (`liver`, `spleen`), else `union`.
        label_names: Names of the structures by growing value.
        channels: Names of the channels.
        maker: Writes the label maps.

    Raises:
        ManifestError: A folder is missing, an image has no masks, or a mask no image.
    """
    root = folder / masks_folder
    if not root.is_dir():
        raise ManifestError(f"--masks-folder {masks_folder}: {folder} has no such folder")
    images = by_stem(images_in(_images_folder(folder, root), stacks=False))
    masks = _by_image(root, images)
    names = {stem: [_own_name(path, stem) for path in files] for stem, files in masks.items()}
    structures = _structures(names) if mode in {None, "structures"} else []
    if mode == "structures" and not structures:
        raise ManifestError(
            f"--masks structures: the mask names in {root} are not names of structures "
            f"(at most {MOST_STRUCTURES}, shared by the images)"
        )
    mode = mode or ("structures" if structures else "union")
    cases = []
    for stem, image in images.items():
        case = case_id(stem)
        if structures:
            values = [structures.index(name) + 1 for name in names[stem]]
            made = maker.with_values(case, masks[stem], values)
        else:
            made = maker.combined(case, masks[stem], mode)
        label = Path(os.path.relpath(made, folder)).as_posix()
        cases.append(Case(id=case, group="", image=(relative(image, folder),), label=label))
    values = label_values(folder, [str(case.label) for case in cases])
    given = label_names or [structures[value - 1] for value in values if structures]
    return Draft(
        name=case_id(folder.resolve().name),
        labels=named_labels(values, given),
        channels=channels_of(folder, cases[0], channels),
        training=tuple(cases),
        remarks=tuple(maker.remarks(mode)),
    )


def _images_folder(folder: Path, masks: Path) -> Path:
    named = [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and path != masks]
    for candidate in (*named, folder, *inner):
        if candidate != masks and images_in(candidate, stacks=False):
            return candidate
    raise ManifestError(f"{folder} contains no images beside {masks.name}")


def _by_image(root: Path, images: dict[str, Path]) -> dict[str, list[Path]]:
    """The masks of each image: those of its folder, or those whose names begin with its name."""
    found: dict[str, list[Path]] = {stem: [] for stem in images}
    lone: list[Path] = []
    files = set(images_in(root, stacks=False))
    for entry in sorted(path for path in root.iterdir() if not path.name.startswith(".")):
        if entry.is_dir():
            found.get(entry.name, lone).extend(images_in(entry, stacks=False))
        elif entry in files:
            found.get(_owner(stem_of(entry), images), lone).append(entry)
    if lone:
        raise ManifestError(
            f"{len(lone)} masks have no image (first {lone[0].name}): name masks CASE/*.png or "
            "CASE_*.png after their image"
        )
    bare = [stem for stem, own in found.items() if not own]
    if bare:
        raise ManifestError(
            f"{len(bare)} images have no mask (first {images[bare[0]].name}): add {bare[0]}/ to "
            f"{root.name}, or take the image away"
        )
    return found


def _owner(stem: str, images: dict[str, Path]) -> str:
    """The longest image name that a mask's name begins with."""
    fits = [one for one in images if stem == one or _continues(stem, one)]
    return max(fits, key=len, default="")


def _continues(text: str, start: str) -> bool:
    return text.startswith(start) and text[len(start) : len(start) + 1] in tuple(SEPARATORS)


def _own_name(path: Path, stem: str) -> str:
    return stem_of(path).removeprefix(stem).strip(SEPARATORS)


def _structures(names: dict[str, list[str]]) -> list[str]:
    """Names of structures, if the images share them; none if the masks are numbered or unique."""
    counts = Counter(name for own in names.values() for name in set(own))
    are_words = all(name and not name.isdigit() for name in counts)
    are_shared = len(names) > 1 and all(count > 1 for count in counts.values())
    return sorted(counts) if are_words and are_shared and len(counts) <= MOST_STRUCTURES else []
