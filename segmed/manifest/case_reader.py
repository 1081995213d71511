"""Images and labels of a manifest's cases, read one case after the other or on several threads.

Cases of small raster files are read in batches: one process decodes the files of several cases.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from segmed.geometry import Grid
from segmed.io import batches
from segmed.io.batched_work import over_runs, runs_of
from segmed.io.read import as_channels, as_image, grid_of, read_image
from segmed.io.source import Loaded
from segmed.manifest.reference import load_reference, reference_of
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor

Result = TypeVar("Result")


class CaseReader:
    """Reads the cases of a manifest. For one thread.

    Args:
        manifest: Where the cases come from.
        cases: Cases in the order in which they are read: small raster files of those that follow
            are decoded with those of the one that is read. Other cases are read alone.
        is_read: False for those of `cases` that will not be read after all.
        has_images: False for a reader of labels alone.
    """

    def __init__(
        self,
        manifest: Manifest,
        cases: Sequence[Case] = (),
        is_read: Callable[[Case], bool] = lambda _: True,
        *,
        has_images: bool = True,
    ) -> None:
        self.manifest = manifest
        self._ahead = batches.ReadAhead(
            file
            for case in (cases if len(cases) > 1 else ())
            if is_read(case)
            for file in _files(manifest, case)
            if has_images or file[1]
        )

    def image(self, case: Case) -> MetaTensor:
        """The image of a case, as `read_images` gives it.

        Raises:
            ImageError: A file cannot be read correctly; `reason` is its code.
            GeometryError: The files are on different grids.
        """
        paths = self.manifest.image_paths(case)
        expected = self.manifest.num_channels if len(paths) == 1 else 1
        return as_channels([self._channel(path, expected) for path in paths], paths)

    def _channel(self, path: Path, num_channels: int) -> MetaTensor:
        loaded = self._ahead.take(path, is_label=False)
        return read_image(path, num_channels=num_channels) if loaded is None else as_image(loaded)

    def label(self, name: str, *, like: MetaTensor) -> MetaTensor:
        """The label of a case, as `read_reference` gives it.

        Args:
            name: `label` of the case.
            like: Its image.

        Raises:
            ImageError: As `read_reference` raises it.
        """
        loaded = self.stored_label(self.manifest.root / name, grid=grid_of(like))
        return reference_of(self.manifest, loaded, like=like)

    def stored_label(self, path: Path, *, grid: Grid | None = None) -> Loaded:
        """The stored values of a label file, as `load_reference` gives them."""
        loaded = self._ahead.take(path, is_label=True)
        return load_reference(self.manifest, path, grid=grid) if loaded is None else loaded


def over_cases(
    work: Callable[[CaseReader, Case], Result],
    manifest: Manifest,
    cases: Sequence[Case],
    *,
    workers: int,
    is_read: Callable[[Case], bool] = lambda _: True,
) -> Generator[Result, None, None]:
    """Results of some work on cases, in their order; see `over_runs`.

    Args:
        work: Called on the threads; reads by the reader that it is given.
        manifest: Where the cases come from.
        cases: The cases.
        workers: Threads.
        is_read: False for cases that `work` will not read; called on the threads.

    Raises:
        SegmedError: The first that `work` raises, after the results of the cases before it.
    """

    def begin(run: Sequence[Case]) -> Callable[[Case], Result]:
        return partial(work, CaseReader(manifest, run, is_read))

    def files_of(case: Case) -> list[Path]:
        return [path for path, _ in _files(manifest, case)]

    return over_runs(begin, runs_of(cases, files_of, workers=workers), workers=workers)


def _files(manifest: Manifest, case: Case) -> list[batches.RasterFile]:
    """The files of a case in the order in which they are read."""
    label = manifest.label_path(case)
    images = [(path, False) for path in manifest.image_paths(case)]
    return images if label is None else [*images, (label, True)]
