"""Cases from image files: the one rule by which files become the channels of a case.

Used by `manifest build`, `predict` and `archive` alike. A file that itself contains all channels (a
colour raster, a 4D NIfTI file with a volume for each channel) is a case. Other files need names
`CASE_0000.ext`, `CASE_0001.ext`, ... with the model's channel numbers, each once and without gaps;
their endings may differ. Where names have no numbers, the names of the model's channels in them
count (`CASE-t1n.nii.gz`, `CASE/FLAIR.nii.gz`; see `named_channels`). A single file `CASE_0000.ext`
of a model with one file per case is called `CASE`; beside it `OTHER_0001.ext` without
`OTHER_0000.ext` is incomplete. Files that count up under one name (`frame_0001`, `frame_0002`) are
images of their own.

Source:
    nnU-Net, documentation/dataset_format.md: "CASE_XXXX.FILE_ENDING", four digits from 0000.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from segmed.errors import ImageError
from segmed.formats import RASTER_FORMATS, stem_of
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.head import FileHead, is_metaimage, is_nifti, sniff
from segmed.io.named_channels import named_cases
from segmed.io.nifti import parse_header

NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""A file name without suffix that ends in a channel number."""

COLOUR_MODES = ("RGB", "RGBA", "P")
"""Raster modes that are read as three channels; palettes are expanded."""

SPACE_KINDS = frozenset((b"domain", b"space", b"???", b"none"))
"""Kinds of NRRD's axes in space."""

