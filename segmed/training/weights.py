"""Start a training from weights of the user."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

log = logging.getLogger(__name__)


def start_from(path: Path, network: nn.Module) -> None:
    """Load pretrained weights into a network and log what fitted.

    Args:
        path: A `.pth` or `.safetensors` file, or a torchvision or MedicalNet one.
        network: The network that is to be trained.

    Raises:
        WeightsError: The file cannot be read safely, or too little of it fits.
    """
    from segmed.models.weights import load_weights  # noqa: PLC0415 - needed where weights are brought only

    report = load_weights(network, path)
    log.info("%s", report)
