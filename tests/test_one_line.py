"""Every public class of the library shows itself on one line, without its voxels."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import tiny_plan, write_set
from torch import nn

import segmed
from segmed import transforms
from segmed.archive import Ledger
from segmed.geometry import Grid
from segmed.inference import SlabInferer
from segmed.io import SafeReader, read_image
from segmed.manifest import read_manifest
from segmed.metrics import CaseScores, CumulativeScores, DiceScore, SurfaceScores
from segmed.one_line import OneLine, brief
from segmed.plan.schema import Augmentation, Intensity
from segmed.preprocessing import PreparedCache, PreparedDataset
from segmed.report import OverlayItem, ReportContent
from segmed.transforms import preparation, prepared_of

ROOMS = [one.name for one in pkgutil.iter_modules(segmed.__path__) if one.ispkg]
PACKAGES = ["segmed", *(f"segmed.{name}" for name in ROOMS)]

VOXELS = re.compile(r"\b(Tensor|Array|NDArray|DataFrame|Affine|bytes)\b")
"""Types of fields whose form is long, or has several lines."""


def public_classes() -> list[type]:
    """Classes that a package exports: no errors, enumerations, protocols and networks."""
    found = {}
    for name in PACKAGES:
        package = importlib.import_module(name)
        for exported in getattr(package, "__all__", ()):
            one = getattr(package, exported)
            if inspect.isclass(one) and not issubclass(one, BaseException | Enum | nn.Module):
                found[f"{one.__module__}.{one.__qualname__}"] = one
    return [one for _, one in sorted(found.items()) if not getattr(one, "_is_protocol", False)]


CLASSES = public_classes()


def test_there_are_many() -> None:
    assert len(CLASSES) > 90


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_public_class_has_a_form_of_its_own(kind: type) -> None:
    assert kind.__repr__ is not object.__repr__, "derive it from OneLine, or give it a __repr__"
    made = kind.__dict__.get("__repr__")
    if dataclasses.is_dataclass(kind) and hasattr(made, "__wrapped__"):  # the generated one
        fields = [field for field in dataclasses.fields(kind) if field.repr]
        long = [field.name for field in fields if VOXELS.search(str(field.type))]
        assert not long, f"the form shows the values of {long}: make it with repr=False"


RULES = [Intensity(scheme="zscore")]
BOTH = ["image", "label"]
STILL = Augmentation(rotation_deg=(0.0,))


def made(folder: Path) -> list[tuple[object, str]]:
    """Objects and their forms."""
    manifest, plan = read_manifest(write_set(folder, training=2)), tiny_plan()
    image = read_image(manifest.image_paths(manifest.training[0])[0])
    row = preparation(plan)({"image": image})
    prepared = prepared_of(row["image"])
    grid = "Grid(16x16x16 voxels of 1x1x1 mm)"
    item = OverlayItem(np.zeros((4, 4)), None, np.zeros((4, 4), np.uint8), (1.0, 1.0), "a case")
    cache = PreparedCache(manifest, plan, folder / "cache")
    ledger, steps = Ledger(folder / "ledger.sqlite"), transforms
    ledger.close()
    return [
        (steps.Reorient("LPS", mirror=False), "Reorient('LPS', mirror=False)"),
        (steps.Reorientd(BOTH, "RAS"), "Reorientd(['image', 'label'], Reorient('RAS'))"),
        (steps.SplineSpacing((2, 2, 1), order=1), "SplineSpacing((2.0, 2.0, 1.0), order=1)"),
        (
            steps.SplineSpacingd(BOTH, (2, 2, 1), order=[3, 0]),
            "SplineSpacingd(['image', 'label'], SplineSpacing((2.0, 2.0, 1.0)), "
            "SplineSpacing((2.0, 2.0, 1.0), order=0))",
        ),
        (steps.CropBox(((0, 2), (1, 3))), "CropBox(((0, 2), (1, 3)))"),
        (steps.CropNonzero(), "CropNonzero()"),
        (steps.CorrectBias([True]), "CorrectBias((True,))"),
        (steps.ClassIndices([0, 7]), "ClassIndices([0, 7])"),
        (steps.ReadCase(2), "ReadCase(2)"),
        (SafeReader(is_label=True), "SafeReader(is_label=True)"),
        (steps.ClipChannels(RULES), "ClipChannels((Intensity(scheme='zscore', "),
        (steps.RandAugment(STILL, (1, 1)), "RandAugment(Augmentation("),
        (steps.RandAugmentd("a", "b", STILL, (1, 1)), "RandAugmentd('a', label_key='b', "),
        (preparation(plan), "PreparationChain(Plan('cubes': 3D, patch 16x16x16"),
        (Grid((16, 16, 16), np.eye(4)), grid),
        (prepared.transform, f"GridTransform({grid} to {grid})"),
        (prepared, f"Prepared(1 channel, {grid})"),
        (cache, "PreparedCache(Manifest('cubes'"),
        (cache.case(manifest.training[0]), "PreparedCase('case0': 16x16x16 voxels)"),
        (
            PreparedDataset(manifest, plan, folder / "cache"),
            "PreparedDataset(2 cases, plan 'cubes')",
        ),
        (
            SlabInferer((32, 32, 8), overlap=0.25, softmax=True),
            "SlabInferer(32x32x8 voxels, overlap 0.25, gaussian blend of probabilities, even",
        ),
        (DiceScore(3), "DiceScore(3)"),
        (SurfaceScores(3, ["hd_mm"]), "SurfaceScores(3, metric_names=('hd_mm',))"),
        (
            CumulativeScores(3, "iou", tolerance_mm=2.0),
            "CumulativeScores(3, metric_names=('iou',), tolerance_mm=2.0)",
        ),
        (CaseScores(plan.labels), "CaseScores((LabelClass("),
        (ledger, f"Ledger('{folder}"[:30]),
        (item, "OverlayItem(float64[4, 4], reference=None, prediction=uint8[4, 4], "),
        (ReportContent("Title", overlays=[item]), "ReportContent('Title', overlays=[OverlayItem("),
    ]


def test_forms_are_one_line_of_what_the_object_is(tmp_path: Path) -> None:
    for one, begin in made(tmp_path):
        shown = repr(one)
        assert shown.startswith(begin), shown
        assert "\n" not in shown
        assert len(shown) < 300, shown
        assert " object at 0x" not in shown


def test_every_argument_is_kept_under_its_name(tmp_path: Path) -> None:
    """Otherwise the form of an object would leave it out as if it had its default."""
    for one, _ in made(tmp_path):
        if isinstance(one, OneLine) and type(one).__repr__ is OneLine.__repr__:
            names = set(inspect.signature(type(one)).parameters) - {"lazy"}
            assert names <= set(vars(one)), type(one)


def test_arrays_and_long_values_are_shortened() -> None:
    assert brief(torch.zeros(2, 3)) == "float32[2, 3]"
    assert brief(np.zeros((1, 4), np.uint8)) == "uint8[1, 4]"
    assert brief(Path("a/b")) == "'a/b'"
    assert brief("x" * 500) == "'" + "x" * 56 + "..."
    assert "\n" not in brief([np.eye(4)])
