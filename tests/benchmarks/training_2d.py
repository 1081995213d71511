"""`unet` on two sets of pictures, scored as is usual there: membranes in EM, vessels in the eye."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from segmed.inference import Predictor
from segmed.io import read_image, read_label
from segmed.manifest import Manifest, build_manifest
from segmed.package import ModelPackage
from tests.benchmarks.training_runs import Record, Runs, plan_of, train_ours

SLICES_A_FOLD = 6
"""ISBI 2012: neighbouring slices show the same cells, so a fold is a block of slices."""

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 20))
"""Of the probability of "cell", for the Rand score's maximum."""

Labels = npt.NDArray[np.int64]


def membrane_manifest(source: Path) -> Manifest:
    """ISBI 2012 with folds of neighbouring slices."""
    manifest = build_manifest(source, name="isbi2012", label_names=("cell",))
    cases = []
    for case in manifest.training:
        block = int(case.id) // SLICES_A_FOLD
        cases.append(case.model_copy(update={"fold": block, "group": f"block{block}"}))
    return manifest.model_copy(update={"training": tuple(cases)})


def vessel_manifest(source: Path) -> Manifest:
    """CHASE_DB1 as grader 1 drew it; both eyes of a child are in one fold."""
    return build_manifest(
        source / "images_and_labels",
        name="chase_db1",
        group_by=r"Image_(\d\d)",
        label_suffix="_1stHO",
        label_names=("vessel",),
    )


def train_membranes(source: Path, folder: Path, cpu_seconds: float, seed: int) -> Record:
    """Membrane F1 and the challenge's Rand score on held-out slices."""
    manifest = membrane_manifest(source)
    runs = Runs(manifest, plan_of(manifest, cpu_seconds), folder, cpu_seconds, seed)
    record = train_ours(runs, "unet")
    predictor = _predictor(runs)
    f1, rand_half, rand = [], [], {threshold: [] for threshold in THRESHOLDS}
    for case in manifest.split(0)[1]:
        found = predictor.predict(read_image(manifest.image_paths(case)[0]), probabilities=True)
        assert found.probs is not None
        cell = found.probs[1].numpy()
        path = manifest.label_path(case)
        assert path is not None
        truth = np.asarray(read_label(path))[0] > 0
        f1.append(dice(cell < 0.5, ~truth))
        rand_half.append(rand_score(cell >= 0.5, truth))
        for threshold in THRESHOLDS:
            rand[threshold].append(rand_score(cell >= threshold, truth))
    means = {threshold: statistics.fmean(values) for threshold, values in rand.items()}
    best = max(means, key=lambda threshold: means[threshold])
    scores = {
        "membrane F1": round(statistics.fmean(f1), 4),
        "Rand score (thinned) at probability 0.5": round(statistics.fmean(rand_half), 4),
        "Rand score (thinned), best threshold as in the challenge": round(means[best], 4),
        "best threshold": best,
    }
    print(scores, flush=True)
    return runs.keep("unet", record | {"scores": scores})


def train_vessels(source: Path, folder: Path, cpu_seconds: float, seed: int) -> Record:
    """Dice of vessels against grader 1, beside that of grader 2 on the same held-out pictures."""
    manifest = vessel_manifest(source)
    runs = Runs(manifest, plan_of(manifest, cpu_seconds), folder, cpu_seconds, seed)
    record = train_ours(runs, "unet")
    human, ours = [], []
    segmentations = folder / runs.key("unet") / "predictions"
    for case in manifest.split(0)[1]:
        path = manifest.label_path(case)
        assert path is not None
        first = np.asarray(read_label(path))[0] > 0
        second = path.with_name(path.name.replace("_1stHO", "_2ndHO"))
        human.append(dice(np.asarray(read_label(second))[0] > 0, first))
        ours.append(dice(np.asarray(read_label(segmentations / f"{case.id}.png"))[0] > 0, first))
    scores = {
        "vessels against grader 1": round(statistics.fmean(ours), 4),
        "grader 2 against grader 1, same pictures": round(statistics.fmean(human), 4),
        "pictures on which the network is nearer": sum(
            a > b for a, b in zip(ours, human, strict=True)
        ),
    }
    print(scores, flush=True)
    return runs.keep("unet", record | {"scores": scores})


def dice(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """Dice, which is F1, of two masks."""
    return 2.0 * float((found & truth).sum()) / max(1.0, float(found.sum() + truth.sum()))


def rand_score(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """The Rand F-score of the challenge: do two pixels that belong to one cell lie in one?

    Args:
        found: Where a cell is predicted, `[h, w]`.
        truth: Where a cell is.

    Returns:
        0 to 1, over the pixels that are cell in the reference, after the predicted membranes
        were thinned away.

    Source:
        Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142, eq. 3-5 (alpha 0.5).
    """
    wanted: Labels = ndimage.label(truth)[0]
    cells: Labels = ndimage.label(found)[0]
    if not cells.any():
        return 0.0
    nearest = ndimage.distance_transform_edt(~found, return_distances=False, return_indices=True)
    grown = cells[tuple(nearest)]
    inside = wanted > 0
    table = np.zeros((int(grown.max()) + 1, int(wanted.max()) + 1))
    np.add.at(table, (grown[inside], wanted[inside]), 1.0)
    table /= table.sum()
    together = float((table**2).sum())
    split = float((table.sum(axis=0) ** 2).sum())
    merge = float((table.sum(axis=1) ** 2).sum())
    return together / (0.5 * split + 0.5 * merge)


def _predictor(runs: Runs) -> Predictor:
    package = ModelPackage.load(runs.folder / runs.key("unet") / "package")
    torch.set_num_threads(1)
    return Predictor(package, device="cpu", engine="torch")
