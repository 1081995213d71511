"""Work on items on several threads, in runs of those whose small raster files are read together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from segmed.errors import SegmedError
from segmed.io import batches

AHEAD = 2
"""Runs in hand for each worker."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def over_runs(
    begin: Callable[[Sequence[Item]], Callable[[Item], Result]],
    runs: Iterable[Sequence[Item]],
    *,
    workers: int,
) -> Generator[Result, None, None]:
    """Results of some work on items, in their order, a few runs of which are in hand at a time.

    Args:
        begin: Called on the threads with the items of a run; gives the work on one of them.
        runs: Items that one thread works on, one after the other.
        workers: Threads.

    Raises:
        SegmedError: The first that the work raises, after the results of the items before it. It
            ends the work; what is in hand is waited for.
    """
    ended = threading.Event()

    def done_of(run: Sequence[Item]) -> tuple[list[Result], SegmedError | None]:
        work = begin(run)
        done: list[Result] = []
        for item in run:
            if ended.is_set():
                break
            try:
                done.append(work(item))
            except SegmedError as error:
                return done, error
        return done, None

    coming = iter(runs)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        pending = deque(pool.submit(done_of, run) for run in islice(coming, AHEAD * workers))
        try:
            while pending:
                done, error = pending.popleft().result()
                pending.extend(pool.submit(done_of, run) for run in islice(coming, 1))
                yield from done
                if error is not None:
                    raise error
        finally:
            ended.set()
            for future in pending:
                future.cancel()


def runs_of(
    items: Sequence[Item], files_of: Callable[[Item], Sequence[Path]], *, workers: int
) -> Iterator[list[Item]]:
    """Runs of items for one worker each; longer than one item only where all files are small.

    Args:
        items: The items, in order.
        files_of: Files that are read for an item.
        workers: Each shall get several runs, however few the items are.
    """
    most = -(-len(items) // (AHEAD * max(1, workers)))
    run: list[Item] = []
    files = size = 0
    for item in items:
        sizes = [batches.small_raster_bytes(path) for path in files_of(item)]
        known = [one for one in sizes if one is not None]
        is_small = len(known) == len(sizes)
        is_full = (
            len(run) >= most
            or files + len(sizes) > batches.BATCH
            or size + sum(known) > batches.BATCH_BYTES
        )
        if run and (is_full or not is_small):
            yield run
            run, files, size = [], 0, 0
        if is_small:
            run.append(item)
            files, size = files + len(sizes), size + sum(known)
        else:
            yield [item]
    if run:
        yield run
