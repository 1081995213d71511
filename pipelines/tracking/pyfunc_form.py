"""A model package in the form that MLflow serves: the package as an artifact, code beside it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import segmed
from pipelines.tracking.serving import COLUMNS, OUTPUT_FOLDER
from segmed.io.links import link_or_copy

MODEL_FOLDER = "model"
"""Folder of the servable model among a run's artifacts."""

PACKAGE_INSIDE = "artifacts/package"
"""Folder of the package inside of it."""

REQUIREMENTS = (
    "mlflow",
    "torch",
    "monai",
    "contourpy",
    "numpy",
    "scipy",
    "pandas",
    "pydantic",
    "PyYAML",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "safetensors",
    "pillow",
    "tifffile",
    "psutil",
)
"""What serving needs, pinned to the versions at hand."""

NOT_CODE = ("__pycache__", "*.pyc")
"""Files of the library's folder that are made anew wherever it runs.

All else is shipped: a copy without some of its packages hides an installed wheel, and fails at the
first import that it lacks.
"""


def signature() -> ModelSignature:
    """Return the input and output signature."""
    inputs = [
        ColSpec("string", "image", required=False),
        ColSpec("string", "name", required=False),
        ColSpec("string", "content", required=False),
    ]
    outputs = [ColSpec("string", name) for name in COLUMNS]
    params = ParamSchema([ParamSpec("output_dir", "string", OUTPUT_FOLDER)])
    return ModelSignature(Schema(inputs), Schema(outputs), params)


def save_pyfunc(package: Path, target: Path) -> Path:
    """Write a package folder in MLflow's form.

    Args:
        package: The package folder.
        target: Folder to make; must not exist.

    Returns:
        The folder, which `mlflow models serve -m` takes.
    """
    with tempfile.TemporaryDirectory(prefix="segmed-code-") as scratch:
        code = Path(scratch) / "segmed"
        source = Path(segmed.__file__).parent
        shutil.copytree(source, code, ignore=shutil.ignore_patterns(*NOT_CODE))
        named = Path(scratch) / "package"  # MLflow keeps the folder's own name
        shutil.copytree(package, named, copy_function=link_or_copy)
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"package": str(named)},
            code_paths=[str(code)],
            signature=signature(),
            input_example=pd.DataFrame({"image": ["image.nii.gz"]}),
            pip_requirements=_pinned(),
            metadata={"package_hash": package_hash(package)},
        )
    return target


def package_hash(package: Path) -> str:
    """The hash that a package states of itself; loading the package checks it."""
    card: dict[str, Any] = json.loads((package / "package.json").read_text(encoding="utf-8"))
    return str(card["hash"])


def _pinned() -> list[str]:
    pins = []
    for name in REQUIREMENTS:
        try:
            version = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
        pins.append(f"{name}=={version}")
    return pins
