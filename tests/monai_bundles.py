"""A MONAI bundle as others write it: a UNet, its preprocessing, window and metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": "@classes",
    "channels": [4, 8, 8],
    "strides": [2, 2],
    "norm": "batch",
}

INFERENCE: dict[str, Any] = {
    "imports": ["$import glob"],
    "bundle_root": ".",
    "classes": 3,
    "window": [32, 32, 32],
    "dataset_dir": "$@bundle_root + '/data'",
    "device": "$torch.device('cpu')",
    "network_def": UNET,
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "image_only": "$True"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0]},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": 10,
                "a_max": 400,
                "b_min": -1,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": "@window",
        "sw_batch_size": 4,
        "overlap": 0.5,
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@dataset_dir"},
        ],
    },
}

METADATA: dict[str, Any] = {
    "name": "Hippocampus",
    "version": "0.4.2",
    "network_data_format": {
        "inputs": {"image": {"modality": "MR", "channel_def": {"0": "T1"}}},
        "outputs": {
            "pred": {"channel_def": {"0": "background", "1": "anterior", "2": "posterior"}}
        },
    },
}


def write_bundle(
    folder: Path, content: dict[str, Any], state: Any, metadata: dict[str, Any] | None = None
) -> Path:
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/inference.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "configs/metadata.json").write_text(
        json.dumps(metadata or METADATA), encoding="utf-8"
    )
    torch.save(state, folder / "models/model.pt")
    return folder
