"""An archive of real hippocampus images, segmented, for the tests of its review."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from tiny_data import hippocampus_package

from segmed.archive import FolderSource, RunOptions, segment_archive
from segmed.inference import Predictor

NUM_STUDIES = 3
SAMPLE = Path(__file__).parent.parent / "data_manifests" / "hippocampus_sample" / "images"


def make_archive(folder: Path, *, seeds: tuple[int, ...] = (0,)) -> Path:
    """Segment three images of the bundled sample by small untrained models.

    Args:
        folder: Takes the images, `in`, and the outputs, `out`.
        seeds: One run for each, by another model.

    Returns:
        The output folder.
    """
    source, out = folder / "in", folder / "out"
    source.mkdir(parents=True)
    for path in sorted(SAMPLE.glob("*.nii.gz"))[:NUM_STUDIES]:
        shutil.copy(path, source / path.name)
    torch.set_num_threads(1)
    for seed in seeds:
        predictor = Predictor(hippocampus_package(seed), device="cpu", engine="torch")
        run = segment_archive(
            FolderSource(source),
            predictor=predictor,
            out_dir=out,
            options=RunOptions(resegment=True),
        )
        assert [outcome.status for outcome in run] == ["done"] * NUM_STUDIES
    return out
