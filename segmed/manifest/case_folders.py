"""Folders of one case each, with a file for each channel, and the patterns that read them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.formats import IMAGE_SUFFIXES, stem_of
from segmed.naming import has_mask_words, is_mask_folder

MOST_FOLDERS = 2000
"""Folders that are looked at: more say nothing new."""

MOST_KINDS = 24
"""Files of a folder; more are slices or masks of single structures, not channels."""

COMMON_SHARE = 0.5
"""A kind of file is one that at least this share of the folders has."""

SHOWN = 8
"""Kinds that a message names."""


@dataclass(frozen=True)
class CaseFolders:
    """Folders with the same kinds of image files.

    Attributes:
        count: Number of folders.
        example: One of them, relative to the source.
        prefix: Part of a pattern before the word that distinguishes the files: `*/*-`.
        kinds: Those words, by their order in the folders: `t1n`, `seg`.
        suffix: Suffix of the files, braces where there are several.
    """

    count: int
    example: str
    prefix: str
    kinds: tuple[str, ...]
    suffix: str

    @property
    def images(self) -> str:
        """Pattern of the images; of all kinds if each looks like a mask by its name."""
        kinds = [kind for kind in self.kinds if not has_mask_words(kind)] or list(self.kinds)
        return self._pattern(kinds)

    @property
    def label(self) -> str:
        """Pattern of the labels, with `LABEL` for the word that is in no name."""
        return self._pattern([kind for kind in self.kinds if has_mask_words(kind)] or ["LABEL"])

    def _pattern(self, kinds: Sequence[str]) -> str:
        word = kinds[0] if len(kinds) == 1 else f"{{{','.join(kinds)}}}"
        return f"{self.prefix}{word}{self.suffix}"

    @property
    def line(self) -> str:
        """The folders in words, with the options that read them."""
        more = ", ..." if len(self.kinds) > SHOWN else ""
        return (
            f"{self.count} folder{'s' if self.count > 1 else ''} such as {self.example} with "
            f"{', '.join(self.kinds[:SHOWN])}{more} ({self.suffix}): --image '{self.images}' "
            f"--label '{self.label}' would read them"
        )


def find_case_folders(source: Path) -> CaseFolders | None:
    """The folders of a source that have a file for each of several channels.

    The names of a folder's files are equal up to a last word (`CASE-t1n`, `CASE-seg`), or are that
    word (`FLAIR`, `mask`).

    Args:
        source: The source.

    Returns:
        The folders of the most frequent layout; None where no folder has several kinds of images.
    """
    layouts: Counter[tuple[str, str]] = Counter()
    found: list[tuple[tuple[str, str], str, list[str], list[str]]] = []
    for folder, names in _folders(source):
        stems = [stem_of(Path(name)) for name in names]
        begin, kinds = _distinguished(stems)
        if len(kinds) < 2:
            continue
        layout = ("*/" * len(Path(folder).parts), f"*{begin[-1]}" if begin else "")
        layouts[layout] += 1
        suffixes = [name[len(stem) :] for name, stem in zip(names, stems, strict=True)]
        found.append((layout, folder, kinds, suffixes))
    if not layouts:
        return None
    usual = layouts.most_common(1)[0][0]
    same = [one for one in found if one[0] == usual]
    counts = Counter(kind for _, _, kinds, _ in same for kind in kinds)
    common = tuple(kind for kind, count in counts.items() if count >= COMMON_SHARE * len(same))
    suffixes = sorted({suffix for *_, inside in same for suffix in inside})
    suffix = suffixes[0] if len(suffixes) == 1 else f"{{{','.join(suffixes)}}}"
    are_masks = any(is_mask_folder(Path(folder).name) for _, folder, *_ in same)
    if len(common) < 2 or len(same) < 2 or are_masks:  # `images` and `labels` are not cases
        return None
    return CaseFolders(len(same), same[0][1], "".join(usual), common, suffix)


def _folders(source: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders below a source with their image files, by name."""
    number = 0
    for parent, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = sorted(
            name
            for name in names
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
        )
        if Path(parent) != source and 2 <= len(inside) <= MOST_KINDS:
            yield Path(parent).relative_to(source).as_posix(), inside
            number += 1
            if number == MOST_FOLDERS:
                return


def _distinguished(stems: Sequence[str]) -> tuple[str, list[str]]:
    """The common begin of some names up to a separator, and what distinguishes them."""
    first, last = min(stems), max(stems)
    ends = [match.end() for match in re.finditer(r"[-_. ]", first)]
    cut = max((end for end in ends if last.startswith(first[:end])), default=0)
    kinds = [stem[cut:] for stem in stems]
    is_counted = all(re.fullmatch(r"\d*", kind) for kind in kinds)
    return first[:cut], [] if is_counted or not all(kinds) else kinds
