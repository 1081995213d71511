"""Images and labels of a manifest's cases, read one case after the other or on several threads.

Cases of small raster files are read in batches: one process decodes the files of several cases.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from segmed.errors import SegmedError
from segmed.geometry import Grid
from segmed.io import batches
from segmed.io.read import as_channels, as_image, grid_of, read_image
from segmed.io.source import Loaded
from segmed.manifest.reference import load_reference, reference_of
from segmed.manifest.schema import Case, Manifest
from segmed.metatensor import MetaTensor

AHEAD = 2
"""Batches in hand for each worker."""

Result = TypeVar("Result")


class CaseReader:
    """Reads the cases of a manifest. For one thread.

    Args:
        manifest: Where the cases come from.
        cases: Cases in the order in which they are read: small raster files of those that follow
            are decoded with those of the one that is read. Other cases are read alone.
        is_read: False for those of `cases` that will not be read after all.
    """

    def __init__(
        self,
        manifest: Manifest,
        cases: Sequence[Case] = (),
        is_read: Callable[[Case], bool] = lambda _: True,
    ) -> None:
        self.manifest = manifest
        self._ahead = batches.ReadAhead(
            file
            for case in (cases if len(cases) > 1 else ())
            if is_read(case)
            for file in _files(manifest, case)
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
    """Results of some work on cases, in their order, a few of which are in hand at a time.

    Args:
        work: Called on the threads; reads by the reader that it is given.
        manifest: Where the cases come from.
        cases: The cases.
        workers: Threads.
        is_read: False for cases that `work` will not read; called on the threads.

    Raises:
        SegmedError: The first that `work` raises, after the results of the cases before it. It ends
            the work; what is in hand is waited for.
    """
    ended = threading.Event()

    def done_of(batch: Sequence[Case]) -> tuple[list[Result], SegmedError | None]:
        reader = CaseReader(manifest, batch, is_read)
        done: list[Result] = []
        for case in batch:
            if ended.is_set():
                break
            try:
                done.append(work(reader, case))
            except SegmedError as error:
                return done, error
        return done, None

    coming = case_batches(manifest, cases, workers)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        pending = deque(pool.submit(done_of, batch) for batch in islice(coming, AHEAD * workers))
        try:
            while pending:
                done, error = pending.popleft().result()
                pending.extend(pool.submit(done_of, batch) for batch in islice(coming, 1))
                yield from done
                if error is not None:
                    raise error
        finally:
            ended.set()
            for future in pending:
                future.cancel()


def case_batches(manifest: Manifest, cases: Sequence[Case], workers: int) -> Iterator[list[Case]]:
    """Runs of cases that one worker reads; longer than one case only where all files are small.

    Args:
        manifest: Where the cases come from.
        cases: The cases, in order.
        workers: Each shall get several runs, however few the cases are.
    """
    most = -(-len(cases) // (AHEAD * max(1, workers)))
    batch: list[Case] = []
    files = size = 0
    for case in cases:
        sizes = [batches.small_raster_bytes(path) for path, _ in _files(manifest, case)]
        known = [one for one in sizes if one is not None]
        is_small = len(known) == len(sizes)
        is_full = (
            len(batch) >= most
            or files + len(sizes) > batches.BATCH
            or size + sum(known) > batches.BATCH_BYTES
        )
        if batch and (is_full or not is_small):
            yield batch
            batch, files, size = [], 0, 0
        if is_small:
            batch.append(case)
            files, size = files + len(sizes), size + sum(known)
        else:
            yield [case]
    if batch:
        yield batch


def _files(manifest: Manifest, case: Case) -> list[batches.RasterFile]:
    """The files of a case in the order in which they are read."""
    label = manifest.label_path(case)
    images = [(path, False) for path in manifest.image_paths(case)]
    return images if label is None else [*images, (label, True)]
