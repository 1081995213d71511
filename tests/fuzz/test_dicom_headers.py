"""Whatever the header says, a DICOM series is read as an independent reader does, or refused.

SimpleITK (GDCM) and pydicom's own pixel array are the independent readers. `SEGMED_FUZZ_EXAMPLES`
sets the number of classic series; enhanced files are a quarter of that.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import MutableSequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from damage import EXAMPLES, require_one_line
from dicom_headers import (
    IMAGE_MODULE,
    classic_variant,
    enhanced_image,
    enhanced_variant,
    real_slices,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from segmed.errors import ImageError
from segmed.inference.inputs import find_cases
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.read import read_image

FIRST = int(os.environ.get("SEGMED_FUZZ_FIRST", "0"))
"""Seed of the first example, to go on where an earlier run ended."""


SYNTAXES = (ExplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRLittleEndian,
            RLELossless, JPEGLSLossless, JPEG2000Lossless)  # fmt: skip
"""Transfer syntaxes that take turns; half of the series are plain."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    root = tmp_path_factory.mktemp("real")
    return [real_slices(root / str(n), syntax) for n, syntax in enumerate(SYNTAXES)]


def frame_values(dataset: Dataset, index: int) -> npt.NDArray[np.float64]:
    """One frame by pydicom, rescaled by what the header states for it."""
    if dataset.get("NumberOfFrames"):
        frames = int(dataset.NumberOfFrames)
        del dataset.NumberOfFrames  # pydicom trips over another VR
        dataset.NumberOfFrames = frames
    pixels = dataset.pixel_array
    stored = pixels[index] if pixels.ndim == 3 else pixels
    scale: Dataset = dataset
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = dataset.get(sequence) or []
        place = index if sequence.startswith("Per") else 0
        item = groups[place] if groups else Dataset()
        scale = next(iter(item.get("PixelValueTransformationSequence") or []), scale)
    slope, intercept = scale.get("RescaleSlope"), scale.get("RescaleIntercept")
    values: npt.NDArray[np.float64] = stored.astype(np.float64)
    return values * _number(slope, 1) + _number(intercept, 0)


def _number(value: object, absent: float) -> float:
    """The first number of an element; what its absence means where it is empty."""
    first = value[0] if isinstance(value, MutableSequence) and value else value
    return absent if first is None or first == "" else float(first)


def expected_values(series: SeriesAudit) -> npt.NDArray[np.float64]:
    """`[columns, rows, slices]` as pydicom reads it, in the order of the audit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = [
            frame_values(pydicom.dcmread(path, force=True), part.frame).T
            for path, part in series.slices
        ]
    return np.stack(frames, axis=-1)


def require_read_right_or_refused(folder: Path) -> str:
    """Outcome of a folder: `read`, or the reason of its refusal.

    Raises:
        AssertionError: It was read with other values, or refused by no name.
    """
    cases = find_cases([folder], 1)
    assert cases, "every file is a case or part of one"
    reasons = []
    for case in cases:
        item = case.series[0] if case.series else case.files[0]
        try:
            image = read_image(item)  # a decoder may crash
        except ImageError as error:
            require_one_line(error)
            reasons.append(error.reason)
            continue
        assert isinstance(item, SeriesAudit)
        affine = np.asarray(image.affine)
        assert np.isfinite(affine).all()
        assert abs(np.linalg.det(affine)) > 0
        np.testing.assert_allclose(image.numpy()[0], expected_values(item), rtol=1e-6)
        reasons.append("read")
    return " ".join(sorted(reasons))


def run(number: int, write: object, tmp_path: Path) -> Counter[str]:
    counted: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + number):
        folder = tmp_path / f"{seed}"
        write(folder, seed)
        try:
            counted[require_read_right_or_refused(folder)] += 1
        except Exception as error:  # the seed is what repeats it
            raise AssertionError(f"seed {seed} in {folder}") from error
    return counted


def test_odd_classic_headers_are_read_right_or_refused(
    sources: list[list[Path]], tmp_path: Path
) -> None:
    number = EXAMPLES or 60

    def write(folder: Path, seed: int) -> None:
        classic_variant(sources[seed % len(sources)], folder, seed)

    counted = run(number, write, tmp_path)
    assert counted["read"] > number // 10
    assert len(counted) > 5


def test_odd_enhanced_headers_are_read_right_or_refused(tmp_path: Path) -> None:
    number = EXAMPLES // 4 or 20
    source = tmp_path / "sound.dcm"
    enhanced_image().save_as(source)
    counted = run(number, lambda folder, seed: enhanced_variant(source, folder, seed), tmp_path)
    assert counted["read"] > number // 10
    assert len(counted) > 3


def test_every_value_representation_is_among_the_changed_elements() -> None:
    known = {vr.decode() for _, vr in IMAGE_MODULE}
    binary = {"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT", "FD", "FL", "SL", "SS", "SV", "UL",
              "US", "UV"}  # fmt: skip
    texts = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC",
             "UI", "UR", "UT"}  # fmt: skip
    assert known == binary | texts | {"SQ"}