MOST_CHANNELS = 8
"""Longest run of numbers from 0000 that is taken for channels where a model has one file a case;
more files of one name are frames or slices."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        case: Name of the case.
        files: One file a channel in the model's order, or one file with all channels. If there is
            a fault, all files of that name.
        fault: Why the files cannot be used as one case, in one line without names; empty if they
            can.
        series: What the scan said of its DICOM series, one a channel; `files` then has the folder
            or the first file of each.
        reason: Code of the fault.
        heads: What was sniffed of `files`, so that they are not opened again to be recognised.
        others: Files of the case that are none of its channels, and why.
    """

    case: str
    files: tuple[Path, ...]
    fault: str = ""
    series: tuple[SeriesAudit, ...] = ()
    reason: str = "other_channels"
    heads: Mapping[Path, FileHead] = field(default_factory=dict, repr=False, compare=False)
    others: Mapping[Path, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def sniffed(self) -> list[Path | FileHead]:
        """The files, each as it was sniffed if it was."""
        return [self.heads.get(path, path) for path in self.files]

    def require_sound(self) -> None:
        """Raise the fault, if there is one.

        Raises:
            ImageError: `other_channels`, or the reason of a series.
        """
        if self.fault:
            message = f"case {self.case!r}: {self.fault}"
            raise ImageError(message, reason=self.reason, paths=self.files)


def group_channels(
    files: Sequence[Path],
    num_channels: int,
    heads: Mapping[Path, FileHead] | None = None,
    *,
    names: Sequence[str] = (),
) -> list[CaseFiles]:
    """Put image files together into cases, folder by folder.

    Args:
        files: Image files of any folders.
        num_channels: Input channels of the model or of the image set.
        heads: What was sniffed of the files; the cases keep it.
        names: Names of the channels, that distinguish files without channel numbers.

    Returns:
        Cases, in the order of their first files; those with a fault are among them.
    """
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        by_folder[path.parent].append(path)
    known = heads or {}
    cases = [
        replace(case, heads={path: known[path] for path in case.files if path in known})
        for inside in by_folder.values()
        for case in _grouped(inside, num_channels, known, names)
    ]
    place = {path: number for number, path in enumerate(files)}
    return sorted(cases, key=lambda case: min(place[path] for path in case.files))


def _grouped(
    files: Sequence[Path],
    num_channels: int,
    heads: Mapping[Path, FileHead],
    names: Sequence[str],
) -> list[CaseFiles]:
    whole, parts = list(files), []
    if num_channels > 1:
        counts = {path: channels_in(heads.get(path, path)) for path in files}
        whole = [path for path in files if counts[path] == num_channels]
        parts = [path for path in files if counts[path] != num_channels]
    return [*_whole(whole, num_channels), *_joined(parts, num_channels, names)]


def _whole(files: Sequence[Path], num_channels: int) -> list[CaseFiles]:
    """Cases of one file each."""
    by_name, rest = _numbered(files)
    plain = {stem_of(path) for path in rest}
    firsts = sum(0 in numbers for numbers in by_name.values())
    are_channels = num_channels == 1 and _are_channel_numbers(by_name)
    cases = [CaseFiles(stem_of(path), (path,)) for path in rest]
    for case, numbers in by_name.items():
        found = [path for _, paths in sorted(numbers.items()) for path in paths]
        is_run = 1 < len(numbers) <= MOST_CHANNELS and set(numbers) == set(range(len(numbers)))
        has_other_channels = is_run and firsts > 1 and num_channels == 1
        is_doubled = set(numbers) == {0} and len(found) > 1
        lacks_first = are_channels and 0 not in numbers and max(numbers) < MOST_CHANNELS
        if has_other_channels or is_doubled or lacks_first:
            cases.append(_faulty(case, found, num_channels))
        elif set(numbers) == {0} and case not in plain:
            cases.append(CaseFiles(case, tuple(found)))
        else:
            cases += [CaseFiles(stem_of(path), (path,)) for path in found]
    return cases


def _are_channel_numbers(by_name: Mapping[str, Mapping[int, Sequence[Path]]]) -> bool:
    """Return whether the numbers of a folder's names are channels: some name has 0000 alone.

    `liver_0000`, `spleen_0001`, `tumour_0002` count images, not channels.
    """
    numbers = [set(found) for found in by_name.values()]
    alone = [next(iter(one)) for one in numbers if len(one) == 1]
    counts_images = len(alone) == len(numbers) > 2 and sorted(alone) == list(range(len(alone)))
    return {0} in numbers and not counts_images


def _joined(files: Sequence[Path], num_channels: int, names: Sequence[str] = ()) -> list[CaseFiles]:
    """Cases of one file a channel."""
    by_name, rest = _numbered(files)
    named, rest = named_cases(rest, names)
    cases = [_faulty(stem_of(path), [path], num_channels, names) for path in rest]
    for one in named:
        inside = tuple(path for paths in one.files for path in paths)
        others = dict.fromkeys(one.others, one.reason(names))
        cases.append(CaseFiles(one.case, inside, one.fault(names), others=others))
    for case, numbers in by_name.items():
        found = [path for _, paths in sorted(numbers.items()) for path in paths]
        if sorted(numbers) == list(range(num_channels)) and len(found) == num_channels:
            cases.append(CaseFiles(case, tuple(found)))
        else:
            cases.append(_faulty(case, found, num_channels))
    return cases


def _numbered(files: Iterable[Path]) -> tuple[dict[str, dict[int, list[Path]]], list[Path]]:
    """Files by case and channel number, and those without a number."""
    by_name: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    rest = []
    for path in files:
        match = NUMBERED.fullmatch(stem_of(path))
        if match is None:
            rest.append(path)
        else:
            by_name[match["case"]][int(match["channel"])].append(path)
    return by_name, rest


def _faulty(
    case: str, files: Sequence[Path], num_channels: int, channels: Sequence[str] = ()
) -> CaseFiles:
    numbers = [match["channel"] for path in files if (match := NUMBERED.fullmatch(stem_of(path)))]
    twice = sorted({one for one in numbers if numbers.count(one) > 1})
    if twice:
        found = f"{len(files)} files, of channel {', '.join(twice)} more than one"
    elif numbers:
        found = f"files of the channels {', '.join(numbers)}"
    elif (count := channels_in(files[0])) > 1:
        found = f"a file of {count} channels"
    else:
        found = "a file of one channel without a channel number in its name"
    expected = ", ".join(f"{number:04d}" for number in range(num_channels))
    names = "CASE_0000.nii.gz, CASE_0001.nii.gz, ... in the order of the channels"
    if channels:
        names += f", or by these: {', '.join(f'CASE-{name}.nii.gz' for name in channels)}"
    fault = f"{found}; a case needs {expected}, each once: name the files {names}"
    return CaseFiles(case, tuple(files), fault)


def channels_in(file: Path | FileHead) -> int:
    """Number of channels in one image file, from its header; 1 if it cannot be read.

    Args:
        file: An image file, also as it was sniffed. Colour rasters contain 3, a 4D NIfTI file as
            many as it has volumes.
    """
    try:
        head = sniff(file)
        head.require_sound()
        if head.format in RASTER_FORMATS:
            with Image.open(head.path, formats=[head.format.upper()]) as image:
                return 3 if image.mode in COLOUR_MODES else len(image.getbands())
        return volumes_in(head.start, head.path)
    except (ImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1  # its reader refuses it by name


def volumes_in(start: bytes, path: Path) -> int:
    """Volumes or values a voxel in one file; 1 if it has three axes and one value.

    Those of more than four axes are counted, too, though their readers refuse them.

    Args:
        start: Its first bytes, unzipped.
        path: The file, for messages.

    Raises:
        ImageError: The header is damaged.
    """
    if start.startswith(b"NRRD"):
        return _axes_of_nrrd(start)
    if is_metaimage(start):
        fields = dict(re.findall(rb"^(\w+) *= *(.*?)\s*$", start, re.MULTILINE))
        volumes = fields.get(b"DimSize", b"").split()[3:]
        return math.prod(map(int, [*volumes, fields.get(b"ElementNumberOfChannels", b"1")]))
    if not is_nifti(start):
        return 1
    dim = [int(size) for size in parse_header(start[:540], path)["dim"]]
    return math.prod(max(size, 1) for size in dim[4 : dim[0] + 1])


def _axes_of_nrrd(start: bytes) -> int:
    """Product of the axes of an NRRD file that are not spatial."""
    fields = dict(re.findall(rb"^([a-z ]+): *(.*?)\s*$", start, re.MULTILINE))
    sizes = [int(size) for size in fields.get(b"sizes", b"").split()]
    kinds = fields.get(b"kinds", b"").split()
    if len(kinds) != len(sizes):
        return math.prod(sizes[3:])
    inner = (size for size, kind in zip(sizes, kinds, strict=True) if kind not in SPACE_KINDS)
    return math.prod(inner)
