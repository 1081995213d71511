"""Labels of DICOM series that are not DICOM images: structure sets, NIfTI, NRRD and MetaImage."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from segmed.errors import ImageError, ManifestError
from segmed.formats import VOLUME_SUFFIXES, stem_of
from segmed.geometry import Grid, grid_difference, same_grid
from segmed.io.read import as_label, grid_of, load_label
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
        loaded = load_label(path, grid=grid)
        label = as_label(loaded)
    except ImageError as error:
        raise ManifestError(f"label of study {case_id}: {error}") from error
    place = grid_of(label)
    if not same_grid(grid, place):
        names = (f"the series of study {case_id}", f"its label {path.name}")
        raise ManifestError(grid_difference(grid, place, names=names))
    if not loaded.source.stored_as:
        return path
    like = MetaTensor(torch.zeros((1, *grid.shape)), affine=torch.from_numpy(grid.affine_ras))
    return maker.write(case_id, label.as_tensor(), like)


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
