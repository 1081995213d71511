"""Inputs of a prediction: the cases among files, series folders and folders of these."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.errors import UsageError, unknown_name
from segmed.formats import OUTPUT_SUFFIXES, has_image_suffix, stem_of
from segmed.inference.manifest_input import cases_of_manifest, is_manifest
from segmed.inference.search import FoundPaths, search
from segmed.inference.selection import choose_series, mask_fault
from segmed.io.channel_files import CaseFiles, group_channels
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.plane import planes_of
from segmed.io.dicom.scan import group_files
from segmed.io.stack import stack_files
from segmed.package.series_rules import Rules, rules_in

if TYPE_CHECKING:
    from segmed.package import ModelPackage

Input = Path | Sequence[Path] | CaseFiles
"""One image: a file, a folder with one DICOM series, one of these for each channel, or the files of
a case with its name."""


@dataclass(frozen=True)
class Expected:
    """The images that a model takes.

    Attributes:
        num_channels: Input channels.
        spatial_dims: 3 for a model of volumes: a folder of numbered rasters is one of its images.
        names: Names of the channels: of files in a folder, and those that a manifest must have.
        rules: Rules by which series of a DICOM study become channels; without them each series is
            an image of its own.
    """

    num_channels: int = 1
    spatial_dims: int = 2
    names: tuple[str, ...] = ()
    rules: Rules | None = None


def expected_by(package: ModelPackage, rules: Rules | None = None) -> Expected:
    """The images that the model of a package takes.

    Args:
        package: The package; of an ensemble, any.
        rules: Rules instead of those that the package keeps.
    """
    plan = package.plan
    names = tuple(channel.name for channel in plan.channels)
    return Expected(plan.in_channels, plan.spatial_dims, names, rules or rules_in(package))


def checked_inputs(
    inputs: Sequence[Input], format: str, expected: Expected | None = None
) -> list[CaseFiles]:
    """All inputs as cases, folders searched.

    Args:
        inputs: Paths are searched together (see `find_cases`); a tuple is one case.
        format: Output format.
        expected: The images that the model takes.

    Raises:
        UsageError: The format is unknown, or there is no input.
    """
    if format not in OUTPUT_SUFFIXES:
        raise unknown_name("output format", format, OUTPUT_SUFFIXES)
    wanted = expected or Expected()
    cases = [case for batch in _batches(inputs) for case in _cases_of(batch, wanted)]
    if not cases:
        raise UsageError("there is nothing to segment: no image was found among the inputs")
    return cases


def _batches(inputs: Sequence[Input]) -> Iterator[list[Path] | CaseFiles]:
    """Inputs in order; paths that follow each other are searched together."""
    paths: list[Path] = []
    for item in inputs:
        if isinstance(item, str | Path):
            paths.append(Path(item))
            continue
        if paths:
            yield paths
            paths = []
        yield item if isinstance(item, CaseFiles) else _case_of(item)
    if paths:
        yield paths


def _case_of(paths: Sequence[Path]) -> CaseFiles:
    files = tuple(map(Path, paths))
    if not files:
        raise UsageError("an image needs at least one file, none was given")
    return CaseFiles(_name_of(files[0]), files)


def _cases_of(batch: list[Path] | CaseFiles, expected: Expected) -> list[CaseFiles]:
    return [batch] if isinstance(batch, CaseFiles) else list(find_all(batch, expected).cases)


@dataclass(frozen=True)
class Inputs:
    """Inputs found among files and folders.

    Attributes:
        cases: Cases in the order of their first files; those with a fault are among them.
        passed_over: Files that are not images, and why.
    """

    cases: tuple[CaseFiles, ...]
    passed_over: dict[Path, str]


def find_all(paths: Sequence[Path], expected: Expected | int = 1) -> Inputs:
    """Cases among files and folders: channels of one case together, DICOM files by series.

    Args:
        paths: Files and folders, which are searched at any depth. Image files are found by suffix,
            DICOM files by content; the rest of a folder is passed over, and so are results of
            earlier runs. Files that are named here and are not images are cases all the same, and
            so is a folder without any: they are refused when they are read. What is found twice
            counts once. A file that ends in .json is a manifest, whose cases are taken.
        expected: The images that the model takes, or its number of channels. Files that are given
            one by one to a model of one channel are images of their own, whatever their names.

    Raises:
        ManifestError: A manifest cannot be read.
        UsageError: A manifest has other channels than the model.
    """
    wanted = Expected(expected) if isinstance(expected, int) else expected
    listed = [path for path in map(Path, paths) if not is_manifest(path)]
    manifests = [path for path in map(Path, paths) if is_manifest(path)]
    from_manifests = [case for path in manifests for case in cases_of_manifest(path, wanted.names)]
    inputs = _find(listed, wanted)
    return Inputs((*from_manifests, *inputs.cases), inputs.passed_over)


def _find(paths: Sequence[Path], expected: Expected) -> Inputs:
    found = search(paths)
    num_channels = expected.num_channels
    stacks = _stacks(found) if expected.spatial_dims == 3 and num_channels == 1 else []
    taken = {path for case in stacks for path in stack_files(case.files[0])}
    found.images = [path for path in found.images if path not in taken]
    alone = found.listed if num_channels == 1 else set()
    cases = group_channels(
        [path for path in found.images if path not in alone],
        num_channels,
        found.heads,
        names=expected.names,
    )
    left_out = {path: why for case in cases for path, why in case.others.items()}
    for case in group_channels(
        [path for path in found.images if path in alone], num_channels, found.heads
    ):
        cases += _taken_apart(case)
    cases += [CaseFiles(_name_of(path), (path,)) for path in found.unknown]
    audits = group_files(found.dicom)
    if expected.spatial_dims == 2:
        audits = planes_of(audits)
    series, not_chosen = _series_cases(audits, found, expected)
    cases += [*series, *stacks]
    used = {path for case in cases for path in _files_of(case)} | taken
    cases += [
        CaseFiles(folder.name, (folder,))
        for folder in found.folders
        if any(path.is_relative_to(folder) for path in found.dicom)
        and not any(path.is_relative_to(folder) for path in used)
    ]
    ordered = sorted(cases, key=lambda case: min(found.rank[path] for path in case.files))
    passed_over = dict.fromkeys(found.dicom, "no image by its name or content")
    for audit in audits:
        passed_over |= dict.fromkeys(audit.files, f"DICOM without an image ({audit.modality})")
        passed_over |= dict.fromkeys(audit.copies, "a copy of another DICOM file")
    passed_over |= not_chosen | left_out
    passed_over = {path: why for path, why in passed_over.items() if path not in used}
    return Inputs(tuple(ordered), passed_over | found.passed_over)


def find_cases(paths: Sequence[Path], expected: Expected | int) -> list[CaseFiles]:
    """The cases of `find_all`."""
    return list(find_all(paths, expected).cases)


def _files_of(case: CaseFiles) -> tuple[Path, ...]:
    return tuple(path for audit in case.series for path in audit.files) or case.files


def _stacks(found: FoundPaths) -> list[CaseFiles]:
    """Folders of numbered rasters among what was found in folders."""
    folders = dict.fromkeys(path.parent for path in found.images if path not in found.listed)
    cases = []
    for folder in folders:
        files = stack_files(folder)
        if files:
            found.rank[folder] = min(found.rank[path] for path in files if path in found.rank)
            cases.append(CaseFiles(folder.name, (folder,)))
    return cases


def _series_cases(
    scanned: Sequence[SeriesAudit], found: FoundPaths, expected: Expected
) -> tuple[list[CaseFiles], dict[Path, str]]:
    """DICOM series as cases, and files of series that no rule chose, with the reason.

    Objects that are not images count only where they were named.
    """
    audits = [
        audit
        for audit in scanned
        if audit.reason != "not_image" or found.listed.intersection(audit.files)
    ]
    met = {path for audit in audits for path in audit.files} | set(found.images)
    places = {}
    for audit in audits:
        is_named = len(audit.files) == 1 and audit.files[0] in found.listed
        place = audit.files[0] if is_named else _place_of(audit, met)
        first = min(found.rank[path] for path in audit.files)
        found.rank[place] = min(first, found.rank.get(place, first))
        places[id(audit)] = place
    if expected.num_channels == 1 or expected.rules is None:
        return [_alone(audit, places[id(audit)]) for audit in audits], {}
    return _chosen(audits, places, expected)


def _alone(audit: SeriesAudit, place: Path) -> CaseFiles:
    """One series as a case; a mask by its description is refused by name."""
    fault = mask_fault(audit) if audit.usable else None
    if fault is None:
        return CaseFiles(_name_of(place), (place,), series=(audit,))
    return CaseFiles(_name_of(place), (place,), fault.message, (audit,), fault.reason)


def _chosen(
    audits: Sequence[SeriesAudit], places: dict[int, Path], expected: Expected
) -> tuple[list[CaseFiles], dict[Path, str]]:
    """The series of each study that the rules choose as channels."""
    by_study: dict[tuple[str, str], list[SeriesAudit]] = defaultdict(list)
    for audit in audits:
        by_study[audit.study_uid, audit.patient_key].append(audit)
    cases: list[CaseFiles] = []
    left_out: dict[Path, str] = {}
    for study in by_study.values():
        for choice in choose_series(study, expected.rules, num_channels=expected.num_channels):
            left_out.update(choice.left_out)
            files = tuple(places[id(audit)] for audit in choice.audits)
            fault = choice.fault.message if choice.fault else ""
            code = choice.fault.reason if choice.fault else "other_channels"
            name = _name_of(files[0])
            cases.append(CaseFiles(name, files, fault, choice.audits, code))
    return cases, left_out


def _place_of(audit: SeriesAudit, met: Collection[Path]) -> Path:
    """The folder of a series if no other input is below it, else its first file."""
    folder = Path(os.path.commonpath([path.parent for path in audit.files]))
    own = {*audit.files, *audit.copies}
    is_alone = all(path in own or not path.is_relative_to(folder) for path in met)
    return folder if is_alone else min(audit.files)


def _taken_apart(case: CaseFiles) -> list[CaseFiles]:
    """Each file of a faulty case by itself."""
    if not case.fault:
        return [case]
    return [CaseFiles(_name_of(path), (path,), heads=case.heads) for path in case.files]


def _name_of(path: Path) -> str:
    if has_image_suffix(path):
        return stem_of(path)
    return path.stem if path.is_file() else path.name
