"""Start a training from weights of the user: of a file, or of a model that nnU-Net trained."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from segmed.errors import UsageError
from segmed.io.digest import sha256_of_file
from segmed.models.weights import WeightsReport, load_weights
from segmed.nnunet.to_unet import (
    UNetStart,
    digest_of_fold,
    is_nnunet_source,
    open_fold,
    start_unet,
)
from segmed.package.card import CARD_FILE, WEIGHTS_FILE
from segmed.plan import Plan
from segmed.plan.built import planned_network

log = logging.getLogger(__name__)

ARCHITECTURE = "unet"
"""Architecture that starts from nnU-Net's weights."""


def start_from(path: Path, network: nn.Module, plan: Plan) -> WeightsReport | UNetStart:
    """Load pretrained weights into a network and log what fitted.

    Args:
        path: A `.pth` or `.safetensors` file, also a torchvision or MedicalNet one; or a folder,
            zip, fold or checkpoint of nnU-Net results.
        network: The network that is to be trained.
        plan: Its plan.

    Raises:
        WeightsError: The file cannot be read safely, or too little of it fits.
        PackageError: The folder is no trained nnU-Net model, or is damaged.
    """
    report = (
        start_unet(network, open_fold(path), plan)
        if is_nnunet_source(path)
        else load_weights(network, path)
    )
    log.info("%s", report)
    return report


def check_weights(path: Path, architecture: str) -> None:
    """Refuse a package as weights, and nnU-Net's for another architecture than the U-Net.

    Raises:
        UsageError: They are a package, or are for another architecture.
    """
    if (path / CARD_FILE).is_file():
        raise UsageError(
            f"--weights {path} is a package: give its {WEIGHTS_FILE}, which starts a network of "
            "its architecture"
        )
    if is_nnunet_source(path) and architecture != ARCHITECTURE:
        raise UsageError(
            f"--weights {path}: a model of nnU-Net starts a U-Net, not {architecture}: give "
            f"--model {ARCHITECTURE}, or a .pth or .safetensors file"
        )


def check_start(path: Path, architecture: str, plan: Plan) -> WeightsReport | UNetStart | None:
    """Start the network of a plan from weights once, so that misfits show before any work is done.

    Returns:
        Report on what fits; None for a plan without such a network, which the training refuses.

    Raises:
        WeightsError: The file cannot be read safely, or too little of it fits.
        PackageError: The folder is no trained nnU-Net model, or is damaged.
    """
    if architecture not in plan.networks:
        return None
    network = planned_network(plan, architecture, plan.networks[architecture].options)
    return start_from(path, network, plan)


def weights_digest(path: Path) -> str:
    """sha256 of the weights at a path; of nnU-Net results that of the fold that is taken."""
    return digest_of_fold(path) if is_nnunet_source(path) else sha256_of_file(path)


def origin_of(path: Path | None) -> dict[str, str]:
    """Provenance of a network that started from weights; nothing for one that did not."""
    if path is None:
        return {}
    if not is_nnunet_source(path):
        return {"started_from": f"weights with sha256 {weights_digest(path)}"}
    found = open_fold(path)
    about = found.configuration
    words = [about.dataset, found.checkpoints[0].trainer, about.plans_name, about.name]
    return {
        "started_from": f"nnU-Net {', '.join(words)}, fold {found.folds[0]}, sha256 "
        f"{weights_digest(path)}"
    }
