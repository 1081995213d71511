"""Drafts from `dataset.json`: the Medical Segmentation Decathlon's form and nnU-Net's raw form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segmed.errors import ManifestError
from segmed.io.channel_files import group_channels
from segmed.io.image_names import stem_of
from segmed.manifest.draft import (
    Draft,
    by_stem,
    case_id,
    image_files,
    relative,
)
from segmed.manifest.schema import Case
from segmed.naming import guess_modality, guess_sides
from segmed.structures import Channel, LabelClass


def load_description(folder: Path) -> dict[str, Any]:
    """The content of a folder's `dataset.json`.

    Raises:
        ManifestError: It is missing or holds no JSON object.
    """
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"{folder} has no dataset.json: choose another format") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{path} holds no JSON object but {type(content).__name__}")
    return content


def is_nnunet(content: dict[str, Any]) -> bool:
    """Whether a `dataset.json` is nnU-Net's (version 2) rather than the Decathlon's."""
    return "channel_names" in content or "file_ending" in content


def draft_from_msd(folder: Path) -> Draft:
    """A draft from a folder in the Medical Segmentation Decathlon's form.

    Args:
        folder: Holds `dataset.json` and the files that its `training` and `test` name.

    Raises:
        ManifestError: The description lacks something, or names a file that does not exist.
    """
    content = load_description(folder)
    rows = content.get("training")
    if not isinstance(rows, list) or not rows:
        raise ManifestError(f"{folder / 'dataset.json'} lists no training cases")
    training = []
    for row in rows:
        if not isinstance(row, dict) or not {"image", "label"} <= row.keys():
            raise ManifestError(
                f"{folder / 'dataset.json'}: training entry {row!r} has no image and label"
            )
        training.append(_msd_case(folder, row["image"], row["label"]))
    test = []
    for row in content.get("test") or []:
        entry = row if isinstance(row, dict) else {"image": row}
        test.append(_msd_case(folder, entry["image"], entry.get("label")))
    return Draft(
        name=str(content.get("name") or folder.name),
        labels=_labels(folder, {int(key): name for key, name in _table(folder, content, "labels")}),
        channels=_channels([name for _, name in sorted(_table(folder, content, "modality"))]),
        training=tuple(training),
        test=tuple(test),
        licence=str(content.get("licence") or content.get("license") or ""),
        source=str(content.get("reference") or ""),
    )


def _msd_case(folder: Path, image: str, label: str | None) -> Case:
    for name in (image, label):
        if name is not None and not (folder / name).exists():
            raise ManifestError(f"{folder / 'dataset.json'} names {name}, which does not exist")
    return Case(
        id=case_id(stem_of(Path(image))),
        group="",
        image=(relative(folder / image, folder),),
        label=None if label is None else relative(folder / label, folder),
    )


def draft_from_nnunet(folder: Path) -> Draft:
    """A draft from an nnU-Net raw folder: `imagesTr/ID_0000.ext`, `labelsTr/ID.ext`.

    Args:
        folder: Holds `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`, `labelsTs`.

    Raises:
        ManifestError: The description lacks something, a channel or label file is missing, or
            labels are regions (lists of values).
    """
    content = load_description(folder)
    channels = [name for _, name in sorted(_table(folder, content, "channel_names"))]
    values: dict[int, str] = {}
    for name, value in _table(folder, content, "labels"):
        if not isinstance(value, int):
            raise ManifestError(
                f"{folder / 'dataset.json'}: label {name!r} is a region {value!r}; segmed needs "
                "one value a structure"
            )
        values[value] = str(name)
    return Draft(
        name=str(content.get("name") or folder.name),
        labels=_labels(folder, values),
        channels=_channels([str(name) for name in channels]),
        training=_nnunet_cases(folder, "Tr", len(channels), needs_label=True),
        test=_nnunet_cases(folder, "Ts", len(channels), needs_label=False),
        licence=str(content.get("licence") or content.get("license") or ""),
        source=str(content.get("reference") or ""),
    )


def _nnunet_cases(
    folder: Path, part: str, num_channels: int, *, needs_label: bool
) -> tuple[Case, ...]:
    images = folder / f"images{part}"
    if not images.is_dir():
        if needs_label:
            raise ManifestError(f"{folder} has no images{part}: this is no nnU-Net raw folder")
        return ()
    label_folder = folder / f"labels{part}"
    labels = by_stem(image_files(label_folder)) if label_folder.is_dir() else {}
    cases = []
    for stem, files in channel_files(images, num_channels).items():
        label = labels.get(stem)
        if label is None and needs_label:
            raise ManifestError(f"case {stem!r} has no label in labels{part}: add it")
        cases.append(
            Case(
                id=case_id(stem),
                group="",
                image=tuple(relative(path, folder) for path in files),
                label=None if label is None else relative(label, folder),
            )
        )
    return tuple(cases)


def channel_files(images: Path, num_channels: int) -> dict[str, tuple[Path, ...]]:
    """The files of each case of a folder, by case name; see `segmed.io.channel_files`.

    Raises:
        ManifestError: A case lacks a channel, or has one twice.
    """
    cases = group_channels(image_files(images), num_channels)
    faulty = [case for case in cases if case.fault]
    if faulty:
        more = f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
        raise ManifestError(f"case {faulty[0].case!r} in {images}{more}: {faulty[0].fault}")
    return {case.case: case.files for case in sorted(cases, key=lambda case: case.case)}


def _table(folder: Path, content: dict[str, Any], key: str) -> list[tuple[Any, Any]]:
    table = content.get(key)
    if not isinstance(table, dict) or not table:
        raise ManifestError(f"{folder / 'dataset.json'} has no table {key!r}")
    numbers = all(str(name).isdigit() for name in table)
    return [(int(name) if numbers else name, value) for name, value in table.items()]


def _labels(folder: Path, names: dict[int, str]) -> tuple[LabelClass, ...]:
    found = tuple(
        LabelClass(name=_plain(name), value=value)
        for value, name in sorted(names.items())
        if value != 0
    )
    if not found:
        raise ManifestError(f"{folder / 'dataset.json'} names no label besides background")
    return found


def _channels(names: list[str]) -> tuple[Channel, ...]:
    return tuple(
        Channel(name=str(name), modality=guess_modality(str(name)).modality) for name in names
    )


def _plain(name: str) -> str:
    """A name in lower case without spaces, unless that loses a side: `FemurL` stays."""
    joined = str(name).strip().replace(" ", "_")
    lower = joined.lower()
    return joined if guess_sides([joined]) and not guess_sides([lower]) else lower
