"""One embedded MLflow database for all tests of the edge: making one takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_data import tiny_plan

from pipelines.tracking.runs import connect_quietly
from segmed.manifest import Case, Channel, LabelClass, Manifest
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import Augmentation, Intensity, NetworkPlan, Plan, Preprocessing, Recipe


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect_quietly(f"sqlite:///{path}")
    return path


@pytest.fixture
def working_folder(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an MLflow database, which is also the current one."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Two training cases whose files are any bytes."""
    cases = []
    for index in range(2):
        name = f"case{index}"
        for kind in ("image", "label"):
            (tmp_path / f"{name}_{kind}.nii").write_bytes(f"{name}{kind}".encode())
        cases.append(
            Case(
                id=name,
                group=name,
                image=(f"{name}_image.nii",),
                label=f"{name}_label.nii",
                fold=index,
            )
        )
    return Manifest(
        name="hippo",
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        root=tmp_path,
    )


@pytest.fixture
def plan() -> Plan:
    """A plan for a small 3D U-Net."""
    return Plan(
        name="hippo",
        spatial_dims=3,
        channels=(Channel(name="T1", modality="MR"),),
        labels=LABELS,
        preprocessing=Preprocessing(
            spacing_mm=(1.0, 1.0, 1.0), intensity=(Intensity(scheme="zscore"),)
        ),
        patch_size=(16, 16, 16),
        networks={
            "unet": NetworkPlan(options={"widths": [4, 8]}, learning_rate=1e-3),
        },
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0, 0.0, 0.0))),
    )


@pytest.fixture(scope="session")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained package that says so."""
    plan = tiny_plan()
    options = plan.networks["unet"].options
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    package = ModelPackage("unet", options, plan, network.state_dict(), {"note": "untrained"})
    return package.save(tmp_path_factory.mktemp("model") / "package")
