"""Checks of the parts of one image: they must be of one patient, study and space.

Volume files name neither; only what two DICOM sources both state is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

from segmed.errors import ImageError
from segmed.io.source import Source

_STATED: tuple[tuple[str, str, Callable[[Source], str]], ...] = (
    ("mixed_patient", "patients", attrgetter("patient_key")),
    ("mixed_study", "studies", attrgetter("study_uid")),
    ("mixed_frame_of_reference", "frames of reference", attrgetter("frame_of_reference")),
)


def require_joinable(sources: Sequence[Source | None], names: Sequence[str]) -> None:
    """Raise an error if two parts state different patients, studies or frames of reference.

    Args:
        sources: Where the parts came from: channels of one image, or an image and its label.
        names: Name of each for the message, without identifiers of patients.

    Raises:
        ImageError: `mixed_patient`, `mixed_study` or `mixed_frame_of_reference`.
    """
    parts = [(source, name) for source, name in zip(sources, names, strict=True) if source]
    for reason, what, stated in _STATED:
        known = [(stated(source), source, name) for source, name in parts if stated(source)]
        other = next((entry for entry in known if entry[0] != known[0][0]), None)
        if other is not None:
            raise ImageError(
                f"{known[0][2]} and {other[2]} are of two {what} and cannot be joined; give images "
                "of one patient, study and frame of reference",
                reason=reason,
                paths=[*known[0][1].paths[:1], *other[1].paths[:1]],
            )


def joined_source(sources: Sequence[Source | None]) -> Source | None:
    """The source of an image made of channels: that of the first, which lists the others.

    Notes that all channels share are given once, others with the number of their channel.
    """
    first = sources[0] if sources else None
    if first is None or len(sources) == 1:
        return first
    notes = [() if source is None else source.notes for source in sources]
    shared = [note for note in notes[0] if all(note in channel for channel in notes)]
    own = [
        f"channel {number}: {note}"
        for number, channel in enumerate(notes, 1)
        for note in channel
        if note not in shared
    ]
    others = tuple(source for source in sources[1:] if source is not None)
    return replace(first, notes=(*shared, *own), other_channels=others)
