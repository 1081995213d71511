"""A small network trained on the bundled hippocampus sample, and its int8 network."""

from __future__ import annotations

from pathlib import Path

import pytest

import segmed
from segmed.acceleration import Quantised, quantise
from segmed.acceleration.quantising import QuantisationRequest
from segmed.manifest import Manifest, read_manifest
from segmed.package import ModelPackage
from segmed.package.int8 import ChangeLimits
from segmed.plan import Augmentation, Intensity, NetworkPlan, Plan, Preprocessing, Recipe
from segmed.training import Budget

WIDE = ChangeLimits(dice_loss=0.02, labels_changed=0.1)
"""Limits for a network that learned for seconds, whose probabilities are all near one half."""


@pytest.fixture(scope="session")
def manifest(sample_manifest_path: Path) -> Manifest:
    """The bundled hippocampus sample."""
    return read_manifest(sample_manifest_path)


@pytest.fixture(scope="session")
def package(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A U-Net of two levels, trained for 120 steps with fold 0 held out."""
    options = {"widths": [8, 16], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2}
    plan = Plan(
        name=manifest.name,
        spatial_dims=3,
        channels=manifest.channels,
        labels=manifest.labels,
        preprocessing=Preprocessing(
            spacing_mm=(1.0, 1.0, 1.0), intensity=(Intensity(scheme="zscore"),)
        ),
        patch_size=(32, 32, 32),
        networks={"unet": NetworkPlan(options=options, learning_rate=1e-2)},
        recipe=Recipe(
            iterations_per_epoch=60, augmentation=Augmentation(rotation_deg=(0.0, 0.0, 0.0))
        ),
    )
    return segmed.train(
        manifest,
        plan,
        architecture="unet",
        fold=0,
        budget=Budget(epochs=2),
        out=tmp_path_factory.mktemp("run"),
        device="cpu",
    )


@pytest.fixture(scope="session")
def quantised(manifest: Manifest, package: ModelPackage) -> Quantised:
    """The package with its int8 network, accepted by wide limits."""
    return quantise(package, manifest, QuantisationRequest(windows=8, limits=WIDE))
