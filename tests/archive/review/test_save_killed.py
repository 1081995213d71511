"""Corrections of a process that is killed while it saves: whole or absent, never lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from fresh_processes import fresh_process

from segmed.archive.review.archive import ReviewArchive

KILLS = 20


def _values(archive: ReviewArchive, number: int) -> np.ndarray:
    """A label map that its number alone decides, and that compresses badly."""
    shape = archive.result(archive.studies()[0]).shape
    return np.random.default_rng(number).integers(0, 3, size=shape).astype(np.int32)


def _save_for_ever(out: Path, first: int) -> None:
    archive = ReviewArchive(out)
    study = archive.studies()[0]
    for number in range(first, first + 10_000):
        archive.save(study, _values(archive, number), f"number {number}", origin="page")


def test_killed_in_mid_save_the_label_map_is_whole_or_absent(out: Path) -> None:
    archive, moments = ReviewArchive(out), random.Random(7)
    for kill in range(KILLS):
        child = fresh_process(_save_for_ever, out, 10_000 * kill)
        begun = len(_visible(out))
        child.start()
        while len(_visible(out)) < begun + 1 and child.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.02))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    fresh = ReviewArchive(out)
    known = {one.file: one for one in fresh.store.corrections()}
    files = _visible(out)
    assert {str(path.relative_to(out)) for path in files} == set(known)
    assert len(files) >= KILLS
    for path in files:
        author = known[str(path.relative_to(out))].author
        expected = _values(archive, int(author.removeprefix("number ")))
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), expected)
    for gone in fresh.store.corrections(unfinished=True):
        assert not (out / gone.file).exists()


def _visible(out: Path) -> list[Path]:
    found = (out / "corrections").rglob("*.nii.gz") if (out / "corrections").exists() else ()
    return [path for path in found if not path.name.startswith(".")]
