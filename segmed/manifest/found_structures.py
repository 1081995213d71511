"""Structures of a set's label files: segments by name and code, values by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.errors import ManifestError
from segmed.io.head import looks_like_dicom
from segmed.manifest.label_values import label_values, named_labels
from segmed.manifest.schema import StoredLabel
from segmed.structures import LabelClass

if TYPE_CHECKING:  # pydicom is needed for DICOM-SEG objects alone
    from segmed.io.dicom.segments import Segment


def found_structures(
    folder: Path, files: Sequence[str], names: Sequence[str] = ()
) -> tuple[tuple[LabelClass, ...], tuple[StoredLabel, ...]]:
    """The structures, and how the objects call them where names are given instead.

    Segments of DICOM-SEG objects are one structure if they agree in name and code; the values of
    other files are structures themselves.

    Args:
        folder: Where the names of the files start from.
        files: Label files.
        names: Names of the structures by growing value; else those of the segments, `foreground`
            or `label_N`.

    Raises:
        ManifestError: The files are of both kinds, or no label maps, or the names are more or
            fewer than the structures.
    """
    described = {name: segments_at(folder / name) for name in files}
    if not any(described.values()):
        return named_labels(label_values(folder, list(files)), names), ()
    bare = [name for name, segments in described.items() if not segments]
    if bare:
        raise ManifestError(
            f"{len(bare)} of {len(files)} masks are not DICOM-SEG objects (such as {bare[0]}): "
            "their values have no names to match to segments; convert them"
        )
    found = _concepts([segments for _, segments in sorted(described.items())])
    if not names:
        return found, ()
    renamed = named_labels([label.value for label in found], names)
    stored = tuple(
        StoredLabel(name=label.name, value=label.value, code=label.code, becomes=label.value)
        for label in found
    )
    return renamed, stored


def _concepts(objects: Sequence[Sequence[Segment]]) -> tuple[LabelClass, ...]:
    """The structures of all objects by value: a segment's own value where that is free."""
    from segmed.io.dicom.segments import is_same_structure  # noqa: PLC0415 - as above

    found: list[LabelClass] = []
    for segments in objects:
        for segment in segments:
            known = next((label for label in found if is_same_structure(segment, label)), None)
            if known is None:
                taken = {label.value for label in found}
                value = segment.value
                if value in taken or value < 1:
                    value = next(number for number in range(1, 65536) if number not in taken)
                found.append(LabelClass(name=segment.name, value=value, code=segment.code))
            elif known.code is None and segment.code is not None:
                found[found.index(known)] = known.model_copy(update={"code": segment.code})
    return tuple(sorted(found, key=lambda label: label.value))


def segments_at(path: Path) -> tuple[Segment, ...]:
    """The segments of a DICOM-SEG object; none for a series or another file."""
    import pydicom  # noqa: PLC0415 - needed for such files alone

    from segmed.io.dicom.segments import segments_in  # noqa: PLC0415 - as above

    if not path.is_file():
        return ()
    with path.open("rb") as stream:
        if not looks_like_dicom(stream.read(132)):
            return ()
    return segments_in(pydicom.dcmread(path, stop_before_pixels=True))
