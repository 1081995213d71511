"""Folders in the form of nnU-Net's results, with drawn weights: small, quick to make, as hostile
as a test needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmed.models import build_model
from segmed.nnunet.plans import read_configuration, read_labels

LABELS = {"background": 0, "anterior": 1, "posterior": 2}
REGIONS = {"background": 0, "whole": [1, 2], "posterior": 2}
CLASS = "dynamic_network_architectures.architectures.unet."


def plans_of(
    *,
    dims: int = 3,
    residual: bool = False,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    patch: Sequence[int] = (16, 16, 16),
    schemes: Sequence[str] = ("ZScoreNormalization",),
    masked: bool = False,
    transpose: Sequence[int] = (0, 1, 2),
) -> dict[str, Any]:
    """Content of a `plans.json` with one configuration."""
    count = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    architecture = {
        "network_class_name": CLASS + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 12],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * 3,
            "strides": [[1] * dims, [2] * dims, [2] * dims],
            count: [1, 2, 2] if residual else [2, 2, 2],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    resampling = "resample_data_or_seg_to_shape"
    rules = {"order_z": 0, "force_separate_z": None}
    name = "2d" if dims == 2 else "3d_fullres"
    return {
        "dataset_name": "Dataset777_drawn",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [list(transpose).index(axis) for axis in range(3)],
        "configurations": {
            name: {
                "data_identifier": f"nnUNetPlans_{name}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(patch),
                "spacing": list(spacing),
                "normalization_schemes": list(schemes),
                "use_mask_for_norm": [masked] * len(schemes),
                "resampling_fn_data": resampling,
                "resampling_fn_seg": resampling,
                "resampling_fn_probabilities": resampling,
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **rules},
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **rules},
                "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **rules},
                "architecture": architecture,
                "batch_dice": True,
            }
        },
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(number): {
                "mean": 350.0,
                "std": 170.0,
                "percentile_00_5": 40.0,
                "percentile_99_5": 880.0,
            }
            for number in range(len(schemes))
        },
    }


def write_folder(
    folder: Path,
    plans: Mapping[str, Any] | None = None,
    *,
    labels: Mapping[str, Any] = LABELS,
    folds: Sequence[str] = ("0",),
    trainer: str = "nnUNetTrainer",
    mirror_axes: Sequence[int] | None = (0, 1, 2),
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a trained folder with drawn weights.

    Args:
        folder: Where `plans.json` goes.
        plans: From `plans_of`.
        labels: As in `dataset.json`.
        folds: Folds, each with other weights.
        trainer: Name of the trainer in the checkpoints.
        mirror_axes: Axes that may be mirrored; None leaves them out.
        extra: Further entries of the checkpoints.
    """
    plans = dict(plans or plans_of())
    (name,) = plans["configurations"]
    channels = len(plans["configurations"][name]["normalization_schemes"])
    dataset = {
        "channel_names": {str(number): f"MR{number}" for number in range(channels)},
        "labels": dict(labels),
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    if any(isinstance(value, list) for value in labels.values()):
        dataset["regions_class_order"] = [1, 2]
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    (folder / "dataset_fingerprint.json").write_text("{}", encoding="utf-8")
    for fold in folds:
        checkpoint = {
            "network_weights": drawn_weights(plans, dataset, name, seed=len(fold) + ord(fold[0])),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "epoch_end_timestamps": [1.0]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "init_args": {
                "plans": plans,
                "configuration": name,
                "fold": 0,
                "dataset_json": dataset,
            },
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": mirror_axes,
            **(extra or {}),
        }
        if mirror_axes is None:
            del checkpoint["inference_allowed_mirroring_axes"]
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def drawn_weights(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], name: str, seed: int
) -> dict[str, torch.Tensor]:
    """Weights under all the names that nnU-Net stores them under."""
    try:
        options = asdict(read_configuration(plans, dataset, name).network)
    except Exception:  # noqa: BLE001 - a folder that is to be refused has any weights
        return {"encoder.weight": torch.zeros(1)}
    labels = read_labels(dataset)
    network = build_model(
        "nnunet",
        spatial_dims=len(plans["configurations"][name]["patch_size"]),
        in_channels=len(dataset["channel_names"]),
        num_classes=len(labels.values) + (not labels.has_regions),
        **options,
    )
    generator = np.random.default_rng(seed)
    state = {}
    for key, value in sorted(network.state_dict().items()):
        drawn = generator.normal(size=tuple(value.shape)) * 0.3
        one = torch.from_numpy(drawn.astype(np.float32) + (1.0 if ".norm.weight" in key else 0.0))
        for other in (key, *_twins(key)):
            state[other] = one
            if other.startswith("encoder."):
                state[f"decoder.{other}"] = one
    return state


def _twins(key: str) -> list[str]:
    """The other name of a layer of a convolution unit."""
    head, _, last = key.rpartition(".")
    unit, _, layer = head.rpartition(".")
    number = {"conv": 0, "norm": 1}.get(layer)
    return [] if number is None else [f"{unit}.all_modules.{number}.{last}"]
