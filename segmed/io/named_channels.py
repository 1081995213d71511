"""Files that are the channels of a case by the channels' names: `CASE-t1n.nii`, `CASE-t2f.nii`.

A file is of a channel if its name has that of the channel as a word, in upper or lower case; what
is left of the name is the case, or the folder where nothing is left (`sub-01/FLAIR.nii.gz`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.formats import stem_of

SEPARATORS = "-_. "

OTHER = "a file of the case {case!r} that is none of the model's channels {names} by its name"
"""Reason why a file beside the channels of a case is left out."""


@dataclass(frozen=True)
class NamedCase:
    """Files of one case by channel.

    Attributes:
        case: Name of the case.
        files: Files of each channel, in the order of the channels.
        others: Files of the case that are none of the channels by their names.
    """

    case: str
    files: tuple[tuple[Path, ...], ...]
    others: tuple[Path, ...] = ()

    def fault(self, names: Sequence[str]) -> str:
        """The reason why the files are not a case, in one line; empty if they are one."""
        named = list(zip(names, self.files, strict=True))
        twice = [name for name, files in named if len(files) > 1]
        if twice:
            return f"several files of the channel {twice[0]}; give each case a name of its own"
        lacking = [name for name, files in named if not files]
        if not lacking:
            return ""
        there = ", ".join(files[0].name for _, files in named if files)
        return (
            f"no file of the channel{'s' if len(lacking) > 1 else ''} {', '.join(lacking)} beside "
            f"{there}; add it, with the name of the channel as theirs have"
        )

    def reason(self, names: Sequence[str]) -> str:
        """The reason why `others` are left out."""
        return OTHER.format(case=self.case, names=", ".join(names))


def named_cases(files: Sequence[Path], names: Sequence[str]) -> tuple[list[NamedCase], list[Path]]:
    """Put the files of one folder together by the names of channels.

    Args:
        files: Image files of one folder.
        names: Names of the channels, in order.

    Returns:
        Cases of which at least two channels have a file, and the files that belong to none.
    """
    words = [re.escape(name).replace("_", "[-_ .]") for name in names]
    found: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    rest = []
    for path in files:
        number, case = _channel(stem_of(path), words)
        if number is None:
            rest.append(path)
        else:
            found[case or path.parent.name][number].append(path)
    cases = []
    for case, by_number in found.items():
        if len(by_number) < 2:
            rest += [path for paths in by_number.values() for path in paths]
            continue
        of_case = tuple(tuple(by_number[number]) for number in range(len(names)))
        is_folder = len(found) == 1 and bool(files) and case == files[0].parent.name
        others = [path for path in rest if is_folder or _begins(stem_of(path), case)]
        cases.append(NamedCase(case, of_case, tuple(others)))
    taken = {path for case in cases for path in case.others}
    return cases, [path for path in rest if path not in taken]


def _channel(stem: str, words: Sequence[str]) -> tuple[int | None, str]:
    """Number of the channel that a name has as a word, and what is left of it.

    The longest name counts (`t1_post`, not `t1`); two names of channels beside each other name
    none.
    """
    spans = []
    for number, word in enumerate(words):
        for match in re.finditer(rf"(?<![^\W_]){word}(?![^\W_])", stem, re.IGNORECASE):
            spans.append((match.end() - match.start(), number, match.span()))
    if not spans:
        return None, ""
    _, number, (start, end) = max(spans)
    outside = [one for _, one, (s, e) in spans if one != number and not (start <= s and e <= end)]
    if outside:
        return None, ""
    left, right = stem[:start].rstrip(SEPARATORS), stem[end:].lstrip(SEPARATORS)
    return number, "_".join(part for part in (left, right) if part)


def _begins(stem: str, case: str) -> bool:
    """Return whether a name is that of a case with a further word."""
    return stem.startswith(case) and stem[len(case) :][:1] in SEPARATORS
