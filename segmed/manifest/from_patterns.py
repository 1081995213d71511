"""Drafts from file patterns: any tree whose paths contain case and channel."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.errors import ManifestError, UsageError
from segmed.formats import is_named
from segmed.io.channel_files import channels_in
from segmed.manifest.case_folders import find_case_folders
from segmed.manifest.draft import Draft, case_id
from segmed.manifest.found_structures import found_structures
from segmed.manifest.label_values import COLOURS, label_values
from segmed.manifest.made_labels import LabelMaker, MaskMode
from segmed.manifest.patterns import Pattern, PatternMatch
from segmed.manifest.schema import Case
from segmed.manifest.shared_channels import agree_on_channels
from segmed.naming import guess_modality, guess_subjects
from segmed.structures import Channel

NAMED = re.compile(r"(?P<name>[\w-]+)=(?P<pattern>.+)", re.DOTALL)
"""An image pattern with the name of its channel: `FLAIR=sub-*/flair/scan.nii.gz`."""


@dataclass(frozen=True)
class Wanted:
    """The patterns of a source.

    Attributes:
        images: Patterns of the images, each perhaps with `NAME=` before it.
        label: Pattern of the labels.
        channels: The channels in order; those of the patterns if empty.
        require: Channels without which a case is dropped.
        masks: Values of several masks of one case; `union` if not given.
    """

    images: tuple[str, ...]
    label: str
    channels: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    masks: MaskMode | None = None


def draft_from_patterns(
    folder: Path, wanted: Wanted, *, label_names: Sequence[str] = (), maker: LabelMaker
) -> Draft:
    """A draft from the files that patterns find.

    Images and labels belong together if their `*` match the same text; a pattern with fewer of
    them counts from the front. Several masks of one case are put together.

    Args:
        folder: The source; patterns are relative to it.
        wanted: The patterns.
        label_names: Names of the structures by growing value.
        maker: Writes labels that are put together.

    Raises:
        ManifestError: A pattern finds nothing, nothing pairs, or a case has a file twice.
        UsageError: A pattern is invalid.
    """
    paths = _paths(folder)
    labels = Pattern(wanted.label, "--label")
    masks = labels.search(paths)
    if not masks:
        raise _nothing(f"--label {wanted.label!r} finds no file in {folder}", folder)
    taken = {mask.path for mask in masks}
    cases, order = _images(folder, [path for path in paths if path not in taken], wanted)
    by_case, remarks = _paired(cases, masks)
    found = {case: list(files) for case, files in cases.items() if case in by_case}
    ordered = sorted({name for names in found.values() for name in names}, key=order.index)
    found = {case: [name for name in ordered if name in names] for case, names in found.items()}
    agreed = agree_on_channels(found, order=_selection(wanted, ordered), require=wanted.require)
    mode: MaskMode = "structures" if labels.choices else wanted.masks or "union"
    is_made = wanted.masks is not None or bool(labels.choices)
    if is_made or any(len(by_case[case]) > 1 for case in agreed.cases):
        made = {
            case: _label(folder, case, by_case[case], mode, labels.choices, maker)
            for case in agreed.cases
        }
    else:
        made = {case: by_case[case][0].path for case in agreed.cases}
    training = [
        Case(
            id=case,
            group="",
            image=tuple(cases[case][name].path for name in agreed.channels),
            label=made[case],
        )
        for case in agreed.cases
    ]
    files = [str(case.label) for case in training]
    named = list(label_names)
    if labels.choices and not named:
        named = [labels.choices[value - 1] for value in label_values(folder, files)]
    structures, stored = found_structures(folder, files, named)
    return Draft(
        name=case_id(folder.resolve().name),
        labels=structures,
        stored_labels=stored,
        channels=_channels(folder, training, agreed.channels, wanted),
        training=tuple(training),
        groups=_groups({case: files for case, files in cases.items() if case in agreed.cases}),
        remarks=(
            *remarks,
            *agreed.remarks,
            *maker.remarks(mode),
        ),
    )


def _paths(folder: Path) -> list[str]:
    """Files and folders below a folder, relative to it; hidden ones are passed over."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = [name for name in (*folders, *names) if not name.startswith(".")]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in inside]
    return sorted(found)


def _nothing(message: str, folder: Path) -> ManifestError:
    """The error for a pattern without files, with what the folder has and what would read it."""
    there = find_case_folders(folder)
    return ManifestError(message if there is None else f"{message}; there are {there.line}")


def _images(
    folder: Path, paths: Sequence[str], wanted: Wanted
) -> tuple[dict[str, dict[str, PatternMatch]], list[str]]:
    """Files by case and channel, and the channels in the order of the patterns."""
    by_key: dict[tuple[str, ...], dict[str, PatternMatch]] = defaultdict(dict)
    order: list[str] = []
    wildcards = set()
    for number, text in enumerate(wanted.images):
        named = NAMED.fullmatch(text)
        pattern = Pattern(named["pattern"] if named else text)
        wildcards.add(pattern.num_wildcards)
        plain = named["name"] if named else pattern.plain_name or f"channel_{number}"
        order += pattern.choices or (plain,)
        found = pattern.search(paths)
        if not found:
            raise _nothing(f"--image {text!r} finds no file in {folder}", folder)
        words = {one.choice for one in found}
        if lacking := [word for word in pattern.choices if word not in words]:
            raise _nothing(f"--image {text!r} finds no file for {', '.join(lacking)}", folder)
        for one in found:
            channel = one.choice or plain
            if channel in by_key[one.key]:
                raise ManifestError(
                    f"{by_key[one.key][channel].path} and {one.path} would both be channel "
                    f"{channel!r} of one case: make the pattern narrower"
                )
            by_key[one.key][channel] = one
    if len(wildcards) > 1:
        raise UsageError("all --image patterns need the same number of * to belong together")
    cases: dict[str, dict[str, PatternMatch]] = {}
    for files in by_key.values():
        name = case_id(min((one.case for one in files.values()), key=len))
        if name in cases:
            first = next(iter(cases[name].values())).path
            second = next(iter(files.values())).path
            raise ManifestError(f"{first} and {second} would both be case {name!r}: rename one")
        cases[name] = files
    return cases, list(dict.fromkeys(order))


