"""A package as a MONAI bundle: its config builds the network and loads the safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from segmed.encoding import REGION_THRESHOLD
from segmed.package import WEIGHTS_FILE, ModelPackage
from segmed.package.card import read_card
from segmed.plan import Plan

PACKAGE_IN_BUNDLE = "models"
"""Folder of the bundle that is a package itself."""


def write_bundle(source: Path, package: ModelPackage, out: Path) -> None:
    """Write the bundle.

    `monai.bundle.ConfigParser` on `configs/inference.json` gives the network with its weights under
    `network`, the plan's chain of transforms under `preprocessing` and its windows under `inferer`;
    `monai.bundle run` on it segments the images of `dataset_dir` into `output_dir`, as
    `segmed predict` would. Nothing in the bundle is a pickle.

    Args:
        source: The package folder.
        package: The same, loaded.
        out: Folder to make.

    Raises:
        UsageError: The networks have several plans.
    """
    package.require_one_plan("export bundle")
    (out / "configs").mkdir(parents=True)
    (out / PACKAGE_IN_BUNDLE).mkdir()
    for name in read_card(source).file_names:
        shutil.copyfile(source / name, out / PACKAGE_IN_BUNDLE / name)
    for name, content in (("metadata", _metadata(package)), ("inference", _inference(package))):
        text = json.dumps(content, indent=2)
        (out / "configs" / f"{name}.json").write_text(text, encoding="utf-8")


def _inference(package: ModelPackage) -> dict[str, Any]:
    plan = package.plan
    return {
        "imports": ["$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "cpu",
        **_network(package),
        "package": {
            "_target_": "segmed.package.ModelPackage.load",
            "path": f"$@bundle_root + '/{PACKAGE_IN_BUNDLE}'",
        },
        "preprocessing": {
            "_target_": "segmed.transforms.preparation",
            "plan": "$@package.plan",
            "read": {"_target_": "segmed.transforms.ReadCase", "num_channels": plan.in_channels},
        },
        "inferer": {"_target_": "segmed.inference.SlabInferer.of", "plan": "$@package.plan"},
        "predictor": {
            "_target_": "segmed.inference.Predictor",
            "packages": "@package",
            "device": "@device",
        },
        "outcomes": {
            "_target_": "segmed.inference.predict_files",
            "predictor": "@predictor",
            "inputs": "$[pathlib.Path(@dataset_dir)]",
            "out_dir": "$pathlib.Path(@output_dir)",
        },
        "run": ["$list(@outcomes)"],
    }


def _network(package: ModelPackage) -> dict[str, Any]:
    """The network under `network`: built and loaded here, or of an ensemble by the package."""
    if package.members > 1:
        return {"network": "$@package.build()"}
    return {
        "weights": f"$@bundle_root + '/{PACKAGE_IN_BUNDLE}/{WEIGHTS_FILE}'",
        "network_def": {
            "_target_": "segmed.models.build_model",
            "name": package.architecture,
            "spatial_dims": package.plan.spatial_dims,
            "in_channels": package.plan.in_channels,
            "num_classes": package.plan.num_classes,
            **({"has_regions": True} if package.plan.encoding.has_regions else {}),
            **package.options,
        },
        "state": {"_target_": "safetensors.torch.load_file", "filename": "@weights"},
        "load": "$@network_def.load_state_dict(@state)",
        "network": "$(@load, @network_def.eval())[1]",
    }


def _input_names(plan: Plan) -> dict[str, str]:
    """Names of the network's channels; those on further scales of part models are numbered."""
    names = [channel.name for channel in plan.channels]
    views = 1 + len(plan.preprocessing.more_intensities)
    listed = [
        name if view == 1 else f"{name}, scale {view}"
        for view in range(1, views + 1)
        for name in names
    ]
    return {str(number): name for number, name in enumerate(listed)}


def _painting(plan: Plan) -> dict[str, Any]:
    """From overlapping regions to a label map: the sigmoid's threshold and the values to paint."""
    if not plan.encoding.has_regions:
        return {}
    painted = [{"channel": n, "value": item.value} for n, item in enumerate(plan.labels)]
    return {"regions": {"sigmoid_above": REGION_THRESHOLD, "painted_in_order": painted}}


def _metadata(package: ModelPackage) -> dict[str, Any]:
    plan = package.plan
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by segmed"},
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "task": f"segmentation of {', '.join(label.name for label in plan.labels)}",
        "description": f"{package.architecture} trained on {plan.name}",
        "segmed_hash": package.hash,
        **_painting(plan),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "num_channels": plan.network_channels,
                    "spatial_shape": list(plan.patch_size),
                    "dtype": "float32",
                    "channel_def": _input_names(plan),
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": plan.num_classes,
                    "spatial_shape": list(plan.patch_size),
                    "dtype": "float32",
                    "channel_def": {
                        str(i): name for i, name in enumerate(plan.encoding.channel_names)
                    },
                }
            },
        },
    }
