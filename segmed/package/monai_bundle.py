"""A MONAI bundle as a model package: its configuration is read, never executed.

MONAI's own parser calls what a configuration names. Here names are looked up in lists: the network
is one of MONAI's, each step before and after it has an equivalent in a plan, and whatever has none
is refused by name. Weights are loaded without pickle's powers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segmed.errors import PackageError, SegmedError
from segmed.io.digest import sha256_of_file
from segmed.models import build_model
from segmed.monai_networks import NETWORKS, PREFIX
from segmed.package.bundle_config import CONFIGS, BundleConfig, first_of, read_config
from segmed.package.bundle_steps import (
    input_channels,
    label_classes,
    output_rules,
    preprocessing_of,
    window_of,
)
from segmed.package.card import MAX_WEIGHTS_BYTES, require_size
from segmed.package.model_package import ModelPackage
from segmed.plan.schema import Augmentation, Plan, Recipe

WEIGHTS = ("model.safetensors", "model.pt", "model.pth")
STATE_KEYS = ("state_dict", "model", "network")
"""Keys below which a checkpoint may have the tensors of the network."""


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is a MONAI bundle."""
    return folder.is_dir() and any((folder / "configs" / name).is_file() for name in CONFIGS)


def package_of_bundle(folder: Path) -> ModelPackage:
    """Make a package of a MONAI bundle.

    Args:
        folder: The bundle: `configs/inference.json` (or yaml), `configs/metadata.json` and
            `models/model.pt` (or safetensors).

    Raises:
        PackageError: A file is missing or damaged, the network is none of MONAI's, or a step has no
            equivalent in a plan; the message names it.
    """
    config = read_config(folder)
    weights = first_of(folder / "models", WEIGHTS, "weights")
    name, options, spatial_dims = _network(config)
    in_channels, num_classes = (_count(options, key) for key in ("in_channels", "out_channels"))
    channels, labels = input_channels(config.metadata), label_classes(config.metadata)
    for what, stated, built in (
        ("inputs.image", len(channels), in_channels),
        ("outputs.pred", len(labels) + 1, num_classes),
    ):
        if stated != built:
            raise PackageError(
                f"{what}.channel_def of the bundle's metadata lists {stated} channels, its network "
                f"has {built}"
            )
    window, inference = window_of(config, spatial_dims)
    plan = Plan(
        name=str(config.metadata.get("name") or folder.resolve().name),
        spatial_dims=spatial_dims,
        channels=channels,
        labels=labels,
        preprocessing=preprocessing_of(config, len(channels), spatial_dims),
        patch_size=window,
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
        inference=inference.model_copy(update=output_rules(config, len(labels))),
    )
    return _package(name, options, plan, weights, config)


def _network(config: BundleConfig) -> tuple[str, dict[str, Any], Any]:
    """MONAI's name of the network, its arguments and its dimensions."""
    made = config.first(("network_def", "network", "net"))
    target = str(made.get("_target_", "")) if isinstance(made, dict) else ""
    name = target.rpartition(".")[2]
    if target not in {name, f"monai.networks.nets.{name}"} or name not in NETWORKS:
        raise PackageError(
            f"the bundle's network is {target or 'no component'!r}; imported are MONAI's "
            f"{', '.join(NETWORKS)}"
        )
    options = {key: value for key, value in made.items() if key != "_target_"}
    spatial_dims = options.pop("spatial_dims", 3)
    if spatial_dims not in (2, 3):
        raise PackageError(f"spatial_dims of the bundle's network must be 2 or 3: {spatial_dims!r}")
    return name, options, spatial_dims


def _count(options: dict[str, Any], key: str) -> int:
    value = options.pop(key, None)
    if not isinstance(value, int) or value < 1:
        raise PackageError(
            f"the bundle's network_def needs {key}, a positive number, got {value!r}"
        )
    return value


def _package(
    name: str, options: Mapping[str, Any], plan: Plan, weights: Path, config: BundleConfig
) -> ModelPackage:
    try:
        network = build_model(
            f"{PREFIX}{name}",
            spatial_dims=plan.spatial_dims,
            in_channels=plan.in_channels,
            num_classes=plan.num_classes,
            **options,
        )
    except SegmedError as error:
        raise PackageError(f"the bundle's network cannot be built: {error}") from error
    try:
        network.network.load_state_dict(_state(weights), strict=True)  # type: ignore[union-attr]  # a RegisteredNetwork
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise PackageError(f"{weights.name} does not fit {name}: {detail}") from error
    origin = {
        "name": plan.name,
        "version": config.metadata.get("version"),
        "weights_sha256": sha256_of_file(weights),
    }
    provenance = {"data": plan.name, "monai_bundle": origin}
    return ModelPackage(f"{PREFIX}{name}", options, plan, network.state_dict(), provenance)


def _state(weights: Path) -> dict[str, Tensor]:
    """Tensors of a weights file.

    Raises:
        PackageError: The file is damaged, or contains more than tensors and plain values.
    """
    require_size(weights, MAX_WEIGHTS_BYTES)
    try:
        if weights.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(weights)
            return tensors
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise PackageError(
            f"{weights} cannot be loaded as plain tensors (weights_only): "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    for key in STATE_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise PackageError(f"{weights} has no dictionary of tensors")
    return content
