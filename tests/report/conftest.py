"""A small, complete report: two models, one of which misses half of its structures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_sample import SPACING_MM, block, scored

from segmed.report import ArchiveItem, Cost, OverlayItem, ReportContent
from segmed.report.page import render


@pytest.fixture(scope="session")
def scores() -> dict[str, pd.DataFrame]:
    return {"unet": scored([None, 0, None, 1]), "unetpp": scored([1, 0, 1, 2])}


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, block().shape).astype(np.float32)


@pytest.fixture(scope="session")
def content(scores: dict[str, pd.DataFrame], image: np.ndarray) -> ReportContent:
    epochs = [
        {
            "epoch": epoch,
            "train_loss": 1 / (epoch + 1),
            "val_loss": 1.1 / (epoch + 1),
            "val_dice": {"anterior": 0.2 * epoch, "posterior": None},
            "seconds": 2.0,
        }
        for epoch in range(4)
    ]
    return ReportContent(
        title="Two networks <on> four cases",
        subtitle="A comparison & its report",
        sentences=["unetpp beats unet."],
        scores=scores,
        costs={"unet": Cost(1_500_000, 20.0, 0.5), "unetpp": Cost(2_500_000, 30.0, 0.9)},
        winner="unetpp",
        curves={"unet/fold 0": epochs, "unetpp/fold 0": epochs},
        overlays=[
            OverlayItem(
                image,
                block(),
                block(1),
                SPACING_MM,
                "Worst: case-00",
                "RAS",
                "case-00",
                "unetpp",
                viewer=True,
            ),
            OverlayItem(
                image, block(), block(), SPACING_MM, "Best: case-01", "LPS", "case-01", "unetpp"
            ),
        ],
        archive=[
            ArchiveItem("study-1", "done", output="study-1.nii.gz", seconds=1.5),
            ArchiveItem("study-2", "refused", "missing_slice: gap of 2 mm after slice 7"),
        ],
        provenance={"data hash": "0123abcd"},
    )


@pytest.fixture(scope="session")
def page(content: ReportContent) -> str:
    """The whole page, drawn once for all tests that only read it."""
    return render(content)
