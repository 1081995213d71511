"""Inputs of a prediction: the cases among files, series folders and folders of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from segmed.errors import UsageError, unknown_name
from segmed.inference.writing import FORMATS
from segmed.io.channel_files import CaseFiles, group_channels
from segmed.io.dicom.header import looks_like_dicom
from segmed.io.image_names import SUFFIXES, has_image_suffix, stem_of
from segmed.io.results import RUN_RECORD, is_archive_outputs, results_among

IMAGE_SUFFIXES = SUFFIXES
"""Suffixes by which images are found in a folder; single files are known by their content."""

Input = Path | Sequence[Path] | CaseFiles
"""One image: a file, a folder with one DICOM series, one of these for each channel, or the files of
a case with its name."""


def checked_inputs(inputs: Sequence[Input], format: str, num_channels: int = 1) -> list[CaseFiles]:
    """All inputs as cases, folders searched.

    Args:
        inputs: Paths are searched together (see `find_cases`); a tuple is one case.
        format: Output format.
        num_channels: Input channels of the model.

    Raises:
        UsageError: The format is unknown, or there is no input.
    """
    if format not in FORMATS:
        raise unknown_name("output format", format, FORMATS)
    cases = [case for batch in _batches(inputs) for case in _cases_of(batch, num_channels)]
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


def _cases_of(batch: list[Path] | CaseFiles, num_channels: int) -> list[CaseFiles]:
    return [batch] if isinstance(batch, CaseFiles) else find_cases(batch, num_channels)


def find_cases(paths: Sequence[Path], num_channels: int) -> list[CaseFiles]:
    """The cases among files and folders: those of `find_inputs`, the files of a case together.

    Args:
        paths: As for `find_inputs`; what is found twice counts once.
        num_channels: Input channels of the model. Files that are given one by one to a model of
            one channel are images of their own, whatever their names.

    Returns:
        Cases in the order of their first files; those with a fault are among them.
    """
    listed = [path for path in paths if not path.is_dir()]
    found = list(dict.fromkeys(find_inputs(paths)))
    images = [path for path in found if has_image_suffix(path) and not path.is_dir()]
    alone = set(listed) if num_channels == 1 else set()
    cases = group_channels([path for path in images if path not in alone], num_channels)
    for case in group_channels([path for path in images if path in alone], num_channels):
        cases += _taken_apart(case)
    of_first = {case.files[0]: case for case in cases}
    rest = set(found) - set(images)
    of_first |= {path: CaseFiles(_name_of(path), (path,)) for path in rest}
    return [of_first[path] for path in found if path in of_first]


def _taken_apart(case: CaseFiles) -> list[CaseFiles]:
    """Each file of a faulty case by itself."""
    if not case.fault:
        return [case]
    return [CaseFiles(_name_of(path), (path,)) for path in case.files]


def _name_of(path: Path) -> str:
    if has_image_suffix(path):
        return stem_of(path)
    return path.stem if path.is_file() else path.name


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """The images among files and folders.

    Args:
        paths: Files are taken as they are. Of a folder come the images in it, by suffix; a folder
            without any, but with DICOM files, is taken as a series, and so is one with other files
            and no subfolders, to be refused by name; subfolders likewise. Results of earlier runs
            are passed over, see `find_passed_over`.

    Returns:
        Files and series folders, in order of the paths, sorted within each folder.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        entries = [entry for entry in entries if entry.name != RUN_RECORD]
        results = results_among(entry for entry in entries if entry.is_file())
        entries = [entry for entry in entries if entry not in results]
        images = [e for e in entries if e.is_file() and e.name.lower().endswith(IMAGE_SUFFIXES)]
        if images:
            found.extend(images)
        elif _may_be_series(entries):
            found.append(path)
        folders = [entry for entry in entries if entry.is_dir()]
        found.extend(find_inputs([f for f in folders if not is_archive_outputs(f)]))
    return found


def find_passed_over(paths: Sequence[Path]) -> dict[Path, str]:
    """The files that `find_inputs` passes over, and why.

    Args:
        paths: As for `find_inputs`.
    """
    found: dict[Path, str] = {}
    for path in paths:
        if is_archive_outputs(path):
            found[path] = "the results of an archive run"
        elif path.is_dir():
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
            files = [e for e in entries if e.is_file() and e.name != RUN_RECORD]
            results = results_among(files)
            rest = [file for file in files if file not in results]
            if any(map(has_image_suffix, rest)) or not _may_be_series(entries):
                strays = [file for file in rest if not has_image_suffix(file)]
                found |= dict.fromkeys(strays, "no image by its name")
            found |= results | find_passed_over([entry for entry in entries if entry.is_dir()])
    return found


def _may_be_series(entries: Sequence[Path]) -> bool:
    """Whether a folder without images is to be read as a DICOM series."""
    files = [entry for entry in entries if entry.is_file()]
    if len(files) == len(entries):
        return bool(files)
    for path in files:  # a list of contents beside the folders of the series is no series
        with path.open("rb") as stream:
            if looks_like_dicom(stream.read(132)):
                return True
    return False
