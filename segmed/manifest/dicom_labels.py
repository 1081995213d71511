"""Labels of DICOM series that are not DICOM images: structure sets, NIfTI, NRRD and MetaImage."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segmed.errors import ImageError, ManifestError
from segmed.formats import VOLUME_SUFFIXES, stem_of
from segmed.geometry import Grid, same_grid
from segmed.io.read import grid_of, read_label
from segmed.manifest.content import is_hidden
from segmed.manifest.made_labels import LabelMaker
from segmed.metatensor import MetaTensor
from segmed.naming import has_mask_words


def volumes_below(folder: Path) -> list[Path]:
    """NIfTI, NRRD and MetaImage files of a tree, by path."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(VOLUME_SUFFIXES) and not is_hidden(Path(name))
    )


def volumes_by_study(
    volumes: Sequence[Path], studies: Mapping[str, Sequence[Path]]
) -> dict[str, list[Path]]:
    """Volume files by study: the one study of the nearest folder upwards that has DICOM files.

    Where that folder has several, a folder of one study decides that is called like the volume.

    Args:
        volumes: Volume files.
        studies: DICOM files of each study.

    Returns:
        Volumes of each study; those with words such as `mask` in their names, if any have.

    Raises:
        ManifestError: The nearest folder with DICOM files has several studies.
    """
    inside: dict[Path, set[str]] = {}
    for study, files in studies.items():
        for folder in {parent for path in files for parent in path.parents}:
            inside.setdefault(folder, set()).add(study)
    found: dict[str, list[Path]] = {}
    for volume in volumes:
        near = next((inside[folder] for folder in volume.parents if folder in inside), set())
        if len(near) > 1:
            near = _called(stem_of(volume), inside)
        if len(near) != 1:
            raise ManifestError(
                f"{volume.name} belongs to none or to several DICOM studies: put a label into the "
                "folder of its study, or name it after that folder"
            )
        found.setdefault(next(iter(near)), []).append(volume)
    for study, files in found.items():
        named = [path for path in files if has_mask_words(path.name)]
        found[study] = named or files
    return found


def _called(name: str, inside: Mapping[Path, set[str]]) -> set[str]:
    """Studies that have a folder of this name for themselves."""
    folders = (studies for folder, studies in inside.items() if folder.name == name)
    return {study for studies in folders if len(studies) == 1 for study in studies}


def volume_label(case_id: str, path: Path, grid: Grid, maker: LabelMaker) -> Path:
    """A label volume in the storage order of the series that it belongs to.

    Args:
        case_id: Name of the case.
        path: The volume; its axes may be flipped or swapped against the series, as converters
            leave them.
        grid: Grid of the series.
        maker: Writes it, if its axes have to be turned.

    Returns:
        The file itself, or a new one.

    Raises:
        ManifestError: It cannot be read, or is on another grid.
    """
    try:
        label = read_label(path)
    except ImageError as error:
        raise ManifestError(f"label of study {case_id}: {error}") from error
    if same_grid(grid_of(label), grid):
        return path
    turned = _turned(label.as_tensor().numpy()[0], np.asarray(label.affine), grid)
    if turned is None:
        raise ManifestError(
            f"label {path.name} of study {case_id} has another grid than its series "
            f"({grid_of(label).shape} voxels against {grid.shape}): resample it to the series"
        )
    like = MetaTensor(torch.zeros((1, *grid.shape)), affine=torch.from_numpy(grid.affine_ras))
    return maker.write(case_id, torch.from_numpy(turned)[None], like)


def _turned(
    array: npt.NDArray[np.int32], affine: npt.NDArray[np.float64], grid: Grid
) -> npt.NDArray[np.int32] | None:
    """The array with axes swapped and flipped onto a grid; None if that is not enough."""
    steps = np.linalg.inv(affine)[:3, :3] @ grid.affine_ras[:3, :3]
    order = np.argmax(np.abs(steps), axis=0)
    if sorted(order) != [0, 1, 2]:
        return None
    flips = tuple(axis for axis in range(3) if steps[order[axis], axis] < 0)
    moved = np.flip(np.transpose(array, order), flips)
    placed = np.eye(4)
    placed[:3, :3] = affine[:3, order]
    placed[:3, 3] = affine[:3, 3]
    for axis in flips:
        placed[:3, 3] += placed[:3, axis] * (moved.shape[axis] - 1)
        placed[:3, axis] *= -1
    fits = moved.shape == tuple(grid.shape) and same_grid(Grid(moved.shape, placed), grid)
    return np.ascontiguousarray(moved) if fits else None


def region_labels(
    sets: dict[str, tuple[Path, Grid, str]], names: Sequence[str], maker: LabelMaker
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Label maps of structure sets, with one value a region name over all cases.

    Args:
        sets: Structure set, grid and frame of reference of the series of each case.
        names: Regions wanted, by growing value; all that occur, by name, if empty.
        maker: Writes the label maps.

    Returns:
        The label map of each case, and the region names by value from 1.

    Raises:
        ManifestError: A set cannot be read, is drawn in another space, has no wanted region, or
            regions share voxels.
    """
    from segmed.io.dicom.rtstruct_read import (  # noqa: PLC0415 - pydicom, for such trees alone
        label_of_regions,
        read_regions,
    )

    try:
        regions = {case: read_regions(path) for case, (path, _, _) in sets.items()}
    except ImageError as error:
        raise ManifestError(f"structure set: {error}") from error
    known = sorted({region.name for found in regions.values() for region in found})
    for name in names:
        if name not in known:
            raise ManifestError(f"no structure set has a region {name!r}: found are {known}")
    order = tuple(names) or tuple(known)
    made = {}
    for case, (path, grid, frame) in sets.items():
        wanted = [region for region in regions[case] if region.name in order]
        if not wanted:
            raise ManifestError(f"structure set {path.name} has none of the regions {list(order)}")
        foreign = [one.name for one in wanted if one.frame_of_reference not in {"", frame}]
        if foreign and frame:
            raise ManifestError(
                f"region {foreign[0]!r} of {path.name} is drawn in another frame of reference than "
                "the series"
            )
        values = [order.index(region.name) + 1 for region in wanted]
        try:
            label = label_of_regions(wanted, values, grid, path)
        except ImageError as error:
            raise ManifestError(f"study {case}: {error}") from error
        like = MetaTensor(torch.zeros((1, *grid.shape)), affine=torch.from_numpy(grid.affine_ras))
        made[case] = maker.write(case, torch.from_numpy(label)[None], like)
    return made, order
