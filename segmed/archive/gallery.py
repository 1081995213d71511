"""Small pictures of the segmentations to review first, made while image and label are in memory.

At most a dozen a run are kept, and what is not worse than these is not drawn: a run over tens
of thousands of studies spends next to nothing on them.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmed.archive.triage import priority_of
from segmed.errors import GeometryError
from segmed.geometry import Grid
from segmed.io.atomic import whole_file
from segmed.metatensor import MetaTensor
from segmed.pictures.legend import legend_of, orientation_of
from segmed.pictures.overlay import overlay_picture
from segmed.structures import LabelClass

logger = logging.getLogger(__name__)

KEPT = 12
"""Pictures that one engine keeps."""

HEIGHT = 170
"""Height of the planes, in pixels."""

QUALITY = 70


class Gallery:
    """The pictures of one engine, by the review priority of what they show.

    Args:
        folder: Where they are kept until the run's page takes them in.
        labels: The structures, for their colours.
    """

    def __init__(self, folder: Path, labels: Sequence[LabelClass] = ()) -> None:
        self._folder = folder
        self._labels = tuple(labels)
        self._held: list[tuple[float, int, Path]] = []
        self._seen = 0

    def offer(
        self, key: str, measures: Mapping[str, Any], image: MetaTensor, label: MetaTensor
    ) -> None:
        """Keep a picture if it shows something worse than the least of those that are kept.

        A picture that cannot be drawn or written is left out: the segmentation is kept without it.

        Args:
            key: Key of the study in the ledger.
            measures: Its measures, with flags and predicted quality.
            image: `[C, *spatial]`.
            label: `[1, *spatial]` on the same grid.
        """
        worth = priority_of(measures)
        self._seen += 1
        if len(self._held) >= KEPT and worth <= self._held[0][0]:
            return
        path = picture_of(self._folder, key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _draw(path, image, label, self._labels)
        except (OSError, GeometryError) as error:
            logger.info("a picture was left out: %s", type(error).__name__)
            return
        heapq.heappush(self._held, (worth, -self._seen, path))
        if len(self._held) > KEPT:
            heapq.heappop(self._held)[2].unlink(missing_ok=True)


def picture_of(folder: Path, key: str) -> Path:
    """The picture of a study, by its key in the ledger."""
    return folder / f"{key}.webp"


def _draw(path: Path, image: MetaTensor, label: MetaTensor, labels: Sequence[LabelClass]) -> None:
    values = np.asarray(label)[0]
    grid = Grid(values.shape, np.asarray(label.affine, dtype=np.float64))
    picture = overlay_picture(
        np.asarray(image),
        None,
        values,
        grid.spacing_mm[: values.ndim],
        "",
        orientation=orientation_of(image),
        panel_height=HEIGHT,
        legend=legend_of(labels, image),
    )
    with whole_file(path) as draft:
        picture.save(draft, "WEBP", quality=QUALITY, method=2)
