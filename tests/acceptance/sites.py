"""Sites made of real hippocampus cases: sound results, and results with a planted fault.

References and images are real. A sound prediction is the reference with a noisy boundary; a faulty
one is moved by three voxels besides, as if a scanner wrote wrong positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from scipy import ndimage

from pipelines.tracking.held_out import held_out_scores
from segmed.acceptance.dossier import AssessedModel
from segmed.acceptance.scoring import LocalResults, content_of
from segmed.metrics import CaseScore, evaluate_case, scores_table
from segmed.metrics.measures import FLAGGED, measure
from segmed.metrics.training_norms import DISTRIBUTIONS, measure_reference, training_norms
from segmed.structures import LabelClass

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))
MOVED = 3
GAIN = 4.0
"""Factor of all intensities at a site whose scanner is set up otherwise."""


@dataclass(frozen=True)
class ScoredCase:
    """A case with its scores and measures, sound and faulty."""

    name: str
    content: str
    sound: list[CaseScore]
    faulty: list[CaseScore]
    measures: dict[str, Any]
    brighter: dict[str, Any]
    reference: dict[str, Any]


def score_bank(folder: Path, count: int) -> list[ScoredCase]:
    """So many real cases, scored with a sound and with a faulty prediction."""
    paths = sorted((folder / "labelsTr").glob("hippocampus_*.nii.gz"))[:count]
    return [_scored(folder, path, seed) for seed, path in enumerate(paths)]


def _scored(folder: Path, path: Path, seed: int) -> ScoredCase:
    image = nib.load(folder / "imagesTr" / path.name)
    label = np.asarray(nib.load(path).dataobj).astype(np.int16)
    voxels = np.asarray(image.dataobj).astype(np.float32)
    sound = noisy(label, seed)
    faulty = np.roll(sound, MOVED, axis=1)
    name = path.name.removesuffix(".nii.gz")
    tensor = MetaTensor(torch.from_numpy(voxels[None]), affine=image.affine)
    labels = [
        MetaTensor(torch.from_numpy(one[None]), affine=image.affine) for one in (label, sound)
    ]
    return ScoredCase(
        name,
        content_of(tensor),
        _scores(sound, label, name),
        _scores(faulty, label, name),
        measure(tensor, labels[1], LABELS),
        measure(tensor * GAIN, labels[1], LABELS),
        measure_reference(tensor, labels[0], LABELS),
    )


def noisy(label: np.ndarray, seed: int) -> np.ndarray:
    """The label map with a boundary that wanders by about half a voxel."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=label.shape), 1.0) * rng.uniform(1.0, 2.0)
    parts = [ndimage.gaussian_filter((label == value).astype(float), 0.8) for value in (0, 1, 2)]
    parts[0] = parts[0] + noise * 0.6
    return np.argmax(parts, axis=0).astype(np.int16)


def _scores(prediction: np.ndarray, label: np.ndarray, name: str) -> list[CaseScore]:
    return evaluate_case(
        torch.from_numpy(prediction.copy()),
        torch.from_numpy(label),
        labels=LABELS,
        spacing_mm=(1.0, 1.0, 1.0),
        case_id=name,
    )


def make_site(
    bank: list[ScoredCase], seed: int, *, faulty_scanner: str = "", shifted: bool = False
) -> tuple[AssessedModel, LocalResults]:
    """A model with its card, and the results of a site: half of the bank each, drawn at random.

    Args:
        bank: The cases.
        seed: Seed of the draw, of the scanners, ages and sexes.
        faulty_scanner: Scanner whose results are faulty.
        shifted: All images are brighter, and all results faulty.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(bank))
    known, local = ([bank[place] for place in part] for part in (order[::2], order[1::2]))
    card = scores_table([row for case in known for row in case.sound])
    norms = training_norms([case.reference for case in known])[DISTRIBUTIONS]
    norms.pop(FLAGGED)  # of references, as in `segmed.archive.model`
    model = AssessedModel(
        hash="0" * 64,
        title="unet hippocampus",
        card=held_out_scores(card),
        norms=norms,
    )
    results = LocalResults(memory_mb=500.0)
    rows: list[CaseScore] = []
    for case in local:
        scanner = str(rng.choice(["Acme One", "Acme Two", "Bolt Three"]))
        decade = int(rng.integers(4, 8)) * 10
        results.values[case.name] = {
            "scanner": scanner,
            "age decade": f"{decade} to {decade + 9}",
            "sex": str(rng.choice(["female", "male"])),
        }
        rows += case.faulty if shifted or scanner == faulty_scanner else case.sound
        results.cases.append(case.name)
        results.patients[case.name] = case.name
        results.measures[case.name] = case.brighter if shifted else case.measures
        results.contents[case.name] = case.content
        results.seconds[case.name] = 1.0
    results.table = scores_table(rows)
    return model, results


def part(results: LocalResults, cases: list[str]) -> LocalResults:
    """The results of some of the cases."""
    return LocalResults(
        table=results.table[results.table["case"].isin(cases)].reset_index(drop=True),
        cases=cases,
        patients={case: results.patients[case] for case in cases},
        values={case: results.values[case] for case in cases},
        measures={case: results.measures[case] for case in cases},
        contents={case: results.contents[case] for case in cases},
        seconds={case: results.seconds[case] for case in cases},
        memory_mb=results.memory_mb,
    )


def mean_dice(table: pd.DataFrame) -> float:
    """Mean Dice over all rows."""
    return float(table["dice"].mean())
