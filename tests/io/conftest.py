"""Small images made in memory, and real series to break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor
from pydicom.dataset import FileDataset
from volumes_in_space import ORIENTATIONS, volume

from segmed.structures import Code, LabelClass

T1POST = "PGBM-001/04-02-1992-FH-HEADBrain Protocols-79896/11-T1post-80644"


@pytest.fixture(params=sorted(ORIENTATIONS))
def placed_volume(request: pytest.FixtureRequest) -> MetaTensor:
    """A volume in each of the orientations that scanners give."""
    return volume(ORIENTATIONS[request.param])


@pytest.fixture
def oblique_volume() -> MetaTensor:
    return volume(ORIENTATIONS["oblique"])


@pytest.fixture(scope="session")
def two_labels() -> tuple[LabelClass, LabelClass]:
    """One structure with a code, one without and with a value of its own."""
    code = Code(scheme="SCT", value="5366008", meaning="Hippocampus")
    return LabelClass(name="anterior", value=1, code=code), LabelClass(name="posterior", value=5)


@pytest.fixture(scope="session")
def real_series(shared_data: Callable[[str], Path]) -> tuple[FileDataset, ...]:
    """Eight neighbouring slices of a real oblique MR series, in memory, in slice order."""
    paths = (shared_data("pgbm") / T1POST).glob("*.dcm")
    datasets = [pydicom.dcmread(path) for path in paths]
    for dataset in datasets:  # keep them small: a corner is enough to break a series
        dataset.remove_private_tags()
        pixels = dataset.pixel_array[100:140, 100:136].copy()
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
    normal = np.cross(*np.reshape(datasets[0].ImageOrientationPatient, (2, 3)).astype(float))
    datasets.sort(key=lambda d: float(normal @ np.asarray(d.ImagePositionPatient, dtype=float)))
    return tuple(datasets[8:16])