def _paired(
    cases: dict[str, dict[str, PatternMatch]], masks: Sequence[PatternMatch]
) -> tuple[dict[str, list[PatternMatch]], list[str]]:
    """The masks of each case, and remarks on cases and masks without a partner.

    Compared are the texts of the wildcards, as many from the front as pair at least half of the
    masks; failing that, the names that contain them.
    """
    first = {case: next(iter(files.values())) for case, files in cases.items()}
    for attribute in ("key", "pieces"):
        keys = {case: getattr(one, attribute) for case, one in first.items()}
        starts = [getattr(mask, attribute) for mask in masks]
        most = min(len(starts[0]), *map(len, keys.values()))
        for length in range(most, 0 if most else -1, -1):
            wanted = {case: key[:length] for case, key in keys.items()}
            found = [start[:length] for start in starts]
            known = set(wanted.values())
            if 2 * sum(start in known for start in found) >= len(found):
                by_mask = {mask.path: one for mask, one in zip(masks, found, strict=True)}
                return _joined(wanted, by_mask, masks)
    example = next(iter(first.values()))
    raise ManifestError(
        f"no label belongs to an image: the * matches {masks[0].key} in {masks[0].path}, for "
        f"{example.key} in {example.path}"
    )


def _joined(
    wanted: dict[str, tuple[str, ...]],
    found: dict[str, tuple[str, ...]],
    masks: Sequence[PatternMatch],
) -> tuple[dict[str, list[PatternMatch]], list[str]]:
    """Cases and masks with equal texts."""
    by_start: dict[tuple[str, ...], list[PatternMatch]] = defaultdict(list)
    for mask in masks:
        by_start[found[mask.path]].append(mask)
    counts = Counter(wanted.values())
    shared = [start for start in by_start if counts[start] > 1]
    if shared:
        raise ManifestError(
            f"{by_start[shared[0]][0].path} would be the label of several cases: put as many * "
            "into --label as into --image"
        )
    paired = {case: by_start[start] for case, start in wanted.items() if start in by_start}
    remarks = []
    bare = [case for case in wanted if case not in paired]
    if bare:
        remarks.append(f"{len(bare)} of {len(wanted)} cases dropped: no label ({_some(bare)})")
    lone = [mask.path for mask in masks if found[mask.path] not in counts]
    if lone:
        remarks.append(f"{len(lone)} labels dropped: no image ({_some(lone)})")
    return paired, remarks


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _selection(wanted: Wanted, found: Sequence[str]) -> Sequence[str]:
    """Requested channels; names for the one channel (or one file) that there is select nothing."""
    is_naming = len(found) == 1 and found[0] not in wanted.channels
    return () if is_naming else wanted.channels


def _label(
    folder: Path,
    case: str,
    masks: Sequence[PatternMatch],
    mode: MaskMode,
    structures: Sequence[str],
    maker: LabelMaker,
) -> str:
    """The label map that several masks, or the mask of a structure, make."""
    files = [folder / mask.path for mask in masks]
    if structures:
        values = [structures.index(mask.choice) + 1 for mask in masks]
        made = maker.with_values(case, files, values)
    else:
        made = maker.combined(case, files, mode)
    return Path(os.path.relpath(made, folder)).as_posix()


def _channels(
    folder: Path, cases: Sequence[Case], names: Sequence[str], wanted: Wanted
) -> tuple[Channel, ...]:
    """Channels with modalities; a single file may contain several."""
    if len(names) == 1:
        path = folder / cases[0].image[0]
        count = channels_in(path)
        if len(wanted.channels) == count:
            names = wanted.channels
        elif count > 1 and is_named(path, "nifti"):
            raise ManifestError(
                f"{cases[0].image[0]} has {count} volumes: name the channels with --channels, or "
                "split a series of times into files"
            )
        elif count > 1:
            names = COLOURS.get(count, tuple(f"channel_{n}" for n in range(count)))
        elif wanted.channels and tuple(wanted.channels) != tuple(names):
            raise ManifestError(f"{len(wanted.channels)} names of --channels for {count} channel")
    return tuple(Channel(name=name, modality=guess_modality(name).modality) for name in names)


def _groups(cases: dict[str, dict[str, PatternMatch]]) -> dict[str, str]:
    """The first folder with a wildcard as the group, if names alone do not identify the patient."""
    guess = guess_subjects(list(cases))
    if guess is not None and guess.is_sure:
        return {}
    first = {case: next(iter(files.values())) for case, files in cases.items()}
    if any(len(one.pieces) < 2 or not one.pieces[0] for one in first.values()):
        return {}
    groups = {case: one.pieces[0] for case, one in first.items()}
    return groups if len(set(groups.values())) > 1 else {}
