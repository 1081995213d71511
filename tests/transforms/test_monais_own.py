"""Each step of the preparation is MONAI's own, or has other values, or is recorded to be faster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segmed.plan.schema import Plan
from segmed.transforms import preparation
from tests.benchmarks.bench_transforms import RESULTS, has_equal_bits, inputs, pairs

STEPS: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["steps"]
"""The recorded figures of `python -m tests.benchmarks.bench_transforms`."""

COMPARED = {
    "Reorientd": ["orientation", "orientation and mirroring"],
    "CropNonzerod": ["crop to non-zero", "crop to a box"],
    "ClipChannelsd": ["intensity, CT", "intensity, unit", "intensity, z-score"],
    "ScaleChannelsd": ["intensity, CT", "intensity, unit", "intensity, z-score"],
    "SplineSpacingd": ["resampling"],
    "ClassIndicesd": ["class indices"],
}
"""Comparisons of each step that has a counterpart in MONAI."""

WITHOUT_COUNTERPART = {"ImageOfPlan", "KnownLabelsd", "CorrectBiasd"}
"""Checks of channels and labels, and N4: MONAI has no transform of these."""

SMALL = (24, 32, 20)

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


@pytest.mark.parametrize("name", sorted(STEPS))
def test_bits_are_compared_again_and_equal_ones_are_recorded_to_be_faster(
    name: str, tmp_path: Path
) -> None:
    pair, record = pairs(SMALL)[name], STEPS[name]
    assert has_equal_bits(pair, inputs(tmp_path, SMALL)[pair.source]) == record["has_equal_bits"]
    assert pair.peer == record["peer"]
    if record["has_equal_bits"]:
        assert record["ours_ms"] <= record["theirs_ms"], "use MONAI's own transform in the chain"


def test_every_step_of_the_chain_is_compared(make_plan_for: Callable[..., Plan]) -> None:
    plan = make_plan_for(crop_nonzero=True, bias_correction=True)
    names = {type(step).__name__ for step in preparation(plan).transforms}
    assert names == set(COMPARED) | WITHOUT_COUNTERPART
    compared = {one for listed in COMPARED.values() for one in listed}
    assert compared | {"read"} == set(STEPS) == set(pairs(SMALL))
