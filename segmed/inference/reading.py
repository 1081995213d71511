"""First stage of the pipeline: the image of a case, of one file or series a channel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from segmed.errors import ImageError
from segmed.io.channel_files import CaseFiles
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.output_names import shown
from segmed.io.read import as_channels, read_image
from segmed.io.results import results_among
from segmed.io.sandboxed import read_image_sandboxed
from segmed.metatensor import MetaTensor

Read = Callable[[Path | SeriesAudit], MetaTensor]
"""Reads one file or folder, or one DICOM series that has been scanned."""


def read_case(
    case: CaseFiles, *, num_channels: int = 1, trusted: bool = False, read: Read | None = None
) -> MetaTensor:
    """Read the image of a case, its channels stacked.

    Args:
        case: The case.
        num_channels: Input channels of the model; a case of one file must contain as many.
        trusted: Decode everything in this process, also what may crash it; see `read_image`.
        read: Reader of one file or series instead of `read_image`.

    Raises:
        ImageError: It cannot be read correctly, its files are not those of one case, or `derived`:
            one of them is a result.
    """
    case.require_sound()
    for path, why in results_among(case.sniffed).items():
        message = f"{shown(path.name)} is {why}, no image to segment"
        raise ImageError(message, reason="derived", paths=[path])
    door = read_image if trusted else read_image_sandboxed
    builtin = partial(door, num_channels=num_channels if len(case.files) == 1 else 1)
    if case.series:
        names = [f"channel {number}" for number in range(1, len(case.series) + 1)]
        return as_channels([(read or builtin)(audit) for audit in case.series], names)
    if read is not None:
        return as_channels([read(path) for path in case.files], case.files)
    return as_channels([builtin(file) for file in case.sniffed], case.files)
