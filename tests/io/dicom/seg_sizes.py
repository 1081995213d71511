"""Time, memory and size of each form of DICOM segmentation of a large study; run as a program.

`python seg_sizes.py SERIES FORM OUT` writes 20 ellipsoids on the series and prints
`bytes frames seconds grown_bytes`, the last the growth of the peak memory while it wrote.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import torch

from segmed.formats import SEG_KINDS, SegForm
from segmed.io.dicom.scan import scan
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.io.fractions import Fractions, bytes_of
from segmed.io.source import Source
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

SHAPE, STRUCTURES = (512, 512, 600), 20
LABELS = tuple(LabelClass(name=f"organ {n}", value=n) for n in range(1, STRUCTURES + 1))
FORMS = {
    "binary": SegForm(),
    "binary-all-frames": SegForm(all_frames=True),
    "labelmap": SegForm("labelmap"),
    "fractional": SegForm("fractional"),
}
SLAB = 20
"""Slices whose probabilities are in memory at once."""


def write_study(folder: Path) -> None:
    """A CT series of 512 x 512 x 600, whose voxels do not matter."""
    affine = torch.diag(torch.tensor([-0.7, -0.7, 1.0, 1.0], dtype=torch.float64))
    write_series(folder, MetaTensor(torch.zeros((1, *SHAPE)), affine=affine), modality="CT")


def centres() -> np.ndarray:
    """Centres of the structures, and their half axes."""
    draws = np.random.default_rng(0)
    middle = draws.uniform(0.2, 0.8, (STRUCTURES, 3)) * SHAPE
    half = draws.uniform(0.04, 0.12, (STRUCTURES, 3)) * SHAPE
    return np.stack([middle, half])


def slab_of(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Label values and probabilities of some slices; borders are unsure over a few voxels."""
    grid = np.ogrid[0 : SHAPE[0], 0 : SHAPE[1], first:last]
    logits = np.zeros((STRUCTURES + 1, SHAPE[0], SHAPE[1], last - first), dtype=np.float32)
    for number, (middle, half) in enumerate(zip(*centres(), strict=True), start=1):
        distance = sum(((grid[a] - middle[a]) / half[a]) ** 2 for a in range(3))
        logits[number] = (12 * (1 - distance)).clip(-40, 40)
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits.argmax(axis=0).astype(np.uint8), logits


def main(series: Path, name: str, out: Path) -> None:
    """Write one form and print its figures."""
    form = FORMS[name]
    assert form.kind in SEG_KINDS
    (audit,) = scan(series)
    label = np.zeros(SHAPE, dtype=np.uint8)
    fractions = Fractions(STRUCTURES, SHAPE, exclusive=True) if "frac" in name else None
    for first in range(0, SHAPE[2], SLAB):
        box = (slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(first, first + SLAB))
        values, probs = slab_of(first, first + SLAB)
        label[box] = values
        if fractions is not None:
            fractions.put(box, bytes_of(probs, exclusive=True))
    del values, probs
    source = Source(format="dicom", paths=audit.files)
    hollow = torch.zeros(1).expand((1, *SHAPE))
    image = MetaTensor(hollow, affine=torch.from_numpy(audit.affine_ras), meta={"source": source})
    Path("/proc/self/clear_refs").write_text(
        "5", encoding="utf-8"
    )  # the peak begins at what is in use now
    before, begun = in_use("VmRSS"), time.perf_counter()
    write_dicom_seg(
        out, torch.from_numpy(label), like=image, labels=LABELS, model_name="unet",
        model_version="1", form=form, fractions=fractions,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    grown = in_use("VmHWM") - before
    frames = pydicom.dcmread(out, stop_before_pixels=True).NumberOfFrames
    print(out.stat().st_size, frames, round(seconds, 1), grown)


def in_use(key: str) -> int:
    """Resident memory of this process, now (`VmRSS`) or at its peak (`VmHWM`), in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
