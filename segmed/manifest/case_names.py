"""Names of cases and channels from the paths of their files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from segmed.formats import stem_of
from segmed.io.channel_files import NUMBERED
from segmed.manifest.draft import case_id

SEPARATORS = "_-. "


def named_rows(rows: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Names of cases, each given by the paths of its channels, and of the channels.

    A case of one file is called like the file; a case of several like what their names have in
    common, or like their folder. Names that would repeat get the folders that distinguish them.

    Args:
        rows: Paths of each case, one a channel.

    Returns:
        One case name a row; channel names, empty if the cases do not agree on them.
    """
    pairs = [_named(row) for row in rows]
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        names = _with_folders(rows, names)
    channels = {tuple(channels) for _, channels in pairs}
    return [case_id(name) for name in names], list(channels.pop()) if len(channels) == 1 else []


def _named(row: Sequence[str]) -> tuple[str, list[str]]:
    stems = [stem_of(Path(name)) for name in row]
    if len(stems) == 1:
        return stems[0], []
    numbered = [NUMBERED.fullmatch(stem) for stem in stems]
    if all(numbered) and len({match["case"] for match in numbered if match}) == 1:
        return str(numbered[0] and numbered[0]["case"]), []
    start = "".join(_shared_start(stems))
    cut = max(start.rfind(mark) for mark in SEPARATORS) + 1
    parts = [stem[cut:].strip(SEPARATORS) for stem in stems]
    is_named = all(parts) and len(set(parts)) == len(parts)
    name = start[:cut].strip(SEPARATORS) or PurePosixPath(row[0]).parent.name or stems[0]
    return name, parts if is_named else []


def _shared_start(items: Sequence[Sequence[str]]) -> list[str]:
    """The parts (letters, folders) that all items begin with."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*items, strict=False))
    return [column[0] for column in columns]


def _with_folders(rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """Names with the folders of their files, without those that all have in common."""
    folders = [PurePosixPath(row[0]).parent.parts for row in rows]
    shared = len(_shared_start(folders))
    joined = []
    for parts, name in zip(folders, names, strict=True):
        own = parts[shared:]
        joined.append("_".join([*own, *([] if own and own[-1] == name else [name])]))
    return joined
