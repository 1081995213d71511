"""Drafts from `dataset.json`: the Medical Segmentation Decathlon's form and nnU-Net's raw form."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from segmed.errors import ManifestError
from segmed.formats import stem_of
from segmed.io.channel_files import channels_in, group_channels
from segmed.manifest.case_names import named_rows
from segmed.manifest.dataset_json import NAME, CaseEntry, Description, load_description
from segmed.manifest.draft import (
    Draft,
    by_stem,
    case_id,
    image_files,
    relative,
)
from segmed.manifest.label_table import LabelTable
from segmed.manifest.label_values import COLOURS, label_values, named_labels
from segmed.manifest.made_labels import LabelMaker
from segmed.manifest.regions import regions_of
from segmed.manifest.schema import Case, StoredLabel
from segmed.naming import guess_modality, guess_sides
from segmed.structures import Channel, LabelClass

MAX_LABEL_VALUE = 65535


def draft_from_msd(
    folder: Path, *, label_names: Sequence[str] = (), maker: LabelMaker | None = None
) -> Draft:
    """A draft from a list of cases: the Medical Segmentation Decathlon's form, or MONAI's.

    An entry has one image file (3D, or 4D with a volume for each channel) or a list with a file for
    each channel, and one label map or a list with the mask of each structure.

    Args:
        folder: Holds `dataset.json` and the files that its lists name.
        label_names: Names of the structures, by growing value, if the list names none.
        maker: Writes label maps for lists of masks.

    Raises:
        ManifestError: The description lacks something, names a file that does not exist, or its
            images have other numbers of channels than it names.
    """
    description = load_description(folder)
    rows = description.rows("training", needs_label=True)
    if not rows:
        raise description.fault(" lists no training cases")
    kept_out = [
        row
        for key in ("validation", "val", "test", "testing")
        for row in description.rows(key, needs_label=False)
    ]
    names, channels = named_rows([row.image for row in (*rows, *kept_out)])
    maker = maker or LabelMaker(None)
    cases = [
        Case(
            id=name,
            group="",
            image=row.image,
            label=_label_of(folder, name, row, maker),
            fold=row.fold,
        )
        for name, row in zip(names, (*rows, *kept_out), strict=True)
    ]
    training = cases[: len(rows)]
    table = description.labels()
    if table is None:
        files = [str(case.label) for case in training]
        found = named_labels(label_values(folder, files), ())
        table = LabelTable({label.value: label.name for label in found})
    return _draft(
        description,
        table,
        label_names,
        channels=_channels_of(
            description, cases, description.channels("modality", "channel_names") or channels
        ),
        training=training,
        test=[case.model_copy(update={"fold": None}) for case in cases[len(rows) :]],
    )


def _draft(
    description: Description,
    table: LabelTable,
    label_names: Sequence[str],
    *,
    channels: tuple[Channel, ...],
    training: Sequence[Case],
    test: Sequence[Case],
) -> Draft:
    """The draft of some cases, with what the description states about the set."""
    labels, stored = _structures(description, table, label_names)
    return Draft(
        name=description.text("name") or case_id(description.folder.resolve().name),
        labels=labels,
        stored_labels=stored,
        ignore_value=table.ignore_value,
        channels=channels,
        training=tuple(training),
        test=tuple(test),
        licence=description.text("licence", "license"),
        source=description.text("reference"),
        remarks=tuple(description.remarks),
    )


def _label_of(folder: Path, name: str, row: CaseEntry, maker: LabelMaker) -> str | None:
    if len(row.label) <= 1:
        return row.label[0] if row.label else None
    files = [folder / one for one in row.label]
    order = [stem_of(path) for path in files]
    made = maker.combined(name, files, "structures", order)
    return Path(os.path.relpath(made, folder)).as_posix()


def _channels_of(
    description: Description, cases: Sequence[Case], names: Sequence[str]
) -> tuple[Channel, ...]:
    """The channels by name, if every image has as many.

    Raises:
        ManifestError: An image has more or fewer; it is named.
    """
    counts = {case.id: _count(description.folder, case) for case in cases}
    if not names:
        count = counts[cases[0].id]
        names = COLOURS.get(count, tuple(f"channel_{n}" for n in range(count)))
    if len(names) == 1 and set(counts.values()) == {3}:
        names = COLOURS[3]  # colour pictures, whose one modality is called RGB or so
    wrong = [case for case in cases if counts[case.id] != len(names)]
    if wrong:
        raise description.fault(
            f" has {len(names)} channels ({', '.join(names)}), {wrong[0].image[0]} contains "
            f"{counts[wrong[0].id]}: list a file for each channel, or correct the channels"
        )
    return _channels(list(names))


def _count(folder: Path, case: Case) -> int:
    if len(case.image) > 1:
        return len(case.image)
    return channels_in(folder / case.image[0])


def draft_from_nnunet(folder: Path, *, label_names: Sequence[str] = ()) -> Draft:
    """A draft from an nnU-Net raw folder: `imagesTr/ID_0000.ext`, `labelsTr/ID.ext`.

    Args:
        folder: Holds `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`, `labelsTs`.
        label_names: Names of the structures, by growing value, instead of those of the file.

    Raises:
        ManifestError: The description lacks something, a channel or label file is missing, or
            regions cannot be painted one over the other.
    """
    description = load_description(folder)
    channels = description.channels("channel_names", "modality")
    if channels is None:
        raise description.fault(" has no table 'channel_names'")
    table = description.labels()
    if table is None:
        raise description.fault(" has no table 'labels'")
    return _draft(
        description,
        table,
        label_names,
        channels=_channels(channels),
        training=nnunet_cases(folder, "Tr", len(channels), needs_label=True),
        test=nnunet_cases(folder, "Ts", len(channels), needs_label=False),
    )


def nnunet_cases(
    folder: Path, part: str, num_channels: int, *, needs_label: bool
) -> tuple[Case, ...]:
    """The cases of `imagesTr` and `labelsTr` (part `Tr`), or of `imagesTs` and `labelsTs`.

    Raises:
        ManifestError: A case lacks a channel, or a label that it needs.
    """
    images = folder / f"images{part}"
    if not images.is_dir():
        if needs_label:
            raise ManifestError(f"{folder} has no images{part}: this is not an nnU-Net raw folder")
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


def _structures(
    description: Description, table: LabelTable, given: Sequence[str]
) -> tuple[tuple[LabelClass, ...], tuple[StoredLabel, ...]]:
    """The labels, and what the values of the files become where regions join some."""
    if not table.regions:
        return _labels(description, table.names, given), ()
    most = max(max(values) for values in table.regions.values())
    _require_small(description, max(most, *table.paint, table.ignore_value or 0))
    named = {_plain(name) or f"region_{n}": v for n, (name, v) in enumerate(table.regions.items())}
    found = regions_of(named, table.paint, place=str(description.folder / NAME))
    labels = found.labels
    if given:
        values = sorted(label.value for label in labels)
        name_of = {label.value: label.name for label in named_labels(values, given)}
        labels = tuple(one.model_copy(update={"name": name_of[one.value]}) for one in labels)
    return labels, found.stored(table.names)


def _labels(
    description: Description, names: dict[int, str], given: Sequence[str]
) -> tuple[LabelClass, ...]:
    values = sorted(value for value in names if value != 0)
    if not values:
        raise description.fault(" names no label besides background")
    if given:
        return named_labels(values, given)
    _require_small(description, values[-1])
    named = {value: _plain(names[value]) or f"label_{value}" for value in values}
    return tuple(LabelClass(name=name, value=value) for value, name in named.items())


def _require_small(description: Description, value: int) -> None:
    if value > MAX_LABEL_VALUE:
        raise description.fault(f": label value {value} is too large; at most {MAX_LABEL_VALUE}")


def renamed(draft: Draft, names: Sequence[str]) -> Draft:
    """A draft with other names for its channels, or the same if none are given.

    Raises:
        ManifestError: There are more or fewer channels.
    """
    if not names:
        return draft
    if len(names) != len(draft.channels):
        known = ", ".join(channel.name for channel in draft.channels)
        raise ManifestError(
            f"--channels names {len(names)} channels, the set has {len(draft.channels)} ({known})"
        )
    return dataclasses.replace(draft, channels=_channels(list(names)))


def _channels(names: list[str]) -> tuple[Channel, ...]:
    return tuple(
        Channel(name=str(name), modality=guess_modality(str(name)).modality) for name in names
    )


def _plain(name: str) -> str:
    """A name in lower case without spaces, unless that loses a side: `FemurL` stays."""
    joined = str(name).strip().replace(" ", "_")
    lower = joined.lower()
    return joined if guess_sides([joined]) and not guess_sides([lower]) else lower
